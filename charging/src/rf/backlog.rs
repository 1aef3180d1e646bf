//! Records that no CDF took: bounded, in order, on a store that survives us (RFC 6733 s9.4).
//!
//! ```text
//!  on_send_failure ─▶ put ─▶ store ─▶ next_to_send ─▶ router (T flag) ─▶ on_answer ─▶ removed
//!                                         ▲────────── on_failed: kept, later ──┘
//! ```
//!
//! This is PendingB of the client machine (s8.2). START, STOP and EVENT are never overwritten;
//! of each session at most one INTERIM is kept, the newest (s9.5).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use quanta::Instant;

use crate::ctf::Storage;
use crate::diameter::avp::Message;
use crate::diameter::dictionary as d;
use crate::diameter::header::set_retransmitted;
use crate::diameter::routing::{AnswerSummary, Tag};
use crate::state::RecordType;

/// The [`Tag::call`] of every request that comes from a backlog.
pub const BACKLOG_CALL: u64 = u64::MAX;

/// Where records are kept. Each call is durable, as far as the store promises, when it returns.
pub trait BacklogStore {
    /// Keeps a record under a sequence above all earlier ones.
    ///
    /// # Errors
    /// [`StoreError`]; the record is not kept.
    fn append(&mut self, sequence: u64, acr: &[u8]) -> Result<(), StoreError>;

    /// Replaces what `out` holds by a record.
    ///
    /// # Errors
    /// [`StoreError`]; `out` holds nothing useful.
    fn read(&mut self, sequence: u64, out: &mut Vec<u8>) -> Result<(), StoreError>;

    /// Forgets a record.
    ///
    /// # Errors
    /// [`StoreError`]; after a restart the record may come back, and the CDF sees a duplicate.
    fn remove(&mut self, sequence: u64) -> Result<(), StoreError>;
}

/// The store cannot do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// No space on the device.
    Full,
    /// Anything else that is wrong with the device.
    Failed,
}

/// What gives way when the backlog is full (B: operator's choice, TS 32.299 s6.1.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FullPolicy {
    /// The new record is refused: by policy of its class the call ends or the record is lost.
    #[default]
    RefuseNew,
    /// The oldest record is dropped, and counted.
    DropOldest,
}

/// Limits and pace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BacklogConfig {
    /// Most records kept.
    pub records_max: usize,
    /// Most octets of records kept.
    pub octets_max: u64,
    /// What gives way.
    pub full: FullPolicy,
    /// Records on the wire at once; 1 keeps the order even if one fails.
    pub window: usize,
    /// Wait after a failure before the next try.
    pub retry_ms: u64,
    /// Percent of either limit from which new calls should be refused.
    pub high_water_percent: u8,
}

