//! The hierarchical timer wheel of a shard.
//!
//! ```
//! use dataplane::timer::Wheel;
//!
//! let mut wheel = Wheel::new(0);
//! let retransmit = wheel.insert(500, "timer A");
//! wheel.insert(32_000, "timer B");
//! wheel.cancel(retransmit);
//! wheel.advance(32_000);
//! assert_eq!(wheel.poll_expired(), Some("timer B"));
//! assert_eq!(wheel.poll_expired(), None);
//! ```

mod wheel;

pub use wheel::{CASCADE_MAX, TimerHandle, TimerKey, Wheel};
