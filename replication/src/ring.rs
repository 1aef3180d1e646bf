//! A shard's calls: append, newest, retire over two generations of records.
//!
//! Every new version is committed in the young ring, which thereby is also the log of what
//! happened lately. Most calls change again, or end, before the young tail reaches them; what is
//! still alive there is copied to the old ring. A superseded record is marked DEAD at once, so
//! neither reclaim nor recovery needs to ask whether a record still counts, and a tombstone can
//! be dropped without an older version rising again.
//!
//! ```text
//!  put, update, retire ──▶ young ──(alive at the tail)──▶ old ──(alive at the tail)─┐
//!                            │                             ▲                        │
//!                            └──(dead, tombstone): freed   └────────────────────────┘
//! ```
//!
//! One transition of a call must be one record: a kill may fall between any two.

mod inspect;
mod leftovers;
mod open;
mod reclaim;
mod recovery;
mod sweep;

use hashbrown::HashTable;

pub use self::inspect::{Cursor, GateShare, Step};
pub use self::recovery::{Origin, Recovery};
pub use self::sweep::Sweep;

use crate::counters::RingCounters;
use crate::error::RingError;
use crate::generation::{Generation, Which};
use crate::layout::{HEADER, record_size};
use crate::map::Map;
use crate::plant::{self, Plant};
use crate::record::{self, CallId, Kind, Meta, Record, Version};
use crate::replicator::PEERS_MAX;

/// The calls of one shard, own ones and copies of other nodes', in two generations of memory.
#[derive(Debug)]
pub struct Ring {
    young: Generation,
    old: Generation,
    index: HashTable<Entry>,
    limits: Limits,
    settled_without: leftovers::SettledWithout,
    /// Number of the record up to which every call held is void.
    void_upto: u64,
    /// Nobody is away who may come back with what has ended meanwhile.
    is_settled: bool,
    node: u16,
    shard: u16,
    incarnation: u32,
    ids_minted: u64,
    rseq: u64,
    now_unix_ms: u64,
    live: Live,
    counters: RingCounters,
}

impl Ring {
    /// Closes in order. A ring that is merely dropped, or whose process is killed, loses nothing
    /// either; the mark only says that no writer was interrupted.
    pub fn close(mut self) {
        self.young.end_use();
        self.old.end_use();
    }

    /// Gives the memory back as it stands, young first, as a kill would leave it.
    #[must_use]
    pub fn into_maps(self) -> (Map, Map) {
        (self.young.into_map(), self.old.into_map())
    }

    /// Sets the wall clock that records are stamped with; once per turn of the loop.
    pub fn set_now(&mut self, unix_ms: u64) {
        self.now_unix_ms = unix_ms;
    }

    /// Sets whether the view is settled, see [`View::is_settled`](crate::View::is_settled): as long
    /// as it is not, tombstones are kept. A ring without a cluster has nobody to wait for.
    pub fn set_settled(&mut self, is_settled: bool) {
        self.is_settled = is_settled;
    }

    /// Mints the id of a new call of this node.
    pub fn next_id(&mut self) -> CallId {
        let id = CallId::new(self.node, self.shard, self.incarnation, self.ids_minted);
        self.ids_minted += 1;
        id
    }

    /// Writes a whole new version of a call this node owns, or the first one of a new call.
    ///
    /// # Errors
    /// See [`RingError`]; nothing has changed then.
    pub fn put(
        &mut self,
        id: CallId,
        epoch: u32,
        schema: u16,
        payload: &[u8],
    ) -> Result<Version, RingError> {
        self.put_with(id, epoch, schema, payload.len(), |bytes| {
            bytes.copy_from_slice(payload);
            Some(payload.len())
        })
    }

