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

use std::path::Path;

use hashbrown::HashTable;

use crate::config::{RingConfig, ring_paths};
use crate::counters::RingCounters;
use crate::error::{OpenError, RingError};
use crate::generation::{self, Found, Generation, Which};
use crate::layout::{HEADER, SUPERBLOCK, record_size};
use crate::map::Map;
use crate::record::{self, CallId, Kind, Meta, Record, Version};

/// The calls of one shard, own ones and copies of other nodes', in two generations of memory.
#[derive(Debug)]
pub struct Ring {
    young: Generation,
    old: Generation,
    index: HashTable<Entry>,
    limits: Limits,
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
    /// Opens the shard's files below `state_dir`, creating them if there are none.
    ///
    /// # Errors
    /// See [`OpenError`]; the files are untouched then.
    pub fn open_files(
        state_dir: &Path,
        config: &RingConfig,
    ) -> Result<(Self, Recovery), OpenError> {
        config.check()?;
        let (young, old) = ring_paths(state_dir, config.node, config.shard);
        let len = |bytes: u64| SUPERBLOCK + bytes as usize;
        let young = Map::file(&young, len(config.young_bytes), config.prefault)?;
        let old = Map::file(&old, len(config.old_bytes), config.prefault)?;
        Self::open(young, old, config)
    }

    /// Writes a pair of empty rings, whatever the memory held.
    ///
    /// # Errors
    /// `Config` if the limits are impossible or the memory is too small for them.
    pub fn create(young: Map, old: Map, config: &RingConfig) -> Result<Self, OpenError> {
        config.check()?;
        check_room(&young, &old, config)?;
        let secret = (config.secret << 1 | 1) & !record::DEAD;
        // Young last: a young ring with a magic word has an old one beside it.
        let old = Generation::create(old, Which::Old, secret, config);
        let young = Generation::create(young, Which::Young, secret, config);
        let mut ring = Self::assemble(young, old, config);
        ring.begin_use(config, 0);
        Ok(ring)
    }

    /// Takes up what the memory holds: recovers a ring, or creates one in blank memory or over a
    /// ring of another boot. Runs under a new incarnation.
    ///
    /// # Errors
    /// See [`OpenError`]; the memory is untouched then.
    pub fn open(young: Map, old: Map, config: &RingConfig) -> Result<(Self, Recovery), OpenError> {
        config.check()?;
        check_room(&young, &old, config)?;
        if generation::is_blank(&young) {
            let ring = Self::create(young, old, config)?;
            return Ok((ring, Recovery::new(Origin::Created)));
        }
        generation::check_superblock(&young, Which::Young, config)?;
        if generation::is_of_another_boot(&young, config) {
            let former = generation::incarnation(&young);
            let mut ring = Self::create(young, old, config)?;
            ring.begin_use(config, former);
            let mut recovery = Recovery::new(Origin::OtherBoot);
            recovery.incarnation_former = former;
            return Ok((ring, recovery));
        }
        let former = generation::incarnation(&young).max(generation::incarnation(&old));
        let clean = young.load(crate::layout::superblock::CLEAN) == 1;
        let young = Generation::open(young, Which::Young, config)?;
        let old = Generation::open(old, Which::Old, config)?;
        if young.secret() != old.secret() {
            return Err(OpenError::Mismatch);
        }
        let mut ring = Self::assemble(young, old, config);
        let mut recovery = Recovery::new(Origin::Recovered);
        recovery.incarnation_former = former;
        recovery.closed_in_order = clean;
        ring.recover(Which::Old, &mut recovery);
        ring.recover(Which::Young, &mut recovery);
        recovery.calls = ring.live.calls;
        recovery.tombstones = ring.index.len() as u64 - ring.live.calls;
        ring.begin_use(config, former);
        Ok((ring, recovery))
    }

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

