//! One version of a call in a ring: header, commit word, DEAD bit, checksum.
//!
//! The commit protocol: payload and header are written with plain stores, then the commit word
//! `lsn ^ secret` is stored with Release. A reader that finds the word it expects at a place may
//! read the header; a checksum then proves header and payload. Bytes of an earlier lap carry
//! another lsn and so never match. Setting DEAD is the only store ever made to a committed record.

use crate::layout::{HEADER, header, record_size};

/// Identity of a call: origin node, shard, incarnation and counter. Unique by construction,
/// never reused, and not the SIP Call-ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(u128);

impl CallId {
    /// Joins the parts.
    #[must_use]
    pub const fn new(node: u16, shard: u16, incarnation: u32, counter: u64) -> Self {
        let high = (node as u64) << 48 | (shard as u64) << 32 | incarnation as u64;
        Self((high as u128) << 64 | counter as u128)
    }

    /// Takes the id as a number.
    #[must_use]
    pub const fn from_u128(id: u128) -> Self {
        Self(id)
    }

    /// The id as a number.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        self.0
    }

    /// Node that accepted the call.
    #[must_use]
    pub const fn node(self) -> u16 {
        (self.0 >> 112) as u16
    }

    /// Shard that accepted the call.
    #[must_use]
    pub const fn shard(self) -> u16 {
        (self.0 >> 96) as u16
    }

    /// Incarnation of the node when it accepted the call.
    #[must_use]
    pub const fn incarnation(self) -> u32 {
        (self.0 >> 64) as u32
    }

    /// Number of the call within shard and incarnation.
    #[must_use]
    pub const fn counter(self) -> u64 {
        self.0 as u64
    }

    /// A hash for tables. Ids are ours, not an attacker's choice, so one multiplication suffices.
    #[must_use]
    #[inline]
    pub(crate) const fn hash(self) -> u64 {
        let mixed =
            ((self.0 >> 64) as u64 ^ HASH_SEED) as u128 * (self.0 as u64 ^ HASH_FACTOR) as u128;
        ((mixed >> 64) as u64 ^ mixed as u64).wrapping_mul(HASH_FACTOR)
    }
}

/// Place of a record among all versions of its call. One epoch has one writer, so this is a
/// total order, and equal versions have equal content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Number of the view under which the writer became owner.
    pub epoch: u32,
    /// Counts the writer's records of this call, from 1.
    pub ver: u32,
}

impl Version {
    /// First version under `epoch`.
    #[must_use]
    pub const fn first(epoch: u32) -> Self {
        Self { epoch, ver: 1 }
    }

    /// The version after this one, under the same epoch.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.ver.checked_add(1) {
            Some(ver) => Some(Self {
                epoch: self.epoch,
                ver,
            }),
            None => None,
        }
    }
}

/// What a record says about its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The payload is the call's state.
    Put,
    /// The call has ended (a tombstone).
    Del,
    /// No record, only the rest of a lap; all other fields are meaningless.
    Pad,
}

impl Kind {
    /// The byte in the header.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        match self {
            Self::Put => 1,
            Self::Del => 2,
            Self::Pad => 3,
        }
    }

    /// Reads the byte in the header.
    #[must_use]
    pub const fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Put),
            2 => Some(Self::Del),
            3 => Some(Self::Pad),
            _ => None,
        }
    }
}

/// A record's header without commit word, length and checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The call.
    pub id: CallId,
    /// The version.
    pub version: Version,
    /// Number of the record among all the writer's records.
    pub rseq: u64,
    /// Node that owned the call when it wrote this.
    pub owner: u16,
    /// Shard of that node.
    pub shard: u16,
    /// Schema of the payload.
    pub schema: u16,
    /// Put, tombstone or padding.
    pub kind: Kind,
    /// 0, or one more than the number of the `heir`.
    pub flags: u8,
    /// When it was written, Unix milliseconds.
    pub written: u64,
}

impl Meta {
    /// Node that is to adopt the call: its owner is leaving and has written for the last time.
    #[must_use]
    pub fn heir(&self) -> Option<u16> {
        self.flags.checked_sub(1).map(u16::from)
    }
}

/// A record in a ring.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its header.
    pub meta: Meta,
    /// The archived call state, 64-aligned.
    pub payload: &'a [u8],
}

/// Commit word of the record at `lsn`. Odd for an odd secret, so never equal to zeroed memory.
#[inline]
pub(crate) const fn commit_word(lsn: u64, secret: u64) -> u64 {
    (lsn ^ secret) & !DEAD
}

/// Writes everything but the commit word in front of `payload_len` payload bytes already there.
/// `record` is the whole record, header first.
#[inline]
pub(crate) fn seal(record: &mut [u8], meta: &Meta, payload_len: usize) {
    let mut fields = [0; HEADER];
    let len = u32::try_from(payload_len).expect("payloads are limited to 1 MiB");
    put(&mut fields, header::LEN, len.to_le_bytes());
    put(&mut fields, header::ID, meta.id.as_u128().to_le_bytes());
    put(&mut fields, header::VER, meta.version.ver.to_le_bytes());
    put(&mut fields, header::EPOCH, meta.version.epoch.to_le_bytes());
    put(&mut fields, header::RSEQ, meta.rseq.to_le_bytes());
    put(&mut fields, header::OWNER, meta.owner.to_le_bytes());
    put(&mut fields, header::SHARD, meta.shard.to_le_bytes());
    put(&mut fields, header::SCHEMA, meta.schema.to_le_bytes());
    fields[header::KIND] = meta.kind.as_u8();
    fields[header::FLAGS] = meta.flags;
    put(&mut fields, header::WRITTEN, meta.written.to_le_bytes());
    record[header::LEN..HEADER].copy_from_slice(&fields[header::LEN..]);
    let crc = checksum(record, payload_len);
    record[header::CRC..header::ID].copy_from_slice(&crc.to_le_bytes());
}

