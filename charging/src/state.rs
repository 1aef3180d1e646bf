//! The archived form of one call's charging state: whoever holds it can go on billing.
//!
//! It is a part of the call's blob. The pending record inside is the write-ahead rule: a record
//! is in here, replicated, before it is on the wire, and it can be rendered again from here alone,
//! byte by byte the same but for the hop-by-hop identifier and the T flag.

use rkyv::{Archive, Deserialize, Serialize};

use crate::time::UnixMillis;

/// Charging of one call.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct ChargingState {
    /// Offline charging (Rf); `None` if the call is not charged offline.
    pub accounting: Option<AccountingSession>,
}

/// One accounting session (RFC 6733 s8.2, client) and all that its records need.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct AccountingSession {
    /// Number of the charging class.
    pub(crate) class: u16,
    /// State of the client machine.
    pub(crate) state: AccountingState,
    /// The ACR without what differs between records.
    pub(crate) template: Vec<u8>,
    /// Where the template is patched.
    pub(crate) layout: Layout,
    /// Method that opened the session.
    pub(crate) method: Vec<u8>,
    /// Accounting-Record-Number of the next record.
    pub(crate) next_number: u32,
    /// Instructed interval, seconds; 0 for none.
    pub(crate) interim_interval_s: u32,
    /// Start of the present period, steady time.
    pub(crate) interim_base: UnixMillis,
    /// When the next periodic INTERIM is produced, steady time.
    pub(crate) interim_due: Option<UnixMillis>,
    /// The one record that is, or is about to be, on the wire.
    pub(crate) pending: Option<Record>,
    /// Records behind it: at most one INTERIM and one STOP.
    pub(crate) waiting: Vec<Record>,
    /// A STOP that waits for the answer to the BYE, and until when in steady time.
    pub(crate) held_stop: Option<(Record, UnixMillis)>,
    /// What only the first record needs; gone once it is made.
    pub(crate) opening: Option<Box<Opening>>,
    /// START was made.
    pub(crate) started: bool,
    /// STOP or EVENT was made: no further record.
    pub(crate) ended: bool,
}

/// States of the accounting client (RFC 6733 s8.2). PendingB is the backlog's.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord,
)]
#[rkyv(derive(Debug, Clone, Copy))]
pub enum AccountingState {
    /// No record yet, or all delivered, stored or lost.
    #[default]
    Idle,
    /// START is unanswered.
    PendingS,
    /// START was answered, stored or lost by policy.
    Open,
    /// INTERIM is unanswered.
    PendingI,
    /// STOP is unanswered.
    PendingL,
    /// EVENT is unanswered.
    PendingE,
}

/// Accounting-Record-Type (480).
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[rkyv(derive(Debug, Clone, Copy))]
pub enum RecordType {
    /// EVENT_RECORD.
    Event = 1,
    /// START_RECORD.
    Start = 2,
    /// INTERIM_RECORD.
    Interim = 3,
    /// STOP_RECORD.
    Stop = 4,
}

impl RecordType {
    /// The record type of that value.
    #[must_use]
    pub const fn from_value(value: u32) -> Option<Self> {
        match value {
            1 => Some(Self::Event),
            2 => Some(Self::Start),
            3 => Some(Self::Interim),
            4 => Some(Self::Stop),
            _ => None,
        }
    }
}

/// One record: everything that differs from the template.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Accounting-Record-Number.
    pub(crate) number: u32,
    /// Accounting-Record-Type.
    pub(crate) record_type: RecordType,
    /// Event-Timestamp.
    pub(crate) event_time: UnixMillis,
    /// End-to-End Identifier, kept over retransmissions.
    pub(crate) end_to_end: u32,
    /// Acct-Interim-Interval proposed, seconds; 0 leaves the AVP out.
    pub(crate) proposed_interval_s: u32,
    /// A copy may have been on the wire: further ones carry the T flag.
    pub(crate) possibly_sent: bool,
    /// This node handed it to a connection and waits for the outcome.
    pub(crate) in_flight: bool,
    /// AVPs inside IMS-Information, and behind them those beside it in Service-Information.
    pub(crate) content: Vec<u8>,
    /// Octets of `content` that stand beside IMS-Information.
    pub(crate) beside_length: u32,
}

/// Offsets into the template.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug, Clone, Copy))]
pub struct Layout {
    /// Value of Accounting-Record-Type.
    pub(crate) record_type_at: u16,
    /// Value of Accounting-Record-Number.
    pub(crate) record_number_at: u16,
    /// Where Acct-Interim-Interval is inserted.
    pub(crate) interim_at: u16,
    /// Value of Event-Timestamp.
    pub(crate) event_time_at: u16,
    /// Service-Information, the last AVP.
    pub(crate) service_at: u16,
    /// IMS-Information, the last AVP inside it.
    pub(crate) ims_at: u16,
    /// Octets of the Session-Id, which stands first.
    pub(crate) session_id_length: u16,
}

