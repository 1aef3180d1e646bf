//! What the end of a relayed request says of the call: whether its session is over with it.

use charging::trigger::CauseCode;

use super::call_state::Phase;
use super::{B2bua, User};
use crate::env::Env;
use crate::sip::{Message, Method};
use crate::transaction::TxnId;

impl B2bua {
    /// What a final response to a relayed request means for the call and its bill.
    pub(super) fn after_relayed(
        &mut self,
        env: &mut Env,
        id: TxnId,
        user: User,
        response: &Message<'_>,
    ) {
        let key = user.call;
        let (method, status) = (response.cseq().1, response.status());
        if method == Method::Invite && status >= 300 {
            let from = user.side.other();
            self.calls[key].invites[from.index()] = None;
            self.calls[key].close_invite(from, &mut env.pool);
        }
        self.trigger_event_inside(env, id, user, response);
        let sets_up = self.calls[key].state.phase == Phase::SettingUp;
        if sets_up && status < 300 && matches!(method, Method::Prack | Method::Update) {
            self.trigger_early_exchange(env, id, user, response);
        }
        if !self.calls[key].is_up() {
            return;
        }
        if matches!(method, Method::Invite | Method::Update) {
            let verdict = self.trigger_media(env, id, user, response);
            self.obey(env, key, verdict);
        }
        if ends_session(method, status) && self.calls[key].is_up() {
            self.end_call(env, key, CauseCode(i32::from(status)));
        }
        self.touch(key);
    }

    /// No answer came to a relayed request (Timers B and F).
    pub(super) fn on_relay_unanswered(
        &mut self,
        env: &mut Env,
        id: TxnId,
        user: User,
        method: Method,
    ) {
        if let Some(server) = user.link {
            self.answer_empty(env, server, 408, b"Request Timeout");
        }
        let Some(call) = self.calls.get_mut(user.call) else {
            return;
        };
        // What else was not answered, a PRACK for instance, leaves a pending INVITE as it is.
        let invite = &mut call.invites[user.side.other().index()];
        if invite
            .as_ref()
            .is_some_and(|bridged| bridged.client == Some(id))
        {
            *invite = None;
            call.close_invite(user.side.other(), &mut env.pool);
        }
        // RFC 5057 5.2: no answer means what a 408 would.
        if call.is_up() && ends_session(method, 408) {
            self.end_call(env, user.call, CauseCode(408));
        }
    }
}

/// Whether that failure of a request inside the dialog ends the session (RFC 5057 5.1, 5.3). One
/// dialog may serve a session and subscriptions beside it: a 481 or 408 to SUBSCRIBE, NOTIFY or
/// REFER ends the subscription alone, and MESSAGE belongs to neither. OPTIONS asks for the dialog
/// itself (RFC 3261 12.2.1.2).
pub(super) const fn ends_session(method: Method, status: u16) -> bool {
    match method {
        Method::Invite | Method::Update | Method::Prack | Method::Bye | Method::Options => {
            status == 481 || status == 408
        }
        // What an INFO tells is the application's: only a peer that does not know the session
        // has left it.
        Method::Info => status == 481,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_of_the_session_end_it() {
        for method in [Method::Invite, Method::Update, Method::Options] {
            assert!(ends_session(method, 481) && ends_session(method, 408));
            assert!(!ends_session(method, 480) && !ends_session(method, 500));
        }
        assert!(ends_session(Method::Info, 481) && !ends_session(Method::Info, 408));
        for method in [
            Method::Subscribe,
            Method::Notify,
            Method::Refer,
            Method::Message,
        ] {
            assert!(!ends_session(method, 481) && !ends_session(method, 408));
        }
    }
}
