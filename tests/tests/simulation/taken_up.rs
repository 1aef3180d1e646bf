//! Messages that were under way when the node ended: whoever takes the call up goes on with them.

use tests::net::Net;
use tests::sim::{Misfortune, Setup, World};
use tests::ua::Plan;

const DEAF: Net = Net {
    loss: 1_000,
    ..Net::PERFECT
};

// A call whose caller does something inside it after two seconds.
fn world(inside: &[(u64, &'static str)]) -> (World, usize) {
    let mut world = World::new(Setup {
        interim_s: None,
        ..Setup::default()
    });
    let caller = Plan {
        bye_after: Some(8_000),
        inside: inside.to_vec(),
        ..Plan::default()
    };
    let callee = Plan {
        answer: Some((1_000, 200)),
        ..Plan::default()
    };
    let call = world.add_call(caller, callee);
    (world, call)
}

fn run_until(world: &mut World, happened: impl Fn(&World) -> bool) {
    while !happened(world) {
        assert!(world.now < 60_000, "it never happened");
        world.run_until(world.now + 1);
    }
}

// Nothing that the node sends in the next moments arrives, and then it is gone.
fn end_unheard(world: &mut World) {
    world.net = DEAF;
    world.run_until(world.now + 10);
    world.befall(world.now, Misfortune::Restart(300));
    world.run_until(world.now + 1);
    world.net = Net::PERFECT;
}

fn finish(world: &mut World) {
    world.run_until(world.now + 120_000);
    world.heal_and_drain();
    let wrong = world.verdict();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_bye_that_the_other_phone_did_not_get_is_sent_again() {
    let (mut world, call) = world(&[]);
    run_until(&mut world, |world| {
        world.phones[call].ledger.bye_sent.is_some()
    });
    end_unheard(&mut world);
    assert_eq!(world.phones[call + 1].ledger.bye_received, None);
    finish(&mut world);
    assert!(world.phones[call + 1].ledger.bye_received.is_some());
    // RFC 3261 15.1.1: a 481 is the end as well; the node had ended this leg again before.
    let inside = &world.phones[call].ledger.inside;
    assert!(matches!(&inside[..], [(bye, 200 | 481)] if bye == "BYE"));
}

// The node ends this long after a phone sent its re-INVITE; each datagram takes 5 ms.
fn end_in_re_invite(after: u64) -> (World, usize) {
    let (mut world, call) = world(&[(2_000, "INVITE")]);
    let acknowledged = |world: &World| world.phones[call].ledger.acknowledged;
    run_until(&mut world, |world| acknowledged(world).is_some());
    world.run_until(acknowledged(&world).expect("just now") + 2_000 + after);
    end_unheard(&mut world);
    assert!(world.phones[call].ledger.inside.is_empty());
    (world, call)
}

// RFC 3261 17.1.1.2: who got a 100 repeats nothing, and has no timer either.
#[test]
fn a_re_invite_whose_sender_got_a_100_is_asked_again() {
    let (mut world, call) = end_in_re_invite(8);
    finish(&mut world);
    let inside = &world.phones[call].ledger.inside;
    assert_eq!(inside[0], ("INVITE".to_owned(), 200));
    let callee = &world.phones[call + 1].ledger;
    assert_eq!(callee.received, ["INVITE", "INVITE", "BYE"]);
}

#[test]
fn the_2xx_of_a_re_invite_is_sent_until_its_ack_comes() {
    let (mut world, call) = end_in_re_invite(13);
    finish(&mut world);
    let inside = &world.phones[call].ledger.inside;
    assert_eq!(inside[0], ("INVITE".to_owned(), 200));
    let callee = &world.phones[call + 1].ledger;
    assert_eq!(callee.received, ["INVITE", "BYE"]);
}

#[test]
fn a_re_invite_that_nobody_answered_is_taken_when_it_comes_again() {
    let (mut world, call) = end_in_re_invite(0);
    finish(&mut world);
    let inside = &world.phones[call].ledger.inside;
    assert_eq!(inside[0], ("INVITE".to_owned(), 200));
}

#[test]
fn a_2xx_that_comes_again_gets_the_ack_that_was_lost() {
    let (mut world, call) = world(&[(2_000, "INVITE")]);
    run_until(&mut world, |world| {
        !world.phones[call].ledger.inside.is_empty()
    });
    end_unheard(&mut world);
    finish(&mut world);
    let callee = &world.phones[call + 1].ledger;
    assert_eq!(callee.received, ["INVITE", "BYE"]);
    assert!(!callee.ack_missing);
}
