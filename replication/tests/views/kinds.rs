//! Nodes of other kinds: witnesses, other versions (V11).

use replication::replicator::Standing;
use replication::view::Versions;

use crate::world::World;

#[test]
fn two_nodes_and_a_witness_survive_the_loss_of_one() {
    let mut world = World::new(3, 0b100, 12);
    world.nodes[2].syncs = false;
    world.run(1000);
    assert!(world.everybody_acts());
    world.nodes[0].up = false;
    world.run(700);
    assert!(world.may_act(1));
    assert!(world.adoptions > 0);
    assert_eq!(
        world.nodes[2].views.sync_wanted(),
        0,
        "a witness is never filled"
    );
}

#[test]
fn a_witness_votes_and_is_nobodys_place() {
    let mut world = World::new(3, 0b100, 25);
    world.run(1000);
    for counter in 0..50 {
        let id = replication::CallId::new(1, 0, 1, counter);
        let adopters = (0..3).filter(|&node| world.nodes[node].views.is_adopter(id));
        assert_eq!(adopters.count(), 1);
        assert!(!world.nodes[2].views.is_adopter(id));
    }
    for node in &mut world.nodes {
        node.settles = false;
    }
    world.nodes[2].up = false;
    world.run(1000);
    assert!(world.everybody_acts());
    assert_eq!(world.nodes[0].views.view().gone, 0, "it held nothing");
}

#[test]
fn a_cluster_is_upgraded_node_by_node_and_writes_anew_only_at_the_end() {
    let former = Versions {
        protocol: (1, 2),
        schema: (4, 5),
        schema_held: 5,
        shards: 0,
    };
    let present = Versions {
        protocol: (2, 3),
        schema: (5, 6),
        schema_held: 5,
        shards: 0,
    };
    let mut world = World::new(3, 0, 26);
    for node in &mut world.nodes {
        node.views.set_versions(former);
    }
    world.run(1000);
    for at in 0..3 {
        world.restart(at, true);
        world.nodes[at].views.set_versions(present);
        world.run(2000);
        assert!(world.everybody_acts(), "after {at}");
        let (schema, protocol) = if at < 2 { (5, 2) } else { (6, 3) };
        for node in &world.nodes {
            assert_eq!(node.views.schema(), schema, "after {at}");
        }
        assert_eq!(world.nodes[0].views.protocol(2), protocol);
    }
    // Now a record of the new schema is held, and the way back is closed.
    world.nodes[0].views.note_schema(6);
    world.restart(2, true);
    world.nodes[2].views.set_versions(former);
    world.run(3000);
    assert!(!world.may_act(2));
    assert_eq!(world.nodes[0].views.incompatible(), 0b100);
    assert!(world.nodes[0].views.heartbeats_incompatible() > 0);
    assert!(world.may_act(0) && world.may_act(1), "the others go on");
}

#[test]
fn the_last_node_of_a_former_version_may_be_away_for_a_while() {
    let former = Versions {
        schema: (4, 5),
        schema_held: 5,
        ..Versions::default()
    };
    let present = Versions {
        schema: (5, 6),
        ..former
    };
    let mut world = World::new(3, 0, 28);
    world.nodes[0].views.set_versions(present);
    world.nodes[1].views.set_versions(present);
    world.nodes[2].views.set_versions(former);
    world.run(1000);
    let writes = |world: &World, schema| {
        let writers = world.nodes[..2].iter();
        writers.map(|node| node.views.schema()).all(|s| s == schema)
    };
    for lasts in [300, 2_000, 60_000] {
        world.isolate(2);
        world.run(lasts);
        assert!(writes(&world, 5), "after {lasts} ms");
        world.cut.clear();
        world.run(3000);
        assert!(world.everybody_acts(), "after {lasts} ms");
    }
    // Nor does it matter that another one starts meanwhile, which never heard it.
    world.isolate(2);
    world.run(1000);
    world.restart(0, true);
    world.nodes[0].views.set_versions(present);
    world.run(2000);
    assert!(world.may_act(0) && writes(&world, 5));
    world.cut.clear();
    world.run(3000);
    assert!(world.everybody_acts());
    // But nobody waits for it for ever.
    world.isolate(2);
    world.run(650_000);
    assert!(world.may_act(0) && writes(&world, 6));
    world.cut.clear();
    world.restart(2, true);
    world.nodes[2].views.set_versions(present);
    world.run(3000);
    assert!(world.everybody_acts() && world.nodes[2].views.schema() == 6);
}

#[test]
fn a_node_two_versions_ahead_is_refused_and_harms_nobody() {
    let mut world = World::new(3, 0, 27);
    world.run(1000);
    world.restart(1, true);
    world.nodes[1].views.set_versions(Versions {
        protocol: (2, 3),
        ..Versions::default()
    });
    world.run(3000);
    assert!(!world.may_act(1));
    assert_eq!(world.standing(0, 1), Standing::Dead);
    assert_eq!(world.nodes[0].views.incompatible(), 0b010);
    assert_eq!(world.nodes[1].views.incompatible(), 0b101);
    assert!(world.may_act(0) && world.may_act(2));
    world.restart(1, true);
    world.run(2000);
    assert!(world.everybody_acts());
    assert_eq!(world.nodes[0].views.incompatible(), 0);
}
