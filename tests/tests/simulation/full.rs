//! A store without room: what could not be written down does not leave either.

use charging::state::RecordType::{Event, Stop};
use tests::sim::{Misfortune, Setup, World};
use tests::ua::Plan;

// A call that is answered at 1,015 ms and ended by its caller at 6,020 ms.
fn world() -> (World, usize) {
    let mut world = World::new(Setup {
        interim_s: None,
        ..Setup::default()
    });
    let caller = Plan {
        bye_after: Some(5_000),
        ..Plan::default()
    };
    let callee = Plan {
        answer: Some((1_000, 200)),
        ..Plan::default()
    };
    let call = world.add_call(caller, callee);
    (world, call)
}

fn has_left(world: &World, call: usize) -> bool {
    let sessions = world.sessions_of(call);
    let stopped = sessions
        .iter()
        .any(|session| session.records.values().any(|record| record.kind == Stop));
    stopped || world.phones[call + 1].ledger.bye_received.is_some()
}

fn finish(mut world: World, call: usize) {
    world.run_until(world.now + 120_000);
    world.heal_and_drain();
    let wrong = world.verdict();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(world.sessions_of(call).len(), 1);
}

#[test]
fn the_end_of_a_call_waits_until_it_is_written_down() {
    let (mut world, call) = world();
    world.befall(3_000, Misfortune::Full(true));
    world.run_until(9_000);
    assert!(world.phones[call].ledger.bye_sent.is_some());
    assert!(!has_left(&world, call), "neither STOP nor BYE");
    world.befall(9_000, Misfortune::Full(false));
    world.run_until(9_200);
    assert!(has_left(&world, call));
    finish(world, call);
}

#[test]
fn a_call_whose_end_was_never_written_down_ends_after_a_restart() {
    let (mut world, call) = world();
    world.befall(3_000, Misfortune::Full(true));
    world.befall(8_000, Misfortune::Restart(500));
    world.befall(10_000, Misfortune::Full(false));
    world.run_until(9_900);
    assert!(!has_left(&world, call), "neither STOP nor BYE");
    // The BYE that counts is the repetition which found room.
    world.heal_and_drain();
    let sessions = world.sessions_of(call);
    assert_eq!((sessions.len(), sessions[0].records.len()), (1, 2));
    assert!(sessions[0].one(Stop).is_some());
    assert!(world.phones[call + 1].ledger.bye_received.is_some());
}

#[test]
fn a_call_that_cannot_be_stored_is_refused_when_it_is_answered() {
    let (mut world, call) = world();
    world.befall(1, Misfortune::Full(true));
    world.run_until(2_000);
    let caller = &world.phones[call].ledger;
    assert_eq!(
        caller.finals.iter().map(|one| one.0).collect::<Vec<_>>(),
        [503]
    );
    let callee = &world.phones[call + 1].ledger;
    assert!(callee.acknowledged.is_some() && callee.bye_received.is_some());
    assert!(!callee.cancel_received);
    // Its EVENT leaves though nobody else knows of it: GUARANTEES.md does not promise that one.
    world.heal_and_drain();
    let records = &world.sessions_of(call)[0].records;
    assert_eq!(
        records.values().map(|one| one.kind).collect::<Vec<_>>(),
        [Event]
    );
}
