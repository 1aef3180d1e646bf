//! Who is a member, decided by a majority; who may act, proven by round trips.
//!
//! Heartbeats *detect*, the register *decides*, the fence in `peer` *enforces*. A node may act
//! (send Diameter, fire timers, take and adopt calls) only while it is alive in the newest view
//! it knows, a majority has acked heartbeats it *sent* less than 180 ms ago by its own clock, and
//! no ack speaks of a newer view, be it only accepted (V3). Receiving is no evidence.
//!
//! ```text
//!   joining ──(synced under the very view)──▶ alive ──(outside the clique)──▶ dead
//!      ▲                                        │ asks for it                  ▲ │
//!      │                                        └──▶ draining ──(empty)────────┘ │
//!      └──────────────────────── new incarnation ────────────────────────────────┘
//! ```
//!
//! Nodes are numbered as configured, witnesses included; a witness votes and holds no calls.

use std::collections::VecDeque;

mod choice;
mod drain;
mod heartbeat;
mod lease;
mod lost_disk;
mod versions;
mod vote_file;
mod wire;

pub use self::lease::Adoption;
use self::lost_disk::FirstBoot;
pub use self::versions::Versions;
pub use self::vote_file::{Boot, VoteFault, VoteFile, VoteIdentity};
use crate::register::{Ballot, Outcome, Register, RegisterMessage, Vote};
use crate::replicator::Standing;

/// Who is what, under a number that is never decided twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// Number of the view, and epoch of calls that begin or are adopted under it (V5).
    pub number: u32,
    /// Nodes by configured number; the first `voters` count.
    pub nodes: [NodeState; VOTERS_MAX],
    /// Members dropped since the last settled view that have not come back with their memory.
    pub gone: u32,
    /// Fewest copies a write since then may have; `KMIN_FULL`: as many as configured.
    pub kmin: u8,
    /// Number of the view in which a node last came, went or moved.
    pub changed: u32,
    /// Number of the last settled view in which no node was on its way in or out. Until then every
    /// call had its copies, and no copy named an owner that it no longer had.
    pub settled: u32,
}

/// A node in a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeState {
    /// Its incarnation.
    pub incarnation: u32,
    /// Where it stands.
    pub standing: Standing,
    /// Number of the last view that was settled while the node was dead, 0 if none. What names it
    /// as owner under an epoch below is a leftover, wherever and whenever it is found: others have
    /// gone on with that call, or ended it so long ago that nobody knows.
    pub settled_without: u32,
}

impl NodeState {
    /// Whether it is the same incarnation at the same place.
    pub(crate) fn is_where(&self, other: &Self) -> bool {
        (self.incarnation, self.standing) == (other.incarnation, other.standing)
    }
}

impl View {
    /// The first view of a cluster that is born whole: everybody alive under incarnation 1. Also
    /// what a node knows that does not know the view yet.
    #[must_use]
    pub const fn genesis() -> Self {
        Self::first(NodeState {
            incarnation: 1,
            standing: Standing::Alive,
            settled_without: 0,
        })
    }

    /// The first view of a cluster whose nodes have yet to come: it knows nobody, so whoever comes
    /// joins, and nothing is missing that none of them ever held.
    #[must_use]
    pub const fn nobody() -> Self {
        Self::first(NodeState {
            incarnation: 0,
            standing: Standing::Dead,
            settled_without: 0,
        })
    }

    const fn first(node: NodeState) -> Self {
        Self {
            number: 1,
            nodes: [node; VOTERS_MAX],
            gone: 0,
            kmin: KMIN_FULL,
            changed: 1,
            settled: 1,
        }
    }

    /// Whether nothing is missing and nobody came, went or moved since the last settled view.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.gone == 0 && self.changed <= self.settled
    }

    fn is_alive(&self, node: usize) -> bool {
        self.nodes[node].standing == Standing::Alive
    }

    fn is_dead(&self, node: usize) -> bool {
        self.nodes[node].standing == Standing::Dead
    }

    /// Whether no view up to this one had that node in it: it holds nothing and never did.
    fn never_had(&self, node: usize) -> bool {
        self.nodes[node].incarnation == 0
    }
}

/// What a node knows about the cluster from its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewConfig {
    /// Number of this node.
    pub node: u8,
    /// Nodes that vote, witnesses included.
    pub voters: u8,
    /// Bit per node that is a witness.
    pub witnesses: u32,
    /// Copies of a call, the owner's included (k).
    pub copies: u8,
}

