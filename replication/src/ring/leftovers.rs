//! Records that are void: a node was away for so long that the others have settled without it.
//!
//! A node that comes back finds its rings as it left them. If the others settled without it, each of
//! its calls is another node's by now, or over; where it is over, the tombstone may be gone as well,
//! so no version held anywhere says that the record is void. The view does: it names the epoch below
//! which nothing of that owner counts. Nor do the copies that the node has kept of others' calls.

use super::{Cursor, Held, Ring, Step};
use crate::plant::{self, Plant};
use crate::record::{CallId, Kind, Meta};

/// Epochs below which what an owner wrote is a leftover, by the owner's number.
pub(super) type SettledWithout = [u32; OWNERS_MAX];

impl Ring {
    /// Everything that `owner` wrote under an epoch below `epoch` is void. True if that is news:
    /// then [`Ring::forget_leftovers`] is to be called from a new cursor on.
    pub fn set_settled_without(&mut self, owner: u16, epoch: u32) -> bool {
        let Some(known) = self.settled_without.get_mut(usize::from(owner)) else {
            return false;
        };
        let is_news = epoch > *known;
        *known = epoch.max(*known);
        is_news
    }

    /// Enters the view of that number. `settled_without` is the number of the last view that was
    /// settled while this node was dead. If it is newer than all views that this ring has known,
    /// every call it holds is void, whoever owns it: a copy may be of one that has ended since, and
    /// its owner dead by now, so that nobody could tell. Whatever lives is brought again before this
    /// node acts. True if so: then [`Ring::forget_leftovers`] is to be called from a new cursor on.
    pub fn enter_view(&mut self, number: u32, settled_without: u32) -> bool {
        let known = self.young.cluster_epoch();
        let is_void = settled_without > known;
        if is_void {
            self.void_upto = self.rseq;
            self.young.set_void_upto(self.rseq);
        }
        let newest = known.max(number);
        self.young.set_cluster_epoch(newest);
        self.old.set_cluster_epoch(newest);
        is_void
    }

    /// Whether a record is void: it may be held until it is forgotten. A tombstone is not: whatever
    /// its owner, the call is over.
    #[must_use]
    pub fn is_leftover(&self, meta: &Meta) -> bool {
        let is_void = meta.rseq <= self.void_upto && meta.kind == Kind::Put;
        is_void && !plant::is(Plant::LeftoversKept) || self.is_settled_without(meta)
    }

    /// Whether a record is void wherever it is, for its owner lost it while it was away.
    pub(super) fn is_settled_without(&self, meta: &Meta) -> bool {
        let epoch = self.settled_without.get(usize::from(meta.owner));
        let is_below = epoch.is_some_and(|&epoch| meta.version.epoch < epoch);
        is_below && meta.kind == Kind::Put && !plant::is(Plant::LeftoversKept)
    }

    // What is brought is not to be taken for a void copy that is held still: that one goes.
    pub(super) fn held_unless_void(&mut self, id: CallId) -> Option<Held> {
        let held = self.held(id)?;
        if self.is_leftover(&held.meta) {
            self.forget(id);
            return None;
        }
        Some(held)
    }

    /// Looks at `limit` records at most, dead ones too, and forgets those that are void; false when it has seen
    /// all of them.
    pub fn forget_leftovers(&mut self, cursor: &mut Cursor, limit: usize) -> bool {
        let mut looks = limit;
        loop {
            let meta = match self.walk_some(cursor, &mut looks) {
                Step::Record(record) => record.meta,
                Step::Later => return true,
                Step::End => return false,
            };
            if self.is_leftover(&meta) {
                self.forget(meta.id);
            }
        }
    }

    /// The newest version held of a call, or its tombstone, if it is not void.
    #[must_use]
    pub fn valid_or_tombstone(&self, id: CallId) -> Option<Meta> {
        let held = self.newest_or_tombstone(id).map(|held| held.meta);
        held.filter(|meta| !self.is_leftover(meta))
    }
}

