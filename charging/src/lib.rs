//! Diameter and carrier charging as sans-IO state machines.
#![forbid(unsafe_code)]

pub mod config;
pub mod ctf;
pub mod diameter;
mod ims;
pub mod random;
pub mod rf;
pub mod server;
pub mod state;
pub mod time;
pub mod trigger;

pub use ctf::{Ctf, CtfCounters, FailureAction, Storage};
pub use diameter::routing::{AnswerSummary, Router, Tag};
pub use state::ChargingState;
pub use time::{Now, UnixMillis};
pub use trigger::{CauseCode, SessionFacts, Trigger, Verdict};
