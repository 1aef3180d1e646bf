//! A whole cluster in one thread: rings, replication and views under random faults.
//!
//! Every call is charged by its owner: record after record, each written ahead as pending,
//! replicated, and only then sent. A ledger outside the cluster checks that nobody acts under an
//! epoch after a newer one has acted, that one epoch has one actor (S1), and that one record
//! number has one content (S4); in the end every call has exactly one owner, which is alive.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use replication::frame::DATAGRAM_BYTES_MAX;
use replication::layout::SUPERBLOCK;
use replication::peer::LinkConfig;
use replication::view::{Adoption, SaveFault, Views};
use replication::{
    CallId, ClusterKeys, Committed, Cursor, Durable, Kind, Map, Member, Mode, ReplicationEvent,
    Replicator, ReplicatorConfig, Ring, RingConfig, Standing, Version, ViewConfig, ViewMessage,
    VoteStore,
};

const MS: u64 = 1_000_000;
const NODES: u16 = 3;
const COPIES: usize = 2;
const PAYLOAD: usize = 21;

struct Disk(Durable);

impl VoteStore for Disk {
    fn save(&mut self, durable: &Durable) -> Result<(), SaveFault> {
        self.0 = *durable;
        Ok(())
    }
}

/// Charging state of a call: number and content of its newest record, and whether it is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Charge {
    number: u32,
    content: u64,
    pending: bool,
}

impl Charge {
    fn read(payload: &[u8]) -> Self {
        Self {
            number: u32::from_le_bytes(payload[..4].try_into().expect("four")),
            content: u64::from_le_bytes(payload[4..12].try_into().expect("eight")),
            pending: payload[12] == 1,
        }
    }

    fn write(self, payload: &mut [u8]) {
        payload[..4].copy_from_slice(&self.number.to_le_bytes());
        payload[4..12].copy_from_slice(&self.content.to_le_bytes());
        payload[12] = u8::from(self.pending);
    }
}

#[derive(Default)]
struct Ledger {
    /// Content per call and number.
    records: BTreeMap<(CallId, u32), u64>,
    /// Newest epoch that acted, and who.
    actors: BTreeMap<CallId, (u32, u16)>,
    repeats: u64,
}

impl Ledger {
    fn take(&mut self, id: CallId, charge: Charge, epoch: u32, node: u16) {
        let known = *self
            .records
            .entry((id, charge.number))
            .or_insert(charge.content);
        assert_eq!(
            known, charge.content,
            "{id:?} record {} has two contents",
            charge.number
        );
        let actor = self.actors.entry(id).or_insert((epoch, node));
        assert!(
            epoch >= actor.0,
            "{id:?}: node {node} acts under {epoch} after {actor:?}"
        );
        assert!(
            epoch > actor.0 || node == actor.1,
            "{id:?}: two actors under epoch {epoch}"
        );
        self.repeats += u64::from(node != actor.1);
        *actor = (epoch, node);
    }
}

struct Node {
    ring: Option<Ring>,
    replicator: Replicator,
    views: Views,
    disk: Disk,
    up: bool,
    paused_until: u64,
    view: u32,
    released: Vec<(CallId, Version)>,
    /// Calls this node is the heir of.
    given: BTreeSet<CallId>,
    /// When it last told the heirs of its own calls.
    told: u64,
    minted: BTreeSet<CallId>,
}

enum Packet {
    View(Box<ViewMessage>),
    Records(Vec<u8>),
}

struct World {
    nodes: Vec<Node>,
    now: u64,
    draw: Draw,
    cut: BTreeSet<(u16, u16)>,
    flying: BinaryHeap<(i64, i64, u16, u16)>,
    packets: BTreeMap<i64, Packet>,
    sent: i64,
    ledger: Ledger,
    calls: BTreeSet<CallId>,
    adopted: u64,
    forced: u64,
    handed_over: u64,
}

struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % limit
    }
}

fn ring_config(node: u16) -> RingConfig {
    RingConfig {
        node,
        secret: 3,
        young_bytes: 64 << 10,
        old_bytes: 128 << 10,
        payload_bytes_max: 1000,
        calls_max: 500,
        ..RingConfig::default()
    }
}

