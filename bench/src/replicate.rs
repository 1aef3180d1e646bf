//! What a version of a call costs: written to the ring, sealed for a peer, stored there.
//!
//! A call is written anew five to six times in its life, so that many times these figures are the
//! cost per call, on its owner and on each node that holds a copy.

use std::hint::black_box;

use replication::frame::DATAGRAM_BYTES_MAX;
use replication::layout::SUPERBLOCK;
use replication::peer::LinkConfig;
use replication::{
    CallId, ClusterKeys, Map, Member, Mode, Replicator, ReplicatorConfig, Ring, RingConfig,
    Standing,
};

/// Bytes of an archived call, as `state` measures it.
const PAYLOAD: usize = 1600;
/// Calls alive, each written again in turn: as many as stay in the processor's caches.
const CALLS: usize = 1000;

/// One node with its ring and its side of the link, as a shard has it.
#[derive(Debug)]
pub struct Side {
    ring: Ring,
    replicator: Replicator,
    calls: Vec<CallId>,
    buffer: Vec<u8>,
    turn: usize,
    now: u64,
}

impl Side {
    /// A node with `CALLS` calls of its own, none of which is replicated yet.
    ///
    /// # Panics
    /// Never: the limits are possible.
    #[must_use]
    pub fn new(node: u16) -> Self {
        let config = RingConfig {
            node,
            secret: 1,
            young_bytes: 4 << 20,
            old_bytes: 4 << 20,
            prefault: true,
            ..RingConfig::default()
        };
        let map = || Map::heap(SUPERBLOCK + (4 << 20));
        let mut ring = Ring::create(map(), map(), &config).expect("the limits are possible");
        let calls = (0..CALLS).map(|_| {
            let id = ring.next_id();
            ring.put(id, 1, 1, &[1; PAYLOAD]).expect("there is room");
            id
        });
        let calls = calls.collect();
        let config = ReplicatorConfig {
            cluster: 1,
            node,
            incarnation: 1,
            shard: 0,
            copies: 2,
            holds_max: 1000,
            link: LinkConfig::default(),
        };
        let keys = ClusterKeys {
            current: (1, [7; 32]),
            other: None,
        };
        Self {
            ring,
            replicator: Replicator::new(config, keys, &[0, 1]),
            calls,
            buffer: vec![0; DATAGRAM_BYTES_MAX],
            turn: 0,
            now: 1,
        }
    }

    fn admit(&mut self) {
        let member = |node| Member {
            node,
            incarnation: 1,
            standing: Standing::Alive,
        };
        let members = [member(0), member(1)];
        self.replicator.set_view(1, 1, &members, &mut |_| {});
    }

    fn next(&mut self) -> CallId {
        self.turn += 1;
        self.calls[self.turn % CALLS]
    }

    /// Writes a whole new version of the next call.
    ///
    /// # Panics
    /// Never: the call is live.
    pub fn put(&mut self) {
        let id = self.next();
        let written = self.ring.put(id, 1, 1, black_box(&[2; PAYLOAD]));
        black_box(written.expect("the call is live"));
    }

    /// Alters the newest version of the next call in place; says which.
    ///
    /// # Panics
    /// Never: the call is live.
    pub fn update(&mut self) -> CallId {
        let id = self.next();
        let written = self.ring.update(id, |payload| payload[40] ^= 1);
        black_box(written.expect("the call is live"));
        id
    }

    /// As `update`, sealed for the other side, which gets each datagram.
    ///
    /// # Panics
    /// Never: the call is live.
    pub fn update_and_send(&mut self, mut send: impl FnMut(u64, &mut [u8])) {
        let id = self.update();
        let meta = self.ring.newest(id).expect("the call is live").meta;
        self.now += 15_000;
        let (version, kind) = (meta.version, meta.kind);
        let committed = self
            .replicator
            .commit(self.now, id, version, kind, Mode::SemiSync);
        black_box(committed);
        while let Some((_, len)) = self.replicator.poll(self.now, &self.ring, &mut self.buffer) {
            send(self.now, &mut self.buffer[..len]);
        }
    }

