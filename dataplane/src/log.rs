//! Logging: tracing to standard error, filtered by `RINGTOLL_LOG`.

use std::fmt;
use std::io::IsTerminal;
use std::time::Duration;

use quanta::Instant;

/// Sets logging up, once, at the start of the program. `RINGTOLL_LOG` takes a filter such as
/// `debug` or `dataplane=trace`; `info` is the default.
pub fn set_up() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("RINGTOLL_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // A second call, as in tests, changes nothing.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Files and pipes get no colours.
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
}

/// A number or address of a person: shown in the log only as a short hash, enough to follow
/// one caller through it.
pub struct Pii<'a>(pub &'a [u8]);

impl fmt::Display for Pii<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:08x}", crate::b2bua::fold(self.0) as u32)
    }
}

/// Lets a count that rises be logged, but no more often than once in ten seconds.
#[derive(Debug, Default)]
pub struct Seldom {
    said: u64,
    again_at: Option<Instant>,
}

impl Seldom {
    /// By how much the count has risen since it was logged, if that is to be logged now.
    pub fn rise(&mut self, now: Instant, count: u64) -> Option<u64> {
        if count < self.said {
            // Whatever counts has begun anew.
            self.said = 0;
        }
        let is_due = self.again_at.is_none_or(|at| now >= at);
        let risen = Some(count - self.said).filter(|&risen| risen > 0 && is_due)?;
        (self.said, self.again_at) = (count, Some(now + SELDOM));
        Some(risen)
    }
}

const SELDOM: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rises_fast_is_said_seldom_and_nothing_of_it_is_left_out() {
        let start = Instant::recent();
        let at = |s| start + Duration::from_secs(s);
        let mut seldom = Seldom::default();
        assert_eq!(seldom.rise(at(0), 0), None);
        assert_eq!(seldom.rise(at(1), 2), Some(2));
        assert_eq!(seldom.rise(at(2), 9), None);
        assert_eq!(seldom.rise(at(11), 9), Some(7));
        assert_eq!(seldom.rise(at(30), 9), None);
        assert_eq!(seldom.rise(at(40), 1), Some(1), "it counts from 0 again");
    }
}
