//! Holds the CDF's records against what the phones saw.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use dataplane::io::{self, CdrLine, NodeError};

use crate::fault::{Fault, cut_off};
use crate::ledger::Call;
use crate::plan::Scenario;

/// In which way records and calls differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Difference {
    /// A call or MESSAGE without any record.
    NotRecorded,
    /// A Call-ID that no phone used.
    Unknown,
    /// More than one charging session for one call.
    RecordedTwice,
    /// A session without START, or with more than one.
    Start,
    /// A session without STOP, or with more than one.
    Stop,
    /// A failed call or MESSAGE without EVENT, or with more than that.
    Event,
    /// A record number is missing or out of order.
    Gap,
    /// Other INTERIMs than re-INVITEs and interval ask for.
    Interim,
    /// The billed duration is not the one the phones saw.
    Duration,
    /// Another Cause-Code than the call's end asks for.
    Cause,
    /// The phones do not agree whether the call was answered.
    Phones,
}

impl Difference {
    /// What it means, in words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotRecorded => "not recorded",
            Self::Unknown => "recorded, but no phone called",
            Self::RecordedTwice => "recorded twice",
            Self::Start => "not exactly one START",
            Self::Stop => "not exactly one STOP",
            Self::Event => "not exactly one EVENT",
            Self::Gap => "gap in the record numbers",
            Self::Interim => "INTERIMs not as expected",
            Self::Duration => "duration not as seen",
            Self::Cause => "wrong Cause-Code",
            Self::Phones => "phones disagree",
        }
    }
}

/// One difference with what was expected and found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Its class.
    pub difference: Difference,
    /// Call-ID of the caller.
    pub call_id: String,
    /// Expected and found.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} ({})",
            self.call_id,
            self.difference.name(),
            self.detail
        )
    }
}

/// Records by type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// START.
    pub start: u64,
    /// INTERIM.
    pub interim: u64,
    /// STOP.
    pub stop: u64,
    /// EVENT.
    pub event: u64,
}

/// The result of a comparison.
#[derive(Clone, Debug, Default)]
pub struct Balance {
    /// What the calls ask for, with the fewest INTERIMs.
    pub expected: Counts,
    /// The most INTERIMs they allow.
    pub interim_max: u64,
    /// What the store holds.
    pub found: Counts,
    /// Answered calls that balance, and calls and MESSAGEs with an EVENT that do.
    pub balanced: u64,
    /// Calls that the phones placed.
    pub calls: u64,
    /// Calls that a fault cut off while they were being set up.
    pub cut_off: u64,
    /// Milliseconds billed and milliseconds the phones saw at most.
    pub billed_ms: u64,
    /// Milliseconds seen, as a range.
    pub seen_ms: (u64, u64),
    /// All that differs.
    pub findings: Vec<Finding>,
}

impl Balance {
    /// Nothing differs.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.findings.is_empty()
    }

    /// How often each class occurs, and its first examples.
    #[must_use]
    pub fn classes(&self) -> Vec<(Difference, u64, Vec<&Finding>)> {
        let mut classes: std::collections::BTreeMap<Difference, (u64, Vec<&Finding>)> =
            std::collections::BTreeMap::new();
        for finding in &self.findings {
            let (count, examples) = classes.entry(finding.difference).or_default();
            *count += 1;
            if examples.len() < EXAMPLES_MAX {
                examples.push(finding);
            }
        }
        classes
            .into_iter()
            .map(|(difference, (count, examples))| (difference, count, examples))
            .collect()
    }
}

/// When periodic records are due.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The CDF's interim interval, seconds; 0: it wants none.
    pub interval_s: u32,
    /// The longest that the node took for an answer: what a machine is too busy for comes late, a
    /// record as much as a response, and every further record counts from the one before.
    pub slowest: Duration,
}

/// Reads a CDF's store and compares.
///
/// # Errors
/// The store cannot be read.
pub fn reconcile_store(
    calls: &[Call],
    store: &Path,
    pace: Pace,
    faults: &[Fault],
) -> Result<Balance, NodeError> {
    let mut cdrs = Vec::new();
    io::list_cdrs(store, |cdr| cdrs.push(cdr))?;
    Ok(reconcile(calls, &cdrs, pace, faults))
}

