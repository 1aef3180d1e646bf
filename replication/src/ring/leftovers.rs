//! Records that name an owner which has lost its calls while it was away.
//!
//! A node that comes back finds its rings as it left them. If the others settled without it, each of
//! its calls is another node's by now, or over; where it is over, the tombstone may be gone as well,
//! so no version held anywhere says that the record is void. The view does: it names the epoch below
//! which nothing of that owner counts.

use super::{Cursor, Ring, Step};
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

    /// Whether a record is void: it may be held until it is forgotten. A tombstone is not: whatever
    /// its owner, the call is over.
    #[must_use]
    pub fn is_leftover(&self, meta: &Meta) -> bool {
        let epoch = self.settled_without.get(usize::from(meta.owner));
        let is_below = epoch.is_some_and(|&epoch| meta.version.epoch < epoch);
        is_below && meta.kind == Kind::Put && !plant::is(Plant::LeftoversKept)
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
