//! Requests that are services by themselves, set-ups that fail inside the node, early media: what
//! the records say, datagram by datagram.

use std::net::SocketAddr;

use charging::diameter::dictionary as d;
use charging::state::RecordType::{self, Event, Interim, Start, Stop};
use tests::bill::{Bill, Record};
use tests::by_hand::{Established, Phone, with, with_sdp};
use tests::process::NodeProcess;

fn world(more: &str) -> (Phone, Phone, Bill, NodeProcess) {
    let (caller, callee) = (Phone::at("127.0.0.2"), Phone::at("127.0.0.3"));
    let bill = Bill::open();
    let node = NodeProcess::start(callee.address(), &format!("{}{more}", bill.keys()));
    node.wait_cdf();
    (caller, callee, bill, node)
}

/// `from` asks, `to` answers.
fn exchange(
    (from, to): (&Phone, &Phone),
    node: SocketAddr,
    request: &str,
    (status, more): (&str, &str),
) {
    from.send(node, request);
    let method = request.split(' ').next().unwrap_or_default();
    let arrived = to.request(method);
    to.answer(node, &arrived, status, more);
    let answer = from.final_answer(node, request);
    assert!(answer.contains(status), "{answer}");
}

fn finished(node: &mut NodeProcess, bill: &Bill) -> Vec<Record> {
    node.wait_idle();
    node.stop();
    bill.records()
}

fn kinds(records: &[Record]) -> Vec<RecordType> {
    records.iter().map(Record::kind).collect()
}

/// What an EVENT says of method and cause.
fn method_and_cause(record: &Record) -> (String, i32) {
    let method = record.texts(d::SIP_METHOD).concat();
    (method, record.numbers(d::CAUSE_CODE)[0])
}

#[test]
fn an_event_tells_of_the_called_side() {
    let (caller, callee, bill, mut node) = world("");
    let uri = format!("sip:+49301@{}", node.sip);
    let answers = "P-Asserted-Identity: <sip:+49301@b.example>, <tel:+49301>\r\n\
                   P-Charging-Vector: icid-value=x;term-ioi=b.example;transit-ioi=\"b.2\"\r\n";
    for (method, status) in [("MESSAGE", "200 OK"), ("PUBLISH", "404 Not Found")] {
        let sent = caller.opening(method, &uri, method);
        exchange((&caller, &callee), node.sip, &sent, (status, answers));
    }
    let records = finished(&mut node, &bill);
    assert_eq!(kinds(&records), [Event, Event]);
    for record in &records {
        assert_eq!(record.texts(d::TERMINATING_IOI), ["b.example"]);
        assert_eq!(record.texts(d::TRANSIT_IOI_LIST), ["unknown", "b.2"]);
    }
    let called = |place: usize| records[place].texts(d::CALLED_ASSERTED_IDENTITY);
    assert_eq!(called(0), ["sip:+49301@b.example", "tel:+49301"]);
    assert!(called(1).is_empty(), "of a 2xx only");
}

#[test]
fn a_registration_is_recorded_of_whom_it_concerns_and_ends_with_its_own_cause() {
    let (caller, callee, bill, mut node) = world("");
    let contacts = [
        "<sip:a@127.0.0.2>;expires=0",
        "*",
        "<sip:a@127.0.0.2>;expires=60",
    ];
    for (n, contact) in contacts.iter().enumerate() {
        let sent = caller.opening("REGISTER", "sip:home.example", &format!("reg{n}"));
        let own = format!("<sip:caller@{}>", caller.address());
        let sent = sent
            .replace("To: <sip:home.example>", "To: <sip:+49401@home.example>")
            .replace(&own, contact);
        exchange((&caller, &callee), node.sip, &sent, ("200 OK", ""));
    }
    let records = finished(&mut node, &bill);
    assert_eq!(kinds(&records), [Event; 3]);
    let causes: Vec<i32> = records.iter().map(|one| method_and_cause(one).1).collect();
    assert_eq!(causes, [-3, -3, -1]);
    for record in &records {
        let called = record.texts(d::CALLED_PARTY_ADDRESS);
        assert_eq!(called, ["sip:+49401@home.example"]);
        assert!(record.texts(d::REQUESTED_PARTY_ADDRESS).is_empty());
    }
}