/// What a node keeps on disk, written before anything that depends on it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// Its incarnation.
    pub incarnation: u32,
    /// Whether it has all it held when it was last alive. False from the loss of its memory until
    /// it is alive again, however often it restarts meanwhile: half-filled rings are no memory.
    pub kept: bool,
    /// Its vote.
    pub vote: Vote<View>,
}

impl Durable {
    /// A disk in the place of a lost one (V10): the vote must be read back from the others before
    /// it counts, and what the memory holds is not believed. `incarnation` lies above all former
    /// ones: seconds since 1970 do, for no node restarts once a second.
    #[must_use]
    pub const fn replacement(incarnation: u32) -> Self {
        let mut lost = Self::bootstrap();
        lost.vote.accepted.1.number = VIEW_LOST;
        lost.incarnation = incarnation;
        lost.kept = false;
        lost
    }

    /// Whether the vote is lost and not read back yet.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        self.vote.accepted.1.number == VIEW_LOST
    }

    /// The disk of a node that never ran, of a cluster that never did (V10). `incarnation` lies
    /// above all that a former disk of this node may have had, should there have been one after
    /// all, for what was sealed under one incarnation must not be sealed again: seconds since 1970.
    /// For the same reason it has kept nothing; whether it had anything to keep, the view knows.
    #[must_use]
    pub const fn first_boot(incarnation: u32) -> Self {
        Self {
            incarnation,
            kept: false,
            vote: Self::blank(View::nobody()),
        }
    }

    /// The disk of a node of a cluster that is born whole, as no real one is.
    #[must_use]
    pub const fn bootstrap() -> Self {
        Self {
            incarnation: 0,
            kept: true,
            vote: Self::blank(View::genesis()),
        }
    }

    const fn blank(first: View) -> Vote<View> {
        Vote {
            promised: Ballot::from_u64(0),
            accepted: (Ballot::from_u64(0), first),
        }
    }
}

/// The disk. `save` returns after the bytes are safe from a power loss, or fails.
pub trait VoteStore {
    /// Stores what must not be forgotten.
    ///
    /// # Errors
    /// If it is not stored. The step that needed it is then not taken.
    fn save(&mut self, durable: &Durable) -> Result<(), SaveFault>;
}

/// The disk did not take the vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaveFault;

/// Why a node cannot take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFault {
    /// Two voters: any loss would leave no majority. Configure a witness (V12).
    TwoVoters,
    /// More voters than `VOTERS_MAX`, or this node is none of them.
    Voters,
    /// The disk did not take the new incarnation.
    Save,
}

/// What nodes say to each other about the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewMessage {
    /// I am here.
    Heartbeat(Heartbeat),
    /// I got it.
    Ack {
        /// When the heartbeat was sent, by its sender's clock.
        sent: u64,
        /// Newest view the acker knows or has accepted, decided or not.
        accepted: u32,
    },
    /// The register's own.
    Register(RegisterMessage<View>),
}

/// Content of a heartbeat (V1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// When it was sent, by the sender's clock.
    pub sent: u64,
    /// Incarnation of the sender.
    pub incarnation: u32,
    /// View it knows.
    pub view: u32,
    /// Bit per node with a fresh round trip.
    pub mask: u32,
    /// View under which it synced with all other members.
    pub synced: u32,
    /// View under which all its calls have their copies.
    pub settled: u32,
    /// Whether it still has what it held when it was last alive.
    pub kept: bool,
    /// Whether it wants to leave, with its calls handed over first (V13).
    pub drain: bool,
    /// View under which it has handed everything over; 0: not yet.
    pub drained: u32,
    /// What it reads and writes.
    pub versions: Versions,
    /// How long ago it last acked each node, in milliseconds.
    pub ages_ms: [u16; VOTERS_MAX],
}

