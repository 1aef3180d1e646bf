//! Challenges of a trunk: 401 and 407 to what left over a route with credentials are answered by
//! ourselves (RFC 3261 22), so that the caller and its bill never learn of them.
//!
//! The request is sent again with a new branch, the next CSeq and the credentials. A second
//! challenge of it is answered only if it says that the nonce was stale, a third never.

use super::{B2bua, Role, Side, User};
use crate::compose;
use crate::env::{Env, ListenerId};
use crate::sip::digest::{Challenge, Credentials};
use crate::sip::{HeaderId, Message, Method, parse, write};
use crate::transaction::TxnId;

impl B2bua {
    /// Answers a challenge of the callee's side. False if it has to go its usual way.
    pub(super) fn answer_challenge(
        &mut self,
        env: &mut Env,
        id: TxnId,
        user: User,
        response: &Message<'_>,
    ) -> bool {
        let answered = self.layer.challenges(id);
        let Some((kind, challenge)) = self
            .credentials(user)
            .and(challenge_of(response))
            .filter(|(_, challenge)| answered == 0 || (answered == 1 && challenge.stale))
        else {
            return false;
        };
        let Some((kept, peer, listener)) = self.layer.request_of(id) else {
            return false;
        };
        let kept = env.pool.copy_of(kept);
        let mut index = self.index.take().unwrap_or_default();
        let sent = match parse(&kept, &mut index) {
            // The dialog of a SUBSCRIBE that is relayed as it is would be one CSeq behind.
            Ok(request) if user.role != Role::Event || request.method() != Method::Subscribe => {
                let value = self.authorization(env, user, &request, &challenge);
                value.map(|value| {
                    let line = (kind, &value[..]);
                    let new = self.send_again(env, user, &request, line, (peer, listener));
                    self.layer.set_challenges(new, answered + 1);
                })
            }
            _ => None,
        };
        self.index = Some(index);
        env.pool.give(kept);
        if sent.is_some() {
            env.counters.challenge_answered += 1;
        }
        sent.is_some()
    }

    // Who we are on the way to the callee, if the call's route says so.
    fn credentials(&self, user: User) -> Option<Credentials<'_>> {
        let call = self.calls.get(user.call)?;
        let route = self.config.sip.route(call.state.route)?;
        let auth = route.auth.as_ref()?;
        (user.side == Side::Terminating).then(|| Credentials {
            username: &auth.username,
            password: auth.password.reveal(),
        })
    }

    fn authorization(
        &self,
        env: &mut Env,
        user: User,
        request: &Message<'_>,
        challenge: &Challenge<'_>,
    ) -> Option<Vec<u8>> {
        let mut cnonce = Vec::new();
        compose::hex(&mut cnonce, env.rng.next_u64());
        let cnonce = String::from_utf8(cnonce).ok()?;
        let uri = std::str::from_utf8(request.request_uri()).ok()?;
        let credentials = self.credentials(user)?;
        let value = challenge.answer(request.method(), uri, credentials, &cnonce);
        value.ok().map(String::into_bytes)
    }

    fn send_again(
        &mut self,
        env: &mut Env,
        user: User,
        request: &Message<'_>,
        (kind, value): (HeaderId, &[u8]),
        (peer, listener): (std::net::SocketAddr, ListenerId),
    ) -> TxnId {
        let call = &mut self.calls[user.call];
        let call_id = call.state.id;
        let cseq = match user.role {
            Role::Event => request.cseq().0 + 1,
            _ => call.state.legs[user.side.index()].next_cseq(),
        };
        let method = request.method();
        let txn = self.layer.open_client(method, peer, listener, user);
        let mut out = env.pool.take();
        write::request_line(&mut out, request.method_text(), request.request_uri());
        self.write_via(&mut out, call_id, txn, listener);
        write::copy_headers(&mut out, request, |id| {
            !matches!(id, HeaderId::Via | HeaderId::CSeq | HeaderId::ContentLength) && id != kind
        });
        write::cseq(&mut out, cseq, request.method_text());
        write::header(&mut out, kind, value);
        compose::end_with_body(&mut out, request.body());
        self.take_place(user, txn, cseq, method);
        self.layer.start_client(env, txn, cseq, out);
        self.touch(user.call);
        txn
    }

    // The new transaction takes the place of the challenged one.
    fn take_place(&mut self, user: User, txn: TxnId, cseq: u32, method: Method) {
        let call = &mut self.calls[user.call];
        match user.role {
            Role::InviteClient | Role::Event => {
                call.set_up.client = Some(txn);
                call.set_up.forks.clear();
                call.set_up.fork_tags.clear();
            }
            Role::Bye => call.closing[user.side.index()] = Some(txn),
            _ => {}
        }
        if let (Role::Relay, Some(server)) = (user.role, user.link)
            && let Some(linked) = self.layer.user(server)
        {
            let link = Some(txn);
            self.layer.set_user(server, User { link, ..linked });
        }
        let asked = user.side.other().index();
        if method == Method::Invite
            && matches!(user.role, Role::InviteClient | Role::Relay)
            && let Some(bridged) = &mut self.calls[user.call].invites[asked]
        {
            (bridged.client, bridged.client_cseq) = (Some(txn), cseq);
        }
    }
}

// The first challenge of a response that can be answered, and where the answer goes.
fn challenge_of<'a>(response: &Message<'a>) -> Option<(HeaderId, Challenge<'a>)> {
    let (asks, answers) = match response.status() {
        401 => (HeaderId::WwwAuthenticate, HeaderId::Authorization),
        407 => (HeaderId::ProxyAuthenticate, HeaderId::ProxyAuthorization),
        _ => return None,
    };
    response
        .headers(asks)
        .find_map(|value| Challenge::parse(value).ok())
        .map(|challenge| (answers, challenge))
}
