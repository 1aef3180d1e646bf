//! Properties that hold whatever the order of triggers, answers and failures, and of any AVP.

mod world;

use std::collections::BTreeMap;

use charging::config::{ChargingClass, LateOffer, RealtimePolicy};
use charging::diameter::avp::{Avps, Message, Writer};
use charging::diameter::dictionary as d;
use charging::rf::acr::encode_pending;
use charging::state::RecordType;
use charging::trigger::{
    CalledSide, Sdp, SdpType, ServiceType, SetUpFailure, SupplementaryService,
};
use charging::{
    AnswerSummary, CauseCode, ChargingState, Ctf, FailureAction, Now, SessionFacts, Storage,
    Trigger, UnixMillis,
};
use proptest::prelude::*;
use quanta::Instant;
use world::{SDP, class, ctf_config};

#[derive(Clone, Copy, Debug)]
enum Step {
    SetUp,
    Routed,
    EarlyMedia,
    Answered(bool),
    Ack,
    MediaChanged(u16),
    SetUpFailed(u16),
    Ended,
    ByeAnswered,
    Deadline,
    Send,
    Answer(u32, Option<u32>),
    Fail(bool),
    Adopt,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let interval = proptest::option::of(0u32..100);
    let result = prop_oneof![3 => Just(2001u32), 1 => Just(5012), 1 => Just(5002)];
    prop_oneof![
        1 => Just(Step::SetUp),
        1 => Just(Step::Routed),
        1 => Just(Step::EarlyMedia),
        2 => any::<bool>().prop_map(Step::Answered),
        1 => Just(Step::Ack),
        2 => prop_oneof![Just(200u16), Just(488)].prop_map(Step::MediaChanged),
        1 => prop_oneof![Just(302u16), Just(407), Just(486)].prop_map(Step::SetUpFailed),
        1 => Just(Step::Ended),
        1 => Just(Step::ByeAnswered),
        4 => Just(Step::Deadline),
        4 => Just(Step::Send),
        5 => (result, interval).prop_map(|(code, interval)| Step::Answer(code, interval)),
        2 => any::<bool>().prop_map(Step::Fail),
        1 => Just(Step::Adopt),
        1 => Just(Step::Restart),
    ]
}

fn any_class() -> impl Strategy<Value = ChargingClass> {
    let realtime = prop_oneof![
        Just(RealtimePolicy::DeliverAndGrant),
        Just(RealtimePolicy::GrantAndStore),
        Just(RealtimePolicy::GrantAndLose)
    ];
    (realtime, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(realtime, at_ack, hold, reset)| {
            let mut class = ChargingClass {
                realtime,
                interim_reset_on_sip: reset,
                ..class()
            };
            class.rows.stop_at_bye_answer = hold;
            if at_ack {
                class.late_offer = LateOffer::StartAtAck;
            }
            class
        },
    )
}

/// One call and all that ever left for the CDF, by record number.
struct Call {
    ctf: Ctf,
    state: ChargingState,
    now: Now,
    seen: BTreeMap<u32, Vec<u8>>,
    types: BTreeMap<u32, RecordType>,
    ended: bool,
}

impl Call {
    fn new(class: ChargingClass) -> Self {
        let now = Now {
            instant: Instant::recent(),
            wall: UnixMillis(1_700_000_000_000),
            steady: UnixMillis(1_700_000_000_000),
        };
        Self {
            ctf: Ctf::new(ctf_config(class), now),
            state: ChargingState::default(),
            now,
            seen: BTreeMap::new(),
            types: BTreeMap::new(),
            ended: false,
        }
    }

    fn set_up(&mut self) {
        let facts = SessionFacts {
            method: b"INVITE",
            ..SessionFacts::default()
        };
        let request_time = self.now.wall;
        self.trigger(&Trigger::SetUp {
            facts: &facts,
            request_time,
        });
    }

    fn pass(&mut self, ms: u64) {
        self.now.wall = self.now.wall.plus_ms(ms);
        self.now.steady = self.now.steady.plus_ms(ms);
    }

