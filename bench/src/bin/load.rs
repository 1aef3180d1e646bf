//! Load against any SIP server, at one rate or a ladder of them.
//!
//! The server is to send the calls it takes on `--target` to `--listen-callee`. Arrivals follow
//! the schedule whatever the answers do; latency counts from the schedule, so that a server that
//! stalls does not hide its queue.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bench::drive::{self, Addresses, Schedule};
use bench::ledger::Call;
use bench::plan::{Mix, PATIENCE, Run};
use bench::reconcile::Pace;
use bench::report::{self, Rung};
use bench::{cpu, reconcile, table};
use clap::Parser;

/// Calls against a SIP server, held against its charging records where it has some.
#[derive(Parser)]
struct Arguments {
    /// The server, or the nodes of a cluster, separated by commas.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', required = true)]
    target: Vec<SocketAddr>,
    /// Where the callers send from.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    listen_caller: SocketAddr,
    /// Where the server finds the callees.
    #[arg(long, value_name = "HOST:PORT")]
    listen_callee: SocketAddr,
    /// Calls a second; several make a ladder.
    #[arg(long, value_delimiter = ',', required = true, value_parser = rate)]
    rate: Vec<f64>,
    /// How long calls are placed at each rate, seconds.
    #[arg(long, default_value_t = 10)]
    duration: u32,
    /// How long an answered call lasts, milliseconds.
    #[arg(long, default_value_t = 1_000)]
    hold_ms: u64,
    /// How long the callee rings, milliseconds.
    #[arg(long, default_value_t = 20)]
    ring_ms: u64,
    /// Which scenarios occur, as SCENARIO=WEIGHT,...
    #[arg(long, default_value = "plain=1", value_parser = Mix::parse)]
    mix: Mix,
    /// Random gaps between calls (exponential) instead of equal ones.
    #[arg(long)]
    poisson: bool,
    /// Everything random comes from here; give each run on one store its own.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The store of the server's CDF, to be held against the calls. It must hold no others.
    #[arg(long, value_name = "FILE")]
    cdf_store: Option<PathBuf>,
    /// The CDF's interim interval, seconds; 0 = none.
    #[arg(long, default_value_t = 300)]
    interim: u32,
    /// The server's process: its CPU time per call is measured.
    #[arg(long)]
    pid: Option<u32>,
    /// Write a report with plots here.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// JSON objects, one a line, instead of tables.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match load(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::from(2)
        }
    }
}

fn load(arguments: &Arguments) -> Result<bool, Box<dyn std::error::Error>> {
    let mut calls: Vec<Call> = Vec::new();
    let mut rungs = Vec::new();
    for rate in &arguments.rate {
        let (rung, own) = climb(arguments, *rate, calls.len() as u32)?;
        show(arguments, &rung, &own);
        rungs.push(rung);
        calls.extend(own);
    }
    let slowest = rungs.iter().map(|rung| rung.latency.slowest()).max();
    let (is_good, verdict) = judge(arguments, &calls, slowest.unwrap_or_default())?;
    if let Some(path) = &arguments.report {
        let title = format!("Load on {}, {}", arguments.target[0], arguments.mix);
        std::fs::write(path, report::html(&title, &rungs, verdict.as_deref()))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(is_good)
}

fn climb(
    arguments: &Arguments,
    rate: f64,
    first: u32,
) -> Result<(Rung, Vec<Call>), Box<dyn std::error::Error>> {
    let run = Run {
        seed: arguments.seed,
        mix: arguments.mix,
        hold: Duration::from_millis(arguments.hold_ms),
        ring: Duration::from_millis(arguments.ring_ms),
        patience: PATIENCE,
    };
    let addresses = Addresses {
        caller: arguments.listen_caller,
        callee: arguments.listen_callee,
        targets: arguments.target.clone(),
    };
    let schedule = Schedule {
        rate,
        first,
        calls: ((rate * f64::from(arguments.duration)) as u32).max(1),
        poisson: arguments.poisson,
    };
    let cpu = || -> Result<Option<Duration>, String> {
        let Some(pid) = arguments.pid else {
            return Ok(None);
        };
        cpu::run_time(pid)
            .map(Some)
            .map_err(|error| format!("cannot tell the CPU time of process {pid}: {error}"))
    };
    let before = cpu()?;
    let outcome = drive::run(&run, &addresses, schedule, |_| {})?;
    let after = cpu()?;
    if outcome.lag > LAG_MAX {
        eprintln!(
            "the load generator itself was {:.0} ms behind its schedule: its figures include that",
            outcome.lag.as_secs_f64() * 1e3
        );
    }
    let as_planned = outcome
        .calls
        .iter()
        .filter(|call| call.went_as_planned())
        .count() as u64;
    let rung = Rung {
        rate,
        calls: outcome.calls.len() as u64,
        as_planned,
        latency: outcome.latency,
        cpu_us: before.zip(after).map(|(before, after)| {
            after.saturating_sub(before).as_secs_f64() * 1e6 / as_planned.max(1) as f64
        }),
    };
    Ok((rung, outcome.calls))
}

fn show(arguments: &Arguments, rung: &Rung, calls: &[Call]) {
    if arguments.json {
        let mut value = table::to_json(calls, &rung.latency, None);
        value["rate"] = rung.rate.into();
        value["cpu_us_per_call"] = rung.cpu_us.into();
        println!("{value}");
        return;
    }
    println!(
        "{} calls/s, {} of {} as planned",
        rung.rate, rung.as_planned, rung.calls
    );
    println!("{}\n{}", table::calls(calls), table::latency(&rung.latency));
    if let Some(cpu) = rung.cpu_us {
        println!("{cpu:.1} CPU microseconds per call as planned\n");
    }
}

fn judge(
    arguments: &Arguments,
    calls: &[Call],
    slowest: Duration,
) -> Result<(bool, Option<String>), Box<dyn std::error::Error>> {
    let as_planned = calls.iter().all(Call::went_as_planned);
    let Some(store) = &arguments.cdf_store else {
        return Ok((as_planned, None));
    };
    let pace = Pace {
        interval_s: arguments.interim,
        slowest,
    };
    let balance = reconcile::reconcile_live_store(calls, store, pace, &[], RECORDS_LATE_MAX)?;
    let verdict = table::verdict(&balance, calls, &[]);
    if arguments.json {
        let latency = bench::latency::Latency::default();
        let mut value = table::to_json(calls, &latency, Some(&balance));
        value["verdict"] = verdict.clone().into();
        println!("{value}");
    } else {
        println!("{}", table::records(&balance));
        print!("{}", table::findings(&balance));
        println!("{verdict}");
    }
    Ok((balance.is_balanced() && as_planned, Some(verdict)))
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err(format!("`{text}` is not a number of calls a second")),
    }
}

/// Longest wait for records that are on their way to the store.
const RECORDS_LATE_MAX: Duration = Duration::from_secs(5);
/// How far behind its schedule the generator may be before it says so.
const LAG_MAX: Duration = Duration::from_millis(50);