#[test]
fn services_inside_a_call_make_events_beside_it() {
    for is_on in [true, false] {
        let switch = format!("triggers = {{ event_on_one_shot = {is_on} }}\n");
        let (caller, callee, bill, mut node) = world(&switch);
        let invite = caller.invite(node.sip, "+49301", "inside");
        let arrived = callee.request("INVITE");
        callee.answer(node.sip, &arrived, "200 OK", "");
        let answer = caller.final_answer(node.sip, &invite);
        let call = Established::of(invite, answer);
        caller.send(node.sip, &call.request("ACK", 1));
        callee.request("ACK");
        let ways = (&caller, &callee);
        let of_caller = [
            ("MESSAGE", "", "200 OK"),
            (
                "SUBSCRIBE",
                "Event: dialog\r\nExpires: 0\r\n",
                "202 Accepted",
            ),
            ("PUBLISH", "Event: presence\r\nExpires: 60\r\n", "200 OK"),
            (
                "REFER",
                "Refer-To: <sip:+49302@b.example>\r\n",
                "202 Accepted",
            ),
            ("INFO", "", "200 OK"),
        ];
        for (n, (method, lines, status)) in of_caller.into_iter().enumerate() {
            let sent = with(&call.request(method, n as u32 + 2), lines);
            exchange(ways, node.sip, &sent, (status, ""));
        }
        // The second tells of the REFER, and belongs to it.
        for (cseq, event) in [(3, "dialog"), (4, "refer;id=5")] {
            let notify = callee.inside(&arrived, "NOTIFY", cseq);
            let lines = format!("Event: {event}\r\nSubscription-State: active\r\n");
            let sent = with(&notify, &lines);
            exchange((&callee, &caller), node.sip, &sent, ("200 OK", ""));
        }
        call.hang_up(&caller, &callee, node.sip);
        let records = finished(&mut node, &bill);
        let (events, session): (Vec<_>, Vec<_>) = records
            .into_iter()
            .partition(|record| record.kind() == Event);
        assert_eq!(kinds(&session), [Start, Interim, Stop]);
        let told: Vec<_> = events.iter().map(method_and_cause).collect();
        let expected = [
            ("MESSAGE", -1),
            ("SUBSCRIBE", -2),
            ("PUBLISH", -1),
            ("REFER", -202),
            ("NOTIFY", -1),
        ];
        let expected = expected.map(|(method, cause)| (method.to_owned(), cause));
        assert_eq!(told, if is_on { &expected[..] } else { &[] });
        for event in &events {
            let of_both = |attribute| [event.texts(attribute), session[0].texts(attribute)];
            let [one, other] = of_both(d::IMS_CHARGING_IDENTIFIER);
            assert_eq!(one, other);
            let [one, other] = of_both(d::SESSION_ID);
            assert_ne!(one, other);
        }
    }
}

