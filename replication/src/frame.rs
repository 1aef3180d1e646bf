//! What a replication datagram looks like.
//!
//! ```text
//!  clear, authenticated (32 B)                   sealed                            tag
//!  +--------------------------------------------+---------------------------------+------+
//!  | 0 u16 magic  2 u8 protocol  3 u8 type      | body, by type                   | 16 B |
//!  | 4 u16 from   6 u16 to       8 u32 cluster  |                                 |      |
//!  |12 u32 incarnation  16 u32 to incarnation   |                                 |      |
//!  |20 u16 shard 22 u8 key 23 u8 flags          |                                 |      |
//!  |24 u64 datagram number                      |                                 |      |
//!  +--------------------------------------------+---------------------------------+------+
//!
//!  body of DATA and ACK                          n entries, each
//!   0 u64 base: records below it are settled      0 u128 call id
//!   8 u64 cumulative ack, 16 u64 selective ack   16 u32 epoch, 20 u32 version
//!  24 u32 window in bytes  28 u32 sync number    24 u64 number in the stream
//!  32 u16 n                                      32 u16 owner 34 u16 shard 36 u16 schema
//!                                                38 u8 kind   39 u8 flags
//!                                                40 u32 length of the whole payload
//!                                                44 u32 offset of this piece, 48 u16 its length
//!                                                50 the piece
//! ```
//!
//! Everything here is bytes; what they mean is the business of `peer` and `view`. The selective
//! ack has bit n set if record `cumulative + 2 + n` has arrived, for by definition the one after
//! the cumulative ack has not.

use crate::record::{CallId, Version};

/// The clear part in front of every datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Version of the protocol it is written in; 0 for heartbeats, whose layout only grows.
    pub protocol: u8,
    /// What the body is.
    pub kind: FrameKind,
    /// Node that sends.
    pub from: u16,
    /// Node that is meant.
    pub to: u16,
    /// Cluster both belong to.
    pub cluster: u32,
    /// Incarnation of the sender.
    pub incarnation: u32,
    /// Incarnation of the receiver as the sender knows it; 0 where it need not know it.
    pub to_incarnation: u32,
    /// Shard, the same on both sides.
    pub shard: u16,
    /// Which of the live cluster keys.
    pub key: u8,
    /// `FLAG_URGENT`, `FLAG_FULL`.
    pub flags: u8,
    /// Number of the datagram; never used twice under one incarnation and shard.
    pub number: u64,
}

/// Types of datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// Records, and acks for the other direction.
    Data,
    /// Acks alone.
    Ack,
    /// Asks to be filled.
    SyncRequest,
    /// View register and heartbeats.
    View,
    /// A SIP datagram that another node must handle.
    Forward,
}

impl Head {
    /// Writes the head at the start of `bytes`.
    pub fn encode(&self, bytes: &mut [u8; HEAD]) {
        bytes[0..2].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[2] = self.protocol;
        bytes[3] = self.kind as u8 + 1;
        bytes[4..6].copy_from_slice(&self.from.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.to.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.cluster.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.incarnation.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.to_incarnation.to_le_bytes());
        bytes[20..22].copy_from_slice(&self.shard.to_le_bytes());
        bytes[22] = self.key;
        bytes[23] = self.flags;
        bytes[24..32].copy_from_slice(&self.number.to_le_bytes());
    }

    /// Reads the head of a datagram. Nothing in it is true before the seal is opened.
    ///
    /// # Errors
    /// `Short`, `Magic`, `Kind` or `Number`.
    pub fn parse(datagram: &[u8]) -> Result<Self, FrameError> {
        let mut cursor = Bytes::new(datagram);
        if cursor.u16()? != MAGIC {
            return Err(FrameError::Magic);
        }
        let protocol = cursor.u8()?;
        let kind = match cursor.u8()? {
            1 => FrameKind::Data,
            2 => FrameKind::Ack,
            3 => FrameKind::SyncRequest,
            4 => FrameKind::View,
            5 => FrameKind::Forward,
            _ => return Err(FrameError::Kind),
        };
        Ok(Self {
            protocol,
            kind,
            from: cursor.u16()?,
            to: cursor.u16()?,
            cluster: cursor.u32()?,
            incarnation: cursor.u32()?,
            to_incarnation: cursor.u32()?,
            shard: cursor.u16()?,
            key: cursor.u8()?,
            flags: cursor.u8()?,
            number: cursor.number()?,
        })
    }
}

