//! Replication between real rings over a network that loses, doubles, delays and reorders.

mod conflicts;
mod ended;
mod forgetting;
mod places;
mod resending;

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use replication::frame::{DATAGRAM_BYTES_MAX, HEAD};
use replication::layout::SUPERBLOCK;
use replication::peer::LinkConfig;
use replication::{
    Applied, CallId, ClusterKeys, Committed, Cursor, Kind, Map, Member, Meta, Mode,
    ReplicationEvent, Replicator, ReplicatorConfig, Ring, RingConfig, RingError, Standing, Version,
};

const MS: u64 = 1_000_000;
const KEYS: ClusterKeys = ClusterKeys {
    current: (1, [9; 32]),
    other: None,
};

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

struct Node {
    ring: Ring,
    replicator: Replicator,
    config: RingConfig,
    up: bool,
}

impl Node {
    fn new(node: u16, incarnation: u32, copies: usize, peers: &[u16], ring: Option<Ring>) -> Self {
        let config = RingConfig {
            node,
            incarnation,
            secret: 5,
            young_bytes: 256 << 10,
            old_bytes: 1 << 20,
            payload_bytes_max: 8000,
            calls_max: 8000,
            ..RingConfig::default()
        };
        let map = |bytes: u64| Map::heap(SUPERBLOCK + bytes as usize);
        let ring = ring.unwrap_or_else(|| {
            Ring::create(map(config.young_bytes), map(config.old_bytes), &config).expect("limits")
        });
        let replicator = ReplicatorConfig {
            cluster: 1,
            node,
            incarnation,
            shard: 0,
            copies,
            holds_max: 1000,
            link: LinkConfig {
                queue_max: 2000,
                marks_max: 5000,
                ..LinkConfig::default()
            },
        };
        Self {
            ring,
            replicator: Replicator::new(replicator, KEYS, peers),
            config,
            up: true,
        }
    }
}

/// Two or three nodes and what flies between them.
struct World {
    nodes: Vec<Node>,
    members: Vec<Member>,
    view: u32,
    draw: Draw,
    now: u64,
    loss: u64,
    /// Time that the path to each node takes for one datagram, and until when it is taken.
    narrow: u64,
    taken: BTreeMap<u16, u64>,
    cut: BTreeSet<(u16, u16)>,
    /// (arrival, order), negated for a max-heap.
    flying: BinaryHeap<(i64, i64, u16, u16, Vec<u8>)>,
    sent: i64,
    released: BTreeMap<u16, BTreeSet<(CallId, Version)>>,
    synced: Vec<(u16, u16, u32)>,
    wire: Vec<(u16, u16, Vec<u8>)>,
    /// Last settled view; none: each is at once.
    settled: Option<u32>,
    /// A node that is alive and does not know yet whether it has all its calls.
    waits: Option<u16>,
    /// What one turn of a node's loop takes at least, if it has more to do at once.
    turn: u64,
    /// Records that one turn looks at to forget some.
    looked_at: usize,
    /// Least time from node to node.
    way: u64,
    /// What is lost is lost, but nothing is doubled or straggles.
    only_loses: bool,
    /// When a datagram was lost.
    lost: BTreeSet<u64>,
    /// When a node first held a version of another's call.
    stored: BTreeMap<(u16, CallId, Version), u64>,
}

impl World {
    fn new(count: u16, copies: usize, seed: u64, loss: u64) -> Self {
        let peers: Vec<u16> = (0..count).collect();
        let nodes = peers
            .iter()
            .map(|&node| Node::new(node, 1, copies, &peers, None))
            .collect();
        let alive = |&node| Member {
            node,
            incarnation: 1,
            standing: Standing::Alive,
        };
        let members = peers.iter().map(alive).collect();
        let mut world = Self {
            nodes,
            members,
            view: 0,
            draw: Draw(seed),
            now: 1,
            loss,
            narrow: 0,
            taken: BTreeMap::new(),
            cut: BTreeSet::new(),
            flying: BinaryHeap::new(),
            sent: 0,
            released: BTreeMap::new(),
            synced: Vec::new(),
            wire: Vec::new(),
            settled: None,
            waits: None,
            turn: 1,
            looked_at: 8,
            way: 100_000,
            only_loses: false,
            lost: BTreeSet::new(),
            stored: BTreeMap::new(),
        };
        world.enter_view();
        world
    }

    /// Every node that is up enters the next view at once.
    fn enter_view(&mut self) {
        self.view += 1;
        for at in 0..self.nodes.len() {
            self.enter_at(at);
        }
    }

    fn enter_at(&mut self, at: usize) {
        let (now, view) = (self.now, self.view);
        let released = self.released.entry(at as u16).or_default();
        if self.nodes[at].up {
            self.nodes[at]
                .replicator
                .set_view(now, view, &self.members, &mut |event| {
                    if let ReplicationEvent::Released(id, version) = event {
                        released.insert((id, version));
                    }
                });
            let settled = self.settled.unwrap_or(view);
            let node = &mut self.nodes[at];
            node.ring.set_settled(settled == view);
            node.replicator.set_settled_view(settled, settled == view);
            let waits = self.waits == Some(at as u16);
            if self.members[at].standing == Standing::Alive && !waits {
                self.nodes[at].replicator.set_resumed(now);
            }
        }
    }

