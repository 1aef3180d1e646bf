//! The charging trigger function: what a call reports becomes records of its accounting session.
//!
//! ```text
//!  call ──Trigger──▶ on_trigger ──▶ ChargingState (pending record) ──commit──▶ send
//!  router ──answer──▶ on_answer          ▲
//!  router ──failure─▶ on_send_failure    │ after each: request_to_send(), next_deadline(),
//!  clock ──────────▶ on_deadline         │             is_finished()
//! ```
//!
//! The function itself holds no call: everything a successor needs is in the state it is given.

use crate::config::{ChargingClass, CtfConfig};
use crate::diameter::avp::Writer;
use crate::diameter::dictionary::result;
use crate::diameter::routing::AnswerSummary;
use crate::ims;
use crate::random::SplitMix64;
use crate::rf::acr;
use crate::rf::session::{ClientAction, ClientEvent};
use crate::state::{AccountingSession, ChargingState, Record, RecordType};
use crate::time::{Now, UnixMillis};
use crate::trigger::{CauseCode, Trigger, Verdict};
use spare::Spare;

mod opening;
mod running;
mod spare;

/// What happened, per shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CtfCounters {
    /// STARTs made.
    pub acr_start_made: u64,
    /// INTERIMs made.
    pub acr_interim_made: u64,
    /// STOPs made.
    pub acr_stop_made: u64,
    /// EVENTs made.
    pub acr_event_made: u64,
    /// Waiting INTERIMs replaced by newer ones (RFC 6733 s9.5).
    pub acr_interim_overwritten: u64,
    /// Records a CDF acknowledged.
    pub acr_delivered: u64,
    /// Records acknowledged with 2002.
    pub acr_limited_success: u64,
    /// Records handed to the backlog.
    pub acr_stored: u64,
    /// Records lost: no space, or by policy.
    pub acr_lost: u64,
    /// Answers with a failure.
    pub aca_failed: u64,
    /// 5002: the CDF does not know the session. The record counts as delivered.
    pub aca_unknown_session: u64,
    /// Answers for another record than the pending one, ignored.
    pub aca_unexpected: u64,
    /// Calls ended because their records could not be delivered.
    pub call_disconnected: u64,
    /// Triggers without effect: repeated, too late, or too early.
    pub trigger_ignored: u64,
    /// Calls taken up whose charging class is not there any more: the default class is theirs.
    pub class_unknown: u64,
}

/// Is there room for the record that could not be sent?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Yes, or an older INTERIM of the session can be overwritten.
    Space,
    /// No.
    Full,
}

/// What to do with a record that could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureAction {
    /// Put the rendered record into the backlog.
    Store(Verdict),
    /// It is lost, and counted.
    Lose(Verdict),
    /// No record was pending.
    Nothing,
}

/// The charging trigger function of one shard.
#[derive(Debug)]
pub struct Ctf {
    config: CtfConfig,
    random: SplitMix64,
    sequence: u64,
    next_end_to_end: u32,
    /// Memory of former records and sessions.
    spare: Spare,
    /// What happened.
    pub counters: CtfCounters,
}

impl Ctf {
    /// A function that mints Session-Ids from sequence 1 of this boot.
    #[must_use]
    pub fn new(config: CtfConfig, now: Now) -> Self {
        let mut random = SplitMix64::new(config.seed);
        // RFC 6733 s3: the low 12 bits of the time, then 20 random bits that count up.
        let next_end_to_end = ((now.wall.seconds() as u32) << 20) | (random.next_u32() >> 12);
        Self {
            random,
            sequence: 0,
            next_end_to_end,
            spare: Spare::default(),
            counters: CtfCounters::default(),
            config,
        }
    }

    /// A call reports something.
    pub fn on_trigger(
        &mut self,
        now: Now,
        state: &mut ChargingState,
        trigger: &Trigger<'_>,
    ) -> Verdict {
        match *trigger {
            Trigger::SetUp {
                facts,
                request_time,
            } => {
                self.on_set_up(state, facts, request_time);
                return Verdict::GoOn;
            }
            Trigger::OneShot { facts, .. } => {
                self.on_one_shot(now, state, facts, trigger);
                return Verdict::GoOn;
            }
            _ => {}
        }
        let Some(session) = state.accounting.as_mut() else {
            return Verdict::GoOn;
        };
        if session.opening.is_some() {
            if self.on_early_trigger(now, session, trigger) {
                self.recycle(state);
            }
        } else {
            self.on_session_trigger(now, session, trigger);
        }
        Verdict::GoOn
    }

