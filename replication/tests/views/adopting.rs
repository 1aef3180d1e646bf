//! Who may adopt, and what is missing meanwhile (V6, V7).

use replication::replicator::Standing;
use replication::view::Adoption;

use crate::world::World;

#[test]
fn a_crashed_node_is_dead_and_adoptable_within_half_a_second() {
    let mut world = World::new(3, 0, 2);
    world.run(1000);
    world.nodes[1].up = false;
    let mut waited = 0;
    while world.adoptions == 0 {
        world.run(1);
        waited += 1;
        assert!(waited < 500, "nobody adopts");
    }
    println!("adoptable after {waited} ms");
    assert_eq!(world.standing(0, 1), Standing::Dead);
}

#[test]
fn adoption_waits_for_the_sync_under_the_very_view() {
    let mut world = World::new(3, 0, 8);
    world.run(1000);
    world.nodes[0].syncs = false;
    world.nodes[2].syncs = false;
    world.nodes[1].up = false;
    world.run(2000);
    assert_eq!(world.adoptions, 0);
    let view = world.nodes[0].views.view().number;
    world.nodes[0].views.note_synced(2, view - 1);
    world.nodes[0].views.note_synced(2, view + 1);
    assert_eq!(
        world.nodes[0].views.adoption(world.clock(0), 1),
        Adoption::NotNow
    );
    world.nodes[0].views.note_synced(2, view);
    assert_eq!(
        world.nodes[0].views.adoption(world.clock(0), 1),
        Adoption::Ready
    );
    assert_eq!(
        world.nodes[0].views.adoption(world.clock(0), 2),
        Adoption::NotNow,
        "it lives"
    );
}

#[test]
fn adoption_waits_when_as_many_are_gone_as_there_are_copies() {
    let mut world = World::new(5, 0, 9);
    world.run(1000);
    for node in 0..5 {
        world.nodes[node].syncs = true;
    }
    // Two at once, k = 2: both copies of some call may be among them.
    (world.nodes[3].up, world.nodes[4].up) = (false, false);
    world.run(3000);
    assert_eq!(world.standing(0, 3), Standing::Dead);
    assert_eq!(world.adoptions, 0, "it waits for a missing one");
    world.run(4000);
    assert!(world.adoptions > 0, "and then goes on");
    assert_eq!(
        world.adoptions, world.forced,
        "which is beyond the promise, and says so"
    );
}

#[test]
fn while_a_member_is_missing_everybody_alive_wants_to_be_filled() {
    let mut world = World::new(3, 0, 17);
    world.run(1000);
    assert_eq!(world.nodes[0].views.sync_wanted(), 0);
    for node in &mut world.nodes {
        node.syncs = false;
    }
    world.nodes[1].up = false;
    world.run(1000);
    assert_eq!(world.nodes[0].views.sync_wanted(), 0b100);
    assert_eq!(world.nodes[2].views.sync_wanted(), 0b001);
    assert_eq!(
        world.nodes[0].views.view().gone,
        0b010,
        "and is not settled"
    );
}

#[test]
fn a_member_back_with_its_memory_lacks_what_was_written_meanwhile() {
    let mut world = World::new(3, 0b100, 23);
    world.run(1000);
    for node in &mut world.nodes {
        node.settles = false;
    }
    // Node 1 writes alone while node 0 is away.
    world.nodes[0].up = false;
    world.run(1000);
    assert_eq!(world.nodes[1].views.view().gone, 0b001);
    world.restart(0, true);
    while world.nodes[1].views.view().gone != 0 {
        world.run(1);
    }
    assert_eq!(world.nodes[1].views.view().kmin, 1);
    world.run(2000);
    assert_eq!(world.standing(0, 0), Standing::Alive);
    let before = world.adoptions;
    world.nodes[1].up = false;
    world.run(3000);
    assert_eq!(world.standing(0, 1), Standing::Dead);
    assert_eq!(
        world.adoptions, before,
        "nothing says that it has all copies"
    );
}

#[test]
fn a_view_that_settled_with_one_copy_says_so_until_there_are_two_again() {
    let mut world = World::new(3, 0b100, 24);
    world.run(1000);
    world.nodes[0].up = false;
    world.run(2000);
    let view = *world.nodes[1].views.view();
    assert_eq!((view.gone, view.kmin), (0, 1));
    // The one that wrote alone is lost; who comes back knows less.
    world.nodes[1].up = false;
    world.restart(0, true);
    world.adoptions = 0;
    world.run(12_000);
    assert!(world.may_act(0));
    assert!(world.adoptions > 0);
    assert_eq!(
        world.adoptions, world.forced,
        "it says that this is no promise"
    );
    world.restart(1, true);
    world.run(4000);
    assert_eq!(
        world.nodes[0].views.view().kmin,
        replication::view::KMIN_FULL
    );
}

#[test]
fn who_has_lost_the_lease_adopts_nothing() {
    let mut world = World::new(3, 0, 29);
    world.run(1000);
    for node in &mut world.nodes {
        node.settles = false;
    }
    world.nodes[1].up = false;
    world.run(1000);
    let adoption = |world: &World| world.nodes[0].views.adoption(world.clock(0), 1);
    assert_eq!(adoption(&world), Adoption::Ready);
    world.isolate(0);
    world.run(190);
    assert_eq!(adoption(&world), Adoption::NotNow);
}
