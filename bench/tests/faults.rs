//! Faults of real processes, small: the full measure is `cargo run --release -p bench --bin faults`.

use std::io::Write;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

// One cluster after the other: three at once are more than two cores play in time.
fn alone() -> MutexGuard<'static, ()> {
    static CLUSTER: Mutex<()> = Mutex::new(());
    CLUSTER.lock().unwrap_or_else(PoisonError::into_inner)
}

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
    // Past the harness' capture, so that nobody misses it.
    let mut out = std::io::stderr().lock();
    skipped
        .inspect(|line| writeln!(out, "{line}").expect("stderr takes text"))
        .is_some()
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

#[test]
fn a_node_that_loses_its_memory_or_stands_still_costs_no_call() {
    let _alone = alone();
    survives(&["power-off", "stop"]);
}

#[test]
fn a_node_that_is_cut_off_costs_no_call() {
    let _alone = alone();
    survives(&["partition", "partition-peers"]);
}

#[test]
fn a_record_that_is_missing_makes_the_verdict_fail() {
    let _alone = alone();
    let output = faults(&["stop", "--lose-record"]);
    if !is_skipped(&output) {
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    }
}
