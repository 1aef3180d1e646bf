//! Random faults.

use crate::world::{MS, World};

/// Random faults, one after the other or on top of each other; ends healed.
fn faults(voters: u8, witnesses: u32, seed: u64, overlap: bool) -> World {
    let mut world = World::new(voters, witnesses, seed);
    world.loss = 5;
    world.run(1000);
    for _ in 0..12 {
        let at = world.draw.below(voters.into()) as u8;
        let other = (at + 1 + world.draw.below(u64::from(voters) - 1) as u8) % voters;
        match world.draw.below(7) {
            0 => world.nodes[usize::from(at)].up = false,
            1 => world.isolate(at),
            2 => world.cut.extend([(at, other), (other, at)]),
            3 => drop(world.cut.insert((at, other))),
            4 => world
                .cut
                .extend((0..voters).filter(|&o| o != at).map(|o| (at, o))),
            5 => world
                .cut
                .extend((0..voters).filter(|&o| o != at).map(|o| (o, at))),
            _ => {
                let pause = 100 + world.draw.below(2000);
                world.nodes[usize::from(at)].paused_until = world.now + pause * MS;
            }
        }
        let lasts = 50 + world.draw.below(2500);
        world.run(lasts);
        if overlap && world.draw.below(2) == 0 {
            continue;
        }
        heal(&mut world);
        let rests = world.draw.below(3000);
        world.run(rests);
    }
    heal(&mut world);
    world.run(10_000);
    world
}

fn heal(world: &mut World) {
    world.cut.clear();
    for node in 0..world.nodes.len() {
        if !world.nodes[node].up {
            world.restart(node, true);
        }
    }
}

#[test]
fn under_random_faults_nobody_adopts_from_one_who_acts_and_all_act_again_at_the_end() {
    let seeds = std::env::var("SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(24);
    let mut adoptions = 0;
    for seed in 0..seeds {
        for (voters, witnesses) in [(3, 0), (3, 0b100), (5, 0)] {
            let world = faults(voters, witnesses, seed, seed % 2 == 1);
            assert!(world.everybody_acts(), "seed={seed} voters={voters}");
            adoptions += world.adoptions;
        }
    }
    assert!(adoptions > 0);
}