impl Default for BacklogConfig {
    fn default() -> Self {
        Self {
            records_max: 1_000_000,
            octets_max: 1 << 30,
            full: FullPolicy::RefuseNew,
            window: 1,
            retry_ms: 5_000,
            high_water_percent: 80,
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BacklogCounters {
    /// Records taken.
    pub record_stored: u64,
    /// Records a CDF acknowledged.
    pub record_delivered: u64,
    /// Records a CDF refused for good (failed answer): given back to the caller.
    pub record_refused: u64,
    /// INTERIMs replaced by newer ones.
    pub interim_overwritten: u64,
    /// Oldest records dropped for newer ones: each is a loss.
    pub record_dropped: u64,
    /// Records not taken because the backlog was full.
    pub record_rejected: u64,
    /// Tries that failed; the records stay.
    pub try_failed: u64,
    /// Errors of the store.
    pub store_failed: u64,
}

/// What became of a record that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// The CDF has it.
    Delivered,
    /// The CDF refused it; the caller holds its octets and should keep them for the operator.
    Refused,
    /// Not ours, or answered before.
    Unknown,
}

/// Undelivered records of one shard.
#[derive(Debug)]
pub struct Backlog<S> {
    store: S,
    config: BacklogConfig,
    /// Ascending sequences; the dead are cleared away lazily.
    entries: VecDeque<Entry>,
    /// The stored INTERIM of a session, by Session-Id.
    interims: BTreeMap<Box<[u8]>, u64>,
    next_sequence: u64,
    live: usize,
    octets: u64,
    /// Sequences on the wire, at most the window.
    flying: Vec<u64>,
    retry_at: Option<Instant>,
    /// What happened.
    pub counters: BacklogCounters,
}

#[derive(Debug)]
struct Entry {
    sequence: u64,
    length: u32,
    in_flight: bool,
    /// A newer INTERIM of the session is stored: not to be tried again.
    superseded: bool,
    dead: bool,
}

impl<S: BacklogStore> Backlog<S> {
    /// An empty backlog whose first record gets the sequence `next_sequence`.
    #[must_use]
    pub fn new(config: BacklogConfig, store: S, next_sequence: u64) -> Self {
        Self {
            store,
            config,
            entries: VecDeque::new(),
            interims: BTreeMap::new(),
            next_sequence,
            live: 0,
            octets: 0,
            flying: Vec::new(),
            retry_at: None,
            counters: BacklogCounters::default(),
        }
    }

    /// Takes over a record the store holds since before a restart; in ascending order.
    pub fn recover(&mut self, sequence: u64, acr: &[u8]) {
        self.next_sequence = self.next_sequence.max(sequence + 1);
        self.index(sequence, acr);
    }

    /// Would a record of that session be taken? An INTERIM may overwrite its predecessor.
    #[must_use]
    pub fn space_for(&self, session_id: &[u8], record_type: RecordType) -> Storage {
        let overwrites = record_type == RecordType::Interim
            && self
                .interims
                .get(session_id)
                .is_some_and(|&sequence| self.is_live(sequence));
        let drops = self.config.full == FullPolicy::DropOldest;
        if overwrites || drops || self.has_room() {
            Storage::Space
        } else {
            Storage::Full
        }
    }

    /// Stores a complete ACR behind all others.
    ///
    /// # Errors
    /// [`StoreError::Full`] by a limit or by the device, [`StoreError::Failed`]; the record is
    /// not kept and the caller counts the loss.
    pub fn put(&mut self, acr: &[u8]) -> Result<(), StoreError> {
        // An INTERIM takes its predecessor's room, which is given up once the new one is safe.
        let old = session_of_interim(acr).and_then(|session| self.interims.get(session).copied());
        let old = old.filter(|&sequence| self.is_live(sequence));
        while old.is_none() && !self.has_room() {
            if self.config.full == FullPolicy::RefuseNew || !self.drop_oldest() {
                self.counters.record_rejected += 1;
                return Err(StoreError::Full);
            }
        }
        let sequence = self.next_sequence;
        if let Err(error) = self.store.append(sequence, acr) {
            self.counters.store_failed += 1;
            return Err(error);
        }
        self.next_sequence += 1;
        self.counters.record_stored += 1;
        self.index(sequence, acr);
        if let Some(old) = old {
            self.counters.interim_overwritten += 1;
            self.supersede(old);
        }
        Ok(())
    }

    /// The next record to send, in stored order, with the T flag; `None` while the window is
    /// full, after a failure, or when all is sent. Call it only while a peer is usable.
    pub fn next_to_send(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Tag> {
        if self.flying.len() >= self.config.window || self.retry_at.is_some_and(|at| at > now) {
            return None;
        }
        self.retry_at = None;
        loop {
            let entry = self
                .entries
                .iter_mut()
                .find(|entry| !entry.dead && !entry.in_flight)?;
            let sequence = entry.sequence;
            if self.store.read(sequence, out).is_err() {
                // What cannot be read now cannot be sent; it may be readable after a restart.
                self.counters.store_failed += 1;
                self.bury(sequence);
                continue;
            }
            entry.in_flight = true;
            self.flying.push(sequence);
            set_retransmitted(out);
            return Some(Tag {
                call: BACKLOG_CALL,
                session: sequence as u32,
            });
        }
    }

    /// A record was answered. If the CDF refused it, its octets are put into `refused`.
    pub fn on_answer(
        &mut self,
        now: Instant,
        tag: Tag,
        answer: &AnswerSummary,
        refused: &mut Vec<u8>,
    ) -> Drained {
        let Some(sequence) = self.land(tag) else {
            return Drained::Unknown;
        };
        // PendingB: a failed answer deletes, or one bad record would block all behind it.
        let delivered = (2_000..3_000).contains(&answer.result_code);
        if !delivered && self.store.read(sequence, refused).is_err() {
            refused.clear();
        }
        self.remove(sequence);
        self.handle_timeout(now);
        if delivered {
            self.counters.record_delivered += 1;
            Drained::Delivered
        } else {
            self.counters.record_refused += 1;
            Drained::Refused
        }
    }

    /// A record could not be sent: it stays where it is.
    pub fn on_failed(&mut self, now: Instant, tag: Tag) {
        let Some(sequence) = self.land(tag) else {
            return;
        };
        self.counters.try_failed += 1;
        self.retry_at = Some(now + Duration::from_millis(self.config.retry_ms));
        if self.entry(sequence).is_some_and(|entry| entry.superseded) {
            self.remove(sequence);
        }
    }

    /// [`Backlog::next_deadline`] passed: the wait after a failure is over, whether or not a peer
    /// is usable to make use of it.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.retry_at = self.retry_at.filter(|&at| at > now);
    }

    /// When [`Backlog::handle_timeout`] is due; [`Backlog::next_to_send`] may then give something
    /// again.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Records kept.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.live
    }

    /// Nothing is owed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Octets of the records kept.
    #[must_use]
    pub const fn octets(&self) -> u64 {
        self.octets
    }

    /// New calls should be refused before their records are.
    #[must_use]
    pub const fn is_above_high_water(&self) -> bool {
        let percent = self.config.high_water_percent as u64;
        self.live as u64 * 100 >= self.config.records_max as u64 * percent
            || self.octets.saturating_mul(100) >= self.config.octets_max.saturating_mul(percent)
    }

    /// The store.
    #[must_use]
    pub const fn store(&self) -> &S {
        &self.store
    }

    const fn has_room(&self) -> bool {
        self.live < self.config.records_max && self.octets < self.config.octets_max
    }

    fn index(&mut self, sequence: u64, acr: &[u8]) {
        if let Some(session_id) = session_of_interim(acr) {
            self.interims.insert(session_id.into(), sequence);
        }
        self.entries.push_back(Entry {
            sequence,
            length: acr.len() as u32,
            in_flight: false,
            superseded: false,
            dead: false,
        });
        self.live += 1;
        self.octets += acr.len() as u64;
    }

    fn is_live(&self, sequence: u64) -> bool {
        let index = self
            .entries
            .binary_search_by_key(&sequence, |entry| entry.sequence);
        index.is_ok_and(|index| !self.entries[index].dead)
    }

    fn entry(&mut self, sequence: u64) -> Option<&mut Entry> {
        let index = self
            .entries
            .binary_search_by_key(&sequence, |entry| entry.sequence)
            .ok()?;
        self.entries.get_mut(index).filter(|entry| !entry.dead)
    }

    /// Takes a record off the wire; its sequence, if it was there.
    fn land(&mut self, tag: Tag) -> Option<u64> {
        let index = self
            .flying
            .iter()
            .position(|&sequence| sequence as u32 == tag.session)?;
        let sequence = self.flying.swap_remove(index);
        self.entry(sequence)?.in_flight = false;
        Some(sequence)
    }

    fn supersede(&mut self, sequence: u64) {
        match self.entry(sequence) {
            Some(entry) if entry.in_flight => entry.superseded = true,
            Some(_) => self.remove(sequence),
            None => {}
        }
    }

    fn drop_oldest(&mut self) -> bool {
        let oldest = self
            .entries
            .iter()
            .find(|entry| !entry.dead && !entry.in_flight);
        let Some(sequence) = oldest.map(|entry| entry.sequence) else {
            return false;
        };
        self.counters.record_dropped += 1;
        self.remove(sequence);
        true
    }

    fn remove(&mut self, sequence: u64) {
        if self.store.remove(sequence).is_err() {
            self.counters.store_failed += 1;
        }
        self.bury(sequence);
    }

    /// Takes a record out of the books.
    fn bury(&mut self, sequence: u64) {
        let Some(entry) = self.entry(sequence) else {
            return;
        };
        entry.dead = true;
        let length = u64::from(entry.length);
        self.live -= 1;
        self.octets -= length;
        while self.entries.front().is_some_and(|entry| entry.dead) {
            self.entries.pop_front();
        }
        if self.entries.len() > 2 * self.live + DEAD_MAX {
            self.entries.retain(|entry| !entry.dead);
        }
        // The key of a delivered INTERIM is left behind by everyone but its successor.
        if self.interims.len() > 2 * self.live + DEAD_MAX {
            let entries = &self.entries;
            self.interims.retain(|_, sequence| {
                entries
                    .binary_search_by_key(sequence, |entry| entry.sequence)
                    .is_ok()
            });
        }
    }
}

/// Dead entries tolerated before they are cleared away.
const DEAD_MAX: usize = 1_024;

/// The Session-Id of an INTERIM.
fn session_of_interim(acr: &[u8]) -> Option<&[u8]> {
    let message = Message::parse(acr).ok()?;
    let record_type = message.find(d::ACCOUNTING_RECORD_TYPE)?.u32().ok()?;
    (record_type == RecordType::Interim as u32)
        .then(|| message.find(d::SESSION_ID).map(|avp| avp.data))?
}

/// A store in memory: for tests, and for those who accept to lose it.
#[derive(Debug, Default)]
pub struct MemoryStore {
    records: BTreeMap<u64, Vec<u8>>,
}

impl BacklogStore for MemoryStore {
    fn append(&mut self, sequence: u64, acr: &[u8]) -> Result<(), StoreError> {
        self.records.insert(sequence, acr.to_vec());
        Ok(())
    }

