//! SIP messages: reading without copying, writing, tokens (RFC 3261 section 7 and 25).
//!
//! ```
//! use dataplane::sip::{self, HeaderId, Index, Method};
//!
//! let raw = b"OPTIONS sip:192.0.2.7 SIP/2.0\r\n\
//!     Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n\
//!     f: <sip:a@example.net>;tag=1\r\nt: <sip:b@example.net>\r\n\
//!     i: 1@example.net\r\nCSeq: 7 OPTIONS\r\n\r\n";
//! let mut index = Index::new();
//! let message = sip::parse(raw, &mut index)?;
//! assert_eq!(message.method(), Method::Options);
//! assert_eq!(message.from_tag(), Some(&b"1"[..]));
//! assert_eq!(message.header(HeaderId::CallId), Some(&b"1@example.net"[..]));
//! # Ok::<(), sip::ParseError>(())
//! ```

pub mod digest;
mod error;
mod header;
mod message;
mod parse;
mod scan;
pub mod sdp;
pub mod token;
mod uri;
mod validate;
pub mod write;

pub use error::ParseError;
pub use header::{HeaderId, Method};
pub use message::{
    HEADERS_MAX, HeaderRef, Headers, Index, MESSAGE_BYTES_MAX, Message, Span, Values, parse,
    salvage,
};
pub use sdp::Sdp;
pub use token::{TOKEN_BYTES, Token, TokenKey};
pub use uri::{
    MAGIC_COOKIE, NameAddr, PORT_DEFAULT, PORT_DEFAULT_TLS, Params, Scheme, Uri, Via, param,
    param_of_list,
};
pub use write::{Writer, default_reason};

#[cfg(test)]
mod tests;
