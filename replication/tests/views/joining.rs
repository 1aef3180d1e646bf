//! Coming back: with the memory, without it, without the disk (V8 to V10).

use replication::replicator::Standing;
use replication::view::Durable;

use crate::world::World;

#[test]
fn a_node_that_restarts_quickly_joins_without_having_been_dead() {
    let mut world = World::new(3, 0, 10);
    world.run(1000);
    world.nodes[1].up = false;
    world.run(30);
    world.restart(1, true);
    assert!(!world.may_act(1));
    world.run(2000);
    assert!(world.everybody_acts());
    let was_dead = world
        .history
        .values()
        .any(|view| view.nodes[1].standing == Standing::Dead);
    assert!(!was_dead);
    assert_eq!(world.adoptions, 0, "its calls are not adopted meanwhile");
}

#[test]
fn all_nodes_restarted_find_together_again() {
    let mut world = World::new(3, 0, 11);
    world.run(1000);
    for node in 0..3 {
        world.nodes[node].up = false;
    }
    world.run(500);
    for node in 0..3 {
        world.restart(node, true);
        world.nodes[node].syncs = false;
    }
    world.run(8000);
    let joins = |node| world.standing(node, node) == Standing::Joining && !world.may_act(node);
    assert!((0..3).all(joins), "nobody is filled");
    for node in 0..3 {
        world.nodes[node].syncs = true;
    }
    world.run(3000);
    assert!(world.everybody_acts());
}

#[test]
fn a_joining_node_is_not_alive_before_it_is_filled_under_that_view() {
    let mut world = World::new(3, 0, 18);
    world.run(1000);
    world.nodes[1].up = false;
    world.run(2000);
    world.restart(1, true);
    world.nodes[1].syncs = false;
    world.run(3000);
    assert_eq!(world.standing(0, 1), Standing::Joining);
    assert!(!world.may_act(1));
    let view = world.nodes[1].views.view().number;
    world.nodes[1].views.note_synced(0, view - 1);
    world.nodes[1].views.note_synced(2, view);
    world.run(500);
    assert_eq!(world.standing(0, 1), Standing::Joining);
    world.nodes[1].views.note_synced(0, view);
    world.run(500);
    assert_eq!(world.standing(0, 1), Standing::Alive);
}

#[test]
fn a_node_that_became_alive_acts_only_after_it_resumed_its_calls() {
    let mut world = World::new(3, 0, 19);
    world.run(1000);
    world.nodes[1].resumes = false;
    world.restart(1, true);
    world.run(2000);
    assert_eq!(world.standing(1, 1), Standing::Alive);
    assert!(world.nodes[1].views.must_resume() && !world.may_act(1));
    world.nodes[1].views.set_resumed();
    assert!(!world.nodes[1].views.must_resume() && world.may_act(1));
}

#[test]
fn when_not_all_come_back_the_rest_waits_before_it_goes_on_without() {
    let mut world = World::new(3, 0, 20);
    world.run(1000);
    for node in 0..3 {
        world.nodes[node].up = false;
    }
    world.run(500);
    world.restart(0, true);
    world.restart(1, true);
    world.run(5000);
    assert!(
        !world.may_act(0) && !world.may_act(1),
        "node 2 may know more"
    );
    world.run(6000);
    assert!(world.may_act(0) && world.may_act(1));
}

#[test]
fn a_node_that_lost_its_memory_is_gone_until_the_view_is_settled() {
    let mut world = World::new(3, 0, 21);
    world.run(1000);
    for node in &mut world.nodes {
        node.settles = false;
    }
    let promised = world.nodes[1].disk.content.vote.promised;
    world.nodes[1].up = false;
    world.run(1000);
    world.restart(1, false);
    world.run(2000);
    assert_eq!(world.standing(0, 1), Standing::Alive);
    assert_eq!(
        world.nodes[0].views.view().gone,
        0b010,
        "it came back empty"
    );
    assert!(
        world.nodes[1].disk.content.vote.promised >= promised,
        "but it remembers its vote"
    );
    for node in &mut world.nodes {
        node.settles = true;
    }
    world.run(1000);
    assert_eq!(world.nodes[0].views.view().gone, 0);
}

