//! Calls as a B2BUA reports them, and a CDF that answers in virtual time.

use quanta::Instant;

use super::*;
use crate::config::{LateOffer, RealtimePolicy};
use crate::diameter::avp::{Avp, Message};
use crate::diameter::dictionary as d;
use crate::state::AccountingState;
use crate::trigger::{
    AccessTransfer, AccessTransferType, CalledSide, MessageBody, RoleOfNode, Sdp, SdpType,
    ServiceType, SessionFacts, SetUpFailure, SubscriptionIdType, SupplementaryService,
    TerminatingAccess,
};

mod rows;

const SDP: &[u8] = b"v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 8\r\na=sendrecv\r\n";

fn class() -> ChargingClass {
    ChargingClass {
        destination_realm: "cdf.example".to_owned(),
        ..ChargingClass::default()
    }
}

/// One call, its function and the clock.
struct Call {
    ctf: Ctf,
    state: ChargingState,
    now: Now,
}

impl Call {
    fn with(class: ChargingClass) -> Self {
        let now = Now {
            instant: Instant::recent(),
            wall: UnixMillis(1_609_459_200_000),
            // Another time: whoever took the one for the other would be found out.
            steady: UnixMillis(1_234_567_890_000),
        };
        let config = CtfConfig {
            origin_host: "shard0.node1.example".to_owned(),
            origin_realm: "example".to_owned(),
            origin_state_id: Some(7),
            boot_epoch_s: 1_600_000_000,
            shard: 3,
            seed: 11,
            classes: class.into(),
        };
        Self {
            ctf: Ctf::new(config, now),
            state: ChargingState::default(),
            now,
        }
    }

    fn new() -> Self {
        Self::with(class())
    }

    fn pass(&mut self, ms: u64) {
        self.now.wall = self.now.wall.plus_ms(ms);
        self.now.steady = self.now.steady.plus_ms(ms);
    }

    fn trigger(&mut self, trigger: &Trigger<'_>) -> Verdict {
        self.ctf.on_trigger(self.now, &mut self.state, trigger)
    }

    fn set_up(&mut self) {
        let facts = SessionFacts {
            slot: 42,
            method: b"INVITE",
            role_of_node: RoleOfNode::Terminating,
            user_session_id: b"call-1@a",
            calling_party: &[b"sip:alice@a.example", b"tel:+4930123"],
            requested_party: b"tel:+49891",
            from_address: b"<sip:alice@a.example>;tag=1",
            icid: b"icid-1",
            orig_ioi: b"a.example",
            subscription_ids: &[(SubscriptionIdType::E164, b"49891")],
            session_priority: Some(2),
            ..SessionFacts::default()
        };
        let request_time = self.now.wall;
        self.trigger(&Trigger::SetUp {
            facts: &facts,
            request_time,
        });
        self.trigger(&Trigger::Routed {
            called_party: b"sip:bob@b.example",
            outgoing_session_id: b"call-2@us",
            nni: None,
        });
    }

    fn answer(&mut self, answer_known: bool) -> Verdict {
        let response_time = self.now.wall;
        self.trigger(&Trigger::Answered {
            response_time,
            answer_known,
            sdp: &[Sdp::new(SDP, SdpType::Offer)],
            called: CalledSide {
                term_ioi: b"b.example",
                transit_ioi: b"",
                asserted_identity: &[b"sip:bob@b.example"],
            },
            terminating_access: None,
            message_bodies: &[],
        })
    }

    fn started() -> Self {
        Self::started_with(class())
    }

    fn started_with(class: ChargingClass) -> Self {
        let mut call = Self::with(class);
        call.set_up();
        call.pass(3_250);
        call.answer(true);
        call
    }

    fn open(interval_s: u32) -> Self {
        let mut call = Self::started();
        call.acknowledge(2001, Some(interval_s));
        call
    }

    fn re_invite(&mut self, code: u16) {
        let time = self.now.wall;
        self.trigger(&Trigger::MediaChanged {
            method: b"INVITE",
            request_time: time,
            response_time: time,
            code,
            sdp: &[],
            called_identity: b"",
            message_bodies: &[],
            services: &[],
        });
    }

    fn end(&mut self) -> Verdict {
        let request_time = self.now.wall;
        let cause = CauseCode::NORMAL;
        self.trigger(&Trigger::Ended {
            cause,
            reasons: &[],
            request_time,
            message_bodies: &[],
        })
    }

    fn deadline(&mut self) {
        let due = self.state.next_deadline().expect("a deadline is armed");
        self.pass(due.ms_since(self.now.steady));
        self.ctf.on_deadline(self.now, &mut self.state);
    }

