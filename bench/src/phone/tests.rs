use std::time::{Duration, Instant};

use super::Phone;
use crate::plan::{Mix, PATIENCE, Run, Side};

/// Lets two phones talk to each other until they have nothing to say.
fn talk(now: Instant, caller: &mut Phone, callee: &mut Phone) {
    let (here, there) = (caller.local, callee.local);
    loop {
        let mut is_quiet = true;
        while let Some((_, bytes)) = caller.poll() {
            callee.handle(now, here, &bytes);
            is_quiet = false;
        }
        while let Some((_, bytes)) = callee.poll() {
            caller.handle(now, there, &bytes);
            is_quiet = false;
        }
        if is_quiet {
            return;
        }
    }
}

#[test]
fn a_caller_whose_callee_never_hangs_up_gives_the_call_up() {
    let run = Run {
        seed: 1,
        mix: Mix::parse("plain=1").expect("a mix"),
        hold: Duration::from_secs(1),
        ring: Duration::from_millis(20),
        patience: PATIENCE,
    };
    let number = (0..)
        .find(|number| run.plan(*number).hangs_up == Side::Callee)
        .expect("one in four");
    let [here, there] = ["192.0.2.1:5060", "192.0.2.2:5060"].map(|at| at.parse().expect("literal"));
    let mut caller = Phone::new(Side::Caller, run.clone(), here, &[there]);
    let mut callee = Phone::new(Side::Callee, run.clone(), there, &[here]);
    let mut now = Instant::now();
    caller.place(now, now, number);
    talk(now, &mut caller, &mut callee);
    now += run.ring;
    callee.handle_timeout(now);
    talk(now, &mut caller, &mut callee);
    assert!(!caller.is_idle(), "the call is up");
    // The callee is gone. The caller has no BYE to send and must not wait without end.
    let until = now + Duration::from_secs(120);
    while !caller.is_idle() {
        now = caller.deadline().expect("who waits knows for how long");
        assert!(now <= until, "it waits too long");
        caller.handle_timeout(now);
    }
    let (ledger, _) = caller.into_results();
    assert!(ledger.of(number).answered.is_some());
    assert!(ledger.of(number).timed_out);
}

#[test]
fn a_caller_that_hears_ringing_twice_and_then_nothing_gives_up() {
    let run = Run {
        seed: 1,
        mix: Mix::parse("plain=1").expect("a mix"),
        hold: Duration::from_secs(1),
        ring: Duration::from_millis(20),
        patience: PATIENCE,
    };
    let [here, there] = ["192.0.2.1:5060", "192.0.2.2:5060"].map(|at| at.parse().expect("literal"));
    let mut caller = Phone::new(Side::Caller, run.clone(), here, &[there]);
    let mut callee = Phone::new(Side::Callee, run, there, &[here]);
    let mut now = Instant::now();
    caller.place(now, now, 1);
    let (_, invite) = caller.poll().expect("the INVITE");
    callee.handle(now, here, &invite);
    let (_, ringing) = callee.poll().expect("it rings");
    for _ in 0..2 {
        now += Duration::from_millis(1);
        caller.handle(now, there, &ringing);
    }
    let until = now + Duration::from_secs(120);
    while !caller.is_idle() {
        now = caller.deadline().expect("who waits knows for how long");
        assert!(now <= until, "it waits too long");
        caller.handle_timeout(now);
    }
}

// As it is where the node that is to pass the ACK on goes away.
#[test]
fn a_callee_takes_a_re_invite_for_the_ack_that_was_lost() {
    let run = Run {
        seed: 1,
        mix: Mix::parse("reinvite=1").expect("a mix"),
        hold: Duration::from_secs(1),
        ring: Duration::from_millis(20),
        patience: PATIENCE,
    };
    let is_meant = |number: &u32| {
        let plan = run.plan(*number);
        (plan.reinvites, plan.hangs_up) == (Side::Caller, Side::Callee)
    };
    let number = (0..).find(is_meant).expect("one in eight");
    let [here, there] = ["192.0.2.1:5060", "192.0.2.2:5060"].map(|at| at.parse().expect("literal"));
    let mut caller = Phone::new(Side::Caller, run.clone(), here, &[there]);
    let mut callee = Phone::new(Side::Callee, run.clone(), there, &[here]);
    let mut now = Instant::now();
    caller.place(now, now, number);
    talk(now, &mut caller, &mut callee);
    now += run.ring;
    callee.handle_timeout(now);
    let (_, answer) = callee.poll().expect("it is picked up");
    caller.handle(now, there, &answer);
    let (_, ack) = caller.poll().expect("an ACK");
    assert!(ack.starts_with(b"ACK "), "it is lost");
    now += run.hold / 2;
    caller.handle_timeout(now);
    talk(now, &mut caller, &mut callee);
    // Whoever is to hang up does so in time.
    now += run.hold;
    callee.handle_timeout(now);
    talk(now, &mut caller, &mut callee);
    assert!(caller.is_idle() && callee.is_idle());
    let (ledger, _) = caller.into_results();
    let seen = ledger.of(number);
    assert_eq!((seen.reinvites_accepted, seen.reinvites_refused), (1, 0));
}
