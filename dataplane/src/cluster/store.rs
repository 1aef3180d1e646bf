//! The store of a shard whose calls have copies on other nodes: ring, replication and the rules
//! of taking over.
//!
//! What this node owns is in its shard's table; what it holds for others is only in the ring, and
//! no timer runs for it. When an owner is dead and the conditions for it hold, the first member
//! of the call's order takes it over; every member computes the same order.

mod counts;
mod filling;
mod leaving;

use std::collections::VecDeque;
use std::sync::Arc;

use charging::time::Now;
use replication::courier::{CourierConfig, Letter};
use replication::frame::{DATAGRAM_BYTES_ETHERNET, Head};
use replication::{
    Adoption, CallId, ClusterKeys, Committed, Courier, Cursor, GateShare, Kind, Member, Mode,
    ReplicationEvent, Replicator, ReplicatorConfig, Ring, RingCounters, RingError, Standing, Step,
    StreamMarks, Version, View, takeover,
};

pub use self::counts::add_ring;
use self::filling::Surplus;
use self::leaving::Gifts;
use super::board::{Board, ns_of};
use crate::b2bua::{SCHEMA, SCHEMA_FORMER, read_state};
use crate::counters::StoreCounters;
use crate::store::{
    Blob, BlobStore, ClusterReport, ClusterSide, LinkReport, NODES_MAX, Owner, StoreEvent, Stored,
};

/// What a store is made of.
pub struct ClusterStoreParts {
    /// The ring, as it was recovered.
    pub ring: Ring,
    /// What the shard's replication is made for; the incarnation is the board's.
    pub replicator: ReplicatorConfig,
    /// Keys of the cluster.
    pub keys: ClusterKeys,
    /// Numbers of the nodes that hold calls, this one included; witnesses are not.
    pub data_nodes: Vec<u16>,
    /// Whether outputs wait for their copies.
    pub mode: Mode,
    /// Where the membership and the shards meet.
    pub board: Arc<Board>,
    /// Beginning of the clock that leases are measured by.
    pub clock_start: quanta::Instant,
}

/// The calls of one shard, with copies.
pub struct ClusterStore {
    ring: Ring,
    replicator: Replicator,
    courier: Courier,
    config: ReplicatorConfig,
    keys: ClusterKeys,
    data_nodes: Vec<u16>,
    mode: Mode,
    board: Arc<Board>,
    clock_start: quanta::Instant,
    now: u64,
    // The view this shard follows; a newer one may stand on the board already.
    view: View,
    follows: bool,
    events: VecDeque<StoreEvent>,
    scan: Option<Scan>,
    /// The walk for records that name an owner which lost its calls while it was away.
    leftovers: Option<Cursor>,
    /// Incarnation under which this shard has written its own calls anew.
    resumed: u32,
    /// Highest epoch that anything was written under here.
    epoch_written: u32,
    /// View under which the calls of each dead owner were looked through.
    adopted: [u32; NODES_MAX],
    /// Where the streams stood when nothing was left to take over under this view.
    settling: Option<StreamMarks>,
    surplus: Surplus,
    gifts: Gifts,
    outgoing: VecDeque<(u16, Vec<u8>)>,
    incoming: VecDeque<(u16, Vec<u8>)>,
    report: ClusterReport,
    /// Of replications and couriers of former incarnations.
    former_counts: StoreCounters,
}

/// A walk through the ring for calls to go on with.
struct Scan {
    cursor: Cursor,
    owner: u16,
    beyond_promise: bool,
}

impl ClusterStore {
    /// A store that waits for its first view.
    #[must_use]
    pub fn new(parts: ClusterStoreParts) -> Self {
        let config = parts.replicator;
        Self {
            replicator: Replicator::new(config, parts.keys, &parts.data_nodes),
            courier: courier(&config, parts.keys, &parts.data_nodes),
            ring: parts.ring,
            config,
            keys: parts.keys,
            data_nodes: parts.data_nodes,
            mode: parts.mode,
            board: parts.board,
            clock_start: parts.clock_start,
            now: 0,
            view: View::genesis(),
            follows: false,
            events: VecDeque::new(),
            scan: None,
            leftovers: None,
            resumed: 0,
            epoch_written: 0,
            adopted: [0; NODES_MAX],
            settling: None,
            surplus: Surplus::None,
            gifts: Gifts::default(),
            outgoing: VecDeque::new(),
            incoming: VecDeque::new(),
            report: ClusterReport::default(),
            former_counts: StoreCounters::default(),
        }
    }