    /// Commits what the ring now holds for a call; true if the output may leave at once.
    fn commit(&mut self, at: u16, id: CallId, mode: Mode) -> Version {
        let node = &mut self.nodes[usize::from(at)];
        let meta = node
            .ring
            .newest_or_tombstone(id)
            .expect("just written")
            .meta;
        let committed = node
            .replicator
            .commit(self.now, id, meta.version, meta.kind, mode);
        assert_ne!(committed, Committed::Refused);
        if committed == Committed::Released && mode == Mode::SemiSync {
            self.released
                .entry(at)
                .or_default()
                .insert((id, meta.version));
        }
        meta.version
    }

    fn new_call(&mut self, at: u16, len: usize, mode: Mode) -> CallId {
        let ring = &mut self.nodes[usize::from(at)].ring;
        let id = ring.next_id();
        ring.put(id, 1, 1, &vec![at as u8; len]).expect("room");
        self.commit(at, id, mode);
        id
    }

    fn run(&mut self, for_ns: u64) {
        let end = self.now + for_ns;
        while self.now < end {
            self.flush();
            let next_arrival = self.flying.peek().map(|packet| -packet.0 as u64);
            let up = self.nodes.iter().filter(|node| node.up);
            let deadline = up
                .filter_map(|node| node.replicator.deadline(self.now))
                .min();
            let next = [next_arrival, deadline]
                .into_iter()
                .flatten()
                .min()
                .unwrap_or(end);
            self.now = next
                .clamp(self.now, end)
                .max(self.now + if next <= self.now { self.turn } else { 0 });
            while self
                .flying
                .peek()
                .is_some_and(|packet| -packet.0 as u64 <= self.now)
            {
                let (_, _, from, to, datagram) = self.flying.pop().expect("peeked");
                self.deliver(from, to, datagram);
            }
        }
    }

    fn flush(&mut self) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        for from in 0..self.nodes.len() {
            let node = &mut self.nodes[from];
            if !node.up {
                continue;
            }
            let synced = &mut self.synced;
            let (ring, looked_at) = (&mut node.ring, self.looked_at);
            node.replicator
                .forget_some(self.now, ring, looked_at, &mut |event| {
                    if let ReplicationEvent::Synced { peer, view } = event {
                        synced.push((from as u16, peer, view));
                    }
                });
            while let Some((to, len)) = node.replicator.poll(self.now, &node.ring, &mut buffer) {
                assert!(len <= 1472, "no datagram is longer than the path takes");
                let packet = buffer[..len].to_vec();
                if self.wire.len() < 5000 {
                    self.wire.push((from as u16, to, packet.clone()));
                }
                let odd = if self.only_loses { 0 } else { self.loss };
                let copies = 1 + u64::from(self.draw.below(100) < odd);
                for _ in 0..copies {
                    if self.draw.below(100) < self.loss || self.cut.contains(&(from as u16, to)) {
                        self.lost.insert(self.now);
                        continue;
                    }
                    let straggles = self.draw.below(100) < odd;
                    let jitter = if straggles {
                        self.draw.below(20 * MS)
                    } else {
                        0
                    };
                    let taken = self.taken.entry(to).or_default();
                    *taken = (*taken).max(self.now) + self.narrow;
                    let at = *taken + self.way + self.draw.below(100_000) + jitter;
                    self.sent += 1;
                    self.flying
                        .push((-(at as i64), -self.sent, from as u16, to, packet.clone()));
                }
            }
        }
    }

    fn deliver(&mut self, from: u16, to: u16, mut datagram: Vec<u8>) {
        let node = &mut self.nodes[usize::from(to)];
        if !node.up {
            return;
        }
        let (released, synced) = (self.released.entry(to).or_default(), &mut self.synced);
        let (now, stored) = (self.now, &mut self.stored);
        let mut on = |event| match event {
            ReplicationEvent::Released(id, version) => drop(released.insert((id, version))),
            ReplicationEvent::Synced { peer, view } => synced.push((to, peer, view)),
            ReplicationEvent::Stored(id, version) => {
                stored.entry((to, id, version)).or_insert(now);
            }
        };
        let ring = &mut node.ring;
        let _ = node
            .replicator
            .handle_datagram(self.now, from, &mut datagram, ring, &mut on);
    }

    fn settle(&mut self) {
        for _ in 0..400 {
            self.run(25 * MS);
            let mut up = self.nodes.iter().filter(|node| node.up);
            if up.all(|node| node.replicator.is_settled()) {
                return;
            }
        }
        panic!("the nodes never settled");
    }

    fn fingerprint(&self, at: u16, owner: u16) -> (u64, u64) {
        self.nodes[usize::from(at)].ring.fingerprint(owner)
    }

    /// What is released is held by enough others (S3, S10).
    fn check_released(&self, at: u16, copies: usize) {
        for (id, version) in &self.released[&at] {
            let holds = |node: &&Node| {
                let held = node.ring.newest_or_tombstone(*id);
                held.is_none_or(|held| held.meta.version >= *version)
            };
            assert!(
                self.nodes.iter().filter(holds).count() >= copies,
                "{id:?} {version:?}"
            );
        }
    }
}

