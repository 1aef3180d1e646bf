//! What a CDF reads from an ACR, and where it keeps it.

use std::collections::BTreeMap;

use crate::diameter::avp::{Avp, AvpError, Avps, Message};
use crate::diameter::dictionary::{self as d, Attribute, result};
use crate::diameter::header::HEADER_LENGTH;
use crate::rf::backlog::StoreError;
use crate::state::RecordType;
use crate::time::UnixMillis;

/// One accounting record: the fields a rating system asks for, and the message itself.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedRecord<'a> {
    /// Session-Id.
    pub session_id: &'a [u8],
    /// Accounting-Record-Number.
    pub record_number: u32,
    /// Accounting-Record-Type.
    pub record_type: RecordType,
    /// Origin-Host.
    pub origin_host: &'a [u8],
    /// Origin-Realm.
    pub origin_realm: &'a [u8],
    /// Event-Timestamp, seconds since 1970.
    pub event_time_s: Option<u64>,
    /// User-Name.
    pub user_name: &'a [u8],
    /// Service-Context-Id.
    pub service_context_id: &'a [u8],
    /// Proposed Acct-Interim-Interval, seconds.
    pub proposed_interval_s: Option<u32>,
    /// The T flag was set.
    pub retransmitted: bool,
    /// SIP-Method.
    pub sip_method: &'a [u8],
    /// Role-Of-Node.
    pub role_of_node: Option<u32>,
    /// Call-ID of the incoming dialog.
    pub user_session_id: &'a [u8],
    /// Call-ID of the outgoing dialog.
    pub outgoing_session_id: &'a [u8],
    /// IMS-Charging-Identifier.
    pub icid: &'a [u8],
    /// First Calling-Party-Address.
    pub calling_party: &'a [u8],
    /// Called-Party-Address.
    pub called_party: &'a [u8],
    /// First Requested-Party-Address.
    pub requested_party: &'a [u8],
    /// Data of the first Subscription-Id.
    pub subscription: &'a [u8],
    /// Cause-Code.
    pub cause_code: Option<i32>,
    /// SIP-Request-Timestamp with its fraction.
    pub request_time: Option<UnixMillis>,
    /// SIP-Response-Timestamp with its fraction.
    pub response_time: Option<UnixMillis>,
    /// The complete ACR.
    pub raw: &'a [u8],
}

/// Why an ACR is refused: the Result-Code, and the AVP that Failed-AVP shows.
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'a> {
    /// Result-Code.
    pub result_code: u32,
    /// What goes into Failed-AVP.
    pub failed: Option<FailedAvp<'a>>,
}

/// Content of a Failed-AVP (RFC 6733 s7.5).
#[derive(Clone, Copy, Debug)]
pub enum FailedAvp<'a> {
    /// The offending AVP as received.
    Received(&'a [u8]),
    /// An example of the missing AVP.
    Missing(Attribute),
}

/// What each record must have (RFC 6733 s9.7.1).
const MANDATORY: [Attribute; 6] = [
    d::SESSION_ID,
    d::ORIGIN_HOST,
    d::ORIGIN_REALM,
    d::DESTINATION_REALM,
    d::ACCOUNTING_RECORD_TYPE,
    d::ACCOUNTING_RECORD_NUMBER,
];

