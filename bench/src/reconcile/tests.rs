//! Each fault is planted in records that balance, and has to be found.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dataplane::io::{CdrLine, RecordLine};

use super::{Balance, Difference, Pace, reconcile};
use crate::fault::Fault;
use crate::ledger::{Call, Seen};
use crate::plan::{Plan, Scenario, Side};

fn record(number: u32, record_type: &'static str) -> RecordLine {
    RecordLine {
        record_number: number,
        record_type,
        event_time_s: Some(1_700_000_000),
        cause_code: None,
        retransmitted: false,
        origin_host: "shard0.demo".to_owned(),
    }
}

fn cdr(session: &str, call_id: &str, types: &[&'static str]) -> CdrLine {
    let is_event = types.first() == Some(&"EVENT");
    CdrLine {
        session_id: session.to_owned(),
        user_session_id: call_id.to_owned(),
        icid: String::new(),
        kind: if is_event { "event" } else { "session" },
        sip_method: "INVITE".to_owned(),
        calling_party: String::new(),
        called_party: String::new(),
        subscription: String::new(),
        request_time_ms: None,
        start_time_ms: Some(0),
        end_time_ms: Some(HOLD_MS),
        duration_ms: Some(HOLD_MS),
        cause_code: Some(if is_event { 486 } else { 0 }),
        status: "complete",
        start_lost: false,
        interim_lost: "no",
        stop_lost: false,
        retransmission: false,
        records: (0..)
            .zip(types)
            .map(|(number, record_type)| record(number, record_type))
            .collect(),
    }
}

fn call(call_id: &str, scenario: Scenario) -> Call {
    let begun = Instant::now();
    let mut seen = Seen {
        begun: Some(begun),
        status: scenario.status(),
        ..Seen::default()
    };
    if scenario == Scenario::Plain {
        seen.answered = Some(begun);
        seen.ended = Some((begun + Duration::from_millis(HOLD_MS), Side::Caller));
    }
    Call {
        call_id: call_id.to_owned(),
        plan: Plan {
            scenario,
            hangs_up: Side::Caller,
            reinvites: Side::Caller,
        },
        caller: seen,
        callee: seen,
    }
}

/// One answered call of three intervals and one that was refused, with their records.
fn world() -> (Vec<Call>, Vec<CdrLine>) {
    (
        vec![call("up", Scenario::Plain), call("busy", Scenario::Busy)],
        vec![
            cdr("s;1", "up", &["START", "INTERIM", "INTERIM", "STOP"]),
            cdr("s;2", "busy", &["EVENT"]),
        ],
    )
}

/// An interim each second, and a node that was never late.
const PACE: Pace = Pace {
    interval_s: 1,
    slowest: Duration::ZERO,
};

fn judge(calls: &[Call], cdrs: &[CdrLine]) -> Balance {
    reconcile(calls, cdrs, PACE, &[])
}

/// Plants a fault; exactly these differences must be found.
fn found_after(plant: impl FnOnce(&mut Vec<Call>, &mut Vec<CdrLine>)) -> Vec<Difference> {
    let (mut calls, mut cdrs) = world();
    plant(&mut calls, &mut cdrs);
    let balance = judge(&calls, &cdrs);
    assert_eq!(balance.is_balanced(), balance.findings.is_empty());
    let classes = balance.classes();
    classes
        .into_iter()
        .map(|(difference, ..)| difference)
        .collect()
}

#[test]
fn records_as_the_phones_saw_the_calls_balance() {
    let (calls, cdrs) = world();
    let balance = judge(&calls, &cdrs);
    assert!(balance.is_balanced(), "{:?}", balance.findings);
    assert_eq!((balance.calls, balance.balanced), (2, 2));
}

#[test]
fn a_missing_start_is_found() {
    let found = found_after(|_, cdrs| {
        cdrs[0].records.remove(0);
    });
    assert_eq!(found, [Difference::Start, Difference::Gap]);
}

#[test]
fn a_missing_stop_is_found() {
    let found = found_after(|_, cdrs| {
        cdrs[0].records.pop();
    });
    assert_eq!(found, [Difference::Stop]);
}

#[test]
fn a_missing_interim_is_found_as_a_gap_and_as_too_few() {
    let found = found_after(|_, cdrs| {
        cdrs[0].records.drain(1..3);
    });
    assert_eq!(found, [Difference::Gap, Difference::Interim]);
}

#[test]
fn an_interim_too_many_is_found() {
    let found = found_after(|_, cdrs| {
        cdrs[0] = cdr(
            "s;1",
            "up",
            &["START", "INTERIM", "INTERIM", "INTERIM", "STOP"],
        );
    });
    assert_eq!(found, [Difference::Interim]);
}

#[test]
fn a_session_that_is_charged_twice_is_found() {
    let found = found_after(|_, cdrs| {
        cdrs.push(cdr("s;3", "up", &["START", "INTERIM", "INTERIM", "STOP"]));
    });
    assert_eq!(found, [Difference::RecordedTwice]);
}

#[test]
fn a_number_with_two_contents_is_found() {
    let found = found_after(|_, cdrs| {
        cdrs[0].records.insert(1, record(0, "START"));
    });
    assert_eq!(found, [Difference::Start, Difference::Gap]);
}

#[test]
fn a_missing_event_is_found() {
    let found = found_after(|_, cdrs| {
        cdrs.pop();
    });
    assert_eq!(found, [Difference::NotRecorded]);
}

#[test]
fn an_event_too_many_is_found() {
    let found = found_after(|_, cdrs| cdrs[1] = cdr("s;2", "busy", &["EVENT", "EVENT"]));
    assert_eq!(found, [Difference::Event]);
    let found = found_after(|_, cdrs| cdrs[0].records.push(record(4, "EVENT")));
    assert_eq!(found, [Difference::Event]);
}

#[test]
fn a_session_for_a_call_that_nobody_answered_is_found() {
    let found = found_after(|_, cdrs| {
        cdrs[1] = cdr("s;2", "busy", &["START", "STOP"]);
    });
    assert_eq!(found, [Difference::Event, Difference::Cause]);
}

#[test]
fn a_call_nobody_placed_is_found() {
    let found = found_after(|_, cdrs| cdrs.push(cdr("s;3", "ghost", &["START", "STOP"])));
    assert_eq!(found, [Difference::Unknown]);
}

#[test]
fn another_duration_or_cause_is_found() {
    let found = found_after(|_, cdrs| cdrs[0].duration_ms = Some(HOLD_MS + 60));
    assert_eq!(found, [Difference::Duration]);
    let found = found_after(|_, cdrs| cdrs[0].duration_ms = None);
    assert_eq!(found, [Difference::Duration]);
    let found = found_after(|_, cdrs| cdrs[0].cause_code = Some(408));
    assert_eq!(found, [Difference::Cause]);
    let found = found_after(|_, cdrs| cdrs[1].cause_code = Some(487));
    assert_eq!(found, [Difference::Cause]);
}

#[test]
fn phones_that_disagree_are_found() {
    let found = found_after(|calls, _| calls[0].caller.answered = None);
    assert_eq!(found, [Difference::Phones]);
}

#[test]
fn a_call_that_a_fault_cut_off_may_lack_its_event_but_not_be_charged_twice() {
    let (mut calls, mut cdrs) = world();
    let node = SocketAddr::from(([192, 0, 2, 1], 5060));
    let struck = calls[1].caller.begun.expect("it began");
    let fault = Fault {
        node,
        struck: (struck, struck),
        over: struck,
    };
    let judge = |calls: &[Call], cdrs: &[CdrLine]| reconcile(calls, cdrs, PACE, &[fault]);
    calls[1].caller.through = Some(node);
    calls[1].caller.status = 0;
    assert!(judge(&calls, &cdrs).is_balanced());
    let event = cdrs.pop();
    let balance = judge(&calls, &cdrs);
    assert!(balance.is_balanced(), "{:?}", balance.findings);
    assert_eq!(balance.cut_off, 1);
    cdrs.push(cdr("s;3", "busy", &["START", "STOP"]));
    assert!(
        judge(&calls, &cdrs).is_balanced(),
        "the callee had answered"
    );
    cdrs.push(cdr("s;4", "busy", &["START", "STOP"]));
    assert!(!judge(&calls, &cdrs).is_balanced());
    // One that had its answer before is excused nothing.
    cdrs.truncate(1);
    calls[1].caller.settled = Some(struck - Duration::from_millis(1));
    assert!(!judge(&calls, &cdrs).is_balanced());
    // Nor is one that the caller saw answered.
    calls[0].caller.through = Some(node);
    cdrs.extend(event);
    cdrs.remove(0);
    assert!(!judge(&calls[..1], &cdrs).is_balanced());
}

/// Two intervals of 0.85 to 1 s fit in, a third does not.
const HOLD_MS: u64 = 2_300;
