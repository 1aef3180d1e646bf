//! What the membership and the shards of a node tell each other, without waiting.
//!
//! Every field has one writer, the membership or one shard, and stands for itself: a reader that
//! sees an old value acts a moment later or stops a moment later, which the lease allows for.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use replication::view::VOTERS_MAX;
use replication::{Adoption, View};

/// The board of one node.
#[derive(Debug)]
pub struct Board {
    // Written by the membership.
    lease_until: AtomicU64,
    number: AtomicU32,
    incarnation: AtomicU32,
    view: Mutex<View>,
    must_resume: AtomicU32,
    // View in the upper half, so that no shard takes it for that of another.
    sync_wanted: AtomicU64,
    adoption: [AtomicU64; VOTERS_MAX],
    lost_heirs: AtomicU64,
    schema: AtomicU32,
    // Written by the shards.
    shards: Vec<ShardNotes>,
}

#[derive(Debug, Default)]
struct ShardNotes {
    /// View under which each peer has filled this shard.
    synced: [AtomicU32; VOTERS_MAX],
    /// View under which the shard has adopted what is its and its calls have their copies.
    settled: AtomicU32,
    /// Incarnation under which its own calls are written anew.
    resumed: AtomicU32,
    /// View under which it has no call left while this node leaves.
    drained: AtomicU32,
    /// Highest schema among the records it holds.
    schema_held: AtomicU32,
}

impl Board {
    /// The board of a node with so many shards, which may not act yet.
    #[must_use]
    pub fn new(shards: u16) -> Self {
        Self {
            lease_until: AtomicU64::new(0),
            number: AtomicU32::new(0),
            incarnation: AtomicU32::new(0),
            view: Mutex::new(View::genesis()),
            must_resume: AtomicU32::new(0),
            sync_wanted: AtomicU64::new(0),
            adoption: std::array::from_fn(|_| AtomicU64::new(0)),
            lost_heirs: AtomicU64::new(0),
            schema: AtomicU32::new(0),
            shards: (0..shards).map(|_| ShardNotes::default()).collect(),
        }
    }

    /// Shards of this node; a witness has none.
    #[must_use]
    pub fn shard_count(&self) -> u16 {
        self.shards.len() as u16
    }

    /// Until when this node may act, in nanoseconds of its clock ([`ns_of`]); 0: not at all.
    #[must_use]
    pub fn lease_until(&self) -> u64 {
        self.lease_until.load(Ordering::Acquire)
    }

    /// Number of the newest view; 0 before the membership has started.
    #[must_use]
    pub fn view_number(&self) -> u32 {
        self.number.load(Ordering::Acquire)
    }

    /// Incarnation of this node.
    #[must_use]
    pub fn incarnation(&self) -> u32 {
        self.incarnation.load(Ordering::Acquire)
    }

