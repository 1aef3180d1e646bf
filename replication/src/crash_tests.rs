//! Stops the writer between any two stores and looks at what a restart finds (S9, S6, L7).

use std::collections::{BTreeMap, BTreeSet};

use crate::config::RingConfig;
use crate::layout::SUPERBLOCK;
use crate::map::Map;
use crate::map::journal::Step;
use crate::record::{CallId, Kind, Version};
use crate::ring::{Origin, Recovery, Ring};

type State = BTreeMap<CallId, (Version, Vec<u8>)>;

fn config() -> RingConfig {
    RingConfig {
        node: 1,
        young_bytes: 4096,
        old_bytes: 8192,
        payload_bytes_max: 160,
        calls_max: 40,
        secret: 0x5eed,
        ..RingConfig::default()
    }
}

fn new_ring() -> Ring {
    let config = config();
    let young = Map::heap(SUPERBLOCK + config.young_bytes as usize);
    let old = Map::heap(SUPERBLOCK + config.old_bytes as usize);
    Ring::create(young, old, &config).expect("the configuration is possible")
}

fn state(ring: &Ring) -> State {
    ring.iter_live()
        .map(|r| (r.meta.id, (r.meta.version, r.payload.to_vec())))
        .collect()
}

fn reopen(young: &[u8], old: &[u8]) -> (Ring, Recovery) {
    let opened = Ring::open(Map::heap_copy(young), Map::heap_copy(old), &config());
    let (ring, recovery) = opened.expect("a ring that was interrupted opens");
    ring.verify();
    (ring, recovery)
}

/// A small generator, so that the test needs no randomness of its own.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// One random operation; true if the ring took it.
fn operate(ring: &mut Ring, draw: &mut Draw, ids: &mut Vec<CallId>) {
    let pick = |draw: &mut Draw, ids: &[CallId]| ids[draw.below(ids.len() as u64) as usize];
    let byte = draw.below(256) as u8;
    let len = draw.below(160) as usize;
    match draw.below(10) {
        0..=2 => {
            let id = ring.next_id();
            if ring.put(id, 1, 1, &vec![byte; len]).is_ok() {
                ids.push(id);
            }
        }
        3 if !ids.is_empty() => drop(ring.put(pick(draw, ids), 2, 1, &vec![byte; len])),
        4..=6 if !ids.is_empty() => drop(ring.update(pick(draw, ids), |bytes| bytes.fill(byte))),
        7..=8 if ids.len() > 4 => {
            let at = draw.below(ids.len() as u64) as usize;
            ring.retire(ids.swap_remove(at))
                .expect("the call is live and the ring has room");
        }
        _ => drop(ring.reclaim_idle(3)),
    }
}

fn apply_plain(image: &mut [u8], step: &Step, chunks: usize) {
    for (at, bytes) in &step.plain[..chunks] {
        image[*at..at + bytes.len()].copy_from_slice(bytes);
    }
}

#[test]
fn every_prefix_of_the_stores_recovers_to_the_last_committed_record() {
    let (mut ring, mut draw, mut ids) = (new_ring(), Draw(0x1234_5678_9abc), Vec::new());
    let rounds = if cfg!(miri) { 20 } else { 1200 };
    let mut promoted_under_watch = 0;
    for _ in 0..rounds {
        let before = state(&ring);
        let (mut young, mut old) = ring.image();
        ring.journal_start();
        let bytes_before = ring.counters().bytes_promoted + ring.counters().bytes_relocated;
        operate(&mut ring, &mut draw, &mut ids);
        let bytes_after = ring.counters().bytes_promoted + ring.counters().bytes_relocated;
        promoted_under_watch += u64::from(bytes_after > bytes_before);
        ring.verify();
        let after = state(&ring);
        let mut committed = false;
        for (is_young, step) in ring.journal_take() {
            let image = if is_young { &mut young } else { &mut old };
            apply_plain(image, &step, step.plain.len() / 2);
            committed = check_prefix(&young, &old, &before, &after, committed);
            let image = if is_young { &mut young } else { &mut old };
            apply_plain(image, &step, step.plain.len());
            committed = check_prefix(&young, &old, &before, &after, committed);
            let image = if is_young { &mut young } else { &mut old };
            image[step.at..step.at + 8].copy_from_slice(&step.value.to_le_bytes());
            committed = check_prefix(&young, &old, &before, &after, committed);
        }
        assert_eq!(
            state(&reopen(&young, &old).0),
            after,
            "what was acknowledged is there"
        );
    }
    assert!(
        cfg!(miri) || promoted_under_watch > 100,
        "the rings were too large to reclaim"
    );
}

