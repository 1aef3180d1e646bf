//! How often a datagram is passed on between nodes that know different things of its call.

use std::sync::Arc;

use charging::time::Now;
use dataplane::b2bua::{Origin, id_of};
use dataplane::cluster::{Board, ClusterStore, ClusterStoreParts, HOPS};
use dataplane::counters::Counters;
use dataplane::env::ListenerId;
use dataplane::shard::{Parts, Shard, Taken};
use dataplane::sip::{TOKEN_BYTES, Token, TokenKey};
use replication::frame::DATAGRAM_BYTES_MAX;
use replication::layout::SUPERBLOCK;
use replication::peer::LinkConfig;
use replication::takeover::weight;
use replication::{
    CallId, ClusterKeys, Kind, Map, Meta, Mode, ReplicatorConfig, Ring, RingConfig, Version, View,
};
use tests::hand::{Hands, Leg};
use tests::sim::{Cluster, Misfortune, Setup, TOKEN_KEY, World, phone_address};

fn setup(nodes: u16, copies: u8) -> Setup {
    Setup {
        config: "session_expires_s = 0\n".to_owned(),
        interim_s: None,
        cluster: Some(Cluster {
            nodes,
            witness: false,
            copies,
            mode: Mode::SemiSync,
            // A phone's datagrams arrive at one node.
            scatter: 0,
            loss: 0,
            upgrade: false,
        }),
        ..Setup::default()
    }
}

// The token in a tag of the node's, which names the leg besides.
fn token_of(value: &str) -> Token {
    let (_, tag) = value.split_once(";tag=").expect("a tag");
    let token = TokenKey::new(&TOKEN_KEY).open(&tag.as_bytes()[..TOKEN_BYTES]);
    token.expect("a tag of the node's begins with a token").0
}

fn tag_of(token: &Token) -> String {
    let mut text = [0; TOKEN_BYTES];
    TokenKey::new(&TOKEN_KEY).mint(token, 0, &mut text);
    format!("{}a0", String::from_utf8_lossy(&text))
}

// All nodes in the order in which they are asked to hold or to adopt a call.
fn order_of(token: &Token) -> Vec<u16> {
    let id = CallId::from_u128(id_of(token));
    let mut nodes: Vec<u16> = (0..NODES).collect();
    nodes.sort_by_key(|&node| std::cmp::Reverse((weight(id, node), node)));
    nodes
}

// A phone whose datagrams arrive at that node, but for the two that talk.
fn phone_at(node: u16) -> usize {
    let arrives = |phone: &usize| {
        let address = phone_address(*phone).to_string();
        dataplane::b2bua::fold(address.as_bytes()) % u64::from(NODES) == u64::from(node)
    };
    let found = (2..PHONES).find(arrives);
    found.expect("there are enough phones")
}

fn received(world: &mut World) -> [u64; NODES as usize] {
    std::array::from_fn(|node| {
        let shard = world.shard(node).expect("it runs");
        shard.env().counters.sip_datagram_received
    })
}

// What each node received since then.
fn since(world: &mut World, before: [u64; NODES as usize]) -> [u64; NODES as usize] {
    let after = received(world);
    std::array::from_fn(|node| after[node] - before[node])
}

/// Who has to do with a call.
struct Roles {
    /// Took it, and will lose its memory.
    origin: u16,
    /// The first of its places. Away when the origin is lost.
    first: u16,
    /// Adopts it instead.
    owner: u16,
    /// Holds a copy only while others are away.
    stranger: u16,
}

// A call whose origin is no place of it once it does not own it.
fn call(hands: &mut Hands) -> ([Leg; 2], Roles) {
    for _ in 0..CALLS_MAX {
        let legs = hands.call("", "");
        let token = token_of(&legs[0].remote);
        let order = order_of(&token);
        let others: Vec<u16> = order.iter().copied().filter(|n| *n != token.node).collect();
        if order.iter().position(|&node| node == token.node) >= Some(3) {
            let roles = Roles {
                origin: token.node,
                first: others[0],
                owner: others[1],
                stranger: others[3],
            };
            return (legs, roles);
        }
        hands.ask(0, &legs[0], ("BYE", 2), "200 OK");
    }
    panic!("no call in {CALLS_MAX} has its origin behind three others");
}

// The stranger knows nothing of the call and asks where it began; the origin has lost its memory
// and asks the first of the members; this one holds a copy and knows the owner.
#[test]
fn a_datagram_reaches_the_owner_past_three_nodes_that_have_not_the_call() {
    let mut hands = Hands::of(setup(NODES, 3), PHONES);
    hands.wait(3_000);
    let (legs, roles) = call(&mut hands);
    let now = hands.world.now;
    let away = Misfortune::Crash(roles.first, 20_000);
    hands.world.befall(now, away);
    hands
        .world
        .befall(now + 5_000, Misfortune::Loss(roles.origin, 15_000));
    hands.wait(40_000);
    assert_eq!(hands.world.calls_of(roles.owner), 1, "it has adopted it");
    let before = received(&mut hands.world);
    let phone = phone_at(roles.stranger);
    let request = hands.request(phone, &legs[0], "INFO", 2, "");
    hands.say(phone, &request);
    let arrived = hands.hears(1, "INFO ");
    let mut expected = [0; NODES as usize];
    let way = [roles.stranger, roles.origin, roles.first, roles.owner];
    for node in way {
        expected[usize::from(node)] = 1;
    }
    assert_eq!(since(&mut hands.world, before), expected);
    hands.answer(1, &arrived, "200 OK", "");
    let answer = hands.final_answer(phone, &request);
    assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
    assert_eq!(hands.world.violations, [""; 0]);
}

