//! What must hold: at the node's edge while the world runs, and of the bill when it is over.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use charging::server::ReceivedRecord;
use charging::state::RecordType;
use dataplane::sip::{Index, Message, Method, parse};

use crate::sim::{WALL, World};
use crate::ua::Phone;

/// What crossed the node's edge.
#[derive(Default)]
pub struct Watch {
    /// Requests that arrived, by sender, branch and method.
    pub arrived: BTreeMap<(SocketAddr, String, String), Arrived>,
    /// When the first BYE from a phone arrived.
    pub bye_in: BTreeMap<SocketAddr, u64>,
    /// When the first BYE to a phone left, that of a losing fork aside.
    pub bye_out: BTreeMap<SocketAddr, u64>,
    /// When the first ACK to a phone's first INVITE arrived.
    pub ack_in: BTreeMap<SocketAddr, u64>,
    /// How many ACKs left for a phone.
    pub acks_out: BTreeMap<SocketAddr, u32>,
}

/// A request that arrived and what the node answered.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// When its first copy arrived.
    pub at: u64,
    /// In which run of the node, or time of peace of the cluster.
    pub life: u32,
    /// It stood outside dialogs.
    pub initial: bool,
    /// The final answer and the run of the node it came from.
    pub answer: Option<(u16, u32, Vec<u8>)>,
}

impl Watch {
    /// A datagram arrived at the node.
    pub fn on_arrival(&mut self, now: u64, life: u32, from: SocketAddr, bytes: &[u8]) {
        let mut index = Index::new();
        let Ok(message) = parse(bytes, &mut index) else {
            return;
        };
        if !message.is_request() {
            return;
        }
        match message.method() {
            Method::Ack => {
                if message.cseq().0 == 1 {
                    self.ack_in.entry(from).or_insert(now);
                }
                return;
            }
            Method::Bye => {
                self.bye_in.entry(from).or_insert(now);
            }
            _ => {}
        }
        let key = (from, branch(&message), text(message.method_text()));
        let initial = message.to_tag().is_none();
        self.arrived.entry(key).or_insert(Arrived {
            at: now,
            life,
            initial,
            answer: None,
        });
    }

    /// A datagram left the node in its run number `life`.
    pub fn on_departure(
        &mut self,
        now: u64,
        life: u32,
        disturbed: bool,
        to: SocketAddr,
        bytes: &[u8],
        violations: &mut Vec<String>,
    ) {
        let mut index = Index::new();
        let message = match parse(bytes, &mut index) {
            Ok(message) => message,
            Err(error) => {
                violations.push(format!(
                    "{now}: the node sends what is unreadable: {error:?}"
                ));
                return;
            }
        };
        if message.is_request() {
            let fork = message.to_tag().is_some_and(|tag| tag.ends_with(b"-fork"));
            if message.method() == Method::Bye && !fork {
                self.bye_out.entry(to).or_insert(now);
            }
            if message.method() == Method::Ack {
                *self.acks_out.entry(to).or_default() += 1;
            }
            return;
        }
        let method = message.cseq().1.as_str().to_owned();
        let key = (to, branch(&message), method);
        let Some(arrived) = self.arrived.get_mut(&key) else {
            violations.push(format!("{now}: an answer to nothing: {}", text(bytes)));
            return;
        };
        let code = message.status();
        // A node that was cut off may have answered what another one answers too.
        let peace = !disturbed;
        match &arrived.answer {
            _ if !peace => {}
            Some((before, of, _)) if code < 200 && *of == life => {
                violations.push(format!("{now}: {code} after {before} to {key:?}"));
            }
            Some((before, of, first)) if code >= 200 && *of == life && first != bytes => {
                violations.push(format!(
                    "{now}: a second final answer to {key:?}: {before}, then {}",
                    text(bytes)
                ));
            }
            None if code >= 200 => arrived.answer = Some((code, life, bytes.to_vec())),
            _ => {}
        }
    }
}

/// One accounting session as the CDFs know it together.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// Call-ID of the caller's leg.
    pub call_id: String,
    /// Number, type, Event-Timestamp (s), Cause-Code, SIP-Request-Timestamp (ms), of each record.
    pub records: BTreeMap<u32, Record>,
}

