//! Faults of real processes, small: the full measure is `cargo run --release -p bench --bin faults`.

use std::process::{Command, Output};

fn faults(more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_faults"))
        .args(["--rate", "40", "--hold-ms", "2000", "--interim", "1"])
        .args(["--away-ms", "2000"])
        .args(more)
        .output()
        .expect("the program starts")
}

fn said(output: &Output) -> String {
    let all = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&all).into_owned()
}

fn is_skipped(output: &Output) -> bool {
    let said = said(output);
    let skipped = said.lines().find(|line| line.starts_with("SKIPPED"));
    skipped.inspect(|line| eprintln!("{line}")).is_some()
}

fn survives(blows: &[&str]) {
    let output = faults(blows);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    if !is_skipped(&output) {
        let text = said(&output);
        let verdicts = text.lines().filter(|line| line.starts_with("VERDICT"));
        assert_eq!(verdicts.count(), blows.len(), "{text}");
    }
}

// One cluster after the other: three at once are more than two cores play in time.
#[test]
fn a_node_that_loses_its_memory_or_stands_still_costs_no_call() {
    survives(&["power-off", "stop"]);
    a_record_that_is_missing_makes_the_verdict_fail();
}

fn a_record_that_is_missing_makes_the_verdict_fail() {
    let output = faults(&["stop", "--lose-record"]);
    if !is_skipped(&output) {
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    }
}
