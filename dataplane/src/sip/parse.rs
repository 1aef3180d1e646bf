//! The one pass over a datagram that fills an [`Index`] (RFC 3261 section 7 and 25).

use super::error::ParseError;
use super::header::{self, HeaderId, Method, NAME_WINDOW};
use super::message::{Index, Line, MESSAGE_BYTES_MAX, Span};
use super::scan;

/// RFC 3261 s8.1.1.5: the sequence number is below 2^31.
const CSEQ_MAX: u64 = (1 << 31) - 1;

impl Index {
    /// Reads `raw`. The first fault is returned, yet reading goes on as far as it makes sense,
    /// so that a request can be answered with what stands behind the fault.
    pub(super) fn fill(&mut self, raw: &[u8]) -> Result<(), ParseError> {
        self.clear();
        if raw.len() > MESSAGE_BYTES_MAX {
            return Err(ParseError::TooLarge);
        }
        // RFC 3261 s7.5: empty lines before the start line are passed over.
        let mut at = 0;
        while matches!(raw.get(at), Some(b'\r' | b'\n')) {
            at += 1;
        }
        if at == raw.len() {
            return Err(ParseError::Keepalive);
        }
        let end = at + scan::find(b'\n', &raw[at..]).ok_or(ParseError::NotSip)?;
        let mut fault = Fault(None);
        let line_end = match raw[at..end] {
            [.., b'\r'] => end - 1,
            _ => {
                fault.note(ParseError::LineEnd);
                end
            }
        };
        self.start_line(raw, at, line_end, &mut fault)?;
        let body = self.header_lines(raw, end + 1, &mut fault);
        self.finish(raw, body, &mut fault);
        fault.0.map_or(Ok(()), Err)
    }

    fn clear(&mut self) {
        self.lines_of.fill(0);
        self.count = 0;
        self.method = Method::Other;
        self.method_text = Span::default();
        self.status = 0;
        self.target = Span::default();
        self.body = Span::default();
        self.cseq = 0;
        self.max_forwards = None;
    }