#[test]
fn early_media_that_an_update_or_a_prack_changes_is_told_in_the_start() {
    let (caller, callee, bill, mut node) = world("");
    let invite = caller.opening("INVITE", &format!("sip:+49301@{}", node.sip), "early");
    let invite = with_sdp(&invite, "audio 4000 RTP/AVP 8");
    caller.send(node.sip, &invite);
    let arrived = callee.request("INVITE");
    let progress = callee.answer_to(&arrived, "183 Session Progress", "");
    callee.send(node.sip, &with_sdp(&progress, "audio 5000 RTP/AVP 8"));
    let ringing = caller.receive(|text| text.starts_with("SIP/2.0 183"));
    let early = Established::of(invite.clone(), ringing);
    let exchange = |from: &Phone, to: &Phone, request: &str, ports: [&str; 2]| {
        let request = with_sdp(request, ports[0]);
        from.send(node.sip, &request);
        let method = request.split(' ').next().unwrap_or_default();
        let seen = to.request(method);
        to.send(
            node.sip,
            &with_sdp(&to.answer_to(&seen, "200 OK", ""), ports[1]),
        );
        from.final_answer(node.sip, &request);
    };
    let prack = with(&early.request("PRACK", 2), "RAck: 1 1 INVITE\r\n");
    let ports = ["audio 4001 RTP/AVP 8", "audio 5001 RTP/AVP 8"];
    exchange(&caller, &callee, &prack, ports);
    let ports = ["audio 5002 RTP/AVP 8", "audio 4002 RTP/AVP 8"];
    exchange(
        &callee,
        &caller,
        &callee.inside(&arrived, "UPDATE", 1),
        ports,
    );
    // No media flow: nothing to be told.
    let ports = [
        "audio 4003 RTP/AVP 8\r\na=inactive",
        "audio 5003 RTP/AVP 8\r\na=inactive",
    ];
    exchange(&caller, &callee, &early.request("UPDATE", 3), ports);
    callee.answer(node.sip, &arrived, "200 OK", "");
    let answer = caller.final_answer(node.sip, &invite);
    let call = Established::of(invite.clone(), answer);
    caller.send(node.sip, &call.request("ACK", 1));
    call.hang_up(&caller, &callee, node.sip);
    let records = finished(&mut node, &bill);
    assert_eq!(kinds(&records), [Start, Stop]);
    let mut media = records[0].texts(d::SDP_MEDIA_NAME);
    media.retain(|name| !name.starts_with("audio 4000"));
    let expected = ["5000", "4001", "5001", "5002", "4002"];
    assert_eq!(
        media,
        expected.map(|port| format!("audio {port} RTP/AVP 8"))
    );
    assert_eq!(records[0].texts(d::EARLY_MEDIA_DESCRIPTION).len(), 3);
    // The PRACK's by the caller (1), the UPDATE's by the callee (0).
    assert_eq!(records[0].numbers(d::MEDIA_INITIATOR_FLAG), [1, 1, 0, 0]);
}

#[test]
fn what_fails_inside_the_node_is_an_internal_error_on_the_bill() {
    for is_on in [true, false] {
        let switch = format!("triggers = {{ event_on_internal_failure = {is_on} }}\n");
        let (caller, _callee, bill, mut node) = world(&switch);
        // More than a call keeps, though not more than a datagram holds.
        let routes = "<sip:192.0.2.1;lr>, ".repeat(2_000);
        let invite = caller.opening("INVITE", &format!("sip:+49301@{}", node.sip), "large");
        let lines = format!("Record-Route: {routes}<sip:192.0.2.2;lr>\r\n");
        let invite = with(&invite, &lines);
        caller.send(node.sip, &invite);
        let answer = caller.final_answer(node.sip, &invite);
        assert!(answer.starts_with("SIP/2.0 513"), "{answer}");
        let records = finished(&mut node, &bill);
        let told: Vec<_> = records.iter().map(method_and_cause).collect();
        let expected = [("INVITE".to_owned(), 3)];
        assert_eq!(told, if is_on { &expected[..] } else { &[] });
    }
}

#[test]
fn an_invite_refused_before_it_is_a_call_leaves_neither_record_nor_state() {
    let (caller, _callee, bill, mut node) = world("");
    let opening = |id: &str| caller.opening("INVITE", &format!("sip:+49301@{}", node.sip), id);
    let unknown = with(&opening("extension"), "Require: x-unknown\r\n");
    let brief = "Supported: timer\r\nSession-Expires: 30\r\n";
    let looping = opening("looping").replace("Max-Forwards: 70", "Max-Forwards: 0");
    let refused = [
        (unknown, "420"),
        (with(&opening("brief"), brief), "422"),
        (looping, "483"),
    ];
    for (invite, status) in refused {
        caller.send(node.sip, &invite);
        let answer = caller.final_answer(node.sip, &invite);
        assert!(answer.starts_with(&format!("SIP/2.0 {status}")), "{answer}");
    }
    let metrics = node.metrics();
    assert_eq!(metrics["ringtoll_call_started_total"], 0.0);
    assert_eq!(metrics["ringtoll_sip_request_declined_total"], 3.0);
    assert!(finished(&mut node, &bill).is_empty());
}