    /// The ring, for whoever looks at its copies.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Drops a call as if it had never been here: the mistake a tombstone prevents.
    pub fn forget(&mut self, call: u128) {
        self.ring.forget(CallId::from_u128(call));
    }

    /// The ring again, when the shard ends.
    #[must_use]
    pub fn into_ring(self) -> Ring {
        self.ring
    }

    fn standing(&self, node: u16) -> Standing {
        match self.view.nodes.get(usize::from(node)) {
            Some(state) if self.data_nodes.contains(&node) => state.standing,
            _ => Standing::Dead,
        }
    }

    fn alive(&self) -> impl Iterator<Item = u16> + '_ {
        let nodes = self.data_nodes.iter().copied();
        nodes.filter(|&node| self.standing(node) == Standing::Alive)
    }

    // The member that goes on with a call of a dead owner.
    fn adopter_of(&self, id: CallId) -> Option<u16> {
        let is_first = |&node: &u16| takeover::is_among_first(id, node, 1, self.alive());
        self.alive().find(is_first)
    }

    // Nothing is held of the call. Whoever opened it may have it, being set up; else the first of
    // the members is either its owner or holds a copy and knows the owner.
    fn owner_of_unknown(&self, id: CallId) -> Owner {
        let (own, origin) = (self.config.node, id.node());
        if origin != own && self.answers(origin) {
            return Owner::Perhaps(origin);
        }
        match self.adopter_of(id) {
            Some(first) if first != own => Owner::Perhaps(first),
            _ => Owner::Here,
        }
    }

    // The share of the ring up to which new calls are taken. A dead member counts until the others
    // have made anew the copies that it had: before, their rings do not show yet how full they are.
    fn gate(&self) -> GateShare {
        let holds = |&&node: &&u16| match self.standing(node) {
            _ if !self.follows => true,
            Standing::Alive | Standing::Draining => true,
            Standing::Joining => false,
            Standing::Dead => self.view.gone >> node & 1 == 1,
        };
        let nodes = self.data_nodes.iter().filter(holds).count();
        GateShare::among(nodes, self.config.copies)
    }

    // What is begun or taken over now is written under it. Of a node that leaves it is the view
    // before, for the heir takes over under this one, which has to be newer. Nobody else has
    // written under that: this node was alive in it, and so was the giver of what was given to it.
    fn epoch(&self) -> u32 {
        self.view.number - u32::from(self.leaves())
    }

    fn follow_view(&mut self) {
        let number = self.board.view_number();
        let incarnation = self.board.incarnation();
        if number == 0 {
            return;
        }
        if self.config.incarnation != incarnation {
            self.begin_anew(incarnation);
        }
        if self.follows && self.view.number == number {
            return;
        }
        (self.view, self.follows) = (self.board.view(), true);
        (self.settling, self.scan) = (None, None);
        self.gifts.look_again();
        let members: Vec<Member> = self
            .data_nodes
            .iter()
            .map(|&node| {
                let state = self.view.nodes[usize::from(node)];
                Member {
                    node,
                    incarnation: state.incarnation,
                    standing: state.standing,
                }
            })
            .collect();
        for member in &members {
            let admitted = (member.standing != Standing::Dead).then_some(member.incarnation);
            self.courier.admit(member.node, admitted);
        }
        let events = &mut self.events;
        self.replicator
            .set_view(self.now, self.view.number, &members, &mut |event| {
                if let ReplicationEvent::Released(id, version) = event {
                    events.push_back(StoreEvent::Released(id.as_u128(), version));
                }
            });
        let is_settled = self.view.is_settled();
        self.replicator
            .set_settled_view(self.view.settled, is_settled);
        self.ring.set_settled(is_settled);
        let own = self.view.nodes[usize::from(self.config.node)];
        if self.ring.enter_view(self.view.number, own.settled_without) {
            self.leftovers = Some(Cursor::default());
        }
        for &node in &self.data_nodes {
            let epoch = self.view.nodes[usize::from(node)].settled_without;
            if self.ring.set_settled_without(node, epoch) {
                self.leftovers = Some(Cursor::default());
            }
        }
        tracing::info!(
            view = self.view.number,
            shard = self.config.shard,
            "a new view"
        );
    }

    // This node comes back as another one: nothing that waits may leave any more.
    fn begin_anew(&mut self, incarnation: u32) {
        self.config.incarnation = incarnation;
        self.keep_counts();
        self.replicator = Replicator::new(self.config, self.keys, &self.data_nodes);
        self.courier = courier(&self.config, self.keys, &self.data_nodes);
        self.outgoing.clear();
        self.gifts.clear();
        (self.follows, self.scan, self.settling) = (false, None, None);
        self.events.clear();
        self.events.push_back(StoreEvent::AllLost);
    }

    // Goes on, a bounded number of records at a time, with what there is to take over.
    fn take_over(&mut self, filling: u32) {
        if self.has_taken() {
            return; // what was found must be taken up before more is
        }
        if self.leftovers.is_some() {
            return; // nor is it known yet what is left to take over
        }
        if self.scan.is_none() {
            self.scan = self.next_scan(filling);
        }
        let Some(mut scan) = self.scan.take() else {
            return;
        };
        let mut looks = LOOKED_A_TURN;
        for _ in 0..SCANNED_A_TURN {
            let record = match self.ring.walk_some(&mut scan.cursor, &mut looks) {
                Step::Record(record) => record,
                Step::Later => break,
                Step::End => return self.end_scan(scan.owner),
            };
            let (meta, own) = (record.meta, self.config.node);
            let wanted = meta.kind == Kind::Put
                && meta.owner == scan.owner
                && (scan.owner == own || self.adopter_of(meta.id) == Some(own));
            if !wanted {
                continue;
            }
            let Some(state) = read_state(meta.schema, record.payload) else {
                self.report.refused += 1;
                continue;
            };
            // What this node had given away before it ended is its own again too.
            if scan.owner != own || meta.heir().is_some() {
                if let Err(error) = self.ring.adopt(meta.id, self.epoch(), |_| {}) {
                    self.report.adopt_failed += 1;
                    tracing::error!(call = %meta.id.as_u128(), %error, "it cannot be taken over");
                    continue;
                }
                self.report.adopted += 1;
                self.report.adopted_beyond_promise += u64::from(scan.beyond_promise);
            }
            self.events.push_back(StoreEvent::TakeOver(Box::new(state)));
        }
        self.scan = Some(scan);
    }

    fn next_scan(&self, filling: u32) -> Option<Scan> {
        let scan = |owner, beyond_promise| {
            Some(Scan {
                cursor: Cursor::default(),
                owner,
                beyond_promise,
            })
        };
        let anew = self.board.must_resume();
        if anew != 0 && anew == self.config.incarnation && anew != self.resumed {
            return if filling == 0 {
                scan(self.config.node, false)
            } else {
                None
            };
        }
        let others = self.data_nodes.iter().copied();
        let mut dead = others.filter(|&node| {
            self.standing(node) == Standing::Dead
                && self.adopted[usize::from(node)] != self.view.number
        });
        dead.find_map(|owner| match self.board.adoption(self.view.number, owner) {
            Adoption::NotNow => None,
            Adoption::Ready => scan(owner, false),
            Adoption::BeyondThePromise => scan(owner, true),
        })
    }

    // Whether a call waits to be taken up. Other events do not count: under traffic there are some
    // in every turn.
    fn has_taken(&self) -> bool {
        let is_taken = |event: &StoreEvent| {
            use StoreEvent::{AllLost, Received, TakeOver};
            matches!(event, AllLost | Received(_) | TakeOver(_))
        };
        self.events.iter().any(is_taken)
    }

    fn end_scan(&mut self, owner: u16) {
        if owner == self.config.node {
            self.resumed = self.config.incarnation;
        } else {
            self.adopted[usize::from(owner)] = self.view.number;
        }
    }

    fn report_progress(&mut self, filling: u32) {
        let shard = self.config.shard;
        if self.has_taken() || self.scan.is_some() || self.leftovers.is_some() {
            return;
        }
        if self.resumed == self.config.incarnation {
            self.replicator.set_resumed(self.now);
            self.board.note_resumed(shard, self.resumed);
        }
        let adopted = self.data_nodes.iter().all(|&node| {
            self.standing(node) != Standing::Dead
                || self.view.gone >> node & 1 == 0
                || self.adopted[usize::from(node)] == self.view.number
        });
        if !adopted || filling != 0 || self.resumed != self.config.incarnation {
            return;
        }
        match &self.settling {
            None => self.settling = Some(self.replicator.stream_marks()),
            Some(marks) if self.replicator.is_past(marks) => {
                self.board.note_settled(shard, self.view.number);
            }
            Some(_) => {}
        }
    }

    fn answers(&self, node: u16) -> bool {
        matches!(self.standing(node), Standing::Alive | Standing::Draining)
    }

    fn send_on(&mut self, id: CallId, version: Version, kind: Kind, mode: Mode) -> Stored {
        match self.replicator.commit(self.now, id, version, kind, mode) {
            Committed::Released => Stored::Safe,
            Committed::Held => Stored::Waits(version),
            Committed::Refused => Stored::Again,
        }
    }
}

