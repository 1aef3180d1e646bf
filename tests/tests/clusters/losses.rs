//! What a node that goes takes with it: nothing in semi-sync mode, the changes under way in async.

use replication::Mode;
use tests::cluster_checks::Losses;
use tests::cluster_random::{BURST_MS, Scenario, finish, play_burst};
use tests::sim::Sabotage;

use crate::played;

// What a node that goes takes with it in each mode, and what that costs the bills. Nothing waits
// in async mode, so the changes of the last round trip may go, and no others.
fn losses(mode: Mode) -> (Losses, u64, u64) {
    let (mut losses, mut calls, mut wrong) = (Losses::default(), 0, 0);
    for scenario in [Scenario::Crash, Scenario::Loss] {
        for seed in 1..=LOSS_SEEDS {
            let outcome = played(seed, scenario, mode, Sabotage::None);
            losses += outcome.losses;
            calls += outcome.calls;
            let bills = outcome.wrong.iter();
            wrong += bills
                .filter(|what| what.starts_with("call of phone"))
                .count() as u64;
            let panics = outcome.wrong.iter().any(|what| what == "a panic");
            assert!(!panics, "{scenario:?} {seed} {mode:?}");
        }
    }
    println!("{mode:?}: {calls} calls, {wrong} with a wrong bill; {losses:?}");
    (losses, calls, wrong)
}

#[test]
fn async_mode_loses_the_changes_under_way_and_no_others() {
    let (lost, _, wrong) = losses(Mode::Async);
    assert!(
        lost.crashes >= 2 * LOSS_SEEDS && lost.owned > 0,
        "nodes went"
    );
    assert!(lost.oldest_ms <= UNDER_WAY_MS, "{lost:?}");
    assert!(
        wrong <= lost.behind,
        "only calls that were behind: {lost:?}"
    );
    let (_, _, wrong) = losses(Mode::SemiSync);
    assert_eq!(wrong, 0);
}

// The memory of a node goes at many moments of a burst, and with it what is under way: what nobody
// has then was written within the longest way to a peer.
#[test]
fn async_mode_loses_what_was_written_within_a_way() {
    let (mut all, mut rate) = (Losses::default(), 0);
    let (mut most, mut lone) = ((0, 0), (0, 0));
    for at in (0..MOMENTS).map(|n| BURST_MS + 301 + 5 * n) {
        let end = play_burst(at, Mode::Async);
        let (losses, written) = (end.losses, end.written_in_a_way);
        assert_eq!(losses.crashes, 1);
        assert!(losses.versions <= written, "{at}: {losses:?}, {written}");
        most = most.max((losses.versions, at));
        lone = lone.max((losses.unknown, at));
        rate = rate.max(end.rate);
        all += losses;
    }
    println!(
        "{MOMENTS} moments, up to {rate} versions/s: at most {} lost; {all:?}",
        most.0
    );
    assert!(most.0 > 0, "nothing was under way at any moment");
    // Only bills of calls that were behind suffer, but some do.
    let mut suffered = 0;
    for (_, at) in [most, lone] {
        let end = play_burst(at, Mode::Async);
        let losses = end.losses;
        let wrong = finish(end.world).wrong;
        let is_bill = |what: &&String| what.starts_with("call of phone");
        let bills = wrong.iter().filter(is_bill).count() as u64;
        println!("{bills} wrong bills: {losses:?}");
        assert!(bills <= losses.behind, "{wrong:?}");
        suffered += bills;
    }
    assert!(suffered > 0, "what the others lacked was of no use");
}

// The same end at the same moments of the same burst, where outputs wait.
#[test]
fn semi_sync_mode_loses_no_bill_in_the_same_burst() {
    for at in [400, 437, 500].map(|ms| BURST_MS + ms) {
        let wrong = finish(play_burst(at, Mode::SemiSync).world).wrong;
        assert_eq!(wrong, [""; 0]);
    }
}

/// Clusters played for the losses in each mode, of crashes and of losses of memory.
const LOSS_SEEDS: u64 = 6;
/// A round trip, and another one if the first datagram is lost.
const UNDER_WAY_MS: u64 = 100;
/// Moments at which a node goes in a burst.
const MOMENTS: u64 = 60;
