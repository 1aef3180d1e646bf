//! Diameter and carrier charging as sans-IO state machines.
#![forbid(unsafe_code)]

pub mod diameter;
pub mod random;
pub mod time;
