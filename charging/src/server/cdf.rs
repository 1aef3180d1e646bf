//! The bundled charging data function: takes ACRs, removes duplicates, answers.
//!
//! It runs the "server, stateless accounting" machine of RFC 6733 s8.2: records are taken in any
//! order. Connections are peers that only respond. Faults can be switched on for tests.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use quanta::Instant;

use super::record::{CdfStore, FailedAvp, Put, ReceivedRecord, Refusal};
use crate::diameter::avp::{Avp, Message, Writer};
use crate::diameter::base::{self, Identity};
use crate::diameter::dictionary::{self as d, Attribute, result};
use crate::diameter::peer::{Effect, Peer, PeerConfig, Side};
use crate::random::SplitMix64;
use crate::state::RecordType;

/// How the CDF behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CdfConfig {
    /// Who it is.
    pub identity: Identity,
    /// How connections are kept; `initiate` is ignored.
    pub peer: PeerConfig,
    /// Connections accepted at once.
    pub connections_max: usize,
    /// Acct-Interim-Interval in answers to START and INTERIM, seconds; `None` leaves it out.
    pub interim_interval_s: Option<u32>,
}

/// Names a connection; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What the I/O shell must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CdfIo {
    /// Send what [`Cdf::transmit`] still holds, close, then report [`Cdf::on_closed`].
    Close(ConnectionId),
}

/// Misbehaviour for tests, applied to ACRs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// None.
    #[default]
    None,
    /// Neither keep nor answer.
    Drop,
    /// Keep, but do not answer.
    Silent,
    /// Keep, and answer later.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// Do not keep, answer with that Result-Code.
    Refuse(u32),
    /// Keep, answer with another Session-Id.
    LieAboutSession,
    /// Keep, answer with another record number.
    LieAboutNumber,
    /// Keep, answer twice.
    AnswerTwice,
}

/// What happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CdfCounters {
    /// Connections accepted.
    pub connection_accepted: u64,
    /// Connections refused because there were too many.
    pub connection_refused: u64,
    /// ACRs received.
    pub acr_received: u64,
    /// Records kept.
    pub record_kept: u64,
    /// Records kept that came with the T flag.
    pub record_kept_retransmitted: u64,
    /// Duplicates discarded that carried the T flag.
    pub duplicate_discarded: u64,
    /// Duplicates discarded without T flag: their sender forgot it.
    pub duplicate_unmarked: u64,
    /// Same key, other content: somebody billed wrongly.
    pub record_conflicting: u64,
    /// ACRs refused with 5xxx.
    pub acr_refused: u64,
    /// Requests answered 3001 or 3007.
    pub request_unsupported: u64,
    /// Answers nobody asked for.
    pub answer_unexpected: u64,
    /// ACRs a fault was applied to.
    pub fault_applied: u64,
    /// Times the store failed.
    pub store_failed: u64,
    /// Delayed answers dropped because too many waited.
    pub delayed_dropped: u64,
}

/// Delayed answers that may wait.
const DELAYED_MAX: usize = 65_536;
/// Faults that may be queued for single ACRs.
const FAULTS_MAX: usize = 65_536;

/// The charging data function.
#[derive(Debug)]
pub struct Cdf<S> {
    connections: BTreeMap<ConnectionId, Peer>,
    next_connection: u64,
    server: Server<S>,
    /// By due time, then in the order they were made.
    delayed: BTreeMap<(Instant, u64), (ConnectionId, Vec<u8>)>,
    delayed_order: u64,
    io: VecDeque<CdfIo>,
    config: CdfConfig,
    random: SplitMix64,
}

/// What answers ACRs: separate from the connections so that both can be borrowed.
#[derive(Debug)]
struct Server<S> {
    identity: Identity,
    interim_interval_s: Option<u32>,
    store: S,
    /// Something was put and not committed.
    dirty: bool,
    fault: Fault,
    next_faults: VecDeque<Fault>,
    /// Answers to be sent later, with the delay in milliseconds.
    to_delay: Vec<(u64, Vec<u8>)>,
    counters: CdfCounters,
}

