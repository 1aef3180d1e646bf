//! One CDR from the records of a session (TS 32.260 s6.1.3.9, as far as a trial needs it).

use super::record::ReceivedRecord;
use crate::state::RecordType;
use crate::time::UnixMillis;

/// Incomplete-CDR-Indication, aCRInterimLost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InterimLost {
    /// All numbers between START and STOP are there.
    #[default]
    No,
    /// A number is missing.
    Yes,
    /// The last number is not known.
    Unknown,
}

/// A call detail record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cdr<'a> {
    /// Session-Id.
    pub session_id: &'a [u8],
    /// IMS-Charging-Identifier.
    pub icid: &'a [u8],
    /// First Calling-Party-Address.
    pub calling_party: &'a [u8],
    /// Called-Party-Address.
    pub called_party: &'a [u8],
    /// Data of the first Subscription-Id.
    pub subscription: &'a [u8],
    /// SIP-Method of the first record.
    pub sip_method: &'a [u8],
    /// The session was a single EVENT.
    pub is_event: bool,
    /// When service was asked for: the INVITE.
    pub request_time: Option<UnixMillis>,
    /// When service began: the 2xx.
    pub start_time: Option<UnixMillis>,
    /// When service ended: the BYE, or the last sign of life if the STOP is lost.
    pub end_time: Option<UnixMillis>,
    /// Between start and end, milliseconds; `None` unless both are known.
    pub duration_ms: Option<u64>,
    /// Cause-Code of STOP or EVENT.
    pub cause_code: Option<i32>,
    /// Records it was made from.
    pub records: u32,
    /// INTERIMs among them.
    pub interims: u32,
    /// A T-flagged record fed it (retransmission mark).
    pub retransmission: bool,
    /// Incomplete-CDR-Indication, aCRStartLost.
    pub start_lost: bool,
    /// Incomplete-CDR-Indication, aCRInterimLost.
    pub interim_lost: InterimLost,
    /// Incomplete-CDR-Indication, aCRStopLost: the session is over without STOP.
    pub stop_lost: bool,
}

impl<'a> Cdr<'a> {
    /// Builds the CDR of one session from its records in the order of their numbers. `is_over`:
    /// the caller waits for no STOP any more (twice the interim interval passed).
    #[must_use]
    pub fn assemble(records: &[ReceivedRecord<'a>], is_over: bool) -> Option<Self> {
        let first = records.first()?;
        let of = |wanted: RecordType| records.iter().find(|one| one.record_type == wanted);
        let start = of(RecordType::Start);
        let event = of(RecordType::Event);
        let stop = of(RecordType::Stop);
        let interims = records
            .iter()
            .filter(|one| one.record_type == RecordType::Interim)
            .count();
        let start_time = start.and_then(began);
        let last_sign = || records.iter().filter_map(event_time).max();
        let end_time = match stop {
            Some(stop) => stop.request_time.or_else(|| event_time(stop)),
            None if is_over && event.is_none() => last_sign(),
            None => None,
        };
        let duration_ms = match (start_time, end_time) {
            (Some(start), Some(end)) => Some(end.ms_since(start)),
            _ => None,
        };
        Some(Self {
            session_id: first.session_id,
            icid: first.icid,
            calling_party: first.calling_party,
            called_party: first.called_party,
            subscription: first.subscription,
            sip_method: first.sip_method,
            is_event: event.is_some(),
            request_time: start.or(event).and_then(|one| one.request_time),
            start_time,
            end_time,
            duration_ms,
            cause_code: stop.or(event).and_then(|one| one.cause_code),
            records: records.len() as u32,
            interims: interims as u32,
            retransmission: records.iter().any(|one| one.retransmitted),
            start_lost: start.is_none() && event.is_none(),
            interim_lost: interim_lost(records, stop, event.is_some()),
            stop_lost: is_over && stop.is_none() && event.is_none(),
        })
    }
}

/// Service begins with the 2xx; ring time is not billed.
fn began(start: &ReceivedRecord<'_>) -> Option<UnixMillis> {
    start.response_time.or_else(|| event_time(start))
}

fn event_time(record: &ReceivedRecord<'_>) -> Option<UnixMillis> {
    record
        .event_time_s
        .map(|seconds| UnixMillis(seconds * 1_000))
}

/// START is number 0 and STOP the last one (RFC 6733 s9.8.3): in between none may be missing.
fn interim_lost(
    records: &[ReceivedRecord<'_>],
    stop: Option<&ReceivedRecord<'_>>,
    is_event: bool,
) -> InterimLost {
    let numbers = || {
        let interims = records
            .iter()
            .filter(|one| one.record_type == RecordType::Interim);
        interims.map(|one| one.record_number)
    };
    let gap = !numbers().eq(1..=numbers().count() as u32);
    let expected = stop.map(|stop| stop.record_number.saturating_sub(1));
    match expected {
        _ if is_event => InterimLost::No,
        Some(expected) if !gap && numbers().count() as u32 == expected => InterimLost::No,
        Some(_) => InterimLost::Yes,
        None if gap => InterimLost::Yes,
        None => InterimLost::Unknown,
    }
}
