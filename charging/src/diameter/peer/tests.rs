//! Two peers in virtual time, with sockets made of vectors.

use super::super::avp::Writer;
use super::super::base::tests::identity;
use super::super::header::REQUEST;
use super::*;

/// One end of a pair.
struct End {
    peer: Peer,
    delivered: Vec<u32>,
    effects: Vec<Effect>,
}

impl End {
    fn new(host: &str, initiate: bool) -> Self {
        let config = PeerConfig {
            initiate,
            ..PeerConfig::default()
        };
        Self {
            peer: Peer::new(config, identity(host), 3),
            delivered: Vec::new(),
            effects: Vec::new(),
        }
    }

    fn receive(&mut self, now: Instant, side: Side, bytes: &[u8]) {
        let delivered = &mut self.delivered;
        self.peer.handle_bytes(now, side, bytes, |message, _| {
            delivered.push(message.header.command);
        });
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(effect) = self.peer.poll_effect() {
            self.effects.push(effect);
        }
    }

    fn take(&mut self, side: Side) -> Vec<u8> {
        std::mem::take(self.peer.output(side))
    }

    fn saw(&self, effect: Effect) -> bool {
        self.effects.contains(&effect)
    }
}

/// Client and server, connected by the client.
struct Pair {
    client: End,
    server: End,
    now: Instant,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::recent();
        let client = End::new("client.example", true);
        let server = End::new("server.example", false);
        let mut pair = Self {
            client,
            server,
            now,
        };
        pair.client.peer.start(now);
        pair.client.collect();
        pair
    }

    fn open() -> Self {
        let mut pair = Self::new();
        pair.connect();
        assert_eq!(pair.client.peer.state(), PeerState::IOpen);
        assert_eq!(pair.server.peer.state(), PeerState::ROpen);
        pair
    }

    fn connect(&mut self) {
        self.client.peer.on_connected(self.now);
        assert!(self.server.peer.on_accepted(self.now));
        self.exchange();
    }

    fn exchange(&mut self) {
        loop {
            let up = self.client.take(Side::Initiator);
            let down = self.server.take(Side::Responder);
            if up.is_empty() && down.is_empty() {
                return;
            }
            self.server.receive(self.now, Side::Responder, &up);
            self.client.receive(self.now, Side::Initiator, &down);
        }
    }

    fn expire_client(&mut self) {
        self.now = self
            .client
            .peer
            .next_deadline()
            .expect("something is armed");
        self.client.peer.handle_timeout(self.now);
        self.client.collect();
    }
}

fn request(command: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::message(&mut out, &Header::new(REQUEST, command, 3));
    writer.octets(d::ORIGIN_HOST, b"x");
    writer.finish();
    out
}

#[test]
fn capabilities_are_exchanged_and_messages_flow() {
    let mut pair = Pair::open();
    assert!(pair.client.peer.is_usable() && pair.server.peer.is_usable());
    assert_eq!(pair.client.peer.remote_host(), b"server.example");
    assert!(pair.client.peer.send(&request(271)));
    pair.exchange();
    assert_eq!(pair.server.delivered, [271]);
}

#[test]
fn watchdogs_are_answered() {
    let mut pair = Pair::open();
    pair.expire_client();
    assert_eq!(pair.client.peer.counters.watchdog_sent, 1);
    pair.exchange();
    pair.expire_client();
    assert_eq!(pair.client.peer.counters.watchdog_sent, 2);
    assert!(!pair.client.saw(Effect::FailOver));
}

#[test]
fn a_silent_peer_is_suspected_closed_and_called_again() {
    let mut pair = Pair::open();
    pair.expire_client();
    pair.expire_client();
    assert!(pair.client.saw(Effect::FailOver));
    assert!(!pair.client.peer.is_usable());
    pair.expire_client();
    assert!(pair.client.saw(Effect::Close(Side::Initiator)) && pair.client.saw(Effect::Down));
    pair.client.effects.clear();
    pair.expire_client();
    assert!(pair.client.saw(Effect::Connect));
}