fn replicator(node: u16, incarnation: u32) -> Replicator {
    let link = LinkConfig {
        queue_max: 1000,
        marks_max: 1000,
        ..LinkConfig::default()
    };
    let config = ReplicatorConfig {
        cluster: 1,
        node,
        incarnation,
        shard: 0,
        copies: COPIES,
        holds_max: 1000,
        link,
    };
    let keys = ClusterKeys {
        current: (1, [9; 32]),
        other: None,
    };
    Replicator::new(config, keys, &(0..NODES).collect::<Vec<_>>())
}

fn view_config(node: u16) -> ViewConfig {
    let (voters, copies) = (NODES as u8, COPIES as u8);
    ViewConfig {
        node: node as u8,
        voters,
        witnesses: 0,
        copies,
    }
}

fn blank_ring(node: u16) -> Ring {
    let config = ring_config(node);
    let map = |bytes: u64| Map::heap(SUPERBLOCK + bytes as usize);
    Ring::create(map(config.young_bytes), map(config.old_bytes), &config).expect("limits")
}

impl Node {
    fn new(node: u16) -> Self {
        let mut disk = Disk(Durable::bootstrap());
        let views = Views::start(view_config(node), disk.0, true, 1000 * MS, &mut disk);
        Self {
            ring: Some(blank_ring(node)),
            replicator: replicator(node, 1),
            views: views.expect("three voters"),
            disk,
            up: true,
            paused_until: 0,
            view: 0,
            released: Vec::new(),
            given: BTreeSet::new(),
            told: 0,
            minted: BTreeSet::new(),
        }
    }

