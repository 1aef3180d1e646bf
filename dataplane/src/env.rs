//! What every protocol layer of a shard is handed: the time, the wheel, the outbox, the buffers.

use std::net::SocketAddr;

use charging::time::Now;

use crate::counters::Counters;
use crate::timer::{TimerHandle, Wheel};

/// Shared surroundings of one shard's protocol layers, one per shard, passed down by reference.
pub struct Env {
    /// The time of this loop turn.
    pub now: Now,
    /// Milliseconds since the shard started, the wheel's scale.
    pub now_ms: u64,
    /// The one timer wheel of the shard.
    pub wheel: Wheel<TimerKey>,
    /// Datagrams waiting to be sent at the end of the turn.
    pub out: Outbox,
    /// Recycled message buffers.
    pub pool: BufPool,
    /// Seeded generator: tags, jitter, route choice.
    pub rng: SplitMix64,
    /// Counters of this shard.
    pub counters: Counters,
    start: quanta::Instant,
}

impl Env {
    /// Surroundings that start at `now`, with every random choice drawn from `seed`.
    #[must_use]
    pub fn new(now: Now, seed: u64) -> Self {
        Self {
            now,
            now_ms: 0,
            wheel: Wheel::new(0),
            out: Outbox::default(),
            pool: BufPool::default(),
            rng: SplitMix64::new(seed),
            counters: Counters::default(),
            start: now.instant,
        }
    }

    /// Moves the time of the loop turn forward.
    pub fn set_now(&mut self, now: Now) {
        self.now = now;
        self.now_ms = self.ms_of(now.instant);
    }

    /// The wheel's reading of a monotonic moment.
    #[must_use]
    pub fn ms_of(&self, instant: quanta::Instant) -> u64 {
        u64::try_from(instant.duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }

    /// The monotonic moment of a wheel reading.
    #[must_use]
    pub fn instant_of(&self, ms: u64) -> quanta::Instant {
        self.start + std::time::Duration::from_millis(ms)
    }

    /// Arms `key` to fire `delay_ms` from now.
    pub fn arm(&mut self, delay_ms: u64, key: TimerKey) -> TimerHandle {
        self.wheel.insert(self.now_ms + delay_ms, key)
    }
}

/// What a wheel entry wakes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerKey {
    /// A transaction's timer.
    Transaction(crate::transaction::TxnId, crate::transaction::Timer),
    /// A call's timer.
    Call(CallKey, CallTimer),
    /// A next hop is to be asked whether it lives; its place among them.
    Ping(u16),
}

slotmap::new_key_type! {
    /// A call in its shard's table; stale keys of ended calls find nothing.
    pub struct CallKey;
}

/// Timers that belong to a call, not to one of its transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallTimer {
    /// The charging state's next deadline (interim interval).
    Charging,
    /// Session expiry or refresh of a leg (RFC 4028), or its probe; the index of the leg.
    Session(u8),
    /// `max_call_duration` is over.
    MaxDuration,
    /// The next hop has sent nothing, and there is another one to try.
    Hop,
    /// Nobody answered: the set-up is given up (the proxy's Timer C, RFC 3261 16.6).
    Ringing,
}

/// The socket a datagram leaves from: an entry of `[sip] listen`, of this node or of the node of
/// the cluster that a request came through and that its answers go back through.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
pub struct ListenerId(u8);

impl ListenerId {
    /// A listener of this node.
    #[must_use]
    pub const fn new(index: usize) -> Self {
        assert!(index < LISTENERS_MAX);
        Self(index as u8)
    }

    /// The same listener of another node. `None` if either number is out of range.
    #[must_use]
    pub const fn through(node: u16, index: u8) -> Option<Self> {
        if node < RELAYS_MAX && (index as usize) < LISTENERS_MAX {
            Some(Self((node as u8 + 1) << INDEX_BITS | index))
        } else {
            None
        }
    }

    /// Index into `[sip] listen`.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize & (LISTENERS_MAX - 1)
    }

    /// The node whose listener it is, if not this one's.
    #[must_use]
    pub const fn relay(self) -> Option<u16> {
        match self.0 >> INDEX_BITS {
            0 => None,
            node => Some(node as u16 - 1),
        }
    }

    /// The listener of this node with the same index.
    #[must_use]
    pub const fn own(self) -> Self {
        Self(self.0 & (LISTENERS_MAX as u8 - 1))
    }
}