/// Numbers that owners may have.
const OWNERS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RingConfig;
    use crate::layout::SUPERBLOCK;
    use crate::map::Map;
    use crate::record::Version;
    use crate::ring::{Applied, Origin};

    const CALLS: u64 = 40;

    fn config() -> RingConfig {
        RingConfig {
            node: 2,
            secret: 3,
            young_bytes: 64 << 10,
            old_bytes: 384 << 10,
            payload_bytes_max: 1_000,
            calls_max: 4_000,
            ..RingConfig::default()
        }
    }

    fn copy(n: u64, kind: Kind) -> Meta {
        Meta {
            id: CallId::new(1, 0, 1, n),
            version: Version { epoch: 4, ver: 1 },
            rseq: 0,
            owner: 1,
            shard: 0,
            schema: 1,
            kind,
            flags: 0,
            written: 0,
        }
    }

    /// A ring with copies of another node's calls and one tombstone, in view 4.
    fn ring() -> Ring {
        let config = config();
        let map = |bytes: u64| Map::heap(SUPERBLOCK + bytes as usize);
        let maps = (map(config.young_bytes), map(config.old_bytes));
        let mut ring = Ring::create(maps.0, maps.1, &config).expect("limits");
        for n in 0..CALLS {
            let put = ring.apply(copy(n, Kind::Put), &[7; 100]);
            assert_eq!(put, Ok(Applied::Stored));
        }
        let end = ring.apply(copy(CALLS, Kind::Del), &[]);
        assert_eq!(end, Ok(Applied::Stored));
        ring
    }

    fn forget_all(ring: &mut Ring) {
        let mut cursor = Cursor::default();
        while ring.forget_leftovers(&mut cursor, 7) {}
        ring.verify();
    }

    fn lives(ring: &Ring, n: u64) -> bool {
        let valid = ring.valid_or_tombstone(copy(n, Kind::Put).id);
        valid.is_some_and(|meta| meta.kind == Kind::Put)
    }

    #[test]
    fn what_is_held_when_the_others_settled_without_this_node_is_void() {
        let mut ring = ring();
        assert!(!ring.enter_view(4, 0), "it was never away");
        assert!(!ring.enter_view(6, 4), "it knew that view already");
        assert!(lives(&ring, 0));
        assert!(ring.enter_view(9, 8));
        assert!(
            (0..CALLS).all(|n| !lives(&ring, n)),
            "before it is forgotten"
        );
        // Brought again in the very version, it counts.
        let again = ring.apply(copy(3, Kind::Put), &[7; 100]);
        assert_eq!(again, Ok(Applied::Stored));
        assert!(!ring.enter_view(10, 8), "that is known");
        forget_all(&mut ring);
        let left: Vec<u64> = (0..CALLS).filter(|&n| lives(&ring, n)).collect();
        assert_eq!((left, ring.calls()), (vec![3], 1));
        let end = ring.valid_or_tombstone(copy(CALLS, Kind::Put).id);
        assert_eq!(end.map(|meta| meta.kind), Some(Kind::Del), "an end is one");
    }

    #[test]
    fn a_process_that_dies_before_all_is_forgotten_knows_what_is_void() {
        let mut ring = ring();
        assert!(ring.enter_view(9, 8));
        ring.apply(copy(3, Kind::Put), &[7; 100]).expect("room");
        let (young, old) = ring.into_maps();
        let (mut ring, recovery) = Ring::open(young, old, &config()).expect("its own");
        assert_eq!(recovery.origin, Origin::Recovered);
        // What it has been brought since is its memory, and it is back in the same view.
        assert!(!ring.enter_view(9, 8));
        let left: Vec<u64> = (0..CALLS).filter(|&n| lives(&ring, n)).collect();
        assert_eq!(left, [3]);
        forget_all(&mut ring);
        assert_eq!(ring.calls(), 1);
    }
}
