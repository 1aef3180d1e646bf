//! Transactions that another process began.

use std::net::SocketAddr;

use super::{Layer, Machine, Owned, Transaction, key, server_invite};
use crate::env::{Env, ListenerId};
use crate::sip::{Message, Method};
use crate::transaction::TxnId;

impl<U: Owned> Layer<U> {
    /// Goes on with an INVITE server transaction of another process: sends `response`, a 2xx, until
    /// its ACK comes. The INVITE, should it come again, finds it by the Via that both share.
    pub fn go_on_answering(
        &mut self,
        env: &mut Env,
        response: &Message<'_>,
        to: SocketAddr,
        listener: ListenerId,
        user: U,
    ) -> TxnId {
        let key = key::key_of_cancelled(self.secret, response);
        let machine = Machine::ServerInvite(server_invite::State::Proceeding);
        let id = self.table.insert(Transaction {
            cseq: response.cseq().0,
            to_has_tag: true,
            key: Some(key),
            ..Transaction::new(machine, user, to, listener, Method::Invite)
        });
        self.by_key.insert(key, id);
        let bytes = env.pool.copy_of(response.raw());
        self.send_response(env, id, response.status(), bytes);
        id
    }
}
