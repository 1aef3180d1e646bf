//! The stream to a peer: what waits, what is in flight, what is sent again and when.

use std::collections::VecDeque;

use super::congestion::Congestion;
use super::{LinkConfig, LinkCounters, RECEIVE_WINDOW};
use crate::frame::{ENTRY_RECORD, ENTRY_SYNC, Entry, EntryKind, STREAM, Stream};
use crate::reassembly::PIECE;
use crate::record::{CallId, Kind, Version};
use crate::ring::Ring;

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) id: CallId,
    pub(super) version: Version,
    pub(super) kind: EntryKind,
    /// Number of the catch-up it belongs to; 0: a live record.
    pub(super) sync: u32,
    state: SlotState,
    sent_at: u64,
    tries: u8,
    bytes: u32,
    /// It was put off and comes again here.
    is_late: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotState {
    Queued,
    InFlight,
    Overdue,
    Acked,
}

#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) slots: VecDeque<Slot>,
    /// Number of the first slot.
    pub(super) base: u64,
    /// What stood before this number when the queue ran over last was dropped, acked or not.
    pub(super) dropped_below: u64,
    /// Slots before this index were sent at least once.
    pub(super) cursor: usize,
    pub(super) in_flight: usize,
    bytes_in_flight: u64,
    congestion: Congestion,
    pub(super) peer_window: u64,
    /// The peer said that it refuses entries.
    pub(super) peer_is_full: bool,
    overdue: VecDeque<u64>,
    /// The rest of a record too long for one datagram: number, version sent, next offset.
    partial: Option<(u64, Version, usize)>,
    /// Slots that were put off and are not acked yet.
    pub(super) late: usize,
    pub(super) resend_at: u64,
    pub(super) srtt: u64,
    rttvar: u64,
    pub(super) urgent: bool,
    /// Newest catch-up: entries of former ones no longer count.
    pub(super) sync: u32,
}

impl Outgoing {
    pub(super) fn new(config: &LinkConfig) -> Self {
        Self {
            slots: VecDeque::with_capacity(config.queue_max),
            base: 1,
            dropped_below: 0,
            cursor: 0,
            in_flight: 0,
            bytes_in_flight: 0,
            congestion: Congestion::new(),
            peer_window: u64::from(config.window_bytes),
            peer_is_full: false,
            overdue: VecDeque::with_capacity(RECEIVE_WINDOW as usize),
            partial: None,
            late: 0,
            resend_at: u64::MAX,
            srtt: 0,
            rttvar: 0,
            urgent: false,
            sync: 0,
        }
    }

    pub(super) fn push(&mut self, id: CallId, version: Version, kind: EntryKind, sync: u32) {
        let state = SlotState::Queued;
        let slot = Slot {
            id,
            version,
            kind,
            sync,
            state,
            sent_at: 0,
            tries: 0,
            bytes: 0,
            is_late: false,
        };
        self.slots.push_back(slot);
    }

    pub(super) fn drop_all(&mut self) {
        self.base += self.slots.len() as u64;
        self.dropped_below = self.base;
        self.slots.clear();
        self.overdue.clear();
        (self.cursor, self.in_flight, self.bytes_in_flight) = (0, 0, 0);
        (self.partial, self.late, self.resend_at) = (None, 0, u64::MAX);
    }

    pub(super) fn can_send_new(&self) -> bool {
        let has_more = self.cursor < self.slots.len().min(SEND_WINDOW);
        self.partial.is_some() || ((has_more || !self.overdue.is_empty()) && self.has_window())
    }

    fn has_window(&self) -> bool {
        let window = self.congestion.window().min(self.peer_window);
        self.bytes_in_flight < window || self.in_flight == 0
    }

    /// Slots that were never sent.
    pub(super) fn unsent(&self) -> usize {
        self.slots.len() - self.cursor
    }

    fn next_number(&self) -> u64 {
        self.base + self.cursor as u64
    }

