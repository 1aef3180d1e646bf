//! One ring file: an endless log in a circle, with a head that appends and a tail that frees.
//!
//! A generation knows nothing of calls. It keeps records contiguous (a PAD record fills the rest
//! of a lap that is too short), publishes each by its commit word, and walks them again after a
//! crash. The head is never stored: it is where the commit words stop matching.

use crate::config::RingConfig;
use crate::error::OpenError;
use crate::layout::{FORMAT, HEADER, MAGIC, SUPERBLOCK, superblock};
use crate::map::Map;
use crate::record::{self, CallId, DEAD, Kind, Meta, Version};

/// One ring file, open for writing.
#[derive(Debug)]
pub(crate) struct Generation {
    map: Map,
    capacity: u64,
    secret: u64,
    tail: u64,
    /// Offset of the tail behind the superblock; spares a division per look-up.
    tail_at: u64,
    head: u64,
}

impl Generation {
    /// Writes an empty ring into `map`. The magic word is stored last, so a half-made file is
    /// blank.
    pub(crate) fn create(mut map: Map, which: Which, secret: u64, config: &RingConfig) -> Self {
        map.store(superblock::MAGIC, 0);
        let len = map.len();
        map.bytes_mut(SUPERBLOCK, len - SUPERBLOCK).fill(0);
        let capacity = (len - SUPERBLOCK) as u64;
        map.store(superblock::FORMAT, u64::from(FORMAT) | (which as u64) << 32);
        map.store(superblock::SECRET, secret);
        map.store(superblock::CAPACITY, capacity);
        map.store(superblock::BOOT_ID, boot_words(config)[0]);
        map.store(superblock::BOOT_ID + 8, boot_words(config)[1]);
        map.store(superblock::TAIL, 0);
        map.store(superblock::CLUSTER_EPOCH, 0);
        map.store(superblock::CLEAN, 0);
        map.store(superblock::VOID_UPTO, 0);
        map.store(superblock::SCHEMA_HASH, config.schema_hash);
        map.store(superblock::IDENTITY, identity(config.node, config.shard, 0));
        map.store(superblock::MAGIC, MAGIC);
        Self {
            map,
            capacity,
            secret,
            tail: 0,
            tail_at: 0,
            head: 0,
        }
    }

    /// Takes up an existing ring; the head is at the tail until the caller has scanned.
    pub(crate) fn open(map: Map, which: Which, config: &RingConfig) -> Result<Self, OpenError> {
        check_superblock(&map, which, config)?;
        let (capacity, tail) = (map.load(superblock::CAPACITY), map.load(superblock::TAIL));
        let secret = map.load(superblock::SECRET);
        Ok(Self {
            map,
            capacity,
            secret,
            tail,
            tail_at: tail % capacity,
            head: tail,
        })
    }

    /// Makes the record at `lsn` dead. Idempotent.
    #[inline]
    pub(crate) fn mark_dead(&mut self, lsn: u64) {
        let at = self.at(lsn);
        self.map
            .store(at, record::commit_word(lsn, self.secret) | DEAD);
    }

    /// Closes a lap that is too short for a record of `size` bytes. The caller made room.
    #[inline]
    pub(crate) fn pad_for(&mut self, size: u64) {
        let left = self.left_in_lap();
        if left >= size {
            return;
        }
        let meta = Meta {
            id: CallId::from_u128(0),
            version: Version { epoch: 0, ver: 0 },
            rseq: 0,
            owner: 0,
            shard: 0,
            schema: 0,
            kind: Kind::Pad,
            flags: 0,
            written: 0,
        };
        let at = self.at(self.head);
        record::seal(
            self.map.bytes_mut(at, left as usize),
            &meta,
            left as usize - HEADER,
        );
        self.publish(left);
    }

    /// The bytes of the next record, whose size must fit into the lap.
    #[inline]
    pub(crate) fn next_bytes(&mut self, size: u64) -> &mut [u8] {
        let at = self.at(self.head);
        self.map.bytes_mut(at, size as usize)
    }

    /// Copies the record at `lsn` of this generation, without commit word, to the head.
    #[inline]
    pub(crate) fn copy_to_head(&mut self, lsn: u64, bytes: usize) {
        let (from, to) = (self.at(lsn), self.at(self.head));
        let len = self.map.len();
        self.map
            .bytes_mut(0, len)
            .copy_within(from + 8..from + bytes, to + 8);
    }

    /// Commits what was written at the head and hands out its lsn.
    #[inline]
    pub(crate) fn publish(&mut self, size: u64) -> u64 {
        let lsn = self.head;
        let at = self.at(lsn);
        self.map.store(at, record::commit_word(lsn, self.secret));
        self.head += size;
        lsn
    }

