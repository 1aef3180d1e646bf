//! The membership of a node: the view register and the heartbeats, sans-IO, and what they mean
//! for the shards. A witness is a membership without shards.

use std::sync::Arc;

use replication::courier::CourierCounters;
use replication::seal::OpenFault;
use replication::view::{StartFault, VOTERS_MAX};
use replication::{
    ClusterKeys, Courier, CourierConfig, Durable, Letter, Versions, View, ViewConfig, Views,
    VoteStore,
};

use super::board::Board;
use crate::counters::MemberCounters;

/// One node's membership. `now` is [`super::ns_of`] of its clock.
pub struct Membership {
    views: Views,
    board: Arc<Board>,
    votes: Box<dyn VoteStore + Send>,
    courier: Courier,
    parts: MembershipConfig,
    refused: u64,
    send_failed: u64,
    /// What couriers of former incarnations counted.
    former: CourierCounters,
    looked: u64,
}

/// What a membership is made for.
#[derive(Clone, Debug)]
pub struct MembershipConfig {
    /// Voters, witnesses, copies.
    pub view: ViewConfig,
    /// The cluster.
    pub cluster: u32,
    /// Its keys.
    pub keys: ClusterKeys,
    /// Lowest and highest schema of call states that this node reads; it writes the highest that
    /// all members read.
    pub schemas: (u16, u16),
    /// Whether the node never ran before, as its operator says.
    pub first_boot: bool,
}

impl MembershipConfig {
    fn courier(&self, incarnation: u32) -> Courier {
        let config = CourierConfig {
            cluster: self.cluster,
            node: self.view.node.into(),
            incarnation,
            shard: VIEW_SHARD,
        };
        let nodes: Vec<u16> = (0..u16::from(self.view.voters)).collect();
        Courier::new(config, self.keys, &nodes)
    }
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
    /// This node has handed its calls over and is no member any more: its process may end.
    pub has_left: bool,
    /// Bit per node with which this one has no version in common, or not the number of shards.
    pub incompatible: u32,
    /// Bit per node that has another number of shards.
    pub with_other_shards: u32,
    /// Schema that call states are written in.
    pub schema: u16,
    /// Whether this node votes: its vote was not lost, or is read back.
    pub has_vote: bool,
    /// Whether the cluster knew this node before what its operator took for its first start.
    pub ran_before: bool,
    /// Bit per node that says it is an earlier incarnation than it was.
    pub went_back: u32,
    /// What it has counted.
    pub counters: MemberCounters,
}

impl Membership {
    /// Joins, under a new incarnation that is stored before anything is said. `kept`: the rings
    /// were recovered.
    ///
    /// # Errors
    /// See [`replication::view::StartFault`].
    pub fn start(
        parts: MembershipConfig,
        durable: Durable,
        kept: bool,
        now: u64,
        mut votes: Box<dyn VoteStore + Send>,
        board: Arc<Board>,
    ) -> Result<Self, StartFault> {
        let mut views = Views::start(parts.view, durable, kept, now, votes.as_mut())?;
        views.set_versions(Versions {
            schema: parts.schemas,
            schema_held: board.schema_held(),
            shards: board.shard_count(),
            ..Versions::default()
        });
        if parts.first_boot {
            views.set_first_boot();
        }
        let mut membership = Self {
            courier: parts.courier(views.incarnation()),
            views,
            board,
            votes,
            parts,
            refused: 0,
            send_failed: 0,
            former: CourierCounters::default(),
            looked: now,
        };
        membership.publish(now);
        Ok(membership)
    }

    /// Takes a datagram of another node. True if the shards should look at the board.
    pub fn handle_datagram(&mut self, now: u64, datagram: &mut [u8]) -> bool {
        match self.courier.open(datagram) {
            Ok((from, Letter::View(message))) => {
                self.views
                    .handle(now, from as u8, &message, self.votes.as_mut());
                self.publish(now)
            }
            Ok(_) => {
                self.refused += 1;
                false
            }
            Err(fault) => {
                self.refused += 1;
                if fault == OpenFault::Incarnation
                    && let Some(from) = self.courier.former_life_of(datagram)
                {
                    self.views.note_former_life(from as u8);
                }
                false
            }
        }
    }

    /// Does what is due. True if the shards should look at the board.
    pub fn tick(&mut self, now: u64) -> bool {
        self.views.tick(now, self.votes.as_mut());
        self.publish(now)
    }

    /// Writes the next datagram to send into `buffer`; says for which node, and its length.
    pub fn poll_datagram(&mut self, buffer: &mut [u8]) -> Option<(u16, usize)> {
        loop {
            let (to, message) = self.views.poll_message()?;
            // Whoever was not heard yet is told by heartbeats alone.
            if let Ok(len) = self.courier.seal_view(to.into(), &message, buffer) {
                return Some((to.into(), len));
            }
        }
    }

    /// A datagram could not be sent. What is lost is said again.
    pub fn note_send_failed(&mut self) {
        self.send_failed += 1;
    }

