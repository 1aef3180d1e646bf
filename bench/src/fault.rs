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
use crate::ledger::Call;
use crate::pages::Pages;

/// A node was killed, stopped or cut off.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Its SIP address.
    pub node: SocketAddr,
    /// Just before and just after it was struck.
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
    !call.went_as_planned() && faults.iter().any(|fault| fault.cuts_into(call))
}

/// What was done, and what the others made of it.
#[derive(Clone, Copy, Debug)]
pub struct Struck {
    /// What it excuses.
    pub fault: Fault,
    /// From the blow until a survivor had adopted a call, and the calls adopted in all.
    pub takeover: Option<Duration>,
    /// Calls that changed hands.
    pub adopted: u64,
    /// Run time of the struck node's shards until the blow, seconds.
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

/// Kills a node and starts it again `away` later.
///
/// # Errors
/// It does not start, or the cluster does not become whole again.
pub fn kill(cluster: &mut Cluster, number: usize, away: Duration) -> io::Result<Struck> {
    let cpu_s = cluster.nodes()[number].pages().shard_cpu_s()?;
    let watch = Watch::on(cluster, number);
    let before = Instant::now();
    cluster.node(number).kill();
    let struck = (before, Instant::now());
    let takeover = watch.wait(before, away);
    std::thread::sleep(away.saturating_sub(before.elapsed()));
    cluster.node(number).start()?;
    cluster.wait_whole()?;
    Ok(Struck {
        fault: Fault {
            node: cluster.nodes()[number].sip(),
            struck,
            over: Instant::now(),
        },
        takeover,
        adopted: watch.adopted(),
        cpu_s,
    })
}

/// Time between two looks at who has adopted calls.
const WATCH_EVERY: Duration = Duration::from_millis(2);
/// Time until calls are adopted, and over which their adopters spread overdue records.
const ADOPTED_LATE_MAX: Duration = Duration::from_millis(2_500);
/// Longest time for which a node holds records back whose copy was to be at a lost node.
const HELD_MAX: Duration = Duration::from_millis(800);