    /// What is due on the wire, as (type, number).
    fn due(&self) -> Option<(RecordType, u32)> {
        self.state
            .request_to_send()
            .map(|key| (key.record_type, key.number))
    }

    fn acknowledge(&mut self, code: u32, interval_s: Option<u32>) -> Verdict {
        self.state.on_sent();
        let summary = AnswerSummary {
            result_code: code,
            interim_interval_s: interval_s,
            ..AnswerSummary::default()
        };
        self.ctf.on_answer(self.now, &mut self.state, &summary)
    }

    fn fail(&mut self, storage: Storage) -> (FailureAction, Vec<u8>) {
        let mut stored = Vec::new();
        let action = self
            .ctf
            .on_send_failure(self.now, &mut self.state, storage, &mut stored);
        (action, stored)
    }

    fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(acr::encode_pending(&self.state, &mut out));
        out
    }

    fn session(&self) -> &AccountingSession {
        self.state.accounting.as_ref().expect("the call is charged")
    }
}

/// IMS-Information of an ACR.
fn ims_avps(acr: &[u8]) -> Vec<Avp<'_>> {
    let service = Message::parse(acr)
        .unwrap()
        .find(d::SERVICE_INFORMATION)
        .unwrap();
    let ims = service
        .grouped()
        .unwrap()
        .find_attribute(d::IMS_INFORMATION)
        .unwrap();
    ims.grouped().unwrap().map(Result::unwrap).collect()
}

fn value(acr: &[u8], attribute: d::Attribute) -> Option<Vec<u8>> {
    ims_avps(acr)
        .iter()
        .find(|avp| avp.is(attribute))
        .map(|avp| avp.data.to_vec())
}

fn cause_code(acr: &[u8]) -> i32 {
    ims_avps(acr)
        .iter()
        .find(|avp| avp.is(d::CAUSE_CODE))
        .unwrap()
        .i32()
        .unwrap()
}

fn stamps(acr: &[u8]) -> Vec<(u32, u32)> {
    let avps = ims_avps(acr);
    let Some(group) = avps.iter().find(|avp| avp.is(d::TIME_STAMPS)) else {
        return Vec::new();
    };
    let inner = group.grouped().unwrap().map(Result::unwrap);
    inner.map(|avp| (avp.code, avp.u32().unwrap())).collect()
}

#[test]
fn a_start_has_its_avps_in_the_order_of_ts_32_299() {
    let call = Call::started();
    let acr = call.encoded();
    let message = Message::parse(&acr).unwrap();
    assert_eq!(
        (message.header.command, message.header.application),
        (271, 3)
    );
    assert_eq!(message.header.flags, 0xC0);
    let codes: Vec<u32> = message.avps().map(|avp| avp.unwrap().code).collect();
    assert_eq!(
        codes,
        [263, 264, 296, 283, 480, 485, 259, 278, 55, 461, 873]
    );
    let text = |attribute| message.find(attribute).unwrap().data;
    assert_eq!(
        text(d::SESSION_ID),
        b"shard0.node1.example;1600000000;1;3.42"
    );
    assert_eq!(text(d::SERVICE_CONTEXT_ID), b"17.32260@3gpp.org");
    assert_eq!(
        message.find(d::ACCOUNTING_RECORD_TYPE).unwrap().u32(),
        Ok(2)
    );
    assert_eq!(
        message.find(d::ACCOUNTING_RECORD_NUMBER).unwrap().u32(),
        Ok(0)
    );
    assert_eq!(
        message.find(d::EVENT_TIMESTAMP).unwrap().unix_seconds(),
        Ok(1_609_459_203)
    );
    let service: Vec<u32> = message
        .find(d::SERVICE_INFORMATION)
        .unwrap()
        .grouped()
        .unwrap()
        .map(|avp| avp.unwrap().code)
        .collect();
    assert_eq!(service, [443, 876]);
}

#[test]
fn a_start_carries_what_the_as_column_asks_for() {
    let acr = Call::started().encoded();
    let codes: Vec<u32> = ims_avps(&acr).iter().map(|avp| avp.code).collect();
    assert_eq!(
        codes,
        [
            829, 862, 830, 831, 831, 841, 2708, 2320, 832, 1251, 838, // session
            650, 1250, 842, 843, // opening
            823, 833
        ]
    );
    assert_eq!(value(&acr, d::NODE_FUNCTIONALITY), Some(vec![0, 0, 0, 6]));
    assert_eq!(
        value(&acr, d::CALLED_PARTY_ADDRESS).unwrap(),
        b"sip:bob@b.example"
    );
    let seconds = 0xE398_E480;
    assert_eq!(
        stamps(&acr),
        [(834, seconds), (835, seconds + 3), (2301, 0), (2302, 250)]
    );
}

