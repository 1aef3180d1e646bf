//! The nodes of a cluster: their memberships, their peers' datagrams, and what befalls them.
//!
//! All nodes answer to one address, as behind an anycast route: a datagram of a phone arrives at
//! any node that is up, mostly the same one.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use charging::time::{Now, Steady, UnixMillis};
use dataplane::b2bua::{SCHEMA, SCHEMA_FORMER, read_state};
use dataplane::cluster::{
    Board, ClusterStore, ClusterStoreParts, Membership, MembershipConfig, ns_of,
};
use dataplane::shard::Shard;
use dataplane::store::{Blob, BlobStore, ClusterSide, Stored};
use replication::frame::DATAGRAM_BYTES_MAX;
use replication::layout::SUPERBLOCK;
use replication::peer::LinkConfig;
use replication::view::SaveFault;
use replication::{
    ClusterKeys, Durable, Map, Mode, ReplicatorConfig, Ring, RingConfig, Standing, ViewConfig,
    VoteStore,
};

use super::{Event, Misfortune, Sabotage, Setup, WALL, World};

/// A cluster.
#[derive(Clone, Copy, Debug)]
pub struct Cluster {
    /// Nodes that hold calls.
    pub nodes: u16,
    /// Whether a witness votes besides.
    pub witness: bool,
    /// Copies of a call, the owner's included.
    pub copies: u8,
    /// Whether outputs wait for their copies.
    pub mode: Mode,
    /// Datagrams of phones, of a hundred, that arrive at any node instead of the usual one.
    pub scatter: u64,
    /// Loss between the nodes, of a thousand.
    pub loss: u64,
    /// All nodes are of the former version until they are started again.
    pub upgrade: bool,
}

/// What a node's clocks do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// They tell the time.
    True,
    /// They run fast or slow by so many parts of a million.
    Skewed(i64),
    /// The wall clock is off by so many milliseconds.
    Stepped(i64),
    /// They stand still.
    Stuck,
}

/// One node.
pub(crate) struct NodeState {
    pub(crate) up: bool,
    pub(crate) down_since: u64,
    /// How often it was started.
    pub(crate) life: u32,
    pub(crate) paused_until: u64,
    pub(crate) board: Arc<Board>,
    pub(crate) membership: Option<Membership>,
    disk: Disk,
    /// The memory of its rings went.
    memory_lost: bool,
    /// What a datagram from or to it takes besides.
    pub(super) lag_ms: u64,
    /// It reaches no CDF.
    pub(super) without_cdfs: bool,
    clock: Clock,
    /// The steady clock of its process.
    steady: Cell<Steady>,
    /// When the clock took that turn, by the world's time and by its own.
    turned: (u64, u64),
}

#[derive(Clone)]
struct Disk(Arc<Mutex<Durable>>);

impl VoteStore for Disk {
    fn save(&mut self, durable: &Durable) -> Result<(), SaveFault> {
        *self.0.lock().expect("one thread") = *durable;
        Ok(())
    }
}

impl NodeState {
    pub(super) fn all(setup: &Setup, base: quanta::Instant) -> Vec<Self> {
        let count = setup.cluster.map_or(0, |cluster| cluster.voters());
        let node = || Self {
            up: false,
            down_since: 0,
            life: 0,
            paused_until: 0,
            board: Arc::new(Board::new(setup.shards)),
            membership: None,
            disk: Disk(Arc::new(Mutex::new(Durable::bootstrap()))),
            memory_lost: false,
            lag_ms: 0,
            without_cdfs: false,
            clock: Clock::True,
            steady: Cell::new(Steady::new(base, UnixMillis(WALL))),
            turned: (0, 0),
        };
        (0..count).map(|_| node()).collect()
    }

    // The operator replaces it, as `vote.replace` has it: by a number above all former ones.
    pub(super) fn lose_disk(&mut self) {
        let incarnation = DISKS_REPLACED + self.life;
        *self.disk.0.lock().expect("one thread") = Durable::replacement(incarnation);
    }

    // What its clocks say: the monotonic one, in milliseconds of the world, and the wall clock.
    fn clocks(&self, now: u64) -> (u64, UnixMillis) {
        let local = self.local_ms(now);
        let step = match self.clock {
            Clock::Stepped(ms) => ms,
            _ => 0,
        };
        let wall = (WALL + local).saturating_add_signed(step);
        (local, UnixMillis(wall))
    }