#[test]
fn a_node_that_lost_its_memory_waits_for_who_may_have_its_calls_before_it_resumes() {
    let mut world = World::new(3, 0, 25);
    world.run(1000);
    // The only copies of its calls may be on node 0, which is away, with its memory.
    (world.nodes[1].up, world.nodes[0].up) = (false, false);
    world.run(100);
    world.restart(1, false);
    world.run(3000);
    assert_eq!(world.standing(1, 1), Standing::Alive);
    assert!(!world.may_act(1), "it has resumed nothing");
    world.restart(0, true);
    world.run(2000);
    assert!(world.everybody_acts());
    assert_eq!(world.nodes[0].views.view().gone, 0);
}

#[test]
fn a_voter_that_lost_its_disk_neither_votes_nor_acts_before_it_has_read_its_vote_back() {
    let mut world = World::new(3, 0, 23);
    world.run(1000);
    // Nodes 0 and 1 decide without 2; then 1 loses its disk, and 0 is away.
    world.isolate(2);
    world.run(1500);
    let decided = *world.nodes[0].views.view();
    assert_eq!(decided.nodes[2].standing, Standing::Dead);
    world.cut.clear();
    world.nodes[0].up = false;
    world.nodes[1].disk.content = Durable::replacement(1_800_000_000);
    world.restart(1, false);
    world.run(10_000);
    assert!(
        !world.nodes[1].views.has_vote(),
        "node 0 may know what it accepted"
    );
    assert!(!world.may_act(1) && !world.may_act(2));
    assert_eq!(world.history.keys().max(), Some(&decided.number));
    // Node 0 is back: everybody has told, and 1 counts again.
    world.restart(0, true);
    world.run(10_000);
    assert!(world.nodes[1].views.has_vote() && world.everybody_acts());
    world.nodes[0].up = false;
    world.run(2000);
    assert!(
        world.may_act(1) && world.may_act(2),
        "1 and 2 are a majority"
    );
}

#[test]
fn a_voter_that_lost_its_disk_confirms_nobodys_lease() {
    let mut world = World::new(3, 0, 24);
    world.run(1000);
    world.nodes[1].up = false;
    world.nodes[1].disk.content = Durable::replacement(1_800_000_000);
    world.nodes[2].up = false;
    world.restart(1, false);
    world.run(3000);
    assert!(!world.may_act(0), "the only ack is one that proves nothing");
}

#[test]
fn a_disk_that_refuses_when_a_node_reads_that_it_is_dead_is_asked_again() {
    let mut world = World::new(3, 0, 7);
    world.run(1000);
    world.isolate(2);
    world.run(2000);
    world.nodes[2].disk.fails = true;
    world.cut.clear();
    world.run(1000);
    assert_eq!(world.standing(2, 2), Standing::Dead);
    assert_eq!(world.nodes[2].views.incarnation(), 1, "no other is stored");
    assert!(world.nodes[2].views.saves_failed() > 0);
    world.nodes[2].disk.fails = false;
    world.run(3000);
    assert_eq!(world.nodes[2].views.incarnation(), 2);
    assert!(world.everybody_acts());
}

#[test]
fn half_filled_memory_is_no_memory() {
    let mut world = World::new(3, 0, 22);
    world.run(1000);
    for node in &mut world.nodes {
        node.settles = false;
    }
    world.nodes[1].up = false;
    world.run(1000);
    world.restart(1, false);
    world.nodes[1].syncs = false;
    world.run(500);
    // It restarts before it was filled; its rings are there, but what they hold is not all.
    world.nodes[1].up = false;
    world.run(500);
    world.restart(1, true);
    world.run(500);
    assert_eq!(world.nodes[0].views.view().gone, 0b010);
    world.nodes[1].syncs = true;
    world.run(1000);
    assert_eq!(world.standing(0, 1), Standing::Alive);
    assert!(world.nodes[1].disk.content.kept, "from now on it is");
}
