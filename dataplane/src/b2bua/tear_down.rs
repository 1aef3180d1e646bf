//! Ending calls: BYE, CANCEL, and the endings we decide ourselves.

use charging::trigger::{CauseCode, Verdict};

use super::call_state::Phase;
use super::{B2bua, Origin, Role, Side, User};
use crate::compose;
use crate::dialog::Dialog;
use crate::env::{CallKey, Env};
use crate::sip::{HeaderId, Message, Method, parse, write};
use crate::transaction::{ServerKey, TxnId};

impl B2bua {
    /// A BYE inside a dialog: answered at once, passed on as a BYE of our own.
    pub(super) fn on_bye(
        &mut self,
        env: &mut Env,
        key: ServerKey,
        call: CallKey,
        side: Side,
        bye: &Message<'_>,
        origin: Origin,
    ) {
        let user = User {
            call,
            side,
            role: Role::Local,
            link: None,
            fork: 0,
            at: env.now.wall,
        };
        let server = self
            .layer
            .open_server(env, key, bye, origin.from, origin.listener, user);
        self.answer_empty(env, server, 200, b"OK");
        match self.calls[call].state.phase {
            Phase::SettingUp => self.on_early_bye(env, call, side, bye),
            Phase::Answered | Phase::Confirmed => {
                // RFC 3261 15: the ACK may come after the BYE, or never.
                let unacknowledged = self.calls[call].state.phase == Phase::Answered;
                self.acknowledge_pending(env, call);
                self.end_other_leg(env, call, side, bye);
                self.close_call(env, call);
                self.trigger_bye(env, call, side, bye, unacknowledged);
                self.touch(call);
            }
            Phase::Ended | Phase::Event => {}
        }
    }

    // RFC 3261 15: the caller may end an early dialog with BYE; here it ends the set-up.
    fn on_early_bye(&mut self, env: &mut Env, call: CallKey, side: Side, bye: &Message<'_>) {
        if side == Side::Originating {
            let reasons = reasons_of(bye);
            self.fail_set_up(env, call, 487, b"Request Terminated", &reasons.list());
        }
    }

    // RFC 3261 13.2.2.4: a 2xx gets its ACK from us even if the one we relayed it to never sends
    // his, else its sender repeats it for 64*T1 into a dialog that is over.
    fn acknowledge_pending(&mut self, env: &mut Env, call: CallKey) {
        for side in [Side::Originating, Side::Terminating] {
            let bridged = self.calls[call].invites[side.index()].as_ref();
            if bridged.is_some_and(|bridged| bridged.answered && bridged.ack.is_empty()) {
                self.pass_ack(env, call, side, None);
            }
        }
    }

    fn end_other_leg(&mut self, env: &mut Env, call: CallKey, side: Side, bye: &Message<'_>) {
        self.send_bye(env, call, side.other(), |b2bua, out| {
            // The header fields of the BYE pass, Reason among them.
            b2bua.write_crossing(out, bye, call, side.other());
            compose::end_with_body(out, bye.body());
        });
    }

    /// Ends an answered call from our side: BYE on both legs, and the closing record.
    pub(super) fn end_call(&mut self, env: &mut Env, call: CallKey, cause: CauseCode) {
        if !self.calls[call].is_up() {
            return;
        }
        self.acknowledge_pending(env, call);
        // RFC 3326 knows status codes only: what failed inside is a server's error to a phone.
        let reason = match cause {
            CauseCode::INTERNAL_ERROR => Some(500),
            CauseCode(code @ 400..700) => Some(code.unsigned_abs()),
            _ => None,
        };
        for side in [Side::Originating, Side::Terminating] {
            self.send_bye(env, call, side, |b2bua, out| {
                let state = &b2bua.calls[call].state;
                b2bua.write_icid(out, state, state.legs[side.index()].peer);
                if let Some(code) = reason {
                    out.extend_from_slice(b"Reason: SIP;cause=");
                    write::number(out, code.into());
                    out.extend_from_slice(b"\r\n");
                }
                compose::end_without_body(out);
            });
        }
        self.close_call(env, call);
        self.trigger_ended(env, call, cause);
        self.touch(call);
    }

