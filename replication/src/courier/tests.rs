//! Letters between two nodes, and what must not pass for one.

use super::*;
use crate::register::{Ballot, RegisterMessage};
use crate::view::{Heartbeat, VOTERS_MAX, Versions};

const KEY: [u8; 32] = [1; 32];
const NEW_KEY: [u8; 32] = [2; 32];

fn keys() -> ClusterKeys {
    ClusterKeys {
        current: (1, KEY),
        other: None,
    }
}

fn config(node: u16, incarnation: u32) -> CourierConfig {
    CourierConfig {
        cluster: 7,
        node,
        incarnation,
        shard: 0,
    }
}

fn courier(node: u16, incarnation: u32) -> Courier {
    Courier::new(config(node, incarnation), keys(), &[1, 2, 3])
}

fn heartbeat(incarnation: u32) -> ViewMessage {
    ViewMessage::Heartbeat(Heartbeat {
        sent: 5,
        incarnation,
        view: 1,
        mask: 7,
        synced: 1,
        settled: 1,
        kept: true,
        drain: false,
        drained: 0,
        versions: Versions::default(),
        ages_ms: [0; VOTERS_MAX],
    })
}

const PREPARE: ViewMessage =
    ViewMessage::Register(RegisterMessage::Prepare(Ballot::from_u64(1 << 8)));

fn view(from: &mut Courier, to: u16, message: &ViewMessage) -> Vec<u8> {
    let mut buffer = vec![0; DATAGRAM_BYTES_ETHERNET];
    let len = from.seal_view(to, message, &mut buffer);
    buffer.truncate(len.expect("a peer that was heard"));
    buffer
}

fn forward(from: &mut Courier, to: u16, payload: &[u8]) -> Vec<Vec<u8>> {
    let (mut buffer, mut sent) = (vec![0; DATAGRAM_BYTES_ETHERNET], Vec::new());
    let send = |datagram: &[u8]| sent.push(datagram.to_vec());
    let result = from.seal_forward(to, payload, &mut buffer, send);
    result.expect("a peer that was heard");
    sent
}

fn fault(at: &mut Courier, datagram: &[u8]) -> OpenFault {
    at.open(&mut datagram.to_vec()).map(|_| ()).unwrap_err()
}

/// Two couriers that have heard each other's heartbeat.
fn pair() -> (Courier, Courier) {
    let (mut a, mut b) = (courier(1, 10), courier(2, 20));
    let (to_b, to_a) = (
        view(&mut a, 2, &heartbeat(10)),
        view(&mut b, 1, &heartbeat(20)),
    );
    assert!(b.open(&mut to_b.clone()).is_ok());
    assert!(a.open(&mut to_a.clone()).is_ok());
    (a, b)
}

#[test]
fn strangers_learn_each_other_by_heartbeats_and_then_say_everything() {
    let (mut a, mut b) = (courier(1, 10), courier(2, 20));
    let mut buffer = vec![0; DATAGRAM_BYTES_ETHERNET];
    assert_eq!(
        a.seal_view(2, &PREPARE, &mut buffer),
        Err(SealFault::Unheard)
    );
    let early = a.seal_forward(2, b"x", &mut buffer, |_| panic!("nothing leaves"));
    assert_eq!(early, Err(SealFault::Unheard));
    assert_eq!(
        a.seal_view(9, &PREPARE, &mut buffer),
        Err(SealFault::Stranger)
    );
    assert_eq!(a.counters().letters_unsent, 3);
    let mut first = view(&mut a, 2, &heartbeat(10));
    assert!(Courier::is_letter(&first));
    assert_eq!(
        b.open(&mut first),
        Ok((1, Letter::View(Box::new(heartbeat(10)))))
    );
    assert_eq!(b.peer_incarnation(1), Some(10));
    let mut answer = view(&mut b, 1, &heartbeat(20));
    assert_eq!(
        a.open(&mut answer),
        Ok((2, Letter::View(Box::new(heartbeat(20)))))
    );
    let mut asked = view(&mut a, 2, &PREPARE);
    assert_eq!(b.open(&mut asked), Ok((1, Letter::View(Box::new(PREPARE)))));
    let mut sip = forward(&mut b, 1, b"INVITE sip:x SIP/2.0\r\n\r\n");
    assert_eq!(
        a.open(&mut sip[0]),
        Ok((2, Letter::Forward(b"INVITE sip:x SIP/2.0\r\n\r\n")))
    );
}