/// What the checks want of a record.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Accounting-Record-Type.
    pub kind: RecordType,
    /// Event-Timestamp, seconds.
    pub at_s: u64,
    /// Cause-Code.
    pub cause: Option<i32>,
    /// SIP-Request-Timestamp, milliseconds since the world began.
    pub asked: Option<u64>,
    /// SIP-Response-Timestamp, milliseconds since the world began.
    pub answered: Option<u64>,
}

impl Session {
    /// How many records of a type there are.
    #[must_use]
    pub fn count(&self, kind: RecordType) -> usize {
        self.records
            .values()
            .filter(|record| record.kind == kind)
            .count()
    }

    /// The record of a type.
    #[must_use]
    pub fn one(&self, kind: RecordType) -> Option<Record> {
        self.records
            .values()
            .find(|record| record.kind == kind)
            .copied()
    }
}

impl World {
    /// The accounting sessions of all CDFs, duplicates removed.
    #[must_use]
    pub fn sessions(&self) -> BTreeMap<Vec<u8>, Session> {
        let mut union: BTreeMap<Vec<u8>, Session> = BTreeMap::new();
        for far in &self.fars {
            let store = far.cdf.store();
            for id in store.sessions() {
                let session = union.entry(id.to_vec()).or_default();
                for record in store.records(id) {
                    session.call_id = text(record.user_session_id);
                    session
                        .records
                        .entry(record.record_number)
                        .or_insert(Record {
                            kind: record.record_type,
                            at_s: record.event_time_s.unwrap_or(0),
                            cause: record.cause_code,
                            asked: record.request_time.map(|at| at.0.saturating_sub(WALL)),
                            answered: record.response_time.map(|at| at.0.saturating_sub(WALL)),
                        });
                }
            }
        }
        union
    }

    /// The accounting sessions of a caller's call.
    #[must_use]
    pub fn sessions_of(&self, caller: usize) -> Vec<Session> {
        let call_id = &self.phones[caller].call_id;
        self.sessions()
            .into_values()
            .filter(|session| session.call_id == *call_id)
            .collect()
    }

    /// Everything that is wrong, now that the world has come to rest.
    pub fn verdict(&mut self) -> Vec<String> {
        let mut wrong = std::mem::take(&mut self.violations);
        wrong.extend(self.leftovers());
        self.check_stores(&mut wrong);
        self.check_answers(&mut wrong);
        let sessions = self.sessions();
        for session in sessions.values() {
            if !self
                .phones
                .iter()
                .any(|phone| phone.call_id == session.call_id)
            {
                wrong.push(format!("a bill for nothing: {session:?}"));
            }
        }
        for caller in 0..self.phones.len() {
            if self.phones[caller].ledger.asked.is_some() {
                self.check_bill(caller, &sessions, &mut wrong);
            }
            self.check_phone(caller, &mut wrong);
        }
        wrong
    }

    pub(crate) fn check_stores(&self, wrong: &mut Vec<String>) {
        let mut all: BTreeMap<(Vec<u8>, u32), ReceivedRecord<'_>> = BTreeMap::new();
        for (place, far) in self.fars.iter().enumerate() {
            let counters = far.cdf.counters();
            if counters.record_conflicting > 0 {
                wrong.push(format!(
                    "CDF {place}: {} conflicts",
                    counters.record_conflicting
                ));
            }
            if counters.duplicate_unmarked > 0 {
                wrong.push(format!(
                    "CDF {place}: {} unmarked",
                    counters.duplicate_unmarked
                ));
            }
            if counters.acr_refused > 0 {
                wrong.push(format!(
                    "CDF {place}: {} unreadable ACRs",
                    counters.acr_refused
                ));
            }
            let store = far.cdf.store();
            for id in store.sessions() {
                for record in store.records(id) {
                    let key = (id.to_vec(), record.record_number);
                    match all.get(&key) {
                        Some(other) if !record.same_content(other.raw) => {
                            wrong.push(format!("two contents of {}", text(id)));
                        }
                        _ => {
                            all.insert(key, record);
                        }
                    }
                }
            }
        }
    }

    fn check_answers(&self, wrong: &mut Vec<String>) {
        for (key, arrived) in &self.watch.arrived {
            let disturbed = self.outages.iter().any(|(from, _)| *from >= arrived.at);
            if arrived.answer.is_none() && !disturbed {
                wrong.push(format!(
                    "{key:?}, there at {}, has no final answer",
                    arrived.at
                ));
            }
        }
    }