impl<S: CdfStore> Cdf<S> {
    /// A CDF without connections.
    #[must_use]
    pub fn new(config: CdfConfig, store: S, seed: u64) -> Self {
        Self {
            connections: BTreeMap::new(),
            next_connection: 0,
            server: Server {
                identity: config.identity.clone(),
                interim_interval_s: config.interim_interval_s,
                store,
                dirty: false,
                fault: Fault::None,
                next_faults: VecDeque::new(),
                to_delay: Vec::new(),
                counters: CdfCounters::default(),
            },
            delayed: BTreeMap::new(),
            delayed_order: 0,
            io: VecDeque::new(),
            config,
            random: SplitMix64::new(seed),
        }
    }

    /// A connection came in. `None`: close it.
    pub fn accept(&mut self, now: Instant) -> Option<ConnectionId> {
        if self.connections.len() >= self.config.connections_max {
            self.server.counters.connection_refused += 1;
            return None;
        }
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let config = PeerConfig {
            initiate: false,
            ..self.config.peer.clone()
        };
        let identity = self.config.identity.clone();
        let mut peer = Peer::new(config, identity, self.random.next_u64());
        peer.on_accepted(now);
        self.connections.insert(id, peer);
        self.server.counters.connection_accepted += 1;
        Some(id)
    }

    /// A connection was closed by the other end, or by an error.
    pub fn on_closed(&mut self, id: ConnectionId) {
        self.connections.remove(&id);
    }

    /// Octets arrived. What was kept is committed before any answer can leave.
    pub fn handle_bytes(&mut self, now: Instant, id: ConnectionId, bytes: &[u8]) {
        let Some(peer) = self.connections.get_mut(&id) else {
            return;
        };
        let server = &mut self.server;
        peer.handle_bytes(now, Side::Responder, bytes, |message, output| {
            server.on_message(message, output);
        });
        if std::mem::take(&mut server.dirty) && server.store.commit().is_err() {
            // Without answers the client sends again; its connection tells it to.
            server.counters.store_failed += 1;
            server.to_delay.clear();
            peer.output(Side::Responder).clear();
            self.connections.remove(&id);
            self.io.push_back(CdfIo::Close(id));
            return;
        }
        for (ms, answer) in server.to_delay.drain(..) {
            if self.delayed.len() >= DELAYED_MAX {
                server.counters.delayed_dropped += 1;
                continue;
            }
            let due = now + Duration::from_millis(ms);
            self.delayed_order += 1;
            self.delayed.insert((due, self.delayed_order), (id, answer));
        }
        self.settle(id);
    }

    /// Octets waiting for a connection: send them and remove what was sent.
    pub fn transmit(&mut self, id: ConnectionId) -> Option<&mut Vec<u8>> {
        self.connections
            .get_mut(&id)
            .map(|peer| peer.output(Side::Responder))
    }

    /// The next thing the I/O shell must do.
    pub fn poll_io(&mut self) -> Option<CdfIo> {
        self.io.pop_front()
    }

