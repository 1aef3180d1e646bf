//! Freeing room: what is alive at the young tail moves to the old ring, what is alive at the old
//! tail moves to its head, a little with every append and more in idle time.

use super::{OLD, Ring};
use crate::error::RingError;
use crate::layout::HEADER;
use crate::record::{self, CallId, Kind};

impl Ring {
    /// Reclaims at most `records` records ahead of need; for idle time. Returns how many it
    /// touched, 0 if there is nothing worth doing.
    pub fn reclaim_idle(&mut self, records: u32) -> u32 {
        for done in 0..records {
            let is_scarce = self.young.free() < self.young.capacity() / IDLE_FREE_SHARE;
            let young_wants = (is_scarce || self.has_many_tombstones()) && self.young.used() > 0;
            let dead_in_old = self.old.used() - self.live.old_bytes;
            let old_wants = self.old.free() < self.old.capacity() / IDLE_FREE_SHARE
                && dead_in_old > self.old.capacity() / IDLE_DEAD_SHARE;
            let worked = match (old_wants, young_wants) {
                (true, _) => self.reclaim_old().is_some(),
                (false, true) => self.reclaim_young().is_ok(),
                (false, false) => false,
            };
            if !worked {
                return done;
            }
        }
        records
    }

    // They leave the index with the young tail alone. Where the index is small against the young
    // ring they would fill it and shut the gate, and with no new calls nothing would move the tail.
    fn has_many_tombstones(&self) -> bool {
        let tombstones = self.index.len() as u64 - self.live.calls;
        let share = if self.is_settled {
            IDLE_TOMBSTONES_SHARE
        } else {
            KEPT_INDEX_SHARE
        };
        tombstones > self.limits.calls as u64 / share
    }

    /// Frees room for `size` bytes at the young head, and a little more when it gets scarce.
    /// True if records moved.
    #[inline]
    pub(super) fn make_room_young(&mut self, size: u64) -> Result<bool, RingError> {
        if self.young.free() >= self.limits.young_low_water && self.young.has_room(size, 0) {
            return Ok(false);
        }
        let (mut freed, mut records) = (0, 0_u32);
        let most = RECLAIM_MAX.max((size / PASSED_PER_BYTES) as u32);
        loop {
            let enough = records >= most || (records >= RECLAIM_MIN && freed >= 2 * size);
            let relaxed = self.young.free() >= self.limits.young_low_water;
            if (enough || relaxed || self.young.used() == 0) && self.young.has_room(size, 0) {
                break;
            }
            freed += self.reclaim_young()?;
            records += 1;
        }
        self.counters.reclaim_burst_max = self.counters.reclaim_burst_max.max(records);
        Ok(true)
    }

    /// Frees the record at the young tail: promotes it if it is a live call. Says how many bytes
    /// that frees; none if a tombstone went round.
    fn reclaim_young(&mut self) -> Result<u64, RingError> {
        let lsn = self.young.tail();
        let head = self.young.head_at(lsn);
        let (size, len) = (record::claimed_size(head), record::payload_len(head));
        let (kind, id) = (record::kind(head), record::call_id(head));
        if !self.young.is_dead(lsn) {
            match kind {
                Some(Kind::Put) => {
                    self.make_room_old(size)?;
                    self.old.pad_for(size);
                    let from = &self.young.record_at(lsn)[8..];
                    self.old.next_bytes(size)[8..HEADER + len].copy_from_slice(from);
                    let place = self.old.publish(size) | OLD;
                    self.replace(id, lsn, place);
                    self.live.old_bytes += size;
                    self.counters.bytes_promoted += size;
                }
                Some(Kind::Del) if self.keep_tombstone(id, lsn) => {
                    self.young.advance_tail(size);
                    return Ok(0);
                }
                Some(Kind::Del) => {
                    let (young, old) = (&self.young, &self.old);
                    let found = self.index.find_entry(id.hash(), |e| e.is(id, young, old));
                    found
                        .expect("a tombstone that is not dead is indexed")
                        .remove();
                    self.counters.tombstones_dropped += 1;
                    self.counters.tombstones_dropped_early += u64::from(!self.is_settled);
                }
                Some(Kind::Pad) | None => {}
            }
        }
        self.young.advance_tail(size);
        Ok(size)
    }

    // While the cluster is not settled, who was away may come back with a copy of a call that has
    // ended since, or with the call itself: its tombstone goes round once more. So many may, that
    // between two of them there are calls to reclaim, and that they do not fill the index.
    fn keep_tombstone(&mut self, id: CallId, lsn: u64) -> bool {
        let size = HEADER as u64;
        let kept = self.index.len() as u64 - self.live.calls;
        let kept_max = self.young.capacity() / KEPT_YOUNG_SHARE / size;
        let kept_max = kept_max.min(self.limits.calls as u64 / KEPT_INDEX_SHARE);
        if self.is_settled || kept > kept_max || !self.young.has_room(size, 0) {
            return false;
        }
        self.young.pad_for(size);
        self.young.copy_to_head(lsn, HEADER);
        let place = self.young.publish(size);
        self.replace(id, lsn, place);
        self.counters.tombstones_kept += 1;
        true
    }

