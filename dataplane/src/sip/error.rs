//! What can be wrong with a message.

use super::header::HeaderId;

/// Why a message was refused. Always the peer's fault; no state changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParseError {
    /// Nothing but line ends: a keep-alive (RFC 5626 s3.5.1), to be dropped without a count.
    Keepalive,
    /// Longer than a datagram can be.
    TooLarge,
    /// The first line is neither a request line nor a status line.
    NotSip,
    /// The first line is SIP's but breaks its grammar (RFC 3261 s7.1, s7.2).
    StartLine,
    /// A SIP version other than 2.0.
    Version,
    /// A status code outside 100 to 699.
    StatusCode,
    /// The Request-URI breaks its grammar.
    RequestUri,
    /// The Request-URI has a scheme this node does not serve.
    UriScheme,
    /// A line of the header is not `name: value`.
    HeaderLine,
    /// A carriage return or line feed stands alone in the header.
    LineEnd,
    /// More header lines than the index holds.
    TooManyHeaders,
    /// The datagram ends before the empty line that ends the header.
    NoEmptyLine,
    /// A header field that every message must have is not there.
    Missing(HeaderId),
    /// A header field that may stand once stands twice.
    Repeated(HeaderId),
    /// Content-Length announces more than the datagram holds (RFC 3261 s18.3).
    Truncated,
    /// The CSeq method differs from the request's (RFC 3261 s8.1.1.5).
    CSeqMethod,
    /// The value of this header field breaks its grammar or its range.
    Value(HeaderId),
    /// A URI, a name-addr or a Via given on its own breaks its grammar.
    Syntax,
}

impl ParseError {
    /// The status and reason phrase that answer a *request* with this fault; `None` when there is
    /// nothing to answer. A response with any fault is dropped.
    pub const fn response(self) -> Option<(u16, &'static str)> {
        let reason = match self {
            ParseError::Keepalive | ParseError::NotSip => return None,
            ParseError::TooLarge => return Some((513, "Message Too Large")),
            ParseError::Version => return Some((505, "Version Not Supported")),
            ParseError::UriScheme => return Some((416, "Unsupported URI Scheme")),
            ParseError::StartLine => "Malformed Request-Line",
            ParseError::StatusCode => "Malformed Status-Code",
            ParseError::RequestUri => "Malformed Request-URI",
            ParseError::HeaderLine => "Malformed Header Line",
            ParseError::LineEnd => "Stray CR or LF in Header",
            ParseError::TooManyHeaders => "Too Many Header Fields",
            ParseError::NoEmptyLine => "No Empty Line after Header",
            ParseError::Missing(id) => missing(id),
            ParseError::Repeated(id) => repeated(id),
            ParseError::Truncated => "Content-Length Exceeds Datagram",
            ParseError::CSeqMethod => "CSeq Method Mismatch",
            ParseError::Value(id) => malformed(id),
            ParseError::Syntax => "Bad Request",
        };
        Some((400, reason))
    }
}

const fn missing(id: HeaderId) -> &'static str {
    match id {
        HeaderId::Via => "Missing Via",
        HeaderId::From => "Missing From",
        HeaderId::To => "Missing To",
        HeaderId::CallId => "Missing Call-ID",
        HeaderId::CSeq => "Missing CSeq",
        HeaderId::Contact => "Missing Contact",
        _ => "Missing Header Field",
    }
}

const fn repeated(id: HeaderId) -> &'static str {
    match id {
        HeaderId::From => "Repeated From",
        HeaderId::To => "Repeated To",
        HeaderId::CallId => "Repeated Call-ID",
        HeaderId::CSeq => "Repeated CSeq",
        HeaderId::MaxForwards => "Repeated Max-Forwards",
        HeaderId::ContentLength => "Repeated Content-Length",
        _ => "Repeated Header Field",
    }
}

const fn malformed(id: HeaderId) -> &'static str {
    match id {
        HeaderId::Via => "Malformed Via",
        HeaderId::From => "Malformed From",
        HeaderId::To => "Malformed To",
        HeaderId::CallId => "Malformed Call-ID",
        HeaderId::CSeq => "Malformed CSeq",
        HeaderId::MaxForwards => "Malformed Max-Forwards",
        HeaderId::ContentLength => "Malformed Content-Length",
        HeaderId::Contact => "Malformed Contact",
        HeaderId::Route => "Malformed Route",
        HeaderId::RecordRoute => "Malformed Record-Route",
        HeaderId::Expires => "Malformed Expires",
        HeaderId::SessionExpires => "Malformed Session-Expires",
        HeaderId::MinSe => "Malformed Min-SE",
        HeaderId::RSeq => "Malformed RSeq",
        HeaderId::RAck => "Malformed RAck",
        HeaderId::ReferTo => "Malformed Refer-To",
        HeaderId::PChargingVector => "Malformed P-Charging-Vector",
        _ => "Malformed Header Field",
    }
}
