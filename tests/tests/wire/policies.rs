//! What becomes of a call whose records cannot be delivered: each realtime policy, from the
//! configuration to the phones.

use std::time::Duration;

use tests::by_hand::{Established, Phone, header};
use tests::process::{CdfProcess, NodeProcess, free_tcp};

fn policy(name: &str, cdf: std::net::SocketAddr, more: &str) -> String {
    format!(
        "[charging.rf]\nrealtime = \"{name}\"\ncdf = [\"{cdf}\"]\nretry_interval_ms = 200\n\
         retries_max = 0\n{more}"
    )
}

fn is_bye(text: &str) -> bool {
    text.starts_with("BYE ")
}

/// Both phones are told that the call is over, and why.
fn assert_ended(caller: &Phone, callee: &Phone, node: &NodeProcess) {
    for phone in [caller, callee] {
        let bye = phone.receive(is_bye);
        assert!(header(&bye, "Reason").contains("SIP"), "{bye}");
        phone.answer(node.sip, &bye, "200 OK", "");
    }
}

#[test]
fn deliver_and_grant_ends_a_call_without_a_cdf() {
    let (caller, callee) = (Phone::at("127.0.0.2"), Phone::at("127.0.0.3"));
    let nobody = free_tcp();
    let more = policy("deliver-and-grant", nobody, "");
    let mut node = NodeProcess::start(callee.address(), &more);
    let _call = caller.call(&callee, node.sip, "unpaid");
    assert_ended(&caller, &callee, &node);
    assert_eq!(node.metrics()["ringtoll_call_ended_by_charging_total"], 1.0);
    node.wait_idle();
    // RFC 6733 8.2: the START is not stored under this policy, the STOP of PendingL always is.
    assert_eq!(node.metrics()["ringtoll_acr_lost_total"], 1.0);
    assert_eq!(node.metrics()["ringtoll_acr_stored_total"], 1.0);
    node.stop();
}

#[test]
fn deliver_and_grant_ends_a_call_whose_cdf_goes() {
    let (caller, callee) = (Phone::at("127.0.0.2"), Phone::at("127.0.0.3"));
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let mut cdf = CdfProcess::new(dir.path(), "cdf");
    cdf.start();
    let more = policy("deliver-and-grant", cdf.address, "");
    let mut node = NodeProcess::start(callee.address(), &more);
    node.wait_cdf();
    let call = caller.call(&callee, node.sip, "paid");
    wait_for(&node, "ringtoll_acr_acknowledged_total", 1.0);
    let quiet = caller.receive_within(Duration::from_millis(300), is_bye);
    assert!(quiet.is_none(), "a call that is paid goes on");
    cdf.kill();
    change(&call, &caller, &callee, &node, 2);
    assert_ended(&caller, &callee, &node);
    node.wait_idle();
    node.stop();
}

#[test]
fn grant_and_store_ends_what_cannot_be_stored_and_grant_and_lose_does_not() {
    for (name, goes_on) in [("grant-and-store", false), ("grant-and-lose", true)] {
        let (caller, callee) = (Phone::at("127.0.0.2"), Phone::at("127.0.0.3"));
        let dir = tempfile::tempdir().expect("there is room for temporary files");
        let mut cdf = CdfProcess::new(dir.path(), "cdf");
        cdf.start();
        let more = policy(name, cdf.address, "backlog_bytes_max = 2500\n");
        let mut node = NodeProcess::start(callee.address(), &more);
        node.wait_cdf();
        let ids = ["call0", "call1", "call2", "call3", "call4", "call5"];
        let calls = ids.map(|id| caller.call(&callee, node.sip, id));
        wait_for(&node, "ringtoll_acr_acknowledged_total", 6.0);
        cdf.kill();
        for call in &calls {
            change(call, &caller, &callee, &node, 2);
        }
        let bye = callee.receive_within(Duration::from_secs(1), is_bye);
        assert_eq!(bye.is_none(), goes_on, "{name}: {bye:?}");
        let metrics = node.metrics();
        let ended = metrics["ringtoll_call_ended_by_charging_total"];
        assert!(metrics["ringtoll_acr_stored_total"] > 0.0, "{metrics:?}");
        assert!(metrics["ringtoll_acr_lost_total"] > 0.0, "{metrics:?}");
        assert_eq!(ended == 0.0, goes_on, "{name}: {ended}");
        if goes_on {
            for call in &calls {
                call.hang_up(&caller, &callee, node.sip);
            }
            node.wait_idle();
        }
        node.kill();
    }
}

#[test]
fn a_backlog_above_high_water_lets_in_only_what_may_lose_its_records() {
    let (caller, callee) = (Phone::at("127.0.0.2"), Phone::at("127.0.0.3"));
    let classes = "[[charging.class]]\nname = \"lossy\"\nrealtime = \"grant-and-lose\"\n\
                   [[charging.class]]\nname = \"free\"\nenabled = false\n";
    let more = policy("grant-and-store", free_tcp(), "backlog_bytes_max = 4000\n");
    let route = |prefix: &str, class: &str| {
        let hop = callee.address();
        format!(
            "[[sip.route]]\nmatch = {{ prefix = \"{prefix}\" }}\nnext_hop = \"{hop}\"\n\
             charging_class = \"{class}\"\n"
        )
    };
    let routes = format!("{}{}", route("+4931", "lossy"), route("+4932", "free"));
    let usual = "[[sip.route]]\nmatch = \"*\"";
    let edit = |text: String| text.replace(usual, &format!("{routes}{usual}"));
    let mut node = NodeProcess::start_edited(callee.address(), &format!("{more}{classes}"), edit);
    let mut calls = Vec::new();
    loop {
        let id = format!("stored{}", calls.len());
        let Some(call) = caller.try_call(&callee, node.sip, &id) else {
            break;
        };
        calls.push(call);
        assert!(calls.len() < 20, "the backlog must fill");
    }
    let stored = node.metrics()["ringtoll_acr_stored_total"];
    for (n, user) in ["+49311", "+49312", "+49321"].iter().enumerate() {
        let id = format!("lost{n}");
        let call = caller.try_call_to(&callee, node.sip, (user, &id));
        calls.push(call.expect("its policy says that records may be lost"));
    }
    assert!(caller.try_call(&callee, node.sip, "refused").is_none());
    let metrics = node.metrics();
    let of = |name: &str| metrics[&format!("ringtoll_{name}_total")];
    // START, and INTERIM at the ACK, of the two that are charged.
    assert_eq!((of("acr_stored"), of("acr_lost")), (stored, 4.0));
    assert_eq!(of("call_ended_by_charging"), 0.0);
    for call in &calls {
        call.hang_up(&caller, &callee, node.sip);
    }
    node.wait_idle();
    node.kill();
}

/// A re-INVITE that the callee takes, which makes an INTERIM.
fn change(call: &Established, caller: &Phone, callee: &Phone, node: &NodeProcess, cseq: u32) {
    let invite = call.request("INVITE", cseq);
    caller.send(node.sip, &invite);
    let arrived = callee.request("INVITE");
    callee.answer(node.sip, &arrived, "200 OK", "");
    let answer = caller.final_answer(node.sip, &invite);
    assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
    caller.send(node.sip, &call.request("ACK", cseq));
}

fn wait_for(node: &NodeProcess, name: &str, value: f64) {
    let reached = tests::process::wait_until(Duration::from_secs(10), || {
        node.metrics().get(name).is_some_and(|now| *now >= value)
    });
    assert!(reached, "{name} must reach {value}: {:?}", node.metrics());
}