    fn make_room_old(&mut self, size: u64) -> Result<(), RingError> {
        if self.old.free() >= self.limits.old_low_water
            && self.old.has_room(size, self.limits.spare)
        {
            return Ok(());
        }
        let (mut passed, mut net, mut records) = (0, 0, 0_u32);
        loop {
            let enough = records >= RECLAIM_MAX || (records >= RECLAIM_MIN && net >= size);
            let relaxed = self.old.free() >= self.limits.old_low_water;
            if (enough || relaxed) && self.old.has_room(size, self.limits.spare) {
                break;
            }
            // Admission keeps live bytes so low that one lap always yields room. Were that
            // wrong, refusing is better than turning for ever.
            if passed > 2 * self.old.capacity() {
                self.counters.reclaim_stuck += 1;
                return Err(RingError::Full);
            }
            let Some((bytes, was_live)) = self.reclaim_old() else {
                self.counters.reclaim_stuck += 1;
                return Err(RingError::Full);
            };
            passed += bytes;
            net += if was_live { 0 } else { bytes };
            records += 1;
        }
        self.counters.reclaim_old_burst_max = self.counters.reclaim_old_burst_max.max(records);
        Ok(())
    }

    /// Frees the record at the old tail, moving it to the head if it is alive. Says how many
    /// bytes it passed and whether they were alive; nothing if it could not.
    fn reclaim_old(&mut self) -> Option<(u64, bool)> {
        if self.old.used() == 0 {
            return None;
        }
        let lsn = self.old.tail();
        let head = self.old.head_at(lsn);
        let (size, len) = (record::claimed_size(head), record::payload_len(head));
        let (kind, id) = (record::kind(head), record::call_id(head));
        let alive = kind == Some(Kind::Put) && !self.old.is_dead(lsn);
        if alive {
            if !self.old.has_room(size, 0) {
                return None;
            }
            self.old.pad_for(size);
            self.old.copy_to_head(lsn, HEADER + len);
            let place = self.old.publish(size) | OLD;
            self.replace(id, lsn | OLD, place);
            self.counters.bytes_relocated += size;
        }
        self.old.advance_tail(size);
        Some((size, alive))
    }
}