/// Checksum over identity and payload. Neither the lsn nor DEAD is covered, so a record can move.
#[inline]
pub(crate) fn checksum(record: &[u8], payload_len: usize) -> u32 {
    crc32c::crc32c(&record[header::ID..HEADER + payload_len]) ^ payload_len as u32
}

/// Payload length a header claims.
#[inline]
pub(crate) fn payload_len(head: &[u8]) -> usize {
    u32::from_le_bytes(take(head, header::LEN)) as usize
}

/// Bytes in the ring a header claims.
#[inline]
pub(crate) fn claimed_size(head: &[u8]) -> u64 {
    record_size(payload_len(head))
}

/// Checksum a header claims.
#[inline]
pub(crate) fn claimed_checksum(head: &[u8]) -> u32 {
    u32::from_le_bytes(take(head, header::CRC))
}

/// Call id in a header.
#[inline]
pub(crate) fn call_id(head: &[u8]) -> CallId {
    CallId(u128::from_le_bytes(take(head, header::ID)))
}

/// Version in a header.
#[inline]
pub(crate) fn version(head: &[u8]) -> Version {
    Version {
        epoch: u32::from_le_bytes(take(head, header::EPOCH)),
        ver: u32::from_le_bytes(take(head, header::VER)),
    }
}

/// Kind in a header.
#[inline]
pub(crate) fn kind(head: &[u8]) -> Option<Kind> {
    Kind::from_u8(head[header::KIND])
}

/// Reads a whole header; nothing if the kind is unknown.
#[inline]
pub(crate) fn meta(head: &[u8]) -> Option<Meta> {
    Some(Meta {
        id: call_id(head),
        version: version(head),
        rseq: u64::from_le_bytes(take(head, header::RSEQ)),
        owner: u16::from_le_bytes(take(head, header::OWNER)),
        shard: u16::from_le_bytes(take(head, header::SHARD)),
        schema: u16::from_le_bytes(take(head, header::SCHEMA)),
        kind: kind(head)?,
        flags: head[header::FLAGS],
        written: u64::from_le_bytes(take(head, header::WRITTEN)),
    })
}

#[inline]
fn put<const N: usize>(fields: &mut [u8; HEADER], at: usize, bytes: [u8; N]) {
    fields[at..at + N].copy_from_slice(&bytes);
}

#[inline]
fn take<const N: usize>(head: &[u8], at: usize) -> [u8; N] {
    head[at..at + N]
        .try_into()
        .expect("the slice has just been cut to this length")
}

/// Bit of the commit word that marks a superseded record.
pub(crate) const DEAD: u64 = 1 << 63;

const HASH_SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const HASH_FACTOR: u64 = 0xd6e8_feb8_6659_fd93;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn a_meta(id: u128, epoch: u32, ver: u32) -> Meta {
        Meta {
            id: CallId::from_u128(id),
            version: Version { epoch, ver },
            rseq: 77,
            owner: 3,
            shard: 4,
            schema: 5,
            kind: Kind::Put,
            flags: 6,
            written: 1_700_000_000_123,
        }
    }

    proptest! {
        #[test]
        fn a_header_reads_back_as_written(id: u128, epoch: u32, ver: u32, len in 0_usize..200) {
            let mut record = vec![0xA5; record_size(len) as usize];
            let meta = a_meta(id, epoch, ver);
            seal(&mut record, &meta, len);
            prop_assert_eq!(super::meta(&record), Some(meta));
            prop_assert_eq!(payload_len(&record), len);
            prop_assert_eq!(claimed_size(&record), record_size(len));
            prop_assert_eq!(claimed_checksum(&record), checksum(&record, len));
        }
    }

    #[test]
    fn the_parts_of_an_id_come_back() {
        let id = CallId::new(1, 2, 3, 4);
        assert_eq!(
            (id.node(), id.shard(), id.incarnation(), id.counter()),
            (1, 2, 3, 4)
        );
        assert_eq!(CallId::from_u128(id.as_u128()), id);
    }

    #[test]
    fn versions_are_ordered_by_epoch_first() {
        assert!(Version { epoch: 2, ver: 1 } > Version { epoch: 1, ver: 9 });
        assert!(Version { epoch: 2, ver: 2 } > Version::first(2));
        assert_eq!(
            Version {
                epoch: 1,
                ver: u32::MAX
            }
            .next(),
            None
        );
    }

    #[test]
    fn an_unknown_kind_is_no_record() {
        let mut record = vec![0; 64];
        seal(&mut record, &a_meta(1, 1, 1), 0);
        record[header::KIND] = 9;
        assert_eq!(meta(&record), None);
    }

    #[test]
    fn hashes_of_neighbouring_ids_differ_in_the_bits_tables_use() {
        let (mut top, mut low) = (std::collections::BTreeSet::new(), [0_u32; 64]);
        for counter in 0..4096 {
            let hash = CallId::new(1, 0, 1, counter).hash();
            top.insert(hash >> 57);
            low[hash as usize % 64] += 1;
        }
        assert_eq!(top.len(), 128);
        assert!(
            low.iter().all(|&count| (16..=160).contains(&count)),
            "{low:?}"
        );
    }
}
