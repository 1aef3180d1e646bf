//! From SIP messages to charging triggers: the header mapping of TS 32.260 for an AS.

use charging::time::UnixMillis;
use charging::trigger::{
    CauseCode, MediaInitiator, MessageBody, RoleOfNode, Sdp, SdpType, SessionFacts, SetUpFailure,
    SubscriptionIdType, Trigger, Verdict,
};

use super::{B2bua, Origin, Side, User, bridge, tear_down};
use crate::compose;
use crate::env::{CallKey, Env};
use crate::sip::{HeaderId, Message, NameAddr, Scheme, Uri, param, param_of_list, parse};
use crate::transaction::TxnId;

impl B2bua {
    /// An INVITE opens a charging session. Keeps or mints the ICID.
    pub(super) fn trigger_set_up(
        &mut self,
        env: &mut Env,
        key: CallKey,
        invite: &Message<'_>,
        origin: Origin,
    ) -> Verdict {
        self.settle_icid(env, key, invite, origin);
        if !self.config.rf.enabled {
            return Verdict::GoOn;
        }
        let mut values = Values::default();
        values.read(invite, self.asserts(origin.from));
        let call = &mut self.calls[key];
        let facts = values.facts(invite, call.state.texts.get(call.state.icid), call.state.id);
        let trigger = Trigger::SetUp {
            facts: &facts,
            request_time: call.state.begun,
        };
        self.ctf
            .on_trigger(env.now, &mut call.state.charging, &trigger)
    }

    // TS 32.260 5.1.2: the first IMS node makes the ICID, the others keep it; one that somebody
    // outside the trust domain sends means nothing.
    fn settle_icid(&mut self, env: &mut Env, key: CallKey, request: &Message<'_>, origin: Origin) {
        let received = request
            .header(HeaderId::PChargingVector)
            .filter(|_| self.asserts(origin.from))
            .and_then(|value| param_of_list(value, b"icid-value").flatten())
            .map(unquoted)
            .filter(|icid| !icid.is_empty() && icid.len() <= ICID_MAX);
        let mut minted = env.pool.take();
        if received.is_none() {
            minted.extend_from_slice(self.config.node.name.as_bytes());
            for part in [
                u64::from(self.place.incarnation),
                u64::from(self.place.shard),
                self.calls[key].state.id as u64,
            ] {
                minted.push(b'-');
                compose::hex(&mut minted, part);
            }
        }
        let state = &mut self.calls[key].state;
        state.icid = state.texts.add(received.unwrap_or(&minted));
        let access = request.header(HeaderId::PAccessNetworkInfo);
        state.access_network = state.texts.add(access.unwrap_or_default());
        env.pool.give(minted);
    }

    /// The INVITE went to a next hop.
    pub(super) fn trigger_routed(&mut self, env: &mut Env, key: CallKey) {
        if !self.config.rf.enabled {
            return;
        }
        let state = &mut self.calls[key].state;
        let trigger = Trigger::Routed {
            called_party: state.texts.get(state.legs[1].remote_target),
            outgoing_session_id: state.texts.get(state.legs[1].call_id),
        };
        self.ctf.on_trigger(env.now, &mut state.charging, &trigger);
    }

    /// A provisional response with SDP passed.
    pub(super) fn trigger_early_media(
        &mut self,
        env: &mut Env,
        key: CallKey,
        response: &Message<'_>,
    ) {
        let Some(answer) = bridge::sdp_of(response).filter(|_| self.config.rf.enabled) else {
            return;
        };
        let begun = self.calls[key].state.begun;
        self.with_invite(key, |b2bua, invite| {
            let offer = bridge::sdp_of(invite);
            let kind = if offer.is_some() {
                SdpType::Answer
            } else {
                SdpType::Offer
            };
            let theirs = Some(Sdp::new(answer, kind));
            let trigger = match offer {
                Some(offer) => Trigger::EarlyMedia {
                    offer: Some(Sdp::new(offer, SdpType::Offer)),
                    offer_time: Some(begun),
                    answer: theirs,
                    answer_time: Some(env.now.wall),
                },
                None => Trigger::EarlyMedia {
                    offer: theirs,
                    offer_time: Some(env.now.wall),
                    answer: None,
                    answer_time: None,
                },
            };
            let charging = &mut b2bua.calls[key].state.charging;
            b2bua.ctf.on_trigger(env.now, charging, &trigger);
        });
    }