    /// A deadline of the state passed.
    pub fn on_deadline(&mut self, now: Now, state: &mut ChargingState) -> Verdict {
        let Some(session) = state.accounting.as_mut() else {
            return Verdict::GoOn;
        };
        let held = session.held_stop.take_if(|(_, until)| *until <= now.steady);
        if let Some((record, _)) = held {
            self.release_stop(session, record);
        }
        if session
            .interim_due
            .take_if(|due| *due <= now.steady)
            .is_some()
        {
            // The next period starts where this one ended, unless that lies long back: after an
            // outage one INTERIM catches up, not one for each period missed.
            session.interim_base = now.steady;
            let method = std::mem::take(&mut session.method);
            self.make(now, session, RecordType::Interim, |writer| {
                // TS 32.260 Table 6.3.2.1 note 3: no Time-Stamps without a SIP message.
                ims::event_type(writer, &method, b"", None);
            });
            session.method = method;
            self.plan_interim(now.steady, session);
        }
        Verdict::GoOn
    }

    /// The answer to the pending record arrived.
    pub fn on_answer(
        &mut self,
        now: Now,
        state: &mut ChargingState,
        answer: &AnswerSummary,
    ) -> Verdict {
        let Some(session) = state.accounting.as_mut() else {
            return Verdict::GoOn;
        };
        let Some(pending) = session.pending.as_ref() else {
            self.counters.aca_unexpected += 1;
            return Verdict::GoOn;
        };
        let (number, record_type) = (pending.number, pending.record_type);
        if answer.record_number.is_some_and(|said| said != number)
            || answer
                .record_type
                .is_some_and(|said| said != record_type as u32)
        {
            self.counters.aca_unexpected += 1;
            return Verdict::GoOn;
        }
        let event = self.classify(record_type, answer);
        let realtime = self.class(session).realtime;
        let Some((record, action)) = session.resolve(event, realtime) else {
            return Verdict::GoOn;
        };
        if event == ClientEvent::Success {
            self.counters.acr_delivered += 1;
            if session.instruct(record_type, answer.interim_interval_s) {
                self.plan_interim(now.steady, session);
            }
        } else if record_type == RecordType::Start {
            // A CDF that refused the START instructed nothing.
            session.interim_interval_s = 0;
            session.interim_due = None;
        }
        self.spare.give(record.content);
        self.conclude(now, session, action)
    }

    /// The pending record could not be sent. If it is to be stored, it is rendered into `stored`
    /// with the T flag, since copies of it may have been on the wire.
    pub fn on_send_failure(
        &mut self,
        now: Now,
        state: &mut ChargingState,
        storage: Storage,
        stored: &mut Vec<u8>,
    ) -> FailureAction {
        let Some(session) = state.accounting.as_mut() else {
            return FailureAction::Nothing;
        };
        let Some(pending) = session.pending.as_mut() else {
            return FailureAction::Nothing;
        };
        pending.possibly_sent = true;
        if let Some(source) = acr::AcrSource::pending(session) {
            source.encode(stored);
        }
        let realtime = self.class(session).realtime;
        let event = ClientEvent::SendFailure {
            space: storage == Storage::Space,
        };
        let Some((record, action)) = session.resolve(event, realtime) else {
            return FailureAction::Nothing;
        };
        let was_start = record.record_type == RecordType::Start;
        self.spare.give(record.content);
        if was_start && action == ClientAction::Store {
            // Nobody instructs this session before the backlog drains: our own proposal holds.
            session.interim_interval_s = self.class(session).proposed_interim_interval_s;
            self.plan_interim(now.steady, session);
        }
        let verdict = self.conclude(now, session, action);
        if action == ClientAction::Store {
            self.counters.acr_stored += 1;
            return FailureAction::Store(verdict);
        }
        stored.clear();
        FailureAction::Lose(verdict)
    }

    /// This node goes on with a call of another: the pending record is sent again with the T
    /// flag, an overdue INTERIM is spread over the next `spread_ms`. The clock of who set the
    /// deadlines may have been another one: none is believed to be further ahead than it can be.
    pub fn adopt(&mut self, now: Now, state: &mut ChargingState, spread_ms: u64) {
        let Some(session) = state.accounting.as_mut() else {
            return;
        };
        self.counters.class_unknown += u64::from(!self.config.classes.knows(session.class));
        if let Some(pending) = session.pending.as_mut() {
            pending.in_flight = false;
            pending.possibly_sent = true;
        }
        let hold_ms = self.class(session).stop_hold_ms;
        if let Some((_, until)) = session.held_stop.as_mut() {
            *until = (*until).min(now.steady.plus_ms(hold_ms));
        }
        let interval_ms = u64::from(session.interim_interval_s) * 1_000;
        session.interim_base = session
            .interim_base
            .clamp(now.steady.minus_ms(interval_ms), now.steady);
        if let Some(due) = session.interim_due {
            session.interim_due = Some(if due <= now.steady {
                let wait = self.random.between(0, spread_ms);
                now.steady.plus_ms(wait)
            } else if due.ms_since(now.steady) > interval_ms {
                // At most what `plan_interim` draws from the start of a period that is now.
                let wait = self.random.between(interval_ms * 85 / 100, interval_ms);
                now.steady.plus_ms(wait)
            } else {
                due
            });
        }
    }

