//! Latency histograms of one phone.

use std::time::Duration;

use hdrhistogram::Histogram;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    /// From the INVITE's place in the schedule to the first provisional response.
    InviteToProvisional,
    /// From the INVITE's place in the schedule to the 200, ringing included.
    InviteToAnswer,
    /// From BYE to its 200.
    ByeToAnswer,
    /// From the MESSAGE's place in the schedule to its 200.
    MessageToAnswer,
}

impl Interval {
    /// All, in the order of tables.
    pub const ALL: [Self; 4] = [
        Self::InviteToProvisional,
        Self::InviteToAnswer,
        Self::ByeToAnswer,
        Self::MessageToAnswer,
    ];

    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InviteToProvisional => "INVITE->1xx",
            Self::InviteToAnswer => "INVITE->200",
            Self::ByeToAnswer => "BYE->200",
            Self::MessageToAnswer => "MESSAGE->200",
        }
    }
}

/// One histogram per interval, in microseconds.
#[derive(Clone)]
pub struct Latency {
    histograms: [Histogram<u64>; Interval::ALL.len()],
}

impl Default for Latency {
    fn default() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, MICROSECONDS_MAX, DIGITS)
                .expect("the bounds and digits are those the crate documents as valid")
        };
        Self {
            histograms: std::array::from_fn(|_| histogram()),
        }
    }
}

impl Latency {
    /// Notes one measurement.
    pub fn record(&mut self, interval: Interval, took: Duration) {
        self.histograms[interval as usize].saturating_record((took.as_micros() as u64).max(1));
    }

    /// Adds another phone's measurements.
    pub fn add(&mut self, other: &Self) {
        for (own, theirs) in self.histograms.iter_mut().zip(&other.histograms) {
            own.add(theirs)
                .expect("all histograms have the same bounds");
        }
    }

    /// The longest that a node took for an answer of its own.
    #[must_use]
    pub fn slowest(&self) -> Duration {
        let own = [Interval::InviteToProvisional, Interval::ByeToAnswer];
        let longest = own.map(|interval| self.of(interval).max_us);
        Duration::from_micros(longest.into_iter().max().unwrap_or(0))
    }

    /// The measurements of an interval.
    #[must_use]
    pub fn of(&self, interval: Interval) -> Quantiles {
        let histogram = &self.histograms[interval as usize];
        Quantiles {
            count: histogram.len(),
            p50_us: histogram.value_at_quantile(0.5),
            p90_us: histogram.value_at_quantile(0.9),
            p99_us: histogram.value_at_quantile(0.99),
            max_us: histogram.max(),
        }
    }
}

/// The usual quantiles.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Quantiles {
    /// Measurements.
    pub count: u64,
    /// Median, microseconds.
    pub p50_us: u64,
    /// 90 %.
    pub p90_us: u64,
    /// 99 %.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// Longest time told apart: 2 * 64*T1, microseconds.
const MICROSECONDS_MAX: u64 = 2 * 64 * 500 * 1_000;
/// Significant digits.
const DIGITS: u8 = 3;
