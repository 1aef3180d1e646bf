//! The transactions of a shard and what runs them.

mod again;

use std::net::SocketAddr;

use hashbrown::HashMap;
use slotmap::SlotMap;

use super::head::{BranchIds, write_failure_ack, write_head};
use super::{Act, Event, ServerKey, Timer, client, client_invite, key, server, server_invite};
use crate::env::{CallKey, Env, ListenerId, TimerKey};
use crate::sip::{Index, Message, Method, write};
use crate::timer::TimerHandle;

slotmap::new_key_type! {
    /// A transaction in its shard's table; stale ids find nothing.
    pub struct TxnId;
}

/// The standard's base timers, milliseconds (RFC 3261 17.1.1.1).
#[derive(Clone, Copy, Debug)]
pub struct Timers {
    /// Round-trip estimate, 500 ms.
    pub t1: u32,
    /// Longest retransmission interval of non-INVITE requests and INVITE responses, 4 s.
    pub t2: u32,
    /// Longest life of a message in the network, 5 s.
    pub t4: u32,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            t1: 500,
            t2: 4_000,
            t4: 5_000,
        }
    }
}

/// Limits of a shard's table.
#[derive(Clone, Copy, Debug)]
pub struct TxnLimits {
    /// Most transactions at once; further requests that open one are answered 503.
    pub transactions_max: usize,
}

impl Default for TxnLimits {
    fn default() -> Self {
        Self {
            transactions_max: 1 << 20,
        }
    }
}

/// What the user keeps with a transaction tells which call it serves.
pub trait Owned: Copy {
    /// The call.
    fn call(&self) -> CallKey;
}

/// The transactions of one shard. `U` is what the transaction user keeps with each.
pub struct Layer<U> {
    table: SlotMap<TxnId, Transaction<U>>,
    by_key: HashMap<ServerKey, TxnId>,
    by_source: HashMap<ServerKey, TxnId>,
    timers: Timers,
    limits: TxnLimits,
    secret: u64,
    /// How the transactions are named in branches.
    pub branch_ids: BranchIds,
    index: Box<Index>,
}

struct Transaction<U> {
    machine: Machine,
    user: U,
    peer: SocketAddr,
    listener: ListenerId,
    method: Method,
    // Client: the request. Server: the last response, empty before the first.
    message: Vec<u8>,
    // Client: the ACK of a failure. Server: what every response begins with.
    head: Vec<u8>,
    record_route: (u32, u32),
    cseq: u32,
    to_has_tag: bool,
    // The CANCEL of an INVITE, whose answer carries the INVITE's branch.
    cancel: Option<TxnId>,
    // Nobody wants the INVITE answered any more: it is not waited for without end.
    abandoned: bool,
    // Client: how many challenges the user had answered when it sent this request.
    challenges: u8,
    // INVITE client: what was hashed of the To tags of the 2xx that were ended at once.
    ended: [u16; ENDED_MAX],
    key: Option<ServerKey>,
    source: Option<ServerKey>,
    armed: [Option<TimerHandle>; 2],
    interval_ms: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Machine {
    ClientInvite(client_invite::State),
    Client(client::State),
    ServerInvite(server_invite::State),
    Server(server::State),
}

/// What a request turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchedRequest {
    /// A retransmission or the ACK of a failure: dealt with here.
    Absorbed,
    /// A new request, to be kept under this key.
    New(ServerKey),
    /// The same request came another way before (RFC 3261 8.2.2.2): 482.
    Merged,
}

/// What an expired timer means to the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired<U> {
    /// Nothing that concerns it.
    Nothing,
    /// A client transaction got no answer (Timer B or F).
    NoAnswer(TxnId, U),
    /// A 2xx to INVITE was never acknowledged (Timer L).
    NoAck(TxnId, U),
}

/// Extra facts of a server transaction's request.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead {
    /// CSeq number of the request.
    pub cseq: u32,
    /// Its method.
    pub method: Method,
    /// Whether its To header carried a tag already.
    pub to_has_tag: bool,
}