    fn local_ms(&self, now: u64) -> u64 {
        let (world, own) = self.turned;
        let since = now - world;
        match self.clock {
            Clock::Stuck => own,
            Clock::Skewed(ppm) => own + (since as i64 + since as i64 * ppm / 1_000_000) as u64,
            Clock::True | Clock::Stepped(_) => own + since,
        }
    }
}

impl Cluster {
    /// Nodes that vote.
    #[must_use]
    pub fn voters(&self) -> u16 {
        self.nodes + u16::from(self.witness)
    }
}

impl World {
    // ---- time

    pub(crate) fn node_of(&self, place: usize) -> u16 {
        place as u16 / self.setup.shards
    }

    pub(super) fn life_of(&self, place: usize) -> u32 {
        let node = usize::from(self.node_of(place));
        self.nodes
            .get(node)
            .map_or(self.restarts, |state| state.life)
    }

    pub(crate) fn now_of(&self, node: u16) -> Now {
        let Some(state) = self.nodes.get(usize::from(node)) else {
            let wall = UnixMillis(WALL + self.now);
            return Now {
                instant: self.instant(),
                wall,
                steady: wall,
            };
        };
        let (local, wall) = state.clocks(self.now);
        let instant = self.base + Duration::from_millis(local);
        let mut clock = state.steady.get();
        let steady = clock.read(instant, wall);
        state.steady.set(clock);
        Now {
            instant,
            wall,
            steady,
        }
    }

    fn ns_of(&self, node: u16) -> u64 {
        ns_of(self.base, self.now_of(node).instant)
    }

    // When a node's clock will say `at`, by the world's time.
    pub(super) fn world_ms(&self, local_now: quanta::Instant, at: quanta::Instant) -> u64 {
        let wait = at.saturating_duration_since(local_now);
        let wait = wait.as_micros().div_ceil(1_000) as u64;
        // A clock that stands still wakes nobody; let it not be asked for ever either.
        self.now + wait + u64::from(wait == 0 && self.setup.cluster.is_some())
    }

    pub(super) fn set_clock(&mut self, node: u16, clock: Clock) {
        let now = self.now;
        if let Some(state) = self.nodes.get_mut(usize::from(node)) {
            state.turned = (now, state.local_ms(now));
            state.clock = clock;
        }
    }

    pub(super) fn is_paused(&self, node: u16) -> Option<u64> {
        let state = self.nodes.get(usize::from(node))?;
        (state.paused_until > self.now).then_some(state.paused_until)
    }

    pub(super) fn armed_at(&self, place: usize) -> Option<u64> {
        let at = self.seats[place].armed?;
        let paused = self.is_paused(self.node_of(place)).unwrap_or(0);
        Some(at.max(paused))
    }

    pub(crate) fn has_stuck_clock(&self) -> bool {
        self.nodes.iter().any(|node| node.clock == Clock::Stuck)
    }

    // Whether a node believes that it may act, by a clock that can be believed.
    pub(crate) fn has_lease(&self, node: u16) -> bool {
        let state = &self.nodes[usize::from(node)];
        let clock = state.clock != Clock::Stuck && self.now > state.turned.0 + CLOCK_BELIEVED_MS;
        state.up
            && (clock || state.clock == Clock::True && state.turned == (0, 0))
            && self.is_paused(node).is_none()
            && state.board.lease_until() > self.ns_of(node)
    }

    // ---- who gets what

    pub(super) fn node_for(&mut self, from: SocketAddr) -> Option<u16> {
        let Some(cluster) = self.setup.cluster else {
            return self.seats[0].shard.is_some().then_some(0);
        };
        let usual = dataplane::b2bua::fold(from.to_string().as_bytes()) % u64::from(cluster.nodes);
        let drawn = self.rng.below(100) < cluster.scatter;
        let first = if drawn {
            self.rng.below(cluster.nodes.into())
        } else {
            usual
        } as u16;
        // A router notices after a second that a node is gone, and takes the next.
        let gone = |node: u16| {
            let state = &self.nodes[usize::from(node)];
            !state.up && self.now > state.down_since + ROUTED_AWAY_MS
        };
        let node = (0..cluster.nodes)
            .map(|step| (first + step) % cluster.nodes)
            .find(|&node| !gone(node))?;
        self.nodes[usize::from(node)].up.then_some(node)
    }

