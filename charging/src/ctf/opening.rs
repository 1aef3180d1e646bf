//! Until the first record: facts are gathered, then START or EVENT is made of them.

use std::io::Write as _;

use super::Ctf;
use crate::config::LateOffer;
use crate::diameter::avp::Writer;
use crate::diameter::dictionary as d;
use crate::ims;
use crate::rf::acr;
use crate::state::{AccountingSession, AccountingState, ChargingState, Opening, RecordType};
use crate::time::{Now, UnixMillis};
use crate::trigger::{CalledSide, CauseCode, Sdp, SessionFacts, SetUpFailure, Trigger};

impl Ctf {
    pub(super) fn on_set_up(
        &mut self,
        state: &mut ChargingState,
        facts: &SessionFacts<'_>,
        request_time: UnixMillis,
    ) {
        // A re-INVITE, or an INVITE that came back to us: never a second session.
        if state.accounting.is_some() {
            self.counters.trigger_ignored += 1;
            return;
        }
        if self.config.classes.find(facts.class).offline {
            state.accounting = Some(self.open_session(facts, request_time));
        }
    }

    pub(super) fn on_one_shot(
        &mut self,
        now: Now,
        state: &mut ChargingState,
        facts: &SessionFacts<'_>,
        trigger: &Trigger<'_>,
    ) {
        let Trigger::OneShot {
            code,
            event,
            expires,
            called,
            request_time,
            response_time,
            ..
        } = *trigger
        else {
            return;
        };
        let class = self.config.classes.find(facts.class);
        if !class.offline {
            return;
        }
        let rows = class.rows;
        let wanted = match code {
            0..200 => false,
            200..300 => rows.event_on_one_shot,
            401 | 407 => rows.event_on_challenge,
            _ => rows.event_on_one_shot_failure,
        };
        if !wanted
            || state
                .accounting
                .as_ref()
                .is_some_and(|session| !session.is_finished())
        {
            self.counters.trigger_ignored += 1;
            return;
        }
        self.recycle(state);
        let mut session = self.open_session(facts, request_time);
        let mut opening = session.opening.take().unwrap_or_default();
        note_called_side(&mut opening, &called);
        freeze(&mut session, &opening);
        let cause = one_shot_cause(facts.method, code, expires);
        self.make_beside(
            now,
            &mut session,
            RecordType::Event,
            |writer| {
                writer.encoded(&opening.content);
                ims::event_type(writer, facts.method, event, expires);
                ims::time_stamps(writer, Some(request_time), Some(response_time));
                ims::cause(writer, cause.0, &[]);
            },
            |writer| writer.encoded(&opening.beside),
        );
        self.spare.give_opening(opening);
        state.accounting = Some(session);
    }

    /// Before the first record. `true`: the session ends without any record.
    pub(super) fn on_early_trigger(
        &mut self,
        now: Now,
        session: &mut AccountingSession,
        trigger: &Trigger<'_>,
    ) -> bool {
        let class = self.config.classes.find(session.class);
        let (record_sdp, record_tariff) = (class.record_sdp, class.rows.interim_on_tariff);
        let Some(opening) = session.opening.as_mut() else {
            return false;
        };
        match *trigger {
            Trigger::Routed {
                called_party,
                outgoing_session_id,
                nni,
            } => {
                replace(&mut opening.called_party, called_party);
                replace(&mut opening.outgoing_session_id, outgoing_session_id);
                opening.nni.clear();
                if let Some(nni) = nni {
                    ims::nni_information(&mut Writer::avps(&mut opening.nni), &nni);
                }
            }
            Trigger::EarlyMedia {
                offer,
                offer_time,
                answer,
                answer_time,
            } if record_sdp => {
                if opening.early_media < ims::EARLY_MEDIA_MAX {
                    opening.early_media += 1;
                    let mut writer = Writer::avps(&mut opening.content);
                    ims::early_media(&mut writer, (offer, offer_time), (answer, answer_time));
                }
            }
            // Column SI-E: what came before the first record goes into it. A later document
            // takes the place of an earlier one.
            Trigger::TariffReceived { xml } if record_tariff => {
                opening.tariff.clear();
                opening.tariff.extend_from_slice(ims::bounded_tariff(xml));
            }
            Trigger::Answered { .. } if opening.response_time.is_none() => {
                return self.on_answered(now, session, trigger);
            }
            // Only a late offer under policy B is answered and still without its START.
            Trigger::AckWithAnswer { sdp, .. } if opening.response_time.is_some() => {
                self.start(now, session, sdp);
            }
            Trigger::Ended { .. } if opening.response_time.is_some() => {
                self.start(now, session, &[]);
                self.on_session_trigger(now, session, trigger);
            }
            Trigger::SetUpFailed {
                cause,
                reasons,
                response_time,
            } => {
                return self.fail_set_up(now, session, cause, reasons, response_time);
            }
            Trigger::Ended {
                reasons,
                request_time,
                ..
            } => {
                let cause = SetUpFailure::Unspecified;
                return self.fail_set_up(now, session, cause, reasons, request_time);
            }
            _ => self.counters.trigger_ignored += 1,
        }
        false
    }

