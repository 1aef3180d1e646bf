//! Leaving in order: a node hands its calls over before it goes (V13).
//!
//! ```text
//!  the one that leaves                          the view             the others
//!    drain ───────────── heartbeat ──────────▶  draining: no place for copies any more
//!    each call: heir, Ring::give,                                     copies move
//!      Replicator::hand_over ──────────────────────────────────────▶  Stored, and I am the heir:
//!                                                                     may_take_over, Ring::adopt,
//!    Stored: it has another owner ◀─────────────────────────────────  commit, Replicator::tell
//!    owns nothing, replication settled:                               set_settled
//!      set_drained ───── heartbeat ──────────▶  dead, but not gone
//! ```
//!
//! A call that is given stays its giver's until the heir has adopted it; the giver has written
//! its last version and is silent. So nothing is new for the rest: if the giver dies the call is
//! adopted as any other of its (V6), if it restarts it resumes the call (V8), and an heir may take
//! over only while its view says *draining*, in which neither can have happened: both need this
//! heir's answer under a newer view first.
//!
//! What a shard does about it, besides what it does anyway:
//!
//! * While `standing` is draining it takes no new calls (it forwards them, as a node that may not
//!   act does). Per turn, while it `may_act`, for a bounded number of calls it owns: has the
//!   record no `Meta::heir`, or one that `is_lost`, then `heir`, `Ring::give` and
//!   `Replicator::hand_over`. From then on it is silent about the call: no timers, no outputs.
//!   What was pending is in the blob, and the heir sends it again. A call given a second ago and
//!   still its own it tells the heir once more (`Replicator::tell`).
//! * `ReplicationEvent::Stored` for a call whose record names this node as heir, and after a start
//!   every such record in the ring: to be taken over once `may_take_over` (giver = the record's
//!   owner), by `Ring::adopt` under the view's number, a commit, and `Replicator::tell` to the
//!   giver. If the giver's standing changes first, forget about it.
//! * If this node is alive again because nobody else is, it adopts under the view's number each
//!   call of its own whose heir `is_lost`.
//! * `set_settled` as always, for the copies must have moved before the node that held them goes.
//!
//! A node that leaves is not missing: no copy on it is needed, and its bit in `gone` stays clear.
//! Should it fail before it is through, it is dead like any other.

use super::{Adoption, View, Views};
use crate::record::CallId;
use crate::replicator::Standing;
use crate::takeover;

impl Views {
    /// Asks to leave, until the end of this process. The view says when: not while nobody else is
    /// alive.
    pub fn drain(&mut self) {
        self.drain = true;
    }

    /// This node owns no call any more and all it sent is acked. Say so again in each view.
    pub fn set_drained(&mut self) {
        if self.standing() == Standing::Draining {
            self.drained = self.view.number;
        }
    }

    /// Where this node stands in the newest view it knows; dead if the view means another
    /// incarnation.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let own = self.view.nodes[self.me()];
        if own.incarnation == self.incarnation {
            own.standing
        } else {
            Standing::Dead
        }
    }

    /// Whether this node has handed everything over and left: the process may end.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.drain && self.drained != 0 && self.view.is_dead(self.me())
    }

    /// Who is to have a call of this node, which is draining: the first of the alive members,
    /// which holds a copy already. Nothing while this node is not draining.
    #[must_use]
    pub fn heir(&self, id: CallId) -> Option<u8> {
        if self.standing() != Standing::Draining {
            return None;
        }
        let alive = || self.data_nodes().filter(|&node| self.view.is_alive(node));
        let first = alive().max_by_key(|&node| (takeover::weight(id, node as u16), node));
        first.map(|node| node as u8)
    }

    /// Whether a call that `giver`, its owner, has given to this node may be taken over now.
    #[must_use]
    pub fn may_take_over(&self, now: u64, giver: u16) -> bool {
        let giver = self.view.nodes[..usize::from(self.config.voters)].get(usize::from(giver));
        giver.is_some_and(|giver| giver.standing == Standing::Draining) && self.may_act(now)
    }

    /// Whether a call given to `heir` may be given to another: the heir is dead, and whatever it
    /// may have done with the call is known here or never left it (V6).
    #[must_use]
    pub fn is_lost(&self, now: u64, heir: u16) -> bool {
        let Some(heir) = u8::try_from(heir).ok().filter(|&n| n < self.config.voters) else {
            return false;
        };
        if self.must_adopt(heir) {
            return self.adoption(now, heir) != Adoption::NotNow;
        }
        self.view.is_dead(usize::from(heir)) && self.may_act(now)
    }

    /// Moves nodes inside the clique that want to leave a step on.
    pub(super) fn place_draining(&self, set: u32, base: &View, view: &mut View) {
        for node in self.data_nodes().filter(|node| set >> node & 1 == 1) {
            let peer = &self.peers[node];
            if view.nodes[node].incarnation != peer.incarnation {
                continue;
            }
            let others_alive = self
                .data_nodes()
                .any(|other| other != node && view.is_alive(other));
            let standing = &mut view.nodes[node].standing;
            match *standing {
                Standing::Alive if peer.drain && base.is_alive(node) && others_alive => {
                    *standing = Standing::Draining;
                    // Its copies do not count from now on.
                    view.kmin = view.kmin.min(self.copies_among_alive(view));
                }
                // Nobody is left to have its calls.
                Standing::Draining if !others_alive => *standing = Standing::Alive,
                Standing::Draining if peer.drained == base.number && self.is_settled(base) => {
                    *standing = Standing::Dead;
                }
                _ => {}
            }
        }
    }

    /// Whether every alive member's calls have their copies, without those of the draining.
    fn is_settled(&self, base: &View) -> bool {
        let mut alive = self.data_nodes().filter(|&node| base.is_alive(node));
        alive.all(|node| self.peers[node].settled == base.number)
    }
}
