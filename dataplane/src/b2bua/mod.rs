//! The back-to-back user agent: calls, and requests that are relayed as transaction pairs.
//!
//! ```text
//!   caller ── leg A ──┐                    ┌── leg B ── callee
//!    INVITE ─────────▶│ set_up: route,     │─────────▶ INVITE
//!       100 ◀─────────│ charge, forward    │
//!   18x 200 ◀─────────│◀───────────────────│◀───────── 18x 200
//!       ACK ─────────▶│───────────────────▶│─────────▶ ACK
//!    in-dialog requests ◀──── in_dialog ────▶ both ways
//!       BYE ─────────▶│ tear_down: answer, end the other leg, close the bill
//! ```
//!
//! Every occurrence of TS 32.260 that a charging class may want is reported as a trigger
//! ([`charging::trigger`]); the verdict may be to go on, to hold the message or to end the call.
//! A call that changed is put on a list, and at the end of the turn its state is committed
//! before anything it caused leaves the shard.

mod bridge;
mod call;
mod call_state;
mod challenge;
mod events;
mod facts;
mod hops;
mod in_dialog;
mod keeping;
mod offers;
mod orphan;
mod own;
mod pair;
mod passing;
mod probe;
mod replaces;
mod routing;
mod services;
mod set_up;
mod taken_up;
mod tear_down;
mod timers;
mod triggers;
mod trust;
mod usage;

use std::net::SocketAddr;
use std::sync::Arc;

use charging::ctf::{Ctf, CtfCounters, FailureAction, Storage};
use charging::diameter::routing::AnswerSummary;
use charging::time::UnixMillis;
use charging::trigger::Verdict;
use hashbrown::HashMap;
use slotmap::SlotMap;

pub use call::{BridgedInvite, Call, Held, Role, SetUp, Side, User};
pub use call_state::{CallState, NO_ROUTE, Phase, SCHEMA, SCHEMA_FORMER, read_state, write_state};
pub use keeping::HoldEnv;

use crate::config::Config;
use crate::dialog::{Dialog, SessionTimer, Texts};
use crate::env::{CallKey, Env, ListenerId};
use crate::sip::{Index, Message, Method, TOKEN_BYTES as TOKEN_LEN, Token, TokenKey, parse};
use crate::transaction::{Layer, MatchedRequest, ServerKey, TxnId, TxnLimits};

/// Where this B2BUA stands in the cluster; part of every token it mints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Node number.
    pub node: u16,
    /// Shard number.
    pub shard: u16,
    /// Incarnation of the node: changes with every start.
    pub incarnation: u32,
}

/// A received datagram's way in.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Source address.
    pub from: SocketAddr,
    /// Listener it came through.
    pub listener: ListenerId,
}

/// The calls of one shard and the rules that move them.
pub struct B2bua {
    config: Arc<Config>,
    place: Place,
    tokens: TokenKey,
    layer: Layer<User>,
    calls: SlotMap<CallKey, Call>,
    by_id: HashMap<u128, CallKey>,
    spare: Vec<Call>,
    counter: u64,
    ctf: Ctf,
    hops: hops::Hops,
    touched: Vec<CallKey>,
    draining: bool,
    overloaded: bool,
    full: bool,
    /// No record of a new call may be promised room.
    backlogged: bool,
    // Out while a kept message is read; taking it leaves nothing to allocate.
    index: Option<Box<Index>>,
}

impl B2bua {
    /// A shard's B2BUA without calls. `secret` keys the lookup of transactions.
    #[must_use]
    pub fn new(config: Arc<Config>, place: Place, tokens: TokenKey, ctf: Ctf, secret: u64) -> Self {
        Self {
            layer: Layer::new(config.sip.timers, TxnLimits::default(), secret),
            hops: hops::Hops::new(&config.sip),
            config,
            place,
            tokens,
            calls: SlotMap::with_key(),
            by_id: HashMap::new(),
            spare: Vec::new(),
            counter: 0,
            ctf,
            touched: Vec::new(),
            draining: false,
            overloaded: false,
            full: false,
            backlogged: false,
            index: Some(Box::new(Index::new())),
        }
    }

