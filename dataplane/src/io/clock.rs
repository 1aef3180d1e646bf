//! The only place that asks what time it is.

use charging::time::{Now, UnixMillis};

/// Both clocks of a process. Built once, before the shards: calibration takes a moment.
#[derive(Clone)]
pub(crate) struct Clock {
    monotonic: quanta::Clock,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            monotonic: quanta::Clock::new(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        let wall = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        Now {
            instant: self.monotonic.now(),
            wall: UnixMillis(wall),
        }
    }
}