    // The request that opened a phone's call, as the node saw it.
    fn opening(&self, caller: &Phone) -> Option<&Arrived> {
        self.watch
            .arrived
            .iter()
            .filter(|((from, _, method), arrived)| {
                *from == caller.address && arrived.initial && method != "CANCEL"
            })
            .map(|(_, arrived)| arrived)
            .next()
    }

    fn check_bill(
        &self,
        caller: usize,
        sessions: &BTreeMap<Vec<u8>, Session>,
        wrong: &mut Vec<String>,
    ) {
        let phone = &self.phones[caller];
        let ours: Vec<_> = sessions
            .values()
            .filter(|session| session.call_id == phone.call_id)
            .collect();
        let mut complain = |what: String| {
            wrong.push(format!("call of phone {caller}: {what}; bill {ours:?}"));
        };
        for session in &ours {
            if let Err(what) = self.check_session(session) {
                complain(what);
            }
        }
        let answered = phone.ledger.answered.is_some() && phone.ledger.acknowledged.is_some();
        let sets = |kind| {
            ours.iter()
                .map(|session| session.count(kind))
                .sum::<usize>()
        };
        if self.is_disturbed(phone) {
            // The INVITE may have opened one call before the restart and one after it.
            if answered && sets(RecordType::Start) == 0 {
                complain("answered and not billed".to_owned());
            }
            return;
        }
        let Some(opening) = self.opening(phone) else {
            if !ours.is_empty() || answered {
                complain("the node never saw it".to_owned());
            }
            return;
        };
        let Some((code, ..)) = opening.answer else {
            return;
        };
        if ours.len() != 1 && !matches!(code, 420 | 422 | 482 | 483) {
            return complain(format!("{} bills, the answer was {code}", ours.len()));
        }
        let invite = phone.plan.method.is_empty();
        let Some(session) = ours.first() else { return };
        if invite && (200..300).contains(&code) {
            let counts = [RecordType::Start, RecordType::Stop, RecordType::Event].map(sets);
            if counts != [1, 1, 0] {
                return complain(format!("START, STOP, EVENT: {counts:?}"));
            }
            if let Err(what) = self.check_stop(caller, session) {
                complain(what);
            }
        } else {
            if answered && invite {
                complain(format!(
                    "the caller saw an answer where the node sent {code}"
                ));
            }
            let code = i32::from(code);
            let cause = match code {
                200 => -1,
                201..400 => -code,
                _ => code,
            };
            let event = session.one(RecordType::Event);
            if session.records.len() != 1 || event.is_none_or(|event| event.cause != Some(cause)) {
                complain(format!("EVENT with {cause} expected"));
            }
        }
    }

    // Whether the node was restarted while the call was set up.
    fn is_disturbed(&self, phone: &Phone) -> bool {
        let from = phone.ledger.asked.unwrap_or(0);
        let ledger = &phone.ledger;
        let until = ledger
            .final_at
            .max(ledger.acknowledged)
            .map_or(u64::MAX, |at| at + SETTLED_MS);
        self.outages
            .iter()
            .any(|(down, up)| *up >= from && *down <= until)
    }

    fn check_session(&self, session: &Session) -> Result<(), String> {
        let numbers: Vec<u32> = session.records.keys().copied().collect();
        let last = numbers.last().copied().unwrap_or(0);
        let whole = numbers.len() as u32 == last + 1;
        if !whole && !self.cdf_troubled {
            return Err(format!("numbers {numbers:?}"));
        }
        if session.one(RecordType::Event).is_some() {
            return match numbers.len() {
                1 => Ok(()),
                _ => Err("an EVENT and more".to_owned()),
            };
        }
        let missing = (0..=last).filter(|number| !session.records.contains_key(number));
        if missing.clone().any(|number| number == 0 || number == last) {
            return Err("START or STOP is missing".to_owned());
        }
        for (number, record) in &session.records {
            let wanted = match *number {
                0 => RecordType::Start,
                number if number == last => RecordType::Stop,
                _ => RecordType::Interim,
            };
            if record.kind != wanted {
                return Err(format!("record {number} is {:?}", record.kind));
            }
        }
        if let (Some(interval), false) = (self.setup.interim_s, self.cdf_troubled) {
            let times: Vec<u64> = session.records.values().map(|record| record.at_s).collect();
            let outage: u64 = self.outages.iter().map(|(from, until)| until - from).sum();
            let allowed = u64::from(interval) + 2 + outage.div_ceil(1_000) * 2;
            if let Some(pair) = times.windows(2).find(|pair| pair[1] > pair[0] + allowed) {
                return Err(format!("{} s without a record", pair[1] - pair[0]));
            }
        }
        Ok(())
    }

