//! Which view should follow: the largest clique of nodes that hear each other (V2, V7-V9).

use super::{
    ALL_RESTARTED_PATIENCE_NS, AMBIGUOUS_NS, KMIN_FULL, NodeState, SUSPECT_NS, View, Views,
};
use crate::replicator::Standing;

/// A view that should follow, and how sure that is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    /// Bit per node inside the clique.
    pub(super) set: u32,
    pub(super) view: View,
    /// Somebody outside is still heard by somebody inside: wait before saying it is dead.
    pub(super) ambiguous: bool,
}

impl Views {
    /// The value a proposal of this node puts after `base`.
    pub(super) fn follow(&self, now: u64, base: &View) -> View {
        // Somebody has declared this node dead meanwhile: let that view be known, not undone.
        if !self.view.is_dead(self.me()) && base.is_dead(self.me()) {
            return *base;
        }
        match self.choose(now, base) {
            Some(choice) if self.stands(now, &choice) => choice.view,
            _ => *base,
        }
    }

    /// Whether an ambiguous choice has been the same long enough.
    pub(super) fn stands(&self, now: u64, choice: &Choice) -> bool {
        !choice.ambiguous
            || self
                .ambiguous
                .is_some_and(|(set, since)| set == choice.set && now >= since + AMBIGUOUS_NS)
    }

    /// The view that should follow `base` by what the heartbeats say; nothing without majority.
    pub(super) fn choose(&self, now: u64, base: &View) -> Option<Choice> {
        let set = self.largest_clique(now, base)?;
        let mut view = *base;
        for node in 0..usize::from(self.config.voters) {
            if set >> node & 1 == 1 {
                self.place_inside(node, base, &mut view);
            } else if !view.is_dead(node) {
                view.nodes[node].standing = Standing::Dead;
                view.gone |= if self.is_witness(node) { 0 } else { 1 << node };
            }
        }
        self.place_draining(set, base, &mut view);
        self.raise_the_last(now, base, &mut view);
        let mut places = view.nodes.iter().zip(&base.nodes);
        if places.any(|(place, former)| !place.is_where(former)) {
            view.changed = base.number + 1;
        }
        self.settle(base, &mut view);
        if view != *base {
            view.number = base.number + 1;
        }
        let ambiguous = (0..usize::from(self.config.voters)).any(|node| {
            let outside = set >> node & 1 == 0 && !base.is_dead(node);
            outside && self.is_fresh(now, node) && self.adjacent(node) & set != 0
        });
        Some(Choice {
            set,
            view,
            ambiguous,
        })
    }

    fn place_inside(&self, node: usize, base: &View, view: &mut View) {
        let (known, peer) = (base.nodes[node], &self.peers[node]);
        let place = &mut view.nodes[node];
        if self.is_witness(node) {
            let incarnation = known.incarnation.max(peer.incarnation);
            *place = NodeState {
                incarnation,
                standing: Standing::Alive,
                ..known
            };
        } else if peer.incarnation > known.incarnation {
            *place = NodeState {
                incarnation: peer.incarnation,
                standing: Standing::Joining,
                ..known
            };
            if peer.kept || base.never_had(node) {
                view.gone &= !(1 << node);
            } else {
                view.gone |= 1 << node;
            }
        } else if known.standing == Standing::Joining
            && peer.incarnation == known.incarnation
            && peer.synced == base.number
            && self.data_nodes().any(|other| base.is_alive(other))
        {
            place.standing = Standing::Alive;
        }
    }

    /// V9: nobody is alive. Joiners go on if all data nodes that ever were there are joining in
    /// `base` and synced under that very view, or after a long wait.
    fn raise_the_last(&self, now: u64, base: &View, view: &mut View) {
        if self.data_nodes().any(|node| base.is_alive(node)) {
            return;
        }
        let is_joining = |node: usize| base.nodes[node].standing == Standing::Joining;
        let joining = *view;
        let is_same = |node: usize| joining.nodes[node] == base.nodes[node];
        let all = self
            .data_nodes()
            .all(|node| base.never_had(node) || is_joining(node) && is_same(node));
        let waited = self
            .no_alive_since
            .is_some_and(|at| now >= at + ALL_RESTARTED_PATIENCE_NS);
        if !all && !waited {
            return;
        }
        for node in self.data_nodes() {
            let synced = self.peers[node].synced == base.number;
            if is_joining(node) && is_same(node) && synced {
                view.nodes[node].standing = Standing::Alive;
            }
        }
    }