    // ---- misfortunes

    pub(super) fn happen_to_node(&mut self, what: Misfortune) {
        match what {
            Misfortune::Crash(node, down) => self.crash(node, down, true),
            Misfortune::Loss(node, down) => self.crash(node, down, false),
            Misfortune::DiskLoss(node, down) if self.nodes[usize::from(node)].up => {
                self.nodes[usize::from(node)].lose_disk();
                self.crash(node, down, false);
            }
            Misfortune::Lag(node, ms) => self.nodes[usize::from(node)].lag_ms = ms,
            Misfortune::CutCdfs(node) => self.cut_cdfs(node),
            Misfortune::JoinCdfs(node) => self.nodes[usize::from(node)].without_cdfs = false,
            Misfortune::Leave(node, down) => self.ask_to_leave(node, down),
            Misfortune::Pause(node, ms) => {
                let state = &mut self.nodes[usize::from(node)];
                state.paused_until = state.paused_until.max(self.now + ms);
                self.push(self.now + ms, Event::Misfortune(Misfortune::Over));
            }
            Misfortune::Clock(node, clock) => self.set_clock(node, clock),
            _ => {}
        }
    }

    // ---- start and end

    /// Whether a node is of the version before the present one.
    pub(crate) fn is_former(&self, node: u16) -> bool {
        let upgrades = self.setup.cluster.is_some_and(|cluster| cluster.upgrade);
        upgrades && self.nodes[usize::from(node)].life <= 1
    }

    pub(super) fn start_members(&mut self) {
        for node in 0..self.nodes.len() as u16 {
            self.start_member(node);
        }
    }

    pub(super) fn start_member(&mut self, node: u16) {
        let cluster = self.setup.cluster.expect("a cluster");
        let now = self.ns_of(node);
        let state = &mut self.nodes[usize::from(node)];
        if state.up {
            return;
        }
        state.up = true;
        state.life += 1;
        let (local, wall) = state.clocks(self.now);
        let instant = self.base + Duration::from_millis(local);
        state.steady.set(Steady::new(instant, wall));
        let kept = !std::mem::take(&mut state.memory_lost);
        if self.setup.sabotage == Sabotage::VoteForgotten {
            let mut disk = state.disk.0.lock().expect("one thread");
            disk.vote = Durable::bootstrap().vote;
        }
        let durable = *state.disk.0.lock().expect("one thread");
        let is_former = self.is_former(node);
        let state = &mut self.nodes[usize::from(node)];
        let config = MembershipConfig {
            view: ViewConfig {
                node: node as u8,
                voters: cluster.voters() as u8,
                witnesses: u32::from(cluster.witness) << cluster.nodes,
                copies: cluster.copies,
            },
            cluster: CLUSTER,
            keys: keys(),
            schemas: if is_former {
                (SCHEMA_FORMER - 1, SCHEMA_FORMER)
            } else {
                (SCHEMA_FORMER, SCHEMA)
            },
            first_boot: false,
        };
        let shards = if node < cluster.nodes {
            self.setup.shards
        } else {
            0
        };
        state.board = Arc::new(Board::new(shards));
        let membership = Membership::start(
            config,
            durable,
            kept,
            now,
            Box::new(state.disk.clone()),
            state.board.clone(),
        );
        state.membership = Some(membership.expect("a possible cluster"));
        let first = usize::from(node) * usize::from(self.setup.shards);
        for place in first..first + usize::from(shards) {
            let parts = self.parts(place);
            let now = self.now_of(node);
            self.seats[place].shard = Some(Shard::new(parts, now));
            self.turn(place, |_, _| ());
        }
        self.note_back(node);
    }

