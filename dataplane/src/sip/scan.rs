//! Byte classes and the small scanners every parser of this module is made of.
//!
//! Nothing here allocates, and nothing walks a byte twice: a scanner takes the text and a
//! position and gives back the position where its class ends.

/// The searches of memchr for vectors that every x86-64 has. They are inlined; the others ask the
/// processor what it has by a call through a pointer, which costs more than a header line.
#[cfg(target_arch = "x86_64")]
mod search {
    use memchr::arch::x86_64::sse2::memchr::{One, Two};

    #[inline(always)]
    pub(in crate::sip) fn find(byte: u8, text: &[u8]) -> Option<usize> {
        One::new(byte).expect("x86-64 has SSE2").find(text)
    }

    #[inline(always)]
    pub(in crate::sip) fn find_last(byte: u8, text: &[u8]) -> Option<usize> {
        One::new(byte).expect("x86-64 has SSE2").rfind(text)
    }

    #[inline(always)]
    pub(in crate::sip) fn find_either(one: u8, other: u8, text: &[u8]) -> Option<usize> {
        Two::new(one, other).expect("x86-64 has SSE2").find(text)
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod search {
    pub(in crate::sip) use memchr::memchr as find;
    pub(in crate::sip) use memchr::memchr2 as find_either;
    pub(in crate::sip) use memchr::memrchr as find_last;
}

pub(super) use search::{find, find_either, find_last};

/// RFC 3261 s25.1 `token`.
const TOKEN: u8 = 1;
/// What may stand unquoted in a parameter's value: `token`, `host` and, because real traffic
/// does so, the other characters that end nothing.
const VALUE: u8 = 1 << 1;
/// `hostname` and `IPv4address`, with the underscore that deployed names hold.
const HOST: u8 = 1 << 2;
/// Linear white space once line folding is taken for what it is.
const LWS: u8 = 1 << 3;
/// Bytes that end or corrupt a URI wherever they stand: controls, white space, `<`, `>`, `"`.
const NOT_URI: u8 = 1 << 4;
/// The inside of an `IPv6reference`.
const IPV6: u8 = 1 << 5;

const CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0u8; 256];
    let mut byte = 0;
    while byte < 256 {
        let c = byte as u8;
        let alphanumeric = c.is_ascii_alphanumeric();
        if alphanumeric || has(b"-.!%*_+`'~", c) {
            table[byte] |= TOKEN | VALUE;
        }
        if has(b"[]:@/$&?()=<>#|^{}", c) || c >= 0x80 {
            table[byte] |= VALUE;
        }
        if alphanumeric || has(b".-_", c) {
            table[byte] |= HOST;
        }
        if has(b" \t\r\n", c) {
            table[byte] |= LWS;
        }
        if c <= b' ' || c == 0x7f || has(b"<>\"", c) {
            table[byte] |= NOT_URI;
        }
        if c.is_ascii_hexdigit() || has(b":.", c) {
            table[byte] |= IPV6;
        }
        byte += 1;
    }
    table
}

const fn has(set: &[u8], byte: u8) -> bool {
    let mut i = 0;
    while i < set.len() {
        if set[i] == byte {
            return true;
        }
        i += 1;
    }
    false
}

#[inline]
fn class_end(text: &[u8], mut at: usize, class: u8) -> usize {
    while at < text.len() && CLASS[usize::from(text[at])] & class != 0 {
        at += 1;
    }
    at
}

/// Where the token that starts at `at` ends; `at` itself when there is none.
#[inline]
pub(super) fn token_end(text: &[u8], at: usize) -> usize {
    class_end(text, at, TOKEN)
}

/// Where an unquoted parameter value ends.
#[inline]
pub(super) fn value_end(text: &[u8], at: usize) -> usize {
    class_end(text, at, VALUE)
}

/// Where a host name or IPv4 address ends.
#[inline]
pub(super) fn host_end(text: &[u8], at: usize) -> usize {
    class_end(text, at, HOST)
}

/// Where the inside of an IPv6 reference ends.
#[inline]
pub(super) fn ipv6_end(text: &[u8], at: usize) -> usize {
    class_end(text, at, IPV6)
}

/// The first position from `at` on that is not white space or folding.
#[inline]
pub(super) fn skip_lws(text: &[u8], at: usize) -> usize {
    class_end(text, at, LWS)
}

/// Where a run of decimal digits ends.
#[inline]
pub(super) fn digits_end(text: &[u8], mut at: usize) -> usize {
    while at < text.len() && text[at].is_ascii_digit() {
        at += 1;
    }
    at
}

/// `text` without white space and folding at either end.
#[inline]
pub(super) fn trim(text: &[u8]) -> &[u8] {
    let mut text = text;
    while let [first, rest @ ..] = text {
        if CLASS[usize::from(*first)] & LWS == 0 {
            break;
        }
        text = rest;
    }
    while let [rest @ .., last] = text {
        if CLASS[usize::from(*last)] & LWS == 0 {
            break;
        }
        text = rest;
    }
    text
}

/// Whether `text` is one non-empty token.
#[inline]
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && token_end(text, 0) == text.len()
}

