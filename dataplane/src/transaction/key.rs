//! How requests find their server transaction (RFC 3261 17.2.3).

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::sip::{HeaderId, Message, Method};

/// Key of a server transaction: a keyed 128-bit hash of what RFC 3261 17.2.3 compares.
///
/// The hash key is secret and new in every process, so two transactions meet in one key only by a
/// chance of 2^-128 per pair; comparing the fields again would add nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerKey(pub u128);

/// Key under which `request` is found again; an ACK has its INVITE's key.
#[must_use]
pub fn key_of_request(secret: u64, request: &Message<'_>) -> ServerKey {
    let method = match request.method() {
        Method::Ack => Method::Invite,
        other => other,
    };
    key(secret, request, method)
}

/// Key of the INVITE transaction that a CANCEL means (RFC 3261 9.2).
#[must_use]
pub fn key_of_cancelled(secret: u64, cancel: &Message<'_>) -> ServerKey {
    key(secret, cancel, Method::Invite)
}

/// Key of a request by its source, whatever way it took (RFC 3261 8.2.2.2, merged requests).
#[must_use]
pub fn merge_key(secret: u64, request: &Message<'_>) -> ServerKey {
    let mut hash = SipHasher13::new_with_keys(secret, MERGED);
    hash.write(request.call_id());
    hash.write(request.from_tag().unwrap_or_default());
    hash.write_u32(request.cseq().0);
    hash.write_u8(request.method() as u8);
    ServerKey(hash.finish128().as_u128())
}

/// A number that stands for a tag.
#[must_use]
pub fn hash_tag(secret: u64, tag: &[u8]) -> u64 {
    let mut hash = SipHasher13::new_with_keys(secret, TAG);
    hash.write(tag);
    hash.finish128().h1
}

fn key(secret: u64, request: &Message<'_>, method: Method) -> ServerKey {
    let mut hash = SipHasher13::new_with_keys(secret, MATCHED);
    hash.write_u8(method as u8);
    if method == Method::Other {
        hash.write(request.method_text());
    }
    let via = request.top_via();
    match via.as_ref().and_then(|via| Some((via, via.branch?))) {
        Some((via, branch)) if branch.len() > COOKIE.len() && is_cookie(branch) => {
            hash.write(branch);
            hash.write_u8(b'\n');
            write_lower(&mut hash, via.host);
            hash.write_u16(via.port.unwrap_or(5060));
        }
        _ => write_rfc2543(&mut hash, request),
    }
    ServerKey(hash.finish128().as_u128())
}

fn is_cookie(branch: &[u8]) -> bool {
    branch[..COOKIE.len()].eq_ignore_ascii_case(COOKIE)
}

// RFC 3261 17.2.3, requests without the magic cookie: Request-URI, From tag, Call-ID, CSeq
// number and top Via. (The To tag is left out, since an ACK carries one its INVITE had not.)
fn write_rfc2543(hash: &mut SipHasher13, request: &Message<'_>) {
    for part in [
        request.request_uri(),
        request.from_tag().unwrap_or_default(),
        request.call_id(),
        request.header(HeaderId::Via).unwrap_or_default(),
    ] {
        hash.write_usize(part.len());
        hash.write(part);
    }
    hash.write_u32(request.cseq().0);
}

fn write_lower(hash: &mut SipHasher13, text: &[u8]) {
    for byte in text {
        hash.write_u8(byte.to_ascii_lowercase());
    }
}

/// Magic cookie of RFC 3261 8.1.1.7.
const COOKIE: &[u8] = b"z9hG4bK";
/// Second half of the hash key for transaction matching.
const MATCHED: u64 = 0x7472_616e_7361_6374;
/// Second half of the hash key for tags.
const TAG: u64 = 0x7461_6720_6861_7368;
/// Second half of the hash key for merged-request detection.
const MERGED: u64 = 0x6d65_7267_6564_3438;
