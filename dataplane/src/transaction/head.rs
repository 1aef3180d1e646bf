//! What a transaction writes by itself: the head of every response, the ACK of a failure, and
//! its id as it stands in a branch.

use std::net::SocketAddr;

use slotmap::Key;

use super::table::TxnId;
use crate::compose;
use crate::sip::{HeaderId, Index, Message, parse, write};

// RFC 3261 18.2.2 and RFC 3581 4.
fn response_address(request: &Message<'_>, from: SocketAddr) -> SocketAddr {
    match request.top_via() {
        Some(via) if via.rport.is_none() => SocketAddr::new(from.ip(), via.port.unwrap_or(5060)),
        _ => from,
    }
}

/// Where the response goes, and where its Record-Route lines stand in what was written.
#[derive(Clone, Copy, Debug)]
pub struct WrittenHead {
    /// Destination of the response (RFC 3261 18.2.2, RFC 3581 4).
    pub address: SocketAddr,
    /// Start and end of the Record-Route lines.
    pub(super) record_route: (u32, u32),
}

/// Writes everything that RFC 3261 8.2.6.2 wants copied into a response. The To line comes last
/// and open, so that a tag can follow.
pub fn write_head(head: &mut Vec<u8>, request: &Message<'_>, from: SocketAddr) -> WrittenHead {
    for (place, via) in request.values(HeaderId::Via).enumerate() {
        if place == 0 {
            compose::received_via(head, via, from);
        } else {
            write::header(head, HeaderId::Via, via);
        }
    }
    write::header(
        head,
        HeaderId::From,
        request.header(HeaderId::From).unwrap_or_default(),
    );
    write::header(head, HeaderId::CallId, request.call_id());
    write::header(
        head,
        HeaderId::CSeq,
        request.header(HeaderId::CSeq).unwrap_or_default(),
    );
    let start = head.len();
    for route in request.headers(HeaderId::RecordRoute) {
        write::header(head, HeaderId::RecordRoute, route);
    }
    let end = head.len();
    head.extend_from_slice(b"To: ");
    head.extend_from_slice(request.header(HeaderId::To).unwrap_or_default());
    WrittenHead {
        address: response_address(request, from),
        record_route: (start as u32, end as u32),
    }
}

// RFC 3261 17.1.1.3: Request-URI, top Via, From, Call-ID, CSeq number and Route of the INVITE,
// To of the response.
pub(super) fn write_failure_ack(
    ack: &mut Vec<u8>,
    invite: &[u8],
    response: &Message<'_>,
    index: &mut Index,
) {
    let Ok(invite) = parse(invite, index) else {
        return;
    };
    write::request_line(ack, b"ACK", invite.request_uri());
    if let Some(via) = invite.values(HeaderId::Via).next() {
        write::header(ack, HeaderId::Via, via);
    }
    write::header(ack, HeaderId::MaxForwards, b"70");
    for route in invite.headers(HeaderId::Route) {
        write::header(ack, HeaderId::Route, route);
    }
    write::header(
        ack,
        HeaderId::From,
        invite.header(HeaderId::From).unwrap_or_default(),
    );
    write::header(
        ack,
        HeaderId::To,
        response.header(HeaderId::To).unwrap_or_default(),
    );
    write::header(ack, HeaderId::CallId, invite.call_id());
    write::cseq(ack, invite.cseq().0, b"ACK");
    compose::end_without_body(ack);
}

/// How transactions are named in branches. Every process numbers its transactions from the same
/// beginning, and the branches of a call that is gone on with elsewhere begin with the same token:
/// without a mask of its own a successor's first INVITE in a dialog would have the branch of the
/// one that opened it, and pass for its retransmission (RFC 3261 8.1.1.7).
#[derive(Clone, Copy, Debug)]
pub struct BranchIds {
    mask: u64,
}

impl BranchIds {
    /// Those of a process that drew this secret, which they do not tell.
    #[must_use]
    pub fn new(secret: u64) -> Self {
        let mask = super::key::hash_tag(secret, b"branch");
        Self { mask }
    }

    /// The text of a transaction's id.
    pub fn write(self, out: &mut Vec<u8>, id: TxnId) {
        compose::hex(out, id.data().as_ffi() ^ self.mask);
    }

    /// Reads what [`Self::write`] wrote. What another process wrote names nothing here.
    #[must_use]
    pub fn read(self, text: &[u8]) -> Option<TxnId> {
        let value = compose::read_hex(text)? ^ self.mask;
        Some(slotmap::KeyData::from_ffi(value).into())
    }
}