    /// Notes the newest view number in the superblock.
    pub fn set_cluster_epoch(&mut self, epoch: u32) {
        self.young.set_cluster_epoch(epoch);
        self.old.set_cluster_epoch(epoch);
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
        self.rewrite(held, version, change)
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
        self.rewrite(held, Version::first(epoch), |bytes| {
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
        let held = self.held(meta.id);
        if let Some(held) = &held {
            if held.meta.version > meta.version {
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

    /// Reclaims at most `records` records ahead of need; for idle time. Returns how many it
    /// touched, 0 if there is nothing worth doing.
    pub fn reclaim_idle(&mut self, records: u32) -> u32 {
        for done in 0..records {
            let young_wants = self.young.free() < self.young.capacity() / IDLE_FREE_SHARE
                && self.young.used() > 0;
            let dead_in_old = self.old.used() - self.live.old_bytes;
            let old_wants = self.old.free() < self.old.capacity() / IDLE_FREE_SHARE
                && dead_in_old > self.old.capacity() / IDLE_DEAD_SHARE;
            let worked = match (old_wants, young_wants) {
                (true, _) => self.reclaim_old().is_some(),
                (false, true) => self.reclaim_young().is_ok(),
                (false, false) => false,
            };
            if !worked {
                return done;
            }
        }
        records
    }

    /// The newest version of a live call.
    #[must_use]
    #[inline]
    pub fn newest(&self, id: CallId) -> Option<Record<'_>> {
        let record = self.newest_or_tombstone(id)?;
        (record.meta.kind == Kind::Put).then_some(record)
    }

    /// The newest version of a call, or the tombstone it left if that is still held.
    #[must_use]
    #[inline]
    pub fn newest_or_tombstone(&self, id: CallId) -> Option<Record<'_>> {
        let place = self.place(id)?;
        Some(self.view(place))
    }

    /// All live calls, in the order they lie in memory.
    pub fn iter_live(&self) -> impl Iterator<Item = Record<'_>> {
        let mut cursor = Cursor::default();
        std::iter::from_fn(move || {
            loop {
                let record = self.walk(&mut cursor)?;
                if record.meta.kind == Kind::Put {
                    return Some(record);
                }
            }
        })
    }

    /// Steps to the next live call or tombstone. Writes and reclaim may happen between steps: a
    /// record held throughout the walk is seen at least once, one that moves maybe twice.
    pub fn walk(&self, cursor: &mut Cursor) -> Option<Record<'_>> {
        loop {
            // Old first, each time: what the young tail promotes meanwhile appears at its head.
            let place = match step(&self.old, &mut cursor.old) {
                Some(lsn) => lsn | OLD,
                None => step(&self.young, &mut cursor.young)?,
            };
            let (generation, lsn) = self.generation(place);
            let counts = record::kind(generation.head_at(lsn)).is_some_and(|k| k != Kind::Pad);
            if counts && !generation.is_dead(lsn) {
                return Some(self.view(place));
            }
        }
    }

    /// Live bytes in percent of what the old ring could hold.
    #[must_use]
    pub fn fill(&self) -> f64 {
        self.live.bytes as f64 * 100.0 / self.old.capacity() as f64
    }

    /// Whether a new call of average size would still be taken.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.live.bytes < self.limits.high_water && self.index.len() < self.limits.calls
    }

