//! Simulator and reference models used by the tests.

pub mod bill;
pub mod by_hand;
pub mod cdf;
pub mod checks;
pub mod cluster_checks;
mod cluster_copies;
pub mod cluster_random;
pub mod exercise;
pub mod exercise_replication;
pub mod hand;
pub mod net;
pub mod process;
pub mod random;
pub mod sim;
pub mod store;
pub mod traffic;
pub mod ua;
pub mod venv;
