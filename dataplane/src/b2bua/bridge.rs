//! What crosses between the legs, and what is ours on each (sip.md's "two legs", in code).
//!
//! Hop-by-hop fields and those that a dialog owns are written anew by whoever calls this; what
//! belongs to the trust domain passes as its border allows; every other field passes as it is,
//! unknown ones included.

use super::trust::Trust;
use crate::compose;
use crate::sip::{HeaderId, Message, NameAddr, Params, write};

/// Which way and where a message goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crossing {
    /// On which sides of the trust domain's border sender and receiver are.
    pub(super) trust: Trust,
    /// Contact of the message passes (redirections, messages outside dialogs).
    pub(super) contact: bool,
    /// Fields that name a dialog are written by the caller.
    pub(super) names_dialog: bool,
}

/// Copies every field that crosses.
pub(super) fn copy_end_to_end(out: &mut Vec<u8>, message: &Message<'_>, crossing: Crossing) {
    let border = crossing.trust.border(message);
    write::copy_headers(out, message, |id| match id {
        HeaderId::Via
        | HeaderId::Route
        | HeaderId::RecordRoute
        | HeaderId::MaxForwards
        | HeaderId::From
        | HeaderId::To
        | HeaderId::CallId
        | HeaderId::CSeq
        | HeaderId::ContentLength
        | HeaderId::ProxyRequire
        | HeaderId::Supported
        | HeaderId::Require
        | HeaderId::Unsupported
        | HeaderId::SessionExpires
        | HeaderId::MinSe
        | HeaderId::RAck => false,
        HeaderId::Contact => crossing.contact,
        HeaderId::Replaces | HeaderId::Join | HeaderId::ReferTo => !crossing.names_dialog,
        other => border.passes(other),
    });
}

/// Writes Supported: what the sender supports, of what we can carry, and our own extensions.
pub(super) fn supported(out: &mut Vec<u8>, message: &Message<'_>, timer: bool) {
    let start = out.len();
    out.extend_from_slice(b"Supported: ");
    let before = out.len();
    for tag in message.values(HeaderId::Supported) {
        if !tag.eq_ignore_ascii_case(b"timer") && carries(tag) {
            separate(out, before);
            out.extend_from_slice(tag);
        }
    }
    if timer {
        separate(out, before);
        out.extend_from_slice(b"timer");
    }
    if out.len() == before {
        out.truncate(start);
    } else {
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes Require: what the sender requires, less what we settle on each leg by ourselves.
pub(super) fn require(out: &mut Vec<u8>, message: &Message<'_>, timer: bool) {
    let start = out.len();
    out.extend_from_slice(b"Require: ");
    let before = out.len();
    for tag in message.values(HeaderId::Require) {
        if !tag.eq_ignore_ascii_case(b"timer") {
            separate(out, before);
            out.extend_from_slice(tag);
        }
    }
    if timer {
        separate(out, before);
        out.extend_from_slice(b"timer");
    }
    if out.len() == before {
        out.truncate(start);
    } else {
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes the option tags of Require that we cannot carry into an Unsupported field. False if
/// there are none.
pub(super) fn unsupported(out: &mut Vec<u8>, request: &Message<'_>) -> bool {
    let start = out.len();
    out.extend_from_slice(b"Unsupported: ");
    let before = out.len();
    for tag in request
        .values(HeaderId::Require)
        .chain(request.values(HeaderId::ProxyRequire))
    {
        if !carries(tag) {
            separate(out, before);
            out.extend_from_slice(tag);
        }
    }
    if out.len() == before {
        out.truncate(start);
        return false;
    }
    out.extend_from_slice(b"\r\n");
    true
}

/// Whether every option tag that the request requires is one we can carry.
#[must_use]
pub(super) fn requires_only_known(request: &Message<'_>) -> bool {
    request
        .values(HeaderId::Require)
        .chain(request.values(HeaderId::ProxyRequire))
        .all(carries)
}

/// Writes our Contact, with the feature parameters of the sender's (RFC 3840), which the other
/// side may need; addresses and GRUUs of the sender stay behind.
pub(super) fn contact(out: &mut Vec<u8>, message: &Message<'_>, user: &[u8], host: &[u8]) {
    out.extend_from_slice(b"Contact: <sip:");
    out.extend_from_slice(user);
    out.push(b'@');
    out.extend_from_slice(host);
    out.push(b'>');
    let theirs = message
        .values(HeaderId::Contact)
        .next()
        .and_then(|value| NameAddr::parse(value).ok());
    if let Some(theirs) = theirs {
        for (name, value) in Params::new(theirs.params).flatten() {
            let local = [
                &b"expires"[..],
                b"q",
                b"pub-gruu",
                b"temp-gruu",
                b"reg-id",
                b"ob",
            ];
            if !local.iter().any(|other| name.eq_ignore_ascii_case(other)) {
                compose::parameter(out, name, value);
            }
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes RAck for the leg where the reliable response had INVITE CSeq `cseq`.
pub(super) fn rack(out: &mut Vec<u8>, message: &Message<'_>, cseq: u32) {
    let Some(value) = message.header(HeaderId::RAck) else {
        return;
    };
    let rseq = value
        .split(|byte| byte.is_ascii_whitespace())
        .next()
        .unwrap_or_default();
    out.extend_from_slice(b"RAck: ");
    out.extend_from_slice(rseq);
    out.push(b' ');
    write::number(out, u64::from(cseq));
    out.extend_from_slice(b" INVITE\r\n");
}

/// Whether a message's body is SDP.
#[must_use]
pub(super) fn sdp_of<'a>(message: &Message<'a>) -> Option<&'a [u8]> {
    let body = message.body();
    if body.is_empty() {
        return None;
    }
    let kind = message.header(HeaderId::ContentType)?;
    kind.get(..15)
        .is_some_and(|kind| kind.eq_ignore_ascii_case(b"application/sdp"))
        .then_some(body)
}

fn separate(out: &mut Vec<u8>, before: usize) {
    if out.len() > before {
        out.extend_from_slice(b", ");
    }
}

fn carries(tag: &[u8]) -> bool {
    OPTION_TAGS
        .iter()
        .any(|known| tag.eq_ignore_ascii_case(known))
}

/// Option tags (RFC 3261 27.1) whose extension works end to end through two legs, or that we
/// settle ourselves (`timer`).
const OPTION_TAGS: [&[u8]; 12] = [
    b"100rel",
    b"timer",
    b"precondition",
    b"replaces",
    b"join",
    b"norefersub",
    b"histinfo",
    b"199",
    b"tdialog",
    b"early-session",
    b"from-change",
    b"eventlist",
];
