//! Requests inside dialogs: which answers end the call, and offers that meet.

use charging::state::RecordType::{self, Interim, Start, Stop};
use tests::by_hand::header;
use tests::checks::Session;
use tests::hand::{Hands, Leg, SDP};

fn up() -> (Hands, [Leg; 2]) {
    let mut hands = Hands::new("", 2);
    let legs = hands.call("", "Allow: INVITE, ACK, BYE, UPDATE\r\n");
    (hands, legs)
}

/// START and STOP with its Cause-Code, of the call alone.
fn bill(hands: &mut Hands) -> Vec<(RecordType, Option<i32>)> {
    hands.wait(60_000);
    let sessions = hands.world.sessions_of(0);
    let is_call = |session: &&Session| session.count(Start) > 0;
    let calls: Vec<_> = sessions.iter().filter(is_call).collect();
    assert_eq!(calls.len(), 1, "{sessions:?}");
    let records = calls[0].records.values();
    let records = records.filter(|record| record.kind != Interim);
    records.map(|record| (record.kind, record.cause)).collect()
}

/// The call is up: its caller ends it.
fn ends_as_usual(hands: &mut Hands, legs: &[Leg; 2], cseq: u32) {
    assert_eq!(hands.count(0, "BYE ") + hands.count(1, "BYE "), 0);
    let answer = hands.ask(0, &legs[0], ("BYE", cseq), "200 OK");
    assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
    assert_eq!(bill(hands), [(Start, None), (Stop, Some(0))]);
}

/// RFC 5057 5.1: what answers a request of another usage says nothing of the session.
#[test]
fn a_481_to_a_request_of_a_subscription_leaves_the_call_alone() {
    let (mut hands, legs) = up();
    let mut cseq = 1;
    for status in ["481 Subscription Does Not Exist", "408 Request Timeout"] {
        for method in ["NOTIFY", "SUBSCRIBE", "REFER", "MESSAGE"] {
            cseq += 1;
            for side in [0, 1] {
                let answer = hands.ask(side, &legs[side], (method, cseq), status);
                assert!(answer.starts_with(&format!("SIP/2.0 {status}")), "{answer}");
            }
        }
    }
    ends_as_usual(&mut hands, &legs, cseq + 1);
}

#[test]
fn a_481_to_a_request_of_the_session_ends_the_call() {
    for method in ["UPDATE", "INFO", "OPTIONS", "INVITE"] {
        let (mut hands, legs) = up();
        let status = "481 Call/Transaction Does Not Exist";
        let answer = hands.ask(0, &legs[0], (method, 2), status);
        assert!(answer.starts_with("SIP/2.0 481"), "{answer}");
        for phone in [0, 1] {
            let bye = hands.hears(phone, "BYE ");
            assert_eq!(header(&bye, "Reason"), "SIP;cause=481");
            hands.answer(phone, &bye, "200 OK", "");
        }
        let expected = [(Start, None), (Stop, Some(481))];
        assert_eq!(bill(&mut hands), expected, "{method}");
    }
}

/// RFC 5057 5.2: no answer is like a 408, which is no end of the session for these.
#[test]
fn an_unanswered_info_or_notify_leaves_the_call_alone() {
    let (mut hands, legs) = up();
    for (cseq, method) in [(2, "INFO"), (3, "NOTIFY"), (4, "MESSAGE")] {
        let request = hands.request(0, &legs[0], method, cseq, "");
        hands.say(0, &request);
        hands.hears(1, method);
        let answer = hands.hears_within(0, "SIP/2.0 ", 40_000);
        let answer = answer.expect("Timer F ends it");
        assert!(answer.starts_with("SIP/2.0 408"), "{answer}");
    }
    ends_as_usual(&mut hands, &legs, 5);
}

#[test]
fn an_unanswered_update_ends_the_call() {
    let (mut hands, legs) = up();
    let request = hands.request(0, &legs[0], "UPDATE", 2, "");
    hands.say(0, &request);
    let bye = hands.hears_within(1, "BYE ", 40_000);
    hands.answer(1, &bye.expect("RFC 3261 12.2.1.2"), "200 OK", "");
    let bye = hands.hears(0, "BYE ");
    hands.answer(0, &bye, "200 OK", "");
    assert_eq!(bill(&mut hands), [(Start, None), (Stop, Some(408))]);
}

// Sends what the node has to answer by itself.
fn refused(hands: &mut Hands, phone: usize, request: &str, status: &str) -> String {
    let before = hands.count(
        1 - phone,
        header(request, "CSeq").split(' ').nth(1).unwrap_or(""),
    );
    hands.say(phone, request);
    let answer = hands.final_answer(phone, request);
    assert!(
        answer.starts_with(&format!("SIP/2.0 {status} ")),
        "{answer}"
    );
    let after = hands.count(
        1 - phone,
        header(request, "CSeq").split(' ').nth(1).unwrap_or(""),
    );
    assert_eq!(before, after, "it does not pass");
    answer
}

