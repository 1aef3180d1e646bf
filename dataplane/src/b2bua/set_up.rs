//! Setting a call up: the INVITE in, the INVITE out, and everything until the 2xx or the failure.

use charging::trigger::Verdict;

use super::bridge::{self, Crossing};
use super::call::{BridgedInvite, FORKS_MAX, HOP, RINGING};
use super::call_state::Phase;
use super::{B2bua, Origin, Role, Side, User, no_session_timer, replaces};
use crate::compose;
use crate::dialog::Dialog;
use crate::dialog::session_timer::{self, Asked};
use crate::dialog::text::TEXTS_MAX;
use crate::env::{CallKey, CallTimer, Env, TimerKey};
use crate::sip::{HeaderId, Message, Method, parse, write};
use crate::transaction::{ServerKey, TxnId};

impl B2bua {
    /// An INVITE outside any dialog.
    pub(super) fn on_invite(
        &mut self,
        env: &mut Env,
        key: ServerKey,
        invite: &Message<'_>,
        origin: Origin,
    ) {
        if !self.takes(invite, origin) {
            return self.refuse_for_load(env, invite, origin);
        }
        if !has_one_contact(invite) {
            env.counters.sip_malformed_answered += 1;
            return self.refuse(env, invite, origin, 400, b"Exactly One Contact Needed", b"");
        }
        if !bridge::requires_only_known(invite) {
            let mut extra = env.pool.take();
            bridge::unsupported(&mut extra, invite);
            env.counters.sip_request_declined += 1;
            self.refuse(env, invite, origin, 420, b"Bad Extension", &extra);
            return env.pool.give(extra);
        }
        let Asked::Agreed(session) =
            session_timer::judge_request(self.config.sip.session, invite, env.now.steady)
        else {
            let mut extra = env.pool.take();
            let floor = u64::from(self.config.sip.session.min_se_s);
            write::header_number(&mut extra, HeaderId::MinSe, floor);
            env.counters.sip_request_declined += 1;
            self.refuse(
                env,
                invite,
                origin,
                422,
                b"Session Interval Too Small",
                &extra,
            );
            return env.pool.give(extra);
        };
        let call = self.open_call(Phase::SettingUp, origin, env.now.wall);
        let user = User {
            call,
            side: Side::Originating,
            role: Role::InviteServer,
            link: None,
            fork: 0,
            at: env.now.wall,
        };
        let server = self
            .layer
            .open_server(env, key, invite, origin.from, origin.listener, user);
        self.send_trying(env, server);
        env.counters.call_started += 1;
        self.begin_legs(env, call, server, invite, origin);
        self.calls[call].state.legs[0].session = session;
        self.route_and_send(env, call, invite, origin);
    }

    /// 100 Trying at once: the peer stops repeating its INVITE (RFC 3261 17.2.1).
    pub(super) fn send_trying(&mut self, env: &mut Env, server: TxnId) {
        if let Some(mut out) = self.layer.begin_response(env, server, 100, b"Trying", None) {
            compose::end_without_body(&mut out);
            self.layer.send_response(env, server, 100, out);
        }
    }

    fn begin_legs(
        &mut self,
        env: &mut Env,
        key: CallKey,
        server: TxnId,
        invite: &Message<'_>,
        origin: Origin,
    ) {
        let id = self.calls[key].state.id;
        let tags = [
            self.tag(id, Side::Originating, 0),
            self.tag(id, Side::Terminating, 0),
        ];
        let host_at = origin.listener.index();
        let host = self.config.sip.advertise[host_at].as_bytes();
        let call = &mut self.calls[key];
        let state = &mut call.state;
        state.legs[0] = Dialog::from_request(
            &mut state.texts,
            invite,
            &tags[0],
            origin.from,
            origin.listener.own(),
        );
        let (from, to) = (state.legs[0].remote, state.legs[0].local);
        let callee = &mut state.legs[1];
        callee.call_id = state.texts.add_parts(&[&tags[1], b"@", host]);
        callee.local_tag = callee.call_id.first(tags[1].len());
        (callee.local, callee.remote) = (from, to);
        callee.remote_target = state.texts.add(invite.request_uri());
        callee.session = no_session_timer();
        call.set_up.server = Some(server);
        call.set_up.listener = origin.listener;
        let spare = std::mem::replace(&mut call.set_up.invite, env.pool.copy_of(invite.raw()));
        env.pool.give(spare);
        call.invites[0] = Some(BridgedInvite {
            server: Some(server),
            cseq: invite.cseq().0,
            late_offer: bridge::sdp_of(invite).is_none(),
            ..BridgedInvite::default()
        });
    }

