//! A node that takes calls over while its peers keep it busy.

use std::sync::Arc;
use std::time::Duration;

use charging::time::{Now, UnixMillis};
use dataplane::cluster::{Board, ClusterStore, ClusterStoreParts};
use dataplane::store::{BlobStore, ClusterSide};
use replication::frame::DATAGRAM_BYTES_MAX;
use replication::layout::SUPERBLOCK;
use replication::peer::LinkConfig;
use replication::view::Adoption;
use replication::{
    CallId, ClusterKeys, Kind, Map, Member, Meta, Mode, Replicator, ReplicatorConfig, Ring,
    RingConfig, Standing, Version, View,
};

const KEYS: ClusterKeys = ClusterKeys {
    current: (1, [1; 32]),
    other: None,
};

fn ring(node: u16) -> Ring {
    let config = RingConfig {
        node,
        payload_bytes_max: 1_024,
        calls_max: 20_000,
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

fn members(of_node_2: Standing) -> [Member; 3] {
    let member = |node, standing| Member {
        node,
        incarnation: 1,
        standing,
    };
    [
        member(0, Standing::Alive),
        member(1, Standing::Alive),
        member(2, of_node_2),
    ]
}

// Node 0 with calls of node 2, and node 1, which writes a call in each turn.
struct Busy {
    start: quanta::Instant,
    board: Arc<Board>,
    store: ClusterStore,
    other: Ring,
    sender: Replicator,
    turn: u64,
}

impl Busy {
    fn new(calls: u64) -> Self {
        let start = quanta::Clock::mock().0.now();
        let mut mine = ring(0);
        for n in 0..calls {
            let meta = Meta {
                id: CallId::new(2, 0, 1, n),
                version: Version::first(1),
                rseq: 0,
                owner: 2,
                shard: 0,
                schema: 1,
                kind: Kind::Put,
                flags: 0,
                written: 0,
            };
            mine.apply(meta, &[0; 64]).expect("room");
        }
        let board = Arc::new(Board::new(1));
        board.publish_view(&View::genesis(), 1);
        board.publish_lease(u64::MAX);
        let store = ClusterStore::new(ClusterStoreParts {
            ring: mine,
            replicator: config(0),
            keys: KEYS,
            data_nodes: vec![0, 1, 2],
            mode: Mode::SemiSync,
            board: board.clone(),
            clock_start: start,
        });
        let mut sender = Replicator::new(config(1), KEYS, &[0, 1, 2]);
        sender.set_view(1, 1, &members(Standing::Alive), &mut |_| ());
        sender.set_resumed(1);
        Self {
            start,
            board,
            store,
            other: ring(1),
            sender,
            turn: 0,
        }
    }

    fn ns(&self) -> u64 {
        1_000_000_000 + self.turn * 1_000_000
    }

    fn cluster(&mut self) -> &mut dyn ClusterSide {
        self.store.cluster().expect("a cluster")
    }

    // A millisecond: what comes, what is due, what is told.
    fn turn(&mut self) {
        self.turn += 1;
        let ns = self.ns();
        self.store.set_now(Now {
            instant: self.start + Duration::from_millis(self.turn),
            wall: UnixMillis(1_700_000_000_000 + self.turn),
            steady: UnixMillis(1_700_000_000_000 + self.turn),
        });
        let id = self.other.next_id();
        let epoch = self.board.view_number();
        let version = self.other.put(id, epoch, 1, &[1; 64]).expect("room");
        self.sender
            .commit(ns, id, version, Kind::Put, Mode::SemiSync);
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        while let Some((to, len)) = self.sender.poll(ns, &self.other, &mut buffer) {
            if to == 0 {
                self.cluster().handle_datagram(&mut buffer[..len]);
            }
        }
        self.cluster().tick();
        while self.cluster().poll_event().is_some() {}
        while let Some((to, len)) = self.cluster().poll_datagram(&mut buffer) {
            if to == 1 {
                let (other, datagram) = (&mut self.other, &mut buffer[..len]);
                self.sender
                    .handle_datagram(ns, 0, datagram, other, &mut |_| ())
                    .expect("a member");
            }
        }
    }

    fn lose_node_2(&mut self) {
        let mut view = View::genesis();
        view.number = 2;
        view.nodes[2].standing = Standing::Dead;
        view.gone = 1 << 2;
        self.board.publish_view(&view, 1);
        self.board.publish_adoption(2, 2, Adoption::Ready);
        let ns = self.ns();
        self.sender
            .set_view(ns, 2, &members(Standing::Dead), &mut |_| ());
    }
}

// Every copy that is stored is an event, and in a node under load there is one in every turn.
#[test]
fn a_node_to_which_records_come_in_every_turn_takes_calls_over_all_the_same() {
    let mut busy = Busy::new(100);
    for _ in 0..200 {
        busy.turn();
    }
    let before = busy.cluster().report();
    assert!(before.copies > 250, "it holds {} copies", before.copies);
    busy.lose_node_2();
    let reached = (1..=400).find(|_| {
        busy.turn();
        // The states are none, which shows that they were looked at.
        busy.cluster().report().refused > before.refused
    });
    assert!(reached.is_some_and(|turn| turn <= 10), "turn {reached:?}");
}
