//! A shard's charging and its CDFs in one thread: the run loop a shell would write, in virtual
//! time.

// Each test binary uses its part of this module.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::time::Duration;

use charging::config::{ChargingClass, CtfConfig};
use charging::diameter::base::Identity;
use charging::diameter::peer::PeerConfig;
use charging::diameter::routing::{
    Event, IoAction, PeerIndex, RoutedPeer, Router, RouterConfig, Tag,
};
use charging::rf::acr::encode_pending;
use charging::rf::backlog::{BACKLOG_CALL, Backlog, BacklogConfig, Drained, MemoryStore};
use charging::server::{Cdf, CdfConfig, CdfIo, ConnectionId, MemoryCdfStore};
use charging::trigger::{CalledSide, Sdp, SdpType};
use charging::{
    CauseCode, ChargingState, Ctf, FailureAction, Now, SessionFacts, Trigger, UnixMillis, Verdict,
};
use quanta::Instant;

pub(crate) const SDP: &[u8] =
    b"v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 8\r\na=sendrecv\r\n";

pub(crate) fn identity(host: &str) -> Identity {
    Identity {
        origin_host: host.to_owned(),
        origin_realm: "example".to_owned(),
        host_addresses: vec!["192.0.2.7".parse().expect("an address")],
        vendor_id: 0,
        product_name: "ringtoll".to_owned(),
        firmware_revision: None,
        origin_state_id: Some(1),
    }
}

pub(crate) fn ctf_config(class: ChargingClass) -> CtfConfig {
    CtfConfig {
        origin_host: "shard0.node1.example".to_owned(),
        origin_realm: "example".to_owned(),
        origin_state_id: Some(1),
        boot_epoch_s: 1_600_000_000,
        shard: 0,
        seed: 2,
        classes: class.into(),
    }
}

pub(crate) fn class() -> ChargingClass {
    ChargingClass {
        destination_realm: "example".to_owned(),
        ..ChargingClass::default()
    }
}

/// More than any test needs.
const TURNS_MAX: u32 = 100_000;

/// One CDF and the link to it.
pub(crate) struct Far {
    pub(crate) cdf: Cdf<MemoryCdfStore>,
    pub(crate) connection: Option<ConnectionId>,
    /// Connections are refused and octets lost.
    pub(crate) is_down: bool,
}

/// Everything of one shard that charges.
pub(crate) struct World {
    pub(crate) ctf: Ctf,
    pub(crate) router: Router,
    pub(crate) backlog: Backlog<MemoryStore>,
    pub(crate) calls: BTreeMap<u64, ChargingState>,
    pub(crate) ended: Vec<(u64, CauseCode)>,
    pub(crate) fars: Vec<Far>,
    pub(crate) now: Now,
    scratch: Vec<u8>,
}

impl World {
    pub(crate) fn new(cdfs: usize, class: ChargingClass, interim_interval_s: Option<u32>) -> Self {
        let now = Now {
            instant: Instant::now(),
            wall: UnixMillis(1_700_000_000_000),
            steady: UnixMillis(1_700_000_000_000),
        };
        let peers = (0..cdfs).map(|n| RoutedPeer {
            address: ([192, 0, 2, n as u8 + 1], 3868).into(),
            config: PeerConfig::default(),
        });
        let config = RouterConfig {
            peers: peers.collect(),
            ..RouterConfig::default()
        };
        let far = |n: usize| Far {
            cdf: Cdf::new(
                CdfConfig {
                    identity: identity(&format!("cdf{n}.example")),
                    peer: PeerConfig::default(),
                    connections_max: 16,
                    interim_interval_s,
                },
                MemoryCdfStore::default(),
                n as u64,
            ),
            connection: None,
            is_down: false,
        };
        let mut world = Self {
            ctf: Ctf::new(ctf_config(class), now),
            router: Router::new(config, &identity("shard0.node1.example"), 3, now.instant),
            backlog: Backlog::new(BacklogConfig::default(), MemoryStore::default(), 0),
            calls: BTreeMap::new(),
            ended: Vec::new(),
            fars: (0..cdfs).map(far).collect(),
            now,
            scratch: Vec::new(),
        };
        world.run();
        world
    }

    /// Until nothing happens any more at this instant.
    pub(crate) fn run(&mut self) {
        for turn in 0.. {
            assert!(turn < TURNS_MAX, "the world does not come to rest");
            let mut quiet = true;
            while let Some(action) = self.router.poll_io() {
                quiet = false;
                self.io(action);
            }
            for index in 0..self.fars.len() {
                quiet &= !self.carry(index);
            }
            while let Some(event) = self.router.poll_event() {
                quiet = false;
                self.on_event(event);
            }
            if self.router.available() {
                let mut bytes = std::mem::take(&mut self.scratch);
                if let Some(tag) = self.backlog.next_to_send(self.now.instant, &mut bytes) {
                    quiet = false;
                    if self.router.send(self.now.instant, tag, &bytes).is_err() {
                        self.backlog.on_failed(self.now.instant, tag);
                    }
                }
                self.scratch = bytes;
            }
            if quiet {
                return;
            }
        }
    }

