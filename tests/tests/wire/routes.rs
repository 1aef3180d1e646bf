//! Where calls go on a running node: by weight, by priority, past what fails, over IPv6.

use std::time::Duration;

use tests::by_hand::{Phone, header};
use tests::process::{NodeProcess, record_types};

use super::sipp::NO_INTERIM;

/// A node whose route has these next hops instead of the usual one.
fn with_hops(hops: &str, more: &str) -> NodeProcess {
    let nobody = std::net::SocketAddr::from(([127, 0, 0, 9], 9));
    NodeProcess::start_edited(nobody, &format!("{more}{NO_INTERIM}"), |text| {
        text.replace(
            &format!("next_hop = \"{nobody}\""),
            &format!("next_hop = {hops}"),
        )
    })
}

#[test]
fn calls_are_shared_by_weight() {
    let caller = Phone::at("127.0.0.2");
    let callees = [Phone::at("127.0.0.3"), Phone::at("127.0.0.4")];
    let [often, seldom] = callees.each_ref().map(Phone::address);
    let hops = format!(
        "[{{ address = \"{often}\", weight = 9 }}, {{ address = \"{seldom}\", weight = 1 }}]"
    );
    let mut node = with_hops(&hops, "");
    let mut counts = [0; 2];
    for n in 0..200 {
        let invite = caller.invite(node.sip, "+49301", &format!("w{n}"));
        let arrived = Duration::from_millis(3);
        let mut turns = 0;
        let (place, arrived) = loop {
            let place = turns % 2;
            let meant = |text: &str| text.starts_with("INVITE ");
            if let Some(text) = callees[place].receive_within(arrived, meant) {
                break (place, text);
            }
            turns += 1;
            assert!(turns < 2_000, "the INVITE goes somewhere");
        };
        counts[place] += 1;
        callees[place].answer(node.sip, &arrived, "486 Busy Here", "");
        callees[place].request("ACK");
        let answer = caller.final_answer(node.sip, &invite);
        assert!(answer.starts_with("SIP/2.0 486"), "{answer}");
    }
    assert!((160..=195).contains(&counts[0]), "nine of ten: {counts:?}");
    node.wait_idle();
    node.stop();
    assert_eq!(node.cdrs().len(), 200);
}

#[test]
fn the_next_hop_is_tried_after_a_503_and_after_silence() {
    let caller = Phone::at("127.0.0.2");
    let (busy, silent, last) = (
        Phone::at("127.0.0.3"),
        Phone::at("127.0.0.4"),
        Phone::at("127.0.0.5"),
    );
    let hop = |phone: &Phone, priority: u16| {
        format!(
            "{{ address = \"{}\", priority = {priority} }}",
            phone.address()
        )
    };
    let hops = format!(
        "[{}, {}, {}]",
        hop(&last, 3),
        hop(&busy, 1),
        hop(&silent, 2)
    );
    // Timer B is 64 * T1.
    let mut node = NodeProcess::start_edited(last.address(), NO_INTERIM, |text| {
        let usual = format!("next_hop = \"{}\"", last.address());
        text.replace(&usual, &format!("next_hop = {hops}"))
            .replace("[[sip.route]]", "t1_ms = 20\n[[sip.route]]")
    });
    let invite = caller.invite(node.sip, "+49301", "failover");
    let arrived = busy.request("INVITE");
    busy.answer(node.sip, &arrived, "503 Service Unavailable", "");
    busy.request("ACK");
    silent.request("INVITE");
    let arrived = last.request("INVITE");
    last.answer(node.sip, &arrived, "486 Busy Here", "");
    let answer = caller.final_answer(node.sip, &invite);
    assert!(answer.starts_with("SIP/2.0 486"), "{answer}");
    node.wait_idle();
    node.stop();
    let cdrs = node.cdrs();
    assert_eq!(cdrs.len(), 1, "one EVENT for the whole of it");
    assert_eq!(cdrs[0]["cause_code"], 486);
}

