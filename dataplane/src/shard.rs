//! One shard: it owns the calls, the wheel, the Diameter connections and the blob store of one
//! core, and wires the outputs of each to the inputs of the others.
//!
//! The law of a turn: feed inputs, then [`Shard::settle`], then send what the outbox and the
//! Diameter connections hold. `settle` commits the state of every call that changed before
//! anything it caused can leave, and hands charging requests to the connections only after the
//! record they carry was committed with the call (the write-ahead rule of exact billing).

mod among;

use std::sync::Arc;

use charging::ctf::{Ctf, FailureAction, Storage};
use charging::diameter::routing::{AnswerSummary, Event, Router, Tag};
use charging::rf::acr;
use charging::rf::backlog::{BACKLOG_CALL, Backlog, BacklogStore, Drained, StoreError};
use charging::time::Now;
use charging::trigger::Verdict;
use rkyv::util::AlignedVec;
use slotmap::{Key, KeyData};

use crate::b2bua::{B2bua, CallState, Origin, Phase, Place, fold, write_state};
use crate::cluster::{Claims, HOPS};
use crate::config::Config;
use crate::env::{CallKey, Env, Outbox, TimerKey};
use crate::sip::{Index, Message, ParseError, TokenKey, parse, salvage};
pub use crate::store::BlobStore;
use crate::store::{Blob, Stored};

/// Any store of undelivered charging records, so that a shard need not be generic over it.
pub struct AnyStore(pub Box<dyn BacklogStore>);

impl BacklogStore for AnyStore {
    fn append(&mut self, sequence: u64, acr: &[u8]) -> Result<(), StoreError> {
        self.0.append(sequence, acr)
    }

    fn read(&mut self, sequence: u64, out: &mut Vec<u8>) -> Result<(), StoreError> {
        self.0.read(sequence, out)
    }

    fn remove(&mut self, sequence: u64) -> Result<(), StoreError> {
        self.0.remove(sequence)
    }
}

/// What became of a received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was dealt with, or dropped and counted.
    Here,
    /// It belongs to another shard of this node.
    Elsewhere(u16),
}

/// One core's share of the node.
pub struct Shard {
    env: Env,
    b2bua: B2bua,
    router: Router,
    blobs: Box<dyn BlobStore>,
    backlog: Backlog<AnyStore>,
    place: Place,
    shards: u16,
    index: Option<Box<Index>>,
    touched: Vec<CallKey>,
    blob: AlignedVec,
    record: Vec<u8>,
    /// Whether this node may act, as of the last look.
    acts: bool,
    /// Calls whose record waits until it may.
    parked: Vec<CallKey>,
    /// Calls to commit again, and when.
    again: Vec<CallKey>,
    again_due: u64,
    /// Calls whose state found no room, and when they try again.
    full: Vec<CallKey>,
    full_due: u64,
    claims: Claims,
    claims_due: u64,
    /// Members that were told what this shard has taken.
    told: u32,
    listeners: usize,
    forward: Vec<u8>,
    leaving: Option<among::Leaving>,
}

/// What a shard is made of.
pub struct Parts {
    /// Configuration of the node.
    pub config: Arc<Config>,
    /// Its place.
    pub place: Place,
    /// Number of shards of the node.
    pub shards: u16,
    /// Key of the call tokens, shared by the cluster.
    pub tokens: TokenKey,
    /// Charging trigger function.
    pub ctf: Ctf,
    /// Diameter connections.
    pub router: Router,
    /// Store of call states.
    pub blobs: Box<dyn BlobStore>,
    /// Store of undeliverable records.
    pub backlog: Backlog<AnyStore>,
    /// Seed of everything random.
    pub seed: u64,
}

