//! Who is a member, as the replicator asks for it: by place and by standing.

use super::{Member, PEERS_MAX, Peer, Standing};
use crate::record::CallId;
use crate::takeover;

/// The members that stay, other than this node, by value, so that links can be borrowed meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Members {
    nodes: [u16; PEERS_MAX],
    count: usize,
}

impl Members {
    pub(super) fn of(peers: &[Peer]) -> Self {
        let mut members = Self {
            nodes: [0; PEERS_MAX],
            count: 0,
        };
        for peer in peers.iter().filter(|peer| peer.is_place) {
            members.nodes[members.count] = peer.node;
            members.count += 1;
        }
        members
    }

    pub(super) fn iter(&self, own: u16) -> impl Iterator<Item = u16> + '_ {
        self.nodes[..self.count]
            .iter()
            .copied()
            .filter(move |&node| node != own)
    }
}

/// Who is a member in the view, by bit of the node's number.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Roll {
    alive: u32,
    not_dead: u32,
}

impl Roll {
    pub(super) fn of(members: &[Member]) -> Self {
        let mut roll = Self::default();
        for member in members {
            let bit = 1_u32.checked_shl(member.node.into()).unwrap_or(0);
            match member.standing {
                Standing::Alive => roll.alive |= bit,
                Standing::Joining | Standing::Draining => {}
                Standing::Dead => continue,
            }
            roll.not_dead |= bit;
        }
        roll
    }

    pub(super) fn has(self, node: u16) -> bool {
        node < 32 && self.not_dead >> node & 1 == 1
    }

    /// The member that goes on with a call of a dead owner.
    pub(super) fn adopter_of(self, id: CallId) -> Option<u16> {
        let alive = || bits(self.alive).map(|node| node as u16);
        alive().find(|&node| takeover::is_among_first(id, node, 1, alive()))
    }
}

/// The bits that are set, lowest first.
pub(super) fn bits(set: u32) -> impl Iterator<Item = usize> {
    (0..32).filter(move |n| set >> n & 1 == 1)
}