impl<'a> ReceivedRecord<'a> {
    /// Reads an ACR.
    ///
    /// # Errors
    /// [`Refusal`]: 5014, 5005, 5009 or 5004, with the AVP at fault.
    pub fn read(message: &Message<'a>) -> Result<Self, Refusal<'a>> {
        let mut record = Self::empty(message);
        let mut record_type = None;
        let mut seen = [false; MANDATORY.len()];
        let mut service_seen = false;
        for avp in message.avps() {
            let avp = avp.map_err(Refusal::malformed)?;
            if let Some(index) = MANDATORY.iter().position(|&attribute| avp.is(attribute))
                && std::mem::replace(&mut seen[index], true)
            {
                return Err(Refusal::of(result::AVP_OCCURS_TOO_MANY_TIMES, &avp));
            }
            if avp.is(d::SERVICE_INFORMATION) {
                if std::mem::replace(&mut service_seen, true) {
                    return Err(Refusal::of(result::AVP_OCCURS_TOO_MANY_TIMES, &avp));
                }
                record.read_service(&avp)?;
            } else if avp.is(d::ACCOUNTING_RECORD_TYPE) {
                let value = avp.u32().map_err(|_| Refusal::length(&avp))?;
                let known = RecordType::from_value(value);
                record_type =
                    Some(known.ok_or_else(|| Refusal::of(result::INVALID_AVP_VALUE, &avp))?);
            } else {
                record.read_command_avp(&avp)?;
            }
        }
        let missing = MANDATORY.iter().zip(seen).find(|(_, seen)| !seen);
        match (missing, record_type) {
            (Some((&attribute, _)), _) => Err(Refusal::missing(attribute)),
            (None, Some(record_type)) => Ok(Self {
                record_type,
                ..record
            }),
            (None, None) => Err(Refusal::missing(d::ACCOUNTING_RECORD_TYPE)),
        }
    }

    /// Do both say the same? Header and what agents add on the way are not compared.
    #[must_use]
    pub fn same_content(&self, other: &[u8]) -> bool {
        let ours = self.raw.get(HEADER_LENGTH..).unwrap_or_default();
        let theirs = other.get(HEADER_LENGTH..).unwrap_or_default();
        ours == theirs || without_route(ours).eq(without_route(theirs))
    }

    const fn empty(message: &Message<'a>) -> Self {
        const NONE: &[u8] = b"";
        Self {
            session_id: NONE,
            record_number: 0,
            record_type: RecordType::Event,
            origin_host: NONE,
            origin_realm: NONE,
            event_time_s: None,
            user_name: NONE,
            service_context_id: NONE,
            proposed_interval_s: None,
            retransmitted: message.header.is_retransmitted(),
            sip_method: NONE,
            role_of_node: None,
            user_session_id: NONE,
            outgoing_session_id: NONE,
            icid: NONE,
            calling_party: NONE,
            called_party: NONE,
            requested_party: NONE,
            subscription: NONE,
            cause_code: None,
            request_time: None,
            response_time: None,
            raw: message.bytes(),
        }
    }

    fn read_command_avp(&mut self, avp: &Avp<'a>) -> Result<(), Refusal<'a>> {
        let number = || avp.u32().map_err(|_| Refusal::length(avp));
        if avp.is(d::SESSION_ID) {
            self.session_id = avp.data;
        } else if avp.is(d::ORIGIN_HOST) {
            self.origin_host = avp.data;
        } else if avp.is(d::ORIGIN_REALM) {
            self.origin_realm = avp.data;
        } else if avp.is(d::ACCOUNTING_RECORD_NUMBER) {
            self.record_number = number()?;
        } else if avp.is(d::USER_NAME) {
            self.user_name = avp.data;
        } else if avp.is(d::ACCT_INTERIM_INTERVAL) {
            self.proposed_interval_s = Some(number()?);
        } else if avp.is(d::EVENT_TIMESTAMP) {
            self.event_time_s = Some(avp.unix_seconds().map_err(|_| Refusal::length(avp))?);
        } else if avp.is(d::SERVICE_CONTEXT_ID) {
            self.service_context_id = avp.data;
        }
        Ok(())
    }

    fn read_service(&mut self, service: &Avp<'a>) -> Result<(), Refusal<'a>> {
        for avp in service.grouped().map_err(Refusal::malformed)? {
            let avp = avp.map_err(Refusal::malformed)?;
            if avp.is(d::SUBSCRIPTION_ID) && self.subscription.is_empty() {
                let data = avp.grouped().map_err(Refusal::malformed)?;
                let data = data.find_attribute(d::SUBSCRIPTION_ID_DATA);
                self.subscription = data.map_or(b"", |avp| avp.data);
            } else if avp.is(d::IMS_INFORMATION) {
                for inner in avp.grouped().map_err(Refusal::malformed)? {
                    self.read_ims_avp(&inner.map_err(Refusal::malformed)?)?;
                }
            }
        }
        Ok(())
    }

    fn read_ims_avp(&mut self, avp: &Avp<'a>) -> Result<(), Refusal<'a>> {
        let first = |field: &mut &'a [u8]| {
            if field.is_empty() {
                *field = avp.data;
            }
        };
        match *avp {
            _ if avp.vendor != d::VENDOR_3GPP => {}
            _ if avp.is(d::EVENT_TYPE) => {
                let inner = avp.grouped().map_err(Refusal::malformed)?;
                let method = inner.find_attribute(d::SIP_METHOD);
                self.sip_method = method.map_or(b"", |avp| avp.data);
            }
            _ if avp.is(d::TIME_STAMPS) => {
                let inner = avp.grouped().map_err(Refusal::malformed)?;
                let stamp = |seconds, fraction| time_stamp(inner, seconds, fraction);
                self.request_time =
                    stamp(d::SIP_REQUEST_TIMESTAMP, d::SIP_REQUEST_TIMESTAMP_FRACTION);
                self.response_time = stamp(
                    d::SIP_RESPONSE_TIMESTAMP,
                    d::SIP_RESPONSE_TIMESTAMP_FRACTION,
                );
            }
            _ if avp.is(d::CAUSE_CODE) => {
                self.cause_code = Some(avp.i32().map_err(|_| Refusal::length(avp))?);
            }
            _ if avp.is(d::ROLE_OF_NODE) => {
                self.role_of_node = Some(avp.u32().map_err(|_| Refusal::length(avp))?);
            }
            _ if avp.is(d::USER_SESSION_ID) => first(&mut self.user_session_id),
            _ if avp.is(d::OUTGOING_SESSION_ID) => first(&mut self.outgoing_session_id),
            _ if avp.is(d::IMS_CHARGING_IDENTIFIER) => first(&mut self.icid),
            _ if avp.is(d::CALLING_PARTY_ADDRESS) => first(&mut self.calling_party),
            _ if avp.is(d::CALLED_PARTY_ADDRESS) => first(&mut self.called_party),
            _ if avp.is(d::REQUESTED_PARTY_ADDRESS) => first(&mut self.requested_party),
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Refusal<'a> {
    const fn of(result_code: u32, avp: &Avp<'a>) -> Self {
        Self {
            result_code,
            failed: Some(FailedAvp::Received(avp.raw)),
        }
    }

    const fn length(avp: &Avp<'a>) -> Self {
        Self::of(result::INVALID_AVP_LENGTH, avp)
    }

    const fn missing(attribute: Attribute) -> Self {
        Self {
            result_code: result::MISSING_AVP,
            failed: Some(FailedAvp::Missing(attribute)),
        }
    }

    const fn malformed(_: AvpError) -> Self {
        Self {
            result_code: result::INVALID_AVP_LENGTH,
            failed: None,
        }
    }
}

fn time_stamp(inside: Avps<'_>, seconds: Attribute, fraction: Attribute) -> Option<UnixMillis> {
    let seconds = inside.find_attribute(seconds)?.unix_seconds().ok()?;
    let ms = inside
        .find_attribute(fraction)
        .and_then(|avp| avp.u32().ok())
        .unwrap_or(0);
    Some(UnixMillis(
        seconds
            .saturating_mul(1_000)
            .saturating_add(u64::from(ms.min(999))),
    ))
}

/// The AVPs of a message but Proxy-Info and Route-Record.
fn without_route(avps: &[u8]) -> impl Iterator<Item = &[u8]> {
    let kept = |avp: &Avp<'_>| !avp.is(d::PROXY_INFO) && !avp.is(d::ROUTE_RECORD);
    Avps::new(avps)
        .map_while(Result::ok)
        .filter(kept)
        .map(|avp| avp.raw)
}

/// What a store did with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The first with that Session-Id and number: kept.
    New,
    /// Seen before with the same content: not kept again.
    Duplicate,
    /// Seen before with other content: the first stays.
    Conflict,
}

/// Where a CDF keeps records; the key is (Session-Id, Accounting-Record-Number), RFC 6733 s9.4.
pub trait CdfStore {
    /// Keeps a record unless its key is there.
    ///
    /// # Errors
    /// [`StoreError`]: the client is told 4002 and keeps the record itself.
    fn put(&mut self, record: &ReceivedRecord<'_>) -> Result<Put, StoreError>;

    /// Makes what was put durable. Answers leave only after that.
    ///
    /// # Errors
    /// [`StoreError`]: the clients get no answers and send again.
    fn commit(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Records in memory, for tests.
#[derive(Debug, Default)]
pub struct MemoryCdfStore {
    sessions: BTreeMap<Vec<u8>, BTreeMap<u32, Vec<u8>>>,
}

impl CdfStore for MemoryCdfStore {
    fn put(&mut self, record: &ReceivedRecord<'_>) -> Result<Put, StoreError> {
        let session = self.sessions.entry(record.session_id.to_vec()).or_default();
        Ok(match session.get(&record.record_number) {
            None => {
                session.insert(record.record_number, record.raw.to_vec());
                Put::New
            }
            Some(first) if record.same_content(first) => Put::Duplicate,
            Some(_) => Put::Conflict,
        })
    }
}

impl MemoryCdfStore {
    /// The Session-Ids seen, in order.
    pub fn sessions(&self) -> impl Iterator<Item = &[u8]> {
        self.sessions.keys().map(Vec::as_slice)
    }

    /// The records of a session, by number.
    #[must_use]
    pub fn records(&self, session_id: &[u8]) -> Vec<ReceivedRecord<'_>> {
        let raw = self
            .sessions
            .get(session_id)
            .into_iter()
            .flat_map(BTreeMap::values);
        raw.filter_map(|raw| ReceivedRecord::read(&Message::parse(raw).ok()?).ok())
            .collect()
    }

    /// Records kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.values().map(BTreeMap::len).sum()
    }

    /// Nothing was kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}
