//! The demonstration: three nodes, two phones, a charging data function, and whether they agree.
//!
//! In the middle of the load one node is killed; it comes back some seconds later. The phones
//! know all nodes and turn to another where one does not answer.
//!
//! Everything runs on the loopback, on free ports, with directories that are gone afterwards. The
//! exit status is 0 only if every call was recorded exactly once and as the phones saw it.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bench::cluster::{self, Cluster};
use bench::drive::{self, Addresses, Outcome, Progress, Schedule};
use bench::fault::{self, Blow, Fault, Struck};
use bench::plan::{Mix, PATIENCE, Run};
use bench::reconcile::{self, Balance, Pace};
use bench::roll::{self, Rolled};
use bench::table;
use bench::testbed::{self, Testbed, Wanted};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

/// Calls through ringtoll nodes over real sockets, held against their charging records.
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
    /// Nodes: one alone, or a cluster of which one is killed in the middle of the load.
    #[arg(long, default_value_t = 3, value_parser = nodes)]
    nodes: u8,
    /// End every node in order and start it again, one after the other, instead of killing one.
    #[arg(long)]
    roll: bool,
    /// Shards of a node, each pinned to a core of its own; 0 = one that is not pinned.
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
    if let Some(end) = cluster::become_child() {
        return end;
    }
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
    struck: Option<Struck>,
    rolled: Option<Rolled>,
    /// Records that came again with other contents, where somebody counted.
    conflicts: usize,
}

impl Found {
    fn faults(&self) -> Vec<Fault> {
        self.struck.iter().map(|struck| struck.fault).collect()
    }
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
    let found = if arguments.nodes == 1 {
        measure_alone(arguments)?
    } else {
        measure_cluster(arguments)?
    };
    let Found {
        outcome, balance, ..
    } = &found;
    let faults = found.faults();
    let mut verdict = table::verdict(balance, &outcome.calls, &faults);
    if found.conflicts > 0 {
        verdict = format!(
            "VERDICT: NOT balanced: {} with two contents",
            found.conflicts
        );
    }
    let is_good = balance.is_balanced()
        && table::strange(&outcome.calls, &faults) == 0
        && found.conflicts == 0
        && found
            .rolled
            .as_ref()
            .is_none_or(|rolled| rolled.adopted == 0);
    if arguments.json {
        let mut value = table::to_json(&outcome.calls, &outcome.latency, Some(balance));
        value["cpu_us_per_call"] = found.cpu_us_per_call.into();
        value["hand_over_us"] = serde_json::to_value(&found.hand_over_us)?;
        let takeover = found.struck.and_then(|struck| struck.takeover);
        value["takeover_ms"] = takeover.map(|time| time.as_millis() as u64).into();
        value["calls_adopted"] = found.struck.map(|struck| struck.adopted).into();
        let moved = found.rolled.as_ref().map(|rolled| rolled.moved);
        value["calls_moved"] = moved.into();
        value["verdict"] = verdict.into();
        println!("{value}");
    } else {
        print_found(&found);
        println!("{verdict}");
    }
    Ok(is_good)
}

fn print_found(found: &Found) {
    let Found {
        outcome, balance, ..
    } = found;
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
    if let Some(struck) = &found.struck {
        let cut_into = outcome.calls.iter();
        let cut_into = cut_into.filter(|call| struck.fault.cuts_into(call)).count();
        let takeover = struck.takeover.map_or_else(
            || "no call was taken over".to_owned(),
            |time| {
                format!(
                    "the first call was taken over {} ms later",
                    time.as_millis()
                )
            },
        );
        println!(
            "{} was killed: {takeover}, {} calls in all; {cut_into} were being set up there, \
             {} of them were cut off\n",
            struck.fault.node, struck.adopted, balance.cut_off
        );
    }
    if let Some(rolled) = &found.rolled {
        let after = rolled.left_after.iter().map(Duration::as_millis);
        println!(
            "each node was ended in order, after {:?} ms, and started again; {} calls moved first, {} \
             were left behind\n",
            after.collect::<Vec<_>>(),
            rolled.moved,
            rolled.adopted
        );
    }
    print!("{}", table::findings(balance));
}

fn run_of(arguments: &Arguments, patience: Duration) -> Run {
    Run {
        seed: arguments.seed,
        mix: arguments.mix,
        hold: Duration::from_millis(arguments.hold_ms),
        ring: RING,
        patience,
    }
}

fn schedule_of(arguments: &Arguments) -> Schedule {
    Schedule {
        rate: f64::from(arguments.rate),
        first: 0,
        calls: arguments.calls,
        poisson: false,
    }
}

fn addresses(callee: SocketAddr, targets: Vec<SocketAddr>) -> Addresses {
    Addresses {
        caller: "127.0.0.1:0".parse().expect("an address"),
        callee,
        targets,
    }
}

fn place_calls(
    arguments: &Arguments,
    addresses: &Addresses,
    patience: Duration,
) -> std::io::Result<Outcome> {
    let mut shown = Shown::new(arguments.calls, arguments.json);
    let run = run_of(arguments, patience);
    let schedule = schedule_of(arguments);
    let outcome = drive::run(&run, addresses, schedule, |progress| shown.show(progress))?;
    shown.finish();
    Ok(outcome)
}

