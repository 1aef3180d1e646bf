//! The membership of a node: the view register and the heartbeats, sans-IO, and what they mean
//! for the shards. A witness is a membership without shards.

use std::sync::Arc;

use replication::view::VOTERS_MAX;
use replication::{Durable, View, ViewConfig, ViewMessage, Views, VoteStore};

use super::board::Board;

/// One node's membership. `now` is [`super::ns_of`] of its clock.
pub struct Membership {
    views: Views,
    board: Arc<Board>,
    votes: Box<dyn VoteStore + Send>,
    voters: u8,
}

/// What the page of the operator shows of it.
#[derive(Clone, Copy, Debug)]
pub struct MembershipReport {
    /// The newest view.
    pub view: View,
    /// This node's incarnation.
    pub incarnation: u32,
    /// How long it may act yet, nanoseconds; 0: it may not.
    pub lease_left_ns: u64,
}

impl Membership {
    /// Joins, under a new incarnation that is stored before anything is said. `kept`: the rings
    /// were recovered.
    ///
    /// # Errors
    /// See [`replication::view::StartFault`].
    pub fn start(
        config: ViewConfig,
        durable: Durable,
        kept: bool,
        now: u64,
        mut votes: Box<dyn VoteStore + Send>,
        board: Arc<Board>,
    ) -> Result<Self, replication::view::StartFault> {
        let views = Views::start(config, durable, kept, now, votes.as_mut())?;
        let mut membership = Self {
            views,
            board,
            votes,
            voters: config.voters,
        };
        membership.publish(now);
        Ok(membership)
    }

    /// Takes a message of another node. True if the shards should look at the board.
    pub fn handle(&mut self, now: u64, from: u16, message: &ViewMessage) -> bool {
        let Ok(from) = u8::try_from(from) else {
            return false;
        };
        self.views.handle(now, from, message, self.votes.as_mut());
        self.publish(now)
    }

    /// Does what is due. True if the shards should look at the board.
    pub fn tick(&mut self, now: u64) -> bool {
        self.views.tick(now, self.votes.as_mut());
        self.publish(now)
    }

    /// The next message to send, and to whom.
    pub fn poll_message(&mut self) -> Option<(u16, ViewMessage)> {
        let (to, message) = self.views.poll_message()?;
        Some((to.into(), message))
    }

    /// When [`Membership::tick`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> u64 {
        self.views.deadline()
    }

    /// This node's incarnation: messages are sealed under it.
    #[must_use]
    pub fn incarnation(&self) -> u32 {
        self.views.incarnation()
    }

    /// For the page of the operator.
    #[must_use]
    pub fn report(&self, now: u64) -> MembershipReport {
        MembershipReport {
            view: *self.views.view(),
            incarnation: self.views.incarnation(),
            lease_left_ns: self.views.lease_until().saturating_sub(now),
        }
    }

    // Takes what the shards have done into account and tells them what is new.
    fn publish(&mut self, now: u64) -> bool {
        let incarnation = self.views.incarnation();
        if self.views.must_resume() && self.board.all_resumed(incarnation) {
            self.views.set_resumed();
        }
        let view = self.views.view().number;
        let wanted = self.views.sync_wanted();
        for peer in 0..u16::from(self.voters) {
            if wanted >> peer & 1 == 1 && self.board.all_synced(peer, view) {
                self.views.note_synced(peer as u8, view);
            }
        }
        if self.board.all_settled(view) {
            self.views.set_settled();
        }
        self.board.publish_lease(self.views.lease_until());
        let mut news = self.board.publish_view(self.views.view(), incarnation);
        let must_resume = if self.views.must_resume() {
            incarnation
        } else {
            0
        };
        news |= self
            .board
            .publish_duties(view, must_resume, self.views.sync_wanted());
        for owner in 0..VOTERS_MAX.min(usize::from(self.voters)) {
            let adoption = self.views.adoption(now, owner as u8);
            news |= self.board.publish_adoption(view, owner as u16, adoption);
        }
        news
    }
}