    fn trigger(&mut self, trigger: &Trigger<'_>) {
        self.ctf.on_trigger(self.now, &mut self.state, trigger);
    }

    fn step(&mut self, step: Step) {
        self.pass(1_700);
        let time = self.now.wall;
        let sdp = [Sdp::new(SDP, SdpType::Offer)];
        match step {
            Step::SetUp => self.set_up(),
            Step::Routed => {
                let (called_party, outgoing_session_id) = (&b"tel:1"[..], &b"x"[..]);
                self.trigger(&Trigger::Routed {
                    called_party,
                    outgoing_session_id,
                    nni: None,
                });
            }
            Step::EarlyMedia => self.trigger(&Trigger::EarlyMedia {
                offer: Some(sdp[0]),
                offer_time: Some(time),
                answer: None,
                answer_time: None,
            }),
            Step::Answered(answer_known) => self.trigger(&Trigger::Answered {
                response_time: time,
                answer_known,
                sdp: &sdp,
                called: CalledSide {
                    term_ioi: b"b",
                    transit_ioi: b"",
                    asserted_identity: &[b"tel:2"],
                },
                terminating_access: None,
                message_bodies: &[],
            }),
            Step::Ack => self.trigger(&Trigger::AckWithAnswer {
                request_time: time,
                sdp: &sdp,
            }),
            Step::MediaChanged(code) => self.change_media(time, code, &sdp),
            Step::SetUpFailed(code) => {
                let cause = SetUpFailure::Response(code);
                self.trigger(&Trigger::SetUpFailed {
                    cause,
                    reasons: &[],
                    response_time: time,
                });
            }
            Step::Ended => {
                let cause = CauseCode::NORMAL;
                self.trigger(&Trigger::Ended {
                    cause,
                    reasons: &[],
                    request_time: time,
                    message_bodies: &[],
                });
            }
            Step::ByeAnswered => {
                self.trigger(&Trigger::ByeAnswered {
                    access_network_info: &[b"3GPP"],
                });
            }
            Step::Deadline => self.deadline(),
            Step::Send => {
                self.send();
            }
            Step::Answer(code, interval) => self.answer(code, interval),
            Step::Fail(space) => self.fail(space),
            Step::Adopt => self.ctf.adopt(self.now, &mut self.state, 2_000),
            Step::Restart => self.restart(),
        }
    }

