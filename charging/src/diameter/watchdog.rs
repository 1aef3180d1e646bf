//! The watchdog of RFC 3539 s3.4: does the connection still carry messages?
//!
//! ```text
//!            open                    Tw, no DWR out: send DWR
//!  INITIAL --------> OKAY <------+   Tw, DWR out: fail over
//!                     |   \______|________.
//!                     v  message: fail back v
//!  DOWN <-- Tw ----- SUSPECT                |
//!    |  open: send DWR                      |
//!    '-------------> REOPEN -- 3 DWAs ------'
//! ```

use std::time::Duration;

use quanta::Instant;

use crate::random::SplitMix64;

/// Least Twinit RFC 3539 s3.4.1 allows.
pub const WATCHDOG_INTERVAL_MS_MIN: u64 = 6_000;
/// Jitter around Tw: plus or minus two seconds (RFC 3539 s3.4.1).
const JITTER_MS: u64 = 2_000;
/// DWAs that reopen a connection which was down.
const REOPEN_ANSWERS: i8 = 3;

/// The state of one peer's watchdog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchdogState {
    /// Never been open.
    Initial,
    /// Carries messages.
    Okay,
    /// A DWR is unanswered: requests go elsewhere.
    Suspect,
    /// Not open.
    Down,
    /// Open again, not yet trusted.
    Reopen,
}

/// What the peer has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchdogAction {
    /// Nothing.
    None,
    /// Send a DWR.
    SendWatchdog,
    /// Requests may be sent.
    Usable,
    /// Send no more requests here; those pending go to another peer.
    FailOver,
    /// Close the connection.
    Close,
}

/// One peer's watchdog.
#[derive(Debug)]
pub struct Watchdog {
    state: WatchdogState,
    pending: bool,
    /// DWAs since reopening; -1 after one went missing.
    answers: i8,
    deadline: Option<Instant>,
    interval_ms: u64,
    reopen_interval_ms: u64,
}

impl Watchdog {
    /// A watchdog with Tw = `interval_ms` (raised to 6 s). While reopening, the next DWR follows
    /// an answer after `reopen_interval_ms`: RFC 3539 asks for three answers, and waiting Tw for
    /// each would keep a restarted CDF unused for a minute.
    #[must_use]
    pub fn new(interval_ms: u64, reopen_interval_ms: u64) -> Self {
        Self {
            state: WatchdogState::Initial,
            pending: false,
            answers: 0,
            deadline: None,
            interval_ms: interval_ms.max(WATCHDOG_INTERVAL_MS_MIN),
            reopen_interval_ms,
        }
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> WatchdogState {
        self.state
    }

    /// When [`Watchdog::on_deadline`] is due.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The capabilities exchange succeeded.
    pub fn on_open(&mut self, now: Instant, random: &mut SplitMix64) -> WatchdogAction {
        self.arm(now, random);
        self.pending = false;
        if self.state == WatchdogState::Initial {
            self.state = WatchdogState::Okay;
            return WatchdogAction::Usable;
        }
        self.state = WatchdogState::Reopen;
        self.answers = 0;
        self.pending = true;
        WatchdogAction::SendWatchdog
    }

    /// The connection is gone.
    pub fn on_closed(&mut self) {
        self.deadline = None;
        self.pending = false;
        if self.state != WatchdogState::Initial {
            self.state = WatchdogState::Down;
        }
    }

    /// A message arrived; `is_answer` says that it is a DWA.
    pub fn on_message(
        &mut self,
        now: Instant,
        is_answer: bool,
        random: &mut SplitMix64,
    ) -> WatchdogAction {
        if is_answer {
            self.pending = false;
        }
        match self.state {
            WatchdogState::Okay => {
                self.arm(now, random);
                WatchdogAction::None
            }
            WatchdogState::Suspect => {
                self.state = WatchdogState::Okay;
                self.arm(now, random);
                WatchdogAction::Usable
            }
            WatchdogState::Reopen if is_answer => {
                self.answers += 1;
                if self.answers >= REOPEN_ANSWERS {
                    self.state = WatchdogState::Okay;
                    self.arm(now, random);
                    return WatchdogAction::Usable;
                }
                self.deadline = Some(now + Duration::from_millis(self.reopen_interval_ms));
                WatchdogAction::None
            }
            _ => WatchdogAction::None,
        }
    }

    /// The deadline passed.
    pub fn on_deadline(&mut self, now: Instant, random: &mut SplitMix64) -> WatchdogAction {
        self.arm(now, random);
        match (self.state, self.pending) {
            (WatchdogState::Okay | WatchdogState::Reopen, false) => {
                self.pending = true;
                WatchdogAction::SendWatchdog
            }
            (WatchdogState::Okay, true) => {
                self.state = WatchdogState::Suspect;
                WatchdogAction::FailOver
            }
            (WatchdogState::Suspect, _) => {
                self.on_closed();
                WatchdogAction::Close
            }
            (WatchdogState::Reopen, true) if self.answers < 0 => {
                self.on_closed();
                WatchdogAction::Close
            }
            (WatchdogState::Reopen, true) => {
                self.answers = -1;
                WatchdogAction::None
            }
            (WatchdogState::Initial | WatchdogState::Down, _) => {
                self.deadline = None;
                WatchdogAction::None
            }
        }
    }

    fn arm(&mut self, now: Instant, random: &mut SplitMix64) {
        let low = self.interval_ms - JITTER_MS;
        let wait = random.between(low, self.interval_ms + JITTER_MS);
        self.deadline = Some(now + Duration::from_millis(wait));
    }
}

const _: () = assert!(WATCHDOG_INTERVAL_MS_MIN > JITTER_MS);

#[cfg(test)]
mod tests {
    use super::*;

