//! Writing messages: contiguous copies into a buffer that is used again and again.
//!
//! The free functions append one piece each. [`Writer`] puts them in the order of a message and
//! ends it with Content-Length and the body, so that no message leaves without them.

use std::net::{IpAddr, SocketAddr};

use super::header::HeaderId;
use super::message::Message;
use super::scan;
use super::uri::{self, Params, Via};

/// Appends `number` in decimal.
#[inline]
pub fn number(out: &mut Vec<u8>, number: u64) {
    const DIGITS_MAX: usize = 20;
    let mut digits = [0u8; DIGITS_MAX];
    let mut at = DIGITS_MAX;
    let mut left = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends a Request-Line.
#[inline]
pub fn request_line(out: &mut Vec<u8>, method: &[u8], uri: &[u8]) {
    out.extend_from_slice(method);
    out.push(b' ');
    out.extend_from_slice(uri);
    out.extend_from_slice(b" SIP/2.0\r\n");
}

/// Appends a Status-Line.
#[inline]
pub fn status_line(out: &mut Vec<u8>, code: u16, reason: &[u8]) {
    out.extend_from_slice(b"SIP/2.0 ");
    number(out, u64::from(code));
    out.push(b' ');
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

/// Appends a header line of a field this node knows.
#[inline]
pub fn header(out: &mut Vec<u8>, id: HeaderId, value: &[u8]) {
    debug_assert!(id != HeaderId::Other, "a field without a name");
    header_named(out, id.name().as_bytes(), value);
}

/// Appends a header line with a name of the caller's.
#[inline]
pub fn header_named(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a header line whose value is a number.
#[inline]
pub fn header_number(out: &mut Vec<u8>, id: HeaderId, value: u64) {
    out.extend_from_slice(id.name().as_bytes());
    out.extend_from_slice(b": ");
    number(out, value);
    out.extend_from_slice(b"\r\n");
}

/// Appends CSeq.
#[inline]
pub fn cseq(out: &mut Vec<u8>, sequence: u32, method: &[u8]) {
    out.extend_from_slice(b"CSeq: ");
    number(out, u64::from(sequence));
    out.push(b' ');
    out.extend_from_slice(method);
    out.extend_from_slice(b"\r\n");
}

/// Appends an address as sent-by or hostport writes it: IPv6 in brackets, the port always.
pub fn socket_addr(out: &mut Vec<u8>, address: SocketAddr) {
    ip(out, address.ip(), true);
    out.push(b':');
    number(out, u64::from(address.port()));
}

/// Appends an IP address; an IPv6 one in brackets if so asked (a Via's `received` has none).
pub fn ip(out: &mut Vec<u8>, address: IpAddr, brackets: bool) {
    use std::io::Write;
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            for (i, part) in [a, b, c, d].into_iter().enumerate() {
                if i > 0 {
                    out.push(b'.');
                }
                number(out, u64::from(part));
            }
        }
        IpAddr::V6(address) => {
            let (open, close) = if brackets { ("[", "]") } else { ("", "") };
            write!(out, "{open}{address}{close}").expect("a Vec takes everything");
        }
    }
}

/// Appends our Via: `Via: SIP/2.0/UDP 192.0.2.1:5060;branch=...;rport`.
///
/// RFC 3581 s3: a client that wants the answer where it sent from adds `rport`.
pub fn via(out: &mut Vec<u8>, transport: &str, sent_by: SocketAddr, branch: &[u8]) {
    out.extend_from_slice(b"Via: SIP/2.0/");
    out.extend_from_slice(transport.as_bytes());
    out.push(b' ');
    socket_addr(out, sent_by);
    out.extend_from_slice(b";branch=");
    out.extend_from_slice(branch);
    out.extend_from_slice(b";rport\r\n");
}

/// Appends From or To: `display <uri>;tag=tag`, display and tag left out when empty.
pub fn name_addr(out: &mut Vec<u8>, id: HeaderId, display: &[u8], uri: &[u8], tag: &[u8]) {
    out.extend_from_slice(id.name().as_bytes());
    out.extend_from_slice(b": ");
    if !display.is_empty() {
        out.extend_from_slice(display);
        out.push(b' ');
    }
    out.push(b'<');
    out.extend_from_slice(uri);
    out.push(b'>');
    if !tag.is_empty() {
        out.extend_from_slice(b";tag=");
        out.extend_from_slice(tag);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the header lines of `message` whose field `keep` wants, as they are. Lines that stand
/// together are copied together.
pub fn copy_headers(out: &mut Vec<u8>, message: &Message<'_>, keep: impl Fn(HeaderId) -> bool) {
    let mut run = 0..0;
    for entry in &message.index.lines[..usize::from(message.index.count)] {
        if !keep(entry.id) {
            continue;
        }
        let start = usize::from(entry.line.off);
        if start != run.end {
            out.extend_from_slice(message.raw().get(run).unwrap_or_default());
            run = start..start;
        }
        run.end = start + usize::from(entry.line.len);
    }
    out.extend_from_slice(message.raw().get(run).unwrap_or_default());
}

/// Appends what a response copies from its request (RFC 3261 s8.2.6.2): every Via, From, To,
/// Call-ID and CSeq.
///
/// `source` is where the request came from. `to_tag` is added when To has no tag yet; give an
/// empty one for a 100 Trying.
pub fn response_headers(
    out: &mut Vec<u8>,
    request: &Message<'_>,
    source: SocketAddr,
    to_tag: &[u8],
) {
    for (i, value) in request.values(HeaderId::Via).enumerate() {
        if i == 0 {
            top_via(out, value, source);
        } else {
            header(out, HeaderId::Via, value);
        }
    }
    header(
        out,
        HeaderId::From,
        request.header(HeaderId::From).unwrap_or_default(),
    );
    out.extend_from_slice(b"To: ");
    out.extend_from_slice(request.header(HeaderId::To).unwrap_or_default());
    if !to_tag.is_empty() && request.to_tag().is_none() {
        out.extend_from_slice(b";tag=");
        out.extend_from_slice(to_tag);
    }
    out.extend_from_slice(b"\r\n");
    header(out, HeaderId::CallId, request.call_id());
    header(
        out,
        HeaderId::CSeq,
        request.header(HeaderId::CSeq).unwrap_or_default(),
    );
}

/// Appends the topmost Via of a response: as received, with `received` and the value of `rport`
/// filled in from the request's true source (RFC 3261 s18.2.1, RFC 3581 s4).
fn top_via(out: &mut Vec<u8>, value: &[u8], source: SocketAddr) {
    let Ok(via) = Via::parse(value) else {
        return header(out, HeaderId::Via, value);
    };
    if via.rport.is_none() && uri::ip(via.host) == Some(source.ip()) {
        return header(out, HeaderId::Via, value);
    }
    out.extend_from_slice(b"Via: ");
    let sent_by = &via.raw[..via.raw.len() - via.params.len()];
    out.extend_from_slice(scan::trim(sent_by));
    for (name, value) in Params::new(via.params).flatten() {
        if name.eq_ignore_ascii_case(b"received") || name.eq_ignore_ascii_case(b"rport") {
            continue;
        }
        out.push(b';');
        out.extend_from_slice(name);
        if let Some(value) = value {
            out.push(b'=');
            out.extend_from_slice(value);
        }
    }
    out.extend_from_slice(b";received=");
    ip(out, source.ip(), false);
    if via.rport.is_some() {
        out.extend_from_slice(b";rport=");
        number(out, u64::from(source.port()));
    }
    out.extend_from_slice(b"\r\n");
}

/// A message being written. Each method appends and gives the writer back; [`Writer::body`] or
/// [`Writer::no_body`] ends it.
#[derive(Debug)]
#[must_use = "a message ends with `body` or `no_body`"]
pub struct Writer<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Writer<'o> {
    /// Starts a request at the end of `out`.
    pub fn request(out: &'o mut Vec<u8>, method: &[u8], uri: &[u8]) -> Writer<'o> {
        request_line(out, method, uri);
        Writer { out }
    }

    /// Starts a response at the end of `out`.
    pub fn status(out: &'o mut Vec<u8>, code: u16, reason: &[u8]) -> Writer<'o> {
        status_line(out, code, reason);
        Writer { out }
    }

    /// Starts a response to `request` with the header fields it copies; an empty `reason` becomes
    /// the standard's. See [`response_headers`] for `source` and `to_tag`.
    pub fn response(
        out: &'o mut Vec<u8>,
        request: &Message<'_>,
        source: SocketAddr,
        code: u16,
        reason: &str,
        to_tag: &[u8],
    ) -> Writer<'o> {
        let reason = if reason.is_empty() {
            default_reason(code)
        } else {
            reason
        };
        status_line(out, code, reason.as_bytes());
        response_headers(out, request, source, to_tag);
        if code == 100 {
            // RFC 3261 s8.2.6.1.
            copy_headers(out, request, |id| id == HeaderId::Timestamp);
        }
        Writer { out }
    }

    /// The buffer, for the free functions of this module.
    pub fn out(&mut self) -> &mut Vec<u8> {
        self.out
    }

    /// A header line.
    pub fn header(self, id: HeaderId, value: &[u8]) -> Writer<'o> {
        header(self.out, id, value);
        self
    }

    /// A header line whose value is a number.
    pub fn header_number(self, id: HeaderId, value: u64) -> Writer<'o> {
        header_number(self.out, id, value);
        self
    }

    /// A header line with a name of the caller's.
    pub fn header_named(self, name: &[u8], value: &[u8]) -> Writer<'o> {
        header_named(self.out, name, value);
        self
    }

    /// Our Via; see [`via`].
    pub fn via(self, transport: &str, sent_by: SocketAddr, branch: &[u8]) -> Writer<'o> {
        via(self.out, transport, sent_by, branch);
        self
    }

    /// From or To; see [`name_addr`].
    pub fn name_addr(self, id: HeaderId, display: &[u8], uri: &[u8], tag: &[u8]) -> Writer<'o> {
        name_addr(self.out, id, display, uri, tag);
        self
    }

    /// CSeq.
    pub fn cseq(self, sequence: u32, method: &[u8]) -> Writer<'o> {
        cseq(self.out, sequence, method);
        self
    }

    /// Header lines of another message, as they are; see [`copy_headers`].
    pub fn copy(self, message: &Message<'_>, keep: impl Fn(HeaderId) -> bool) -> Writer<'o> {
        copy_headers(self.out, message, keep);
        self
    }

    /// Ends the message with Content-Length and `body`. Its Content-Type is among the header
    /// lines written before.
    pub fn body(self, body: &[u8]) {
        header_number(self.out, HeaderId::ContentLength, body.len() as u64);
        self.out.extend_from_slice(b"\r\n");
        self.out.extend_from_slice(body);
    }

    /// Ends the message without a body.
    pub fn no_body(self) {
        self.body(&[]);
    }
}

