//! What a run found, for people and for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::fault::{self, Fault};
use crate::latency::{Interval, Latency};
use crate::ledger::Call;
use crate::plan::Scenario;
use crate::reconcile::Balance;

/// Calls by scenario, and how they went.
#[must_use]
pub fn calls(calls: &[Call]) -> String {
    let mut out = format!(
        "{:<10}{:>8}{:>10}{:>10}{:>12}{:>10}{:>10}\n",
        "SCENARIO", "CALLS", "ANSWERED", "AS PLAN", "RE-INVITES", "RESENT", "TIMEOUTS"
    );
    for scenario in Scenario::ALL {
        let own: Vec<_> = calls
            .iter()
            .filter(|call| call.plan.scenario == scenario)
            .collect();
        if own.is_empty() {
            continue;
        }
        let count = |wanted: fn(&Call) -> bool| own.iter().filter(|call| wanted(call)).count();
        let sum = |value: fn(&Call) -> u32| own.iter().map(|call| value(call)).sum::<u32>();
        let _ = writeln!(
            out,
            "{:<10}{:>8}{:>10}{:>10}{:>12}{:>10}{:>10}",
            scenario.name(),
            own.len(),
            count(Call::is_answered),
            count(Call::went_as_planned),
            sum(Call::reinvites),
            sum(|call| call.caller.resent + call.callee.resent),
            count(|call| call.caller.timed_out || call.callee.timed_out),
        );
    }
    out
}

/// Records expected against records found.
#[must_use]
pub fn records(balance: &Balance) -> String {
    let (expected, found) = (&balance.expected, &balance.found);
    let interims = match (expected.interim, balance.interim_max) {
        (fewest, most) if fewest == most => fewest.to_string(),
        (fewest, most) => format!("{fewest}..{most}"),
    };
    let mut out = format!(
        "{:<10}{:>14}{:>14}\n",
        "RECORD", "CALLS ASK FOR", "CDF HOLDS"
    );
    for (name, asked, held) in [
        ("START", expected.start.to_string(), found.start),
        ("INTERIM", interims, found.interim),
        ("STOP", expected.stop.to_string(), found.stop),
        ("EVENT", expected.event.to_string(), found.event),
    ] {
        let _ = writeln!(out, "{name:<10}{asked:>14}{held:>14}");
    }
    let seconds = |ms: u64| format!("{}.{:03}", ms / 1_000, ms % 1_000);
    let _ = writeln!(
        out,
        "seconds billed {}, seen by the phones {} to {}",
        seconds(balance.billed_ms),
        seconds(balance.seen_ms.0),
        seconds(balance.seen_ms.1)
    );
    out
}

/// Latency by percentile.
#[must_use]
pub fn latency(latency: &Latency) -> String {
    let mut out = format!(
        "{:<16}{:>8}{:>10}{:>10}{:>10}{:>10}\n",
        "LATENCY, ms", "COUNT", "p50", "p90", "p99", "MAX"
    );
    let ms = |us: u64| us as f64 / 1e3;
    for interval in Interval::ALL {
        let of = latency.of(interval);
        if of.count > 0 {
            let _ = writeln!(
                out,
                "{:<16}{:>8}{:>10.2}{:>10.2}{:>10.2}{:>10.2}",
                interval.name(),
                of.count,
                ms(of.p50_us),
                ms(of.p90_us),
                ms(of.p99_us),
                ms(of.max_us)
            );
        }
    }
    out
}

/// Every class of difference with examples; empty if there is none.
#[must_use]
pub fn findings(balance: &Balance) -> String {
    let mut out = String::new();
    for (difference, count, examples) in balance.classes() {
        let _ = writeln!(out, "{count} x {}:", difference.name());
        for example in examples {
            let _ = writeln!(out, "    {}: {}", example.call_id, example.detail);
        }
    }
    out
}

/// The one line that says whether billing is right.
#[must_use]
pub fn verdict(balance: &Balance, calls: &[Call], faults: &[Fault]) -> String {
    let strange = strange(calls, faults);
    let records =
        balance.found.start + balance.found.interim + balance.found.stop + balance.found.event;
    if balance.is_balanced() && strange == 0 && balance.calls > 0 {
        let cut_off = match balance.cut_off {
            0 => String::new(),
            cut_off => format!(", {cut_off} cut off while they were being set up"),
        };
        return format!(
            "VERDICT: balanced: {} calls, {records} records, every call recorded exactly once\
             {cut_off}",
            balance.calls
        );
    }
    let mut parts: Vec<String> = balance
        .classes()
        .iter()
        .map(|(difference, count, _)| format!("{count} {}", difference.name()))
        .collect();
    if strange > 0 {
        parts.push(format!("{strange} calls did not go as planned"));
    }
    if balance.calls == 0 {
        parts.push("no call was placed".to_owned());
    }
    format!("VERDICT: NOT balanced: {}", parts.join(", "))
}

/// How many calls went otherwise than planned, without a fault to excuse them.
#[must_use]
pub fn strange(calls: &[Call], faults: &[Fault]) -> usize {
    let is_strange = |call: &&Call| !call.went_as_planned() && !fault::excused(faults, call);
    calls.iter().filter(is_strange).count()
}

/// All of it for programs.
#[must_use]
pub fn to_json(all: &[Call], latency: &Latency, balance: Option<&Balance>) -> Value {
    let scenarios: serde_json::Map<String, Value> = Scenario::ALL
        .iter()
        .map(|scenario| {
            let own: Vec<_> = all
                .iter()
                .filter(|call| call.plan.scenario == *scenario)
                .collect();
            let planned = own.iter().filter(|call| call.went_as_planned()).count();
            let value = json!({ "calls": own.len(), "as_planned": planned });
            (scenario.name().to_owned(), value)
        })
        .collect();
    let intervals: serde_json::Map<String, Value> = Interval::ALL
        .iter()
        .map(|interval| (interval.name().to_owned(), json!(latency.of(*interval))))
        .collect();
    let balance = balance.map(|balance| {
        let differences: serde_json::Map<String, Value> = balance
            .classes()
            .iter()
            .map(|(difference, count, _)| (difference.name().to_owned(), json!(count)))
            .collect();
        json!({
            "expected": balance.expected,
            "interim_max": balance.interim_max,
            "found": balance.found,
            "billed_ms": balance.billed_ms,
            "seen_ms": [balance.seen_ms.0, balance.seen_ms.1],
            "differences": differences,
            "cut_off": balance.cut_off,
            "balanced": balance.is_balanced(),
        })
    });
    json!({ "scenarios": scenarios, "latency_us": intervals, "balance": balance })
}