impl BlobStore for ClusterStore {
    fn set_now(&mut self, now: Now) {
        self.now = ns_of(self.clock_start, now.instant);
        self.ring.set_now(now.wall.0);
    }

    fn commit(&mut self, call: u128, blob: Blob<'_>) -> Stored {
        let id = CallId::from_u128(call);
        let held = self.ring.newest(id).map(|record| record.meta.version.epoch);
        if held.is_none() && self.follows && self.standing(self.config.node) == Standing::Dead {
            // The others may settle without this node under any number until it has joined: what
            // it began under the number that it knows would be void, though they ack it.
            return Stored::Again;
        }
        let epoch = match held {
            Some(epoch) if !blob.takes_over => epoch,
            held => self.epoch().max(held.unwrap_or(0)),
        };
        match self.ring.put(id, epoch, blob.schema, blob.bytes) {
            Ok(version) => {
                self.epoch_written = self.epoch_written.max(version.epoch);
                let mode = blob.mode.unwrap_or(self.mode);
                self.send_on(id, version, Kind::Put, mode)
            }
            Err(RingError::NotOwner) => {
                self.events.push_back(StoreEvent::Lost(call));
                Stored::Refused
            }
            Err(RingError::Full | RingError::IndexFull) => {
                // What was taken over goes to its places as it is: once the view is settled, copies
                // that name the former owner are void.
                let held = self.ring.newest(id).filter(|_| blob.takes_over);
                if let Some(version) = held.map(|held| held.meta.version) {
                    self.send_on(id, version, Kind::Put, Mode::Async);
                }
                Stored::Full
            }
            Err(_) => Stored::Refused,
        }
    }

