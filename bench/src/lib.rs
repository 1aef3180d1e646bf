//! Load generator, demonstration and benchmarks of ringtoll.

pub mod message;
pub mod operation;