    /// The call token that a message carries, which names the shard it belongs to. `None` for a
    /// request that opens something new and for tokens that are not ours.
    #[must_use]
    pub fn token_of(&self, message: &Message<'_>) -> Option<Token> {
        if message.is_request() {
            message.to_tag().and_then(|tag| self.open_token(tag))
        } else {
            let branch = message.top_via()?.branch?;
            self.open_token(branch.get(COOKIE.len()..)?)
        }
    }

    /// Takes a request that belongs to this shard.
    pub fn handle_request(&mut self, env: &mut Env, request: &Message<'_>, origin: Origin) {
        if !self.config.admits(origin.from) {
            env.counters.sip_source_refused += 1;
            if request.method() != Method::Ack {
                self.refuse(env, request, origin, 403, b"Forbidden", b"");
            }
            return;
        }
        match self.layer.match_request(env, request) {
            MatchedRequest::Absorbed => {}
            MatchedRequest::Merged => {
                self.refuse(env, request, origin, 482, b"Loop Detected", b"");
            }
            MatchedRequest::New(key) => self.on_new_request(env, key, request, origin),
        }
    }

    /// Takes a response that belongs to this shard.
    pub fn handle_response(&mut self, env: &mut Env, response: &Message<'_>, origin: Origin) {
        let id = response.top_via().and_then(|via| {
            let rest = via.branch?.get(COOKIE.len() + TOKEN_LEN + 1..)?;
            self.layer.branch_ids.read(rest)
        });
        // Transactions are numbered anew by every process: a late answer to one of a node that was
        // killed must not meet the transaction that has its number now.
        let named = self.token_of(response).map(|token| id_of(&token));
        let user = id.and_then(|id| Some((id, self.layer.user(id)?)));
        let is_own = |call: CallKey| {
            self.calls
                .get(call)
                .is_none_or(|call| Some(call.state.id) == named)
        };
        let found = user.filter(|(_, user)| is_own(user.call));
        if response.has_more_vias() {
            env.counters.sip_response_stray += 1; // RFC 3261 18.1.2: not for us alone
            return;
        }
        let Some((id, _)) = found else {
            if !self.acknowledge_stray(env, response) {
                env.counters.sip_response_stray += 1;
            }
            return;
        };
        if let Some(user) = self.layer.on_response(env, id, response) {
            self.on_response(env, id, user, response, origin);
        }
    }

    fn on_response(
        &mut self,
        env: &mut Env,
        id: TxnId,
        user: User,
        response: &Message<'_>,
        origin: Origin,
    ) {
        if user.role == Role::Ping {
            return self.on_ping_answer(env, id, Some(response));
        }
        if !self.calls.contains_key(user.call) {
            return self.on_orphan_response(env, id, user, response, origin);
        }
        match user.role {
            Role::InviteClient => self.on_invite_response(env, id, user, response, origin),
            Role::Relay => self.on_relayed_response(env, id, user, response, origin),
            Role::Refresh => self.on_refresh_response(env, id, user, response, origin),
            Role::Probe => self.on_probe_answer(env, id, user, Some(response)),
            Role::Event => self.on_event_response(env, id, user, Some(response)),
            Role::Bye => self.on_bye_response(env, id, user, response),
            Role::InviteServer | Role::Local | Role::Cancel | Role::Ping => {}
        }
    }