/// Whether `text` holds no byte that ends or corrupts a URI wherever it stands: controls, white
/// space, `<`, `>` and `"`.
#[inline]
pub(super) fn is_uri_text(text: &[u8]) -> bool {
    let Some(&last) = text.last_chunk::<8>() else {
        return text
            .iter()
            .all(|&byte| CLASS[usize::from(byte)] & NOT_URI == 0);
    };
    // The last eight bytes overlap those before them when the length is no multiple of eight.
    let mut words = text.as_chunks::<8>().0.iter();
    words.all(|&word| !holds_barred(word)) && !holds_barred(last)
}

/// Whether one of eight bytes is of the class `NOT_URI`, found in all of them at once.
#[inline]
fn holds_barred(bytes: [u8; 8]) -> bool {
    const fn all(byte: u8) -> u64 {
        u64::from_le_bytes([byte; 8])
    }
    // The high bit of a byte below `limit` ends up set; of the others, only next to such a one.
    let below = |word: u64, limit: u8| word.wrapping_sub(all(limit)) & !word;
    let word = u64::from_le_bytes(bytes);
    let found = below(word, b' ' + 1)
        | below(word ^ all(0x7f), 1)
        | below(word ^ all(b'"'), 1)
        // '<' and '>' differ in one bit.
        | below((word | all(0x02)) ^ all(b'>'), 1);
    found & all(0x80) != 0
}

/// Whether `text` holds no white space or folding.
#[inline]
pub(super) fn has_no_lws(text: &[u8]) -> bool {
    text.iter().all(|&byte| CLASS[usize::from(byte)] & LWS == 0)
}

/// The decimal number that `text` consists of, when it is at most `max`.
///
/// Leading zeros are legal (RFC 4475 3.1.1.1: `Max-Forwards: 0068`), so the length alone says
/// nothing; the running value is held against `max`, which must leave room for one digit more.
#[inline]
pub(super) fn decimal(text: &[u8], max: u64) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let mut value = 0u64;
    for &byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
        if value > max {
            return None;
        }
    }
    Some(value)
}

/// The position after the quoted string that opens at `at`; `None` when it never closes.
///
/// RFC 3261 s25.1: a backslash quotes any one byte, NUL and the quotation mark included.
#[inline]
pub(super) fn quoted_end(text: &[u8], at: usize) -> Option<usize> {
    debug_assert_eq!(text.get(at), Some(&b'"'));
    let mut from = at + 1;
    loop {
        let hit = from + find_either(b'"', b'\\', text.get(from..)?)?;
        if text[hit] == b'"' {
            return Some(hit + 1);
        }
        from = hit + 2;
    }
}

/// Splits at the first comma outside quotes and angle brackets; both halves untrimmed.
#[inline]
pub(super) fn split_comma(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    // Most values are alone on their line and hold no comma at all.
    match find(b',', text) {
        Some(_) => split_comma_with_care(text),
        None => (text, None),
    }
}

fn split_comma_with_care(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut at = 0;
    let mut angle = false;
    while at < text.len() {
        match text[at] {
            b'"' if !angle => match quoted_end(text, at) {
                Some(end) => {
                    at = end;
                    continue;
                }
                None => return (text, None),
            },
            b'<' => angle = true,
            b'>' => angle = false,
            b',' if !angle => return (&text[..at], Some(&text[at + 1..])),
            _ => {}
        }
        at += 1;
    }
    (text, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_above_its_limit_is_none_whatever_its_length() {
        assert_eq!(decimal(b"0068", 255), Some(68));
        assert_eq!(decimal(b"000000000000000000000000000001", 255), Some(1));
        assert_eq!(decimal(b"256", 255), None);
        assert_eq!(decimal(b"36893488147419103232", u64::from(u32::MAX)), None);
        assert_eq!(decimal(b"-1", 255), None);
        assert_eq!(decimal(b"", 255), None);
    }

    #[test]
    fn every_byte_barred_from_uris_is_found_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            for length in 1..20 {
                for at in 0..length {
                    let mut text = vec![b'!'; length];
                    text[at] = byte;
                    let barred = CLASS[usize::from(byte)] & NOT_URI != 0;
                    assert_eq!(is_uri_text(&text), !barred, "{byte:#x} at {at} of {length}");
                }
            }
        }
        assert!(is_uri_text(b""));
    }

    #[test]
    fn a_backslash_hides_a_quotation_mark() {
        assert_eq!(quoted_end(br#""a\"b" c"#, 0), Some(6));
        assert_eq!(quoted_end(br#""\\" c"#, 0), Some(4));
        assert_eq!(quoted_end(br#""open\""#, 0), None);
        assert_eq!(quoted_end(b"\"\\", 0), None);
    }

    #[test]
    fn a_comma_in_quotes_or_brackets_splits_nothing() {
        let (first, rest) = split_comma(br#""a,b" <sip:x,y@h>;p=1, <sip:z@h>"#);
        assert_eq!(first, br#""a,b" <sip:x,y@h>;p=1"#);
        assert_eq!(rest, Some(&b" <sip:z@h>"[..]));
        assert_eq!(split_comma(b"one"), (&b"one"[..], None));
    }
}