    fn change_media(&mut self, time: UnixMillis, code: u16, sdp: &[Sdp<'_>]) {
        let service = SupplementaryService {
            service_type: ServiceType::Hold,
            mode: None,
            diversions: None,
            associated_party: b"",
        };
        self.trigger(&Trigger::MediaChanged {
            method: b"INVITE",
            request_time: time,
            response_time: time,
            code,
            sdp,
            called_identity: b"",
            message_bodies: &[],
            services: &[service],
        });
    }

    fn deadline(&mut self) {
        if let Some(due) = self.state.next_deadline() {
            self.pass(due.ms_since(self.now.steady));
            self.ctf.on_deadline(self.now, &mut self.state);
        }
    }

    /// Hands the pending record to the wire, and checks what went before.
    fn send(&mut self) -> bool {
        let Some(key) = self.state.request_to_send() else {
            return false;
        };
        let mut bytes = Vec::new();
        assert!(encode_pending(&self.state, &mut bytes));
        self.state.on_sent();
        self.on_wire(key.number, key.record_type, bytes);
        true
    }

    fn on_wire(&mut self, number: u32, record_type: RecordType, mut bytes: Vec<u8>) {
        let marked = bytes[4] & 0x10 != 0;
        bytes[4] &= !0x10;
        if let Some(before) = self.seen.get(&number) {
            assert_eq!(before, &bytes, "record {number} changed its content");
            assert!(marked, "a copy without T flag");
        }
        let last = self.seen.keys().next_back().copied();
        assert!(
            last.is_none_or(|last| number == last || number == last + 1),
            "a gap"
        );
        assert!(
            !self.ended || last == Some(number),
            "a record after the end"
        );
        self.ended |= matches!(record_type, RecordType::Stop | RecordType::Event);
        self.types.insert(number, record_type);
        self.seen.insert(number, bytes);
    }

    fn answer(&mut self, result_code: u32, interim_interval_s: Option<u32>) {
        if self.state.request_to_send().is_some() {
            return;
        }
        let answer = AnswerSummary {
            result_code,
            interim_interval_s,
            ..AnswerSummary::default()
        };
        self.ctf.on_answer(self.now, &mut self.state, &answer);
    }

    fn fail(&mut self, space: bool) {
        if self.send() || self.state.request_to_send().is_none() {
            let mut stored = Vec::new();
            let storage = if space { Storage::Space } else { Storage::Full };
            let action = self
                .ctf
                .on_send_failure(self.now, &mut self.state, storage, &mut stored);
            if let FailureAction::Store(_) = action {
                assert!(Message::parse(&stored).unwrap().header.is_retransmitted());
                stored[4] &= !0x10;
                assert!(self.seen.values().any(|seen| *seen == stored));
            }
        }
    }

    /// The state goes through its archive to another node.
    fn restart(&mut self) {
        let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(&self.state).unwrap();
        self.state = rkyv::from_bytes::<_, rkyv::rancor::Error>(&bytes).unwrap();
        self.ctf.adopt(self.now, &mut self.state, 2_000);
    }

    /// Ends the call whatever happened before, with a CDF that answers.
    fn finish(&mut self) {
        self.step(Step::Ended);
        for _ in 0..20 {
            self.deadline();
            self.send();
            self.answer(2001, Some(0));
        }
        assert!(self.state.is_finished());
        assert_eq!(self.state.next_deadline(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    #[test]
    fn every_start_has_one_stop_and_nothing_follows_it(
        class in any_class(),
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let mut call = Call::new(class);
        call.step(Step::SetUp);
        for step in steps {
            call.step(step);
        }
        call.finish();
        let count = |wanted| call.types.values().filter(|one| **one == wanted).count();
        let (starts, stops, events) =
            (count(RecordType::Start), count(RecordType::Stop), count(RecordType::Event));
        prop_assert_eq!(starts, stops);
        prop_assert!(starts + events <= 1);
        prop_assert!(call.types.keys().copied().eq(0..call.types.len() as u32));
    }

    #[test]
    fn any_avp_survives_the_round_trip(
        data in proptest::collection::vec(any::<u8>(), 0..200),
        index in 0..d::ALL.len(),
        number in any::<u32>(),
    ) {
        let attribute = d::ALL[index].1;
        let mut out = Vec::new();
        let mut writer = Writer::avps(&mut out);
        writer.octets(attribute, &data);
        let group = writer.open(d::SERVICE_INFORMATION);
        writer.u32(attribute, number);
        writer.close(group);
        prop_assert_eq!(out.len() % 4, 0);
        let avps: Vec<_> = Avps::new(&out).map(Result::unwrap).collect();
        prop_assert_eq!(avps.len(), 2);
        prop_assert!(avps[0].is(attribute));
        prop_assert_eq!(avps[0].data, &data[..]);
        let inner = avps[1].grouped().unwrap().next().unwrap().unwrap();
        prop_assert_eq!(inner.u32(), Ok(number));
    }

    #[test]
    fn any_octets_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        fn walk(avps: Avps<'_>) {
            for avp in avps.map_while(Result::ok) {
                let _ = (avp.u32(), avp.i32(), avp.u64(), avp.unix_seconds());
                if let Ok(inner) = avp.grouped() {
                    walk(inner);
                }
            }
        }
        walk(Avps::new(&bytes));
        if let Ok(message) = Message::parse(&bytes) {
            walk(message.avps());
        }
    }

    #[test]
    fn any_text_becomes_utf_8_and_never_grows(data in proptest::collection::vec(any::<u8>(), 0..99)) {
        let mut out = Vec::new();
        Writer::avps(&mut out).text(d::FROM_ADDRESS, &data);
        let avp = Avps::new(&out).next().unwrap().unwrap();
        prop_assert!(std::str::from_utf8(avp.data).is_ok());
        prop_assert!(avp.data.len() <= data.len());
    }
}