#[test]
fn a_connection_that_was_down_is_trusted_after_three_watchdogs() {
    let mut pair = Pair::open();
    pair.client.peer.on_closed(pair.now, Side::Initiator);
    pair.server.peer.on_closed(pair.now, Side::Responder);
    pair.client.collect();
    pair.client.effects.clear();
    pair.expire_client();
    pair.connect();
    for _ in 0..2 {
        assert!(!pair.client.peer.is_usable());
        pair.expire_client();
        pair.exchange();
    }
    assert!(pair.client.saw(Effect::Usable));
}

#[test]
fn reconnecting_backs_off_with_jitter() {
    let mut pair = Pair::new();
    let mut waits = Vec::new();
    for _ in 0..9 {
        pair.client.peer.on_connect_failed(pair.now);
        let next = pair.client.peer.next_deadline().unwrap();
        waits.push((next - pair.now).as_millis() as u64);
        pair.expire_client();
    }
    let mut nominal = 500;
    for wait in waits {
        assert!(
            (nominal / 2..=nominal).contains(&wait),
            "{wait} of {nominal}"
        );
        nominal = (nominal * 2).min(30_000);
    }
}

#[test]
fn stopping_exchanges_dpr_and_dpa_and_stays_closed() {
    let mut pair = Pair::open();
    pair.client.peer.stop(pair.now, DisconnectCause::Rebooting);
    pair.exchange();
    assert_eq!(pair.client.peer.state(), PeerState::Closed);
    assert_eq!(pair.server.peer.state(), PeerState::Closing);
    assert_eq!(pair.client.peer.next_deadline(), None);
}

#[test]
fn a_busy_peer_is_not_called_at_once() {
    let mut pair = Pair::open();
    pair.server.peer.stop(pair.now, DisconnectCause::Busy);
    pair.exchange();
    pair.client.collect();
    assert_eq!(pair.client.peer.state(), PeerState::Closing);
    pair.client.peer.on_closed(pair.now, Side::Initiator);
    let wait = pair.client.peer.next_deadline().unwrap() - pair.now;
    assert!(wait.as_millis() >= 15_000);
}

#[test]
fn garbage_closes_the_connection_and_is_counted() {
    let mut pair = Pair::open();
    pair.client.receive(
        pair.now,
        Side::Initiator,
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    );
    assert_eq!(pair.client.peer.counters.stream_garbage, 1);
    assert!(pair.client.saw(Effect::Close(Side::Initiator)));
    assert_eq!(pair.client.peer.state(), PeerState::Closed);
}

#[test]
fn a_request_before_the_cer_closes_the_connection() {
    let mut server = End::new("server.example", false);
    let now = Instant::recent();
    assert!(server.peer.on_accepted(now));
    server.receive(now, Side::Responder, &request(271));
    assert!(server.delivered.is_empty());
    assert!(server.saw(Effect::Close(Side::Responder)));
}

#[test]
fn a_connection_that_never_sends_its_cer_is_dropped() {
    let mut server = End::new("server.example", false);
    let now = Instant::recent();
    assert!(server.peer.on_accepted(now));
    let deadline = server.peer.next_deadline().unwrap();
    server.peer.handle_timeout(deadline);
    server.collect();
    assert!(server.saw(Effect::Close(Side::Responder)));
}

#[test]
fn a_peer_without_common_application_is_told_5010() {
    let mut server = End::new("server.example", false);
    let now = Instant::recent();
    server.peer.on_accepted(now);
    let mut cer = Vec::new();
    let mut writer = Writer::message(&mut cer, &Header::new(REQUEST, 257, 0));
    writer.octets(d::ORIGIN_HOST, b"c.example");
    writer.u32(d::AUTH_APPLICATION_ID, 16_777_216);
    writer.finish();
    server.receive(now, Side::Responder, &cer);
    let cea = server.take(Side::Responder);
    let cea = Message::parse(&cea).unwrap();
    assert_eq!(cea.find(d::RESULT_CODE).unwrap().u32(), Ok(5010));
    assert!(server.saw(Effect::Close(Side::Responder)));
    assert_eq!(server.peer.counters.capabilities_refused, 1);
}

