//! One peer, as one shard sees it: a stream of records out, a stream of records in.
//!
//! Replication is state-based. A number in the stream stands for "this call, at least this
//! version": when it is sent, and each time it is sent again, the newest version goes out. The
//! receiver may therefore apply entries in any order and any number of times, nothing blocks
//! behind a lost datagram, and a superseded version is never sent twice.
//!
//! ```text
//!   enqueue ─▶ slots: base ... acked, in flight ... cursor ... queued ─▶ poll ─▶ datagram
//!                      ▲ cumulative and selective ack
//! ```
//!
//! **Acks.** Each datagram, data or ack alone, says up to which number all has arrived, and of the
//! 64 behind the next one which have; an urgent datagram is acked at once, others within
//! `ack_delay_ns`. There is no NAK: the bits name the holes, the newest ack is worth all before it, and
//! none needs to arrive, whereas a NAK that is lost needs a timer of its own and one that is late
//! asks for what has come meanwhile.
//!
//! **Windows.** A sender has at most 65 numbers under way (`SEND_WINDOW`), so that one ack can tell
//! of each, and at most as many bytes as the congestion window and the peer's `window_bytes` allow.
//! A receiver remembers 1,024 numbers beyond the last up to which all arrived ([`RECEIVE_WINDOW`])
//! and neither stores nor acks what is further ahead.
//!
//! **Again.** A number is sent again
//! * when one at least four higher is acked and a smoothed round trip and its deviation have passed
//!   since it was sent: what is lost, and followed by others, goes again within two round trips;
//! * when nothing told of it for 2 round trips + 4 deviations (at first 20 ms, 2 to 500 ms), twice as
//!   long for each time it was sent, or for each such time since an ack of what was sent but once;
//! * once the peer says that it cannot take it, for it has no room, has yet to forget what a catch-up
//!   did not bring, or holds another content of that version: then under another number, behind the
//!   rest, and the old one is skipped (`put_off_refused`).
//!
//! What goes is the newest version, in the place of the old one. With 5 % of datagrams lost and 1 ms
//! from node to node a lost version is sent again after 3.1 ms in the median and 4.9 ms for 95 % if
//! others follow (1 in 0.3 ms; 3.7 and 5.2 ms where acks wait for company), and after 4.4 ms (6.4) if
//! none does (`tests/peers/resending.rs`).
//!
//! **Memory.** What waits to be sent is ids and versions, no payloads: `queue_max` numbers and no more
//! than a window beyond (what was put off); above that the peer is filled anew. A receiver has a bit
//! for each number of its window, 4 records under reassembly of `payload_bytes_max` bytes, and for the
//! time of a catch-up a mark for each call, at most `marks_max`. Nothing else grows by what comes in.
//!
//! A session lasts as long as both incarnations; the view decides which incarnation of the peer
//! is admitted, and from any other nothing is stored, acked or counted (V4). When a session
//! begins, or the queue overflows, the peer must be filled anew: see `catch_up`.

mod congestion;
mod filled;
mod incoming;
mod outgoing;

use self::incoming::Incoming;
use self::outgoing::Outgoing;
use crate::catch_up::{Belongings, Giver, Scope, Walked};
use crate::frame::{
    Bytes, DATAGRAM_BYTES_ETHERNET, ENTRY, ENTRY_RECORD, Entry, EntryKind, FLAG_FULL, FLAG_URGENT,
    FrameError, FrameKind, HEAD, Head, STREAM, Stream, TAG,
};
use crate::plant::{self, Plant};
use crate::reassembly::PIECE;
use crate::record::{CallId, Kind, Meta, Version};
use crate::ring::{Applied, Ring};
use crate::seal::{Channel, ClusterKeys, Ends, OpenFault, Purpose};