    fn on_new_request(
        &mut self,
        env: &mut Env,
        key: ServerKey,
        request: &Message<'_>,
        origin: Origin,
    ) {
        match request.method() {
            Method::Ack => return self.on_ack(env, request),
            Method::Cancel => return self.on_cancel(env, key, request, origin),
            _ => {}
        }
        if let Err(fault) = request.validate() {
            env.counters.sip_malformed_answered += 1;
            if let Some((status, reason)) = fault.response() {
                self.refuse(env, request, origin, status, reason.as_bytes(), b"");
            }
            return;
        }
        if !self.layer.has_room() {
            return self.refuse_for_load(env, request, origin);
        }
        if let Some(tag) = request.to_tag() {
            if let Some((call, side, fork)) = self.find(tag) {
                return self.on_in_dialog(env, key, call, side, fork, request, origin);
            }
            if self.is_for_us(request.request_uri()) || self.open_token(tag).is_some() {
                env.counters.sip_unknown_dialog += 1;
                return self.refuse(
                    env,
                    request,
                    origin,
                    481,
                    b"Call/Transaction Does Not Exist",
                    b"",
                );
            }
        }
        if request.max_forwards() == Some(0) {
            // RFC 3261 16.3, 11: with no hop left, OPTIONS asks whoever it has come to.
            if request.method() == Method::Options {
                return self.answer_options(env, request, origin);
            }
            env.counters.sip_request_declined += 1;
            return self.refuse(env, request, origin, 483, b"Too Many Hops", b"");
        }
        let mut straight = env.pool.take();
        if request.to_tag().is_none() && self.straighten(&mut straight, request) {
            let mut index = self.index.take().unwrap_or_default();
            if let Ok(request) = parse(&straight, &mut index) {
                self.on_outside_dialog(env, key, &request, origin);
            }
            self.index = Some(index);
        } else {
            self.on_outside_dialog(env, key, request, origin);
        }
        env.pool.give(straight);
    }

    fn on_outside_dialog(
        &mut self,
        env: &mut Env,
        key: ServerKey,
        request: &Message<'_>,
        origin: Origin,
    ) {
        match request.method() {
            Method::Invite if request.to_tag().is_none() => {
                self.on_invite(env, key, request, origin);
            }
            Method::Invite => self.refuse(
                env,
                request,
                origin,
                481,
                b"Call/Transaction Does Not Exist",
                b"",
            ),
            Method::Options if self.asks_us(request, origin) => {
                self.answer_options(env, request, origin);
            }
            Method::Bye | Method::Prack | Method::Update => {
                env.counters.sip_unknown_dialog += 1;
                self.refuse(
                    env,
                    request,
                    origin,
                    481,
                    b"Call/Transaction Does Not Exist",
                    b"",
                );
            }
            Method::Other => {
                let allow = [b"Allow: ", ALLOW, b"\r\n"].concat();
                self.refuse(env, request, origin, 501, b"Not Implemented", &allow);
            }
            _ => self.on_event_request(env, key, request, origin),
        }
    }

    /// Refuses new calls from now on (503), established ones go on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// The store of call states (`overloaded`) or the backlog of records (`backlogged`) passed its
    /// high-water mark, or left it again: above it new calls are refused before anything
    /// established suffers; by a backlog only those whose records must not be lost.
    pub fn set_overload(&mut self, overloaded: bool, backlogged: bool) {
        (self.overloaded, self.backlogged) = (overloaded, backlogged);
    }

