//! Limits of a ring, checked once.

use std::path::{Path, PathBuf};

use crate::error::ConfigError;
use crate::layout::{HEADER, record_size};

/// What a shard's pair of rings is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingConfig {
    /// This node.
    pub node: u16,
    /// This shard.
    pub shard: u16,
    /// Lowest incarnation to run under. The ring takes at least one more than the files say,
    /// so ids minted after a restart are new even if the caller kept no count of its own.
    pub incarnation: u32,
    /// Boot id of the kernel: files written under another one are emptied, for memory that
    /// went through a power loss proves nothing.
    pub boot_id: [u8; 16],
    /// Seed of the secret in the commit words; used only when the files are created.
    pub secret: u64,
    /// Hash of the archived types in the payloads.
    pub schema_hash: u64,
    /// Hash of the former archived types, which the program can still read.
    pub schema_hash_former: Option<u64>,
    /// Bytes of the young ring: about 3 s of traffic. Existing files keep their size.
    pub young_bytes: u64,
    /// Bytes of the old ring: bytes of live calls / 0.75. Existing files keep their size.
    pub old_bytes: u64,
    /// Greatest payload.
    pub payload_bytes_max: usize,
    /// Calls and recent tombstones the index has room for.
    pub calls_max: usize,
    /// Live bytes, in percent of what they may take, from which on [`crate::Ring::is_open`] says that no
    /// new calls should be let in; calls and tombstones likewise, in percent of `calls_max`.
    pub high_water_percent: u8,
    /// Whether to touch every page at start, which spares the hot path its page faults.
    pub prefault: bool,
    /// Ask for pages of 2 MiB; needs a file system that has them (tmpfs with `huge=advise`). Touches
    /// every page at start, too: a page that is reserved without is a small one.
    pub huge_pages: bool,
}

impl RingConfig {
    /// Checks the limits against each other.
    ///
    /// # Errors
    /// Names the first limit that is impossible.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.payload_bytes_max == 0 || self.payload_bytes_max > PAYLOAD_BYTES_LIMIT {
            return Err(ConfigError::PayloadBytesMax);
        }
        let least = RECORDS_MIN * record_size(self.payload_bytes_max);
        let fits = |bytes: u64| bytes >= least && bytes.is_multiple_of(HEADER as u64);
        if !fits(self.young_bytes) {
            return Err(ConfigError::YoungBytes);
        }
        if !fits(self.old_bytes) {
            return Err(ConfigError::OldBytes);
        }
        if self.calls_max == 0 {
            return Err(ConfigError::CallsMax);
        }
        if self.high_water_percent == 0 || self.high_water_percent > HIGH_WATER_PERCENT_LIMIT {
            return Err(ConfigError::HighWaterPercent);
        }
        Ok(())
    }
}

impl Default for RingConfig {
    /// One shard with 20,000 calls of at most 8 KiB, about 1.2 KiB on average.
    fn default() -> Self {
        Self {
            node: 0,
            shard: 0,
            incarnation: 1,
            boot_id: [0; 16],
            secret: 0,
            schema_hash: 0,
            schema_hash_former: None,
            young_bytes: 16 << 20,
            old_bytes: 32 << 20,
            payload_bytes_max: 8 << 10,
            calls_max: 40_000,
            high_water_percent: 85,
            prefault: false,
            huge_pages: false,
        }
    }
}

/// The young and the old file of a shard: `<state_dir>/<node>/<shard>.young` and `.old`.
#[must_use]
pub fn ring_paths(state_dir: &Path, node: u16, shard: u16) -> (PathBuf, PathBuf) {
    let dir = state_dir.join(node.to_string());
    (
        dir.join(format!("{shard}.young")),
        dir.join(format!("{shard}.old")),
    )
}

/// Longest payload any configuration may allow. A record must stay small against a ring.
pub const PAYLOAD_BYTES_LIMIT: usize = 1 << 20;
/// A ring must hold at least this many of the longest records, or reclaim could not turn.
pub const RECORDS_MIN: u64 = 16;
/// Above this utilisation a ring would mostly copy its own live records.
pub const HIGH_WATER_PERCENT_LIMIT: u8 = 90;
