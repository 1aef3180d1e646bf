//! A SIP message as a view of the datagram it came in (RFC 3261 section 7).
//!
//! [`parse`] walks the datagram once and notes in a reusable [`Index`] where each header line is
//! and which field it belongs to. [`Message`] reads values from there on demand. Nothing is
//! copied and nothing is allocated; a value is the raw bytes, which may hold folded lines.
//!
//! ```text
//!   INVITE sip:b@example.net SIP/2.0 CRLF          start line
//!   Via: SIP/2.0/UDP 192.0.2.1;branch=z9 CRLF      name | value    one `line`, its end included
//!   ...                                            \__ index: (field, line, name, value) spans
//!   CRLF
//!   v=0 ...                                        body, cut by Content-Length
//! ```

use super::error::ParseError;
use super::header::{HeaderId, Method};
use super::scan;
use super::uri::{NameAddr, Via};

/// The most header lines a message may have.
pub const HEADERS_MAX: usize = 64;

/// The longest message: what a UDP datagram can carry, and what 16-bit spans can address.
pub const MESSAGE_BYTES_MAX: usize = 65_535;

/// A stretch of the datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Where it starts.
    pub off: u16,
    /// How many bytes it has.
    pub len: u16,
}

impl Span {
    /// The stretch from `start` up to `end`.
    #[inline]
    pub(super) fn between(start: usize, end: usize) -> Span {
        debug_assert!(start <= end && end <= MESSAGE_BYTES_MAX);
        Span {
            off: start as u16,
            len: (end - start) as u16,
        }
    }

    /// The bytes it stands for; empty if `raw` is not the datagram it was made for.
    #[inline]
    pub fn of(self, raw: &[u8]) -> &[u8] {
        let start = usize::from(self.off);
        raw.get(start..start + usize::from(self.len))
            .unwrap_or_default()
    }
}

/// One header line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) id: HeaderId,
    pub(super) name_len: u16,
    /// The whole line or lines, the final CRLF included; the name is at its start.
    pub(super) line: Span,
    pub(super) value: Span,
}

const NO_LINE: Line = Line {
    id: HeaderId::Other,
    name_len: 0,
    line: Span { off: 0, len: 0 },
    value: Span { off: 0, len: 0 },
};

/// Where everything in one message is. Fixed in size and made to be used again.
#[derive(Clone, Debug)]
pub struct Index {
    pub(super) lines: [Line; HEADERS_MAX],
    /// For each field, one bit per line that belongs to it.
    pub(super) lines_of: [u64; HeaderId::COUNT],
    pub(super) count: u8,
    /// Of the request; of CSeq in a response.
    pub(super) method: Method,
    pub(super) method_text: Span,
    /// 0 in a request.
    pub(super) status: u16,
    /// Request-URI or reason phrase.
    pub(super) target: Span,
    pub(super) body: Span,
    pub(super) cseq: u32,
    pub(super) max_forwards: Option<u8>,
}

const _: () = assert!(
    HEADERS_MAX == u64::BITS as usize,
    "one bit per line in `lines_of`"
);

impl Default for Index {
    fn default() -> Index {
        Index::new()
    }
}

impl Index {
    /// An index that holds nothing yet.
    pub const fn new() -> Index {
        Index {
            lines: [NO_LINE; HEADERS_MAX],
            lines_of: [0; HeaderId::COUNT],
            count: 0,
            method: Method::Other,
            method_text: Span { off: 0, len: 0 },
            status: 0,
            target: Span { off: 0, len: 0 },
            body: Span { off: 0, len: 0 },
            cseq: 0,
            max_forwards: None,
        }
    }

    /// The first line of field `id`.
    #[inline]
    pub(super) fn first(&self, id: HeaderId) -> Option<&Line> {
        let lines = self.lines_of[id as usize];
        if lines == 0 {
            None
        } else {
            self.lines.get(lines.trailing_zeros() as usize)
        }
    }
}

/// Reads the message in `raw` into `index`.
///
/// On an error `index` keeps what could be read, for [`salvage`].
#[inline]
pub fn parse<'a>(raw: &'a [u8], index: &'a mut Index) -> Result<Message<'a>, ParseError> {
    index.fill(raw)?;
    Ok(Message { raw, index })
}

/// What is left of a malformed *request*, when it suffices to answer it: Via, From, To, Call-ID
/// and CSeq are there and the top Via can be read. `None` for a response (dropped) and for ACK
/// (never answered). `raw` and `index` are those of the failed [`parse`].
pub fn salvage<'a>(raw: &'a [u8], index: &'a Index) -> Option<Message<'a>> {
    let message = Message { raw, index };
    let needed = [
        HeaderId::Via,
        HeaderId::From,
        HeaderId::To,
        HeaderId::CallId,
        HeaderId::CSeq,
    ];
    let usable = message.is_request()
        && index.method_text.len > 0
        && index.method != Method::Ack
        && needed
            .iter()
            .all(|&id| message.header(id).is_some_and(|value| !value.is_empty()))
        && message.top_via().is_some();
    usable.then_some(message)
}

/// One header line, as [`Message::all`] gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderRef<'a> {
    /// The field.
    pub id: HeaderId,
    /// The name as written.
    pub name: &'a [u8],
    /// The value without surrounding white space; folding inside is kept.
    pub value: &'a [u8],
    /// The whole line with its CRLF, folded lines included.
    pub line: &'a [u8],
}

/// A message: the datagram and its index.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    raw: &'a [u8],
    pub(super) index: &'a Index,
}

