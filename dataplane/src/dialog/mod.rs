//! Dialogs (RFC 3261 section 12) and their session timers (RFC 4028).

#[allow(clippy::module_inception)]
mod dialog;
pub mod session_timer;
pub mod text;

pub use dialog::{Dialog, Way, next_hop};
pub use session_timer::SessionTimer;
pub use text::{Text, Texts};