impl<U> Transaction<U> {
    fn new(
        machine: Machine,
        user: U,
        peer: SocketAddr,
        listener: ListenerId,
        method: Method,
    ) -> Self {
        Self {
            machine,
            user,
            peer,
            listener,
            method,
            message: Vec::new(),
            head: Vec::new(),
            record_route: (0, 0),
            cseq: 0,
            to_has_tag: false,
            cancel: None,
            abandoned: false,
            challenges: 0,
            ended: [0; ENDED_MAX],
            key: None,
            source: None,
            armed: [None; 2],
            interval_ms: 0,
        }
    }
}

impl<U: Owned> Layer<U> {
    /// An empty table. `secret` keys the hash that requests are found by.
    #[must_use]
    pub fn new(timers: Timers, limits: TxnLimits, secret: u64) -> Self {
        Self {
            table: SlotMap::with_key(),
            by_key: HashMap::new(),
            by_source: HashMap::new(),
            timers,
            limits,
            secret,
            branch_ids: BranchIds::new(secret),
            index: Box::new(Index::new()),
        }
    }

    /// Finds out what `request` is and absorbs retransmissions.
    pub fn match_request(&mut self, env: &mut Env, request: &Message<'_>) -> MatchedRequest {
        let key = key::key_of_request(self.secret, request);
        if let Some(&id) = self.by_key.get(&key) {
            let ack = request.method() == Method::Ack;
            if ack && !self.awaits_ack_of_failure(id) {
                return MatchedRequest::New(key); // the ACK of a 2xx that reuses the branch
            }
            if !ack {
                env.counters.sip_request_repeated += 1;
            }
            self.react(env, id, if ack { Event::Ack } else { Event::Request });
            return MatchedRequest::Absorbed;
        }
        if request.method() == Method::Invite && request.to_tag().is_none() {
            let source = key::merge_key(self.secret, request);
            if self.by_source.contains_key(&source) {
                return MatchedRequest::Merged;
            }
        }
        MatchedRequest::New(key)
    }

    /// The INVITE server transaction that `cancel` means, if it is there.
    #[must_use]
    pub fn cancelled(&self, cancel: &Message<'_>) -> Option<(TxnId, U)> {
        let key = key::key_of_cancelled(self.secret, cancel);
        let id = *self.by_key.get(&key)?;
        Some((id, self.table.get(id)?.user))
    }

