//! All Diameter connections of one shard: which peer gets a request, when it is sent again,
//! when another peer gets it, and which answers are believed.
//!
//! ```text
//!  send ──▶ first usable peer ──no answer──▶ same peer, T flag, up to acr_max_retries times
//!                 │                                        │
//!                 │ suspect, closed, 3002, 3004, 3005, 4002 │ exhausted
//!                 ▼                                        ▼
//!           next usable peer, T flag ── none left ──▶ Event::Failed
//! ```
//!
//! Every request ends in one event, so what waits to be polled is bounded by the pending table.
//! The hop-by-hop identifier is the slot of the pending table and a generation, so an answer
//! finds its request without a search, and one for a former tenant of the slot is told apart.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use quanta::Instant;

use super::avp::Message;
use super::base::{self, DisconnectCause, Identity};
use super::dictionary::{self as d, result};
use super::header;
use super::peer::{Effect, Peer, PeerConfig, PeerCounters, Side};
use crate::random::SplitMix64;

mod pending;

use pending::{PendingTable, Verified};

/// Peers a router may have: the tried ones are a bit set.
pub const PEERS_MAX: usize = 32;
/// Requests of peers (RAR, ASR) that may wait to be polled.
const PEER_REQUESTS_MAX: usize = 64;

/// One configured peer; the first in the list is the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutedPeer {
    /// Where to connect to.
    pub address: SocketAddr,
    /// How the connection is kept.
    pub config: PeerConfig,
}

/// How requests are routed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterConfig {
    /// In order of preference, at most [`PEERS_MAX`].
    pub peers: Vec<RoutedPeer>,
    /// How long one try waits for its answer.
    pub acr_retry_interval_ms: u64,
    /// Further tries at one peer after the first.
    pub acr_max_retries: u8,
    /// Requests that may be unanswered at once; beyond, [`SendError::Full`].
    pub pending_max: usize,
    /// How long a peer that was down must be usable before it is preferred again.
    pub failback_hold_ms: u64,
    /// How long a peer that answered none of a request's tries is avoided.
    pub shun_ms: u64,
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            peers: Vec::new(),
            acr_retry_interval_ms: 4_000,
            acr_max_retries: 3,
            pending_max: 16_384,
            failback_hold_ms: 30_000,
            shun_ms: 30_000,
        }
    }
}

/// Index of a peer in [`RouterConfig::peers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIndex(pub u16);

/// Whose request it is; the router only gives it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    /// The caller's name of the call.
    pub call: u64,
    /// Which session of the call, or which generation of the slot.
    pub session: u32,
}

/// What the I/O shell must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoAction {
    /// Connect to that address; report [`Router::on_connected`] or
    /// [`Router::on_connect_failed`].
    Connect {
        /// The peer.
        peer: PeerIndex,
        /// Its address.
        address: SocketAddr,
    },
    /// Send what [`Router::transmit`] holds, then close; give up an attempt to connect. Report
    /// nothing about this connection any more.
    Close {
        /// The peer.
        peer: PeerIndex,
    },
}

/// What an answer says, copied out of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnswerSummary {
    /// Command Code of the answer.
    pub command: u32,
    /// Result-Code, or Experimental-Result-Code if that is what came.
    pub result_code: u32,
    /// Accounting-Record-Type or CC-Request-Type.
    pub record_type: Option<u32>,
    /// Accounting-Record-Number or CC-Request-Number.
    pub record_number: Option<u32>,
    /// Acct-Interim-Interval, seconds.
    pub interim_interval_s: Option<u32>,
    /// The E flag: a protocol error.
    pub is_protocol_error: bool,
}

/// Why a request will not be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureReason {
    /// No peer answered any try.
    Timeout,
    /// The connection went and no other peer is usable.
    NoPeer,
    /// Every peer said that it cannot take the record (3002, 3004, 3005, 4002).
    Refused(u32),
}

/// What the user of the router has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The answer to a request.
    Answer {
        /// As given to [`Router::send`].
        tag: Tag,
        /// What it says.
        summary: AnswerSummary,
    },
    /// The request is given up ("failure to send" of RFC 6733 s8.2); the router forgot it.
    Failed {
        /// As given to [`Router::send`].
        tag: Tag,
        /// Why.
        reason: FailureReason,
    },
    /// A peer became usable.
    PeerUp(PeerIndex),
    /// A peer is not usable any more.
    PeerDown(PeerIndex),
    /// A peer asks (RAR, ASR): answer with [`Router::answer_peer`].
    RequestFromPeer {
        /// Who asks.
        peer: PeerIndex,
        /// The complete message.
        message: Vec<u8>,
    },
}