    pub(super) fn crash(&mut self, node: u16, down: u64, keeps_memory: bool) {
        let now = self.now;
        if !self.nodes[usize::from(node)].up {
            return;
        }
        self.note_losses(node);
        self.note_gone(node, keeps_memory);
        let state = &mut self.nodes[usize::from(node)];
        (state.up, state.membership, state.down_since) = (false, None, now);
        state.memory_lost = !keeps_memory;
        state.paused_until = now;
        self.restarts += 1;
        if node < self.setup.cluster.expect("a cluster").nodes {
            self.outages.push((now, now + down));
        }
        if !keeps_memory {
            self.lost_at = Some(now);
            self.forget_seen(node);
        }
        let shards = usize::from(self.setup.shards);
        let is_data = node < self.setup.cluster.expect("a cluster").nodes;
        let first = usize::from(node) * shards;
        for place in first..first + if is_data { shards } else { 0 } {
            let seat = &mut self.seats[place];
            seat.armed = None;
            let Some(shard) = seat.shard.take() else {
                continue;
            };
            let store: Box<dyn std::any::Any> = shard.into_blobs();
            let store = *store
                .downcast::<Tampered>()
                .expect("the store of a cluster");
            seat.memory = keeps_memory.then(|| store.store.into_ring().into_maps());
            for far in &mut self.fars {
                if let Some(link) = far.links.remove(&place) {
                    far.cdf.on_closed(link.id);
                }
            }
        }
        self.push(now + down, Event::StartMember(node));
    }

    pub(super) fn ask_to_leave(&mut self, node: u16, down: u64) {
        let state = &mut self.nodes[usize::from(node)];
        let Some(membership) = state.membership.as_mut().filter(|_| state.up) else {
            return;
        };
        membership.drain();
        let shards = usize::from(self.setup.shards);
        let first = usize::from(node) * shards;
        for seat in &mut self.seats[first..first + shards] {
            if let Some(shard) = &mut seat.shard {
                shard.drain();
            }
        }
        let until = self.now + LEAVE_MS;
        self.push(self.now, Event::Leaving(node, until, down));
    }

    pub(super) fn see_off(&mut self, node: u16, until: u64, down: u64) {
        let now = self.ns_of(node);
        let state = &self.nodes[usize::from(node)];
        let Some(membership) = &state.membership else {
            return; // it crashed meanwhile
        };
        let has_left = membership.report(now).has_left;
        if has_left {
            self.check_left(node);
        }
        if has_left || self.now >= until {
            self.crash(node, down, true);
            if has_left {
                self.outages.pop();
            }
            return;
        }
        self.push(self.now + 20, Event::Leaving(node, until, down));
    }

    pub(super) fn store_of(&mut self, place: usize) -> Box<dyn BlobStore> {
        let node = self.node_of(place);
        let shard = place as u16 % self.setup.shards;
        let cluster = self.setup.cluster.expect("a cluster");
        let state = &self.nodes[usize::from(node)];
        let incarnation = state.disk.0.lock().expect("one thread").incarnation;
        let config = RingConfig {
            node,
            shard,
            incarnation,
            secret: 5,
            young_bytes: self.setup.young_bytes,
            old_bytes: self.setup.old_bytes,
            payload_bytes_max: (self.setup.old_bytes >> 6)
                .min(self.setup.young_bytes >> 5)
                .min(32 << 10) as usize,
            calls_max: 4_000,
            ..RingConfig::default()
        };
        let map = |bytes: u64| Map::heap(SUPERBLOCK + bytes as usize);
        let ring = match self.seats[place].memory.take() {
            Some((young, old)) => Ring::open(young, old, &config).expect("a ring").0,
            None => {
                let (young, old) = (map(config.young_bytes), map(config.old_bytes));
                Ring::create(young, old, &config).expect("limits")
            }
        };
        let mode = match self.setup.sabotage {
            Sabotage::NoWait => Mode::Async,
            _ => cluster.mode,
        };
        let store = ClusterStore::new(ClusterStoreParts {
            ring,
            replicator: ReplicatorConfig {
                cluster: CLUSTER,
                node,
                incarnation,
                shard,
                copies: cluster.copies.into(),
                holds_max: 4_000,
                link: LinkConfig {
                    queue_max: 4_000,
                    marks_max: 4_000,
                    sync_bytes_per_s: self.setup.sync_bytes_per_s,
                    ..LinkConfig::default()
                },
            },
            keys: keys(),
            data_nodes: (0..cluster.nodes).collect(),
            mode,
            board: state.board.clone(),
            clock_start: self.base,
        });
        Box::new(Tampered {
            store,
            sabotage: self.setup.sabotage,
            unwritten: Vec::new(),
        })
    }

