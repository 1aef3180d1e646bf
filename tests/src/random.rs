//! Worlds drawn from a seed.

use charging::server::Fault;
use dataplane::env::SplitMix64;

use crate::net::Net;
use crate::sim::{Misfortune, Sabotage, Setup, World};
use crate::ua::Plan;

/// Plays the world of a seed: what was wrong, and its trace.
#[must_use]
pub fn play(seed: u64, sabotage: Sabotage) -> (Vec<String>, u64) {
    let mut world = draw(seed, sabotage);
    world.run_until(HORIZON_MS);
    world.heal_and_drain();
    (world.verdict(), world.trace)
}

fn draw(seed: u64, sabotage: Sabotage) -> World {
    let mut rng = SplitMix64::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let setup = Setup {
        seed,
        shards: [1, 1, 2, 3][rng.below(4) as usize],
        net: if seed.is_multiple_of(5) {
            Net::PERFECT
        } else {
            Net::draw(&mut rng)
        },
        config: format!(
            "session_expires_s = {}\nring_timeout_s = 40\nmax_call_duration_s = {}\n",
            [0, 90, 1_800][rng.below(3) as usize],
            [60, 600][rng.below(2) as usize]
        ),
        cdfs: 1 + rng.below(2) as usize,
        interim_s: [None, Some(10), Some(30)][rng.below(3) as usize],
        sabotage,
        cluster: None,
        ..Setup::default()
    };
    let mut world = World::new(setup);
    for _ in 0..CALLS {
        let at = rng.below(HORIZON_MS / 3);
        if rng.below(8) == 0 {
            draw_message(&mut rng, &mut world, at);
        } else {
            draw_call(&mut rng, &mut world, at);
        }
    }
    if rng.below(2) == 0 {
        draw_trouble(&mut rng, &mut world);
    }
    if rng.below(3) == 0 {
        for _ in 0..=rng.below(3) {
            let at = rng.below(HORIZON_MS / 2);
            world.befall(at, Misfortune::Restart(50 + rng.below(3_000)));
        }
    }
    if sabotage == Sabotage::ForgetCommits {
        world.befall(20_000, Misfortune::Forget);
    }
    world
}

pub(crate) fn maybe(rng: &mut SplitMix64, one_of: u64, below: u64) -> Option<u64> {
    (rng.below(one_of) == 0).then(|| rng.below(below))
}

pub(crate) fn draw_message(rng: &mut SplitMix64, world: &mut World, at: u64) {
    let caller = Plan {
        calls_at: Some(at),
        method: "MESSAGE",
        ..Plan::default()
    };
    let code = [200, 200, 202, 404, 480][rng.below(5) as usize];
    let callee = Plan {
        answer: Some((rng.below(2_000), code)),
        dead: rng.below(6) == 0,
        ..Plan::default()
    };
    world.add_call(caller, callee);
}

pub(crate) fn draw_call(rng: &mut SplitMix64, world: &mut World, at: u64) {
    let session_s = [0, 0, 90, 120, 1_800][rng.below(5) as usize];
    let talk = [300, 5_000, 40_000, 90_000][rng.below(4) as usize];
    let callee_ends = rng.below(2) == 0;
    let both = rng.below(4) == 0;
    let caller = Plan {
        calls_at: Some(at),
        late_offer: rng.below(6) == 0,
        reliable: rng.below(3) == 0,
        session_s,
        lazy: rng.below(10) == 0,
        no_update: rng.below(3) == 0,
        cancel_after: maybe(rng, 5, 6_000).or(Some(60_000)),
        hasty_cancel: false,
        ack_after: maybe(rng, 6, 3_000).unwrap_or(0),
        no_ack: rng.below(30) == 0,
        bye_after: Some(if callee_ends && !both { 200_000 } else { talk }),
        inside: draw_inside(rng, talk),
        reinvite_after: rng.below(1_500),
        reinvite_status: [0, 0, 0, 488][rng.below(4) as usize],
        ..Plan::default()
    };
    let in_order = world.setup.net.loss + world.setup.net.jitter + world.setup.net.late == 0;
    let answers = rng.below(1 + 7_000);
    let mut rings = Vec::new();
    for _ in 0..rng.below(4) {
        rings.push((
            rng.below(answers + 1),
            [180, 180, 183, 181][rng.below(4) as usize],
        ));
    }
    rings.sort_unstable();
    let code = match rng.below(10) {
        0 => 486,
        1 => [404, 302, 603, 503, 480, 500][rng.below(6) as usize],
        _ => 200,
    };
    let callee = Plan {
        reliable: rng.below(2) == 0,
        session_s: [0, 1_800][rng.below(2) as usize],
        node_refreshes: rng.below(2) == 0,
        lazy: rng.below(10) == 0,
        min_se_s: [0, 0, 0, 200][rng.below(4) as usize],
        no_update: rng.below(3) == 0,
        dead: rng.below(25) == 0,
        rings,
        answer: (rng.below(12) != 0).then_some((answers, code)),
        ignores_cancel: rng.below(8) == 0,
        // Where datagrams can overtake each other the fork may win, which the phone cannot play.
        fork_after: maybe(rng, 6, 3_000).filter(|_| code == 200 && in_order),
        bye_after: Some(if callee_ends || both { talk } else { 210_000 }),
        inside: draw_inside(rng, talk),
        reinvite_after: rng.below(1_500),
        reinvite_status: [0, 0, 0, 488][rng.below(4) as usize],
        reinvite_ignored: rng.below(25) == 0,
        dies_at: maybe(rng, 40, HORIZON_MS / 2),
        ..Plan::default()
    };
    world.add_call(caller, callee);
}

fn draw_inside(rng: &mut SplitMix64, talk: u64) -> Vec<(u64, &'static str)> {
    let mut inside = Vec::new();
    for _ in 0..rng.below(4) {
        let method = ["INVITE", "UPDATE", "INFO"][rng.below(3) as usize];
        inside.push((rng.below(talk + 500), method));
    }
    inside
}

pub(crate) fn draw_trouble(rng: &mut SplitMix64, world: &mut World) {
    let cdfs = world.fars.len() as u64;
    for _ in 0..1 + rng.below(5) {
        let (far, at) = (rng.below(cdfs) as usize, rng.below(HORIZON_MS * 2 / 3));
        let until = at + rng.below(60_000);
        let (bad, good) = match rng.below(6) {
            0 => (Misfortune::CdfDown(far), Misfortune::CdfUp(far)),
            1 => (Misfortune::Cut(far), Misfortune::Cut(far)),
            2 => (Misfortune::Black(far), Misfortune::Clear(far)),
            3 => (
                Misfortune::Slow(far, rng.below(3_000)),
                Misfortune::Slow(far, 0),
            ),
            _ => {
                let fault = match rng.below(5) {
                    0 => Fault::Drop,
                    1 => Fault::Silent,
                    2 => Fault::Delay {
                        ms: rng.below(8_000),
                    },
                    3 => Fault::AnswerTwice,
                    _ => Fault::Refuse([3_002, 3_004, 4_002][rng.below(3) as usize]),
                };
                (
                    Misfortune::Fault(far, fault),
                    Misfortune::Fault(far, Fault::None),
                )
            }
        };
        world.befall(at, bad);
        world.befall(until, good);
    }
}

/// Calls and messages of a world.
const CALLS: usize = 24;
/// When the network and the CDFs become well again.
const HORIZON_MS: u64 = 240_000;
/// Worlds in which a planted fault has to be found.
pub const SABOTAGED_SEEDS: u64 = 12;
