//! What is done to a node of a cluster, and what it excuses.
//!
//! A call that is up is excused nothing. A call that was being set up through the node in the
//! moment it was struck has no copy anywhere: the caller may see it fail, its EVENT record may be
//! missing, and its INVITE, repeated to another node, may have opened a second call there, which
//! leaves an EVENT of its own. Once a caller sees it answered it is a call like any other.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::hub::{Cut, Hub};
use crate::ledger::Call;
use crate::netns;
use crate::pages::Pages;

/// A node was killed, stopped or cut off.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Its SIP address.
    pub node: SocketAddr,
    /// Just before it was struck, and when it could no longer take calls.
    pub struck: (Instant, Instant),
    /// When it served again and everybody knew.
    pub over: Instant,
}

impl Fault {
    /// The call was being set up through the node when it was struck.
    #[must_use]
    pub fn cuts_into(&self, call: &Call) -> bool {
        let Some(begun) = call.caller.begun else {
            return false;
        };
        let settled = call.caller.settled.is_none_or(|at| at >= self.struck.0);
        call.caller.through == Some(self.node) && begun <= self.struck.1 && settled
    }

    /// One phone had ended or given up the call when the node was struck, and the rest of that
    /// was lost with the node: the answer to a BYE (RFC 3261 15.1.1 takes the 481 to its copy for
    /// the end that it is), or a BYE or CANCEL that the node was still sending to the other phone.
    #[must_use]
    pub fn ends_by_halves(&self, call: &Call) -> bool {
        let is_before = |at: Instant| at <= self.struck.1;
        let (caller, callee) = (&call.caller, &call.callee);
        let ended = [caller, callee].iter().any(|seen| {
            let by_itself = seen.ended.filter(|(_, by)| *by == call.plan.hangs_up);
            by_itself.is_some_and(|(at, _)| is_before(at))
        });
        let given_up = caller.answered.is_none() && caller.settled.is_some_and(is_before);
        (ended || given_up)
            && caller.status == call.plan.scenario.status()
            && caller.reinvites_refused + callee.reinvites_refused == 0
    }

    /// How late a periodic record of the call may come on account of it.
    #[must_use]
    pub fn delays(&self, call: &Call) -> Duration {
        let up = call.callee.answered.or(call.caller.answered);
        let ended = call.caller.ended.map_or(self.over, |(at, _)| at);
        let overlaps = up.is_some_and(|up| up <= self.over) && ended >= self.struck.0;
        let was_up = up.is_some_and(|up| up <= self.struck.1);
        match (overlaps, was_up && call.caller.through == Some(self.node)) {
            (false, _) => Duration::ZERO,
            (true, true) => ADOPTED_LATE_MAX,
            (true, false) => HELD_MAX,
        }
    }
}

/// The call did not go as planned, and the reason is one of these.
#[must_use]
pub fn cut_off(faults: &[Fault], call: &Call) -> bool {
    let was_up = call.caller.answered.is_some();
    !was_up && !call.went_as_planned() && faults.iter().any(|fault| fault.cuts_into(call))
}

/// The call did not go as planned, and a fault excuses that.
#[must_use]
pub fn excused(faults: &[Fault], call: &Call) -> bool {
    cut_off(faults, call) || faults.iter().any(|fault| fault.ends_by_halves(call))
}

/// What was done, and what the others made of it.
#[derive(Clone, Copy, Debug)]
pub struct Struck {
    /// What it excuses.
    pub fault: Fault,
    /// From the blow until a survivor had adopted a call.
    pub takeover: Option<Duration>,
    /// From its return until it served and everybody knew.
    pub whole: Duration,
    /// Calls that changed hands.
    pub adopted: u64,
    /// Run time of the struck node's shards until it was ended, seconds; 0 if it goes on.
    pub cpu_s: f64,
}

/// How many calls nodes have adopted, and when that began.
pub struct Watch {
    pages: Vec<Pages>,
    before: u64,
}

impl Watch {
    /// Watches all nodes but one.
    #[must_use]
    pub fn on(cluster: &Cluster, but: usize) -> Self {
        let others = cluster.nodes().iter().enumerate();
        let others = others.filter(|(number, _)| *number != but);
        let pages = others.map(|(_, node)| node.pages()).collect();
        let mut watch = Self { pages, before: 0 };
        watch.before = watch.adopted();
        watch
    }

    /// Calls adopted since the beginning.
    #[must_use]
    pub fn adopted(&self) -> u64 {
        let adopted = self.pages.iter().map(|pages| pages.calls_adopted());
        adopted.filter_map(Result::ok).sum::<u64>() - self.before
    }