/// The front of a DATA or ACK body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Records of the sender's stream below this number are acked or superseded.
    pub base: u64,
    /// All records of the receiver's stream up to this one have arrived or are settled.
    pub cumulative: u64,
    /// Those that arrived beyond, from `cumulative + 2` on.
    pub selective: u64,
    /// Bytes the sender is ready to take.
    pub window: u32,
    /// Number of the catch-up that entries with `ENTRY_SYNC` belong to.
    pub sync: u32,
    /// Entries that follow.
    pub entries: u16,
}

impl Stream {
    /// Writes the front of a body.
    pub fn encode(&self, bytes: &mut [u8; STREAM]) {
        bytes[0..8].copy_from_slice(&self.base.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.cumulative.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.selective.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.window.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.sync.to_le_bytes());
        bytes[32..34].copy_from_slice(&self.entries.to_le_bytes());
    }

    /// Reads the front of a body.
    ///
    /// # Errors
    /// `Short`.
    pub fn parse(bytes: &mut Bytes<'_>) -> Result<Self, FrameError> {
        Ok(Self {
            base: bytes.number()?,
            cumulative: bytes.number()?,
            selective: bytes.u64()?,
            window: bytes.u32()?,
            sync: bytes.u32()?,
            entries: bytes.u16()?,
        })
    }
}

/// One record, or a piece of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The call.
    pub id: CallId,
    /// Its version.
    pub version: Version,
    /// Number in the sender's stream; all pieces of a record share it.
    pub number: u64,
    /// Owner of the call.
    pub owner: u16,
    /// Shard of the owner.
    pub shard: u16,
    /// Schema of the payload.
    pub schema: u16,
    /// What the entry says.
    pub kind: EntryKind,
    /// `ENTRY_SYNC` or nothing, and the record's own flags from `ENTRY_RECORD` on.
    pub flags: u8,
    /// Length of the whole payload.
    pub total: u32,
    /// Where this piece of it starts.
    pub offset: u32,
    /// The piece.
    pub piece: &'a [u8],
}

/// What an entry says about its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// The call's newest state.
    Put,
    /// The call has ended.
    Del,
    /// This version is superseded; the newer one has its own number.
    Skip,
    /// End of a catch-up; `id` and `version` say of which, and what it brought.
    Mark,
}

impl<'a> Entry<'a> {
    /// Writes the entry at the start of `bytes`; nothing if it does not fit.
    #[must_use]
    pub fn encode(&self, bytes: &mut [u8]) -> Option<usize> {
        let len = ENTRY + self.piece.len();
        let bytes = bytes.get_mut(..len)?;
        bytes[0..16].copy_from_slice(&self.id.as_u128().to_le_bytes());
        bytes[16..20].copy_from_slice(&self.version.epoch.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.version.ver.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.number.to_le_bytes());
        bytes[32..34].copy_from_slice(&self.owner.to_le_bytes());
        bytes[34..36].copy_from_slice(&self.shard.to_le_bytes());
        bytes[36..38].copy_from_slice(&self.schema.to_le_bytes());
        bytes[38] = self.kind as u8 + 1;
        bytes[39] = self.flags;
        bytes[40..44].copy_from_slice(&self.total.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.offset.to_le_bytes());
        let piece = u16::try_from(self.piece.len()).ok()?;
        bytes[48..50].copy_from_slice(&piece.to_le_bytes());
        bytes[ENTRY..].copy_from_slice(self.piece);
        Some(len)
    }

    /// Reads the next entry of a body.
    ///
    /// # Errors
    /// `Short`, `Kind`, `Piece` or `Number`.
    pub fn parse(bytes: &mut Bytes<'a>) -> Result<Self, FrameError> {
        let id = CallId::from_u128(bytes.u128()?);
        let version = Version {
            epoch: bytes.u32()?,
            ver: bytes.u32()?,
        };
        let (number, owner, shard) = (bytes.number()?, bytes.u16()?, bytes.u16()?);
        let schema = bytes.u16()?;
        let kind = match bytes.u8()? {
            1 => EntryKind::Put,
            2 => EntryKind::Del,
            3 => EntryKind::Skip,
            4 => EntryKind::Mark,
            _ => return Err(FrameError::Kind),
        };
        let (flags, total, offset) = (bytes.u8()?, bytes.u32()?, bytes.u32()?);
        let len = bytes.u16()?;
        let piece = bytes.take(usize::from(len))?;
        let fits = offset
            .checked_add(u32::from(len))
            .is_some_and(|end| end <= total);
        let whole = kind == EntryKind::Put || total == 0;
        if !fits || !whole || (total > 0 && len == 0) {
            return Err(FrameError::Piece);
        }
        Ok(Self {
            id,
            version,
            number,
            owner,
            shard,
            schema,
            kind,
            flags,
            total,
            offset,
            piece,
        })
    }

