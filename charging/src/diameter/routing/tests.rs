//! A router against peers that do as told, in virtual time.

use super::super::avp::Writer;
use super::super::base::tests::identity;
use super::super::header::{Header, REQUEST};
use super::*;

const SESSION: &[u8] = b"ctf.example;1;2;0.3";

/// A router and the far ends of its connections.
struct World {
    router: Router,
    remotes: Vec<Peer>,
    /// Requests that reached each remote.
    received: Vec<Vec<Vec<u8>>>,
    /// Remotes whose octets are lost in both directions.
    dark: Vec<bool>,
    connected: Vec<bool>,
    now: Instant,
    events: Vec<Event>,
}

impl World {
    fn new(peers: usize) -> Self {
        let now = Instant::recent();
        let routed = |n: usize| RoutedPeer {
            address: SocketAddr::from(([192, 0, 2, n as u8], 3868)),
            config: PeerConfig::default(),
        };
        let config = RouterConfig {
            peers: (0..peers).map(routed).collect(),
            ..RouterConfig::default()
        };
        let router = Router::new(config, &identity("ctf.example"), 5, now);
        let mut world = Self {
            router,
            remotes: Vec::new(),
            received: vec![Vec::new(); peers],
            dark: vec![false; peers],
            connected: vec![false; peers],
            now,
            events: Vec::new(),
        };
        world.remotes = (0..peers).map(Self::remote).collect();
        world.run();
        world
    }

    fn remote(index: usize) -> Peer {
        let config = PeerConfig {
            initiate: false,
            ..PeerConfig::default()
        };
        Peer::new(config, identity(&format!("cdf{index}.example")), 9)
    }

    fn run(&mut self) {
        loop {
            let mut quiet = true;
            while let Some(action) = self.router.poll_io() {
                quiet = false;
                self.io(action);
            }
            for index in 0..self.remotes.len() {
                quiet &= !self.carry(index);
            }
            while let Some(event) = self.router.poll_event() {
                self.events.push(event);
            }
            if quiet {
                return;
            }
        }
    }

    fn io(&mut self, action: IoAction) {
        match action {
            IoAction::Connect { peer, .. } => {
                let index = usize::from(peer.0);
                if self.dark[index] {
                    self.router.on_connect_failed(self.now, peer);
                } else {
                    self.remotes[index] = Self::remote(index);
                    assert!(self.remotes[index].on_accepted(self.now));
                    self.connected[index] = true;
                    self.router.on_connected(self.now, peer);
                }
            }
            IoAction::Close { peer } => self.connected[usize::from(peer.0)] = false,
        }
    }

    fn carry(&mut self, index: usize) -> bool {
        let peer = PeerIndex(index as u16);
        let up = std::mem::take(self.router.transmit(peer).unwrap());
        let down = std::mem::take(self.remotes[index].output(Side::Responder));
        if self.dark[index] || !self.connected[index] {
            return false;
        }
        let moved = !up.is_empty() || !down.is_empty();
        let received = &mut self.received[index];
        self.remotes[index].handle_bytes(self.now, Side::Responder, &up, |message, _| {
            received.push(message.bytes().to_vec());
        });
        self.router.handle_bytes(self.now, peer, &down);
        moved
    }

    /// Plays until `ms` milliseconds from now.
    fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(next) = self.router.next_deadline().filter(|&next| next <= end) {
            self.now = next;
            self.router.handle_timeout(next);
            self.run();
        }
        self.now = end;
    }

    fn lose(&mut self, index: usize) {
        self.connected[index] = false;
        self.router.on_closed(self.now, PeerIndex(index as u16));
        self.run();
    }

    fn send(&mut self, call: u64) {
        self.router
            .send(self.now, tag(call), &acr(call as u32))
            .unwrap();
        self.run();
    }

    fn last(&self, index: usize) -> &[u8] {
        self.received[index].last().expect("a request arrived")
    }

    /// The remote answers with these octets.
    fn say(&mut self, index: usize, answer: &[u8]) {
        assert!(self.remotes[index].send(answer));
        self.run();
    }

    fn answers(&self) -> Vec<(Tag, AnswerSummary)> {
        let answer = |event: &Event| match event {
            Event::Answer { tag, summary } => Some((*tag, *summary)),
            _ => None,
        };
        self.events.iter().filter_map(answer).collect()
    }

    fn failures(&self) -> Vec<FailureReason> {
        let failure = |event: &Event| match event {
            Event::Failed { reason, .. } => Some(*reason),
            _ => None,
        };
        self.events.iter().filter_map(failure).collect()
    }
}

fn tag(call: u64) -> Tag {
    Tag { call, session: 1 }
}