    /// 2xx to the INVITE. `true`: the session is not to be recorded.
    fn on_answered(
        &mut self,
        now: Now,
        session: &mut AccountingSession,
        trigger: &Trigger<'_>,
    ) -> bool {
        let class = self.config.classes.find(session.class);
        let (
            Trigger::Answered {
                response_time,
                answer_known,
                sdp,
                called,
                terminating_access,
                message_bodies,
            },
            Some(opening),
        ) = (*trigger, session.opening.as_mut())
        else {
            return false;
        };
        if !class.rows.session {
            return true;
        }
        opening.response_time = Some(response_time);
        note_called_side(opening, &called);
        let mut writer = Writer::avps(&mut opening.content);
        ims::message_bodies(&mut writer, message_bodies);
        if class.record_sdp {
            sdp.iter().for_each(|sdp| ims::sdp(&mut writer, sdp));
        }
        if let Some(access) = terminating_access {
            let mut writer = Writer::avps(&mut opening.start_content);
            writer.u32(d::TAD_IDENTIFIER, access as u32);
        }
        if answer_known || class.late_offer == LateOffer::StartAtAnswer {
            self.start(now, session, &[]);
        }
        false
    }

    fn open_session(
        &mut self,
        facts: &SessionFacts<'_>,
        request_time: UnixMillis,
    ) -> AccountingSession {
        let session_id = self.mint_session_id(facts.slot);
        let class = self.config.classes.find(facts.class);
        let (mut template, mut method) = self.spare.take_session();
        let facts = &class.omitted.without(*facts);
        let layout = acr::template(&self.config, class, facts, &session_id, &mut template);
        self.spare.give(session_id);
        replace(&mut method, facts.method);
        let mut opening = self.spare.take_opening();
        opening.request_time = request_time;
        gather(&mut opening, facts);
        AccountingSession {
            class: facts.class,
            state: AccountingState::Idle,
            template,
            layout,
            method,
            next_number: 0,
            interim_interval_s: 0,
            interim_base: UnixMillis::default(),
            interim_due: None,
            pending: None,
            waiting: Vec::new(),
            held_stop: None,
            opening: Some(opening),
            started: false,
            ended: false,
        }
    }

    /// RFC 6733 s8.8: `host;high;low;optional`, unique for ever. The sequence overflows into the
    /// high half, which stays behind the clock: 2^32 sessions take longer than a second.
    fn mint_session_id(&mut self, slot: u32) -> Vec<u8> {
        self.sequence += 1;
        let high = self
            .config
            .boot_epoch_s
            .wrapping_add((self.sequence >> 32) as u32);
        let low = self.sequence as u32;
        let (host, shard) = (&self.config.origin_host, self.config.shard);
        let mut id = self.spare.take();
        write!(id, "{host};{high};{low};{shard}.{slot}").expect("memory takes what is written");
        id
    }

    /// START: what was gathered goes into it, the facts are frozen.
    fn start(&mut self, now: Now, session: &mut AccountingSession, ack_sdp: &[Sdp<'_>]) {
        let Some(opening) = session.opening.take() else {
            return;
        };
        freeze(session, &opening);
        let record_sdp = self.class(session).record_sdp;
        session.interim_base = now.steady;
        let write = |writer: &mut Writer<'_>| {
            writer.encoded(&opening.content);
            writer.encoded(&opening.nni);
            writer.encoded(&opening.start_content);
            ims::tariff(writer, &opening.tariff);
            ims::text(
                writer,
                d::ALTERNATE_CHARGED_PARTY_ADDRESS,
                &opening.alternate_charged_party,
            );
            if record_sdp {
                ack_sdp.iter().for_each(|sdp| ims::sdp(writer, sdp));
            }
            ims::event_type(writer, b"INVITE", b"", None);
            ims::time_stamps(writer, Some(opening.request_time), opening.response_time);
        };
        let beside = |writer: &mut Writer<'_>| writer.encoded(&opening.beside);
        self.make_beside(now, session, RecordType::Start, write, beside);
        self.spare.give_opening(opening);
    }

