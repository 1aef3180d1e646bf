//! What shards of different nodes say to each other about SIP.
//!
//! ```text
//!   Inward   1 | hops u8 | relay u8 | listener u8 | address | the datagram as it came
//!   Outward  2 | listener u8                     | address | the datagram to send
//!   Claims   3 | keys u64 each: initial requests that the sender has taken
//!   address  4 | 4 octets | port u16     or     6 | 16 octets | port u16      (big-endian)
//! ```
//!
//! A request of a call that another node owns goes inward with its source address; what the owner
//! answers goes outward through the node that received it, so that the sender hears it from the
//! address it spoke to. Claims keep a request that is repeated to another node from opening a
//! second call there.

use std::collections::VecDeque;
use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};

use hashbrown::HashMap;
use siphasher::sip::SipHasher13;

use crate::sip::Message;

/// A message between shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward<'a> {
    /// A datagram that came from `from` through listener `listener` of node `relay`.
    Inward {
        /// How often it may still be passed on.
        hops: u8,
        /// Node that received it.
        relay: u8,
        /// Index of the listener.
        listener: u8,
        /// Who sent it.
        from: SocketAddr,
        /// The datagram.
        bytes: &'a [u8],
    },
    /// A datagram that the receiver shall send to `to` through its listener `listener`.
    Outward {
        /// Index of the listener.
        listener: u8,
        /// Whom to send it to.
        to: SocketAddr,
        /// The datagram.
        bytes: &'a [u8],
    },
    /// Initial requests that the sender takes care of.
    Claims(&'a [u8]),
}

impl<'a> Forward<'a> {
    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Inward {
                hops,
                relay,
                listener,
                from,
                bytes,
            } => {
                out.extend_from_slice(&[INWARD, hops, relay, listener]);
                write_address(out, from);
                out.extend_from_slice(bytes);
            }
            Self::Outward {
                listener,
                to,
                bytes,
            } => {
                out.extend_from_slice(&[OUTWARD, listener]);
                write_address(out, to);
                out.extend_from_slice(bytes);
            }
            Self::Claims(keys) => {
                out.push(CLAIMS);
                out.extend_from_slice(keys);
            }
        }
    }

    /// Reads a message. `None` if it is none.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        match bytes {
            [INWARD, hops, relay, listener, rest @ ..] => {
                let (from, bytes) = read_address(rest)?;
                Some(Self::Inward {
                    hops: *hops,
                    relay: *relay,
                    listener: *listener,
                    from,
                    bytes,
                })
            }
            [OUTWARD, listener, rest @ ..] => {
                let (to, bytes) = read_address(rest)?;
                Some(Self::Outward {
                    listener: *listener,
                    to,
                    bytes,
                })
            }
            [CLAIMS, keys @ ..] if keys.len().is_multiple_of(8) => Some(Self::Claims(keys)),
            _ => None,
        }
    }
}

fn write_address(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.port().to_be_bytes());
}

fn read_address(bytes: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (ip, rest): (IpAddr, _) = match bytes.split_first()? {
        (4, rest) => {
            let (octets, rest) = rest.split_first_chunk::<4>()?;
            ((*octets).into(), rest)
        }
        (6, rest) => {
            let (octets, rest) = rest.split_first_chunk::<16>()?;
            ((*octets).into(), rest)
        }
        _ => return None,
    };
    let (port, rest) = rest.split_first_chunk::<2>()?;
    Some((SocketAddr::new(ip, u16::from_be_bytes(*port)), rest))
}

/// Who took which initial request, for as long as it may be repeated. Bounded: the oldest claim
/// goes first, and a claim that is lost costs at worst a second call for a request that was
/// repeated to another node.
#[derive(Debug)]
pub struct Claims {
    secret: u64,
    takers: HashMap<u64, u16>,
    order: VecDeque<(u64, u64)>,
    /// Keys to announce, with how often they still are.
    news: VecDeque<(u64, u8)>,
}

impl Claims {
    /// An empty table. `secret` is the cluster's: all nodes must find the same keys.
    #[must_use]
    pub fn new(secret: u64) -> Self {
        Self {
            secret,
            takers: HashMap::new(),
            order: VecDeque::new(),
            news: VecDeque::new(),
        }
    }

    /// The key of a request: a CANCEL has the key of what it cancels.
    #[must_use]
    pub fn key(&self, request: &Message<'_>) -> u64 {
        let mut hash = SipHasher13::new_with_keys(self.secret, CLAIMED);
        if let Some(via) = request.top_via() {
            hash.write(via.branch.unwrap_or_default());
            hash.write_u8(b'\n');
            hash.write(via.host);
            hash.write_u16(via.port.unwrap_or(5060));
        }
        hash.write(request.call_id());
        hash.write_u32(request.cseq().0);
        hash.write(request.from_tag().unwrap_or_default());
        hash.finish()
    }

    /// The node that took the request.
    #[must_use]
    pub fn taker(&self, key: u64) -> Option<u16> {
        self.takers.get(&key).copied()
    }

    /// This node, `own`, takes the request and will say so.
    pub fn take(&mut self, now_ms: u64, own: u16, key: u64) {
        self.note(now_ms, own, key);
        if self.news.len() < NEWS_MAX {
            self.news.push_back((key, TELLINGS));
        }
    }

