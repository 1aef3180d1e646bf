//! The outbound proxies of a phone, and which of them answer.
//!
//! New transactions go round among those that answer. One that leaves a request unanswered and
//! says nothing else either counts as silent for a while; then one request tries it again.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use dataplane::sip::Uri;

/// What a phone knows of its proxies.
pub(super) struct Proxies {
    all: Vec<Proxy>,
    turn: usize,
}

struct Proxy {
    address: SocketAddr,
    heard: Option<Instant>,
    silent: Option<Instant>,
}

impl Proxies {
    /// # Panics
    /// If there is none.
    pub(super) fn new(addresses: &[SocketAddr]) -> Self {
        assert!(!addresses.is_empty(), "a phone talks to somebody");
        let all = addresses.iter().map(|address| Proxy {
            address: *address,
            heard: None,
            silent: None,
        });
        Self {
            all: all.collect(),
            turn: 0,
        }
    }

    /// Somebody said something.
    pub(super) fn on_heard(&mut self, now: Instant, from: SocketAddr) {
        if let Some(proxy) = self.all.iter_mut().find(|proxy| proxy.address == from) {
            proxy.heard = Some(now);
            proxy.silent = None;
        }
    }

    /// Where the next transaction goes.
    pub(super) fn next(&mut self, now: Instant) -> SocketAddr {
        self.next_but(now, None)
    }

    /// Where a request of a call goes whose remote target is `contact`: there, if that is one of
    /// ours and it answers.
    pub(super) fn towards(&mut self, now: Instant, contact: &[u8]) -> SocketAddr {
        let home = address_of(contact);
        let home = self.all.iter_mut().find(|p| Some(p.address) == home);
        if let Some(proxy) = home
            && proxy.may_be_asked(now)
        {
            return proxy.address;
        }
        self.next(now)
    }

    /// Where a request goes that was sent to `to` at `sent`, `copies` times in all, and has no
    /// answer. To the same once more if that one is well: then it was the network.
    pub(super) fn after(
        &mut self,
        now: Instant,
        to: SocketAddr,
        sent: Instant,
        copies: u32,
    ) -> SocketAddr {
        let Some(proxy) = self.all.iter_mut().find(|proxy| proxy.address == to) else {
            return to;
        };
        if proxy.heard.is_some_and(|heard| heard >= sent) {
            if copies < COPIES_TO_ONE {
                return to;
            }
        } else if proxy.silent.is_none() {
            proxy.silent = Some(now);
        }
        self.next_but(now, Some(to))
    }

    fn next_but(&mut self, now: Instant, but: Option<SocketAddr>) -> SocketAddr {
        let count = self.all.len();
        for step in 0..count {
            let place = (self.turn + step) % count;
            let proxy = &mut self.all[place];
            if Some(proxy.address) != but && proxy.may_be_asked(now) {
                self.turn = place + 1;
                return proxy.address;
            }
        }
        // All are silent: each in its turn.
        self.turn = (self.turn + 1) % count;
        self.all[self.turn].address
    }
}

impl Proxy {
    fn may_be_asked(&mut self, now: Instant) -> bool {
        match self.silent {
            None => true,
            Some(since) if now.saturating_duration_since(since) >= SILENT => {
                // One request tries, the others wait for what becomes of it.
                self.silent = Some(now);
                true
            }
            Some(_) => false,
        }
    }
}

fn address_of(contact: &[u8]) -> Option<SocketAddr> {
    let uri = Uri::parse(contact).ok()?;
    let host = std::str::from_utf8(uri.host).ok()?;
    let ip: IpAddr = host.trim_matches(['[', ']']).parse().ok()?;
    Some(SocketAddr::new(ip, uri.port.unwrap_or(5060)))
}

/// How long a proxy that did not answer is left alone.
const SILENT: Duration = Duration::from_secs(2);
/// Copies of a request that one proxy gets while it is well.
const COPIES_TO_ONE: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> ([SocketAddr; 3], Proxies) {
        let all = [1, 2, 3].map(|host| SocketAddr::from(([192, 0, 2, host], 5060)));
        (all, Proxies::new(&all))
    }

    #[test]
    fn what_a_silent_proxy_left_unanswered_goes_to_the_next_and_so_do_new_requests() {
        let ([one, two, three], mut proxies) = three();
        let start = Instant::now();
        let later = start + Duration::from_millis(500);
        assert_eq!(proxies.next(start), one);
        assert_eq!(proxies.after(later, one, start, 1), two);
        let contact = format!("sip:token@{one}");
        assert_eq!(proxies.towards(later, contact.as_bytes()), three);
        assert_eq!(proxies.next(later), two);
        assert_eq!(proxies.next(later), three);
        assert_eq!(proxies.next(later), two, "the silent one is passed over");
        let again = later + SILENT;
        assert_eq!(proxies.towards(again, contact.as_bytes()), one, "one tries");
        assert_ne!(proxies.towards(again, contact.as_bytes()), one, "one only");
        proxies.on_heard(again, one);
        assert_eq!(proxies.towards(again, contact.as_bytes()), one);
    }

    #[test]
    fn a_proxy_that_is_well_gets_one_copy_more() {
        let ([one, two, _], mut proxies) = three();
        let start = Instant::now();
        assert_eq!(proxies.next(start), one);
        proxies.on_heard(start, one);
        assert_eq!(proxies.after(start, one, start, 1), one);
        assert_eq!(proxies.after(start, one, start, 2), two);
        assert!(proxies.all[0].silent.is_none());
    }

    #[test]
    fn a_phone_with_one_proxy_stays_with_it() {
        let only = SocketAddr::from(([192, 0, 2, 1], 5060));
        let mut proxies = Proxies::new(&[only]);
        let now = Instant::now();
        for copies in 1..5 {
            assert_eq!(proxies.after(now, only, now, copies), only);
            assert_eq!(proxies.next(now), only);
        }
    }
}