    /// Live calls, own ones and copies.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.live.calls
    }

    /// Bytes their newest records take.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.live.bytes
    }

    /// Number of the newest record.
    #[must_use]
    pub fn rseq(&self) -> u64 {
        self.rseq
    }

    /// Incarnation this writer runs under.
    #[must_use]
    pub fn incarnation(&self) -> u32 {
        self.incarnation
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> u16 {
        self.node
    }

    /// This shard.
    #[must_use]
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> &RingCounters {
        &self.counters
    }

    /// The memory as it stands, young first: an image for crash tests.
    #[must_use]
    pub fn image(&self) -> (Vec<u8>, Vec<u8>) {
        let copy = |map: &Map| map.bytes(0, map.len()).to_vec();
        (copy(self.young.map()), copy(self.old.map()))
    }

    /// Walks everything and compares it with index and accounts.
    ///
    /// # Panics
    /// If they differ: the ring is broken.
    pub fn verify(&self) {
        let (mut live, mut tombstones) = (Live::default(), 0);
        let mut cursor = Cursor::default();
        while let Some(record) = self.walk(&mut cursor) {
            let place = self
                .place(record.meta.id)
                .expect("a record that is not dead is indexed");
            let indexed = self.payload(place).as_ptr();
            assert_eq!(
                indexed,
                record.payload.as_ptr(),
                "only the newest record is not dead"
            );
            if record.meta.kind == Kind::Put {
                live.calls += 1;
                live.bytes += record_size(record.payload.len());
                live.old_bytes += if place & OLD != 0 {
                    record_size(record.payload.len())
                } else {
                    0
                };
            } else {
                tombstones += 1;
            }
        }
        assert_eq!(live, self.live, "the accounts are right");
        assert_eq!(
            live.calls + tombstones,
            self.index.len() as u64,
            "the index has no more"
        );
        assert!(
            live.bytes <= self.limits.hard,
            "what is promoted finds room"
        );
    }

    #[cfg(test)]
    pub(crate) fn journal_start(&mut self) {
        self.young.map_mut().journal_start();
        self.old.map_mut().journal_start();
    }

    /// Stores since the last call in their order; true: into the young ring.
    #[cfg(test)]
    pub(crate) fn journal_take(&mut self) -> Vec<(bool, crate::map::journal::Step)> {
        let young = self
            .young
            .map_mut()
            .journal_take()
            .into_iter()
            .map(|step| (true, step));
        let old = self
            .old
            .map_mut()
            .journal_take()
            .into_iter()
            .map(|step| (false, step));
        let mut steps: Vec<_> = young.chain(old).collect();
        steps.sort_by_key(|(_, step)| step.order);
        steps
    }

    /// Offset of the young head in its file.
    #[cfg(test)]
    pub(crate) fn young_head_at(&self) -> usize {
        SUPERBLOCK + (self.young.head() % self.young.capacity()) as usize
    }

    fn assemble(young: Generation, old: Generation, config: &RingConfig) -> Self {
        let record_max = record_size(config.payload_bytes_max);
        let hard = old.capacity().saturating_sub(RESERVED_RECORDS * record_max);
        let high_water = old.capacity() / 100 * u64::from(config.high_water_percent);
        Self {
            limits: Limits {
                payload: config.payload_bytes_max,
                calls: config.calls_max,
                hard,
                high_water: high_water.min(hard),
                spare: 2 * record_max,
                young_low_water: young.capacity() / YOUNG_FREE_SHARE,
                old_low_water: (old.capacity() / OLD_FREE_SHARE).max(4 * record_max),
            },
            // Twice the room: at half load erased slots become empty again, so the table never
            // has to be rehashed in the middle of traffic.
            index: HashTable::with_capacity(config.calls_max * 2),
            node: config.node,
            shard: config.shard,
            incarnation: 0,
            ids_minted: 0,
            rseq: 0,
            now_unix_ms: 0,
            live: Live::default(),
            counters: RingCounters::default(),
            young,
            old,
        }
    }

    fn begin_use(&mut self, config: &RingConfig, former: u32) {
        self.incarnation = config.incarnation.max(former.saturating_add(1));
        self.old.begin_use(config, self.incarnation);
        self.young.begin_use(config, self.incarnation);
    }

    /// Scans one generation, oldest first, indexing what counts and redoing lost DEAD marks.
    fn recover(&mut self, which: Which, recovery: &mut Recovery) {
        loop {
            let generation = self.generation_mut(which);
            let lsn = generation.head();
            let size = match generation.examine(lsn) {
                Found::End => break,
                Found::Pad(size) => size,
                Found::Dead(size) => {
                    recovery.dead += 1;
                    self.note_rseq(lsn | flag(which));
                    size
                }
                Found::Corrupt(size) => {
                    // At the head it is a torn write and as good as absent. Further back it
                    // costs one call its newest version; the peers have it.
                    if !matches!(generation.examine_after(lsn, size), Found::End) {
                        generation.mark_dead(lsn);
                        recovery.corrupt += 1;
                        size
                    } else {
                        recovery.torn += 1;
                        break;
                    }
                }
                Found::Live(size) => {
                    self.note_rseq(lsn | flag(which));
                    self.recover_record(lsn | flag(which), recovery);
                    size
                }
            };
            recovery.records += 1;
            self.generation_mut(which).advance_head(size);
        }
    }

    fn recover_record(&mut self, place: u64, recovery: &mut Recovery) {
        let (generation, lsn) = self.generation(place);
        let head = generation.head_at(lsn);
        let (id, version) = (record::call_id(head), record::version(head));
        let Some(held) = self.held(id) else {
            self.index.insert_unique(
                id.hash(),
                Entry {
                    hash: id.hash(),
                    place,
                },
                |e| e.hash,
            );
            self.count(place);
            return;
        };
        recovery.superseded += 1;
        if version > held.meta.version {
            self.uncount(held.place);
            self.replace(id, held.place, place);
            self.count(place);
            self.mark_dead(held.place);
        } else {
            // Equal versions are the two ends of a move that a kill cut short.
            self.mark_dead(place);
        }
    }

    fn note_rseq(&mut self, place: u64) {
        let (generation, lsn) = self.generation(place);
        let rseq = record::meta(generation.head_at(lsn)).map_or(0, |meta| meta.rseq);
        self.rseq = self.rseq.max(rseq);
    }

    fn successor(&self, held: &Held, epoch: u32) -> Result<Version, RingError> {
        if held.meta.kind == Kind::Del {
            return Err(RingError::Retired);
        }
        if held.meta.owner != self.node {
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
                let own = meta.owner == self.node;
                let limit = if own {
                    self.limits.high_water
                } else {
                    self.limits.hard
                };
                (self.live.bytes + record_size(len) > limit).then_some(RingError::Full)
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

    /// Frees room for `size` bytes at the young head, and a little more when it gets scarce.
    /// True if records moved.
    #[inline]
    fn make_room_young(&mut self, size: u64) -> Result<bool, RingError> {
        if self.young.free() >= self.limits.young_low_water && self.young.has_room(size, 0) {
            return Ok(false);
        }
        let (mut freed, mut records) = (0, 0_u32);
        loop {
            let enough = records >= RECLAIM_MAX || (records >= RECLAIM_MIN && freed >= 2 * size);
            let relaxed = self.young.free() >= self.limits.young_low_water;
            if (enough || relaxed || self.young.used() == 0) && self.young.has_room(size, 0) {
                break;
            }
            freed += self.reclaim_young()?;
            records += 1;
        }
        self.counters.reclaim_burst_max = self.counters.reclaim_burst_max.max(records);
        Ok(true)
    }

    /// Frees the record at the young tail: promotes it if it is a live call.
    fn reclaim_young(&mut self) -> Result<u64, RingError> {
        let lsn = self.young.tail();
        let head = self.young.head_at(lsn);
        let (size, len) = (record::claimed_size(head), record::payload_len(head));
        let (kind, id) = (record::kind(head), record::call_id(head));
        if !self.young.is_dead(lsn) {
            match kind {
                Some(Kind::Put) => {
                    self.make_room_old(size)?;
                    self.old.pad_for(size);
                    let from = &self.young.record_at(lsn)[8..];
                    self.old.next_bytes(size)[8..HEADER + len].copy_from_slice(from);
                    let place = self.old.publish(size) | OLD;
                    self.replace(id, lsn, place);
                    self.live.old_bytes += size;
                    self.counters.bytes_promoted += size;
                }
                Some(Kind::Del) => {
                    let (young, old) = (&self.young, &self.old);
                    let found = self.index.find_entry(id.hash(), |e| e.is(id, young, old));
                    found
                        .expect("a tombstone that is not dead is indexed")
                        .remove();
                    self.counters.tombstones_dropped += 1;
                }
                Some(Kind::Pad) | None => {}
            }
        }
        self.young.advance_tail(size);
        Ok(size)
    }

    fn make_room_old(&mut self, size: u64) -> Result<(), RingError> {
        if self.old.free() >= self.limits.old_low_water
            && self.old.has_room(size, self.limits.spare)
        {
            return Ok(());
        }
        let (mut passed, mut net, mut records) = (0, 0, 0_u32);
        loop {
            let enough = records >= RECLAIM_MAX || (records >= RECLAIM_MIN && net >= size);
            let relaxed = self.old.free() >= self.limits.old_low_water;
            if (enough || relaxed) && self.old.has_room(size, self.limits.spare) {
                break;
            }
            // Admission keeps live bytes so low that one lap always yields room. Were that
            // wrong, refusing is better than turning for ever.
            if passed > 2 * self.old.capacity() {
                self.counters.reclaim_stuck += 1;
                return Err(RingError::Full);
            }
            let Some((bytes, was_live)) = self.reclaim_old() else {
                self.counters.reclaim_stuck += 1;
                return Err(RingError::Full);
            };
            passed += bytes;
            net += if was_live { 0 } else { bytes };
            records += 1;
        }
        self.counters.reclaim_old_burst_max = self.counters.reclaim_old_burst_max.max(records);
        Ok(())
    }

    /// Frees the record at the old tail, moving it to the head if it is alive. Says how many
    /// bytes it passed and whether they were alive; nothing if it could not.
    fn reclaim_old(&mut self) -> Option<(u64, bool)> {
        if self.old.used() == 0 {
            return None;
        }
        let lsn = self.old.tail();
        let head = self.old.head_at(lsn);
        let (size, len) = (record::claimed_size(head), record::payload_len(head));
        let (kind, id) = (record::kind(head), record::call_id(head));
        let alive = kind == Some(Kind::Put) && !self.old.is_dead(lsn);
        if alive {
            if !self.old.has_room(size, 0) {
                return None;
            }
            self.old.pad_for(size);
            self.old.copy_to_head(lsn, HEADER + len);
            let place = self.old.publish(size) | OLD;
            self.replace(id, lsn | OLD, place);
            self.counters.bytes_relocated += size;
        }
        self.old.advance_tail(size);
        Some((size, alive))
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

/// What an opened ring found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Where the content comes from.
    pub origin: Origin,
    /// Whether the last writer closed the ring; false after a kill.
    pub closed_in_order: bool,
    /// Incarnation of the last writer, 0 if there was none.
    pub incarnation_former: u32,
    /// Live calls.
    pub calls: u64,
    /// Tombstones still held.
    pub tombstones: u64,
    /// Records scanned.
    pub records: u64,
    /// Of these, marked dead before.
    pub dead: u64,
    /// Of these, found superseded; marked dead now.
    pub superseded: u64,
    /// Committed records with a wrong checksum amid others: memory was damaged.
    pub corrupt: u64,
    /// Records at a head whose content was cut short: dropped, as never committed.
    pub torn: u64,
}

impl Recovery {
    fn new(origin: Origin) -> Self {
        Self {
            origin,
            closed_in_order: false,
            incarnation_former: 0,
            calls: 0,
            tombstones: 0,
            records: 0,
            dead: 0,
            superseded: 0,
            corrupt: 0,
            torn: 0,
        }
    }
}

/// Where an opened ring's content comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// There was none: the ring is new.
    Created,
    /// A former process of this boot left it.
    Recovered,
    /// A former boot left it, so it was emptied; the peers have the calls.
    OtherBoot,
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

/// Where a walk over a ring has got to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    old: u64,
    young: u64,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    payload: usize,
    calls: usize,
    /// Live bytes never exceed this, so reclaim can always turn.
    hard: u64,
    high_water: u64,
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

fn flag(which: Which) -> u64 {
    if which == Which::Old { OLD } else { 0 }
}

/// Moves a cursor one record on, past what was reclaimed meanwhile.
fn step(generation: &Generation, at: &mut u64) -> Option<u64> {
    let lsn = (*at).max(generation.tail());
    if lsn >= generation.head() {
        return None;
    }
    *at = lsn + record::claimed_size(generation.head_at(lsn));
    Some(lsn)
}

fn check_room(young: &Map, old: &Map, config: &RingConfig) -> Result<(), OpenError> {
    use crate::error::ConfigError;
    let least =
        SUPERBLOCK as u64 + crate::config::RECORDS_MIN * record_size(config.payload_bytes_max);
    if (young.len() as u64) < least {
        return Err(ConfigError::YoungBytes.into());
    }
    if (old.len() as u64) < least {
        return Err(ConfigError::OldBytes.into());
    }
    Ok(())
}

/// Bit of a place that says: in the old ring.
const OLD: u64 = 1 << 63;

/// Records an append reclaims when room is scarce: no fewer, and no more unless it must.
const RECLAIM_MIN: u32 = 2;
const RECLAIM_MAX: u32 = 8;
/// Room is scarce in the young ring below 1/8, in the old one below 1/32.
const YOUNG_FREE_SHARE: u64 = 8;
const OLD_FREE_SHARE: u64 = 32;
/// Idle work goes on until a quarter is free, in the old ring only if 1/16 is dead.
const IDLE_FREE_SHARE: u64 = 4;
const IDLE_DEAD_SHARE: u64 = 16;
/// The longest records the old ring could hold beyond its live ones: one pad per lap, one being
/// promoted with its pad, two spare ones so that the tail can move, and one to turn in.
const RESERVED_RECORDS: u64 = 6;
const _: () = assert!(RESERVED_RECORDS < crate::config::RECORDS_MIN);
const _: () = assert!(RECLAIM_MIN < RECLAIM_MAX);
