//! The end of a catch-up, on the side that was filled.

use super::{Link, LinkEvent};
use crate::catch_up::{Forgetting, Mark, Scope};
use crate::frame::Entry;
use crate::ring::Ring;

impl Link {
    /// A mark counts when everything before it has arrived, and is received when what the walk did
    /// not bring is forgotten. True if it may be acked.
    pub(super) fn on_mark(
        &mut self,
        entry: &Entry<'_>,
        sync: u32,
        ring: &Ring,
        on: &mut impl FnMut(LinkEvent),
    ) -> bool {
        let incoming = &mut self.incoming;
        if entry.number != incoming.cumulative + 1 {
            return false;
        }
        if !incoming.marks.awaits(sync) {
            return true;
        }
        if let Some(forgetting) = &mut incoming.forgetting {
            // The stream must not wait behind it: the peer is to put it off, as what a full ring
            // refuses.
            (forgetting.at, forgetting.is_asked) = (entry.number, true);
            return false;
        }
        let mark = Mark::parse(entry.id, entry.version);
        if !incoming.marks.is_complete(&mark) {
            self.ask_again(mark);
            return true;
        }
        if mark.is_final {
            let begun = Forgetting::begin(mark, entry.number, &incoming.marks, ring);
            incoming.forgetting = Some(begun);
            return false;
        }
        self.on_filled(mark, on);
        let marks = &mut self.incoming.marks;
        if mark.follows {
            marks.end_walk(entry.number);
        } else {
            marks.end();
        }
        true
    }

    /// Goes on with forgetting what the peer no longer knows; looks at `limit` records at most.
    pub(crate) fn forget_some(
        &mut self,
        now: u64,
        ring: &mut Ring,
        limit: usize,
        on: &mut impl FnMut(LinkEvent),
    ) {
        let (owner, incoming) = (self.channel.ends().peer, &mut self.incoming);
        let Some(mut forgetting) = incoming.forgetting.take() else {
            return;
        };
        // What came meanwhile could not all be marked, so what is not marked may have come.
        let is_void = incoming.marks.has_overflowed();
        if !is_void {
            let marks = &incoming.marks;
            let (forgotten, has_ended) = forgetting.go_on(ring, limit, owner, marks);
            self.counters.calls_forgotten += forgotten;
            if !has_ended {
                incoming.forgetting = Some(forgetting);
                return;
            }
        }
        let (mark, at) = (forgetting.mark, forgetting.at);
        if at == incoming.cumulative + 1 {
            incoming.receive(at);
            incoming.ack_at = Some(now);
        }
        if is_void {
            self.ask_again(mark);
        } else {
            self.on_filled(mark, on);
            self.incoming.marks.end();
        }
    }

    /// Whether what a walk did not bring is being forgotten.
    #[must_use]
    pub fn is_forgetting(&self) -> bool {
        self.incoming.forgetting.is_some()
    }

    fn on_filled(&mut self, mark: Mark, on: &mut impl FnMut(LinkEvent)) {
        if mark.follows {
            return; // whoever asked for its share waits until it holds nothing else
        }
        self.counters.syncs_completed += 1;
        let has_orphans = |scope| scope == Scope::Orphans && mark.scope == Scope::All;
        let answers =
            |(scope, view)| view == mark.view && (scope == mark.scope || has_orphans(scope));
        if self.sync_request.is_some_and(answers) {
            self.sync_request = None;
        }
        self.lacks_share &= mark.scope != Scope::Targets;
        self.ask_for_share_again();
        // A walk that brings only what this node should hold proves nothing about the rest.
        if mark.scope != Scope::Targets {
            on(LinkEvent::Synced { view: mark.view });
        }
    }

    fn ask_again(&mut self, mark: Mark) {
        self.incoming.marks.end();
        self.counters.syncs_incomplete += 1;
        match mark.scope {
            // The peer believes that this node has its share and nothing else. With everything it
            // would have copies of other nodes' calls too, of whose ends those would not tell it.
            Scope::Targets => {
                self.lacks_share = true;
                self.ask_for_share_again();
            }
            Scope::Orphans | Scope::All => self.sync_request = Some((mark.scope, self.view)),
        }
    }

    /// Asks for its share again once nothing else is asked for.
    pub(super) fn ask_for_share_again(&mut self) {
        if self.lacks_share && self.sync_request.is_none() {
            self.sync_request = Some((Scope::Targets, self.view));
        }
    }
}
