//! Whole calls: CTF, router and backlog against CDFs that fail, in virtual time.

mod world;

use charging::config::ChargingClass;
use charging::server::{Cdr, Fault, InterimLost, MemoryCdfStore};
use charging::trigger::SetUpFailure;
use charging::{CauseCode, Trigger};
use world::{World, class};

/// Every session of the store is complete, and nothing was billed twice or differently.
fn check_complete(store: &MemoryCdfStore, sessions: usize) {
    assert_eq!(store.sessions().count(), sessions);
    for session in store.sessions() {
        let records = store.records(session);
        let cdr = Cdr::assemble(&records, true).expect("a session has records");
        assert!(!cdr.start_lost && !cdr.stop_lost, "{records:?}");
        assert_eq!(cdr.interim_lost, InterimLost::No, "{records:?}");
    }
}

#[test]
fn a_call_is_billed_from_its_answer_to_its_bye() {
    let mut world = World::new(1, class(), Some(60));
    world.set_up(1);
    world.pass(5_000);
    world.answer(1);
    world.pass(150_250);
    world.end(1);
    let store = world.fars[0].cdf.store();
    check_complete(store, 1);
    let session = store.sessions().next().unwrap();
    let records = store.records(session);
    let cdr = Cdr::assemble(&records, true).unwrap();
    assert_eq!(cdr.duration_ms, Some(150_250));
    assert_eq!((cdr.interims, cdr.cause_code), (2, Some(0)));
    assert!(world.calls.is_empty());
}

#[test]
fn a_slow_cdf_loses_no_stop_of_short_calls() {
    let mut world = World::new(1, class(), None);
    world.fars[0].cdf.set_fault(Fault::Delay { ms: 500 });
    for call in 0..20 {
        world.set_up(call);
        world.answer(call);
        world.pass(200);
        world.end(call);
    }
    world.pass(5_000);
    check_complete(world.fars[0].cdf.store(), 20);
    assert!(world.calls.is_empty());
}

#[test]
fn a_cdf_that_is_gone_during_the_calls_gets_everything_when_it_is_back() {
    let mut world = World::new(1, class(), None);
    for call in 0..20 {
        world.set_up(call);
        world.answer(call);
    }
    world.set_down(0, true);
    for call in 0..10 {
        world.end(call);
    }
    for call in 20..30 {
        world.set_up(call);
        world.answer(call);
        world.end(call);
    }
    assert!(world.ended.is_empty());
    assert_eq!(world.backlog.len(), 30);
    world.pass(120_000);
    world.set_down(0, false);
    world.pass(120_000);
    for call in 10..20 {
        world.end(call);
    }
    assert!(world.backlog.is_empty() && world.calls.is_empty());
    check_complete(world.fars[0].cdf.store(), 30);
    assert_eq!(world.fars[0].cdf.counters().record_conflicting, 0);
}

#[test]
fn a_black_hole_sends_the_records_to_the_second_cdf() {
    let mut world = World::new(2, class(), None);
    world.fars[0].cdf.set_fault(Fault::Drop);
    world.set_up(1);
    world.answer(1);
    world.pass(20_000);
    world.end(1);
    world.pass(20_000);
    assert!(world.fars[0].cdf.store().is_empty());
    check_complete(world.fars[1].cdf.store(), 1);
}

#[test]
fn a_cdf_that_keeps_but_never_answers_has_each_record_once() {
    let mut world = World::new(1, class(), None);
    world.fars[0].cdf.set_fault(Fault::Silent);
    world.set_up(1);
    world.answer(1);
    world.pass(1_000);
    world.end(1);
    world.pass(60_000);
    world.fars[0].cdf.set_fault(Fault::None);
    world.pass(60_000);
    check_complete(world.fars[0].cdf.store(), 1);
    let counters = world.fars[0].cdf.counters();
    assert!(counters.duplicate_discarded > 3);
    assert_eq!(
        (counters.duplicate_unmarked, counters.record_conflicting),
        (0, 0)
    );
    assert!(world.backlog.is_empty());
}

#[test]
fn answers_that_lie_change_nothing() {
    for fault in [Fault::LieAboutSession, Fault::LieAboutNumber] {
        let mut world = World::new(1, class(), None);
        world.fars[0].cdf.queue_fault(fault);
        world.set_up(1);
        world.answer(1);
        assert_eq!(world.router.counters().answer_lied, 1);
        world.pass(5_000);
        world.end(1);
        check_complete(world.fars[0].cdf.store(), 1);
    }
}

#[test]
fn a_busy_primary_costs_no_time() {
    let mut world = World::new(2, class(), None);
    world.fars[0].cdf.set_fault(Fault::Refuse(3004));
    world.set_up(1);
    world.answer(1);
    world.end(1);
    check_complete(world.fars[1].cdf.store(), 1);
    assert!(world.calls.is_empty());
}

#[test]
fn a_call_that_is_not_granted_without_delivery_ends() {
    let class = ChargingClass {
        realtime: charging::config::RealtimePolicy::DeliverAndGrant,
        ..class()
    };
    let mut world = World::new(1, class, None);
    world.set_down(0, true);
    world.set_up(1);
    world.answer(1);
    assert_eq!(world.ended, [(1, CauseCode::INTERNAL_ERROR)]);
    assert!(world.calls.is_empty());
}

#[test]
fn a_failed_set_up_is_one_event_at_the_cdf() {
    let mut world = World::new(1, class(), None);
    world.set_up(1);
    let response_time = world.now.wall;
    let cause = SetUpFailure::Response(486);
    world.trigger(
        1,
        &Trigger::SetUpFailed {
            cause,
            reasons: &[],
            response_time,
        },
    );
    let store = world.fars[0].cdf.store();
    let session = store.sessions().next().unwrap();
    let records = store.records(session);
    let cdr = Cdr::assemble(&records, true).unwrap();
    assert!(cdr.is_event);
    assert_eq!(cdr.cause_code, Some(486));
}
