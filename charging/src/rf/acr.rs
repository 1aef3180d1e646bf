//! Accounting-Request by template: copy, insert, patch.
//!
//! The template of a session is a complete ACR (TS 32.299 s6.2.2) whose last AVP is
//! Service-Information and whose last AVP inside that is IMS-Information. So what differs between
//! records is appended at the end, and five numbers and three lengths are patched:
//!
//! ```text
//! header | Session-Id Origin-* Destination-Realm TYPE NUMBER Acct-Application-Id User-Name
//!   Destination-Host ^ Origin-State-Id EVENT-TIME Service-Context-Id
//!   Service-Information[ Subscription-Id* IMS-Information[ facts ... + content ] + beside ]
//!                    ^ Acct-Interim-Interval goes in here when one is proposed
//! ```

use crate::config::{ChargingClass, CtfConfig};
use crate::diameter::avp::{Writer, ntp_seconds, patch_length};
use crate::diameter::dictionary as d;
use crate::diameter::header::{END_TO_END_AT, Header, PROXIABLE, REQUEST, set_retransmitted};
use crate::ims;
use crate::state::{AccountingSession, ArchivedAccountingSession, ChargingState, Layout};
use crate::trigger::SessionFacts;

/// Octets of an encoded Acct-Interim-Interval.
const INTERIM_AVP_LENGTH: usize = 12;

/// Everything an ACR is rendered from, borrowed from a session or from its archive.
#[derive(Clone, Copy, Debug)]
pub struct AcrSource<'a> {
    template: &'a [u8],
    layout: Layout,
    content: &'a [u8],
    beside_length: usize,
    record_type: u32,
    number: u32,
    event_time_s: u64,
    end_to_end: u32,
    proposed_interval_s: u32,
    possibly_sent: bool,
}

impl<'a> AcrSource<'a> {
    /// The pending record of a session.
    #[must_use]
    pub fn pending(session: &'a AccountingSession) -> Option<Self> {
        let record = session.pending.as_ref()?;
        Some(Self {
            template: &session.template,
            layout: session.layout,
            content: &record.content,
            beside_length: record.beside_length as usize,
            record_type: record.record_type as u32,
            number: record.number,
            event_time_s: record.event_time.seconds(),
            end_to_end: record.end_to_end,
            proposed_interval_s: record.proposed_interval_s,
            possibly_sent: record.possibly_sent,
        })
    }

    /// The pending record of an archived session, without deserialising it.
    #[must_use]
    pub fn pending_archived(session: &'a ArchivedAccountingSession) -> Option<Self> {
        let record = session.pending.as_ref()?;
        let layout = &session.layout;
        Some(Self {
            template: &session.template,
            layout: Layout {
                record_type_at: layout.record_type_at.into(),
                record_number_at: layout.record_number_at.into(),
                interim_at: layout.interim_at.into(),
                event_time_at: layout.event_time_at.into(),
                service_at: layout.service_at.into(),
                ims_at: layout.ims_at.into(),
                session_id_length: layout.session_id_length.into(),
            },
            content: &record.content,
            beside_length: u32::from(record.beside_length) as usize,
            record_type: record.record_type as u32,
            number: record.number.into(),
            event_time_s: u64::from(record.event_time.0) / 1_000,
            end_to_end: record.end_to_end.into(),
            proposed_interval_s: record.proposed_interval_s.into(),
            possibly_sent: record.possibly_sent,
        })
    }

    /// Renders the ACR into `out`, replacing what it holds. The hop-by-hop identifier is left to
    /// the router; the T flag is set if a copy may have been sent before.
    ///
    /// # Panics
    /// If the layout points outside the template: a session is only built with its layout.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        let interim_at = usize::from(self.layout.interim_at);
        let inserted = if self.proposed_interval_s == 0 {
            0
        } else {
            INTERIM_AVP_LENGTH
        };
        let length = self.template.len() + inserted + self.content.len();
        out.reserve(length);
        let (before, behind) = self.template.split_at(interim_at);
        out.extend_from_slice(before);
        if inserted != 0 {
            Writer::avps(out).u32(d::ACCT_INTERIM_INTERVAL, self.proposed_interval_s);
        }
        out.extend_from_slice(behind);
        out.extend_from_slice(self.content);

