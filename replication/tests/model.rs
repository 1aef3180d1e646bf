//! A ring against a map, with a restart at any point (S6, S9, S11, L7).

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use replication::layout::SUPERBLOCK;
use replication::{Applied, CallId, Kind, Map, Meta, Ring, RingConfig, RingError, Version};

const NODE: u16 = 1;
const PEER: u16 = 2;
const CALLS_MAX: usize = 90;

#[derive(Clone, Debug)]
enum Op {
    New {
        len: usize,
        byte: u8,
    },
    Put {
        pick: usize,
        epoch: u32,
        len: usize,
        byte: u8,
    },
    Update {
        pick: usize,
        byte: u8,
    },
    GiveUp {
        pick: usize,
    },
    Retire {
        pick: usize,
    },
    Apply {
        pick: usize,
        epoch: u32,
        ver: u32,
        del: bool,
        len: usize,
    },
    Adopt {
        pick: usize,
        epoch: u32,
    },
    Forget {
        pick: usize,
    },
    Reclaim {
        budget: u32,
    },
    Reopen {
        in_order: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    version: Version,
    owner: u16,
    /// None: a tombstone.
    payload: Option<Vec<u8>>,
}

struct Pair {
    ring: Ring,
    config: RingConfig,
    model: BTreeMap<CallId, Held>,
    ids: Vec<CallId>,
    minted: BTreeSet<CallId>,
}

impl Pair {
    fn new(young_bytes: u64, old_bytes: u64) -> Self {
        let percent = RingConfig::default().high_water_percent;
        Self::shut_at(percent, young_bytes, old_bytes)
    }

    fn shut_at(high_water_percent: u8, young_bytes: u64, old_bytes: u64) -> Self {
        let config = RingConfig {
            node: NODE,
            secret: 99,
            young_bytes,
            old_bytes,
            payload_bytes_max: 120,
            calls_max: CALLS_MAX,
            high_water_percent,
            ..RingConfig::default()
        };
        let map = |bytes: u64| Map::heap(SUPERBLOCK + bytes as usize);
        let ring = Ring::create(map(young_bytes), map(old_bytes), &config);
        let ring = ring.expect("a possible configuration");
        Self {
            ring,
            config,
            model: BTreeMap::new(),
            ids: Vec::new(),
            minted: BTreeSet::new(),
        }
    }

    fn id(&self, pick: usize) -> CallId {
        if self.ids.is_empty() {
            return CallId::new(PEER, 0, 1, pick as u64);
        }
        self.ids[pick % self.ids.len()]
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::New { len, byte } => {
                let id = self.ring.next_id();
                assert!(
                    self.minted.insert(id),
                    "an id is minted once, restarts or not"
                );
                self.ids.push(id);
                self.put(id, 1, &vec![byte; len]);
            }
            Op::Put {
                pick,
                epoch,
                len,
                byte,
            } => self.put(self.id(pick), epoch, &vec![byte; len]),
            Op::Update { pick, byte } => self.update(self.id(pick), byte),
            Op::GiveUp { pick } => {
                let result = self.ring.try_update(self.id(pick), |bytes| {
                    bytes.fill(0);
                    None
                });
                assert!(result.is_err());
            }
            Op::Retire { pick } => self.retire(self.id(pick)),
            Op::Apply {
                pick,
                epoch,
                ver,
                del,
                len,
            } => {
                self.apply(self.id(pick), Version { epoch, ver }, del, len);
            }
            Op::Adopt { pick, epoch } => self.adopt(self.id(pick), epoch),
            Op::Forget { pick } => {
                let id = self.id(pick);
                let known = self.ring.newest_or_tombstone(id).is_some();
                assert_eq!(self.ring.forget(id), known);
                self.model.remove(&id);
            }
            Op::Reclaim { budget } => assert!(self.ring.reclaim_idle(budget) <= budget),
            Op::Reopen { in_order } => self.reopen(in_order),
        }
        self.compare();
    }

