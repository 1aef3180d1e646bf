//! The route table: which requests go to which next hops.

use std::net::SocketAddr;

use charging::config::ChargingClasses;

use super::file::{Wrong, wrong};
use crate::env::SplitMix64;
use crate::sip::Uri;

/// One `[[sip.route]]`.
#[derive(Clone, Debug)]
pub struct Route {
    /// What a call's state keeps of it: a hash of its conditions, its next hops as they are
    /// written and its user name, never [`crate::b2bua::NO_ROUTE`]. So a call finds its route
    /// again in a changed configuration, or none, but never another one.
    pub number: u16,
    /// What it applies to.
    pub matcher: Matcher,
    /// Next hops of the group.
    pub hops: Vec<Hop>,
    /// Who we are to them when they challenge.
    pub auth: Option<Auth>,
    /// Number of the charging class of what it takes.
    pub charging_class: Option<u16>,
}

/// User name and password for digest authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// A text that no log and no error shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a secret.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// One next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Where.
    pub address: SocketAddr,
    /// Lower is tried first (as in RFC 2782).
    pub priority: u16,
    /// Share among hops of one priority.
    pub weight: u16,
}

/// The conditions of a route; all given ones must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matcher {
    /// Method of the request.
    pub method: Option<String>,
    /// Host of the Request-URI.
    pub domain: Option<String>,
    /// Beginning of the Request-URI's user.
    pub prefix: Option<String>,
    /// Name of the peer that sent the request.
    pub peer: Option<String>,
    /// Glob over `user@host` of the Request-URI, or over the user alone when it has no `@`.
    pub pattern: Option<String>,
}

impl Matcher {
    /// The number of a route with these conditions, next hops and user name.
    pub(super) fn number<'a>(
        &self,
        hops: impl Iterator<Item = &'a str>,
        username: Option<&str>,
    ) -> u16 {
        let conditions = [
            ("method", &self.method),
            ("domain", &self.domain),
            ("prefix", &self.prefix),
            ("peer", &self.peer),
            ("pattern", &self.pattern),
        ];
        let mut text = String::new();
        let mut add = |name: &str, value: &str| text.extend([name, " ", value, "\n"]);
        for (name, value) in conditions {
            if let Some(value) = value {
                add(name, value);
            }
        }
        hops.for_each(|hop| add("next_hop", hop));
        if let Some(username) = username {
            add("username", username);
        }
        // 1 to 65,535 there, 0 to 65,534 here: the greatest says that there is no route.
        ChargingClasses::number_of(&text) - 1
    }

    /// Whether a request belongs to the route.
    #[must_use]
    pub fn matches(&self, method_text: &[u8], uri: &[u8], peer: &str) -> bool {
        let parsed = Uri::parse(uri).ok();
        let user = parsed.as_ref().and_then(|uri| uri.user).unwrap_or_default();
        let host = parsed.as_ref().map_or(uri, |uri| uri.host);
        self.method
            .as_ref()
            .is_none_or(|wanted| wanted.as_bytes() == method_text)
            && self
                .domain
                .as_ref()
                .is_none_or(|d| host.eq_ignore_ascii_case(d.as_bytes()))
            && self
                .prefix
                .as_ref()
                .is_none_or(|prefix| user.starts_with(prefix.as_bytes()))
            && self.peer.as_ref().is_none_or(|wanted| wanted == peer)
            && self.pattern.as_ref().is_none_or(|pattern| {
                let pattern = pattern.as_bytes();
                match pattern.iter().position(|&byte| byte == b'@') {
                    Some(at) => glob(&pattern[..at], user) && glob(&pattern[at + 1..], host),
                    None => glob(pattern, user) || (user.is_empty() && glob(pattern, host)),
                }
            })
    }
}

impl Route {
    /// The order in which the hops are tried: by priority, within one by weighted chance.
    /// Writes indices into `order`.
    pub fn order(&self, rng: &mut SplitMix64, order: &mut Vec<u8>) {
        order.clear();
        order.extend(0..self.hops.len() as u8);
        // Unstable, which allocates nothing: equal priorities are drawn by weight anyway.
        order.sort_unstable_by_key(|&hop| (self.hops[hop as usize].priority, hop));
        let mut start = 0;
        while start < order.len() {
            let priority = self.hops[order[start] as usize].priority;
            let end = start
                + order[start..]
                    .iter()
                    .take_while(|&&hop| self.hops[hop as usize].priority == priority)
                    .count();
            self.draw_by_weight(rng, &mut order[start..end]);
            start = end;
        }
    }

    fn draw_by_weight(&self, rng: &mut SplitMix64, group: &mut [u8]) {
        for place in 0..group.len() {
            let weight = |hop: &u8| u64::from(self.hops[*hop as usize].weight).max(1);
            let total: u64 = group[place..].iter().map(weight).sum();
            let mut drawn = rng.below(total);
            for other in place..group.len() {
                let share = weight(&group[other]);
                if drawn < share {
                    group.swap(place, other);
                    break;
                }
                drawn -= share;
            }
        }
    }
}

