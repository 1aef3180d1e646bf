//! A shard's ring of call states, as the store behind [`crate::shard::Shard`].

use std::path::Path;

use replication::{CallId, OpenError, Reader, Recovery, Ring, RingConfig, RingCounters, RingError};

use super::NodeError;
use charging::time::Now;

use crate::b2bua::{CallState, read_state};
use crate::cluster::add_ring;
use crate::counters::StoreCounters;
use crate::store::{Blob, BlobStore, Stored};

/// Opens the ring of a shard and reads the calls that an earlier run left in it.
pub(super) fn open(
    state_dir: &Path,
    config: &RingConfig,
) -> Result<(Ring, Recovery, Vec<CallState>), OpenError> {
    let (ring, recovery) = Ring::open_files(state_dir, config)?;
    let mut states = Vec::new();
    for record in ring.iter_live() {
        match read_state(record.meta.schema, record.payload) {
            Some(state) => states.push(state),
            None => {
                tracing::error!(call = %record.meta.id.as_u128(), "its state cannot be read: it is lost")
            }
        }
    }
    Ok((ring, recovery, states))
}

/// The ring of one shard.
pub(super) struct RingStore {
    ring: Ring,
}

impl RingStore {
    pub(super) fn new(ring: Ring) -> Self {
        Self { ring }
    }
}

impl BlobStore for RingStore {
    fn set_now(&mut self, now: Now) {
        self.ring.set_now(now.wall.0);
    }

    fn commit(&mut self, call: u128, blob: Blob<'_>) -> Stored {
        let id = CallId::from_u128(call);
        match self.ring.put(id, EPOCH_ALONE, blob.schema, blob.bytes) {
            Ok(_) => Stored::Safe,
            Err(RingError::Full | RingError::IndexFull) => Stored::Full,
            Err(_) => Stored::Refused,
        }
    }

    fn retire(&mut self, call: u128) {
        // Unknown is fine: the call was never committed.
        let _ = self.ring.retire(CallId::from_u128(call));
    }

    fn is_open(&self) -> bool {
        self.ring.is_open()
    }

    fn has_room(&self) -> bool {
        self.ring.has_room()
    }

    fn fill_percent(&self) -> u32 {
        self.ring.fill() as u32
    }

    fn counters(&self) -> StoreCounters {
        let mut counts = StoreCounters::default();
        add_ring(&mut counts, self.ring.counters());
        counts
    }

    fn ring_counters(&self) -> Option<&RingCounters> {
        Some(self.ring.counters())
    }

    fn reclaim(&mut self) -> bool {
        self.ring.reclaim_idle(RECLAIM_A_TURN) > 0
    }
}

/// Prints the calls in the rings below `state_dir`, of a node that runs or not. What cannot be read
/// is named on standard error.
///
/// # Errors
/// The directory, a ring or a call's state could not be read; what could is printed.
pub fn list_calls(state_dir: &Path) -> Result<(), NodeError> {
    let wrong = |error: std::io::Error| NodeError::File(state_dir.to_owned(), error);
    let (mut rings, mut states) = (0, 0);
    for entry in std::fs::read_dir(state_dir).map_err(wrong)? {
        let dir = entry.map_err(wrong)?.path();
        let Some(node) = number_of(&dir) else {
            continue;
        };
        let files = match std::fs::read_dir(&dir) {
            Ok(files) => files,
            Err(error) => {
                eprintln!("{}: {error}", dir.display());
                rings += 1;
                continue;
            }
        };
        for file in files.flatten() {
            let path = file.path();
            if path.extension().is_some_and(|end| end == "young")
                && let Some(shard) = number_of(&path)
            {
                match list_ring(state_dir, node, shard) {
                    Ok(0) => {}
                    Ok(unread) => {
                        let path = path.with_extension("*");
                        eprintln!("{}: {unread} calls cannot be read", path.display());
                        states += unread;
                    }
                    Err(error) => {
                        eprintln!("{}: {error}", path.with_extension("*").display());
                        rings += 1;
                    }
                }
            }
        }
    }
    if rings + states > 0 {
        return Err(NodeError::Unread { rings, states });
    }
    Ok(())
}

// Says how many calls' states cannot be read.
fn list_ring(state_dir: &Path, node: u16, shard: u16) -> Result<usize, OpenError> {
    let reader = Reader::open(state_dir, node, shard)?;
    let (mut out, mut unread) = (String::new(), 0);
    for copied in reader.snapshot().values() {
        match read_state(copied.meta.schema, &copied.payload) {
            Some(state) => super::calls_json::line(&mut out, &state),
            None => unread += 1,
        }
    }
    print!("{out}");
    Ok(unread)
}

fn number_of(path: &Path) -> Option<u16> {
    path.file_stem()?.to_str()?.parse().ok()
}

/// The epoch of a node that is not in a cluster.
const EPOCH_ALONE: u32 = 1;
/// Records moved in one idle turn.
const RECLAIM_A_TURN: u32 = 64;