    fn route_and_send(
        &mut self,
        env: &mut Env,
        key: CallKey,
        invite: &Message<'_>,
        origin: Origin,
    ) {
        let mut texts = std::mem::take(&mut self.calls[key].state.texts);
        let mut hops = std::mem::take(&mut self.calls[key].set_up.hops);
        let routed = self.route(env, &mut texts, invite, origin, &mut hops);
        let routed = routed.map(|(routes, route)| {
            self.calls[key].state.route = route;
            routes
        });
        let too_large = texts.len() > TEXTS_MAX;
        let call = &mut self.calls[key];
        call.state.texts = texts;
        call.set_up.hops = hops;
        let verdict = self.trigger_set_up(env, key, invite, origin);
        match routed {
            _ if too_large => self.fail_set_up(env, key, 513, b"Message Too Large", &[]),
            Err(no) => self.fail_set_up(env, key, no.status, no.reason, &[]),
            Ok(routes) => {
                self.calls[key].state.legs[1].route_set = routes;
                match verdict {
                    Verdict::GoOn => self.send_invite(env, key),
                    Verdict::Hold => {} // released by the answer to the credit check
                    Verdict::End(_) => {
                        env.counters.call_ended_by_charging += 1;
                        self.fail_set_up(env, key, 403, b"Forbidden", &[]);
                    }
                }
            }
        }
    }

    /// Sends the INVITE to the next hop that was not tried.
    pub(super) fn send_invite(&mut self, env: &mut Env, key: CallKey) {
        let call = &mut self.calls[key];
        let Some((peer, listener)) = call.set_up.hops.pop() else {
            return self.fail_set_up(env, key, 503, b"Service Unavailable", &[]);
        };
        let leg = &mut call.state.legs[1];
        (leg.peer, leg.listener) = (peer, listener);
        self.watch_hop(env, key);
        self.send_invite_again(env, key);
        if self.calls[key].timers[RINGING].is_none() {
            let delay = self.config.sip.ring_timeout_s * 1_000;
            let timer = env.arm(delay, TimerKey::Call(key, CallTimer::Ringing));
            self.calls[key].timers[RINGING] = Some(timer);
        }
        self.trigger_routed(env, key);
    }

    // Sends the kept INVITE to the hop that stands in leg B.
    fn send_invite_again(&mut self, env: &mut Env, key: CallKey) {
        let call = &mut self.calls[key];
        let (id, leg) = (call.state.id, &mut call.state.legs[1]);
        let (peer, listener, cseq) = (leg.peer, leg.listener, leg.next_cseq());
        let user = User {
            call: key,
            side: Side::Terminating,
            role: Role::InviteClient,
            link: call.set_up.server,
            fork: 0,
            at: env.now.wall,
        };
        call.set_up.forks.clear();
        let txn = self.layer.open_client(Method::Invite, peer, listener, user);
        let kept = std::mem::take(&mut self.calls[key].set_up.invite);
        let mut index = self.index.take().unwrap_or_default();
        let mut out = env.pool.take();
        if let Ok(invite) = parse(&kept, &mut index) {
            let call = &self.calls[key];
            let forwards = invite.max_forwards().unwrap_or(70).saturating_sub(1);
            call.state.legs[1].write_request(
                &call.state.texts,
                &mut out,
                b"INVITE",
                cseq,
                forwards,
                |out| self.write_via(out, id, txn, listener),
            );
            self.write_contact(&mut out, &invite, id, Side::Terminating, listener);
            self.write_crossing(&mut out, &invite, key, Side::Terminating);
            let wanted = self.config.sip.session;
            bridge::supported(&mut out, &invite, true);
            bridge::require(&mut out, &invite, false);
            if wanted.expires_s > 0 {
                let floor = wanted.min_se_s.max(call.set_up.min_se_s);
                let expires = wanted.expires_s.max(floor);
                write::header_number(&mut out, HeaderId::SessionExpires, u64::from(expires));
                write::header_number(&mut out, HeaderId::MinSe, u64::from(floor));
            }
            compose::end_with_body(&mut out, invite.body());
        }
        self.index = Some(index);
        let call = &mut self.calls[key];
        call.set_up.invite = kept;
        call.set_up.client = Some(txn);
        if let Some(bridged) = &mut call.invites[0] {
            (bridged.client, bridged.client_cseq) = (Some(txn), cseq);
        }
        self.layer.start_client(env, txn, cseq, out);
    }