#[test]
fn a_call_over_ipv6_is_switched_and_billed() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        return tests::process::skip("the loopback interface has no IPv6");
    }
    let (caller, callee) = (Phone::at("::1"), Phone::at("::1"));
    let other = Phone::at("127.0.0.3");
    let mut sip = None;
    let mut node = NodeProcess::start_edited(callee.address(), NO_INTERIM, |text| {
        let port = text
            .split("listen = [\"udp:127.0.0.1:")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .expect("the usual listener");
        let both = format!("listen = [\"udp:127.0.0.1:{port}\", \"udp:[::1]:{port}\"]");
        sip = port.parse().ok();
        text.replace(&format!("listen = [\"udp:127.0.0.1:{port}\"]"), &both)
    });
    let port: u16 = sip.expect("a port");
    let six = std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port));
    let call = caller.call(&callee, six, "six");
    call.hang_up(&caller, &callee, six);
    // From one family into the other: the node speaks to each phone in its own.
    let invite = other.invite(node.sip, "+49301", "four-to-six");
    let arrived = callee.request("INVITE");
    assert!(
        arrived.contains(&format!("Via: SIP/2.0/UDP [::1]:{port};")),
        "{arrived}"
    );
    callee.answer(six, &arrived, "486 Busy Here", "");
    let answer = other.final_answer(node.sip, &invite);
    assert!(answer.starts_with("SIP/2.0 486"), "{answer}");
    node.wait_idle();
    node.stop();
    assert_eq!(node.cdrs().len(), 2);
}

#[test]
fn a_host_name_that_no_route_covers_is_answered_404_and_billed_as_a_failure() {
    let (caller, callee) = (Phone::at("127.0.0.2"), Phone::at("127.0.0.3"));
    let mut node = NodeProcess::start_edited(callee.address(), NO_INTERIM, |text| {
        text.replace("match = \"*\"", "match = \"*@known.example\"")
    });
    for (n, host, status) in [
        (0, "known.example", "486 Busy Here"),
        (1, "unknown.example", "404 No Route To Host"),
    ] {
        let uri = format!("sip:+49301@{host}");
        let invite = caller.opening("INVITE", &uri, &format!("host{n}"));
        caller.send(node.sip, &invite);
        if host == "known.example" {
            let arrived = callee.request("INVITE");
            callee.answer(node.sip, &arrived, status, "");
        }
        let answer = caller.final_answer(node.sip, &invite);
        assert!(answer.starts_with(&format!("SIP/2.0 {status}")), "{answer}");
    }
    let uri = format!("sip:+49301@{}", callee.address());
    let invite = caller.opening("INVITE", &uri, "literal");
    caller.send(node.sip, &invite);
    let arrived = callee.request("INVITE");
    callee.answer(node.sip, &arrived, "486 Busy Here", "");
    caller.final_answer(node.sip, &invite);
    node.wait_idle();
    node.stop();
    let mut causes: Vec<_> = node
        .cdrs()
        .iter()
        .map(|cdr| cdr["cause_code"].as_i64())
        .collect();
    causes.sort_unstable();
    assert_eq!(causes, [Some(404), Some(486), Some(486)]);
}

#[test]
fn a_refer_and_its_notify_pass_and_make_an_event_beside_the_call() {
    let (caller, callee) = (Phone::at("127.0.0.2"), Phone::at("127.0.0.3"));
    let mut node = NodeProcess::start(callee.address(), NO_INTERIM);
    let call = caller.call(&callee, node.sip, "referring");
    let end = "Content-Length: 0";
    let refer = call.request("REFER", 2);
    let refer = refer.replace(
        end,
        &format!("Refer-To: <sip:+49302@home.example>\r\n{end}"),
    );
    caller.send(node.sip, &refer);
    let arrived = callee.request("REFER");
    assert!(
        arrived.contains("Refer-To: <sip:+49302@home.example>\r\n"),
        "{arrived}"
    );
    callee.answer(node.sip, &arrived, "202 Accepted", "");
    let answer = caller.final_answer(node.sip, &refer);
    assert!(answer.starts_with("SIP/2.0 202"), "{answer}");
    // The callee's NOTIFY, inside the dialog that the REFER came in.
    let of = |name| header(&arrived, name);
    let target = of("Contact").trim_matches(['<', '>']);
    let notify = format!(
        "NOTIFY {target} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKnotify\r\n\
         Max-Forwards: 70\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: 1 NOTIFY\r\n\
         Contact: <sip:callee@{own}>\r\nEvent: refer\r\nSubscription-State: active\r\n\
         {end}\r\n\r\n",
        of("To"),
        of("From"),
        of("Call-ID"),
        own = callee.address(),
    );
    callee.send(node.sip, &notify);
    let passed = caller.request("NOTIFY");
    assert!(passed.contains("Event: refer\r\n"), "{passed}");
    caller.answer(node.sip, &passed, "200 OK", "");
    let answer = callee.final_answer(node.sip, &notify);
    assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
    call.hang_up(&caller, &callee, node.sip);
    node.wait_idle();
    node.stop();
    let mut bills: Vec<_> = node.cdrs().iter().map(record_types).collect();
    bills.sort_unstable();
    assert_eq!(
        bills,
        ["EVENT", "START INTERIM STOP"],
        "a late offer, and the REFER"
    );
}