// `*` stands for any run of bytes; everything else for itself, letters without case.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let (mut star, mut mark) = (None, 0);
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some(p);
            mark = t;
            p += 1;
        } else if p < pattern.len() && pattern[p].eq_ignore_ascii_case(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some(at) = star {
            p = at + 1;
            mark += 1;
            t = mark;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// Refuses a table in which calls could take one route for another that matters.
pub(super) fn check_numbers(routes: &[Route]) -> Result<(), Wrong> {
    let mut order: Vec<usize> = (0..routes.len()).collect();
    order.sort_by_key(|&place| routes[place].number);
    for pair in order.windows(2) {
        let (one, other) = (&routes[pair[0]], &routes[pair[1]]);
        let differs = one.auth != other.auth || one.charging_class != other.charging_class;
        // Of two routes with the same conditions only the first is ever taken.
        if one.number == other.number && one.matcher != other.matcher && differs {
            return Err(wrong(
                format!("sip.route[{}]", pair[1]),
                format!("calls could not tell it from sip.route[{}]", pair[0]),
                "write its next hops in another way: the states of calls keep 16 bits of a route",
            ));
        }
    }
    Ok(())
}

/// Most next hops of one route.
pub(super) const HOPS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Matcher {
        Matcher {
            pattern: Some(text.to_owned()),
            ..Matcher::default()
        }
    }

    fn invites(matcher: &Matcher, uri: &str) -> bool {
        matcher.matches(b"INVITE", uri.as_bytes(), "")
    }

    #[test]
    fn a_pattern_covers_user_or_user_and_host() {
        assert!(invites(&pattern("*"), "sip:anyone@example.com"));
        assert!(invites(&pattern("+49*"), "sip:+4930123@example.com"));
        assert!(!invites(&pattern("+49*"), "sip:+4330123@example.com"));
        assert!(invites(&pattern("*@example.com"), "sip:a@EXAMPLE.com:5080"));
        assert!(!invites(&pattern("*@example.com"), "sip:a@example.org"));
        assert!(invites(&pattern("1*3"), "sip:1223@h"));
    }

    fn table(text: &str) -> Vec<Route> {
        let config = crate::config::Config::parse(text, std::path::Path::new("x"));
        config.unwrap_or_else(|wrong| panic!("{wrong}")).sip.routes
    }

    #[test]
    fn a_route_has_its_number_wherever_it_stands() {
        let own = "[[sip.route]]\nmatch = \"1*\"\nnext_hop = \"192.0.2.9\"\n";
        let other = "[[sip.route]]\nmatch = \"2*\"\nnext_hop = [\"192.0.2.9\"]\n";
        let number = |text: &str| table(text)[0].number;
        assert_eq!(number(own), table(&format!("{other}{own}"))[1].number);
        assert_eq!(
            number(own),
            number(&own.replace("\"192.0.2.9\"", "[\"192.0.2.9\"]"))
        );
        let secret = "password = \"x\"\n";
        let mut known = vec![
            number(own),
            number(other),
            number(&own.replace(".9", ".8")),
            number(&own.replace("\"1*\"", "{ prefix = \"1*\" }")),
            number(&format!("{own}username = \"a\"\n{secret}")),
            number(&format!("{own}username = \"b\"\n{secret}")),
        ];
        // A new password is the same route's.
        let renewed = format!("{own}username = \"b\"\npassword = \"y\"\n");
        assert_eq!(known.last(), Some(&number(&renewed)));
        known.sort_unstable();
        known.dedup();
        assert_eq!(known.len(), 6);
        assert!(known.iter().all(|&number| number != crate::b2bua::NO_ROUTE));
    }

    #[test]
    fn routes_that_calls_could_not_tell_apart_are_refused_if_it_matters() {
        let route = |pattern: &str, user: &str| Route {
            number: 7,
            matcher: Matcher {
                pattern: Some(pattern.to_owned()),
                ..Matcher::default()
            },
            hops: Vec::new(),
            auth: Some(Auth {
                username: user.to_owned(),
                password: Secret::new(String::new()),
            }),
            charging_class: None,
        };
        assert!(check_numbers(&[route("1*", "a"), route("2*", "a")]).is_ok());
        assert!(check_numbers(&[route("1*", "a"), route("1*", "b")]).is_ok());
        let wrong = check_numbers(&[route("1*", "a"), route("2*", "b")]).err();
        assert_eq!(wrong.expect("they share a number").key, "sip.route[1]");
    }

    #[test]
    fn hops_are_tried_by_priority_and_shared_by_weight() {
        let hop = |port, priority, weight| Hop {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            priority,
            weight,
        };
        let route = Route {
            number: 0,
            matcher: Matcher::default(),
            hops: vec![hop(1, 2, 1), hop(2, 1, 30), hop(3, 1, 10)],
            auth: None,
            charging_class: None,
        };
        let (mut rng, mut order, mut first) = (SplitMix64::new(1), Vec::new(), [0; 3]);
        for _ in 0..4_000 {
            route.order(&mut rng, &mut order);
            assert_eq!(order[2], 0, "the less preferred hop comes last");
            first[order[0] as usize] += 1;
        }
        assert!(
            (2_800..3_200).contains(&first[1]),
            "three quarters: {first:?}"
        );
    }
}
