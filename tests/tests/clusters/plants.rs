//! The simulator can fail: bugs planted in the protocol are found, and without them the very same
//! histories are clean.
//!
//! | planted | how | found in | by |
//! |---|---|---|---|
//! | acks kept across a restart | `Plant::AcksKept` | `Crash`, seed 6 | S3 |
//! | BYE answered, record sent before copies | nothing waits | `Crash`, first seed | S3, S10 |
//! | adoption without the exact view's sync | everybody is taken to have filled it | `Overlap`, seed 8 | bills |
//! | lease by hearing | `Plant::LeaseByHearing` | `Overlap`, seed 2 | S1 |
//! | no fence | `Plant::NoFence` | `OneWay`, seed 2 | S12 |
//! | tombstone lost | a call is forgotten, not retired | `Crash`, first seed | L5 |
//! | timers armed on replicas | copies are resumed | `Crash`, first seed | S1 |
//! | pending record written after sending | commits are put off a turn | `Crash`, first seed | S3 |
//! | epoch not compared | `Plant::EpochNotCompared` | `Rolling`, seed 4 | S3 |
//! | vote forgotten | the disk is reset at a restart | directed: two majorities | view contents |
//! | `gone` ignored | `Plant::GoneIgnored` | directed: an old copy | S4 at the CDF |
//! | joiner acts before it synced | it is lent the lease | `Crash`, seed 4 | L5 |
//! | leftovers kept | `Plant::LeftoversKept` | directed: a long absence | conflicts at the CDF |
//! | copies forgotten before they are elsewhere | `Plant::ForgottenEarly` | directed: a slow catch-up | bills |
//!
//! Rules inside `replication` are left out by its feature `plant`, which only this package can ask
//! for: `cargo test --release -p tests --features plant --test clusters planted` plays all fourteen
//! in half a minute, and without the feature the seven that need none are played. The feature
//! must not be a dev-dependency's: `cargo test --workspace` would unify it into the product.

use replication::Mode;
#[cfg(feature = "plant")]
use replication::plant::Plant;
use tests::cluster_random::Scenario::{Crash as Crashes, Isolation, Overlap, Partial};
use tests::cluster_random::{Outcome, Scenario, finish};
use tests::sim::Misfortune::{Crash, CutLink, Join};
use tests::sim::{Cluster, Misfortune, Sabotage, Setup, World};
use tests::ua::Plan;

use self::History::{Directed, Random};
#[cfg(feature = "plant")]
use crate::absence::played_away;
#[cfg(feature = "plant")]
use crate::filling::played_filling;
use crate::{guarded, played};

