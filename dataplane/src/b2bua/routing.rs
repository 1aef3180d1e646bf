//! Where a request goes: the route table, else its top Route, else its Request-URI.

use std::net::SocketAddr;

use super::{B2bua, NO_ROUTE, Origin};
use crate::compose;
use crate::config::Route;
use crate::dialog::{Text, Texts};
use crate::env::{Env, ListenerId};
use crate::sip::{HeaderId, Message, NameAddr, Uri, write};

/// Why a request cannot be routed: the answer it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoute {
    pub(super) status: u16,
    pub(super) reason: &'static [u8],
}

impl B2bua {
    /// Fills `hops` with the next hops to try, last first, those in poor health behind the others, and returns the route set of the
    /// request as it leaves, its Route less the one that names us (RFC 3261 16.4), beside the
    /// number of the route taken.
    pub(super) fn route(
        &self,
        env: &mut Env,
        texts: &mut Texts,
        request: &Message<'_>,
        origin: Origin,
        hops: &mut Vec<(SocketAddr, ListenerId)>,
    ) -> Result<(Text, u16), NoRoute> {
        let routes = self.remaining_routes(texts, request);
        hops.clear();
        if let Some(route) = self.route_for(request, origin) {
            let mut order = env.pool.take();
            route.order(&mut env.rng, &mut order);
            for avoided in [true, false] {
                for &hop in order.iter().rev() {
                    let address = route.hops[usize::from(hop)].address;
                    if self.hops.avoids(address, env.now_ms) == avoided {
                        hops.push((address, self.listener_for(address, origin.listener)));
                    }
                }
            }
            env.pool.give(order);
            return Ok((routes, route.number));
        }
        let address = match compose::split_comma(texts.get(routes)).0 {
            [] => address_of(request.request_uri())?,
            first => address_of(NameAddr::parse(first).map_err(|_| BAD_ROUTE)?.uri)?,
        };
        if self.is_own(address) {
            return Err(NoRoute {
                status: 404,
                reason: b"Not Found",
            });
        }
        hops.push((address, self.listener_for(address, origin.listener)));
        Ok((routes, NO_ROUTE))
    }

    /// The first entry of the route table that covers a request.
    pub(super) fn route_for(&self, request: &Message<'_>, origin: Origin) -> Option<&Route> {
        let peer = self.config.peer_of(origin.from);
        let peer = peer.map_or("", |peer| self.config.sip.peers[peer].name.as_str());
        let (method, uri) = (request.method_text(), request.request_uri());
        let mut routes = self.config.sip.routes.iter();
        routes.find(|route| route.matcher.matches(method, uri, peer))
    }

    /// Whether an address is one that this node listens on.
    fn is_own(&self, address: SocketAddr) -> bool {
        let sip = &self.config.sip;
        sip.listen.contains(&address) || sip.advertise_addrs.contains(&Some(address))
    }

    // The listener that reaches `address`: one of the same family, by preference `first`.
    pub(super) fn listener_for(&self, address: SocketAddr, first: ListenerId) -> ListenerId {
        let listen = &self.config.sip.listen;
        if listen[first.index()].is_ipv4() == address.is_ipv4() {
            return first.own();
        }
        let fitting = listen
            .iter()
            .position(|own| own.is_ipv4() == address.is_ipv4());
        fitting.map_or(first.own(), ListenerId::new)
    }

    fn remaining_routes(&self, texts: &mut Texts, request: &Message<'_>) -> Text {
        let start = texts.len();
        for (place, route) in request.values(HeaderId::Route).enumerate() {
            if place == 0 && self.is_our_route(route) {
                continue;
            }
            let first = texts.len() == start;
            texts.add_parts(&[if first { b"" } else { b", " }, route]);
        }
        texts.since(start)
    }

    /// Writes a first request that came by a strict router as it was before that: this node's URI
    /// stands in place of the target, and the target is the last route (RFC 3261 16.4). False if
    /// it did not come so.
    pub(super) fn straighten(&self, out: &mut Vec<u8>, request: &Message<'_>) -> bool {
        let own = Uri::parse(request.request_uri()).is_ok_and(|uri| {
            uri.user.is_none() && uri.param(b"lr").is_some() && self.names_us(&uri)
        });
        let last = request.values(HeaderId::Route).last();
        let Some(target) = last.filter(|route| own && !self.is_our_route(route)) else {
            return false;
        };
        let Ok(target) = NameAddr::parse(target) else {
            return false;
        };
        write::request_line(out, request.method_text(), target.uri);
        write::copy_headers(out, request, |id| id != HeaderId::Route);
        let count = request.values(HeaderId::Route).count();
        for route in request.values(HeaderId::Route).take(count - 1) {
            write::header(out, HeaderId::Route, route);
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(request.body());
        true
    }

    fn is_our_route(&self, route: &[u8]) -> bool {
        NameAddr::parse(route)
            .ok()
            .and_then(|route| Uri::parse(route.uri).ok())
            .is_some_and(|uri| self.names_us(&uri))
    }
}

fn address_of(uri: &[u8]) -> Result<SocketAddr, NoRoute> {
    let uri = Uri::parse(uri).map_err(|_| BAD_ROUTE)?;
    if !matches!(uri.scheme, crate::sip::Scheme::Sip) {
        return Err(NoRoute {
            status: 416,
            reason: b"Unsupported URI Scheme",
        });
    }
    // Host names are resolved where they stand in the configuration; a call to a name that no
    // route covers has nowhere to go.
    uri.socket_addr().ok_or(NoRoute {
        status: 404,
        reason: b"No Route To Host",
    })
}

const BAD_ROUTE: NoRoute = NoRoute {
    status: 400,
    reason: b"Bad Route",
};
