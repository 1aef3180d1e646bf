//! The byte layout of a ring file, so that another process, or a later version, can read it.
//!
//! One shard has two files, `<shard>.young` and `<shard>.old`. Both look like this:
//!
//! ```text
//!  0                4096                                                    4096 + capacity
//!  +----------------+--------+--------+-----+--------+-----+------ - - ----------+
//!  | superblock     | record | record |     | record | PAD | (free or stale)     |
//!  +----------------+--------+--------+-----+--------+-----+------ - - ----------+
//!                            ^ tail                        ^ head (not stored: found by scan)
//!
//!  superblock                                    record header, one cache line, 64-aligned
//!   0 u64 magic, stored last at creation          0 u64 commit = lsn ^ secret; bit 63 = DEAD
//!   8 u32 format         12 u32 generation        8 u32 payload length   12 u32 crc32c
//!  16 u64 schema hash    24 u64 secret           16 u128 call id
//!  32 u64 capacity                               32 u32 version          36 u32 epoch
//!  40 16 B boot id of the kernel                 40 u64 rseq
//!  56 u16 node  58 u16 shard  60 u32 incarnation 48 u16 owner node       50 u16 shard
//!  64 u64 tail (lsn)                             52 u16 schema  54 u8 kind  55 u8 flags
//! 128 u64 cluster epoch                          56 u64 written, Unix milliseconds
//! 136 u64 1 = closed in order                    64 payload, 64-aligned, then padding to 64
//! 144 u64 rseq up to which calls are void
//! ```
//!
//! An *lsn* is a byte position in the endless log; its place in the file is
//! `4096 + lsn % capacity`. Everything is little-endian. All fields at 8-aligned offsets of 8 bytes are stored as one word.

/// Bytes of a record header, and the alignment of every record: one cache line.
pub const HEADER: usize = 64;
/// Bytes before the first record of a file.
pub const SUPERBLOCK: usize = 4096;

/// First word of a finished ring file: `RINGTOLL` read as little-endian ASCII.
pub const MAGIC: u64 = u64::from_le_bytes(*b"RINGTOLL");
/// Number of the layout drawn above.
pub const FORMAT: u32 = 1;

/// Offsets of the superblock's fields.
pub mod superblock {
    /// Magic word.
    pub const MAGIC: usize = 0;
    /// Format (low half) and generation (high half) in one word.
    pub const FORMAT: usize = MAGIC + 8;
    /// Hash of the archived types, chosen by the user of the crate.
    pub const SCHEMA_HASH: usize = FORMAT + 8;
    /// Random word of this pair of files.
    pub const SECRET: usize = SCHEMA_HASH + 8;
    /// Bytes for records.
    pub const CAPACITY: usize = SECRET + 8;
    /// Boot id of the kernel that created the file, two words.
    pub const BOOT_ID: usize = CAPACITY + 8;
    /// Node, shard and incarnation in one word.
    pub const IDENTITY: usize = BOOT_ID + 16;
    /// Lsn of the oldest record; in a cache line of its own.
    pub const TAIL: usize = 64;
    /// Newest cluster epoch (view number) the writer has seen.
    pub const CLUSTER_EPOCH: usize = 128;
    /// 1 while nobody has the file open and the last writer closed it in order.
    pub const CLEAN: usize = CLUSTER_EPOCH + 8;
    /// Number of the record up to which every call held is void: the other nodes have settled
    /// without it. Of the young file; what was never written reads as 0.
    pub const VOID_UPTO: usize = CLEAN + 8;

    const _: () = assert!(IDENTITY + 8 == TAIL);
    const _: () = assert!(VOID_UPTO + 8 <= super::SUPERBLOCK);
}

/// Offsets of a record header's fields.
pub mod header {
    /// Commit word.
    pub const COMMIT: usize = 0;
    /// Payload length.
    pub const LEN: usize = COMMIT + 8;
    /// Checksum.
    pub const CRC: usize = LEN + 4;
    /// Call id; the checksum covers everything from here to the end of the payload.
    pub const ID: usize = CRC + 4;
    /// Version within the epoch.
    pub const VER: usize = ID + 16;
    /// Epoch of the writer.
    pub const EPOCH: usize = VER + 4;
    /// Number of the record among all the writer's records.
    pub const RSEQ: usize = EPOCH + 4;
    /// Owner node.
    pub const OWNER: usize = RSEQ + 8;
    /// Shard of the owner.
    pub const SHARD: usize = OWNER + 2;
    /// Schema of the payload.
    pub const SCHEMA: usize = SHARD + 2;
    /// Kind of record.
    pub const KIND: usize = SCHEMA + 2;
    /// Flags, the writer's business.
    pub const FLAGS: usize = KIND + 1;
    /// When the record was written, Unix milliseconds.
    pub const WRITTEN: usize = FLAGS + 1;

    const _: () = assert!(WRITTEN + 8 == super::HEADER);
    const _: () = assert!(ID.is_multiple_of(16) && RSEQ.is_multiple_of(8));
}

/// Bytes a record with a payload of `len` bytes takes in a ring.
#[must_use]
pub const fn record_size(len: usize) -> u64 {
    ((HEADER + len + HEADER - 1) & !(HEADER - 1)) as u64
}

const _: () = assert!(record_size(0) == 64 && record_size(1) == 128 && record_size(64) == 128);
const _: () = assert!(SUPERBLOCK.is_multiple_of(HEADER));
