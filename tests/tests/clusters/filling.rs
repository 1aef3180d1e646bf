//! A member that joins and is filled at leisure, as with a million calls: meanwhile nothing has fewer
//! copies than before.

use replication::Mode;
use tests::cluster_random::{Outcome, finish};
use tests::sim::{Cluster, Misfortune, Sabotage, Setup, World};
use tests::ua::Plan;

use crate::guarded;

// Node 0 comes back without its memory, when the others have settled without it. It takes six
// seconds to fill it; after two of them node 1 is lost.
fn filling(lost_at: u64, sabotage: Sabotage) -> World {
    let mut world = World::new(Setup {
        config: "session_expires_s = 0\nmax_call_duration_s = 120\n".to_owned(),
        interim_s: Some(5),
        sabotage,
        cluster: Some(Cluster {
            nodes: 3,
            witness: false,
            copies: 2,
            mode: Mode::SemiSync,
            scatter: 0,
            loss: 0,
            upgrade: false,
        }),
        sync_bytes_per_s: 10_000,
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
    world.befall(8_000, Misfortune::Loss(0, 10_000));
    world.befall(lost_at, Misfortune::Loss(1, 8_000));
    world
}

/// Plays it.
pub(crate) fn played_filling(lost_at: u64, sabotage: Sabotage) -> Outcome {
    guarded(|| finish(filling(lost_at, sabotage)))
}

#[test]
fn who_is_lost_while_another_is_filled_takes_no_call_along() {
    for lost_at in (18_000..28_000).step_by(1_000) {
        let played = played_filling(lost_at, Sabotage::None);
        assert_eq!(played.wrong, [""; 0], "{lost_at}");
        assert_eq!(played.calls, 40, "{lost_at}");
    }
}