fn measure_alone(arguments: &Arguments) -> Result<Found, Box<dyn std::error::Error>> {
    let callee = testbed::free_udp_address()?;
    let wanted = Wanted {
        callee,
        interim_interval_s: arguments.interim,
        shards: arguments.shards,
    };
    let bed =
        Testbed::start(wanted).map_err(|error| format!("the node does not start: {error}"))?;
    // The node is ready when its shards have a CDF to talk to.
    cluster::wait_until("the node started but takes no calls", || {
        bed.pages().is_ready()
    })?;
    let before = bed.pages().shard_cpu_s()?;
    let began = Instant::now();
    let outcome = place_calls(arguments, &addresses(callee, vec![bed.listen()]), PATIENCE)?;
    let took = began.elapsed();
    let cpu_s = bed.pages().shard_cpu_s()? - before;
    let mut waits = Vec::new();
    bed.pages().add_hand_over_waits(&mut waits)?;
    let hand_over_us = HandOver::of(&waits);
    let store = bed.store();
    // The directory lives until the store is read.
    let _dir = bed.finish();
    if arguments.lose_record {
        testbed::lose_record(&store)?;
    }
    let balance =
        reconcile::reconcile_store(&outcome.calls, &store, pace(arguments, &outcome), &[])?;
    Ok(Found {
        balance,
        cpu_us_per_call: cpu_s * 1e6 / f64::from(outcome.begun.max(1)),
        outcome,
        hand_over_us,
        took,
        struck: None,
        rolled: None,
        conflicts: 0,
    })
}

fn measure_cluster(arguments: &Arguments) -> Result<Found, Box<dyn std::error::Error>> {
    let callee = testbed::free_udp_address()?;
    let wanted =
        cluster::Wanted::on_loopback(callee, arguments.interim, arguments.shards, arguments.nodes);
    let mut cluster =
        Cluster::start(&wanted).map_err(|error| format!("the cluster does not start: {error}"))?;
    let targets = cluster.nodes().iter().map(cluster::Member::sip).collect();
    let addresses = addresses(callee, targets);
    let before = cluster.shard_cpu_s()?;
    let began = Instant::now();
    let load = Duration::from_secs_f64(f64::from(arguments.calls) / f64::from(arguments.rate));
    let (outcome, done) = std::thread::scope(|scope| {
        let (cluster, rolls) = (&mut cluster, arguments.roll);
        let striker = scope.spawn(move || {
            std::thread::sleep(load.mul_f64(if rolls { 0.1 } else { 0.5 }));
            if rolls {
                return Ok((None, Some(roll::roll(cluster)?)));
            }
            let struck = fault::strike(cluster, VICTIM, Blow::Kill, Blow::Kill.away(), None);
            struck.map(|struck| (Some(struck), None))
        });
        let outcome = place_calls(arguments, &addresses, CLUSTER_PATIENCE);
        (outcome, striker.join().expect("killing does not panic"))
    });
    let done: std::io::Result<(Option<Struck>, Option<Rolled>)> = done;
    let (outcome, (struck, rolled)) = (outcome?, done?);
    let took = began.elapsed();
    let ended_s = struck.map_or(0.0, |struck| struck.cpu_s);
    let rolled_s = rolled.as_ref().map_or(0.0, |rolled| rolled.cpu_s);
    let cpu_s = cluster.shard_cpu_s()? + ended_s + rolled_s - before;
    // What ends in order excuses nothing.
    let faults: Vec<Fault> = struck.iter().map(|struck| struck.fault).collect();
    // What nodes hold back when nobody calls any more would be missed below.
    let _ = cluster.wait_idle();
    let conflicts = cluster.conflicts();
    let hand_over_us = HandOver::of(&cluster.hand_over_waits()?);
    cluster.stop();
    if arguments.lose_record {
        testbed::lose_record(cluster.store())?;
    }
    let store = cluster.store();
    let balance =
        reconcile::reconcile_store(&outcome.calls, store, pace(arguments, &outcome), &faults)?;
    Ok(Found {
        balance,
        cpu_us_per_call: cpu_s * 1e6 / f64::from(outcome.begun.max(1)),
        outcome,
        hand_over_us,
        took,
        struck,
        rolled,
        conflicts,
    })
}

fn nodes(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(nodes @ (1 | 3..=7)) => Ok(nodes),
        _ => Err("1, or 3 to 7: two are no majority without one another".to_owned()),
    }
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
/// The node that is killed.
const VICTIM: usize = 1;
/// How long phones of a cluster go on with a message that nobody answers: less than RFC 3261
/// says, so that a call that was cut off does not keep the demonstration waiting.
const CLUSTER_PATIENCE: Duration = Duration::from_secs(8);

fn pace(arguments: &Arguments, outcome: &Outcome) -> Pace {
    Pace {
        interval_s: arguments.interim,
        slowest: outcome.latency.slowest(),
    }
}
