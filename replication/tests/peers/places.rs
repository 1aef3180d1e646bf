//! Calls whose places move while acks are under way.

use replication::{CallId, Member, Mode, Standing, Version, takeover};

use crate::{MS, Node, World};

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

// Calls of node 0, whose copies are at node 1. Then node 2 is a joiner without its memory, in the
// view to be entered next.
fn calls_while_node_two_is_away(world: &mut World) -> Vec<CallId> {
    world.nodes[2].up = false;
    world.members[2].standing = Standing::Dead;
    world.enter_view();
    let ids = (0..60).map(|_| world.new_call(0, 100, Mode::Async));
    let ids = ids.collect();
    world.settle();
    world.nodes[2] = Node::new(2, 2, 2, &[0, 1, 2], None);
    world.members[2] = Member {
        node: 2,
        incarnation: 2,
        standing: Standing::Joining,
    };
    ids
}

// Node 2 was filled with everything. As long as it may hold what is not its, its copies hear the
// end of their calls: they could outlive the tombstones elsewhere.
#[test]
fn whoever_holds_more_than_its_share_learns_of_every_end() {
    let mut world = World::new(3, 2, 6, 0);
    let ids = calls_while_node_two_is_away(&mut world);
    world.enter_view();
    let fill = |world: &mut World| {
        let view = world.view;
        for giver in [0, 1] {
            world.nodes[2].replicator.request_sync(giver, view);
        }
        world.settle();
    };
    fill(&mut world);
    let holds = |world: &World, id: &CallId| world.nodes[2].ring.newest(*id).is_some();
    assert!(ids.iter().all(|id| holds(&world, id)));

    let end = |world: &mut World, ids: &[CallId]| {
        for &id in ids {
            world.nodes[0].ring.retire(id).expect("live");
            world.commit(0, id, Mode::Async);
        }
        world.settle();
    };
    end(&mut world, &ids[..20]);
    assert!(!ids[..20].iter().any(|id| holds(&world, id)));

    // The view is settled, and its share not asked for yet.
    let is_settled = true;
    let replicator = &mut world.nodes[0].replicator;
    replicator.set_settled_view(world.view, is_settled);
    end(&mut world, &ids[20..40]);
    assert!(!ids[20..40].iter().any(|id| holds(&world, id)));

    let view = world.view;
    world.nodes[2].replicator.request_share(0, view);
    world.settle();
    let (own, foreign): (Vec<CallId>, Vec<CallId>) =
        ids[40..].iter().partition(|id| holds(&world, id));
    assert!(!own.is_empty() && !foreign.is_empty());
    // Now it hears of its own only.
    end(&mut world, &ids[40..]);
    let knows = |id: &CallId| world.nodes[2].ring.newest_or_tombstone(*id).is_some();
    assert!(own.iter().all(knows) && !foreign.iter().any(knows));
}

// Node 2 is a member again, and cannot be filled yet.
#[test]
fn a_former_place_keeps_a_copy_until_the_new_one_has_it() {
    let mut world = World::new(3, 2, 7, 0);
    let ids = calls_while_node_two_is_away(&mut world);
    world.cut.extend([(0, 2), (2, 0)]);
    world.enter_view();
    world.run(2_000 * MS);
    let copies = |world: &World, id: &CallId| {
        let others = world.nodes[1..].iter();
        others
            .filter(|node| node.ring.newest(*id).is_some())
            .count()
    };
    let least = |world: &World| ids.iter().map(|id| copies(world, id)).min();
    assert_eq!(
        least(&world),
        Some(1),
        "no copy went before the next one came"
    );
    world.cut.clear();
    world.run(2_000 * MS);
    world.settle();
    let most = ids.iter().map(|id| copies(&world, id)).max();
    assert_eq!((least(&world), most), (Some(1), Some(1)), "then it goes");
}

// Node 1 has its share, which is nothing, and is to forget the rest once node 2 has its own.
#[test]
fn what_comes_between_the_two_ends_of_a_catch_up_stays() {
    let mut world = World::new(3, 2, 8, 0);
    world.settle();
    world.cut.extend([(0, 2), (2, 0)]);
    world.members[2].standing = Standing::Draining;
    world.enter_view();
    world.members[2].standing = Standing::Alive;
    world.enter_view();
    world.run(100 * MS);
    let ids: Vec<CallId> = (0..30)
        .map(|_| world.new_call(0, 100, Mode::Async))
        .collect();
    world.run(15 * MS);
    let held = |world: &World| {
        let is_held = |id: &&CallId| world.nodes[1].ring.newest(**id).is_some();
        ids.iter().filter(is_held).count()
    };
    let before = held(&world);
    assert!(before > 0);
    world.cut.clear();
    world.run(1_000 * MS);
    world.settle();
    assert_eq!(held(&world), before);
}