    fn rto(&self, tries: u8) -> u64 {
        let measured = if self.srtt == 0 {
            RTO_FIRST_NS
        } else {
            2 * self.srtt + 4 * self.rttvar
        };
        let times = u32::from(tries.saturating_sub(1)).min(6);
        let patience = measured.clamp(RTO_MIN_NS, RTO_MAX_NS);
        self.congestion.patience(patience, times).min(RTO_MAX_NS)
    }

    pub(super) fn collect_overdue(&mut self, now: u64, counters: &mut LinkCounters) {
        if now < self.resend_at {
            return;
        }
        self.resend_at = u64::MAX;
        let (next, resent) = (self.next_number(), counters.entries_resent);
        for n in 0..self.cursor {
            let slot = self.slots[n];
            if slot.state != SlotState::InFlight {
                continue;
            }
            let due = slot.sent_at + self.rto(slot.tries);
            if due <= now && self.overdue.len() < RECEIVE_WINDOW as usize {
                self.make_overdue(n, counters);
                self.congestion.on_overdue(self.base + n as u64, next);
            } else {
                self.resend_at = self.resend_at.min(due);
            }
        }
        if counters.entries_resent > resent {
            self.congestion.back_off();
        }
    }

    fn make_overdue(&mut self, n: usize, counters: &mut LinkCounters) {
        let slot = &mut self.slots[n];
        slot.state = SlotState::Overdue;
        self.bytes_in_flight -= u64::from(slot.bytes);
        self.in_flight -= 1;
        self.overdue.push_back(self.base + n as u64);
        counters.entries_resent += 1;
    }

    /// Puts what a full peer refuses behind the rest of the stream: it has no room for calls that
    /// are new to it, and only what waits behind them, the end of others, can make some. So it is
    /// with the mark of a catch-up while the peer still forgets what the walk did not bring. The
    /// number is skipped, and the entry comes again under another one. True if a walk must begin
    /// again.
    pub(super) fn put_off_refused(&mut self, counters: &mut LinkCounters) -> bool {
        let sync = self.sync;
        let is_refused = |slot: &Slot| {
            let waits = matches!(slot.state, SlotState::InFlight | SlotState::Overdue);
            let may_be = match slot.kind {
                EntryKind::Put | EntryKind::Del => slot.tries >= TRIES_IN_PLACE,
                // It means the same wherever it stands behind its walk.
                EntryKind::Mark => slot.sync == sync,
                EntryKind::Skip => false,
            };
            waits && may_be
        };
        if !self.peer_is_full || !self.slots.front().is_some_and(is_refused) {
            return false;
        }
        self.peer_is_full = false;
        let mut was_walked = false;
        for n in 0..self.cursor {
            let slot = self.slots[n];
            if !is_refused(&slot) {
                continue;
            }
            counters.entries_put_off += 1;
            if slot.kind == EntryKind::Mark {
                self.push(slot.id, slot.version, slot.kind, slot.sync);
            } else if slot.sync != 0 && slot.sync == self.sync {
                was_walked = true; // the next walk brings it
            } else {
                self.push(slot.id, slot.version, slot.kind, 0);
                self.slots.back_mut().expect("it was just pushed").is_late = true;
                self.late += usize::from(!slot.is_late);
            }
            let skipped = &mut self.slots[n];
            (skipped.kind, skipped.is_late) = (EntryKind::Skip, false);
            // It was never sent as that, so that an ack tells what the path is like.
            skipped.tries = 0;
            if slot.state == SlotState::InFlight {
                self.make_overdue(n, counters);
            }
        }
        was_walked
    }

    /// Whether something has not been sent yet, be it the rest of a record.
    pub(super) fn has_more(&self) -> bool {
        self.partial.is_some() || self.cursor < self.slots.len()
    }

