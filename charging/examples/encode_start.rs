//! Renders one ACR[START] by template many times: `valgrind --tool=callgrind` on it counts the
//! instructions of one record. Arguments: records to render, calls to set up.

use std::hint::black_box;

use charging::config::{ChargingClass, CtfConfig};
use charging::rf::acr::encode_pending;
use charging::trigger::{CalledSide, Sdp, SdpType, SubscriptionIdType};
use charging::{ChargingState, Ctf, Now, SessionFacts, Trigger, UnixMillis};

const SDP: &[u8] = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
    m=audio 4000 RTP/AVP 8 0 101\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n";

/// A call whose START is pending.
fn started(ctf: &mut Ctf, now: Now) -> ChargingState {
    let mut state = ChargingState::default();
    let facts = SessionFacts {
        method: b"INVITE",
        user_session_id: b"3848276298220188511@a.example",
        calling_party: &[b"sip:+493012345@a.example", b"tel:+493012345"],
        requested_party: b"tel:+498998765",
        from_address: b"<sip:+493012345@a.example>;tag=8327",
        icid: b"AyretyU0dm+6O2IrT5tAFrbHLso=023551024",
        orig_ioi: b"a.example",
        subscription_ids: &[(SubscriptionIdType::E164, b"493012345")],
        access_network_info: &[b"3GPP-E-UTRAN-FDD; utran-cell-id-3gpp=2620100011"],
        ..SessionFacts::default()
    };
    ctf.on_trigger(
        now,
        &mut state,
        &Trigger::SetUp {
            facts: &facts,
            request_time: now.wall,
        },
    );
    ctf.on_trigger(
        now,
        &mut state,
        &Trigger::Routed {
            called_party: b"sip:+498998765@b.example;user=phone",
            outgoing_session_id: b"rt-0-17-99@us.example",
            nni: None,
        },
    );
    ctf.on_trigger(
        now,
        &mut state,
        &Trigger::Answered {
            response_time: now.wall,
            answer_known: true,
            sdp: &[
                Sdp::new(SDP, SdpType::Offer),
                Sdp::new(SDP, SdpType::Answer),
            ],
            called: CalledSide {
                term_ioi: b"b.example",
                transit_ioi: b"",
                asserted_identity: &[b"sip:+498998765@b.example"],
            },
            terminating_access: None,
            message_bodies: &[],
        },
    );
    state
}

fn main() {
    let argument = |n| {
        std::env::args()
            .nth(n)
            .and_then(|text| text.parse::<u32>().ok())
    };
    let records = argument(1).unwrap_or(1_000_000);
    let calls = argument(2).unwrap_or(100_000);
    let now = Now {
        instant: quanta::Instant::now(),
        wall: UnixMillis(1_700_000_000_000),
        steady: UnixMillis(1_700_000_000_000),
    };
    let config = CtfConfig {
        origin_host: "shard0.node1.example".to_owned(),
        origin_realm: "example".to_owned(),
        origin_state_id: Some(1),
        boot_epoch_s: 1_700_000_000,
        shard: 0,
        seed: 1,
        classes: ChargingClass {
            destination_realm: "cdf.example".to_owned(),
            proposed_interim_interval_s: 300,
            ..ChargingClass::default()
        }
        .into(),
    };
    let mut ctf = Ctf::new(config, now);
    let state = started(&mut ctf, now);
    let mut out = Vec::new();
    let before = std::time::Instant::now();
    for _ in 0..records {
        encode_pending(black_box(&state), &mut out);
        black_box(&out);
    }
    let encode = before.elapsed();
    let before = std::time::Instant::now();
    for _ in 0..calls {
        black_box(started(&mut ctf, now));
    }
    let whole = before.elapsed();
    let archive = rkyv::to_bytes::<rkyv::rancor::Error>(&state).map_or(0, |bytes| bytes.len());
    println!("{} octets, archived state {archive} octets", out.len());
    println!(
        "encode by template: {:.1} ns",
        encode.as_nanos() as f64 / f64::from(records)
    );
    println!(
        "set-up to START:    {:.1} ns",
        whole.as_nanos() as f64 / f64::from(calls)
    );
}