// A tombstone that goes round is known whenever the move is cut short.
#[test]
fn no_prefix_of_the_stores_loses_a_tombstone_that_is_kept() {
    let (mut ring, mut draw, mut ids) = (new_ring(), Draw(0x9876_5432_1fed), Vec::new());
    ring.set_settled(false);
    let mut ended = BTreeSet::new();
    let rounds = if cfg!(miri) { 20 } else { 1200 };
    for _ in 0..rounds {
        let (mut young, mut old) = ring.image();
        let before: Vec<CallId> = ids.clone();
        ring.journal_start();
        operate(&mut ring, &mut draw, &mut ids);
        ring.verify();
        let steps = ring.journal_take();
        ended.retain(|&id| ring.newest_or_tombstone(id).is_some());
        for (is_young, step) in steps {
            let image = if is_young { &mut young } else { &mut old };
            apply_plain(image, &step, step.plain.len());
            check_ended(&young, &old, &ended);
            let image = if is_young { &mut young } else { &mut old };
            image[step.at..step.at + 8].copy_from_slice(&step.value.to_le_bytes());
            check_ended(&young, &old, &ended);
        }
        let gone = before.into_iter().filter(|id| !ids.contains(id));
        ended.extend(gone.filter(|&id| ring.newest_or_tombstone(id).is_some()));
    }
    let kept = ring.counters().tombstones_kept;
    assert!(cfg!(miri) || kept > 30, "{kept}");
}

fn check_ended(young: &[u8], old: &[u8], ended: &BTreeSet<CallId>) {
    let (ring, _) = reopen(young, old);
    for &id in ended {
        let held = ring.newest_or_tombstone(id).map(|held| held.meta.kind);
        assert_eq!(held, Some(Kind::Del));
    }
}

/// Recovery must find the state before the operation or after it, and once after, always after.
fn check_prefix(young: &[u8], old: &[u8], before: &State, after: &State, committed: bool) -> bool {
    let (ring, recovery) = reopen(young, old);
    assert_eq!((recovery.origin, recovery.corrupt), (Origin::Recovered, 0));
    let found = state(&ring);
    if found == *after {
        return committed || before != after;
    }
    assert!(!committed, "a committed record stays committed");
    assert_eq!(found, *before, "an uncommitted record leaves no trace");
    false
}

#[test]
fn a_flipped_bit_at_any_byte_of_a_record_is_detected() {
    let mut ring = new_ring();
    let id = ring.next_id();
    ring.put(id, 1, 1, &[1; 150])
        .expect("an empty ring has room");
    let start = ring.young_head_at();
    ring.update(id, |bytes| bytes.fill(2))
        .expect("the call is live");
    let (mut young, old) = ring.image();
    // The first version as it was before it was marked dead.
    young[SUPERBLOCK + 7] &= 0x7f;
    let size = 64 + 150;
    for at in start..start + size {
        for bit in [0x01, 0x40] {
            let mut torn = young.clone();
            torn[at] ^= bit;
            let (ring, _) = reopen(&torn, &old);
            let found = ring.newest(id).expect("the former version is still there");
            assert_eq!(found.payload, [1; 150], "byte {} of the record", at - start);
        }
    }
}