    /// Whether the piece is the whole payload.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.piece.len() == self.total as usize
    }
}

/// Why a datagram or a part of it cannot be read. It is counted and dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// It ends too early.
    Short,
    /// It is no replication datagram.
    Magic,
    /// Another version of the protocol.
    Protocol,
    /// An unknown type.
    Kind,
    /// A piece that does not lie within its payload.
    Piece,
    /// A number that nobody can have counted up to.
    Number,
}

/// Reads numbers off the front of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    /// Starts at the front of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What is left.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes `len` bytes.
    ///
    /// # Errors
    /// `Short`.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], FrameError> {
        let (front, rest) = self.rest.split_at_checked(len).ok_or(FrameError::Short)?;
        self.rest = rest;
        Ok(front)
    }

    /// Takes a byte.
    ///
    /// # Errors
    /// `Short`.
    pub fn u8(&mut self) -> Result<u8, FrameError> {
        Ok(self.array::<1>()?[0])
    }

    /// Takes a number of two bytes.
    ///
    /// # Errors
    /// `Short`.
    pub fn u16(&mut self) -> Result<u16, FrameError> {
        self.array().map(u16::from_le_bytes)
    }

    /// Takes a number of eight bytes that somebody counted up to, so that counting on from it
    /// never overflows.
    ///
    /// # Errors
    /// `Short` or `Number`.
    pub fn number(&mut self) -> Result<u64, FrameError> {
        let number = self.u64()?;
        (number <= NUMBER_MAX)
            .then_some(number)
            .ok_or(FrameError::Number)
    }

    /// Takes a number of four bytes that somebody counted up to.
    ///
    /// # Errors
    /// `Short` or `Number`.
    pub fn count(&mut self) -> Result<u32, FrameError> {
        let count = self.u32()?;
        (count <= COUNT_MAX)
            .then_some(count)
            .ok_or(FrameError::Number)
    }

    /// Takes a number of four bytes.
    ///
    /// # Errors
    /// `Short`.
    pub fn u32(&mut self) -> Result<u32, FrameError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Takes a number of eight bytes.
    ///
    /// # Errors
    /// `Short`.
    pub fn u64(&mut self) -> Result<u64, FrameError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Takes a number of sixteen bytes.
    ///
    /// # Errors
    /// `Short`.
    pub fn u128(&mut self) -> Result<u128, FrameError> {
        self.array().map(u128::from_le_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        Ok(self
            .take(N)?
            .try_into()
            .expect("the slice has just been cut to this length"))
    }
}