    fn ring(&mut self) -> &mut Ring {
        self.ring.as_mut().expect("a node that is up has a ring")
    }
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            nodes: (0..NODES).map(Node::new).collect(),
            now: 1000 * MS,
            draw: Draw(seed),
            cut: BTreeSet::new(),
            flying: BinaryHeap::new(),
            packets: BTreeMap::new(),
            sent: 0,
            ledger: Ledger::default(),
            calls: BTreeSet::new(),
            adopted: 0,
            forced: 0,
            handed_over: 0,
        }
    }

    fn is_running(&self, at: u16) -> bool {
        let node = &self.nodes[usize::from(at)];
        node.up && self.now >= node.paused_until
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now += MS;
            while self
                .flying
                .peek()
                .is_some_and(|packet| -packet.0 as u64 <= self.now)
            {
                let (_, order, from, to) = self.flying.pop().expect("peeked");
                if self.nodes[usize::from(to)].up && !self.is_running(to) {
                    let later = self.nodes[usize::from(to)].paused_until as i64;
                    self.flying.push((-later, order, from, to));
                } else if let Some(packet) = self.packets.remove(&order)
                    && self.is_running(to)
                {
                    self.deliver(from, to, packet);
                }
            }
            for at in (0..NODES)
                .filter(|&at| self.is_running(at))
                .collect::<Vec<_>>()
            {
                let node = &mut self.nodes[usize::from(at)];
                node.views.tick(self.now, &mut node.disk);
                self.follow_view(at);
                self.own(at);
                self.flush(at);
            }
        }
    }

    fn deliver(&mut self, from: u16, to: u16, packet: Packet) {
        let node = &mut self.nodes[usize::from(to)];
        match packet {
            Packet::View(message) => {
                node.views
                    .handle(self.now, from as u8, &message, &mut node.disk);
            }
            Packet::Records(mut datagram) => {
                let ring = node.ring.as_mut().expect("a node that is up has a ring");
                let (views, released) = (&mut node.views, &mut node.released);
                let mut stored = Vec::new();
                let mut on = |event| match event {
                    ReplicationEvent::Released(id, version) => released.push((id, version)),
                    ReplicationEvent::Synced { peer, view } => {
                        views.note_synced(peer as u8, view);
                    }
                    ReplicationEvent::Stored(id, _) => stored.push(id),
                };
                let replicator = &mut node.replicator;
                let _ = replicator.handle_datagram(self.now, from, &mut datagram, ring, &mut on);
                let is_given = |id: &CallId| {
                    let held = ring.newest(*id);
                    held.is_some_and(|held| held.meta.heir() == Some(to))
                };
                node.given.extend(stored.into_iter().filter(is_given));
            }
        }
        self.follow_view(to);
        self.act(to);
        self.flush(to);
    }

    /// Replication follows the view and the node's incarnation.
    fn follow_view(&mut self, at: u16) {
        let node = &mut self.nodes[usize::from(at)];
        let view = *node.views.view();
        if node.replicator.incarnation() != node.views.incarnation() {
            node.replicator = replicator(at, node.views.incarnation());
            node.released.clear();
            node.view = 0;
        }
        if node.view != view.number {
            node.view = view.number;
            let member = |node: u16| {
                let state = view.nodes[usize::from(node)];
                Member {
                    node,
                    incarnation: state.incarnation,
                    standing: state.standing,
                }
            };
            let members: Vec<_> = (0..NODES).map(member).collect();
            let released = &mut node.released;
            node.replicator
                .set_view(self.now, view.number, &members, &mut |event| {
                    if let ReplicationEvent::Released(id, version) = event {
                        released.push((id, version));
                    }
                });
            node.replicator
                .set_settled_view(view.settled, view.is_settled());
            let settled_without = |node: u16| view.nodes[usize::from(node)].settled_without;
            let mut has_void = node.ring().enter_view(view.number, settled_without(at));
            for owner in 0..NODES {
                has_void |= node
                    .ring()
                    .set_settled_without(owner, settled_without(owner));
            }
            let all = &mut Cursor::default();
            while has_void && node.ring().forget_leftovers(all, 100) {}
        }
        let wanted = node.views.sync_wanted();
        for peer in (0..NODES).filter(|peer| wanted >> peer & 1 == 1) {
            let is_joining = view.nodes[usize::from(at)].standing == Standing::Joining;
            if is_joining || node.views.must_resume() {
                node.replicator.request_sync(peer, view.number);
            } else {
                node.replicator.request_orphans(peer, view.number);
            }
        }
    }

    /// What an owner does by itself: resume, adopt, settle, begin and charge calls.
    fn own(&mut self, at: u16) {
        let number = self.nodes[usize::from(at)].views.view().number;
        if self.nodes[usize::from(at)].views.must_resume()
            && self.nodes[usize::from(at)].views.sync_wanted() == 0
        {
            for id in self.calls_of(at, at) {
                self.take_over(at, id, number);
            }
            let now = self.now;
            let node = &mut self.nodes[usize::from(at)];
            node.views.set_resumed();
            node.replicator.set_resumed(now);
        }
        self.take_given(at, number);
        self.hand_over(at, number);
        let mut done = true;
        for owner in (0..NODES).filter(|&owner| owner != at) {
            let views = &self.nodes[usize::from(at)].views;
            let adoption = views.adoption(self.now, owner as u8);
            done &= !views.must_adopt(owner as u8) || adoption != Adoption::NotNow;
            if adoption == Adoption::NotNow {
                continue;
            }
            for id in self.calls_of(at, owner) {
                if self.nodes[usize::from(at)].views.is_adopter(id) {
                    self.forced += u64::from(adoption == Adoption::BeyondThePromise);
                    self.adopted += 1;
                    self.take_over(at, id, number);
                }
            }
        }
        let node = &mut self.nodes[usize::from(at)];
        let synced = node.views.sync_wanted() == 0;
        if done && synced && node.replicator.held() == 0 && node.replicator.is_settled() {
            node.views.set_settled();
        }
        self.work(at, number);
        self.act(at);
    }

    fn calls_of(&self, at: u16, owner: u16) -> Vec<CallId> {
        let ring = self.nodes[usize::from(at)].ring.as_ref().expect("up");
        let owned = ring.iter_live().filter(|record| record.meta.owner == owner);
        owned.map(|record| record.meta.id).collect()
    }

    /// Takes over what others have given to this node (V13).
    fn take_given(&mut self, at: u16, number: u32) {
        for id in std::mem::take(&mut self.nodes[usize::from(at)].given) {
            let node = &mut self.nodes[usize::from(at)];
            let Some(held) = node.ring().newest(id) else {
                continue;
            };
            let (giver, heir) = (held.meta.owner, held.meta.heir());
            if heir != Some(at) || giver == at {
                continue;
            }
            if !node.views.may_take_over(self.now, giver) {
                node.given.insert(id);
                continue;
            }
            self.handed_over += 1;
            self.take_over(at, id, number);
            let node = &mut self.nodes[usize::from(at)];
            let version = node.ring().newest(id).expect("live").meta.version;
            node.replicator.tell(self.now, giver, id, version);
        }
    }

    /// Gives away a few of a draining node's calls; says when there are none left (V13).
    fn hand_over(&mut self, at: u16, number: u32) {
        let views = &self.nodes[usize::from(at)].views;
        let standing = views.standing();
        if !views.may_act(self.now) {
            return;
        }
        let own = self.calls_of(at, at);
        let node = &mut self.nodes[usize::from(at)];
        let tells = self.now >= node.told + 200 * MS;
        let mut given = 0;
        for &id in &own {
            let meta = node.ring().newest(id).expect("live").meta;
            let lost = meta
                .heir()
                .is_some_and(|heir| node.views.is_lost(self.now, heir));
            if standing != Standing::Draining {
                if lost {
                    node.ring().adopt(id, number, |_| {}).expect("a newer view");
                }
            } else if (meta.heir().is_none() || lost) && given < 3 {
                given += 1;
                let heir = node.views.heir(id).expect("another one is alive").into();
                let version = node.ring().give(id, heir).expect("owned");
                node.released.retain(|released| released.0 != id);
                node.replicator.hand_over(self.now, id, version, heir);
            } else if let Some(heir) = meta.heir().filter(|_| tells) {
                node.told = self.now;
                node.replicator.tell(self.now, heir, id, meta.version);
            }
        }
        if own.is_empty() && node.replicator.is_settled() {
            node.views.set_drained();
        }
    }

    fn take_over(&mut self, at: u16, id: CallId, epoch: u32) {
        if self.nodes[usize::from(at)]
            .ring()
            .adopt(id, epoch, |_| {})
            .is_ok()
        {
            self.commit(at, id);
        }
    }

    fn commit(&mut self, at: u16, id: CallId) {
        let node = &mut self.nodes[usize::from(at)];
        let version = node.ring().newest(id).expect("live").meta.version;
        match node
            .replicator
            .commit(self.now, id, version, Kind::Put, Mode::SemiSync)
        {
            Committed::Released => node.released.push((id, version)),
            Committed::Held => {}
            Committed::Refused => panic!("too many holds"),
        }
    }

    fn work(&mut self, at: u16, epoch: u32) {
        if !self.nodes[usize::from(at)].views.may_act(self.now) {
            return;
        }
        let takes = self.nodes[usize::from(at)].views.standing() == Standing::Alive;
        if takes && self.calls.len() < 24 && self.draw.below(40) == 0 {
            let node = &mut self.nodes[usize::from(at)];
            let id = node.ring().next_id();
            let first = Charge {
                number: 0,
                content: self.now,
                pending: true,
            };
            let mut payload = [0; PAYLOAD];
            first.write(&mut payload);
            node.ring().put(id, epoch, 1, &payload).expect("room");
            assert!(node.minted.insert(id));
            self.commit(at, id);
        }
        for id in self.calls_of(at, at) {
            if self.draw.below(60) != 0 {
                continue;
            }
            let ring = self.nodes[usize::from(at)].ring();
            let held = ring.newest(id).expect("live");
            let charge = Charge::read(held.payload);
            if charge.pending || held.meta.heir().is_some() {
                continue;
            }
            // Content nobody else would make: time and node.
            let content = self.now << 2 | u64::from(at);
            let next = Charge {
                number: charge.number + 1,
                content,
                pending: true,
            };
            ring.update(id, |payload| next.write(payload))
                .expect("owned");
            self.commit(at, id);
        }
    }

    /// Sends what is released, if this node may act at this very moment.
    fn act(&mut self, at: u16) {
        let released = std::mem::take(&mut self.nodes[usize::from(at)].released);
        for (id, version) in released {
            let node = &mut self.nodes[usize::from(at)];
            if !node.views.may_act(self.now) {
                node.released.push((id, version));
                continue;
            }
            let Some(held) = node.ring().newest(id) else {
                continue;
            };
            let charge = Charge::read(held.payload);
            if held.meta.owner != at || held.meta.version != version {
                continue;
            }
            if charge.pending {
                self.ledger.take(id, charge, version.epoch, at);
                self.calls.insert(id);
                let answered = Charge {
                    pending: false,
                    ..charge
                };
                let node = &mut self.nodes[usize::from(at)];
                node.ring()
                    .update(id, |payload| answered.write(payload))
                    .expect("owned");
                self.commit(at, id);
            }
        }
    }

    fn flush(&mut self, at: u16) {
        while let Some((to, message)) = self.nodes[usize::from(at)].views.poll_message() {
            self.send(at, to.into(), Packet::View(Box::new(message)));
        }
        let node = &mut self.nodes[usize::from(at)];
        let (ring, views) = (node.ring.as_mut().expect("up"), &mut node.views);
        node.replicator
            .forget_some(self.now, ring, 8, &mut |event| {
                if let ReplicationEvent::Synced { peer, view } = event {
                    views.note_synced(peer as u8, view);
                }
            });
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let node = &mut self.nodes[usize::from(at)];
            let ring = node.ring.as_ref().expect("up");
            let Some((to, len)) = node.replicator.poll(self.now, ring, &mut buffer) else {
                break;
            };
            self.send(at, to, Packet::Records(buffer[..len].to_vec()));
        }
    }

    fn send(&mut self, from: u16, to: u16, packet: Packet) {
        if self.draw.below(100) < 5 || self.cut.contains(&(from, to)) {
            return;
        }
        let jitter = if self.draw.below(100) < 5 {
            self.draw.below(40 * MS)
        } else {
            0
        };
        let due = self.now + MS / 10 + self.draw.below(2 * MS) + jitter;
        self.sent += 1;
        self.packets.insert(self.sent, packet);
        self.flying.push((-(due as i64), self.sent, from, to));
    }

    fn crash(&mut self, at: u16, memory_too: bool) {
        let node = &mut self.nodes[usize::from(at)];
        node.up = false;
        if memory_too {
            node.ring = None;
        }
    }

    fn restart(&mut self, at: u16) {
        let node = &mut self.nodes[usize::from(at)];
        let kept = node.ring.is_some();
        let disk = node.disk.0;
        // Ids go on under the durable incarnation even if the rings are lost.
        let config = RingConfig {
            incarnation: disk.incarnation + 1,
            ..ring_config(at)
        };
        let ring = match node.ring.take() {
            Some(ring) => {
                let (young, old) = ring.into_maps();
                Ring::open(young, old, &config)
                    .expect("the rings recover")
                    .0
            }
            None => {
                let map = |bytes: u64| Map::heap(SUPERBLOCK + bytes as usize);
                let (young, old) = (map(config.young_bytes), map(config.old_bytes));
                Ring::create(young, old, &config).expect("limits")
            }
        };
        let views = Views::start(view_config(at), disk, kept, self.now, &mut node.disk);
        node.views = views.expect("it started before");
        node.replicator = replicator(at, node.views.incarnation());
        node.ring = Some(ring);
        node.released.clear();
        node.given.clear();
        (node.up, node.view, node.paused_until) = (true, 0, 0);
    }

    fn heal(&mut self) {
        self.cut.clear();
        for at in 0..NODES {
            if !self.nodes[usize::from(at)].up {
                self.restart(at);
            }
        }
    }

    fn fault(&mut self) {
        let at = self.draw.below(NODES.into()) as u16;
        let other = (at + 1 + self.draw.below(2) as u16) % NODES;
        let others = (0..NODES).filter(|&other| other != at);
        match self.draw.below(7) {
            0 => self.crash(at, false),
            1 => self.crash(at, true),
            2 => self
                .cut
                .extend(others.flat_map(|other| [(at, other), (other, at)])),
            3 => self.cut.extend([(at, other), (other, at)]),
            4 => self.cut.extend(others.map(|other| (at, other))),
            5 => self.cut.extend(others.map(|other| (other, at))),
            _ => {
                let pause = 200 + self.draw.below(2000);
                self.nodes[usize::from(at)].paused_until = self.now + pause * MS;
            }
        }
    }

    fn check_end(&self, seed: u64) {
        for id in &self.calls {
            let owners: Vec<u16> = (0..NODES)
                .filter(|&at| {
                    let ring = self.nodes[usize::from(at)].ring.as_ref().expect("healed");
                    ring.newest(*id).is_some_and(|held| held.meta.owner == at)
                })
                .collect();
            assert_eq!(owners.len(), 1, "seed={seed} {id:?} is owned by {owners:?}");
            assert!(
                self.nodes[usize::from(owners[0])].views.may_act(self.now),
                "seed={seed}"
            );
            let numbers = self.ledger.records.range((*id, 0)..=(*id, u32::MAX));
            let numbers: Vec<u32> = numbers.map(|((_, number), _)| *number).collect();
            let all: Vec<u32> = (0..numbers.len() as u32).collect();
            assert_eq!(numbers, all, "seed={seed}: no record is missing");
        }
        for node in &self.nodes {
            node.ring.as_ref().expect("healed").verify();
        }
    }
}

