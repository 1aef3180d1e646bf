//! Calls that have ended: whoever may still go on with them has to learn it.

use replication::{CallId, Map, Mode, Ring, Standing, Version};

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

/// Node 1, the place of a call, is behind: nothing that node 0 sends arrives.
fn place_is_behind(seed: u64) -> (World, CallId) {
    let mut world = World::new(3, 2, seed, 0);
    world.looked_at = 1_024;
    world.settle();
    let id = loop {
        let id = world.new_call(0, 100, Mode::SemiSync);
        world.settle();
        if world.nodes[1].ring.newest(id).is_some() {
            break id;
        }
    };
    world.cut.extend([(0, 1), (1, 0)]);
    (world, id)
}

/// The answer to the BYE leaves for a copy at node 2, then the call has ended. Says under which
/// version it was answered.
fn end(world: &mut World, id: CallId) -> Version {
    let ring = &mut world.nodes[0].ring;
    ring.update(id, |bytes| bytes.fill(9)).expect("live");
    let ended = world.commit(0, id, Mode::SemiSync);
    world.run(50 * MS);
    assert!(
        world.released[&0].contains(&(id, ended)),
        "the BYE is answered"
    );
    world.nodes[0].ring.retire(id).expect("live");
    world.commit(0, id, Mode::Async);
    world.run(50 * MS);
    ended
}

/// The queue to node 1 runs over.
fn overflow(world: &mut World) {
    let others: Vec<CallId> = (0..20)
        .map(|_| world.new_call(0, 100, Mode::Async))
        .collect();
    let overflows = |world: &World| {
        let link = world.nodes[0].replicator.link(1).expect("a peer");
        link.counters().queue_overflows
    };
    let before = overflows(world);
    for round in 0.. {
        let other = others[round % others.len()];
        let ring = &mut world.nodes[0].ring;
        ring.update(other, |bytes| bytes.fill(round as u8))
            .expect("live");
        world.commit(0, other, Mode::Async);
        world.run(MS / 20);
        if overflows(world) > before {
            return;
        }
        assert!(round < 60_000, "it never does");
    }
}

/// The owner is lost, and node 1, its heir or not, hears what node 2 knows.
fn lose_the_owner(world: &mut World, id: CallId, ended: Version) {
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

// Its records from node 0 are late, its heartbeats are not. Node 2 would forget a tombstone long
// before node 1 has it.
#[test]
fn a_place_that_is_behind_does_not_go_on_with_a_call_whose_end_another_node_knew() {
    let (mut world, id) = place_is_behind(12);
    let ended = end(&mut world, id);
    lap(&mut world, 2);
    lose_the_owner(&mut world, id, ended);
}

// Meanwhile node 2 is told what its share is.
#[test]
fn a_copy_of_an_ended_call_stays_until_its_place_knows_of_the_end() {
    let (mut world, id) = place_is_behind(13);
    let ended = end(&mut world, id);
    let view = world.view;
    world.nodes[2].replicator.request_share(0, view);
    world.run(100 * MS);
    lose_the_owner(&mut world, id, ended);
}

#[test]
fn an_end_that_was_in_a_queue_that_ran_over_is_not_known() {
    let (mut world, id) = place_is_behind(14);
    let ended = end(&mut world, id);
    overflow(&mut world);
    world.run(50 * MS);
    lap(&mut world, 2);
    lose_the_owner(&mut world, id, ended);
}

// It waits for node 1, which has not got its own yet.
#[test]
fn whoever_waits_for_its_share_hears_of_an_end_after_the_place_of_the_call() {
    let (mut world, id) = place_is_behind(15);
    overflow(&mut world);
    let view = world.view;
    world.nodes[2].replicator.request_share(0, view);
    world.run(50 * MS);
    let ended = end(&mut world, id);
    lap(&mut world, 2);
    lose_the_owner(&mut world, id, ended);
}

// Once the place is there again, everything comes to rest.
#[test]
fn ends_that_a_place_missed_come_again_when_it_is_filled() {
    let (mut world, id) = place_is_behind(16);
    end(&mut world, id);
    overflow(&mut world);
    lap(&mut world, 0);
    let view = world.view;
    world.nodes[2].replicator.request_share(0, view);
    world.run(50 * MS);
    world.cut.clear();
    world.settle();
    for node in &world.nodes {
        assert!(node.ring.newest(id).is_none());
        node.ring.verify();
    }
    assert!(!world.nodes[2].replicator.is_asking());
}

#[test]
fn whoever_asks_for_its_share_gets_it_while_calls_keep_ending() {
    let mut world = World::new(3, 2, 17, 0);
    (world.looked_at, world.turn) = (1_024, 50_000);
    world.settle();
    let view = world.view;
    let mut ids: Vec<CallId> = (0..20)
        .map(|_| world.new_call(0, 20, Mode::Async))
        .collect();
    world.settle();
    world.nodes[2].replicator.request_share(0, view);
    for _ in 0..1_000 {
        for _ in 0..2 {
            ids.push(world.new_call(0, 20, Mode::Async));
            let id = ids.remove(0);
            world.nodes[0].ring.retire(id).expect("live");
            world.commit(0, id, Mode::Async);
        }
        world.run(MS / 20);
    }
    assert!(!world.nodes[2].replicator.is_asking());
    world.settle();
}