    /// Takes a datagram of the other side, and answers through `send`.
    ///
    /// # Panics
    /// If the datagram is not the other side's.
    pub fn take(&mut self, now: u64, datagram: &mut [u8], mut send: impl FnMut(&mut [u8])) {
        let from = 1 - self.ring.node();
        self.now = now;
        let taken =
            self.replicator
                .handle_datagram(now, from, datagram, &mut self.ring, &mut |event| {
                    black_box(event);
                });
        taken.expect("it comes from the other side");
        while let Some((_, len)) = self.replicator.poll(now, &self.ring, &mut self.buffer) {
            send(&mut self.buffer[..len]);
        }
    }
}

/// Two sides that have exchanged all they have.
///
/// # Panics
/// If they never settle.
#[must_use]
pub fn pair() -> (Side, Side) {
    let (owner, replica, _) = trio();
    (owner, replica)
}

/// As `pair`, and a second replica that hears what the first one hears and is not heard.
fn trio() -> (Side, Side, Side) {
    let [mut owner, mut replica, mut listener] = [0, 1, 1].map(Side::new);
    for side in [&mut owner, &mut replica, &mut listener] {
        side.admit();
    }
    for _ in 0..1_000_000 {
        owner.now += 1_000_000;
        let now = owner.now;
        let (mut there, mut back) = (Vec::new(), Vec::new());
        poll_all(&mut owner, now, &mut there);
        poll_all(&mut replica, now, &mut back);
        poll_all(&mut listener, now, &mut Vec::new());
        for mut datagram in there {
            listener.take(now, &mut datagram.clone(), |_| {});
            replica.take(now, &mut datagram, |_| {});
        }
        for mut datagram in back {
            owner.take(now, &mut datagram, |_| {});
        }
        if owner.replicator.is_settled() && replica.replicator.is_settled() {
            return (owner, replica, listener);
        }
    }
    panic!("two nodes without loss settle");
}

fn poll_all(side: &mut Side, now: u64, into: &mut Vec<Vec<u8>>) {
    side.replicator
        .forget_some(now, &mut side.ring, usize::MAX, &mut |_| {});
    while let Some((_, len)) = side.replicator.poll(now, &side.ring, &mut side.buffer) {
        into.push(side.buffer[..len].to_vec());
    }
}

/// One version, from the owner's write to its release by the replica's ack.
pub fn version(owner: &mut Side, replica: &mut Side, ack: &mut Vec<u8>) {
    ack.clear();
    owner.update_and_send(|now, datagram| {
        replica.take(now, datagram, |answer| {
            ack.clear();
            ack.extend_from_slice(answer);
        });
    });
    if !ack.is_empty() {
        let now = owner.now;
        owner.take(now, ack, |_| {});
    }
}

pub(crate) fn put(rounds: u64) {
    let mut side = Side::new(0);
    (0..rounds).for_each(|_| side.put());
}

pub(crate) fn update(rounds: u64) {
    let mut side = Side::new(0);
    for _ in 0..rounds {
        side.update();
    }
}

pub(crate) fn owner_and_replica(rounds: u64) {
    let (mut owner, mut replica) = pair();
    let mut ack = Vec::with_capacity(DATAGRAM_BYTES_MAX);
    for _ in 0..rounds {
        version(&mut owner, &mut replica, &mut ack);
    }
}

/// As `owner_and_replica`, with what the replica does done twice: the difference is its share.
pub(crate) fn owner_and_two_replicas(rounds: u64) {
    let (mut owner, mut replica, mut listener) = trio();
    let (mut ack, mut heard) = (Vec::new(), Vec::new());
    for buffer in [&mut ack, &mut heard] {
        buffer.reserve(DATAGRAM_BYTES_MAX);
    }
    for _ in 0..rounds {
        ack.clear();
        owner.update_and_send(|now, datagram| {
            heard.clear();
            heard.extend_from_slice(datagram);
            listener.take(now, &mut heard, |_| {});
            replica.take(now, datagram, |answer| {
                ack.clear();
                ack.extend_from_slice(answer);
            });
        });
        if !ack.is_empty() {
            let now = owner.now;
            owner.take(now, &mut ack, |_| {});
        }
    }
}
