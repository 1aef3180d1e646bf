//! Every node of a cluster ended in order and started again, one after the other, as for an
//! upgrade: nothing excuses a call that fails meanwhile.

use std::io;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, wait_until};

/// What it took.
#[derive(Clone, Debug, Default)]
pub struct Rolled {
    /// From the signal to the end of each process.
    pub left_after: Vec<Duration>,
    /// Calls that moved before their node ended.
    pub moved: u64,
    /// Calls that others had to adopt as from a dead node.
    pub adopted: u64,
    /// CPU time of the shards that ended, seconds.
    pub cpu_s: f64,
}

/// Restarts all nodes of a cluster, one after the other; each is waited for.
///
/// # Errors
/// A node does not end in order, does not start, or the cluster does not become whole again.
pub fn roll(cluster: &mut Cluster) -> io::Result<Rolled> {
    let mut rolled = Rolled::default();
    for number in 0..cluster.nodes().len() {
        let before = (
            of_others(cluster, number, "calls_received")?,
            of_others(cluster, number, "calls_adopted")?,
        );
        rolled.cpu_s += cluster.nodes()[number].pages().shard_cpu_s()?;
        let asked = Instant::now();
        cluster.node(number).ask_to_end()?;
        wait_until("a node does not end in order", || {
            cluster.node(number).has_ended()
        })?;
        rolled.left_after.push(asked.elapsed());
        rolled.moved += of_others(cluster, number, "calls_received")?.saturating_sub(before.0);
        rolled.adopted += of_others(cluster, number, "calls_adopted")?.saturating_sub(before.1);
        cluster.node(number).start()?;
        cluster.wait_whole()?;
    }
    Ok(rolled)
}

fn of_others(cluster: &Cluster, but: usize, name: &str) -> io::Result<u64> {
    let others = cluster.nodes().iter().enumerate();
    let others = others.filter(|(number, _)| *number != but);
    others.map(|(_, node)| node.pages().of_shards(name)).sum()
}