impl<'a> Message<'a> {
    /// The datagram.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Whether it is a request.
    #[inline]
    pub fn is_request(&self) -> bool {
        self.index.status == 0
    }

    /// The method of a request, or the one in the CSeq of a response.
    #[inline]
    pub fn method(&self) -> Method {
        self.index.method
    }

    /// The method as written, which says more than [`Method::Other`].
    #[inline]
    pub fn method_text(&self) -> &'a [u8] {
        self.index.method_text.of(self.raw)
    }

    /// The status code; 0 for a request.
    #[inline]
    pub fn status(&self) -> u16 {
        self.index.status
    }

    /// The reason phrase, often empty; empty for a request.
    pub fn reason(&self) -> &'a [u8] {
        if self.is_request() {
            &[]
        } else {
            self.index.target.of(self.raw)
        }
    }

    /// The Request-URI; empty for a response.
    #[inline]
    pub fn request_uri(&self) -> &'a [u8] {
        if self.is_request() {
            self.index.target.of(self.raw)
        } else {
            &[]
        }
    }

    /// The value of the first line of this field.
    #[inline]
    pub fn header(&self, id: HeaderId) -> Option<&'a [u8]> {
        self.index.first(id).map(|line| line.value.of(self.raw))
    }

    /// The value of each line of this field.
    #[inline]
    pub fn headers(&self, id: HeaderId) -> Headers<'a> {
        Headers {
            raw: self.raw,
            index: self.index,
            left: self.index.lines_of[id as usize],
        }
    }

    /// Every header line in the order received.
    pub fn all(&self) -> impl Iterator<Item = HeaderRef<'a>> + use<'a> {
        let raw = self.raw;
        self.index.lines[..usize::from(self.index.count)]
            .iter()
            .map(move |entry| {
                let line = entry.line.of(raw);
                HeaderRef {
                    id: entry.id,
                    name: line.get(..usize::from(entry.name_len)).unwrap_or_default(),
                    value: entry.value.of(raw),
                    line,
                }
            })
    }

    /// Each comma-separated value of this field, over all its lines, quotes and angle brackets
    /// respected. An empty list element gives an empty value.
    ///
    /// For fields that are lists (RFC 3261 s7.3.1); a date or a challenge would be torn apart.
    #[inline]
    pub fn values(&self, id: HeaderId) -> Values<'a> {
        Values {
            lines: self.headers(id),
            rest: None,
        }
    }

    /// The body, cut by Content-Length.
    #[inline]
    pub fn body(&self) -> &'a [u8] {
        self.index.body.of(self.raw)
    }

    /// Call-ID, case and all.
    #[inline]
    pub fn call_id(&self) -> &'a [u8] {
        self.header(HeaderId::CallId).unwrap_or_default()
    }

    /// CSeq: the number and the method it names.
    #[inline]
    pub fn cseq(&self) -> (u32, Method) {
        (self.index.cseq, self.index.method)
    }

    /// Max-Forwards, if there is one.
    #[inline]
    pub fn max_forwards(&self) -> Option<u8> {
        self.index.max_forwards
    }

    /// From, when it can be read.
    #[inline]
    pub fn from(&self) -> Option<NameAddr<'a>> {
        NameAddr::parse(self.header(HeaderId::From)?).ok()
    }

    /// To, when it can be read.
    #[inline]
    pub fn to(&self) -> Option<NameAddr<'a>> {
        NameAddr::parse(self.header(HeaderId::To)?).ok()
    }

    /// The first Contact, when it can be read.
    pub fn contact(&self) -> Option<NameAddr<'a>> {
        NameAddr::parse(self.values(HeaderId::Contact).next()?).ok()
    }

    /// The tag of From.
    #[inline]
    pub fn from_tag(&self) -> Option<&'a [u8]> {
        self.from()?.param(b"tag").flatten()
    }

    /// The tag of To.
    #[inline]
    pub fn to_tag(&self) -> Option<&'a [u8]> {
        self.to()?.param(b"tag").flatten()
    }

    /// The topmost Via, when it can be read.
    #[inline]
    pub fn top_via(&self) -> Option<Via<'a>> {
        Via::parse(self.values(HeaderId::Via).next()?).ok()
    }

    /// Whether there is more than one Via: a response like that was meant for somebody else
    /// (RFC 3261 s8.1.3.3) and a user agent drops it.
    pub fn has_more_vias(&self) -> bool {
        self.values(HeaderId::Via).nth(1).is_some()
    }

    /// Whether this field's list holds `token`, compared without case (option tags, methods).
    pub fn has_token(&self, id: HeaderId, token: &[u8]) -> bool {
        self.values(id)
            .any(|value| value.eq_ignore_ascii_case(token))
    }
}

/// The lines of one field; see [`Message::headers`].
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    raw: &'a [u8],
    index: &'a Index,
    left: u64,
}

impl<'a> Iterator for Headers<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.left == 0 {
            return None;
        }
        let line = &self.index.lines[self.left.trailing_zeros() as usize];
        self.left &= self.left - 1;
        Some(line.value.of(self.raw))
    }
}

/// The values of one field; see [`Message::values`].
#[derive(Clone, Debug)]
pub struct Values<'a> {
    lines: Headers<'a>,
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let text = match self.rest.take() {
            Some(rest) => rest,
            None => self.lines.next()?,
        };
        let (value, rest) = scan::split_comma(text);
        self.rest = rest;
        Some(scan::trim(value))
    }
}