// Node 1 has what it is to hold too late, so that outputs left for the copies of node 2, of so many
// calls that no more of them can be remembered.
#[test]
fn a_scattered_copy_stays_until_the_place_of_the_call_has_one() {
    let mut world = World::new(3, 2, 7, 0);
    world.settle();
    world.looked_at = 1_024;
    world.cut.extend([(0, 1), (1, 0)]);
    let mut ids = Vec::new();
    let is_behind = |id: &CallId| takeover::is_among_first(*id, 1, 1, [1, 2].into_iter());
    for _ in 0..9 {
        for _ in 0..900 {
            let id = world.new_call(0, 20, Mode::SemiSync);
            if is_behind(&id) {
                ids.push(id);
            } else {
                world.nodes[0].ring.retire(id).expect("live");
                world.commit(0, id, Mode::Async);
            }
        }
        world.run(100 * MS);
        let released = |id: &CallId| world.released[&0].contains(&(*id, Version::first(1)));
        let copies = |id: &CallId| {
            let nodes = world.nodes.iter();
            nodes.filter(|node| node.ring.newest(*id).is_some()).count()
        };
        let alone = ids.iter().filter(|id| released(id) && copies(id) < 2);
        assert_eq!(alone.count(), 0, "of {} calls", ids.len());
        assert!(ids.len() > 3_000 || ids.iter().all(released));
    }
    world.cut.clear();
    world.settle();
    let released = |id: &CallId| world.released[&0].contains(&(*id, Version::first(1)));
    assert!(ids.iter().all(released), "the rest waited for node 1");
}

// Node 2 waits for node 1 to be filled before it is told what to forget. So many calls come and go
// meanwhile that they cannot all be marked, and it asks again: for what it should hold, not for the
// calls of node 1 that node 0 has copies of, of whose ends it would not hear.
#[test]
fn who_asks_for_its_share_again_is_not_given_copies_of_others_calls() {
    let mut world = World::new(3, 2, 9, 0);
    world.looked_at = 1_024;
    let ids: Vec<CallId> = (0..60)
        .map(|_| world.new_call(1, 100, Mode::Async))
        .collect();
    world.settle();
    let holds = |world: &World, id: &CallId| world.nodes[2].ring.newest(*id).is_some();
    let own = ids.iter().filter(|id| holds(&world, id)).count();
    world.cut.extend([(0, 1), (1, 0)]);
    let counters = |world: &World, to: u16| {
        let link = world.nodes[0].replicator.link(to).expect("a peer");
        *link.counters()
    };
    let come_and_go = |world: &mut World| {
        for _ in 0..20 {
            let id = world.new_call(0, 20, Mode::Async);
            world.nodes[0].ring.retire(id).expect("live");
            world.commit(0, id, Mode::Async);
        }
        world.run(MS);
    };
    while counters(&world, 1).queue_overflows == 0 {
        come_and_go(&mut world);
    }
    let view = world.view;
    world.nodes[2].replicator.request_share(0, view);
    for _ in 0..700 {
        come_and_go(&mut world);
    }
    world.cut.clear();
    let again = |world: &World| {
        let asked = world.nodes[2].replicator.link(0).expect("a peer");
        asked.counters().syncs_incomplete > 0
    };
    while !again(&world) {
        world.run(MS / 10);
    }
    let asked = world.nodes[2].replicator.link(0).expect("a peer");
    let before = asked.counters().syncs_completed;
    // Whatever else it asks for meanwhile.
    world.nodes[2].replicator.request_orphans(0, view);
    world.settle();
    let asked = world.nodes[2].replicator.link(0).expect("a peer");
    assert_eq!(
        asked.counters().syncs_completed,
        before + 2,
        "both were answered"
    );
    assert_eq!(ids.iter().filter(|id| holds(&world, id)).count(), own);
    for &id in &ids {
        world.nodes[1].ring.retire(id).expect("live");
        world.commit(1, id, Mode::Async);
    }
    world.settle();
    assert_eq!(ids.iter().filter(|id| holds(&world, id)).count(), 0);
}

// A loop that finds something due in every turn neither sleeps nor tidies its ring.
#[test]
fn nothing_is_due_while_a_peer_waits_for_its_share_behind_a_long_queue() {
    let mut world = World::new(3, 2, 10, 0);
    world.settle();
    // Node 1 is to be filled first.
    world.cut.extend([(0, 1), (1, 0)]);
    world.members[1].standing = Standing::Draining;
    world.enter_view();
    world.members[1].standing = Standing::Alive;
    world.enter_view();
    world.run(20 * MS);
    // Then node 2 takes nothing more for a while.
    world.cut.insert((0, 2));
    while world.nodes[0]
        .replicator
        .link(2)
        .expect("a peer")
        .lag_records()
        < 1_500
    {
        world.new_call(0, 20, Mode::Async);
    }
    world.run(10 * MS);
    world.cut.remove(&(0, 1));
    world.cut.remove(&(1, 0));
    world.run(100 * MS);
    world.cut.insert((2, 0));
    let node = &mut world.nodes[0];
    let mut buffer = vec![0; replication::frame::DATAGRAM_BYTES_MAX];
    while node
        .replicator
        .poll(world.now, &node.ring, &mut buffer)
        .is_some()
    {}
    assert!(
        node.replicator
            .deadline(world.now)
            .is_none_or(|at| at > world.now),
        "it is due at once, and there is nothing to do"
    );
}
