//! Calls that change hands while something else happens.

use std::sync::Arc;
use std::time::Duration;

use charging::time::{Now, UnixMillis};
use dataplane::b2bua::{CallState, NO_ROUTE, Phase, SCHEMA};
use dataplane::cluster::{Board, ClusterStore, ClusterStoreParts};
use dataplane::dialog::{Dialog, Text, Texts};
use dataplane::env::ListenerId;
use dataplane::store::{Blob, BlobStore, ClusterSide, StoreEvent, Stored};
use replication::frame::DATAGRAM_BYTES_MAX;
use replication::layout::SUPERBLOCK;
use replication::peer::LinkConfig;
use replication::view::Adoption;
use replication::{
    CallId, ClusterKeys, Kind, Map, Member, Meta, Mode, Replicator, ReplicatorConfig, Ring,
    RingConfig, Standing, Version, View, takeover,
};
use tests::store::archive;

const KEYS: ClusterKeys = ClusterKeys {
    current: (1, [1; 32]),
    other: None,
};
const NODES: [u16; 4] = [0, 1, 2, 3];

fn ring(node: u16) -> Ring {
    let config = RingConfig {
        node,
        ..RingConfig::default()
    };
    let map = |bytes: u64| Map::heap(SUPERBLOCK + bytes as usize);
    Ring::create(map(config.young_bytes), map(config.old_bytes), &config).expect("limits")
}

fn config(node: u16) -> ReplicatorConfig {
    ReplicatorConfig {
        cluster: 1,
        node,
        incarnation: 1,
        shard: 0,
        copies: 2,
        holds_max: 1_000,
        link: LinkConfig::default(),
    }
}

/// A call's state, told from others by its `begun`.
fn state(id: CallId, begun: u64) -> Vec<u8> {
    let leg = Dialog::new(([192, 0, 2, 1], 5060).into(), ListenerId::default());
    archive(&CallState {
        id: id.as_u128(),
        begun: UnixMillis(begun),
        answered: Some(UnixMillis(begun)),
        up_since: UnixMillis(begun),
        texts: Texts::default(),
        charging: Default::default(),
        legs: [leg.clone(), leg],
        icid: Text::EMPTY,
        access_network: Text::EMPTY,
        called_identity: Text::EMPTY,
        sdp: [Text::EMPTY; 2],
        open: Vec::new(),
        route: NO_ROUTE,
        class: None,
        phase: Phase::Confirmed,
    })
}

fn record(id: CallId, epoch: u32, owner: u16, heir: Option<u16>) -> Meta {
    Meta {
        id,
        version: Version::first(epoch),
        rseq: 0,
        owner,
        shard: 0,
        schema: SCHEMA,
        kind: Kind::Put,
        flags: heir.map_or(0, |heir| heir as u8 + 1),
        written: 0,
    }
}

/// Node 0 in a view whose nodes stand so.
struct Heir {
    start: quanta::Instant,
    board: Arc<Board>,
    store: ClusterStore,
    turn: u64,
}

impl Heir {
    fn new(ring: Ring, number: u32, standings: [Standing; 4]) -> Self {
        let start = quanta::Clock::mock().0.now();
        let board = Arc::new(Board::new(1));
        let mut view = View::genesis();
        view.number = number;
        for (node, standing) in standings.into_iter().enumerate() {
            view.nodes[node].standing = standing;
            view.gone |= u32::from(standing == Standing::Dead) << node;
        }
        board.publish_view(&view, 1);
        board.publish_lease(u64::MAX);
        let store = ClusterStore::new(ClusterStoreParts {
            ring,
            replicator: config(0),
            keys: KEYS,
            data_nodes: NODES.to_vec(),
            mode: Mode::SemiSync,
            board: board.clone(),
            clock_start: start,
        });
        Self {
            start,
            board,
            store,
            turn: 0,
        }
    }

    // A millisecond; gives what happened in it.
    fn turn(&mut self) -> Vec<StoreEvent> {
        self.turn += 1;
        self.store.set_now(Now {
            instant: self.start + Duration::from_millis(self.turn),
            wall: UnixMillis(1_700_000_000_000 + self.turn),
            steady: UnixMillis(1_700_000_000_000 + self.turn),
        });
        self.store.tick();
        std::iter::from_fn(|| self.store.poll_event()).collect()
    }

    fn turns(&mut self, turns: u64) -> Vec<StoreEvent> {
        (0..turns).flat_map(|_| self.turn()).collect()
    }
}