#[test]
fn a_call_makes_start_interims_and_stop_with_numbers_in_a_row() {
    let mut call = Call::open(300);
    assert_eq!(call.due(), None);
    for number in 1..=3 {
        call.deadline();
        assert_eq!(call.due(), Some((RecordType::Interim, number)));
        assert!(stamps(&call.encoded()).is_empty());
        call.acknowledge(2001, None);
    }
    call.end();
    assert_eq!(call.due(), Some((RecordType::Stop, 4)));
    let stop = call.encoded();
    assert_eq!(cause_code(&stop), 0);
    assert_eq!(stamps(&stop).len(), 2);
    assert!(!call.state.is_finished());
    call.acknowledge(2001, Some(300));
    assert!(call.state.is_finished());
    assert_eq!(call.state.next_deadline(), None);
}

#[test]
fn interims_are_never_later_than_the_interval_and_spread() {
    let mut waits = Vec::new();
    let mut call = Call::open(100);
    for _ in 0..200 {
        let before = call.now.wall;
        call.deadline();
        waits.push(call.now.wall.ms_since(before));
        call.acknowledge(2001, Some(100));
    }
    assert!(waits.iter().all(|wait| (85_000..=100_000).contains(wait)));
    let early = waits.iter().filter(|&&wait| wait < 92_500).count();
    assert!(
        (60..=140).contains(&early),
        "{early} of 200 in the first half"
    );
}

#[test]
fn the_first_interval_counts_from_the_start_not_from_its_answer() {
    let mut call = Call::started();
    let start = call.now.steady;
    call.pass(50_000);
    call.acknowledge(2001, Some(100));
    assert!(call.state.next_deadline().unwrap().ms_since(start) <= 100_000);
}

#[test]
fn the_latest_interval_counts_and_zero_stops_interims() {
    let mut call = Call::open(100);
    call.deadline();
    call.acknowledge(2001, Some(1_000));
    let wait = call
        .state
        .next_deadline()
        .unwrap()
        .ms_since(call.now.steady);
    assert!((850_000..=1_000_000).contains(&wait));
    call.deadline();
    call.acknowledge(2001, None);
    assert!(call.state.next_deadline().is_some());
    call.deadline();
    call.acknowledge(2001, Some(0));
    assert_eq!(call.state.next_deadline(), None);
}

#[test]
fn no_interval_in_the_answer_to_start_means_no_interims() {
    let mut call = Call::started();
    call.acknowledge(2001, None);
    assert_eq!(call.state.next_deadline(), None);
}

#[test]
fn a_hostile_interval_does_not_overflow() {
    let call = Call::open(u32::MAX);
    assert!(call.state.next_deadline().unwrap() > call.now.steady);
}

#[test]
fn a_proposed_interval_stands_in_start_and_interim_only() {
    let mut call = Call::started_with(ChargingClass {
        proposed_interim_interval_s: 900,
        ..class()
    });
    let proposed = |acr: &[u8]| {
        Message::parse(acr)
            .unwrap()
            .find(d::ACCT_INTERIM_INTERVAL)
            .map(|avp| avp.u32().unwrap())
    };
    assert_eq!(proposed(&call.encoded()), Some(900));
    let codes: Vec<u32> = Message::parse(&call.encoded())
        .unwrap()
        .avps()
        .map(|avp| avp.unwrap().code)
        .collect();
    assert_eq!(
        codes,
        [263, 264, 296, 283, 480, 485, 259, 85, 278, 55, 461, 873]
    );
    call.acknowledge(2001, Some(60));
    call.deadline();
    assert_eq!(proposed(&call.encoded()), Some(900));
    call.acknowledge(2001, None);
    call.end();
    assert_eq!(proposed(&call.encoded()), None);
}

#[test]
fn a_stop_waits_for_the_answer_to_the_start() {
    let mut call = Call::started();
    call.state.on_sent();
    call.pass(200);
    call.end();
    assert_eq!(call.due(), None);
    assert_eq!(call.session().state(), AccountingState::PendingS);
    call.acknowledge(2001, Some(300));
    assert_eq!(call.due(), Some((RecordType::Stop, 1)));
    assert_eq!(call.state.next_deadline(), None);
}

#[test]
fn a_stop_follows_a_start_that_was_stored() {
    let mut call = Call::started();
    call.end();
    let (action, stored) = call.fail(Storage::Space);
    assert_eq!(action, FailureAction::Store(Verdict::GoOn));
    assert!(Message::parse(&stored).unwrap().header.is_retransmitted());
    assert_eq!(call.due(), Some((RecordType::Stop, 1)));
    call.fail(Storage::Space);
    assert!(call.state.is_finished());
    assert_eq!(call.ctf.counters.acr_stored, 2);
}