    /// The first 2xx to the INVITE.
    pub(super) fn trigger_answered(
        &mut self,
        env: &mut Env,
        key: CallKey,
        response: &Message<'_>,
        _sent: UnixMillis,
    ) -> Verdict {
        let mut verdict = Verdict::GoOn;
        if !self.config.rf.enabled {
            return verdict;
        }
        let callee = self.calls[key].state.legs[1].peer;
        let trusted = self.asserts(callee);
        let vector = response
            .header(HeaderId::PChargingVector)
            .filter(|_| trusted);
        let ioi = |name| {
            vector
                .and_then(|v| param_of_list(v, name).flatten())
                .map_or(&b""[..], unquoted)
        };
        let mut asserted = List::default();
        if trusted {
            asserted.add_uris(response.values(HeaderId::PAssertedIdentity));
        }
        if let Some(first) = asserted.get().first() {
            let state = &mut self.calls[key].state;
            state.called_identity = state.texts.add(first);
        }
        self.with_invite(key, |b2bua, invite| {
            let (offer, answer) = (bridge::sdp_of(invite), bridge::sdp_of(response));
            let mut sdp = [Sdp::new(b"", SdpType::Offer); 2];
            let mut count = 0;
            if let Some(offer) = offer {
                sdp[count] = Sdp::new(offer, SdpType::Offer);
                count += 1;
            }
            if let Some(answer) = answer {
                let kind = if offer.is_some() {
                    SdpType::Answer
                } else {
                    SdpType::Offer
                };
                sdp[count] = Sdp::new(answer, kind);
                count += 1;
            }
            let trigger = Trigger::Answered {
                response_time: env.now.wall,
                answer_known: offer.is_some() || answer.is_none(),
                sdp: &sdp[..count],
                term_ioi: ioi(b"term-ioi"),
                transit_ioi: ioi(b"transit-ioi"),
                called_asserted_identity: asserted.get(),
            };
            let charging = &mut b2bua.calls[key].state.charging;
            verdict = b2bua.ctf.on_trigger(env.now, charging, &trigger);
        });
        verdict
    }

    /// An ACK brought the SDP answer.
    pub(super) fn trigger_ack(
        &mut self,
        env: &mut Env,
        key: CallKey,
        ack: &Message<'_>,
    ) -> Verdict {
        if !self.config.rf.enabled {
            return Verdict::GoOn;
        }
        let answer = bridge::sdp_of(ack).map(|text| [Sdp::new(text, SdpType::Answer)]);
        let trigger = Trigger::AckWithAnswer {
            request_time: env.now.wall,
            sdp: answer.as_ref().map_or(&[], |answer| &answer[..]),
        };
        self.ctf
            .on_trigger(env.now, &mut self.calls[key].state.charging, &trigger)
    }

    /// The final response to a re-INVITE or UPDATE; `id` is the transaction that carried it.
    pub(super) fn trigger_media(
        &mut self,
        env: &mut Env,
        id: TxnId,
        user: User,
        response: &Message<'_>,
    ) -> Verdict {
        let mut verdict = Verdict::GoOn;
        if !self.config.rf.enabled {
            return verdict;
        }
        let mut index = self.index.take().unwrap_or_default();
        let request = self
            .layer
            .request_of(id)
            .and_then(|(raw, ..)| parse(raw, &mut index).ok());
        let initiator = match user.side {
            Side::Terminating => MediaInitiator::Calling,
            Side::Originating => MediaInitiator::Called,
        };
        let mut sdp = [Sdp::new(b"", SdpType::Offer); 2];
        let mut count = 0;
        for (text, kind) in [
            (request.as_ref().and_then(bridge::sdp_of), SdpType::Offer),
            (bridge::sdp_of(response), SdpType::Answer),
        ] {
            if let Some(text) = text {
                let kind = if count == 0 { SdpType::Offer } else { kind };
                sdp[count] = Sdp {
                    initiator: Some(initiator),
                    ..Sdp::new(text, kind)
                };
                count += 1;
            }
        }
        let from_callee = match user.side {
            Side::Terminating => Some(*response),
            Side::Originating => request,
        };
        let state = &mut self.calls[user.call].state;
        let called_identity = from_callee.map_or(&b""[..], |message| {
            Self::new_called_identity(&self.config, state, &message)
        });
        let trigger = Trigger::MediaChanged {
            method: response.cseq().1.as_str().as_bytes(),
            request_time: user.at,
            response_time: env.now.wall,
            code: response.status(),
            sdp: &sdp[..count],
            called_identity,
        };
        let charging = &mut self.calls[user.call].state.charging;
        verdict = match self.ctf.on_trigger(env.now, charging, &trigger) {
            Verdict::GoOn => verdict,
            other => other,
        };
        self.index = Some(index);
        verdict
    }