    /// Whether the store has no room for a call that it does not hold yet: one that is answered now
    /// is refused, for its answer could not leave.
    pub fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// Whether new calls are refused.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// The calls, in no useful order.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.calls.values()
    }

    /// Number of calls, those included whose records are not safe yet.
    #[must_use]
    pub fn call_count(&self) -> usize {
        self.calls.len()
    }

    /// Number of running transactions.
    #[must_use]
    pub fn transaction_count(&self) -> usize {
        self.layer.len()
    }

    /// A call of the table.
    #[must_use]
    pub fn call(&self, key: CallKey) -> Option<&Call> {
        self.calls.get(key)
    }

    /// Takes the calls that changed in this turn, to commit and charge them.
    pub fn take_touched(&mut self, into: &mut Vec<CallKey>) {
        into.append(&mut self.touched);
        for key in into.iter() {
            if let Some(call) = self.calls.get_mut(*key) {
                call.listed = false;
            }
        }
    }

    /// The call's state was committed.
    pub fn mark_committed(&mut self, key: CallKey) {
        if let Some(call) = self.calls.get_mut(key) {
            call.dirty = false;
            call.stored = true;
            call.takes_over = false;
        }
    }

    /// The pending record was handed to a connection.
    pub fn on_record_sent(&mut self, key: CallKey) {
        if let Some(call) = self.calls.get_mut(key) {
            call.state.charging.on_sent();
        }
    }

    /// The CDF answered the pending record.
    pub fn on_record_answered(&mut self, env: &mut Env, key: CallKey, answer: &AnswerSummary) {
        let Some(call) = self.calls.get_mut(key) else {
            return;
        };
        env.counters.acr_acknowledged += u64::from(answer.result_code / 1_000 == 2);
        let verdict = self
            .ctf
            .on_answer(env.now, &mut call.state.charging, answer);
        self.obey(env, key, verdict);
        self.touch(key);
    }

    /// The pending record could not be delivered.
    pub fn on_record_failed(
        &mut self,
        env: &mut Env,
        key: CallKey,
        storage: Storage,
        record: &mut Vec<u8>,
    ) -> FailureAction {
        match self.calls.get_mut(key) {
            Some(call) => {
                self.ctf
                    .on_send_failure(env.now, &mut call.state.charging, storage, record)
            }
            None => FailureAction::Nothing,
        }
    }

    /// A record of the call went into the backlog.
    pub fn mark_stored_records(&mut self, key: CallKey) {
        if let Some(call) = self.calls.get_mut(key) {
            call.has_stored_records = true;
            call.dirty = true;
        }
    }

    /// Does what charging decided outside of a SIP event.
    pub fn obey_charging(&mut self, env: &mut Env, key: CallKey, verdict: Verdict) {
        if self.calls.contains_key(key) {
            self.obey(env, key, verdict);
        }
    }

    /// Puts the call on the list of those to settle.
    pub fn touch_call(&mut self, key: CallKey) {
        self.touch(key);
    }

    /// Answers a request that could not be read in full.
    pub fn answer_malformed(
        &mut self,
        env: &mut Env,
        request: &Message<'_>,
        origin: Origin,
        status: u16,
        reason: &str,
    ) {
        if request.method() != Method::Ack && self.config.admits(origin.from) {
            self.refuse(env, request, origin, status, reason.as_bytes(), b"");
        }
    }

    /// Number of a call's charging class, for [`crate::config::Rf::class`].
    #[must_use]
    pub fn class_of(&self, key: CallKey) -> Option<u16> {
        Some(self.calls.get(key)?.state.class(&self.config))
    }

    /// What the charging trigger function counted.
    #[must_use]
    pub fn ctf_counters(&self) -> CtfCounters {
        self.ctf.counters
    }

    // ---- small things the other files of this module use

    fn touch(&mut self, key: CallKey) {
        if let Some(call) = self.calls.get_mut(key) {
            call.dirty = true;
            if !call.listed {
                call.listed = true;
                self.touched.push(key);
            }
        }
    }

    // Opens a call with a fresh id and no legs yet.
    fn open_call(&mut self, phase: Phase, peer: Origin, now: UnixMillis) -> CallKey {
        self.counter += 1;
        let token = Token {
            node: self.place.node,
            shard: self.place.shard,
            incarnation: self.place.incarnation,
            counter: self.counter,
        };
        let id = id_of(&token);
        let spare = self.spare.pop();
        let (texts, open, set_up) = match spare {
            Some(call) => (
                Texts::reusing(call.state.texts.into_memory()),
                call.state.open,
                call.set_up,
            ),
            None => (Texts::default(), Vec::new(), SetUp::default()),
        };
        let leg = Dialog::new(peer.from, peer.listener.own());
        let key = self.calls.insert(Call {
            state: CallState {
                id,
                phase,
                texts,
                legs: [leg.clone(), leg],
                charging: charging::state::ChargingState::default(),
                icid: crate::dialog::Text::EMPTY,
                access_network: crate::dialog::Text::EMPTY,
                called_identity: crate::dialog::Text::EMPTY,
                sdp: [crate::dialog::Text::EMPTY; 2],
                route: NO_ROUTE,
                class: None,
                begun: now,
                answered: None,
                up_since: UnixMillis::default(),
                open,
            },
            set_up,
            closing: [None; 2],
            unanswered: [None; 2],
            invites: [None, None],
            updates: [None; 2],
            refreshing: [None; 2],
            timers: [None; call::TIMERS],
            charging_due: None,
            dirty: false,
            listed: false,
            has_stored_records: false,
            stored: false,
            takes_over: false,
            waits_for: None,
            held: Vec::new(),
            parked: false,
        });
        self.by_id.insert(id, key);
        key
    }

    fn token_text(&self, id: u128) -> [u8; TOKEN_LEN] {
        let mut text = [0; TOKEN_LEN];
        self.tokens.mint(&token_of_id(id), 0, &mut text);
        text
    }

    fn open_token(&self, text: &[u8]) -> Option<Token> {
        self.tokens
            .open(text.get(..TOKEN_LEN)?)
            .map(|(token, _)| token)
    }

    // Our tag on a leg: the token, the leg, the fork.
    fn tag(&self, id: u128, side: Side, fork: u8) -> [u8; TAG_LEN] {
        let mut tag = [0; TAG_LEN];
        tag[..TOKEN_LEN].copy_from_slice(&self.token_text(id));
        tag[TOKEN_LEN] = b'a' + side as u8;
        tag[TOKEN_LEN + 1] = b'0' + fork;
        tag
    }

    fn fork_tags(&self, id: u128) -> [[u8; TAG_LEN]; call::FORKS_MAX] {
        let mut tags = [self.tag(id, Side::Originating, 0); call::FORKS_MAX];
        for (fork, tag) in tags.iter_mut().enumerate() {
            tag[TOKEN_LEN + 1] = b'0' + fork as u8;
        }
        tags
    }

    fn find(&self, tag: &[u8]) -> Option<(CallKey, Side, u8)> {
        let token = self.open_token(tag)?;
        let key = *self.by_id.get(&id_of(&token))?;
        let &[side, fork] = tag.get(TOKEN_LEN..)? else {
            return None;
        };
        let side = Side::from_index(side.wrapping_sub(b'a'));
        Some((key, side, fork.wrapping_sub(b'0')))
    }

    // Whether a URI names this node itself: one of our addresses, without a user or with a user
    // that is a token of ours.
    fn is_for_us(&self, uri: &[u8]) -> bool {
        let Ok(uri) = crate::sip::Uri::parse(uri) else {
            return false;
        };
        let ours = self.names_us(&uri);
        ours && uri.user.is_none_or(|user| self.open_token(user).is_some())
    }

    fn names_us(&self, uri: &crate::sip::Uri<'_>) -> bool {
        let port = uri.port.unwrap_or(5060);
        self.config
            .sip
            .advertise
            .iter()
            .zip(&self.config.sip.advertise_addrs)
            .any(|(text, address)| match address {
                Some(address) => uri.socket_addr() == Some(*address),
                None => text.rsplit_once(':').is_some_and(|(host, p)| {
                    uri.host.eq_ignore_ascii_case(host.as_bytes()) && p.parse() == Ok(port)
                }),
            })
            || uri
                .socket_addr()
                .is_some_and(|address| self.config.sip.listen.contains(&address))
    }
}

