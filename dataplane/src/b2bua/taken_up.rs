//! What a process that takes a call up does about messages that were under way in the one before:
//! their transactions are gone, and what the state of the call tells of them has to do.

use std::net::SocketAddr;

use super::call::BridgedInvite;
use super::call_state::{OpenInvite, Phase};
use super::{B2bua, Origin, Role, Side, User};
use crate::compose;
use crate::env::{CallKey, Env};
use crate::sip::{Message, Method, parse};
use crate::transaction::{MatchedRequest, TxnId};

impl B2bua {
    /// The call was over, and nobody knows whether both phones heard of it. One that did answers
    /// the second BYE with 481.
    pub(super) fn end_again(&mut self, env: &mut Env, key: CallKey) {
        let state = &self.calls[key].state;
        if state.phase != Phase::Ended || state.answered.is_none() {
            return;
        }
        for side in [Side::Originating, Side::Terminating] {
            self.send_bye(env, key, side, |b2bua, out| {
                let state = &b2bua.calls[key].state;
                b2bua.write_icid(out, state, state.legs[side.index()].peer);
                compose::end_without_body(out);
            });
        }
    }

    /// Until its ACK comes, the 2xx is part of what another node needs to go on with the call.
    pub(super) fn keep_answer(&mut self, env: &mut Env, key: CallKey, side: Side, server: TxnId) {
        let call = &mut self.calls[key];
        call.close_invite(side, &mut env.pool);
        let (Some(bridged), Some((message, peer, _))) =
            (&call.invites[side.index()], self.layer.request_of(server))
        else {
            return;
        };
        if message.len() > INVITE_KEPT_MAX {
            return;
        }
        call.state.open.push(OpenInvite {
            side: side as u8,
            message: env.pool.copy_of(message),
            peer,
            cseq: bridged.cseq,
            client_cseq: bridged.client_cseq,
            late_offer: bridged.late_offer,
            since: env.now.steady,
        });
    }

    /// Its sender got a 100 and repeats it no more: whoever takes the call up has to.
    pub(super) fn keep_re_invite(
        &mut self,
        env: &mut Env,
        (key, side): (CallKey, Side),
        request: &Message<'_>,
        from: SocketAddr,
    ) {
        let call = &mut self.calls[key];
        call.close_invite(side, &mut env.pool);
        let Some(bridged) = &call.invites[side.index()] else {
            return;
        };
        if request.raw().len() > INVITE_KEPT_MAX {
            return;
        }
        call.state.open.push(OpenInvite {
            side: side as u8,
            message: env.pool.copy_of(request.raw()),
            peer: from,
            cseq: bridged.cseq,
            client_cseq: bridged.client_cseq,
            late_offer: bridged.late_offer,
            since: env.now.steady,
        });
    }

    /// Goes on with the INVITEs of both legs that were not acknowledged. A 2xx comes first, for an
    /// INVITE of the other leg may only be judged when it is known.
    pub(super) fn go_on_with_invites(&mut self, env: &mut Env, key: CallKey) {
        let mut invites = std::mem::take(&mut self.calls[key].state.open);
        invites.sort_by_key(|invite| !invite.is_answered());
        let is_up = self.calls[key].is_up();
        for invite in invites.into_iter().filter(|_| is_up) {
            let mut index = self.index.take().unwrap_or_default();
            match parse(&invite.message, &mut index) {
                Ok(answer) if !answer.is_request() => self.answer_again(env, key, &invite, &answer),
                Ok(request) => self.ask_again(env, key, &invite, &request),
                Err(_) => {}
            }
            self.index = Some(index);
            env.pool.give(invite.message);
        }
    }

    // The ACK has not come: the 2xx is sent again until it does, and if it never does, the call
    // ends (RFC 3261 13.3.1.4). A phone that had sent it sends it again.
    fn answer_again(
        &mut self,
        env: &mut Env,
        key: CallKey,
        invite: &OpenInvite,
        answer: &Message<'_>,
    ) {
        let side = Side::from_index(invite.side);
        let call = &self.calls[key];
        let is_first = call.state.phase == Phase::Answered && side == Side::Originating;
        let user = User {
            call: key,
            side,
            role: if is_first {
                Role::InviteServer
            } else {
                Role::Relay
            },
            link: None,
            fork: 0,
            at: env.now.wall,
        };
        let listener = call.state.legs[side.index()].listener;
        let server = self
            .layer
            .go_on_answering(env, answer, invite.peer, listener, user);
        let call = &mut self.calls[key];
        call.invites[side.index()] = Some(BridgedInvite {
            server: Some(server),
            cseq: invite.cseq,
            client_cseq: invite.client_cseq,
            late_offer: invite.late_offer,
            answered: true,
            ..BridgedInvite::default()
        });
        call.state.open.push(OpenInvite {
            message: env.pool.copy_of(&invite.message),
            ..*invite
        });
    }

    // Nobody answered: the re-INVITE goes to the other leg as if it came only now.
    fn ask_again(
        &mut self,
        env: &mut Env,
        key: CallKey,
        invite: &OpenInvite,
        request: &Message<'_>,
    ) {
        let side = Side::from_index(invite.side);
        if let MatchedRequest::New(server) = self.layer.match_request(env, request) {
            self.calls[key].unanswered[side.index()] = None;
            let origin = Origin {
                from: invite.peer,
                listener: self.calls[key].state.legs[side.index()].listener,
            };
            self.relay(env, server, key, side, 0, request, origin);
        }
    }

    /// RFC 3261 13.2.2.4: a 2xx that comes again gets its ACK again, also where its INVITE is not
    /// known any more. False if it is no such 2xx.
    pub(super) fn acknowledge_stray(&mut self, env: &mut Env, response: &Message<'_>) -> bool {
        let (cseq, method) = response.cseq();
        if method != Method::Invite || response.status() / 100 != 2 {
            return false;
        }
        let found = response.from_tag().and_then(|tag| self.find(tag));
        let Some((key, side, _)) = found else {
            return false;
        };
        let state = &self.calls[key].state;
        let leg = &state.legs[side.index()];
        let is_peer = response.to_tag() == Some(state.texts.get(leg.remote_tag));
        let was_up = !matches!(state.phase, Phase::SettingUp | Phase::Event);
        if !is_peer || !was_up || state.answered.is_none() || cseq > leg.local_cseq {
            return false;
        }
        let awaited = state.open_invite(side.other());
        if awaited.is_some_and(|invite| invite.late_offer && invite.client_cseq == cseq) {
            return true; // only the ACK of who sent the INVITE has the answer to its offer
        }
        self.acknowledge_alone(env, key, side, cseq);
        true
    }

    /// Whether a request is the last one that its sender had sent when the call was taken up, and
    /// may be taken as if it came for the first time: it sets a state, and nobody answered it.
    pub(super) fn goes_on_with(&mut self, key: CallKey, side: Side, request: &Message<'_>) -> bool {
        let (cseq, method) = request.cseq();
        let unanswered = &mut self.calls[key].unanswered[side.index()];
        matches!(method, Method::Invite | Method::Update | Method::Bye)
            && unanswered.take_if(|last| *last == cseq).is_some()
    }
}

/// Longest re-INVITE or 2xx that is kept for whoever takes the call up, bytes; with a longer one it
/// does not go on.
const INVITE_KEPT_MAX: usize = 4 * 1_024;