    struct Rig {
        watchdog: Watchdog,
        random: SplitMix64,
        now: Instant,
    }

    impl Rig {
        fn new() -> Self {
            let watchdog = Watchdog::new(30_000, 1_000);
            Self {
                watchdog,
                random: SplitMix64::new(1),
                now: Instant::recent(),
            }
        }

        fn expire(&mut self) -> WatchdogAction {
            self.now = self.watchdog.deadline().expect("the watchdog is armed");
            self.watchdog.on_deadline(self.now, &mut self.random)
        }

        fn open(&mut self) -> WatchdogAction {
            self.watchdog.on_open(self.now, &mut self.random)
        }

        fn message(&mut self, is_answer: bool) -> WatchdogAction {
            self.watchdog
                .on_message(self.now, is_answer, &mut self.random)
        }
    }

    #[test]
    fn silence_leads_from_okay_over_suspect_to_down() {
        let mut rig = Rig::new();
        assert_eq!(rig.open(), WatchdogAction::Usable);
        assert_eq!(rig.expire(), WatchdogAction::SendWatchdog);
        assert_eq!(rig.expire(), WatchdogAction::FailOver);
        assert_eq!(rig.watchdog.state(), WatchdogState::Suspect);
        assert_eq!(rig.expire(), WatchdogAction::Close);
        assert_eq!(rig.watchdog.state(), WatchdogState::Down);
    }

    #[test]
    fn any_message_brings_a_suspect_back() {
        let mut rig = Rig::new();
        rig.open();
        rig.expire();
        rig.expire();
        assert_eq!(rig.message(false), WatchdogAction::Usable);
        assert_eq!(rig.watchdog.state(), WatchdogState::Okay);
    }

    #[test]
    fn a_reopened_connection_needs_three_answers() {
        let mut rig = Rig::new();
        rig.open();
        rig.watchdog.on_closed();
        assert_eq!(rig.open(), WatchdogAction::SendWatchdog);
        assert_eq!(rig.message(false), WatchdogAction::None);
        assert_eq!(rig.message(true), WatchdogAction::None);
        assert_eq!(rig.expire(), WatchdogAction::SendWatchdog);
        assert_eq!(rig.message(true), WatchdogAction::None);
        assert_eq!(rig.expire(), WatchdogAction::SendWatchdog);
        assert_eq!(rig.message(true), WatchdogAction::Usable);
    }

    #[test]
    fn a_reopened_connection_that_stays_silent_is_closed_at_the_second_expiry() {
        let mut rig = Rig::new();
        rig.open();
        rig.watchdog.on_closed();
        rig.open();
        assert_eq!(rig.expire(), WatchdogAction::None);
        assert_eq!(rig.expire(), WatchdogAction::Close);
    }

    #[test]
    fn the_interval_is_jittered_by_two_seconds_and_never_below_six() {
        let mut rig = Rig::new();
        rig.watchdog = Watchdog::new(10, 1_000);
        for _ in 0..200 {
            rig.open();
            let wait = rig.watchdog.deadline().unwrap() - rig.now;
            assert!((4_000..=8_000).contains(&wait.as_millis()));
        }
    }
}
