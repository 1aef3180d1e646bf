//! Dialogs that a message names: Replaces and Join of an INVITE (RFC 3891, RFC 3911), Replaces
//! inside a Refer-To (RFC 5589). Whoever wrote the name knows the dialog of his own leg; the
//! party it is meant for knows that of the other leg, so that the name is translated on its way.
//!
//! A call is found in its own shard only: a name that belongs elsewhere passes as it is.

use super::call_state::Phase;
use super::{B2bua, Side};
use crate::env::CallKey;
use crate::sip::{HeaderId, Message, NameAddr, Uri, param, write};

/// A dialog as Replaces names it: Call-ID, to-tag, from-tag, and what else stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named<'a> {
    call_id: &'a [u8],
    to_tag: &'a [u8],
    from_tag: &'a [u8],
    early_only: bool,
}

impl<'a> Named<'a> {
    fn parse(value: &'a [u8]) -> Option<Self> {
        let end = value.iter().position(|&byte| byte == b';')?;
        let (call_id, params) = value.split_at(end);
        Some(Self {
            call_id: call_id.trim_ascii(),
            to_tag: param(params, b"to-tag").flatten()?,
            from_tag: param(params, b"from-tag").flatten()?,
            early_only: param(params, b"early-only").is_some(),
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.call_id);
        out.extend_from_slice(b";to-tag=");
        out.extend_from_slice(self.to_tag);
        out.extend_from_slice(b";from-tag=");
        out.extend_from_slice(self.from_tag);
        if self.early_only {
            out.extend_from_slice(b";early-only");
        }
    }
}

impl B2bua {
    /// Writes the fields of `message` that name a dialog, translated where it is one of ours.
    pub(super) fn write_named_dialogs(&self, out: &mut Vec<u8>, message: &Message<'_>) {
        for id in [HeaderId::Replaces, HeaderId::Join] {
            for value in message.headers(id) {
                match Named::parse(value).and_then(|named| self.across(named)) {
                    Some(other) => {
                        out.extend_from_slice(id.name().as_bytes());
                        out.extend_from_slice(b": ");
                        other.write(out);
                        out.extend_from_slice(b"\r\n");
                    }
                    None => write::header(out, id, value),
                }
            }
        }
        for value in message.headers(HeaderId::ReferTo) {
            let start = out.len();
            out.extend_from_slice(b"Refer-To: ");
            if refer_to(out, value, |named| self.across(named)) {
                out.extend_from_slice(b"\r\n");
            } else {
                out.truncate(start);
                write::header(out, HeaderId::ReferTo, value);
            }
        }
    }