// Node 1 leaves and has given the call to node 2, which took it over, told node 3 alone, and died:
// node 1 does not know and gives it to node 0. That one asks node 3 before it goes on with it.
#[test]
fn an_heir_goes_on_with_nothing_before_it_has_heard_what_the_others_hold() {
    use Standing::{Alive, Dead, Draining};
    let mut ids = (0..).map(|n| CallId::new(1, 0, 1, n));
    let is_heir = |id: &CallId| takeover::is_among_first(*id, 0, 1, [0, 3].into_iter());
    let id = ids.find(is_heir).expect("half of all calls");
    let mut mine = ring(0);
    let given = record(id, 1, 1, Some(0));
    mine.apply(given, &state(id, 1)).expect("room");
    let standings = [Alive, Draining, Dead, Alive];
    let mut heir = Heir::new(mine, 3, standings);
    heir.board.publish_duties(3, 0, 0b1010);
    let early = heir.turns(20);
    assert!(early.is_empty(), "it is not filled: {early:?}");

    let mut other = ring(3);
    other
        .apply(record(id, 2, 2, None), &state(id, 2))
        .expect("room");
    let mut sender = Replicator::new(config(3), KEYS, &NODES);
    let members = NODES.map(|node| Member {
        node,
        incarnation: 1,
        standing: standings[usize::from(node)],
    });
    sender.set_view(1, 3, &members, &mut |_| ());
    sender.tell(1, 0, id, Version::first(2));
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    while let Some((to, len)) = sender.poll(1, &other, &mut buffer) {
        if to == 0 {
            heir.store.handle_datagram(&mut buffer[..len]);
        }
    }
    for peer in [1, 3] {
        heir.board.note_synced(0, peer, 3);
    }
    heir.board.publish_duties(3, 0, 0);
    heir.board.publish_adoption(3, 2, Adoption::Ready);
    let begun: Vec<u64> = heir
        .turns(20)
        .iter()
        .filter_map(|event| match event {
            StoreEvent::TakeOver(state) | StoreEvent::Received(state) => Some(state.begun.0),
            _ => None,
        })
        .collect();
    assert_eq!(begun, [2], "what the dead one made of it");
}

// Node 1 has given the call to node 0, which is told to leave as well before it has it.
#[test]
fn a_call_given_to_a_node_that_leaves_is_given_on_in_the_same_view() {
    use Standing::{Alive, Dead, Draining};
    let id = CallId::new(1, 0, 1, 7);
    let mut mine = ring(0);
    mine.apply(record(id, 1, 1, Some(0)), &state(id, 1))
        .expect("room");
    let mut heir = Heir::new(mine, 3, [Draining, Draining, Alive, Dead]);
    heir.board.publish_duties(3, 0, 0);
    let events = heir.turns(5);
    assert!(
        matches!(events[..], [StoreEvent::Received(_)]),
        "{events:?}"
    );
    let bytes = state(id, 1);
    let blob = Blob {
        bytes: &bytes,
        schema: SCHEMA,
        takes_over: true,
        mode: None,
    };
    let stored = heir.store.commit(id.as_u128(), blob);
    assert!(matches!(stored, Stored::Waits(_)), "{stored:?}");
    assert!(heir.store.give(id.as_u128()));

    let held = heir.store.ring().newest(id).expect("it is held");
    assert_eq!(held.meta.heir(), Some(2));
    let mut next = ring(2);
    next.apply(held.meta, held.payload).expect("room");
    let adopted = next.adopt(id, 3, |_| {});
    assert_eq!(adopted, Ok(Version::first(3)), "node 2 is in that view");
}

// A ring of node 0 with that call of node 2, and as many of node 3 as find room.
fn full_ring(id: CallId) -> Ring {
    let limits = RingConfig {
        young_bytes: 256 << 10,
        old_bytes: 256 << 10,
        ..RingConfig::default()
    };
    let map = |bytes: u64| Map::heap(SUPERBLOCK + bytes as usize);
    let maps = (map(limits.young_bytes), map(limits.old_bytes));
    let mut mine = Ring::create(maps.0, maps.1, &limits).expect("limits");
    mine.apply(record(id, 1, 2, None), &state(id, 1))
        .expect("room");
    let copy = |n| record(CallId::new(3, 0, 1, n), 1, 3, None);
    let count = (0..).find(|&n| mine.apply(copy(n), &[1; 1_000]).is_err());
    for n in 0..count.expect("it gets full") {
        let grown = Meta {
            version: Version { epoch: 1, ver: 2 },
            ..copy(n)
        };
        let _ = mine.apply(grown, &[1; 2_000]);
        let _ = mine.apply(grown, &[1; 1_060]);
    }
    mine
}