impl Shard {
    /// A shard without calls.
    #[must_use]
    pub fn new(parts: Parts, now: Now) -> Self {
        let mut env = Env::new(now, parts.seed);
        let secret = env.rng.next_u64();
        let claims = Claims::new(parts.tokens.secret());
        let listeners = parts.config.sip.listen.len();
        let mut b2bua = B2bua::new(parts.config, parts.place, parts.tokens, parts.ctf, secret);
        b2bua.begin(&mut env);
        Self {
            b2bua,
            env,
            router: parts.router,
            blobs: parts.blobs,
            backlog: parts.backlog,
            place: parts.place,
            shards: parts.shards,
            index: Some(Box::new(Index::new())),
            touched: Vec::new(),
            blob: AlignedVec::new(),
            record: Vec::new(),
            acts: true,
            parked: Vec::new(),
            again: Vec::new(),
            again_due: 0,
            full: Vec::new(),
            full_due: 0,
            claims,
            claims_due: 0,
            told: 0,
            listeners,
            forward: Vec::new(),
            leaving: None,
        }
    }

    /// Takes calls up again whose state was found after a restart. They are charged on and
    /// their timers armed from the deadlines in their state.
    pub fn resume(&mut self, now: Now, states: impl Iterator<Item = CallState>) {
        self.set_now(now);
        for state in states {
            self.go_on_with(state, TAKEN_OVER_SPREAD_MS);
        }
        self.settle(now);
    }

    fn go_on_with(&mut self, state: CallState, spread_ms: u64) {
        let id = state.id;
        self.env.counters.call_resumed += 1;
        self.b2bua.resume(&mut self.env, state, spread_ms);
        // The state does not tell whether records of the call wait on disk. They may.
        if let Some(key) = self.b2bua.key_of(id).filter(|_| !self.backlog.is_empty()) {
            self.b2bua.mark_stored_records(key);
        }
    }

    /// Takes a datagram, or says which shard it belongs to.
    pub fn handle_datagram(&mut self, now: Now, origin: Origin, bytes: &[u8]) -> Taken {
        self.set_now(now);
        self.take_datagram(origin, bytes, HOPS)
    }

    fn set_now(&mut self, now: Now) {
        self.env.set_now(now);
        self.blobs.set_now(now);
        let acts_until = self.blobs.cluster().map(|cluster| cluster.acts_until());
        self.acts = acts_until.is_none_or(|until| until.is_some());
        let quiet_from = acts_until.map(|until| until.unwrap_or(now.instant));
        self.router.set_quiet_from(quiet_from);
    }

    // `hops`: how often it may be passed on to another node yet.
    fn take_datagram(&mut self, origin: Origin, bytes: &[u8], hops: u8) -> Taken {
        self.env.counters.sip_datagram_received += 1;
        let mut index = self.index.take().unwrap_or_default();
        let taken = match parse(bytes, &mut index) {
            Ok(message) => self.dispatch(&message, origin, hops),
            Err(fault) => {
                self.on_malformed(fault, bytes, &index, origin);
                Taken::Here
            }
        };
        self.index = Some(index);
        taken
    }

    fn dispatch(&mut self, message: &Message<'_>, origin: Origin, hops: u8) -> Taken {
        let token = self.b2bua.token_of(message);
        let shard = match token {
            // A call of an earlier run may have come back under another number of shards.
            Some(token) => token.shard % self.shards,
            None if message.is_request() => {
                (fold(message.call_id()) % u64::from(self.shards)) as u16
            }
            None => {
                self.env.counters.token_refused += 1;
                return Taken::Here;
            }
        };
        if shard != self.place.shard {
            self.env.counters.sip_datagram_received -= 1;
            self.env.counters.sip_datagram_handed_over += 1;
            return Taken::Elsewhere(shard);
        }
        if !self.is_for_here(token, message, origin, hops) {
            return Taken::Here;
        }
        if message.is_request() {
            self.b2bua.handle_request(&mut self.env, message, origin);
        } else {
            self.b2bua.handle_response(&mut self.env, message, origin);
        }
        Taken::Here
    }