    // The STOP tells when and why the call ended.
    fn check_stop(&self, caller: usize, session: &Session) -> Result<(), String> {
        let stop = session.one(RecordType::Stop).ok_or("no STOP")?;
        let parties = [self.phones[caller].address, self.phones[caller + 1].address];
        let first = |of: &BTreeMap<SocketAddr, u64>| {
            parties
                .iter()
                .filter_map(|party| of.get(party))
                .min()
                .copied()
        };
        let (arrived, left) = (first(&self.watch.bye_in), first(&self.watch.bye_out));
        let by_phone = arrived.is_some_and(|arrived| left.is_none_or(|left| arrived <= left));
        // Two that cross within the same millisecond may have been taken in either order.
        let cross = arrived.is_some() && arrived == left;
        let ended = if by_phone { arrived } else { left };
        if stop.asked != ended {
            return Err(format!("STOP at {:?}, BYE at {ended:?}", stop.asked));
        }
        let acknowledged = self.watch.ack_in.get(&parties[0]);
        let before = acknowledged.is_some_and(|at| ended.is_some_and(|ended| *at <= ended));
        let cause = stop.cause.ok_or("no Cause-Code")?;
        let fits = match (by_phone, before) {
            _ if self.restarts > 0 => true,
            (true, true) => cause == 0 || cause == 2,
            (true, false) => cause == 2,
            (false, _) => matches!(cause, 2 | 408 | 481),
        };
        if fits || (cross && matches!(cause, 408 | 481)) {
            Ok(())
        } else {
            Err(format!("Cause-Code {cause}, ACK first: {before}"))
        }
    }

    fn check_phone(&self, number: usize, wrong: &mut Vec<String>) {
        let phone = &self.phones[number];
        let restarted = self.restarts > 0;
        if !restarted {
            wrong.extend(
                phone
                    .ledger
                    .wrong
                    .iter()
                    .map(|what| format!("phone {number}: {what}")),
            );
        }
        let fine = phone.plan.dies_at.is_none() && !restarted;
        if fine && phone.is_in_call() {
            wrong.push(format!(
                "phone {number} is still in its call: {:?}",
                phone.ledger
            ));
        }
        // A 2xx is repeated for 64*T1: an ACK that came to the node in the first half of that
        // time has to reach the phone.
        let caller = number
            .checked_sub(1)
            .map(|caller| self.phones[caller].address);
        let ack = caller.and_then(|caller| self.watch.ack_in.get(&caller));
        let early = ack
            .zip(phone.ledger.answered)
            .is_some_and(|(ack, at)| *ack < at + 16_000);
        // One in five lost each way: three of three may be.
        let acks = self.watch.acks_out.get(&phone.address).copied();
        let unlucky = self.setup.net.loss > 0 && acks.unwrap_or(0) >= ACKS_MIN;
        if fine && phone.ledger.ack_missing && early && !unlucky {
            wrong.push(format!("phone {number} never got the ACK of its 2xx"));
        }
        if self.setup.net.loss == 0 && !restarted {
            let deaf = |plan: &crate::ua::Plan| plan.dead || plan.dies_at.is_some();
            let other = self
                .phones
                .get(number ^ 1)
                .is_some_and(|other| deaf(&other.plan));
            if !other && !deaf(&phone.plan) && !phone.ledger.unanswered.is_empty() {
                wrong.push(format!(
                    "phone {number}: unanswered {:?}",
                    phone.ledger.unanswered
                ));
            }
        }
    }
}

fn branch(message: &Message<'_>) -> String {
    message
        .top_via()
        .and_then(|via| via.branch)
        .map(text)
        .unwrap_or_default()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// After that time no message of a call's set-up is under way any more.
const SETTLED_MS: u64 = 3_000;
/// So many ACKs are enough where some are lost.
const ACKS_MIN: u32 = 3;