/// The reason phrase of the standard that defines `code`; that of the class for an unknown one.
pub const fn default_reason(code: u16) -> &'static str {
    match code {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        199 => "Early Dialog Terminated",
        200 => "OK",
        202 => "Accepted",
        204 => "No Notification",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        305 => "Use Proxy",
        380 => "Alternative Service",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        412 => "Conditional Request Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        417 => "Unknown Resource-Priority",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        _ => reason_from_428(code),
    }
}

const fn reason_from_428(code: u16) -> &'static str {
    match code {
        428 => "Use Identity Header",
        429 => "Provide Referrer Identity",
        433 => "Anonymity Disallowed",
        436 => "Bad Identity Info",
        437 => "Unsupported Credential",
        438 => "Invalid Identity Header",
        439 => "First Hop Lacks Outbound Support",
        440 => "Max-Breadth Exceeded",
        469 => "Bad Info Package",
        470 => "Consent Needed",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        485 => "Ambiguous",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        493 => "Undecipherable",
        494 => "Security Agreement Required",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        580 => "Precondition Failure",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        607 => "Unwanted",
        100..=199 => "Session Progress",
        200..=299 => "OK",
        300..=399 => "Multiple Choices",
        400..=499 => "Bad Request",
        500..=599 => "Server Internal Error",
        _ => "Busy Everywhere",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::{Index, parse};

    const REQUEST: &[u8] = b"INVITE sip:b@example.net SIP/2.0\r\n\
        v: SIP/2.0/UDP pc.example.com:5062;branch=z9hG4bK1;rport , SIP/2.0/UDP p2;branch=z2\r\n\
        X-One: 1\r\nX-Two: 2\r\n  folded\r\nRoute: <sip:us;lr>\r\nX-Three: 3\r\n\
        From: <sip:a@example.com>;tag=9\r\nTo: B <sip:b@example.net>\r\n\
        Call-ID: 77\r\nCSeq: 5 INVITE\r\nTimestamp: 54\r\n\r\n";

    #[test]
    fn numbers_are_written_in_full() {
        for value in [0, 9, 10, 65_535, u64::MAX] {
            let mut out = Vec::new();
            number(&mut out, value);
            assert_eq!(out, value.to_string().into_bytes());
        }
    }

    #[test]
    fn a_response_returns_the_vias_with_the_true_source() {
        let mut index = Index::new();
        let request = parse(REQUEST, &mut index).expect("well formed");
        let source = "192.0.2.9:40000".parse().expect("an address");
        let mut out = Vec::new();
        Writer::response(&mut out, &request, source, 486, "", b"mine").no_body();
        let text = String::from_utf8(out).expect("ASCII");
        assert_eq!(
            text,
            "SIP/2.0 486 Busy Here\r\n\
             Via: SIP/2.0/UDP pc.example.com:5062;branch=z9hG4bK1\
             ;received=192.0.2.9;rport=40000\r\n\
             Via: SIP/2.0/UDP p2;branch=z2\r\n\
             From: <sip:a@example.com>;tag=9\r\nTo: B <sip:b@example.net>;tag=mine\r\n\
             Call-ID: 77\r\nCSeq: 5 INVITE\r\nContent-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn a_100_has_no_tag_of_ours_and_returns_the_timestamp() {
        let mut index = Index::new();
        let request = parse(REQUEST, &mut index).expect("well formed");
        let source = "[2001:db8::9]:40000".parse().expect("an address");
        let mut out = Vec::new();
        Writer::response(&mut out, &request, source, 100, "", b"").no_body();
        let text = String::from_utf8(out).expect("ASCII");
        assert!(text.contains("\r\nTo: B <sip:b@example.net>\r\n"), "{text}");
        assert!(text.contains("\r\nTimestamp: 54\r\n"), "{text}");
        assert!(
            text.contains(";received=2001:db8::9;rport=40000\r\n"),
            "{text}"
        );
    }

    #[test]
    fn lines_pass_through_as_they_came_with_their_folding() {
        let mut index = Index::new();
        let request = parse(REQUEST, &mut index).expect("well formed");
        let mut out = Vec::new();
        copy_headers(&mut out, &request, |id| id == HeaderId::Other);
        assert_eq!(out, b"X-One: 1\r\nX-Two: 2\r\n  folded\r\nX-Three: 3\r\n");
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut out = Vec::new();
        let us = "[2001:db8::1]:5060".parse().expect("an address");
        Writer::request(&mut out, b"BYE", b"sip:b@192.0.2.1")
            .via("UDP", us, b"z9hG4bKx")
            .header_number(HeaderId::MaxForwards, 70)
            .name_addr(HeaderId::From, b"\"A\"", b"sip:a@h", b"1")
            .name_addr(HeaderId::To, b"", b"sip:b@h", b"")
            .header(HeaderId::CallId, b"c")
            .cseq(9, b"BYE")
            .body(b"body");
        let mut index = Index::new();
        let message = parse(&out, &mut index).expect("what we write is well formed");
        message.validate().expect("and valid");
        let via = message.top_via().expect("a Via");
        assert_eq!(via.response_addr(), Some(us));
        assert_eq!(message.cseq(), (9, crate::sip::Method::Bye));
        assert_eq!(message.max_forwards(), Some(70));
        assert_eq!(message.from_tag(), Some(&b"1"[..]));
        assert_eq!(message.to_tag(), None);
        assert_eq!(message.body(), b"body");
    }
}