    /// Frees the record at the tail.
    pub(crate) fn advance_tail(&mut self, size: u64) {
        self.tail += size;
        self.tail_at += size;
        if self.tail_at >= self.capacity {
            self.tail_at -= self.capacity;
        }
        self.map.store(superblock::TAIL, self.tail);
    }

    /// Moves the head over a record that a scan found.
    pub(crate) fn advance_head(&mut self, size: u64) {
        self.head += size;
    }

    /// Notes who writes from now on, and that the file is in use.
    pub(crate) fn begin_use(&mut self, config: &RingConfig, incarnation: u32) {
        self.map.store(superblock::CLEAN, 0);
        self.map.store(superblock::SCHEMA_HASH, config.schema_hash);
        self.map.store(
            superblock::IDENTITY,
            identity(config.node, config.shard, incarnation),
        );
    }

    /// Notes that the writer closed the file in order.
    pub(crate) fn end_use(&mut self) {
        self.map.store(superblock::CLEAN, 1);
    }

    /// Notes the newest view number.
    pub(crate) fn set_cluster_epoch(&mut self, epoch: u32) {
        self.map.store(superblock::CLUSTER_EPOCH, u64::from(epoch));
    }

    /// Newest view number noted.
    pub(crate) fn cluster_epoch(&self) -> u32 {
        self.map.load(superblock::CLUSTER_EPOCH) as u32
    }

    /// Notes up to which record the calls held are void.
    pub(crate) fn set_void_upto(&mut self, rseq: u64) {
        self.map.store(superblock::VOID_UPTO, rseq);
    }

    /// Up to which record the calls held are void.
    pub(crate) fn void_upto(&self) -> u64 {
        self.map.load(superblock::VOID_UPTO)
    }

    /// What lies at `lsn`, judged by commit word, bounds and checksum, in this order.
    pub(crate) fn examine(&self, lsn: u64) -> Found {
        let used = lsn - self.tail;
        if used + HEADER as u64 > self.capacity {
            return Found::End;
        }
        let at = self.at(lsn);
        let word = self.map.load(at);
        if word & !DEAD != record::commit_word(lsn, self.secret) {
            return Found::End;
        }
        let head = self.map.bytes(at, HEADER);
        let size = record::claimed_size(head);
        let left_in_lap = (SUPERBLOCK as u64 + self.capacity) - at as u64;
        if size > left_in_lap || used + size > self.capacity {
            return Found::End;
        }
        if word & DEAD != 0 {
            return Found::Dead(size);
        }
        match record::kind(head) {
            Some(Kind::Pad) if size == left_in_lap => return Found::Pad(size),
            Some(Kind::Pad) | None => return Found::Corrupt(size),
            Some(Kind::Put | Kind::Del) => {}
        }
        let len = record::payload_len(head);
        let bytes = self.map.bytes(at, HEADER + len);
        if record::checksum(bytes, len) == record::claimed_checksum(bytes) {
            Found::Live(size)
        } else {
            Found::Corrupt(size)
        }
    }

    /// Takes out of the memory what was committed behind `lsn`; says whether there was anything.
    /// The secret in the commit words leaves no doubt. Behind a head there is nothing, however a
    /// kill cut it short; what stayed could be taken for new when the head has come there.
    pub(crate) fn wipe_behind(&mut self, lsn: u64) -> bool {
        let (step, end) = (HEADER as u64, self.tail + self.capacity);
        let mut found = false;
        for behind in (lsn + step..end).step_by(HEADER) {
            let at = self.at(behind);
            if self.map.load(at) & !DEAD == record::commit_word(behind, self.secret) {
                self.map.store(at, self.map.load(at) ^ 1);
                found = true;
            }
        }
        found
    }

    /// What lies behind a record of `size` bytes at `lsn`.
    pub(crate) fn examine_after(&self, lsn: u64, size: u64) -> Found {
        self.examine(lsn + size)
    }

    /// The header of a committed record.
    #[inline]
    pub(crate) fn head_at(&self, lsn: u64) -> &[u8] {
        self.map.bytes(self.at(lsn), HEADER)
    }

    /// A committed record, header and payload, without the padding behind it.
    #[inline]
    pub(crate) fn record_at(&self, lsn: u64) -> &[u8] {
        let len = record::payload_len(self.head_at(lsn));
        self.map.bytes(self.at(lsn), HEADER + len)
    }

    /// Whether the committed record at `lsn` is superseded.
    #[inline]
    pub(crate) fn is_dead(&self, lsn: u64) -> bool {
        self.map.load(self.at(lsn)) & DEAD != 0
    }