    /// Copies what crosses to `side`, and sees to the charging vector.
    pub(super) fn write_crossing(
        &self,
        out: &mut Vec<u8>,
        message: &Message<'_>,
        key: CallKey,
        side: Side,
    ) {
        let call = &self.calls[key];
        let legs = &call.state.legs;
        let crossing = Crossing {
            trust: self.trust(legs[side.other().index()].peer, legs[side.index()].peer),
            contact: false,
            names_dialog: replaces::names_dialog(message),
        };
        bridge::copy_end_to_end(out, message, crossing);
        if crossing.names_dialog {
            self.write_named_dialogs(out, message);
        }
        if crossing.trust.wants_vector(message) {
            call.state.write_charging_vector(out);
        }
    }

    /// A response to the INVITE that went to the callee.
    pub(super) fn on_invite_response(
        &mut self,
        env: &mut Env,
        id: TxnId,
        user: User,
        response: &Message<'_>,
        origin: Origin,
    ) {
        if self.calls[user.call].set_up.client == Some(id) {
            self.hear_hop(env, user.call);
        } else if response.status() < 200 {
            // It was left for the next hop, and comes too late.
            return self.send_cancel(env, id, user.call, &[]);
        }
        match response.status() {
            ..200 => self.on_provisional(env, id, user, response, origin),
            200..300 => self.on_answer(env, id, user, response, origin),
            _ => self.on_refusal(env, id, user, response),
        }
    }

    fn on_provisional(
        &mut self,
        env: &mut Env,
        id: TxnId,
        user: User,
        response: &Message<'_>,
        origin: Origin,
    ) {
        let call = &mut self.calls[user.call];
        if call.set_up.cancel_pending {
            call.set_up.cancel_pending = false;
            self.send_cancel(env, id, user.call, &[]);
        }
        let call = &self.calls[user.call];
        if call.set_up.over || response.status() == 100 || call.state.phase != Phase::SettingUp {
            return;
        }
        let Some(fork) = self.fork_of(user.call, response, origin) else {
            return;
        };
        let Some(server) = self.calls[user.call].set_up.server else {
            return;
        };
        self.calls[user.call].set_up.rang = true;
        self.trigger_early_media(env, user.call, response);
        self.trigger_passing(env, user.call, Side::Terminating, response);
        let call_id = self.calls[user.call].state.id;
        let tag = self.tag(call_id, Side::Originating, fork);
        let status = response.status();
        let Some(mut out) =
            self.layer
                .begin_response(env, server, status, response.reason(), Some(&tag))
        else {
            return;
        };
        let listener = self.calls[user.call].set_up.listener;
        self.write_contact(&mut out, response, call_id, Side::Originating, listener);
        self.write_crossing(&mut out, response, user.call, Side::Originating);
        bridge::supported(&mut out, response, false);
        bridge::require(&mut out, response, false);
        compose::end_with_body(&mut out, response.body());
        self.layer.send_response(env, server, status, out);
    }