    // ---- datagrams between nodes

    pub(super) fn serve_peers(&mut self, place: usize, shard: &mut Shard) {
        if self.setup.cluster.is_none() {
            return;
        }
        let (from, number) = (self.node_of(place), place as u16 % self.setup.shards);
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        while let Some((to, len)) = shard.poll_peer_datagram(&mut buffer) {
            self.send_peer(from, to, Some(number), &buffer[..len]);
        }
    }

    fn send_peer(&mut self, from: u16, to: u16, shard: Option<u16>, bytes: &[u8]) {
        if self.cut.contains(&(from, to)) {
            return;
        }
        let loss = self.setup.cluster.map_or(0, |cluster| cluster.loss);
        let copies = match self.rng.below(1_000) {
            drawn if drawn < loss => 0,
            drawn if drawn < 2 * loss => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let late = if self.rng.below(1_000) < loss { 40 } else { 2 };
            let lag = |node: u16| self.nodes[usize::from(node)].lag_ms;
            let lag = lag(from) + lag(to);
            let at = self.now + 1 + lag + self.rng.below(late);
            let bytes = bytes.to_vec();
            let event = Event::Peer {
                from,
                to,
                shard,
                bytes,
            };
            self.push(at, event);
        }
    }

    pub(super) fn reach_member(
        &mut self,
        from: u16,
        to: u16,
        shard: Option<u16>,
        mut bytes: Vec<u8>,
    ) {
        if !self.nodes[usize::from(to)].up {
            return;
        }
        if let Some(until) = self.is_paused(to) {
            let event = Event::Peer {
                from,
                to,
                shard,
                bytes,
            };
            // Its shards find what waits in their sockets before anybody tells them of a view.
            return match shard {
                Some(_) => self.push(until, event),
                None => self.push_last(until, event),
            };
        }
        match shard {
            Some(shard) => {
                let place = usize::from(to * self.setup.shards + shard);
                let now = self.now_of(to);
                let stored = self.stored_of_dead(from, place);
                self.turn(place, |shard, _| {
                    shard.handle_peer_datagram(now, &mut bytes)
                });
                self.check_fence(from, place, stored);
            }
            None => {
                let now = self.ns_of(to);
                self.with_membership(to, |membership| membership.handle_datagram(now, &mut bytes));
            }
        }
    }

    pub(super) fn members_armed(&self) -> Option<u64> {
        let due = |node: usize| {
            let state = &self.nodes[node];
            let membership = state.membership.as_ref()?;
            let now = self.ns_of(node as u16);
            let wait = membership.deadline().saturating_sub(now).div_ceil(MS);
            Some((self.now + wait.max(1)).max(state.paused_until))
        };
        (0..self.nodes.len()).filter_map(due).min()
    }

    pub(super) fn tick_members(&mut self) {
        for node in 0..self.nodes.len() as u16 {
            if self.is_paused(node).is_some() {
                continue;
            }
            let now = self.ns_of(node);
            self.with_membership(node, |membership| {
                membership.deadline() <= now && membership.tick(now)
            });
        }
    }

    // Lets the membership of a node take what has arrived for it, and act on it.
    pub(super) fn hear_views(&mut self, node: u16) {
        let due = self.queue.range(..=(self.now, u64::MAX));
        let is_its =
            |event: &Event| matches!(event, Event::Peer { to, shard: None, .. } if *to == node);
        let its: Vec<_> = due
            .filter(|(_, event)| is_its(event))
            .map(|(key, _)| *key)
            .collect();
        for key in its {
            let event = self.queue.remove(&key).expect("it was just seen");
            self.take(event);
        }
        self.tick_members();
    }

