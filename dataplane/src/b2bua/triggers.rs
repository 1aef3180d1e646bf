//! From SIP messages to charging triggers (TS 32.260 Table 5.2.1.1-1 for an AS).

use charging::time::UnixMillis;
use charging::trigger::{
    CauseCode, MediaInitiator, MessageBody, Nni, Sdp, SdpType, SessionDirection, SetUpFailure,
    Trigger, Verdict,
};

use super::facts::{self, Answer, Known, Values, unquoted};
use super::trust::is_network_provided;
use super::{B2bua, Origin, Side, User, bridge, services, tear_down};
use crate::compose;
use crate::env::{CallKey, Env};
use crate::sip::{HeaderId, Message, Method, param_of_list, parse};
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
        let asserted = self.asserts(origin.from);
        let mut values = Values::default();
        values.read(invite, asserted);
        let nni = self.border(origin.from, SessionDirection::Inbound);
        let (mut icid, mut access) = (env.pool.take(), env.pool.take());
        if let Some(replaced) = self.replaced_call(invite) {
            let state = &self.calls[replaced].state;
            icid.extend_from_slice(state.texts.get(state.icid));
            access.extend_from_slice(state.texts.get(state.access_network));
        }
        let call = &mut self.calls[key];
        let known = Known {
            icid: call.state.texts.get(call.state.icid),
            id: call.state.id,
            class: call.state.class(&self.config),
            asserted,
            nni: nni.as_slice(),
            replaced_icid: &icid,
            transfer: facts::taken_over(&access, invite, call.state.begun),
        };
        let facts = values.facts(invite, &known);
        let trigger = Trigger::SetUp {
            facts: &facts,
            request_time: call.state.begun,
        };
        let charging = &mut call.state.charging;
        let verdict = self.ctf.on_trigger(env.now, charging, &trigger);
        env.pool.give(icid);
        env.pool.give(access);
        verdict
    }

    // TS 32.260 5.1.2: the first IMS node makes the ICID, the others keep it; one that somebody
    // outside the trust domain sends means nothing.
    pub(super) fn settle_icid(
        &mut self,
        env: &mut Env,
        key: CallKey,
        request: &Message<'_>,
        origin: Origin,
    ) {
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
        let access = request
            .header(HeaderId::PAccessNetworkInfo)
            .filter(|info| self.asserts(origin.from) || !is_network_provided(info));
        let state = &mut self.calls[key].state;
        state.icid = state.texts.add(received.unwrap_or(&minted));
        state.access_network = state.texts.add(access.unwrap_or_default());
        env.pool.give(minted);
    }

    /// The INVITE went to a next hop.
    pub(super) fn trigger_routed(&mut self, env: &mut Env, key: CallKey) {
        if !self.config.rf.enabled {
            return;
        }
        let callee = self.calls[key].state.legs[1].peer;
        let nni = self.border(callee, SessionDirection::Outbound);
        let state = &mut self.calls[key].state;
        let trigger = Trigger::Routed {
            called_party: state.texts.get(state.legs[1].remote_target),
            outgoing_session_id: state.texts.get(state.legs[1].call_id),
            nni,
        };
        self.ctf.on_trigger(env.now, &mut state.charging, &trigger);
    }

    // The border between networks that a peer stands for, if the configuration says it is one.
    pub(super) fn border(
        &self,
        peer: std::net::SocketAddr,
        direction: SessionDirection,
    ) -> Option<Nni> {
        let peer_at = self.config.peer_of(peer)?;
        let of = &self.config.sip.peers[peer_at];
        Some(Nni {
            direction,
            nni_type: of.nni?,
            is_trusted: of.trusted,
            neighbour: Some(peer.ip()),
        })
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
        // TS 32.260: media that is not active is no early media.
        if crate::sip::Sdp::parse(answer).is_some_and(|sdp| sdp.is_inactive()) {
            return;
        }
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

    /// The 2xx to an UPDATE or PRACK before the answer: whatever offer and answer they exchanged is
    /// early media as well. `id` is the transaction that carried it.
    pub(super) fn trigger_early_exchange(
        &mut self,
        env: &mut Env,
        id: TxnId,
        user: User,
        response: &Message<'_>,
    ) {
        if !self.config.rf.enabled {
            return;
        }
        let mut index = self.index.take().unwrap_or_default();
        let kept = self.layer.request_of(id);
        let request = kept.and_then(|(raw, ..)| parse(raw, &mut index).ok());
        let asked = request.as_ref().and_then(bridge::sdp_of);
        let (asked_at, now) = (Some(user.at), Some(env.now.wall));
        let mut beginner = user;
        let (offer, offer_time, answer, answer_time) = match (asked, bridge::sdp_of(response)) {
            (Some(offer), Some(answer)) => (Some(offer), asked_at, Some(answer), now),
            // RFC 3262 5: a PRACK may bring the answer to the offer of a 1xx.
            (Some(answer), None) if response.cseq().1 == Method::Prack => {
                beginner.side = user.side.other();
                (None, None, Some(answer), asked_at)
            }
            _ => (None, None, None, None),
        };
        let last = answer.and_then(crate::sip::Sdp::parse);
        // TS 32.260: media that is not active is no early media.
        if last.is_some_and(|sdp| !sdp.is_inactive()) {
            let described = |text, sdp_type| Sdp {
                initiator: Some(initiator_of(beginner)),
                ..Sdp::new(text, sdp_type)
            };
            let trigger = Trigger::EarlyMedia {
                offer: offer.map(|text| described(text, SdpType::Offer)),
                offer_time,
                answer: answer.map(|text| described(text, SdpType::Answer)),
                answer_time,
            };
            let charging = &mut self.calls[user.call].state.charging;
            self.ctf.on_trigger(env.now, charging, &trigger);
        }
        self.index = Some(index);
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
        let answer = Answer::read(response, trusted);
        let called = answer.called();
        if let Some(first) = called.asserted_identity.first() {
            let state = &mut self.calls[key].state;
            state.called_identity = state.texts.add(first);
        }
        let body = facts::body_of(response, true);
        let caller = self.asserts(self.calls[key].state.legs[0].peer);
        self.with_invite(key, |b2bua, invite| {
            let (offer, answer) = (bridge::sdp_of(invite), bridge::sdp_of(response));
            let mut sdp = [Sdp::new(b"", SdpType::Offer); 2];
            let mut count = 0;
            if let Some(offer) = offer {
                sdp[count] = facts::described(offer, SdpType::Offer, invite, caller);
                count += 1;
            }
            if let Some(answer) = answer {
                let kind = if offer.is_some() {
                    SdpType::Answer
                } else {
                    SdpType::Offer
                };
                sdp[count] = facts::described(answer, kind, response, trusted);
                count += 1;
            }
            let trigger = Trigger::Answered {
                response_time: env.now.wall,
                answer_known: offer.is_some() || answer.is_none(),
                sdp: &sdp[..count],
                called,
                terminating_access: facts::terminating_access(invite, response, [caller, trusted]),
                message_bodies: body.as_slice(),
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
        let asker = self.calls[user.call].state.legs[user.side.other().index()].peer;
        let asserted = self.asserts(asker);
        let mut index = self.index.take().unwrap_or_default();
        let request = self
            .layer
            .request_of(id)
            .and_then(|(raw, ..)| parse(raw, &mut index).ok());
        let mut sdp = [Sdp::new(b"", SdpType::Offer); 2];
        let mut count = 0;
        for (text, kind) in [
            (request.as_ref().and_then(bridge::sdp_of), SdpType::Offer),
            (bridge::sdp_of(response), SdpType::Answer),
        ] {
            if let Some(text) = text {
                let kind = if count == 0 { SdpType::Offer } else { kind };
                sdp[count] = Sdp {
                    initiator: Some(initiator_of(user)),
                    ..Sdp::new(text, kind)
                };
                count += 1;
            }
        }
        let offered = request.as_ref().and_then(bridge::sdp_of);
        let hold = request
            .as_ref()
            .filter(|_| (200..300).contains(&response.status()))
            .and_then(|request| services::of_offer(request, offered, asserted));
        let (bodies, body_count) = bodies_of(request.as_ref(), response, user.side);
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
            message_bodies: &bodies[..body_count],
            services: hold.as_slice(),
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
            // The callee's side did not say so, and it is no fault of the caller's.
            500..600 => SetUpFailure::Internal,
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
        side: Side,
        bye: &Message<'_>,
        unacknowledged: bool,
    ) {
        let body = facts::body_of(bye, side == Side::Terminating);
        let reasons = tear_down::reasons_of(bye);
        let reasons = reasons.list();
        let mut stated = reasons.iter().map(|reason| CauseCode::from_reason(reason));
        let cause = match stated.find(|cause| *cause != CauseCode::NORMAL) {
            Some(error) => error,
            None if unacknowledged => CauseCode::UNSUCCESSFUL_SETUP,
            None => CauseCode::NORMAL,
        };
        self.close_charging(env, key, cause, &reasons, body.as_slice());
    }

    /// We ended the call.
    pub(super) fn trigger_ended(&mut self, env: &mut Env, key: CallKey, cause: CauseCode) {
        self.close_charging(env, key, cause, &[], &[]);
    }

    fn close_charging(
        &mut self,
        env: &mut Env,
        key: CallKey,
        cause: CauseCode,
        reasons: &[&[u8]],
        message_bodies: &[MessageBody<'_>],
    ) {
        if !self.config.rf.enabled {
            return;
        }
        let trigger = Trigger::Ended {
            cause,
            reasons,
            request_time: env.now.wall,
            message_bodies,
        };
        self.ctf
            .on_trigger(env.now, &mut self.calls[key].state.charging, &trigger);
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

// Who began a transaction inside the dialog; `user` is of the leg that answered.
fn initiator_of(user: User) -> MediaInitiator {
    match user.side {
        Side::Terminating => MediaInitiator::Calling,
        Side::Originating => MediaInitiator::Called,
    }
}

// The bodies of a transaction; `side` is the leg that answered.
fn bodies_of<'a>(
    request: Option<&Message<'a>>,
    response: &Message<'a>,
    side: Side,
) -> ([MessageBody<'a>; 2], usize) {
    let none = MessageBody {
        content_type: b"",
        content_length: 0,
        disposition: b"",
        from_called_party: false,
    };
    let mut bodies = [none; 2];
    let mut count = 0;
    let answered_by_callee = side == Side::Terminating;
    let asked = request.and_then(|request| facts::body_of(request, !answered_by_callee));
    let answered = facts::body_of(response, answered_by_callee);
    for body in [asked, answered].into_iter().flatten() {
        bodies[count] = body;
        count += 1;
    }
    (bodies, count)
}

/// Longest icid-value kept, bytes.
const ICID_MAX: usize = 256;