    /// When [`Membership::tick`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> u64 {
        let settled = self.board.all_settled(self.views.view().number);
        let look = if settled {
            u64::MAX
        } else {
            self.looked + LOOK_NS
        };
        self.views.deadline().min(look)
    }

    /// Asks to leave in order, until the end of this process: calls go to other nodes first.
    pub fn drain(&mut self) {
        self.views.drain();
    }

    /// Takes other keys of the cluster.
    pub fn set_keys(&mut self, keys: ClusterKeys) {
        self.parts.keys = keys;
        self.courier.set_keys(keys);
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
            has_left: self.views.has_left(),
            incompatible: self.views.incompatible(),
            with_other_shards: self.views.with_other_shards(),
            schema: self.views.schema(),
            has_vote: self.views.has_vote(),
            ran_before: self.views.ran_before(),
            went_back: self.views.went_back(),
            counters: self.counters(),
        }
    }

    fn counters(&self) -> MemberCounters {
        let (letters, former) = (self.courier.counters(), &self.former);
        MemberCounters {
            member_datagram_sent: former.datagrams_sent + letters.datagrams_sent,
            member_datagram_send_failed: self.send_failed,
            member_letter_unsent: former.letters_unsent + letters.letters_unsent,
            member_message_dropped: self.views.outbox_dropped(),
            member_datagram_refused: self.refused,
            member_key_unknown: former.keys_unknown + letters.keys_unknown,
            member_heartbeat_incompatible: self.views.heartbeats_incompatible(),
            vote_save_failed: self.views.saves_failed(),
        }
    }

    // Takes what the shards have done into account and tells them what is new.
    fn publish(&mut self, now: u64) -> bool {
        self.looked = now;
        let incarnation = self.views.incarnation();
        if self.courier.incarnation() != incarnation {
            let letters = self.courier.counters();
            self.former.datagrams_sent += letters.datagrams_sent;
            self.former.letters_unsent += letters.letters_unsent;
            self.former.keys_unknown += letters.keys_unknown;
            self.courier = self.parts.courier(incarnation);
        }
        if self.views.must_resume() && self.board.all_resumed(incarnation) {
            self.views.set_resumed();
        }
        let view = self.views.view().number;
        let wanted = self.views.sync_wanted();
        for peer in 0..u16::from(self.parts.view.voters) {
            if wanted >> peer & 1 == 1 && self.board.all_synced(peer, view) {
                self.views.note_synced(peer as u8, view);
            }
        }
        if self.board.all_settled(view) {
            self.views.set_settled();
        }
        if self.board.all_drained(view) {
            self.views.set_drained();
        }
        self.views.note_schema(self.board.schema_held());
        self.board.publish_schema(self.views.schema());
        self.board.publish_lease(self.views.lease_until());
        let mut news = self.board.publish_view(self.views.view(), incarnation);
        let must_resume = if self.views.may_resume(now) {
            incarnation
        } else {
            0
        };
        news |= self
            .board
            .publish_duties(view, must_resume, self.views.sync_wanted());
        for owner in 0..VOTERS_MAX.min(usize::from(self.parts.view.voters)) {
            let adoption = self.views.adoption(now, owner as u8);
            news |= self.board.publish_adoption(view, owner as u16, adoption);
        }
        let lost = (0..self.parts.view.voters).filter(|&heir| self.views.is_lost(now, heir.into()));
        let lost = lost.fold(0, |mask, heir| mask | 1 << heir);
        news | self.board.publish_lost_heirs(view, lost)
    }
}

/// Pause between looks at what the shards have done while something is to be settled.
const LOOK_NS: u64 = 5_000_000;
/// The shard number of the membership's datagrams, which no shard has.
const VIEW_SHARD: u16 = u16::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use replication::frame::DATAGRAM_BYTES_MAX;
    use replication::view::{HEARTBEAT_NS, SaveFault};

    struct Disk;

    impl VoteStore for Disk {
        fn save(&mut self, _: &Durable) -> Result<(), SaveFault> {
            Ok(())
        }
    }

    fn member(node: u8, incarnation: u32) -> Membership {
        let config = MembershipConfig {
            view: ViewConfig {
                node,
                voters: 3,
                witnesses: 0,
                copies: 2,
            },
            cluster: 7,
            keys: ClusterKeys {
                current: (1, [9; 32]),
                other: None,
            },
            schemas: (1, 1),
            first_boot: false,
        };
        let durable = Durable {
            incarnation,
            ..Durable::bootstrap()
        };
        let (disk, board) = (Box::new(Disk), Arc::new(Board::new(1)));
        Membership::start(config, durable, true, NOW, disk, board).expect("three voters")
    }

    // Takes what the other says to it in so many heartbeats.
    fn hear(one: &mut Membership, other: &mut Membership, heartbeats: u64) {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        for beat in 0..heartbeats {
            let now = NOW + beat * HEARTBEAT_NS;
            other.tick(now);
            while let Some((to, len)) = other.poll_datagram(&mut buffer) {
                if to == 0 {
                    one.handle_datagram(now, &mut buffer[..len]);
                }
            }
        }
    }

    #[test]
    fn a_peer_whose_incarnation_went_back_is_named_until_it_has_a_newer_one() {
        let mut own = member(0, 0);
        hear(&mut own, &mut member(1, 100), 3);
        hear(&mut own, &mut member(1, 101), 3);
        hear(&mut own, &mut member(1, 100), 5);
        assert_eq!(own.report(NOW).went_back, 0, "what a former life left");
        let mut old = member(1, 50);
        hear(&mut own, &mut old, 30);
        assert_eq!(own.report(NOW).went_back, 0b010);
        hear(&mut own, &mut member(1, 102), 3);
        assert_eq!(own.report(NOW).went_back, 0);
        // Of what only claims to be a former life's nothing is believed.
        let mut forged = [0; DATAGRAM_BYTES_MAX];
        for beat in 30..60 {
            old.tick(NOW + beat * HEARTBEAT_NS);
            while let Some((_, len)) = old.poll_datagram(&mut forged) {
                forged[len - 1] ^= 1;
                own.handle_datagram(NOW, &mut forged[..len]);
            }
        }
        assert_eq!(own.report(NOW).went_back, 0);
    }

    const NOW: u64 = 2_000_000_000;
}