    /// Plays until `ms` milliseconds from now.
    pub(crate) fn pass(&mut self, ms: u64) {
        let mut left = ms;
        for turn in 0.. {
            assert!(turn < TURNS_MAX, "a deadline is never served");
            let step = self.next_step().filter(|&step| step <= left);
            let step_ms = step.unwrap_or(left);
            self.now.instant += Duration::from_millis(step_ms);
            self.now.wall = self.now.wall.plus_ms(step_ms);
            self.now.steady = self.now.steady.plus_ms(step_ms);
            left -= step_ms;
            if step.is_none() {
                return;
            }
            self.fire();
            self.run();
        }
    }

    pub(crate) fn set_up(&mut self, call: u64) {
        let user_session_id = format!("call-{call}@a.example");
        let facts = SessionFacts {
            slot: call as u32,
            method: b"INVITE",
            user_session_id: user_session_id.as_bytes(),
            calling_party: &[b"sip:alice@a.example"],
            requested_party: b"tel:+49891",
            from_address: b"<sip:alice@a.example>",
            icid: b"icid",
            ..SessionFacts::default()
        };
        self.calls.insert(call, ChargingState::default());
        self.trigger(
            call,
            &Trigger::SetUp {
                facts: &facts,
                request_time: self.now.wall,
            },
        );
        let (called_party, outgoing_session_id) = (&b"sip:bob@b.example"[..], &b"out@us"[..]);
        self.trigger(
            call,
            &Trigger::Routed {
                called_party,
                outgoing_session_id,
                nni: None,
            },
        );
    }

    pub(crate) fn answer(&mut self, call: u64) {
        let response_time = self.now.wall;
        self.trigger(
            call,
            &Trigger::Answered {
                response_time,
                answer_known: true,
                sdp: &[
                    Sdp::new(SDP, SdpType::Offer),
                    Sdp::new(SDP, SdpType::Answer),
                ],
                called: CalledSide {
                    term_ioi: b"b.example",
                    transit_ioi: b"",
                    asserted_identity: &[b"sip:bob@b.example"],
                },
                terminating_access: None,
                message_bodies: &[],
            },
        );
    }

    pub(crate) fn end(&mut self, call: u64) {
        let request_time = self.now.wall;
        let cause = CauseCode::NORMAL;
        self.trigger(
            call,
            &Trigger::Ended {
                cause,
                reasons: &[],
                request_time,
                message_bodies: &[],
            },
        );
    }

    pub(crate) fn trigger(&mut self, call: u64, trigger: &Trigger<'_>) {
        let Some(mut state) = self.calls.remove(&call) else {
            return;
        };
        let verdict = self.ctf.on_trigger(self.now, &mut state, trigger);
        self.after(call, state, verdict);
        self.run();
    }

    /// Cuts the link to a CDF, or mends it.
    pub(crate) fn set_down(&mut self, index: usize, is_down: bool) {
        self.fars[index].is_down = is_down;
        if let Some(id) = self.fars[index].connection.take_if(|_| is_down) {
            self.fars[index].cdf.on_closed(id);
            self.router
                .on_closed(self.now.instant, PeerIndex(index as u16));
        }
        self.run();
    }

    /// What the state asks for after it changed: here is where a shard would commit it.
    fn after(&mut self, call: u64, mut state: ChargingState, mut verdict: Verdict) {
        let mut bytes = std::mem::take(&mut self.scratch);
        while state.request_to_send().is_some() {
            encode_pending(&state, &mut bytes);
            state.on_sent();
            let tag = Tag { call, session: 0 };
            if self.router.send(self.now.instant, tag, &bytes).is_ok() {
                break;
            }
            verdict = self.store(&mut state, &mut bytes, verdict);
        }
        self.scratch = bytes;
        self.keep(call, state, verdict);
    }

    fn store(
        &mut self,
        state: &mut ChargingState,
        bytes: &mut Vec<u8>,
        before: Verdict,
    ) -> Verdict {
        let storage = self.space(state);
        match self.ctf.on_send_failure(self.now, state, storage, bytes) {
            FailureAction::Store(verdict) => {
                self.backlog.put(bytes).expect("there was space");
                if verdict == Verdict::GoOn {
                    before
                } else {
                    verdict
                }
            }
            FailureAction::Lose(verdict) if verdict != Verdict::GoOn => verdict,
            FailureAction::Lose(_) | FailureAction::Nothing => before,
        }
    }

