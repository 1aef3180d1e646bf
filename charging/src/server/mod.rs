//! Servers the product brings along for trials and tests: the charging data function.

pub mod cdf;
pub mod cdr;
pub mod record;

pub use cdf::{Cdf, CdfConfig, CdfCounters, CdfIo, ConnectionId, Fault};
pub use cdr::{Cdr, InterimLost};
pub use record::{CdfStore, MemoryCdfStore, Put, ReceivedRecord};