/// Why a request was not taken. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// No peer is usable, or none of the usable ones reads.
    NoPeer,
    /// [`RouterConfig::pending_max`] requests are unanswered.
    Full,
    /// The bytes are no complete Diameter request: our bug.
    Malformed,
}

/// What happened, per shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouterCounters {
    /// Requests taken from the user.
    pub request_sent: u64,
    /// Copies sent again to the same peer.
    pub request_retransmitted: u64,
    /// Requests moved to another peer.
    pub request_failed_over: u64,
    /// Requests given up.
    pub request_failed: u64,
    /// Requests refused because the table was full.
    pub pending_full: u64,
    /// Answers handed to the user.
    pub answer_accepted: u64,
    /// Answers for a request that is not there: late, duplicate or invented.
    pub answer_unmatched: u64,
    /// Answers from a peer the request was never sent to.
    pub answer_from_stranger: u64,
    /// Answers naming another command, session, record type or record number.
    pub answer_lied: u64,
    /// Answers whose AVPs cannot be read, or without Result-Code.
    pub answer_malformed: u64,
    /// Requests of peers refused with 3001.
    pub peer_request_refused: u64,
    /// Requests of peers dropped because nobody polled.
    pub peer_request_dropped: u64,
    /// Times a request found its preferred peer's output full.
    pub output_full: u64,
}

/// All Diameter connections of one shard.
#[derive(Debug)]
pub struct Router {
    peers: Vec<Slot>,
    core: Core,
    /// Requests to be moved, found while a peer was borrowed.
    moving: Vec<(u32, FailureReason)>,
    io: VecDeque<IoAction>,
    /// From then on nothing is sent again; `None`: never.
    quiet_from: Option<Instant>,
}

/// One peer and what the router remembers about it.
#[derive(Debug)]
struct Slot {
    peer: Peer,
    address: SocketAddr,
    /// `Some` once the peer was lost: when it may be preferred again.
    eligible_at: Option<Instant>,
    was_lost: bool,
    shunned_until: Option<Instant>,
    is_up: bool,
}

/// What answers are matched against: separate from the peers so that both can be borrowed.
#[derive(Debug)]
struct Core {
    identity: Identity,
    pending: PendingTable,
    events: VecDeque<Event>,
    peer_requests: usize,
    retry_interval: Duration,
    max_retries: u8,
    failback_hold: Duration,
    shun: Duration,
    counters: RouterCounters,
}

impl Router {
    /// A router that starts connecting to every peer.
    ///
    /// # Panics
    /// With more than [`PEERS_MAX`] peers: the configuration is checked before.
    #[must_use]
    pub fn new(config: RouterConfig, identity: &Identity, seed: u64, now: Instant) -> Self {
        assert!(
            config.peers.len() <= PEERS_MAX,
            "configuration limits the peers"
        );
        let mut random = SplitMix64::new(seed);
        let peers = config.peers.into_iter().map(|routed| {
            let mut peer = Peer::new(routed.config, identity.clone(), random.next_u64());
            peer.start(now);
            Slot {
                peer,
                address: routed.address,
                eligible_at: None,
                was_lost: false,
                shunned_until: None,
                is_up: false,
            }
        });
        let mut router = Self {
            peers: peers.collect(),
            core: Core {
                identity: identity.clone(),
                pending: PendingTable::new(config.pending_max, random.next_u32()),
                events: VecDeque::new(),
                peer_requests: 0,
                retry_interval: Duration::from_millis(config.acr_retry_interval_ms.max(1)),
                max_retries: config.acr_max_retries,
                failback_hold: Duration::from_millis(config.failback_hold_ms),
                shun: Duration::from_millis(config.shun_ms),
                counters: RouterCounters::default(),
            },
            quiet_from: None,
            moving: Vec::new(),
            io: VecDeque::new(),
        };
        router.settle(now);
        router
    }

    /// The next thing the I/O shell must do.
    pub fn poll_io(&mut self) -> Option<IoAction> {
        self.io.pop_front()
    }

    /// A connection asked for by [`IoAction::Connect`] is established.
    pub fn on_connected(&mut self, now: Instant, peer: PeerIndex) {
        self.with_peer(now, peer, |slot| slot.peer.on_connected(now));
    }

