//! Requests outside dialogs (MESSAGE, SUBSCRIBE, PUBLISH, REGISTER ...), relayed as a pair of
//! transactions: the peers keep their dialog identifiers and talk past us afterwards, while
//! Via and Route are ours on each side.

use charging::trigger::Verdict;

use super::call_state::Phase;
use super::trust::Trust;
use super::{B2bua, Origin, Role, Side, User};
use crate::compose;
use crate::dialog::Way;
use crate::env::{CallKey, Env};
use crate::sip::{HeaderId, Message, parse, write};
use crate::transaction::{ServerKey, TxnId};

impl B2bua {
    /// A non-INVITE request that is not for us.
    pub(super) fn on_event_request(
        &mut self,
        env: &mut Env,
        key: ServerKey,
        request: &Message<'_>,
        origin: Origin,
    ) {
        if !self.takes(request, origin) {
            return self.refuse_for_load(env, request, origin);
        }
        if let Some(required) = request.header(HeaderId::ProxyRequire) {
            let mut extra = env.pool.take();
            write::header(&mut extra, HeaderId::Unsupported, required);
            env.counters.sip_request_declined += 1;
            self.refuse(env, request, origin, 420, b"Bad Extension", &extra);
            return env.pool.give(extra);
        }
        let call = self.open_call(Phase::Event, origin, env.now.wall);
        let user = User {
            call,
            side: Side::Originating,
            role: Role::Event,
            link: None,
            fork: 0,
            at: env.now.wall,
        };
        let server = self
            .layer
            .open_server(env, key, request, origin.from, origin.listener, user);
        env.counters.event_relayed += 1;
        let mut texts = std::mem::take(&mut self.calls[call].state.texts);
        let mut hops = std::mem::take(&mut self.calls[call].set_up.hops);
        let routed = self.route(env, &mut texts, request, origin, &mut hops);
        let entry = &mut self.calls[call];
        let routed = routed.map(|(routes, route)| {
            entry.state.route = route;
            routes
        });
        entry.state.texts = texts;
        entry.set_up.hops = hops;
        entry.set_up.server = Some(server);
        entry.set_up.invite = env.pool.copy_of(request.raw());
        let verdict = self.trigger_event_request(env, call, request, origin);
        match (routed, verdict) {
            (Err(no), _) => self.fail_event(env, call, no.status, no.reason),
            (_, Verdict::End(_)) => self.fail_event(env, call, 403, b"Forbidden"),
            (_, Verdict::Hold) => {}
            (Ok(routes), Verdict::GoOn) => {
                self.calls[call].state.legs[1].route_set = routes;
                self.send_event(env, call);
            }
        }
    }

    fn send_event(&mut self, env: &mut Env, key: CallKey) {
        let Some((peer, listener)) = self.calls[key].set_up.hops.pop() else {
            return self.fail_event(env, key, 503, b"Service Unavailable");
        };
        let leg = &mut self.calls[key].state.legs[1];
        (leg.peer, leg.listener) = (peer, listener);
        let kept = std::mem::take(&mut self.calls[key].set_up.invite);
        let mut index = self.index.take().unwrap_or_default();
        if let Ok(request) = parse(&kept, &mut index) {
            let user = User {
                call: key,
                side: Side::Terminating,
                role: Role::Event,
                link: self.calls[key].set_up.server,
                fork: 0,
                at: env.now.wall,
            };
            let txn = self
                .layer
                .open_client(request.method(), peer, listener, user);
            let mut out = env.pool.take();
            self.write_event(&mut out, key, txn, &request);
            self.calls[key].set_up.client = Some(txn);
            self.layer.start_client(env, txn, request.cseq().0, out);
        }
        self.index = Some(index);
        self.calls[key].set_up.invite = kept;
    }

