//! One charged call as the charging trigger function sees it, for counting what a record costs.

use charging::config::{ChargingClass, CtfConfig};
use charging::trigger::{CalledSide, Sdp, SdpType, SubscriptionIdType};
use charging::{ChargingState, Ctf, Now, SessionFacts, Trigger, UnixMillis};

const SDP: &[u8] = b"v=0\r\no=- 7 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\n\
    m=audio 49170 RTP/AVP 8 0\r\na=rtpmap:8 PCMA/8000\r\na=sendrecv\r\n";

/// The state of a call whose START is pending.
#[must_use]
pub fn started() -> ChargingState {
    let now = Now {
        // A mock: the first reading of the real clock calibrates it, for as many instructions as
        // the machine's load decides, and that would be counted.
        instant: quanta::Clock::mock().0.now(),
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
            ..ChargingClass::default()
        }
        .into(),
    };
    let mut ctf = Ctf::new(config, now);
    let mut state = ChargingState::default();
    let facts = SessionFacts {
        method: b"INVITE",
        user_session_id: b"a84b4c76e66710@pc33.atlanta.example",
        calling_party: &[b"sip:+4930555001@atlanta.example", b"tel:+4930555001"],
        requested_party: b"sip:+4940555002@biloxi.example",
        from_address: b"<sip:+4930555001@atlanta.example>;tag=1928301774",
        icid: b"node1-65a1-0-17",
        subscription_ids: &[(SubscriptionIdType::E164, b"4930555001")],
        ..SessionFacts::default()
    };
    let request_time = now.wall;
    ctf.on_trigger(
        now,
        &mut state,
        &Trigger::SetUp {
            facts: &facts,
            request_time,
        },
    );
    let routed = Trigger::Routed {
        called_party: b"sip:+4940555002@192.0.2.4",
        outgoing_session_id: b"aeaqaaaaaaaa@192.0.2.1",
        nni: None,
    };
    ctf.on_trigger(now, &mut state, &routed);
    let answered = Trigger::Answered {
        response_time: now.wall,
        answer_known: true,
        sdp: &[
            Sdp::new(SDP, SdpType::Offer),
            Sdp::new(SDP, SdpType::Answer),
        ],
        called: CalledSide {
            term_ioi: b"biloxi.example",
            transit_ioi: b"",
            asserted_identity: &[b"sip:+4940555002@biloxi.example"],
        },
        terminating_access: None,
        message_bodies: &[],
    };
    ctf.on_trigger(now, &mut state, &answered);
    state
}
