//! A peer that holds another content under a version: a bug, or memory that was damaged. It costs
//! that version its copy, and nothing else.

use replication::{CallId, Kind, Meta, Mode, Version};

use crate::{MS, World};

fn damaged(world: &mut World, id: CallId) {
    let meta = Meta {
        id,
        version: Version::first(1),
        rseq: 0,
        owner: 0,
        shard: 0,
        schema: 1,
        kind: Kind::Put,
        flags: 0,
        written: 0,
    };
    world.nodes[1].ring.apply(meta, &[7; 100]).expect("room");
}

#[test]
fn a_version_that_is_held_with_other_content_is_not_acked_and_holds_up_no_other() {
    let mut world = World::new(2, 2, 1, 0);
    world.settle();
    let id = world.nodes[0].ring.next_id();
    damaged(&mut world, id);
    world.nodes[0].ring.put(id, 1, 1, &[8; 100]).expect("room");
    world.commit(0, id, Mode::SemiSync);
    let others: Vec<CallId> = (0..200)
        .map(|_| {
            world.run(MS);
            world.new_call(0, 300, Mode::SemiSync)
        })
        .collect();
    world.run(200 * MS);
    let is_released = |world: &World, id, ver| {
        let version = Version { epoch: 1, ver };
        world.released[&0].contains(&(id, version))
    };
    let waiting = others.iter().filter(|&&id| !is_released(&world, id, 1));
    assert_eq!(waiting.count(), 0, "outputs of other calls wait");
    assert!(!is_released(&world, id, 1), "its own has no copy");
    let link = world.nodes[1].replicator.link(0).expect("a peer");
    assert!(link.counters().entries_conflicting > 0, "and it is counted");

    // The next version is one that both can hold.
    world.nodes[0].ring.put(id, 1, 1, &[9; 100]).expect("room");
    world.commit(0, id, Mode::SemiSync);
    world.run(200 * MS);
    assert!(is_released(&world, id, 2));
    let held = world.nodes[1].ring.newest(id).expect("a copy");
    assert_eq!(held.payload, [9; 100]);
}
