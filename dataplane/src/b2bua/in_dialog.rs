//! Requests inside the call's dialogs: ACK, and everything that is relayed to the other leg.

use super::bridge;
use super::call::BridgedInvite;
use super::call_state::Phase;
use super::{B2bua, Origin, Role, Side, User, is_dialog_method};
use crate::compose;
use crate::dialog::Dialog;
use crate::dialog::session_timer;
use crate::env::{CallKey, Env};
use crate::sip::{HeaderId, Message, Method, write};
use crate::transaction::{ServerKey, TxnId};

impl B2bua {
    /// A request whose To tag is ours.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn on_in_dialog(
        &mut self,
        env: &mut Env,
        key: ServerKey,
        call: CallKey,
        side: Side,
        fork: u8,
        request: &Message<'_>,
        origin: Origin,
    ) {
        if !self.is_from_peer(call, side, request) {
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
        let cseq = request.cseq().0;
        let goes_on = self.goes_on_with(call, side, request);
        let leg = &mut self.calls[call].state.legs[side.index()];
        if leg.remote_cseq.is_some_and(|seen| cseq <= seen) && !goes_on {
            // RFC 3261 12.2.2. An equal number in another transaction is as wrong.
            let (status, reason) = (500, b"CSeq Out Of Order");
            return self.decline(env, key, (call, side), request, origin, status, reason, b"");
        }
        leg.remote_cseq = Some(cseq);
        // A survivor has to go on from the CSeq numbers seen and used last.
        self.touch(call);
        let phase = self.calls[call].state.phase;
        match request.method() {
            Method::Bye => self.on_bye(env, key, call, side, request, origin),
            _ if phase == Phase::Ended => {
                let (status, reason) = (481, b"Call/Transaction Does Not Exist");
                self.decline(env, key, (call, side), request, origin, status, reason, b"");
            }
            Method::Invite if phase == Phase::SettingUp => {
                self.decline_for_now(env, key, (call, side), request, origin);
            }
            _ => self.relay(env, key, call, side, fork, request, origin),
        }
    }

    // Answers a request of a dialog with a failure, in a transaction: what is judged by the state
    // of the call must not be judged again when the request is repeated.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn decline(
        &mut self,
        env: &mut Env,
        key: ServerKey,
        (call, side): (CallKey, Side),
        request: &Message<'_>,
        origin: Origin,
        status: u16,
        reason: &[u8],
        extra: &[u8],
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
            .open_server(env, key, request, origin.from, origin.listener, user);
        if let Some(mut out) = self.layer.begin_response(env, server, status, reason, None) {
            out.extend_from_slice(extra);
            compose::end_without_body(&mut out);
            self.layer.send_response(env, server, status, out);
        }
    }

    // The dialog is identified by both tags and the Call-ID (RFC 3261 12).
    fn is_from_peer(&self, call: CallKey, side: Side, request: &Message<'_>) -> bool {
        let call = &self.calls[call];
        let texts = &call.state.texts;
        let from = request.from_tag().unwrap_or_default();
        let leg = &call.state.legs[side.index()];
        if texts.get(leg.call_id) != request.call_id() {
            return false;
        }
        texts.get(leg.remote_tag) == from
            || (side == Side::Terminating
                && call
                    .set_up
                    .forks
                    .iter()
                    .any(|fork| texts.get(fork.remote_tag) == from))
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn relay(
        &mut self,
        env: &mut Env,
        key: ServerKey,
        call: CallKey,
        side: Side,
        fork: u8,
        request: &Message<'_>,
        origin: Origin,
    ) {
        if request.max_forwards() == Some(0) {
            let (status, reason) = (483, b"Too Many Hops");
            return self.decline(env, key, (call, side), request, origin, status, reason, b"");
        }
        if !bridge::requires_only_known(request) {
            let mut extra = env.pool.take();
            bridge::unsupported(&mut extra, request);
            let (status, reason) = (420, b"Bad Extension");
            self.decline(
                env,
                key,
                (call, side),
                request,
                origin,
                status,
                reason,
                &extra,
            );
            return env.pool.give(extra);
        }
        let refreshes = matches!(request.method(), Method::Invite | Method::Update);
        if refreshes && !self.may_offer(env, key, (call, side), request, origin) {
            return;
        }
        if is_dialog_method(request.method()) {
            let state = &mut self.calls[call].state;
            let leg = &mut state.legs[side.index()];
            leg.refresh_target(&mut state.texts, request, origin.from);
        }
        let user = User {
            call,
            side,
            role: Role::Relay,
            link: None,
            fork,
            at: env.now.wall,
        };
        let server = self
            .layer
            .open_server(env, key, request, origin.from, origin.listener, user);
        self.note_update(call, side, server, request);
        if request.method() == Method::Invite {
            self.send_trying(env, server);
        }
        self.forward(env, call, side, fork, server, request);
        if request.method() == Method::Invite {
            self.keep_re_invite(env, (call, side), request, origin.from);
        }
        self.trigger_passing(env, call, side, request);
    }

    fn forward(
        &mut self,
        env: &mut Env,
        key: CallKey,
        side: Side,
        fork: u8,
        server: TxnId,
        request: &Message<'_>,
    ) {
        let to = side.other();
        let leg = self.early_leg(key, to, fork, request);
        let call = &mut self.calls[key];
        let cseq = call.state.legs[to.index()].next_cseq();
        let id = call.state.id;
        let user = User {
            call: key,
            side: to,
            role: Role::Relay,
            link: Some(server),
            fork,
            at: env.now.wall,
        };
        let method = request.method();
        let txn = self.layer.open_client(method, leg.peer, leg.listener, user);
        let mut out = env.pool.take();
        let forwards = request.max_forwards().unwrap_or(70).saturating_sub(1);
        let texts = &self.calls[key].state.texts;
        leg.write_request(
            texts,
            &mut out,
            request.method_text(),
            cseq,
            forwards,
            |out| {
                self.write_via(out, id, txn, leg.listener);
            },
        );
        if is_dialog_method(method) || method == Method::Info {
            self.write_contact(&mut out, request, id, to, leg.listener);
        }
        self.write_crossing(&mut out, request, key, to);
        let refreshes = matches!(method, Method::Invite | Method::Update);
        bridge::supported(&mut out, request, refreshes);
        bridge::require(&mut out, request, false);
        if method == Method::Prack {
            let acknowledged = self.calls[key].invites[side.index()].as_ref();
            bridge::rack(
                &mut out,
                request,
                acknowledged.map_or(1, |invite| invite.client_cseq),
            );
        }
        if refreshes && leg.session.expires_s > 0 {
            write_session_expires(&mut out, &leg.session, self.config.sip.session.min_se_s);
        }
        compose::end_with_body(&mut out, request.body());
        self.remember_sdp(key, to, request);
        if let Some(user) = self.layer.user(server) {
            self.layer.set_user(
                server,
                User {
                    link: Some(txn),
                    ..user
                },
            );
        }
        if method == Method::Invite {
            let cseqs = (request.cseq().0, cseq);
            self.bridge_invite(env, key, side, (server, txn), cseqs, request);
        }
        self.layer.start_client(env, txn, cseq, out);
    }

    // Notes which transactions of the two legs belong together until the ACK is through.
    fn bridge_invite(
        &mut self,
        env: &mut Env,
        key: CallKey,
        side: Side,
        (server, client): (TxnId, TxnId),
        (cseq, client_cseq): (u32, u32),
        request: &Message<'_>,
    ) {
        let bridged = BridgedInvite {
            server: Some(server),
            client: Some(client),
            cseq,
            client_cseq,
            late_offer: bridge::sdp_of(request).is_none(),
            ..BridgedInvite::default()
        };
        if let Some(old) = self.calls[key].invites[side.index()].replace(bridged) {
            env.pool.give(old.ack);
        }
    }

    // The dialog a request leaves in: before the answer, one of the early dialogs.
    fn early_leg(&self, key: CallKey, to: Side, fork: u8, request: &Message<'_>) -> Dialog {
        let call = &self.calls[key];
        let mut leg = call.state.legs[to.index()].clone();
        if call.state.phase != Phase::SettingUp {
            return leg;
        }
        match to {
            Side::Terminating => {
                if let Some(early) = call.set_up.forks.get(usize::from(fork)) {
                    leg = early.clone();
                }
            }
            Side::Originating => {
                // The caller knows each early dialog by a tag of its own; fork 0's is kept.
                let from = request.from_tag().unwrap_or_default();
                let place = call
                    .set_up
                    .forks
                    .iter()
                    .position(|early| call.state.texts.get(early.remote_tag) == from);
                leg.local_tag = place.map_or(leg.local_tag, |place| {
                    call.set_up
                        .fork_tags
                        .get(place)
                        .copied()
                        .unwrap_or(leg.local_tag)
                });
            }
        }
        leg
    }

    /// A response to a request that was relayed.
    pub(super) fn on_relayed_response(
        &mut self,
        env: &mut Env,
        id: TxnId,
        user: User,
        response: &Message<'_>,
        origin: Origin,
    ) {
        let (key, status) = (user.call, response.status());
        let Some(server) = user.link else { return };
        let (cseq, method) = response.cseq();
        let to = user.side.other();
        let invite = method == Method::Invite;
        let is_alive = self.calls[key].state.phase != Phase::Ended;
        if status == 100 || (is_alive && self.answer_challenge(env, id, user, response)) {
            return;
        }
        self.trigger_passing(env, key, user.side, response);
        self.touch(key);
        if invite && (200..300).contains(&status) {
            let bridged = self.calls[key].invites[to.index()].as_ref();
            let known = bridged.is_some_and(|bridged| bridged.client == Some(id));
            if known && bridged.is_some_and(|bridged| bridged.answered) {
                return self.repeat_ack(env, key, to);
            }
            if !known || self.calls[key].state.phase == Phase::Ended {
                return self.acknowledge_alone(env, key, user.side, cseq);
            }
        }
        let refreshes = invite || method == Method::Update;
        let success = (200..300).contains(&status);
        if success && is_dialog_method(method) {
            self.refresh_from(key, user, response, origin, refreshes, env);
        }
        if success && refreshes {
            self.relay_2xx(env, key, server, to, response, None);
            if let Some(bridged) = self.calls[key].invites[to.index()]
                .as_mut()
                .filter(|_| invite)
            {
                bridged.answered = true;
                self.keep_answer(env, key, to, server);
            }
            self.arm_established(env, key);
        } else {
            self.relay_response(env, key, server, to, response);
        }
        if status >= 200 {
            self.after_relayed(env, id, user, response);
        } else if invite {
            self.note_early_answer(key, to, id, response);
        }
    }

    fn refresh_from(
        &mut self,
        key: CallKey,
        user: User,
        response: &Message<'_>,
        origin: Origin,
        refreshes: bool,
        env: &Env,
    ) {
        let state = &mut self.calls[key].state;
        if state.phase == Phase::SettingUp {
            return;
        }
        let leg = &mut state.legs[user.side.index()];
        leg.refresh_target(&mut state.texts, response, origin.from);
        if refreshes {
            leg.session = session_timer::from_answer(leg.session, response, env.now.steady);
            state.legs[user.side.other().index()].session.refreshed = env.now.steady;
        }
    }

    fn relay_response(
        &mut self,
        env: &mut Env,
        key: CallKey,
        server: TxnId,
        to: Side,
        response: &Message<'_>,
    ) {
        let status = response.status();
        let Some(mut out) = self
            .layer
            .begin_response(env, server, status, response.reason(), None)
        else {
            return;
        };
        let (id, listener) = {
            let call = &self.calls[key];
            (call.state.id, call.state.legs[to.index()].listener)
        };
        if status < 300 && is_dialog_method(response.method()) {
            self.write_contact(&mut out, response, id, to, listener);
        }
        self.write_crossing(&mut out, response, key, to);
        bridge::supported(&mut out, response, false);
        bridge::require(&mut out, response, false);
        self.remember_sdp(key, to, response);
        compose::end_with_body(&mut out, response.body());
        self.layer.send_response(env, server, status, out);
    }

    /// An ACK that belongs to no failure: the ACK of a 2xx.
    pub(super) fn on_ack(&mut self, env: &mut Env, ack: &Message<'_>) {
        let found = ack.to_tag().and_then(|tag| self.find(tag));
        let Some((key, side, _)) = found else {
            env.counters.sip_ack_stray += 1;
            return;
        };
        let bridged = self.calls[key].invites[side.index()].as_ref();
        let server = bridged
            .filter(|b| b.cseq == ack.cseq().0)
            .and_then(|b| b.server);
        let Some(server) = server else {
            env.counters.sip_ack_stray += 1;
            return;
        };
        if self.layer.acknowledge(env, server) {
            self.pass_ack(env, key, side, Some(ack));
        }
    }

    /// Sends the ACK of a bridged INVITE to the other leg; `ack` is what the first leg sent.
    pub(super) fn pass_ack(
        &mut self,
        env: &mut Env,
        key: CallKey,
        side: Side,
        ack: Option<&Message<'_>>,
    ) {
        let to = side.other();
        let Some(bridged) = &self.calls[key].invites[side.index()] else {
            return;
        };
        let (cseq, late, client) = (bridged.client_cseq, bridged.late_offer, bridged.client);
        let mut out = env.pool.take();
        self.write_ack(&mut out, key, to, cseq, client, ack);
        let call = &mut self.calls[key];
        let leg = &call.state.legs[to.index()];
        env.out.push(key, leg.peer, leg.listener, &out);
        if let Some(bridged) = &mut call.invites[side.index()] {
            env.pool.give(std::mem::replace(&mut bridged.ack, out));
        }
        if ack.is_some() && call.close_invite(side, &mut env.pool) {
            if call.state.phase == Phase::Answered && side == Side::Originating {
                call.state.phase = Phase::Confirmed;
            }
            self.touch(key);
        }
        if let Some(ack) = ack.filter(|_| late) {
            self.remember_sdp(key, to, ack);
            self.touch(key);
            let verdict = self.trigger_ack(env, key, ack);
            self.obey(env, key, verdict);
        }
    }

    fn write_ack(
        &self,
        out: &mut Vec<u8>,
        key: CallKey,
        to: Side,
        cseq: u32,
        client: Option<TxnId>,
        ack: Option<&Message<'_>>,
    ) {
        let state = &self.calls[key].state;
        let leg = &state.legs[to.index()];
        let forwards = ack
            .and_then(|ack| ack.max_forwards())
            .unwrap_or(70)
            .saturating_sub(1);
        // RFC 3261 13.2.2.4: the ACK of a 2xx is a transaction of its own, so is its branch.
        leg.write_request(&state.texts, out, b"ACK", cseq, forwards, |out| {
            let branch = client.unwrap_or_default();
            self.write_ack_via(out, state.id, branch, leg.listener);
        });
        match ack {
            Some(ack) => {
                self.write_crossing(out, ack, key, to);
                compose::end_with_body(out, ack.body());
            }
            None => {
                self.write_icid(out, state, leg.peer);
                compose::end_without_body(out);
            }
        }
    }

    /// A 2xx that nobody waits for any more still gets its ACK.
    pub(super) fn acknowledge_alone(&mut self, env: &mut Env, key: CallKey, to: Side, cseq: u32) {
        let mut out = env.pool.take();
        self.write_ack(&mut out, key, to, cseq, None, None);
        let leg = &self.calls[key].state.legs[to.index()];
        env.out.push(key, leg.peer, leg.listener, &out);
        env.pool.give(out);
    }

    /// The 2xx came again: so does the ACK, if there was one already.
    pub(super) fn repeat_ack(&mut self, env: &mut Env, key: CallKey, side: Side) {
        let call = &self.calls[key];
        let leg = &call.state.legs[side.other().index()];
        if let Some(bridged) = call.invites[side.index()]
            .as_ref()
            .filter(|bridged| !bridged.ack.is_empty())
        {
            env.out.push(key, leg.peer, leg.listener, &bridged.ack);
        }
    }

    /// Keeps the SDP sent to a leg whose peer can only be refreshed by re-INVITE (RFC 4028 7.4).
    pub(super) fn remember_sdp(&mut self, key: CallKey, to: Side, message: &Message<'_>) {
        let state = &mut self.calls[key].state;
        if state.legs[to.index()].allows_update {
            return;
        }
        if let Some(sdp) = bridge::sdp_of(message).filter(|sdp| sdp.len() <= SDP_KEPT_MAX) {
            state.texts.replace(&mut state.sdp[to.index()], sdp);
        }
    }
}

/// Writes Session-Expires and Min-SE of a request on a leg whose timer is known.
pub(super) fn write_session_expires(
    out: &mut Vec<u8>,
    session: &crate::dialog::SessionTimer,
    min_se_s: u32,
) {
    out.extend_from_slice(b"Session-Expires: ");
    write::number(out, u64::from(session.expires_s));
    // Who refreshed keeps refreshing; from the UAC's place in this transaction, we are "uac".
    out.extend_from_slice(match session.refresher {
        Some(session_timer::Refresher::Peer) => b";refresher=uas\r\n",
        _ => b";refresher=uac\r\n",
    });
    write::header_number(out, HeaderId::MinSe, u64::from(min_se_s));
}

/// Longest SDP kept for a refresh by re-INVITE, bytes; with a longer one the session is only
/// refreshed by its peer.
const SDP_KEPT_MAX: usize = 4 * 1_024;