    fn read(&mut self, sequence: u64, out: &mut Vec<u8>) -> Result<(), StoreError> {
        let record = self.records.get(&sequence).ok_or(StoreError::Failed)?;
        out.clear();
        out.extend_from_slice(record);
        Ok(())
    }

    fn remove(&mut self, sequence: u64) -> Result<(), StoreError> {
        self.records
            .remove(&sequence)
            .map(|_| ())
            .ok_or(StoreError::Failed)
    }
}

impl MemoryStore {
    /// The records in order: what a restart would find.
    pub fn records(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.records
            .iter()
            .map(|(&sequence, acr)| (sequence, acr.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diameter::avp::Writer;
    use crate::diameter::header::Header;

    fn acr(session: &str, record_type: RecordType, number: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::message(&mut out, &Header::new(0xC0, d::ACCOUNTING, 3));
        writer.text(d::SESSION_ID, session.as_bytes());
        writer.u32(d::ACCOUNTING_RECORD_TYPE, record_type as u32);
        writer.u32(d::ACCOUNTING_RECORD_NUMBER, number);
        writer.finish();
        out
    }

    struct Rig {
        backlog: Backlog<MemoryStore>,
        now: Instant,
        refused: Vec<u8>,
    }

    impl Rig {
        fn new(config: BacklogConfig) -> Self {
            let backlog = Backlog::new(config, MemoryStore::default(), 0);
            Self {
                backlog,
                now: Instant::recent(),
                refused: Vec::new(),
            }
        }

        fn put(&mut self, session: &str, record_type: RecordType, number: u32) -> bool {
            self.backlog.put(&acr(session, record_type, number)).is_ok()
        }

        fn next(&mut self) -> Option<(Tag, String, u32)> {
            let mut out = Vec::new();
            let tag = self.backlog.next_to_send(self.now, &mut out)?;
            let message = Message::parse(&out).unwrap();
            assert!(message.header.is_retransmitted());
            let session = message.find(d::SESSION_ID).unwrap().data;
            let number = message
                .find(d::ACCOUNTING_RECORD_NUMBER)
                .unwrap()
                .u32()
                .unwrap();
            Some((tag, String::from_utf8(session.to_vec()).unwrap(), number))
        }

        fn answer(&mut self, tag: Tag, result_code: u32) -> Drained {
            let answer = AnswerSummary {
                result_code,
                ..AnswerSummary::default()
            };
            self.backlog
                .on_answer(self.now, tag, &answer, &mut self.refused)
        }

        fn drain(&mut self) -> Vec<(String, u32)> {
            let mut got = Vec::new();
            while let Some((tag, session, number)) = self.next() {
                assert_eq!(self.answer(tag, 2001), Drained::Delivered);
                got.push((session, number));
            }
            got
        }
    }

    fn names(list: &[(&str, u32)]) -> Vec<(String, u32)> {
        list.iter()
            .map(|(session, number)| ((*session).to_owned(), *number))
            .collect()
    }

    #[test]
    fn records_leave_in_the_order_they_came_and_one_at_a_time() {
        let mut rig = Rig::new(BacklogConfig::default());
        rig.put("a", RecordType::Start, 0);
        rig.put("b", RecordType::Event, 0);
        rig.put("a", RecordType::Stop, 1);
        let (tag, ..) = rig.next().unwrap();
        assert!(rig.next().is_none());
        assert_eq!(rig.backlog.len(), 3);
        rig.answer(tag, 2001);
        assert_eq!(rig.drain(), names(&[("b", 0), ("a", 1)]));
        assert!(rig.backlog.is_empty() && rig.backlog.octets() == 0);
        assert_eq!(rig.backlog.store().records().count(), 0);
    }

    #[test]
    fn a_failed_try_keeps_the_record_and_waits() {
        let mut rig = Rig::new(BacklogConfig::default());
        rig.put("a", RecordType::Start, 0);
        let (tag, ..) = rig.next().unwrap();
        rig.backlog.on_failed(rig.now, tag);
        assert!(rig.next().is_none());
        rig.now = rig.backlog.next_deadline().unwrap();
        rig.backlog.handle_timeout(rig.now);
        assert_eq!(rig.backlog.next_deadline(), None);
        assert_eq!(rig.drain(), names(&[("a", 0)]));
    }

    #[test]
    fn a_refused_record_is_given_back_and_blocks_nobody() {
        let mut rig = Rig::new(BacklogConfig::default());
        rig.put("a", RecordType::Start, 0);
        rig.put("b", RecordType::Start, 0);
        let (tag, ..) = rig.next().unwrap();
        assert_eq!(rig.answer(tag, 5004), Drained::Refused);
        assert_eq!(rig.refused, acr("a", RecordType::Start, 0));
        assert_eq!(rig.answer(tag, 2001), Drained::Unknown);
        assert_eq!(rig.drain(), names(&[("b", 0)]));
        assert_eq!(rig.backlog.counters.record_refused, 1);
    }

    #[test]
    fn one_interim_of_a_session_is_kept_and_nothing_else_overwritten() {
        let mut rig = Rig::new(BacklogConfig::default());
        rig.put("a", RecordType::Start, 0);
        rig.put("a", RecordType::Interim, 1);
        rig.put("b", RecordType::Interim, 1);
        rig.put("a", RecordType::Interim, 2);
        rig.put("a", RecordType::Stop, 3);
        assert_eq!(
            rig.drain(),
            names(&[("a", 0), ("b", 1), ("a", 2), ("a", 3)])
        );
        assert_eq!(rig.backlog.counters.interim_overwritten, 1);
    }

    #[test]
    fn an_interim_on_the_wire_is_superseded_only_if_its_try_fails() {
        let mut rig = Rig::new(BacklogConfig::default());
        rig.put("a", RecordType::Interim, 1);
        let (tag, ..) = rig.next().unwrap();
        rig.put("a", RecordType::Interim, 2);
        assert_eq!(rig.backlog.len(), 2);
        rig.backlog.on_failed(rig.now, tag);
        assert_eq!(rig.backlog.len(), 1);
        rig.now = rig.backlog.next_deadline().unwrap();
        assert_eq!(rig.drain(), names(&[("a", 2)]));
    }

    #[test]
    fn a_full_backlog_refuses_the_new_or_drops_the_oldest() {
        let limits = BacklogConfig {
            records_max: 2,
            ..BacklogConfig::default()
        };
        let mut rig = Rig::new(limits.clone());
        rig.put("a", RecordType::Start, 0);
        rig.put("b", RecordType::Interim, 1);
        assert!(rig.backlog.is_above_high_water());
        assert_eq!(
            rig.backlog.space_for(b"c", RecordType::Start),
            Storage::Full
        );
        assert_eq!(
            rig.backlog.space_for(b"b", RecordType::Interim),
            Storage::Space
        );
        assert!(!rig.put("c", RecordType::Start, 0));
        assert!(rig.put("b", RecordType::Interim, 2));
        assert_eq!(rig.drain(), names(&[("a", 0), ("b", 2)]));
        assert_eq!(rig.backlog.counters.record_rejected, 1);

        let mut rig = Rig::new(BacklogConfig {
            full: FullPolicy::DropOldest,
            ..limits
        });
        for session in ["a", "b", "c"] {
            assert!(rig.put(session, RecordType::Start, 0));
        }
        assert_eq!(rig.drain(), names(&[("b", 0), ("c", 0)]));
        assert_eq!(rig.backlog.counters.record_dropped, 1);
    }

    #[test]
    fn a_restart_finds_everything_that_was_not_acknowledged() {
        let mut rig = Rig::new(BacklogConfig::default());
        rig.put("a", RecordType::Start, 0);
        rig.put("a", RecordType::Interim, 1);
        rig.put("b", RecordType::Start, 0);
        let (tag, ..) = rig.next().unwrap();
        rig.answer(tag, 2001);
        rig.next().unwrap();
        let mut after = Rig::new(BacklogConfig::default());
        for (sequence, acr) in rig.backlog.store().records() {
            after.backlog.store.append(sequence, acr).unwrap();
            after.backlog.recover(sequence, acr);
        }
        after.put("a", RecordType::Interim, 2);
        assert_eq!(after.drain(), names(&[("b", 0), ("a", 2)]));
    }

    #[test]
    fn a_window_sends_ahead_but_a_failure_returns_to_its_place() {
        let mut rig = Rig::new(BacklogConfig {
            window: 2,
            ..BacklogConfig::default()
        });
        for session in ["a", "b", "c"] {
            rig.put(session, RecordType::Start, 0);
        }
        let (first, ..) = rig.next().unwrap();
        let (second, ..) = rig.next().unwrap();
        assert!(rig.next().is_none());
        rig.answer(second, 2001);
        rig.backlog.on_failed(rig.now, first);
        rig.now = rig.backlog.next_deadline().unwrap();
        assert_eq!(rig.next().unwrap().1, "a");
    }
}
