//! Legs that fell silent: OPTIONS inside the dialog, and refreshes for callers without timers.

use charging::state::RecordType::{Start, Stop};
use tests::by_hand::header;
use tests::hand::{Hands, Leg, SDP};
use tests::sim::Misfortune;

const EACH_MINUTE: &str = "probe_interval_s = 60\nsession_expires_s = 0\n";

fn up(config: &str) -> (Hands, [Leg; 2]) {
    let mut hands = Hands::new(config, 2);
    let legs = hands.call("", "");
    (hands, legs)
}

fn probe(hands: &mut Hands, phone: usize, limit: u64) -> String {
    let probe = hands.hears_within(phone, "OPTIONS ", limit);
    probe.unwrap_or_else(|| panic!("phone {phone} is asked"))
}

/// Both phones get a BYE with that cause, and the STOP has it.
fn ended_with(hands: &mut Hands, cause: i32) {
    for phone in [0, 1] {
        let bye = hands.hears_within(phone, "BYE ", 33_000).expect("a BYE");
        assert_eq!(header(&bye, "Reason"), format!("SIP;cause={cause}"));
        hands.answer(phone, &bye, "200 OK", "");
    }
    hands.wait(1_000);
    let sessions = hands.world.sessions_of(0);
    assert_eq!(sessions.len(), 1);
    let stop = sessions[0].one(Stop).expect("a STOP");
    assert_eq!(stop.cause, Some(cause));
    assert_eq!(sessions[0].count(Start), 1);
}

#[test]
fn a_leg_that_does_not_know_the_call_any_more_ends_it() {
    for phone in [0, 1] {
        for (status, cause) in [
            ("481 Call/Transaction Does Not Exist", 481),
            ("408 Request Timeout", 408),
        ] {
            let (mut hands, legs) = up(EACH_MINUTE);
            let asked = probe(&mut hands, phone, 60_100);
            assert_eq!(header(&asked, "Call-ID"), legs[phone].id);
            assert!(header(&asked, "To").contains(";tag="), "{asked}");
            hands.answer(phone, &asked, status, "");
            ended_with(&mut hands, cause);
        }
    }
}

#[test]
fn a_leg_that_is_gone_ends_the_call() {
    let (mut hands, _) = up(EACH_MINUTE);
    let asked = probe(&mut hands, 0, 60_100);
    hands.answer(0, &asked, "200 OK", "");
    probe(&mut hands, 1, 60_100);
    // Timer F, 32 s.
    ended_with(&mut hands, 408);
    assert!(hands.world.now < 95_000, "{}", hands.world.now);
}

#[test]
fn any_other_answer_shows_that_the_leg_lives() {
    let (mut hands, legs) = up(EACH_MINUTE);
    for status in [
        "200 OK",
        "405 Method Not Allowed",
        "503 Service Unavailable",
    ] {
        let began = hands.world.now;
        for phone in [0, 1] {
            let asked = probe(&mut hands, phone, 60_100);
            hands.answer(phone, &asked, status, "");
        }
        assert!((59_000..60_100).contains(&(hands.world.now - began)));
    }
    assert_eq!(hands.count(0, "BYE ") + hands.count(1, "BYE "), 0);
    let answer = hands.ask(1, &legs[1], ("BYE", 1), "200 OK");
    assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
    hands.wait(120_000);
    assert_eq!(hands.count(0, "OPTIONS "), 3, "nobody asks after the end");
}

#[test]
fn a_leg_with_a_session_timer_is_not_asked_and_none_is_by_default() {
    let timers = "probe_interval_s = 60\nsession_expires_s = 600\n";
    let mut hands = Hands::new(timers, 2);
    let known = "Supported: timer\r\nSession-Expires: 600;refresher=uac\r\n";
    hands.call(known, "");
    let asked = probe(&mut hands, 1, 60_100);
    hands.answer(1, &asked, "200 OK", "");
    hands.wait(10_000);
    assert_eq!(hands.count(0, "OPTIONS "), 0);
    let (mut hands, _) = up("session_expires_s = 0\n");
    hands.wait(1_000_000);
    assert_eq!(hands.count(0, "OPTIONS ") + hands.count(1, "OPTIONS "), 0);
}

/// The deadline is counted from what stands in the call's state.
#[test]
fn whoever_takes_the_call_up_goes_on_asking() {
    let (mut hands, _) = up(EACH_MINUTE);
    hands.wait(20_000);
    hands
        .world
        .befall(hands.world.now, Misfortune::Restart(500));
    hands.wait(1_000);
    for phone in [0, 1] {
        let asked = probe(&mut hands, phone, 40_000);
        hands.answer(phone, &asked, "200 OK", "");
    }
    assert!(
        hands.world.now < 60_500,
        "not begun anew: {}",
        hands.world.now
    );
    // Overdue by now: soon, but not all calls at the same moment.
    let down = hands.world.now + 30_000;
    hands.world.befall(down, Misfortune::Restart(60_000));
    hands.wait(90_001);
    let asked = probe(&mut hands, 0, 10_000);
    hands.answer(0, &asked, "481 Call/Transaction Does Not Exist", "");
    for phone in [0, 1] {
        let bye = hands.hears_within(phone, "BYE ", 11_000).expect("a BYE");
        hands.answer(phone, &bye, "200 OK", "");
    }
    hands.wait(60_000);
    let sessions = hands.world.sessions_of(0);
    let stop = sessions[0].one(Stop).expect("a STOP");
    assert_eq!(stop.cause, Some(481));
}

/// RFC 4028 9, table 2: a caller that does not know timers cannot refresh, but be refreshed.
#[test]
fn a_caller_without_session_timers_is_refreshed_by_the_node() {
    for (allow, method) in [("Allow: INVITE, UPDATE\r\n", "UPDATE"), ("", "INVITE")] {
        let mut hands = Hands::new("session_expires_s = 90\n", 2);
        hands.call(allow, SDP);
        let mut answer = hands.world.phones[0].ledger.heard.iter();
        let answer = answer.rfind(|(_, text)| text.starts_with("SIP/2.0 200"));
        let answer = answer.expect("the 2xx").1.clone();
        assert_eq!(header(&answer, "Session-Expires"), "90;refresher=uas");
        assert_eq!(header(&answer, "Require"), "");
        for _ in 0..3 {
            let began = hands.world.now;
            let refresh = hands.hears_within(0, method, 46_000).expect("a refresh");
            assert!(hands.world.now > began + 44_000);
            assert_eq!(header(&refresh, "Session-Expires"), "90;refresher=uac");
            assert_eq!(refresh.contains("m=audio"), method == "INVITE");
            // As such a phone answers, without a word of timers.
            hands.answer(0, &refresh, "200 OK", SDP);
            if method == "INVITE" {
                hands.hears(0, "ACK ");
            }
        }
        assert_eq!(hands.count(1, method), usize::from(method == "INVITE"));
        let refresh = hands.hears_within(0, method, 46_000).expect("a refresh");
        hands.answer(0, &refresh, "481 Call/Transaction Does Not Exist", "");
        hands.hears(1, "BYE ");
    }
}

#[test]
fn a_call_that_nobody_is_able_to_refresh_goes_on() {
    let mut hands = Hands::new("session_expires_s = 90\nprobe_interval_s = 60\n", 2);
    let legs = hands.call("", "");
    for _ in 0..4 {
        for phone in [1, 0] {
            let asked = probe(&mut hands, phone, 106_000);
            hands.answer(phone, &asked, "200 OK", "");
        }
    }
    let answer = hands.ask(0, &legs[0], ("BYE", 2), "200 OK");
    assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
}
