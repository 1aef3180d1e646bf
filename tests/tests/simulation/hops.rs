//! Next hops that do not answer or cannot serve: left in time, tried last, asked whether they
//! live (RFC 3263 4.3).

use charging::state::RecordType::{Event, Start, Stop};
use tests::by_hand::header;
use tests::hand::{Hands, Leg};

const ROUTE: &str = "[[sip.route]]\nmatch = \"*\"\nnext_hop = [\"10.1.0.2\", \"10.1.0.3\"]\n";

fn world(keys: &str) -> Hands {
    Hands::new(&format!("{keys}{ROUTE}"), 3)
}

fn call(hands: &mut Hands) -> String {
    (0..3).for_each(|phone| hands.pass_over(phone));
    let invite = hands.opening(0, "INVITE", "sip:+4930@10.0.0.1", "");
    hands.say(0, &invite);
    invite
}

/// Phone `hop` gets the call within `limit` and refuses it, so that it is over.
fn taken_by(hands: &mut Hands, hop: usize, invite: &str, limit: u64) {
    let arrived = hands.hears_within(hop, "INVITE ", limit);
    let arrived = arrived.unwrap_or_else(|| panic!("hop {hop} gets the INVITE"));
    hands.answer(hop, &arrived, "486 Busy Here", "");
    let answer = hands.final_answer(0, invite);
    assert!(answer.starts_with("SIP/2.0 486"), "{answer}");
    let ack = invite
        .replace("INVITE", "ACK")
        .replace(header(invite, "To"), header(&answer, "To"));
    hands.say(0, &ack);
    hands.wait(100);
}

fn counters(hands: &mut Hands) -> dataplane::counters::Counters {
    hands.world.shard(0).expect("the node runs").env().counters
}