/// Limits and delays of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// Longest datagram to send.
    pub datagram_bytes_max: usize,
    /// Numbers that may wait or be in flight. Beyond, the peer is filled anew instead.
    pub queue_max: usize,
    /// Longest payload taken from the peer.
    pub payload_bytes_max: usize,
    /// Bytes the peer may have in flight towards this node.
    pub window_bytes: u32,
    /// How long an ack may wait for company.
    pub ack_delay_ns: u64,
    /// Bytes per second a catch-up may add to live traffic.
    pub sync_bytes_per_s: u64,
    /// Calls one catch-up may mark; no fewer than the ring holds.
    pub marks_max: usize,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            datagram_bytes_max: DATAGRAM_BYTES_ETHERNET,
            queue_max: 16_384,
            payload_bytes_max: 8 << 10,
            window_bytes: 1 << 20,
            ack_delay_ns: 1_000_000,
            // 40 % of a gigabit link.
            sync_bytes_per_s: 50_000_000,
            marks_max: 1 << 20,
        }
    }
}

/// Both streams between one shard and one peer. Sans-IO: datagrams and time come in as
/// arguments; `poll` gives datagrams, `deadline` says when to poll next.
#[derive(Debug)]
pub struct Link {
    channel: Channel,
    config: LinkConfig,
    /// Incarnation of the peer that the view says is a member.
    admitted: Option<u32>,
    out: Outgoing,
    incoming: Incoming,
    giver: Giver,
    /// Whether this node knows all its calls, so that what it does not know does not exist.
    is_giving: bool,
    /// View number that marks of finished catch-ups carry.
    view: u32,
    sync_request: Option<(Scope, u32)>,
    /// The last walk that was to bring this node its share could not be checked.
    lacks_share: bool,
    counters: LinkCounters,
}

impl Link {
    /// A link that admits nobody yet.
    #[must_use]
    pub fn new(ends: Ends, keys: ClusterKeys, config: LinkConfig) -> Self {
        Self {
            channel: Channel::new(ends, Purpose::Records, keys),
            out: Outgoing::new(&config),
            incoming: Incoming::new(&config),
            giver: Giver::default(),
            config,
            admitted: None,
            is_giving: false,
            view: 0,
            sync_request: None,
            lacks_share: false,
            counters: LinkCounters::default(),
        }
    }

    /// Admits an incarnation of the peer, or none (the fence). A change begins a new session:
    /// acks of the former one are void and the peer is filled anew.
    pub fn admit(&mut self, incarnation: Option<u32>, now: u64) {
        if self.admitted == incarnation {
            return;
        }
        self.admitted = incarnation;
        if plant::is(Plant::AcksKept) {
            return;
        }
        self.out = Outgoing::new(&self.config);
        self.incoming = Incoming::new(&self.config);
        self.giver = Giver::default();
        self.lacks_share = false;
        if incarnation.is_some() && self.is_giving {
            self.giver
                .start(Scope::Targets, self.view, self.is_giving, now);
        }
    }

    /// Sets the view number that finished catch-ups are tagged with.
    pub fn set_view(&mut self, view: u32) {
        if view != self.view {
            // An answer under the former view would not count.
            self.sync_request = None;
        }
        self.view = view;
        self.ask_for_share_again();
    }

    /// Sets whether this node is alive in the view and knows all its calls. One that is not, or
    /// that may have lost its memory and goes on waiting for whoever may hold the only copies,
    /// must not make its peers forget its calls.
    pub fn set_giving(&mut self, is_giving: bool, now: u64) {
        let was_giving = std::mem::replace(&mut self.is_giving, is_giving);
        if is_giving && !was_giving && self.admitted.is_some() {
            self.giver
                .start(Scope::Targets, self.view, self.is_giving, now);
        }
    }

    /// Sets which protocols it reads; for tests of versions to come.
    pub fn set_protocols(&mut self, lowest: u8, highest: u8) {
        self.channel.set_protocols(lowest, highest);
    }

    /// Writes in the protocol agreed on.
    pub fn set_protocol(&mut self, protocol: u8) {
        self.channel.set_protocol(protocol);
    }

    /// Takes other cluster keys.
    pub fn set_keys(&mut self, keys: ClusterKeys) {
        self.channel.set_keys(keys);
    }

