//! The ringtoll node: a SIP back-to-back user agent on thread-per-core shards.

pub mod sip;
pub mod timer;