/// Membership and lease of one node. Sans-IO: `now` is this node's monotonic clock in
/// nanoseconds, and never 0.
#[derive(Debug)]
pub struct Views {
    config: ViewConfig,
    register: Register<View>,
    incarnation: u32,
    view: View,
    kept: bool,
    /// It began without its memory.
    was_lost: bool,
    first_boot: FirstBoot,
    resumed: bool,
    synced: u32,
    synced_from: u32,
    settled: u32,
    drain: bool,
    drained: u32,
    versions: Versions,
    /// Bit per node that has been dead for so long that what it reads counts no more.
    versions_forgotten: u32,
    /// Bit per peer that has no version in common with this node.
    incompatible: u32,
    with_other_shards: u32,
    heartbeats_incompatible: u64,
    peers: [PeerView; VOTERS_MAX],
    boot: u64,
    heartbeat_at: u64,
    want_since: Option<u64>,
    proposed_at: u64,
    ambiguous: Option<(u32, u64)>,
    no_alive_since: Option<u64>,
    gone_since: u64,
    outbox: VecDeque<(u8, ViewMessage)>,
    outbox_dropped: u64,
    saves_failed: u64,
}

#[derive(Clone, Copy, Debug)]
struct PeerView {
    /// Latest heartbeat of ours it acked, by our clock; 0: none yet.
    acked: u64,
    /// View it had accepted then.
    accepted: u32,
    /// Its mask, and when we heard it.
    mask: u32,
    heard: u64,
    incarnation: u32,
    view: u32,
    synced: u32,
    settled: u32,
    kept: bool,
    drain: bool,
    drained: u32,
    versions: Versions,
    /// When we last acked it.
    given: u64,
    ages_ms: [u16; VOTERS_MAX],
    /// When we learned that it is dead.
    dead_since: u64,
    /// Messages of earlier incarnations than the newest.
    former_lives: u8,
}

impl Views {
    /// Starts a node from its disk, under a new incarnation. `kept`: its rings were recovered.
    ///
    /// # Errors
    /// See [`StartFault`].
    pub fn start(
        config: ViewConfig,
        durable: Durable,
        kept: bool,
        now: u64,
        store: &mut dyn VoteStore,
    ) -> Result<Self, StartFault> {
        if config.voters == 2 {
            return Err(StartFault::TwoVoters);
        }
        if usize::from(config.voters) > VOTERS_MAX || config.node >= config.voters {
            return Err(StartFault::Voters);
        }
        let incarnation = durable.incarnation.saturating_add(1);
        let kept = kept && durable.kept;
        let durable = Durable {
            incarnation,
            kept,
            ..durable
        };
        store.save(&durable).map_err(|SaveFault| StartFault::Save)?;
        let (node, voters) = (config.node, config.voters);
        let mut views = Self {
            register: if durable.is_lost() {
                // Rounds rise by less than that while an incarnation rises by one.
                let round = u64::from(incarnation) << ROUNDS_PER_INCARNATION_BITS;
                Register::lost(node, voters, durable.vote, round)
            } else {
                Register::new(node, voters, durable.vote)
            },
            config,
            incarnation,
            // A single voter's vote is the decision, and the first view is nobody's.
            view: if config.voters == 1 || durable.vote.accepted.1.number == 1 {
                durable.vote.accepted.1
            } else {
                View::genesis()
            },
            kept,
            was_lost: !kept,
            first_boot: FirstBoot::No,
            resumed: false,
            synced: 0,
            synced_from: 0,
            settled: 0,
            drain: false,
            drained: 0,
            versions: Versions::default(),
            versions_forgotten: 0,
            incompatible: 0,
            with_other_shards: 0,
            heartbeats_incompatible: 0,
            peers: [PeerView::unknown(now); VOTERS_MAX],
            boot: now,
            heartbeat_at: now,
            want_since: None,
            proposed_at: 0,
            ambiguous: None,
            no_alive_since: None,
            gone_since: now,
            outbox: VecDeque::with_capacity(OUTBOX_MAX),
            outbox_dropped: 0,
            saves_failed: 0,
        };
        views.note_self(now);
        Ok(views)
    }

    /// Takes a message of another node; true if a newer view is entered.
    pub fn handle(
        &mut self,
        now: u64,
        from: u8,
        message: &ViewMessage,
        store: &mut dyn VoteStore,
    ) -> bool {
        if from >= self.config.voters || from == self.config.node {
            return false;
        }
        match message {
            ViewMessage::Heartbeat(heartbeat) => {
                self.note_incarnation(from, heartbeat.incarnation);
                self.on_heartbeat(now, from, heartbeat);
                false
            }
            ViewMessage::Ack { sent, accepted } => {
                let peer = &mut self.peers[usize::from(from)];
                // An ack of what was not sent yet is no ack of ours.
                if *sent >= peer.acked && *sent <= now && *sent >= self.boot {
                    (peer.acked, peer.accepted) = (*sent, *accepted);
                }
                false
            }
            ViewMessage::Register(message) => self.on_register(now, from, *message, store),
        }
    }

