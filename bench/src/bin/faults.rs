//! Faults under load: a cluster in network namespaces whose links lose, repeat and reorder; one
//! node is killed, loses its memory, is cut off or stopped, and billing is held against the
//! phones' ledger.
//!
//! `cargo run --release -p bench --bin faults -- --rate 300 --calls 6000 --hold-ms 20000
//! --interim 5 kill` is the full measure of one fault. Needs root, `ip` and `tc`.

use std::net::SocketAddr;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use bench::cluster::{self, Cluster, Wanted};
use bench::drive::{self, Addresses, Outcome, Schedule};
use bench::fault::{self, Blow, Fault, Struck};
use bench::netns::{self, Net};
use bench::plan::{Mix, Run};
use bench::reconcile;
use bench::table;
use clap::Parser;

/// One fault under load, in network namespaces.
#[derive(Parser)]
struct Arguments {
    /// What happens to a node in the middle of the load.
    fault: Blow,
    /// Calls in all.
    #[arg(long, default_value_t = 360)]
    calls: u32,
    /// Calls a second.
    #[arg(long, default_value_t = 60)]
    rate: u32,
    /// How long an answered call lasts, milliseconds.
    #[arg(long, default_value_t = 6_000)]
    hold_ms: u64,
    /// The CDF's interim interval, seconds.
    #[arg(long, default_value_t = 2)]
    interim: u32,
    /// Everything random comes from here.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Which scenarios occur, as SCENARIO=WEIGHT,...
    #[arg(long, default_value = "plain=70,reinvite=30", value_parser = Mix::parse)]
    mix: Mix,
    /// Keep the cluster's directory.
    #[arg(long)]
    keep: bool,
    /// We are in the phones' namespace of this net.
    #[arg(long, hide = true)]
    inside: Option<String>,
}

fn main() -> ExitCode {
    if let Some(end) = cluster::become_child() {
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
    let net = Net::new(NODES)?;
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
    let callee = SocketAddr::from((netns::PHONES, 5062));
    let wanted = Wanted {
        callee,
        interim_interval_s: arguments.interim,
        shards: 0,
        hosts: netns::hosts(word, NODES),
        cdf: netns::PHONES.into(),
        network: netns::NETWORK.to_owned(),
    };
    let mut cluster = Cluster::start(&wanted)?;
    if arguments.keep {
        cluster.keep();
        println!("{}", cluster.dir().display());
    }
    let addresses = Addresses {
        caller: (netns::PHONES, 5061).into(),
        callee,
        targets: cluster.nodes().iter().map(cluster::Member::sip).collect(),
    };
    let before = cluster.shard_cpu_s()?;
    let began = Instant::now();
    let (outcome, struck) = load(arguments, word, &addresses, &mut cluster)?;
    let took = began.elapsed();
    let is_idle = cluster.wait_idle();
    let cpu_s = cluster.shard_cpu_s()? + struck.cpu_s - before;
    let conflicts = cluster.conflicts();
    let faults = [struck.fault];
    let balance =
        reconcile::reconcile_store(&outcome.calls, cluster.store(), arguments.interim, &faults)?;
    println!("{}", table::calls(&outcome.calls));
    println!("{}", table::records(&balance));
    println!("{}", table::latency(&outcome.latency));
    println!(
        "{:?}: taken over after {:?}, {} calls adopted, {conflicts} numbers with two contents, \
         idle at the end: {is_idle}, {:.1} s, {:.0} CPU microseconds a call, schedule kept \
         within {:.1} ms",
        arguments.fault,
        struck.takeover,
        struck.adopted,
        took.as_secs_f64(),
        cpu_s * 1e6 / f64::from(outcome.begun.max(1)),
        outcome.lag.as_secs_f64() * 1e3
    );
    print!("{}", table::findings(&balance));
    println!("{}", table::verdict(&balance, &outcome.calls, &faults));
    print_strange(&outcome, &struck.fault);
    let strange = table::strange(&outcome.calls, &faults);
    Ok(balance.is_balanced() && strange == 0 && conflicts == 0 && is_idle)
}

// The first calls that went wrong, as both phones saw them, in milliseconds since the blow.
fn print_strange(outcome: &Outcome, fault: &Fault) {
    let struck = fault.struck.0;
    let ms = |at: Option<Instant>| {
        at.map(|at| match at.checked_duration_since(struck) {
            Some(after) => after.as_millis() as i64,
            None => -(struck.duration_since(at).as_millis() as i64),
        })
    };
    let calls = outcome.calls.iter().filter(|call| !call.went_as_planned());
    for call in calls.take(SHOWN_MAX) {
        println!("{}: {:?}", call.call_id, call.plan);
        for seen in [&call.caller, &call.callee] {
            println!(
                "    {} through {:?}: begun {:?}, answered {:?}, ended {:?} by {:?}, {} resent, \
                 {} + {} re-INVITEs, timed out: {}",
                seen.status,
                seen.through,
                ms(seen.begun),
                ms(seen.answered),
                ms(seen.ended.map(|(at, _)| at)),
                seen.ended.map(|(_, by)| by),
                seen.resent,
                seen.reinvites_accepted,
                seen.reinvites_refused,
                seen.timed_out
            );
        }
    }
}

fn load(
    arguments: &Arguments,
    word: &str,
    addresses: &Addresses,
    cluster: &mut Cluster,
) -> Result<(Outcome, Struck), Box<dyn std::error::Error>> {
    let run = Run {
        seed: arguments.seed,
        mix: arguments.mix,
        hold: Duration::from_millis(arguments.hold_ms),
        ring: RING,
        patience: PATIENCE,
    };
    let schedule = Schedule {
        rate: f64::from(arguments.rate),
        first: 0,
        calls: arguments.calls,
        poisson: false,
    };
    let middle = Duration::from_secs_f64(f64::from(arguments.calls) / schedule.rate).mul_f64(0.5);
    let blow = arguments.fault;
    let (outcome, struck) = std::thread::scope(|scope| {
        let striker = scope.spawn(move || {
            std::thread::sleep(middle);
            fault::strike(cluster, VICTIM, blow, Some(word))
        });
        let outcome = drive::run(&run, addresses, schedule, |_| {});
        (outcome, striker.join().expect("a blow does not panic"))
    });
    Ok((outcome?, struck?))
}

/// Calls that went wrong and are shown.
const SHOWN_MAX: usize = 5;
const NODES: u8 = 3;
/// The node that is struck.
const VICTIM: usize = 1;
const RING: Duration = Duration::from_millis(20);
/// How long phones go on with a message that nobody answers.
const PATIENCE: Duration = Duration::from_secs(8);
