//! Between START and STOP: what SIP does becomes INTERIMs, and the end becomes the STOP.

use super::Ctf;
use crate::diameter::avp::Writer;
use crate::ims;
use crate::state::{AccountingSession, RecordType};
use crate::time::{Now, UnixMillis};
use crate::trigger::{CauseCode, MessageBody, Trigger};

impl Ctf {
    /// After the first record was made.
    pub(super) fn on_session_trigger(
        &mut self,
        now: Now,
        session: &mut AccountingSession,
        trigger: &Trigger<'_>,
    ) {
        let class = self.class(session);
        let (rows, record_sdp) = (class.rows, class.record_sdp);
        if let Trigger::ByeAnswered {
            access_network_info,
        } = *trigger
            && let Some((mut record, _)) = session.held_stop.take()
        {
            let mut writer = Writer::avps(&mut record.content);
            ims::access_networks(&mut writer, access_network_info);
            self.release_stop(session, record);
            return;
        }
        if session.ended || !session.started || session.held_stop.is_some() {
            self.counters.trigger_ignored += 1;
            return;
        }
        match *trigger {
            Trigger::Ended {
                cause,
                reasons,
                request_time,
                message_bodies,
            } => {
                self.end(now, session, (cause, reasons), request_time, message_bodies);
            }
            Trigger::AckWithAnswer { request_time, sdp } if rows.interim_on_ack_answer => {
                self.sip_interim(now, session, |writer| {
                    ims::event_type(writer, b"ACK", b"", None);
                    ims::time_stamps(writer, Some(request_time), None);
                    if record_sdp {
                        sdp.iter().for_each(|sdp| ims::sdp(writer, sdp));
                    }
                });
            }
            Trigger::MediaChanged { code, .. }
                if (200..300).contains(&code) && rows.interim_on_media_change
                    || (400..700).contains(&code) && rows.interim_on_media_change_failure =>
            {
                self.on_media_changed(now, session, trigger, record_sdp);
            }
            Trigger::AccessNetworkChanged {
                access_network_info,
                change_time,
                transfer,
            } if rows.interim_on_access_network_change => {
                let method = session.method.clone();
                self.sip_interim(now, session, |writer| {
                    ims::event_type(writer, &method, b"", None);
                    ims::access_network_change(writer, access_network_info, transfer, change_time);
                });
            }
            Trigger::TariffReceived { xml } if rows.interim_on_tariff => {
                let method = session.method.clone();
                self.sip_interim(now, session, |writer| {
                    ims::event_type(writer, &method, b"", None);
                    ims::tariff(writer, xml);
                });
            }
            _ => self.counters.trigger_ignored += 1,
        }
    }

    pub(super) fn end(
        &mut self,
        now: Now,
        session: &mut AccountingSession,
        (cause, reasons): (CauseCode, &[&[u8]]),
        request_time: UnixMillis,
        bodies: &[MessageBody<'_>],
    ) {
        let class = self.class(session);
        let hold = class.rows.stop_at_bye_answer.then_some(class.stop_hold_ms);
        let write = |writer: &mut Writer<'_>| {
            ims::event_type(writer, b"BYE", b"", None);
            ims::time_stamps(writer, Some(request_time), None);
            ims::cause(writer, cause.0, reasons);
            ims::message_bodies(writer, bodies);
        };
        match hold {
            Some(hold_ms) => {
                let record = self.record(now, session, RecordType::Stop, write);
                session.interim_due = None;
                session.held_stop = Some((record, now.steady.plus_ms(hold_ms)));
            }
            None => self.make(now, session, RecordType::Stop, write),
        }
    }

    fn sip_interim(
        &mut self,
        now: Now,
        session: &mut AccountingSession,
        write: impl FnOnce(&mut Writer<'_>),
    ) {
        self.make(now, session, RecordType::Interim, write);
        self.after_sip_interim(now, session);
    }

    fn on_media_changed(
        &mut self,
        now: Now,
        session: &mut AccountingSession,
        trigger: &Trigger<'_>,
        record_sdp: bool,
    ) {
        let Trigger::MediaChanged { services, .. } = *trigger else {
            return;
        };
        self.make_beside(
            now,
            session,
            RecordType::Interim,
            |writer| media_changed(writer, trigger, record_sdp),
            |writer| ims::mmtel(writer, services),
        );
        self.after_sip_interim(now, session);
    }

    fn after_sip_interim(&mut self, now: Now, session: &mut AccountingSession) {
        if self.class(session).interim_reset_on_sip {
            session.interim_base = now.steady;
            self.plan_interim(now.steady, session);
        }
    }
}

fn media_changed(writer: &mut Writer<'_>, trigger: &Trigger<'_>, record_sdp: bool) {
    let Trigger::MediaChanged {
        method,
        request_time,
        response_time,
        sdp,
        called_identity,
        message_bodies,
        ..
    } = *trigger
    else {
        return;
    };
    ims::event_type(writer, method, b"", None);
    ims::time_stamps(writer, Some(request_time), Some(response_time));
    if !called_identity.is_empty() {
        ims::called_identity_change(writer, called_identity, response_time);
    }
    ims::message_bodies(writer, message_bodies);
    if record_sdp {
        sdp.iter().for_each(|sdp| ims::sdp(writer, sdp));
    }
}