    /// Whether a record of `size` bytes, with the padding it may need, leaves `spare` bytes free.
    #[inline]
    pub(crate) fn has_room(&self, size: u64, spare: u64) -> bool {
        let left = self.left_in_lap();
        let need = if left < size { left + size } else { size };
        self.free() >= need + spare
    }

    /// Bytes between head and tail.
    #[inline]
    pub(crate) fn free(&self) -> u64 {
        self.capacity - self.used()
    }

    /// Bytes between tail and head, dead or alive.
    #[inline]
    pub(crate) fn used(&self) -> u64 {
        self.head - self.tail
    }

    /// Lsn of the oldest record, the head's if there is none.
    #[inline]
    pub(crate) fn tail(&self) -> u64 {
        self.tail
    }

    /// Lsn of the next record.
    #[inline]
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// Bytes for records.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Secret of the commit words.
    pub(crate) fn secret(&self) -> u64 {
        self.secret
    }

    /// The memory, for the end.
    pub(crate) fn into_map(self) -> Map {
        self.map
    }

    /// The memory, to look at.
    pub(crate) fn map(&self) -> &Map {
        &self.map
    }

    /// The memory, to watch.
    #[cfg(test)]
    pub(crate) fn map_mut(&mut self) -> &mut Map {
        &mut self.map
    }

    #[inline]
    fn left_in_lap(&self) -> u64 {
        self.capacity - (self.at(self.head) - SUPERBLOCK) as u64
    }

    #[inline]
    fn at(&self, lsn: u64) -> usize {
        debug_assert!(
            (self.tail..=self.tail + self.capacity).contains(&lsn),
            "a stale lsn"
        );
        let mut at = self.tail_at + (lsn - self.tail);
        if at >= self.capacity {
            at -= self.capacity;
        }
        SUPERBLOCK + at as usize
    }
}

/// Young or old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Young = 0,
    Old = 1,
}

/// What a scan finds at a place; sizes in bytes of ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing committed: the head, or a torn record.
    End,
    /// The rest of a lap.
    Pad(u64),
    /// A superseded record; its content is not looked at.
    Dead(u64),
    /// Committed, but the checksum is wrong.
    Corrupt(u64),
    /// A record that counts.
    Live(u64),
}

/// Whether the memory holds no finished ring: new, or its creation was cut short.
pub(crate) fn is_blank(map: &Map) -> bool {
    map.load(superblock::MAGIC) == 0
}

/// Whether the ring was written under another boot of the kernel.
pub(crate) fn is_of_another_boot(map: &Map, config: &RingConfig) -> bool {
    let words = [
        map.load(superblock::BOOT_ID),
        map.load(superblock::BOOT_ID + 8),
    ];
    words != boot_words(config)
}

/// Incarnation of the ring's last writer.
pub(crate) fn incarnation(map: &Map) -> u32 {
    (map.load(superblock::IDENTITY) >> 32) as u32
}

/// Refuses a file that is no ring, or not this shard's, or not readable by this version.
pub(crate) fn check_superblock(
    map: &Map,
    which: Which,
    config: &RingConfig,
) -> Result<(), OpenError> {
    let (magic, format) = (map.load(superblock::MAGIC), map.load(superblock::FORMAT));
    if magic != MAGIC {
        return Err(OpenError::NotARing);
    }
    if format as u32 != FORMAT {
        return Err(OpenError::Format(format as u32));
    }
    let schema = map.load(superblock::SCHEMA_HASH);
    if schema != config.schema_hash && Some(schema) != config.schema_hash_former {
        return Err(OpenError::Schema(schema));
    }
    let who = map.load(superblock::IDENTITY);
    let (node, shard) = (who as u16, (who >> 16) as u16);
    if (node, shard) != (config.node, config.shard) {
        return Err(OpenError::Identity { node, shard });
    }
    let capacity = map.load(superblock::CAPACITY);
    let aligned = capacity.is_multiple_of(HEADER as u64)
        && map.load(superblock::TAIL).is_multiple_of(HEADER as u64);
    if capacity == 0 || !aligned || capacity > (map.len() - SUPERBLOCK) as u64 {
        return Err(OpenError::NotARing);
    }
    if format >> 32 != which as u64 {
        return Err(OpenError::Mismatch);
    }
    Ok(())
}

fn identity(node: u16, shard: u16, incarnation: u32) -> u64 {
    u64::from(node) | u64::from(shard) << 16 | u64::from(incarnation) << 32
}

fn boot_words(config: &RingConfig) -> [u64; 2] {
    let half = |at: usize| {
        let bytes = &config.boot_id[at..at + 8];
        u64::from_le_bytes(bytes.try_into().expect("half of sixteen bytes"))
    };
    [half(0), half(8)]
}