    fn on_malformed(&mut self, fault: ParseError, bytes: &[u8], index: &Index, origin: Origin) {
        if fault == ParseError::Keepalive {
            self.env.counters.sip_keepalive_received += 1;
            return;
        }
        let request = salvage(bytes, index).filter(Message::is_request);
        match (request, fault.response()) {
            (Some(request), Some((status, reason))) => {
                self.env.counters.sip_malformed_answered += 1;
                self.b2bua
                    .answer_malformed(&mut self.env, &request, origin, status, reason);
            }
            _ => self.env.counters.sip_malformed_dropped += 1,
        }
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.set_now(now);
        // One advance moves a bounded number of timers; what is left waits for the next turn,
        // which the deadline then asks for at once.
        self.env.wheel.advance(self.env.now_ms);
        while let Some(key) = self.env.wheel.poll_expired() {
            match key {
                TimerKey::Transaction(id, timer) => {
                    self.b2bua.on_transaction_timer(&mut self.env, id, timer);
                }
                TimerKey::Call(key, timer) if !self.acts => {
                    self.b2bua.postpone(&mut self.env, key, timer);
                }
                TimerKey::Ping(hop) => {
                    self.b2bua.on_ping_timer(&mut self.env, hop, self.acts);
                }
                TimerKey::Call(key, timer) => self.b2bua.on_call_timer(&mut self.env, key, timer),
            }
        }
        if self
            .router
            .next_deadline()
            .is_some_and(|due| due <= now.instant)
        {
            self.router.handle_timeout(now.instant);
        }
        if self
            .backlog
            .next_deadline()
            .is_some_and(|due| due <= now.instant)
        {
            self.backlog.handle_timeout(now.instant);
        }
    }

    /// Ends a turn: commits what changed, then lets charging requests go.
    pub fn settle(&mut self, now: Now) {
        self.set_now(now);
        self.follow_cluster();
        if self.full_due <= self.env.now_ms {
            self.full_due = self.env.now_ms + FULL_AGAIN_MS;
            for key in self.full.drain(..) {
                self.b2bua.touch_call(key);
            }
        }
        loop {
            self.take_events();
            self.b2bua.take_touched(&mut self.touched);
            if self.touched.is_empty() {
                break;
            }
            let mut touched = std::mem::take(&mut self.touched);
            for key in touched.drain(..) {
                self.settle_call(key);
            }
            self.touched = touched;
        }
        if self.acts {
            self.drain_backlog();
        }
        // What may not act gets no new request to refuse, and may act again before the next turn.
        self.b2bua
            .set_overload(!self.blobs.is_open(), self.backlog.is_above_high_water());
        self.b2bua.set_full(!self.blobs.has_room());
        self.hold_outputs();
    }

    fn settle_call(&mut self, key: CallKey) {
        self.commit(key);
        if !self.b2bua.is_waiting(key) {
            self.send_record(key);
        }
        self.b2bua.arm_charging(&mut self.env, key);
        if let Some((id, stored)) = self.b2bua.remove_finished(&mut self.env, key)
            && stored
        {
            self.blobs.retire(id);
        }
    }

    // Writes the call's state. What is not answered yet has nothing a survivor could go on with,
    // unless a record of it waits.
    fn commit(&mut self, key: CallKey) {
        let Some(call) = self.b2bua.call(key) else {
            return;
        };
        let worth = call.state.phase != Phase::SettingUp && call.state.phase != Phase::Event;
        if !call.dirty || !worth || (call.is_finished() && !call.stored) {
            return;
        }
        let mode = self.b2bua.settle_class(key);
        let Some(call) = self.b2bua.call(key) else {
            return;
        };
        let schema = self.blobs.schema();
        if !write_state(&call.state, schema, &mut self.blob) {
            return;
        }
        let blob = Blob {
            bytes: &self.blob,
            schema,
            takes_over: call.takes_over,
            mode,
        };
        let stored = self.blobs.commit(call.state.id, blob);
        self.on_committed(key, stored);
    }