    /// A connection asked for could not be established.
    pub fn on_connect_failed(&mut self, now: Instant, peer: PeerIndex) {
        self.with_peer(now, peer, |slot| slot.peer.on_connect_failed(now));
    }

    /// A connection was closed by the other end, or by an error.
    pub fn on_closed(&mut self, now: Instant, peer: PeerIndex) {
        self.with_peer(now, peer, |slot| slot.peer.on_closed(now, Side::Initiator));
    }

    /// Octets arrived from a peer.
    pub fn handle_bytes(&mut self, now: Instant, peer: PeerIndex, bytes: &[u8]) {
        let Some(slot) = self.peers.get_mut(usize::from(peer.0)) else {
            return;
        };
        let (core, moving) = (&mut self.core, &mut self.moving);
        slot.peer
            .handle_bytes(now, Side::Initiator, bytes, |message, output| {
                if message.header.is_request() {
                    core.on_peer_request(peer, message, output);
                } else {
                    core.on_answer(peer, message, moving);
                }
            });
        self.settle(now);
    }

    /// Octets waiting for a peer: send them and remove what was sent. One peer that does not
    /// read fills its own buffer only (`output_length_max`).
    pub fn transmit(&mut self, peer: PeerIndex) -> Option<&mut Vec<u8>> {
        let slot = self.peers.get_mut(usize::from(peer.0))?;
        Some(slot.peer.output(Side::Initiator))
    }