    /// `Err` when this is not SIP at all; lesser faults are noted.
    fn start_line(
        &mut self,
        raw: &[u8],
        at: usize,
        end: usize,
        fault: &mut Fault,
    ) -> Result<(), ParseError> {
        let line = &raw[at..end];
        if line
            .get(..8)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"SIP/2.0 "))
        {
            return self.status_line(line, at);
        }
        // Request-Line = Method SP Request-URI SP SIP-Version: exactly two SP, no other space.
        let method = scan::token_end(line, 0);
        if method == 0 || line.get(method) != Some(&b' ') {
            return Err(ParseError::NotSip);
        }
        let rest = &line[method + 1..];
        let space = scan::find(b' ', rest).ok_or(ParseError::NotSip)?;
        let (mut uri, version) = (&rest[..space], &rest[space + 1..]);
        // RFC 3261 s7.1: the version is compared without case.
        let good = version == b"SIP/2.0" || version.eq_ignore_ascii_case(b"SIP/2.0");
        if !good || uri.is_empty() || scan::find_either(b'\t', b'\r', uri).is_some() {
            let (length, error) = odd_request_line(rest)?;
            uri = &rest[..length];
            fault.note(error);
        }
        self.method_text = Span::between(at, at + method);
        self.method = Method::from_bytes(&line[..method]);
        self.target = Span::between(at + method + 1, at + method + 1 + uri.len());
        Ok(())
    }

    /// `SIP/2.0 200 OK`, the reason phrase perhaps empty. A response with a fault here is of no
    /// use to anybody: no reading on.
    fn status_line(&mut self, line: &[u8], at: usize) -> Result<(), ParseError> {
        let [hundreds, tens, ones] = match line.get(8..11) {
            Some(&[a, b, c]) => [a, b, c].map(|digit| u16::from(digit.wrapping_sub(b'0'))),
            _ => return Err(ParseError::StartLine),
        };
        if hundreds > 9 || tens > 9 || ones > 9 {
            return Err(ParseError::StatusCode);
        }
        let reason = match line.get(11) {
            None => 11,
            Some(b' ') => 12,
            Some(_) => return Err(ParseError::StatusCode),
        };
        let status = hundreds * 100 + tens * 10 + ones;
        if !(100..=699).contains(&status) {
            return Err(ParseError::StatusCode);
        }
        self.status = status;
        self.target = Span::between(at + reason, at + line.len());
        Ok(())
    }

    /// Indexes the lines from `at` on; gives where the body starts.
    fn header_lines(&mut self, raw: &[u8], mut at: usize, fault: &mut Fault) -> usize {
        let Index {
            lines,
            lines_of,
            count,
            ..
        } = self;
        let mut free = lines.iter_mut();
        // The bit of the next line in `lines_of`; none is left once all lines are used.
        let mut bit = 1u64;
        let body = loop {
            let rest = raw.get(at..).unwrap_or_default();
            let Some((id, name_len, value_at)) = name(rest) else {
                if rest.starts_with(b"\r\n") {
                    break at + 2;
                }
                match skip_line(raw, at, fault) {
                    Some(next) => at = next,
                    None => break raw.len(),
                }
                continue;
            };
            let Some((value_end, next)) = line_end(raw, at + value_at, fault) else {
                break raw.len();
            };
            let Some(line) = free.next() else {
                fault.note(ParseError::TooManyHeaders);
                break raw.len();
            };
            let same = &mut lines_of[id as usize];
            if *same != 0 && id.is_fatal_when_repeated() {
                fault.note(ParseError::Repeated(id));
            }
            *same |= bit;
            bit <<= 1;
            *line = Line {
                id,
                name_len: name_len as u16,
                line: Span::between(at, next),
                value: trimmed(raw, at + value_at, value_end),
            };
            at = next;
        };
        *count = bit.trailing_zeros() as u8;
        body
    }

    /// The fields every message must have, and those whose numbers everybody needs.
    fn finish(&mut self, raw: &[u8], body: usize, fault: &mut Fault) {
        for id in [
            HeaderId::Via,
            HeaderId::From,
            HeaderId::To,
            HeaderId::CallId,
            HeaderId::CSeq,
        ] {
            if self.lines_of[id as usize] == 0 {
                fault.note(ParseError::Missing(id));
            }
        }
        if let Some(line) = self.first(HeaderId::CSeq) {
            let value = line.value;
            self.read_cseq(raw, value, fault);
        }
        if let Some(line) = self.first(HeaderId::MaxForwards) {
            match scan::decimal(line.value.of(raw), u64::from(u8::MAX)) {
                Some(value) => self.max_forwards = Some(value as u8),
                None => fault.note(ParseError::Value(HeaderId::MaxForwards)),
            }
        }
        let available = raw.len() - body;
        let mut length = available;
        if let Some(line) = self.first(HeaderId::ContentLength) {
            // RFC 3261 s18.3: on UDP a longer datagram is cut, a shorter one is an error.
            match scan::decimal(line.value.of(raw), u64::from(u32::MAX)) {
                Some(value) if value <= available as u64 => length = value as usize,
                Some(_) => fault.note(ParseError::Truncated),
                None => fault.note(ParseError::Value(HeaderId::ContentLength)),
            }
        }
        self.body = Span::between(body, body + length);
    }

    fn read_cseq(&mut self, raw: &[u8], value: Span, fault: &mut Fault) {
        let text = value.of(raw);
        let digits = scan::digits_end(text, 0);
        let method_at = scan::skip_lws(text, digits);
        let method = &text[method_at..];
        let number = scan::decimal(&text[..digits], CSEQ_MAX);
        match number {
            Some(number) if method_at > digits && scan::is_token(method) => {
                self.cseq = number as u32;
            }
            _ => fault.note(ParseError::Value(HeaderId::CSeq)),
        }
        if self.status != 0 {
            let start = usize::from(value.off) + method_at;
            self.method = Method::from_bytes(method);
            self.method_text = Span::between(start, start + method.len());
        } else if method != self.method_text.of(raw) {
            fault.note(ParseError::CSeqMethod);
        }
    }
}

