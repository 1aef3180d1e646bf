//! The peer state machine of RFC 6733 s5.6, both roles, with its watchdog.
//!
//! ```text
//!  Closed --start--> Wait-Conn-Ack --connected, CER--> Wait-I-CEA --CEA--> I-Open
//!    |                   | CER comes in                    | CER comes in    |
//!    | CER comes in      v                                 v                 | DPR, stop
//!    |            Wait-Conn-Ack/Elect --connected--> Wait-Returns            v
//!    '------------------ election won or initiator lost -----> R-Open --> Closing
//! ```
//!
//! The caller owns the sockets: it opens and closes them when [`Effect`]s say so, hands received
//! octets to [`Peer::handle_bytes`] and sends what [`Peer::output`] holds.

use std::collections::VecDeque;
use std::time::Duration;

use quanta::Instant;

use super::avp::Message;
use super::base::{self, Capabilities, DisconnectCause, Identity};
use super::dictionary::{self as d, result};
use super::framing::Framer;
use super::header::Header;
use super::watchdog::{Watchdog, WatchdogAction, WatchdogState};
use crate::random::SplitMix64;

/// How one peer is treated. Times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// The Origin-Host the peer must present; `None` accepts any.
    pub expected_host: Option<String>,
    /// Open a connection by ourselves, and again after it was lost.
    pub initiate: bool,
    /// Tw of the watchdog, at least 6 s.
    pub watchdog_interval_ms: u64,
    /// Between the DWRs that reopen a connection.
    pub reopen_interval_ms: u64,
    /// For the transport connection and the capabilities exchange each.
    pub exchange_timeout_ms: u64,
    /// For the DPA after a DPR.
    pub closing_timeout_ms: u64,
    /// First wait before reconnecting; it doubles up to `reconnect_ms_max`.
    pub reconnect_ms_min: u64,
    /// Longest wait before reconnecting.
    pub reconnect_ms_max: u64,
    /// Longest message accepted, octets.
    pub message_length_max: usize,
    /// Octets that may wait to be sent; beyond, a peer does not read and requests go elsewhere.
    pub output_length_max: usize,
}

impl Default for PeerConfig {
    fn default() -> Self {
        Self {
            expected_host: None,
            initiate: true,
            watchdog_interval_ms: 30_000,
            reopen_interval_ms: 1_000,
            exchange_timeout_ms: 10_000,
            closing_timeout_ms: 5_000,
            reconnect_ms_min: 500,
            reconnect_ms_max: 30_000,
            message_length_max: 64 * 1024,
            output_length_max: 1024 * 1024,
        }
    }
}

/// The two transport connections a peer may have for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The connection we opened (I-).
    Initiator,
    /// The connection the peer opened (R-).
    Responder,
}

/// States of RFC 6733 s5.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// No connection, or an incoming one whose CER has not come.
    Closed,
    /// Connecting.
    WaitConnAck,
    /// CER sent.
    WaitICea,
    /// Connecting, and a CER came in.
    WaitConnAckElect,
    /// CER sent, a CER came in, election lost: the peer will close one connection.
    WaitReturns,
    /// Open on the connection we opened.
    IOpen,
    /// Open on the connection the peer opened.
    ROpen,
    /// DPR sent or received.
    Closing,
}

/// What the caller must do or know, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Open the transport connection; report `on_connected` or `on_connect_failed`.
    Connect,
    /// Send what is waiting, then close that connection; it is already forgotten here.
    Close(Side),
    /// Requests may be sent.
    Usable,
    /// Move pending requests to another peer; answers may still come.
    FailOver,
    /// The connection is gone: pending requests will not be answered.
    Down,
}

/// What happened at one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCounters {
    /// Connections that reached Open.
    pub connection_opened: u64,
    /// Transport connections that could not be opened, or whose exchange timed out.
    pub connection_failed: u64,
    /// Streams closed because they were not Diameter or too long.
    pub stream_garbage: u64,
    /// Capabilities exchanges refused by either end.
    pub capabilities_refused: u64,
    /// DWRs sent.
    pub watchdog_sent: u64,
    /// Messages that do not belong into the state, dropped.
    pub message_unexpected: u64,
    /// Connections the watchdog gave up.
    pub watchdog_expired: u64,
}