    // The early dialog that a response belongs to, opened if it is new (RFC 3261 13.2.2.4).
    // `None` when there are too many.
    fn fork_of(&mut self, key: CallKey, response: &Message<'_>, origin: Origin) -> Option<u8> {
        let id = self.calls[key].state.id;
        let tags = self.fork_tags(id);
        let call = &mut self.calls[key];
        let tag = response.to_tag().unwrap_or_default();
        let texts = &mut call.state.texts;
        let forks = &mut call.set_up.forks;
        let known = forks
            .iter()
            .position(|fork| texts.get(fork.remote_tag) == tag);
        let place = match known {
            Some(place) => place,
            None if forks.len() >= FORKS_MAX || texts.len() > TEXTS_MAX => return None,
            None => {
                let place = forks.len();
                let first = call.state.legs[0].local_tag;
                let shown = match texts.get(first) == tags[place] {
                    true => first,
                    false => texts.add(&tags[place]),
                };
                call.set_up.fork_tags.push(shown);
                forks.push(call.state.legs[1].clone());
                place
            }
        };
        let fresh = known.is_none();
        let has_target = response.header(HeaderId::Contact).is_some();
        if fresh || (has_target && forks[place].remote_target == call.state.legs[1].remote_target) {
            forks[place].establish(texts, response, origin.from);
        }
        Some(place as u8)
    }

    fn on_answer(
        &mut self,
        env: &mut Env,
        id: TxnId,
        user: User,
        response: &Message<'_>,
        origin: Origin,
    ) {
        self.refuse_if_full(env, user.call);
        let call = &self.calls[user.call];
        let winner = call.state.texts.get(call.state.legs[1].remote_tag);
        if call.state.answered.is_some() && response.to_tag().unwrap_or_default() == winner {
            let bridged = call.invites[0].as_ref();
            if bridged.is_some_and(|bridged| bridged.client == Some(id)) {
                return self.repeat_ack(env, user.call, Side::Originating);
            }
            // A re-INVITE has taken the place of the first one, whose ACK was lost or overtaken.
            let cseq = response.cseq().0;
            return self.acknowledge_alone(env, user.call, user.side, cseq);
        }
        let is_left = call.set_up.client != Some(id);
        if is_left || call.set_up.over || call.state.phase != Phase::SettingUp {
            // Another fork or hop answered too, or the caller gave up first (RFC 3261 13.2.2.4,
            // 9.1).
            self.acknowledge_and_end(env, user.call, id, response, origin);
            return self.close_client(env, user.call, id);
        }
        let Some(fork) = self.fork_of(user.call, response, origin) else {
            return self.acknowledge_and_end(env, user.call, id, response, origin);
        };
        self.win(env, user, fork, response, origin);
    }

    // A call that cannot be stored must not come up: nothing of it could leave.
    fn refuse_if_full(&mut self, env: &mut Env, key: CallKey) {
        let call = &mut self.calls[key];
        if self.full && call.state.phase == Phase::SettingUp && !call.set_up.over {
            call.set_up.client = None; // it answered, so there is nothing to cancel
            env.counters.sip_overload_refused += 1;
            self.fail_set_up(env, key, 503, b"Service Unavailable", &[]);
        }
    }

    // The first 2xx: the call is up.
    fn win(&mut self, env: &mut Env, user: User, fork: u8, response: &Message<'_>, origin: Origin) {
        let key = user.call;
        let call_id = self.calls[key].state.id;
        let tag = self.tag(call_id, Side::Originating, fork);
        let call = &mut self.calls[key];
        let cseq = call.state.legs[1].local_cseq;
        call.state.legs[1] = call.set_up.forks[usize::from(fork)].clone();
        let state = &mut call.state;
        let callee = &mut state.legs[1];
        callee.local_cseq = cseq;
        callee.establish(&mut state.texts, response, origin.from);
        callee.session = session_timer::from_response(response, env.now.steady);
        let shown = call.set_up.fork_tags.get(usize::from(fork)).copied();
        let shown = shown.filter(|shown| state.texts.get(*shown) == tag);
        state.legs[0].local_tag = shown.unwrap_or_else(|| state.texts.add(&tag));
        state.legs[0].session.refreshed = env.now.steady;
        state.phase = Phase::Answered;
        (state.answered, state.up_since) = (Some(env.now.wall), env.now.steady);
        let Some(server) = call.set_up.server else {
            return;
        };
        if let Some(bridged) = &mut call.invites[0] {
            bridged.answered = true;
        }
        call.set_up.over = true;
        call.set_up.client = None;
        if let Some(timer) = call.timers[RINGING].take() {
            env.wheel.cancel(timer);
        }
        env.counters.call_answered += 1;
        self.relay_2xx(env, key, server, Side::Originating, response, Some(&tag));
        self.remember_sdp(key, Side::Originating, response);
        self.with_invite(key, |b2bua, invite| {
            b2bua.remember_sdp(key, Side::Terminating, invite);
        });
        self.arm_established(env, key);
        self.keep_answer(env, key, Side::Originating, server);
        let verdict = self.trigger_answered(env, key, response, user.at);
        self.obey(env, key, verdict);
        self.touch(key);
    }