#[test]
fn both_restarted_at_once_learn_each_other_anew() {
    let (mut a, mut b) = pair();
    let (old_a, old_b) = (
        view(&mut a, 2, &heartbeat(10)),
        view(&mut b, 1, &heartbeat(20)),
    );
    let (mut a, mut b) = (courier(1, 11), courier(2, 21));
    // Stragglers of the former lives arrive first, so each believes the other's old incarnation.
    assert!(a.open(&mut old_b.clone()).is_ok());
    assert!(b.open(&mut old_a.clone()).is_ok());
    let asked = view(&mut a, 2, &PREPARE);
    assert_eq!(fault(&mut b, &asked), OpenFault::Incarnation);
    let (to_b, to_a) = (
        view(&mut a, 2, &heartbeat(11)),
        view(&mut b, 1, &heartbeat(21)),
    );
    assert!(b.open(&mut to_b.clone()).is_ok());
    assert!(a.open(&mut to_a.clone()).is_ok());
    let mut asked = view(&mut a, 2, &PREPARE);
    assert!(b.open(&mut asked).is_ok());
    assert_eq!(fault(&mut b, &old_a), OpenFault::Incarnation);
}

#[test]
fn what_was_said_to_a_former_life_is_not_believed() {
    let (mut a, _) = pair();
    let (asked, sip) = (view(&mut a, 2, &PREPARE), forward(&mut a, 2, b"BYE"));
    let mut restarted = courier(2, 21);
    assert_eq!(fault(&mut restarted, &asked), OpenFault::Incarnation);
    assert_eq!(fault(&mut restarted, &sip[0]), OpenFault::Incarnation);
    assert_eq!(restarted.peer_incarnation(1), None);
    assert_eq!(restarted.counters().datagrams_refused, 2);
}

#[test]
fn only_heartbeats_may_be_addressed_to_nobody_in_particular() {
    let (mut a, mut b) = pair();
    // A sender that does not keep to the rule.
    let mut buffer = vec![0; DATAGRAM_BYTES_ETHERNET];
    let faults = [
        (FrameKind::View, OpenFault::Incarnation),
        (FrameKind::Forward, OpenFault::Frame(FrameError::Protocol)),
    ];
    for (kind, expected) in faults {
        let len = PREPARE.encode(&mut buffer[HEAD..]).expect("room");
        let channel = &mut a.peers[0].channel;
        let len = channel.seal(kind, 0, 0, &mut buffer, len).expect("room");
        assert_eq!(fault(&mut b, &buffer[..len]), expected);
    }
}

#[test]
fn forged_cut_replayed_and_misdirected_letters_change_nothing() {
    let (mut a, mut b) = pair();
    let letters = [
        view(&mut a, 2, &PREPARE),
        forward(&mut a, 2, b"INVITE").remove(0),
    ];
    for letter in &letters {
        for at in 0..letter.len() {
            let mut copy = letter.clone();
            copy[at] ^= 1 << (at % 8);
            fault(&mut b, &copy);
        }
        for len in 0..letter.len() {
            fault(&mut b, &letter[..len]);
        }
        // To another node, from another cluster, under another key.
        fault(&mut courier(3, 30), letter);
        let other = CourierConfig {
            cluster: 8,
            ..config(2, 20)
        };
        let mut other = Courier::new(other, keys(), &[1, 2, 3]);
        assert_eq!(fault(&mut other, letter), OpenFault::Cluster);
        let other = ClusterKeys {
            current: (1, NEW_KEY),
            other: None,
        };
        let mut other = Courier::new(config(2, 20), other, &[1, 2, 3]);
        assert_eq!(fault(&mut other, letter), OpenFault::Forged);
    }
    for letter in letters {
        assert!(
            b.open(&mut letter.clone()).is_ok(),
            "forgeries left no trace"
        );
        assert_eq!(fault(&mut b, &letter), OpenFault::Replayed);
    }
}