    /// Node `node` took the request.
    pub fn note(&mut self, now_ms: u64, node: u16, key: u64) {
        self.expire(now_ms);
        if self.order.len() >= CLAIMS_MAX
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.takers.remove(&oldest);
        }
        if self.takers.insert(key, node).is_none() {
            self.order.push_back((now_ms + CLAIM_MS, key));
        }
    }

    /// Tells everything that `own` took again, for a node that was not there.
    pub fn tell_anew(&mut self, now_ms: u64, own: u16) {
        self.expire(now_ms);
        for (_, key) in self.order.iter().rev() {
            if self.news.len() >= NEWS_MAX {
                break;
            }
            if self.takers.get(key) == Some(&own) {
                self.news.push_back((*key, TELLINGS));
            }
        }
    }

    /// Writes what is to be announced into `out`; false if nothing is.
    pub fn announce(&mut self, out: &mut Vec<u8>) -> bool {
        let count = self.news.len().min(ANNOUNCED_MAX);
        for _ in 0..count {
            let Some((key, left)) = self.news.pop_front() else {
                break;
            };
            out.extend_from_slice(&key.to_le_bytes());
            if left > 1 {
                self.news.push_back((key, left - 1));
            }
        }
        count > 0
    }

    /// Whether there is something that nobody was told yet.
    #[must_use]
    pub fn has_fresh_news(&self) -> bool {
        self.news.back().is_some_and(|(_, left)| *left == TELLINGS)
    }

    /// Whether there is something to announce, be it again.
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    fn expire(&mut self, now_ms: u64) {
        while let Some((until, key)) = self.order.front()
            && *until <= now_ms
        {
            self.takers.remove(key);
            self.order.pop_front();
        }
    }
}

/// Reads the keys of an announcement.
pub fn claimed_keys(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes
        .chunks_exact(8)
        .map(|key| u64::from_le_bytes(key.try_into().expect("eight octets")))
}

const INWARD: u8 = 1;
const OUTWARD: u8 = 2;
const CLAIMS: u8 = 3;
/// How often a datagram is passed on at most. Who knows nothing of its call passes it to where the
/// call began; that one, if it has lost its memory since, to the first of the members, which is a
/// place of the call; and this one to the owner.
pub const HOPS: u8 = 3;
/// A request is not repeated longer than 64*T1.
const CLAIM_MS: u64 = 32_000;
/// Claims kept: 32 s of 4,000 requests a second.
const CLAIMS_MAX: usize = 128 * 1_024;
/// Claims that wait to be announced.
const NEWS_MAX: usize = 16 * 1_024;
/// Claims in one announcement.
const ANNOUNCED_MAX: usize = 128;
/// How often a claim is announced, against loss.
const TELLINGS: u8 = 2;
/// Keeps the keys apart from other hashes under the same secret.
const CLAIMED: u64 = 0x636c_6169_6d65_6421;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::{Index, parse};

    #[test]
    fn messages_come_back_as_they_went() {
        let v4 = "192.0.2.1:5060".parse().expect("an address");
        let v6 = "[2001:db8::1]:5062".parse().expect("an address");
        for message in [
            Forward::Inward {
                hops: 2,
                relay: 3,
                listener: 1,
                from: v4,
                bytes: b"INVITE",
            },
            Forward::Outward {
                listener: 0,
                to: v6,
                bytes: b"",
            },
            Forward::Claims(&[1; 16]),
        ] {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert_eq!(Forward::parse(&bytes), Some(message));
            let head = match message {
                Forward::Inward { .. } => 11,
                Forward::Outward { .. } => 21,
                Forward::Claims(_) => 1,
            };
            for short in 0..head {
                assert_eq!(Forward::parse(&bytes[..short]), None);
            }
        }
        assert_eq!(Forward::parse(&[9, 9, 9]), None);
        assert_eq!(Forward::parse(&[3, 1]), None);
    }

    fn key_of(claims: &Claims, method: &str, branch: &str) -> u64 {
        let text = format!(
            "{method} sip:b@192.0.2.9 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch={branch}\r\n\
             From: <sip:a@192.0.2.1>;tag=1\r\nTo: <sip:b@192.0.2.9>\r\nCall-ID: 1@a\r\n\
             CSeq: 1 {method}\r\n\r\n"
        );
        let mut index = Index::new();
        claims.key(&parse(text.as_bytes(), &mut index).expect("a request"))
    }

    #[test]
    fn a_cancel_has_the_key_of_its_invite_and_another_request_has_not() {
        let claims = Claims::new(7);
        let invite = key_of(&claims, "INVITE", "z9hG4bK1");
        assert_eq!(invite, key_of(&claims, "CANCEL", "z9hG4bK1"));
        assert_ne!(invite, key_of(&claims, "INVITE", "z9hG4bK2"));
        assert_ne!(invite, key_of(&Claims::new(8), "INVITE", "z9hG4bK1"));
    }

    #[test]
    fn a_claim_is_told_twice_and_ends_with_the_repetitions() {
        let mut claims = Claims::new(7);
        claims.take(0, 1, 42);
        assert!(claims.has_fresh_news());
        for _ in 0..TELLINGS {
            let mut out = Vec::new();
            assert!(claims.announce(&mut out));
            assert_eq!(claimed_keys(&out).collect::<Vec<_>>(), [42]);
            assert!(!claims.has_fresh_news());
        }
        assert!(!claims.has_news() && !claims.announce(&mut Vec::new()));
        assert_eq!(claims.taker(42), Some(1));
        claims.note(CLAIM_MS, 2, 43);
        assert_eq!((claims.taker(42), claims.taker(43)), (None, Some(2)));
    }

    #[test]
    fn claims_do_not_grow_without_end() {
        let mut claims = Claims::new(7);
        for key in 0..CLAIMS_MAX as u64 + 10 {
            claims.take(0, 1, key);
        }
        assert_eq!(claims.takers.len(), CLAIMS_MAX);
        assert_eq!(claims.news.len(), NEWS_MAX);
        assert_eq!(claims.taker(0), None);
    }
}
