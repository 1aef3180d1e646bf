//! The trigger table, row by row: each makes its record when it is on and none when it is off,
//! whatever the others say.

use super::*;
use crate::config::TriggerRows;

type Switch = fn(&mut TriggerRows) -> &mut bool;

/// What a row is called, its switch, and whether a call shows its effect.
type Row = (&'static str, Switch, fn(ChargingClass) -> bool);

const ROWS: [Row; 15] = [
    (
        "session",
        |rows| &mut rows.session,
        |class| {
            let mut call = Call::started_with(class);
            let started = call.due() == Some((RecordType::Start, 0));
            call.acknowledge(2001, None);
            call.end();
            assert_eq!(call.state.is_finished(), !started, "no STOP without START");
            started
        },
    ),
    (
        "interim_on_ack_answer",
        |rows| &mut rows.interim_on_ack_answer,
        |class| {
            interim(class, |call| {
                let request_time = call.now.wall;
                call.trigger(&Trigger::AckWithAnswer {
                    request_time,
                    sdp: &[],
                });
            })
        },
    ),
    (
        "interim_on_media_change",
        |rows| &mut rows.interim_on_media_change,
        |class| interim(class, |call| call.re_invite(200)),
    ),
    (
        "interim_on_media_change_failure",
        |rows| &mut rows.interim_on_media_change_failure,
        |class| interim(class, |call| call.re_invite(488)),
    ),
    (
        "interim_on_interval",
        |rows| &mut rows.interim_on_interval,
        |class| {
            interim(class, |call| {
                if call.state.next_deadline().is_some() {
                    call.deadline();
                }
            })
        },
    ),
    (
        "interim_on_access_network_change",
        |rows| &mut rows.interim_on_access_network_change,
        |class| {
            interim(class, |call| {
                let change_time = call.now.wall;
                call.trigger(&Trigger::AccessNetworkChanged {
                    access_network_info: &[b"3GPP-NR;x=1"],
                    change_time,
                    transfer: None,
                });
            })
        },
    ),
    (
        "interim_on_tariff",
        |rows| &mut rows.interim_on_tariff,
        |class| {
            interim(class, |call| {
                call.trigger(&Trigger::TariffReceived { xml: b"<rtti/>" });
            })
        },
    ),
    (
        "stop_at_bye_answer",
        |rows| &mut rows.stop_at_bye_answer,
        |class| {
            let mut call = open(class);
            call.end();
            let waits = call.due().is_none();
            call.trigger(&Trigger::ByeAnswered {
                access_network_info: &[],
            });
            assert_eq!(call.due(), Some((RecordType::Stop, 1)));
            waits
        },
    ),
    (
        "event_on_redirect",
        |rows| &mut rows.event_on_redirect,
        |class| failure(class, SetUpFailure::Response(302)),
    ),
    (
        "event_on_failure",
        |rows| &mut rows.event_on_failure,
        |class| failure(class, SetUpFailure::Response(486)),
    ),
    (
        "event_on_challenge",
        |rows| &mut rows.event_on_challenge,
        |class| {
            let one_shot = one_shot(class.clone(), 401);
            let set_up = failure(class, SetUpFailure::Response(407));
            assert_eq!(one_shot, set_up);
            set_up
        },
    ),
    (
        "event_on_cancel",
        |rows| &mut rows.event_on_cancel,
        |class| failure(class, SetUpFailure::Cancelled),
    ),
    (
        "event_on_internal_failure",
        |rows| &mut rows.event_on_internal_failure,
        |class| failure(class, SetUpFailure::Internal),
    ),
    (
        "event_on_one_shot",
        |rows| &mut rows.event_on_one_shot,
        |class| one_shot(class, 200),
    ),
    (
        "event_on_one_shot_failure",
        |rows| &mut rows.event_on_one_shot_failure,
        |class| one_shot(class, 404),
    ),
];

/// An answered call whose START was acknowledged.
fn open(mut class: ChargingClass) -> Call {
    class.rows.session = true;
    let mut call = Call::started_with(class);
    call.acknowledge(2001, Some(100));
    assert_eq!(call.due(), None);
    call
}

fn interim(class: ChargingClass, what: impl FnOnce(&mut Call)) -> bool {
    let mut call = open(class);
    what(&mut call);
    match call.due() {
        Some((RecordType::Interim, 1)) => true,
        None => false,
        other => panic!("an INTERIM or nothing: {other:?}"),
    }
}

fn failure(class: ChargingClass, cause: SetUpFailure) -> bool {
    let mut call = Call::with(class);
    call.set_up();
    let response_time = call.now.wall;
    call.trigger(&Trigger::SetUpFailed {
        cause,
        reasons: &[],
        response_time,
    });
    is_event(&call)
}

fn one_shot(class: ChargingClass, code: u16) -> bool {
    let mut call = Call::with(class);
    let facts = SessionFacts {
        method: b"MESSAGE",
        ..SessionFacts::default()
    };
    let time = call.now.wall;
    call.trigger(&Trigger::OneShot {
        facts: &facts,
        code,
        event: b"",
        expires: None,
        called: CalledSide::default(),
        request_time: time,
        response_time: time,
    });
    is_event(&call)
}

fn is_event(call: &Call) -> bool {
    let due = call.due() == Some((RecordType::Event, 0));
    assert_eq!(
        call.state.is_finished(),
        !due,
        "without a record no session is left"
    );
    due
}

#[test]
fn every_row_can_be_switched_on_and_off() {
    for (name, switch, shows) in ROWS {
        for others in [false, true] {
            for on in [false, true] {
                let mut class = class();
                ROWS.iter()
                    .for_each(|(_, other, _)| *other(&mut class.rows) = others);
                *switch(&mut class.rows) = on;
                assert_eq!(shows(class), on, "{name} = {on}, others = {others}");
            }
        }
    }
}

#[test]
fn the_table_has_every_row() {
    let mut rows = TriggerRows::default();
    ROWS.iter()
        .for_each(|(_, switch, _)| *switch(&mut rows) = true);
    // A new row does not compile here until it stands above.
    let all = TriggerRows {
        session: true,
        interim_on_ack_answer: true,
        interim_on_media_change: true,
        interim_on_media_change_failure: true,
        interim_on_interval: true,
        interim_on_access_network_change: true,
        interim_on_tariff: true,
        stop_at_bye_answer: true,
        event_on_redirect: true,
        event_on_failure: true,
        event_on_challenge: true,
        event_on_cancel: true,
        event_on_internal_failure: true,
        event_on_one_shot: true,
        event_on_one_shot_failure: true,
    };
    assert_eq!(rows, all);
}

#[test]
fn a_class_that_is_not_charged_makes_nothing() {
    let disabled = || ChargingClass {
        offline: false,
        ..class()
    };
    let call = Call::started_with(disabled());
    assert!(call.state.accounting.is_none() && call.state.is_finished());
    assert!(!one_shot(disabled(), 200));
    assert!(!failure(disabled(), SetUpFailure::Cancelled));
}