/// Random traffic of one owner.
fn traffic(world: &mut World, at: u16, ids: &mut Vec<CallId>, steps: u64, mode: Mode) {
    for _ in 0..steps {
        let pick = world.draw.below(1 << 30) as usize;
        match world.draw.below(10) {
            0..=2 => {
                let len = if pick.is_multiple_of(9) {
                    6000
                } else {
                    pick % 1300
                };
                let id = world.new_call(at, len, mode);
                ids.push(id);
            }
            3 if ids.len() > 5 => {
                let id = ids.swap_remove(pick % ids.len());
                world.nodes[usize::from(at)].ring.retire(id).expect("live");
                world.commit(at, id, mode);
            }
            _ if !ids.is_empty() => {
                let id = ids[pick % ids.len()];
                let ring = &mut world.nodes[usize::from(at)].ring;
                ring.update(id, |bytes| bytes.fill(pick as u8))
                    .expect("live");
                world.commit(at, id, mode);
            }
            _ => {}
        }
        let pause = world.draw.below(MS);
        world.run(pause);
        if mode == Mode::SemiSync && pick.is_multiple_of(10) {
            world.check_released(at, 2);
        }
    }
}

#[test]
fn two_nodes_converge_over_a_bad_network() {
    for seed in 0..12 {
        let mut world = World::new(2, 2, seed, 10);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for _ in 0..8 {
            traffic(&mut world, 0, &mut a, 20, Mode::SemiSync);
            traffic(&mut world, 1, &mut b, 20, Mode::Async);
        }
        world.settle();
        assert_eq!(
            world.fingerprint(0, 0),
            world.fingerprint(1, 0),
            "seed={seed}"
        );
        assert_eq!(
            world.fingerprint(0, 1),
            world.fingerprint(1, 1),
            "seed={seed}"
        );
        assert_eq!(world.fingerprint(1, 0).0, a.len() as u64);
        for node in &world.nodes {
            node.ring.verify();
            assert_eq!(node.ring.counters().apply_conflict, 0);
            assert_eq!(node.replicator.held(), 0);
        }
    }
}

#[test]
fn three_nodes_place_every_call_at_its_target_and_nowhere_else() {
    for seed in 0..6 {
        let mut world = World::new(3, 2, seed, 5);
        let mut ids = Vec::new();
        traffic(&mut world, 0, &mut ids, 150, Mode::Async);
        world.settle();
        for id in ids {
            let held = |at: usize| world.nodes[at].ring.newest(id).map(|r| r.meta.version);
            let copies = [held(1), held(2)].into_iter().flatten().collect::<Vec<_>>();
            assert_eq!(copies, [held(0).expect("the owner has it")], "seed={seed}");
        }
    }
}

#[test]
fn a_semi_sync_output_waits_for_an_ack_and_then_for_the_next_member() {
    let mut world = World::new(3, 2, 1, 0);
    world.settle();
    // An id whose first place is node 1.
    let id = loop {
        let ring = &mut world.nodes[0].ring;
        let id = ring.next_id();
        if replication::takeover::is_among_first(id, 1, 1, [1, 2].into_iter()) {
            break id;
        }
    };
    world.cut.extend([(0, 1), (1, 0)]);
    world.nodes[0].ring.put(id, 1, 1, &[1; 100]).expect("room");
    let version = world.commit(0, id, Mode::SemiSync);
    world.run(19 * MS);
    assert!(
        !world.released[&0].contains(&(id, version)),
        "nobody has it"
    );
    world.run(3 * MS);
    assert!(
        world.released[&0].contains(&(id, version)),
        "the next member has it"
    );
    assert!(world.nodes[2].ring.newest(id).is_some());
    assert_eq!(world.nodes[0].replicator.held_escalated(), 1);
}

// A refused record must not hold up the end of another, which alone makes room for it.
#[test]
fn what_a_full_peer_refuses_does_not_hold_up_the_rest() {
    let mut world = World::new(2, 2, 1, 0);
    let ended: Vec<_> = (0..20)
        .map(|_| world.new_call(0, 1_000, Mode::Async))
        .collect();
    world.settle();
    let full = &mut world.nodes[1].ring;
    let mut own = Vec::new();
    loop {
        let id = full.next_id();
        match full.put(id, 1, 1, &[1; 1_000]) {
            Ok(_) => own.push(id),
            Err(error) => break assert_eq!(error, RingError::Full),
        }
    }
    let waiting: Vec<_> = (0..300)
        .map(|_| world.new_call(0, 1_000, Mode::SemiSync))
        .collect();
    world.run(100 * MS);
    for &id in &ended {
        world.nodes[0].ring.retire(id).expect("live");
        world.commit(0, id, Mode::Async);
    }
    world.run(2_000 * MS);
    let held = |world: &World, ids: &[CallId]| {
        let ring = &world.nodes[1].ring;
        ids.iter().filter(|&&id| ring.newest(id).is_some()).count()
    };
    assert_eq!(held(&world, &ended), 0, "their ends have come");
    assert_eq!(held(&world, &waiting), ended.len(), "so many found room");
    world.check_released(0, 2);
    for id in own {
        world.nodes[1].ring.retire(id).expect("live");
    }
    world.settle();
    assert_eq!(held(&world, &waiting), waiting.len());
    assert_eq!(world.released[&0].len(), waiting.len());
    assert_eq!(world.fingerprint(0, 0), world.fingerprint(1, 0));
}