    // Lets a membership do something, then sends what it has to send and wakes the shards.
    fn with_membership(&mut self, node: u16, act: impl FnOnce(&mut Membership) -> bool) {
        let Some(mut membership) = self.nodes[usize::from(node)].membership.take() else {
            return;
        };
        let news = act(&mut membership);
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        while let Some((to, len)) = membership.poll_datagram(&mut buffer) {
            self.send_peer(node, to, None, &buffer[..len]);
        }
        let is_data = node < self.setup.cluster.map_or(0, |cluster| cluster.nodes);
        self.tamper(node);
        self.nodes[usize::from(node)].membership = Some(membership);
        if is_data {
            self.note_view(node);
        }
        if news && is_data {
            let first = usize::from(node) * usize::from(self.setup.shards);
            for place in first..first + usize::from(self.setup.shards) {
                self.seats[place].armed = Some(self.now);
            }
        }
    }

    // Lets a shard go on with calls that it holds for other nodes.
    pub(super) fn arm_replicas(&mut self, place: usize, shard: &mut Shard) {
        if self.setup.sabotage != Sabotage::ReplicaTimers || !self.is_calm() {
            return;
        }
        let Some(ring) = ring_in(shard) else { return };
        let foreign = |record: &replication::Record<'_>| {
            let id = record.meta.id.as_u128();
            record.meta.owner != ring.node() && shard.b2bua().key_of(id).is_none()
        };
        let held = ring.iter_live().filter(foreign);
        let states: Vec<_> = held
            .filter_map(|held| read_state(held.meta.schema, held.payload))
            .collect();
        if !states.is_empty() {
            shard.resume(self.now_of(self.node_of(place)), states.into_iter());
        }
    }

    // Plants what the shards of a node are made to believe.
    fn tamper(&mut self, node: u16) {
        let Some(cluster) = self.setup.cluster.filter(|cluster| node < cluster.nodes) else {
            return;
        };
        let board = self.nodes[usize::from(node)].board.clone();
        let view = board.view();
        if self.setup.sabotage == Sabotage::NoSync {
            for shard in 0..self.setup.shards {
                for peer in 0..cluster.nodes {
                    board.note_synced(shard, peer, view.number);
                }
            }
        }
        let incarnation = board.incarnation();
        let own = view.nodes[usize::from(node)];
        if self.setup.sabotage == Sabotage::JoinerActs
            && (own.standing, own.incarnation) == (Standing::Joining, incarnation)
        {
            board.publish_lease(self.ns_of(node) + 180 * MS);
            board.publish_duties(view.number, incarnation, 0);
        }
    }

    // ---- what the nodes hold

    /// Calls that were set up.
    #[must_use]
    pub fn established(&self) -> u64 {
        let callers = self
            .phones
            .iter()
            .filter(|phone| phone.plan.calls_at.is_some());
        let set_up = callers.filter(|phone| phone.ledger.acknowledged.is_some());
        set_up.count() as u64
    }

    /// Datagrams that waited for the copies of the state behind them.
    #[must_use]
    pub fn datagrams_held(&mut self) -> u64 {
        let shards = self.seats.iter_mut().filter_map(|seat| seat.shard.as_mut());
        shards
            .map(|shard| shard.env().counters.sip_datagram_held)
            .sum()
    }

    /// Calls that nodes took over from others that left in order, as they themselves say.
    #[must_use]
    pub fn calls_received(&mut self) -> u64 {
        let shards = self.seats.iter_mut().filter_map(|seat| seat.shard.as_mut());
        let reports = shards.filter_map(|shard| Some(shard.blobs().cluster()?.report()));
        reports.map(|report| report.received).sum()
    }

    /// Calls that nodes took over from dead ones, as those that run say themselves.
    #[must_use]
    pub fn calls_adopted(&mut self) -> u64 {
        let shards = self.seats.iter_mut().filter_map(|seat| seat.shard.as_mut());
        let reports = shards.filter_map(|shard| Some(shard.blobs().cluster()?.report()));
        reports.map(|report| report.adopted).sum()
    }

    /// Calls that a node has in its tables.
    #[must_use]
    pub fn calls_of(&self, node: u16) -> u64 {
        let seats = (0..self.seats.len()).filter(|&place| self.node_of(place) == node);
        let shards = seats.filter_map(|place| self.seats[place].shard.as_ref());
        shards.map(|shard| shard.b2bua().call_count() as u64).sum()
    }

    /// How full the fullest ring is, percent.
    #[must_use]
    pub fn fullest(&self) -> u32 {
        let rings = (0..self.seats.len()).filter_map(|place| self.ring_of(place));
        rings.map(|ring| ring.fill() as u32).max().unwrap_or(0)
    }

    /// The ring of a shard that runs.
    pub(crate) fn ring_of(&self, place: usize) -> Option<&Ring> {
        ring_in(self.seats[place].shard.as_ref()?)
    }

    /// The memberships' reports of all nodes that are up, for whoever looks for a fault.
    #[must_use]
    pub fn members(&self) -> String {
        let mut out = String::new();
        for (node, state) in self.nodes.iter().enumerate() {
            if let Some(membership) = &state.membership {
                let report = membership.report(self.ns_of(node as u16));
                let standings = &report.view.nodes[..self.nodes.len()];
                out += &format!(
                    "node {node}: view {} gone {:b} kmin {} incarnation {} lease {} {standings:?}\n",
                    report.view.number,
                    report.view.gone,
                    report.view.kmin,
                    report.incarnation,
                    report.lease_left_ns / MS
                );
            }
        }
        out
    }
}