#[test]
fn copies_of_a_record_are_equal_but_for_the_t_flag_also_on_another_node() {
    let mut call = Call::started();
    let first = call.encoded();
    let archive = rkyv::to_bytes::<rkyv::rancor::Error>(&call.state).unwrap();
    let archived =
        rkyv::access::<crate::state::ArchivedChargingState, rkyv::rancor::Error>(&archive).unwrap();
    let mut direct = Vec::new();
    let session = archived.accounting.as_ref().unwrap();
    acr::AcrSource::pending_archived(session)
        .unwrap()
        .encode(&mut direct);
    assert_eq!(direct, first);

    let mut other = Call::new();
    other.now = call.now;
    other.pass(700);
    other.state = rkyv::deserialize::<_, rkyv::rancor::Error>(archived).unwrap();
    other.ctf.adopt(other.now, &mut other.state, 2_000);
    let mut copy = other.encoded();
    assert_eq!(copy[4], first[4] | 0x10);
    copy[4] = first[4];
    assert_eq!(copy, first);

    call.state.on_sent();
    assert_eq!(call.due(), None);
}

#[test]
fn an_overdue_interim_leaves_soon_after_a_takeover() {
    let mut call = Call::open(100);
    call.pass(150_000);
    call.ctf.adopt(call.now, &mut call.state, 2_000);
    let due = call.state.next_deadline().unwrap();
    assert!(due >= call.now.steady && due.ms_since(call.now.steady) <= 2_000);
    call.deadline();
    assert_eq!(call.due(), Some((RecordType::Interim, 1)));
    let wait = call
        .state
        .next_deadline()
        .unwrap()
        .ms_since(call.now.steady);
    assert!((85_000..=100_000).contains(&wait));
}

/// A node whose clock is an hour ahead, or an hour behind, set the deadlines.
#[test]
fn an_interim_is_due_within_an_interval_whatever_clock_set_it() {
    for ahead in [-3_600_000, 3_600_000] {
        let mut call = Call::open(100);
        let mut adopter = call.now;
        adopter.steady = UnixMillis(adopter.steady.0.saturating_add_signed(ahead));
        call.now = adopter;
        call.ctf.adopt(call.now, &mut call.state, 2_000);
        let wait = call.state.next_deadline().unwrap().ms_since(adopter.steady);
        assert!(wait <= if ahead > 0 { 2_000 } else { 100_000 }, "{wait}");
        // An interval that another record's answer brings counts from a period that is not longer.
        call.re_invite(200);
        call.acknowledge(2001, Some(200));
        let wait = call.state.next_deadline().unwrap().ms_since(adopter.steady);
        assert!((70_000..=200_000).contains(&wait), "{wait}");
    }
}

#[test]
fn a_wall_clock_that_steps_moves_no_interim() {
    for step in [-3_600_000, 3_600_000] {
        let mut call = Call::open(100);
        let due = call.state.next_deadline().unwrap();
        call.now.wall = UnixMillis(call.now.wall.0.saturating_add_signed(step));
        call.ctf.on_deadline(call.now, &mut call.state);
        assert_eq!(call.due(), None);
        assert_eq!(call.state.next_deadline(), Some(due));
        call.deadline();
        assert_eq!(call.due(), Some((RecordType::Interim, 1)));
        let wait = call
            .state
            .next_deadline()
            .unwrap()
            .ms_since(call.now.steady);
        assert!((85_000..=100_000).contains(&wait));
    }
}

#[test]
fn only_one_interim_waits_and_the_newest_wins_under_the_same_number() {
    let mut call = Call::open(300);
    call.re_invite(200);
    call.state.on_sent();
    for _ in 0..3 {
        call.pass(1_000);
        call.re_invite(200);
    }
    let newest = call.now.wall;
    assert_eq!(call.ctf.counters.acr_interim_overwritten, 2);
    call.acknowledge(2001, None);
    assert_eq!(call.due(), Some((RecordType::Interim, 2)));
    let message = call.encoded();
    let time = Message::parse(&message)
        .unwrap()
        .find(d::EVENT_TIMESTAMP)
        .unwrap();
    assert_eq!(time.unix_seconds(), Ok(newest.seconds()));
    call.end();
    call.acknowledge(2001, None);
    assert_eq!(call.due(), Some((RecordType::Stop, 3)));
}

