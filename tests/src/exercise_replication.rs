//! Everything of replication that reads bytes from elsewhere, on any bytes.
//!
//! The first byte says what the rest is: a datagram of a stranger, the body of a datagram or of a
//! letter that a true peer has sealed, a message of the view, the memory of a ring, a payload.
//! The claims: nothing panics, a stranger changes nothing, and what is read writes the same.

use std::hint::black_box;

use dataplane::b2bua::CallState;
use replication::courier::FORWARD_BYTES_MAX;
use replication::frame::{DATAGRAM_BYTES_MAX, FrameKind, HEAD};
use replication::layout::SUPERBLOCK;
use replication::peer::LinkConfig;
use replication::seal::{Channel, Ends, Purpose};
use replication::view::SaveFault;
use replication::{
    ClusterKeys, Courier, CourierConfig, Durable, Letter, Map, Member, ReplicationEvent,
    Replicator, ReplicatorConfig, Ring, RingConfig, Standing, ViewConfig, ViewMessage, Views,
    VoteStore, blob,
};

const KEYS: ClusterKeys = ClusterKeys {
    current: (1, [7; 32]),
    other: None,
};

/// A disk that always takes.
struct Disk;

impl VoteStore for Disk {
    fn save(&mut self, _: &Durable) -> Result<(), SaveFault> {
        Ok(())
    }
}

/// Gives `raw` to the part of replication that its first byte names.
pub fn replication(raw: &[u8]) {
    let Some((&what, rest)) = raw.split_first() else {
        return;
    };
    match what % 7 {
        0 => stranger(rest),
        1 => records(FrameKind::Data, rest),
        2 => records(FrameKind::SyncRequest, rest),
        3 => letter(rest),
        4 => message(rest),
        5 => memory(rest),
        _ => drop(black_box(blob::access::<rkyv::Archived<CallState>>(rest))),
    }
}

fn ring_config() -> RingConfig {
    RingConfig {
        secret: 5,
        young_bytes: 32 << 10,
        old_bytes: 32 << 10,
        payload_bytes_max: 1000,
        calls_max: 50,
        ..RingConfig::default()
    }
}

fn ring() -> Ring {
    let map = || Map::heap(SUPERBLOCK + (32 << 10));
    let mut ring = Ring::create(map(), map(), &ring_config()).expect("the limits are possible");
    for len in [0, 10, 900] {
        let id = ring.next_id();
        ring.put(id, 1, 1, &vec![1; len])
            .expect("an empty ring has room");
    }
    ring
}

fn replicator() -> Replicator {
    let config = ReplicatorConfig {
        cluster: 1,
        node: 0,
        incarnation: 1,
        shard: 0,
        copies: 2,
        holds_max: 10,
        link: LinkConfig {
            queue_max: 20,
            payload_bytes_max: 1000,
            marks_max: 20,
            ..LinkConfig::default()
        },
    };
    let mut replicator = Replicator::new(config, KEYS, &[0, 1]);
    let member = |node| Member {
        node,
        incarnation: 1,
        standing: Standing::Alive,
    };
    replicator.set_view(1, 1, &[member(0), member(1)], &mut |_| {});
    replicator.set_resumed(1);
    replicator
}

fn courier(node: u16) -> Courier {
    let config = CourierConfig {
        cluster: 1,
        node,
        incarnation: 1,
        shard: 0,
    };
    Courier::new(config, KEYS, &[0, 1])
}

fn views() -> Views {
    let config = ViewConfig {
        node: 0,
        voters: 3,
        witnesses: 0,
        copies: 2,
    };
    let views = Views::start(config, Durable::bootstrap(), true, 1, &mut Disk);
    views.expect("three voters are possible")
}

fn peers_channel(purpose: Purpose) -> Channel {
    let ends = Ends {
        cluster: 1,
        node: 1,
        incarnation: 1,
        peer: 0,
        shard: 0,
    };
    Channel::new(ends, purpose, KEYS)
}