// The same of a catch-up, whose end stays behind all it brings.
#[test]
fn a_full_peer_is_filled_once_it_has_room() {
    let mut world = World::new(2, 2, 1, 0);
    world.settle();
    world.nodes[1].up = false;
    world.members[1].standing = Standing::Dead;
    world.enter_view();
    for _ in 0..300 {
        world.new_call(0, 1_000, Mode::Async);
    }
    let full = &mut world.nodes[1].ring;
    let mut own = Vec::new();
    loop {
        let id = full.next_id();
        match full.put(id, 1, 1, &[1; 1_000]) {
            Ok(_) => own.push(id),
            Err(error) => break assert_eq!(error, RingError::Full),
        }
    }
    world.nodes[1].up = true;
    world.members[1].standing = Standing::Alive;
    world.enter_view();
    world.run(1_000 * MS);
    let link = world.nodes[0].replicator.link(1).expect("a link");
    assert!(!link.is_past(0), "it is not filled");
    for id in own {
        world.nodes[1].ring.retire(id).expect("live");
    }
    world.settle();
    assert_eq!(world.fingerprint(1, 0).0, 300);
}

#[test]
fn a_view_that_drops_the_only_peer_releases_what_waited_for_it() {
    let mut world = World::new(2, 2, 1, 0);
    world.settle();
    world.nodes[1].up = false;
    let id = world.new_call(0, 100, Mode::SemiSync);
    world.run(500 * MS);
    assert!(
        world.released[&0].is_empty(),
        "a slow peer is not dropped by its sender"
    );
    world.members[1].standing = Standing::Dead;
    world.enter_view();
    assert!(world.released[&0].contains(&(id, Version::first(1))));
}

#[test]
fn more_copies_wait_for_more_acks() {
    let mut world = World::new(3, 3, 1, 0);
    world.settle();
    world.cut.insert((2, 0));
    let id = world.new_call(0, 100, Mode::SemiSync);
    world.run(100 * MS);
    assert!(
        !world.released[&0].contains(&(id, Version::first(1))),
        "only one peer acked"
    );
    world.cut.clear();
    world.run(600 * MS);
    assert!(world.released[&0].contains(&(id, Version::first(1))));
}

#[test]
fn a_peer_that_lost_its_memory_is_filled_and_told_what_it_owned() {
    for seed in 0..6 {
        let mut world = World::new(2, 2, seed, 5);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        traffic(&mut world, 0, &mut a, 100, Mode::Async);
        traffic(&mut world, 1, &mut b, 100, Mode::Async);
        world.settle();
        let (of_a, of_b) = (world.fingerprint(0, 0), world.fingerprint(0, 1));
        world.nodes[1] = Node::new(1, 2, 2, &[0, 1], None);
        world.members[1] = Member {
            node: 1,
            incarnation: 2,
            standing: Standing::Joining,
        };
        world.enter_view();
        let view = world.view;
        world.nodes[1].replicator.request_sync(0, view);
        // Traffic goes on meanwhile.
        traffic(&mut world, 0, &mut a, 50, Mode::Async);
        world.settle();
        assert!(world.synced.contains(&(1, 0, view)), "seed={seed}");
        assert_eq!(
            world.fingerprint(0, 1),
            of_b,
            "a joiner makes nobody forget, seed={seed}"
        );
        assert_eq!(
            world.fingerprint(1, 1),
            of_b,
            "it knows again what it owned, seed={seed}"
        );
        assert_ne!(world.fingerprint(0, 0), of_a);
        assert_eq!(
            world.fingerprint(0, 0),
            world.fingerprint(1, 0),
            "seed={seed}"
        );
    }
}