    fn on_committed(&mut self, key: CallKey, stored: Stored) {
        if matches!(stored, Stored::Full | Stored::Refused) {
            self.env.counters.blob_refused += 1;
        } else {
            self.env.counters.blob_committed += 1;
        }
        match stored {
            Stored::Waits(version) => {
                self.b2bua.mark_committed(key);
                self.b2bua.wait_for(key, version);
            }
            Stored::Again => {
                self.b2bua.wait_for(key, VERSION_NEVER);
                self.again.push(key);
            }
            // What is not written down must not leave, or a restart would not know of it.
            Stored::Full if self.b2bua.call(key).is_some_and(|c| c.stored || c.is_up()) => {
                self.b2bua.wait_for(key, VERSION_NEVER);
                self.full.push(key);
            }
            // Nor is it of a set-up that failed: its EVENT leaves unprotected.
            Stored::Full | Stored::Refused => {}
            Stored::Safe => {
                self.b2bua.mark_committed(key);
                // What an older version promised is safe with this one.
                if self.b2bua.is_waiting(key) {
                    self.b2bua.release(&mut self.env, key, VERSION_NEVER);
                }
            }
        }
    }

    // Hands the pending record of a call to a connection, or to the backlog.
    fn send_record(&mut self, key: CallKey) {
        while let Some(call) = self.b2bua.call(key) {
            if call.state.charging.request_to_send().is_none() {
                return;
            }
            if !self.acts {
                return self.park(key);
            }
            self.record.clear();
            if !acr::encode_pending(&call.state.charging, &mut self.record) {
                return;
            }
            let tag = Tag {
                call: key.data().as_ffi(),
                session: 0,
            };
            // Older records wait on disk: this one goes behind them, lest it overtakes its START.
            let behind = !self.backlog.is_empty() && call.has_stored_records;
            if !behind
                && self
                    .router
                    .send(self.env.now.instant, tag, &self.record)
                    .is_ok()
            {
                self.b2bua.on_record_sent(key);
                return;
            }
            if !self.fail_record(key) {
                return;
            }
            self.commit(key);
            if self.b2bua.is_waiting(key) {
                return;
            }
        }
    }

    // The pending record of a call could not be delivered. False when there was none.
    fn fail_record(&mut self, key: CallKey) -> bool {
        let Some(storage) = self.b2bua.call(key).and_then(|call| {
            let session = call.state.charging.accounting.as_ref()?;
            let record = session.pending_key()?;
            if self.backlog.is_above_high_water() && self.b2bua.yields_backlog(key) {
                return Some(Storage::Full);
            }
            Some(
                self.backlog
                    .space_for(session.session_id(), record.record_type),
            )
        }) else {
            return false;
        };
        self.record.clear();
        let action = self
            .b2bua
            .on_record_failed(&mut self.env, key, storage, &mut self.record);
        let verdict = match action {
            FailureAction::Store(verdict) => {
                if self.backlog.put(&self.record).is_ok() {
                    self.env.counters.acr_stored += 1;
                } else {
                    self.env.counters.acr_lost += 1;
                }
                self.b2bua.mark_stored_records(key);
                verdict
            }
            FailureAction::Lose(verdict) => {
                self.env.counters.acr_lost += 1;
                verdict
            }
            FailureAction::Nothing => return false,
        };
        if verdict != Verdict::GoOn {
            self.b2bua.obey_charging(&mut self.env, key, verdict);
        }
        true
    }

    fn take_events(&mut self) {
        while let Some(event) = self.router.poll_event() {
            match event {
                Event::Answer { tag, summary, .. } if tag.call == BACKLOG_CALL => {
                    self.on_drained(tag, &summary);
                }
                Event::Failed { tag, .. } if tag.call == BACKLOG_CALL => {
                    self.backlog.on_failed(self.env.now.instant, tag);
                }
                Event::Answer {
                    tag,
                    summary: answer,
                    ..
                } => {
                    let key = KeyData::from_ffi(tag.call).into();
                    self.b2bua.on_record_answered(&mut self.env, key, &answer);
                }
                Event::Failed { tag, .. } => {
                    let key = KeyData::from_ffi(tag.call).into();
                    if self.fail_record(key) {
                        self.b2bua.touch_call(key);
                    }
                }
                Event::PeerUp { .. } | Event::PeerDown { .. } | Event::RequestFromPeer { .. } => {}
            }
        }
    }