/// One peer.
#[derive(Debug)]
pub struct Peer {
    config: PeerConfig,
    identity: Identity,
    state: PeerState,
    initiator: Transport,
    responder: Transport,
    watchdog: Watchdog,
    /// Ends the present state, or starts the next connection.
    deadline: Option<Instant>,
    reconnect_ms: u64,
    effects: VecDeque<Effect>,
    /// The CER whose CEA waits for the election.
    held_cer: Option<Header>,
    remote_host: Vec<u8>,
    accounting: bool,
    credit_control: bool,
    next_id: u32,
    random: SplitMix64,
    /// What happened.
    pub counters: PeerCounters,
}

/// One transport connection.
#[derive(Debug)]
struct Transport {
    open: bool,
    framer: Framer,
    output: Vec<u8>,
}

impl Transport {
    const fn new(message_length_max: usize) -> Self {
        Self {
            open: false,
            framer: Framer::new(message_length_max),
            output: Vec::new(),
        }
    }

    fn opened(&mut self) {
        self.open = true;
        self.framer.clear();
        self.output.clear();
    }
}

impl Peer {
    /// A closed peer.
    #[must_use]
    pub fn new(config: PeerConfig, identity: Identity, seed: u64) -> Self {
        let mut random = SplitMix64::new(seed);
        Self {
            state: PeerState::Closed,
            initiator: Transport::new(config.message_length_max),
            responder: Transport::new(config.message_length_max),
            watchdog: Watchdog::new(config.watchdog_interval_ms, config.reopen_interval_ms),
            deadline: None,
            reconnect_ms: config.reconnect_ms_min,
            effects: VecDeque::new(),
            held_cer: None,
            remote_host: Vec::new(),
            accounting: false,
            credit_control: false,
            next_id: random.next_u32(),
            random,
            config,
            identity,
            counters: PeerCounters::default(),
        }
    }

    /// Start of RFC 6733 s5.6: open a connection if none is open or being opened.
    pub fn start(&mut self, now: Instant) {
        if self.state == PeerState::Closed {
            self.state = PeerState::WaitConnAck;
            self.arm(now, self.config.exchange_timeout_ms);
            self.effects.push_back(Effect::Connect);
        }
    }

    /// Stop of RFC 6733 s5.6: send a DPR if open, else give up. No reconnecting afterwards.
    pub fn stop(&mut self, now: Instant, cause: DisconnectCause) {
        self.config.initiate = false;
        match self.open_side() {
            Some(side) => {
                let (hop_by_hop, end_to_end) = (self.allocate_id(), self.allocate_id());
                let out =
                    &mut Self::transport(&mut self.initiator, &mut self.responder, side).output;
                base::encode_dpr(out, &self.identity, cause, hop_by_hop, end_to_end);
                self.state = PeerState::Closing;
                self.arm(now, self.config.closing_timeout_ms);
                self.effects.push_back(Effect::FailOver);
            }
            None if self.state != PeerState::Closing => self.fall_closed(now),
            None => {}
        }
    }

    /// The connection asked for by [`Effect::Connect`] is established (I-Rcv-Conn-Ack).
    pub fn on_connected(&mut self, now: Instant) {
        if !matches!(
            self.state,
            PeerState::WaitConnAck | PeerState::WaitConnAckElect
        ) {
            self.effects.push_back(Effect::Close(Side::Initiator));
            return;
        }
        self.initiator.opened();
        let (hop_by_hop, end_to_end) = (self.allocate_id(), self.allocate_id());
        base::encode_cer(
            &mut self.initiator.output,
            &self.identity,
            hop_by_hop,
            end_to_end,
        );
        self.arm(now, self.config.exchange_timeout_ms);
        if self.state == PeerState::WaitConnAck {
            self.state = PeerState::WaitICea;
        } else {
            self.elect(now);
        }
    }

    /// The connection could not be established (I-Rcv-Conn-Nack).
    pub fn on_connect_failed(&mut self, now: Instant) {
        self.counters.connection_failed += 1;
        match self.state {
            PeerState::WaitConnAck => self.fall_closed(now),
            PeerState::WaitConnAckElect => self.accept_held(now),
            _ => {}
        }
    }

    /// The peer opened a connection. `false`: one is there already, close the new one.
    pub fn on_accepted(&mut self, now: Instant) -> bool {
        let free = matches!(
            self.state,
            PeerState::Closed | PeerState::WaitConnAck | PeerState::WaitICea
        );
        if !free || self.responder.open {
            return false;
        }
        self.responder.opened();
        if self.state == PeerState::Closed {
            self.arm(now, self.config.exchange_timeout_ms);
        }
        true
    }

