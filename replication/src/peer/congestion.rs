//! How much may be in flight, learned from what became of what was.
//!
//! A path that is slower than thought does not lose, it delays: then everything seems overdue,
//! and sending all of it again delays the rest (a thousand repetitions for one loss). So the
//! window grows while acks come and shrinks with each loss, at most once for what was in flight
//! together, as RFC 5681 has it; and what is overdue is waited for twice as long as before, until
//! a number that was sent once only is acked (RFC 6298 s5).

use crate::frame::DATAGRAM_BYTES_ETHERNET;

#[derive(Debug)]
pub(super) struct Congestion {
    window: u64,
    /// Below it the window doubles each round trip.
    threshold: u64,
    /// Losses of numbers before this one have been heeded.
    heeded: u64,
    backoff: u32,
}

impl Congestion {
    pub(super) const fn new() -> Self {
        Self {
            window: WINDOW_FIRST,
            threshold: u64::MAX,
            heeded: 0,
            backoff: 0,
        }
    }

    /// Bytes that may be in flight.
    pub(super) const fn window(&self) -> u64 {
        self.window
    }

    /// A time to wait for the ack of what was sent again so many `times`, with what was learned:
    /// doubled for each of these, or of those since an ack came in time, whichever are more.
    pub(super) fn patience(&self, time: u64, times: u32) -> u64 {
        time << self.backoff.max(times)
    }

    /// Bytes were acked while so many, these included, were in flight. A window that is not used
    /// proves nothing and does not grow.
    pub(super) fn on_acked(&mut self, bytes: u64, in_flight: u64, most: u64) {
        if in_flight * 2 < self.window {
            return;
        }
        let more = if self.window < self.threshold {
            bytes
        } else {
            (GROWTH * bytes / self.window).max(1)
        };
        self.window = (self.window + more).min(most).max(WINDOW_MIN);
    }

    /// An ack came for what was sent once only.
    pub(super) const fn on_round_trip(&mut self) {
        self.backoff = 0;
    }

    /// A number is lost, for later ones were acked; numbers before `next` were sent.
    pub(super) fn on_hole(&mut self, number: u64, next: u64) {
        if number >= self.heeded {
            self.shrink(self.window / 10 * 7, next);
        }
    }

    /// A number is overdue.
    pub(super) fn on_overdue(&mut self, number: u64, next: u64) {
        if number >= self.heeded {
            self.shrink(self.window / 2, next);
        }
    }

    /// Numbers were overdue: the next wait is longer.
    pub(super) fn back_off(&mut self) {
        self.backoff = (self.backoff + 1).min(BACKOFF_MAX);
    }

    fn shrink(&mut self, to: u64, next: u64) {
        self.window = to.max(WINDOW_MIN);
        self.threshold = self.window;
        self.heeded = next;
    }
}

const DATAGRAM: u64 = DATAGRAM_BYTES_ETHERNET as u64;
const WINDOW_FIRST: u64 = 48 * DATAGRAM;
const WINDOW_MIN: u64 = 8 * DATAGRAM;
/// Bytes that a round trip without loss adds. More than RFC 5681 has it: the path is a local
/// network's, and one loss in a hundred must not starve it.
const GROWTH: u64 = 4 * DATAGRAM;
const BACKOFF_MAX: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_shrinks_once_for_what_was_in_flight_together_and_never_to_nothing() {
        let mut congestion = Congestion::new();
        congestion.on_hole(5, 40);
        let once = congestion.window();
        assert!(once < WINDOW_FIRST);
        congestion.on_hole(39, 60);
        congestion.on_overdue(20, 60);
        assert_eq!(congestion.window(), once, "heeded already");
        for number in 1..50 {
            congestion.on_overdue(number * 40, number * 40 + 1);
        }
        assert_eq!(congestion.window(), WINDOW_MIN);
    }

    #[test]
    fn only_a_window_that_is_used_grows() {
        let mut congestion = Congestion::new();
        congestion.on_acked(DATAGRAM, DATAGRAM, 1 << 20);
        assert_eq!(congestion.window(), WINDOW_FIRST);
        congestion.on_acked(DATAGRAM, WINDOW_FIRST, 1 << 20);
        assert_eq!(congestion.window(), WINDOW_FIRST + DATAGRAM);
        congestion.on_hole(1, 2);
        let before = congestion.window();
        congestion.on_acked(before, before, 1 << 20);
        assert_eq!(congestion.window(), before + GROWTH);
    }
}