    /// Whether a new transaction may still be opened.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.table.len() < self.limits.transactions_max
    }

    /// Opens a server transaction for `request`, which came `from` there through `listener`.
    pub fn open_server(
        &mut self,
        env: &mut Env,
        key: ServerKey,
        request: &Message<'_>,
        from: SocketAddr,
        listener: ListenerId,
        user: U,
    ) -> TxnId {
        let invite = request.method() == Method::Invite;
        let source =
            (invite && request.to_tag().is_none()).then(|| key::merge_key(self.secret, request));
        let mut head = env.pool.take();
        let written = write_head(&mut head, request, from);
        let machine = if invite {
            Machine::ServerInvite(server_invite::State::Proceeding)
        } else {
            Machine::Server(server::State::Trying)
        };
        let id = self.table.insert(Transaction {
            head,
            record_route: written.record_route,
            cseq: request.cseq().0,
            to_has_tag: request.to_tag().is_some(),
            key: Some(key),
            source,
            ..Transaction::new(machine, user, written.address, listener, request.method())
        });
        self.by_key.insert(key, id);
        if let Some(source) = source {
            self.by_source.insert(source, id);
        }
        id
    }

    /// Reserves a client transaction, whose id goes into the branch of the request to build.
    pub fn open_client(
        &mut self,
        method: Method,
        peer: SocketAddr,
        listener: ListenerId,
        user: U,
    ) -> TxnId {
        let machine = if method == Method::Invite {
            Machine::ClientInvite(client_invite::State::Calling)
        } else {
            Machine::Client(client::State::Trying)
        };
        self.table
            .insert(Transaction::new(machine, user, peer, listener, method))
    }

    /// Sends the request of a client transaction opened before.
    pub fn start_client(&mut self, env: &mut Env, id: TxnId, cseq: u32, request: Vec<u8>) {
        let Some(txn) = self.table.get_mut(id) else {
            return;
        };
        txn.message = request;
        txn.cseq = cseq;
        let acts = match txn.machine {
            Machine::ClientInvite(_) => client_invite::START,
            _ => client::START,
        };
        self.run(env, id, acts, None);
    }

    /// Sends the CANCEL of `invite` in a transaction opened before.
    pub fn start_cancel(
        &mut self,
        env: &mut Env,
        invite: TxnId,
        id: TxnId,
        cseq: u32,
        request: Vec<u8>,
    ) {
        if let Some(txn) = self.table.get_mut(invite) {
            txn.cancel = Some(id);
        }
        self.start_client(env, id, cseq, request);
    }

    /// Bounds the wait for the final response to an INVITE that was, or will be, cancelled: a
    /// peer that is gone sends none (RFC 3261 9.1, and 17.1.1.2 knows no end of Proceeding).
    pub fn abandon(&mut self, env: &mut Env, id: TxnId) {
        let Some(txn) = self.table.get_mut(id) else {
            return;
        };
        if std::mem::replace(&mut txn.abandoned, true) {
            return;
        }
        if txn.machine == Machine::ClientInvite(client_invite::State::Proceeding) {
            arm(env, &self.timers, txn, id, Timer::B, true);
        }
    }

    /// Stops sending an INVITE that nothing was heard of, and bounds the wait for what may come of
    /// it: another one has taken its place.
    pub fn leave(&mut self, env: &mut Env, id: TxnId) {
        if let Some(txn) = self.table.get_mut(id) {
            txn.abandoned = true;
            disarm(env, txn, Timer::A.slot());
        }
    }

    /// Whether a CANCEL was sent for an INVITE.
    #[must_use]
    pub fn is_cancelled(&self, id: TxnId) -> bool {
        self.table.get(id).is_some_and(|txn| txn.cancel.is_some())
    }

    /// Notes that the dialog of a 2xx with this To tag, one that nobody wants, is ended. False if
    /// that was noted before: the 2xx came again, and only its ACK has to (RFC 3261 13.2.2.4).
    pub fn note_ended(&mut self, id: TxnId, tag: &[u8]) -> bool {
        let hash = (key::hash_tag(self.secret, tag) as u16).max(1);
        let Some(txn) = self.table.get_mut(id) else {
            return true;
        };
        if txn.ended.contains(&hash) {
            return false;
        }
        if let Some(free) = txn.ended.iter_mut().find(|noted| **noted == 0) {
            *free = hash;
        }
        true
    }

    /// Takes a response whose branch names `id`. Tells whether the user must see it.
    pub fn on_response(&mut self, env: &mut Env, id: TxnId, response: &Message<'_>) -> Option<U> {
        let txn = self.table.get(id)?;
        let ours = matches!(txn.machine, Machine::ClientInvite(_) | Machine::Client(_));
        let (cseq, method) = response.cseq();
        if let (Method::Cancel, Method::Invite, Some(cancel)) = (method, txn.method, txn.cancel) {
            return self.on_response(env, cancel, response);
        }
        if !ours || cseq != txn.cseq || method != txn.method {
            return None;
        }
        // Ids begin anew with every run of the node, so the whole branch has to be ours: else the
        // answer to a request of the run before is taken for that to another call's.
        let branch = response.top_via()?.branch?;
        memchr::memmem::find(&txn.message, branch)?;
        let user = txn.user;
        let event = event_of_status(response.status());
        let acts = self.step(id, event)?;
        let to_user = self.run(env, id, acts, Some(response));
        if event == Event::Provisional
            && let Some(txn) = self.table.get_mut(id).filter(|txn| txn.abandoned)
            && txn.machine == Machine::ClientInvite(client_invite::State::Proceeding)
            && txn.armed[Timer::B.slot()].is_none()
        {
            arm(env, &self.timers, txn, id, Timer::B, true);
        }
        to_user.then_some(user)
    }

    /// Begins a response: status line and every header that the request dictates. The caller
    /// appends its own headers and the body and hands it to [`Layer::send_response`].
    pub fn begin_response(
        &self,
        env: &mut Env,
        id: TxnId,
        status: u16,
        reason: &[u8],
        to_tag: Option<&[u8]>,
    ) -> Option<Vec<u8>> {
        let txn = self.table.get(id)?;
        let mut buf = env.pool.take();
        write::status_line(&mut buf, status, reason);
        let (rr_start, rr_end) = (txn.record_route.0 as usize, txn.record_route.1 as usize);
        // RFC 3261 12.1.1: only responses that establish a dialog repeat the Record-Route.
        if (101..300).contains(&status) {
            buf.extend_from_slice(&txn.head);
        } else {
            buf.extend_from_slice(&txn.head[..rr_start]);
            buf.extend_from_slice(&txn.head[rr_end..]);
        }
        if let (Some(tag), false) = (to_tag, txn.to_has_tag) {
            buf.extend_from_slice(b";tag=");
            buf.extend_from_slice(tag);
        }
        buf.extend_from_slice(b"\r\n");
        Some(buf)
    }

    /// Sends a response that was begun with [`Layer::begin_response`].
    pub fn send_response(&mut self, env: &mut Env, id: TxnId, status: u16, response: Vec<u8>) {
        let Some(acts) = self.step(id, event_of_status(status)) else {
            env.pool.give(response);
            return;
        };
        if acts.is_empty() {
            env.pool.give(response); // a final response went out before: RFC 3261 17.2
            return;
        }
        if let Some(txn) = self.table.get_mut(id) {
            env.pool.give(std::mem::replace(&mut txn.message, response));
        }
        self.run(env, id, acts, None);
    }

    /// The ACK of the 2xx of INVITE server transaction `id` came. False if it came before.
    pub fn acknowledge(&mut self, env: &mut Env, id: TxnId) -> bool {
        match self.step(id, Event::Ack) {
            Some(acts) if !acts.is_empty() => {
                self.run(env, id, acts, None);
                true
            }
            _ => false,
        }
    }

    /// A timer of transaction `id` expired.
    pub fn on_timer(&mut self, env: &mut Env, id: TxnId, timer: Timer) -> Expired<U> {
        let Some(txn) = self.table.get_mut(id) else {
            return Expired::Nothing;
        };
        txn.armed[timer.slot()] = None;
        let user = txn.user;
        let server = matches!(txn.machine, Machine::ServerInvite(_) | Machine::Server(_));
        let Some(acts) = self.step(id, Event::Fired(timer)) else {
            return Expired::Nothing;
        };
        let timed_out = acts.contains(&Act::TimedOut);
        self.run(env, id, acts, None);
        match (timed_out, server) {
            (false, _) => Expired::Nothing,
            (true, false) => Expired::NoAnswer(id, user),
            (true, true) => Expired::NoAck(id, user),
        }
    }

    /// What the user keeps with a transaction.
    #[must_use]
    pub fn user(&self, id: TxnId) -> Option<U> {
        Some(self.table.get(id)?.user)
    }

    /// Changes what the user keeps with a transaction.
    pub fn set_user(&mut self, id: TxnId, user: U) {
        if let Some(txn) = self.table.get_mut(id) {
            txn.user = user;
        }
    }

    /// How many challenges the request of a client transaction answers.
    #[must_use]
    pub fn challenges(&self, id: TxnId) -> u8 {
        self.table.get(id).map_or(0, |txn| txn.challenges)
    }

    /// Notes how many challenges the request of a client transaction answers.
    pub fn set_challenges(&mut self, id: TxnId, count: u8) {
        if let Some(txn) = self.table.get_mut(id) {
            txn.challenges = count;
        }
    }

    /// The method of a transaction's request.
    #[must_use]
    pub fn method(&self, id: TxnId) -> Method {
        self.table.get(id).map_or(Method::Other, |txn| txn.method)
    }

    /// Facts of a server transaction's request.
    #[must_use]
    pub fn request_head(&self, id: TxnId) -> Option<RequestHead> {
        let txn = self.table.get(id)?;
        Some(RequestHead {
            cseq: txn.cseq,
            method: txn.method,
            to_has_tag: txn.to_has_tag,
        })
    }

    /// The request bytes, destination and listener of a client transaction.
    #[must_use]
    pub fn request_of(&self, id: TxnId) -> Option<(&[u8], SocketAddr, ListenerId)> {
        let txn = self.table.get(id)?;
        Some((&txn.message, txn.peer, txn.listener))
    }

    /// Whether the transaction still waits for, or has not sent, a final response.
    #[must_use]
    pub fn is_open(&self, id: TxnId) -> bool {
        self.table.get(id).is_some_and(|txn| {
            matches!(
                txn.machine,
                Machine::ClientInvite(
                    client_invite::State::Calling | client_invite::State::Proceeding
                ) | Machine::Client(client::State::Trying | client::State::Proceeding)
                    | Machine::ServerInvite(server_invite::State::Proceeding)
                    | Machine::Server(server::State::Trying | server::State::Proceeding)
            )
        })
    }

    /// Whether an INVITE client transaction has heard a provisional response and no final one:
    /// only then may a CANCEL be sent (RFC 3261 9.1).
    #[must_use]
    pub fn is_proceeding(&self, id: TxnId) -> bool {
        self.table.get(id).is_some_and(|txn| {
            txn.machine == Machine::ClientInvite(client_invite::State::Proceeding)
        })
    }

    /// Drops a client transaction that was never started or is no longer of interest.
    pub fn forget(&mut self, env: &mut Env, id: TxnId) {
        self.end(env, id);
    }

    /// Drops the transactions of whatever `is_over` names, without a word.
    pub fn drop_of(&mut self, env: &mut Env, is_over: impl Fn(CallKey) -> bool) {
        let over = self
            .table
            .iter()
            .filter(|(_, txn)| is_over(txn.user.call()));
        let over: Vec<TxnId> = over.map(|(id, _)| id).collect();
        for id in over {
            self.end(env, id);
        }
    }

    /// Shows the users of all transactions that still wait for, or have not sent, a final
    /// response.
    pub fn each_open(&self, mut show: impl FnMut(&U)) {
        for (id, txn) in &self.table {
            if self.is_open(id) {
                show(&txn.user);
            }
        }
    }

    /// Number of transactions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The base timers in force.
    #[must_use]
    pub fn timers(&self) -> Timers {
        self.timers
    }

    fn awaits_ack_of_failure(&self, id: TxnId) -> bool {
        self.table.get(id).is_some_and(|txn| {
            matches!(
                txn.machine,
                Machine::ServerInvite(
                    server_invite::State::Completed | server_invite::State::Confirmed
                )
            )
        })
    }

    fn react(&mut self, env: &mut Env, id: TxnId, event: Event) {
        if let Some(acts) = self.step(id, event) {
            self.run(env, id, acts, None);
        }
    }

    fn step(&mut self, id: TxnId, event: Event) -> Option<&'static [Act]> {
        let txn = self.table.get_mut(id)?;
        let (machine, acts) = match txn.machine {
            Machine::ClientInvite(state) => {
                let step = client_invite::step(state, event);
                (Machine::ClientInvite(step.next), step.acts)
            }
            Machine::Client(state) => {
                let step = client::step(state, event);
                (Machine::Client(step.next), step.acts)
            }
            Machine::ServerInvite(state) => {
                let step = server_invite::step(state, event);
                (Machine::ServerInvite(step.next), step.acts)
            }
            Machine::Server(state) => {
                let step = server::step(state, event);
                (Machine::Server(step.next), step.acts)
            }
        };
        txn.machine = machine;
        Some(acts)
    }

    // Runs the acts in order; tells whether the user must see the message.
    fn run(
        &mut self,
        env: &mut Env,
        id: TxnId,
        acts: &[Act],
        response: Option<&Message<'_>>,
    ) -> bool {
        let mut to_user = false;
        for act in acts {
            let Some(txn) = self.table.get_mut(id) else {
                break;
            };
            match *act {
                Act::Send => {
                    if !txn.message.is_empty() {
                        env.out
                            .push(txn.user.call(), txn.peer, txn.listener, &txn.message);
                    }
                }
                Act::Ack => {
                    if let (true, Some(response)) = (txn.head.is_empty(), response) {
                        let mut ack = env.pool.take();
                        write_failure_ack(&mut ack, &txn.message, response, &mut self.index);
                        txn.head = ack;
                    }
                    env.out
                        .push(txn.user.call(), txn.peer, txn.listener, &txn.head);
                }
                Act::ToUser => to_user = true,
                Act::Arm(timer) => arm(env, &self.timers, txn, id, timer, true),
                Act::Rearm(timer) => {
                    env.counters.sip_message_resent += 1;
                    arm(env, &self.timers, txn, id, timer, false);
                }
                Act::StopResend => disarm(env, txn, 0),
                Act::StopAll => {
                    disarm(env, txn, 0);
                    disarm(env, txn, 1);
                }
                Act::TimedOut => {}
                Act::End => self.end(env, id),
            }
        }
        to_user
    }

    fn end(&mut self, env: &mut Env, id: TxnId) {
        let Some(mut txn) = self.table.remove(id) else {
            return;
        };
        disarm(env, &mut txn, 0);
        disarm(env, &mut txn, 1);
        if let Some(key) = txn.key {
            self.by_key.remove(&key);
        }
        if let Some(source) = txn.source {
            self.by_source.remove(&source);
        }
        env.pool.give(txn.message);
        env.pool.give(txn.head);
    }
}