    fn retire(&mut self, call: u128) {
        let id = CallId::from_u128(call);
        if let Ok(version) = self.ring.retire(id) {
            self.send_on(id, version, Kind::Del, Mode::Async);
        }
    }

    fn schema(&self) -> u16 {
        match self.board.schema() {
            0 => SCHEMA_FORMER,
            schema => schema.min(SCHEMA),
        }
    }

    fn is_open(&self) -> bool {
        self.ring.is_open_within(self.gate())
    }

    fn has_room(&self) -> bool {
        self.ring.has_room()
    }

    fn fill_percent(&self) -> u32 {
        self.ring.fill() as u32
    }

    fn reclaim(&mut self) -> bool {
        self.ring.reclaim_idle(RECLAIMED_A_TURN) > 0
    }

    fn counters(&self) -> StoreCounters {
        self.counts()
    }

    fn ring_counters(&self) -> Option<&RingCounters> {
        Some(self.ring.counters())
    }

    fn cluster(&mut self) -> Option<&mut dyn ClusterSide> {
        Some(self)
    }
}

impl ClusterSide for ClusterStore {
    fn tick(&mut self) {
        self.follow_view();
        if !self.follows {
            return;
        }
        self.forget_leftovers();
        self.forget_what_peers_forgot();
        let filling = self.ask_to_be_filled();
        self.tidy(filling);
        self.take_over(filling);
        self.follow_gifts(self.may_act());
        self.report_progress(filling);
    }