    /// Waits for the first adoption after `struck`, `limit` at most.
    #[must_use]
    pub fn wait(&self, struck: Instant, limit: Duration) -> Option<Duration> {
        while struck.elapsed() < limit {
            if self.adopted() > 0 {
                return Some(struck.elapsed());
            }
            std::thread::sleep(WATCH_EVERY);
        }
        None
    }
}

/// What is done to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Blow {
    /// `kill -9`, and started again.
    Kill,
    /// The same, and its memory is gone.
    PowerOff,
    /// Cut off from everybody for a while.
    Partition,
    /// Cut off from the other nodes for a while; phones and CDF still reach it.
    PartitionPeers,
    /// SIGSTOP for a while.
    Stop,
}

impl Blow {
    /// How long the node is away.
    #[must_use]
    pub const fn away(self) -> Duration {
        Duration::from_secs(match self {
            Self::Kill | Self::PowerOff => 4,
            Self::Partition | Self::PartitionPeers => 5,
            Self::Stop => 2,
        })
    }

    /// Its name on the command line and in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::PowerOff => "power-off",
            Self::Partition => "partition",
            Self::PartitionPeers => "partition-peers",
            Self::Stop => "stop",
        }
    }
}

/// Strikes a node and makes good again after `away`; `hub` is what it is to be cut off by.
///
/// # Errors
/// It cannot be struck, does not start, or the cluster does not become whole again.
pub fn strike(
    cluster: &mut Cluster,
    number: usize,
    blow: Blow,
    away: Duration,
    mut hub: Option<&mut Hub>,
) -> io::Result<Struck> {
    let before_s = cluster.nodes()[number].pages().shard_cpu_s()?;
    let watch = Watch::on(cluster, number);
    let before = Instant::now();
    match blow {
        Blow::Kill => cluster.node(number).kill(),
        Blow::PowerOff => {
            cluster.node(number).kill();
            cluster.node(number).lose_memory()?;
        }
        Blow::Partition => wanted(&mut hub)?.cut(number, Cut::All)?,
        Blow::PartitionPeers => wanted(&mut hub)?.cut(number, Cut::Peers)?,
        Blow::Stop => signal(cluster, number, "STOP")?,
    }
    // A node that phones still reach takes calls until it knows that it is alone.
    let unaware = match blow {
        Blow::PartitionPeers => LEASE,
        _ => Duration::ZERO,
    };
    let struck = (before, Instant::now() + unaware);
    let takeover = watch.wait(before, away);
    std::thread::sleep(away.saturating_sub(before.elapsed()));
    match blow {
        Blow::Kill | Blow::PowerOff => cluster.node(number).start()?,
        Blow::Partition | Blow::PartitionPeers => wanted(&mut hub)?.cut(number, Cut::Whole)?,
        Blow::Stop => signal(cluster, number, "CONT")?,
    }
    let back = Instant::now();
    cluster.wait_whole()?;
    let starts_anew = matches!(blow, Blow::Kill | Blow::PowerOff);
    Ok(Struck {
        fault: Fault {
            node: cluster.nodes()[number].sip(),
            struck,
            over: Instant::now(),
        },
        takeover,
        whole: back.elapsed(),
        adopted: watch.adopted(),
        cpu_s: if starts_anew { before_s } else { 0.0 },
    })
}

fn wanted<'a>(hub: &'a mut Option<&mut Hub>) -> io::Result<&'a mut Hub> {
    let none = || io::Error::other("only nodes on a hub of our own can be parted");
    hub.as_deref_mut().ok_or_else(none)
}

fn signal(cluster: &Cluster, number: usize, name: &str) -> io::Result<()> {
    let pid = cluster.nodes()[number].pid();
    let pid = pid.ok_or_else(|| io::Error::other("the node does not run"))?;
    netns::run("kill", &format!("-{name} {pid}"))
}

/// How long a node that is cut off may go on: no acknowledgement is older (`GUARANTEES.md`).
const LEASE: Duration = Duration::from_millis(180);
/// Time between two looks at who has adopted calls.
const WATCH_EVERY: Duration = Duration::from_millis(2);
/// Time until calls are adopted, and over which their adopters spread overdue records.
const ADOPTED_LATE_MAX: Duration = Duration::from_millis(2_500);
/// Longest time for which a node holds records back whose copy was to be at a lost node.
const HELD_MAX: Duration = Duration::from_millis(800);
