//! A trunk that challenges: to its 401 sipp computes the digest itself and lets nobody in whose
//! answer is another.

use tests::process::{NodeProcess, free_udp, is_installed};

use super::sipp::{Expected, NO_INTERIM, at_200_a_second, run};

fn through(callee: &'static str) {
    let sipp = at_200_a_second(("basic_uac", callee), 200);
    let secret = "username = \"trunk-4711\"\npassword = \"s3cret, really\"\n";
    run(
        &sipp,
        &format!("{secret}{NO_INTERIM}"),
        &Expected {
            types: "START STOP",
            cause: 0,
            kind: "session",
        },
    );
}

#[test]
fn sipp_accepts_the_answer_to_its_401_and_the_call_is_billed_once() {
    through("trunk_401_uas");
}

#[test]
fn sipp_sees_an_answer_to_its_407_and_the_call_is_billed_once() {
    through("trunk_407_uas");
}

// The counterpart: sipp does compute, and refuses another password.
#[test]
fn sipp_refuses_another_password() {
    if !is_installed("sipp") {
        return;
    }
    let sipp = at_200_a_second(("basic_uac", "trunk_401_uas"), 1);
    let callee = free_udp();
    let secret = "username = \"trunk-4711\"\npassword = \"another\"\n";
    let mut node = NodeProcess::start(callee, &format!("{secret}{NO_INTERIM}"));
    let log = |name: &str| node.dir.path().join(name);
    let _callee = sipp.callee(callee, &log("callee.log"));
    let mut caller = sipp.caller_with(&node, &log("caller.log"), &[]);
    let status = caller.wait(sipp.limit).expect("sipp ends with its call");
    assert!(!status.success(), "the call fails");
    node.wait_idle();
    node.stop();
    let cdrs = node.cdrs();
    assert_eq!(cdrs.len(), 1);
    assert_eq!(cdrs[0]["cause_code"], 403, "{}", cdrs[0]);
}