    /// Does what charging decided.
    pub(super) fn obey(&mut self, env: &mut Env, call: CallKey, verdict: Verdict) {
        match verdict {
            Verdict::GoOn | Verdict::Hold => {}
            Verdict::End(cause) => {
                env.counters.call_ended_by_charging += 1;
                self.end_call(env, call, cause);
            }
        }
    }

    pub(super) fn send_bye(
        &mut self,
        env: &mut Env,
        key: CallKey,
        side: Side,
        rest: impl FnOnce(&Self, &mut Vec<u8>),
    ) {
        let call = &mut self.calls[key];
        let (id, leg) = (call.state.id, &mut call.state.legs[side.index()]);
        let (peer, listener, cseq) = (leg.peer, leg.listener, leg.next_cseq());
        let user = User {
            call: key,
            side,
            role: Role::Bye,
            link: None,
            fork: 0,
            at: env.now.wall,
        };
        let txn = self.layer.open_client(Method::Bye, peer, listener, user);
        let mut out = env.pool.take();
        let state = &self.calls[key].state;
        state.legs[side.index()].write_request(&state.texts, &mut out, b"BYE", cseq, 70, |out| {
            self.write_via(out, id, txn, listener)
        });
        rest(self, &mut out);
        self.layer.start_client(env, txn, cseq, out);
        self.calls[key].closing[side.index()] = Some(txn);
    }

    /// The answer to a BYE of ours.
    pub(super) fn on_bye_response(
        &mut self,
        env: &mut Env,
        id: TxnId,
        user: User,
        response: &Message<'_>,
    ) {
        if response.status() < 200 || self.answer_challenge(env, id, user, response) {
            return;
        }
        self.on_bye_over(id, user);
        self.trigger_bye_answered(env, user, response);
    }

    /// A BYE of ours was answered, or never will be.
    pub(super) fn on_bye_over(&mut self, id: TxnId, user: User) {
        if let Some(call) = self.calls.get_mut(user.call)
            && let Some(closing) = call.closing.iter_mut().find(|one| **one == Some(id))
        {
            *closing = None;
            self.list(user.call);
        }
    }

    // The call is over for SIP: whatever still waits on either leg gets its answer.
    fn close_call(&mut self, env: &mut Env, key: CallKey) {
        env.counters.call_ended += 1;
        let call = &mut self.calls[key];
        call.state.phase = Phase::Ended;
        call.close_invites(&mut env.pool);
        call.set_up.over = true;
        for timer in &mut call.timers[super::call::SESSION..] {
            if let Some(handle) = timer.take() {
                env.wheel.cancel(handle);
            }
        }
        for side in [Side::Originating, Side::Terminating] {
            let Some(bridged) = &self.calls[key].invites[side.index()] else {
                continue;
            };
            let (server, client) = (bridged.server, bridged.client);
            if let Some(server) = server.filter(|id| self.layer.is_open(*id)) {
                self.answer_empty(env, server, 487, b"Request Terminated");
            }
            if let Some(client) = client.filter(|id| self.layer.is_open(*id)) {
                self.cancel_client(env, key, client, &[]);
            }
        }
    }

    /// A CANCEL (RFC 3261 9.2).
    pub(super) fn on_cancel(
        &mut self,
        env: &mut Env,
        key: ServerKey,
        cancel: &Message<'_>,
        origin: Origin,
    ) {
        let Some((invite, user)) = self.layer.cancelled(cancel) else {
            return self.refuse(
                env,
                cancel,
                origin,
                481,
                b"Call/Transaction Does Not Exist",
                b"",
            );
        };
        let own = User {
            role: Role::Local,
            link: None,
            ..user
        };
        let server = self
            .layer
            .open_server(env, key, cancel, origin.from, origin.listener, own);
        self.answer_empty(env, server, 200, b"OK");
        if !self.layer.is_open(invite) || !self.calls.contains_key(user.call) {
            return; // the final response went out before: the CANCEL has no effect
        }
        let reasons = reasons_of(cancel);
        match user.role {
            Role::InviteServer => {
                if let Some(client) = self.calls[user.call].set_up.client {
                    self.cancel_client(env, user.call, client, &reasons.list());
                }
                self.fail_set_up(env, user.call, 487, b"Request Terminated", &reasons.list());
            }
            Role::Relay => {
                self.answer_empty(env, invite, 487, b"Request Terminated");
                if let Some(client) = user.link {
                    self.cancel_client(env, user.call, client, &reasons.list());
                }
                self.calls[user.call].invites[user.side.index()] = None;
            }
            _ => {}
        }
    }

