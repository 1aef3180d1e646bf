//! Requests that are a service by themselves, outside calls or inside one: each makes one EVENT
//! when it has its final answer (TS 32.260 5.2.2, session-unrelated procedures).

use charging::state::ChargingState;
use charging::time::UnixMillis;
use charging::trigger::{Nni, SessionDirection, SessionFacts, Trigger, Verdict};

use super::call_state::Phase;
use super::facts::{Answer, Known, Values, expires_of, number};
use super::{B2bua, Origin, User};
use crate::env::{CallKey, Env};
use crate::sip::{HeaderId, Message, Method, parse};
use crate::transaction::TxnId;

/// The final answer to such a request, from the other side or of our own.
struct Final<'a> {
    code: u16,
    expires: Option<u32>,
    answer: Answer<'a>,
}

impl B2bua {
    /// A request outside calls arrived. Only its ICID is settled: Rf records its answer.
    pub(super) fn trigger_event_request(
        &mut self,
        env: &mut Env,
        key: CallKey,
        request: &Message<'_>,
        origin: Origin,
    ) -> Verdict {
        self.settle_icid(env, key, request, origin);
        Verdict::GoOn
    }

    /// A request outside calls got its final answer.
    pub(super) fn trigger_event_answered(
        &mut self,
        env: &mut Env,
        key: CallKey,
        response: &Message<'_>,
    ) {
        let asserted = self.asserts(self.calls[key].state.legs[1].peer);
        self.record_event(env, key, &Final::of(response, asserted));
    }

    /// A request outside calls was answered by ourselves.
    pub(super) fn trigger_event_failed(&mut self, env: &mut Env, key: CallKey, status: u16) {
        let own = Final {
            code: status,
            expires: None,
            answer: Answer::default(),
        };
        self.record_event(env, key, &own);
    }

    fn record_event(&mut self, env: &mut Env, key: CallKey, answer: &Final<'_>) {
        if !self.config.rf.enabled {
            return;
        }
        let [caller, callee] = [0, 1].map(|leg| self.calls[key].state.legs[leg].peer);
        let asserted = self.asserts(caller);
        self.with_invite(key, |b2bua, request| {
            let mut values = Values::default();
            values.read(request, asserted);
            let nni = b2bua.borders(caller, callee);
            let state = &mut b2bua.calls[key].state;
            let known = Known {
                icid: state.texts.get(state.icid),
                id: state.id,
                class: state.class(&b2bua.config),
                asserted,
                nni: &nni,
                ..Known::default()
            };
            let mut facts = values.facts(request, &known);
            facts.called_party = request.request_uri();
            facts.outgoing_session_id = request.call_id();
            // A REGISTER goes to a registrar; whom it concerns stands in To (RFC 3261 10.2).
            if let Some(to) = request
                .to()
                .filter(|_| request.method() == Method::Register)
            {
                (facts.called_party, facts.requested_party) = (to.uri, to.uri);
            }
            let began = (state.begun, env.now.wall);
            let trigger = one_shot(request, &facts, answer, began);
            b2bua.ctf.on_trigger(env.now, &mut state.charging, &trigger);
        });
    }

    /// A request inside a call got its final answer: if it is a service by itself, an EVENT beside
    /// the call's own session, which goes on. Its record waits in an entry of its own until a CDF
    /// has it.
    pub(super) fn trigger_event_inside(
        &mut self,
        env: &mut Env,
        id: TxnId,
        user: User,
        response: &Message<'_>,
    ) {
        if !self.config.rf.enabled || !may_be_event(response.cseq().1) {
            return;
        }
        let mut index = self.index.take().unwrap_or_default();
        let kept = self.layer.request_of(id);
        let kept = kept.map(|(raw, ..)| env.pool.copy_of(raw));
        let request = kept.as_ref().and_then(|raw| parse(raw, &mut index).ok());
        if let Some(request) = request.filter(|request| !tells_of_refer(request)) {
            self.record_event_inside(env, user, &request, response);
        }
        self.index = Some(index);
        env.pool.give(kept.unwrap_or_default());
    }

    // `request` is what left: it came with the Call-ID of the sender's leg.
    fn record_event_inside(
        &mut self,
        env: &mut Env,
        user: User,
        request: &Message<'_>,
        response: &Message<'_>,
    ) {
        let legs = &self.calls[user.call].state.legs;
        let (from, to) = (&legs[user.side.other().index()], &legs[user.side.index()]);
        let (call_id, to) = (from.call_id, to.peer);
        let origin = Origin {
            from: from.peer,
            listener: from.listener.own(),
        };
        let asserted = self.asserts(origin.from);
        let answer = Final::of(response, self.asserts(to));
        let nni = self.borders(origin.from, to);
        let entry = self.open_call(Phase::Ended, origin, user.at);
        let mut values = Values::default();
        values.read(request, asserted);
        let state = &self.calls[user.call].state;
        let known = Known {
            icid: state.texts.get(state.icid),
            id: self.calls[entry].state.id,
            class: state.class(&self.config),
            asserted,
            nni: &nni,
            ..Known::default()
        };
        let mut facts = values.facts(request, &known);
        facts.outgoing_session_id = facts.user_session_id;
        facts.user_session_id = state.texts.get(call_id);
        facts.called_party = request.request_uri();
        let trigger = one_shot(request, &facts, &answer, (user.at, env.now.wall));
        let mut charging = ChargingState::default();
        self.ctf.on_trigger(env.now, &mut charging, &trigger);
        self.calls[entry].state.charging = charging;
        self.touch(entry);
    }

    // The borders between networks that a request crosses on its way.
    fn borders(&self, from: std::net::SocketAddr, to: std::net::SocketAddr) -> Vec<Nni> {
        let inbound = self.border(from, SessionDirection::Inbound);
        let outbound = self.border(to, SessionDirection::Outbound);
        let outbound = outbound.filter(|_| from != to);
        inbound.into_iter().chain(outbound).collect()
    }
}

impl<'a> Final<'a> {
    fn of(response: &Message<'a>, asserted: bool) -> Self {
        Self {
            code: response.status(),
            expires: response.header(HeaderId::Expires).and_then(number),
            answer: Answer::read(response, asserted),
        }
    }
}

fn one_shot<'a>(
    request: &Message<'a>,
    facts: &'a SessionFacts<'a>,
    answer: &'a Final<'_>,
    (request_time, response_time): (UnixMillis, UnixMillis),
) -> Trigger<'a> {
    let asked = expires_of(request);
    Trigger::OneShot {
        facts,
        code: answer.code,
        event: request.header(HeaderId::Event).unwrap_or_default(),
        expires: asked
            .filter(|asked| *asked == 0)
            .or(answer.expires)
            .or(asked),
        called: answer.answer.called(),
        request_time,
        response_time,
    }
}

// The methods of TS 32.260 table 5.2.1.1-1 that are chargeable by themselves and may stand inside
// the dialog of a call.
fn may_be_event(method: Method) -> bool {
    use Method::{Message, Notify, Publish, Refer, Subscribe};
    matches!(method, Message | Notify | Publish | Refer | Subscribe)
}

// RFC 3515 2.4.4: whoever accepts a REFER has to send NOTIFYs of what became of it. They belong to
// the REFER, which makes an EVENT already.
fn tells_of_refer(request: &Message<'_>) -> bool {
    let event = request.header(HeaderId::Event).unwrap_or_default();
    let package = event.split(|&byte| byte == b';').next().unwrap_or_default();
    request.method() == Method::Notify && package.trim_ascii().eq_ignore_ascii_case(b"refer")
}