    fn write_event(&self, out: &mut Vec<u8>, key: CallKey, txn: TxnId, request: &Message<'_>) {
        let state = &self.calls[key].state;
        let leg = &state.legs[1];
        let way = Way::new(request.request_uri(), state.texts.get(leg.route_set));
        write::request_line(out, request.method_text(), way.request_uri);
        self.write_via(out, state.id, txn, leg.listener);
        let forwards = request.max_forwards().unwrap_or(70).saturating_sub(1);
        write::header_number(out, HeaderId::MaxForwards, u64::from(forwards));
        way.write_routes(out);
        let trust = self.trust(state.legs[0].peer, leg.peer);
        copy_pair(out, request, trust);
        if trust.wants_vector(request) {
            state.write_charging_vector(out);
        }
        for id in [
            HeaderId::From,
            HeaderId::To,
            HeaderId::CallId,
            HeaderId::CSeq,
        ] {
            write::header(out, id, request.header(id).unwrap_or_default());
        }
        compose::end_with_body(out, request.body());
    }

    /// A response to a relayed request, or `None` when no answer came.
    pub(super) fn on_event_response(
        &mut self,
        env: &mut Env,
        id: TxnId,
        user: User,
        response: Option<&Message<'_>>,
    ) {
        let key = user.call;
        let call = &mut self.calls[key];
        if call.set_up.client != Some(id) {
            return;
        }
        if let Some(response) = response
            && self.answer_challenge(env, id, user, response)
        {
            return;
        }
        if let Some(busy) = response.filter(|response| response.status() == 503) {
            let hop = self.calls[key].state.legs[1].peer;
            self.penalise_hop(env, hop, Some(busy));
        }
        let call = &mut self.calls[key];
        let status = response.map_or(408, |response| response.status());
        if status >= 200 {
            call.set_up.client = None;
            if (status == 503 || response.is_none()) && !call.set_up.hops.is_empty() {
                return self.send_event(env, key);
            }
        }
        let Some(response) = response else {
            return self.fail_event(env, key, 408, b"Request Timeout");
        };
        let Some(server) = call.set_up.server.filter(|_| status != 100) else {
            return;
        };
        let tag = response.to_tag();
        let Some(mut out) = self
            .layer
            .begin_response(env, server, status, response.reason(), tag)
        else {
            return;
        };
        let state = &self.calls[key].state;
        let trust = self.trust(state.legs[1].peer, state.legs[0].peer);
        copy_pair(&mut out, response, trust);
        if trust.wants_vector(response) {
            state.write_charging_vector(&mut out);
        }
        compose::end_with_body(&mut out, response.body());
        self.layer.send_response(env, server, status, out);
        if status >= 200 {
            self.trigger_event_answered(env, key, response);
            self.close_event(env, key);
        }
    }

    fn fail_event(&mut self, env: &mut Env, key: CallKey, status: u16, reason: &[u8]) {
        if let Some(server) = self.calls[key].set_up.server {
            self.answer_empty(env, server, status, reason);
        }
        self.trigger_event_failed(env, key, status);
        self.close_event(env, key);
    }

    fn close_event(&mut self, env: &mut Env, key: CallKey) {
        let call = &mut self.calls[key];
        call.state.phase = Phase::Ended;
        let kept = std::mem::take(&mut call.set_up.invite);
        env.pool.give(kept);
        self.touch(key);
    }
}

// Copies the fields of a message that passes as it is, and within its dialog if it has one.
fn copy_pair(out: &mut Vec<u8>, message: &Message<'_>, trust: Trust) {
    let border = trust.border(message);
    write::copy_headers(out, message, |id| match id {
        HeaderId::Via
        | HeaderId::Route
        | HeaderId::MaxForwards
        | HeaderId::From
        | HeaderId::To
        | HeaderId::CallId
        | HeaderId::CSeq
        | HeaderId::ContentLength => false,
        // The server transaction repeats the request's Record-Route in its responses.
        HeaderId::RecordRoute => message.is_request(),
        other => border.passes(other),
    });
}