#[test]
fn a_letter_is_no_record_and_a_record_no_letter() {
    let (mut a, mut b) = pair();
    let ends = Ends {
        cluster: 7,
        node: 2,
        incarnation: 20,
        peer: 1,
        shard: 0,
    };
    let mut link = Channel::new(ends, Purpose::Records, keys());
    let opened = link.open(&mut view(&mut a, 2, &PREPARE)).map(|_| ());
    assert_eq!(opened, Err(OpenFault::Forged));
    let ends = Ends {
        node: 1,
        incarnation: 10,
        peer: 2,
        ..ends
    };
    let mut link = Channel::new(ends, Purpose::Records, keys());
    let mut record = vec![0; 200];
    // The second one: `b` has seen letter 1.
    let _ = link.seal(FrameKind::Data, 20, 0, &mut record, 60);
    let len = link.seal(FrameKind::Data, 20, 0, &mut record, 60);
    record.truncate(len.expect("room"));
    assert!(!Courier::is_letter(&record));
    assert_eq!(fault(&mut b, &record), OpenFault::Forged);
}

#[test]
fn forwards_of_every_length_arrive_whole() {
    let (mut a, mut b) = pair();
    let piece_max = DATAGRAM_BYTES_ETHERNET - HEAD - FORWARD_HEAD - TAG;
    let lens = [0, 1, PIECE, piece_max, piece_max + 1, 2 * PIECE, 9000];
    for len in lens.into_iter().chain([FORWARD_BYTES_MAX]) {
        let payload: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        let mut sent = forward(&mut a, 2, &payload);
        assert_eq!(sent.len() == 1, len <= piece_max, "{len}");
        assert!(sent.iter().all(|d| d.len() <= DATAGRAM_BYTES_ETHERNET));
        sent.reverse();
        let (last, first) = sent.split_last_mut().expect("at least one");
        for datagram in first {
            assert_eq!(b.open(datagram), Ok((1, Letter::Piece)));
        }
        assert_eq!(b.open(last), Ok((1, Letter::Forward(&payload))));
    }
    let mut buffer = vec![0; DATAGRAM_BYTES_ETHERNET];
    let too_long = vec![0; FORWARD_BYTES_MAX + 1];
    let refused = a.seal_forward(2, &too_long, &mut buffer, |_| panic!("nothing leaves"));
    assert_eq!(refused, Err(SealFault::TooLong));
    let refused = a.seal_forward(2, b"x", &mut [0; 100], |_| panic!("nothing leaves"));
    assert_eq!(refused, Err(SealFault::TooLong));
}

#[test]
fn half_a_forward_keeps_no_memory_and_disturbs_no_other() {
    let (mut a, mut b) = pair();
    let payloads: Vec<Vec<u8>> = (0..20).map(|n| vec![n; 5000]).collect();
    let (mut whole, mut firsts) = (0, Vec::new());
    for payload in &payloads {
        firsts.push(forward(&mut a, 2, payload));
    }
    // First pieces of all, then the rest of the last one.
    for datagrams in &mut firsts {
        assert_eq!(b.open(&mut datagrams[0]), Ok((1, Letter::Piece)));
    }
    for datagram in firsts.last_mut().expect("twenty").iter_mut().skip(1) {
        if let Ok((1, Letter::Forward(payload))) = b.open(datagram) {
            assert_eq!(payload, payloads[19]);
            whole += 1;
        }
    }
    assert_eq!(whole, 1);
    assert_eq!(b.counters().forwards_received, 1);
    assert_eq!(b.counters().forwards_given_up, 16, "four buffers, no more");
}

