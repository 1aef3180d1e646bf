//! The right to act, and to adopt, for a time.

use super::{GONE_PATIENCE_NS, LEASE_NS, LEASE_OVER_NS, SUSPECT_NS, VOTERS_MAX, Views};
use crate::plant::{self, Plant};
use crate::record::CallId;
use crate::replicator::Standing;
use crate::takeover;

impl Views {
    /// Whether this node may act at this very moment (V3). Read the clock again right before.
    #[must_use]
    pub fn may_act(&self, now: u64) -> bool {
        let own = self.view.nodes[self.me()];
        let is_member = matches!(own.standing, Standing::Alive | Standing::Draining);
        is_member && own.incarnation == self.incarnation && self.resumed && self.has_lease(now)
    }

    /// Until when this node may act if nothing more is heard; 0 if it may not (V3). What is heard
    /// later may end it earlier: ask again after every message.
    #[must_use]
    pub fn lease_until(&self) -> u64 {
        let own = self.view.nodes[self.me()];
        let is_member = matches!(own.standing, Standing::Alive | Standing::Draining);
        let newest = self.view.number;
        let deposed = self.register.vote().accepted.1.number > newest;
        let is_sure = self.resumed && !deposed && self.has_vote();
        if !is_member || own.incarnation != self.incarnation || !is_sure {
            return 0;
        }
        let voters = usize::from(self.config.voters);
        let until = |node: usize| {
            let peer = &self.peers[node];
            match node == self.me() {
                true => u64::MAX,
                false if peer.acked == 0 || peer.accepted > newest => 0,
                false => peer.acked + LEASE_NS,
            }
        };
        let mut ends = [0; VOTERS_MAX];
        for (node, end) in ends[..voters].iter_mut().enumerate() {
            *end = until(node);
        }
        ends[..voters].sort_unstable_by(|a, b| b.cmp(a));
        ends[self.register.majority() as usize - 1]
    }

    /// Whether the calls of the dead node `owner` may be adopted now (V6).
    #[must_use]
    pub fn adoption(&self, now: u64, owner: u8) -> Adoption {
        let dead = usize::from(owner);
        if !self.must_adopt(owner) || !self.may_act(now) {
            return Adoption::NotNow;
        }
        if self.synced != self.view.number || !self.lease_is_over(now, dead) {
            return Adoption::NotNow;
        }
        let missing = self.view.gone.count_ones();
        let in_reach = missing < u32::from(self.config.copies.min(self.view.kmin));
        if in_reach || plant::is(Plant::GoneIgnored) {
            Adoption::Ready
        } else if now >= self.gone_since + GONE_PATIENCE_NS {
            Adoption::BeyondThePromise
        } else {
            Adoption::NotNow
        }
    }

    /// Whether calls of `owner` may be left to adopt: it is dead, and the view is not settled
    /// since. What names a dead owner otherwise is a leftover, see `Ring::is_leftover`.
    #[must_use]
    pub fn must_adopt(&self, owner: u8) -> bool {
        let is_node = owner < self.config.voters;
        is_node && self.view.is_dead(usize::from(owner)) && self.view.gone >> owner & 1 == 1
    }

    /// Whether this node is the one to adopt the call under the present view.
    #[must_use]
    pub fn is_adopter(&self, id: CallId) -> bool {
        let alive = self.data_nodes().filter(|&node| self.view.is_alive(node));
        self.view.is_alive(self.me())
            && !self.is_witness(self.me())
            && takeover::is_among_first(id, self.config.node.into(), 1, alive.map(|n| n as u16))
    }

    fn has_lease(&self, now: u64) -> bool {
        let newest = self.view.number;
        if self.register.vote().accepted.1.number > newest || !self.has_vote() {
            return false;
        }
        let confirms = |&node: &usize| {
            let peer = &self.peers[node];
            node == self.me()
                || (peer.acked != 0 && now < peer.acked + LEASE_NS && peer.accepted <= newest)
        };
        let confirmed = (0..usize::from(self.config.voters))
            .filter(confirms)
            .count();
        confirmed as u32 >= self.register.majority()
    }

    /// Whether a dead node can no longer believe that it has the lease (V6c).
    fn lease_is_over(&self, now: u64, dead: usize) -> bool {
        if now >= self.peers[dead].dead_since + LEASE_OVER_NS {
            return true;
        }
        let own = u32::from(now >= self.peers[dead].given + LEASE_OVER_NS);
        let voters = usize::from(self.config.voters);
        let others = (0..voters).filter(|&node| node != self.me() && node != dead);
        let stating = others.filter(|&node| {
            let peer = &self.peers[node];
            // What it said before it knew the view proves nothing: it may have acked since.
            let aged = peer.ages_ms[dead] as u64 + now.saturating_sub(peer.heard) / 1_000_000;
            peer.view >= self.view.number
                && now < peer.heard + SUSPECT_NS
                && aged * 1_000_000 > LEASE_OVER_NS
        });
        let stated = own + stating.count() as u32;
        stated + self.register.majority() > u32::from(self.config.voters)
    }
}

/// Whether a dead node's calls may be adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// Not now; a later tick may say otherwise.
    NotNow,
    /// All conditions hold.
    Ready,
    /// So many members are missing that copies may be too; the wait for them is over. Log it.
    BeyondThePromise,
}