fn acr(number: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let header = Header {
        end_to_end: 77,
        ..Header::new(REQUEST | 0x40, d::ACCOUNTING, 3)
    };
    let mut writer = Writer::message(&mut out, &header);
    writer.octets(d::SESSION_ID, SESSION);
    writer.octets(d::ORIGIN_HOST, b"ctf.example");
    writer.u32(d::ACCOUNTING_RECORD_TYPE, 3);
    writer.u32(d::ACCOUNTING_RECORD_NUMBER, number);
    writer.finish();
    out
}

/// Builds the answer to a request, then lets the test spoil its parts.
fn aca(request: &[u8], code: u32, session: &[u8], number: u32, command: u32) -> Vec<u8> {
    let request = Message::parse(request).unwrap();
    let mut header = base::answer_header(&request.header, code);
    header.command = command;
    let mut out = Vec::new();
    let mut writer = Writer::message(&mut out, &header);
    writer.octets(d::SESSION_ID, session);
    writer.u32(d::RESULT_CODE, code);
    writer.u32(d::ACCOUNTING_RECORD_TYPE, 3);
    writer.u32(d::ACCOUNTING_RECORD_NUMBER, number);
    writer.u32(d::ACCT_INTERIM_INTERVAL, 300);
    writer.finish();
    out
}

fn right(request: &[u8], code: u32) -> Vec<u8> {
    let number = Message::parse(request)
        .unwrap()
        .find(d::ACCOUNTING_RECORD_NUMBER)
        .unwrap();
    aca(request, code, SESSION, number.u32().unwrap(), d::ACCOUNTING)
}

#[test]
fn a_request_goes_to_the_primary_and_its_answer_comes_back() {
    let mut world = World::new(2);
    world.send(4);
    let answer = right(world.last(0), 2001);
    world.say(0, &answer);
    let (who, summary) = world.answers()[0];
    assert_eq!(who, tag(4));
    assert_eq!(
        (summary.result_code, summary.record_number),
        (2001, Some(4))
    );
    assert_eq!(summary.interim_interval_s, Some(300));
    assert!(world.received[1].is_empty());
    assert_eq!(world.router.pending(), 0);
}

#[test]
fn an_unanswered_request_is_sent_again_with_the_t_flag_and_else_unchanged() {
    let mut world = World::new(1);
    world.send(1);
    world.pass(17_000);
    let copies = &world.received[0];
    assert_eq!(copies.len(), 4);
    for copy in &copies[1..] {
        let (first, copy) = (
            Message::parse(&copies[0]).unwrap(),
            Message::parse(copy).unwrap(),
        );
        assert!(!first.header.is_retransmitted() && copy.header.is_retransmitted());
        assert_eq!(first.header.end_to_end, copy.header.end_to_end);
        assert_ne!(first.header.hop_by_hop, copy.header.hop_by_hop);
        assert_eq!(first.bytes()[20..], copy.bytes()[20..]);
    }
    assert_eq!(world.failures(), [FailureReason::Timeout]);
}

#[test]
fn a_peer_that_never_answers_is_left_for_the_next_and_then_avoided() {
    let mut world = World::new(2);
    world.send(1);
    world.pass(16_500);
    assert_eq!((world.received[0].len(), world.received[1].len()), (4, 1));
    assert!(
        Message::parse(world.last(1))
            .unwrap()
            .header
            .is_retransmitted()
    );
    world.send(2);
    assert_eq!(world.received[1].len(), 2);
}

#[test]
fn a_late_answer_to_an_earlier_copy_still_counts() {
    let mut world = World::new(2);
    world.send(1);
    world.pass(4_500);
    let answer = right(&world.received[0][0], 2001);
    world.say(0, &answer);
    assert_eq!(world.answers().len(), 1);
    let second = right(&world.received[0][1], 2001);
    world.say(0, &second);
    assert_eq!(world.answers().len(), 1);
    assert_eq!(world.router.counters().answer_unmatched, 1);
}

#[test]
fn answers_that_lie_are_counted_and_ignored() {
    let mut world = World::new(1);
    world.send(1);
    let request = world.last(0).to_vec();
    for lie in [
        aca(&request, 2001, b"other.example;1;2", 1, d::ACCOUNTING),
        aca(&request, 2001, SESSION, 2, d::ACCOUNTING),
        aca(&request, 2001, SESSION, 1, d::CREDIT_CONTROL),
    ] {
        world.say(0, &lie);
    }
    assert_eq!(world.router.counters().answer_lied, 3);
    let mut unknown = right(&request, 2001);
    header::set_hop_by_hop(&mut unknown, 0xDEAD_BEEF);
    world.say(0, &unknown);
    assert_eq!(world.router.counters().answer_unmatched, 1);
    assert!(world.answers().is_empty());
    world.say(0, &right(&request, 2001));
    assert_eq!(world.answers().len(), 1);
    world.say(0, &right(&request, 2001));
    assert_eq!(world.router.counters().answer_unmatched, 2);
}

