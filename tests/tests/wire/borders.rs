//! What crosses the border of the trust domain, and what does not: by datagrams of our own between
//! a trusted caller, an untrusted callee and a stranger.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use charging::diameter::dictionary as d;
use charging::state::RecordType::{Event, Interim, Start, Stop};
use tests::bill::{Bill, Record};
use tests::by_hand::{Established, Phone, header, with};
use tests::process::{NodeProcess, record_types};

/// An address of the loopback network with a port of its own.
fn phone(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind((address, 0)).expect("loopback has many addresses");
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a socket takes a timeout");
    socket
}

fn address(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("a bound socket has an address")
}

/// The next datagram that is meant; repetitions of others are passed over.
fn receive(socket: &UdpSocket, is_meant: impl Fn(&str) -> bool) -> String {
    let mut buffer = [0; 65_535];
    loop {
        let length = socket.recv(&mut buffer).expect("a datagram in time");
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if is_meant(&text) {
            return text;
        }
    }
}

fn request(method: &str, own: SocketAddr, node: SocketAddr) -> String {
    format!(
        "{method} sip:+49301@{node} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKb{method}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:+49401@home.example>;tag=1\r\n\
         To: <sip:+49301@home.example>\r\nCall-ID: inside-{method}\r\nCSeq: 1 {method}\r\n\
         Contact: <sip:ada@{own}>\r\nExpires: 60\r\nEvent: presence\r\n\
         Subscription-State: active\r\nP-Asserted-Identity: <sip:+49401@home.example>\r\n\
         P-Charging-Vector: icid-value=inner-icid;orig-ioi=home.example\r\n\
         P-Charging-Function-Addresses: ccf=192.0.2.200\r\n\
         P-Served-User: <sip:+49401@home.example>;sescase=orig;regstate=reg\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

fn answer(request: &str, status: &str) -> String {
    let kept = ["Via:", "From:", "Call-ID:", "CSeq:"];
    let mut out = format!("SIP/2.0 {status}\r\n");
    for line in request.lines() {
        if kept.iter().any(|name| line.starts_with(name)) {
            out.push_str(&format!("{line}\r\n"));
        } else if line.starts_with("To:") {
            out.push_str(&format!("{line};tag=callee\r\n"));
        }
    }
    out + "Expires: 60\r\nContent-Length: 0\r\n\r\n"
}

#[test]
fn charging_headers_stay_inside_and_strangers_outside() {
    let (caller, callee) = (phone("127.0.0.2"), phone("127.0.0.3"));
    let peers = "[[sip.peer]]\nname = \"core\"\nallow = [\"127.0.0.2\"]\ntrusted = true\n\
                 [[sip.peer]]\nname = \"trunk\"\nallow = [\"127.0.0.3\"]\n";
    let mut node = NodeProcess::start(address(&callee), peers);
    let methods = ["SUBSCRIBE", "NOTIFY", "PUBLISH", "REGISTER", "INVITE"];
    for method in methods {
        let sent = request(method, address(&caller), node.sip);
        caller
            .send_to(sent.as_bytes(), node.sip)
            .expect("loopback takes datagrams");
        let seen = receive(&callee, |text| text.starts_with(method));
        for hidden in ["P-Charging", "P-Served-User", "inner-icid"] {
            assert!(!seen.contains(hidden), "{hidden} leaves:\n{seen}");
        }
        let status = if method == "INVITE" {
            // A call is two dialogs: of the caller's, nothing is told but who calls.
            let own = address(&caller).to_string();
            assert!(
                !seen.contains(&own) && !seen.contains("inside-INVITE"),
                "{seen}"
            );
            "486 Busy Here"
        } else {
            "200 OK"
        };
        callee
            .send_to(answer(&seen, status).as_bytes(), node.sip)
            .expect("loopback takes datagrams");
        let wanted = format!("SIP/2.0 {status}");
        let heard = receive(&caller, |text| {
            text.starts_with(&wanted) && text.contains(&format!("CSeq: 1 {method}"))
        });
        assert!(
            heard.contains(&format!("Call-ID: inside-{method}\r\n")),
            "{heard}"
        );
        if method == "INVITE" {
            let tag = heard
                .lines()
                .find(|line| line.starts_with("To:"))
                .unwrap_or_default();
            let ack = sent
                .replace("INVITE", "ACK")
                .replace("inside-ACK", "inside-INVITE");
            let ack = ack.replace("z9hG4bKbACK", "z9hG4bKbINVITE");
            let ack = ack.replace("To: <sip:+49301@home.example>", tag);
            caller
                .send_to(ack.as_bytes(), node.sip)
                .expect("loopback takes datagrams");
        }
    }
    let stranger = phone("127.0.0.4");
    let sent = request("MESSAGE", address(&stranger), node.sip);
    stranger
        .send_to(sent.as_bytes(), node.sip)
        .expect("loopback takes datagrams");
    receive(&stranger, |text| text.starts_with("SIP/2.0 403 "));
    assert_eq!(node.metrics()["ringtoll_sip_source_refused_total"], 1.0);
    node.wait_idle();
    node.stop();
    let cdrs = node.cdrs();
    assert_eq!(cdrs.len(), methods.len(), "the stranger is not billed");
    assert!(cdrs.iter().all(|cdr| record_types(cdr) == "EVENT"));
}

/// What only the trust domain may say, said by somebody outside it.
const FORGED: &str = "P-Asserted-Identity: <sip:+49999@forged.example>\r\n\
    P-Charging-Vector: icid-value=forged-icid;orig-ioi=forged-ioi;term-ioi=forged-ioi;\
    transit-ioi=\"forged.1\";related-icid=forged-too;fe-identifier=forged-fe\r\n\
    P-Charging-Function-Addresses: ccf=forged.example;ecf=forged.example\r\n\
    P-Served-User: <sip:served@forged.example>;sescase=term;regstate=reg\r\n\
    P-Called-Party-ID: <sip:called@forged.example>\r\n\
    P-Asserted-Service: urn:forged-service\r\n\
    P-Visited-Network-ID: forged.example\r\n\
    P-User-Database: <aaa://forged.example>\r\n\
    P-Access-Network-Info: 3GPP-NR-FDD;utran-cell-id-3gpp=forged;network-provided\r\n";
/// The same, said inside.
const TRUE: &str = "P-Asserted-Identity: <sip:+49401@home.example>\r\n\
    P-Charging-Vector: icid-value=inner-icid;orig-ioi=inner.orig;term-ioi=inner.term\r\n\
    P-Charging-Function-Addresses: ccf=inner.example\r\n\
    P-Served-User: <sip:+49401@inner.example>;sescase=orig;regstate=reg\r\n\
    P-Access-Network-Info: 3GPP-NR-FDD;utran-cell-id-3gpp=inner-cell;network-provided\r\n";
/// Credentials that nobody checked.
const CLAIMED: &str = "Authorization: Digest username=\"stolen\", realm=\"x\"\r\n";

/// A node between a peer at 127.0.0.2 and one at 127.0.0.3, one of which it trusts.
fn between(callee: &Phone, trusts_caller: bool, bill: &Bill) -> NodeProcess {
    let peers = format!(
        "[[sip.peer]]\nname = \"a\"\nallow = [\"127.0.0.2\"]\ntrusted = {trusts_caller}\n\
         [[sip.peer]]\nname = \"b\"\nallow = [\"127.0.0.3\"]\ntrusted = {}\n{}\
         triggers = {{ interim_on_tariff = true, interim_on_access_network_change = true }}\n",
        !trusts_caller,
        bill.keys(),
    );
    let node = NodeProcess::start(callee.address(), &peers);
    node.wait_cdf();
    node
}

/// The one ICID of a message that goes inside, whose fields may be forged in nothing. Its body is
/// the phones' own.
fn icid_inside(seen: &str) -> String {
    let head = seen.split("\r\n\r\n").next().unwrap_or_default();
    assert!(!head.contains("forged"), "{seen}");
    let vector = header(seen, "P-Charging-Vector");
    assert_eq!(seen.matches("P-Charging-Vector").count(), 1, "{seen}");
    let value = vector.strip_prefix("icid-value=").unwrap_or_default();
    let icid = value.split(';').next().unwrap_or_default();
    assert!(!icid.is_empty(), "{seen}");
    icid.trim_matches('"').to_owned()
}

fn assert_nothing_inner(seen: &str) {
    for hidden in ["P-Charging", "P-Served-User", "inner", "P-Access-Network"] {
        assert!(!seen.contains(hidden), "{hidden} leaves:\n{seen}");
    }
}

/// Requests of both sides inside a call, each with what its side says: as they arrive.
fn inside_both_ways(
    (caller, callee): (&Phone, &Phone),
    (call, arrived): (&Established, &str),
    node: &NodeProcess,
    (of_caller, of_callee): (&str, &str),
) -> [[String; 2]; 2] {
    let tariff = |text: &str| {
        text.replace(
            "Content-Length: 0\r\n\r\n",
            "Content-Type: application/vnd.etsi.sci+xml\r\nContent-Length: 9\r\n\r\n<forged/>",
        )
    };
    let ways = [
        (
            caller,
            callee,
            call.request("INFO", 2),
            of_caller,
            of_callee,
        ),
        (
            callee,
            caller,
            callee.inside(arrived, "INFO", 7),
            of_callee,
            of_caller,
        ),
    ];
    ways.map(|(from, to, info, said, answered)| {
        let info = with(&info, said);
        let info = if said == FORGED { tariff(&info) } else { info };
        from.send(node.sip, &info);
        let seen = to.request("INFO");
        to.answer(node.sip, &seen, "200 OK", answered);
        [seen, from.final_answer(node.sip, &info)]
    })
}

/// Whoever is named hangs up; what the other side got of it.
fn bye(from: &Phone, to: &Phone, bye: &str, node: &mut NodeProcess) -> String {
    from.send(node.sip, bye);
    let seen = to.request("BYE");
    to.answer(node.sip, &seen, "200 OK", "");
    from.final_answer(node.sip, bye);
    node.wait_idle();
    node.stop();
    seen
}

fn kinds(records: &[Record]) -> Vec<charging::state::RecordType> {
    records.iter().map(Record::kind).collect()
}

#[test]
fn what_a_caller_outside_says_of_charging_enters_neither_core_nor_bill() {
    let (caller, callee) = (Phone::at("127.0.0.2"), Phone::at("127.0.0.3"));
    let bill = Bill::open();
    let mut node = between(&callee, false, &bill);
    let invite = caller.opening("INVITE", &format!("sip:+49301@{}", node.sip), "outside");
    let invite = with(&invite, &format!("{FORGED}{CLAIMED}"));
    caller.send(node.sip, &invite);
    let arrived = callee.request("INVITE");
    let icid = icid_inside(&arrived);
    callee.answer(node.sip, &arrived, "180 Ringing", TRUE);
    assert_nothing_inner(&caller.receive(|text| text.starts_with("SIP/2.0 180")));
    callee.answer(node.sip, &arrived, "200 OK", TRUE);
    let answer = caller.final_answer(node.sip, &invite);
    assert_nothing_inner(&answer);
    let call = Established::of(invite, answer);
    caller.send(node.sip, &with(&call.request("ACK", 1), FORGED));
    assert_eq!(icid_inside(&callee.request("ACK")), icid);
    let phones = (&caller, &callee);
    let seen = inside_both_ways(phones, (&call, &arrived), &node, (FORGED, TRUE));
    let [[asked, answered], [back, back_answered]] = &seen;
    assert_eq!(
        [icid_inside(asked), icid_inside(back_answered)],
        [&icid[..]; 2]
    );
    assert_nothing_inner(answered);
    assert_nothing_inner(back);
    let hang_up = with(&call.request("BYE", 3), FORGED);
    let ended = bye(&caller, &callee, &hang_up, &mut node);
    assert_eq!(icid_inside(&ended), icid);

    let records = bill.records();
    // The INTERIM is the ACK's, for the INVITE has no offer.
    assert_eq!(kinds(&records), [Start, Interim, Stop]);
    for record in &records {
        assert!(!record.mentions("forged") && !record.mentions("stolen"));
        assert_eq!(record.texts(d::IMS_CHARGING_IDENTIFIER), [&icid[..]]);
        assert_eq!(record.texts(d::CALLING_PARTY_ADDRESS), ["unknown"]);
        assert_eq!(record.numbers(d::ROLE_OF_NODE), [0], "originating");
        assert_eq!(record.texts(d::TERMINATING_IOI), ["inner.term"]);
        assert!(record.numbers(d::ONLINE_CHARGING_FLAG).is_empty());
    }
}

#[test]
fn what_a_callee_outside_says_of_charging_enters_neither_core_nor_bill() {
    let (caller, callee) = (Phone::at("127.0.0.2"), Phone::at("127.0.0.3"));
    let bill = Bill::open();
    let mut node = between(&callee, true, &bill);
    let opening = |id: &str| {
        let invite = caller.opening("INVITE", &format!("sip:+49301@{}", node.sip), id);
        with(&invite, TRUE)
    };
    let refused = opening("refused");
    caller.send(node.sip, &refused);
    let arrived = callee.request("INVITE");
    assert_nothing_inner(&arrived);
    callee.answer(node.sip, &arrived, "486 Busy Here", FORGED);
    let answer = caller.final_answer(node.sip, &refused);
    assert_eq!(icid_inside(&answer), "inner-icid");
    let invite = opening("inside");
    caller.send(node.sip, &invite);
    let arrived = callee.request("INVITE");
    callee.answer(node.sip, &arrived, "180 Ringing", FORGED);
    let ringing = caller.receive(|text| text.starts_with("SIP/2.0 180"));
    callee.answer(node.sip, &arrived, "200 OK", FORGED);
    let answer = caller.final_answer(node.sip, &invite);
    for response in [&ringing, &answer] {
        assert_eq!(icid_inside(response), "inner-icid");
    }
    let call = Established::of(invite, answer);
    caller.send(node.sip, &call.request("ACK", 1));
    callee.receive(|text| text.starts_with("ACK ") && !text.contains("z9hG4bKrefused"));
    let phones = (&caller, &callee);
    let seen = inside_both_ways(phones, (&call, &arrived), &node, (TRUE, FORGED));
    let [[asked, answered], [back, back_answered]] = &seen;
    assert_eq!(
        [icid_inside(answered), icid_inside(back)],
        ["inner-icid"; 2]
    );
    assert_nothing_inner(asked);
    assert_nothing_inner(back_answered);
    let hang_up = with(&callee.inside(&arrived, "BYE", 8), FORGED);
    let ended = bye(&callee, &caller, &hang_up, &mut node);
    assert_eq!(icid_inside(&ended), "inner-icid");

    let records = bill.records();
    assert_eq!(kinds(&records), [Event, Start, Interim, Stop]);
    for record in &records {
        assert!(!record.mentions("forged"));
        assert_eq!(record.texts(d::IMS_CHARGING_IDENTIFIER), ["inner-icid"]);
        assert_eq!(record.texts(d::ORIGINATING_IOI), ["inner.orig"]);
        let told = record.texts(d::ACCESS_NETWORK_INFORMATION);
        assert!(told.concat().contains("inner-cell"), "{told:?}");
    }
}

#[test]
fn what_the_node_says_of_its_own_carries_the_icid_inside() {
    let (caller, callee) = (Phone::at("127.0.0.2"), Phone::at("127.0.0.3"));
    for (peers, is_inside) in [("trusted = true", true), ("trusted = false", false)] {
        let peers = format!("[[sip.peer]]\nname = \"a\"\nallow = [\"127.0.0.0/8\"]\n{peers}\n");
        let node = NodeProcess::start_with(callee.address(), "max_call_duration_s = 1\n", &peers);
        let icid_of = |seen: &str| match is_inside {
            true => icid_inside(seen),
            false => {
                assert_nothing_inner(seen);
                String::new()
            }
        };
        let invite = caller.invite(node.sip, "+49301", "given-up");
        let arrived = callee.request("INVITE");
        callee.answer(node.sip, &arrived, "180 Ringing", "");
        caller.receive(|text| text.starts_with("SIP/2.0 180"));
        let cancel = invite.replace("INVITE", "CANCEL");
        caller.send(node.sip, &cancel);
        let seen = callee.request("CANCEL");
        assert_eq!(icid_of(&seen), icid_of(&arrived));
        callee.answer(node.sip, &seen, "200 OK", "");
        callee.answer(node.sip, &arrived, "487 Request Terminated", "");
        caller.final_answer(node.sip, &invite);
        let _call = caller.call(&callee, node.sip, "long");
        // The node ends it, and both hear of it.
        let byes = [&caller, &callee].map(|phone| {
            let bye = phone.request("BYE");
            phone.answer(node.sip, &bye, "200 OK", "");
            icid_of(&bye)
        });
        assert_eq!(byes[0], byes[1]);
        node.wait_idle();
    }
}

#[test]
fn of_requests_outside_dialogs_charging_data_passes_inside_only() {
    let (caller, callee) = (Phone::at("127.0.0.2"), Phone::at("127.0.0.3"));
    for trusts_caller in [false, true] {
        let bill = Bill::open();
        let mut node = between(&callee, trusts_caller, &bill);
        let (asks, says) = match trusts_caller {
            false => (FORGED, TRUE),
            true => (TRUE, FORGED),
        };
        let methods = ["MESSAGE", "SUBSCRIBE", "REGISTER"];
        for method in methods {
            let uri = format!("sip:+49301@{}", node.sip);
            let sent = with(&caller.opening(method, &uri, &format!("one{method}")), asks);
            caller.send(node.sip, &sent);
            let seen = callee.request(method);
            callee.answer(node.sip, &seen, "200 OK", says);
            let heard = caller.final_answer(node.sip, &sent);
            let (inside, outside) = match trusts_caller {
                false => (&seen, &heard),
                true => (&heard, &seen),
            };
            icid_inside(inside);
            assert_nothing_inner(outside);
        }
        node.wait_idle();
        node.stop();
        let records = bill.records();
        assert_eq!(kinds(&records), [Event; 3]);
        assert!(!records.iter().any(|record| record.mentions("forged")));
    }
}
