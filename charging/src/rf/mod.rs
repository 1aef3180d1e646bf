//! Offline charging (Rf): accounting sessions, their records, and the records nobody took yet.

pub mod acr;
pub mod backlog;
pub mod log;
pub mod session;