#[test]
fn an_unexpected_host_is_unknown() {
    let mut server = End::new("server.example", false);
    server.peer.config.expected_host = Some("other.example".to_owned());
    let now = Instant::recent();
    server.peer.on_accepted(now);
    let mut cer = Vec::new();
    base::encode_cer(&mut cer, &identity("client.example"), 1, 1);
    server.receive(now, Side::Responder, &cer);
    let cea = server.take(Side::Responder);
    let cea = Message::parse(&cea).unwrap();
    assert_eq!(cea.find(d::RESULT_CODE).unwrap().u32(), Ok(3010));
    assert!(cea.header.is_error());
}

/// Both ends connect at the same moment; octets cross.
fn simultaneous_open(low: &str, high: &str) -> (End, End) {
    let now = Instant::recent();
    let mut ends = [End::new(low, true), End::new(high, true)];
    for end in &mut ends {
        end.peer.start(now);
        end.peer.on_connected(now);
        end.collect();
    }
    for end in &mut ends {
        assert!(end.peer.on_accepted(now));
    }
    for _ in 0..8 {
        for (from, to) in [(0, 1), (1, 0)] {
            for (sent, got) in [
                (Side::Initiator, Side::Responder),
                (Side::Responder, Side::Initiator),
            ] {
                let bytes = ends[from].take(sent);
                ends[to].receive(now, got, &bytes);
                let close = Effect::Close(sent);
                if ends[from].saw(close) {
                    ends[from].effects.retain(|effect| *effect != close);
                    ends[to].peer.on_closed(now, got);
                    ends[to].collect();
                }
            }
        }
    }
    let [low, high] = ends;
    (low, high)
}

#[test]
fn a_simultaneous_open_ends_with_one_connection_chosen_by_origin_host() {
    let (low, high) = simultaneous_open("a.example", "B.example");
    assert_eq!(low.peer.state(), PeerState::IOpen);
    assert_eq!(high.peer.state(), PeerState::ROpen);
    assert!(low.peer.is_usable() && high.peer.is_usable());
}

#[test]
fn a_cer_during_connecting_is_held_and_accepted_when_connecting_fails() {
    let now = Instant::recent();
    let mut end = End::new("a.example", true);
    end.peer.start(now);
    assert!(end.peer.on_accepted(now));
    let mut cer = Vec::new();
    base::encode_cer(&mut cer, &identity("b.example"), 1, 1);
    end.receive(now, Side::Responder, &cer);
    assert_eq!(end.peer.state(), PeerState::WaitConnAckElect);
    assert!(end.take(Side::Responder).is_empty());
    end.peer.on_connect_failed(now);
    assert_eq!(end.peer.state(), PeerState::ROpen);
    assert!(!end.take(Side::Responder).is_empty());
}

#[test]
fn output_is_bounded_when_the_peer_does_not_read() {
    let mut pair = Pair::open();
    pair.client.peer.config.output_length_max = 100;
    let message = request(271);
    let mut sent = 0;
    while pair.client.peer.send(&message) {
        sent += 1;
    }
    assert_eq!(sent, 100 / message.len());
}

#[test]
fn mutated_streams_never_panic() {
    let mut random = SplitMix64::new(99);
    let mut cer = Vec::new();
    base::encode_cer(&mut cer, &identity("b.example"), 1, 1);
    let stream = [cer, request(271), request(280), request(282)].concat();
    for _ in 0..3_000 {
        let mut bytes = stream.clone();
        for _ in 0..random.between(0, 6) {
            let at = random.between(0, bytes.len() as u64 - 1) as usize;
            bytes[at] = random.next_u32() as u8;
        }
        let now = Instant::recent();
        let mut end = End::new("a.example", false);
        end.peer.on_accepted(now);
        for chunk in bytes.chunks(random.between(1, 64) as usize) {
            end.receive(now, Side::Responder, chunk);
        }
    }
}
