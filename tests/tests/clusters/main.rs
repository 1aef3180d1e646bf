//! Whole clusters in a simulated world: several nodes with several shards, their phones and
//! CDFs, in one thread and from one seed.
//!
//! A failing seed prints itself; `RINGTOLL_SEED=n RINGTOLL_SCENARIO=Crash` plays it again and
//! `RINGTOLL_SEEDS=n` plays more of them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use replication::Mode;
use tests::cluster_random::{Outcome, Scenario, play};
use tests::sim::Sabotage;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn played(seed: u64, scenario: Scenario, mode: Mode, sabotage: Sabotage) -> Outcome {
    let played = catch_unwind(AssertUnwindSafe(|| play(seed, scenario, mode, sabotage)));
    played.unwrap_or_else(|_| Outcome {
        wrong: vec!["a panic".to_owned()],
        trace: 0,
        calls: 0,
        counted: 0,
        takeovers: Vec::new(),
    })
}

#[test]
fn no_call_and_no_record_is_lost_whatever_befalls_the_nodes() {
    let only = std::env::var("RINGTOLL_SCENARIO").ok();
    let one = number("RINGTOLL_SEED");
    let seeds = number("RINGTOLL_SEEDS").unwrap_or(SEEDS);
    let (mut failed, mut calls, mut counted) = (Vec::new(), 0, 0);
    let mut takeovers = Vec::new();
    for scenario in Scenario::ALL {
        if only
            .as_ref()
            .is_some_and(|only| *only != format!("{scenario:?}"))
        {
            continue;
        }
        for seed in one.map_or(1..=seeds, |seed| seed..=seed) {
            let outcome = played(seed, scenario, Mode::SemiSync, Sabotage::None);
            calls += outcome.calls;
            counted += outcome.counted;
            takeovers.extend(outcome.takeovers);
            if !outcome.wrong.is_empty() {
                println!("scenario={scenario:?} seed={seed}:");
                for what in &outcome.wrong {
                    println!("  {}", what.replace("\r\n", " | "));
                }
                failed.push((scenario, seed));
            }
        }
    }
    takeovers.sort_unstable();
    println!(
        "{calls} calls, {counted} records whose copies were counted, {} taken over, median {:?} ms",
        takeovers.len(),
        takeovers.get(takeovers.len() / 2)
    );
    assert!(failed.is_empty(), "{} failing: {failed:?}", failed.len());
}

#[test]
fn the_same_seed_plays_the_same_cluster() {
    let trace = || play(3, Scenario::Everything, Mode::SemiSync, Sabotage::None).trace;
    assert_eq!(trace(), trace());
}

/// Clusters played of each scenario in a normal run.
const SEEDS: u64 = 25;