fn play(seed: u64) -> World {
    let mut world = World::new(seed);
    world.run(1500);
    for _ in 0..8 {
        world.fault();
        let lasts = 100 + world.draw.below(2500);
        world.run(lasts);
        world.heal();
        // One fault at a time, each healed: a further loss of memory before the copies are back
        // would be beyond the promise of two copies.
        world.run(3500);
    }
    world.run(3000);
    world.check_end(seed);
    world
}

#[test]
fn under_random_faults_one_owner_acts_at_a_time_and_no_call_is_lost() {
    let seeds = std::env::var("SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(12);
    let (mut adopted, mut repeats, mut records, mut forced) = (0, 0, 0, 0);
    for seed in 0..seeds {
        let world = play(seed);
        assert!(world.calls.len() > 10, "seed={seed}");
        adopted += world.adopted;
        repeats += world.ledger.repeats;
        records += world.ledger.records.len();
        forced += world.forced;
    }
    println!("{seeds} seeds: {records} records, {adopted} adopted, {repeats} changes of actor");
    assert!(adopted > 0 && repeats > 0);
    assert_eq!(forced, 0, "single faults stay within the promise");
}

/// One node after the other leaves and comes back, under loss and, for odd seeds, a fault.
fn roll(seed: u64) -> World {
    let mut world = World::new(seed);
    world.run(1500);
    for at in (0..NODES).chain(0..NODES) {
        world.nodes[usize::from(at)].views.drain();
        let before = world.draw.below(200);
        world.run(before);
        if seed % 2 == 1 {
            world.fault();
            let lasts = 100 + world.draw.below(1500);
            world.run(lasts);
            world.heal();
        }
        for _ in 0..100 {
            world.run(50);
            if world.nodes[usize::from(at)].views.has_left() {
                assert_eq!(world.calls_of(at, at), [], "seed={seed}");
                world.crash(at, world.now.is_multiple_of(3));
                break;
            }
        }
        let up = world.nodes[usize::from(at)].up;
        assert!(
            seed % 2 == 1 || !up,
            "seed={seed}: without faults it gets away"
        );
        let pause = world.draw.below(2000);
        world.run(pause);
        world.heal();
        world.run(3500);
    }
    world.run(3000);
    world.check_end(seed);
    world
}

#[test]
fn nodes_leave_in_turn_and_their_calls_go_on_elsewhere() {
    let seeds = std::env::var("SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(8);
    let mut quiet_adoptions = 0;
    for seed in 0..seeds {
        let world = roll(seed);
        assert!(world.handed_over > 10, "seed={seed}: {}", world.handed_over);
        assert_eq!(world.forced, 0, "seed={seed}");
        if seed % 2 == 0 {
            quiet_adoptions += world.adopted;
        }
    }
    assert_eq!(quiet_adoptions, 0, "what was handed over is not adopted");
}