    fn space(&self, state: &ChargingState) -> charging::Storage {
        let session = state.accounting.as_ref().expect("a record failed");
        let key = session.pending_key().expect("a record failed");
        self.backlog
            .space_for(session.session_id(), key.record_type)
    }

    fn keep(&mut self, call: u64, state: ChargingState, verdict: Verdict) {
        if let Verdict::End(cause) = verdict {
            self.ended.push((call, cause));
        }
        if !state.is_finished() {
            self.calls.insert(call, state);
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Answer { tag, summary } if tag.call == BACKLOG_CALL => {
                let mut refused = Vec::new();
                let now = self.now.instant;
                let drained = self.backlog.on_answer(now, tag, &summary, &mut refused);
                assert_eq!(drained, Drained::Delivered);
            }
            Event::Failed { tag, .. } if tag.call == BACKLOG_CALL => {
                self.backlog.on_failed(self.now.instant, tag);
            }
            Event::Answer { tag, summary } => {
                let Some(mut state) = self.calls.remove(&tag.call) else {
                    return;
                };
                let verdict = self.ctf.on_answer(self.now, &mut state, &summary);
                self.after(tag.call, state, verdict);
            }
            Event::Failed { tag, .. } => {
                let Some(mut state) = self.calls.remove(&tag.call) else {
                    return;
                };
                let mut bytes = std::mem::take(&mut self.scratch);
                let verdict = self.store(&mut state, &mut bytes, Verdict::GoOn);
                self.scratch = bytes;
                self.after(tag.call, state, verdict);
            }
            Event::PeerUp(_) | Event::PeerDown(_) | Event::RequestFromPeer { .. } => {}
        }
    }

    fn io(&mut self, action: IoAction) {
        match action {
            IoAction::Connect { peer, .. } => {
                let far = &mut self.fars[usize::from(peer.0)];
                if far.is_down {
                    self.router.on_connect_failed(self.now.instant, peer);
                } else {
                    far.connection = far.cdf.accept(self.now.instant);
                    self.router.on_connected(self.now.instant, peer);
                }
            }
            IoAction::Close { peer } => {
                let far = &mut self.fars[usize::from(peer.0)];
                if let Some(id) = far.connection.take() {
                    far.cdf.on_closed(id);
                }
            }
        }
    }

    fn carry(&mut self, index: usize) -> bool {
        let peer = PeerIndex(index as u16);
        let up = std::mem::take(self.router.transmit(peer).expect("the peer exists"));
        let far = &mut self.fars[index];
        let Some(id) = far.connection else {
            return false;
        };
        if far.is_down {
            return false;
        }
        far.cdf.handle_bytes(self.now.instant, id, &up);
        let down = far.cdf.transmit(id).map(std::mem::take).unwrap_or_default();
        let mut is_closed = false;
        while let Some(CdfIo::Close(closed)) = far.cdf.poll_io() {
            far.cdf.on_closed(closed);
            is_closed |= closed == id;
        }
        self.router.handle_bytes(self.now.instant, peer, &down);
        if is_closed
            && self.fars[index]
                .connection
                .take_if(|open| *open == id)
                .is_some()
        {
            self.router.on_closed(self.now.instant, peer);
        }
        !up.is_empty() || !down.is_empty()
    }

    /// Milliseconds to the next deadline of anybody.
    fn next_step(&self) -> Option<u64> {
        let far = self.fars.iter().filter_map(|far| far.cdf.next_deadline());
        let instants = far
            .chain(self.router.next_deadline())
            .chain(self.backlog.next_deadline())
            .map(|at| {
                at.saturating_duration_since(self.now.instant)
                    .as_micros()
                    .div_ceil(1_000)
            });
        let calls = self.calls.values().filter_map(ChargingState::next_deadline);
        let calls = calls.map(|at| u128::from(at.ms_since(self.now.steady)));
        instants.chain(calls).min().map(|ms| ms as u64)
    }

    fn fire(&mut self) {
        for far in &mut self.fars {
            far.cdf.handle_timeout(self.now.instant);
        }
        self.router.handle_timeout(self.now.instant);
        self.backlog.handle_timeout(self.now.instant);
        let due: Vec<u64> = self
            .calls
            .iter()
            .filter(|(_, state)| {
                state
                    .next_deadline()
                    .is_some_and(|at| at <= self.now.steady)
            })
            .map(|(&call, _)| call)
            .collect();
        for call in due {
            let mut state = self.calls.remove(&call).expect("it was listed");
            let verdict = self.ctf.on_deadline(self.now, &mut state);
            self.after(call, state, verdict);
        }
    }
}