    /// Does what is due; true if a newer view is entered.
    pub fn tick(&mut self, now: u64, store: &mut dyn VoteStore) -> bool {
        if now < self.heartbeat_at {
            return false;
        }
        self.heartbeat_at = now + HEARTBEAT_NS;
        self.doubt_first_boot(store);
        self.rise_again(store);
        self.forget_versions(now);
        self.note_self(now);
        let heartbeat = self.heartbeat(now);
        self.broadcast(ViewMessage::Heartbeat(heartbeat));
        self.lead(now, store)
    }

    /// The next message to send, and to whom.
    pub fn poll_message(&mut self) -> Option<(u8, ViewMessage)> {
        self.outbox.pop_front()
    }

    /// When `tick` has something to do.
    #[must_use]
    pub fn deadline(&self) -> u64 {
        self.heartbeat_at
    }

    /// Whether the calls this node owns must be written anew under the view's number before it
    /// may act: it became alive under a new incarnation (V8). Then call `set_resumed`.
    #[must_use]
    pub fn must_resume(&self) -> bool {
        !self.resumed && matches!(self.standing(), Standing::Alive | Standing::Draining)
    }

    /// Whether what this node holds now is all it can hope for. If its memory was lost its calls
    /// come from the others, and one that is missing as well may have the only copy: then it waits
    /// for that one as an adopter does (V6d).
    #[must_use]
    pub fn may_resume(&self, now: u64) -> bool {
        let missing = self.view.gone.count_ones();
        let in_reach = missing < u32::from(self.config.copies.min(self.view.kmin));
        self.must_resume()
            && (!self.was_lost || in_reach || now >= self.gone_since + GONE_PATIENCE_NS)
    }

    /// The calls this node owns are written under the present view's number.
    pub fn set_resumed(&mut self) {
        self.resumed = self.must_resume() || self.resumed;
    }

    /// Members that must still fill this node under the present view, as a bit mask (V6, V7).
    #[must_use]
    pub fn sync_wanted(&self) -> u32 {
        let own = self.view.nodes[self.me()];
        let unsettled = self.view.gone != 0 || self.view.kmin != KMIN_FULL;
        let wants = match own.standing {
            Standing::Joining => true,
            Standing::Alive | Standing::Draining => unsettled || !self.resumed,
            Standing::Dead => false,
        };
        if !wants || own.incarnation != self.incarnation || self.is_witness(self.me()) {
            return 0;
        }
        self.others_to_sync() & !self.synced_from
    }

    /// `peer` has filled this node; its catch-up began in view `view`. Counts only for the very
    /// view this node is in: an older one proves nothing, a newer one must be learned first.
    pub fn note_synced(&mut self, peer: u8, view: u32) {
        if view == self.view.number && peer < self.config.voters {
            self.synced_from |= 1 << peer;
        }
        self.update_synced();
    }

    /// Every call this node must adopt is adopted and all its calls have their copies.
    pub fn set_settled(&mut self) {
        self.settled = self.view.number;
    }

    /// The newest view known here.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// This node's incarnation; it rises when the node reads that it is dead.
    #[must_use]
    pub fn incarnation(&self) -> u32 {
        self.incarnation
    }

    /// Whether this node votes: its vote was not lost, or is read back.
    #[must_use]
    pub fn has_vote(&self) -> bool {
        !self.register.is_lost()
    }

    /// Messages dropped because nobody polled them.
    #[must_use]
    pub fn outbox_dropped(&self) -> u64 {
        self.outbox_dropped
    }

    /// Steps not taken because the disk did not take what they needed.
    #[must_use]
    pub fn saves_failed(&self) -> u64 {
        self.saves_failed
    }

    fn on_register(
        &mut self,
        now: u64,
        from: u8,
        message: RegisterMessage<View>,
        store: &mut dyn VoteStore,
    ) -> bool {
        let mut register = self.register.clone();
        let outcome = register.handle(from, message, |base| self.follow(now, base));
        self.act_on(now, Some(from), register, outcome, store)
    }

