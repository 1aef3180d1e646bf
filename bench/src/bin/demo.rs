//! The demonstration: a node, two phones, a charging data function, and whether they agree.
//!
//! Everything runs on the loopback, on free ports, with directories that are gone afterwards. The
//! exit status is 0 only if every call was recorded exactly once and as the phones saw it.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bench::drive::{self, Addresses, Outcome, Progress, Schedule};
use bench::plan::{Mix, Run};
use bench::reconcile::{self, Balance};
use bench::table;
use bench::testbed::{self, Testbed, Wanted};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

/// Calls through a ringtoll node over real sockets, held against its charging records.
#[derive(Parser)]
struct Arguments {
    /// Calls in all.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    calls: u32,
    /// Calls a second.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// How long an answered call lasts, milliseconds.
    #[arg(long, default_value_t = 3_000)]
    hold_ms: u64,
    /// The CDF's interim interval, seconds; 0 = none.
    #[arg(long, default_value_t = 1)]
    interim: u32,
    /// Everything random comes from here.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Shards, each pinned to a core of its own; 0 = one that is not pinned.
    #[arg(long, default_value_t = 0)]
    shards: usize,
    /// Which scenarios occur, as SCENARIO=WEIGHT,...
    #[arg(long, default_value_t = Mix::DEMO, value_parser = Mix::parse)]
    mix: Mix,
    /// Remove a record from the CDF's store before it is read, to see that it is missed.
    #[arg(long)]
    lose_record: bool,
    /// One JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match demonstrate(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::from(2)
        }
    }
}

/// What was measured.
struct Found {
    outcome: Outcome,
    balance: Balance,
    cpu_us_per_call: f64,
    hand_over_us: Option<HandOver>,
    took: Duration,
}

/// How long datagrams waited between two shards, microseconds at most.
#[derive(serde::Serialize)]
struct HandOver {
    count: u64,
    p50: f64,
    p99: f64,
}

impl HandOver {
    // The bounds of a cumulative histogram; the last one is infinite. None if nothing waited.
    fn of(waits: &[(f64, u64)]) -> Option<Self> {
        let count = waits.last()?.1;
        let bound_of = |share: f64| {
            let rank = (count as f64 * share).ceil() as u64;
            waits.iter().find(|(_, below)| *below >= rank)
        };
        (count > 0).then_some(Self {
            count,
            p50: bound_of(0.5)?.0,
            p99: bound_of(0.99)?.0,
        })
    }
}

fn demonstrate(arguments: &Arguments) -> Result<bool, Box<dyn std::error::Error>> {
    let found = measure(arguments)?;
    let Found {
        outcome, balance, ..
    } = &found;
    let verdict = table::verdict(balance, &outcome.calls);
    let is_good = balance.is_balanced()
        && outcome
            .calls
            .iter()
            .all(bench::ledger::Call::went_as_planned);
    if arguments.json {
        let mut value = table::to_json(&outcome.calls, &outcome.latency, Some(balance));
        value["cpu_us_per_call"] = found.cpu_us_per_call.into();
        value["hand_over_us"] = serde_json::to_value(&found.hand_over_us)?;
        value["verdict"] = verdict.into();
        println!("{value}");
    } else {
        println!("\n{}", table::calls(&outcome.calls));
        println!("{}", table::records(balance));
        println!("{}", table::latency(&outcome.latency));
        println!(
            "{:.1} CPU microseconds per call on the shards, {} calls in {:.1} s, schedule kept \
             within {:.1} ms\n",
            found.cpu_us_per_call,
            outcome.begun,
            found.took.as_secs_f64(),
            outcome.lag.as_secs_f64() * 1e3
        );
        if let Some(waits) = &found.hand_over_us {
            println!(
                "{} datagrams handed from shard to shard, half of them within {} us, 99 % within \
                 {} us\n",
                waits.count, waits.p50, waits.p99
            );
        }
        print!("{}", table::findings(balance));
        println!("{verdict}");
    }
    Ok(is_good)
}

fn measure(arguments: &Arguments) -> Result<Found, Box<dyn std::error::Error>> {
    let callee = testbed::free_udp_address()?;
    let wanted = Wanted {
        callee,
        interim_interval_s: arguments.interim,
        shards: arguments.shards,
    };
    let bed =
        Testbed::start(wanted).map_err(|error| format!("the node does not start: {error}"))?;
    wait_until_ready(&bed)?;
    let run = Run {
        seed: arguments.seed,
        mix: arguments.mix,
        hold: Duration::from_millis(arguments.hold_ms),
        ring: RING,
    };
    let addresses = Addresses {
        caller: "127.0.0.1:0".parse().expect("an address"),
        callee,
        target: bed.listen(),
    };
    let schedule = Schedule {
        rate: f64::from(arguments.rate),
        first: 0,
        calls: arguments.calls,
        poisson: false,
    };
    let before = bed.shard_cpu_s()?;
    let began = Instant::now();
    let mut shown = Shown::new(arguments.calls, arguments.json);
    let outcome = drive::run(&run, addresses, schedule, |progress| shown.show(progress))?;
    shown.finish();
    let took = began.elapsed();
    let cpu_s = bed.shard_cpu_s()? - before;
    let hand_over_us = HandOver::of(&bed.hand_over_waits()?);
    let store = bed.store();
    // The directory lives until the store is read.
    let _dir = bed.finish();
    if arguments.lose_record {
        testbed::lose_record(&store)?;
    }
    let balance = reconcile::reconcile_store(&outcome.calls, &store, arguments.interim)?;
    Ok(Found {
        balance,
        cpu_us_per_call: cpu_s * 1e6 / f64::from(outcome.begun.max(1)),
        outcome,
        hand_over_us,
        took,
    })
}

// The node is ready when its shards have a CDF to talk to.
fn wait_until_ready(bed: &Testbed) -> Result<(), Box<dyn std::error::Error>> {
    let until = Instant::now() + READY_MAX;
    while !bed.is_ready()? {
        if Instant::now() > until {
            return Err("the node started but takes no calls".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Progress: a bar on a terminal, a line a second elsewhere.
struct Shown {
    bar: Option<ProgressBar>,
    quiet: bool,
    next: Instant,
    calls: u32,
}

impl Shown {
    fn new(calls: u32, quiet: bool) -> Self {
        let bar = (std::io::stderr().is_terminal() && !quiet).then(|| {
            let style = "{elapsed_precise} [{bar:40}] {pos}/{len} calls ended, {msg} in progress";
            let bar = ProgressBar::new(u64::from(calls));
            bar.set_style(
                ProgressStyle::with_template(style)
                    .expect("the template is well formed")
                    .progress_chars("=> "),
            );
            bar
        });
        Self {
            bar,
            quiet,
            next: Instant::now(),
            calls,
        }
    }

    fn show(&mut self, progress: Progress) {
        let ended = progress.begun - progress.active;
        match &self.bar {
            Some(bar) => {
                bar.set_position(u64::from(ended));
                bar.set_message(progress.active.to_string());
            }
            None if !self.quiet && Instant::now() >= self.next => {
                self.next = Instant::now() + Duration::from_secs(1);
                eprintln!(
                    "{} of {} calls begun, {} in progress",
                    progress.begun, self.calls, progress.active
                );
            }
            None => {}
        }
    }

    fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// How long the callee rings.
const RING: Duration = Duration::from_millis(20);
/// Longest wait for the node to take calls.
const READY_MAX: Duration = Duration::from_secs(10);