    /// A connection was closed by the peer or by the network (Peer-Disc).
    pub fn on_closed(&mut self, now: Instant, side: Side) {
        if side == Side::Initiator
            && matches!(
                self.state,
                PeerState::WaitConnAck | PeerState::WaitConnAckElect
            )
        {
            self.on_connect_failed(now);
            return;
        }
        let transport = Self::transport(&mut self.initiator, &mut self.responder, side);
        if !transport.open {
            return;
        }
        transport.open = false;
        match (self.state, side) {
            (PeerState::WaitReturns, Side::Initiator) => self.accept_held(now),
            (PeerState::WaitConnAckElect, Side::Responder) => {
                self.held_cer = None;
                self.state = PeerState::WaitConnAck;
            }
            (PeerState::WaitReturns, Side::Responder) => {
                self.held_cer = None;
                self.state = PeerState::WaitICea;
            }
            (PeerState::WaitICea, Side::Responder) | (PeerState::WaitConnAck, _) => {}
            _ => self.fall_closed(now),
        }
    }

    /// Octets arrived on a connection. Messages that are not the base protocol's own go to
    /// `deliver`, which may append answers to the octets it is given.
    pub fn handle_bytes(
        &mut self,
        now: Instant,
        side: Side,
        bytes: &[u8],
        mut deliver: impl FnMut(&Message<'_>, &mut Vec<u8>),
    ) {
        let transport = Self::transport(&mut self.initiator, &mut self.responder, side);
        if !transport.open {
            return;
        }
        let limit = self.config.message_length_max;
        let mut framer = std::mem::replace(&mut transport.framer, Framer::new(limit));
        let outcome = framer.push(bytes, |message| {
            if let Ok(message) = Message::parse(message) {
                self.on_message(now, side, &message, &mut deliver);
            }
            Self::transport(&mut self.initiator, &mut self.responder, side).open
        });
        let transport = Self::transport(&mut self.initiator, &mut self.responder, side);
        transport.framer = framer;
        if outcome.is_err() && transport.open {
            self.counters.stream_garbage += 1;
            self.drop_side(now, side);
        }
    }

    /// [`Peer::next_deadline`] passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            match self.state {
                PeerState::Closed if self.responder.open => self.drop_side(now, Side::Responder),
                PeerState::Closed if self.config.initiate => self.start(now),
                PeerState::Closed | PeerState::IOpen | PeerState::ROpen => {}
                _ => {
                    self.counters.connection_failed += 1;
                    self.fall_closed(now);
                }
            }
        }
        if self
            .watchdog
            .deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            let action = self.watchdog.on_deadline(now, &mut self.random);
            self.watchdog_action(now, action);
        }
    }

    /// When [`Peer::handle_timeout`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        match (self.deadline, self.watchdog.deadline()) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// The next effect, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Octets to be sent on a connection: the caller removes what it sent.
    pub fn output(&mut self, side: Side) -> &mut Vec<u8> {
        &mut Self::transport(&mut self.initiator, &mut self.responder, side).output
    }

    /// Appends a complete message to the open connection. `false`: nothing is open, or the peer
    /// does not read and its output is full.
    pub fn send(&mut self, message: &[u8]) -> bool {
        let limit = self.config.output_length_max;
        let Some(side) = self.open_side() else {
            return false;
        };
        let output = &mut Self::transport(&mut self.initiator, &mut self.responder, side).output;
        if output.len() + message.len() > limit {
            return false;
        }
        output.extend_from_slice(message);
        true
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> PeerState {
        self.state
    }

    /// The open connection, if any.
    #[must_use]
    pub const fn open_side(&self) -> Option<Side> {
        match self.state {
            PeerState::IOpen => Some(Side::Initiator),
            PeerState::ROpen => Some(Side::Responder),
            _ => None,
        }
    }

    /// Open, and trusted by the watchdog.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.open_side().is_some() && self.watchdog.state() == WatchdogState::Okay
    }

    /// The peer takes ACRs.
    #[must_use]
    pub const fn does_accounting(&self) -> bool {
        self.accounting
    }

    /// The peer takes CCRs.
    #[must_use]
    pub const fn does_credit_control(&self) -> bool {
        self.credit_control
    }

    /// Origin-Host the peer presented last.
    #[must_use]
    pub fn remote_host(&self) -> &[u8] {
        &self.remote_host
    }

    /// Who we are towards this peer.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    fn on_message(
        &mut self,
        now: Instant,
        side: Side,
        message: &Message<'_>,
        deliver: &mut impl FnMut(&Message<'_>, &mut Vec<u8>),
    ) {
        let header = message.header;
        let open = self.open_side() == Some(side);
        if open {
            let is_answer = header.command == d::DEVICE_WATCHDOG && !header.is_request();
            let action = self.watchdog.on_message(now, is_answer, &mut self.random);
            self.watchdog_action(now, action);
        }
        match (header.command, header.is_request()) {
            (d::CAPABILITIES_EXCHANGE, true) if side == Side::Responder => {
                self.on_cer(now, message)
            }
            (d::CAPABILITIES_EXCHANGE, false) if side == Side::Initiator => {
                self.on_cea(now, message);
            }
            (d::DEVICE_WATCHDOG, true) if open => self.answer(side, message, result::SUCCESS),
            (d::DEVICE_WATCHDOG, false) if open => {}
            (d::DISCONNECT_PEER, true) if open => self.on_dpr(now, side, message),
            (d::DISCONNECT_PEER, false) if self.state == PeerState::Closing => {
                self.fall_closed(now);
            }
            (d::CAPABILITIES_EXCHANGE | d::DISCONNECT_PEER | d::DEVICE_WATCHDOG, _) => {
                self.counters.message_unexpected += 1;
            }
            _ if open || self.state == PeerState::Closing => {
                let output =
                    &mut Self::transport(&mut self.initiator, &mut self.responder, side).output;
                deliver(message, output);
            }
            // RFC 6733 s5.6.1 and I-Rcv-Non-CEA: anything else before Open is an error.
            _ => {
                self.counters.message_unexpected += 1;
                self.drop_side(now, side);
            }
        }
    }

    fn on_cer(&mut self, now: Instant, cer: &Message<'_>) {
        if !matches!(
            self.state,
            PeerState::Closed | PeerState::WaitConnAck | PeerState::WaitICea
        ) || self.held_cer.is_some()
        {
            self.counters.message_unexpected += 1;
            return;
        }
        if let Err(code) = self.adopt_capabilities(cer) {
            self.counters.capabilities_refused += 1;
            let out = &mut self.responder.output;
            base::encode_cea(out, &cer.header, &self.identity, code);
            self.drop_side(now, Side::Responder);
            return;
        }
        match self.state {
            PeerState::Closed => {
                base::encode_cea(
                    &mut self.responder.output,
                    &cer.header,
                    &self.identity,
                    result::SUCCESS,
                );
                self.enter_open(now, PeerState::ROpen);
            }
            PeerState::WaitConnAck => {
                self.held_cer = Some(cer.header);
                self.state = PeerState::WaitConnAckElect;
            }
            _ => {
                self.held_cer = Some(cer.header);
                self.elect(now);
            }
        }
    }

    fn on_cea(&mut self, now: Instant, cea: &Message<'_>) {
        if !matches!(self.state, PeerState::WaitICea | PeerState::WaitReturns) {
            self.counters.message_unexpected += 1;
            return;
        }
        if self.adopt_capabilities(cea).is_err() {
            self.counters.capabilities_refused += 1;
            self.drop_side(now, Side::Initiator);
            return;
        }
        if self.state == PeerState::WaitReturns {
            self.held_cer = None;
            self.disconnect(Side::Responder);
        }
        self.enter_open(now, PeerState::IOpen);
    }

    /// RFC 6733 s5.3: the Result-Code that refuses the exchange, or what the peer can do.
    fn adopt_capabilities(&mut self, message: &Message<'_>) -> Result<(), u32> {
        let found = Capabilities::read(message)?;
        if !message.header.is_request()
            && !matches!(
                found.result_code,
                Some(result::SUCCESS | result::LIMITED_SUCCESS)
            )
        {
            return Err(result::UNABLE_TO_COMPLY);
        }
        if let Some(expected) = &self.config.expected_host
            && !found.origin_host.eq_ignore_ascii_case(expected.as_bytes())
        {
            return Err(result::UNKNOWN_PEER);
        }
        if !found.accounting && !found.credit_control {
            return Err(result::NO_COMMON_APPLICATION);
        }
        self.accounting = found.accounting;
        self.credit_control = found.credit_control;
        self.remote_host.clear();
        self.remote_host.extend_from_slice(found.origin_host);
        Ok(())
    }

    fn on_dpr(&mut self, now: Instant, side: Side, dpr: &Message<'_>) {
        self.answer(side, dpr, result::SUCCESS);
        // RFC 6733 s5.4.3: whoever is busy or wants no connection shall not be called at once.
        let cause = dpr.find(d::DISCONNECT_CAUSE).and_then(|avp| avp.u32().ok());
        if cause != Some(DisconnectCause::Rebooting as u32) {
            self.reconnect_ms = self.config.reconnect_ms_max;
        }
        self.state = PeerState::Closing;
        self.arm(now, self.config.closing_timeout_ms);
        self.effects.push_back(Effect::FailOver);
    }

    /// RFC 6733 s5.6.4: the higher Origin-Host keeps the connection it accepted.
    fn elect(&mut self, now: Instant) {
        let ours = self
            .identity
            .origin_host
            .bytes()
            .map(|octet| octet.to_ascii_lowercase());
        let theirs = self.remote_host.iter().map(u8::to_ascii_lowercase);
        if ours.gt(theirs) {
            self.disconnect(Side::Initiator);
            self.accept_held(now);
        } else {
            self.state = PeerState::WaitReturns;
        }
    }

    /// R-Snd-CEA for the held CER, then R-Open.
    fn accept_held(&mut self, now: Instant) {
        let Some(cer) = self.held_cer.take() else {
            self.fall_closed(now);
            return;
        };
        let out = &mut self.responder.output;
        base::encode_cea(out, &cer, &self.identity, result::SUCCESS);
        self.enter_open(now, PeerState::ROpen);
    }

    fn enter_open(&mut self, now: Instant, state: PeerState) {
        self.state = state;
        self.deadline = None;
        self.reconnect_ms = self.config.reconnect_ms_min;
        self.counters.connection_opened += 1;
        let action = self.watchdog.on_open(now, &mut self.random);
        self.watchdog_action(now, action);
    }

    fn watchdog_action(&mut self, now: Instant, action: WatchdogAction) {
        match action {
            WatchdogAction::None => {}
            WatchdogAction::SendWatchdog => {
                let (hop_by_hop, end_to_end) = (self.allocate_id(), self.allocate_id());
                if let Some(side) = self.open_side() {
                    let out =
                        &mut Self::transport(&mut self.initiator, &mut self.responder, side).output;
                    base::encode_dwr(out, &self.identity, hop_by_hop, end_to_end);
                    self.counters.watchdog_sent += 1;
                }
            }
            WatchdogAction::Usable => self.effects.push_back(Effect::Usable),
            WatchdogAction::FailOver => self.effects.push_back(Effect::FailOver),
            WatchdogAction::Close => {
                self.counters.watchdog_expired += 1;
                self.fall_closed(now);
            }
        }
    }

    /// We close one connection because of what came over it.
    fn drop_side(&mut self, now: Instant, side: Side) {
        let transport = Self::transport(&mut self.initiator, &mut self.responder, side);
        if !transport.open {
            return;
        }
        self.effects.push_back(Effect::Close(side));
        self.on_closed(now, side);
    }

    fn disconnect(&mut self, side: Side) {
        let transport = Self::transport(&mut self.initiator, &mut self.responder, side);
        if std::mem::take(&mut transport.open) {
            self.effects.push_back(Effect::Close(side));
        }
    }

    /// Closed: both connections go, the next attempt is planned.
    fn fall_closed(&mut self, now: Instant) {
        // A connection being opened has to be given up by the caller, too.
        if matches!(
            self.state,
            PeerState::WaitConnAck | PeerState::WaitConnAckElect
        ) {
            self.effects.push_back(Effect::Close(Side::Initiator));
        }
        self.disconnect(Side::Initiator);
        self.disconnect(Side::Responder);
        self.held_cer = None;
        self.watchdog.on_closed();
        self.state = PeerState::Closed;
        self.effects.push_back(Effect::Down);
        self.deadline = None;
        if self.config.initiate {
            let wait = self.reconnect_ms;
            self.reconnect_ms = (wait * 2).min(self.config.reconnect_ms_max);
            let jittered = self.random.between(wait / 2, wait);
            self.arm(now, jittered);
        }
    }

    fn answer(&mut self, side: Side, request: &Message<'_>, code: u32) {
        let output = &mut Self::transport(&mut self.initiator, &mut self.responder, side).output;
        // Bounded: a peer that asks without reading gets no answers.
        if output.len() < self.config.output_length_max {
            base::encode_answer(output, request, &self.identity, code);
        }
    }

    fn arm(&mut self, now: Instant, ms: u64) {
        self.deadline = Some(now + Duration::from_millis(ms));
    }

    const fn allocate_id(&mut self) -> u32 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    const fn transport<'t>(
        initiator: &'t mut Transport,
        responder: &'t mut Transport,
        side: Side,
    ) -> &'t mut Transport {
        match side {
            Side::Initiator => initiator,
            Side::Responder => responder,
        }
    }
}

#[cfg(test)]
mod tests;
