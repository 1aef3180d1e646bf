//! sipp against a running node: for each scenario no failed call, and exactly the records of
//! the trigger table in the bundled CDF.

use std::time::Duration;

use tests::process::{NodeProcess, Sipp, free_udp, is_installed, record_types};

/// What every call of a run leaves in the CDF.
pub(super) struct Expected {
    pub(super) types: &'static str,
    pub(super) cause: i64,
    pub(super) kind: &'static str,
}

/// Runs a pair of scenarios through a node whose configuration ends with `more`.
pub(super) fn run(sipp: &Sipp<'_>, more: &str, expected: &Expected) {
    if !is_installed("sipp") {
        return;
    }
    let callee = free_udp();
    let mut node = NodeProcess::start(callee, more);
    let log = node.dir.path().join("callee.log");
    let _callee = sipp.callee(callee, &log);
    sipp.call(&node);
    node.wait_idle();
    node.stop();
    let cdrs = node.cdrs();
    assert_eq!(cdrs.len(), sipp.calls as usize, "one CDR for each call");
    for cdr in &cdrs {
        assert_eq!(record_types(cdr), expected.types, "{cdr}");
        assert_eq!(cdr["cause_code"], expected.cause, "{cdr}");
        assert_eq!(cdr["kind"], expected.kind, "{cdr}");
        assert_eq!(cdr["status"], "complete", "{cdr}");
        let calling = cdr["calling_party"].as_str().unwrap_or_default();
        assert!(
            calling.starts_with("sip:+4940"),
            "from P-Asserted-Identity: {cdr}"
        );
    }
}

/// No interim records by interval.
pub(super) const NO_INTERIM: &str = "[charging.rf]\nbundled_interim_interval_s = 0\n";

/// That many calls of a pair of scenarios.
pub(super) fn at_200_a_second(scenario: (&'static str, &'static str), calls: u32) -> Sipp<'static> {
    Sipp {
        scenario,
        calls,
        rate: 200,
        hold_ms: 500,
        limit: Duration::from_secs(90),
    }
}

#[test]
fn a_basic_call_makes_a_start_and_a_stop() {
    let sipp = at_200_a_second(("basic_uac", "basic_uas"), 1_000);
    run(
        &sipp,
        NO_INTERIM,
        &Expected {
            types: "START STOP",
            cause: 0,
            kind: "session",
        },
    );
}

#[test]
fn two_shards_switch_and_bill_like_one() {
    let sipp = at_200_a_second(("basic_uac", "basic_uas"), 600);
    run_on_cores(&sipp, NO_INTERIM, "START STOP", "[0, 1]");
}

fn run_on_cores(sipp: &Sipp<'_>, more: &str, types: &str, cores: &str) {
    if !is_installed("sipp") {
        return;
    }
    let callee = free_udp();
    let mut node = NodeProcess::start_on_cores(callee, more, cores);
    let log = node.dir.path().join("callee.log");
    let _callee = sipp.callee(callee, &log);
    sipp.call(&node);
    node.wait_idle();
    let metrics = node.metrics();
    assert!(
        metrics["ringtoll_sip_datagram_handed_over_total"] > 0.0,
        "datagrams are steered to any shard and handed over to the owner"
    );
    node.stop();
    let cdrs = node.cdrs();
    assert_eq!(cdrs.len(), sipp.calls as usize);
    assert!(cdrs.iter().all(|cdr| record_types(cdr) == types));
}

#[test]
fn a_re_invite_with_new_sdp_makes_an_interim() {
    let sipp = at_200_a_second(("reinvite_uac", "reinvite_uas"), 600);
    run(
        &sipp,
        NO_INTERIM,
        &Expected {
            types: "START INTERIM STOP",
            cause: 0,
            kind: "session",
        },
    );
}

#[test]
fn the_interval_of_the_cdf_makes_interims() {
    let sipp = Sipp {
        // Two intervals of 0.85 to 1 s fit in, a third does not, with 250 ms to spare.
        hold_ms: 2_270,
        ..at_200_a_second(("basic_uac", "basic_uas"), 200)
    };
    run(
        &sipp,
        "[charging.rf]\nbundled_interim_interval_s = 1\n",
        &Expected {
            types: "START INTERIM INTERIM STOP",
            cause: 0,
            kind: "session",
        },
    );
}

#[test]
fn a_cancelled_call_makes_one_event() {
    let sipp = at_200_a_second(("cancel_uac", "cancel_uas"), 600);
    run(
        &sipp,
        NO_INTERIM,
        &Expected {
            types: "EVENT",
            cause: 487,
            kind: "event",
        },
    );
}

#[test]
fn a_busy_callee_makes_one_event() {
    let sipp = at_200_a_second(("busy_uac", "busy_uas"), 600);
    run(
        &sipp,
        NO_INTERIM,
        &Expected {
            types: "EVENT",
            cause: 486,
            kind: "event",
        },
    );
}

#[test]
fn a_message_makes_one_event() {
    let sipp = at_200_a_second(("message_uac", "message_uas"), 600);
    run(
        &sipp,
        NO_INTERIM,
        &Expected {
            types: "EVENT",
            cause: -1,
            kind: "event",
        },
    );
}

#[test]
fn early_media_with_prack_is_one_session() {
    let sipp = at_200_a_second(("prack_uac", "prack_uas"), 600);
    run(
        &sipp,
        NO_INTERIM,
        &Expected {
            types: "START STOP",
            cause: 0,
            kind: "session",
        },
    );
}

#[test]
fn a_caller_who_moves_makes_an_interim_and_the_stop_waits_for_the_answer_to_the_bye() {
    let sipp = at_200_a_second(("location_uac", "location_uas"), 200);
    run(
        &sipp,
        "[charging.rf]\nbundled_interim_interval_s = 0\n[charging.rf.triggers]\n\
         interim_on_access_network_change = true\nstop_at_bye_answer = true\n",
        &Expected {
            types: "START INTERIM STOP",
            cause: 0,
            kind: "session",
        },
    );
}

// RFC 3515: the REFER is an event of its own beside the call; the NOTIFYs that answer it belong to
// it and make nothing.
#[test]
fn a_refer_with_its_notifies_makes_an_event_beside_the_call() {
    if !is_installed("sipp") {
        return;
    }
    let sipp = at_200_a_second(("refer_uac", "refer_uas"), 600);
    let callee = free_udp();
    let mut node = NodeProcess::start(callee, NO_INTERIM);
    let log = node.dir.path().join("callee.log");
    let _callee = sipp.callee(callee, &log);
    sipp.call(&node);
    node.wait_idle();
    node.stop();
    let cdrs = node.cdrs();
    let of = |kind: &str, types: &str, cause: i64| {
        let fits = cdrs.iter().filter(|cdr| {
            cdr["kind"] == kind
                && record_types(cdr) == types
                && cdr["cause_code"] == cause
                && cdr["status"] == "complete"
        });
        fits.count()
    };
    let calls = sipp.calls as usize;
    assert_eq!(of("session", "START STOP", 0), calls, "{}", cdrs[0]);
    assert_eq!(of("event", "EVENT", -202), calls, "{}", cdrs[0]);
    assert_eq!(cdrs.len(), 2 * calls);
}