/// What only START or EVENT needs.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// When the INVITE arrived.
    pub(crate) request_time: UnixMillis,
    /// When the 2xx arrived, if START waits for the ACK.
    pub(crate) response_time: Option<UnixMillis>,
    /// Incoming Request-URI.
    pub(crate) requested_party: Vec<u8>,
    /// Outgoing Request-URI.
    pub(crate) called_party: Vec<u8>,
    /// Call-ID of the outgoing dialog.
    pub(crate) outgoing_session_id: Vec<u8>,
    /// orig-ioi.
    pub(crate) orig_ioi: Vec<u8>,
    /// term-ioi.
    pub(crate) term_ioi: Vec<u8>,
    /// transit-ioi of the request.
    pub(crate) transit_ioi: Vec<u8>,
    /// transit-ioi of the response.
    pub(crate) transit_ioi_response: Vec<u8>,
    /// Alternate-Charged-Party-Address.
    pub(crate) alternate_charged_party: Vec<u8>,
    /// Encoded AVPs of START and EVENT.
    pub(crate) content: Vec<u8>,
    /// Encoded AVPs of START and EVENT beside IMS-Information.
    pub(crate) beside: Vec<u8>,
    /// Encoded NNI-Information of the way out.
    pub(crate) nni: Vec<u8>,
    /// The last Tariff-XML that came before the first record.
    pub(crate) tariff: Vec<u8>,
    /// Encoded AVPs of START alone.
    pub(crate) start_content: Vec<u8>,
    /// Early-Media-Descriptions in `content`.
    pub(crate) early_media: u8,
}

impl Opening {
    /// Empty again, its memory kept.
    pub(crate) fn clear(&mut self) {
        self.request_time = UnixMillis::default();
        self.response_time = None;
        self.early_media = 0;
        self.buffers().into_iter().for_each(Vec::clear);
    }

    /// The most that one of its buffers keeps, octets.
    pub(crate) fn largest_buffer(&mut self) -> usize {
        let sizes = self.buffers().map(|buffer| buffer.capacity());
        sizes.into_iter().max().unwrap_or_default()
    }

    fn buffers(&mut self) -> [&mut Vec<u8>; 13] {
        [
            &mut self.requested_party,
            &mut self.called_party,
            &mut self.outgoing_session_id,
            &mut self.orig_ioi,
            &mut self.term_ioi,
            &mut self.transit_ioi,
            &mut self.transit_ioi_response,
            &mut self.alternate_charged_party,
            &mut self.content,
            &mut self.beside,
            &mut self.nni,
            &mut self.tariff,
            &mut self.start_content,
        ]
    }
}

/// Which record is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordKey {
    /// Accounting-Record-Type.
    pub record_type: RecordType,
    /// Accounting-Record-Number.
    pub number: u32,
    /// A copy may have been sent before.
    pub possibly_sent: bool,
}

impl ChargingState {
    /// The record to be handed to a connection now, if any: encode it with
    /// [`crate::rf::acr::encode_pending`], send it once this state is committed, then report
    /// [`ChargingState::on_sent`].
    #[must_use]
    pub fn request_to_send(&self) -> Option<RecordKey> {
        self.accounting.as_ref()?.request_to_send()
    }

    /// The pending record was handed to a connection.
    pub fn on_sent(&mut self) {
        if let Some(record) = self
            .accounting
            .as_mut()
            .and_then(|session| session.pending.as_mut())
        {
            record.in_flight = true;
            record.possibly_sent = true;
        }
    }

    /// Number of the charging class; `None` if the call is not charged.
    #[must_use]
    pub fn class(&self) -> Option<u16> {
        self.accounting.as_ref().map(|session| session.class)
    }

    /// When [`crate::ctf::Ctf::on_deadline`] is due, in steady time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<UnixMillis> {
        self.accounting.as_ref()?.next_deadline()
    }

    /// Nothing is owed to the CDF any more: the call may be dropped.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.accounting
            .as_ref()
            .is_none_or(AccountingSession::is_finished)
    }
}

impl AccountingSession {
    /// See [`ChargingState::request_to_send`].
    #[must_use]
    pub fn request_to_send(&self) -> Option<RecordKey> {
        self.pending.as_ref().filter(|record| !record.in_flight)?;
        self.pending_key()
    }

    /// The pending record, on the wire or not.
    #[must_use]
    pub fn pending_key(&self) -> Option<RecordKey> {
        let record = self.pending.as_ref()?;
        Some(RecordKey {
            record_type: record.record_type,
            number: record.number,
            possibly_sent: record.possibly_sent,
        })
    }

    /// See [`ChargingState::next_deadline`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<UnixMillis> {
        let held = self.held_stop.as_ref().map(|(_, until)| *until);
        match (self.interim_due, held) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// See [`ChargingState::is_finished`].
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.ended && self.pending.is_none() && self.waiting.is_empty() && self.held_stop.is_none()
    }

    /// State of the client machine.
    #[must_use]
    pub const fn state(&self) -> AccountingState {
        self.state
    }

    /// Accounting-Record-Number of the next record.
    #[must_use]
    pub fn next_number(&self) -> u32 {
        self.next_number
    }

    /// The Session-Id.
    #[must_use]
    pub fn session_id(&self) -> &[u8] {
        let length = usize::from(self.layout.session_id_length);
        &self.template[SESSION_ID_AT..SESSION_ID_AT + length]
    }

    /// The instructed Acct-Interim-Interval, seconds; 0 for none.
    #[must_use]
    pub const fn interim_interval_s(&self) -> u32 {
        self.interim_interval_s
    }

    /// START was made.
    #[must_use]
    pub const fn is_started(&self) -> bool {
        self.started
    }

    /// STOP or EVENT was made.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        self.ended
    }
}

/// Where the Session-Id's value stands: behind the message header and its AVP header.
pub(crate) const SESSION_ID_AT: usize = 20 + 8;