    /// Fills `body` behind the place of the stream's front; hands out length and entry count.
    pub(super) fn fill(
        &mut self,
        now: u64,
        ring: &Ring,
        body: &mut [u8],
        counters: &mut LinkCounters,
    ) -> (usize, u16) {
        let (mut at, mut entries) = (STREAM, 0);
        while let Some(n) = self.next_slot() {
            let Some(len) = self.write_entry(n, ring, &mut body[at..], entries == 0) else {
                break;
            };
            at += len;
            entries += 1;
            counters.entries_sent += 1;
            self.sent(n, now, len);
        }
        (at, entries)
    }

    /// The slot to send next: the rest of one begun, then overdue ones, then new ones.
    fn next_slot(&mut self) -> Option<usize> {
        if let Some((number, _, _)) = self.partial {
            if let Some(n) = number.checked_sub(self.base)
                && self
                    .slots
                    .get(n as usize)
                    .is_some_and(|slot| slot.state != SlotState::Acked)
            {
                return Some(n as usize);
            }
            self.partial = None;
        }
        if !self.has_window() {
            return None;
        }
        while let Some(&number) = self.overdue.front() {
            let n = number.checked_sub(self.base).map(|n| n as usize);
            match n.and_then(|n| self.slots.get(n)) {
                Some(slot) if slot.state == SlotState::Overdue => return n,
                _ => self.overdue.pop_front(),
            };
        }
        self.can_send_new().then_some(self.cursor)
    }

    fn write_entry(
        &mut self,
        n: usize,
        ring: &Ring,
        bytes: &mut [u8],
        is_first: bool,
    ) -> Option<usize> {
        let slot = self.slots[n];
        let number = self.base + n as u64;
        let mut entry = Entry {
            id: slot.id,
            version: slot.version,
            number,
            owner: ring.node(),
            shard: ring.shard(),
            schema: 0,
            kind: slot.kind,
            flags: if slot.sync != 0 && slot.sync == self.sync {
                ENTRY_SYNC
            } else {
                0
            },
            total: 0,
            offset: 0,
            piece: &[],
        };
        if slot.kind == EntryKind::Skip {
            // Put off.
        } else if slot.kind == EntryKind::Mark {
            if slot.sync != self.sync {
                entry.kind = EntryKind::Skip;
            }
        } else {
            match ring.newest_or_tombstone(slot.id) {
                Some(held) => {
                    entry.version = held.meta.version;
                    (entry.owner, entry.shard) = (held.meta.owner, held.meta.shard);
                    entry.schema = held.meta.schema;
                    entry.flags |= held.meta.flags << ENTRY_RECORD;
                    entry.piece = held.payload;
                    let is_put = held.meta.kind == Kind::Put;
                    entry.kind = if is_put {
                        EntryKind::Put
                    } else {
                        EntryKind::Del
                    };
                }
                // Its tombstone has left the ring, but the slot remembers all of it.
                None if slot.kind == EntryKind::Del => {}
                None => entry.kind = EntryKind::Skip,
            }
        }
        entry.total = entry.piece.len() as u32;
        if let Some(len) = entry.encode(bytes) {
            self.partial = None;
            return Some(len);
        }
        if !is_first || entry.piece.len() <= PIECE {
            return None;
        }
        // Too long for a datagram of its own: piece by piece, each in a datagram.
        let offset = match self.partial {
            Some((_, version, offset)) if version == entry.version => offset,
            _ => 0,
        };
        let end = (offset + PIECE).min(entry.piece.len());
        entry.offset = offset as u32;
        let is_last = end == entry.piece.len();
        entry.piece = &entry.piece[offset..end];
        let len = entry.encode(bytes)?;
        self.partial = if is_last {
            None
        } else {
            Some((number, entry.version, end))
        };
        Some(len)
    }

    fn sent(&mut self, n: usize, now: u64, len: usize) {
        if self.overdue.front() == Some(&(self.base + n as u64)) {
            self.overdue.pop_front();
        }
        let slot = &mut self.slots[n];
        if slot.state != SlotState::InFlight {
            self.in_flight += 1;
            slot.bytes = 0;
            slot.tries = slot.tries.saturating_add(1);
        }
        slot.bytes += len as u32;
        slot.sent_at = now;
        slot.state = SlotState::InFlight;
        let tries = slot.tries;
        self.bytes_in_flight += len as u64;
        self.cursor = self.cursor.max(n + 1);
        self.resend_at = self.resend_at.min(now + self.rto(tries));
    }

