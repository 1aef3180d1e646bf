//! Handing calls over before this node leaves, and having those of a node that does (V13).
//!
//! A call that is given stays its giver's until the heir has adopted it, but the giver has
//! forgotten it but for its record, and is silent about it. What happens to either node in between
//! is the matter of the rules for dead nodes and for those that come back.

use std::collections::VecDeque;

use replication::{CallId, Cursor, Kind, Standing, Step, Version};

use super::{ClusterStore, LOOKED_A_TURN, SCANNED_A_TURN};
use crate::store::StoreEvent;

/// Calls on their way from one living node to another.
#[derive(Default)]
pub(super) struct Gifts {
    /// This node's calls that an heir has not adopted yet.
    given: VecDeque<CallId>,
    /// When the heirs were told last.
    told: u64,
    /// Calls this node is the heir of.
    received: VecDeque<CallId>,
    /// The walk for such calls, which a node that was not here may have missed.
    seek: Option<Cursor>,
}

impl Gifts {
    /// A new view: a node may have begun to leave before this one could see it.
    pub(super) fn look_again(&mut self) {
        self.seek = Some(Cursor::default());
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn has_room(&self) -> bool {
        self.received.len() < GIFTS_MAX
    }
}

impl ClusterStore {
    /// Whether this node is to hand its calls over.
    pub(super) fn leaves(&self) -> bool {
        self.follows && self.standing(self.config.node) == Standing::Draining
    }

    /// Gives a call away. False if it stays.
    pub(super) fn give_away(&mut self, id: CallId) -> bool {
        let Some(heir) = self.adopter_of(id).filter(|_| self.leaves()) else {
            return false;
        };
        let Ok(version) = self.ring.give(id, heir) else {
            return false;
        };
        self.replicator.hand_over(self.now, id, version, heir);
        self.gifts.given.push_back(id);
        self.report.given += 1;
        true
    }

    /// Another node's version of a call was stored here.
    pub(super) fn on_stored(&mut self, id: CallId) {
        let Some(record) = self.ring.newest(id) else {
            self.events.push_back(StoreEvent::Lost(id.as_u128()));
            return;
        };
        let meta = record.meta;
        self.board.note_schema(self.config.shard, meta.schema);
        if meta.owner != self.config.node && meta.heir() == Some(self.config.node) {
            if self.gifts.has_room() {
                self.gifts.received.push_back(id);
            } else {
                self.gifts.look_again();
            }
        } else {
            self.events.push_back(StoreEvent::Lost(id.as_u128()));
        }
    }

    /// Does what is due about calls that change hands between living nodes.
    pub(super) fn follow_gifts(&mut self, may_act: bool) {
        self.seek_gifts();
        if !may_act {
            return;
        }
        // Who gave it may not know that a former heir took it over and is dead. Somebody may.
        if self.board.is_filled(self.view.number) {
            self.take_gifts();
        }
        self.mind_given();
    }

    pub(super) fn has_given(&self) -> bool {
        !self.gifts.given.is_empty()
    }

    fn seek_gifts(&mut self) {
        let others = self.data_nodes.iter().copied();
        let mut others = others.filter(|&node| node != self.config.node);
        if !others.any(|node| self.standing(node) == Standing::Draining) {
            return; // they can be taken from a node that leaves alone
        }
        let Some(mut cursor) = self.gifts.seek.take() else {
            return;
        };
        let mut looks = LOOKED_A_TURN;
        for _ in 0..SCANNED_A_TURN {
            if !self.gifts.has_room() {
                break; // what lies behind is found when these are taken
            }
            let record = match self.ring.walk_some(&mut cursor, &mut looks) {
                Step::Record(record) => record,
                Step::Later => break,
                Step::End => return,
            };
            let (meta, own) = (record.meta, self.config.node);
            if meta.kind == Kind::Put && meta.owner != own && meta.heir() == Some(own) {
                self.gifts.received.push_back(meta.id);
            }
        }
        self.gifts.seek = Some(cursor);
    }

    fn take_gifts(&mut self) {
        let own = self.config.node;
        // This node may have been let go at its word, by a view that is not known here yet: what it
        // owned then nobody would take over. The giver will find it gone and give to another.
        if self.board.is_drained(self.config.shard, self.view.number) {
            return;
        }
        for _ in 0..self.gifts.received.len().min(TAKEN_A_TURN) {
            let Some(id) = self.gifts.received.pop_front() else {
                return;
            };
            let Some(record) = self.ring.newest(id) else {
                continue;
            };
            let (giver, heir) = (record.meta.owner, record.meta.heir());
            // Of any other node the call is found by another way, or after the next view.
            if giver == own || heir != Some(own) || self.standing(giver) != Standing::Draining {
                continue;
            }
            let Some(state) = crate::b2bua::read_state(record.meta.schema, record.payload) else {
                self.report.refused += 1;
                continue;
            };
            let Ok(version) = self.ring.adopt(id, self.epoch(), |_| {}) else {
                continue;
            };
            self.report.received += 1;
            self.replicator.tell(self.now, giver, id, version);
            self.events.push_back(StoreEvent::Received(Box::new(state)));
        }
    }