// Node 0 takes a call of node 2 over, but the state in which it goes on finds no room. The call is
// not settled: what node 3 holds of it names a dead owner and is void with the next view.
#[test]
fn a_call_that_found_no_room_when_it_was_taken_over_has_its_copies_before_the_view_is_settled() {
    use Standing::{Alive, Dead};
    let mut ids = (0..).map(|n| CallId::new(2, 0, 1, n));
    let is_heir = |id: &CallId| takeover::is_among_first(*id, 0, 1, [0, 3].into_iter());
    let id = ids.find(is_heir).expect("half of all calls");
    let mine = full_ring(id);
    let standings = [Alive, Dead, Dead, Alive];
    let mut heir = Heir::new(mine, 3, standings);
    let mut other = ring(3);
    let mut sender = Replicator::new(config(3), KEYS, &NODES);
    let members = NODES.map(|node| Member {
        node,
        incarnation: 1,
        standing: standings[usize::from(node)],
    });
    sender.set_view(1, 3, &members, &mut |_| ());
    heir.board.publish_duties(3, 1, 0);
    for dead in [1, 2] {
        heir.board.publish_adoption(3, dead, Adoption::Ready);
    }
    let (mut buffer, mut taken) = ([0; DATAGRAM_BYTES_MAX], 0);
    for turn in 1..400 {
        let events = heir.turn();
        let is_taken = |event: &&StoreEvent| matches!(event, StoreEvent::TakeOver(_));
        if events.iter().filter(is_taken).count() > 0 {
            taken += 1;
            let bytes = [state(id, 1), vec![0; 4_000]].concat();
            let blob = Blob {
                bytes: &bytes,
                schema: SCHEMA,
                takes_over: true,
                mode: None,
            };
            let stored = heir.store.commit(id.as_u128(), blob);
            assert_eq!(stored, Stored::Full);
        }
        let ns = 1_000_000_000 + turn * 1_000_000;
        while let Some((to, len)) = heir.store.poll_datagram(&mut buffer) {
            if to == 3 {
                let taken =
                    sender.handle_datagram(ns, 0, &mut buffer[..len], &mut other, &mut |_| ());
                taken.expect("a member");
            }
        }
        while let Some((to, len)) = sender.poll(ns, &other, &mut buffer) {
            if to == 0 {
                heir.store.handle_datagram(&mut buffer[..len]);
            }
        }
    }
    assert_eq!(taken, 1);
    let copied = other.newest(id).is_some_and(|held| held.meta.owner == 0);
    assert!(
        copied || !heir.board.is_settled(0, 3),
        "it is said to be settled"
    );
}

// Both leave. Node 0 has said that it owns nothing, whereupon the others let it go, and then comes
// what node 1 gave to it before.
#[test]
fn a_node_that_has_said_that_it_is_empty_takes_no_call_that_comes_late() {
    use Standing::{Alive, Dead, Draining};
    let standings = [Draining, Draining, Alive, Dead];
    let mut heir = Heir::new(ring(0), 3, standings);
    heir.board.publish_duties(3, 0, 0);
    let members = NODES.map(|node| Member {
        node,
        incarnation: 1,
        standing: standings[usize::from(node)],
    });
    let mut others = [1, 2].map(|node| {
        let mut replicator = Replicator::new(config(node), KEYS, &NODES);
        replicator.set_view(1, 3, &members, &mut |_| ());
        (node, ring(node), replicator)
    });
    let (mut ns, mut buffer) = (1_000_000_000, [0; DATAGRAM_BYTES_MAX]);
    let mut exchange = |heir: &mut Heir, others: &mut [(u16, Ring, Replicator); 2]| {
        let mut events = Vec::new();
        for _ in 0..200 {
            ns += 1_000_000;
            events.extend(heir.turn());
            while let Some((to, len)) = heir.store.poll_datagram(&mut buffer) {
                for (_, ring, replicator) in others.iter_mut().filter(|other| other.0 == to) {
                    let datagram = &mut buffer[..len];
                    let taken = replicator.handle_datagram(ns, 0, datagram, ring, &mut |_| ());
                    taken.expect("a member");
                }
            }
            for (_, ring, replicator) in others.iter_mut() {
                while let Some((to, len)) = replicator.poll(ns, ring, &mut buffer) {
                    if to == 0 {
                        heir.store.handle_datagram(&mut buffer[..len]);
                    }
                }
            }
        }
        events
    };
    exchange(&mut heir, &mut others);
    heir.store.note_empty();
    assert!(heir.board.is_drained(0, 3), "nothing is left to be done");

    let (_, giver, replicator) = &mut others[0];
    let id = giver.next_id();
    giver.put(id, 1, SCHEMA, &state(id, 1)).expect("room");
    let given = giver.give(id, 0).expect("its own");
    replicator.tell(1_300_000_000, 0, id, given);
    let events = exchange(&mut heir, &mut others);
    let held = heir.store.ring().newest(id).expect("it came");
    assert_eq!(held.meta.owner, 1, "it is given to another one: {events:?}");
}