    /// EVENT for an INVITE that failed. `true`: the row is off, no record.
    fn fail_set_up(
        &mut self,
        now: Now,
        session: &mut AccountingSession,
        cause: SetUpFailure,
        reasons: &[&[u8]],
        response_time: UnixMillis,
    ) -> bool {
        let rows = self.class(session).rows;
        let wanted = match cause {
            SetUpFailure::Response(401 | 407) => rows.event_on_challenge,
            SetUpFailure::Response(300..=399) => rows.event_on_redirect,
            SetUpFailure::Response(_) => rows.event_on_failure,
            SetUpFailure::Cancelled => rows.event_on_cancel,
            SetUpFailure::Internal | SetUpFailure::Unspecified => rows.event_on_internal_failure,
        };
        let Some(opening) = session.opening.take() else {
            return false;
        };
        if !wanted {
            return true;
        }
        freeze(session, &opening);
        let method = std::mem::take(&mut session.method);
        let write = |writer: &mut Writer<'_>| {
            writer.encoded(&opening.content);
            writer.encoded(&opening.nni);
            ims::tariff(writer, &opening.tariff);
            ims::event_type(writer, &method, b"", None);
            ims::time_stamps(writer, Some(opening.request_time), Some(response_time));
            ims::cause(writer, cause.cause_code().0, reasons);
        };
        let beside = |writer: &mut Writer<'_>| writer.encoded(&opening.beside);
        self.make_beside(now, session, RecordType::Event, write, beside);
        session.method = method;
        self.spare.give_opening(opening);
        false
    }
}

/// What is known when the first request arrives.
fn gather(opening: &mut Opening, facts: &SessionFacts<'_>) {
    for (target, value) in [
        (&mut opening.requested_party, facts.requested_party),
        (&mut opening.called_party, facts.called_party),
        (&mut opening.outgoing_session_id, facts.outgoing_session_id),
        (&mut opening.orig_ioi, facts.orig_ioi),
        (&mut opening.term_ioi, facts.term_ioi),
        (&mut opening.transit_ioi, facts.transit_ioi),
        (
            &mut opening.alternate_charged_party,
            facts.alternate_charged_party,
        ),
    ] {
        replace(target, value);
    }
    ims::opening_facts(&mut Writer::avps(&mut opening.content), facts);
    ims::mmtel(&mut Writer::avps(&mut opening.beside), facts.services);
    if let Some(transfer) = &facts.access_transfer {
        ims::access_transfer(&mut Writer::avps(&mut opening.start_content), transfer);
    }
}

/// What the response says of the called side.
fn note_called_side(opening: &mut Opening, called: &CalledSide<'_>) {
    if !called.term_ioi.is_empty() {
        replace(&mut opening.term_ioi, called.term_ioi);
    }
    replace(&mut opening.transit_ioi_response, called.transit_ioi);
    let mut writer = Writer::avps(&mut opening.content);
    ims::called_asserted(&mut writer, called.asserted_identity);
}

fn replace(target: &mut Vec<u8>, value: &[u8]) {
    target.clear();
    target.extend_from_slice(ims::bounded(value));
}

/// Appends the facts that became known until the first record. From here on the template never
/// changes, or the pending record could not be rendered again.
fn freeze(session: &mut AccountingSession, opening: &Opening) {
    let mut writer = Writer::avps(&mut session.template);
    ims::parties(
        &mut writer,
        &opening.called_party,
        &opening.requested_party,
        &opening.outgoing_session_id,
    );
    ims::operators(&mut writer, &opening.orig_ioi, &opening.term_ioi);
    ims::transit(
        &mut writer,
        &opening.transit_ioi,
        &opening.transit_ioi_response,
    );
}

/// TS 32.299 s7.2.35: the end of a subscription or registration has causes of its own.
fn one_shot_cause(method: &[u8], code: u16, expires: Option<u32>) -> CauseCode {
    match (method, code, expires) {
        (b"SUBSCRIBE", 200..300, Some(0)) => CauseCode::END_OF_SUBSCRIBE,
        (b"REGISTER", 200..300, Some(0)) => CauseCode::END_OF_REGISTER,
        _ => CauseCode::from_final_response(code),
    }
}
