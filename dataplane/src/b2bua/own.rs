//! What this node writes as itself: its Via and Contact, and answers that need no call.

use slotmap::Key;

use super::{ALLOW, B2bua, COOKIE, NO_ROUTE, Origin, Side, TOKEN_LEN, bridge, fold};
use crate::compose;
use crate::env::{CallKey, Env, ListenerId};
use crate::sip::{Message, write};
use crate::transaction::{TxnId, write_head};

impl B2bua {
    /// Our Via with the branch that brings the response back to transaction `id`.
    pub(super) fn write_via(&self, out: &mut Vec<u8>, call: u128, id: TxnId, listener: ListenerId) {
        out.extend_from_slice(b"Via: SIP/2.0/UDP ");
        out.extend_from_slice(self.host(listener));
        out.extend_from_slice(b";branch=");
        out.extend_from_slice(COOKIE);
        out.extend_from_slice(&self.token_text(call));
        out.push(b'.');
        self.layer.branch_ids.write(out, id);
        out.extend_from_slice(b";rport\r\n");
    }

    /// The branch of an ACK to a 2xx: of its own, and nothing answers to it.
    pub(super) fn write_ack_via(
        &self,
        out: &mut Vec<u8>,
        call: u128,
        id: TxnId,
        listener: ListenerId,
    ) {
        out.extend_from_slice(b"Via: SIP/2.0/UDP ");
        out.extend_from_slice(self.host(listener));
        out.extend_from_slice(b";branch=");
        out.extend_from_slice(COOKIE);
        out.extend_from_slice(&self.token_text(call));
        out.extend_from_slice(b".ack");
        self.layer.branch_ids.write(out, id);
        out.extend_from_slice(b";rport\r\n");
    }

    /// Our Contact without a message of the other side at hand.
    pub(super) fn write_own_contact(
        &self,
        out: &mut Vec<u8>,
        call: u128,
        side: Side,
        listener: ListenerId,
    ) {
        out.extend_from_slice(b"Contact: <sip:");
        out.extend_from_slice(&self.token_text(call));
        out.push(b'a' + side as u8);
        out.push(b'@');
        out.extend_from_slice(self.host(listener));
        out.extend_from_slice(b">\r\n");
    }

    /// Our Contact, with the feature parameters of the other side's.
    pub(super) fn write_contact(
        &self,
        out: &mut Vec<u8>,
        message: &Message<'_>,
        call: u128,
        side: Side,
        listener: ListenerId,
    ) {
        let mut user = [0; TOKEN_LEN + 1];
        user[..TOKEN_LEN].copy_from_slice(&self.token_text(call));
        user[TOKEN_LEN] = b'a' + side as u8;
        bridge::contact(out, message, &user, self.host(listener));
    }

    /// The advertised host and port of a listener.
    pub(super) fn host(&self, listener: ListenerId) -> &[u8] {
        self.config.sip.advertise[listener.index()].as_bytes()
    }

    /// Answers a request without keeping state (RFC 3261 8.2.7). `extra` are whole header lines.
    pub(super) fn refuse(
        &self,
        env: &mut Env,
        request: &Message<'_>,
        origin: Origin,
        status: u16,
        reason: &[u8],
        extra: &[u8],
    ) {
        let mut out = env.pool.take();
        write::status_line(&mut out, status, reason);
        let mut head = env.pool.take();
        let to = write_head(&mut head, request, origin.from);
        out.extend_from_slice(&head);
        env.pool.give(head);
        if request.to_tag().is_none() {
            // The same tag for every copy of the request: it depends on the Call-ID alone.
            out.extend_from_slice(b";tag=x");
            compose::hex(&mut out, fold(request.call_id()));
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(extra);
        compose::end_without_body(&mut out);
        env.out
            .push(CallKey::null(), to.address, origin.listener, &out);
        env.pool.give(out);
    }

    // Whether the new call that a request opens may be taken.
    pub(super) fn takes(&self, request: &Message<'_>, origin: Origin) -> bool {
        !self.draining
            && !self.overloaded
            && self.calls.len() < self.config.sip.calls_max
            && (!self.backlogged || self.opens_without_record(request, origin))
    }

    // Whether the call that a request opens may go on though its records are lost.
    fn opens_without_record(&self, request: &Message<'_>, origin: Origin) -> bool {
        let route = self.route_for(request, origin);
        let route = route.map_or(NO_ROUTE, |route| route.number);
        self.config
            .may_lose(self.config.class_of(route, origin.from))
    }

    /// Whether a call may lose its records, and none of them is in the backlog: above high water
    /// it leaves the room there to those that may not.
    #[must_use]
    pub fn yields_backlog(&self, key: CallKey) -> bool {
        self.calls.get(key).is_some_and(|call| {
            !call.has_stored_records && self.config.may_lose(call.state.class(&self.config))
        })
    }

    /// 503 with Retry-After.
    pub(super) fn refuse_for_load(&self, env: &mut Env, request: &Message<'_>, origin: Origin) {
        env.counters.sip_overload_refused += 1;
        self.refuse(
            env,
            request,
            origin,
            503,
            b"Service Unavailable",
            b"Retry-After: 5\r\n",
        );
    }

    /// Whether OPTIONS asks for the node itself: by its address alone, or with a user that no
    /// route leads to, as peers do that look whether the node is alive.
    pub(super) fn asks_us(&self, options: &Message<'_>, origin: Origin) -> bool {
        let uri = options.request_uri();
        let ours = crate::sip::Uri::parse(uri).is_ok_and(|uri| self.names_us(&uri));
        self.is_for_us(uri) || (ours && self.route_for(options, origin).is_none())
    }

    /// OPTIONS to the node itself: what it can do, and its load.
    pub(super) fn answer_options(&mut self, env: &mut Env, request: &Message<'_>, origin: Origin) {
        if self.draining {
            return self.refuse_for_load(env, request, origin);
        }
        let mut extra = env.pool.take();
        extra.extend_from_slice(b"Allow: ");
        extra.extend_from_slice(ALLOW);
        extra.extend_from_slice(b"\r\nAccept: application/sdp\r\nSupported: 100rel, timer\r\n");
        extra.extend_from_slice(b"X-Ringtoll-Calls: ");
        write::number(&mut extra, self.calls.len() as u64);
        extra.extend_from_slice(b"/");
        write::number(&mut extra, self.config.sip.calls_max as u64);
        extra.extend_from_slice(b"\r\n");
        self.refuse(env, request, origin, 200, b"OK", &extra);
        env.pool.give(extra);
    }
}