#[test]
fn retransmitted_answers_and_second_branches_make_no_record() {
    let mut call = Call::open(0);
    call.answer(true);
    call.set_up();
    assert_eq!(call.due(), None);
    assert_eq!(call.ctf.counters.acr_start_made, 1);
}

#[test]
fn nothing_follows_the_stop() {
    let mut call = Call::open(60);
    call.end();
    call.end();
    call.re_invite(200);
    call.answer(true);
    call.acknowledge(2001, Some(60));
    assert!(call.state.is_finished());
    assert_eq!(call.ctf.counters.acr_stop_made, 1);
    assert_eq!(call.ctf.counters.acr_interim_made, 0);
}

#[test]
fn a_failed_set_up_is_one_event_with_its_code() {
    for (cause, code) in [
        (SetUpFailure::Response(486), 486),
        (SetUpFailure::Response(302), -302),
        (SetUpFailure::Cancelled, 487),
        (SetUpFailure::Internal, 3),
        (SetUpFailure::Unspecified, 1),
    ] {
        let mut call = Call::new();
        call.set_up();
        call.pass(900);
        let response_time = call.now.wall;
        let reasons: &[&[u8]] = &[b"SIP;cause=200", b"Q.850;cause=16"];
        call.trigger(&Trigger::SetUpFailed {
            cause,
            reasons,
            response_time,
        });
        assert_eq!(call.due(), Some((RecordType::Event, 0)));
        let acr = call.encoded();
        assert_eq!(cause_code(&acr), code);
        let reasons = ims_avps(&acr)
            .iter()
            .filter(|avp| avp.is(d::REASON_HEADER))
            .count();
        assert_eq!(reasons, 2);
        assert_eq!(stamps(&acr).len(), 4);
        call.acknowledge(2001, None);
        assert!(call.state.is_finished());
    }
}

#[test]
fn a_challenge_makes_no_event_unless_asked_for() {
    for (wanted, due) in [(false, None), (true, Some((RecordType::Event, 0)))] {
        let mut class = class();
        class.rows.event_on_challenge = wanted;
        let mut call = Call::with(class);
        call.set_up();
        let response_time = call.now.wall;
        let cause = SetUpFailure::Response(407);
        call.trigger(&Trigger::SetUpFailed {
            cause,
            reasons: &[],
            response_time,
        });
        assert_eq!(call.due(), due);
        assert_eq!(call.state.is_finished(), !wanted);
    }
}

#[test]
fn media_location_and_tariff_changes_make_interims() {
    let mut class = class();
    class.rows.interim_on_access_network_change = true;
    class.rows.interim_on_tariff = true;
    let mut call = Call::started_with(class);
    call.acknowledge(2001, None);
    let time = call.now.wall;
    call.trigger(&Trigger::MediaChanged {
        method: b"UPDATE",
        request_time: time,
        response_time: time,
        code: 200,
        sdp: &[Sdp::new(SDP, SdpType::Answer)],
        called_identity: b"tel:+1",
        message_bodies: &[],
        services: &[],
    });
    let codes = |call: &Call| -> Vec<u32> {
        let acr = call.encoded();
        ims_avps(&acr).iter().map(|avp| avp.code).skip(11).collect()
    };
    assert_eq!(codes(&call), [823, 833, 3917, 842, 843]);
    call.acknowledge(2001, None);
    let access_network_info: &[&[u8]] = &[b"3GPP-NR;x=1"];
    call.trigger(&Trigger::AccessNetworkChanged {
        access_network_info,
        change_time: time,
        transfer: None,
    });
    assert_eq!(codes(&call), [823, 4401]);
    call.acknowledge(2001, None);
    call.trigger(&Trigger::TariffReceived { xml: b"<rtti/>" });
    assert_eq!(codes(&call), [823, 2305]);
    call.acknowledge(2001, None);
    call.re_invite(488);
    assert_eq!(call.due(), Some((RecordType::Interim, 4)));
}

#[test]
fn a_late_offer_starts_at_the_2xx_or_at_the_ack() {
    let mut at_answer = Call::new();
    at_answer.set_up();
    at_answer.answer(false);
    assert_eq!(at_answer.due(), Some((RecordType::Start, 0)));
    at_answer.acknowledge(2001, None);
    let request_time = at_answer.now.wall;
    let ack = Trigger::AckWithAnswer {
        request_time,
        sdp: &[Sdp::new(SDP, SdpType::Answer)],
    };
    at_answer.trigger(&ack);
    assert_eq!(at_answer.due(), Some((RecordType::Interim, 1)));

    let mut at_ack = Call::with(ChargingClass {
        late_offer: LateOffer::StartAtAck,
        ..class()
    });
    at_ack.set_up();
    at_ack.pass(1_000);
    at_ack.answer(false);
    assert_eq!(at_ack.due(), None);
    at_ack.pass(1_000);
    at_ack.trigger(&ack);
    assert_eq!(at_ack.due(), Some((RecordType::Start, 0)));
    let stamps = stamps(&at_ack.encoded());
    assert_eq!(stamps[1].1 - stamps[0].1, 1);
}