    /// The callee's side refused the call.
    pub(super) fn trigger_refused(
        &mut self,
        env: &mut Env,
        key: CallKey,
        status: u16,
        response: &Message<'_>,
    ) {
        let reasons = tear_down::reasons_of(response);
        self.fail_charging(env, key, SetUpFailure::Response(status), &reasons.list());
    }

    /// We refused the call ourselves, or the caller gave up (487).
    pub(super) fn trigger_set_up_failed(
        &mut self,
        env: &mut Env,
        key: CallKey,
        status: u16,
        reasons: &[&[u8]],
    ) {
        let cause = match status {
            487 => SetUpFailure::Cancelled,
            _ => SetUpFailure::Response(status),
        };
        self.fail_charging(env, key, cause, reasons);
    }

    fn fail_charging(
        &mut self,
        env: &mut Env,
        key: CallKey,
        cause: SetUpFailure,
        reasons: &[&[u8]],
    ) {
        if !self.config.rf.enabled {
            return;
        }
        let trigger = Trigger::SetUpFailed {
            cause,
            reasons,
            response_time: env.now.wall,
        };
        self.ctf
            .on_trigger(env.now, &mut self.calls[key].state.charging, &trigger);
    }

    /// One side hung up.
    pub(super) fn trigger_bye(
        &mut self,
        env: &mut Env,
        key: CallKey,
        bye: &Message<'_>,
        unacknowledged: bool,
    ) {
        let reasons = tear_down::reasons_of(bye);
        let reasons = reasons.list();
        let mut stated = reasons.iter().map(|reason| CauseCode::from_reason(reason));
        let cause = match stated.find(|cause| *cause != CauseCode::NORMAL) {
            Some(error) => error,
            None if unacknowledged => CauseCode::UNSUCCESSFUL_SETUP,
            None => CauseCode::NORMAL,
        };
        self.close_charging(env, key, cause, &reasons);
    }

    /// We ended the call.
    pub(super) fn trigger_ended(&mut self, env: &mut Env, key: CallKey, cause: CauseCode) {
        self.close_charging(env, key, cause, &[]);
    }

    fn close_charging(&mut self, env: &mut Env, key: CallKey, cause: CauseCode, reasons: &[&[u8]]) {
        if !self.config.rf.enabled {
            return;
        }
        let trigger = Trigger::Ended {
            cause,
            reasons,
            request_time: env.now.wall,
        };
        self.ctf
            .on_trigger(env.now, &mut self.calls[key].state.charging, &trigger);
    }

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
        let expires = response.header(HeaderId::Expires).and_then(number);
        self.record_event(env, key, response.status(), expires);
    }

    /// A request outside calls was answered by ourselves.
    pub(super) fn trigger_event_failed(&mut self, env: &mut Env, key: CallKey, status: u16) {
        self.record_event(env, key, status, None);
    }

    fn record_event(&mut self, env: &mut Env, key: CallKey, code: u16, expires: Option<u32>) {
        if !self.config.rf.enabled {
            return;
        }
        let asserted = self.asserts(self.calls[key].state.legs[0].peer);
        self.with_invite(key, |b2bua, request| {
            let mut values = Values::default();
            values.read(request, asserted);
            let state = &mut b2bua.calls[key].state;
            let mut facts = values.facts(request, state.texts.get(state.icid), state.id);
            facts.called_party = request.request_uri();
            facts.outgoing_session_id = request.call_id();
            let asked = request.header(HeaderId::Expires).and_then(number);
            let trigger = Trigger::OneShot {
                facts: &facts,
                code,
                event: request.header(HeaderId::Event).unwrap_or_default(),
                expires: asked.filter(|asked| *asked == 0).or(expires).or(asked),
                request_time: state.begun,
                response_time: env.now.wall,
            };
            b2bua.ctf.on_trigger(env.now, &mut state.charging, &trigger);
        });
    }

    // Reads the kept INVITE (or other first request) once more.
    pub(super) fn with_invite(&mut self, key: CallKey, then: impl FnOnce(&mut Self, &Message<'_>)) {
        let kept = std::mem::take(&mut self.calls[key].set_up.invite);
        let mut index = self.index.take().unwrap_or_default();
        if let Ok(invite) = parse(&kept, &mut index) {
            then(self, &invite);
        }
        self.index = Some(index);
        self.calls[key].set_up.invite = kept;
    }
}