    // The same call on its other leg. The writer's peer in the dialog is us: to-tag is ours.
    fn across(&self, named: Named<'_>) -> Option<Named<'_>> {
        let (key, side, _) = self.find(named.to_tag)?;
        let state = &self.calls[key].state;
        let texts = &state.texts;
        let leg = &state.legs[side.index()];
        let is_it =
            texts.get(leg.call_id) == named.call_id && texts.get(leg.remote_tag) == named.from_tag;
        let other = &state.legs[side.other().index()];
        let usable = state.phase != Phase::Ended && !other.remote_tag.is_empty();
        (is_it && usable).then(|| Named {
            call_id: texts.get(other.call_id),
            to_tag: texts.get(other.remote_tag),
            from_tag: texts.get(other.local_tag),
            early_only: named.early_only,
        })
    }

    /// The call that an INVITE takes over or joins, whichever leg it names.
    pub(super) fn replaced_call(&self, invite: &Message<'_>) -> Option<CallKey> {
        let named = Named::parse(invite.header(HeaderId::Replaces)?)?;
        let is_leg = |key: CallKey, side: Side, theirs: &[u8]| {
            let state = &self.calls[key].state;
            let leg = &state.legs[side.index()];
            state.texts.get(leg.call_id) == named.call_id
                && state.texts.get(leg.remote_tag) == theirs
        };
        [
            (named.to_tag, named.from_tag),
            (named.from_tag, named.to_tag),
        ]
        .into_iter()
        .find_map(|(ours, theirs)| {
            let (key, side, _) = self.find(ours)?;
            is_leg(key, side, theirs).then_some(key)
        })
    }
}

/// Whether a message has a field that names a dialog.
pub(super) fn names_dialog(message: &Message<'_>) -> bool {
    message.is_request()
        && [HeaderId::Replaces, HeaderId::Join, HeaderId::ReferTo]
            .into_iter()
            .any(|id| message.header(id).is_some())
}

// Writes a Refer-To whose URI carries an escaped Replaces, translated. False if it has none that
// can be.
fn refer_to<'n>(
    out: &mut Vec<u8>,
    value: &[u8],
    across: impl FnOnce(Named<'_>) -> Option<Named<'n>>,
) -> bool {
    let Some((before, escaped, behind)) = replaces_of(value) else {
        return false;
    };
    let Some(plain) = unescaped(escaped) else {
        return false;
    };
    let Some(other) = Named::parse(&plain).and_then(across) else {
        return false;
    };
    let mut named = Vec::new();
    other.write(&mut named);
    out.extend_from_slice(before);
    escape(out, &named);
    out.extend_from_slice(behind);
    true
}

// The value of `Replaces=` among the headers of a Refer-To's URI, and what stands around it.
fn replaces_of(value: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let address = NameAddr::parse(value).ok()?;
    let headers = Uri::parse(address.uri).ok()?.headers;
    let name = b"replaces=";
    let at = headers
        .windows(name.len())
        .position(|part| part.eq_ignore_ascii_case(name))?;
    if at == 0 || !matches!(headers[at - 1], b'?' | b'&') {
        return None;
    }
    let text = &headers[at + name.len()..];
    let text = text.split(|&byte| byte == b'&').next().unwrap_or_default();
    // Both are parts of `value`: where one stands in the other.
    let start = (text.as_ptr() as usize).checked_sub(value.as_ptr() as usize)?;
    let (before, rest) = value.split_at_checked(start)?;
    let (text, behind) = rest.split_at_checked(text.len())?;
    Some((before, text, behind))
}

fn unescaped(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() > NAME_BYTES_MAX {
        return None;
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            plain.push(byte);
            continue;
        }
        let (digits, tail) = tail.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok()?;
        plain.push(u8::from_str_radix(digits, 16).ok()?);
        rest = tail;
    }
    Some(plain)
}

// RFC 3261 25.1: unreserved stands as it is, everything else is escaped.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) {
            out.push(byte);
        } else {
            let digit = |value: u8| b"0123456789ABCDEF"[usize::from(value)];
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

/// Longest escaped name of a dialog that is looked at, bytes.
const NAME_BYTES_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: Named<'_> = Named {
        call_id: b"out@us",
        to_tag: b"t",
        from_tag: b"u",
        early_only: false,
    };

    #[test]
    fn a_name_is_read_whatever_the_order_of_its_parts() {
        let named = Named::parse(b"a@b ;from-tag=f;early-only;to-tag=t").expect("a name");
        assert_eq!(
            (named.call_id, named.to_tag, named.from_tag),
            (&b"a@b"[..], &b"t"[..], &b"f"[..])
        );
        assert!(named.early_only);
        let mut out = Vec::new();
        named.write(&mut out);
        assert_eq!(out, b"a@b;to-tag=t;from-tag=f;early-only");
        for bad in [&b""[..], b"a@b", b"a@b;to-tag=t", b";"] {
            assert_eq!(Named::parse(bad), None);
        }
    }

    #[test]
    fn the_name_inside_a_refer_to_is_translated_in_its_place() {
        let value =
            b"\"Tom\" <sip:t@h;x=y?Subject=hi&Replaces=a%40b%3Bto-tag%3D1%3Bfrom-tag%3D2&A=b>;p=q";
        let mut out = Vec::new();
        let done = refer_to(&mut out, value, |named| {
            assert_eq!(
                (named.call_id, named.to_tag, named.from_tag),
                (&b"a@b"[..], &b"1"[..], &b"2"[..])
            );
            Some(OTHER)
        });
        assert!(done);
        let expected = b"\"Tom\" <sip:t@h;x=y?Subject=hi&Replaces=out%40us%3Bto-tag%3Dt%3Bfrom-tag%3Du&A=b>;p=q";
        assert_eq!(out, expected, "{}", String::from_utf8_lossy(&out));
    }

    #[test]
    fn a_refer_to_without_a_dialog_of_ours_passes_as_it_is() {
        for value in [
            &b"<sip:t@h>"[..],
            b"sip:t@h",
            b"<sip:t@h?NotReplaces=a%40b%3Bto-tag%3D1%3Bfrom-tag%3D2>",
            b"<sip:t@h?Replaces=a%4>",
            b"<sip:t@h?Replaces=%ZZ>",
            b"<sip:t@h?Replaces=>",
        ] {
            assert!(!refer_to(&mut Vec::new(), value, |_| Some(OTHER)));
        }
        let known = b"<sip:t@h?Replaces=a%40b%3Bto-tag%3D1%3Bfrom-tag%3D2>";
        assert!(!refer_to(&mut Vec::new(), known, |_| None));
    }
}