/// Records an append reclaims when room is scarce: no fewer, and no more unless it must or is a
/// large one.
const RECLAIM_MIN: u32 = 2;
const RECLAIM_MAX: u32 = 8;
/// Room is scarce in the young ring below 1/8, in the old one below 1/32.
pub(super) const YOUNG_FREE_SHARE: u64 = 8;
pub(super) const OLD_FREE_SHARE: u64 = 32;
/// Idle work goes on until a quarter is free, in the old ring only if 1/16 is dead.
const IDLE_FREE_SHARE: u64 = 4;
const IDLE_DEAD_SHARE: u64 = 16;
/// So few of the index that the gate of the largest cluster stays open for all of them.
const IDLE_TOMBSTONES_SHARE: u64 = 16;
const _: () = assert!(RECLAIM_MIN < RECLAIM_MAX);
/// Tombstones are kept up to a quarter of the young ring, and up to an eighth of the index.
const KEPT_YOUNG_SHARE: u64 = 4;
const KEPT_INDEX_SHARE: u64 = 8;
/// A large append may pass a record for so many bytes of its own. So appends get past all
/// tombstones that may be kept, should they lie together, with half of the room that was left when
/// it got scarce, and past small records faster than they use it up: where there is none left at all
/// no tombstone can be kept.
const PASSED_PER_BYTES: u64 = HEADER as u64 * KEPT_YOUNG_SHARE / YOUNG_FREE_SHARE / 2;
const _: () = assert!(PASSED_PER_BYTES > 0);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RingConfig;
    use crate::layout::{SUPERBLOCK, record_size};
    use crate::map::Map;
    use crate::ring::GateShare;

    const YOUNG: u64 = 64 << 10;

    fn config(calls_max: usize) -> RingConfig {
        RingConfig {
            secret: 3,
            young_bytes: YOUNG,
            old_bytes: 128 << 10,
            payload_bytes_max: 1_000,
            calls_max,
            ..RingConfig::default()
        }
    }

    fn ring(calls_max: usize) -> Ring {
        let config = config(calls_max);
        let map = |bytes: u64| Map::heap(SUPERBLOCK + bytes as usize);
        let maps = (map(config.young_bytes), map(config.old_bytes));
        Ring::create(maps.0, maps.1, &config).expect("limits")
    }

    fn new_call(ring: &mut Ring) -> CallId {
        let id = ring.next_id();
        ring.put(id, 1, 1, &[7; 100]).expect("room");
        id
    }

    fn ended(ring: &mut Ring, count: usize) -> Vec<CallId> {
        let ids: Vec<CallId> = (0..count).map(|_| new_call(ring)).collect();
        for &id in &ids {
            ring.retire(id).expect("live");
        }
        ids
    }

    /// Writes as much as the young ring holds, that many times.
    fn write_laps(ring: &mut Ring, laps: u64) {
        let id = new_call(ring);
        let until = ring.counters().bytes_appended + laps * YOUNG;
        while ring.counters().bytes_appended < until {
            ring.update(id, |bytes| bytes[0] ^= 1).expect("room");
        }
        ring.forget(id);
        ring.verify();
    }

    fn known(ring: &Ring, ids: &[CallId]) -> usize {
        let is_known = |id: &&CallId| ring.newest_or_tombstone(**id).is_some();
        ids.iter().filter(is_known).count()
    }

    #[test]
    fn tombstones_stay_until_the_cluster_is_settled() {
        let mut ring = ring(2_000);
        ring.set_settled(false);
        let ids = ended(&mut ring, 60);
        write_laps(&mut ring, 9);
        assert_eq!(known(&ring, &ids), 60);
        let counters = ring.counters();
        assert_eq!(counters.tombstones_dropped, 0);
        assert!(counters.tombstones_kept >= 60 * 5, "each lap");
        let (young, old) = ring.into_maps();
        let (mut ring, recovery) = Ring::open(young, old, &config(2_000)).expect("its own");
        assert_eq!((known(&ring, &ids), recovery.tombstones), (60, 60));
        ring.set_settled(true);
        write_laps(&mut ring, 2);
        assert_eq!(known(&ring, &ids), 0);
        assert_eq!(ring.counters().tombstones_dropped_early, 0);
    }

    // Idle time has moved them all to one place, and large states follow.
    #[test]
    fn tombstones_that_lie_together_stay_however_large_the_states_are() {
        for len in [40, 300, 1_000] {
            let mut ring = ring(100_000);
            ring.set_settled(false);
            let ids = ended(&mut ring, 250);
            while ring.reclaim_idle(64) > 0 {}
            let id = ring.next_id();
            for _ in 0..1_000 {
                ring.put(id, 1, 1, &vec![7; len]).expect("room");
            }
            ring.verify();
            let counters = ring.counters();
            assert_eq!(counters.tombstones_dropped_early, 0, "states of {len}");
            assert_eq!(known(&ring, &ids), 250);
            let most = RECLAIM_MAX.max((record_size(len) / PASSED_PER_BYTES) as u32);
            assert!(counters.reclaim_burst_max <= most);
        }
    }

    #[test]
    fn more_than_may_be_kept_are_dropped_and_counted() {
        // Once for want of room, once for want of index.
        for (calls_max, most) in [(100_000, YOUNG / 4 / 64), (800, 100)] {
            let mut ring = ring(calls_max);
            ring.set_settled(false);
            for _ in 0..60 {
                ended(&mut ring, 30);
                write_laps(&mut ring, 1);
                let kept = ring.index.len() as u64 - ring.live.calls;
                assert!(kept <= most + 30, "{kept} of {most}");
            }
            let counters = ring.counters();
            assert_eq!(counters.reclaim_stuck, 0);
            assert_eq!(
                counters.tombstones_dropped_early,
                counters.tombstones_dropped
            );
            assert!(counters.tombstones_dropped_early > 1_000);
            let few = ended(&mut ring, 1);
            write_laps(&mut ring, 1);
            assert_eq!(known(&ring, &few), 1, "the newest are kept");
        }
    }

    // A ring for few calls beside a young one of the usual size: the index is full of tombstones
    // long before the young ring is scarce. While the gate is shut nothing more is written.
    #[test]
    fn calls_that_have_ended_do_not_keep_the_gate_shut() {
        for is_settled in [true, false] {
            calls_come_and_go(is_settled);
        }
    }

    fn calls_come_and_go(is_settled: bool) {
        let config = RingConfig {
            young_bytes: 4 << 20,
            old_bytes: 1 << 20,
            calls_max: 160,
            ..RingConfig::default()
        };
        let map = |bytes: u64| Map::heap(SUPERBLOCK + bytes as usize);
        let (young, old) = (map(config.young_bytes), map(config.old_bytes));
        let mut ring = Ring::create(young, old, &config).expect("limits");
        // Until the cluster is settled more stay than the gate of the largest one would bear.
        let share = GateShare::among(if is_settled { 16 } else { 4 }, 2);
        ring.set_settled(is_settled);
        for call in 0..1_000 {
            let reclaimed = (0..1_000).take_while(|_| ring.reclaim_idle(64) > 0).count();
            assert!(reclaimed < 1_000, "idle time comes to an end");
            assert!(ring.is_open_within(share), "shut after {call} calls");
            let id = ring.next_id();
            for _ in 0..6 {
                ring.put(id, 1, 1, &[1; 1_600]).expect("room");
            }
            ring.retire(id).expect("live");
        }
        ring.verify();
    }
}
