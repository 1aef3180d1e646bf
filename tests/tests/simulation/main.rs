//! The node in a simulated world: random worlds from seeds, planted faults, named scenarios.
//!
//! A failing seed prints itself; `RINGTOLL_SEED=n` plays it again and `RINGTOLL_SEEDS=n` plays
//! more of them.

mod classes;
mod complaints;
mod dialogs;
mod field;
mod full;
mod hops;
mod probes;
mod requests;
mod route_sets;
mod scenarios;
mod taken_up;

use std::panic::{AssertUnwindSafe, catch_unwind};

use tests::random::{self, play};
use tests::sim::Sabotage;

#[test]
fn every_answered_call_is_billed_exactly_once_whatever_happens() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    if let Some(seed) = number("RINGTOLL_SEED") {
        let (wrong, _) = play(seed, Sabotage::None);
        assert!(wrong.is_empty(), "seed={seed}:\n{}", wrong.join("\n"));
        return;
    }
    let mut failed = Vec::new();
    for seed in 1..=number("RINGTOLL_SEEDS").unwrap_or(SEEDS) {
        let played = catch_unwind(AssertUnwindSafe(|| play(seed, Sabotage::None)));
        let wrong = match played {
            Ok((wrong, _)) => wrong,
            Err(_) => vec!["a panic".to_owned()],
        };
        if !wrong.is_empty() {
            println!("seed={seed}:\n  {}", wrong.join("\n  "));
            failed.push(seed);
        }
    }
    assert!(
        failed.is_empty(),
        "{} failing seeds, seed={failed:?}",
        failed.len()
    );
}

#[test]
fn the_same_seed_plays_the_same_world() {
    assert_eq!(play(7, Sabotage::None).1, play(7, Sabotage::None).1);
}

#[test]
fn a_planted_fault_is_found() {
    let planted = [
        Sabotage::LoseRecord,
        Sabotage::ForgeRecord,
        Sabotage::NoTimers,
        Sabotage::ForgetCommits,
        Sabotage::SecondFinal,
    ];
    for sabotage in planted {
        let found = (1..=random::SABOTAGED_SEEDS).any(|seed| {
            catch_unwind(AssertUnwindSafe(|| play(seed, sabotage)))
                .map_or(true, |(wrong, _)| !wrong.is_empty())
        });
        assert!(found, "{sabotage:?} was not noticed");
    }
}

/// Worlds played in a normal run.
const SEEDS: u64 = 200;
