//! What a process that takes a call up does about messages that were under way in the one before:
//! their transactions are gone, and what the state of the call tells of them has to do.

use super::call::BridgedInvite;
use super::call_state::Phase;
use super::{B2bua, Role, Side, User};
use crate::compose;
use crate::env::{CallKey, Env};
use crate::sip::{Message, Method, parse};

impl B2bua {
    /// The call was over, and nobody knows whether both phones heard of it. One that did answers
    /// the second BYE with 481.
    pub(super) fn end_again(&mut self, env: &mut Env, key: CallKey) {
        let state = &self.calls[key].state;
        if state.phase != Phase::Ended || state.answered.is_none() {
            return;
        }
        for side in [Side::Originating, Side::Terminating] {
            self.send_bye(env, key, side, |out, _| compose::end_without_body(out));
        }
    }

    /// The caller's ACK has not come: the 2xx is sent again until it does, and if it never does,
    /// the call ends (RFC 3261 13.3.1.4). A caller that had sent it sends it again.
    pub(super) fn answer_again(&mut self, env: &mut Env, key: CallKey) {
        let Some(answer) = self.calls[key].state.answer.clone() else {
            return;
        };
        let user = User {
            call: key,
            side: Side::Originating,
            role: Role::InviteServer,
            link: None,
            fork: 0,
            at: env.now.wall,
        };
        let listener = self.calls[key].state.legs[0].listener;
        let mut index = self.index.take().unwrap_or_default();
        let again = parse(&answer.message, &mut index).ok().map(|message| {
            let layer = &mut self.layer;
            layer.go_on_answering(env, &message, answer.to, listener, user)
        });
        self.index = Some(index);
        self.calls[key].invites[0] = Some(BridgedInvite {
            server: again,
            cseq: answer.cseq,
            client_cseq: answer.client_cseq,
            late_offer: answer.late_offer,
            answered: true,
            ..BridgedInvite::default()
        });
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
        let awaited = state.answer.as_ref().filter(|_| side == Side::Terminating);
        if awaited.is_some_and(|answer| answer.late_offer && answer.client_cseq == cseq) {
            return true; // only the caller's ACK has the answer to its offer
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