#[test]
fn a_record_cut_short_at_any_byte_is_as_if_never_written() {
    let mut ring = new_ring();
    let id = ring.next_id();
    ring.put(id, 1, 1, &[1; 150])
        .expect("an empty ring has room");
    let start = ring.young_head_at();
    let (former, old) = ring.image();
    ring.update(id, |bytes| bytes.fill(2))
        .expect("the call is live");
    let (young, _) = ring.image();
    for cut in 0..=64 + 150 {
        let mut torn = former.clone();
        // The commit word is stored last; a cut before it leaves it as it was.
        torn[start + 8..start + 8 + cut.min(206)]
            .copy_from_slice(&young[start + 8..start + 8 + cut.min(206)]);
        let (ring, recovery) = reopen(&torn, &old);
        assert_eq!(recovery.records, 1);
        assert_eq!(
            ring.newest(id).expect("the call is there").payload,
            [1; 150]
        );
    }
}

#[test]
fn a_damaged_record_amid_others_costs_only_itself() {
    let mut ring = new_ring();
    let ids: Vec<_> = (0..3).map(|_| ring.next_id()).collect();
    for (n, &id) in ids.iter().enumerate() {
        ring.put(id, 1, 1, &[n as u8; 100])
            .expect("an empty ring has room");
    }
    let (mut young, old) = ring.image();
    young[SUPERBLOCK + 192 + 70] ^= 1;
    let (ring, recovery) = reopen(&young, &old);
    assert_eq!((recovery.corrupt, recovery.calls), (1, 2));
    assert!(ring.newest(ids[1]).is_none());
    assert_eq!(
        ring.newest(ids[2]).expect("behind the damage").payload,
        [2; 100]
    );
}

#[test]
fn a_retired_call_does_not_rise_again_from_the_old_ring() {
    let mut ring = new_ring();
    let id = ring.next_id();
    ring.put(id, 1, 1, &[7; 100])
        .expect("an empty ring has room");
    // Other traffic pushes it into the old ring.
    while ring.counters().bytes_promoted == 0 {
        let other = ring.next_id();
        ring.put(other, 1, 1, &[0; 100]).expect("calls end at once");
        ring.retire(other).expect("the call is live");
    }
    ring.retire(id).expect("the call is live");
    let dropped = ring.counters().tombstones_dropped;
    // And its tombstone out of the young one.
    while ring.counters().tombstones_dropped < dropped + 40 {
        let other = ring.next_id();
        ring.put(other, 1, 1, &[0; 100]).expect("calls end at once");
        ring.retire(other).expect("the call is live");
    }
    assert!(ring.newest_or_tombstone(id).is_none());
    let (young, old) = ring.image();
    let (ring, _) = reopen(&young, &old);
    assert!(ring.newest(id).is_none());
}

#[test]
fn fields_of_padding_are_ignored() {
    let mut ring = new_ring();
    let mut pads = 0;
    for _ in 0..200 {
        let id = ring.next_id();
        ring.put(id, 1, 1, &[0xff; 150]).expect("calls end at once");
        ring.retire(id).expect("the call is live");
        let (mut young, old) = ring.image();
        let kinds = (SUPERBLOCK..young.len()).step_by(64);
        let pad = kinds.into_iter().find(|at| young[at + 54] == 3);
        if let Some(at) = pad {
            // Everything but length and kind.
            young[at + 12..at + 54].fill(0xff);
            young[at + 55..at + 64].fill(0xff);
            pads += 1;
        }
        let rseq = ring.rseq();
        assert_eq!(reopen(&young, &old).0.rseq(), rseq);
    }
    assert!(pads > 0);
}

#[test]
fn a_ring_half_created_is_created_anew() {
    let mut ring = new_ring();
    let id = ring.next_id();
    ring.put(id, 1, 1, &[1; 10])
        .expect("an empty ring has room");
    let (mut young, old) = ring.image();
    young[..8].fill(0);
    let (ring, recovery) = reopen(&young, &old);
    assert_eq!((recovery.origin, ring.calls()), (Origin::Created, 0));
}