    /// The call is over, or is not to be charged: its memory serves the next ones.
    pub fn recycle(&mut self, state: &mut ChargingState) {
        if let Some(session) = state.accounting.take() {
            self.spare.give_session(session);
        }
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &CtfConfig {
        &self.config
    }

    fn release_stop(&mut self, session: &mut AccountingSession, record: Record) {
        let realtime = self.class(session).realtime;
        session.add(record, realtime);
    }

    /// Makes a record and lets the machine take it.
    fn make(
        &mut self,
        now: Now,
        session: &mut AccountingSession,
        record_type: RecordType,
        write: impl FnOnce(&mut Writer<'_>),
    ) {
        self.make_beside(now, session, record_type, write, |_| ());
    }

    /// The same, with AVPs beside IMS-Information.
    fn make_beside(
        &mut self,
        now: Now,
        session: &mut AccountingSession,
        record_type: RecordType,
        write: impl FnOnce(&mut Writer<'_>),
        beside: impl FnOnce(&mut Writer<'_>),
    ) {
        let mut record = self.record(now, session, record_type, write);
        let inside = record.content.len();
        beside(&mut Writer::avps(&mut record.content));
        record.beside_length = (record.content.len() - inside) as u32;
        let realtime = self.class(session).realtime;
        session.add(record, realtime);
    }

    fn record(
        &mut self,
        now: Now,
        session: &mut AccountingSession,
        record_type: RecordType,
        write: impl FnOnce(&mut Writer<'_>),
    ) -> Record {
        let (number, overwritten) = session.number_for(record_type);
        if let Some(old) = overwritten {
            self.counters.acr_interim_overwritten += 1;
            self.spare.give(old.content);
        }
        let mut content = self.spare.take();
        write(&mut Writer::avps(&mut content));
        self.next_end_to_end = self.next_end_to_end.wrapping_add(1);
        let proposes = matches!(record_type, RecordType::Start | RecordType::Interim);
        let proposed = self.class(session).proposed_interim_interval_s;
        match record_type {
            RecordType::Start => self.counters.acr_start_made += 1,
            RecordType::Interim => self.counters.acr_interim_made += 1,
            RecordType::Stop => self.counters.acr_stop_made += 1,
            RecordType::Event => self.counters.acr_event_made += 1,
        }
        Record {
            number,
            record_type,
            event_time: now.wall,
            end_to_end: self.next_end_to_end,
            proposed_interval_s: if proposes { proposed } else { 0 },
            possibly_sent: false,
            in_flight: false,
            content,
            beside_length: 0,
        }
    }

    /// What an answer means to the client machine.
    fn classify(&mut self, record_type: RecordType, answer: &AnswerSummary) -> ClientEvent {
        match answer.result_code {
            2_000..3_000 => {
                if answer.result_code == result::LIMITED_SUCCESS {
                    self.counters.acr_limited_success += 1;
                }
                ClientEvent::Success
            }
            // The CDF forgot the session: repeating this record or ending the call helps nobody.
            result::UNKNOWN_SESSION_ID
                if matches!(record_type, RecordType::Interim | RecordType::Stop) =>
            {
                self.counters.aca_unknown_session += 1;
                ClientEvent::Success
            }
            _ => {
                self.counters.aca_failed += 1;
                ClientEvent::FailedAnswer
            }
        }
    }

    /// Carries out what the table says beyond storing.
    fn conclude(
        &mut self,
        now: Now,
        session: &mut AccountingSession,
        action: ClientAction,
    ) -> Verdict {
        match action {
            ClientAction::Lose => self.counters.acr_lost += 1,
            ClientAction::Disconnect => {
                self.counters.acr_lost += 1;
                self.counters.call_disconnected += 1;
                if let Some((record, _)) = session.held_stop.take() {
                    self.release_stop(session, record);
                }
                if !session.ended {
                    let cause = CauseCode::INTERNAL_ERROR;
                    self.make(now, session, RecordType::Stop, |writer| {
                        ims::event_type(writer, b"BYE", b"", None);
                        ims::time_stamps(writer, Some(now.wall), None);
                        ims::cause(writer, cause.0, &[]);
                    });
                }
                return Verdict::End(CauseCode::INTERNAL_ERROR);
            }
            _ => {}
        }
        Verdict::GoOn
    }

    /// RFC 6733 s9.8.2: production times are randomised; downward only, so that a CDF that waits
    /// for the interval never finds it exceeded.
    fn plan_interim(&mut self, now: UnixMillis, session: &mut AccountingSession) {
        let enabled = self.class(session).rows.interim_on_interval;
        let interval_ms = u64::from(session.interim_interval_s) * 1_000;
        let wait_ms = (enabled && interval_ms != 0)
            .then(|| self.random.between(interval_ms * 85 / 100, interval_ms));
        session.plan_interim(now, wait_ms);
    }

    fn class(&self, session: &AccountingSession) -> &ChargingClass {
        self.config.classes.find(session.class)
    }
}

#[cfg(test)]
mod tests;
