//! A node that is full: new calls are refused with 503 and Retry-After, those that stand go on.

use std::time::Duration;

use tests::by_hand::{Established, Phone, header};
use tests::process::NodeProcess;

use super::sipp::NO_INTERIM;

fn assert_refused(caller: &Phone, node: &NodeProcess, id: &str) {
    let invite = caller.invite(node.sip, "+49301", id);
    let answer = caller.final_answer(node.sip, &invite);
    assert!(answer.starts_with("SIP/2.0 503 "), "{answer}");
    let again_s: u32 = header(&answer, "Retry-After").parse().expect("seconds");
    assert!((1..=60).contains(&again_s), "{answer}");
}

/// A request inside the dialog goes through to the callee and back.
fn assert_goes_on(call: &Established, caller: &Phone, callee: &Phone, node: &NodeProcess) {
    let info = call.request("INFO", 2);
    caller.send(node.sip, &info);
    let arrived = callee.request("INFO");
    callee.answer(node.sip, &arrived, "200 OK", "");
    let answer = caller.final_answer(node.sip, &info);
    assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
}

#[test]
fn the_most_calls_are_not_exceeded_and_those_that_stand_go_on() {
    let (caller, callee) = (Phone::at("127.0.0.2"), Phone::at("127.0.0.3"));
    let mut node = NodeProcess::start_with(callee.address(), "calls_max = 3\n", NO_INTERIM);
    let calls = ["one", "two", "three"].map(|id| caller.call(&callee, node.sip, id));
    assert_refused(&caller, &node, "four");
    let message = caller.opening("MESSAGE", &format!("sip:+49301@{}", node.sip), "message");
    caller.send(node.sip, &message);
    let answer = caller.final_answer(node.sip, &message);
    assert!(answer.starts_with("SIP/2.0 503 "), "{answer}");
    assert_eq!(node.metrics()["ringtoll_sip_overload_refused_total"], 2.0);
    for call in &calls {
        assert_goes_on(call, &caller, &callee, &node);
        call.hang_up(&caller, &callee, node.sip);
    }
    node.wait_idle();
    let call = caller.call(&callee, node.sip, "five");
    call.hang_up(&caller, &callee, node.sip);
    node.wait_idle();
    node.stop();
    assert_eq!(node.cdrs().len(), 4);
}

#[test]
fn a_full_ring_takes_no_new_calls_and_keeps_those_it_has() {
    let (caller, callee) = (Phone::at("127.0.0.2"), Phone::at("127.0.0.3"));
    let small = |text: String| {
        let text = text.replace("ring_young_mib = 16", "ring_young_mib = 4");
        text.replace("ring_old_mib = 32", "ring_old_mib = 4")
    };
    let mut node = NodeProcess::start_edited(callee.address(), NO_INTERIM, small);
    let (mut calls, mut refused, mut tried) = (Vec::new(), 0, 0);
    // A state shrinks when its ACK and the answer to its START have come, so that the gate opens once
    // more: it is shut when nothing is under way any more.
    while refused < 3 {
        assert!(
            calls.len() < 8_000,
            "the ring must fill: {:?}",
            node.metrics()
        );
        tried += 1;
        match caller.try_call(&callee, node.sip, &format!("call{tried}")) {
            Some(call) => {
                calls.push(call);
                refused = 0;
            }
            None => {
                refused += 1;
                std::thread::sleep(Duration::from_millis(300));
            }
        }
    }
    assert_refused(&caller, &node, "too-many");
    let metrics = node.metrics();
    // Of a ring this small, six of the longest states are no small part.
    assert!(metrics["ringtoll_ring_fill_percent"] >= 65.0, "{metrics:?}");
    assert!(metrics["ringtoll_blob_refused_total"] <= 4.0, "{metrics:?}");
    let (first, last) = (&calls[0], &calls[calls.len() - 1]);
    assert_goes_on(first, &caller, &callee, &node);
    assert_goes_on(last, &caller, &callee, &node);
    for call in &calls {
        call.hang_up(&caller, &callee, node.sip);
    }
    node.wait_idle();
    let call = caller.call(&callee, node.sip, "room-again");
    call.hang_up(&caller, &callee, node.sip);
    node.wait_idle();
    node.stop();
    assert_eq!(node.cdrs().len(), calls.len() + 1);
}
