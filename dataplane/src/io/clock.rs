//! The only place that asks what time it is.

use std::cell::Cell;

use charging::time::{Now, Steady, UnixMillis};

/// The clocks of a process. Built once, before the shards: calibration takes a moment, and the
/// clones that the shards get go on from one reading of the wall clock. Each carries its steady time
/// on by itself, see [`Steady`] for how far they agree.
#[derive(Clone)]
pub(crate) struct Clock {
    monotonic: quanta::Clock,
    steady: Cell<Steady>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let monotonic = quanta::Clock::new();
        let steady = Cell::new(Steady::new(monotonic.now(), wall()));
        Self { monotonic, steady }
    }

    pub(crate) fn now(&self) -> Now {
        let (instant, wall) = (self.monotonic.now(), wall());
        let mut clock = self.steady.get();
        let steady = clock.read(instant, wall);
        self.steady.set(clock);
        Now {
            instant,
            wall,
            steady,
        }
    }
}

fn wall() -> UnixMillis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixMillis(since.map_or(0, |since| since.as_millis() as u64))
}