#[test]
fn a_late_offer_without_ack_still_has_start_and_stop() {
    let mut call = Call::with(ChargingClass {
        late_offer: LateOffer::StartAtAck,
        ..class()
    });
    call.set_up();
    call.answer(false);
    let request_time = call.now.wall;
    let cause = CauseCode::UNSUCCESSFUL_SETUP;
    call.trigger(&Trigger::Ended {
        cause,
        reasons: &[],
        request_time,
        message_bodies: &[],
    });
    assert_eq!(call.due(), Some((RecordType::Start, 0)));
    call.acknowledge(2001, None);
    assert_eq!(call.due(), Some((RecordType::Stop, 1)));
    assert_eq!(cause_code(&call.encoded()), 2);
}

#[test]
fn early_media_is_described_in_the_first_record() {
    let mut call = Call::new();
    call.set_up();
    let time = call.now.wall;
    let early = Trigger::EarlyMedia {
        offer: Some(Sdp::new(SDP, SdpType::Offer)),
        offer_time: Some(time),
        answer: Some(Sdp::new(SDP, SdpType::Answer)),
        answer_time: Some(time),
    };
    for _ in 0..20 {
        call.trigger(&early);
    }
    call.answer(true);
    let acr = call.encoded();
    let avps = ims_avps(&acr);
    let early: Vec<_> = avps
        .iter()
        .filter(|avp| avp.is(d::EARLY_MEDIA_DESCRIPTION))
        .collect();
    assert_eq!(early.len(), usize::from(ims::EARLY_MEDIA_MAX));
    let inner: Vec<u32> = early[0]
        .grouped()
        .unwrap()
        .map(|avp| avp.unwrap().code)
        .collect();
    assert_eq!(inner, [1273, 842, 843, 842, 843]);
    call.acknowledge(2001, None);
    call.end();
    assert_eq!(value(&call.encoded(), d::EARLY_MEDIA_DESCRIPTION), None);
}

#[test]
fn a_stop_may_wait_for_the_answer_to_the_bye() {
    let mut class = class();
    class.rows.stop_at_bye_answer = true;
    for answered in [true, false] {
        let mut call = Call::started_with(class.clone());
        call.acknowledge(2001, Some(300));
        let (bye, held) = (call.now.wall, call.now.steady);
        call.end();
        assert_eq!(call.due(), None);
        assert!(!call.state.is_finished());
        if answered {
            call.pass(150);
            call.trigger(&Trigger::ByeAnswered {
                access_network_info: &[b"3GPP-NR"],
            });
        } else {
            call.deadline();
            assert_eq!(call.now.steady.ms_since(held), 32_000);
        }
        assert_eq!(call.due(), Some((RecordType::Stop, 1)));
        let acr = call.encoded();
        let event = Message::parse(&acr)
            .unwrap()
            .find(d::EVENT_TIMESTAMP)
            .unwrap();
        assert_eq!(event.unix_seconds(), Ok(bye.seconds()));
        assert_eq!(
            value(&acr, d::ACCESS_NETWORK_INFORMATION).is_some(),
            answered
        );
    }
}

#[test]
fn one_shots_are_events_with_the_cause_of_their_method() {
    let cases: [(&[u8], u16, Option<u32>, i32); 6] = [
        (b"MESSAGE", 200, None, -1),
        (b"MESSAGE", 202, None, -202),
        (b"SUBSCRIBE", 200, Some(0), -2),
        (b"SUBSCRIBE", 200, Some(600), -1),
        (b"REGISTER", 200, Some(0), -3),
        (b"PUBLISH", 503, Some(0), 503),
    ];
    for (method, code, expires, cause) in cases {
        let mut call = Call::new();
        let facts = SessionFacts {
            method,
            user_session_id: b"x",
            ..SessionFacts::default()
        };
        let time = call.now.wall;
        call.trigger(&Trigger::OneShot {
            facts: &facts,
            code,
            event: b"reg",
            expires,
            called: CalledSide::default(),
            request_time: time,
            response_time: time,
        });
        assert_eq!(call.due(), Some((RecordType::Event, 0)));
        assert_eq!(cause_code(&call.encoded()), cause);
        call.fail(Storage::Full);
        assert!(call.state.is_finished());
        assert_eq!(call.ctf.counters.acr_lost, 1);
    }
}

