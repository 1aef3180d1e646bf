//! Charging classes: which one a call has, and that it keeps it.

use charging::state::RecordType::{self, Event, Interim, Start, Stop};
use tests::sim::{Misfortune, Setup, World};
use tests::ua::Plan;

fn world(config: &str) -> World {
    World::new(Setup {
        config: config.to_owned(),
        interim_s: None,
        ..Setup::default()
    })
}

/// A call with a re-INVITE, of which a class may want an INTERIM or not.
fn call(world: &mut World, target: &str) -> usize {
    let caller = Plan {
        target: target.to_owned(),
        inside: vec![(4_000, "INVITE")],
        bye_after: Some(6_000),
        ..Plan::default()
    };
    let callee = Plan {
        answer: Some((1_000, 200)),
        ..Plan::default()
    };
    world.add_call(caller, callee)
}

/// A set-up that is given up, of which a class may want an EVENT or not.
fn cancelled(world: &mut World, target: &str) -> usize {
    let caller = Plan {
        target: target.to_owned(),
        cancel_after: Some(1_000),
        ..Plan::default()
    };
    let callee = Plan {
        rings: vec![(100, 180)],
        ..Plan::default()
    };
    world.add_call(caller, callee)
}

fn play(world: &mut World) {
    world.run_until(world.now + 60_000);
    world.heal_and_drain();
}

fn kinds(world: &World, caller: usize) -> Vec<RecordType> {
    let sessions = world.sessions_of(caller);
    let records = sessions.iter().flat_map(|of| of.records.values());
    records.map(|record| record.kind).collect()
}

const CLASSES: &str = "[[charging.class]]\nname = \"quiet\"\n\
    triggers = { interim_on_media_change = false }\n\
    [[charging.class]]\nname = \"loud\"\ntriggers = { event_on_cancel = false }\n\
    [[charging.class]]\nname = \"free\"\nenabled = false\n";

#[test]
fn a_route_and_a_peer_choose_what_makes_records() {
    // The phones have the addresses 10.1.0.1 and on: the first call's caller is of no class.
    let peers = "[[sip.peer]]\nname = \"a\"\nallow = [\"10.1.0.1\", \"10.1.0.2\"]\n\
        [[sip.peer]]\nname = \"b\"\nallow = [\"10.1.0.0/24\"]\ncharging_class = \"quiet\"\n\
        [[sip.route]]\nmatch = \"1*\"\nnext_hop = \"10.1.0.6\"\ncharging_class = \"loud\"\n\
        [[sip.route]]\nmatch = \"2*\"\nnext_hop = \"10.1.0.8\"\ncharging_class = \"loud\"\n\
        [[sip.route]]\nmatch = \"3*\"\nnext_hop = \"10.1.0.10\"\n\
        [[sip.route]]\nmatch = \"4*\"\nnext_hop = \"10.1.0.12\"\ncharging_class = \"free\"\n\
        [[sip.route]]\nmatch = \"5*\"\nnext_hop = \"10.1.0.14\"\ncharging_class = \"default\"\n";
    let mut world = world(&format!("{peers}{CLASSES}"));
    let of_nobody = call(&mut world, "");
    let of_peer = call(&mut world, "");
    let of_route = call(&mut world, "sip:1@example.com");
    let cancelled_of_route = cancelled(&mut world, "sip:2@example.com");
    let cancelled_of_peer = cancelled(&mut world, "sip:3@example.com");
    let free = call(&mut world, "sip:4@example.com");
    let of_default = call(&mut world, "sip:5@example.com");
    play(&mut world);
    assert_eq!(kinds(&world, of_nobody), [Start, Interim, Stop]);
    assert_eq!(kinds(&world, of_peer), [Start, Stop]);
    assert_eq!(kinds(&world, of_route), [Start, Interim, Stop]);
    assert_eq!(kinds(&world, cancelled_of_route), []);
    assert_eq!(kinds(&world, cancelled_of_peer), [Event]);
    assert_eq!(kinds(&world, free), []);
    assert_eq!(kinds(&world, of_default), [Start, Interim, Stop]);
}

#[test]
fn a_call_keeps_its_class_when_a_restart_brings_other_classes() {
    let route = "[[sip.route]]\nmatch = \"1*\"\nnext_hop = \"10.1.0.2\"\n\
                 charging_class = \"quiet\"\n";
    let quiet = "[[charging.class]]\nname = \"quiet\"\n\
                 triggers = { interim_on_media_change = false }\n";
    let other = "[[charging.class]]\nname = \"another\"\n";
    let plain = "[[sip.route]]\nmatch = \"1*\"\nnext_hop = \"10.1.0.2\"\n";
    let before = format!("{route}{other}{quiet}");
    for (after, records) in [
        (format!("{route}{quiet}{other}"), vec![Start, Stop]),
        (format!("{plain}{quiet}"), vec![Start, Stop]),
        (format!("{plain}{other}"), vec![Start, Interim, Stop]),
        (plain.to_owned(), vec![Start, Interim, Stop]),
    ] {
        let mut world = world(&before);
        let one = call(&mut world, "sip:1@example.com");
        world.befall(2_500, Misfortune::Restart(500));
        world.run_until(2_600);
        world.reconfigure(&after);
        play(&mut world);
        println!("{:?}", world.phones[one + 1].ledger);
        assert_eq!(kinds(&world, one), records, "{after}");
    }
}
