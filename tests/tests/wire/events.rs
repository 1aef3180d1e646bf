//! Requests that are services by themselves, set-ups that fail inside the node, early media: what
//! the records say, datagram by datagram.

use std::net::SocketAddr;

use charging::diameter::dictionary as d;
use charging::state::RecordType::{self, Event};
use tests::bill::{Bill, Record};
use tests::by_hand::Phone;
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
