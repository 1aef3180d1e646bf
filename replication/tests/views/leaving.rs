//! Leaving in order, and calls that change hands (V13).

use replication::replicator::Standing;

use crate::world::World;

fn draining(voters: u8, witnesses: u32, node: usize) -> World {
    let mut world = World::new(voters, witnesses, 14);
    world.run(1000);
    world.nodes[node].views.drain();
    world.run(500);
    assert_eq!(world.standing(0, node), Standing::Draining);
    world
}

#[test]
fn a_node_that_drains_acts_until_it_is_empty_and_is_not_missed() {
    let mut world = draining(3, 0, 1);
    world.run(5000);
    assert_eq!(
        world.standing(0, 1),
        Standing::Draining,
        "as long as it takes"
    );
    assert!(world.everybody_acts(), "its calls go on meanwhile");
    for counter in 0..50 {
        let id = replication::CallId::new(1, 0, 1, counter);
        let heir = world.nodes[1].views.heir(id).expect("others are alive");
        assert!(heir != 1 && world.nodes[usize::from(heir)].views.heir(id).is_none());
        assert!(!world.nodes[1].views.is_adopter(id));
    }
    world.nodes[1].views.set_drained();
    world.run(500);
    for node in 0..3 {
        let view = world.nodes[node].views.view();
        assert_eq!((view.nodes[1].standing, view.gone), (Standing::Dead, 0));
    }
    assert!(world.nodes[1].views.has_left());
    assert!(!world.may_act(1), "it has a lease, but is no member");
    world.run(5000);
    assert_eq!(world.nodes[1].views.incarnation(), 1, "it does not rise");
    world.nodes[1].up = false;
    world.run(1000);
    assert!(world.may_act(0) && world.may_act(2));
    world.restart(1, true);
    world.run(2000);
    assert!(world.everybody_acts());
    assert_eq!(world.standing(0, 1), Standing::Alive);
}

#[test]
fn a_node_that_drains_stays_until_the_copies_it_held_are_elsewhere() {
    let mut world = World::new(3, 0, 14);
    world.run(1000);
    world.nodes[0].settles = false;
    world.nodes[1].views.drain();
    world.run(500);
    world.nodes[1].views.set_drained();
    world.run(3000);
    assert_eq!(world.standing(0, 1), Standing::Draining);
    world.nodes[0].settles = true;
    world.run(500);
    assert_eq!(world.standing(0, 1), Standing::Dead);
}

#[test]
fn what_was_drained_under_a_former_view_is_not_drained() {
    let mut world = World::new(4, 0, 14);
    world.run(1000);
    world.nodes[0].settles = false;
    world.nodes[1].views.drain();
    world.run(500);
    world.nodes[1].views.set_drained();
    world.nodes[2].up = false;
    world.run(600);
    assert_eq!(world.standing(0, 2), Standing::Dead);
    world.nodes[0].settles = true;
    world.run(2000);
    assert_eq!(world.standing(0, 1), Standing::Draining);
    world.nodes[1].views.set_drained();
    world.run(1000);
    assert_eq!(world.standing(0, 1), Standing::Dead);
}

#[test]
fn a_draining_node_that_fails_is_gone_like_any_other() {
    let mut world = draining(3, 0, 1);
    world.nodes[1].up = false;
    world.nodes[0].settles = false;
    world.run(400);
    let view = world.nodes[0].views.view();
    assert_eq!((view.nodes[1].standing, view.gone), (Standing::Dead, 0b10));
    world.run(200);
    assert!(world.adoptions > 0);
    world.restart(1, true);
    world.run(1000);
    assert!(!world.nodes[1].views.has_left());
    assert_eq!(
        world.standing(0, 1),
        Standing::Alive,
        "a restart drains no more"
    );
}

#[test]
fn the_last_alive_node_does_not_drain_and_one_that_becomes_it_drains_no_more() {
    let mut world = World::new(3, 0b100, 14);
    world.run(1000);
    for node in 0..2 {
        world.nodes[node].views.drain();
    }
    world.run(1000);
    let draining = (0..2).filter(|&node| world.standing(2, node) == Standing::Draining);
    assert_eq!(draining.collect::<Vec<_>>(), [0]);
    assert_eq!(
        world.nodes[2].views.view().kmin,
        1,
        "writes have one copy now"
    );
    world.nodes[1].up = false;
    world.run(1000);
    assert_eq!(world.standing(2, 0), Standing::Alive);
    assert!(world.may_act(0));
    assert_eq!(
        world.forced, world.adoptions,
        "what node 1 wrote alone may be lost"
    );
}

#[test]
fn a_given_call_is_taken_over_only_while_its_giver_is_draining() {
    let mut world = draining(3, 0, 1);
    let may = |world: &World, giver| world.nodes[0].views.may_take_over(world.clock(0), giver);
    assert!(may(&world, 1));
    assert!(!may(&world, 2), "it is not leaving");
    assert!(
        !may(&world, 3) && !may(&world, u16::MAX),
        "there is no such node"
    );
    // Without a lease it may not either.
    world.isolate(0);
    world.run(200);
    assert!(!may(&world, 1));
    world.cut.clear();
    world.run(2000);
    assert!(may(&world, 1));
    world.nodes[1].up = false;
    world.run(1000);
    assert_eq!(world.standing(0, 1), Standing::Dead);
    assert!(
        world.may_act(0) && !may(&world, 1),
        "it is adopted or not at all"
    );
    world.restart(1, true);
    while world.standing(0, 1) != Standing::Joining {
        world.run(1);
    }
    assert!(!may(&world, 1), "it will resume what it gave");
}

#[test]
fn an_heir_is_lost_only_when_it_can_act_no_more() {
    let mut world = draining(3, 0, 1);
    let is_lost = |world: &World| world.nodes[1].views.is_lost(world.clock(1), 2);
    assert!(!is_lost(&world));
    world.nodes[1].syncs = false;
    world.nodes[2].up = false;
    world.run(1000);
    assert_eq!(world.standing(1, 2), Standing::Dead);
    assert!(!is_lost(&world), "somebody may know more");
    world.nodes[1].syncs = true;
    world.run(100);
    assert!(is_lost(&world));
}
