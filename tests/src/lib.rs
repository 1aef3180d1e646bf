//! Simulator and reference models used by the tests.

pub mod exercise;
pub mod process;
pub mod traffic;
pub mod venv;