    /// Takes a step of the register: first the disk, then the messages.
    fn act_on(
        &mut self,
        now: u64,
        asker: Option<u8>,
        register: Register<View>,
        outcome: Outcome<View>,
        store: &mut dyn VoteStore,
    ) -> bool {
        if outcome.must_save {
            let durable = Durable {
                vote: *register.vote(),
                ..self.durable()
            };
            if !self.save(&durable, store) {
                // Not stored, so it did not happen.
                return false;
            }
        }
        self.register = register;
        if let (Some(answer), Some(asker)) = (outcome.answer, asker) {
            self.send(asker, ViewMessage::Register(answer));
        }
        if let Some(message) = outcome.broadcast {
            self.broadcast(ViewMessage::Register(message));
        }
        match outcome.decided {
            Some(view) if view.number > self.view.number => {
                self.enter(now, view, store);
                true
            }
            _ => false,
        }
    }

    fn enter(&mut self, now: u64, view: View, store: &mut dyn VoteStore) {
        for node in 0..usize::from(self.config.voters) {
            if view.is_dead(node) && !view.nodes[node].is_where(&self.view.nodes[node]) {
                self.peers[node].dead_since = now;
            }
        }
        if view.gone != 0 && self.view.gone == 0 {
            self.gone_since = now;
        }
        self.view = view;
        self.synced_from = 0;
        let own = view.nodes[self.me()];
        if own.standing == Standing::Alive && own.incarnation == self.incarnation && !self.kept {
            self.kept = true;
            // Not stored is no harm: the node then says less of itself than is true.
            self.save(&self.durable(), store);
        }
        if self.standing() == Standing::Alive {
            self.drained = 0;
        }
        self.doubt_first_boot(store);
        self.rise_again(store);
        self.update_synced();
        self.note_self(now);
    }

    /// Told dead: comes back as a new incarnation and joins again (V8). If the disk does not take
    /// that incarnation, the next `tick` asks it again.
    fn rise_again(&mut self, store: &mut dyn VoteStore) {
        let own = self.view.nodes[self.me()];
        let is_dead = own.standing == Standing::Dead && own.incarnation >= self.incarnation;
        if !is_dead || self.has_left() {
            return;
        }
        let incarnation = own.incarnation.saturating_add(1);
        let durable = Durable {
            incarnation,
            ..self.durable()
        };
        if self.save(&durable, store) {
            self.incarnation = incarnation;
            (self.synced, self.settled, self.resumed) = (0, 0, false);
            self.was_lost = !self.kept;
            self.drained = 0;
        }
    }

    fn save(&mut self, durable: &Durable, store: &mut dyn VoteStore) -> bool {
        let is_saved = store.save(durable).is_ok();
        self.saves_failed += u64::from(!is_saved);
        is_saved
    }

    fn durable(&self) -> Durable {
        Durable {
            incarnation: self.incarnation,
            kept: self.kept,
            vote: *self.register.vote(),
        }
    }

    fn lead(&mut self, now: u64, store: &mut dyn VoteStore) -> bool {
        let me = u64::from(self.config.node);
        let nobody_alive = self.data_nodes().all(|node| !self.view.is_alive(node));
        self.no_alive_since = nobody_alive.then(|| self.no_alive_since.unwrap_or(now));
        let again_at = self.proposed_at + PROPOSE_AGAIN_NS + me * PROPOSE_APART_NS;
        if now < self.boot + BOOT_NS || now < again_at {
            return false;
        }
        if self.register.is_lost() {
            self.proposed_at = now;
            let mut register = self.register.clone();
            let outcome = register.propose();
            return self.act_on(now, None, register, outcome, store);
        }
        let Some(choice) = self.choose(now, &self.view) else {
            self.want_since = None;
            return false;
        };
        if !choice.ambiguous {
            self.ambiguous = None;
        } else if self.ambiguous.is_none_or(|(set, _)| set != choice.set) {
            self.ambiguous = Some((choice.set, now));
        }
        if !self.stands(now, &choice) || choice.view == self.view {
            self.want_since = None;
            return false;
        }
        if choice.set >> self.config.node & 1 == 0 {
            return false;
        }
        // A node that is dead in the view leaves it to those who are not: of any majority at
        // least one is not. Else both ends of a cut link would depose each other for ever.
        let members = (0..usize::from(self.config.voters)).filter(|&node| !self.view.is_dead(node));
        let members = members.fold(0, |mask, node| mask | 1 << node);
        if self.view.is_dead(self.me()) && choice.set & members != 0 {
            return false;
        }
        let want_since = *self.want_since.get_or_insert(now);
        let rank = (choice.set & ((1 << self.config.node) - 1)).count_ones();
        let had_any = (0..usize::from(self.config.voters)).any(|node| !self.view.never_had(node));
        let cold = if self.view.is_dead(self.me()) && had_any {
            DEAD_PATIENCE_NS
        } else {
            0
        };
        if now < want_since + u64::from(rank) * RANK_NS + cold {
            return false;
        }
        self.proposed_at = now;
        let mut register = self.register.clone();
        let outcome = register.propose();
        let entered = self.act_on(now, None, register, outcome, store);
        // A single voter is its own majority and hears no promise.
        entered || (self.config.voters == 1 && self.decide_alone(now, choice.view, store))
    }