/// The store of a cluster's shard, with what is planted in it.
pub(crate) struct Tampered {
    pub(crate) store: ClusterStore,
    sabotage: Sabotage,
    unwritten: Vec<(u128, u16, Vec<u8>, bool)>,
}

impl Tampered {
    fn write(&mut self) {
        for (call, schema, blob, takes_over) in self.unwritten.drain(..) {
            let blob = Blob {
                bytes: &blob,
                schema,
                takes_over,
                mode: None,
            };
            self.store.commit(call, blob);
        }
    }

    fn is_foreign(&self, call: u128) -> bool {
        let ring = self.store.ring();
        let held = ring.newest(replication::CallId::from_u128(call));
        held.is_some_and(|held| held.meta.owner != ring.node())
    }
}

impl BlobStore for Tampered {
    fn set_now(&mut self, now: Now) {
        self.store.set_now(now);
    }

    fn commit(&mut self, call: u128, blob: Blob<'_>) -> Stored {
        if self.sabotage == Sabotage::SendFirst {
            self.unwritten
                .push((call, blob.schema, blob.bytes.to_vec(), blob.takes_over));
            return Stored::Safe;
        }
        if self.sabotage == Sabotage::ReplicaTimers && self.is_foreign(call) {
            return Stored::Safe;
        }
        self.store.commit(call, blob)
    }

    fn schema(&self) -> u16 {
        self.store.schema()
    }

    fn retire(&mut self, call: u128) {
        self.write();
        if self.sabotage == Sabotage::NoTombstone {
            self.store.forget(call);
        } else {
            self.store.retire(call);
        }
    }

    fn is_open(&self) -> bool {
        self.store.is_open()
    }

    fn fill_percent(&self) -> u32 {
        self.store.fill_percent()
    }

    fn reclaim(&mut self) -> bool {
        self.store.reclaim()
    }

    fn cluster(&mut self) -> Option<&mut dyn ClusterSide> {
        self.store.cluster()
    }
}

/// The ring of a shard.
pub(crate) fn ring_in(shard: &Shard) -> Option<&Ring> {
    let store: &dyn std::any::Any = shard.blobs_ref();
    store.downcast_ref::<Tampered>().map(|one| one.store.ring())
}

/// Writes what was put off, if anything was.
pub(super) fn write_late(shard: &mut Shard) {
    let store: &mut dyn std::any::Any = shard.blobs();
    if let Some(store) = store.downcast_mut::<Tampered>() {
        store.write();
    }
}

fn keys() -> ClusterKeys {
    ClusterKeys {
        current: (1, [9; 32]),
        other: None,
    }
}

const MS: u64 = 1_000_000;
const CLUSTER: u32 = 77;
/// A node that has not left by then is ended.
const LEAVE_MS: u64 = 60_000;
/// A clock that stood still is behind until what it timed is over.
const CLOCK_BELIEVED_MS: u64 = 1_000;
/// After that time nothing is routed to a node that is gone.
/// Incarnations of disks that were replaced: seconds since 1970.
const DISKS_REPLACED: u32 = 1_800_000_000;
const ROUTED_AWAY_MS: u64 = 1_000;
