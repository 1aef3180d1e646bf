//! Small pieces of messages that the transaction, dialog and B2BUA layers write and read.

use std::net::SocketAddr;

use crate::sip::{HeaderId, Params, Via, write};

/// Appends From or To: the address as it was kept, then the tag if there is one.
pub(crate) fn tagged(out: &mut Vec<u8>, id: HeaderId, address: &[u8], tag: &[u8]) {
    out.extend_from_slice(id.name().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(address);
    if !tag.is_empty() {
        out.extend_from_slice(b";tag=");
        out.extend_from_slice(tag);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the topmost Via of a response: as received, with `received` and `rport` telling the
/// request's true source (RFC 3261 18.2.1, RFC 3581 4).
pub(crate) fn received_via(out: &mut Vec<u8>, value: &[u8], source: SocketAddr) {
    let Ok(via) = Via::parse(value) else {
        write::header(out, HeaderId::Via, value);
        return;
    };
    let same_host = std::str::from_utf8(via.host)
        .ok()
        .and_then(|host| host.trim_matches(['[', ']']).parse().ok())
        .is_some_and(|ip: std::net::IpAddr| ip == source.ip());
    if same_host && via.rport.is_none() {
        write::header(out, HeaderId::Via, value);
        return;
    }
    out.extend_from_slice(b"Via: SIP/2.0/");
    out.extend_from_slice(via.transport);
    out.push(b' ');
    out.extend_from_slice(via.host);
    if let Some(port) = via.port {
        out.push(b':');
        write::number(out, u64::from(port));
    }
    for (name, value) in Params::new(via.params).flatten() {
        if name.eq_ignore_ascii_case(b"received") || name.eq_ignore_ascii_case(b"rport") {
            continue;
        }
        parameter(out, name, value);
    }
    out.extend_from_slice(b";received=");
    write::ip(out, source.ip(), false);
    if via.rport.is_some() {
        out.extend_from_slice(b";rport=");
        write::number(out, u64::from(source.port()));
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends `;name[=value]`.
pub(crate) fn parameter(out: &mut Vec<u8>, name: &[u8], value: Option<&[u8]>) {
    out.push(b';');
    out.extend_from_slice(name);
    if let Some(value) = value {
        out.push(b'=');
        out.extend_from_slice(value);
    }
}

/// Ends a message that has a body, perhaps an empty one.
pub(crate) fn end_with_body(out: &mut Vec<u8>, body: &[u8]) {
    write::header_number(out, HeaderId::ContentLength, body.len() as u64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
}

/// Ends a message that has none.
pub(crate) fn end_without_body(out: &mut Vec<u8>) {
    out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
}

/// Appends `value` in lower-case hexadecimal, without leading zeros.
pub(crate) fn hex(out: &mut Vec<u8>, value: u64) {
    let digits = (64 - value.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = (value >> (place * 4)) & 15;
        out.push(b"0123456789abcdef"[digit as usize]);
    }
}

/// Reads what [`hex`] wrote.
#[must_use]
pub(crate) fn read_hex(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 16 {
        return None;
    }
    text.iter().try_fold(0u64, |value, &byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

/// Splits a header value at its first comma that stands outside quotes and angle brackets.
#[must_use]
pub(crate) fn split_comma(text: &[u8]) -> (&[u8], &[u8]) {
    let (mut quoted, mut escaped, mut bracket) = (false, false, false);
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' if !bracket => quoted = !quoted,
            b'<' if !quoted => bracket = true,
            b'>' if !quoted => bracket = false,
            b',' if !quoted && !bracket => {
                return (text[..at].trim_ascii(), text[at + 1..].trim_ascii());
            }
            _ => {}
        }
    }
    (text.trim_ascii(), &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_goes_round() {
        for value in [0, 1, 0x10, 0xdead_beef, u64::MAX] {
            let mut text = Vec::new();
            hex(&mut text, value);
            assert_eq!(read_hex(&text), Some(value));
        }
        assert_eq!(read_hex(b"12345678901234567"), None);
        assert_eq!(read_hex(b"G"), None);
    }

    #[test]
    fn a_comma_inside_quotes_or_brackets_does_not_split() {
        let (first, rest) = split_comma(b"\"a, b\" <sip:x;y=1,2>, <sip:z>");
        assert_eq!(
            (first, rest),
            (&b"\"a, b\" <sip:x;y=1,2>"[..], &b"<sip:z>"[..])
        );
    }
}
