//! Rings that are full: the gate closes before anything is refused, and so early that the survivors
//! of a lost node have room for its calls.

use std::sync::Arc;

use dataplane::cluster::{Board, ClusterStore, ClusterStoreParts};
use dataplane::store::{Blob, BlobStore, Stored};
use replication::layout::SUPERBLOCK;
use replication::peer::LinkConfig;
use replication::{ClusterKeys, Map, Mode, ReplicatorConfig, Ring, RingConfig};
use tests::cluster_random::play_full;

fn store() -> ClusterStore {
    let config = RingConfig {
        young_bytes: 256 << 10,
        old_bytes: 256 << 10,
        ..RingConfig::default()
    };
    let map = |bytes: u64| Map::heap(SUPERBLOCK + bytes as usize);
    let ring = Ring::create(map(config.young_bytes), map(config.old_bytes), &config);
    ClusterStore::new(ClusterStoreParts {
        ring: ring.expect("possible limits"),
        replicator: ReplicatorConfig {
            cluster: 1,
            node: 0,
            incarnation: 1,
            shard: 0,
            copies: 1,
            holds_max: 100,
            link: LinkConfig::default(),
        },
        keys: ClusterKeys {
            current: (1, [9; 32]),
            other: None,
        },
        data_nodes: vec![0],
        mode: Mode::Async,
        board: Arc::new(Board::new(1)),
        clock_start: quanta::Instant::now(),
    })
}

fn commit(store: &mut ClusterStore, call: u128, bytes: &[u8]) -> Stored {
    let blob = Blob {
        bytes,
        schema: 1,
        takes_over: false,
        mode: None,
    };
    store.commit(call, blob)
}

#[test]
fn a_full_store_asks_for_no_calls_before_it_refuses_one() {
    let mut store = store();
    let mut calls = 0;
    while store.is_open() {
        calls += 1;
        let stored = commit(&mut store, calls, &[1; 1_200]);
        assert_ne!(stored, Stored::Refused, "call {calls}");
    }
    assert!(calls > 100 && store.fill_percent() < 90, "{calls}");
    // What was let in before the gate closed is answered now, and what stands changes.
    for call in calls - 5..calls + 5 {
        assert_ne!(commit(&mut store, call, &[2; 1_210]), Stored::Refused);
    }
    assert!(!store.is_open());
    for call in 1..30 {
        store.retire(call);
    }
    assert!(store.is_open());
}

// Every call is adopted, goes on, ends and is billed once; and then there is room for new ones.
fn survives(nodes: u16, copies: u8, back: u64) {
    let outcome = play_full(nodes, copies, back);
    println!("{nodes} nodes, {copies} copies: {outcome:?}");
    assert!(outcome.wrong.is_empty(), "{:?}", outcome.wrong.first());
    assert!(outcome.refused > 0, "the gates never shut");
    assert!(outcome.up.1 > 50, "the lost node had calls");
    assert_eq!(outcome.adopted, outcome.up.1);
    assert!(outcome.fill.1 < 90 && outcome.since == 20);
    assert_eq!(outcome.is_back, back < 10_000);
}

#[test]
fn three_nodes_at_their_gates_lose_one_and_no_call() {
    survives(3, 2, 30_000);
}

#[test]
fn two_nodes_at_their_gates_lose_one_and_no_call() {
    survives(2, 2, 30_000);
}

// Whoever joins is filled with all calls of the cluster before it acts.
#[test]
fn a_lost_node_finds_room_for_all_calls_when_it_comes_back() {
    survives(3, 2, 3_000);
    survives(5, 2, 3_000);
}