    /// Queues a call's newest version, or its tombstone.
    pub fn enqueue(&mut self, id: CallId, version: Version, kind: Kind, urgent: bool, now: u64) {
        if self.admitted.is_none() || kind == Kind::Pad {
            return;
        }
        if self.out.slots.len() >= self.config.queue_max {
            self.overflow(now);
            return;
        }
        let kind = if kind == Kind::Del {
            EntryKind::Del
        } else {
            EntryKind::Put
        };
        self.out.push(id, version, kind, 0);
        self.out.urgent |= urgent;
    }

    /// Asks the peer to fill this node, until it answers or asked otherwise.
    pub fn request_sync(&mut self, scope: Scope, view: u32) {
        self.sync_request = Some((scope, view));
    }

    /// Whether the peer was asked to fill this node and has not done it.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        self.sync_request.is_some()
    }

    /// Fills the peer anew.
    pub fn start_sync(&mut self, scope: Scope, now: u64) {
        self.giver.start(scope, self.view, self.is_giving, now);
    }

    /// Takes a datagram, stores what it brings and tells `on` what it means.
    ///
    /// # Errors
    /// `OpenFault` if it is not believed; nothing has changed then.
    pub fn handle_datagram(
        &mut self,
        now: u64,
        datagram: &mut [u8],
        ring: &mut Ring,
        on: &mut impl FnMut(LinkEvent),
    ) -> Result<(), OpenFault> {
        let (head, body) = self.channel.open(datagram).inspect_err(|fault| {
            let is_version = *fault == OpenFault::Frame(FrameError::Protocol);
            self.counters.protocol_refused += u64::from(is_version);
            self.counters.datagram_key_unknown += u64::from(*fault == OpenFault::Key);
            self.counters.datagram_refused += 1;
        })?;
        if self.admitted != Some(head.incarnation) && !plant::is(Plant::NoFence) {
            self.counters.datagram_fenced += 1;
            return Ok(());
        }
        match head.kind {
            FrameKind::Data | FrameKind::Ack => {
                let mut bytes = Bytes::new(body);
                let Ok(stream) = Stream::parse(&mut bytes) else {
                    self.counters.body_malformed += 1;
                    return Ok(());
                };
                self.on_ack(now, &head, &stream, on);
                if head.kind == FrameKind::Data {
                    self.on_data(now, &head, &stream, bytes, ring, on);
                }
            }
            FrameKind::SyncRequest => {
                let mut bytes = Bytes::new(body);
                let (Ok(view), Ok(scope)) = (bytes.u32(), bytes.u8()) else {
                    self.counters.body_malformed += 1;
                    return Ok(());
                };
                // An answer under another view would be worth nothing to the one who asks.
                let scope = Scope::from_u8(scope);
                let is_served = self.giver.is_giving(scope, view)
                    || self.giver.has_answered(scope, view, head.number);
                if view == self.view && !is_served {
                    self.giver.start(scope, view, self.is_giving, now);
                }
            }
            FrameKind::View | FrameKind::Forward => self.counters.body_malformed += 1,
        }
        Ok(())
    }

    /// Writes the next datagram into `buffer`, or nothing if there is none to send now.
    /// `belongings` tells which calls a catch-up is to bring.
    pub(crate) fn poll(
        &mut self,
        now: u64,
        ring: &Ring,
        buffer: &mut [u8],
        belongings: &Belongings<'_>,
    ) -> Option<usize> {
        let to = match self.admitted {
            None if plant::is(Plant::NoFence) => self.channel.peer_incarnation()?,
            admitted => admitted?,
        };
        if let Some((scope, view)) = self.sync_request
            && now >= self.incoming.request_at
        {
            self.incoming.request_at = now + SYNC_REQUEST_NS;
            buffer.get_mut(HEAD..HEAD + 5)?[..4].copy_from_slice(&view.to_le_bytes());
            buffer[HEAD + 4] = scope as u8;
            return self.channel.seal(FrameKind::SyncRequest, to, 0, buffer, 5);
        }
        self.walk(now, ring, belongings);
        self.out.collect_overdue(now, &mut self.counters);
        let limit = buffer.len().min(self.config.datagram_bytes_max);
        let body = buffer.get_mut(HEAD..limit.checked_sub(TAG)?)?;
        self.out.sync = self.giver.number();
        if self.out.put_off_refused(&mut self.counters) {
            self.giver.begin_later(now);
            // What is under way of the walk that was given up is no part of the next one.
            self.out.sync = self.giver.number();
        }
        let (len, entries) = self.out.fill(now, ring, body, &mut self.counters);
        if entries == 0 && self.incoming.ack_at.is_none_or(|at| now < at) {
            return None;
        }
        let stream = Stream {
            base: self.out.base,
            cumulative: self.incoming.cumulative,
            selective: self.incoming.selective(),
            window: self.config.window_bytes,
            sync: self.giver.number(),
            entries,
        };
        stream.encode(body.first_chunk_mut()?);
        self.incoming.ack_at = None;
        let kind = if entries > 0 {
            FrameKind::Data
        } else {
            FrameKind::Ack
        };
        let is_urgent = entries > 0 && self.out.urgent;
        let is_full = self.incoming.take_refused();
        let flags = (u8::from(is_urgent) * FLAG_URGENT) | (u8::from(is_full) * FLAG_FULL);
        self.out.urgent &= self.out.has_more();
        self.counters.datagrams_sent += 1;
        self.channel
            .seal(kind, to, flags, &mut buffer[..limit], len)
    }

    /// When `poll` has something to do although nothing came in; `None`: not before then.
    #[must_use]
    pub fn deadline(&self, now: u64) -> Option<u64> {
        self.admitted?;
        let request = self.sync_request.map(|_| self.incoming.request_at);
        let sendable = self.out.can_send_new().then_some(now);
        let resend = (self.out.in_flight > 0).then_some(self.out.resend_at);
        let walk = self.giver.deadline().filter(|_| self.has_room_for_walk());
        let forgetting = self.is_forgetting().then_some(now);
        let ack = self.incoming.ack_at;
        [request, sendable, resend, ack, walk, forgetting]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether the peer has acked all there is, and no catch-up is under way.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.out.slots.is_empty() && self.giver.is_idle() && self.sync_request.is_none()
    }

    /// Whether the peer is known to hold of this node's calls those it should, and no others.
    #[must_use]
    pub(crate) fn has_share(&self) -> bool {
        self.giver.has_share()
    }

    /// Whether the peer has all that it should hold of this node's calls.
    #[must_use]
    pub(crate) fn is_filled(&self) -> bool {
        self.giver.is_filled()
    }

    /// Whether it is to forget what it should not hold, as soon as all others are filled.
    #[must_use]
    pub(crate) fn waits(&self) -> bool {
        self.giver.waits()
    }

    /// Records that the peer has not acked.
    #[must_use]
    pub fn lag_records(&self) -> u64 {
        self.out.slots.len() as u64
    }

    /// Number behind the last record of the stream.
    #[must_use]
    pub fn stream_end(&self) -> u64 {
        self.out.base + self.out.slots.len() as u64
    }

    /// Whether no catch-up is under way and all before `mark` is acked.
    #[must_use]
    pub fn is_past(&self, mark: u64) -> bool {
        self.has_acked(mark) && self.giver.is_idle() && self.sync_request.is_none()
    }

    /// Whether all before `mark` is acked.
    pub(crate) fn has_acked(&self, mark: u64) -> bool {
        self.out.base >= mark && self.out.late == 0
    }

    /// Whether what stood before `mark` may have been dropped before it was acked.
    pub(crate) fn has_dropped(&self, mark: u64) -> bool {
        mark <= self.out.dropped_below
    }

    /// Incarnation of the peer that is admitted.
    #[must_use]
    pub fn admitted(&self) -> Option<u32> {
        self.admitted
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> &LinkCounters {
        &self.counters
    }

    /// Round trip, smoothed, in nanoseconds; 0 before the first.
    #[must_use]
    pub fn srtt_ns(&self) -> u64 {
        self.out.srtt
    }

    fn overflow(&mut self, now: u64) {
        // What waited is void: the walk covers it. The base tells the peer not to wait either.
        self.counters.queue_overflows += 1;
        self.out.drop_all();
        self.giver
            .start(Scope::Targets, self.view, self.is_giving, now);
    }

    // Half of the queue stays free for live records, and few wait behind the walk.
    pub(crate) fn has_room_for_walk(&self) -> bool {
        self.out.slots.len() < self.config.queue_max / 2 && self.out.unsent() < WALK_AHEAD
    }

    fn walk(&mut self, now: u64, ring: &Ring, belongings: &Belongings<'_>) {
        let peer = self.channel.ends().peer;
        while self.has_room_for_walk() {
            let (rate, number) = (self.config.sync_bytes_per_s, self.giver.number());
            match self.giver.next(now, rate, ring, peer, belongings) {
                Walked::Record(id, version, kind) => self.out.push(id, version, kind, number),
                Walked::End(mark) => {
                    let version = Version {
                        epoch: mark.view,
                        ver: mark.count,
                    };
                    self.out
                        .push(mark.as_id(), version, EntryKind::Mark, number);
                }
                Walked::Wait => break,
            }
        }
    }

    fn on_ack(&mut self, now: u64, head: &Head, stream: &Stream, on: &mut impl FnMut(LinkEvent)) {
        self.out.peer_window = u64::from(stream.window);
        self.out.peer_is_full |= head.flags & FLAG_FULL != 0;
        let giver = &mut self.giver;
        self.out
            .on_ack(now, stream, &mut self.counters, |slot| match slot.kind {
                EntryKind::Put | EntryKind::Del => on(LinkEvent::Acked(slot.id, slot.version)),
                EntryKind::Mark => giver.on_mark_acked(slot.sync, head.number, now),
                EntryKind::Skip => {}
            });
    }

    fn on_data(
        &mut self,
        now: u64,
        head: &Head,
        stream: &Stream,
        mut bytes: Bytes<'_>,
        ring: &mut Ring,
        on: &mut impl FnMut(LinkEvent),
    ) {
        self.incoming.begin_sync(stream.sync);
        self.incoming.settle_below(stream.base);
        let mut pieces = 0;
        for _ in 0..stream.entries {
            let Ok(entry) = Entry::parse(&mut bytes) else {
                self.counters.body_malformed += 1;
                break;
            };
            if self.incoming.is_received(entry.number) {
                self.counters.entries_duplicate += 1;
            } else if self.on_entry(&entry, stream.sync, ring, on) {
                self.incoming.marks.note(&entry, stream.sync);
                self.incoming.receive(entry.number);
            } else {
                pieces += u16::from(entry.kind == EntryKind::Put && !entry.is_whole());
            }
        }
        // Of a piece there is nothing to tell before the rest has come, as a rule in the next
        // datagram.
        let is_news = pieces < stream.entries || self.incoming.refused;
        let delay = if head.flags & FLAG_URGENT != 0 && is_news {
            0
        } else {
            self.config.ack_delay_ns
        };
        let due = now + delay;
        self.incoming.ack_at = Some(self.incoming.ack_at.map_or(due, |at| at.min(due)));
    }

    /// True if the entry is dealt with and may be acked.
    fn on_entry(
        &mut self,
        entry: &Entry<'_>,
        sync: u32,
        ring: &mut Ring,
        on: &mut impl FnMut(LinkEvent),
    ) -> bool {
        if entry.number > self.incoming.cumulative + RECEIVE_WINDOW {
            self.counters.entries_beyond_window += 1;
            return false;
        }
        match entry.kind {
            EntryKind::Skip => true,
            EntryKind::Mark => self.on_mark(entry, sync, ring, on),
            EntryKind::Del => self.store(entry, &[], ring, on),
            EntryKind::Put if entry.is_whole() => self.store(entry, entry.piece, ring, on),
            EntryKind::Put => {
                let mut pieces = std::mem::take(&mut self.incoming.pieces);
                let whole = pieces.add(entry);
                let stored = whole.is_some_and(|payload| self.store(entry, payload, ring, on));
                if stored {
                    pieces.drop_number(entry.number);
                }
                self.incoming.pieces = pieces;
                stored
            }
        }
    }

    fn store(
        &mut self,
        entry: &Entry<'_>,
        payload: &[u8],
        ring: &mut Ring,
        on: &mut impl FnMut(LinkEvent),
    ) -> bool {
        let meta = Meta {
            id: entry.id,
            version: entry.version,
            rseq: 0,
            owner: entry.owner,
            shard: entry.shard,
            schema: entry.schema,
            kind: if entry.kind == EntryKind::Del {
                Kind::Del
            } else {
                Kind::Put
            },
            flags: entry.flags >> ENTRY_RECORD,
            written: ring.now_unix_ms(),
        };
        match ring.apply(meta, payload) {
            Ok(Applied::Stored) => {
                on(LinkEvent::Stored(entry.id, entry.version));
                true
            }
            Ok(Applied::Duplicate) => true,
            Ok(Applied::Stale) => {
                // Under a newer epoch another node owns the call: the sender must not take this
                // for a copy of its version (S1).
                let held = ring
                    .newest_or_tombstone(entry.id)
                    .map(|held| held.meta.version);
                // One that only fills this node claims nothing, and would keep for ever what it
                // is told.
                let claims = entry.owner == self.channel.ends().peer;
                let newer = held.is_some_and(|held| held.epoch > entry.version.epoch);
                let usurped = claims && newer;
                if usurped {
                    on(LinkEvent::Newer(entry.id));
                }
                !usurped
            }
            Ok(Applied::Conflict) => {
                // Never acked, for it is not held. But its sender must go on with the rest: what
                // waits for it waits for the call's next version.
                self.counters.entries_conflicting += 1;
                self.incoming.refused = true;
                false
            }
            Err(_) => {
                self.counters.entries_refused += 1;
                self.incoming.refused = true;
                false
            }
        }
    }
}