/// The lists that [`SessionFacts`] borrows.
#[derive(Default)]
struct Values<'a> {
    calling: List<'a>,
    access: List<'a>,
    flat: Vec<(SubscriptionIdType, &'a [u8])>,
    body: Option<MessageBody<'a>>,
    role: RoleOfNode,
}

impl<'a> Values<'a> {
    fn read(&mut self, request: &Message<'a>, asserted: bool) {
        if asserted {
            self.calling
                .add_uris(request.values(HeaderId::PAssertedIdentity));
        }
        self.role = role_of(request, asserted);
        // Network-provided access information first (TS 32.299 7.2.1).
        for provided in [true, false] {
            for value in request.values(HeaderId::PAccessNetworkInfo) {
                let np = value
                    .split(|&byte| byte == b';')
                    .any(|p| p.trim_ascii().eq_ignore_ascii_case(b"network-provided"));
                if np == provided {
                    self.access.add(value);
                }
            }
        }
        self.read_served_user(request, asserted);
        if bridge::sdp_of(request).is_none() && !request.body().is_empty() {
            self.body = Some(MessageBody {
                content_type: request.header(HeaderId::ContentType).unwrap_or_default(),
                content_length: request.body().len() as u32,
                disposition: request
                    .header(HeaderId::ContentDisposition)
                    .unwrap_or_default(),
                from_called_party: false,
            });
        }
    }

    fn read_served_user(&mut self, request: &Message<'a>, asserted: bool) {
        let served = request
            .header(HeaderId::PServedUser)
            .filter(|_| asserted)
            .and_then(|value| NameAddr::parse(value).ok());
        match (served, self.role) {
            (Some(served), _) => self.subscribe(served.uri),
            (None, RoleOfNode::Terminating) => {
                let called = request
                    .header(HeaderId::PCalledPartyId)
                    .and_then(|value| NameAddr::parse(value).ok());
                self.subscribe(called.map_or(request.request_uri(), |called| called.uri));
            }
            (None, _) => {
                for place in 0..self.calling.len {
                    self.subscribe(self.calling.values[place]);
                }
            }
        }
    }

    fn subscribe(&mut self, uri: &'a [u8]) {
        let Ok(parsed) = Uri::parse(uri) else { return };
        let entry = match parsed.scheme {
            Scheme::Tel => {
                let digits = uri.get(4..).unwrap_or_default();
                let end = digits
                    .iter()
                    .position(|&byte| byte == b';')
                    .unwrap_or(digits.len());
                (SubscriptionIdType::E164, strip_plus(&digits[..end]))
            }
            _ => (SubscriptionIdType::SipUri, uri),
        };
        self.flat.push(entry);
    }