    // Stored records leave oldest first, until a CDF has taken each.
    fn drain_backlog(&mut self) {
        let now = self.env.now.instant;
        while self.router.available() {
            self.record.clear();
            let Some(tag) = self.backlog.next_to_send(now, &mut self.record) else {
                return;
            };
            if self.router.send(now, tag, &self.record).is_err() {
                return self.backlog.on_failed(now, tag);
            }
        }
    }

    fn on_drained(&mut self, tag: Tag, answer: &AnswerSummary) {
        self.record.clear();
        match self
            .backlog
            .on_answer(self.env.now.instant, tag, answer, &mut self.record)
        {
            Drained::Delivered => self.env.counters.acr_drained += 1,
            Drained::Refused => {
                self.env.counters.acr_lost += 1;
                tracing::warn!(result = answer.result_code, "a CDF refused a stored record");
            }
            Drained::Unknown => {}
        }
    }

    /// When [`Shard::handle_timeout`] is wanted next.
    #[must_use]
    pub fn next_deadline(&mut self) -> Option<quanta::Instant> {
        let wheel = self
            .env
            .wheel
            .next_deadline()
            .map(|ms| self.env.instant_of(ms));
        [
            wheel,
            self.router.next_deadline(),
            self.backlog.next_deadline(),
            self.cluster_deadline(),
            (!self.full.is_empty()).then(|| self.env.instant_of(self.full_due)),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Datagrams to send.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.env.out
    }

    /// The outbox beside the counters that record its fate.
    pub fn outbox_and_counters(&mut self) -> (&mut Outbox, &mut crate::counters::Counters) {
        (&mut self.env.out, &mut self.env.counters)
    }

    /// The Diameter connections, for the shell that owns their sockets.
    pub fn router(&mut self) -> &mut Router {
        &mut self.router
    }

    /// Number of next hops that are tried last at the moment.
    #[must_use]
    pub fn hops_avoided(&self) -> usize {
        self.b2bua.hops_avoided(self.env.now_ms)
    }

    /// The B2BUA, for the admin pages.
    #[must_use]
    pub fn b2bua(&self) -> &B2bua {
        &self.b2bua
    }

    /// Refuses new calls from now on.
    pub fn drain(&mut self) {
        self.b2bua.drain();
    }

    /// The shard's surroundings: counters and buffers.
    pub fn env(&mut self) -> &mut Env {
        &mut self.env
    }

    /// Records waiting on disk.
    #[must_use]
    pub fn backlog_len(&self) -> u64 {
        self.backlog.len() as u64
    }

    /// Makes a little room in the blob store ahead of need; false if there is none to be made.
    pub fn make_room(&mut self) -> bool {
        let made = self.blobs.reclaim();
        self.env.counters.blob_reclaim_idle += u64::from(made);
        made
    }

    /// How full the blob store is, 0 to 100 %.
    #[must_use]
    pub fn ring_fill_percent(&self) -> u32 {
        self.blobs.fill_percent()
    }

    /// The store of call states.
    pub fn blobs(&mut self) -> &mut dyn BlobStore {
        self.blobs.as_mut()
    }

    /// The store of call states, to look at.
    #[must_use]
    pub fn blobs_ref(&self) -> &dyn BlobStore {
        self.blobs.as_ref()
    }

    /// The store of call states, when the shard ends.
    #[must_use]
    pub fn into_blobs(self) -> Box<dyn BlobStore> {
        self.blobs
    }

    /// Whether calls can be taken: a CDF is reachable or the backlog has room.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.b2bua.is_draining()
            && self.acts
            && self.blobs.is_open()
            && (self.router.available() || !self.backlog.is_above_high_water())
    }
}

/// Overdue interims of calls that were taken over all at once are spread over this time,
/// milliseconds.
const TAKEN_OVER_SPREAD_MS: u64 = 1_500;
/// Pause before states are committed again for which there was no room.
const FULL_AGAIN_MS: u64 = 20;
/// Greater than any version of a call.
const VERSION_NEVER: replication::Version = replication::Version {
    epoch: u32::MAX,
    ver: u32::MAX,
};
