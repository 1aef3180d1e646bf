//! First boots, and those that are none because the disk was lost (V10).

use replication::replicator::Standing;
use replication::view::KMIN_FULL;

use crate::world::World;

#[test]
fn nodes_that_boot_first_together_form_a_cluster_in_which_nothing_is_missing() {
    for (voters, witnesses) in [(1, 0), (3, 0), (3, 0b100), (5, 0)] {
        let mut world = World::first_boot(voters, witnesses, 30);
        world.run(1500);
        assert!(world.everybody_acts(), "{voters} voters");
        let view = *world.nodes[0].views.view();
        assert_eq!(view.kmin, if voters == 1 { 1 } else { KMIN_FULL });
        assert!(world.history.values().all(|view| view.gone == 0));
        assert!(world.nodes.iter().all(|node| node.views.has_vote()));
        assert!(!world.nodes.iter().any(|node| node.views.ran_before()));
        assert!(world.nodes[0].disk.content.kept, "from now on");
    }
}

#[test]
fn whoever_boots_first_does_not_wait_for_one_that_never_was_there() {
    let mut world = World::first_boot(3, 0, 31);
    world.nodes[2].up = false;
    world.run(1500);
    assert!(world.may_act(0) && world.may_act(1));
    assert_eq!(world.nodes[0].views.view().gone, 0, "it held nothing");
    world.restart(2, false);
    world.nodes[2].views.set_first_boot();
    world.run(1500);
    assert!(world.everybody_acts());
    assert!(world.history.values().all(|view| view.gone == 0));
}

#[test]
fn one_that_lost_its_disk_and_is_said_to_boot_first_is_not_believed_to_have_memory() {
    let mut world = World::first_boot(3, 0, 32);
    world.run(1500);
    for node in &mut world.nodes {
        node.settles = false;
    }
    world.nodes[1].up = false;
    world.run(30);
    world.boot_first_again(1);
    world.run(1500);
    assert_eq!(world.standing(0, 1), Standing::Alive);
    assert_eq!(
        world.nodes[0].views.view().gone,
        0b010,
        "it came back empty"
    );
    assert!(world.nodes[1].views.ran_before());
}

#[test]
fn one_that_lost_its_disk_and_is_said_to_boot_first_reads_its_vote_back() {
    let mut world = World::first_boot(3, 0, 33);
    world.run(1500);
    // Nodes 0 and 1 decide without 2; then 1 loses its disk, and 0 is away.
    world.isolate(2);
    world.run(1500);
    let decided = *world.nodes[0].views.view();
    assert_eq!(decided.nodes[2].standing, Standing::Dead);
    world.cut.clear();
    world.nodes[0].up = false;
    world.boot_first_again(1);
    // The disk that is to note it refuses at first.
    world.run(20);
    world.nodes[1].disk.fails = true;
    world.run(1000);
    world.nodes[1].disk.fails = false;
    world.run(10_000);
    assert!(world.nodes[1].views.ran_before());
    assert!(!world.nodes[1].views.has_vote(), "node 0 may know more");
    assert!(
        world.nodes[1].disk.content.is_lost(),
        "a restart knows it too"
    );
    assert!(!world.may_act(1) && !world.may_act(2));
    assert_eq!(world.history.keys().max(), Some(&decided.number));
    world.restart(0, true);
    world.run(10_000);
    assert!(world.nodes[1].views.has_vote() && world.everybody_acts());
}
