//! Load generator, demonstration and benchmarks of ringtoll.
