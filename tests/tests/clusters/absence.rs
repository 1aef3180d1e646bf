//! A node that is away for longer than tombstones live: its calls have ended elsewhere meanwhile, and
//! nobody remembers that they were.

use replication::Mode;
use tests::cluster_random::{Outcome, SHAPES, finish};
use tests::sim::{Cluster, Misfortune, Sabotage, Setup, World};
use tests::ua::Plan;

use crate::guarded;

// A node comes back after a minute. The calls that were up when it went have ended, and as many
// records as the young rings hold have been written since.
fn away(
    (nodes, witness, copies): (u16, bool, u8),
    sabotage: Sabotage,
    more: &[(u64, Misfortune)],
) -> World {
    let mut world = World::new(Setup {
        config: "session_expires_s = 0\nmax_call_duration_s = 120\n".to_owned(),
        interim_s: Some(5),
        sabotage,
        young_bytes: 128 << 10,
        cluster: Some(Cluster {
            nodes,
            witness,
            copies,
            mode: Mode::SemiSync,
            scatter: 100,
            loss: 0,
            upgrade: false,
        }),
        ..Setup::default()
    });
    let up = (0..40).map(|n| (3_000 + 60 * n, 20_000));
    let later = (0..120).map(|n| (30_000 + 250 * n, 2_000));
    for (at, lasts) in up.chain(later) {
        let caller = Plan {
            calls_at: Some(at),
            bye_after: Some(lasts),
            ..Plan::default()
        };
        let callee = Plan {
            answer: Some((100, 200)),
            ..Plan::default()
        };
        world.add_call(caller, callee);
    }
    world.befall(9_000, Misfortune::Crash(0, 60_000));
    for &(at, what) in more {
        world.befall(at, what);
    }
    world.run_until(120_000);
    world
}

/// Plays it in one shape of a cluster.
pub(crate) fn played_away(shape: (u16, bool, u8), sabotage: Sabotage) -> Outcome {
    guarded(|| finish(away(shape, sabotage, &[])))
}

#[test]
fn calls_that_ended_while_their_node_was_away_do_not_rise_again() {
    for shape in SHAPES {
        let played = played_away(shape, Sabotage::None);
        assert_eq!(played.wrong, [""; 0], "{shape:?}");
        assert_eq!(played.calls, 160, "{shape:?}");
    }
}

// Node 0 has kept copies of calls of node 1, which ended long ago as well; and node 1 dies before it
// can say so.
#[test]
fn nor_do_those_of_a_node_that_dies_when_it_comes_back() {
    for shape in [(3, false, 2), (3, false, 3), (5, false, 3)] {
        for at in (68_700..69_700).step_by(200) {
            let dies = (at, Misfortune::Crash(1, 20_000));
            let played = guarded(|| finish(away(shape, Sabotage::None, &[dies])));
            assert_eq!(played.wrong, [""; 0], "{shape:?} {at}");
            assert_eq!(played.calls, 160, "{shape:?} {at}");
        }
    }
}