    /// Sends a CANCEL for a pending INVITE, now or as soon as a provisional response allows it.
    pub(super) fn cancel_client(
        &mut self,
        env: &mut Env,
        key: CallKey,
        client: TxnId,
        reasons: &[&[u8]],
    ) {
        self.layer.abandon(env, client);
        if self.layer.is_proceeding(client) {
            self.send_cancel(env, client, key, reasons);
        } else if self.layer.is_open(client) {
            self.calls[key].set_up.cancel_pending = true;
        }
    }

    /// Sends a CANCEL: same Request-URI, Via, Route, From, To, Call-ID and CSeq number as the
    /// INVITE (RFC 3261 9.1).
    pub(super) fn send_cancel(
        &mut self,
        env: &mut Env,
        invite: TxnId,
        key: CallKey,
        reasons: &[&[u8]],
    ) {
        if self.layer.is_cancelled(invite) {
            return;
        }
        let Some((kept, peer, listener)) = self.layer.request_of(invite) else {
            return;
        };
        let mut out = env.pool.take();
        let mut index = self.index.take().unwrap_or_default();
        let cseq = parse(kept, &mut index).ok().map(|invite| {
            write_cancel_head(&mut out, &invite, reasons);
            if let Some(call) = self.calls.get(key) {
                self.write_icid(&mut out, &call.state, peer);
            }
            compose::end_without_body(&mut out);
            invite.cseq().0
        });
        self.index = Some(index);
        let Some(cseq) = cseq else {
            return env.pool.give(out);
        };
        let user = User {
            call: key,
            side: Side::Terminating,
            role: Role::Cancel,
            link: None,
            fork: 0,
            at: env.now.wall,
        };
        // The CANCEL carries the INVITE's branch, so its answer comes to the INVITE's
        // transaction and is not told apart from a stray one there: nothing waits for it.
        let txn = self.layer.open_client(Method::Cancel, peer, listener, user);
        self.layer.start_cancel(env, invite, txn, cseq, out);
    }

    /// A 2xx to an INVITE whose call is over or was won by another fork: ACK, then BYE. Its
    /// repetitions get their ACK alone.
    pub(super) fn acknowledge_and_end(
        &mut self,
        env: &mut Env,
        key: CallKey,
        invite: TxnId,
        response: &Message<'_>,
        origin: Origin,
    ) {
        let tag = response.to_tag().unwrap_or_default();
        let is_first = self.layer.note_ended(invite, tag);
        let state = &mut self.calls[key].state;
        let used = state.texts.len();
        let mut leg: Dialog = state.legs[1].clone();
        let cseq = response.cseq().0;
        leg.remote_tag = state.texts.add(tag);
        leg.establish(&mut state.texts, response, origin.from);
        let (id, peer, listener) = (state.id, leg.peer, leg.listener);
        let mut ack = env.pool.take();
        let state = &self.calls[key].state;
        leg.write_request(&state.texts, &mut ack, b"ACK", cseq, 70, |out| {
            self.write_ack_via(out, id, invite, listener);
        });
        self.write_icid(&mut ack, state, peer);
        compose::end_without_body(&mut ack);
        env.out.push(key, peer, listener, &ack);
        env.pool.give(ack);
        if is_first {
            self.end_fork(env, key, &leg);
        }
        self.calls[key].state.texts.truncate(used);
        self.touch(key);
    }

