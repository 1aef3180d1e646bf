//! Calls whose places move while acks are under way.

use replication::{CallId, Mode, Standing, Version};

use crate::{MS, World};

// Node 1 has the copies while node 2 is no place. Its acks are late: meanwhile node 2 has become
// one, and what is its now node 1 will drop.
#[test]
fn a_late_ack_of_a_former_place_releases_nothing() {
    let mut world = World::new(3, 2, 5, 0);
    world.members[2].standing = Standing::Draining;
    world.enter_view();
    world.settle();
    let ids: Vec<CallId> = (0..30)
        .map(|_| world.new_call(0, 100, Mode::SemiSync))
        .collect();
    world.flush();
    for packet in std::mem::take(&mut world.flying) {
        world.deliver(packet.2, packet.3, packet.4);
    }
    world.flush();
    let late = std::mem::take(&mut world.flying);
    assert!(late.iter().any(|packet| (packet.2, packet.3) == (1, 0)));

    world.members[2].standing = Standing::Alive;
    world.view += 1;
    world.enter_at(0);
    for packet in late {
        world.deliver(packet.2, packet.3, packet.4);
    }
    let is_released = |world: &World, id: &CallId| {
        let released = world.released.get(&0);
        released.is_some_and(|all| all.contains(&(*id, Version::first(1))))
    };
    let early: Vec<CallId> = ids
        .iter()
        .copied()
        .filter(|id| is_released(&world, id))
        .collect();
    assert!(!early.is_empty() && early.len() < ids.len());

    world.enter_at(1);
    world.enter_at(2);
    world.run(100 * MS);
    world.settle();
    assert!(ids.iter().all(|id| is_released(&world, id)));
    let kept = |id: &CallId| world.nodes[1].ring.newest(*id).is_some();
    assert!(
        early.iter().all(kept),
        "what left early had its copy for good"
    );
    assert!(!ids.iter().all(kept), "some have moved");
}