#[test]
fn a_silent_hop_is_left_after_seconds_and_tried_last_for_a_while() {
    let mut hands = world("");
    let first = call(&mut hands);
    hands.hears(1, "INVITE ");
    assert!(hands.hears_within(2, "INVITE ", 3_900).is_none());
    taken_by(&mut hands, 2, &first, 200);
    let repeated = hands.count(1, "INVITE ");
    for _ in 0..3 {
        let next = call(&mut hands);
        taken_by(&mut hands, 2, &next, 20);
    }
    assert_eq!(hands.count(1, "INVITE "), repeated, "it is left alone");
    assert_eq!(hands.world.shard(0).expect("it runs").hops_avoided(), 1);
    hands.wait(30_000);
    let next = call(&mut hands);
    taken_by(&mut hands, 1, &next, 20);
    let counters = counters(&mut hands);
    assert_eq!((counters.hop_left, counters.hop_penalised), (1, 1));
    hands.wait(60_000);
    let wrong = hands.world.leftovers();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn the_last_hop_has_all_the_time_and_every_hop_is_tried() {
    let mut hands = world("");
    let invite = call(&mut hands);
    hands.hears(1, "INVITE ");
    hands.hears_within(2, "INVITE ", 4_100).expect("the second");
    let answer = hands.hears_within(0, "SIP/2.0 408", 33_000);
    assert!(answer.is_some(), "Timer B of the second");
    assert_eq!(hands.world.shard(0).expect("it runs").hops_avoided(), 1);
    let ack = invite.replace("INVITE", "ACK");
    hands.say(0, &ack);
    // The first is well again; the second, which is avoided, is not asked before it.
    let next = call(&mut hands);
    taken_by(&mut hands, 1, &next, 20);
    hands.wait(60_000);
    // Both silent: whichever answers is back at once.
    let third = call(&mut hands);
    hands.hears_within(2, "INVITE ", 4_100).expect("the second");
    hands.wait(100);
    let both = hands.world.shard(0).expect("it runs").hops_avoided();
    assert_eq!(both, 1);
    let arrived = hands.hears_within(2, "INVITE ", 1_000).expect("again");
    hands.answer(2, &arrived, "180 Ringing", "");
    hands.answer(2, &arrived, "486 Busy Here", "");
    hands.final_answer(0, &third);
    let fourth = call(&mut hands);
    taken_by(&mut hands, 2, &fourth, 20);
}

#[test]
fn without_a_hop_timeout_timer_b_decides_and_without_a_penalty_nothing_is_remembered() {
    let mut hands = world("hop_timeout_ms = 0\nhop_penalty_s = 0\n");
    for _ in 0..2 {
        let invite = call(&mut hands);
        hands.hears(1, "INVITE ");
        assert!(hands.hears_within(2, "INVITE ", 31_900).is_none());
        taken_by(&mut hands, 2, &invite, 200);
    }
}

#[test]
fn a_503_puts_a_hop_behind_the_others_for_as_long_as_it_asks() {
    for (retry_after, seconds) in [
        ("", 30),
        ("Retry-After: 60 (busy);duration=9\r\n", 60),
        ("Retry-After: 99999\r\n", 300),
    ] {
        let mut hands = world("");
        let invite = call(&mut hands);
        let arrived = hands.hears(1, "INVITE ");
        hands.answer(1, &arrived, "503 Service Unavailable", retry_after);
        taken_by(&mut hands, 2, &invite, 100);
        hands.wait(seconds * 1_000 - 1_000);
        let invite = call(&mut hands);
        taken_by(&mut hands, 2, &invite, 20);
        hands.wait(1_000);
        let invite = call(&mut hands);
        taken_by(&mut hands, 1, &invite, 20);
    }
}

/// RFC 3261 9.1, 13.2.2.4: what comes from a hop that was left is cleaned up and not billed.
#[test]
fn a_hop_that_answers_after_it_was_left_is_cancelled_or_ended() {
    let mut hands = world("");
    let invite = call(&mut hands);
    let late = hands.hears(1, "INVITE ");
    let arrived = hands.hears_within(2, "INVITE ", 4_100).expect("the second");
    hands.answer(1, &late, "180 Ringing", "");
    hands.hears(1, "CANCEL ");
    assert_eq!(hands.count(0, "SIP/2.0 180"), 0);
    hands.answer(2, &arrived, "200 OK", "");
    let answer = hands.final_answer(0, &invite);
    let legs = [Leg::of_caller(&invite, &answer), Leg::of_callee(&arrived)];
    let ack = hands.request(0, &legs[0], "ACK", 1, "");
    hands.say(0, &ack);
    hands.hears(2, "ACK ");
    hands.answer(1, &late, "200 OK", "");
    let ack = hands.hears(1, "ACK ");
    let bye = hands.hears(1, "BYE ");
    assert_eq!(header(&ack, "To"), header(&bye, "To"));
    hands.answer(1, &bye, "200 OK", "");
    assert_eq!(hands.count(0, "BYE "), 0, "the call goes on");
    let bye = hands.request(0, &legs[0], "BYE", 2, "");
    hands.say(0, &bye);
    let passed = hands.hears(2, "BYE ");
    hands.answer(2, &passed, "200 OK", "");
    hands.wait(60_000);
    let sessions = hands.world.sessions_of(0);
    let counts = [Start, Stop, Event].map(|kind| sessions[0].count(kind));
    assert_eq!((sessions.len(), counts), (1, [1, 1, 0]));
}

#[test]
fn a_hop_that_was_left_is_cleaned_up_when_its_call_is_over_too() {
    for status in ["180 Ringing", "200 OK"] {
        let mut hands = world("");
        let invite = call(&mut hands);
        let late = hands.hears(1, "INVITE ");
        taken_by(&mut hands, 2, &invite, 4_100);
        hands.wait(1_000);
        hands.answer(1, &late, status, "");
        if status.starts_with("180") {
            let cancel = hands.hears(1, "CANCEL ");
            hands.answer(1, &cancel, "200 OK", "");
            hands.answer(1, &late, "487 Request Terminated", "");
            hands.hears(1, "ACK ");
        } else {
            hands.hears(1, "ACK ");
            let bye = hands.hears(1, "BYE ");
            hands.answer(1, &bye, "200 OK", "");
        }
        hands.wait(60_000);
        let sessions = hands.world.sessions_of(0);
        assert_eq!((sessions.len(), sessions[0].count(Event)), (1, 1));
    }
}

// Answers what is asked of a hop, until it is asked nothing any more.
fn answer_pings(hands: &mut Hands, hop: usize, status: &str) {
    while let Some(ping) = hands.hears_within(hop, "OPTIONS ", 50) {
        hands.answer(hop, &ping, status, "");
    }
}

#[test]
fn a_hop_whose_options_are_not_answered_is_avoided_until_they_are() {
    let mut hands = world("ping_interval_s = 5\n");
    let hear = |hands: &mut Hands, first: Option<&str>, seconds: u64| {
        let until = hands.world.now + seconds * 1_000;
        while hands.world.now < until {
            hands.wait(100);
            if let Some(status) = first {
                answer_pings(hands, 1, status);
            }
            answer_pings(hands, 2, "200 OK");
        }
    };
    hear(&mut hands, Some("200 OK"), 12);
    let ping = hands.hears_within(1, "OPTIONS ", 6_000).expect("asked");
    assert!(
        ping.starts_with("OPTIONS sip:10.1.0.2:5060 SIP/2.0"),
        "{ping}"
    );
    hands.answer(1, &ping, "404 Not Found", "");
    let invite = call(&mut hands);
    taken_by(&mut hands, 1, &invite, 20);
    hear(&mut hands, None, 12);
    let invite = call(&mut hands);
    taken_by(&mut hands, 2, &invite, 20);
    hear(&mut hands, Some("200 OK"), 12);
    let invite = call(&mut hands);
    taken_by(&mut hands, 1, &invite, 20);
    hear(&mut hands, Some("503 Service Unavailable"), 12);
    let invite = call(&mut hands);
    taken_by(&mut hands, 2, &invite, 20);
    let counters = counters(&mut hands);
    assert!(counters.hop_ping_sent > 10 && counters.hop_ping_unanswered > 1);
    // What the node asks is nobody's call.
    assert_eq!(hands.world.sessions().len(), 4);
}