fn arm<U>(
    env: &mut Env,
    timers: &Timers,
    txn: &mut Transaction<U>,
    id: TxnId,
    timer: Timer,
    first: bool,
) {
    let lifetime = 64 * timers.t1;
    let delay = match timer {
        Timer::A | Timer::E | Timer::G | Timer::X => {
            let cap = if timer == Timer::A {
                u32::MAX
            } else {
                timers.t2
            };
            txn.interval_ms = if first {
                timers.t1
            } else {
                txn.interval_ms.saturating_mul(2).min(cap)
            };
            txn.interval_ms
        }
        // RFC 3261 17.1.1.2 wants at least 32 s for D over UDP: 64*T1 at the default T1, and with a
        // smaller one what the peer's Timer H lasts.
        Timer::B | Timer::D | Timer::F | Timer::H | Timer::J | Timer::L | Timer::M => lifetime,
        Timer::I | Timer::K => timers.t4,
    };
    disarm(env, txn, timer.slot());
    let handle = env.arm(u64::from(delay), TimerKey::Transaction(id, timer));
    txn.armed[timer.slot()] = Some(handle);
}

fn disarm<U>(env: &mut Env, txn: &mut Transaction<U>, slot: usize) {
    if let Some(handle) = txn.armed[slot].take() {
        env.wheel.cancel(handle);
    }
}

/// Dialogs of one INVITE that are remembered as ended; each 2xx of a further one is ended anew.
const ENDED_MAX: usize = 4;

fn event_of_status(status: u16) -> Event {
    match status {
        ..200 => Event::Provisional,
        200..300 => Event::Success,
        _ => Event::Failure,
    }
}
