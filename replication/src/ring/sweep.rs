//! Dropping many calls, a bounded number of records at a time.

use super::{Cursor, Ring, Step};
use crate::record::{Kind, Meta};

/// A walk for live calls to drop among the records that a ring held when it began. What was written
/// since then is passed over, so that it ends as if all had been dropped at once in the beginning;
/// and a ring that is written to faster than the walk goes is walked to an end all the same.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    cursor: Cursor,
    /// Number of the newest record when it began.
    newest: u64,
}

impl Ring {
    /// Begins a walk over the records there are now.
    #[must_use]
    pub fn begin_sweep(&self) -> Sweep {
        Sweep {
            cursor: Cursor::default(),
            newest: self.rseq,
        }
    }

    /// Looks at `limit` records at most and forgets the live calls that `is_stale` picks: copies
    /// whose owner no longer knows them. Says how many, and whether it has seen all.
    pub fn sweep(
        &mut self,
        sweep: &mut Sweep,
        limit: usize,
        is_stale: impl Fn(&Meta) -> bool,
    ) -> (u64, bool) {
        let (mut forgotten, mut looks) = (0, limit);
        loop {
            let young = sweep.cursor.young;
            let meta = match self.walk_some(&mut sweep.cursor, &mut looks) {
                Step::Record(record) => record.meta,
                Step::Later => return (forgotten, false),
                Step::End => return (forgotten, true),
            };
            if meta.rseq > sweep.newest {
                // Records of the young ring lie in the order of their numbers, and what left it
                // before the walk came there lies in the old one, which was walked first.
                if sweep.cursor.young != young {
                    return (forgotten, true);
                }
                continue;
            }
            if meta.kind == Kind::Put && is_stale(&meta) {
                self.forget(meta.id);
                forgotten += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::RingConfig;
    use crate::layout::SUPERBLOCK;
    use crate::map::Map;
    use crate::record::{CallId, Version};

    const CALLS: u64 = 1_000;

    fn copy(n: u64, ver: u32) -> Meta {
        Meta {
            id: CallId::new(1, 0, 1, n),
            version: Version { epoch: 1, ver },
            rseq: 0,
            owner: 1,
            shard: 0,
            schema: 1,
            kind: Kind::Put,
            flags: 0,
            written: 0,
        }
    }

    fn is_stale(meta: &Meta) -> bool {
        meta.owner == 1 && !meta.id.as_u128().is_multiple_of(3)
    }

    /// A ring with copies of another node's calls, in both generations and in several versions.
    fn ring() -> Ring {
        let config = RingConfig {
            secret: 3,
            young_bytes: 64 << 10,
            old_bytes: 384 << 10,
            payload_bytes_max: 1_000,
            calls_max: 4_000,
            ..RingConfig::default()
        };
        let map = |bytes: u64| Map::heap(SUPERBLOCK + bytes as usize);
        let maps = (map(config.young_bytes), map(config.old_bytes));
        let mut ring = Ring::create(maps.0, maps.1, &config).expect("limits");
        for n in 0..CALLS {
            ring.apply(copy(n, 1), &[0; 100]).expect("room");
            if n % 5 == 0 {
                ring.apply(copy(n / 2, 2), &[0; 120]).expect("room");
            }
        }
        ring
    }

    fn held(ring: &Ring) -> BTreeSet<u128> {
        ring.iter_live().map(|r| r.meta.id.as_u128()).collect()
    }

    #[test]
    fn a_step_looks_at_no_more_than_it_may_and_all_is_seen_in_the_end() {
        for limit in [1, 7, 100] {
            let (mut ring, mut at_once) = (ring(), ring());
            let mut all = at_once.begin_sweep();
            let (stale, has_ended) = at_once.sweep(&mut all, usize::MAX, is_stale);
            assert!(has_ended && stale > CALLS / 2);
            let (mut sweep, mut forgotten, mut steps) = (ring.begin_sweep(), 0, 0);
            loop {
                let seen = std::cell::Cell::new(0);
                let (more, has_ended) = ring.sweep(&mut sweep, limit, |meta| {
                    seen.set(seen.get() + 1);
                    is_stale(meta)
                });
                assert!(seen.get() <= limit && more <= limit as u64);
                (forgotten, steps) = (forgotten + more, steps + 1);
                ring.verify();
                if has_ended {
                    break;
                }
            }
            // Dead records are looked at as well.
            assert!(steps >= CALLS as usize / limit);
            assert_eq!((forgotten, held(&ring)), (stale, held(&at_once)));
        }
    }

    #[test]
    fn records_that_move_are_seen_and_those_written_meanwhile_are_not() {
        let mut ring = ring();
        let mut sweep = ring.begin_sweep();
        let (mut forgotten, mut written) = (BTreeSet::new(), BTreeSet::new());
        for turn in 0.. {
            let before = held(&ring);
            let (_, has_ended) = ring.sweep(&mut sweep, 3, is_stale);
            forgotten.extend(before.difference(&held(&ring)).copied());
            if has_ended {
                break;
            }
            // So much that what is young becomes old and what is old moves on, some of it again.
            for n in 0..3 {
                let mut new = copy(CALLS + turn * 3 + n, 1);
                new.id = CallId::new(1, 0, 2, turn * 3 + n);
                let len = if n == 0 { 20 } else { 300 };
                ring.apply(new, &vec![0; len]).expect("room");
                if n == 0 {
                    written.insert(new.id.as_u128());
                } else {
                    ring.forget(new.id);
                }
            }
            // One that is stale is written anew.
            let again = copy(turn * 7 % CALLS, 3);
            if ring.newest(again.id).is_some() && is_stale(&again) {
                ring.apply(again, &[0; 90]).expect("room");
                written.insert(again.id.as_u128());
            }
            ring.reclaim_idle(8);
            assert!(turn < 100_000, "it comes to an end under load");
        }
        ring.verify();
        let counters = ring.counters();
        let moved = (counters.bytes_promoted, counters.bytes_relocated);
        assert!(moved.0 > 0 && moved.1 > 0, "{moved:?}");
        assert!(written.len() > 100 && forgotten.is_disjoint(&written));
        let left = held(&ring);
        assert!(written.is_subset(&left));
        for n in 0..CALLS {
            let meta = copy(n, 1);
            let id = meta.id.as_u128();
            assert_eq!(
                left.contains(&id),
                !is_stale(&meta) || written.contains(&id)
            );
        }
    }
}
