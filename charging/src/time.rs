//! Time as an argument: every state machine is told what time it is, none asks a clock.

use quanta::Instant;

/// Both clocks of one loop turn, read once and handed down.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic time of this process: timers and retransmissions. Never leaves the node.
    pub instant: Instant,
    /// Wall-clock time: AVPs and the deadlines kept in a call's state.
    pub wall: UnixMillis,
}

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
#[rkyv(derive(Debug))]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// This moment plus `ms` milliseconds.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this moment, 0 if `earlier` is later.
    #[must_use]
    pub const fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0 / 1_000
    }
}