    /// As `put`; `fill` writes the payload straight into the ring and says how much of the
    /// `len_max` bytes it used, or gives up.
    ///
    /// # Errors
    /// See [`RingError`]; nothing has changed then.
    pub fn put_with(
        &mut self,
        id: CallId,
        epoch: u32,
        schema: u16,
        len_max: usize,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Result<Version, RingError> {
        let held = self.held(id);
        let version = match &held {
            None => Version::first(epoch),
            Some(held) => self.successor(held, epoch)?,
        };
        let meta = self.own_meta(id, version, schema, Kind::Put);
        self.append(meta, held, len_max, fill)?;
        self.counters.puts += 1;
        Ok(version)
    }

    /// Writes the next version of a call this node owns: copies the newest payload and lets
    /// `change` alter it in place.
    ///
    /// # Errors
    /// See [`RingError`]; nothing has changed then.
    pub fn update(
        &mut self,
        id: CallId,
        change: impl FnOnce(&mut [u8]),
    ) -> Result<Version, RingError> {
        self.try_update(id, |bytes| {
            change(bytes);
            Some(())
        })
    }

    /// As `update`; `change` may give up.
    ///
    /// # Errors
    /// See [`RingError`]; nothing has changed then.
    pub fn try_update(
        &mut self,
        id: CallId,
        change: impl FnOnce(&mut [u8]) -> Option<()>,
    ) -> Result<Version, RingError> {
        let held = self.held(id).ok_or(RingError::Unknown)?;
        let version = self.successor(&held, held.meta.version.epoch)?;
        self.rewrite(held, version, None, change)
    }

    /// Writes a last version of a call this node owns, under its own epoch, that names the `heir`
    /// who is to adopt it. Until this node adopts the call itself it can only name another one.
    ///
    /// # Errors
    /// See [`RingError`]; nothing has changed then.
    ///
    /// # Panics
    /// If no cluster has such a node.
    pub fn give(&mut self, id: CallId, heir: u16) -> Result<Version, RingError> {
        assert!(usize::from(heir) <= PEERS_MAX, "the heir is a node");
        let mut held = self.held(id).ok_or(RingError::Unknown)?;
        held.meta.flags = 0;
        let version = self.successor(&held, held.meta.version.epoch)?;
        self.rewrite(held, version, Some(heir), |_| Some(()))
    }

    /// Makes this node the owner of a held call under a newer epoch, altering it in place.
    ///
    /// # Errors
    /// See [`RingError`]; nothing has changed then.
    pub fn adopt(
        &mut self,
        id: CallId,
        epoch: u32,
        change: impl FnOnce(&mut [u8]),
    ) -> Result<Version, RingError> {
        let held = self.held(id).ok_or(RingError::Unknown)?;
        if held.meta.kind == Kind::Del {
            return Err(RingError::Retired);
        }
        if epoch <= held.meta.version.epoch {
            return Err(RingError::StaleEpoch);
        }
        self.rewrite(held, Version::first(epoch), None, |bytes| {
            change(bytes);
            Some(())
        })
    }

    /// Ends a call this node owns: appends a tombstone.
    ///
    /// # Errors
    /// See [`RingError`]; nothing has changed then.
    pub fn retire(&mut self, id: CallId) -> Result<Version, RingError> {
        let held = self.held(id).ok_or(RingError::Unknown)?;
        let version = self.successor(&held, held.meta.version.epoch)?;
        let meta = self.own_meta(id, version, held.meta.schema, Kind::Del);
        self.append(meta, Some(held), 0, |_| Some(0))?;
        self.counters.retires += 1;
        Ok(version)
    }

    /// Stores another node's version of a call, or its tombstone, if it is newer than what is
    /// held. `meta.rseq` is replaced by a number of this ring.
    ///
    /// # Errors
    /// `Full`, `IndexFull` or `TooLong`; nothing has changed then, and it must not be acked.
    pub fn apply(&mut self, meta: Meta, payload: &[u8]) -> Result<Applied, RingError> {
        if meta.kind == Kind::Pad || (meta.kind == Kind::Del && !payload.is_empty()) {
            return Err(RingError::Unknown);
        }
        if self.is_settled_without(&meta) {
            self.counters.apply_stale += 1;
            return Ok(Applied::Stale);
        }
        let held = self.held_unless_void(meta.id);
        if let Some(held) = &held {
            let older = if plant::is(Plant::EpochNotCompared) {
                held.meta.version.ver > meta.version.ver
            } else {
                held.meta.version > meta.version
            };
            if older {
                self.counters.apply_stale += 1;
                return Ok(Applied::Stale);
            }
            if held.meta.version == meta.version {
                let same = held.meta.kind == meta.kind && self.payload(held.place) == payload;
                self.counters.apply_duplicate += u64::from(same);
                self.counters.apply_conflict += u64::from(!same);
                return Ok(if same {
                    Applied::Duplicate
                } else {
                    Applied::Conflict
                });
            }
        }
        self.append(meta, held, payload.len(), |bytes| {
            bytes.copy_from_slice(payload);
            Some(payload.len())
        })?;
        self.counters.apply_stored += 1;
        Ok(Applied::Stored)
    }

    /// Drops a held call, or its tombstone, without leaving a tombstone: for a copy whose owner
    /// no longer knows the call. False if it was not held.
    pub fn forget(&mut self, id: CallId) -> bool {
        let (young, old) = (&self.young, &self.old);
        let found = self
            .index
            .find_entry(id.hash(), |entry| entry.is(id, young, old));
        let Ok(found) = found else { return false };
        let place = found.get().place;
        found.remove();
        self.uncount(place);
        self.mark_dead(place);
        true
    }

    fn successor(&self, held: &Held, epoch: u32) -> Result<Version, RingError> {
        if held.meta.kind == Kind::Del {
            return Err(RingError::Retired);
        }
        if held.meta.owner != self.node || held.meta.heir().is_some() {
            return Err(RingError::NotOwner);
        }
        match epoch.cmp(&held.meta.version.epoch) {
            std::cmp::Ordering::Less => Err(RingError::StaleEpoch),
            std::cmp::Ordering::Equal => {
                held.meta.version.next().ok_or(RingError::VersionsExhausted)
            }
            std::cmp::Ordering::Greater => Ok(Version::first(epoch)),
        }
    }

    fn own_meta(&self, id: CallId, version: Version, schema: u16, kind: Kind) -> Meta {
        Meta {
            id,
            version,
            rseq: 0,
            owner: self.node,
            shard: self.shard,
            schema,
            kind,
            flags: 0,
            written: self.now_unix_ms,
        }
    }

    fn append(
        &mut self,
        meta: Meta,
        held: Option<Held>,
        len_max: usize,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Result<(), RingError> {
        self.admit(&meta, held.as_ref(), len_max)?;
        let size = record_size(len_max);
        let moved = self.make_room_young(size)?;
        let superseded = if moved {
            self.place(meta.id)
        } else {
            held.map(|held| held.place)
        };
        self.young.pad_for(size);
        let bytes = self.young.next_bytes(size);
        let len = fill(&mut bytes[HEADER..HEADER + len_max]).ok_or(RingError::Abandoned)?;
        assert!(
            len <= len_max,
            "a payload fits the space its writer asked for"
        );
        self.commit(meta, len, superseded);
        Ok(())
    }

    fn rewrite(
        &mut self,
        held: Held,
        version: Version,
        heir: Option<u16>,
        change: impl FnOnce(&mut [u8]) -> Option<()>,
    ) -> Result<Version, RingError> {
        let len = held.len;
        let size = record_size(len);
        let mut place = held.place;
        if self.make_room_young(size)? {
            place = self
                .place(held.meta.id)
                .expect("reclaim moves live records, never drops them");
        }
        self.young.pad_for(size);
        if place & OLD == 0 {
            self.young.copy_to_head(place, HEADER + len);
        } else {
            let from = &self.old.record_at(place & !OLD)[HEADER..];
            self.young.next_bytes(size)[HEADER..HEADER + len].copy_from_slice(from);
        }
        let bytes = self.young.next_bytes(size);
        change(&mut bytes[HEADER..HEADER + len]).ok_or(RingError::Abandoned)?;
        let meta = Meta {
            version,
            owner: self.node,
            shard: self.shard,
            flags: heir.map_or(0, |heir| heir as u8 + 1),
            written: self.now_unix_ms,
            ..held.meta
        };
        self.commit(meta, len, Some(place));
        self.counters.updates += 1;
        Ok(version)
    }

    /// Seals and publishes the record at the young head, then indexes it and marks the
    /// superseded one: in this order, or a kill in between would lose the call.
    #[inline]
    fn commit(&mut self, mut meta: Meta, len: usize, superseded: Option<u64>) {
        let size = record_size(len);
        self.rseq += 1;
        meta.rseq = self.rseq;
        record::seal(self.young.next_bytes(size), &meta, len);
        let place = self.young.publish(size);
        self.counters.bytes_appended += size;
        match superseded {
            None => {
                let hash = meta.id.hash();
                self.index
                    .insert_unique(hash, Entry { hash, place }, |entry| entry.hash);
            }
            Some(former) => {
                self.uncount(former);
                self.replace(meta.id, former, place);
                self.mark_dead(former);
            }
        }
        if meta.kind == Kind::Put {
            self.live.calls += 1;
            self.live.bytes += size;
        }
    }

    // A new call is stored long after it was let in: what was under way when the gate closed
    // (`is_open`) has room beyond it, as copies have. The last of the room is for what is held
    // already: a call that could not grow could not end either, and nothing would ever be freed.
    fn admit(&mut self, meta: &Meta, held: Option<&Held>, len: usize) -> Result<(), RingError> {
        if len > self.limits.payload {
            return Err(RingError::TooLong);
        }
        if meta.kind == Kind::Del && self.index.len() < self.limits.calls * 2 {
            return Ok(());
        }
        let refused = match held {
            None if self.index.len() >= self.limits.calls => Some(RingError::IndexFull),
            None => {
                let after = self.live.bytes + record_size(len);
                (after > self.limits.fresh).then_some(RingError::Full)
            }
            Some(held) => {
                let before = if held.meta.kind == Kind::Put {
                    record_size(held.len)
                } else {
                    0
                };
                let after = self.live.bytes - before + record_size(len);
                let grows = record_size(len) > before;
                (grows && after > self.limits.hard).then_some(RingError::Full)
            }
        };
        self.counters.put_refused += u64::from(refused.is_some());
        refused.map_or(Ok(()), Err)
    }

    #[inline]
    fn replace(&mut self, id: CallId, former: u64, place: u64) {
        let entry = self
            .index
            .find_mut(id.hash(), |entry| entry.place == former);
        entry.expect("the superseded record is indexed").place = place;
    }

    #[inline]
    fn mark_dead(&mut self, place: u64) {
        if place & OLD == 0 {
            self.young.mark_dead(place);
        } else {
            self.old.mark_dead(place & !OLD);
        }
    }

    #[inline]
    fn count(&mut self, place: u64) {
        if let Some(size) = self.live_size(place) {
            self.live.calls += 1;
            self.live.bytes += size;
            self.live.old_bytes += if place & OLD != 0 { size } else { 0 };
        }
    }

    #[inline]
    fn uncount(&mut self, place: u64) {
        if let Some(size) = self.live_size(place) {
            self.live.calls -= 1;
            self.live.bytes -= size;
            self.live.old_bytes -= if place & OLD != 0 { size } else { 0 };
        }
    }

    #[inline]
    fn live_size(&self, place: u64) -> Option<u64> {
        let (generation, lsn) = self.generation(place);
        let head = generation.head_at(lsn);
        (record::kind(head) == Some(Kind::Put)).then(|| record::claimed_size(head))
    }

    #[inline]
    fn place(&self, id: CallId) -> Option<u64> {
        let found = self
            .index
            .find(id.hash(), |entry| entry.is(id, &self.young, &self.old));
        found.map(|entry| entry.place)
    }

    #[inline]
    fn held(&self, id: CallId) -> Option<Held> {
        let place = self.place(id)?;
        let (generation, lsn) = self.generation(place);
        let head = generation.head_at(lsn);
        let meta = record::meta(head).expect("indexed records have a known kind");
        Some(Held {
            place,
            meta,
            len: record::payload_len(head),
        })
    }

    #[inline]
    fn view(&self, place: u64) -> Record<'_> {
        let (generation, lsn) = self.generation(place);
        let bytes = generation.record_at(lsn);
        let meta = record::meta(bytes).expect("indexed records have a known kind");
        Record {
            meta,
            payload: &bytes[HEADER..],
        }
    }

    fn payload(&self, place: u64) -> &[u8] {
        let (generation, lsn) = self.generation(place);
        &generation.record_at(lsn)[HEADER..]
    }

    #[inline]
    fn generation(&self, place: u64) -> (&Generation, u64) {
        if place & OLD == 0 {
            (&self.young, place)
        } else {
            (&self.old, place & !OLD)
        }
    }

    fn generation_mut(&mut self, which: Which) -> &mut Generation {
        match which {
            Which::Young => &mut self.young,
            Which::Old => &mut self.old,
        }
    }
}

/// What became of another node's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It was newer and is stored.
    Stored,
    /// A newer version is held: ignored.
    Stale,
    /// The same version is held: ignored.
    Duplicate,
    /// The same version is held with other content: ignored, and somebody's bug.
    Conflict,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    payload: usize,
    calls: usize,
    /// Live bytes never exceed this, so reclaim can always turn.
    hard: u64,
    /// Nor this by a call that is not held yet.
    fresh: u64,
    /// Live bytes and index entries from which on the ring asks for no more new calls.
    high_water: u64,
    high_water_calls: usize,
    /// Kept free at the old head, so that its tail can always move there.
    spare: u64,
    young_low_water: u64,
    old_low_water: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Live {
    calls: u64,
    bytes: u64,
    old_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u64,
    /// Lsn, with `OLD` telling the generation.
    place: u64,
}

impl Entry {
    #[inline]
    fn is(&self, id: CallId, young: &Generation, old: &Generation) -> bool {
        if self.hash != id.hash() {
            return false;
        }
        let head = if self.place & OLD == 0 {
            young.head_at(self.place)
        } else {
            old.head_at(self.place & !OLD)
        };
        record::call_id(head) == id
    }
}

#[derive(Clone, Copy, Debug)]
struct Held {
    place: u64,
    meta: Meta,
    len: usize,
}

/// Bit of a place that says: in the old ring.
const OLD: u64 = 1 << 63;

/// The longest records the old ring could hold beyond its live ones: one pad per lap, one being
/// promoted with its pad, two spare ones so that the tail can move, and one to turn in.
const RESERVED_RECORDS: u64 = 6;
const _: () = assert!(RESERVED_RECORDS < crate::config::RECORDS_MIN);
/// Of what live bytes may take, 1/16 is for calls that are held already. The end of a call, with
/// the record of it that is to be sent, takes about so much more than the call.
const GROWTH_SHARE: u64 = 16;
