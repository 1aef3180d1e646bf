//! One dialog: what RFC 3261 12 says a user agent must remember to go on talking.

use std::net::SocketAddr;

use super::{SessionTimer, Text, Texts};
use crate::compose;
use crate::env::ListenerId;
use crate::sip::{HeaderId, Message, NameAddr, Params, Uri, write};

/// State of one dialog (RFC 3261 12), its strings in the call's [`Texts`].
#[derive(Clone, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Dialog {
    /// Call-ID.
    pub call_id: Text,
    /// Our tag.
    pub local_tag: Text,
    /// The peer's tag, empty until it is known.
    pub remote_tag: Text,
    /// Our name-addr or addr-spec, without tag.
    pub local: Text,
    /// The peer's name-addr or addr-spec, without tag.
    pub remote: Text,
    /// Remote target: the Request-URI of what we send (12.2.1.1).
    pub remote_target: Text,
    /// Route set in the order of sending, comma separated; empty if there is none.
    pub route_set: Text,
    /// CSeq number of the last request we sent; 0 before the first.
    pub local_cseq: u32,
    /// CSeq number of the last request the peer sent, if it sent one.
    pub remote_cseq: Option<u32>,
    /// Where requests to the peer go.
    pub peer: SocketAddr,
    /// Through which listener.
    pub listener: ListenerId,
    /// Whether the peer announced UPDATE in an Allow header (RFC 3311).
    pub allows_update: bool,
    /// Session timer of this dialog (RFC 4028).
    pub session: SessionTimer,
}

impl Dialog {
    /// A dialog with nothing known but where to send.
    #[must_use]
    pub fn new(peer: SocketAddr, listener: ListenerId) -> Self {
        Self {
            call_id: Text::EMPTY,
            local_tag: Text::EMPTY,
            remote_tag: Text::EMPTY,
            local: Text::EMPTY,
            remote: Text::EMPTY,
            remote_target: Text::EMPTY,
            route_set: Text::EMPTY,
            local_cseq: 0,
            remote_cseq: None,
            peer,
            listener,
            allows_update: false,
            session: SessionTimer::default(),
        }
    }

    /// The dialog of a received request that opens one (12.1.1): we are the UAS.
    #[must_use]
    pub fn from_request(
        texts: &mut Texts,
        request: &Message<'_>,
        local_tag: &[u8],
        from: SocketAddr,
        listener: ListenerId,
    ) -> Self {
        let mut dialog = Self::new(from, listener);
        dialog.call_id = texts.add(request.call_id());
        dialog.local_tag = texts.add(local_tag);
        dialog.remote_tag = texts.add(request.from_tag().unwrap_or_default());
        dialog.local = add_address(texts, request.to());
        dialog.remote = add_address(texts, request.from());
        let start = texts.len();
        for (place, route) in request.values(HeaderId::RecordRoute).enumerate() {
            texts.add_parts(&[if place == 0 { b"" } else { b", " }, route]);
        }
        dialog.route_set = texts.since(start);
        dialog.remote_cseq = Some(request.cseq().0);
        dialog.refresh_target(texts, request, from);
        dialog
    }

    /// The dialog of a request we sent (12.1.2), from the request itself: for responses that
    /// come when the call is no longer there.
    #[must_use]
    pub fn from_own_request(
        texts: &mut Texts,
        request: &Message<'_>,
        peer: SocketAddr,
        listener: ListenerId,
    ) -> Self {
        let mut dialog = Self::new(peer, listener);
        dialog.call_id = texts.add(request.call_id());
        dialog.local_tag = texts.add(request.from_tag().unwrap_or_default());
        dialog.remote_tag = texts.add(request.to_tag().unwrap_or_default());
        dialog.local = add_address(texts, request.from());
        dialog.remote = add_address(texts, request.to());
        let start = texts.len();
        for (place, route) in request.values(HeaderId::Route).enumerate() {
            texts.add_parts(&[if place == 0 { b"" } else { b", " }, route]);
        }
        dialog.route_set = texts.since(start);
        dialog.remote_target = texts.add(request.request_uri());
        dialog
    }

    /// Completes the dialog from a response that establishes it (12.1.2): we are the UAC.
    pub fn establish(&mut self, texts: &mut Texts, response: &Message<'_>, from: SocketAddr) {
        texts.replace(&mut self.remote_tag, response.to_tag().unwrap_or_default());
        let count = response.values(HeaderId::RecordRoute).count();
        if count > 0 {
            let start = texts.len();
            for place in (0..count.min(ROUTES_MAX)).rev() {
                let route = response
                    .values(HeaderId::RecordRoute)
                    .nth(place)
                    .unwrap_or_default();
                let first = texts.len() == start;
                texts.add_parts(&[if first { b"" } else { b", " }, route]);
            }
            self.route_set = texts.since(start);
        } else {
            self.route_set = Text::EMPTY;
        }
        self.refresh_target(texts, response, from);
    }

