//! How long it takes until a version is sent again whose datagram was lost.

use super::*;

/// From node to node, and back again.
const WAY: u64 = MS;
const ROUND_TRIP: u64 = 2 * WAY;

/// Two nodes a millisecond apart that know their round trip.
fn world(seed: u64, mode: Mode) -> World {
    let mut world = World::new(2, 2, seed, 0);
    (world.way, world.only_loses) = (WAY, true);
    for _ in 0..50 {
        world.new_call(0, 60, mode);
        world.run(3 * MS);
    }
    world.settle();
    world
}

/// How much later than its way takes a version of each call came to node 1 whose first datagram,
/// at this time, was lost; sorted.
fn delays(world: &World, sent: &[(u64, CallId)]) -> Vec<u64> {
    let lost = sent.iter().filter(|(at, _)| world.lost.contains(at));
    let delay = |&(at, id): &(u64, CallId)| world.stored[&(1, id, Version::first(1))] - at - WAY;
    let mut delays: Vec<u64> = lost.map(delay).collect();
    delays.sort_unstable();
    delays
}

fn report(what: &str, delays: &[u64]) {
    let at = |percent: usize| delays[(delays.len() - 1) * percent / 100] as f64 / 1e6;
    println!(
        "{what}: {} lost, sent again after {:.2} ms (median), {:.2} (95 %), {:.2} (most)",
        delays.len(),
        at(50),
        at(95),
        at(100)
    );
}

// Later numbers that were acked tell of the loss.
#[test]
fn a_lost_version_that_others_follow_is_sent_again_after_two_round_trips() {
    for (mode, name) in [(Mode::SemiSync, "semi-sync"), (Mode::Async, "async")] {
        let mut world = world(1, mode);
        world.loss = 5;
        let mut sent = Vec::new();
        for _ in 0..4_000 {
            let id = world.new_call(0, 60, mode);
            sent.push((world.now, id));
            world.run(300_000);
            // The ring has not so much room.
            if let Some(&(_, former)) = sent.len().checked_sub(1_500).and_then(|n| sent.get(n)) {
                world.nodes[0].ring.retire(former).expect("live");
                world.commit(0, former, Mode::Async);
            }
        }
        world.loss = 0;
        world.settle();
        let delays = delays(&world, &sent);
        report(&format!("followed by others, {name}"), &delays);
        assert!(delays.len() > 100);
        assert!(delays[delays.len() / 2] <= 2 * ROUND_TRIP);
        assert!(delays[delays.len() * 95 / 100] <= 3 * ROUND_TRIP);
        // Lost again, and again told of by what follows.
        assert!(delays[delays.len() - 1] <= 6 * ROUND_TRIP);
    }
}

// Nothing tells of it: it is overdue.
#[test]
fn a_lost_version_that_nothing_follows_is_sent_again_when_it_is_overdue() {
    for (mode, name) in [(Mode::SemiSync, "semi-sync"), (Mode::Async, "async")] {
        let mut world = world(2, mode);
        let mut sent = Vec::new();
        for _ in 0..200 {
            // One that comes through: until an ack is that of a first sending, waits only grow.
            world.loss = 0;
            world.new_call(0, 60, mode);
            world.run(5 * MS);
            world.loss = 100;
            let id = world.new_call(0, 60, mode);
            sent.push((world.now, id));
            world.run(1);
            world.loss = 5;
            world.run(100 * MS);
        }
        world.loss = 0;
        world.settle();
        let delays = delays(&world, &sent);
        report(&format!("alone, {name}"), &delays);
        assert_eq!(delays.len(), sent.len());
        // Twice the time in which an ack comes, which may wait a millisecond for company.
        let patience = 2 * (ROUND_TRIP + MS) + MS;
        assert!(
            delays[0] > ROUND_TRIP,
            "none is sent again before an ack is due"
        );
        assert!(delays[delays.len() * 9 / 10] <= patience);
        // Lost twice more: each wait is four times the one before.
        assert!(delays[delays.len() - 1] <= (1 + 4 + 16) * patience);
    }
}