    /// [`Cdf::next_deadline`] passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(entry) = self
            .delayed
            .first_entry()
            .filter(|entry| entry.key().0 <= now)
        {
            let (id, answer) = entry.remove();
            if let Some(peer) = self.connections.get_mut(&id) {
                peer.send(&answer);
            }
        }
        let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in ids {
            if let Some(peer) = self.connections.get_mut(&id)
                && peer.next_deadline().is_some_and(|deadline| deadline <= now)
            {
                peer.handle_timeout(now);
                self.settle(id);
            }
        }
    }

    /// When [`Cdf::handle_timeout`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let peers = self.connections.values().filter_map(Peer::next_deadline);
        peers
            .chain(self.delayed.keys().next().map(|key| key.0))
            .min()
    }

    /// Applies a fault to all further ACRs.
    pub fn set_fault(&mut self, fault: Fault) {
        self.server.fault = fault;
    }

    /// Applies a fault to one ACR, after those queued before; `false` if too many are queued.
    pub fn queue_fault(&mut self, fault: Fault) -> bool {
        let room = self.server.next_faults.len() < FAULTS_MAX;
        if room {
            self.server.next_faults.push_back(fault);
        }
        room
    }

    /// Changes the interim interval returned from now on.
    pub fn set_interim_interval(&mut self, interval_s: Option<u32>) {
        self.server.interim_interval_s = interval_s;
    }

    /// The open connections.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        self.connections.keys().copied()
    }

    /// The store.
    #[must_use]
    pub const fn store(&self) -> &S {
        &self.server.store
    }

    /// The store.
    pub const fn store_mut(&mut self) -> &mut S {
        &mut self.server.store
    }

    /// What happened.
    #[must_use]
    pub const fn counters(&self) -> &CdfCounters {
        &self.server.counters
    }

    fn settle(&mut self, id: ConnectionId) {
        let Some(peer) = self.connections.get_mut(&id) else {
            return;
        };
        while let Some(effect) = peer.poll_effect() {
            if let Effect::Close(_) = effect {
                self.io.push_back(CdfIo::Close(id));
            }
        }
    }
}

impl<S: CdfStore> Server<S> {
    fn on_message(&mut self, message: &Message<'_>, output: &mut Vec<u8>) {
        let header = message.header;
        if !header.is_request() {
            self.counters.answer_unexpected += 1;
            return;
        }
        let unsupported = match (header.command, header.application) {
            (d::ACCOUNTING, d::APPLICATION_ACCOUNTING) => {
                self.on_acr(message, output);
                return;
            }
            (d::ACCOUNTING, _) => result::APPLICATION_UNSUPPORTED,
            _ => result::COMMAND_UNSUPPORTED,
        };
        self.counters.request_unsupported += 1;
        base::encode_answer(output, message, &self.identity, unsupported);
    }

    fn on_acr(&mut self, message: &Message<'_>, output: &mut Vec<u8>) {
        self.counters.acr_received += 1;
        let fault = self.next_faults.pop_front().unwrap_or(self.fault);
        if fault != Fault::None {
            self.counters.fault_applied += 1;
        }
        if fault == Fault::Drop {
            return;
        }
        let record = match ReceivedRecord::read(message) {
            Ok(record) => record,
            Err(refusal) => {
                self.counters.acr_refused += 1;
                self.refuse(message, &refusal, output);
                return;
            }
        };
        let result_code = match fault {
            Fault::Refuse(code) => code,
            _ => self.keep(&record),
        };
        let mut answer = Answer {
            result_code,
            session_id: record.session_id,
            record_type: record.record_type,
            record_number: record.record_number,
        };
        match fault {
            Fault::Silent => {}
            Fault::Delay { ms } => {
                let mut later = Vec::new();
                self.answer(message, &answer, &mut later);
                self.to_delay.push((ms, later));
            }
            Fault::LieAboutSession => {
                answer.session_id = b"nobody.example;0;0";
                self.answer(message, &answer, output);
            }
            Fault::LieAboutNumber => {
                answer.record_number = answer.record_number.wrapping_add(1);
                self.answer(message, &answer, output);
            }
            Fault::AnswerTwice => {
                self.answer(message, &answer, output);
                self.answer(message, &answer, output);
            }
            _ => self.answer(message, &answer, output),
        }
    }