/// What is played.
#[derive(Clone, Copy, Debug)]
enum History {
    /// Clusters drawn from seeds, in these scenarios.
    Random(&'static [Scenario]),
    /// Three nodes and two copies, to which this happens.
    Directed(&'static [(u64, Misfortune)]),
    /// A node of two, beside a witness, is away for long.
    #[cfg(feature = "plant")]
    Away,
    /// A node is lost while another one is filled.
    #[cfg(feature = "plant")]
    Filling,
}

// Plays until something is wrong by a check that says `by`; says what was played then. In which
// history that is, and what other checks find in those before it, moves with every change of timing.
fn search(
    history: History,
    sabotage: Sabotage,
    by: &str,
) -> Option<(String, Outcome, Vec<String>)> {
    let is_named = |found: &Outcome| found.wrong.iter().any(|what| what.contains(by));
    let scenarios = match history {
        History::Random(scenarios) => scenarios,
        #[cfg(feature = "plant")]
        History::Away => {
            let found = played_away((2, true, 2), sabotage);
            let clean = played_away((2, true, 2), Sabotage::None).wrong;
            return is_named(&found).then(|| ("away".to_owned(), found, clean));
        }
        #[cfg(feature = "plant")]
        History::Filling => {
            let found = played_filling(FILLING_MS, sabotage);
            let clean = played_filling(FILLING_MS, Sabotage::None).wrong;
            return is_named(&found).then(|| ("filling".to_owned(), found, clean));
        }
        History::Directed(happens) => {
            let found = guarded(|| finish(directed(happens, sabotage)));
            let clean = || guarded(|| finish(directed(happens, Sabotage::None))).wrong;
            return is_named(&found).then(|| ("directed".to_owned(), found, clean()));
        }
    };
    scenarios.iter().find_map(|&scenario| {
        (1..=SEEDS).find_map(|seed| {
            let found = played(seed, scenario, Mode::SemiSync, sabotage);
            let clean = || played(seed, scenario, Mode::SemiSync, Sabotage::None).wrong;
            is_named(&found).then(|| (format!("{scenario:?} {seed}"), found, clean()))
        })
    })
}

// Forty calls among three nodes with two copies, an interim record every 5 s.
fn directed(happens: &[(u64, Misfortune)], sabotage: Sabotage) -> World {
    let cluster = Cluster {
        nodes: 3,
        witness: false,
        copies: 2,
        mode: Mode::SemiSync,
        scatter: 0,
        loss: 0,
        upgrade: false,
    };
    let mut world = World::new(Setup {
        config: "session_expires_s = 0\nring_timeout_s = 40\nmax_call_duration_s = 120\n"
            .to_owned(),
        interim_s: Some(5),
        sabotage,
        cluster: Some(cluster),
        ..Setup::default()
    });
    for n in 0..40 {
        let caller = Plan {
            calls_at: Some(3_000 + 60 * n),
            bye_after: Some(40_000),
            ..Plan::default()
        };
        let callee = Plan {
            answer: Some((100, 200)),
            bye_after: Some(100_000),
            ..Plan::default()
        };
        world.add_call(caller, callee);
    }
    for (at, what) in happens {
        world.befall(*at, *what);
    }
    world
}

// The history finds it, by a check that says `by`, and without it nothing is wrong.
fn is_found(sabotage: Sabotage, history: History, by: &str) {
    let found = search(history, sabotage, by);
    let (place, outcome, clean) =
        found.unwrap_or_else(|| panic!("{sabotage:?} was not noticed by {by}"));
    println!("{sabotage:?}, {place}: {} wrong", outcome.wrong.len());
    for what in outcome.wrong.iter().take(6) {
        println!("   {}", what.replace("\r\n", " | "));
    }
    assert_eq!(clean, [""; 0], "{place} without it");
}

macro_rules! planted {
    ($($(#[$if:meta])? $name:ident: $sabotage:expr, $history:expr, $by:literal;)*) => {
        $($(#[$if])? #[test]
        fn $name() {
            is_found($sabotage, $history, $by);
        })*
    };
}

planted! {
    planted_bye_answered_before_its_copies: Sabotage::NoWait, Random(&[Crashes]), "S3";
    planted_adoption_without_sync: Sabotage::NoSync, Random(&[Overlap, Isolation, Partial]), "not START";
    planted_tombstone_lost: Sabotage::NoTombstone, Random(&[Crashes]), "L5";
    planted_record_sent_before_it_is_pending: Sabotage::SendFirst, Random(&[Crashes]), "S3";
    planted_timers_on_replicas: Sabotage::ReplicaTimers, Random(&[Crashes]), "S1";
    planted_vote_forgotten: Sabotage::VoteForgotten, Directed(VOTE), "two views";
    planted_joiner_acts: Sabotage::JoinerActs, Random(&[Crashes, Isolation, Overlap]), "L5";
    #[cfg(feature = "plant")]
    planted_acks_kept: Sabotage::Rule(Plant::AcksKept), Random(&[Scenario::Loss, Crashes]), "S3";
    #[cfg(feature = "plant")]
    planted_lease_by_hearing: Sabotage::Rule(Plant::LeaseByHearing), Random(&[Overlap]), "S1";
    #[cfg(feature = "plant")]
    planted_no_fence: Sabotage::Rule(Plant::NoFence), Random(&[Isolation, Scenario::OneWay]), "S12";
    #[cfg(feature = "plant")]
    planted_epoch_not_compared: Sabotage::Rule(Plant::EpochNotCompared), Random(&[Scenario::Rolling]), "S3";
    #[cfg(feature = "plant")]
    planted_gone_ignored: Sabotage::Rule(Plant::GoneIgnored), Directed(GONE), "conflicts";
    #[cfg(feature = "plant")]
    planted_leftovers_kept: Sabotage::Rule(Plant::LeftoversKept), History::Away, "conflicts";
    #[cfg(feature = "plant")]
    planted_forgotten_early: Sabotage::Rule(Plant::ForgottenEarly), History::Filling, "not START";
}

/// When the node is lost in `Filling`.
#[cfg(feature = "plant")]
const FILLING_MS: u64 = 20_500;
/// Clusters of a scenario in which a planted bug has to be found.
const SEEDS: u64 = 12;

// Node 2 is dropped by 0 and 1; then 0 is away, and 1, which has restarted, meets 2.
const VOTE: &[(u64, Misfortune)] = &[
    (10_000, CutLink(0, 2)),
    (10_000, CutLink(1, 2)),
    (10_000, CutLink(2, 0)),
    (10_000, CutLink(2, 1)),
    (13_000, Crash(0, 6_000)),
    (13_000, Crash(1, 100)),
    (13_000, Join),
];

// What waits for node 1 for 20 ms goes to 2 as well, which then holds it when it is old. The
// memory of 1 is lost and 0 restarts: only 0 has the newest, and is back within 5 s.
const GONE: &[(u64, Misfortune)] = &[
    (8_000, CutLink(0, 1)),
    (8_150, Join),
    (8_500, CutLink(0, 1)),
    (8_650, Join),
    (9_000, CutLink(0, 1)),
    (9_150, Join),
    (9_500, CutLink(0, 1)),
    (9_650, Join),
    (17_000, Misfortune::Loss(1, 100)),
    (17_050, Crash(0, 2_500)),
];

// The same without the plant: a node that waits for its calls makes nobody forget them.
#[test]
fn who_has_lost_its_memory_makes_nobody_forget() {
    let played = guarded(|| finish(directed(GONE, Sabotage::None)));
    assert_eq!(played.wrong, [""; 0]);
}