#[test]
fn calls_that_ended_while_a_peer_was_away_are_forgotten_there() {
    for seed in 0..6 {
        let mut world = World::new(2, 2, seed, 5);
        let mut ids = Vec::new();
        traffic(&mut world, 0, &mut ids, 100, Mode::Async);
        world.settle();
        let everybody = world.members.clone();
        world.members[1].standing = Standing::Dead;
        world.enter_view();
        // So long that the tombstones leave the young ring.
        for _ in 0..3 {
            for id in std::mem::take(&mut ids) {
                world.nodes[0].ring.retire(id).expect("live");
                world.commit(0, id, Mode::Async);
            }
            for _ in 0..300 {
                ids.push(world.new_call(0, 900, Mode::Async));
            }
        }
        assert!(world.nodes[0].ring.counters().tombstones_dropped > 0);
        world.members = everybody;
        // V8: a node that was dead comes back as a new incarnation, with its ring.
        let config = world.nodes[1].config;
        let (young, old) = world.nodes[1].ring.image();
        let (young, old) = (Map::heap_copy(&young), Map::heap_copy(&old));
        let (ring, _) = Ring::open(young, old, &config).expect("recovers");
        world.nodes[1] = Node::new(1, 2, 2, &[0, 1], Some(ring));
        world.members[1].incarnation = 2;
        world.enter_view();
        world.settle();
        assert_eq!(
            world.fingerprint(1, 0),
            world.fingerprint(0, 0),
            "seed={seed}"
        );
        assert!(
            world.nodes[1]
                .replicator
                .link(0)
                .expect("peer")
                .counters()
                .calls_forgotten
                > 0
        );
        world.nodes[1].ring.verify();
    }
}

#[test]
fn an_overflowing_queue_fills_the_peer_anew_under_traffic() {
    let mut world = World::new(2, 2, 3, 5);
    world.cut.extend([(0, 1), (1, 0)]);
    let mut ids = Vec::new();
    for round in 0..5000_usize {
        if ids.len() < 200 {
            ids.push(world.new_call(0, 300, Mode::Async));
        } else {
            let id = ids[round * 7 % ids.len()];
            world.nodes[0]
                .ring
                .update(id, |bytes| bytes.fill(round as u8))
                .expect("live");
            world.commit(0, id, Mode::Async);
        }
    }
    let link = world.nodes[0].replicator.link(1).expect("peer").counters();
    assert!(link.queue_overflows > 0);
    world.cut.clear();
    traffic(&mut world, 0, &mut ids, 100, Mode::Async);
    world.settle();
    assert_eq!(world.fingerprint(0, 0), world.fingerprint(1, 0));
    assert!(
        world.nodes[1]
            .replicator
            .link(0)
            .expect("peer")
            .counters()
            .syncs_completed
            > 0
    );
}

#[test]
fn a_fenced_sender_is_neither_stored_nor_acked() {
    let mut world = World::new(2, 2, 1, 0);
    world.settle();
    // Node 1 has learned a view in which node 0 is dead; node 0 has not.
    let standing = std::mem::replace(&mut world.members[0].standing, Standing::Dead);
    world.view += 1;
    world.enter_at(1);
    world.members[0].standing = standing;
    let id = world.new_call(0, 100, Mode::SemiSync);
    world.run(400 * MS);
    assert!(world.nodes[1].ring.newest(id).is_none());
    assert!(!world.released[&0].contains(&(id, Version::first(1))));
    assert!(
        world.nodes[1]
            .replicator
            .link(0)
            .expect("peer")
            .counters()
            .datagram_fenced
            > 0
    );
}

#[test]
fn a_sender_that_was_succeeded_gets_no_ack_but_the_newer_version() {
    let mut world = World::new(2, 2, 1, 0);
    let id = world.new_call(0, 100, Mode::SemiSync);
    world.settle();
    world.nodes[1]
        .ring
        .adopt(id, 7, |bytes| bytes.fill(9))
        .expect("held");
    world.nodes[0]
        .ring
        .update(id, |bytes| bytes.fill(1))
        .expect("node 0 does not know yet");
    let version = world.commit(0, id, Mode::SemiSync);
    world.run(300 * MS);
    assert!(!world.released[&0].contains(&(id, version)));
    let held = world.nodes[0].ring.newest(id).expect("still a call").meta;
    assert_eq!((held.version.epoch, held.owner), (7, 1));
}

#[test]
fn recorded_forged_and_foreign_datagrams_change_nothing() {
    let mut world = World::new(2, 2, 5, 0);
    let mut ids = Vec::new();
    traffic(&mut world, 0, &mut ids, 60, Mode::Async);
    world.settle();
    let recorded = world.wire.clone();
    assert!(recorded.len() > 30);
    let before: Vec<_> = world.nodes.iter().map(|node| node.ring.image()).collect();
    let mut forged = 0;
    for (n, (from, to, datagram)) in recorded.iter().enumerate() {
        // Replayed as it was.
        world.deliver(*from, *to, datagram.clone());
        // Sent back to its sender.
        world.deliver(*to, *from, datagram.clone());
        // With one bit wrong, anywhere; cut short; with a foreign cluster or an old incarnation.
        let at = n * 37 % datagram.len();
        let mut wrong = datagram.clone();
        wrong[at] ^= 1 << (n % 8);
        world.deliver(*from, *to, wrong);
        world.deliver(*from, *to, datagram[..at].to_vec());
        for (field, value) in [(8, 2), (12, 0), (16, 9), (24, 0xff)] {
            let mut wrong = datagram.clone();
            wrong[field] = value;
            world.deliver(*from, *to, wrong);
            forged += 1;
        }
        assert!(datagram.len() > HEAD);
    }
    assert!(forged > 100);
    let after: Vec<_> = world.nodes.iter().map(|node| node.ring.image()).collect();
    assert!(before == after, "the rings are as they were, byte by byte");
    let mut more = Vec::new();
    traffic(&mut world, 0, &mut more, 40, Mode::Async);
    world.settle();
    assert_eq!(
        world.fingerprint(0, 0),
        world.fingerprint(1, 0),
        "and the links still work"
    );
}

