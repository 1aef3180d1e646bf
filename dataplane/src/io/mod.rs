//! The thin shell around the shards: sockets, clocks, files and threads live here alone.

mod admin;
mod backlog;
mod calls_json;
mod cdf;
mod clock;
mod cluster_json;
mod drain;
mod driver;
mod guard;
mod member;
mod memory;
mod mesh;
mod node;
mod rings;
mod store;
mod stream;
mod sys;
mod udp;
mod wait;
mod wake;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

pub use cdf::{BundledCdf, serve_cdf};
pub use drain::drain_node;
pub use member::run_witness;
pub use memory::check_rings;
pub use node::{Node, run, write_keys};
pub use rings::list_calls;
pub use store::{CdrLine, RecordLine, list_cdrs};

/// Why a node cannot start or go on.
#[derive(Debug)]
pub enum NodeError {
    /// A listener's address cannot be had.
    Listen(String, std::io::Error),
    /// A file or directory cannot be used.
    File(PathBuf, std::io::Error),
    /// Another process uses the directory.
    InUse(PathBuf),
    /// A ring cannot be opened.
    Ring(String),
    /// A ring holds calls and no shard would go on with them.
    RingWithoutShard {
        /// The ring.
        file: PathBuf,
        /// Its calls.
        calls: usize,
        /// Shards of this configuration.
        shards: usize,
        /// Shards that are needed.
        wanted: usize,
    },
    /// Not all calls in the rings could be listed.
    Unread {
        /// Rings that cannot be read.
        rings: usize,
        /// Calls in others whose states cannot be read.
        states: usize,
    },
    /// glommio could not start an executor.
    Executor(String),
    /// A running node's admin pages do not answer, or not as asked.
    Admin(SocketAddr, std::io::Error),
    /// The keys of the cluster cannot be used.
    Keys(PathBuf, String),
    /// The node cannot vote.
    Vote(String),
    /// The CDF's store cannot be used.
    Store(String),
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(address, error) => {
                write!(
                    f,
                    "cannot listen on {address}: {error}\n  fix: choose a free address"
                )
            }
            Self::File(path, error) => write!(
                f,
                "cannot use {}: {error}\n  fix: make it writable or set node.state_dir and \
                 node.data_dir elsewhere",
                path.display()
            ),
            Self::InUse(path) => write!(
                f,
                "{} is used by another running node\n  fix: stop it, or give each node \
                 directories of its own",
                path.display()
            ),
            Self::Ring(error) => write!(f, "cannot open the ring of call states: {error}"),
            Self::RingWithoutShard {
                file,
                calls,
                shards,
                wanted,
            } => write!(
                f,
                "{}: key `node.cores`: the ring holds {calls} calls, and {shards} shards would not \
                 go on with them\n  fix: name {wanted} cores until these calls have ended or were \
                 moved (`ringtoll drain`); remove the file to lose them",
                file.display()
            ),
            Self::Unread { rings, states } => write!(
                f,
                "{rings} rings and {states} calls in others cannot be read: damaged, or of another \
                 version"
            ),
            Self::Executor(error) => write!(
                f,
                "cannot start a shard: {error}\n  fix: check that the cores in node.cores exist \
                 and that io_uring is permitted"
            ),
            Self::Admin(address, error) => write!(
                f,
                "the node's admin pages at {address} do not do it: {error}\n  fix: compare with \
                 `[admin] listen` of the node that is to end"
            ),
            Self::Keys(path, error) => write!(
                f,
                "cannot use the keys in {}: {error}\n  fix: make one file with `ringtoll key \
                 --file FILE` and give every node the same",
                path.display()
            ),
            Self::Vote(error) => write!(
                f,
                "cannot take part in the cluster: {error}\n  fix: what a node needs at its \
                 first start and after the loss of its disk is in replication/GUARANTEES.md"
            ),
            Self::Store(error) => write!(f, "cannot use the CDF's store: {error}"),
        }
    }
}

impl std::error::Error for NodeError {}