/// After a failure at START: verdict, and what is due next.
fn start_failure(
    realtime: RealtimePolicy,
    failure: impl FnOnce(&mut Call) -> Verdict,
) -> (Verdict, Option<RecordType>) {
    let mut call = Call::started_with(ChargingClass {
        realtime,
        ..class()
    });
    let verdict = failure(&mut call);
    (verdict, call.due().map(|due| due.0))
}

#[test]
fn realtime_policies_decide_what_an_undelivered_start_means() {
    use RealtimePolicy::{DeliverAndGrant, GrantAndLose, GrantAndStore};
    let disconnected = (
        Verdict::End(CauseCode::INTERNAL_ERROR),
        Some(RecordType::Stop),
    );
    let goes_on = (Verdict::GoOn, None);
    let of = |action| match action {
        FailureAction::Store(verdict) | FailureAction::Lose(verdict) => verdict,
        FailureAction::Nothing => panic!("a record was pending"),
    };
    for (realtime, space, full, refused) in [
        (DeliverAndGrant, disconnected, disconnected, disconnected),
        (GrantAndStore, goes_on, disconnected, disconnected),
        (GrantAndLose, goes_on, goes_on, goes_on),
    ] {
        let fail = |storage| move |call: &mut Call| of(call.fail(storage).0);
        assert_eq!(start_failure(realtime, fail(Storage::Space)), space);
        assert_eq!(start_failure(realtime, fail(Storage::Full)), full);
        assert_eq!(
            start_failure(realtime, |call| call.acknowledge(5012, Some(60))),
            refused
        );
    }
}

#[test]
fn a_disconnected_call_has_a_stop_with_cause_3_and_no_second_one() {
    let mut call = Call::started();
    assert_eq!(
        call.acknowledge(5012, Some(60)),
        Verdict::End(CauseCode::INTERNAL_ERROR)
    );
    assert_eq!(cause_code(&call.encoded()), 3);
    call.end();
    call.acknowledge(2001, Some(60));
    assert!(call.state.is_finished());
    assert_eq!(call.ctf.counters.acr_stop_made, 1);
    assert_eq!(call.state.next_deadline(), None);
}

#[test]
fn a_refused_start_leaves_no_interim_timer() {
    let class = ChargingClass {
        realtime: RealtimePolicy::GrantAndLose,
        ..class()
    };
    let mut call = Call::started_with(class);
    assert_eq!(call.acknowledge(5012, Some(60)), Verdict::GoOn);
    assert_eq!(call.state.next_deadline(), None);
    call.end();
    assert_eq!(call.due(), Some((RecordType::Stop, 1)));
}

#[test]
fn a_cdf_that_forgot_the_session_does_not_end_the_call() {
    let mut call = Call::open(60);
    call.deadline();
    assert_eq!(call.acknowledge(5002, None), Verdict::GoOn);
    assert_eq!(call.ctf.counters.aca_unknown_session, 1);
    call.end();
    assert_eq!(call.due(), Some((RecordType::Stop, 2)));
}

#[test]
fn an_answer_for_another_record_is_ignored() {
    let mut call = Call::started();
    call.state.on_sent();
    let summary = AnswerSummary {
        result_code: 2001,
        record_number: Some(5),
        record_type: Some(2),
        ..AnswerSummary::default()
    };
    call.ctf.on_answer(call.now, &mut call.state, &summary);
    assert_eq!(call.session().state(), AccountingState::PendingS);
    assert_eq!(call.ctf.counters.aca_unexpected, 1);
}

#[test]
fn hostile_facts_stay_within_one_message() {
    let long = vec![0xFFu8; 70_000];
    let list: Vec<&[u8]> = vec![&long; 1_000];
    let facts = SessionFacts {
        method: &long,
        user_session_id: &long,
        calling_party: &list,
        requested_party: &long,
        called_party: b"x",
        from_address: &long,
        icid: &long,
        access_network_info: &list,
        visited_network: &long,
        user_name: &long,
        ..SessionFacts::default()
    };
    let mut call = Call::new();
    let time = call.now.wall;
    call.trigger(&Trigger::SetUp {
        facts: &facts,
        request_time: time,
    });
    let sdp = [Sdp::new(&long, SdpType::Offer)];
    call.trigger(&Trigger::Answered {
        response_time: time,
        answer_known: true,
        sdp: &sdp,
        called: CalledSide {
            term_ioi: &long,
            transit_ioi: &long,
            asserted_identity: &list,
        },
        terminating_access: None,
        message_bodies: &[],
    });
    let acr = call.encoded();
    assert!(acr.len() < 64 * 1024);
    assert!(ims_avps(&acr).len() > 20);
}