/// The first thing found wrong.
struct Fault(Option<ParseError>);

impl Fault {
    #[cold]
    fn note(&mut self, error: ParseError) {
        self.0.get_or_insert(error);
    }
}

/// What is wrong behind the method of a request line, and how long its Request-URI is meant to be:
/// up to the last space before something like a SIP-Version.
#[cold]
fn odd_request_line(rest: &[u8]) -> Result<(usize, ParseError), ParseError> {
    let text_end = rest.iter().rposition(|&byte| byte != b' ').unwrap_or(0);
    let space = scan::find_last(b' ', &rest[..text_end]).ok_or(ParseError::NotSip)?;
    let version = &rest[space + 1..];
    let (start, number) = version.split_at_checked(4).ok_or(ParseError::NotSip)?;
    if !start.eq_ignore_ascii_case(b"SIP/") {
        return Err(ParseError::NotSip);
    }
    let uri = &rest[..space];
    let is_number = |&byte: &u8| byte.is_ascii_digit() || byte == b'.';
    let other_version = number != b"2.0" && number.iter().all(is_number);
    if other_version && !uri.is_empty() && scan::has_no_lws(uri) {
        return Ok((space, ParseError::Version));
    }
    Ok((space, ParseError::StartLine))
}

/// The field that the line at the start of `rest` belongs to, the length of its name, and where
/// its value starts.
#[inline(always)]
fn name(rest: &[u8]) -> Option<(HeaderId, usize, usize)> {
    if let Some(window) = rest.first_chunk::<NAME_WINDOW>()
        && let Some(length) = header::colon(window)
    {
        let id = header::recognise(window, length);
        if id != HeaderId::Other {
            return Some((id, length, length + 1));
        }
    }
    let (length, value_at) = header::long_way_round(rest)?;
    Some((HeaderId::from_name(&rest[..length]), length, value_at))
}

/// Where the value that starts at `at` ends, and where the next line starts.
///
/// RFC 3261 s7.3.1: a line that starts with white space goes on with the one before.
#[inline(always)]
fn line_end(raw: &[u8], mut at: usize, fault: &mut Fault) -> Option<(usize, usize)> {
    loop {
        let Some(length) = scan::find_either(b'\r', b'\n', &raw[at..]) else {
            fault.note(ParseError::NoEmptyLine);
            return None;
        };
        let end = at + length;
        let [b'\r', b'\n', after @ ..] = &raw[end..] else {
            fault.note(ParseError::LineEnd);
            return None;
        };
        if !matches!(after.first(), Some(b' ' | b'\t')) {
            return Some((end, end + 2));
        }
        at = end + 2;
    }
}

/// Passes over a line that is no header field, noting why.
#[cold]
fn skip_line(raw: &[u8], at: usize, fault: &mut Fault) -> Option<usize> {
    if at >= raw.len() {
        fault.note(ParseError::NoEmptyLine);
        return None;
    }
    fault.note(ParseError::HeaderLine);
    line_end(raw, at, fault).map(|(_, next)| next)
}

/// The value between `start` and `end` without white space round it.
#[inline(always)]
fn trimmed(raw: &[u8], start: usize, end: usize) -> Span {
    // Nearly always it is one space before and none behind.
    match raw[start..end] {
        [b' ', first, .., last] if first > b' ' && last > b' ' => Span::between(start + 1, end),
        _ => trimmed_with_care(raw, start, end),
    }
}

#[inline(never)]
fn trimmed_with_care(raw: &[u8], mut start: usize, mut end: usize) -> Span {
    while start < end && matches!(raw[start], b' ' | b'\t' | b'\r' | b'\n') {
        start += 1;
    }
    while end > start && matches!(raw[end - 1], b' ' | b'\t' | b'\r' | b'\n') {
        end -= 1;
    }
    Span::between(start, end)
}
