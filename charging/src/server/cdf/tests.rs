//! The CDF against a router, and against requests no decent router sends.

use super::super::{Cdr, InterimLost, MemoryCdfStore};
use super::*;
use crate::diameter::base::tests::identity;
use crate::diameter::header::{Header, PROXIABLE, REQUEST, RETRANSMITTED};

type TestCdf = Cdf<MemoryCdfStore>;

fn cdf() -> TestCdf {
    let config = CdfConfig {
        identity: identity("cdf.example"),
        peer: PeerConfig::default(),
        connections_max: 2,
        interim_interval_s: Some(300),
    };
    Cdf::new(config, MemoryCdfStore::default(), 1)
}

/// A CDF with one client that exchanged capabilities.
struct Rig {
    cdf: TestCdf,
    id: ConnectionId,
    now: Instant,
}

impl Rig {
    fn new() -> Self {
        let now = Instant::recent();
        let mut cdf = cdf();
        let id = cdf.accept(now).unwrap();
        let mut rig = Self { cdf, id, now };
        let mut cer = Vec::new();
        base::encode_cer(&mut cer, &identity("ctf.example"), 1, 1);
        assert_eq!(rig.ask(&cer).len(), 1);
        rig
    }

    fn ask(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.cdf.handle_bytes(self.now, self.id, bytes);
        self.answers()
    }

    fn answers(&mut self) -> Vec<Vec<u8>> {
        let bytes = std::mem::take(self.cdf.transmit(self.id).unwrap());
        let mut rest = bytes.as_slice();
        let mut answers = Vec::new();
        while let Ok(header) = Header::parse(rest) {
            let (one, more) = rest.split_at(header.length as usize);
            answers.push(one.to_vec());
            rest = more;
        }
        answers
    }

    fn result(&mut self, bytes: &[u8]) -> u32 {
        let answers = self.ask(bytes);
        let message = Message::parse(&answers[0]).unwrap();
        message.find(d::RESULT_CODE).unwrap().u32().unwrap()
    }
}