    /// [`Router::next_deadline`] passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        for slot in &mut self.peers {
            if slot
                .peer
                .next_deadline()
                .is_some_and(|deadline| deadline <= now)
            {
                slot.peer.handle_timeout(now);
            }
        }
        self.settle(now);
        while let Some(id) = self.core.pending.expired(now) {
            self.retry(now, id);
        }
        self.settle(now);
    }

    /// When [`Router::handle_timeout`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let peers = self
            .peers
            .iter()
            .filter_map(|slot| slot.peer.next_deadline());
        peers.chain(self.core.pending.next_deadline()).min()
    }

    /// Sends nothing again from that moment on, neither to the same peer nor to another: what has
    /// no answer waits. For a node that is not sure to be the one to send it any longer. A moment,
    /// for connections report when they like.
    pub fn set_quiet_from(&mut self, from: Option<Instant>) {
        self.quiet_from = from;
    }

    /// Is there a peer a request could be sent to now?
    #[must_use]
    pub fn available(&self) -> bool {
        self.reachable() > 0
    }

    /// How many peers a request could go to now.
    #[must_use]
    pub fn reachable(&self) -> usize {
        self.peers
            .iter()
            .filter(|peer| peer.takes_requests())
            .count()
    }

    /// Sends a complete request. Its hop-by-hop identifier is set here, its T flag from the
    /// second copy on.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send(&mut self, now: Instant, tag: Tag, request: &[u8]) -> Result<(), SendError> {
        let key = pending::RequestKey::read(request).ok_or(SendError::Malformed)?;
        if !self.available() {
            return Err(SendError::NoPeer);
        }
        let deadline = now + self.core.retry_interval;
        let Some(id) = self.core.pending.insert(tag, request, key, deadline) else {
            self.core.counters.pending_full += 1;
            return Err(SendError::Full);
        };
        if !self.send_to_next(now, id) {
            self.core.pending.remove(id);
            return Err(SendError::NoPeer);
        }
        self.core.counters.request_sent += 1;
        Ok(())
    }

    /// Forgets the requests of a tag; answers to them will be unmatched.
    pub fn forget(&mut self, tag: Tag) {
        self.core.pending.remove_tag(tag);
    }

    /// What the user has to know next.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.core.events.pop_front();
        if matches!(event, Some(Event::RequestFromPeer { .. })) {
            self.core.peer_requests -= 1;
        }
        event
    }

    /// Sends the complete answer to a request of a peer. `false`: that connection is gone.
    pub fn answer_peer(&mut self, peer: PeerIndex, answer: &[u8]) -> bool {
        self.peers
            .get_mut(usize::from(peer.0))
            .is_some_and(|slot| slot.peer.send(answer))
    }

    /// Leaves every peer politely (DPR); pending requests fail.
    pub fn stop(&mut self, now: Instant, cause: DisconnectCause) {
        for slot in &mut self.peers {
            slot.peer.stop(now, cause);
        }
        self.settle(now);
    }

    /// Counters of the router.
    #[must_use]
    pub const fn counters(&self) -> &RouterCounters {
        &self.core.counters
    }

    /// Counters of one peer.
    #[must_use]
    pub fn peer_counters(&self, peer: PeerIndex) -> Option<PeerCounters> {
        self.peers
            .get(usize::from(peer.0))
            .map(|slot| slot.peer.counters)
    }

    /// Is that peer usable?
    #[must_use]
    pub fn is_up(&self, peer: PeerIndex) -> bool {
        self.peers
            .get(usize::from(peer.0))
            .is_some_and(Slot::takes_requests)
    }

    /// Requests without an answer yet.
    #[must_use]
    pub const fn pending(&self) -> usize {
        self.core.pending.len()
    }

    fn with_peer(&mut self, now: Instant, peer: PeerIndex, act: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.peers.get_mut(usize::from(peer.0)) {
            act(slot);
            self.settle(now);
        }
    }

    /// Turns what peers report into I/O actions, events and moved requests, until quiet.
    fn settle(&mut self, now: Instant) {
        for index in 0..self.peers.len() {
            let peer = PeerIndex(index as u16);
            while let Some(effect) = self.peers[index].peer.poll_effect() {
                self.on_effect(now, peer, effect);
            }
        }
        while let Some((id, reason)) = self.moving.pop() {
            self.move_on(now, id, reason);
        }
    }

    fn on_effect(&mut self, now: Instant, peer: PeerIndex, effect: Effect) {
        let slot = &mut self.peers[usize::from(peer.0)];
        match effect {
            Effect::Connect => {
                self.io.push_back(IoAction::Connect {
                    peer,
                    address: slot.address,
                });
            }
            Effect::Close(Side::Initiator) => self.io.push_back(IoAction::Close { peer }),
            // Nobody connects to a router: its peers are CDFs and agents.
            Effect::Close(Side::Responder) => {}
            Effect::Usable => {
                // Not preferred at once: a peer that comes and goes must not drag requests along.
                slot.eligible_at = slot.was_lost.then(|| now + self.core.failback_hold);
                slot.shunned_until = None;
                if !std::mem::replace(&mut slot.is_up, true) {
                    self.core.events.push_back(Event::PeerUp(peer));
                }
            }
            Effect::FailOver | Effect::Down => {
                if std::mem::take(&mut slot.is_up) {
                    slot.was_lost = true;
                    self.core.events.push_back(Event::PeerDown(peer));
                }
                // A suspect may still answer: without an alternative, its requests stay.
                if effect == Effect::Down || self.available() {
                    let moving = &mut self.moving;
                    self.core.pending.for_each_at(peer, |id| {
                        moving.push((id, FailureReason::NoPeer));
                    });
                }
            }
        }
    }

    /// A try went unanswered.
    fn puts_off(&mut self, now: Instant, id: u32) -> bool {
        let quiet = self.quiet_from.is_some_and(|from| from <= now);
        if quiet {
            let deadline = now + self.core.retry_interval;
            self.core.pending.renew(id, deadline);
        }
        quiet
    }

    fn retry(&mut self, now: Instant, id: u32) {
        if self.puts_off(now, id) {
            return;
        }
        let Some(entry) = self.core.pending.get(id) else {
            return;
        };
        let (peer, tries) = (entry.peer, entry.tries);
        let index = usize::from(peer.0);
        if tries <= self.core.max_retries && self.peers[index].takes_requests() {
            let deadline = now + self.core.retry_interval;
            let Some((_, entry)) = self.core.pending.renew(id, deadline) else {
                return;
            };
            entry.tries += 1;
            // A full output leaves this try out: the next deadline decides.
            if self.peers[index].peer.send(&entry.message) {
                self.core.counters.request_retransmitted += 1;
            } else {
                self.core.counters.output_full += 1;
            }
            return;
        }
        self.peers[index].shunned_until = Some(now + self.core.shun);
        self.move_on(now, id, FailureReason::Timeout);
    }

    /// The present peer of a request is out of question.
    fn move_on(&mut self, now: Instant, id: u32, reason: FailureReason) {
        if self.core.pending.get(id).is_none() || self.puts_off(now, id) {
            return;
        }
        let deadline = now + self.core.retry_interval;
        let Some((id, entry)) = self.core.pending.renew(id, deadline) else {
            return;
        };
        entry.tries = 0;
        if self.send_to_next(now, id) {
            self.core.counters.request_failed_over += 1;
        } else if let Some(entry) = self.core.pending.remove(id) {
            self.core.counters.request_failed += 1;
            self.core
                .events
                .push_back(Event::Failed { tag: entry, reason });
        }
    }

    /// Sends to the best peer that has not been tried; `false` if there is none.
    fn send_to_next(&mut self, now: Instant, id: u32) -> bool {
        loop {
            let Some(entry) = self.core.pending.get(id) else {
                return false;
            };
            let Some(index) = self.choose(now, entry.tried) else {
                return false;
            };
            let Some(entry) = self.core.pending.get_mut(id) else {
                return false;
            };
            entry.tried |= 1 << index;
            if self.peers[index].peer.send(&entry.message) {
                entry.tries = 1;
                entry.peer = PeerIndex(index as u16);
                entry.asked |= 1 << index;
                header::set_retransmitted(&mut entry.message);
                return true;
            }
            self.core.counters.output_full += 1;
        }
    }

    /// The first peer that is usable, settled and not avoided; else the first that is usable.
    fn choose(&self, now: Instant, tried: u32) -> Option<usize> {
        let usable =
            |&index: &usize| tried & (1 << index) == 0 && self.peers[index].takes_requests();
        let all = 0..self.peers.len();
        let preferred = |&index: &usize| usable(&index) && self.peers[index].is_preferred(now);
        all.clone()
            .find(preferred)
            .or_else(|| all.clone().find(usable))
    }
}

