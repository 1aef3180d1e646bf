//! Faults that others shipped and mended later: each a test before it can be ours.

use std::collections::{BTreeMap, BTreeSet};

use tests::by_hand::header;
use tests::hand::{Hands, Leg, SDP, node_uri};
use tests::sim::{Misfortune, NODE, Setup, World};
use tests::ua::Plan;

fn caller(at: u64) -> Plan {
    Plan {
        calls_at: Some(at),
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

// When each phone saw what, of calls that begin all through two minutes of that trouble.
fn moments(trouble: &[Misfortune]) -> Vec<[Option<u64>; 6]> {
    let mut world = World::new(Setup {
        interim_s: Some(10),
        ..Setup::default()
    });
    world.run_until(1_000);
    for what in trouble {
        world.befall(world.now, *what);
    }
    for n in 0..60 {
        world.add_call(caller(2_000 + n * 2_000), callee());
    }
    world.run_until(150_000);
    let seen = world.phones.iter().map(|phone| {
        let ledger = &phone.ledger;
        [
            ledger.final_at,
            ledger.answered,
            ledger.acknowledged,
            ledger.bye_sent,
            ledger.bye_received,
            Some(ledger.inside.len() as u64),
        ]
    });
    let seen = seen.collect();
    world.heal_and_drain();
    let wrong = world.verdict();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    seen
}

#[test]
fn a_black_holed_cdf_costs_the_phones_no_time() {
    let healthy = moments(&[]);
    assert!(healthy.iter().all(|phone| phone[1].is_some()));
    for trouble in [
        &[Misfortune::Black(0), Misfortune::Black(1)][..],
        &[Misfortune::Black(0)],
        &[Misfortune::CdfDown(0), Misfortune::CdfDown(1)],
        &[Misfortune::Slow(0, 3_000), Misfortune::Slow(1, 3_000)],
    ] {
        assert_eq!(moments(trouble), healthy, "{trouble:?}");
    }
}

#[test]
fn session_ids_are_unique_over_shards_and_restarts() {
    let mut world = World::new(Setup {
        shards: 3,
        interim_s: None,
        ..Setup::default()
    });
    for n in 0..40 {
        world.add_call(caller(n % 4), callee());
        world.add_call(caller(20_000 + n % 4), callee());
    }
    world.befall(15_000, Misfortune::Restart(10));
    world.run_until(60_000);
    world.heal_and_drain();
    let wrong = world.verdict();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let mut calls: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for far in &world.fars {
        let store = far.cdf.store();
        for id in store.sessions() {
            let of_id = calls.entry(id.to_vec()).or_default();
            let records = store.records(id);
            of_id.extend(records.iter().map(|record| record.user_session_id.to_vec()));
        }
    }
    assert_eq!(calls.len(), 80, "one for each call");
    assert!(calls.values().all(|of_id| of_id.len() == 1));
}

#[test]
fn a_class_says_whether_numbers_keep_their_plus() {
    for (keys, number) in [
        ("", "4930123"),
        (
            "[[charging.class]]\nname = \"plus\"\nstrip_plus = false\n[[sip.route]]\n\
             match = \"*\"\nnext_hop = \"10.1.0.2\"\ncharging_class = \"plus\"\n",
            "+4930123",
        ),
    ] {
        let mut hands = Hands::new(keys, 2);
        let asserted = "P-Asserted-Identity: <tel:+4930123;cpc=ordinary>\r\n";
        let legs = hands.call(asserted, "");
        hands.ask(0, &legs[0], ("BYE", 2), "200 OK");
        hands.wait(5_000);
        let mut seen = BTreeSet::new();
        for far in &hands.world.fars {
            let store = far.cdf.store();
            for id in store.sessions() {
                let records = store.records(id);
                seen.extend(records.iter().map(|record| record.subscription.to_vec()));
            }
        }
        let seen: Vec<_> = seen.into_iter().collect();
        assert_eq!(seen, [number.as_bytes()]);
    }
}

// Sends a request and checks the node's own answer to it.
fn refused(hands: &mut Hands, request: &str, status: &str, limit: u64) {
    hands.pass_over(0);
    hands.say(0, request);
    let answer = hands.hears_within(0, &format!("SIP/2.0 {status} "), limit);
    let answer = answer.unwrap_or_else(|| panic!("no {status} to {request}"));
    let to = header(&answer, "To");
    assert_eq!(to.matches(";tag=").count(), 1, "{answer}");
    let tag = to.split(";tag=").nth(1).unwrap_or_default();
    assert!(tag.len() >= 8, "RFC 3261 19.3: {answer}");
    if request.starts_with("INVITE ") {
        let ack = request.replace("INVITE", "ACK").replace(
            &format!("To: {}", header(request, "To")),
            &format!("To: {to}"),
        );
        hands.say(0, &ack);
    }
}

/// RFC 3261 8.2.6.2.
#[test]
fn every_final_answer_of_the_node_has_a_to_tag() {
    let keys = "ring_timeout_s = 5\n[[sip.route]]\nmatch = \"+49*\"\nnext_hop = \"10.1.0.2\"\n";
    let mut hands = Hands::new(keys, 2);
    let routed = format!("sip:+4930@{NODE}");
    let lost = "sip:someone@unknown.example";
    for (method, uri, more, status, limit) in [
        ("INVITE", &routed[..], "Require: nonsense\r\n", "420", 100),
        (
            "INVITE",
            &routed,
            "Supported: timer\r\nSession-Expires: 30\r\n",
            "422",
            100,
        ),
        ("INVITE", lost, "", "404", 100),
        ("MESSAGE", lost, "", "404", 100),
        ("INVITE", "urn:service:sos", "", "416", 100),
        ("NONSENSE", &routed, "", "501", 100),
        ("BYE", &routed, "", "481", 100),
        ("CANCEL", &routed, "", "481", 100),
        ("OPTIONS", &node_uri(), "", "200", 100),
        // Nobody answers.
        ("INVITE", &routed, "", "408", 5_100),
        ("MESSAGE", &routed, "", "408", 33_000),
    ] {
        let request = hands.opening(0, method, uri, more);
        refused(&mut hands, &request, status, limit);
    }
    let message = hands.opening(0, "MESSAGE", &routed, "");
    let hopless = message.replace("Max-Forwards: 70", "Max-Forwards: 0");
    refused(&mut hands, &hopless, "483", 100);
    let invite = hands.opening(0, "INVITE", &routed, "");
    let contact = format!("Contact: {}\r\n", header(&invite, "Contact"));
    refused(&mut hands, &invite.replace(&contact, ""), "400", 100);
    let invite = hands.opening(0, "INVITE", &routed, "");
    hands.say(0, &invite);
    hands.hears(1, "INVITE ");
    let cancel = invite.replace("INVITE", "CANCEL");
    refused(&mut hands, &cancel, "200", 100);
    let answer = hands.hears(0, "SIP/2.0 487");
    assert!(header(&answer, "To").contains(";tag="), "{answer}");
}

/// RFC 3261 12.1.1: what the caller sends next comes back to this node.
#[test]
fn the_2xx_names_the_node_as_contact_whatever_the_callee_does() {
    let mut hands = Hands::new("", 2);
    let invite = hands.opening(0, "INVITE", "sip:p1@10.1.0.2", "");
    hands.say(0, &invite);
    let arrived = hands.hears(1, "INVITE ");
    let bare = |request: &str| {
        let mut answer = String::from("SIP/2.0 200 OK\r\n");
        for line in request.lines().take_while(|line| !line.is_empty()) {
            if ["Via:", "From:", "Call-ID:", "CSeq:"]
                .iter()
                .any(|name| line.starts_with(name))
            {
                answer.push_str(&format!("{line}\r\n"));
            } else if line.starts_with("To:") {
                let tag = if line.contains(";tag=") {
                    ""
                } else {
                    ";tag=t1"
                };
                answer.push_str(&format!("{line}{tag}\r\n"));
            }
        }
        answer + "Content-Length: 0\r\n\r\n"
    };
    hands.say(1, &bare(&arrived));
    let answer = hands.final_answer(0, &invite);
    assert!(
        header(&answer, "Contact").ends_with(&format!("@{NODE}>")),
        "{answer}"
    );
    let leg = Leg::of_caller(&invite, &answer);
    let ack = hands.request(0, &leg, "ACK", 1, "");
    hands.say(0, &ack);
    hands.hears(1, "ACK ");
    for (cseq, method) in [(2, "INVITE"), (3, "UPDATE")] {
        let request = hands.request(0, &leg, method, cseq, SDP);
        hands.say(0, &request);
        let arrived = hands.hears(1, method);
        assert!(
            header(&arrived, "Contact").ends_with(&format!("@{NODE}>")),
            "{arrived}"
        );
        hands.say(1, &bare(&arrived));
        let answer = hands.final_answer(0, &request);
        assert!(
            header(&answer, "Contact").ends_with(&format!("@{NODE}>")),
            "{answer}"
        );
        if method == "INVITE" {
            let ack = hands.request(0, &leg, "ACK", cseq, "");
            hands.say(0, &ack);
            hands.hears(1, "ACK ");
        }
    }
}
