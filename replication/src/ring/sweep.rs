//! Dropping many calls, a bounded number of records at a time.

use super::{Cursor, Ring};
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
        let mut forgotten = 0;
        for _ in 0..limit {
            let young = sweep.cursor.young;
            let Some(record) = self.walk(&mut sweep.cursor) else {
                return (forgotten, true);
            };
            let meta = record.meta;
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
        (forgotten, false)
    }
}