#[test]
fn a_restarted_owner_goes_on_with_its_ring_and_its_peer_follows() {
    for seed in 0..6 {
        let mut world = World::new(2, 2, seed, 5);
        let mut ids = Vec::new();
        traffic(&mut world, 0, &mut ids, 80, Mode::Async);
        let config = world.nodes[0].config;
        let (young, old) = world.nodes[0].ring.image();
        let (young, old) = (Map::heap_copy(&young), Map::heap_copy(&old));
        let (ring, _) = Ring::open(young, old, &config).expect("recovers");
        assert_eq!(ring.incarnation(), 2);
        world.nodes[0] = Node::new(0, 2, 2, &[0, 1], Some(ring));
        world.members[0].incarnation = 2;
        world.enter_view();
        traffic(&mut world, 0, &mut ids, 40, Mode::SemiSync);
        world.settle();
        assert_eq!(
            world.fingerprint(0, 0),
            world.fingerprint(1, 0),
            "seed={seed}"
        );
    }
}

#[test]
fn a_tombstone_arrives_even_after_it_left_the_ring() {
    let mut world = World::new(2, 2, 1, 0);
    let id = world.new_call(0, 100, Mode::Async);
    world.settle();
    world.cut.insert((0, 1));
    world.nodes[0].ring.retire(id).expect("live");
    world.commit(0, id, Mode::Async);
    while world.nodes[0].ring.newest_or_tombstone(id).is_some() {
        let other = world.nodes[0].ring.next_id();
        world.nodes[0]
            .ring
            .put(other, 1, 1, &[0; 900])
            .expect("room");
        world.nodes[0].ring.retire(other).expect("live");
    }
    world.cut.clear();
    world.settle();
    assert!(world.nodes[1].ring.newest(id).is_none());
    assert_eq!(
        world.nodes[1]
            .ring
            .newest_or_tombstone(id)
            .map(|record| record.meta.kind),
        Some(Kind::Del)
    );
}

#[test]
fn a_joiner_that_is_asked_for_everything_it_has_makes_nobody_forget() {
    let mut world = World::new(2, 2, 4, 0);
    let (mut a, mut b) = (Vec::new(), Vec::new());
    traffic(&mut world, 0, &mut a, 30, Mode::Async);
    traffic(&mut world, 1, &mut b, 30, Mode::Async);
    world.settle();
    let of_b = world.fingerprint(0, 1);
    assert!(of_b.0 > 0);
    // It has lost its memory, and is asked before it was filled.
    world.nodes[1] = Node::new(1, 2, 2, &[0, 1], None);
    world.members[1] = Member {
        node: 1,
        incarnation: 2,
        standing: Standing::Joining,
    };
    world.enter_view();
    let view = world.view;
    world.nodes[0].replicator.request_sync(1, view);
    world.settle();
    assert!(world.synced.contains(&(0, 1, view)), "its answer counts");
    assert_eq!(
        world.fingerprint(0, 1),
        of_b,
        "but what it does not know may still exist"
    );
    // It is alive again, and still waits for whoever may hold the only copies.
    world.members[1].standing = Standing::Alive;
    world.waits = Some(1);
    world.enter_view();
    let view = world.view;
    world.nodes[0].replicator.request_sync(1, view);
    world.settle();
    assert!(world.synced.contains(&(0, 1, view)), "its answer counts");
    assert_eq!(world.fingerprint(0, 1), of_b, "it may own more than it has");
    // What it has then is all there is.
    let now = world.now;
    world.nodes[1].replicator.set_resumed(now);
    world.settle();
    assert_eq!(world.fingerprint(0, 1), world.fingerprint(1, 1));
    assert_ne!(world.fingerprint(0, 1), of_b);
}

// What it would bring may have been tidied away since, as another node's.
#[test]
fn a_request_that_comes_after_its_answer_was_acked_is_not_served_again() {
    let mut world = World::new(2, 2, 4, 0);
    traffic(&mut world, 0, &mut Vec::new(), 30, Mode::Async);
    world.settle();
    let view = world.view;
    world.nodes[1].replicator.request_sync(0, view);
    let mut late = vec![0; DATAGRAM_BYTES_MAX];
    let (now, node) = (world.now, &mut world.nodes[1]);
    let request = node.replicator.poll(now, &node.ring, &mut late);
    late.truncate(request.expect("a request").1);
    world.settle();
    assert_eq!(world.synced, [(1, 0, view)], "a second request was served");
    world.deliver(1, 0, late);
    world.settle();
    assert_eq!(world.synced.len(), 1, "the first one came too late");
    // One that is new is served.
    world.nodes[1].replicator.request_sync(0, view);
    world.settle();
    assert_eq!(world.synced.len(), 2);
}