impl Slot {
    fn takes_requests(&self) -> bool {
        self.peer.is_usable() && self.peer.does_accounting()
    }

    fn is_preferred(&self, now: Instant) -> bool {
        self.eligible_at.is_none_or(|at| at <= now) && self.shunned_until.is_none_or(|at| at <= now)
    }
}

impl Core {
    fn on_peer_request(&mut self, peer: PeerIndex, request: &Message<'_>, output: &mut Vec<u8>) {
        if !matches!(request.header.command, d::RE_AUTH | d::ABORT_SESSION) {
            self.counters.peer_request_refused += 1;
            base::encode_answer(output, request, &self.identity, result::COMMAND_UNSUPPORTED);
            return;
        }
        if self.peer_requests >= PEER_REQUESTS_MAX {
            self.counters.peer_request_dropped += 1;
            base::encode_answer(output, request, &self.identity, result::TOO_BUSY);
            return;
        }
        self.peer_requests += 1;
        self.events.push_back(Event::RequestFromPeer {
            peer,
            message: request.bytes().to_vec(),
        });
    }

    fn on_answer(
        &mut self,
        peer: PeerIndex,
        answer: &Message<'_>,
        moving: &mut Vec<(u32, FailureReason)>,
    ) {
        let id = answer.header.hop_by_hop;
        let Some(entry) = self.pending.answered(id) else {
            self.counters.answer_unmatched += 1;
            return;
        };
        if entry.asked & (1 << peer.0) == 0 {
            self.counters.answer_from_stranger += 1;
            return;
        }
        let summary = match entry.verify(answer) {
            Verified::Right(summary) => summary,
            Verified::Lie => {
                self.counters.answer_lied += 1;
                return;
            }
            Verified::Malformed => {
                self.counters.answer_malformed += 1;
                return;
            }
        };
        let current = self.pending.current_id(id);
        if is_failure_to_send(&summary) {
            // A refusal from a peer that has been left already decides nothing.
            if entry.peer == peer {
                moving.push((current, FailureReason::Refused(summary.result_code)));
            } else {
                self.counters.answer_unmatched += 1;
            }
            return;
        }
        if let Some(tag) = self.pending.remove(current) {
            self.counters.answer_accepted += 1;
            self.events.push_back(Event::Answer { tag, summary });
        }
    }
}

/// Results after which the record may still be delivered elsewhere (RFC 6733 s8.2 names 4002,
/// 3004 and 3005; 3002 and every protocol error in practice mean the same).
const fn is_failure_to_send(summary: &AnswerSummary) -> bool {
    summary.is_protocol_error
        || matches!(
            summary.result_code,
            result::UNABLE_TO_DELIVER
                | result::TOO_BUSY
                | result::LOOP_DETECTED
                | result::OUT_OF_SPACE
        )
}

#[cfg(test)]
mod tests;
