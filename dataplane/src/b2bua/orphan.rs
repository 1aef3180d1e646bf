//! Transactions that outlive their call. A call leaves the table as soon as it is over for SIP
//! and its records are safe; requests that were under way then still get their answers, and a
//! 2xx that comes late its ACK.

use slotmap::Key;

use super::{B2bua, Origin, Role, Side, User};
use crate::compose;
use crate::dialog::{Dialog, Texts};
use crate::env::{CallKey, Env};
use crate::sip::{Message, Method, parse};
use crate::transaction::TxnId;

impl B2bua {
    /// A response to a request of a call that is no longer there.
    pub(super) fn on_orphan_response(
        &mut self,
        env: &mut Env,
        id: TxnId,
        user: User,
        response: &Message<'_>,
        origin: Origin,
    ) {
        let status = response.status();
        if status < 200 {
            // An INVITE that was left for the next hop, whose call is over.
            if user.role == Role::InviteClient {
                self.send_cancel(env, id, user.call, &[]);
            }
            return;
        }
        if status < 300 && response.cseq().1 == Method::Invite {
            self.end_orphan(env, id, user, response, origin);
        }
        if let (Role::Relay, Some(server)) = (user.role, user.link) {
            self.answer_empty(env, server, status, response.reason());
        }
    }

    /// A request of a call that is no longer there got no answer.
    pub(super) fn on_orphan_unanswered(&mut self, env: &mut Env, user: User) {
        if let (Role::Relay, Some(server)) = (user.role, user.link) {
            self.answer_empty(env, server, 408, b"Request Timeout");
        }
    }

    // RFC 3261 13.2.2.4: every 2xx to an INVITE gets its ACK. One that opens a dialog, be it that
    // of a fork or that of a caller who gave up, is ended at once; it never made a record.
    fn end_orphan(
        &mut self,
        env: &mut Env,
        id: TxnId,
        user: User,
        response: &Message<'_>,
        origin: Origin,
    ) {
        let branch = response
            .top_via()
            .and_then(|via| via.branch)
            .unwrap_or_default();
        let Some(token) = branch
            .get(super::COOKIE.len()..)
            .and_then(|text| self.open_token(text))
        else {
            return;
        };
        let call = super::id_of(&token);
        let Some((kept, peer, listener)) = self.layer.request_of(id) else {
            return;
        };
        let mut texts = Texts::default();
        let mut index = self.index.take().unwrap_or_default();
        let parsed = parse(kept, &mut index).ok().map(|invite| {
            let leg = Dialog::from_own_request(&mut texts, &invite, peer, listener);
            (leg, invite.cseq().0, invite.to_tag().is_none())
        });
        self.index = Some(index);
        let Some((mut leg, cseq, opens)) = parsed else {
            return;
        };
        texts.replace(&mut leg.remote_tag, response.to_tag().unwrap_or_default());
        if opens {
            leg.establish(&mut texts, response, origin.from);
        } else {
            leg.refresh_target(&mut texts, response, origin.from);
        }
        let mut ack = env.pool.take();
        leg.write_request(&texts, &mut ack, b"ACK", cseq, 70, |out| {
            self.write_ack_via(out, call, id, listener);
        });
        compose::end_without_body(&mut ack);
        env.out.push(CallKey::null(), leg.peer, listener, &ack);
        env.pool.give(ack);
        if opens
            && self
                .layer
                .note_ended(id, response.to_tag().unwrap_or_default())
        {
            self.bye_orphan(env, call, user, &leg, &texts, cseq + ORPHAN_CSEQ_STEP);
        }
    }

    fn bye_orphan(
        &mut self,
        env: &mut Env,
        call: u128,
        user: User,
        leg: &Dialog,
        texts: &Texts,
        cseq: u32,
    ) {
        let own = User {
            side: Side::Terminating,
            role: Role::Bye,
            link: None,
            ..user
        };
        let txn = self
            .layer
            .open_client(Method::Bye, leg.peer, leg.listener, own);
        let mut bye = env.pool.take();
        leg.write_request(texts, &mut bye, b"BYE", cseq, 70, |out| {
            self.write_via(out, call, txn, leg.listener);
        });
        compose::end_without_body(&mut bye);
        self.layer.start_client(env, txn, cseq, bye);
    }
}

/// The CSeq of the BYE stands that much above the INVITE's: the requests sent in early dialogs
/// took numbers in between, and which ones is no longer known.
const ORPHAN_CSEQ_STEP: u32 = 1_000;