    fn decide_alone(&mut self, now: u64, view: View, store: &mut dyn VoteStore) -> bool {
        let vote = Vote {
            promised: self.register.vote().promised,
            accepted: (self.register.vote().promised, view),
        };
        let durable = Durable {
            vote,
            ..self.durable()
        };
        if !self.save(&durable, store) {
            return false;
        }
        self.register = Register::new(self.config.node, self.config.voters, vote);
        self.enter(now, view, store);
        true
    }

    fn update_synced(&mut self) {
        let own = self.view.nodes[self.me()];
        let is_member = own.incarnation == self.incarnation && own.standing != Standing::Dead;
        if is_member && self.others_to_sync() & !self.synced_from == 0 {
            self.synced = self.view.number;
        }
    }

    fn others_to_sync(&self) -> u32 {
        let others = self.data_nodes().filter(|&node| node != self.me());
        others
            .filter(|&node| !self.view.is_dead(node))
            .fold(0, |mask, node| mask | 1 << node)
    }

    fn data_nodes(&self) -> impl Iterator<Item = usize> + '_ {
        (0..usize::from(self.config.voters)).filter(|&node| !self.is_witness(node))
    }

    fn is_witness(&self, node: usize) -> bool {
        self.config.witnesses >> node & 1 == 1
    }

    fn me(&self) -> usize {
        usize::from(self.config.node)
    }

    fn broadcast(&mut self, message: ViewMessage) {
        let own = self.config.node;
        for node in (0..self.config.voters).filter(|&node| node != own) {
            self.send(node, message);
        }
    }

    fn send(&mut self, to: u8, message: ViewMessage) {
        // Whoever does not poll loses the newest, as a network would.
        if self.outbox.len() < OUTBOX_MAX {
            self.outbox.push_back((to, message));
        } else {
            self.outbox_dropped += 1;
        }
    }
}

/// Voters a cluster may have.
pub const VOTERS_MAX: usize = 17;
/// `View::kmin` when every write has all its copies.
pub const KMIN_FULL: u8 = u8::MAX;
/// Pause between heartbeats.
pub const HEARTBEAT_NS: u64 = 50_000_000;
/// How long a confirmed round trip lets a node act, from when the heartbeat was sent.
pub const LEASE_NS: u64 = 180_000_000;
/// No ack of anything sent for so long makes a node suspect.
pub const SUSPECT_NS: u64 = 250_000_000;
/// When a lease is over by anybody's clock: clocks differ by at most 500 ppm, twice.
pub const LEASE_OVER_NS: u64 = LEASE_NS + LEASE_NS / 1000 + 1_000_000;
/// Number of no view: that of a vote that is lost.
const VIEW_LOST: u32 = 0;
const ROUNDS_PER_INCARNATION_BITS: u32 = 16;
const BOOT_NS: u64 = 300_000_000;
const AMBIGUOUS_NS: u64 = 150_000_000;
const RANK_NS: u64 = 150_000_000;
const PROPOSE_AGAIN_NS: u64 = 100_000_000;
const PROPOSE_APART_NS: u64 = 37_000_000;
const DEAD_PATIENCE_NS: u64 = 2_000_000_000;
const GONE_PATIENCE_NS: u64 = 5_000_000_000;
const ALL_RESTARTED_PATIENCE_NS: u64 = 6_000_000_000;
const OUTBOX_MAX: usize = 16 * VOTERS_MAX;
const _: () = assert!(3 * HEARTBEAT_NS < LEASE_NS && LEASE_NS < SUSPECT_NS);
const _: () = assert!(VOTERS_MAX <= 32);