    /// Relays a 2xx to INVITE or UPDATE to `side` with what is ours on that leg.
    pub(super) fn relay_2xx(
        &mut self,
        env: &mut Env,
        key: CallKey,
        server: TxnId,
        side: Side,
        response: &Message<'_>,
        tag: Option<&[u8]>,
    ) {
        let status = response.status();
        let Some(mut out) = self
            .layer
            .begin_response(env, server, status, response.reason(), tag)
        else {
            return;
        };
        let (call_id, leg) = {
            let call = &self.calls[key];
            (call.state.id, &call.state.legs[side.index()])
        };
        let (listener, session) = (leg.listener, leg.session);
        self.write_contact(&mut out, response, call_id, side, listener);
        self.write_crossing(&mut out, response, key, side);
        bridge::supported(&mut out, response, true);
        let peer_refreshes =
            session.refresher == Some(session_timer::Refresher::Peer) && session.expires_s > 0;
        bridge::require(&mut out, response, peer_refreshes);
        if session.expires_s > 0 {
            out.extend_from_slice(b"Session-Expires: ");
            write::number(&mut out, u64::from(session.expires_s));
            // The peer is the UAC of this transaction.
            out.extend_from_slice(if peer_refreshes {
                b";refresher=uac\r\n"
            } else {
                b";refresher=uas\r\n"
            });
        }
        compose::end_with_body(&mut out, response.body());
        self.layer.send_response(env, server, status, out);
    }

    fn on_refusal(&mut self, env: &mut Env, id: TxnId, user: User, response: &Message<'_>) {
        let call = &mut self.calls[user.call];
        if call.set_up.client != Some(id) {
            return;
        }
        call.set_up.client = None;
        let hop = call.state.legs[1].peer;
        if response.status() == 503 {
            self.penalise_hop(env, hop, Some(response));
        }
        if self.calls[user.call].set_up.over {
            return self.close_client(env, user.call, id);
        }
        if self.answer_challenge(env, id, user, response) {
            return;
        }
        let call = &mut self.calls[user.call];
        let status = response.status();
        let floor = session_timer::min_se_of(response);
        if status == 422 && floor > call.set_up.min_se_s && call.set_up.retries < RETRIES_MAX {
            call.set_up.retries += 1;
            call.set_up.min_se_s = floor;
            return self.send_invite_again(env, user.call);
        }
        // RFC 3263 4.3: the next hop is tried on 503, unless the callee rang already.
        if status == 503 && !call.set_up.rang && !call.set_up.hops.is_empty() {
            return self.send_invite(env, user.call);
        }
        self.relay_refusal(env, user.call, response);
        self.end_set_up(env, user.call, status, response);
    }

