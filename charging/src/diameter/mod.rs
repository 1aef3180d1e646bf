//! Diameter: codec, peers, routing.

pub mod avp;
pub mod base;
pub mod dictionary;
pub mod framing;
pub mod header;
pub mod peer;
pub mod routing;
pub mod watchdog;

pub use avp::{Avp, AvpError, Avps, Group, Message, MessageError, Writer};
pub use header::{Header, HeaderError};
