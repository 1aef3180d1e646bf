//! The demonstration's verdict is worth something only if it can be bad.

use std::process::{Command, Output};

fn demo(more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_demo"))
        .args(["--rate", "100"])
        .args(more)
        .output()
        .expect("the demonstration starts")
}

fn said(output: &Output) -> String {
    let all = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn a_record_that_is_missing_from_the_store_makes_it_fail() {
    let output = demo(&["--calls", "60", "--hold-ms", "300", "--lose-record"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
}

#[test]
fn two_shards_hand_datagrams_over_and_every_call_is_recorded_once() {
    // Each shard is pinned: the first two cores must be ours.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        eprintln!("SKIPPED: two shards need two cores");
        return;
    }
    let output = demo(&[
        "--calls",
        "60",
        "--hold-ms",
        "300",
        "--shards",
        "2",
        "--json",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    // Behind what the node says about its CDF.
    let all = String::from_utf8_lossy(&output.stdout);
    let last = all.lines().last().unwrap_or_default();
    let value: serde_json::Value = serde_json::from_str(last).expect("one object");
    assert!(value["hand_over_us"]["count"].as_u64() > Some(0), "{value}");
}

#[test]
fn nodes_that_are_restarted_in_order_lose_nothing() {
    let output = demo(&["--roll", "--calls", "500", "--hold-ms", "2000", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let all = String::from_utf8_lossy(&output.stdout);
    let last = all.lines().last().unwrap_or_default();
    let value: serde_json::Value = serde_json::from_str(last).expect("one object");
    assert!(value["calls_moved"].as_u64() > Some(0), "{value}");
    assert_eq!(value["balance"]["cut_off"], 0, "{value}");
}