    fn put(&mut self, id: CallId, epoch: u32, payload: &[u8]) {
        let result = self.ring.put(id, epoch, 1, payload);
        let held = self.model.get(&id);
        let expected = match held {
            None => Ok(Version::first(epoch)),
            Some(Held { payload: None, .. }) => Err(RingError::Retired),
            Some(held) if held.owner != NODE => Err(RingError::NotOwner),
            Some(held) if held.version.epoch > epoch => Err(RingError::StaleEpoch),
            Some(held) if held.version.epoch == epoch => Ok(held.version.next().expect("few")),
            Some(_) => Ok(Version::first(epoch)),
        };
        if let Err(RingError::Full | RingError::IndexFull) = result {
            assert!(
                self.ring.fill() > 20.0 || self.model.len() >= CALLS_MAX,
                "refused for no reason"
            );
            return;
        }
        assert_eq!(result, expected);
        if let Ok(version) = result {
            let held = Held {
                version,
                owner: NODE,
                payload: Some(payload.to_vec()),
            };
            self.model.insert(id, held);
        }
    }

    fn update(&mut self, id: CallId, byte: u8) {
        let result = self.ring.update(id, |bytes| {
            if let Some(first) = bytes.first_mut() {
                *first = byte;
            }
        });
        match self.model.get_mut(&id) {
            None => assert_eq!(result, Err(RingError::Unknown)),
            Some(Held { payload: None, .. }) => assert_eq!(result, Err(RingError::Retired)),
            Some(held) if held.owner != NODE => assert_eq!(result, Err(RingError::NotOwner)),
            Some(held) => {
                held.version = held.version.next().expect("few updates");
                assert_eq!(
                    result,
                    Ok(held.version),
                    "an update is never refused for room"
                );
                let payload = held.payload.as_mut().expect("checked above");
                if let Some(first) = payload.first_mut() {
                    *first = byte;
                }
            }
        }
    }

    fn retire(&mut self, id: CallId) {
        let result = self.ring.retire(id);
        match self.model.get_mut(&id) {
            None => assert_eq!(result, Err(RingError::Unknown)),
            Some(Held { payload: None, .. }) => assert_eq!(result, Err(RingError::Retired)),
            Some(held) if held.owner != NODE => assert_eq!(result, Err(RingError::NotOwner)),
            Some(held) => {
                held.version = held.version.next().expect("few updates");
                held.payload = None;
                assert_eq!(result, Ok(held.version), "ending a call is never refused");
            }
        }
    }

    fn apply(&mut self, id: CallId, version: Version, del: bool, len: usize) {
        // Equal versions carry equal bytes, as from a real peer.
        let payload = vec![(version.epoch * 16 + version.ver) as u8; if del { 0 } else { len }];
        let meta = Meta {
            id,
            version,
            rseq: 1,
            owner: PEER,
            shard: 0,
            schema: 1,
            kind: if del { Kind::Del } else { Kind::Put },
            flags: 0,
            written: 5,
        };
        let result = self.ring.apply(meta, &payload);
        let theirs = Held {
            version,
            owner: PEER,
            payload: (!del).then_some(payload),
        };
        let expected = match self.model.get(&id) {
            Some(held) if held.version > version => Applied::Stale,
            Some(held) if held.version == version && held.payload == theirs.payload => {
                Applied::Duplicate
            }
            Some(held) if held.version == version => Applied::Conflict,
            _ => Applied::Stored,
        };
        match result {
            Err(RingError::Full | RingError::IndexFull) => assert_eq!(expected, Applied::Stored),
            _ => assert_eq!(result, Ok(expected)),
        }
        if result == Ok(Applied::Stored) {
            self.model.insert(id, theirs);
            if !self.ids.contains(&id) {
                self.ids.push(id);
            }
        }
    }

    fn adopt(&mut self, id: CallId, epoch: u32) {
        let result = self.ring.adopt(id, epoch, |_| {});
        match self.model.get_mut(&id) {
            None => assert_eq!(result, Err(RingError::Unknown)),
            Some(Held { payload: None, .. }) => assert_eq!(result, Err(RingError::Retired)),
            Some(held) if epoch <= held.version.epoch => {
                assert_eq!(result, Err(RingError::StaleEpoch));
            }
            Some(held) => {
                held.version = Version::first(epoch);
                held.owner = NODE;
                assert_eq!(result, Ok(held.version));
            }
        }
    }

    fn reopen(&mut self, in_order: bool) {
        let blank = Pair::new(self.config.young_bytes, self.config.old_bytes).ring;
        let ring = std::mem::replace(&mut self.ring, blank);
        let (incarnation, rseq) = (ring.incarnation(), ring.rseq());
        let (young, old) = ring.image();
        if in_order {
            ring.close();
        }
        let (young, old) = (Map::heap_copy(&young), Map::heap_copy(&old));
        let (ring, recovery) = Ring::open(young, old, &self.config).expect("a ring reopens");
        assert_eq!((recovery.corrupt, recovery.torn), (0, 0));
        assert_eq!(recovery.incarnation_former, incarnation);
        assert!(ring.incarnation() > incarnation);
        assert!(ring.rseq() <= rseq);
        self.ring = ring;
    }

