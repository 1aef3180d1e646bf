//! The steady state allocates nothing: rendering, sending and acknowledging a record.

// The global allocator's trait is unsafe to implement; this one only counts.
#![allow(unsafe_code)]

mod world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use charging::rf::acr::encode_pending;
use charging::trigger::{CalledSide, CauseCode, Sdp, SdpType};
use charging::{AnswerSummary, ChargingState, SessionFacts, Tag, Trigger};
use world::{SDP, World, class};

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count_one() {
    // A thread that is going away counts nothing.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_one();
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_one();
        // SAFETY: the caller's promise is the same.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(act: impl FnOnce()) -> u64 {
    let before = COUNT.with(Cell::get);
    act();
    COUNT.with(Cell::get) - before
}

/// One record on its way to the CDF and back, without the CDF's own work counted.
fn one_record(world: &mut World, state: &mut ChargingState, buffer: &mut Vec<u8>) -> u64 {
    let now = world.now.instant;
    let peer = charging::diameter::routing::PeerIndex(0);
    let mut count = allocations(|| {
        assert!(encode_pending(state, buffer));
        let tag = Tag {
            call: 1,
            session: 0,
        };
        world
            .router
            .send(now, tag, buffer)
            .expect("a peer is usable");
        state.on_sent();
    });
    let up = world
        .router
        .transmit(peer)
        .expect("the peer exists")
        .split_off(0);
    let far = &mut world.fars[0];
    let id = far.connection.expect("the link is up");
    far.cdf.handle_bytes(now, id, &up);
    let down = far.cdf.transmit(id).expect("the link is up").split_off(0);
    // Give the buffer back: the shell removes what it sent and keeps the capacity.
    let out = world.router.transmit(peer).expect("the peer exists");
    *out = up;
    out.clear();
    count += allocations(|| {
        world.router.handle_bytes(now, peer, &down);
        let event = world.router.poll_event().expect("the answer");
        let charging::diameter::routing::Event::Answer { summary, .. } = event else {
            panic!("{event:?}");
        };
        assert_eq!(summary.result_code, 2001);
    });
    count
}

#[test]
fn a_record_is_sent_and_acknowledged_without_allocating() {
    let mut world = World::new(1, class(), Some(60));
    world.fars[0].cdf.set_fault(charging::server::Fault::Silent);
    world.set_up(1);
    world.answer(1);
    let mut state = world.calls.remove(&1).expect("the call is charged");
    world.router.forget(Tag {
        call: 1,
        session: 0,
    });
    world.fars[0].cdf.set_fault(charging::server::Fault::None);
    let mut buffer = Vec::new();
    one_record(&mut world, &mut state, &mut buffer);
    for _ in 0..100 {
        assert_eq!(one_record(&mut world, &mut state, &mut buffer), 0);
    }
    let answer = AnswerSummary {
        result_code: 2001,
        interim_interval_s: Some(60),
        ..AnswerSummary::default()
    };
    let ctf = &mut world.ctf;
    let now = world.now;
    assert_eq!(
        allocations(|| {
            ctf.on_answer(now, &mut state, &answer);
        }),
        0
    );
    // From the second INTERIM on, buffers are reused for their content, too.
    for round in 0..50 {
        let made = allocations(|| {
            let due = state.next_deadline().expect("interims are on");
            let later = charging::Now { steady: due, ..now };
            ctf.on_deadline(later, &mut state);
            encode_pending(&state, &mut buffer);
            state.on_sent();
            ctf.on_answer(later, &mut state, &answer);
        });
        assert!(
            made == 0 || round == 0,
            "{made} allocations in round {round}"
        );
    }
}

/// A whole call from its INVITE to the answer to its STOP.
fn one_call(world: &mut World, state: &mut ChargingState, buffer: &mut Vec<u8>) {
    let (ctf, now) = (&mut world.ctf, world.now);
    let request_time = now.wall;
    let facts = SessionFacts {
        method: b"INVITE",
        user_session_id: b"call-1@a.example",
        calling_party: &[b"sip:alice@a.example"],
        requested_party: b"tel:+49891",
        icid: b"icid",
        orig_ioi: b"a.example",
        ..SessionFacts::default()
    };
    let sdp = [
        Sdp::new(SDP, SdpType::Offer),
        Sdp::new(SDP, SdpType::Answer),
    ];
    let triggers = [
        Trigger::SetUp {
            facts: &facts,
            request_time,
        },
        Trigger::Routed {
            called_party: b"sip:bob@b.example",
            outgoing_session_id: b"out@us",
            nni: None,
        },
        Trigger::Answered {
            response_time: now.wall,
            answer_known: true,
            sdp: &sdp,
            called: CalledSide {
                term_ioi: b"b.example",
                transit_ioi: b"",
                asserted_identity: &[b"sip:bob@b.example"],
            },
            terminating_access: None,
            message_bodies: &[],
        },
        Trigger::Ended {
            cause: CauseCode::NORMAL,
            reasons: &[],
            request_time,
            message_bodies: &[],
        },
    ];
    let answer = AnswerSummary {
        result_code: 2001,
        ..AnswerSummary::default()
    };
    for trigger in &triggers {
        ctf.on_trigger(now, state, trigger);
        if encode_pending(state, buffer) {
            state.on_sent();
            ctf.on_answer(now, state, &answer);
        }
    }
    assert!(state.is_finished());
    ctf.recycle(state);
}

#[test]
fn a_call_in_steady_traffic_is_charged_without_allocating() {
    let mut world = World::new(1, class(), None);
    let (mut state, mut buffer) = (ChargingState::default(), Vec::new());
    for round in 0..50 {
        let made = allocations(|| one_call(&mut world, &mut state, &mut buffer));
        // The first calls make what the later ones use.
        assert!(
            made == 0 || round < 3,
            "{made} allocations in round {round}"
        );
    }
}