#[test]
fn refusals_move_the_request_to_the_next_peer() {
    for code in [3002, 3004, 3005, 4002] {
        let mut world = World::new(2);
        world.send(1);
        let answer = right(world.last(0), code);
        world.say(0, &answer);
        assert!(
            Message::parse(world.last(1))
                .unwrap()
                .header
                .is_retransmitted()
        );
        let answer = right(world.last(1), code);
        world.say(1, &answer);
        assert_eq!(world.failures(), [FailureReason::Refused(code)]);
    }
}

#[test]
fn other_results_are_answers() {
    let mut world = World::new(2);
    world.send(1);
    let answer = right(world.last(0), 5012);
    world.say(0, &answer);
    assert_eq!(world.answers()[0].1.result_code, 5012);
    assert!(world.received[1].is_empty());
}

#[test]
fn a_closed_connection_moves_its_requests_at_once_in_their_order() {
    let mut world = World::new(2);
    for call in 1..=3 {
        world.send(call);
    }
    world.lose(0);
    let numbers: Vec<u32> = world.received[1]
        .iter()
        .map(|m| {
            let message = Message::parse(m).unwrap();
            message
                .find(d::ACCOUNTING_RECORD_NUMBER)
                .unwrap()
                .u32()
                .unwrap()
        })
        .collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn without_any_peer_requests_fail_and_none_is_taken() {
    let mut world = World::new(1);
    world.send(1);
    world.dark[0] = true;
    world.lose(0);
    assert_eq!(world.failures(), [FailureReason::NoPeer]);
    assert!(!world.router.available());
    assert_eq!(
        world.router.send(world.now, tag(2), &acr(2)),
        Err(SendError::NoPeer)
    );
}

#[test]
fn the_primary_is_preferred_again_only_after_the_hold() {
    let mut world = World::new(2);
    world.lose(0);
    world.pass(10_000);
    assert!(world.router.is_up(PeerIndex(0)));
    world.send(1);
    assert_eq!(world.received[1].len(), 1);
    let answer = right(world.last(1), 2001);
    world.say(1, &answer);
    world.pass(35_000);
    world.send(2);
    assert_eq!(world.received[0].len(), 1);
}

#[test]
fn a_suspect_hands_its_requests_over_before_it_is_closed() {
    let mut world = World::new(2);
    world.pass(1_000);
    world.dark[0] = true;
    let mut moved_ms = 0;
    world.send(1);
    while world.received[1].is_empty() {
        world.pass(500);
        moved_ms += 500;
        assert!(moved_ms < 70_000);
    }
    assert!(
        Message::parse(world.last(1))
            .unwrap()
            .header
            .is_retransmitted()
    );
}

#[test]
fn a_peer_that_does_not_read_does_not_stall_the_others() {
    let mut world = World::new(2);
    let mut call = 0;
    // Nothing is carried: the output of the primary fills, the secondary takes over.
    while world.router.counters().output_full == 0 {
        call += 1;
        world
            .router
            .send(world.now, tag(call), &acr(call as u32))
            .unwrap();
    }
    world.connected[0] = false;
    world.run();
    assert_eq!(world.received[1].len(), 1);
}

#[test]
fn the_pending_table_is_bounded() {
    let mut world = World::new(1);
    world.router.core.pending = PendingTable::new(3, 0);
    for call in 1..=3 {
        world.send(call);
    }
    assert_eq!(
        world.router.send(world.now, tag(4), &acr(4)),
        Err(SendError::Full)
    );
    assert_eq!(world.router.counters().pending_full, 1);
    world.router.forget(tag(2));
    world.send(4);
}

#[test]
fn requests_of_peers_are_handed_up_or_refused() {
    let mut world = World::new(1);
    let mut rar = acr(1);
    rar[5..8].copy_from_slice(&d::RE_AUTH.to_be_bytes()[1..]);
    world.say(0, &rar);
    assert!(
        world
            .events
            .iter()
            .any(|e| matches!(e, Event::RequestFromPeer { .. }))
    );
    world.say(0, &acr(1));
    assert_eq!(world.router.counters().peer_request_refused, 1);
    let answer = Message::parse(world.last(0)).unwrap();
    assert_eq!(answer.find(d::RESULT_CODE).unwrap().u32(), Ok(3001));
}

#[test]
fn mutated_answers_never_panic_and_never_answer_twice() {
    let mut random = SplitMix64::new(4);
    for round in 0..300 {
        let mut world = World::new(2);
        world.send(round);
        let good = right(world.last(0), 2001);
        for _ in 0..6 {
            let mut bad = good.clone();
            for _ in 0..random.between(1, 4) {
                let at = random.between(4, bad.len() as u64 - 1) as usize;
                bad[at] ^= 1 << random.between(0, 7);
            }
            if world.remotes[0].send(&bad) {
                world.run();
            }
        }
        assert!(world.answers().len() + world.failures().len() <= 1);
    }
}
