//! Looks into a shard's rings from another process, whether their writer lives or not.
//!
//! The writer is neither asked nor disturbed; it may overwrite what is being read. So each record
//! is copied out first and believed only if its checksum holds. A call that was live during the
//! whole snapshot is in it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::ring_paths;
use crate::error::OpenError;
use crate::layout::{FORMAT, HEADER, MAGIC, SUPERBLOCK, superblock};
use crate::map::Window;
use crate::record::{self, CallId, DEAD, Kind, Meta};

/// A shard's rings, read-only.
#[derive(Debug)]
pub struct Reader {
    young: Window,
    old: Window,
}

impl Reader {
    /// Opens the files of a shard below `state_dir`.
    ///
    /// # Errors
    /// `Io` if a file is missing, `NotARing` or `Format` if it is not one this version reads.
    pub fn open(state_dir: &Path, node: u16, shard: u16) -> Result<Self, OpenError> {
        let (young, old) = ring_paths(state_dir, node, shard);
        let reader = Self {
            young: Window::open(&young)?,
            old: Window::open(&old)?,
        };
        check(&reader.young)?;
        check(&reader.old)?;
        Ok(reader)
    }

    /// What the superblock says.
    #[must_use]
    pub fn info(&self) -> RingInfo {
        let word = |at| self.young.load(at).unwrap_or(0);
        let identity = word(superblock::IDENTITY);
        let mut boot_id = [0; 16];
        boot_id[..8].copy_from_slice(&word(superblock::BOOT_ID).to_le_bytes());
        boot_id[8..].copy_from_slice(&word(superblock::BOOT_ID + 8).to_le_bytes());
        RingInfo {
            node: identity as u16,
            shard: (identity >> 16) as u16,
            incarnation: (identity >> 32) as u32,
            cluster_epoch: word(superblock::CLUSTER_EPOCH) as u32,
            schema_hash: word(superblock::SCHEMA_HASH),
            boot_id,
            closed_in_order: word(superblock::CLEAN) == 1,
            young_bytes: word(superblock::CAPACITY),
            old_bytes: self.old.load(superblock::CAPACITY).unwrap_or(0),
        }
    }

    /// All live calls.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<CallId, Copied> {
        let mut found = BTreeMap::new();
        let (mut young, mut old) = (Scan::new(&self.young), Scan::new(&self.old));
        // A record that leaves one ring is committed in the other before, so what slips away
        // during one pass is seen by the next.
        for _ in 0..PASSES_MAX {
            let seen = young.run(&mut found) + old.run(&mut found);
            if seen == 0 {
                break;
            }
        }
        found.retain(|_, copied| copied.meta.kind == Kind::Put);
        found
    }
}

/// What the superblock of a ring says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingInfo {
    /// Node that writes it.
    pub node: u16,
    /// Shard that writes it.
    pub shard: u16,
    /// Incarnation of the writer.
    pub incarnation: u32,
    /// Newest view number the writer saw.
    pub cluster_epoch: u32,
    /// Hash of the archived types.
    pub schema_hash: u64,
    /// Boot id of the kernel.
    pub boot_id: [u8; 16],
    /// False while a writer is at work, and after it was killed.
    pub closed_in_order: bool,
    /// Capacity of the young ring.
    pub young_bytes: u64,
    /// Capacity of the old ring.
    pub old_bytes: u64,
}

/// A record copied out of a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Its header.
    pub meta: Meta,
    /// The archived call state.
    pub payload: Box<[u8]>,
}

#[derive(Debug)]
struct Scan<'a> {
    window: &'a Window,
    capacity: u64,
    secret: u64,
    lsn: u64,
    buffer: Vec<u8>,
}

impl<'a> Scan<'a> {
    fn new(window: &'a Window) -> Self {
        let word = |at| window.load(at).unwrap_or(0);
        Self {
            window,
            capacity: word(superblock::CAPACITY),
            secret: word(superblock::SECRET),
            lsn: word(superblock::TAIL),
            buffer: Vec::new(),
        }
    }

    /// Reads on to the head; says how many records there were.
    fn run(&mut self, found: &mut BTreeMap<CallId, Copied>) -> u64 {
        let (mut seen, mut read) = (0, 0);
        // A writer faster than this reader must not keep it for ever.
        while read < LAPS_MAX * self.capacity {
            let Some(size) = self.read_record(found) else {
                let tail = self.window.load(superblock::TAIL).unwrap_or(0);
                if tail <= self.lsn {
                    break;
                }
                self.lsn = tail;
                continue;
            };
            self.lsn += size;
            read += size;
            seen += 1;
        }
        seen
    }

    fn read_record(&mut self, found: &mut BTreeMap<CallId, Copied>) -> Option<u64> {
        let at = SUPERBLOCK + (self.lsn % self.capacity) as usize;
        let word = self.window.load(at)?;
        if word & !DEAD != record::commit_word(self.lsn, self.secret) {
            return None;
        }
        if !self.window.copy(at, HEADER, &mut self.buffer) {
            return None;
        }
        let (len, size) = (
            record::payload_len(&self.buffer),
            record::claimed_size(&self.buffer),
        );
        if at as u64 + size > SUPERBLOCK as u64 + self.capacity {
            return None;
        }
        // Overwritten between the two loads: the length just read may be anything.
        if self.window.load(at)? & !DEAD != word & !DEAD {
            return None;
        }
        if word & DEAD != 0 || record::kind(&self.buffer) == Some(Kind::Pad) {
            return Some(size);
        }
        if !self.window.copy(at, HEADER + len, &mut self.buffer) {
            return None;
        }
        if record::checksum(&self.buffer, len) != record::claimed_checksum(&self.buffer) {
            let overwritten = self.window.load(at)? & !DEAD != word & !DEAD;
            return if overwritten { None } else { Some(size) };
        }
        if let Some(meta) = record::meta(&self.buffer) {
            let newer = found
                .get(&meta.id)
                .is_none_or(|held| held.meta.version < meta.version);
            if newer {
                let payload = self.buffer[HEADER..].into();
                found.insert(meta.id, Copied { meta, payload });
            }
        }
        Some(size)
    }
}

fn check(window: &Window) -> Result<(), OpenError> {
    let word = |at| window.load(at).unwrap_or(0);
    if word(superblock::MAGIC) != MAGIC {
        return Err(OpenError::NotARing);
    }
    let format = word(superblock::FORMAT) as u32;
    if format != FORMAT {
        return Err(OpenError::Format(format));
    }
    let capacity = word(superblock::CAPACITY);
    let fits = (capacity as usize)
        .checked_add(SUPERBLOCK)
        .is_some_and(|end| end <= window.len());
    if capacity == 0 || !capacity.is_multiple_of(HEADER as u64) || !fits {
        return Err(OpenError::NotARing);
    }
    Ok(())
}

/// Passes over both rings until nothing new appears.
const PASSES_MAX: u32 = 8;
/// Laps of a ring one pass follows a busy writer.
const LAPS_MAX: u64 = 4;
