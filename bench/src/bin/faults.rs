//! Faults under load, with real processes: a cluster in network namespaces whose wires lose,
//! repeat and reorder; one node is killed, loses its memory, is cut off or stopped, and billing
//! is held against the phones' ledger.
//!
//! Needs root and `ip` (iproute2); says `SKIPPED: ...` where it cannot have namespaces. The exit
//! status is 0 only if every fault was survived as promised.

use std::fmt::Write;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use bench::cluster::{self, Mode};
use bench::drive::Schedule;
use bench::fault::Blow;
use bench::hub::{self, Wires};
use bench::latency::Interval;
use bench::netns::Net;
use bench::plan::{Mix, Run};
use bench::table;
use bench::trial::{Load, NODES, Trial};
use clap::{Parser, ValueEnum};

/// Faults under load, each in a cluster of its own, in network namespaces.
#[derive(Parser)]
struct Arguments {
    /// What happens to a node in the middle of the load; all of it if nothing is said.
    faults: Vec<Blow>,
    /// Calls of each trial; as many as come in three times the length of one, if not said.
    #[arg(long)]
    calls: Option<u32>,
    /// Calls a second.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// How long an answered call lasts, milliseconds.
    #[arg(long, default_value_t = 20_000)]
    hold_ms: u64,
    /// The CDF's interim interval, seconds.
    #[arg(long, default_value_t = 5)]
    interim: u32,
    /// How long the node is away, milliseconds; 2 to 5 s, as the fault has it, if not said.
    #[arg(long)]
    away_ms: Option<u64>,
    /// Everything random comes from here.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Which scenarios occur, as SCENARIO=WEIGHT,...
    #[arg(long, default_value = "plain=70,reinvite=20,busy=5,cancel=5", value_parser = Mix::parse)]
    mix: Mix,
    /// `[cluster] mode`; with `async` the verdict says what was lost.
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// Whether frames are lost, repeated and overtaken on their way.
    #[arg(long, value_enum, default_value_t)]
    wires: Wires,
    /// Remove a record from the CDF's store before it is read, to see that it is missed.
    #[arg(long)]
    lose_record: bool,
    /// One JSON object instead of tables.
    #[arg(long)]
    json: bool,
    /// Keep the clusters' directories.
    #[arg(long)]
    keep: bool,
    /// We are in the phones' namespace of this net.
    #[arg(long, hide = true)]
    inside: Option<String>,
}

fn main() -> ExitCode {
    if let Some(end) = cluster::become_child().or_else(hub::become_child) {
        return end;
    }
    let arguments = Arguments::parse();
    let result = match &arguments.inside {
        None => outside(),
        Some(word) => inside(&arguments, word),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("faults: {error}");
            ExitCode::from(2)
        }
    }
}

// Makes the net and runs this program again within.
fn outside() -> Result<bool, Box<dyn std::error::Error>> {
    let net = match Net::new(NODES) {
        Ok(net) => net,
        Err(error) if std::env::var_os("RINGTOLL_NO_SKIP").is_some() => {
            return Err(format!("{error}, and RINGTOLL_NO_SKIP forbids to skip").into());
        }
        Err(error) => {
            eprintln!("SKIPPED: faults in network namespaces ({error})");
            return Ok(true);
        }
    };
    let status = Command::new("ip")
        .args(["netns", "exec", &net.phones()])
        .arg(std::env::current_exe()?)
        .args(["--inside", net.word()])
        .args(std::env::args().skip(1))
        .status()?;
    match status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => Err("the run within the namespaces failed".into()),
    }
}

fn inside(arguments: &Arguments, word: &str) -> Result<bool, Box<dyn std::error::Error>> {
    let blows = match &arguments.faults[..] {
        [] => Blow::value_variants(),
        chosen => chosen,
    };
    let load = arguments.load();
    let mut trials = Vec::new();
    for blow in blows {
        let trial = Trial::run(&load, word, *blow)?;
        if !arguments.json {
            print_trial(&trial);
        }
        trials.push(trial);
    }
    let is_good = trials.iter().all(Trial::is_good);
    if arguments.json {
        let all: Vec<_> = trials.iter().map(Trial::to_json).collect();
        println!("{}", serde_json::json!({ "trials": all, "good": is_good }));
    } else {
        println!("{}", overview(&trials));
        for trial in &trials {
            println!("{}", trial.verdict());
        }
    }
    Ok(is_good)
}

