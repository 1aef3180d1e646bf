//! Time as an argument: every state machine is told what time it is, none asks a clock.

use quanta::Instant;

/// The clocks of one loop turn, read once and handed down.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic time of this process: timers and retransmissions. Never leaves the node.
    pub instant: Instant,
    /// Wall-clock time, for whoever reads it elsewhere: AVPs, Event-Timestamp, SIP timestamps. It
    /// may step at any moment, so nothing is decided by it.
    pub wall: UnixMillis,
    /// The wall clock without its steps, see [`Steady`]: deadlines and ages that a call's state
    /// keeps and that something is decided by. Of those that another process or node has set it
    /// is not known what clock they were set by: whoever takes a call up bounds them.
    pub steady: UnixMillis,
}

/// Carries the wall clock on without its steps: read once at the start, then moved on by the
/// monotonic clock and slewed towards the wall clock, never faster than the wall clocks of two
/// nodes may drift apart anyway.
///
/// What it says follows from the readings that it is given alone. Copies of one, read at different
/// moments, follow the same wall clock from the same start. So they differ by less than 1 ms while
/// that clock does not step, and after a step by at most 1 ms more for every 2 s that one of them
/// was not read around it, until both have caught up.
#[derive(Clone, Copy, Debug)]
pub struct Steady {
    /// The last reading of the monotonic clock.
    instant: Instant,
    /// What the steady clock said then, nanoseconds since 1970.
    ns: u64,
    /// Nanoseconds that passed and are too few to slew for.
    rest: u64,
}

impl Steady {
    /// A clock that begins with what the wall clock says.
    #[must_use]
    pub const fn new(instant: Instant, wall: UnixMillis) -> Self {
        Self {
            instant,
            ns: wall.0.saturating_mul(MS),
            rest: 0,
        }
    }

    /// The steady time at a reading of the other two clocks. Never less than it was before.
    pub fn read(&mut self, instant: Instant, wall: UnixMillis) -> UnixMillis {
        let passed = instant.saturating_duration_since(self.instant);
        let passed = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
        self.instant = self.instant.max(instant);
        self.ns = self.ns.saturating_add(passed);
        let slewed = passed.saturating_add(self.rest);
        self.rest = slewed % SLEW;
        let most = slewed / SLEW;
        let wall = wall.0.saturating_mul(MS);
        self.ns = if wall > self.ns {
            self.ns + most.min(wall - self.ns)
        } else {
            self.ns - most.min(self.ns - wall)
        };
        UnixMillis(self.ns / MS)
    }
}

/// One nanosecond of so many is gained or lost on the way to the wall clock: 500 ppm.
const SLEW: u64 = 1_000_000 / 500;
/// Nanoseconds of a millisecond.
const MS: u64 = 1_000_000;

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

    /// This moment minus `ms` milliseconds, at the earliest 1970.
    #[must_use]
    pub const fn minus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms))
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const START: u64 = 1_700_000_000_000;

    /// A steady clock and the two that it reads.
    #[derive(Clone)]
    struct Clocks {
        steady: Steady,
        instant: Instant,
        wall: u64,
    }

    impl Clocks {
        fn new() -> Self {
            let instant = Instant::recent();
            Self {
                steady: Steady::new(instant, UnixMillis(START)),
                instant,
                wall: START,
            }
        }

        // Both clocks go on; the steady one is read every `each` ms.
        fn pass(&mut self, ms: u64, each: u64) -> u64 {
            for _ in 0..ms / each {
                self.instant += Duration::from_millis(each);
                self.wall += each;
                self.read();
            }
            self.read()
        }

        fn read(&mut self) -> u64 {
            self.steady.read(self.instant, UnixMillis(self.wall)).0
        }
    }

    #[test]
    fn it_starts_with_the_wall_clock_and_says_the_same_while_that_does_not_step() {
        let mut clocks = Clocks::new();
        assert_eq!(clocks.read(), START);
        assert_eq!(clocks.pass(3_600_000, 250), START + 3_600_000);
    }

    #[test]
    fn a_step_forward_is_caught_up_with_at_500_ppm() {
        let mut clocks = Clocks::new();
        clocks.wall += 3_600_000;
        assert_eq!(clocks.read(), START);
        assert_eq!(clocks.pass(20_000, 100), START + 20_000 + 10);
        // An hour takes 83 days, and then it is where the wall clock is.
        clocks.pass(7_200_000_000 - 20_000, 10_000);
        assert_eq!(clocks.read(), clocks.wall);
        assert_eq!(clocks.pass(1_000, 100), clocks.wall);
    }

    #[test]
    fn a_step_backward_is_waited_for_and_the_clock_never_goes_back() {
        let mut clocks = Clocks::new();
        clocks.wall -= 3_600_000;
        assert_eq!(clocks.read(), START);
        let mut last = START;
        for _ in 0..20_000 {
            let read = clocks.pass(1, 1);
            assert!(read >= last);
            last = read;
        }
        assert_eq!(last, START + 20_000 - 10);
        // Nor when it is read more often than there is anything to take away.
        for _ in 0..100_000 {
            clocks.instant += Duration::from_nanos(7);
            let before = clocks.steady.ns;
            clocks.read();
            assert!(clocks.steady.ns >= before);
        }
    }

    #[test]
    fn a_drift_of_100_ppm_is_followed() {
        for drift in [-1, 1] {
            let mut clocks = Clocks::new();
            for _ in 0..1_000 {
                clocks.wall = clocks.wall.saturating_add_signed(drift);
                let read = clocks.pass(10_000, 100);
                assert_eq!(read, clocks.wall);
            }
        }
    }

    #[test]
    fn a_suspended_machine_wakes_up_with_its_deadlines_as_they_were() {
        let mut clocks = Clocks::new();
        clocks.pass(10_000, 100);
        // Its timers stood still for a night, while the wall clock went on.
        clocks.wall += 8 * 3_600_000;
        assert_eq!(clocks.read(), START + 10_000);
        assert_eq!(clocks.pass(1_000, 100), START + 11_000);
    }

    #[test]
    fn a_monotonic_clock_that_is_behind_moves_nothing() {
        let mut clocks = Clocks::new();
        clocks.pass(1_000, 100);
        let late = clocks.instant - Duration::from_millis(300);
        let read = clocks.steady.read(late, UnixMillis(clocks.wall));
        assert_eq!(read.0, START + 1_000);
        assert_eq!(clocks.pass(100, 100), START + 1_100);
    }

    #[test]
    fn copies_that_are_read_at_other_moments_agree() {
        let mut often = Clocks::new();
        let mut seldom = often.clone();
        for second in 1..=600 {
            let step = u64::from(second == 61) * 3_600_000;
            often.wall += step;
            often.pass(1_000, 10);
            seldom.instant = often.instant;
            seldom.wall = often.wall;
            if second % 2 == 0 {
                let (one, other) = (often.read(), seldom.read());
                assert!(one.abs_diff(other) <= 1, "{second}: {one} {other}");
            }
        }
    }
}