#[test]
fn the_end_of_a_partial_catch_up_is_no_answer_to_a_request_for_everything() {
    let mut world = World::new(3, 2, 4, 0);
    let mut ids = Vec::new();
    traffic(&mut world, 0, &mut ids, 30, Mode::Async);
    world.settle();
    world.members[2].standing = Standing::Dead;
    world.enter_view();
    world.settle();
    let link = world.nodes[1].replicator.link(0).expect("peer").counters();
    assert!(
        link.syncs_completed > 1,
        "the change of view has moved calls"
    );
    assert_eq!(world.synced, [], "nobody asked for everything");
}

// An adopter holds what it goes on with, but for what went past it in the last moments.
#[test]
fn orphans_come_to_the_one_that_goes_on_with_them_and_nothing_else_does() {
    let mut world = World::new(3, 2, 4, 0);
    let (mut ids, mut others) = (Vec::new(), Vec::new());
    traffic(&mut world, 0, &mut ids, 60, Mode::Async);
    traffic(&mut world, 2, &mut others, 30, Mode::Async);
    world.settle();
    let (to_one, to_two): (Vec<CallId>, Vec<CallId>) = ids
        .iter()
        .partition(|id| world.nodes[1].ring.newest(**id).is_some());
    let [changed, ended, ..] = to_one[..] else {
        panic!("some calls have their copy at node 1")
    };
    assert!(!to_two.is_empty());
    world.cut.extend([(0, 1), (1, 0)]);
    let ring = &mut world.nodes[0].ring;
    ring.update(changed, |bytes| bytes.fill(77)).expect("live");
    let newest = world.commit(0, changed, Mode::SemiSync);
    world.nodes[0].ring.retire(ended).expect("live");
    world.commit(0, ended, Mode::SemiSync);
    world.run(60 * MS);
    assert!(world.released[&0].contains(&(changed, newest)));
    world.nodes[0].up = false;
    world.members[0].standing = Standing::Dead;
    world.enter_view();
    let view = world.view;
    world.nodes[1].replicator.request_orphans(2, view);
    world.settle();
    assert_eq!(world.synced, [(1, 2, view)]);
    let ring = &world.nodes[1].ring;
    assert_eq!(
        ring.newest(changed).expect("brought").meta.version,
        newest,
        "the version that only the other survivor had"
    );
    assert!(
        ring.newest(ended).is_none(),
        "and the end that only it knew"
    );
    assert!(to_two.iter().all(|id| ring.newest(*id).is_none()));
    // What was put off for them came as well.
    assert_eq!(world.fingerprint(1, 2), world.fingerprint(2, 2));
    assert!(world.fingerprint(1, 2).0 > 0);
}

#[test]
fn what_a_node_held_when_the_others_settled_without_it_is_void() {
    let mut world = World::new(2, 2, 4, 0);
    let mut ids = Vec::new();
    traffic(&mut world, 0, &mut ids, 40, Mode::Async);
    world.settle();
    let (id, ring) = (ids[0], &mut world.nodes[0].ring);
    let held = ring.newest(id).expect("live");
    let (meta, payload) = (held.meta, held.payload.to_vec());
    assert!(ring.set_settled_without(0, 2));
    assert!(!ring.set_settled_without(0, 2), "that is known");
    assert_eq!(ring.valid_or_tombstone(id), None, "before it is forgotten");
    let mut cursor = Cursor::default();
    while ring.forget_leftovers(&mut cursor, 7) {}
    assert!(ids.iter().all(|&id| ring.newest(id).is_none()));
    // Nor does it come back from who does not know yet, and what is newer counts.
    assert_eq!(ring.apply(meta, &payload), Ok(Applied::Stale));
    let newer = Meta {
        version: Version::first(2),
        ..meta
    };
    assert_eq!(ring.apply(newer, &payload), Ok(Applied::Stored));
    assert_eq!(
        ring.valid_or_tombstone(id),
        Some(ring.newest(id).expect("live").meta)
    );
}

#[test]
fn an_ack_of_a_former_life_counts_no_more() {
    let mut world = World::new(3, 3, 8, 0);
    world.settle();
    world.cut.insert((0, 2));
    let id = world.new_call(0, 100, Mode::SemiSync);
    world.run(10 * MS);
    assert!(world.nodes[1].ring.newest(id).is_some(), "one of two acked");
    // It comes back without its memory, and cannot be filled yet.
    world.nodes[1] = Node::new(1, 2, 3, &[0, 1, 2], None);
    world.members[1] = Member {
        node: 1,
        incarnation: 2,
        standing: Standing::Joining,
    };
    world.enter_view();
    world.cut = BTreeSet::from([(0, 1)]);
    world.run(200 * MS);
    assert!(world.nodes[2].ring.newest(id).is_some(), "the other acked");
    assert!(!world.released[&0].contains(&(id, Version::first(1))));
    world.cut.clear();
    world.run(600 * MS);
    assert!(world.released[&0].contains(&(id, Version::first(1))));
}