        let (service_at, ims_at) = (
            usize::from(self.layout.service_at) + inserted,
            usize::from(self.layout.ims_at) + inserted,
        );
        patch_length(out, 1, length);
        patch_length(out, service_at + 5, length - service_at);
        patch_length(out, ims_at + 5, length - self.beside_length - ims_at);
        let word = |out: &mut Vec<u8>, at: usize, value: u32| {
            out[at..at + 4].copy_from_slice(&value.to_be_bytes());
        };
        word(out, END_TO_END_AT, self.end_to_end);
        word(
            out,
            usize::from(self.layout.record_type_at),
            self.record_type,
        );
        word(out, usize::from(self.layout.record_number_at), self.number);
        let event_time_at = usize::from(self.layout.event_time_at) + inserted;
        word(out, event_time_at, ntp_seconds(self.event_time_s));
        if self.possibly_sent {
            set_retransmitted(out);
        }
    }
}

/// Renders the pending ACR of a call into `out`. `false`: there is none, `out` is unchanged.
pub fn encode_pending(state: &ChargingState, out: &mut Vec<u8>) -> bool {
    let source = state.accounting.as_ref().and_then(AcrSource::pending);
    source.inspect(|source| source.encode(out)).is_some()
}

/// Builds the template of a session in `out`: what no record of it changes.
pub(crate) fn template(
    config: &CtfConfig,
    class: &ChargingClass,
    facts: &SessionFacts<'_>,
    session_id: &[u8],
    out: &mut Vec<u8>,
) -> Layout {
    out.clear();
    out.reserve(TEMPLATE_LENGTH_TYPICAL);
    let header = Header::new(
        REQUEST | PROXIABLE,
        d::ACCOUNTING,
        d::APPLICATION_ACCOUNTING,
    );
    let mut writer = Writer::message(out, &header);
    writer.octets(d::SESSION_ID, session_id);
    writer.octets(d::ORIGIN_HOST, config.origin_host.as_bytes());
    writer.octets(d::ORIGIN_REALM, config.origin_realm.as_bytes());
    writer.octets(d::DESTINATION_REALM, class.destination_realm.as_bytes());
    let record_type_at = writer.position() + 8;
    writer.u32(d::ACCOUNTING_RECORD_TYPE, 0);
    let record_number_at = writer.position() + 8;
    writer.u32(d::ACCOUNTING_RECORD_NUMBER, 0);
    writer.u32(d::ACCT_APPLICATION_ID, d::APPLICATION_ACCOUNTING);
    ims::text(&mut writer, d::USER_NAME, facts.user_name);
    if let Some(host) = &class.destination_host {
        writer.octets(d::DESTINATION_HOST, host.as_bytes());
    }
    let interim_at = writer.position();
    if let Some(id) = config.origin_state_id {
        writer.u32(d::ORIGIN_STATE_ID, id);
    }
    let event_time_at = writer.position() + 8;
    writer.u32(d::EVENT_TIMESTAMP, 0);
    writer.text(d::SERVICE_CONTEXT_ID, class.service_context_id.as_bytes());
    ims::user_equipment(&mut writer, facts.imei);
    let service_at = writer.position();
    let service = writer.open(d::SERVICE_INFORMATION);
    ims::subscriptions(&mut writer, facts, class.strip_plus);
    let ims_at = writer.position();
    let group = writer.open(d::IMS_INFORMATION);
    ims::session_facts(&mut writer, facts);
    writer.close(group);
    writer.close(service);
    writer.finish();
    let offset = |at: usize| u16::try_from(at).expect("the facts of a session are bounded");
    Layout {
        record_type_at: offset(record_type_at),
        record_number_at: offset(record_number_at),
        interim_at: offset(interim_at),
        event_time_at: offset(event_time_at),
        service_at: offset(service_at),
        ims_at: offset(ims_at),
        session_id_length: offset(session_id.len()),
    }
}

/// First guess at a template's size, octets.
const TEMPLATE_LENGTH_TYPICAL: usize = 768;
