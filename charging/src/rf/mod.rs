//! Offline charging (Rf): accounting sessions and their records.

pub mod acr;
pub mod session;