fn build(
    flags: u8,
    command: u32,
    application: u32,
    write: impl FnOnce(&mut Writer<'_>),
) -> Vec<u8> {
    let mut out = Vec::new();
    let header = Header::new(REQUEST | PROXIABLE | flags, command, application);
    let mut writer = Writer::message(&mut out, &header);
    write(&mut writer);
    writer.finish();
    out
}

fn head(writer: &mut Writer<'_>, record_type: u32, number: u32) {
    writer.text(d::SESSION_ID, b"ctf.example;1;1;0.1");
    writer.text(d::ORIGIN_HOST, b"ctf.example");
    writer.text(d::ORIGIN_REALM, b"example");
    writer.text(d::DESTINATION_REALM, b"example");
    writer.u32(d::ACCOUNTING_RECORD_TYPE, record_type);
    writer.u32(d::ACCOUNTING_RECORD_NUMBER, number);
}

fn acr(flags: u8, record_type: RecordType, number: u32, event_s: u64) -> Vec<u8> {
    build(flags, d::ACCOUNTING, 3, |writer| {
        head(writer, record_type as u32, number);
        writer.time(d::EVENT_TIMESTAMP, event_s);
        let service = writer.open(d::SERVICE_INFORMATION);
        let ims = writer.open(d::IMS_INFORMATION);
        writer.text(d::CALLING_PARTY_ADDRESS, b"tel:1");
        writer.text(d::CALLED_PARTY_ADDRESS, b"tel:2");
        let stamps = writer.open(d::TIME_STAMPS);
        writer.time(d::SIP_REQUEST_TIMESTAMP, event_s);
        writer.u32(d::SIP_REQUEST_TIMESTAMP_FRACTION, 250);
        if record_type == RecordType::Start {
            writer.time(d::SIP_RESPONSE_TIMESTAMP, event_s + 2);
            writer.u32(d::SIP_RESPONSE_TIMESTAMP_FRACTION, 500);
        }
        writer.close(stamps);
        if record_type == RecordType::Stop {
            writer.i32(d::CAUSE_CODE, 0);
        }
        writer.close(ims);
        writer.close(service);
    })
}

#[test]
fn a_record_is_kept_and_answered_with_the_interval() {
    let mut rig = Rig::new();
    let answers = rig.ask(&acr(0, RecordType::Start, 0, 1_000_000));
    let aca = Message::parse(&answers[0]).unwrap();
    let codes: Vec<u32> = aca.avps().map(|avp| avp.unwrap().code).collect();
    assert_eq!(codes, [263, 268, 264, 296, 480, 485, 259, 85, 278]);
    assert_eq!(aca.find(d::RESULT_CODE).unwrap().u32(), Ok(2001));
    assert_eq!(aca.find(d::ACCT_INTERIM_INTERVAL).unwrap().u32(), Ok(300));
    assert_eq!(aca.header.flags, PROXIABLE);
    let answers = rig.ask(&acr(0, RecordType::Stop, 1, 1_000_100));
    assert!(
        Message::parse(&answers[0])
            .unwrap()
            .find(d::ACCT_INTERIM_INTERVAL)
            .is_none()
    );
    assert_eq!(rig.cdf.counters().record_kept, 2);
}

#[test]
fn duplicates_are_discarded_and_conflicts_counted() {
    let mut rig = Rig::new();
    let start = acr(0, RecordType::Start, 0, 1_000_000);
    let mut copy = start.clone();
    copy[4] |= RETRANSMITTED;
    for bytes in [&start, &copy, &start] {
        assert_eq!(rig.result(bytes), 2001);
    }
    assert_eq!(
        rig.result(&acr(RETRANSMITTED, RecordType::Start, 0, 1_000_001)),
        2001
    );
    assert_eq!(
        rig.result(&acr(RETRANSMITTED, RecordType::Stop, 1, 1_000_009)),
        2001
    );
    let counters = rig.cdf.counters();
    assert_eq!(counters.record_kept, 2);
    assert_eq!(counters.record_kept_retransmitted, 1);
    assert_eq!(
        (counters.duplicate_discarded, counters.duplicate_unmarked),
        (1, 1)
    );
    assert_eq!(counters.record_conflicting, 1);
    assert_eq!(rig.cdf.store().len(), 2);
}

#[test]
fn what_agents_add_makes_no_conflict() {
    let mut rig = Rig::new();
    let start = acr(0, RecordType::Start, 0, 1_000_000);
    rig.ask(&start);
    let mut routed = start.clone();
    routed[4] |= RETRANSMITTED;
    let mut writer = Writer::avps(&mut routed);
    writer.text(d::ROUTE_RECORD, b"agent.example");
    let length = routed.len();
    routed[1..4].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
    rig.ask(&routed);
    assert_eq!(rig.cdf.counters().duplicate_discarded, 1);
}

#[test]
fn requests_that_are_wrong_are_told_why() {
    let mut rig = Rig::new();
    let unknown = build(0, 999, 3, |writer| writer.text(d::SESSION_ID, b"x;1;1"));
    assert_eq!(rig.result(&unknown), 3001);
    let other = build(0, d::ACCOUNTING, 9, |writer| head(writer, 2, 0));
    assert_eq!(rig.result(&other), 3007);
    let bad_type = build(0, d::ACCOUNTING, 3, |writer| head(writer, 9, 0));
    assert_eq!(rig.result(&bad_type), 5004);
    let twice = build(0, d::ACCOUNTING, 3, |writer| {
        head(writer, 2, 0);
        writer.text(d::ORIGIN_HOST, b"again.example");
    });
    assert_eq!(rig.result(&twice), 5009);
    let mut short = build(0, d::ACCOUNTING, 3, |writer| {
        head(writer, 2, 0);
        writer.octets(d::ACCT_INTERIM_INTERVAL, b"abc");
    });
    assert_eq!(rig.result(&short), 5014);
    let end = short.len() - 5;
    short[end] = 0xFF;
    assert_eq!(rig.result(&short), 5014);
    assert_eq!(rig.cdf.counters().acr_refused, 4);
    assert!(rig.cdf.store().is_empty());
}

#[test]
fn two_service_informations_in_one_record_are_refused() {
    let mut rig = Rig::new();
    let twice = build(0, d::ACCOUNTING, 3, |writer| {
        head(writer, 2, 0);
        for _ in 0..2 {
            let group = writer.open(d::SERVICE_INFORMATION);
            writer.close(group);
        }
    });
    assert_eq!(rig.result(&twice), 5009);
}

#[test]
fn a_missing_avp_is_named() {
    let mut rig = Rig::new();
    let bytes = build(0, d::ACCOUNTING, 3, |writer| {
        writer.text(d::SESSION_ID, b"x;1;1");
        writer.text(d::ORIGIN_HOST, b"x");
    });
    let answers = rig.ask(&bytes);
    let answer = Message::parse(&answers[0]).unwrap();
    assert_eq!(answer.find(d::RESULT_CODE).unwrap().u32(), Ok(5005));
    let failed = answer
        .find(d::FAILED_AVP)
        .unwrap()
        .grouped()
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert!(failed.is(d::ORIGIN_REALM));
    assert_eq!(answer.find(d::SESSION_ID).unwrap().data, b"x;1;1");
}

#[test]
fn faults_are_applied_once_or_for_good() {
    let mut rig = Rig::new();
    let start = acr(0, RecordType::Start, 0, 1_000_000);
    for fault in [
        Fault::Drop,
        Fault::Silent,
        Fault::Refuse(3004),
        Fault::AnswerTwice,
    ] {
        assert!(rig.cdf.queue_fault(fault));
    }
    assert!(rig.ask(&start).is_empty());
    assert!(rig.cdf.store().is_empty());
    assert!(rig.ask(&start).is_empty());
    assert_eq!(rig.cdf.store().len(), 1);
    assert_eq!(rig.result(&start), 3004);
    assert_eq!(rig.ask(&start).len(), 2);
    rig.cdf.set_fault(Fault::Delay { ms: 700 });
    assert!(rig.ask(&start).is_empty());
    rig.now = rig.cdf.next_deadline().unwrap();
    rig.cdf.handle_timeout(rig.now);
    assert_eq!(rig.answers().len(), 1);
    rig.cdf.set_fault(Fault::LieAboutNumber);
    let lie = rig.ask(&start);
    let number = Message::parse(&lie[0])
        .unwrap()
        .find(d::ACCOUNTING_RECORD_NUMBER)
        .unwrap();
    assert_eq!(number.u32(), Ok(1));
}

#[test]
fn connections_are_bounded_and_names_not_reused() {
    let now = Instant::recent();
    let mut cdf = cdf();
    let first = cdf.accept(now).unwrap();
    cdf.accept(now).unwrap();
    assert_eq!(cdf.accept(now), None);
    cdf.on_closed(first);
    assert!(cdf.accept(now).unwrap() > first);
    assert_eq!(cdf.counters().connection_refused, 1);
}

#[test]
fn a_connection_without_cer_is_closed() {
    let now = Instant::recent();
    let mut cdf = cdf();
    let id = cdf.accept(now).unwrap();
    cdf.handle_timeout(cdf.next_deadline().unwrap());
    assert_eq!(cdf.poll_io(), Some(CdfIo::Close(id)));
}

/// A store whose device fails at commit.
#[derive(Debug, Default)]
struct Broken(MemoryCdfStore);

impl CdfStore for Broken {
    fn put(&mut self, record: &ReceivedRecord<'_>) -> Result<Put, crate::rf::backlog::StoreError> {
        self.0.put(record)
    }

    fn commit(&mut self) -> Result<(), crate::rf::backlog::StoreError> {
        Err(crate::rf::backlog::StoreError::Failed)
    }
}

#[test]
fn nothing_is_acknowledged_that_was_not_committed() {
    let now = Instant::recent();
    let config = cdf().config;
    let mut cdf = Cdf::new(config, Broken::default(), 1);
    let id = cdf.accept(now).unwrap();
    let mut bytes = Vec::new();
    base::encode_cer(&mut bytes, &identity("ctf.example"), 1, 1);
    cdf.handle_bytes(now, id, &bytes);
    cdf.transmit(id).unwrap().clear();
    cdf.handle_bytes(now, id, &acr(0, RecordType::Start, 0, 1));
    assert!(cdf.transmit(id).is_none());
    assert_eq!(cdf.poll_io(), Some(CdfIo::Close(id)));
}

/// The CDR after these records arrived in this order.
fn cdr(records: &[(RecordType, u32, u64)], is_over: bool, check: impl FnOnce(&Cdr<'_>)) {
    let mut rig = Rig::new();
    for &(record_type, number, event_s) in records {
        rig.ask(&acr(0, record_type, number, event_s));
    }
    let records = rig.cdf.store().records(b"ctf.example;1;1;0.1");
    check(&Cdr::assemble(&records, is_over).unwrap());
}

use RecordType::{Event, Interim, Start, Stop};

#[test]
fn a_complete_session_becomes_a_complete_cdr_in_any_order() {
    cdr(
        &[(Stop, 2, 1_060), (Start, 0, 1_000), (Interim, 1, 1_030)],
        true,
        |cdr| {
            // From the 2xx at 1002.500 to the BYE at 1060.250.
            assert_eq!(cdr.duration_ms, Some(57_750));
            assert_eq!((cdr.records, cdr.interims, cdr.cause_code), (3, 1, Some(0)));
            assert!(!cdr.start_lost && !cdr.stop_lost && !cdr.is_event);
            assert_eq!(cdr.interim_lost, InterimLost::No);
            assert_eq!(
                (cdr.calling_party, cdr.called_party),
                (&b"tel:1"[..], &b"tel:2"[..])
            );
        },
    );
}

#[test]
fn what_is_lost_is_marked() {
    cdr(&[(Interim, 1, 1_030), (Stop, 2, 1_060)], true, |cdr| {
        assert!(cdr.start_lost && !cdr.stop_lost);
        assert_eq!((cdr.duration_ms, cdr.interim_lost), (None, InterimLost::No));
    });
    cdr(
        &[(Start, 0, 1_000), (Interim, 2, 1_030), (Stop, 3, 1_060)],
        true,
        |cdr| {
            assert_eq!(cdr.interim_lost, InterimLost::Yes);
        },
    );
    cdr(&[(Start, 0, 1_000), (Interim, 1, 1_030)], true, |cdr| {
        assert!(cdr.stop_lost);
        assert_eq!(cdr.interim_lost, InterimLost::Unknown);
        assert_eq!(cdr.duration_ms, Some(27_500));
    });
    cdr(&[(Start, 0, 1_000)], false, |cdr| {
        assert!(!cdr.stop_lost && cdr.duration_ms.is_none());
    });
    cdr(&[(Event, 0, 1_000)], true, |cdr| {
        assert!(cdr.is_event && !cdr.start_lost && !cdr.stop_lost);
        assert_eq!(cdr.interim_lost, InterimLost::No);
    });
}
