//! Requests that open something: what the node answers by itself.

use tests::by_hand::header;
use tests::hand::{Hands, node_uri};
use tests::sim::NODE;

fn answer_to(hands: &mut Hands, request: &str) -> String {
    hands.say(0, request);
    hands.final_answer(0, request)
}

fn records(hands: &mut Hands) -> usize {
    hands.wait(10_000);
    hands.world.sessions().len()
}

/// RFC 3261 16.3 and 11: whoever stands where the hops end answers for itself.
#[test]
fn options_with_no_hops_left_are_answered_by_the_node() {
    let mut hands = Hands::new("[[sip.route]]\nmatch = \"*\"\nnext_hop = \"10.1.0.2\"\n", 2);
    for uri in [node_uri(), "sip:someone@home.example".to_owned()] {
        let options = hands.opening(0, "OPTIONS", &uri, "");
        let last = options.replace("Max-Forwards: 70", "Max-Forwards: 0");
        let answer = answer_to(&mut hands, &last);
        assert!(answer.starts_with("SIP/2.0 200 "), "{answer}");
        assert!(header(&answer, "Allow").contains("INVITE"), "{answer}");
        let message = hands.opening(0, "MESSAGE", &uri, "");
        let last = message.replace("Max-Forwards: 70", "Max-Forwards: 0");
        let answer = answer_to(&mut hands, &last);
        assert!(answer.starts_with("SIP/2.0 483 "), "{answer}");
    }
    assert_eq!(records(&mut hands), 0);
}

#[test]
fn options_to_the_node_are_answered_whatever_their_user_and_make_no_record() {
    let mut hands = Hands::new(
        "[[sip.route]]\nmatch = \"+49*\"\nnext_hop = \"10.1.0.2\"\n",
        2,
    );
    for uri in [
        node_uri(),
        format!("sip:ping@{NODE}"),
        "sip:ping@10.0.0.1".to_owned(),
    ] {
        let options = hands.opening(0, "OPTIONS", &uri, "");
        let answer = answer_to(&mut hands, &options);
        assert!(answer.starts_with("SIP/2.0 200 "), "{answer}");
        assert!(header(&answer, "To").contains(";tag="), "{answer}");
    }
    assert_eq!(records(&mut hands), 0);
    // A user that has a route is asked itself.
    let options = hands.opening(0, "OPTIONS", &format!("sip:+4930@{NODE}"), "");
    hands.say(0, &options);
    let arrived = hands.hears(1, "OPTIONS ");
    hands.answer(1, &arrived, "200 OK", "");
    let answer = hands.final_answer(0, &options);
    assert!(answer.starts_with("SIP/2.0 200 "), "{answer}");
    assert_eq!(records(&mut hands), 1);
}

/// RFC 3261 8.1.1.8: without one nobody could send anything to the caller.
#[test]
fn an_invite_has_exactly_one_contact() {
    let mut hands = Hands::new("", 2);
    let uri = "sip:p1@10.1.0.2";
    let good = hands.opening(0, "INVITE", uri, "");
    let contact = format!("Contact: {}\r\n", header(&good, "Contact"));
    for (n, wrong) in [
        "",
        "Contact: *\r\n",
        "Contact: <sip:a@10.1.0.1>, <sip:b@10.1.0.1>\r\n",
    ]
    .iter()
    .enumerate()
    {
        let invite = good
            .replace(&contact, wrong)
            .replace(header(&good, "Call-ID"), &format!("contact{n}"));
        let answer = answer_to(&mut hands, &invite.replace("hand1", &format!("contact{n}")));
        assert!(answer.starts_with("SIP/2.0 400 "), "{wrong}: {answer}");
        assert!(
            answer.lines().next().unwrap_or("").contains("Contact"),
            "{answer}"
        );
    }
    assert_eq!(hands.count(1, "INVITE "), 0);
    assert_eq!(records(&mut hands), 0);
}
