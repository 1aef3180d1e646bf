//! Disks that are lost though nobody said so (V10).
//!
//! An operator says that a node never ran. If a view knows the node under an earlier incarnation
//! all the same, its disk is lost, and with it what it promised and accepted: then its vote does
//! not count until it is read back from the others, as if the operator had replaced it.
//!
//! A peer that comes back under an earlier incarnation than it had is not heard; the operator is to
//! see why.

use std::cmp::Ordering;

use super::{Durable, ROUNDS_PER_INCARNATION_BITS, Views, VoteStore};
use crate::register::Register;

/// What is known of the first boot of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstBoot {
    /// The node ran before.
    No,
    /// This is its first boot, under that incarnation.
    Under(u32),
    /// It was said to be, but a view knew the node under that incarnation.
    Doubted(u32),
    /// The same, and the disk says now that the vote is lost.
    Refuted,
}

impl Views {
    /// This node never ran before, as its operator says. Before the first `handle`.
    pub fn set_first_boot(&mut self) {
        self.first_boot = FirstBoot::Under(self.incarnation);
    }

    /// Whether the cluster knew this node before what was said to be its first boot: its disk is
    /// lost. Log it.
    #[must_use]
    pub fn ran_before(&self) -> bool {
        self.first_boot == FirstBoot::Refuted
    }

    /// Bit per peer that speaks under an earlier incarnation than it did: an old disk, or two
    /// processes that run as one node. Log it.
    #[must_use]
    pub fn went_back(&self) -> u32 {
        let went_back = |node: &usize| self.peers[*node].former_lives > FORMER_LIVES_MAX;
        let nodes = (0..usize::from(self.config.voters)).filter(went_back);
        nodes.fold(0, |mask, node| mask | 1 << node)
    }

    /// A message of an earlier incarnation of a peer has come. Some do after each restart.
    pub fn note_former_life(&mut self, peer: u8) {
        if let Some(peer) = self.peers.get_mut(usize::from(peer)) {
            peer.former_lives = peer.former_lives.saturating_add(1);
        }
    }

    /// Counts heartbeats of former lives; a new one begins at none.
    pub(super) fn note_incarnation(&mut self, from: u8, incarnation: u32) {
        let peer = &mut self.peers[usize::from(from)];
        match incarnation.cmp(&peer.incarnation) {
            Ordering::Less => self.note_former_life(from),
            Ordering::Equal => {}
            Ordering::Greater => peer.former_lives = 0,
        }
    }

    /// Before the incarnation rises: it may have to rise above one of a former life.
    pub(super) fn doubt_first_boot(&mut self, store: &mut dyn VoteStore) {
        let known = self.view.nodes[self.me()].incarnation;
        if let FirstBoot::Under(first) = self.first_boot
            && known != 0
            && !(first..=self.incarnation).contains(&known)
        {
            self.first_boot = FirstBoot::Doubted(known);
        }
        let FirstBoot::Doubted(known) = self.first_boot else {
            return;
        };
        let durable = Durable::replacement(self.incarnation);
        if self.save(&durable, store) {
            let (node, voters) = (self.config.node, self.config.voters);
            let round = u64::from(known.max(self.incarnation)) << ROUNDS_PER_INCARNATION_BITS;
            self.register = Register::lost(node, voters, durable.vote, round);
            self.kept = false;
            self.first_boot = FirstBoot::Refuted;
        }
    }
}

/// So many messages of a former life may be late: a second of heartbeats.
const FORMER_LIVES_MAX: u8 = 20;
