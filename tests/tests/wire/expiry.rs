//! sipp lets a session timer run out. RFC 4028 allows no interval below 90 s, of which two thirds
//! pass in real time: the module's name makes this test begin before those it runs beside.

use std::time::Duration;

use tests::process::Sipp;

use super::sipp::{Expected, NO_INTERIM, at_200_a_second, run};

#[test]
fn a_session_that_nobody_refreshes_is_ended_and_billed_until_then() {
    // RFC 4028 allows no interval below 90 s: it runs out after 60.
    let sipp = Sipp {
        limit: Duration::from_secs(100),
        ..at_200_a_second(("timer_uac", "timer_uas"), 200)
    };
    run(
        &sipp,
        NO_INTERIM,
        &Expected {
            types: "START STOP",
            cause: 408,
            kind: "session",
        },
    );
}
