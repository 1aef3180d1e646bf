//! How a ring begins: created, taken up or refused.

use std::path::Path;

use hashbrown::HashTable;

use super::reclaim::{OLD_FREE_SHARE, YOUNG_FREE_SHARE};
use super::{GROWTH_SHARE, Limits, Live, Origin, RESERVED_RECORDS, Recovery, Ring};
use crate::config::{RECORDS_MIN, RingConfig, ring_paths};
use crate::counters::RingCounters;
use crate::error::{ConfigError, OpenError};
use crate::generation::{self, Generation, Which};
use crate::layout::{SUPERBLOCK, record_size, superblock};
use crate::map::{Map, Pages};
use crate::record;

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
        let pages = Pages {
            prefault: config.prefault,
            huge: config.huge_pages,
        };
        let young = Map::file(&young, len(config.young_bytes), pages)?;
        let old = Map::file(&old, len(config.old_bytes), pages)?;
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
        let clean = young.load(superblock::CLEAN) == 1;
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
        // The last of the void records need not be there any more.
        ring.rseq = ring.rseq.max(ring.void_upto);
        recovery.calls = ring.live.calls;
        recovery.tombstones = ring.index.len() as u64 - ring.live.calls;
        ring.begin_use(config, former);
        Ok((ring, recovery))
    }

    fn assemble(young: Generation, old: Generation, config: &RingConfig) -> Self {
        let record_max = record_size(config.payload_bytes_max);
        let hard = old.capacity().saturating_sub(RESERVED_RECORDS * record_max);
        let fresh = hard - hard / GROWTH_SHARE;
        let high_water = hard / 100 * u64::from(config.high_water_percent);
        let high_water_calls = config.calls_max * usize::from(config.high_water_percent) / 100;
        Self {
            limits: Limits {
                payload: config.payload_bytes_max,
                calls: config.calls_max,
                hard,
                fresh,
                high_water: high_water.min(fresh - record_max),
                high_water_calls: high_water_calls.max(1),
                spare: 2 * record_max,
                young_low_water: young.capacity() / YOUNG_FREE_SHARE,
                old_low_water: (old.capacity() / OLD_FREE_SHARE).max(4 * record_max),
            },
            // Twice the room: at half load erased slots become empty again, so the table never
            // has to be rehashed in the middle of traffic.
            index: HashTable::with_capacity(config.calls_max * 2),
            settled_without: Default::default(),
            void_upto: young.void_upto(),
            is_settled: true,
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
}

fn check_room(young: &Map, old: &Map, config: &RingConfig) -> Result<(), OpenError> {
    let least = SUPERBLOCK as u64 + RECORDS_MIN * record_size(config.payload_bytes_max);
    if (young.len() as u64) < least {
        return Err(ConfigError::YoungBytes.into());
    }
    if (old.len() as u64) < least {
        return Err(ConfigError::OldBytes.into());
    }
    Ok(())
}