#[test]
fn a_body_that_makes_no_sense_is_counted_and_dropped() {
    let (mut a, mut b) = pair();
    let mut buffer = vec![0; DATAGRAM_BYTES_ETHERNET];
    let bodies: [(FrameKind, &[u8]); 6] = [
        (FrameKind::View, &[]),
        (FrameKind::View, &[99, 1, 2]),
        (FrameKind::Forward, &[1, 2, 3]),
        // Letter 0; a piece beyond its end; a whole longer than any may be.
        (FrameKind::Forward, &[0; 17]),
        (FrameKind::Data, &[0; 34]),
        (
            FrameKind::Forward,
            &[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 7],
        ),
    ];
    for (kind, body) in bodies {
        buffer[HEAD..HEAD + body.len()].copy_from_slice(body);
        let channel = &mut a.peers[0].channel;
        let len = channel.seal(kind, 20, 0, &mut buffer, body.len());
        let opened = fault(&mut b, &buffer[..len.expect("room")]);
        assert!(matches!(opened, OpenFault::Body(_)), "{kind:?} {opened:?}");
    }
    assert_eq!(b.counters().bodies_malformed, 6);
}

#[test]
fn keys_rotate_while_letters_fly() {
    let (mut a, mut b) = pair();
    let both = ClusterKeys {
        current: (1, KEY),
        other: Some((2, NEW_KEY)),
    };
    let swapped = ClusterKeys {
        current: (2, NEW_KEY),
        other: Some((1, KEY)),
    };
    let last = ClusterKeys {
        current: (2, NEW_KEY),
        other: None,
    };
    let steps = [
        (both, keys()),
        (both, both),
        (swapped, both),
        (swapped, swapped),
    ];
    for (for_a, for_b) in steps {
        // Sealed under the keys before, opened under those after.
        let (mut to_b, mut to_a) = (view(&mut a, 2, &PREPARE), view(&mut b, 1, &PREPARE));
        a.set_keys(for_a);
        b.set_keys(for_b);
        assert!(b.open(&mut to_b).is_ok());
        assert!(a.open(&mut to_a).is_ok());
    }
    let late = view(&mut a, 2, &PREPARE);
    a.set_keys(last);
    b.set_keys(last);
    assert!(
        b.open(&mut late.clone()).is_ok(),
        "it is sealed under the new key"
    );
    let mut former = Courier::new(config(1, 12), keys(), &[1, 2]);
    let former = view(&mut former, 2, &heartbeat(12));
    assert_eq!(fault(&mut b, &former), OpenFault::Key);
    assert_eq!(b.counters().keys_unknown, 1);
}

#[test]
fn neighbours_in_version_understand_each_other_and_others_are_told_apart() {
    let (mut former, mut present) = (courier(1, 10), courier(2, 20));
    let mut next = courier(3, 30);
    former.set_protocols(1, 2);
    present.set_protocols(2, 3);
    next.set_protocols(3, 4);
    // Heartbeats come before any agreement, so every version reads them.
    let beats = [
        view(&mut former, 2, &heartbeat(10)),
        view(&mut next, 2, &heartbeat(30)),
    ];
    for beat in beats {
        assert!(present.open(&mut beat.clone()).is_ok());
    }
    for peer in [1, 3] {
        let beat = view(&mut present, peer, &heartbeat(20));
        let to = if peer == 1 { &mut former } else { &mut next };
        assert!(to.open(&mut beat.clone()).is_ok());
    }
    let early = view(&mut former, 2, &PREPARE);
    assert_eq!(
        fault(&mut present, &early),
        OpenFault::Frame(FrameError::Protocol),
        "not agreed yet"
    );
    former.set_protocol(2, 2);
    let agreed = view(&mut former, 2, &PREPARE);
    assert!(present.open(&mut agreed.clone()).is_ok());
    let letter = view(&mut present, 1, &PREPARE);
    assert!(former.open(&mut letter.clone()).is_ok());
    assert!(next.open(&mut view(&mut former, 3, &heartbeat(10))).is_ok());
    assert!(former.open(&mut view(&mut next, 1, &heartbeat(30))).is_ok());
    let strange = view(&mut next, 1, &PREPARE);
    assert_eq!(
        fault(&mut former, &strange),
        OpenFault::Frame(FrameError::Protocol)
    );
    assert_eq!(former.counters().protocols_refused, 1);
}
