//! Calls that went wrong in the field or that the standards warn of, each told without chance.

use charging::server::Fault;
use charging::state::RecordType::{self, Event, Interim, Start, Stop};
use tests::sim::{Misfortune, Setup, World};
use tests::ua::Plan;

fn world(config: &str) -> World {
    World::new(Setup {
        config: config.to_owned(),
        interim_s: None,
        ..Setup::default()
    })
}

fn caller() -> Plan {
    Plan {
        bye_after: Some(5_000),
        ..Plan::default()
    }
}

fn callee() -> Plan {
    Plan {
        rings: vec![(100, 180)],
        answer: Some((1_000, 200)),
        ..Plan::default()
    }
}

/// Plays to the end; nothing may be wrong.
fn finish(world: &mut World) {
    world.run_until(world.now + 120_000);
    world.heal_and_drain();
    let wrong = world.verdict();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The records of a call that makes one bill: type and Cause-Code, in order.
fn bill(world: &World, caller: usize) -> Vec<(RecordType, Option<i32>)> {
    let sessions = world.sessions_of(caller);
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    sessions[0]
        .records
        .values()
        .map(|record| (record.kind, record.cause))
        .collect()
}

fn answered(cause: i32) -> Vec<(RecordType, Option<i32>)> {
    vec![(Start, None), (Stop, Some(cause))]
}

fn failed(cause: i32) -> Vec<(RecordType, Option<i32>)> {
    vec![(Event, Some(cause))]
}

#[test]
fn a_plain_call_makes_a_start_and_a_stop() {
    let mut world = world("");
    let call = world.add_call(caller(), callee());
    finish(&mut world);
    assert_eq!(bill(&world, call), answered(0));
    assert_eq!(world.phones[call].ledger.provisionals, [180]);
    let session = &world.sessions_of(call)[0];
    let (start, stop) = (
        session.one(Start).expect("a START"),
        session.one(Stop).expect("a STOP"),
    );
    // One way takes 5 ms: INVITE at 5, 2xx at 10 + 1000 + 5, BYE at 1020 + 5000 + 5.
    assert_eq!(
        (start.asked, start.answered, stop.asked),
        (Some(5), Some(1_015), Some(6_025))
    );
}

#[test]
fn a_cancel_that_crosses_the_2xx_after_the_node_ends_an_answered_call() {
    let mut world = world("");
    let call = world.add_call(
        Plan {
            cancel_after: Some(1_012),
            ..caller()
        },
        callee(),
    );
    finish(&mut world);
    assert_eq!(bill(&world, call), answered(0));
    assert!(world.phones[call + 1].ledger.bye_received.is_some());
}

#[test]
fn a_cancel_that_crosses_the_2xx_before_the_node_ends_a_failed_call() {
    let mut world = world("");
    let call = world.add_call(
        Plan {
            cancel_after: Some(1_008),
            ..caller()
        },
        callee(),
    );
    finish(&mut world);
    assert_eq!(bill(&world, call), failed(487));
    let callee = &world.phones[call + 1].ledger;
    assert!(callee.acknowledged.is_some() && callee.bye_received.is_some());
}

#[test]
fn a_cancel_before_any_provisional_answer_waits_for_it() {
    let mut world = world("");
    let hasty = Plan {
        cancel_after: Some(1),
        hasty_cancel: true,
        ..caller()
    };
    let call = world.add_call(hasty, callee());
    finish(&mut world);
    assert_eq!(bill(&world, call), failed(487));
    let callee = &world.phones[call + 1].ledger;
    assert!(callee.cancel_received && callee.wrong.is_empty());
}

#[test]
fn a_callee_that_answers_in_spite_of_the_cancel_is_acknowledged_and_ended() {
    let mut world = world("");
    let stubborn = Plan {
        ignores_cancel: true,
        answer: Some((4_000, 200)),
        ..callee()
    };
    let call = world.add_call(
        Plan {
            cancel_after: Some(500),
            ..caller()
        },
        stubborn,
    );
    finish(&mut world);
    assert_eq!(bill(&world, call), failed(487));
    let callee = &world.phones[call + 1].ledger;
    assert!(callee.acknowledged.is_some() && callee.bye_received.is_some());
}

#[test]
fn a_cancelled_callee_that_is_gone_does_not_keep_the_call() {
    let mut world = world("");
    let gone = Plan {
        dies_at: Some(300),
        answer: None,
        ..callee()
    };
    let call = world.add_call(
        Plan {
            cancel_after: Some(500),
            ..caller()
        },
        gone,
    );
    finish(&mut world);
    assert_eq!(bill(&world, call), failed(487));
}

#[test]
fn a_bye_before_the_ack_is_an_unsuccessful_set_up_and_the_callee_gets_its_ack() {
    let mut world = world("");
    let call = world.add_call(
        Plan {
            ack_after: 3_000,
            bye_after: Some(500),
            ..Plan::default()
        },
        callee(),
    );
    finish(&mut world);
    assert_eq!(bill(&world, call), answered(2));
    let callee = &world.phones[call + 1].ledger;
    assert!(
        callee.acknowledged.is_some(),
        "RFC 3261 13.2.2.4: every 2xx gets its ACK"
    );
    assert!(callee.bye_received.is_some());
}

#[test]
fn a_bye_that_crosses_a_bye_makes_one_stop() {
    let mut world = world("");
    // The callee counts from the ACK, 10 ms after the caller saw the 2xx.
    let call = world.add_call(
        caller(),
        Plan {
            bye_after: Some(4_990),
            ..callee()
        },
    );
    finish(&mut world);
    assert_eq!(bill(&world, call), answered(0));
    let [caller, callee] = [call, call + 1].map(|phone| &world.phones[phone].ledger);
    assert!(caller.bye_sent.is_some() && callee.bye_sent.is_some());
    assert!(
        caller
            .inside
            .iter()
            .chain(&callee.inside)
            .all(|(_, code)| [200, 481].contains(code))
    );
}

#[test]
fn a_reinvite_that_crosses_a_bye_is_refused_and_makes_no_interim() {
    let mut world = world("");
    let call = world.add_call(
        Plan {
            inside: vec![(3_000, "INVITE")],
            ..caller()
        },
        Plan {
            bye_after: Some(2_990),
            ..callee()
        },
    );
    finish(&mut world);
    assert_eq!(bill(&world, call), answered(0));
    let inside = &world.phones[call].ledger.inside;
    assert!(
        inside
            .iter()
            .any(|(method, code)| method == "INVITE" && *code >= 400),
        "{inside:?}"
    );
}

#[test]
fn a_reinvite_that_waits_when_the_bye_comes_is_answered_487() {
    let mut world = world("");
    let call = world.add_call(
        Plan {
            inside: vec![(3_000, "INVITE")],
            ..caller()
        },
        Plan {
            reinvite_after: 10_000,
            bye_after: Some(4_000),
            ..callee()
        },
    );
    finish(&mut world);
    assert_eq!(bill(&world, call)[0].0, Start);
    assert_eq!(bill(&world, call).last(), Some(&(Stop, Some(0))));
    assert!(
        world.phones[call]
            .ledger
            .inside
            .contains(&("INVITE".to_owned(), 487))
    );
}

#[test]
fn what_is_repeated_after_the_call_changes_nothing() {
    let mut world = world("");
    let call = world.add_call(caller(), callee());
    let refused = world.add_call(
        caller(),
        Plan {
            answer: Some((100, 486)),
            ..callee()
        },
    );
    world.run_until(10_000);
    for start in ["INVITE", "ACK", "BYE", "SIP/2.0"] {
        world.replay(if start == "SIP/2.0" { call + 1 } else { call }, start);
        world.run_until(world.now + 1_000);
    }
    // A failed INVITE is remembered for T4 after its ACK; later copies the network does not hold.
    finish(&mut world);
    assert_eq!(bill(&world, call), answered(0));
    assert_eq!(bill(&world, refused), failed(486));
    assert_eq!(world.sessions().len(), 2);
}

#[test]
fn the_2xx_of_a_second_fork_is_acknowledged_and_ended_and_not_billed() {
    let mut world = world("");
    let call = world.add_call(
        caller(),
        Plan {
            fork_after: Some(50),
            ..callee()
        },
    );
    finish(&mut world);
    assert_eq!(bill(&world, call), answered(0));
    let fork = &world.phones[call + 1].ledger;
    assert!(fork.fork_acknowledged && fork.fork_ended);
    assert_eq!(fork.received, ["BYE", "BYE"]);
}

#[test]
fn the_2xx_of_a_fork_after_the_call_is_acknowledged_and_ended() {
    let mut world = world("");
    let call = world.add_call(
        Plan {
            bye_after: Some(200),
            ..caller()
        },
        Plan {
            fork_after: Some(2_000),
            ..callee()
        },
    );
    finish(&mut world);
    assert_eq!(bill(&world, call), answered(0));
    let fork = &world.phones[call + 1].ledger;
    assert!(fork.fork_acknowledged && fork.fork_ended);
}

#[test]
fn the_repeated_2xx_of_a_losing_fork_gets_acks_and_one_bye() {
    // The call goes on meanwhile, or is over and forgotten.
    for talk in [30_000, 200] {
        let mut world = world("");
        let call = world.add_call(
            Plan {
                bye_after: Some(talk),
                ..caller()
            },
            Plan {
                fork_after: Some(1_000),
                fork_acks_lost: 3,
                ..callee()
            },
        );
        finish(&mut world);
        assert_eq!(bill(&world, call), answered(0));
        let fork = &world.phones[call + 1].ledger;
        assert!(fork.fork_acknowledged && fork.fork_ended);
        assert_eq!(fork.received, ["BYE", "BYE"], "one for each dialog");
    }
}

const TRUNK: &str = "[[sip.route]]\nmatch = \"*\"\nnext_hop = \"10.1.0.2:5060\"\n\
username = \"ada\"\npassword = \"secret\"\n[charging.rf.triggers]\nevent_on_challenge = true\n";

#[test]
fn the_challenges_of_a_trunk_are_answered_and_the_call_is_billed_once() {
    for challenges in [401, 407] {
        for stale_nonces in [0, 1] {
            let mut world = world(TRUNK);
            let inside = vec![(1_000, "INVITE"), (2_000, "INFO")];
            let call = world.add_call(
                Plan { inside, ..caller() },
                Plan {
                    challenges,
                    stale_nonces,
                    ..callee()
                },
            );
            finish(&mut world);
            let kinds: Vec<_> = bill(&world, call).into_iter().map(|one| one.0).collect();
            assert_eq!(kinds, [Start, Interim, Stop]);
            let [caller, callee] = [call, call + 1].map(|phone| &world.phones[phone].ledger);
            assert!(
                caller.inside.iter().all(|(_, code)| *code == 200),
                "{caller:?}"
            );
            assert!(callee.bye_received.is_some());
            let answers = callee.credentials.len();
            assert_eq!(
                answers,
                4 * (1 + stale_nonces as usize),
                "{:?}",
                callee.credentials
            );
        }
    }
}

#[test]
fn a_trunk_that_is_never_satisfied_ends_the_set_up() {
    let mut world = world(TRUNK);
    let call = world.add_call(
        caller(),
        Plan {
            challenges: 407,
            never_satisfied: true,
            ..callee()
        },
    );
    finish(&mut world);
    assert_eq!(bill(&world, call), failed(407));
    assert_eq!(
        world.phones[call + 1].ledger.credentials.len(),
        1,
        "no loop"
    );
}

#[test]
fn a_message_to_a_trunk_is_sent_again_with_credentials() {
    let mut world = world(TRUNK);
    let one = Plan {
        method: "MESSAGE",
        ..Plan::default()
    };
    let call = world.add_call(
        one,
        Plan {
            challenges: 407,
            answer: Some((50, 200)),
            ..Plan::default()
        },
    );
    finish(&mut world);
    assert_eq!(bill(&world, call), failed(-1));
}

#[test]
fn a_dialog_to_be_replaced_is_named_as_its_phone_knows_it() {
    let mut world = world("");
    let call = world.add_call(caller(), callee());
    world.run_until(3_000);
    // The caller tells a third phone of its dialog, which then calls the callee.
    let named = world.phones[call].replaces();
    let third = Plan {
        calls_at: Some(world.now),
        target: format!("sip:callee@{}", world.phones[call + 1].address),
        extra: format!("Replaces: {named}\r\n"),
        ..caller()
    };
    let third = world.add_phone(third);
    world.add_phone(Plan::default());
    world.run_until(4_000);
    let callee = &world.phones[call + 1];
    // Of its own dialog a phone says the other way round which tag is whose.
    let seen = callee
        .ledger
        .replaced_by
        .replace("to-tag", "x")
        .replace("from-tag", "to-tag");
    let seen = seen.replace(";x=", ";from-tag=");
    let parts = |text: &str| {
        let mut parts: Vec<String> = text.split(';').map(str::to_owned).collect();
        parts.sort();
        parts
    };
    assert_eq!(parts(&seen), parts(&callee.replaces()));
    finish(&mut world);
    assert_eq!(bill(&world, call), answered(0));
    assert_eq!(bill(&world, third), failed(486));
}

#[test]
fn an_answer_without_ack_ends_both_legs() {
    let mut world = world("");
    let silent = Plan {
        no_ack: true,
        bye_after: None,
        ..caller()
    };
    let call = world.add_call(silent, callee());
    finish(&mut world);
    assert_eq!(bill(&world, call), answered(2));
    let [caller, callee] = [call, call + 1].map(|phone| &world.phones[phone].ledger);
    assert_eq!(
        caller.bye_received,
        Some(1_015 + 32_000 + 5),
        "64*T1 after the 2xx"
    );
    assert!(callee.bye_sent.is_some() || callee.bye_received.is_some());
}

#[test]
fn a_session_that_nobody_refreshes_ends_with_408() {
    let mut world = world("session_expires_s = 0\n");
    let lazy = Plan {
        session_s: 90,
        lazy: true,
        bye_after: None,
        ..caller()
    };
    let call = world.add_call(lazy, callee());
    finish(&mut world);
    assert_eq!(bill(&world, call), answered(408));
    for phone in [call, call + 1] {
        assert_eq!(world.phones[phone].ledger.bye_reason, "SIP;cause=408");
    }
}

#[test]
fn a_session_that_is_refreshed_goes_on_on_both_legs() {
    let mut world = world("session_expires_s = 90\n");
    let talk = Some(300_000);
    for no_update in [false, true] {
        for node_refreshes in [false, true] {
            let one = Plan {
                session_s: 90,
                no_update,
                bye_after: talk,
                ..Plan::default()
            };
            let other = Plan {
                session_s: 90,
                no_update,
                node_refreshes,
                ..callee()
            };
            world.add_call(one, other);
        }
    }
    world.run_until(250_000);
    for call in [0, 2, 4, 6] {
        assert!(world.phones[call].is_in_call() && world.phones[call + 1].is_in_call());
    }
    finish(&mut world);
    for call in [0, 2, 4, 6] {
        assert_eq!(bill(&world, call).last(), Some(&(Stop, Some(0))));
    }
}

#[test]
fn a_refresh_of_ours_that_meets_an_offer_is_tried_again() {
    let mut world = world("session_expires_s = 90\n");
    let talk = Plan {
        bye_after: Some(100_000),
        ..Plan::default()
    };
    let other = Plan {
        session_s: 90,
        no_update: true,
        node_refreshes: true,
        reinvites_refused: 2,
        ..callee()
    };
    let call = world.add_call(talk, other);
    finish(&mut world);
    assert_eq!(bill(&world, call), answered(0));
}

#[test]
fn the_longest_duration_ends_a_call() {
    let mut world = world("max_call_duration_s = 20\n");
    let call = world.add_call(
        Plan {
            bye_after: None,
            ..caller()
        },
        callee(),
    );
    finish(&mut world);
    assert_eq!(bill(&world, call), answered(408));
    assert_eq!(
        world.phones[call].ledger.bye_received,
        Some(1_015 + 20_000 + 5)
    );
}

const TWO_HOPS: &str = "[[sip.route]]\nmatch = { prefix = \"9\" }\n\
next_hop = [\"10.1.0.2:5060\", \"10.1.0.3:5060\"]\n";

#[test]
fn the_second_next_hop_is_tried_after_a_503() {
    let mut world = world(TWO_HOPS);
    let one = Plan {
        target: "sip:911@example.com".to_owned(),
        ..caller()
    };
    let busy = Plan {
        answer: Some((50, 503)),
        ..Plan::default()
    };
    let call = world.add_call(one, busy);
    world.add_phone(callee());
    finish(&mut world);
    assert_eq!(bill(&world, call), answered(0));
    assert!(world.phones[2].ledger.answered.is_some());
}

#[test]
fn the_second_next_hop_is_tried_when_the_first_is_silent() {
    let mut world = world(TWO_HOPS);
    let one = Plan {
        target: "sip:911@example.com".to_owned(),
        ..caller()
    };
    let call = world.add_call(
        one,
        Plan {
            dead: true,
            ..Plan::default()
        },
    );
    world.add_phone(callee());
    finish(&mut world);
    assert_eq!(bill(&world, call), answered(0));
    assert!(world.phones[2].ledger.answered.is_some());
}

#[test]
fn both_next_hops_failing_makes_one_event() {
    let mut world = world(TWO_HOPS);
    let one = Plan {
        target: "sip:911@example.com".to_owned(),
        ..caller()
    };
    let busy = Plan {
        answer: Some((50, 503)),
        ..Plan::default()
    };
    let call = world.add_call(one, busy.clone());
    world.add_phone(busy);
    finish(&mut world);
    assert_eq!(bill(&world, call), failed(503));
}

#[test]
fn a_422_is_answered_with_a_larger_interval() {
    let mut world = world("session_expires_s = 90\n");
    let strict = Plan {
        min_se_s: 200,
        session_s: 200,
        ..callee()
    };
    let call = world.add_call(caller(), strict);
    finish(&mut world);
    assert_eq!(bill(&world, call), answered(0));
    assert_eq!(world.phones[call].ledger.finals.len(), 1);
}

#[test]
fn offers_that_cross_are_refused_with_491_and_the_call_goes_on() {
    let mut world = world("");
    let call = world.add_call(
        Plan {
            inside: vec![(2_000, "INVITE")],
            ..caller()
        },
        Plan {
            inside: vec![(1_990, "INVITE")],
            ..callee()
        },
    );
    finish(&mut world);
    let glare = ("INVITE".to_owned(), 491);
    assert!(world.phones[call].ledger.inside.contains(&glare));
    assert!(world.phones[call + 1].ledger.inside.contains(&glare));
    assert_eq!(bill(&world, call).last(), Some(&(Stop, Some(0))));
}

#[test]
fn a_media_change_makes_an_interim() {
    let mut world = world("");
    let inside = vec![(1_000, "INVITE"), (2_000, "UPDATE"), (3_000, "INFO")];
    let call = world.add_call(Plan { inside, ..caller() }, callee());
    finish(&mut world);
    let kinds: Vec<_> = bill(&world, call)
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(kinds, [Start, Interim, Interim, Stop]);
}

#[test]
fn a_refer_inside_a_call_makes_an_event_beside_it() {
    let mut world = world("");
    let inside = vec![(1_000, "REFER")];
    let call = world.add_call(Plan { inside, ..caller() }, callee());
    world.run_until(60_000);
    world.heal_and_drain();
    let mut kinds: Vec<Vec<_>> = world
        .sessions_of(call)
        .iter()
        .map(|session| {
            let records = session.records.values();
            records.map(|record| (record.kind, record.cause)).collect()
        })
        .collect();
    kinds.sort_by_key(Vec::len);
    assert_eq!(kinds, [failed(-1), answered(0)]);
}

#[test]
fn a_late_offer_makes_its_interim_at_the_ack() {
    let mut world = world("");
    let call = world.add_call(
        Plan {
            late_offer: true,
            ..caller()
        },
        callee(),
    );
    finish(&mut world);
    let kinds: Vec<_> = bill(&world, call)
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(kinds, [Start, Interim, Stop]);
}

#[test]
fn reliable_provisional_answers_are_acknowledged_end_to_end() {
    let mut world = world("");
    let call = world.add_call(
        Plan {
            reliable: true,
            ..caller()
        },
        Plan {
            reliable: true,
            rings: vec![(100, 183), (300, 180)],
            ..callee()
        },
    );
    finish(&mut world);
    assert_eq!(bill(&world, call), answered(0));
    let callee = &world.phones[call + 1].ledger;
    assert_eq!(callee.received, ["PRACK", "PRACK", "BYE"]);
}

#[test]
fn a_prack_without_answer_leaves_the_invite_alone() {
    let mut world = world("");
    let one = Plan {
        reliable: true,
        ..caller()
    };
    let other = Plan {
        reliable: true,
        ignores_prack: true,
        rings: vec![(100, 183)],
        answer: Some((40_000, 200)),
        ..Plan::default()
    };
    let call = world.add_call(one, other);
    world.run_until(120_000);
    world.heal_and_drain();
    assert_eq!(bill(&world, call), answered(0));
    assert!(world.phones[call + 1].ledger.acknowledged.is_some());
}

#[test]
fn the_stop_does_not_wait_for_ever_for_the_answer_to_the_start() {
    let mut world = world("");
    world.befall(0, Misfortune::Fault(0, Fault::Silent));
    world.befall(0, Misfortune::Fault(1, Fault::Silent));
    world.befall(60_000, Misfortune::Fault(0, Fault::None));
    let call = world.add_call(
        Plan {
            bye_after: Some(200),
            ..caller()
        },
        callee(),
    );
    finish(&mut world);
    assert_eq!(bill(&world, call), answered(0));
}

#[test]
fn twenty_short_calls_with_a_slow_cdf_make_twenty_stops() {
    let mut world = world("");
    world.befall(0, Misfortune::Slow(0, 250));
    let short = Plan {
        bye_after: Some(200),
        ..caller()
    };
    let calls: Vec<_> = (0..20)
        .map(|n| {
            let one = Plan {
                calls_at: Some(1_000 + 37 * n),
                ..short.clone()
            };
            world.add_call(one, callee())
        })
        .collect();
    finish(&mut world);
    for call in calls {
        assert_eq!(bill(&world, call), answered(0));
    }
}

#[test]
fn the_records_of_a_time_without_cdf_arrive_after_it() {
    let mut world = world("");
    let calls: Vec<_> = (0..20)
        .map(|n| {
            world.add_call(
                Plan {
                    calls_at: Some(1_000 + 37 * n),
                    ..caller()
                },
                callee(),
            )
        })
        .collect();
    for far in [0, 1] {
        world.befall(4_000, Misfortune::CdfDown(far));
        world.befall(60_000, Misfortune::CdfUp(far));
    }
    world.run_until(30_000);
    assert!(calls.iter().all(|call| !world.phones[*call].is_in_call()));
    finish(&mut world);
    for call in calls {
        assert_eq!(bill(&world, call), answered(0));
    }
}

#[test]
fn a_call_survives_the_restart_of_the_node_and_is_billed_once() {
    let mut world = world("");
    let inside = vec![(2_000, "INFO"), (6_000, "INFO")];
    let long = Plan {
        bye_after: Some(20_000),
        inside,
        ..Plan::default()
    };
    let call = world.add_call(long, callee());
    world.befall(5_000, Misfortune::Restart(1_000));
    finish(&mut world);
    assert_eq!(bill(&world, call), answered(0));
    assert_eq!(world.phones[call].ledger.inside.len(), 3);
    assert!(
        world.phones[call]
            .ledger
            .inside
            .iter()
            .all(|(_, code)| *code == 200)
    );
    assert!(world.phones[call + 1].ledger.bye_received.is_some());
}

#[test]
fn a_re_invite_after_a_restart_is_no_repetition_of_the_invite() {
    for from_callee in [false, true] {
        let mut world = world("");
        let inside = vec![(4_000, "INVITE")];
        let (mut one, mut other) = (caller(), callee());
        one.bye_after = Some(6_000);
        let changes = if from_callee { &mut other } else { &mut one };
        changes.inside = inside;
        let call = world.add_call(one, other);
        world.befall(2_500, Misfortune::Restart(500));
        finish(&mut world);
        let kinds: Vec<_> = bill(&world, call).into_iter().map(|one| one.0).collect();
        assert_eq!(kinds, [Start, Interim, Stop]);
    }
}

#[test]
fn a_message_makes_one_event() {
    let mut world = world("");
    let one = Plan {
        method: "MESSAGE",
        ..Plan::default()
    };
    let fine = world.add_call(
        one.clone(),
        Plan {
            answer: Some((50, 200)),
            ..Plan::default()
        },
    );
    let late = world.add_call(
        one.clone(),
        Plan {
            answer: Some((3_000, 202)),
            ..Plan::default()
        },
    );
    let unknown = world.add_call(
        one.clone(),
        Plan {
            answer: Some((50, 404)),
            ..Plan::default()
        },
    );
    let silent = world.add_call(
        one,
        Plan {
            dead: true,
            ..Plan::default()
        },
    );
    finish(&mut world);
    assert_eq!(bill(&world, fine), failed(-1));
    assert_eq!(bill(&world, late), failed(-202));
    assert_eq!(bill(&world, unknown), failed(404));
    assert_eq!(bill(&world, silent), failed(408));
}

#[test]
fn a_redirection_makes_an_event_with_the_negative_code() {
    let mut world = world("");
    let call = world.add_call(
        caller(),
        Plan {
            answer: Some((50, 302)),
            ..callee()
        },
    );
    finish(&mut world);
    assert_eq!(bill(&world, call), failed(-302));
}

#[test]
fn a_busy_callee_makes_one_event() {
    let mut world = world("");
    let call = world.add_call(
        caller(),
        Plan {
            answer: Some((50, 486)),
            ..callee()
        },
    );
    finish(&mut world);
    assert_eq!(bill(&world, call), failed(486));
}

#[test]
fn nobody_answering_makes_one_event_with_408() {
    let mut world = world("ring_timeout_s = 40\n");
    let call = world.add_call(
        caller(),
        Plan {
            answer: None,
            ..callee()
        },
    );
    finish(&mut world);
    assert_eq!(bill(&world, call), failed(408));
    assert!(world.phones[call + 1].ledger.cancel_received);
}
