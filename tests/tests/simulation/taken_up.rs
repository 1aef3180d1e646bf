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

// Forty calls that are up when the node goes, at 10 s.
fn overdue(config: &str, down: u64) -> World {
    let mut world = World::new(Setup {
        config: config.to_owned(),
        interim_s: None,
        ..Setup::default()
    });
    for n in 0..CALLS {
        let caller = Plan {
            calls_at: Some(1_000 + 20 * n),
            bye_after: Some(400_000),
            ..Plan::default()
        };
        let callee = Plan {
            session_s: 90,
            node_refreshes: true,
            answer: Some((1_000, 200)),
            bye_after: Some(500_000),
            ..Plan::default()
        };
        world.add_call(caller, callee);
    }
    world.befall(10_000, Misfortune::Restart(down));
    world.run_until(10_000 + down);
    world
}

fn count(world: &World, is_so: impl Fn(&tests::ua::Ledger) -> bool) -> u64 {
    let phones = world.phones.iter();
    phones.filter(|phone| is_so(&phone.ledger)).count() as u64
}

/// The sessions of both phones are over by their timers, but nobody was there to refresh them.
#[test]
fn sessions_that_ran_out_meanwhile_are_refreshed_one_after_the_other() {
    let mut world = overdue("session_expires_s = 90\n", 200_000);
    let refreshed = |ledger: &tests::ua::Ledger| ledger.received.iter().any(|m| m == "UPDATE");
    world.run_until(world.now + 100);
    let soon = count(&world, refreshed);
    assert!(soon < CALLS / 2, "{soon} at once");
    world.run_until(world.now + 1_500);
    assert_eq!(count(&world, refreshed), 2 * CALLS);
    assert_eq!(count(&world, |ledger| ledger.bye_received.is_some()), 0);
    world.run_until(450_000);
    let hung_up = count(&world, |ledger| ledger.bye_sent.is_some());
    assert_eq!(hung_up, CALLS, "each caller, as planned");
}

#[test]
fn calls_that_became_too_old_meanwhile_end_one_after_the_other() {
    let config = "session_expires_s = 0\nmax_call_duration_s = 60\n";
    let mut world = overdue(config, 100_000);
    let ended = |ledger: &tests::ua::Ledger| ledger.bye_received.is_some();
    world.run_until(world.now + 100);
    let soon = count(&world, ended);
    assert!(soon < CALLS / 2, "{soon} at once");
    world.run_until(world.now + 1_500);
    assert_eq!(count(&world, ended), 2 * CALLS);
}

const CALLS: u64 = 40;

// Each session's START waits on disk when the process ends. When a CDF is back the calls end, and
// no STOP is there before its START.
#[test]
fn records_stay_behind_those_of_their_session_that_wait_on_disk() {
    let mut world = World::new(Setup {
        interim_s: None,
        ..Setup::default()
    });
    for far in [0, 1] {
        world.befall(0, Misfortune::CdfDown(far));
    }
    for n in 0..60 {
        let caller = Plan {
            calls_at: Some(1_000 + 10 * n),
            bye_after: Some(45_000 - 160 * n),
            ..Plan::default()
        };
        let callee = Plan {
            answer: Some((100, 200)),
            ..Plan::default()
        };
        world.add_call(caller, callee);
    }
    world.befall(20_000, Misfortune::Restart(300));
    world.run_until(30_000);
    for far in [0, 1] {
        world.befall(35_000, Misfortune::CdfUp(far));
        world.fars[far].delay = 20;
    }
    let (mut early, mut sessions) = (0, 0);
    while world.now < 60_000 {
        world.run_until(world.now + 1);
        let all = world.sessions();
        let has_no_start = |session: &&tests::checks::Session| !session.records.contains_key(&0);
        early = early.max(all.values().filter(has_no_start).count());
        sessions = sessions.max(all.len());
    }
    assert_eq!((early, sessions), (0, 60));
    finish(&mut world);
}