// Of a call that nobody knows origin and first member ask each other, until one of them answers.
#[test]
fn a_request_of_a_call_that_nobody_knows_is_answered_in_the_end() {
    let mut hands = Hands::of(setup(NODES, 3), PHONES);
    hands.wait(3_000);
    let (mut legs, roles) = call(&mut hands);
    let known = token_of(&legs[0].remote);
    let counter = known.counter + 1_000_000;
    let unknown = (counter..).map(|counter| Token { counter, ..known });
    let is_meant = |token: &Token| order_of(token)[0] == roles.first;
    let unknown = unknown.take(100).find(is_meant).expect("one in five");
    let (to, _) = legs[0].remote.split_once(";tag=").expect("a tag");
    legs[0].remote = format!("{to};tag={}", tag_of(&unknown));
    let before = received(&mut hands.world);
    let phone = phone_at(roles.stranger);
    let request = hands.request(phone, &legs[0], "INFO", 2, "");
    hands.say(phone, &request);
    let answer = hands.final_answer(phone, &request);
    assert!(answer.starts_with("SIP/2.0 481"), "{answer}");
    let by = since(&mut hands.world, before);
    assert_eq!(by.iter().sum::<u64>(), u64::from(HOPS) + 1, "{by:?}");
    let both = [roles.origin, roles.first].map(|node| by[usize::from(node)]);
    assert_eq!(both.iter().sum::<u64>(), u64::from(HOPS), "{by:?}");
}

// A shard that holds a copy of the call and takes `owner` for its owner.
fn believer(world: &mut World, node: u16, owner: u16, call: CallId) -> Shard {
    let (parts, now) = world.parts_of(node.into());
    let config = RingConfig {
        node,
        payload_bytes_max: 1_024,
        calls_max: 1_000,
        ..RingConfig::default()
    };
    let map = |bytes: u64| Map::heap(SUPERBLOCK + bytes as usize);
    let rings = (map(config.young_bytes), map(config.old_bytes));
    let mut ring = Ring::create(rings.0, rings.1, &config).expect("limits");
    let meta = Meta {
        id: call,
        version: Version::first(1),
        rseq: 0,
        owner,
        shard: 0,
        schema: 1,
        kind: Kind::Put,
        flags: 0,
        written: 0,
    };
    ring.apply(meta, &[0; 64]).expect("room");
    let board = Arc::new(Board::new(1));
    board.publish_view(&View::genesis(), 1);
    board.publish_lease(10_000_000_000);
    let store = ClusterStore::new(ClusterStoreParts {
        ring,
        replicator: ReplicatorConfig {
            cluster: 1,
            node,
            incarnation: 1,
            shard: 0,
            copies: 2,
            holds_max: 1_000,
            link: LinkConfig::default(),
        },
        keys: ClusterKeys {
            current: (1, [1; 32]),
            other: None,
        },
        data_nodes: vec![0, 1, 2],
        mode: Mode::SemiSync,
        board,
        clock_start: now.instant,
    });
    let blobs = Box::new(store);
    let mut shard = Shard::new(Parts { blobs, ..parts }, now);
    shard.settle(now);
    shard
}

// Lets them talk until they have nothing to say.
fn deliver(shards: &mut [Shard; 3], now: Now) {
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    let mut sent = 0;
    loop {
        let mut all = shards.iter_mut();
        let Some((to, len)) = all.find_map(|one| one.poll_peer_datagram(&mut buffer)) else {
            return;
        };
        sent += 1;
        assert!(sent < 100, "it goes on and on");
        shards[usize::from(to)].handle_peer_datagram(now, &mut buffer[..len]);
    }
}

// Three nodes, each of which takes the next one for the owner.
#[test]
fn a_datagram_does_not_run_in_circles() {
    let mut world = World::new(setup(3, 2));
    let token = Token {
        node: 0,
        shard: 0,
        incarnation: 1,
        counter: 1,
    };
    let call = CallId::from_u128(id_of(&token));
    let mut shards = [0, 1, 2].map(|node| believer(&mut world, node, (node + 1) % 3, call));
    let tag = tag_of(&token);
    let request = format!(
        "INFO sip:10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.1.0.1;branch=z9hG4bK1\r\n\
         From: <sip:a@10.1.0.1>;tag=1\r\nTo: <sip:b@10.1.0.2>;tag={tag}\r\nCall-ID: 1\r\n\
         CSeq: 2 INFO\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    );
    let (_, now) = world.parts_of(0);
    let origin = Origin {
        from: phone_address(0),
        listener: ListenerId::default(),
    };
    let taken = shards[0].handle_datagram(now, origin, request.as_bytes());
    assert_eq!(taken, Taken::Here);
    deliver(&mut shards, now);
    let counters = shards.each_mut().map(|shard| shard.env().counters);
    let sum = |of: fn(&Counters) -> u64| counters.iter().map(of).sum::<u64>();
    assert_eq!(sum(|one| one.sip_datagram_received), u64::from(HOPS) + 1);
    assert_eq!(sum(|one| one.sip_datagram_forwarded), u64::from(HOPS));
    assert_eq!(sum(|one| one.sip_datagram_ownerless), 1);
    for shard in &mut shards {
        assert!(shard.outbox().datagrams().is_empty(), "nobody answers");
    }
}

const NODES: u16 = 5;
/// So many that each node has some.
const PHONES: usize = 40;
const CALLS_MAX: usize = 20;