/// The same with a CDF that still runs: the last records may be on their way, so it looks again
/// until everything balances or `patience` is over.
///
/// # Errors
/// The store cannot be read.
pub fn reconcile_live_store(
    calls: &[Call],
    store: &Path,
    pace: Pace,
    faults: &[Fault],
    patience: Duration,
) -> Result<Balance, NodeError> {
    let until = Instant::now() + patience;
    loop {
        let balance = reconcile_store(calls, store, pace, faults)?;
        if balance.is_balanced() || Instant::now() >= until {
            return Ok(balance);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Compares calls with the CDRs of a store.
#[must_use]
pub fn reconcile(calls: &[Call], cdrs: &[CdrLine], pace: Pace, faults: &[Fault]) -> Balance {
    let mut balance = Balance::default();
    let mut of_call: HashMap<&str, Vec<&CdrLine>> = HashMap::new();
    for cdr in cdrs {
        of_call.entry(&cdr.user_session_id).or_default().push(cdr);
        balance.found.add(cdr);
    }
    for call in calls.iter().filter(|call| call.caller.begun.is_some()) {
        let own = of_call.remove(call.call_id.as_str()).unwrap_or_default();
        let mut check = Check {
            call,
            balance: &mut balance,
            interval_ms: u64::from(pace.interval_s) * 1_000,
            slowest_ms: pace.slowest.as_millis() as u64,
            faults,
            is_good: true,
        };
        check.call(&own);
        let is_good = check.is_good;
        balance.calls += 1;
        balance.balanced += u64::from(is_good);
    }
    let mut unknown: Vec<_> = of_call.into_iter().collect();
    unknown.sort_unstable_by_key(|(call_id, _)| *call_id);
    for (call_id, cdrs) in unknown {
        balance.findings.push(Finding {
            difference: Difference::Unknown,
            call_id: call_id.to_owned(),
            detail: format!("{} sessions, first {}", cdrs.len(), cdrs[0].session_id),
        });
    }
    balance
}

impl Counts {
    fn add(&mut self, cdr: &CdrLine) {
        for record in &cdr.records {
            match record.record_type {
                "START" => self.start += 1,
                "INTERIM" => self.interim += 1,
                "STOP" => self.stop += 1,
                _ => self.event += 1,
            }
        }
    }
}

/// The comparison of one call.
struct Check<'a> {
    call: &'a Call,
    balance: &'a mut Balance,
    interval_ms: u64,
    slowest_ms: u64,
    faults: &'a [Fault],
    is_good: bool,
}

impl Check<'_> {
    fn differs(&mut self, difference: Difference, detail: String) {
        self.is_good = false;
        self.balance.findings.push(Finding {
            difference,
            call_id: self.call.call_id.clone(),
            detail,
        });
    }

    fn call(&mut self, cdrs: &[&CdrLine]) {
        let call = self.call;
        if cut_off(self.faults, call) {
            return self.cut_off(cdrs);
        }
        let answered = call.caller.answered.is_some();
        if answered && self.faults.iter().any(|fault| fault.cuts_into(call)) {
            // Its first attempt may have left an EVENT.
            let (sessions, events): (Vec<_>, Vec<_>) =
                cdrs.iter().copied().partition(|cdr| cdr.kind == "session");
            events.iter().for_each(|cdr| self.balance.expected.add(cdr));
            return self.whole(&sessions);
        }
        self.whole(cdrs);
    }

    /// A call that was cut off: nobody may be charged for more than one attempt, and not without
    /// end.
    fn cut_off(&mut self, cdrs: &[&CdrLine]) {
        self.balance.cut_off += 1;
        for cdr in cdrs {
            self.balance.expected.add(cdr);
        }
        let sessions: Vec<_> = cdrs.iter().filter(|cdr| cdr.kind == "session").collect();
        if sessions.len() > 1 {
            self.differs(Difference::RecordedTwice, "cut off".to_owned());
        }
        if sessions.iter().any(|cdr| cdr.status != "complete") {
            self.differs(Difference::Stop, "cut off".to_owned());
        }
    }

    fn whole(&mut self, cdrs: &[&CdrLine]) {
        let call = self.call;
        let is_message = call.plan.scenario == Scenario::Message;
        let (caller, callee) = (
            call.caller.answered.is_some(),
            call.callee.answered.is_some(),
        );
        if caller != callee && !is_message {
            self.differs(
                Difference::Phones,
                format!("caller {caller}, callee {callee}"),
            );
        }
        // What the callee answered is to be paid for, heard or not.
        let is_answered = callee;
        if is_answered {
            self.balance.expected.start += 1;
            self.balance.expected.stop += 1;
        } else {
            self.balance.expected.event += 1;
        }
        let [cdr] = cdrs else {
            return match cdrs.len() {
                0 => {
                    let scenario = call.plan.scenario.name();
                    let detail = format!("{scenario}, final status {}", call.caller.status);
                    self.differs(Difference::NotRecorded, detail);
                }
                _ => {
                    let ids: Vec<_> = cdrs.iter().map(|cdr| cdr.session_id.as_str()).collect();
                    self.differs(Difference::RecordedTwice, ids.join(" "));
                }
            };
        };
        let numbers: Vec<u32> = cdr
            .records
            .iter()
            .map(|record| record.record_number)
            .collect();
        if !numbers.iter().copied().eq(0..numbers.len() as u32) {
            self.differs(Difference::Gap, format!("{numbers:?}"));
        }
        let mut found = Counts::default();
        found.add(cdr);
        if is_answered {
            self.session(cdr, found);
        } else {
            self.event(cdr, found);
        }
    }

    fn session(&mut self, cdr: &CdrLine, found: Counts) {
        let call = self.call;
        if found.start != 1 {
            self.differs(Difference::Start, format!("{}", found.start));
        }
        if found.stop != 1 {
            self.differs(Difference::Stop, format!("{}", found.stop));
        }
        if found.event != 0 {
            self.differs(Difference::Event, format!("{} in a session", found.event));
        }
        if cdr.cause_code != Some(0) {
            self.differs(
                Difference::Cause,
                format!("0 expected, {:?} found", cdr.cause_code),
            );
        }
        let Some((shortest, longest)) = call.duration_ms() else {
            return;
        };
        let (fewest, most) = self.interims(shortest, longest);
        self.balance.expected.interim += fewest;
        self.balance.interim_max += most;
        if !(fewest..=most).contains(&found.interim) {
            let detail = format!(
                "{fewest}..={most} expected, {} found, {} re-INVITEs, {longest} ms",
                found.interim,
                call.reinvites()
            );
            self.differs(Difference::Interim, detail);
        }
        let billed = cdr.duration_ms.unwrap_or(0);
        self.balance.billed_ms += billed;
        self.balance.seen_ms.0 += shortest;
        self.balance.seen_ms.1 += longest;
        let good = shortest.saturating_sub(TOLERANCE_MS)..=longest + TOLERANCE_MS;
        if !good.contains(&billed) {
            let detail = format!("{shortest}..={longest} ms seen, {billed} ms billed");
            self.differs(Difference::Duration, detail);
        }
    }

    /// The fewest and the most INTERIMs: one per re-INVITE with a final answer, and the periodic
    /// ones. RFC 6733 9.8.2 has their times randomised; they come after 85 to 100 % of the
    /// interval.
    fn interims(&self, shortest_ms: u64, longest_ms: u64) -> (u64, u64) {
        let reinvites = u64::from(self.call.reinvites());
        if self.interval_ms == 0 {
            return (reinvites, reinvites);
        }
        let delays = self.faults.iter().map(|fault| fault.delays(self.call));
        let late_ms = LATE_MS + delays.sum::<Duration>().as_millis() as u64;
        let slowly_ms = self.interval_ms + self.slowest_ms;
        let fewest = shortest_ms.saturating_sub(late_ms) / slowly_ms;
        let most = (longest_ms + TOLERANCE_MS) * 100 / (self.interval_ms * EARLIEST_PERCENT);
        (reinvites + fewest, reinvites + most)
    }

    fn event(&mut self, cdr: &CdrLine, found: Counts) {
        if found
            != (Counts {
                event: 1,
                ..Counts::default()
            })
        {
            self.differs(Difference::Event, format!("{found:?}"));
        }
        let status = i32::from(self.call.caller.status);
        // TS 32.299 7.2.35: -1 is success with 200, other 2xx are their negative.
        let expected = match status {
            200 => -1,
            201..=399 => -status,
            other => other,
        };
        if cdr.cause_code != Some(expected) {
            let detail = format!("{expected} expected, {:?} found", cdr.cause_code);
            self.differs(Difference::Cause, detail);
        }
    }
}

/// Time between two looks at a store that fills.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Examples kept of each class.
const EXAMPLES_MAX: usize = 3;
/// What clocks, queues and rounding may add to or take from a duration, milliseconds.
const TOLERANCE_MS: u64 = 20;
/// How late a periodic INTERIM may be, milliseconds: it waits for the answer to the START.
const LATE_MS: u64 = 200;
/// The earliest periodic INTERIM, in percent of the interval.
const EARLIEST_PERCENT: u64 = 85;

#[cfg(test)]
mod tests;