    /// Takes a new remote target from a target refresh message (12.2), and whether the peer
    /// knows UPDATE. `from` is where the message came from, used when the Contact has no
    /// address that we can send to.
    pub fn refresh_target(&mut self, texts: &mut Texts, message: &Message<'_>, from: SocketAddr) {
        if message.header(HeaderId::Allow).is_some() {
            self.allows_update = message.has_token(HeaderId::Allow, b"UPDATE");
        }
        if let Some(contact) = message
            .values(HeaderId::Contact)
            .next()
            .and_then(|value| NameAddr::parse(value).ok())
        {
            texts.replace(&mut self.remote_target, contact.uri);
        }
        let routed = texts.get(self.route_set);
        let target = texts.get(self.remote_target);
        self.peer = next_hop(routed, target).unwrap_or(from);
    }

    /// Begins a request inside the dialog up to and including CSeq (12.2.1.1). Via comes from
    /// the caller, who knows the branch; so do Contact, further headers and the body.
    pub fn write_request(
        &self,
        texts: &Texts,
        out: &mut Vec<u8>,
        method: &[u8],
        cseq: u32,
        max_forwards: u8,
        via: impl FnOnce(&mut Vec<u8>),
    ) {
        let way = Way::new(texts.get(self.remote_target), texts.get(self.route_set));
        write::request_line(out, method, way.request_uri);
        via(out);
        write::header_number(out, HeaderId::MaxForwards, u64::from(max_forwards));
        way.write_routes(out);
        compose::tagged(
            out,
            HeaderId::From,
            texts.get(self.local),
            texts.get(self.local_tag),
        );
        compose::tagged(
            out,
            HeaderId::To,
            texts.get(self.remote),
            texts.get(self.remote_tag),
        );
        write::header(out, HeaderId::CallId, texts.get(self.call_id));
        write::cseq(out, cseq, method);
    }

    /// The next CSeq number of ours (12.2.1.1).
    pub fn next_cseq(&mut self) -> u32 {
        self.local_cseq += 1;
        self.local_cseq
    }
}

/// Request-URI and Route of a request to a target over a route set.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    /// The target, or the first router if that is a strict one.
    pub request_uri: &'a [u8],
    routes: &'a [u8],
    last: Option<&'a [u8]>,
}

impl<'a> Way<'a> {
    /// RFC 3261 12.2.1.1, 16.6: a strict router, one without `lr`, becomes the Request-URI, and
    /// the target the last route.
    #[must_use]
    pub fn new(target: &'a [u8], routes: &'a [u8]) -> Self {
        match strict_route(routes) {
            Some((router, rest)) => Self {
                request_uri: router,
                routes: rest,
                last: Some(target),
            },
            None => Self {
                request_uri: target,
                routes,
                last: None,
            },
        }
    }

    /// Writes the Route fields.
    pub fn write_routes(&self, out: &mut Vec<u8>) {
        if !self.routes.is_empty() {
            write::header(out, HeaderId::Route, self.routes);
        }
        if let Some(target) = self.last {
            out.extend_from_slice(b"Route: <");
            out.extend_from_slice(target);
            out.extend_from_slice(b">\r\n");
        }
    }
}

/// Where a request with this route set and target goes (RFC 3261 8.1.2), if the host is an
/// address; names are resolved before.
#[must_use]
pub fn next_hop(routes: &[u8], target: &[u8]) -> Option<SocketAddr> {
    let uri = match first_route(routes) {
        Some((route, _)) => route,
        None => target,
    };
    Uri::parse(uri).ok()?.socket_addr()
}

// The URI of the first route when that router is a strict one (no lr parameter), and the rest.
fn strict_route(routes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (uri, rest) = first_route(routes)?;
    let loose = Uri::parse(uri).is_ok_and(|uri| uri.param(b"lr").is_some());
    (!loose).then_some((uri, rest))
}

fn first_route(routes: &[u8]) -> Option<(&[u8], &[u8])> {
    if routes.is_empty() {
        return None;
    }
    let (first, rest) = compose::split_comma(routes);
    Some((NameAddr::parse(first).ok()?.uri, rest))
}

// From and To are kept as they came, less their tag: display name and parameters included.
fn add_address(texts: &mut Texts, address: Option<NameAddr<'_>>) -> Text {
    let Some(address) = address else {
        return Text::EMPTY;
    };
    let start = texts.len();
    if !address.display.is_empty() {
        texts.add_parts(&[address.display, b" "]);
    }
    texts.add_parts(&[b"<", address.uri, b">"]);
    for (name, value) in Params::new(address.params).flatten() {
        if name.eq_ignore_ascii_case(b"tag") {
            continue;
        }
        match value {
            Some(value) => texts.add_parts(&[b";", name, b"=", value]),
            None => texts.add_parts(&[b";", name]),
        };
    }
    texts.since(start)
}

/// Most routes taken from a Record-Route set.
const ROUTES_MAX: usize = 32;
