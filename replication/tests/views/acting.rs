//! The right to act, and who hears whom (V2, V3).

use replication::replicator::Standing;
use replication::view::{Adoption, Durable, StartFault, View, ViewMessage, Views};

use crate::world::{Disk, MS, World, config};

#[test]
fn three_nodes_that_hear_each_other_act_under_the_first_view() {
    let mut world = World::new(3, 0, 1);
    world.run(2000);
    assert!(world.everybody_acts());
    assert_eq!(
        world.history.len(),
        1,
        "nothing has changed, so no view was needed"
    );
}

#[test]
fn an_isolated_node_stops_acting_before_anybody_may_adopt() {
    let mut world = World::new(3, 0, 3);
    world.run(1000);
    world.isolate(0);
    world.run(181 + 50);
    assert!(!world.may_act(0), "its lease is over");
    // `check` compares at every millisecond.
    world.run(1000);
    assert!(world.adoptions > 0);
    assert_eq!(world.standing(0, 0), Standing::Alive, "it cannot know yet");
    world.cut.clear();
    world.run(2000);
    assert!(world.everybody_acts(), "and it joins again");
    assert_eq!(world.nodes[0].views.incarnation(), 2);
}

#[test]
fn hearing_others_is_no_right_to_act() {
    let mut world = World::new(3, 0, 4);
    world.run(1000);
    // Node 0 hears everything; nobody hears node 0.
    world.cut.extend([(0, 1), (0, 2)]);
    world.run(190);
    assert!(!world.may_act(0), "long before any view says so");
    assert!(world.may_act(1) && world.may_act(2));
}

#[test]
fn a_partial_partition_costs_one_node_and_does_not_flap() {
    let mut world = World::new(3, 0, 5);
    world.run(1000);
    world.cut.extend([(0, 1), (1, 0)]);
    world.run(4000);
    let views = world.history.len();
    world.run(10_000);
    let alive = (0..3)
        .filter(|&node| world.standing(2, node) == Standing::Alive)
        .count();
    assert_eq!(alive, 2);
    assert_eq!(
        world.history.len(),
        views,
        "no view follows while nothing changes"
    );
    world.cut.clear();
    world.run(3000);
    assert!(world.everybody_acts());
}

#[test]
fn an_accepted_view_stops_acting_before_it_is_decided() {
    let mut world = World::new(3, 0, 6);
    world.run(1000);
    let (mut view, now) = (*world.nodes[0].views.view(), world.clock(0));
    view.number += 1;
    assert!(world.may_act(0));
    let node = &mut world.nodes[0];
    let accept = replication::register::RegisterMessage::Accept(
        replication::register::Ballot::new(100, 1),
        view,
    );
    node.views
        .handle(now, 1, &ViewMessage::Register(accept), &mut node.disk);
    assert!(!world.may_act(0), "its own acceptor knows of a newer view");
    // And so does everybody whose majority includes it.
    world.isolate(2);
    world.run(200);
    assert!(!world.may_act(1));
}

#[test]
fn a_vote_that_is_not_stored_is_not_given() {
    let mut world = World::new(3, 0, 7);
    world.run(1000);
    while world.nodes[0].views.poll_message().is_some() {}
    world.nodes[0].disk.fails = true;
    let now = world.clock(0);
    let node = &mut world.nodes[0];
    let prepare =
        replication::register::RegisterMessage::Prepare(replication::register::Ballot::new(100, 1));
    node.views
        .handle(now, 1, &ViewMessage::Register(prepare), &mut node.disk);
    assert_eq!(node.views.poll_message(), None);
    node.disk.fails = false;
    node.views
        .handle(now, 1, &ViewMessage::Register(prepare), &mut node.disk);
    assert!(node.views.poll_message().is_some());
    assert_eq!(
        node.disk.content.vote.promised.round(),
        100,
        "stored before the answer"
    );
}