    fn is_leaving(&self) -> bool {
        self.leaves()
    }

    fn give(&mut self, call: u128) -> bool {
        self.may_act() && self.give_away(CallId::from_u128(call))
    }

    fn note_empty(&mut self) {
        if self.leaves() && !self.has_given() && self.replicator.is_settled() {
            self.board.note_drained(self.config.shard, self.view.number);
        }
    }

    fn poll_event(&mut self) -> Option<StoreEvent> {
        self.events.pop_front()
    }

    fn may_act(&self) -> bool {
        self.follows
            && self.now < self.board.lease_until()
            && self.view.number == self.board.view_number()
            && self.config.incarnation == self.board.incarnation()
    }

    fn acts_until(&self) -> Option<quanta::Instant> {
        let until = self.may_act().then(|| self.board.lease_until())?;
        let since = std::time::Duration::from_nanos(until.saturating_sub(CLOCK_ZERO));
        Some(self.clock_start + since)
    }

    fn owner_of(&self, call: u128) -> Owner {
        let id = CallId::from_u128(call);
        let own = self.config.node;
        let Some(held) = self.ring.valid_or_tombstone(id) else {
            return self.owner_of_unknown(id);
        };
        let owner = held.owner;
        match self.standing(owner) {
            // Not in the table: it ended, or is not taken up again yet.
            _ if owner == own && held.kind == Kind::Put => Owner::Nobody,
            _ if owner == own => Owner::Here,
            Standing::Alive | Standing::Draining => Owner::At(owner),
            Standing::Joining => Owner::Nobody,
            Standing::Dead => match self.adopter_of(id) {
                Some(adopter) if adopter != own => Owner::At(adopter),
                _ => Owner::Nobody,
            },
        }
    }

    fn deputy(&self, key: u64) -> Option<u16> {
        let others = || self.alive().filter(|&node| node != self.config.node);
        let count = others().count() as u64;
        others().nth(key.checked_rem(count)? as usize)
    }

    fn answers(&self, node: u16) -> bool {
        Self::answers(self, node)
    }

    fn answering_peers(&self) -> u32 {
        let others = self.data_nodes.iter().copied();
        let others = others.filter(|&node| node != self.config.node && Self::answers(self, node));
        others.fold(0, |mask, node| mask | 1 << node)
    }

    fn forward(&mut self, node: u16, message: &[u8]) {
        let outgoing = &mut self.outgoing;
        if outgoing.len() >= FORWARDS_MAX {
            self.report.forward_dropped += 1;
            return;
        }
        let mut buffer = [0; DATAGRAM_BYTES_ETHERNET];
        let sealed = self
            .courier
            .seal_forward(node, message, &mut buffer, |datagram| {
                outgoing.push_back((node, datagram.to_vec()));
            });
        self.report.forward_dropped += u64::from(sealed.is_err());
    }

    fn next_forwarded(&mut self, into: &mut Vec<u8>) -> Option<u16> {
        let (from, message) = self.incoming.pop_front()?;
        into.clear();
        into.extend_from_slice(&message);
        Some(from)
    }

