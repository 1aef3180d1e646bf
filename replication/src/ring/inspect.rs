//! Looking at a ring: one call, all calls, the accounts.

use super::{Live, OLD, Ring};
use crate::counters::RingCounters;
use crate::generation::Generation;
use crate::layout::record_size;
use crate::map::Map;
use crate::record::{self, CallId, Kind, Record, Version};

impl Ring {
    /// The newest version of a live call.
    #[must_use]
    #[inline]
    pub fn newest(&self, id: CallId) -> Option<Record<'_>> {
        let record = self.newest_or_tombstone(id)?;
        (record.meta.kind == Kind::Put).then_some(record)
    }

    /// The newest version of a call, or the tombstone it left if that is still held.
    #[must_use]
    #[inline]
    pub fn newest_or_tombstone(&self, id: CallId) -> Option<Record<'_>> {
        let place = self.place(id)?;
        Some(self.view(place))
    }

    /// All live calls, in the order they lie in memory.
    pub fn iter_live(&self) -> impl Iterator<Item = Record<'_>> {
        let mut cursor = Cursor::default();
        std::iter::from_fn(move || {
            loop {
                let record = self.walk(&mut cursor)?;
                if record.meta.kind == Kind::Put {
                    return Some(record);
                }
            }
        })
    }

    /// Steps to the next live call or tombstone. Writes and reclaim may happen between steps: a
    /// record held throughout the walk is seen at least once, one that moves maybe twice.
    pub fn walk(&self, cursor: &mut Cursor) -> Option<Record<'_>> {
        match self.walk_some(cursor, &mut { usize::MAX }) {
            Step::Record(record) => Some(record),
            Step::End | Step::Later => None,
        }
    }

    /// As `walk`, for a walk over many turns of a loop: takes what it looks at, dead records too,
    /// from `looks`, and stops when there are none left. A ring may be full of dead records.
    pub fn walk_some(&self, cursor: &mut Cursor, looks: &mut usize) -> Step<'_> {
        while *looks > 0 {
            *looks -= 1;
            // Old first, each time: what the young tail promotes meanwhile appears at its head.
            let place = match step(&self.old, &mut cursor.old) {
                Some(lsn) => lsn | OLD,
                None => match step(&self.young, &mut cursor.young) {
                    Some(lsn) => lsn,
                    None => return Step::End,
                },
            };
            let (generation, lsn) = self.generation(place);
            let counts = record::kind(generation.head_at(lsn)).is_some_and(|k| k != Kind::Pad);
            if counts && !generation.is_dead(lsn) {
                return Step::Record(self.view(place));
            }
        }
        Step::Later
    }

    /// Live bytes in percent of what the old ring could hold.
    #[must_use]
    pub fn fill(&self) -> f64 {
        self.live.bytes as f64 * 100.0 / self.old.capacity() as f64
    }

    /// Whether new calls should be let in. At high water the gate closes, well before anything is
    /// refused: calls that were let in earlier, copies and whatever grows have the rest. While it
    /// is open, the next call of any size finds room.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open_within(GateShare::WHOLE)
    }

    /// As `is_open`, with the gate at that share of high water: the ring of a cluster's node keeps
    /// room for the copies that it has to take when other nodes are lost.
    #[must_use]
    pub fn is_open_within(&self, share: GateShare) -> bool {
        let calls = self.index.len() as u64;
        self.live.bytes < share.of(self.limits.high_water)
            && calls < share.of(self.limits.high_water_calls as u64).max(1)
    }

    /// Whether the next call that is not held yet finds room, of any size.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let after = self.live.bytes + record_size(self.limits.payload);
        after <= self.limits.fresh && self.index.len() < self.limits.calls
    }

    /// Live calls, own ones and copies.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.live.calls
    }

    /// Bytes their newest records take.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.live.bytes
    }

    /// Wall clock that records are stamped with.
    #[must_use]
    pub fn now_unix_ms(&self) -> u64 {
        self.now_unix_ms
    }

    /// Count and xor-hash of the live calls `owner` owns, by id and version: equal on two nodes
    /// if they hold the same (L4).
    #[must_use]
    pub fn fingerprint(&self, owner: u16) -> (u64, u64) {
        let own = self.iter_live().filter(|record| record.meta.owner == owner);
        own.fold((0, 0), |(count, xor), record| {
            let Version { epoch, ver } = record.meta.version;
            let version = CallId::from_u128(u128::from(epoch) << 32 | u128::from(ver));
            (
                count + 1,
                xor ^ record
                    .meta
                    .id
                    .hash()
                    .wrapping_add(version.hash())
                    .rotate_left(17),
            )
        })
    }

    /// Number of the newest record.
    #[must_use]
    pub fn rseq(&self) -> u64 {
        self.rseq
    }

    /// Incarnation this writer runs under.
    #[must_use]
    pub fn incarnation(&self) -> u32 {
        self.incarnation
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> u16 {
        self.node
    }

    /// This shard.
    #[must_use]
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> &RingCounters {
        &self.counters
    }

    /// The memory as it stands, young first: an image for crash tests.
    #[must_use]
    pub fn image(&self) -> (Vec<u8>, Vec<u8>) {
        let copy = |map: &Map| map.bytes(0, map.len()).to_vec();
        (copy(self.young.map()), copy(self.old.map()))
    }

    /// Walks everything and compares it with index and accounts.
    ///
    /// # Panics
    /// If they differ: the ring is broken.
    pub fn verify(&self) {
        let (mut live, mut tombstones) = (Live::default(), 0);
        let mut cursor = Cursor::default();
        while let Some(record) = self.walk(&mut cursor) {
            let place = self
                .place(record.meta.id)
                .expect("a record that is not dead is indexed");
            let indexed = self.payload(place).as_ptr();
            assert_eq!(
                indexed,
                record.payload.as_ptr(),
                "only the newest record is not dead"
            );
            if record.meta.kind == Kind::Put {
                live.calls += 1;
                live.bytes += record_size(record.payload.len());
                live.old_bytes += if place & OLD != 0 {
                    record_size(record.payload.len())
                } else {
                    0
                };
            } else {
                tombstones += 1;
            }
        }
        assert_eq!(live, self.live, "the accounts are right");
        assert_eq!(
            live.calls + tombstones,
            self.index.len() as u64,
            "the index has no more"
        );
        assert!(
            live.bytes <= self.limits.hard,
            "what is promoted finds room"
        );
    }

    #[cfg(test)]
    pub(crate) fn journal_start(&mut self) {
        self.young.map_mut().journal_start();
        self.old.map_mut().journal_start();
    }

    /// Stores since the last call in their order; true: into the young ring.
    #[cfg(test)]
    pub(crate) fn journal_take(&mut self) -> Vec<(bool, crate::map::journal::Step)> {
        let young = self
            .young
            .map_mut()
            .journal_take()
            .into_iter()
            .map(|step| (true, step));
        let old = self
            .old
            .map_mut()
            .journal_take()
            .into_iter()
            .map(|step| (false, step));
        let mut steps: Vec<_> = young.chain(old).collect();
        steps.sort_by_key(|(_, step)| step.order);
        steps
    }

    /// Offset of the young head in its file.
    #[cfg(test)]
    pub(crate) fn young_head_at(&self) -> usize {
        crate::layout::SUPERBLOCK + (self.young.head() % self.young.capacity()) as usize
    }
}