    fn compare(&mut self) {
        self.ring.verify();
        let live: BTreeMap<_, _> = self
            .ring
            .iter_live()
            .map(|r| {
                (
                    r.meta.id,
                    (r.meta.version, r.meta.owner, r.payload.to_vec()),
                )
            })
            .collect();
        // A tombstone may be forgotten once it has left the young ring; nothing else may.
        let ring = &self.ring;
        self.model
            .retain(|id, held| held.payload.is_some() || ring.newest_or_tombstone(*id).is_some());
        let expected: BTreeMap<_, _> = self
            .model
            .iter()
            .filter_map(|(id, held)| Some((*id, (held.version, held.owner, held.payload.clone()?))))
            .collect();
        assert_eq!(live, expected);
        for (id, held) in &self.model {
            let newest = self.ring.newest(*id);
            assert_eq!(newest.map(|r| r.payload.to_vec()), held.payload);
        }
    }
}

fn op() -> impl Strategy<Value = Op> {
    let (pick, len) = (0..64_usize, 0..=120_usize);
    prop_oneof![
        6 => (len.clone(), any::<u8>()).prop_map(|(len, byte)| Op::New { len, byte }),
        3 => (pick.clone(), 1..4_u32, len.clone(), any::<u8>())
            .prop_map(|(pick, epoch, len, byte)| Op::Put { pick, epoch, len, byte }),
        8 => (pick.clone(), any::<u8>()).prop_map(|(pick, byte)| Op::Update { pick, byte }),
        1 => pick.clone().prop_map(|pick| Op::GiveUp { pick }),
        4 => pick.clone().prop_map(|pick| Op::Retire { pick }),
        4 => (pick.clone(), 1..4_u32, 1..5_u32, any::<bool>(), len)
            .prop_map(|(pick, epoch, ver, del, len)| Op::Apply { pick, epoch, ver, del, len }),
        1 => (pick.clone(), 2..5_u32).prop_map(|(pick, epoch)| Op::Adopt { pick, epoch }),
        1 => pick.prop_map(|pick| Op::Forget { pick }),
        2 => (0..12_u32).prop_map(|budget| Op::Reclaim { budget }),
        1 => any::<bool>().prop_map(|in_order| Op::Reopen { in_order }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_ring_is_a_map_that_survives_restarts(
        ops in prop::collection::vec(op(), 1..300),
        young in 48..80_u64,
        old in 48..120_u64,
    ) {
        let mut pair = Pair::new(young * 64, old * 64);
        for op in &ops {
            pair.run(op);
        }
    }
}

#[test]
fn a_full_ring_refuses_new_calls_and_goes_on_with_the_old() {
    let mut pair = Pair::new(64 * 64, 200 * 64);
    let mut ids = Vec::new();
    let mut let_in = 0;
    let error = loop {
        let (id, is_open) = (pair.ring.next_id(), pair.ring.is_open());
        match pair.ring.put(id, 1, 1, &[1; 100]) {
            Ok(_) => ids.push(id),
            Err(error) => break error,
        }
        let_in += usize::from(is_open);
        assert_eq!(let_in == ids.len(), is_open, "the gate stays shut");
    };
    assert!(
        let_in + 1 < ids.len(),
        "it shuts before anything is refused"
    );
    assert_eq!(error, RingError::Full);
    assert!(!pair.ring.is_open());
    for round in 0..2000 {
        let id = ids[round * 7 % ids.len()];
        pair.ring
            .update(id, |bytes| bytes[0] = round as u8)
            .expect("held calls go on");
    }
    pair.ring.verify();
    assert_eq!(pair.ring.counters().reclaim_stuck, 0);
    assert_eq!(pair.ring.counters().put_refused, 1);
    pair.ring.retire(ids[0]).expect("a held call may end");
    pair.ring.retire(ids[1]).expect("a held call may end");
    let id = pair.ring.next_id();
    pair.ring
        .put(id, 1, 1, &[1; 100])
        .expect("room for one more");
}

#[test]
fn new_calls_leave_room_for_what_is_held_to_grow_and_to_end() {
    let mut pair = Pair::new(64 * 64, 200 * 64);
    let mut ids = Vec::new();
    loop {
        let id = pair.ring.next_id();
        match pair.ring.put(id, 1, 1, &[1; 60]) {
            Ok(_) => ids.push(id),
            Err(error) => break assert_eq!(error, RingError::Full),
        }
    }
    let grown = ids
        .iter()
        .take_while(|&&id| pair.ring.put(id, 1, 1, &[2; 100]).is_ok());
    let grown = grown.count();
    assert!(grown > 8, "{grown} of {} could grow", ids.len());
    pair.ring.verify();
    for &id in &ids {
        pair.ring.retire(id).expect("a held call may end");
    }
    pair.ring.verify();
    assert!(pair.ring.is_open());
}

#[test]
fn an_open_ring_has_room_for_the_longest_call() {
    for percent in [1, 50, 85, 90] {
        let mut pair = Pair::shut_at(percent, 64 * 64, 100 * 64);
        let longest = vec![7; pair.config.payload_bytes_max];
        let mut calls = 0;
        while pair.ring.is_open() {
            let id = pair.ring.next_id();
            let put = pair.ring.put(id, 1, 1, &longest);
            put.expect("what is let in finds room");
            calls += 1;
        }
        assert!(calls > 0, "an empty ring is open at {percent} %");
        pair.ring.verify();
    }
}

#[test]
fn tombstones_may_shut_the_gate_and_calls_on_their_way_still_find_room() {
    let mut pair = Pair::new(4_000 * 64, 400 * 64);
    while pair.ring.is_open() {
        let id = pair.ring.next_id();
        pair.ring.put(id, 1, 1, &[1]).expect("there is room");
        pair.ring.retire(id).expect("a held call may end");
    }
    assert_eq!(pair.ring.calls(), 0);
    for _ in 0..CALLS_MAX / 10 {
        let id = pair.ring.next_id();
        pair.ring.put(id, 1, 1, &[1]).expect("it was let in before");
    }
}

#[test]
fn one_append_reclaims_a_bounded_number_of_records() {
    let mut pair = Pair::new(100 * 64, 200 * 64);
    let mut ids = std::collections::VecDeque::new();
    for round in 0..20_000_usize {
        let id = pair.ring.next_id();
        let len = round * 31 % 120;
        pair.ring
            .put(id, 1, 1, &vec![1; len])
            .expect("calls end before the ring is full");
        ids.push_back(id);
        if ids.len() > 40 {
            let id = ids.pop_front().expect("there are more than forty");
            pair.ring.retire(id).expect("the call is live");
        }
    }
    assert!(pair.ring.counters().reclaim_burst_max <= 8);
    assert!(pair.ring.counters().reclaim_old_burst_max <= 8);
}

#[test]
fn idle_time_reclaims_ahead_and_then_stops() {
    let mut pair = Pair::new(100 * 64, 200 * 64);
    for _ in 0..45 {
        let id = pair.ring.next_id();
        pair.ring
            .put(id, 1, 1, &[1; 60])
            .expect("an empty ring has room");
        pair.ring.retire(id).expect("the call is live");
    }
    let first = pair.ring.reclaim_idle(1000);
    assert!(first > 0 && first < 1000, "{first}");
    assert_eq!(
        pair.ring.reclaim_idle(1000),
        0,
        "an idle ring becomes quiet"
    );
    pair.ring.verify();
}

#[test]
fn a_walk_sees_every_call_that_lives_throughout_however_records_move() {
    let mut pair = Pair::new(64 * 64, 150 * 64);
    let steady: BTreeSet<_> = (0..20)
        .map(|_| {
            let id = pair.ring.next_id();
            pair.ring
                .put(id, 1, 1, &[1; 60])
                .expect("an empty ring has room");
            id
        })
        .collect();
    let (mut cursor, mut seen) = (replication::Cursor::default(), BTreeSet::new());
    let mut turns = 0;
    while let Some(record) = pair.ring.walk(&mut cursor) {
        seen.insert(record.meta.id);
        // Enough to promote and relocate behind the cursor's back.
        if turns < 200 {
            let id = pair.ring.next_id();
            pair.ring.put(id, 1, 1, &[2; 60]).expect("it ends at once");
            pair.ring.retire(id).expect("the call is live");
        }
        turns += 1;
    }
    assert!(pair.ring.counters().bytes_promoted > 0);
    assert!(
        seen.is_superset(&steady),
        "missed {:?}",
        steady.difference(&seen)
    );
}