    fn handle_datagram(&mut self, datagram: &mut [u8]) {
        let Ok(head) = Head::parse(datagram) else {
            self.report.refused += 1;
            return;
        };
        if Courier::is_letter(datagram) {
            match self.courier.open(datagram) {
                Ok((from, Letter::Forward(message))) if self.incoming.len() < FORWARDS_MAX => {
                    self.incoming.push_back((from, message.to_vec()));
                }
                Ok((_, Letter::Forward(_))) => self.report.forward_dropped += 1,
                Ok((_, Letter::Piece)) => {}
                Ok((_, Letter::View(_))) | Err(_) => self.report.refused += 1,
            }
            return;
        }
        let (events, board, shard) = (&mut self.events, &self.board, self.config.shard);
        let mut stored = VecDeque::new();
        let taken = self.replicator.handle_datagram(
            self.now,
            head.from,
            datagram,
            &mut self.ring,
            &mut |event| match event {
                ReplicationEvent::Released(id, version) => {
                    events.push_back(StoreEvent::Released(id.as_u128(), version));
                }
                ReplicationEvent::Synced { peer, view } => board.note_synced(shard, peer, view),
                ReplicationEvent::Stored(id, _) => stored.push_back(id),
            },
        );
        self.report.refused += u64::from(taken.is_err());
        for id in stored {
            self.on_stored(id);
        }
    }

    fn poll_datagram(&mut self, buffer: &mut [u8]) -> Option<(u16, usize)> {
        if let Some((node, datagram)) = self.outgoing.pop_front() {
            buffer.get_mut(..datagram.len())?.copy_from_slice(&datagram);
            return Some((node, datagram.len()));
        }
        self.replicator.poll(self.now, &self.ring, buffer)
    }

    fn next_deadline(&self) -> Option<quanta::Instant> {
        let stream = self.replicator.deadline(self.now);
        let busy = !self.events.is_empty() || self.scan.is_some() || self.leftovers.is_some();
        let busy = busy.then_some(self.now);
        // What the membership and the other shards do next shows on the board.
        let unsettled = !self.follows
            || !self.board.is_settled(self.config.shard, self.view.number)
            || self.board.lease_until() == 0;
        let look = unsettled.then_some(self.now + LOOK_NS);
        let at = [stream, busy, look].into_iter().flatten().min()?;
        let wait = std::time::Duration::from_nanos(at.saturating_sub(self.now));
        let now = self.clock_start + std::time::Duration::from_nanos(self.now - CLOCK_ZERO);
        Some(now + wait)
    }

    fn set_keys(&mut self, keys: ClusterKeys) {
        self.keys = keys;
        self.replicator.set_keys(keys);
        self.courier.set_keys(keys);
    }

    fn report(&self) -> ClusterReport {
        let mut report = self.report;
        report.view = self.view.number;
        report.epoch = self.epoch_written;
        report.ring_fill_percent = self.ring.fill() as u32;
        report.held = self.replicator.held() as u64;
        for &node in &self.data_nodes {
            if let Some(link) = self.replicator.link(node) {
                report.links[usize::from(node)] = LinkReport {
                    admitted: link.admitted().is_some(),
                    lag_records: link.lag_records(),
                    settled: link.is_settled(),
                    srtt_ns: link.srtt_ns(),
                };
            }
        }
        report.copies = self.ring.calls();
        report
    }
}

fn courier(config: &ReplicatorConfig, keys: ClusterKeys, nodes: &[u16]) -> Courier {
    let config = CourierConfig {
        cluster: config.cluster,
        node: config.node,
        incarnation: config.incarnation,
        shard: config.shard,
    };
    Courier::new(config, keys, nodes)
}

/// Live records looked at in one turn while calls are taken over.
const SCANNED_A_TURN: usize = 256;
/// Records passed in one turn of any walk through the ring, dead ones too.
const LOOKED_A_TURN: usize = 1_024;
/// Records moved in one idle turn.
const RECLAIMED_A_TURN: u32 = 64;
/// Messages that may wait to be sent to other nodes, or to be taken up here.
const FORWARDS_MAX: usize = 1_024;
/// Pause between looks at the board while something is to be settled.
const LOOK_NS: u64 = 5_000_000;
/// What [`ns_of`] adds to the time since the start.
const CLOCK_ZERO: u64 = 1_000_000_000;