fn seconds_of(answer: &str) -> u32 {
    let seconds = header(answer, "Retry-After").parse();
    seconds.unwrap_or_else(|_| panic!("Retry-After: {answer}"))
}

/// RFC 3311 5.2.
#[test]
fn an_update_that_overlaps_one_of_the_same_side_gets_500() {
    let (mut hands, legs) = up();
    for (cseq, first, second) in [(2, SDP, SDP), (5, "", SDP), (8, SDP, "")] {
        let update = hands.request(0, &legs[0], "UPDATE", cseq, first);
        hands.say(0, &update);
        let arrived = hands.hears(1, "UPDATE ");
        let overlapping = hands.request(0, &legs[0], "UPDATE", cseq + 1, second);
        let answer = refused(&mut hands, 0, &overlapping, "500");
        assert!(seconds_of(&answer) <= 10, "{answer}");
        hands.answer(1, &arrived, "200 OK", first);
        let answer = hands.final_answer(0, &update);
        assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
        let answer = hands.ask(0, &legs[0], ("UPDATE", cseq + 2), "200 OK");
        assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
    }
    ends_as_usual(&mut hands, &legs, 20);
}

/// RFC 3311 5.2: the side that an offer is on its way to has to wait with its own.
#[test]
fn an_update_that_crosses_an_offer_gets_491() {
    let (mut hands, legs) = up();
    for (cseq, method) in [(2, "UPDATE"), (4, "INVITE")] {
        let offer = hands.request(0, &legs[0], method, cseq, SDP);
        hands.say(0, &offer);
        let arrived = hands.hears(1, method);
        for (own, crossing) in [(10 * cseq, "UPDATE"), (10 * cseq + 1, "INVITE")] {
            let crossing = hands.request(1, &legs[1], crossing, own, SDP);
            refused(&mut hands, 1, &crossing, "491");
        }
        // One without an offer negotiates nothing.
        let plain = hands.ask(1, &legs[1], ("UPDATE", 10 * cseq + 2), "200 OK");
        assert!(plain.starts_with("SIP/2.0 200"), "{plain}");
        hands.answer(1, &arrived, "200 OK", SDP);
        let answer = hands.final_answer(0, &offer);
        assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
        if method == "INVITE" {
            let ack = hands.request(0, &legs[0], "ACK", cseq, "");
            hands.say(0, &ack);
            hands.hears(1, "ACK ");
        }
    }
    ends_as_usual(&mut hands, &legs, 20);
}

/// RFC 3261 14.2, RFC 3311 5.2.
#[test]
fn a_re_invite_or_an_update_with_an_offer_that_overlaps_a_re_invite_gets_500() {
    let (mut hands, legs) = up();
    let first = hands.request(0, &legs[0], "INVITE", 2, SDP);
    hands.say(0, &first);
    let arrived = hands.hears(1, "INVITE ");
    for (cseq, method) in [(3, "INVITE"), (4, "UPDATE")] {
        let overlapping = hands.request(0, &legs[0], method, cseq, SDP);
        let answer = refused(&mut hands, 0, &overlapping, "500");
        assert!(seconds_of(&answer) <= 10, "{answer}");
    }
    // RFC 3262 5: a reliable provisional answer ends the negotiation, the next one may begin.
    let reliable = format!("Require: 100rel\r\nRSeq: 1\r\n{SDP}");
    hands.answer(1, &arrived, "183 Session Progress", &reliable);
    hands.hears(0, "SIP/2.0 183");
    let offer = hands.request(0, &legs[0], "UPDATE", 5, SDP);
    hands.say(0, &offer);
    let update = hands.hears(1, "UPDATE ");
    hands.answer(1, &update, "200 OK", SDP);
    let answer = hands.final_answer(0, &offer);
    assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
    hands.answer(1, &arrived, "200 OK", "");
    hands.final_answer(0, &first);
    let ack = hands.request(0, &legs[0], "ACK", 2, "");
    hands.say(0, &ack);
    hands.hears(1, "ACK ");
    ends_as_usual(&mut hands, &legs, 9);
}

/// RFC 3261 12.2.2.
#[test]
fn a_lower_cseq_than_the_last_gets_500_and_does_not_pass() {
    let (mut hands, legs) = up();
    hands.ask(0, &legs[0], ("INFO", 7), "200 OK");
    for method in ["INFO", "UPDATE", "INVITE", "BYE"] {
        let late = hands.request(0, &legs[0], method, 6, "");
        refused(&mut hands, 0, &late, "500");
    }
    ends_as_usual(&mut hands, &legs, 8);
}
