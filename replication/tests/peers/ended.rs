//! Calls that have ended: whoever may still go on with them has to learn it.

use replication::{Map, Mode, Ring, Standing, Version};

use crate::{MS, Member, Node, World};

/// So much new traffic at a node that tombstones come to the end of its young ring.
fn lap(world: &mut World, at: u16) {
    let past = |world: &World| {
        let counters = world.nodes[usize::from(at)].ring.counters();
        counters.tombstones_dropped + counters.tombstones_kept
    };
    let before = past(world);
    for _ in 0..600 {
        let id = world.new_call(at, 900, Mode::Async);
        world.run(MS / 10);
        world.nodes[usize::from(at)].ring.retire(id).expect("live");
        world.commit(at, id, Mode::Async);
    }
    assert!(past(world) > before);
}

// Node 1 took the calls of node 0 over and ended one. Before the two have settled, and after
// tombstones have left the rings, node 0 is back with its memory.
#[test]
fn a_call_that_ended_elsewhere_does_not_rise_where_it_was_before_the_view_is_settled() {
    let mut world = World::new(3, 2, 11, 0);
    let id = world.new_call(0, 100, Mode::SemiSync);
    world.settle();
    world.nodes[0].up = false;
    world.members[0].standing = Standing::Dead;
    world.settled = Some(world.view);
    world.enter_view();
    let view = world.view;
    let heir = if world.nodes[1].ring.newest(id).is_some() {
        1
    } else {
        2
    };
    let ring = &mut world.nodes[usize::from(heir)].ring;
    ring.adopt(id, view, |_| {}).expect("held");
    world.commit(heir, id, Mode::SemiSync);
    world.run(10 * MS);
    world.nodes[usize::from(heir)]
        .ring
        .retire(id)
        .expect("live");
    world.commit(heir, id, Mode::Async);
    world.run(10 * MS);
    lap(&mut world, 1);
    lap(&mut world, 2);

    let config = world.nodes[0].config;
    let (young, old) = world.nodes[0].ring.image();
    let (young, old) = (Map::heap_copy(&young), Map::heap_copy(&old));
    let (ring, _) = Ring::open(young, old, &config).expect("recovers");
    world.nodes[0] = Node::new(0, 2, 2, &[0, 1, 2], Some(ring));
    world.members[0] = Member {
        node: 0,
        incarnation: 2,
        standing: Standing::Joining,
    };
    world.enter_view();
    let view = world.view;
    for peer in [1, 2] {
        world.nodes[0].replicator.request_sync(peer, view);
    }
    world.settle();
    assert_eq!(world.synced.len(), 2, "it is filled");
    let held = world.nodes[0].ring.newest(id);
    assert!(
        held.is_none(),
        "it is to go on with {:?}",
        held.map(|held| held.meta)
    );
}

// The place of a call is behind, so that the answer to the BYE left for the copy at another node,
// which would forget a tombstone long before the place has it. Then the owner is lost.
#[test]
fn a_place_that_is_behind_does_not_go_on_with_a_call_whose_end_another_node_knew() {
    let mut world = World::new(3, 2, 12, 0);
    world.settle();
    let mut id = world.new_call(0, 100, Mode::SemiSync);
    world.settle();
    while world.nodes[1].ring.newest(id).is_none() {
        id = world.new_call(0, 100, Mode::SemiSync);
        world.settle();
    }
    // Its records from node 0 are late, its heartbeats are not.
    world.cut.extend([(0, 1), (1, 0)]);
    world.nodes[0]
        .ring
        .update(id, |bytes| bytes.fill(9))
        .expect("live");
    let ended: Version = world.commit(0, id, Mode::SemiSync);
    world.run(50 * MS);
    assert!(
        world.released[&0].contains(&(id, ended)),
        "the BYE is answered"
    );
    world.nodes[0].ring.retire(id).expect("live");
    world.commit(0, id, Mode::Async);
    world.run(50 * MS);
    lap(&mut world, 2);

    world.nodes[0].up = false;
    world.members[0].standing = Standing::Dead;
    world.enter_view();
    let view = world.view;
    world.nodes[1].replicator.request_orphans(2, view);
    world.settle();
    let held = world.nodes[1].ring.newest(id);
    let version = held.map(|held| held.meta.version);
    assert!(
        version.is_none_or(|version| version >= ended),
        "{version:?} is taken over"
    );
}