/// No counter of eight bytes on the wire is above this: a thousand million a second for a century.
pub const NUMBER_MAX: u64 = 1 << 62;
/// No view number or incarnation is above this.
pub const COUNT_MAX: u32 = 1 << 31;
/// First two bytes of every datagram.
pub const MAGIC: u16 = u16::from_le_bytes(*b"Rt");
/// Version of this layout.
pub const PROTOCOL: u8 = 1;
/// Lowest protocol this version still reads and writes.
pub const PROTOCOL_MIN: u8 = 1;
/// In place of the protocol: a heartbeat, by which nodes learn what they have in common.
pub const PROTOCOL_HEARTBEAT: u8 = 0;
const _: () = assert!(PROTOCOL_HEARTBEAT < PROTOCOL_MIN && PROTOCOL_MIN <= PROTOCOL);
/// Bytes of the clear part.
pub const HEAD: usize = 32;
/// Bytes in front of the entries.
pub const STREAM: usize = 34;
/// Bytes in front of an entry's piece.
pub const ENTRY: usize = 50;
/// Bytes of the seal.
pub const TAG: usize = 16;
/// Flag of a datagram whose records somebody waits for: ack at once.
pub const FLAG_URGENT: u8 = 1;
/// Flag of data and acks: entries that came were refused, for the sender of this has no room.
pub const FLAG_FULL: u8 = 2;
/// Flag of an entry that a catch-up walk sends.
pub const ENTRY_SYNC: u8 = 1;
/// Place of the record's own flags among those of an entry.
pub const ENTRY_RECORD: u32 = 3;
const _: () = assert!(crate::replicator::PEERS_MAX + 1 < 1 << (8 - ENTRY_RECORD));
/// Longest datagram on a LAN with jumbo frames; buffers are this long.
pub const DATAGRAM_BYTES_MAX: usize = 8972;
/// Longest datagram that crosses any Ethernet in one piece.
pub const DATAGRAM_BYTES_ETHERNET: usize = 1500 - 28;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = (Entry<'static>, Vec<u8>)> {
        let numbers = (
            any::<u128>(),
            any::<u32>(),
            any::<u32>(),
            0..=NUMBER_MAX,
            any::<u16>(),
        );
        (
            numbers,
            0..4_u8,
            prop::collection::vec(any::<u8>(), 0..300),
            0..5000_u32,
        )
            .prop_map(|((id, epoch, ver, number, owner), kind, piece, more)| {
                let kinds = [
                    EntryKind::Put,
                    EntryKind::Del,
                    EntryKind::Skip,
                    EntryKind::Mark,
                ];
                let kind = kinds[usize::from(kind)];
                let piece = if kind == EntryKind::Put {
                    piece
                } else {
                    Vec::new()
                };
                let offset = if piece.is_empty() { 0 } else { more };
                let entry = Entry {
                    id: CallId::from_u128(id),
                    version: Version { epoch, ver },
                    number,
                    owner,
                    shard: 1,
                    schema: 2,
                    kind,
                    flags: ENTRY_SYNC,
                    total: offset + piece.len() as u32,
                    offset,
                    piece: &[],
                };
                (entry, piece)
            })
    }

    proptest! {
        #[test]
        fn a_head_reads_back(from: u16, to: u16, cluster: u32, numbers: (u32, u32, u64), key: u8) {
            let head = Head {
                protocol: PROTOCOL,
                kind: FrameKind::View,
                from,
                to,
                cluster,
                incarnation: numbers.0,
                to_incarnation: numbers.1,
                shard: 9,
                key,
                flags: FLAG_URGENT,
                number: numbers.2 & (NUMBER_MAX - 1),
            };
            let mut bytes = [0; HEAD];
            head.encode(&mut bytes);
            prop_assert_eq!(Head::parse(&bytes), Ok(head));
            for len in 0..HEAD {
                prop_assert!(Head::parse(&bytes[..len]).is_err());
            }
        }

        #[test]
        fn an_entry_reads_back((entry, piece) in entry()) {
            let entry = Entry { piece: &piece, ..entry };
            let mut bytes = vec![0; 400];
            let len = entry.encode(&mut bytes).expect("400 bytes are enough");
            let mut cursor = Bytes::new(&bytes[..len]);
            prop_assert_eq!(Entry::parse(&mut cursor), Ok(entry));
            prop_assert!(cursor.rest().is_empty());
            prop_assert_eq!(entry.encode(&mut bytes[..len - 1]), None);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Head::parse(&bytes);
            let mut cursor = Bytes::new(&bytes);
            let _ = Stream::parse(&mut cursor);
            while Entry::parse(&mut cursor).is_ok() {}
        }
    }

    #[test]
    fn a_piece_outside_its_payload_is_refused() {
        let entry = Entry {
            id: CallId::from_u128(1),
            version: Version::first(1),
            number: 1,
            owner: 1,
            shard: 0,
            schema: 0,
            kind: EntryKind::Put,
            flags: 0,
            total: 3,
            offset: 0,
            piece: &[1, 2, 3, 4],
        };
        let mut bytes = [0; 60];
        for wrong in [
            entry,
            Entry {
                total: 8,
                offset: u32::MAX,
                ..entry
            },
            Entry {
                total: 4,
                kind: EntryKind::Del,
                ..entry
            },
            Entry {
                total: 4,
                piece: &[],
                ..entry
            },
        ] {
            let len = wrong.encode(&mut bytes).expect("it fits");
            let parsed = Entry::parse(&mut Bytes::new(&bytes[..len]));
            assert_eq!(parsed, Err(FrameError::Piece));
        }
    }
}