/// The call id that a token names.
#[must_use]
pub fn id_of(token: &Token) -> u128 {
    u128::from(token.node) << 112
        | u128::from(token.shard) << 96
        | u128::from(token.incarnation) << 64
        | u128::from(token.counter)
}

/// The token of a call id.
#[must_use]
pub fn token_of_id(id: u128) -> Token {
    Token {
        node: (id >> 112) as u16,
        shard: (id >> 96) as u16,
        incarnation: (id >> 64) as u32,
        counter: id as u64,
    }
}

/// FNV-1a, for values that need no secrecy: shard choice and stateless tags.
#[must_use]
pub fn fold(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn is_dialog_method(method: Method) -> bool {
    matches!(
        method,
        Method::Invite | Method::Update | Method::Subscribe | Method::Notify | Method::Refer
    )
}

fn no_session_timer() -> SessionTimer {
    SessionTimer::default()
}

/// Methods this node handles.
const ALLOW: &[u8] = b"INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE, INFO, REFER, NOTIFY, \
SUBSCRIBE, MESSAGE, PUBLISH, REGISTER";
/// Magic cookie of RFC 3261 8.1.1.7.
const COOKIE: &[u8] = b"z9hG4bK";
/// Length of our tags: token, leg, fork.
const TAG_LEN: usize = TOKEN_LEN + 2;
