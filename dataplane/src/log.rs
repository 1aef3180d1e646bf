//! Logging: tracing to standard error, filtered by `RINGTOLL_LOG`.

use std::fmt;
use std::io::IsTerminal;

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