/// The part of high water up to which a ring takes new calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateShare {
    part: u64,
    whole: u64,
}

impl GateShare {
    /// All of it: nobody's loss makes a ring fuller.
    pub const WHOLE: Self = Self { part: 1, whole: 1 };

    /// The share of each of `nodes` nodes with `copies` copies of a call: so much that one ring
    /// has room for all calls of the cluster within high water. No fewer may have to be held: when
    /// nodes are lost the others make their copies anew, which ends at all calls on each of as many
    /// nodes as there are copies, and whoever joins is filled with everything before it acts.
    #[must_use]
    pub fn among(nodes: usize, copies: usize) -> Self {
        let nodes = nodes.max(1);
        Self {
            part: copies.clamp(1, nodes) as u64,
            whole: nodes as u64,
        }
    }

    fn of(self, limit: u64) -> u64 {
        (u128::from(limit) * u128::from(self.part) / u128::from(self.whole)) as u64
    }
}

/// What a walk comes to.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// A live call or a tombstone.
    Record(Record<'a>),
    /// It has looked at as many records as it may.
    Later,
    /// It has seen all.
    End,
}

/// Where a walk over a ring has got to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    old: u64,
    pub(super) young: u64,
}

/// Moves a cursor one record on, past what was reclaimed meanwhile.
fn step(generation: &Generation, at: &mut u64) -> Option<u64> {
    let lsn = (*at).max(generation.tail());
    if lsn >= generation.head() {
        return None;
    }
    *at = lsn + record::claimed_size(generation.head_at(lsn));
    Some(lsn)
}
