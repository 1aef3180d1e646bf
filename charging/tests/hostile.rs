//! Octets nobody should send: routers and CDFs count them and go on.

mod world;

use charging::random::SplitMix64;
use charging::server::MemoryCdfStore;
use world::{World, class};

/// Flips, cuts and repeats what a connection carries.
fn mutate(bytes: &mut Vec<u8>, random: &mut SplitMix64) {
    for _ in 0..random.between(1, 5) {
        if bytes.is_empty() {
            return;
        }
        let at = random.between(0, bytes.len() as u64 - 1) as usize;
        match random.between(0, 3) {
            0 => bytes[at] ^= 1 << random.between(0, 7),
            1 => bytes[at] = random.next_u32() as u8,
            2 => bytes.truncate(at),
            _ => {
                let copy = bytes[at..].to_vec();
                bytes.extend_from_slice(&copy[..copy.len().min(256)]);
            }
        }
    }
}

/// A CDF whose words arrive damaged; after the damage the link is renewed.
fn damaged(seed: u64) -> usize {
    let mut random = SplitMix64::new(seed);
    let mut world = World::new(1, class(), Some(30));
    for call in 0..6 {
        world.set_up(call);
        world.answer(call);
        let id = world.fars[0].connection;
        if let Some(id) = id {
            let mut noise: Vec<u8> = (0..random.between(0, 200))
                .map(|_| random.next_u32() as u8)
                .collect();
            noise.splice(0..0, [1, 0, 0, 60, 0x80, 0, 1, 15, 0, 0, 0, 3]);
            mutate(&mut noise, &mut random);
            let now = world.now.instant;
            world.fars[0].cdf.handle_bytes(now, id, &noise);
            if let Some(output) = world.fars[0].cdf.transmit(id) {
                mutate(output, &mut random);
                output.extend_from_slice(&noise);
            }
        }
        world.run();
        world.pass(random.between(0, 40_000));
    }
    world.set_down(0, true);
    world.pass(1_000);
    world.set_down(0, false);
    world.pass(200_000);
    for call in 0..6 {
        world.end(call);
    }
    world.pass(200_000);
    assert!(
        world.calls.is_empty() && world.backlog.is_empty(),
        "seed={seed}"
    );
    assert_eq!(
        world.fars[0].cdf.counters().record_conflicting,
        0,
        "seed={seed}"
    );
    sessions(world.fars[0].cdf.store())
}

fn sessions(store: &MemoryCdfStore) -> usize {
    store.sessions().count()
}

#[test]
fn damaged_streams_lose_no_record() {
    for seed in 0..60 {
        assert_eq!(damaged(seed), 6, "seed={seed}");
    }
}
