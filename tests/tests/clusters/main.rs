//! Whole clusters in a simulated world: several nodes with several shards, their phones and
//! CDFs, in one thread and from one seed.
//!
//! A failing seed prints itself; `RINGTOLL_SEED=n cargo test -p tests --test clusters crash`
//! plays it again and `RINGTOLL_SEEDS=n` plays more of each scenario. The long run is
//! `RINGTOLL_SEEDS=300 cargo test --release -p tests --test clusters -- --nocapture`: 5,100
//! clusters, about 45 minutes on one core.

mod absence;
mod busy;
mod clocks;
mod counts;
mod filling;
mod full;
mod gifts;
mod losses;
mod passing;
mod plants;

use std::panic::{AssertUnwindSafe, catch_unwind};

use replication::Mode;
use tests::cluster_random::{
    Outcome, Scenario, play, play_alike, play_class, play_cut_off, play_parted, play_upgrade,
};
use tests::sim::Sabotage;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn played(seed: u64, scenario: Scenario, mode: Mode, sabotage: Sabotage) -> Outcome {
    guarded(|| play(seed, scenario, mode, sabotage))
}

fn guarded(play: impl FnOnce() -> Outcome) -> Outcome {
    let played = catch_unwind(AssertUnwindSafe(play));
    played.unwrap_or_else(|_| Outcome {
        wrong: vec!["a panic".to_owned()],
        ..Outcome::default()
    })
}

// No call and no record is lost, whatever befalls the nodes.
fn every_seed(scenario: Scenario) {
    let one = number("RINGTOLL_SEED");
    let seeds = number("RINGTOLL_SEEDS").unwrap_or(SEEDS);
    let (mut failed, mut calls, mut counted) = (Vec::new(), 0, 0);
    let (mut takeovers, mut left) = (Vec::new(), 0);
    for seed in one.map_or(1..=seeds, |seed| seed..=seed) {
        let outcome = played(seed, scenario, Mode::SemiSync, Sabotage::None);
        calls += outcome.calls;
        counted += outcome.counted;
        left += outcome.left;
        takeovers.extend(outcome.takeovers);
        if !outcome.wrong.is_empty() {
            println!("scenario={scenario:?} seed={seed}:");
            for what in &outcome.wrong {
                println!("  {}", what.replace("\r\n", " | "));
            }
            failed.push(seed);
        }
    }
    takeovers.sort_unstable();
    println!(
        "{scenario:?}: {calls} calls, {counted} records whose copies were counted, {} takeovers, \
         median {:?} ms, {left} nodes left in order",
        takeovers.len(),
        takeovers.get(takeovers.len() / 2)
    );
    assert!(scenario != Scenario::Leave || left > 0, "nobody left");
    assert!(failed.is_empty(), "{} failing: {failed:?}", failed.len());
}

macro_rules! scenarios {
    ($($name:ident: $scenario:ident,)*) => {
        $(#[test]
        fn $name() {
            every_seed(Scenario::$scenario);
        })*

        #[test]
        fn every_scenario_is_played() {
            assert_eq!([$(Scenario::$scenario),*], Scenario::ALL);
        }
    };
}

scenarios! {
    crash: Crash,
    loss: Loss,
    isolation: Isolation,
    one_way: OneWay,
    partial: Partial,
    pause: Pause,
    clocks: Clocks,
    cdf_trouble: CdfTrouble,
    restart_in_partition: RestartInPartition,
    rolling: Rolling,
    everything: Everything,
    overlap: Overlap,
    leave: Leave,
    disk_loss: DiskLoss,
    slow_peer: SlowPeer,
    cut_from_cdfs: CutFromCdfs,
    anything: Anything,
}

// What an upgrade does, and any planned end of a node: not even a call that is being set up
// fails, and nothing waits until a node is found dead.
#[test]
fn restarting_one_after_the_other_costs_no_call() {
    let mut moved = 0;
    for seed in 1..=UPGRADES {
        let (wrong, received) = play_upgrade(seed);
        assert!(wrong.is_empty(), "seed {seed}: {wrong:?}");
        moved += received;
    }
    println!("{moved} calls changed hands in {UPGRADES} upgrades");
    assert!(moved > UPGRADES);
}

#[test]
fn a_class_says_whether_its_calls_wait_for_copies() {
    let (held, left) = play_class("async");
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(held, 0, "nothing of an async class waits");
    let (held, left) = play_class("semi-sync");
    assert!(left.is_empty(), "{left:?}");
    assert!(held >= 8, "the 200 to each INVITE waits");
}

// V14: who may not act sends a request on or lets it be repeated. A refusal would need a record.
#[test]
fn nodes_that_may_not_act_refuse_no_call() {
    let finals = play_parted(400);
    assert_eq!(finals.len(), 300);
    let refused: Vec<_> = finals.iter().filter(|codes| **codes != [200]).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

// What it could not send before it was dropped, for nobody had a copy, leaves when it is back,
// unless the others have settled without it.
#[test]
fn a_node_that_was_cut_off_answers_the_calls_it_alone_knows() {
    let finals = play_cut_off(250);
    assert_eq!(finals.len(), 300);
    let unanswered: Vec<_> = finals.iter().filter(|codes| **codes != [200]).collect();
    assert!(unanswered.is_empty(), "{unanswered:?}");
}

#[test]
fn the_same_seed_plays_the_same_cluster() {
    let trace = || play(3, Scenario::Everything, Mode::SemiSync, Sabotage::None).trace;
    assert_eq!(trace(), trace());
}

// Seeds of the long run that found something, once.
macro_rules! once_failed {
    ($($name:ident: $scenario:ident $seed:literal,)*) => {
        $(#[test]
        fn $name() {
            let played = guarded(|| play_alike($seed, Scenario::$scenario));
            assert_eq!(played.wrong, [""; 0]);
        })*
    };
}

once_failed! {
    a_copy_under_way_while_its_place_moves_is_dropped_there: Crash 129,
    one_that_fills_a_joiner_is_not_told_what_is_newer: Crash 240,
    a_resent_copy_does_not_outlive_its_call: Clocks 375,
    a_record_is_not_repeated_by_one_without_the_lease: Everything 161,
    nor_when_its_connection_moves: Everything 368,
    a_request_to_be_filled_that_is_late_brings_nothing: Pause 24,
}

/// Clusters played of each scenario in a normal run: 340 in all.
const SEEDS: u64 = 20;
/// Upgrades of whole clusters.
const UPGRADES: u64 = 12;
