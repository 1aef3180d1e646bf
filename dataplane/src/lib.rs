//! The ringtoll node: a SIP back-to-back user agent on thread-per-core shards.
//!
//! Everything but `io` is sans-IO: bytes and the time in; bytes, events and a deadline out.
//!
//! ```text
//! sip < transaction < dialog < b2bua < store < cluster < shard < io < main
//!                                                             each uses only what stands left
//! ```

pub mod b2bua;
pub mod cli;
pub mod cluster;
mod compose;
pub mod config;
pub mod counters;
pub mod dialog;
pub mod env;
pub mod io;
pub mod log;
pub mod shard;
pub mod sip;
pub mod store;
pub mod timer;
pub mod transaction;