/// Bytes that nobody with a key has sealed.
fn stranger(raw: &[u8]) {
    let (mut ring, mut replicator) = (ring(), replicator());
    let before = (ring.fingerprint(0), ring.fingerprint(1));
    let mut on = |event: ReplicationEvent| panic!("a stranger caused {event:?}");
    let taken = replicator.handle_datagram(2, 1, &mut raw.to_vec(), &mut ring, &mut on);
    assert!(taken.is_err(), "no stranger is believed");
    assert_eq!((ring.fingerprint(0), ring.fingerprint(1)), before);
    let mut courier = courier(0);
    black_box(Courier::is_letter(raw));
    assert!(courier.open(&mut raw.to_vec()).is_err());
    assert_eq!(courier.peer_incarnation(1), None);
}

/// The body of a datagram from a true peer.
fn records(kind: FrameKind, body: &[u8]) {
    let (mut ring, mut replicator) = (ring(), replicator());
    let mut channel = peers_channel(Purpose::Records);
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let len = body.len().min(DATAGRAM_BYTES_MAX - 100);
    for _ in 0..2 {
        buffer[HEAD..HEAD + len].copy_from_slice(&body[..len]);
        let sealed = channel.seal(kind, 1, 0, &mut buffer, len);
        let sealed = sealed.expect("the buffer has room");
        let datagram = &mut buffer[..sealed];
        let _ = replicator.handle_datagram(2, 1, datagram, &mut ring, &mut |_| {});
    }
    for now in [3, 5_000_000, 1_000_000_000] {
        for _ in 0..50 {
            replicator.forget_some(now, &mut ring, 1, &mut |_| {});
            if replicator.poll(now, &ring, &mut buffer).is_none() {
                break;
            }
        }
    }
    ring.verify();
}

/// The body of a letter from a true peer.
fn letter(body: &[u8]) {
    let (mut courier, mut peer) = (courier(0), peers_channel(Purpose::Letters));
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let len = body.len().min(DATAGRAM_BYTES_MAX - 100);
    for kind in [FrameKind::Forward, FrameKind::View, FrameKind::Data] {
        for to in [1, 0] {
            buffer[HEAD..HEAD + len].copy_from_slice(&body[..len]);
            let sealed = peer.seal(kind, to, 0, &mut buffer, len);
            let sealed = sealed.expect("the buffer has room");
            if let Ok((from, Letter::Forward(payload))) = courier.open(&mut buffer[..sealed]) {
                assert!(from == 1 && payload.len() <= FORWARD_BYTES_MAX);
            }
        }
    }
}

/// A message of the view, from every peer.
fn message(bytes: &[u8]) {
    let Ok(message) = ViewMessage::parse(bytes) else {
        return;
    };
    let mut written = [0; 400];
    let len = message.encode(&mut written).expect("400 bytes are enough");
    assert_eq!(ViewMessage::parse(&written[..len]), Ok(message));
    let mut views = views();
    for (turn, from) in [1, 2, 1, 9].into_iter().enumerate() {
        let now = 1 + turn as u64 * 60_000_000;
        views.handle(now, from, &message, &mut Disk);
        views.tick(now, &mut Disk);
        black_box((
            views.may_act(now),
            views.adoption(now, 2),
            views.sync_wanted(),
        ));
        while views.poll_message().is_some() {}
    }
}

/// Memory of a ring, damaged: two bytes say where, the rest is what stands there.
fn memory(bytes: &[u8]) {
    let Some((at, bytes)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let (young, old) = ring().into_maps();
    let damaged = |map: &Map| {
        let mut image = map.bytes(0, map.len()).to_vec();
        let at = usize::from(u16::from_le_bytes(*at)) % image.len();
        let end = image.len().min(at + bytes.len());
        image[at..end].copy_from_slice(&bytes[..end - at]);
        Map::heap_copy(&image)
    };
    let _ = black_box(Ring::open(damaged(&young), old, &ring_config()));
    let (young, old) = ring().into_maps();
    if let Ok((mut ring, _)) = Ring::open(young, damaged(&old), &ring_config()) {
        let id = ring.next_id();
        let _ = ring.put(id, 9, 1, &[2; 900]);
        black_box(ring.iter_live().count());
    }
}