/// What stands beside IMS-Information in Service-Information.
fn service_avps(acr: &[u8]) -> Vec<u32> {
    let service = Message::parse(acr)
        .unwrap()
        .find(d::SERVICE_INFORMATION)
        .unwrap();
    service
        .grouped()
        .unwrap()
        .map(|avp| avp.unwrap().code)
        .collect()
}

#[test]
fn supplementary_services_stand_beside_ims_information() {
    let service = SupplementaryService {
        service_type: ServiceType::Hold,
        mode: None,
        diversions: None,
        associated_party: b"",
    };
    let facts = SessionFacts {
        method: b"INVITE",
        services: &[service],
        ..SessionFacts::default()
    };
    let mut call = Call::new();
    let time = call.now.wall;
    call.trigger(&Trigger::SetUp {
        facts: &facts,
        request_time: time,
    });
    call.answer(true);
    assert_eq!(service_avps(&call.encoded()), [876, 2030]);
    call.acknowledge(2001, Some(60));
    call.trigger(&Trigger::MediaChanged {
        method: b"INVITE",
        request_time: time,
        response_time: time,
        code: 200,
        sdp: &[],
        called_identity: b"",
        message_bodies: &[],
        services: &[service],
    });
    let interim = call.encoded();
    assert_eq!(service_avps(&interim), [876, 2030]);
    assert!(value(&interim, d::TIME_STAMPS).is_some());
    call.acknowledge(2001, None);
    call.end();
    assert_eq!(service_avps(&call.encoded()), [876], "it was used before");
}

#[test]
fn start_alone_tells_of_access_transfer_and_terminating_access() {
    let facts = SessionFacts {
        method: b"INVITE",
        initial_icid: b"icid-0",
        access_transfer: Some(AccessTransfer {
            transfer_type: AccessTransferType::PsToCs,
            access_network_info: &[],
            is_inter_ue: None,
            instance_id: b"",
            change_time: UnixMillis(0),
        }),
        ..SessionFacts::default()
    };
    let mut call = Call::new();
    let time = call.now.wall;
    call.trigger(&Trigger::SetUp {
        facts: &facts,
        request_time: time,
    });
    call.trigger(&Trigger::Answered {
        response_time: time,
        answer_known: true,
        sdp: &[],
        called: CalledSide {
            term_ioi: b"",
            transit_ioi: b"",
            asserted_identity: &[],
        },
        terminating_access: Some(TerminatingAccess::Ps),
        message_bodies: &[MessageBody {
            content_type: b"text/plain",
            content_length: 3,
            disposition: b"",
            from_called_party: true,
        }],
    });
    let start = call.encoded();
    assert_eq!(value(&start, d::TAD_IDENTIFIER), Some(vec![0, 0, 0, 1]));
    assert!(value(&start, d::ACCESS_TRANSFER_INFORMATION).is_some());
    assert!(value(&start, d::MESSAGE_BODY).is_some());
    call.acknowledge(2001, None);
    call.end();
    let stop = call.encoded();
    assert_eq!(value(&stop, d::TAD_IDENTIFIER), None);
    assert_eq!(value(&stop, d::ACCESS_TRANSFER_INFORMATION), None);
    let initial = value(&stop, d::INITIAL_IMS_CHARGING_IDENTIFIER);
    assert_eq!(initial, Some(b"icid-0".to_vec()), "columns S, I and S");
}

#[test]
fn a_tariff_before_the_first_record_goes_into_it() {
    let mut class = class();
    class.rows.interim_on_tariff = true;
    for answered in [true, false] {
        let mut call = Call::with(class.clone());
        call.set_up();
        call.trigger(&Trigger::TariffReceived { xml: b"<one/>" });
        call.trigger(&Trigger::TariffReceived { xml: b"<two/>" });
        if answered {
            call.answer(true);
        } else {
            let response_time = call.now.wall;
            call.trigger(&Trigger::SetUpFailed {
                cause: SetUpFailure::Response(486),
                reasons: &[],
                response_time,
            });
        }
        let acr = call.encoded();
        let group = ims_avps(&acr)
            .iter()
            .find(|avp| avp.is(d::REAL_TIME_TARIFF_INFORMATION))
            .map(|avp| {
                avp.grouped()
                    .unwrap()
                    .next()
                    .unwrap()
                    .unwrap()
                    .data
                    .to_vec()
            });
        assert_eq!(group, Some(b"<two/>".to_vec()));
    }
}