    /// TS 32.299 s6.1.3.3: marked and known, discard; marked and unknown, use. RFC 6733 s9.4 asks
    /// the same of unmarked ones, because an agent in between may have repeated them.
    fn keep(&mut self, record: &ReceivedRecord<'_>) -> u32 {
        match self.store.put(record) {
            Ok(Put::New) => {
                self.dirty = true;
                self.counters.record_kept += 1;
                self.counters.record_kept_retransmitted += u64::from(record.retransmitted);
            }
            Ok(Put::Duplicate) if record.retransmitted => self.counters.duplicate_discarded += 1,
            Ok(Put::Duplicate) => self.counters.duplicate_unmarked += 1,
            Ok(Put::Conflict) => self.counters.record_conflicting += 1,
            Err(_) => {
                self.counters.store_failed += 1;
                return result::OUT_OF_SPACE;
            }
        }
        result::SUCCESS
    }

    /// ACA in the order of TS 32.299 s6.2.3.
    fn answer(&self, request: &Message<'_>, answer: &Answer<'_>, output: &mut Vec<u8>) {
        let header = base::answer_header(&request.header, answer.result_code);
        let mut writer = Writer::message(output, &header);
        writer.octets(d::SESSION_ID, answer.session_id);
        writer.u32(d::RESULT_CODE, answer.result_code);
        base::origin(&mut writer, &self.identity);
        writer.u32(d::ACCOUNTING_RECORD_TYPE, answer.record_type as u32);
        writer.u32(d::ACCOUNTING_RECORD_NUMBER, answer.record_number);
        writer.u32(d::ACCT_APPLICATION_ID, d::APPLICATION_ACCOUNTING);
        if let Some(seconds) = self.interim_interval_s
            && matches!(answer.record_type, RecordType::Start | RecordType::Interim)
        {
            writer.u32(d::ACCT_INTERIM_INTERVAL, seconds);
        }
        self.tail(&mut writer, request);
        writer.finish();
    }

    fn refuse(&self, request: &Message<'_>, refusal: &Refusal<'_>, output: &mut Vec<u8>) {
        let header = base::answer_header(&request.header, refusal.result_code);
        let mut writer = Writer::message(output, &header);
        // RFC 6733 s6.2: what the request had is repeated, so that its sender finds it again.
        let copy = |writer: &mut Writer<'_>, attribute: Attribute| {
            if let Some(avp) = request.find(attribute) {
                writer.octets(attribute, avp.data);
            }
        };
        copy(&mut writer, d::SESSION_ID);
        writer.u32(d::RESULT_CODE, refusal.result_code);
        base::origin(&mut writer, &self.identity);
        copy(&mut writer, d::ACCOUNTING_RECORD_TYPE);
        copy(&mut writer, d::ACCOUNTING_RECORD_NUMBER);
        if let Some(failed) = refusal.failed {
            let group = writer.open(d::FAILED_AVP);
            match failed {
                FailedAvp::Received(raw) => writer.encoded(&raw[..raw.len().min(FAILED_MAX)]),
                FailedAvp::Missing(attribute) => writer.u32(attribute, 0),
            }
            writer.close(group);
        }
        self.tail(&mut writer, request);
        writer.finish();
    }

    /// Origin-State-Id, then Proxy-Info in its order (RFC 6733 s6.2).
    fn tail(&self, writer: &mut Writer<'_>, request: &Message<'_>) {
        if let Some(id) = self.identity.origin_state_id {
            writer.u32(d::ORIGIN_STATE_ID, id);
        }
        let proxies = request
            .avps()
            .map_while(Result::ok)
            .filter(|avp: &Avp<'_>| avp.is(d::PROXY_INFO));
        for proxy in proxies.take(PROXIES_MAX) {
            writer.encoded(proxy.raw);
        }
    }
}

/// What an ACA says about its record.
struct Answer<'a> {
    result_code: u32,
    session_id: &'a [u8],
    record_type: RecordType,
    record_number: u32,
}

/// Proxy-Infos repeated in an answer.
const PROXIES_MAX: usize = 16;
/// Octets of an offending AVP repeated in Failed-AVP; a multiple of four.
const FAILED_MAX: usize = 1_024;
const _: () = assert!(FAILED_MAX.is_multiple_of(4));

#[cfg(test)]
mod tests;