impl Arguments {
    fn load(&self) -> Load {
        let rate = f64::from(self.rate);
        let calls = rate * self.hold_ms as f64 * 3.0 / 1e3;
        Load {
            run: Run {
                seed: self.seed,
                mix: self.mix,
                hold: Duration::from_millis(self.hold_ms),
                ring: RING,
                patience: PATIENCE,
            },
            schedule: Schedule {
                rate,
                first: 0,
                calls: self.calls.unwrap_or(calls as u32),
                poisson: false,
            },
            interim_s: self.interim,
            away: self.away_ms.map(Duration::from_millis),
            mode: self.mode,
            wires: self.wires,
            lose_record: self.lose_record,
            keep: self.keep,
        }
    }
}

fn print_trial(trial: &Trial) {
    let outcome = &trial.outcome;
    println!("== {}\n", trial.blow.name());
    println!("{}", table::calls(&outcome.calls));
    println!("{}", table::records(&trial.balance));
    println!("{}", table::latency(&outcome.latency));
    for (between, told) in [
        ("nodes", trial.told.nodes),
        ("phones and nodes", trial.told.phones),
    ] {
        println!(
            "{} frames between {between}: {} lost, {} repeated, {} overtaken, {} cut off",
            told.frames, told.lost, told.repeated, told.held, told.cut
        );
    }
    println!(
        "{} more lost on a hub that was late, {} that led nowhere; schedule kept within {:.1} ms\n",
        trial.told.overrun,
        trial.told.unsent,
        outcome.lag.as_secs_f64() * 1e3
    );
    print!("{}", table::findings(&trial.balance));
    print!("{}", strange(trial));
}

/// One line for each fault.
fn overview(trials: &[Trial]) -> String {
    let mut out = format!(
        "{:<16}{:>7}{:>7}{:>6}{:>9}{:>10}{:>10}{:>9}{:>7}{:>9}{:>10}{:>10}{:>10}{:>8}\n",
        "FAULT",
        "CALLS",
        "UP",
        "LOST",
        "ADOPTED",
        "AFTER ms",
        "WHOLE ms",
        "CUT OFF",
        "HALVES",
        "REFUSED",
        "INV p50",
        "INV p99",
        "BYE p99",
        "CPU us"
    );
    for trial in trials {
        let ms = |us: u64| us as f64 / 1e3;
        let after = trial.struck.takeover;
        let after = after.map_or_else(|| "-".to_owned(), |time| time.as_millis().to_string());
        let invite = trial.outcome.latency.of(Interval::InviteToAnswer);
        let bye = trial.outcome.latency.of(Interval::ByeToAnswer);
        let _ = writeln!(
            out,
            "{:<16}{:>7}{:>7}{:>6}{:>9}{after:>10}{:>10}{:>9}{:>7}{:>9}{:>10.1}{:>10.1}{:>10.1}{:>8.0}",
            trial.blow.name(),
            trial.balance.calls,
            trial.up().count(),
            trial.lost(),
            trial.struck.adopted,
            trial.struck.whole.as_millis(),
            trial.balance.cut_off,
            trial.halves(),
            trial.refused(),
            ms(invite.p50_us),
            ms(invite.p99_us),
            ms(bye.p99_us),
            trial.cpu_us_per_call,
        );
    }
    out
}

// The first calls that went wrong, as both phones saw them, in milliseconds since the blow.
fn strange(trial: &Trial) -> String {
    let struck = trial.struck.fault.struck.0;
    let ms = |at: Option<Instant>| {
        at.map(|at| match at.checked_duration_since(struck) {
            Some(after) => after.as_millis() as i64,
            None => -(struck.duration_since(at).as_millis() as i64),
        })
    };
    let mut out = String::new();
    let calls = trial.outcome.calls.iter();
    for call in calls.filter(|call| !call.went_as_planned()).take(SHOWN_MAX) {
        let _ = writeln!(out, "{}: {:?}", call.call_id, call.plan);
        for seen in [&call.caller, &call.callee] {
            let _ = writeln!(
                out,
                "    {} through {:?}: begun {:?}, answered {:?}, ended {:?} by {:?}, {} resent, \
                 re-INVITEs {} + {} refused, {} BYEs refused, timed out: {}",
                seen.status,
                seen.through,
                ms(seen.begun),
                ms(seen.answered),
                ms(seen.ended.map(|(at, _)| at)),
                seen.ended.map(|(_, by)| by),
                seen.resent,
                seen.reinvites_accepted,
                seen.reinvites_refused,
                seen.byes_refused,
                seen.timed_out
            );
        }
    }
    out
}

/// Calls that went wrong and are shown.
const SHOWN_MAX: usize = 5;
const RING: Duration = Duration::from_millis(20);
/// How long phones go on with a message that nobody answers.
const PATIENCE: Duration = Duration::from_secs(8);
