//! Having what this node should hold, and no more: what it asks the others for, what it drops.

use replication::view::KMIN_FULL;
use replication::{ReplicationEvent, Standing};

use super::{ClusterStore, LOOKED_A_TURN};

/// Whether more is held than this node should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Surplus {
    None,
    Some,
    /// The peers were asked under that view what is to stay.
    Asked(u32),
}

impl ClusterStore {
    // Whoever has its own calls only lacks those of dead nodes that it is to go on with.
    pub(super) fn needs_everything(&self) -> bool {
        let is_joining = self.standing(self.config.node) == Standing::Joining;
        is_joining || self.resumed != self.config.incarnation
    }

    pub(super) fn forget_leftovers(&mut self) {
        if let Some(cursor) = &mut self.leftovers
            && !self.ring.forget_leftovers(cursor, LOOKED_A_TURN)
        {
            self.leftovers = None;
        }
    }

    // What a peer has filled this node with ends with what it no longer knows.
    pub(super) fn forget_what_peers_forgot(&mut self) {
        let (board, shard) = (&self.board, self.config.shard);
        let (now, ring) = (self.now, &mut self.ring);
        self.replicator
            .forget_some(now, ring, LOOKED_A_TURN, &mut |event| {
                if let ReplicationEvent::Synced { peer, view } = event {
                    board.note_synced(shard, peer, view);
                }
            });
    }

    pub(super) fn ask_to_be_filled(&mut self) -> u32 {
        let (number, needs_everything) = (self.view.number, self.needs_everything());
        let mut open = 0;
        let wanted = self.board.sync_wanted(number);
        for &peer in &self.data_nodes {
            let wants = wanted >> peer & 1 == 1;
            if wants && !self.board.has_synced(self.config.shard, peer, number) {
                if needs_everything {
                    self.replicator.request_sync(peer, number);
                } else {
                    self.replicator.request_orphans(peer, number);
                }
                open |= 1 << peer;
            }
        }
        open | wanted
    }

    // Whoever was filled with everything asks for its share, to drop the rest.
    pub(super) fn tidy(&mut self, filling: u32) {
        let (number, settled) = (
            self.view.number,
            self.view.gone == 0 && self.view.kmin == KMIN_FULL,
        );
        self.surplus = match self.surplus {
            _ if filling != 0 && self.needs_everything() => Surplus::Some,
            Surplus::Asked(view) if view != number => Surplus::Some,
            Surplus::Asked(_) if !self.replicator.is_asking() => Surplus::None,
            Surplus::Some if settled => {
                let own = self.config.node;
                let others: Vec<u16> = self.alive().filter(|&node| node != own).collect();
                for peer in others {
                    self.replicator.request_share(peer, number);
                }
                Surplus::Asked(number)
            }
            other => other,
        };
    }
}