    pub(super) fn on_ack(
        &mut self,
        now: u64,
        stream: &Stream,
        counters: &mut LinkCounters,
        mut on_acked: impl FnMut(&Slot),
    ) {
        // An ack of what was never sent is the peer's bug; believe none of it.
        let sent_end = self.base + self.cursor as u64;
        if stream.cumulative >= sent_end {
            return;
        }
        let upto = (stream.cumulative + 1).saturating_sub(self.base) as usize;
        for n in 0..upto {
            self.ack(n, now, &mut on_acked);
        }
        let mut highest = None;
        let mut selective = stream.selective;
        while selective != 0 {
            let number = stream.cumulative + 2 + u64::from(selective.trailing_zeros());
            selective &= selective - 1;
            if number < sent_end && number >= self.base {
                let n = (number - self.base) as usize;
                self.ack(n, now, &mut on_acked);
                highest = Some(n);
            }
        }
        if let Some(highest) = highest {
            self.send_holes_again(now, highest, counters);
        }
        while self
            .slots
            .front()
            .is_some_and(|slot| slot.state == SlotState::Acked)
        {
            self.slots.pop_front();
            self.base += 1;
            self.cursor -= 1;
        }
    }

    fn ack(&mut self, n: usize, now: u64, on_acked: &mut impl FnMut(&Slot)) {
        let slot = &mut self.slots[n];
        match slot.state {
            SlotState::Acked | SlotState::Queued => return,
            SlotState::InFlight => {
                let bytes = u64::from(slot.bytes);
                self.congestion
                    .on_acked(bytes, self.bytes_in_flight, self.peer_window);
                self.bytes_in_flight -= bytes;
                self.in_flight -= 1;
            }
            SlotState::Overdue => {}
        }
        slot.state = SlotState::Acked;
        self.late -= usize::from(slot.is_late);
        on_acked(slot);
        // A number sent twice does not tell which sending was answered.
        let (tries, sample) = (slot.tries, now.saturating_sub(slot.sent_at));
        if tries == 1 {
            self.congestion.on_round_trip();
            self.note_round_trip(sample);
        }
    }

    /// What lies well before an acked number and had its round trip is lost.
    fn send_holes_again(&mut self, now: u64, highest: usize, counters: &mut LinkCounters) {
        let patience = self.srtt + self.rttvar;
        let next = self.next_number();
        for n in 0..highest.saturating_sub(REORDER) {
            let slot = self.slots[n];
            if slot.state == SlotState::InFlight && now >= slot.sent_at + patience {
                self.make_overdue(n, counters);
                self.congestion.on_hole(self.base + n as u64, next);
            }
        }
    }

    fn note_round_trip(&mut self, sample: u64) {
        if self.srtt == 0 {
            (self.srtt, self.rttvar) = (sample.max(1), sample / 2);
            return;
        }
        // RFC 6298 s2.3.
        self.rttvar = (3 * self.rttvar + self.srtt.abs_diff(sample)) / 4;
        self.srtt = ((7 * self.srtt + sample) / 8).max(1);
    }
}

/// Numbers in flight: as many as one ack can tell apart. What an ack cannot tell of would be sent
/// again although it has arrived.
const SEND_WINDOW: usize = 65;
const _: () = assert!(SEND_WINDOW as u64 <= RECEIVE_WINDOW);
/// Sendings of a record before a full peer is taken to refuse it, and it is put off.
const TRIES_IN_PLACE: u8 = 2;
/// Later numbers acked before a hole counts as lost.
const REORDER: usize = 3;
const RTO_FIRST_NS: u64 = 20_000_000;
const RTO_MIN_NS: u64 = 2_000_000;
const RTO_MAX_NS: u64 = 500_000_000;
