//! The stream from a peer: which numbers have arrived.

use super::{LinkConfig, RECEIVE_WINDOW};
use crate::catch_up::{Forgetting, Marks};
use crate::reassembly::Reassembly;

#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) cumulative: u64,
    /// Bit `number % RECEIVE_WINDOW` for numbers above the cumulative one.
    received: [u64; (RECEIVE_WINDOW / 64) as usize],
    pub(super) ack_at: Option<u64>,
    pub(super) request_at: u64,
    /// Entries found no room since the peer was told so.
    pub(super) refused: bool,
    pub(super) pieces: Reassembly,
    pub(super) marks: Marks,
    /// What the walk did not bring is being forgotten; its mark waits.
    pub(super) forgetting: Option<Forgetting>,
}

impl Incoming {
    pub(super) fn new(config: &LinkConfig) -> Self {
        Self {
            cumulative: 0,
            received: [0; (RECEIVE_WINDOW / 64) as usize],
            ack_at: None,
            request_at: 0,
            refused: false,
            pieces: Reassembly::new(config.payload_bytes_max),
            marks: Marks::new(config.marks_max),
            forgetting: None,
        }
    }

    /// Notes the number of the peer's newest catch-up.
    pub(super) fn begin_sync(&mut self, number: u32) {
        if self.marks.begin(number) {
            self.forgetting = None;
        }
    }

    /// Whether the peer is to be told that what it sent is not taken now.
    pub(super) fn take_refused(&mut self) -> bool {
        let is_asked = self.forgetting.as_mut().map(|f| &mut f.is_asked);
        let mark = is_asked.is_some_and(std::mem::take);
        std::mem::take(&mut self.refused) || mark
    }

    pub(super) fn is_received(&self, number: u64) -> bool {
        number <= self.cumulative
            || (number <= self.cumulative + RECEIVE_WINDOW && self.bit(number))
    }

    pub(super) fn receive(&mut self, number: u64) {
        self.received[(number % RECEIVE_WINDOW / 64) as usize] |= 1 << (number % 64);
        self.advance();
    }

    /// The sender waits no longer for anything below `base`.
    pub(super) fn settle_below(&mut self, base: u64) {
        let settled = base.saturating_sub(1);
        if settled <= self.cumulative {
            return;
        }
        if settled - self.cumulative >= RECEIVE_WINDOW {
            self.received = [0; (RECEIVE_WINDOW / 64) as usize];
            self.cumulative = settled;
        }
        while self.cumulative < settled {
            self.cumulative += 1;
            self.clear(self.cumulative);
        }
        self.advance();
    }

    fn advance(&mut self) {
        while self.bit(self.cumulative + 1) {
            self.cumulative += 1;
            self.clear(self.cumulative);
        }
    }

    fn bit(&self, number: u64) -> bool {
        self.received[(number % RECEIVE_WINDOW / 64) as usize] >> (number % 64) & 1 == 1
    }

    fn clear(&mut self, number: u64) {
        self.received[(number % RECEIVE_WINDOW / 64) as usize] &= !(1 << (number % 64));
    }

    /// Which of the 64 numbers from `cumulative + 2` on have arrived.
    pub(super) fn selective(&self) -> u64 {
        let first = (self.cumulative + 2) % RECEIVE_WINDOW;
        let (word, shift) = ((first / 64) as usize, first % 64);
        let low = self.received[word] >> shift;
        // Two shifts, for there is none by 64.
        let high = self.received[(word + 1) % self.received.len()] << 1 << (63 - shift);
        low | high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_selective_ack_has_a_bit_for_each_number_that_arrived() {
        for cumulative in [0, 1, 61, 62, 63, 1000, 1022, 1023, 5000] {
            let mut incoming = Incoming::new(&LinkConfig::default());
            incoming.settle_below(cumulative + 1);
            let mut expected = 0;
            for n in (0..64).filter(|n| n * n % 7 < 3) {
                incoming.receive(cumulative + 2 + n);
                expected |= 1 << n;
                assert_eq!(incoming.selective(), expected, "{cumulative} {n}");
            }
            incoming.receive(cumulative + 2 + 64);
            assert_eq!(incoming.selective(), expected, "it is beyond");
        }
    }
}