    // A call stays in the list until another node has adopted it.
    fn mind_given(&mut self) {
        if self.gifts.given.is_empty() || self.now < self.gifts.told + TELL_NS {
            return;
        }
        self.gifts.told = self.now;
        for _ in 0..self.gifts.given.len() {
            let Some(id) = self.gifts.given.pop_front() else {
                return;
            };
            let Some(meta) = self.ring.newest(id).map(|record| record.meta) else {
                continue;
            };
            if let Some(heir) = meta.heir().filter(|_| meta.owner == self.config.node) {
                self.mind(id, meta.version, heir);
            }
        }
    }

    fn mind(&mut self, id: CallId, version: Version, heir: u16) {
        let is_lost = self.board.is_lost(self.view.number, heir);
        if is_lost && self.leaves() && self.give_away(id) {
            return;
        }
        if is_lost && self.standing(self.config.node) == Standing::Alive {
            return self.take_back(id);
        }
        if self.leaves() && !is_lost {
            self.replicator.tell(self.now, heir, id, version);
        }
        self.gifts.given.push_back(id);
    }

    // Nobody is left to have the call.
    fn take_back(&mut self, id: CallId) {
        let state = self
            .ring
            .newest(id)
            .and_then(|record| crate::b2bua::read_state(record.meta.schema, record.payload));
        let (Some(state), Ok(_)) = (state, self.ring.adopt(id, self.view.number, |_| {})) else {
            self.gifts.given.push_back(id);
            return;
        };
        self.report.adopted += 1;
        self.events.push_back(StoreEvent::TakeOver(Box::new(state)));
    }
}

/// Pause between reminders to the heirs of calls that are still this node's.
const TELL_NS: u64 = 200_000_000;
/// Calls that may wait to be taken over from a node that leaves; others are looked for later.
const GIFTS_MAX: usize = 64 * 1_024;
/// Calls taken over in one turn.
const TAKEN_A_TURN: usize = 128;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use replication::layout::SUPERBLOCK;
    use replication::peer::LinkConfig;
    use replication::{
        ClusterKeys, Map, Meta, Mode, ReplicatorConfig, Ring, RingConfig, Standing, View,
    };

    use super::*;
    use crate::cluster::{Board, ClusterStoreParts};
    use crate::store::ClusterSide;

    // Node 0 of two, the other one of which leaves.
    fn heir(ring: Ring) -> ClusterStore {
        let board = Arc::new(Board::new(1));
        let mut view = View::genesis();
        view.nodes[1].standing = Standing::Draining;
        board.publish_view(&view, 1);
        ClusterStore::new(ClusterStoreParts {
            ring,
            replicator: ReplicatorConfig {
                cluster: 1,
                node: 0,
                incarnation: 1,
                shard: 0,
                copies: 2,
                holds_max: 10,
                link: LinkConfig::default(),
            },
            keys: ClusterKeys {
                current: (1, [1; 32]),
                other: None,
            },
            data_nodes: vec![0, 1],
            mode: Mode::SemiSync,
            board,
            clock_start: quanta::Clock::mock().0.now(),
        })
    }

    #[test]
    fn no_more_given_calls_are_noted_than_have_room_and_none_is_missed() {
        let calls = GIFTS_MAX + 1_000;
        let config = RingConfig {
            node: 0,
            payload_bytes_max: 128,
            calls_max: 2 * calls,
            ..RingConfig::default()
        };
        let map = |bytes: u64| Map::heap(SUPERBLOCK + bytes as usize);
        let (young, old) = (map(config.young_bytes), map(config.old_bytes));
        let mut ring = Ring::create(young, old, &config).expect("limits");
        let ids: BTreeSet<u128> = (0..calls as u64)
            .map(|n| CallId::new(1, 0, 1, n).as_u128())
            .collect();
        for &id in &ids {
            let given = Meta {
                id: CallId::from_u128(id),
                version: Version::first(1),
                rseq: 0,
                owner: 1,
                shard: 0,
                schema: 1,
                kind: Kind::Put,
                // The heir is node 0.
                flags: 1,
                written: 0,
            };
            ring.apply(given, &[]).expect("room");
        }
        let mut store = heir(ring);
        let mut found = BTreeSet::new();
        for _ in 0..calls {
            store.tick();
            assert!(store.gifts.received.len() <= GIFTS_MAX);
            if store.gifts.received.len() == GIFTS_MAX {
                let taken = store.gifts.received.drain(..TAKEN_A_TURN);
                found.extend(taken.map(CallId::as_u128));
            }
            if store.gifts.seek.is_none() {
                break;
            }
        }
        found.extend(store.gifts.received.iter().map(|id| id.as_u128()));
        assert_eq!(found.len(), calls);
        assert_eq!(found, ids);
    }
}
