//! What can go wrong, by whose fault, and what became of the state.

use std::fmt;
use std::io;

/// Why a ring refused a write. The ring's content did not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingError {
    /// Live calls fill the ring up to its hard limit, far above high water: see `Ring::is_open`.
    Full,
    /// As many calls and tombstones are held as the index was made for.
    IndexFull,
    /// The payload is longer than `RingConfig::payload_bytes_max`.
    TooLong,
    /// No such call here.
    Unknown,
    /// The call has ended here; its id is never used again.
    Retired,
    /// The epoch given is older than the one the call is held under.
    StaleEpoch,
    /// Another node owns the call, or is to own it: adopt it first.
    NotOwner,
    /// The closure that should have written the payload gave up.
    Abandoned,
    /// The call was written 2^32 - 1 times in one epoch.
    VersionsExhausted,
}

/// Why a pair of ring files could not be opened. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The configuration contradicts itself.
    Config(ConfigError),
    /// The operating system said no.
    Io(io::ErrorKind),
    /// The file system has no room for a file of that size.
    NoRoom {
        /// Bytes wanted.
        bytes: u64,
    },
    /// Another process holds these files open for writing.
    Locked,
    /// The file is not a ring, or is shorter than its superblock says.
    NotARing,
    /// The file was written in a format this version does not read.
    Format(u32),
    /// The payloads' schema is neither the present nor the former one.
    Schema(u64),
    /// The files belong to another node or shard.
    Identity {
        /// Node that wrote them.
        node: u16,
        /// Shard that wrote them.
        shard: u16,
    },
    /// The two files do not belong together.
    Mismatch,
}

/// Which limit of a `RingConfig` is impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// `payload_bytes_max` is 0 or above 1 MiB.
    PayloadBytesMax,
    /// `young_bytes` is below 16 records of the greatest size, or not a multiple of 64.
    YoungBytes,
    /// `old_bytes` is below 16 records of the greatest size, or not a multiple of 64.
    OldBytes,
    /// `calls_max` is 0.
    CallsMax,
    /// `high_water_percent` is 0 or above 90.
    HighWaterPercent,
}

/// Why the bytes of a record are not the archived type that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobError {
    /// The bytes do not hold a valid archive of that type.
    Invalid,
    /// The archive does not fit the space given.
    TooLong,
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

impl From<ConfigError> for OpenError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "live calls fill the ring up to its hard limit",
            Self::IndexFull => "the index holds as many calls as it was made for",
            Self::TooLong => "the payload is longer than the configured maximum",
            Self::Unknown => "no such call in this ring",
            Self::Retired => "the call has ended",
            Self::StaleEpoch => "the call is held under a newer epoch",
            Self::NotOwner => "another node owns the call",
            Self::Abandoned => "the writer of the payload gave up",
            Self::VersionsExhausted => "the call's version number is exhausted",
        })
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => write!(f, "impossible ring configuration: {error}"),
            Self::Io(kind) => write!(f, "{kind}"),
            Self::NoRoom { bytes } => write!(
                f,
                "the file system has no room for {} MiB\n  fix: mount it larger (tmpfs: remount with \
                 size=), set node.state_dir elsewhere, or make node.ring_young_mib and \
                 node.ring_old_mib smaller",
                bytes >> 20
            ),
            Self::Locked => f.write_str("another process is writing to these ring files"),
            Self::NotARing => f.write_str("not a ring file, or cut short"),
            Self::Format(found) => write!(f, "ring format {found} is not one this version reads"),
            Self::Schema(found) => write!(f, "payload schema {found:#x} is not one it reads"),
            Self::Identity { node, shard } => {
                write!(f, "the files belong to node {node}, shard {shard}")
            }
            Self::Mismatch => f.write_str("the young and the old file do not belong together"),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PayloadBytesMax => "payload_bytes_max must lie in 1..=1 MiB",
            Self::YoungBytes => "young_bytes must be 64-aligned and hold 16 of the longest records",
            Self::OldBytes => "old_bytes must be 64-aligned and hold 16 of the longest records",
            Self::CallsMax => "calls_max must not be 0",
            Self::HighWaterPercent => "high_water_percent must lie in 1..=90",
        })
    }
}

impl fmt::Display for BlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "the bytes are not a valid archive of the type",
            Self::TooLong => "the archive does not fit",
        })
    }
}

impl std::error::Error for RingError {}
impl std::error::Error for OpenError {}
impl std::error::Error for ConfigError {}
impl std::error::Error for BlobError {}