#[test]
fn a_given_call_is_written_by_nobody_until_it_is_adopted() {
    let mut world = World::new(2, 2, 9, 0);
    let id = world.new_call(0, 100, Mode::Async);
    world.settle();
    world.cut.insert((1, 0));
    world.nodes[0].ring.update(id, |_| {}).expect("owned");
    world.commit(0, id, Mode::SemiSync);
    let version = world.nodes[0].ring.give(id, 1).expect("owned");
    world.nodes[0]
        .replicator
        .hand_over(world.now, id, version, 1);
    world.run(10 * MS);
    for node in &mut world.nodes {
        let meta = node.ring.newest(id).expect("live").meta;
        assert_eq!((meta.owner, meta.heir()), (0, Some(1)));
        assert_eq!(node.ring.update(id, |_| {}), Err(RingError::NotOwner));
        assert_eq!(node.ring.retire(id), Err(RingError::NotOwner));
    }
    let version = world.nodes[1].ring.adopt(id, 2, |_| {}).expect("held");
    world.commit(1, id, Mode::Async);
    world.nodes[1].replicator.tell(world.now, 0, id, version);
    world.cut.clear();
    world.settle();
    let meta = world.nodes[0].ring.newest(id).expect("live").meta;
    assert_eq!(
        (meta.owner, meta.heir(), meta.version),
        (1, None, Version::first(2))
    );
    let released = world.released.get(&0);
    assert!(released.is_none_or(|released| released.iter().all(|one| one.0 != id)));
}

#[test]
fn a_draining_member_is_no_place_and_its_ack_does_not_count() {
    let mut world = World::new(3, 2, 10, 0);
    world.settle();
    world.members[1].standing = Standing::Draining;
    world.enter_view();
    world.settle();
    world.cut.insert((0, 2));
    let ids: Vec<_> = (0..20)
        .map(|_| world.new_call(0, 100, Mode::SemiSync))
        .collect();
    world.run(100 * MS);
    // After 20 ms it may hold them all the same, but that is not enough.
    assert!(world.released.get(&0).is_none_or(BTreeSet::is_empty));
    world.cut.clear();
    world.settle();
    for id in ids {
        assert!(world.nodes[2].ring.newest(id).is_some());
        assert!(world.released[&0].contains(&(id, Version::first(1))));
    }
}

#[test]
fn keys_rotate_under_traffic_without_a_datagram_refused() {
    let mut world = World::new(3, 2, 6, 5);
    let mut ids = Vec::new();
    let new = (2, [8; 32]);
    let both = ClusterKeys {
        other: Some(new),
        ..KEYS
    };
    let swapped = ClusterKeys {
        current: new,
        other: Some(KEYS.current),
    };
    let last = ClusterKeys {
        current: new,
        other: None,
    };
    for keys in [both, swapped, last] {
        // Node after node, with traffic in between.
        for at in 0..3 {
            world.nodes[at].replicator.set_keys(keys);
            traffic(&mut world, 0, &mut ids, 15, Mode::SemiSync);
        }
        // What flew under a key that goes now has arrived.
        world.run(50 * MS);
    }
    world.settle();
    for node in &world.nodes {
        for peer in (0..3).filter_map(|peer| node.replicator.link(peer)) {
            let counters = peer.counters();
            // Doubled ones are refused as replayed, whatever the key.
            assert_eq!(counters.datagram_key_unknown, 0);
        }
    }
    for id in ids {
        let held = |at: usize| world.nodes[at].ring.newest(id).map(|r| r.meta.version);
        assert!(held(1).or(held(2)) == held(0));
    }
}

#[test]
fn links_of_neighbouring_versions_replicate_and_of_others_do_not() {
    let mut world = World::new(3, 3, 7, 5);
    let protocols = [(1, 2), (2, 3), (3, 4)];
    for (at, (lowest, highest)) in protocols.into_iter().enumerate() {
        let replicator = &mut world.nodes[at].replicator;
        replicator.set_protocols(lowest, highest);
        for peer in (0..3).filter(|&peer| usize::from(peer) != at) {
            let other = protocols[usize::from(peer)];
            replicator.set_protocol(peer, highest.min(other.1));
        }
    }
    let id = world.new_call(0, 100, Mode::Async);
    world.run(500 * MS);
    assert!(world.nodes[1].ring.newest(id).is_some());
    assert!(world.nodes[2].ring.newest(id).is_none());
    let link = world.nodes[2].replicator.link(0).expect("a peer");
    assert!(link.counters().protocol_refused > 0);
}

#[test]
fn a_path_that_loses_and_is_slow_is_not_filled_with_repetitions() {
    let mut world = World::new(2, 2, 77, 0);
    world.settle();
    let calls = 600;
    for _ in 0..calls {
        world.new_call(0, 1000, Mode::Async);
    }
    world.settle();
    // The peer comes back with nothing, and the path takes 10,000 datagrams a second from now on.
    world.nodes[1] = Node::new(1, 2, 2, &[0, 1], None);
    world.members[1].incarnation = 2;
    (world.narrow, world.loss) = (100_000, 1);
    let before = world.sent;
    world.enter_view();
    world.settle();
    let sent = world.sent - before;
    assert!(sent < 2 * calls, "{sent} datagrams for {calls} records");
    assert_eq!(world.fingerprint(0, 0), world.fingerprint(1, 0));
}