#[test]
fn two_voters_are_refused_and_one_acts_alone() {
    let mut disk = Disk {
        content: Durable::bootstrap(),
        fails: false,
    };
    let two = Views::start(config(0, 2, 0), disk.content, true, MS, &mut disk);
    assert_eq!(two.map(|_| ()), Err(StartFault::TwoVoters));
    let none = Views::start(config(3, 3, 0), disk.content, true, MS, &mut disk);
    assert_eq!(none.map(|_| ()), Err(StartFault::Voters));
    let mut world = World::new(1, 0, 1);
    world.run(100);
    assert!(world.everybody_acts());
    for _ in 0..3 {
        world.restart(0, true);
        assert!(!world.may_act(0));
        world.run(2000);
        assert!(world.everybody_acts());
    }
}

#[test]
fn a_lone_minority_neither_acts_nor_decides() {
    let mut world = World::new(5, 0, 13);
    world.run(1000);
    world.nodes[2].up = false;
    world.nodes[3].up = false;
    world.nodes[4].up = false;
    world.run(10_000);
    assert!(!world.may_act(0) && !world.may_act(1));
    assert_eq!(world.history.len(), 1);
}

#[test]
fn a_node_that_hears_nobody_is_dead_though_everybody_hears_it() {
    let mut world = World::new(3, 0, 15);
    world.run(1000);
    world.cut.extend([(1, 0), (2, 0)]);
    world.run(800);
    assert_eq!(world.standing(1, 0), Standing::Dead, "its acks are missing");
    assert!(world.may_act(1) && world.may_act(2));
}

#[test]
fn a_healthy_node_that_suspects_first_is_not_taken_for_the_dead_one() {
    let mut world = World::new(3, 0, 16);
    world.run(1000);
    // Node 2 misses node 1 a little earlier than node 0, who prefers the lower numbers, does.
    world.cut.extend([(1, 2), (2, 1)]);
    world.run(100);
    world.nodes[1].up = false;
    world.run(2000);
    assert_eq!(world.standing(0, 1), Standing::Dead);
    let accused = |view: &View| view.nodes[2].standing != Standing::Alive;
    assert!(!world.history.values().any(accused));
}

#[test]
fn an_ack_of_what_was_never_sent_is_no_lease() {
    let mut world = World::new(3, 0, 28);
    world.run(1000);
    world.isolate(0);
    let now = world.clock(0);
    let accepted = world.nodes[0].views.view().number;
    // From a former life of this node, whose clock had run further.
    for (from, sent) in [(1, now + 1000 * MS), (2, now + 500 * MS)] {
        let node = &mut world.nodes[0];
        let ack = ViewMessage::Ack { sent, accepted };
        node.views.handle(now, from, &ack, &mut node.disk);
    }
    world.run(190);
    assert!(!world.may_act(0));
}

// Of five voters a view that drops node 4 is decided by three, and node 3, which missed ACCEPT, only
// reads of it. Enough of them have not acked node 4 for long, so node 0 may adopt from it at once.
// Then node 3 hears node 4 again. Its ack and an earlier one of node 2 would make a majority.
#[test]
fn who_has_only_read_of_a_view_confirms_no_lease_of_one_it_drops() {
    let ready = (0..100).filter(|&seed| plays_the_late_ack(seed)).count();
    assert!(
        ready >= 10,
        "only {ready} of the histories came to the point"
    );
}

fn plays_the_late_ack(seed: u64) -> bool {
    let mut world = World::new(5, 0, seed);
    world.run(1000);
    let first = world.nodes[0].views.view().number;
    for node in [0, 1, 3] {
        world.cut.extend([(4, node), (node, 4)]);
    }
    let deaf_at = 150 + seed % 50;
    for ms in 0..700 {
        if ms == deaf_at {
            world.cut.extend([(0, 3), (1, 3)]);
        }
        if world.nodes[0].views.view().number != first {
            break;
        }
        world.run(1);
    }
    world.cut.extend([(2, 4), (4, 2)]);
    world.cut.remove(&(0, 3));
    world.cut.remove(&(1, 3));
    let may_adopt = |world: &World| {
        let knows = world.nodes[3].views.view().number != first;
        knows && world.nodes[0].views.adoption(world.clock(0), 4) != Adoption::NotNow
    };
    for _ in 0..175 {
        if may_adopt(&world) {
            break;
        }
        world.run(1);
    }
    if !may_adopt(&world) {
        return false;
    }
    world.cut.remove(&(4, 3));
    world.cut.remove(&(3, 4));
    world.run(60); // `check` compares at every millisecond
    true
}