    fn facts<'b>(&'b self, request: &Message<'b>, icid: &'b [u8], id: u128) -> SessionFacts<'b> {
        let vector = request
            .header(HeaderId::PChargingVector)
            .unwrap_or_default();
        let of_vector = |name: &[u8]| {
            param_of_list(vector, name)
                .flatten()
                .map_or(&b""[..], unquoted)
        };
        let uri_params = Uri::parse(request.request_uri()).map_or(&b""[..], |uri| uri.params);
        let of_uri = |name: &[u8]| param(uri_params, name).flatten().unwrap_or_default();
        let of = |id| request.header(id).unwrap_or_default();
        SessionFacts {
            slot: id as u32,
            role_of_node: self.role,
            method: request.method_text(),
            user_session_id: request.call_id(),
            calling_party: self.calling.get(),
            requested_party: request.request_uri(),
            from_address: of(HeaderId::From),
            icid,
            related_icid: of_vector(b"related-icid"),
            orig_ioi: of_vector(b"orig-ioi"),
            term_ioi: of_vector(b"term-ioi"),
            transit_ioi: of_vector(b"transit-ioi"),
            fe_identifiers: of_vector(b"fe-identifier"),
            access_network_info: self.access.get(),
            cellular_network_info: of(HeaderId::CellularNetworkInfo),
            visited_network: of(HeaderId::PVisitedNetworkId),
            icsi: of(HeaderId::PAssertedService),
            instance_id: instance_of(request),
            session_priority: priority_of(request),
            subscription_ids: &self.flat,
            user_name: user_name_of(request),
            number_portability: of_uri(b"rn"),
            carrier_select: of_uri(b"cic"),
            message_bodies: self.body.as_slice(),
            ..SessionFacts::default()
        }
    }
}

/// A few borrowed values.
#[derive(Default)]
struct List<'a> {
    values: [&'a [u8]; LIST],
    len: usize,
}

impl<'a> List<'a> {
    fn add(&mut self, value: &'a [u8]) {
        if self.len < LIST {
            self.values[self.len] = value;
            self.len += 1;
        }
    }

    fn add_uris(&mut self, values: impl Iterator<Item = &'a [u8]>) {
        for value in values {
            if let Ok(address) = NameAddr::parse(value) {
                self.add(address.uri);
            }
        }
    }

    fn get(&self) -> &[&'a [u8]] {
        &self.values[..self.len]
    }
}

// TS 24.229: P-Served-User's sescase, or the `orig` parameter of the Route that names us.
fn role_of(request: &Message<'_>, asserted: bool) -> RoleOfNode {
    let case = request
        .header(HeaderId::PServedUser)
        .filter(|_| asserted)
        .and_then(|value| NameAddr::parse(value).ok())
        .and_then(|served| param(served.params, b"sescase").flatten());
    match case {
        Some(case) if case.eq_ignore_ascii_case(b"term") => RoleOfNode::Terminating,
        Some(_) => RoleOfNode::Originating,
        // On the terminating side the S-CSCF names the called party (RFC 7315 4.2).
        None if request.header(HeaderId::PCalledPartyId).is_some() => RoleOfNode::Terminating,
        None => RoleOfNode::Originating,
    }
}

fn instance_of<'a>(request: &Message<'a>) -> &'a [u8] {
    request
        .values(HeaderId::Contact)
        .next()
        .and_then(|contact| NameAddr::parse(contact).ok())
        .and_then(|contact| param(contact.params, b"+sip.instance").flatten())
        .map_or(&b""[..], unquoted)
}

// RFC 3261 20.26 to Session-Priority 0 (highest) to 4.
fn priority_of(request: &Message<'_>) -> Option<u32> {
    let value = request.header(HeaderId::Priority)?;
    [&b"emergency"[..], b"urgent", b"normal", b"non-urgent"]
        .iter()
        .position(|name| value.eq_ignore_ascii_case(name))
        .map(|place| place as u32)
}

fn user_name_of<'a>(request: &Message<'a>) -> &'a [u8] {
    [HeaderId::Authorization, HeaderId::ProxyAuthorization]
        .into_iter()
        .filter_map(|id| request.header(id))
        .find_map(|value| {
            let at = value
                .windows(10)
                .position(|part| part.eq_ignore_ascii_case(b"username=\""))?;
            let rest = &value[at + 10..];
            Some(&rest[..rest.iter().position(|&byte| byte == b'"')?])
        })
        .unwrap_or_default()
}

fn unquoted(value: &[u8]) -> &[u8] {
    value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""))
        .unwrap_or(value)
}

fn strip_plus(digits: &[u8]) -> &[u8] {
    digits.strip_prefix(b"+").unwrap_or(digits)
}

fn number(value: &[u8]) -> Option<u32> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

/// Values taken from a list header.
const LIST: usize = 8;
/// Longest icid-value kept, bytes.
const ICID_MAX: usize = 256;