    /// The newest view.
    #[must_use]
    pub fn view(&self) -> View {
        *self
            .view
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Incarnation under which the shards must write their own calls anew, or 0.
    #[must_use]
    pub fn must_resume(&self) -> u32 {
        self.must_resume.load(Ordering::Acquire)
    }

    /// Members that must fill this node under view `view`, as a bit mask.
    #[must_use]
    pub fn sync_wanted(&self, view: u32) -> u32 {
        match split(self.sync_wanted.load(Ordering::Acquire)) {
            (of, mask) if of == view => mask,
            _ => 0,
        }
    }

    /// Whether the membership has said that nobody need fill this node any more under view `view`.
    #[must_use]
    pub fn is_filled(&self, view: u32) -> bool {
        self.sync_wanted.load(Ordering::Acquire) == join(view, 0)
    }

    /// Whether the calls of a dead node may be adopted under view `view`.
    #[must_use]
    pub fn adoption(&self, view: u32, owner: u16) -> Adoption {
        let Some(entry) = self.adoption.get(usize::from(owner)) else {
            return Adoption::NotNow;
        };
        match split(entry.load(Ordering::Acquire)) {
            (of, READY) if of == view => Adoption::Ready,
            (of, BEYOND) if of == view => Adoption::BeyondThePromise,
            _ => Adoption::NotNow,
        }
    }

    /// Whether a call that was given to `heir` may be given to another under view `view`.
    #[must_use]
    pub fn is_lost(&self, view: u32, heir: u16) -> bool {
        let (of, mask) = split(self.lost_heirs.load(Ordering::Acquire));
        of == view && heir < 32 && mask >> heir & 1 == 1
    }

    /// Highest schema that every member reads; 0 before the membership has started.
    #[must_use]
    pub fn schema(&self) -> u16 {
        self.schema.load(Ordering::Acquire) as u16
    }

    /// A peer has filled a shard; its catch-up began in view `view`.
    pub fn note_synced(&self, shard: u16, peer: u16, view: u32) {
        if let Some(notes) = self.shards.get(usize::from(shard))
            && let Some(synced) = notes.synced.get(usize::from(peer))
        {
            synced.store(view, Ordering::Release);
        }
    }

    /// Whether that peer has filled this shard under view `view`.
    #[must_use]
    pub fn has_synced(&self, shard: u16, peer: u16, view: u32) -> bool {
        let notes = &self.shards[usize::from(shard)];
        notes.synced[usize::from(peer)].load(Ordering::Acquire) == view
    }

    /// The shard has adopted what is its, and its calls have their copies.
    pub fn note_settled(&self, shard: u16, view: u32) {
        self.shards[usize::from(shard)]
            .settled
            .store(view, Ordering::Release);
    }

    /// Whether the shard has said so for this view.
    #[must_use]
    pub fn is_settled(&self, shard: u16, view: u32) -> bool {
        let notes = &self.shards[usize::from(shard)];
        notes.settled.load(Ordering::Acquire) == view
    }

    /// The shard has written its own calls anew under that incarnation.
    pub fn note_resumed(&self, shard: u16, incarnation: u32) {
        self.shards[usize::from(shard)]
            .resumed
            .store(incarnation, Ordering::Release);
    }

    /// The shard has no call left and its last records are acked, while this node leaves.
    pub fn note_drained(&self, shard: u16, view: u32) {
        self.shards[usize::from(shard)]
            .drained
            .store(view, Ordering::Release);
    }

    /// Whether the shard has said so for this view.
    #[must_use]
    pub fn is_drained(&self, shard: u16, view: u32) -> bool {
        let notes = &self.shards[usize::from(shard)];
        notes.drained.load(Ordering::Acquire) == view
    }

    /// The shard holds a record of that schema.
    pub fn note_schema(&self, shard: u16, schema: u16) {
        self.shards[usize::from(shard)]
            .schema_held
            .fetch_max(schema.into(), Ordering::AcqRel);
    }

    // ---- for the membership, and for those who play it

    pub(super) fn all_drained(&self, view: u32) -> bool {
        self.shards
            .iter()
            .all(|notes| notes.drained.load(Ordering::Acquire) == view)
    }

    /// Highest schema among the records that the shards hold.
    pub(super) fn schema_held(&self) -> u16 {
        let held = |notes: &ShardNotes| notes.schema_held.load(Ordering::Acquire);
        self.shards.iter().map(held).max().unwrap_or(0) as u16
    }

    /// Says in which schema to write.
    pub(super) fn publish_schema(&self, schema: u16) {
        self.schema.store(schema.into(), Ordering::Release);
    }

    /// Says which members no call can be given to any more. True if it is news.
    pub fn publish_lost_heirs(&self, view: u32, mask: u32) -> bool {
        let entry = join(view, mask);
        self.lost_heirs.swap(entry, Ordering::AcqRel) != entry && mask != 0
    }

    pub(super) fn all_synced(&self, peer: u16, view: u32) -> bool {
        (0..self.shards.len()).all(|shard| self.has_synced(shard as u16, peer, view))
    }

    pub(super) fn all_settled(&self, view: u32) -> bool {
        self.shards
            .iter()
            .all(|notes| notes.settled.load(Ordering::Acquire) == view)
    }

    pub(super) fn all_resumed(&self, incarnation: u32) -> bool {
        self.shards
            .iter()
            .all(|notes| notes.resumed.load(Ordering::Acquire) == incarnation)
    }

    /// Says until when this node may act.
    pub fn publish_lease(&self, until: u64) {
        self.lease_until.store(until, Ordering::Release);
    }

    /// Shows a view. True if it is news.
    pub fn publish_view(&self, view: &View, incarnation: u32) -> bool {
        let known = (self.view_number(), self.incarnation());
        if known == (view.number, incarnation) {
            return false;
        }
        *self
            .view
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = *view;
        self.incarnation.store(incarnation, Ordering::Release);
        self.number.store(view.number, Ordering::Release);
        true
    }

    /// Says what the shards must do under view `view`. True if it is news.
    pub fn publish_duties(&self, view: u32, must_resume: u32, sync_wanted: u32) -> bool {
        let wanted = join(view, sync_wanted);
        let news = self.must_resume.swap(must_resume, Ordering::AcqRel) != must_resume;
        (self.sync_wanted.swap(wanted, Ordering::AcqRel) != wanted) | news
    }

    /// Says whether the calls of a dead node may be adopted. True if it is news they wait for.
    pub fn publish_adoption(&self, view: u32, owner: u16, adoption: Adoption) -> bool {
        let code = match adoption {
            Adoption::NotNow => 0,
            Adoption::Ready => READY,
            Adoption::BeyondThePromise => BEYOND,
        };
        let entry = join(view, code);
        self.adoption[usize::from(owner)].swap(entry, Ordering::AcqRel) != entry && code != 0
    }
}

/// A moment on the clock that leases are measured by: nanoseconds, never 0.
#[must_use]
pub fn ns_of(start: quanta::Instant, now: quanta::Instant) -> u64 {
    let since = now.saturating_duration_since(start).as_nanos();
    u64::try_from(since).unwrap_or(u64::MAX).saturating_add(NS)
}

const fn join(view: u32, low: u32) -> u64 {
    (view as u64) << 32 | low as u64
}

const fn split(joined: u64) -> (u32, u32) {
    ((joined >> 32) as u32, joined as u32)
}

const READY: u32 = 1;
const BEYOND: u32 = 2;
/// A second: moments before the start of the clock are not zero either.
const NS: u64 = 1_000_000_000;