    /// V7: how many copies may be missing, and when that is over. Every change of places is settled
    /// by a view of its own, be there anything missing or not.
    fn settle(&self, base: &View, view: &mut View) {
        if base.gone & !view.gone != 0 {
            // A member is back with its memory, but writes made meanwhile had fewer copies.
            view.kmin = view.kmin.min(self.copies_among_alive(base));
        }
        let full = self.copies_among_alive(view);
        let is_moving = |node: usize| {
            matches!(
                view.nodes[node].standing,
                Standing::Joining | Standing::Draining
            )
        };
        let is_still = !self.data_nodes().any(is_moving);
        let has_changed = is_still && view.changed > view.settled;
        let unsettled = view.gone != 0 || view.kmin < full || has_changed;
        let alive = || self.data_nodes().filter(|&node| view.is_alive(node));
        // A draining one too: it may have to learn what became of the calls it gave away.
        let is_owner =
            |node: &usize| view.is_alive(*node) || view.nodes[*node].standing == Standing::Draining;
        let mut owners = self.data_nodes().filter(is_owner);
        let settled = owners.all(|node| self.peers[node].settled == base.number);
        if view.nodes == base.nodes && unsettled && settled && alive().count() > 0 {
            (view.gone, view.kmin) = (0, full);
            let number = base.number + 1;
            for node in self.data_nodes().filter(|&node| base.is_dead(node)) {
                view.nodes[node].settled_without = number;
            }
            if is_still {
                view.settled = number;
            }
        }
    }

    pub(super) fn copies_among_alive(&self, view: &View) -> u8 {
        let alive = self
            .data_nodes()
            .filter(|&node| view.is_alive(node))
            .count() as u8;
        if alive >= self.config.copies {
            KMIN_FULL
        } else {
            alive.max(1)
        }
    }

    /// Most alive members, then most members, then one with this node, then the lowest numbers.
    fn largest_clique(&self, now: u64, base: &View) -> Option<u32> {
        let voters = usize::from(self.config.voters);
        let fresh = (0..voters)
            .filter(|&n| self.is_fresh(now, n))
            .fold(0, |m, n| m | 1 << n);
        if self.is_clique(fresh) {
            // All sets of fresh nodes lie within it.
            return (fresh.count_ones() >= self.register.majority()).then_some(fresh);
        }
        let alive = |node: &usize| {
            let same = base.nodes[*node].incarnation == self.peers[*node].incarnation;
            base.is_alive(*node) && same
        };
        let alive = self
            .data_nodes()
            .filter(alive)
            .fold(0_u32, |mask, node| mask | 1 << node);
        let key = |set: u32| {
            let own = set >> self.config.node & 1;
            (
                (set & alive).count_ones(),
                set.count_ones(),
                own,
                std::cmp::Reverse(set),
            )
        };
        let mut best = None;
        // All subsets of the fresh nodes, downwards.
        let mut set = fresh;
        while set != 0 {
            let candidate = set.count_ones() >= self.register.majority()
                && best.is_none_or(|best| key(set) > key(best));
            if candidate && self.is_clique(set) {
                best = Some(set);
            }
            set = (set - 1) & fresh;
        }
        best
    }

    fn is_clique(&self, set: u32) -> bool {
        let mut members = (0..usize::from(self.config.voters)).filter(|n| set >> n & 1 == 1);
        members.all(|node| (self.adjacent(node) | 1 << node) & set == set)
    }

    /// Nodes that have a fresh round trip with `node`, and it with them.
    fn adjacent(&self, node: usize) -> u32 {
        let mutual = |&other: &usize| {
            self.peers[node].mask >> other & 1 == 1 && self.peers[other].mask >> node & 1 == 1
        };
        (0..usize::from(self.config.voters))
            .filter(mutual)
            .fold(0, |mask, n| mask | 1 << n)
    }

    fn is_fresh(&self, now: u64, node: usize) -> bool {
        node == self.me()
            || (now < self.peers[node].heard + SUSPECT_NS && self.has_fresh_round_trip(now, node))
    }
}