    fn relay_refusal(&mut self, env: &mut Env, key: CallKey, response: &Message<'_>) {
        let call = &self.calls[key];
        let Some(server) = call.set_up.server else {
            return;
        };
        let (id, status) = (call.state.id, response.status());
        let tag = self.tag(id, Side::Originating, 0);
        let Some(mut out) =
            self.layer
                .begin_response(env, server, status, response.reason(), Some(&tag))
        else {
            return;
        };
        let state = &call.state;
        let crossing = Crossing {
            trust: self.trust(state.legs[1].peer, state.legs[0].peer),
            contact: true,
            names_dialog: false,
        };
        bridge::copy_end_to_end(&mut out, response, crossing);
        if crossing.trust.wants_vector(response) {
            state.write_charging_vector(&mut out);
        }
        for value in response.headers(HeaderId::Unsupported) {
            write::header(&mut out, HeaderId::Unsupported, value);
        }
        compose::end_with_body(&mut out, response.body());
        self.layer.send_response(env, server, status, out);
    }

    /// No answer at all came to the INVITE (Timer B): the next hop, or 408.
    pub(super) fn on_invite_unanswered(&mut self, env: &mut Env, id: TxnId, key: CallKey) {
        let call = &mut self.calls[key];
        if call.set_up.client != Some(id) {
            return;
        }
        call.set_up.client = None;
        let (hop, heard) = (call.state.legs[1].peer, call.set_up.heard);
        if !heard {
            self.penalise_hop(env, hop, None);
        }
        let call = &self.calls[key];
        if call.set_up.over {
            return self.close_client(env, key, id);
        }
        if call.set_up.hops.is_empty() {
            self.fail_set_up(env, key, 408, b"Request Timeout", &[]);
        } else {
            self.send_invite(env, key);
        }
    }

    /// Ends a set-up with an answer of our own.
    pub(super) fn fail_set_up(
        &mut self,
        env: &mut Env,
        key: CallKey,
        status: u16,
        reason: &[u8],
        reasons: &[&[u8]],
    ) {
        let call = &self.calls[key];
        if let Some(server) = call.set_up.server {
            let tag = self.tag(call.state.id, Side::Originating, 0);
            if let Some(mut out) =
                self.layer
                    .begin_response(env, server, status, reason, Some(&tag))
            {
                if status == 503 {
                    out.extend_from_slice(b"Retry-After: 5\r\n");
                }
                compose::end_without_body(&mut out);
                self.layer.send_response(env, server, status, out);
            }
        }
        self.close_set_up(env, key);
        self.trigger_set_up_failed(env, key, status, reasons);
        self.touch(key);
    }

    fn end_set_up(&mut self, env: &mut Env, key: CallKey, status: u16, response: &Message<'_>) {
        self.close_set_up(env, key);
        self.trigger_refused(env, key, status, response);
        self.touch(key);
    }

    // The caller has its final answer. What the callee's side still does is only cleaned up.
    fn close_set_up(&mut self, env: &mut Env, key: CallKey) {
        env.counters.call_failed += 1;
        let call = &mut self.calls[key];
        call.set_up.over = true;
        call.state.phase = Phase::Ended;
        for slot in [RINGING, HOP] {
            if let Some(timer) = call.timers[slot].take() {
                env.wheel.cancel(timer);
            }
        }
        if let Some(client) = call.set_up.client {
            self.cancel_client(env, key, client, &[]);
        }
    }

    /// Nobody answered for too long.
    pub(super) fn on_ringing_too_long(&mut self, env: &mut Env, key: CallKey) {
        self.calls[key].timers[RINGING] = None;
        if self.calls[key].state.phase == Phase::SettingUp {
            self.fail_set_up(env, key, 408, b"Request Timeout", &[]);
        }
    }

    // The INVITE towards the callee has come to its end after the caller's did.
    fn close_client(&mut self, _env: &mut Env, key: CallKey, id: TxnId) {
        let call = &mut self.calls[key];
        if call.set_up.client == Some(id) {
            call.set_up.client = None;
        }
        self.touch(key);
    }
}

// RFC 3261 8.1.1.8: where the requests of the dialog go.
fn has_one_contact(invite: &Message<'_>) -> bool {
    let mut contacts = invite.values(HeaderId::Contact);
    contacts.next().is_some_and(|contact| contact != b"*") && contacts.next().is_none()
}

/// How often a 422 is answered with a larger interval (RFC 4028 7.3).
const RETRIES_MAX: u8 = 2;