    fn end_fork(&mut self, env: &mut Env, key: CallKey, leg: &Dialog) {
        let state = &mut self.calls[key].state;
        let (id, cseq) = (state.id, state.legs[1].next_cseq());
        let (peer, listener) = (leg.peer, leg.listener);
        let user = User {
            call: key,
            side: Side::Terminating,
            role: Role::Bye,
            link: None,
            fork: 0,
            at: env.now.wall,
        };
        let txn = self.layer.open_client(Method::Bye, peer, listener, user);
        let mut bye = env.pool.take();
        let state = &self.calls[key].state;
        leg.write_request(&state.texts, &mut bye, b"BYE", cseq, 70, |out| {
            self.write_via(out, id, txn, listener);
        });
        self.write_icid(&mut bye, state, peer);
        compose::end_without_body(&mut bye);
        self.layer.start_client(env, txn, cseq, bye);
    }

    /// Answers a server transaction with nothing but a status.
    pub(super) fn answer_empty(
        &mut self,
        env: &mut Env,
        server: TxnId,
        status: u16,
        reason: &[u8],
    ) {
        let user = self.layer.user(server);
        let tag = user
            .and_then(|user| self.calls.get(user.call))
            .map(|call| self.tag(call.state.id, Side::Originating, 0));
        let tag = tag.as_ref().map(|tag| &tag[..]);
        if let Some(mut out) = self.layer.begin_response(env, server, status, reason, tag) {
            compose::end_without_body(&mut out);
            self.layer.send_response(env, server, status, out);
        }
    }

    /// A 2xx of ours was never acknowledged (RFC 3261 13.3.1.4): both legs end.
    pub(super) fn on_ack_missing(&mut self, env: &mut Env, id: TxnId, user: User) {
        env.counters.call_ack_missing += 1;
        let Some(call) = self.calls.get(user.call) else {
            return;
        };
        let pending = call.invites[user.side.index()].as_ref();
        if pending.is_none_or(|invite| invite.server != Some(id)) || !call.is_up() {
            return;
        }
        let cause = match self.calls[user.call].state.phase {
            Phase::Answered => CauseCode::UNSUCCESSFUL_SETUP,
            _ => CauseCode(408),
        };
        self.end_call(env, user.call, cause);
    }
}

fn write_cancel_head(out: &mut Vec<u8>, invite: &Message<'_>, reasons: &[&[u8]]) {
    write::request_line(out, b"CANCEL", invite.request_uri());
    if let Some(via) = invite.header(HeaderId::Via) {
        write::header(out, HeaderId::Via, via);
    }
    for route in invite.headers(HeaderId::Route) {
        write::header(out, HeaderId::Route, route);
    }
    write::header(out, HeaderId::MaxForwards, b"70");
    write::header(
        out,
        HeaderId::From,
        invite.header(HeaderId::From).unwrap_or_default(),
    );
    write::header(
        out,
        HeaderId::To,
        invite.header(HeaderId::To).unwrap_or_default(),
    );
    write::header(out, HeaderId::CallId, invite.call_id());
    write::cseq(out, invite.cseq().0, b"CANCEL");
    for reason in reasons {
        write::header(out, HeaderId::Reason, reason);
    }
}

/// The Reason values of a request, a few at most.
pub(super) struct Reasons<'a> {
    values: [&'a [u8]; REASONS_MAX],
    len: usize,
}

impl<'a> Reasons<'a> {
    /// The values.
    pub(super) fn list(&self) -> Vec<&'a [u8]> {
        self.values[..self.len].to_vec()
    }
}

/// Takes the Reason values of a request (RFC 3326).
pub(super) fn reasons_of<'a>(request: &Message<'a>) -> Reasons<'a> {
    let mut reasons = Reasons {
        values: [&[]; REASONS_MAX],
        len: 0,
    };
    for value in request.values(HeaderId::Reason).take(REASONS_MAX) {
        reasons.values[reasons.len] = value;
        reasons.len += 1;
    }
    reasons
}

const REASONS_MAX: usize = 4;