/// What a datagram meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// The peer holds this version of the call or a newer one.
    Acked(CallId, Version),
    /// A newer version of a call came from the peer and is held now.
    Stored(CallId, Version),
    /// The peer still writes a call that is held here under a newer epoch: tell it.
    Newer(CallId),
    /// The peer has filled this node; it was in this view when it ended.
    Synced {
        /// Number of the view.
        view: u32,
    },
}

/// Counters of one link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Datagrams sealed.
    pub datagrams_sent: u64,
    /// Datagrams not believed.
    pub datagram_refused: u64,
    /// Of these, in a version of the protocol that this node does not read.
    pub protocol_refused: u64,
    /// Of these, sealed under a cluster key that is not in force here.
    pub datagram_key_unknown: u64,
    /// Datagrams of an incarnation the view does not admit.
    pub datagram_fenced: u64,
    /// Bodies that could not be read to the end.
    pub body_malformed: u64,
    /// Entries sent, each time.
    pub entries_sent: u64,
    /// Of these, sent again.
    pub entries_resent: u64,
    /// Entries put behind others because the peer kept refusing them.
    pub entries_put_off: u64,
    /// Entries that had come before.
    pub entries_duplicate: u64,
    /// Entries too far ahead to be acked.
    pub entries_beyond_window: u64,
    /// Entries whose version is held with other content.
    pub entries_conflicting: u64,
    /// Entries the ring had no room for.
    pub entries_refused: u64,
    /// Times the queue was full and the peer is filled anew.
    pub queue_overflows: u64,
    /// Catch-ups that ended complete.
    pub syncs_completed: u64,
    /// Catch-ups that ended incomplete.
    pub syncs_incomplete: u64,
    /// Copies dropped because their owner no longer knows the call.
    pub calls_forgotten: u64,
}

/// Numbers beyond the cumulative ack a receiver remembers, and a sender may have in flight.
pub const RECEIVE_WINDOW: u64 = 1024;
/// Records of a walk that wait to be sent: a few datagrams.
const WALK_AHEAD: usize = 32;
const SYNC_REQUEST_NS: u64 = 50_000_000;
const _: () = assert!(
    RECEIVE_WINDOW > 66,
    "the selective ack lies within the window"
);
const _: () = assert!(HEAD + STREAM + ENTRY + PIECE + TAG <= DATAGRAM_BYTES_ETHERNET);
