//! Wall clocks that step, or are wrong from the start, while calls with session timers are up. What
//! a node has to do in time it does by its steady clock, and what another one wrote of that it
//! believes within bounds: no healthy call ends, no refresh and no interim record is left out.

use charging::state::RecordType;
use replication::Mode;
use tests::sim::{Clock, Cluster, Misfortune, Setup, World};
use tests::ua::Plan;

// Thirty calls of 200 s with intervals of 90 s, which RFC 4028 has give up after 60. The callers
// refresh, and the node refreshes the callees.
fn play(what: &[(u64, Misfortune)]) -> World {
    let mut world = World::new(Setup {
        config: "session_expires_s = 90\n".to_owned(),
        interim_s: Some(10),
        cluster: Some(Cluster {
            nodes: 3,
            witness: false,
            copies: 2,
            mode: Mode::SemiSync,
            scatter: 0,
            loss: 0,
            upgrade: false,
        }),
        ..Setup::default()
    });
    for n in 0..CALLS {
        let caller = Plan {
            session_s: 90,
            calls_at: Some(3_000 + 60 * n),
            bye_after: Some(TALK_MS),
            ..Plan::default()
        };
        let callee = Plan {
            session_s: 90,
            node_refreshes: true,
            answer: Some((100, 200)),
            ..Plan::default()
        };
        world.add_call(caller, callee);
    }
    for (at, what) in what {
        world.befall(*at, *what);
    }
    world.run_until(260_000);
    world.heal_and_drain();
    world
}

// What of the calls is not as if all clocks had been right. `interims`: how many each has.
fn wrongs(mut world: World, interims: std::ops::RangeInclusive<usize>) -> Vec<String> {
    let mut wrong = world.cluster_verdict();
    for caller in (0..2 * CALLS as usize).step_by(2) {
        let hung_up = world.phones[caller].ledger.bye_sent.is_some();
        let callee = &world.phones[caller + 1].ledger;
        if !hung_up || !callee.bye_reason.is_empty() {
            let (at, why) = (callee.bye_received, &callee.bye_reason);
            wrong.push(format!("call {caller} was ended at {at:?}: {why}"));
        }
        let refreshes = callee.received.iter();
        let refreshes = refreshes.filter(|method| *method == "UPDATE").count();
        // The caller's are passed on besides.
        if refreshes < 4 {
            wrong.push(format!("{refreshes} refreshes of call {caller}"));
        }
        let sessions = world.sessions_of(caller);
        let made = sessions.iter().map(|one| one.count(RecordType::Interim));
        let made: usize = made.sum();
        if !interims.contains(&made) {
            wrong.push(format!("{made} interims of call {caller}"));
        }
    }
    wrong
}

fn assert_well(what: &[(u64, Misfortune)], interims: std::ops::RangeInclusive<usize>) {
    let wrong = wrongs(play(what), interims);
    assert_eq!(wrong, [""; 0], "{what:?}");
}

#[test]
fn a_step_of_a_wall_clock_changes_no_call() {
    assert_well(&[], UNDISTURBED);
    for step in [30_000, -30_000, 60_000, -60_000, 3_600_000, -3_600_000] {
        let stepped = Misfortune::Clock(0, Clock::Stepped(step));
        let right = Misfortune::Clock(0, Clock::True);
        assert_well(&[(40_000, stepped), (60_000, right)], UNDISTURBED);
    }
}

#[test]
fn a_clock_that_stepped_does_not_end_what_its_node_adopts() {
    for step in [60_000, -60_000, 3_600_000, -3_600_000] {
        let stepped = Misfortune::Clock(0, Clock::Stepped(step));
        let lost = Misfortune::Loss(1, 2_000);
        assert_well(&[(30_000, stepped), (32_000, lost)], UNDISTURBED);
    }
}

// Its steady clock is as wrong as its wall clock was at the start: calls change hands from such a
// node to others, and from them to it.
#[test]
fn nodes_whose_clocks_differ_adopt_from_each_other() {
    for step in [30_000, -30_000, 60_000, -60_000, 3_600_000, -3_600_000] {
        let what = [
            (500, Misfortune::Clock(1, Clock::Stepped(step))),
            (1_000, Misfortune::Crash(1, 200)),
            (50_000, Misfortune::Loss(1, 2_000)),
            (100_000, Misfortune::Loss(0, 2_000)),
            (150_000, Misfortune::Loss(2, 2_000)),
        ];
        assert_well(&what, ADOPTED_THRICE);
    }
}

const CALLS: u64 = 30;
const TALK_MS: u64 = 200_000;
/// One each 8.5 to 10 s, and one for each refresh of the caller's.
const UNDISTURBED: std::ops::RangeInclusive<usize> = 23..=27;
/// Whoever adopts a call by another clock makes an interim too soon or too late by an interval.
const ADOPTED_THRICE: std::ops::RangeInclusive<usize> = 20..=30;
