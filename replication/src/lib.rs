//! Shared-memory rings of call state and their replication to peer nodes, sans-IO.
//!
//! **The promise.** With k copies of a call, the owner's included, an answered call, its timers
//! and its charging survive `kill -9` of the process (the rings are shared memory: the next
//! process maps them again) and the loss of k - 1 nodes at once (the peers hold the newest
//! version). What a power loss takes is in the peers, not on a disk.
//!
//! The crate knows neither SIP nor charging: a call is a [`CallId`] and an opaque blob. It does
//! no input or output but mapping the ring files: time and datagrams come in as arguments.
//!
//! ```
//! use replication::{Map, Ring, RingConfig, layout::SUPERBLOCK};
//!
//! let config = RingConfig { secret: 7, ..RingConfig::default() };
//! let young = Map::heap(SUPERBLOCK + config.young_bytes as usize);
//! let old = Map::heap(SUPERBLOCK + config.old_bytes as usize);
//! let (mut ring, _) = Ring::open(young, old, &config)?;
//!
//! let id = ring.next_id();
//! ring.put(id, 1, 1, b"ringing")?;
//! ring.update(id, |payload| payload.copy_from_slice(b"talking"))?;
//!
//! // The process dies; the memory stays.
//! let (young, old) = ring.into_maps();
//! let (mut ring, recovery) = Ring::open(young, old, &config)?;
//! assert_eq!(recovery.calls, 1);
//! assert_eq!(ring.newest(id).map(|record| record.payload), Some(&b"talking"[..]));
//! ring.retire(id)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod blob;
pub mod catch_up;
pub mod config;
pub mod counters;
pub mod courier;
#[cfg(test)]
mod crash_tests;
pub mod error;
pub mod frame;
mod generation;
pub mod layout;
pub mod map;
pub mod peer;
#[doc(hidden)]
pub mod plant;
pub mod reader;
mod reassembly;
pub mod record;
pub mod register;
pub mod replicator;
pub mod ring;
pub mod seal;
pub mod takeover;
pub mod view;

pub use config::{RingConfig, ring_paths};
pub use counters::RingCounters;
pub use courier::{Courier, CourierConfig, Letter};
pub use error::{BlobError, OpenError, RingError};
pub use map::Map;
pub use reader::{Copied, Reader, RingInfo};
pub use record::{CallId, Kind, Meta, Record, Version};
pub use replicator::{
    Committed, Member, Mode, ReplicationEvent, Replicator, ReplicatorConfig, Standing, StreamMarks,
};
pub use ring::{Applied, Cursor, GateShare, Origin, Recovery, Ring, Step, Sweep};
pub use seal::ClusterKeys;
pub use view::{
    Adoption, Boot, Durable, Versions, View, ViewConfig, ViewMessage, Views, VoteFault, VoteFile,
    VoteIdentity, VoteStore,
};