const INDEX_BITS: u32 = 3;
/// Most listeners of a node.
pub const LISTENERS_MAX: usize = 1 << INDEX_BITS;
/// Nodes that a request can come through.
const RELAYS_MAX: u16 = (u8::MAX >> INDEX_BITS) as u16;

/// The datagrams of one loop turn, kept in one buffer.
#[derive(Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    datagrams: Vec<Datagram>,
}

/// One datagram in the outbox.
#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    /// The call it belongs to, or null.
    pub call: CallKey,
    /// Destination.
    pub to: SocketAddr,
    /// Listener whose socket sends it.
    pub listener: ListenerId,
    start: u32,
    len: u32,
}

impl Outbox {
    /// Appends a copy of `bytes`, which `call` is the cause of; null if no call is.
    pub fn push(&mut self, call: CallKey, to: SocketAddr, listener: ListenerId, bytes: &[u8]) {
        let start = u32::try_from(self.bytes.len()).expect("an outbox is drained every turn");
        self.bytes.extend_from_slice(bytes);
        self.datagrams.push(Datagram {
            call,
            to,
            listener,
            start,
            len: bytes.len() as u32,
        });
    }

    /// The datagrams in the order they were pushed.
    #[must_use]
    pub fn datagrams(&self) -> &[Datagram] {
        &self.datagrams
    }

    /// The payload of one of [`Outbox::datagrams`].
    #[must_use]
    pub fn payload(&self, datagram: &Datagram) -> &[u8] {
        &self.bytes[datagram.start as usize..(datagram.start + datagram.len) as usize]
    }

    /// Number of waiting datagrams.
    #[must_use]
    pub fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Takes the datagrams out for which `take` says so.
    pub fn extract(&mut self, mut take: impl FnMut(&Datagram, &[u8]) -> bool) {
        let bytes = &self.bytes;
        self.datagrams.retain(|one| {
            let payload = &bytes[one.start as usize..(one.start + one.len) as usize];
            !take(one, payload)
        });
    }

    /// Forgets all, keeping the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.datagrams.clear();
    }
}

/// Byte buffers that go round instead of being allocated for every message.
#[derive(Default)]
pub struct BufPool {
    free: Vec<Vec<u8>>,
}

impl BufPool {
    /// An empty buffer, recycled if one is at hand.
    pub fn take(&mut self) -> Vec<u8> {
        self.free
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(BUF_CAPACITY))
    }

    /// A recycled buffer holding a copy of `bytes`.
    pub fn copy_of(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut buf = self.take();
        buf.extend_from_slice(bytes);
        buf
    }

    /// Gives a buffer back. Outgrown ones are dropped so that one huge message is not kept.
    pub fn give(&mut self, mut buf: Vec<u8>) {
        if buf.capacity() == 0 || buf.capacity() > BUF_KEPT_MAX || self.free.len() >= POOL_MAX {
            return;
        }
        buf.clear();
        self.free.push(buf);
    }
}

/// First capacity of a message buffer, bytes: an INVITE with SDP of a plain phone fits.
const BUF_CAPACITY: usize = 1_024;
/// Largest buffer kept for reuse, bytes.
const BUF_KEPT_MAX: usize = 8 * 1_024;
/// Most buffers kept: 32 s (Timer J) of 4,000 transactions per second.
const POOL_MAX: usize = 128 * 1_024;

/// SplitMix64 (Steele, Lea, Flood 2014): one word of state, enough for tags and jitter.
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// A generator that repeats itself for the same seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator whose numbers have nothing in common with those of other seeds: the states of
    /// this generator follow one another at one distance, so that seeds at that distance would only
    /// be places in one row.
    #[must_use]
    pub const fn of(seed: u64) -> Self {
        let mut first = Self(seed);
        let state = first.next_u64();
        Self(state ^ first.next_u64().rotate_left(32))
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 when `bound` is 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.next_u64() as u128 * bound as u128) >> 64) as u64
    }
}
