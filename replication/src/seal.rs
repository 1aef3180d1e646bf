//! Sealing of datagrams: AES-128-GCM with a key per direction and incarnation.
//!
//! `key = HKDF-SHA256(cluster key, salt = cluster, info = from, to, incarnation of the sender,
//! purpose)`; the nonce is shard and datagram number, so it never repeats as long as an
//! incarnation does not, for each shard has one channel per purpose and peer. A datagram is believed only if it opens, comes from no older incarnation, is meant for
//! this one, and its number was not seen before.

use ::ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ::ring::hkdf::{HKDF_SHA256, Salt};

use crate::frame::{
    FrameError, FrameKind, HEAD, Head, PROTOCOL, PROTOCOL_HEARTBEAT, PROTOCOL_MIN, TAG,
};

/// The cluster keys in force. For a rotation, first give every node the new key as `other`, then
/// swap, then drop the former: at no moment does a node receive what it cannot open.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClusterKeys {
    /// Number and bytes of the key to send under.
    pub current: (u8, [u8; 32]),
    /// A further key to receive under.
    pub other: Option<(u8, [u8; 32])>,
}

impl std::fmt::Debug for ClusterKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let other = self.other.map(|(number, _)| number);
        f.debug_struct("ClusterKeys")
            .field("current", &self.current.0)
            .field("other", &other)
            .finish()
    }
}

/// Both directions between one shard of this node and the same shard of one peer.
#[derive(Debug)]
pub struct Channel {
    ends: Ends,
    purpose: Purpose,
    keys: ClusterKeys,
    sealing: LessSafeKey,
    /// Opening keys for the newest incarnation of the peer.
    opening: Option<Opening>,
    numbers: u64,
    replay: Replay,
    /// Lowest and highest protocol it reads.
    protocols: (u8, u8),
    /// Protocol it writes.
    protocol: u8,
}

/// What a channel carries. Channels for different purposes share no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Records and their acks, see `peer`.
    Records,
    /// Single messages, see `courier`.
    Letters,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Records => b"",
            Self::Letters => b"letters",
        }
    }
}

/// Who talks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The cluster.
    pub cluster: u32,
    /// This node.
    pub node: u16,
    /// Its incarnation.
    pub incarnation: u32,
    /// The other node.
    pub peer: u16,
    /// The shard.
    pub shard: u16,
}

#[derive(Debug)]
struct Opening {
    incarnation: u32,
    current: LessSafeKey,
    other: Option<LessSafeKey>,
}

impl Channel {
    /// A channel that has sent and received nothing. Only one for these ends may ever be made:
    /// a second one would repeat the nonces of the first.
    #[must_use]
    pub fn new(ends: Ends, purpose: Purpose, keys: ClusterKeys) -> Self {
        let sealing = derive(
            &keys.current.1,
            &ends,
            purpose,
            Direction::Out,
            ends.incarnation,
        );
        Self {
            ends,
            purpose,
            keys,
            sealing,
            opening: None,
            numbers: 0,
            replay: Replay::default(),
            protocols: (PROTOCOL_MIN, PROTOCOL),
            protocol: PROTOCOL_MIN,
        }
    }

    /// Sets what it reads; the lowest is written until another is agreed.
    pub fn set_protocols(&mut self, lowest: u8, highest: u8) {
        (self.protocols, self.protocol) = ((lowest, highest), lowest);
    }

    /// Writes in the protocol agreed with the peer from now on, if it can.
    pub fn set_protocol(&mut self, protocol: u8) {
        self.protocol = protocol.clamp(self.protocols.0, self.protocols.1);
    }

    /// Takes other cluster keys from now on.
    pub fn set_keys(&mut self, keys: ClusterKeys) {
        self.keys = keys;
        self.sealing = derive(
            &keys.current.1,
            &self.ends,
            self.purpose,
            Direction::Out,
            self.ends.incarnation,
        );
        let incarnation = self.opening.as_ref().map(|opening| opening.incarnation);
        self.opening = incarnation.map(|incarnation| self.derive_opening(incarnation));
    }

    /// Seals the `body_len` bytes that stand behind the place of the head in `datagram`, writes
    /// the head and returns the length of the whole, or nothing if the tag does not fit.
    #[must_use]
    pub fn seal(
        &mut self,
        kind: FrameKind,
        to_incarnation: u32,
        flags: u8,
        datagram: &mut [u8],
        body_len: usize,
    ) -> Option<usize> {
        let len = HEAD + body_len + TAG;
        let datagram = datagram.get_mut(..len)?;
        self.numbers += 1;
        let head = Head {
            protocol: if to_incarnation == 0 {
                PROTOCOL_HEARTBEAT
            } else {
                self.protocol
            },
            kind,
            from: self.ends.node,
            to: self.ends.peer,
            cluster: self.ends.cluster,
            incarnation: self.ends.incarnation,
            to_incarnation,
            shard: self.ends.shard,
            key: self.keys.current.0,
            flags,
            number: self.numbers,
        };
        let (clear, sealed) = datagram.split_first_chunk_mut::<HEAD>()?;
        head.encode(clear);
        let (body, tag) = sealed.split_at_mut(body_len);
        let made = self
            .sealing
            .seal_in_place_separate_tag(nonce(&head), Aad::from(&*clear), body)
            .ok()?;
        tag.copy_from_slice(made.as_ref());
        Some(len)
    }

    /// Opens a datagram in place and hands out head and body.
    ///
    /// # Errors
    /// See [`OpenFault`]. Nothing has changed then.
    pub fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<(Head, &'a [u8]), OpenFault> {
        let head = Head::parse(datagram).map_err(OpenFault::Frame)?;
        self.check_head(&head)?;
        let fresh = match &self.opening {
            Some(opening) if opening.incarnation == head.incarnation => None,
            // A newer incarnation: believed once a datagram of it opens.
            _ => Some(self.derive_opening(head.incarnation)),
        };
        let opening = fresh
            .as_ref()
            .or(self.opening.as_ref())
            .expect("one of the two is there");
        if fresh.is_none() && self.replay.is_seen(head.number) {
            return Err(OpenFault::Replayed);
        }
        let key = if head.key == self.keys.current.0 {
            Some(&opening.current)
        } else {
            opening
                .other
                .as_ref()
                .filter(|_| self.keys.other.is_some_and(|k| k.0 == head.key))
        };
        let key = key.ok_or(OpenFault::Key)?;
        let (clear, sealed) = datagram
            .split_first_chunk_mut::<HEAD>()
            .ok_or(OpenFault::Frame(FrameError::Short))?;
        let body = key
            .open_in_place(nonce(&head), Aad::from(&*clear), sealed)
            .map_err(|_| OpenFault::Forged)?;
        if fresh.is_some() {
            self.opening = fresh;
            self.replay = Replay::default();
        }
        self.replay.note(head.number);
        Ok((head, body))
    }

    /// Whether a datagram that `open` refused is the peer's own, of an incarnation before the newest.
    /// Opens it in place.
    pub fn is_of_former_life(&self, datagram: &mut [u8]) -> bool {
        let Ok(head) = Head::parse(datagram) else {
            return false;
        };
        let newest = self.peer_incarnation().unwrap_or(0);
        let ends = &self.ends;
        let is_peers = (head.cluster, head.from, head.to, head.shard)
            == (ends.cluster, ends.peer, ends.node, ends.shard);
        if !is_peers || head.incarnation >= newest || head.key != self.keys.current.0 {
            return false;
        }
        let former = self.derive_opening(head.incarnation).current;
        let Some((clear, sealed)) = datagram.split_first_chunk_mut::<HEAD>() else {
            return false;
        };
        let opened = former.open_in_place(nonce(&head), Aad::from(&*clear), sealed);
        opened.is_ok()
    }

    /// Newest incarnation of the peer that has proven itself.
    #[must_use]
    pub fn peer_incarnation(&self) -> Option<u32> {
        self.opening.as_ref().map(|opening| opening.incarnation)
    }

    /// The two ends.
    #[must_use]
    pub fn ends(&self) -> &Ends {
        &self.ends
    }

    fn check_head(&self, head: &Head) -> Result<(), OpenFault> {
        let ends = &self.ends;
        if head.cluster != ends.cluster {
            return Err(OpenFault::Cluster);
        }
        if (head.from, head.to, head.shard) != (ends.peer, ends.node, ends.shard) {
            return Err(OpenFault::Address);
        }
        // Heartbeats are how nodes learn incarnation and versions, so they may not know them yet.
        let unknown = head.to_incarnation == 0
            && head.protocol == PROTOCOL_HEARTBEAT
            && head.kind == FrameKind::View
            && self.purpose == Purpose::Letters;
        let (lowest, highest) = self.protocols;
        if !unknown && !(lowest..=highest).contains(&head.protocol) {
            return Err(OpenFault::Frame(FrameError::Protocol));
        }
        if head.to_incarnation != ends.incarnation && !unknown {
            return Err(OpenFault::Incarnation);
        }
        match &self.opening {
            Some(opening) if opening.incarnation > head.incarnation => Err(OpenFault::Incarnation),
            _ => Ok(()),
        }
    }

    fn derive_opening(&self, incarnation: u32) -> Opening {
        let derive =
            |key: &[u8; 32]| derive(key, &self.ends, self.purpose, Direction::In, incarnation);
        Opening {
            incarnation,
            current: derive(&self.keys.current.1),
            other: self.keys.other.map(|(_, key)| derive(&key)),
        }
    }
}

/// Why a datagram was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFault {
    /// It is no whole datagram of this protocol.
    Frame(FrameError),
    /// Another cluster's.
    Cluster,
    /// Not from this peer, or not for this node and shard.
    Address,
    /// From an older incarnation of the peer, or meant for another incarnation of this node.
    Incarnation,
    /// Sealed under a cluster key that is not in force.
    Key,
    /// The seal is wrong.
    Forged,
    /// It came before, or so long ago that this cannot be told.
    Replayed,
    /// It is the peer's, but its content makes no sense; it will not come again.
    Body(FrameError),
}

/// Numbers seen lately: a bit for each of the last 1024.
#[derive(Clone, Copy, Debug, Default)]
struct Replay {
    newest: u64,
    seen: [u64; (REPLAY_WINDOW / 64) as usize],
}

impl Replay {
    fn is_seen(&self, number: u64) -> bool {
        if number > self.newest {
            return false;
        }
        if self.newest - number >= REPLAY_WINDOW || number == 0 {
            return true;
        }
        self.seen[word(number)] & bit(number) != 0
    }

    fn note(&mut self, number: u64) {
        let ahead = number.saturating_sub(self.newest);
        for skipped in (self.newest + 1..).take(ahead.min(REPLAY_WINDOW) as usize) {
            self.seen[word(skipped)] &= !bit(skipped);
        }
        if ahead >= REPLAY_WINDOW {
            self.seen = [0; (REPLAY_WINDOW / 64) as usize];
        }
        self.newest = self.newest.max(number);
        self.seen[word(number)] |= bit(number);
    }
}

fn word(number: u64) -> usize {
    (number % REPLAY_WINDOW / 64) as usize
}

fn bit(number: u64) -> u64 {
    1 << (number % 64)
}

#[derive(Clone, Copy)]
enum Direction {
    Out,
    In,
}

fn derive(
    key: &[u8; 32],
    ends: &Ends,
    purpose: Purpose,
    direction: Direction,
    incarnation: u32,
) -> LessSafeKey {
    let (from, to) = match direction {
        Direction::Out => (ends.node, ends.peer),
        Direction::In => (ends.peer, ends.node),
    };
    let salt = Salt::new(HKDF_SHA256, &ends.cluster.to_le_bytes());
    let secret = salt.extract(key);
    let info = [
        &from.to_le_bytes()[..],
        &to.to_le_bytes(),
        &incarnation.to_le_bytes(),
        purpose.label(),
    ];
    let material = secret
        .expand(&info, &AES_128_GCM)
        .expect("16 bytes are within HKDF's limit");
    LessSafeKey::new(UnboundKey::from(material))
}

fn nonce(head: &Head) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..2].copy_from_slice(&head.shard.to_le_bytes());
    bytes[4..].copy_from_slice(&head.number.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// How far back datagrams may be reordered.
pub const REPLAY_WINDOW: u64 = 1024;
const _: () = assert!(REPLAY_WINDOW.is_multiple_of(64));

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [1; 32];
    const NEW_KEY: [u8; 32] = [2; 32];

    fn ends(node: u16, peer: u16, incarnation: u32) -> Ends {
        Ends {
            cluster: 7,
            node,
            incarnation,
            peer,
            shard: 3,
        }
    }

    fn keys() -> ClusterKeys {
        ClusterKeys {
            current: (1, KEY),
            other: None,
        }
    }

    fn pair() -> (Channel, Channel) {
        (
            Channel::new(ends(1, 2, 10), Purpose::Records, keys()),
            Channel::new(ends(2, 1, 20), Purpose::Records, keys()),
        )
    }

    fn sealed(channel: &mut Channel, body: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0; 200];
        datagram[HEAD..HEAD + body.len()].copy_from_slice(body);
        let len = channel.seal(FrameKind::Data, 20, 0, &mut datagram, body.len());
        datagram.truncate(len.expect("200 bytes are enough"));
        datagram
    }

    #[test]
    fn what_is_sealed_opens_once() {
        let (mut a, mut b) = pair();
        let datagram = sealed(&mut a, b"hello");
        let mut copy = datagram.clone();
        let (head, body) = b.open(&mut copy).expect("the peer's datagram");
        assert_eq!((head.incarnation, body), (10, &b"hello"[..]));
        assert_eq!(b.open(&mut datagram.clone()), Err(OpenFault::Replayed));
        assert!(!datagram.windows(5).any(|window| window == b"hello"));
    }

    #[test]
    fn what_is_sealed_for_one_purpose_does_not_open_for_the_other() {
        let (mut a, _) = pair();
        let mut letters = Channel::new(ends(2, 1, 20), Purpose::Letters, keys());
        assert_eq!(
            letters.open(&mut sealed(&mut a, b"hello")).map(|_| ()),
            Err(OpenFault::Forged)
        );
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused() {
        let (mut a, mut b) = pair();
        let datagram = sealed(&mut a, b"hello");
        for at in 0..datagram.len() {
            for bit in 0..8 {
                let mut copy = datagram.clone();
                copy[at] ^= 1 << bit;
                assert!(b.open(&mut copy).is_err(), "byte {at} bit {bit}");
            }
        }
        for len in 0..datagram.len() {
            assert!(
                b.open(&mut datagram[..len].to_vec()).is_err(),
                "cut to {len}"
            );
        }
        assert_eq!(b.peer_incarnation(), None, "forgeries leave no trace");
        assert!(b.open(&mut datagram.clone()).is_ok());
    }

    #[test]
    fn other_clusters_nodes_shards_and_incarnations_are_refused() {
        let (mut a, mut b) = pair();
        let fault = |ends: Ends, b: &mut Channel| {
            let mut stranger = Channel::new(ends, Purpose::Records, keys());
            b.open(&mut sealed(&mut stranger, b"x"))
                .map(|_| ())
                .unwrap_err()
        };
        assert_eq!(
            fault(
                Ends {
                    cluster: 8,
                    ..ends(1, 2, 10)
                },
                &mut b
            ),
            OpenFault::Cluster
        );
        assert_eq!(
            fault(
                Ends {
                    shard: 4,
                    ..ends(1, 2, 10)
                },
                &mut b
            ),
            OpenFault::Address
        );
        assert_eq!(fault(ends(3, 2, 10), &mut b), OpenFault::Address);
        assert!(b.open(&mut sealed(&mut a, b"x")).is_ok());
        assert_eq!(fault(ends(1, 2, 9), &mut b), OpenFault::Incarnation);
        // Meant for a former incarnation of b.
        let mut later = Channel::new(ends(2, 1, 21), Purpose::Records, keys());
        assert_eq!(
            later.open(&mut sealed(&mut a, b"x")).map(|_| ()),
            Err(OpenFault::Incarnation)
        );
    }

    #[test]
    fn a_newer_incarnation_of_the_peer_takes_over() {
        let (mut a, mut b) = pair();
        let old = sealed(&mut a, b"old");
        assert!(b.open(&mut sealed(&mut a, b"x")).is_ok());
        let mut restarted = Channel::new(ends(1, 2, 11), Purpose::Records, keys());
        assert!(b.open(&mut sealed(&mut restarted, b"x")).is_ok());
        assert_eq!(b.peer_incarnation(), Some(11));
        assert_eq!(
            b.open(&mut old.clone()).map(|_| ()),
            Err(OpenFault::Incarnation)
        );
    }

    #[test]
    fn keys_rotate_without_a_moment_of_deafness() {
        let (mut a, mut b) = pair();
        let both = ClusterKeys {
            current: (1, KEY),
            other: Some((2, NEW_KEY)),
        };
        let swapped = ClusterKeys {
            current: (2, NEW_KEY),
            other: Some((1, KEY)),
        };
        let last = ClusterKeys {
            current: (2, NEW_KEY),
            other: None,
        };
        let steps = [
            (both, keys()),
            (both, both),
            (swapped, both),
            (swapped, swapped),
            (last, swapped),
        ];
        for (for_a, for_b) in steps {
            a.set_keys(for_a);
            b.set_keys(for_b);
            assert!(b.open(&mut sealed(&mut a, b"x")).is_ok());
        }
        b.set_keys(last);
        let mut late = Channel::new(ends(1, 2, 12), Purpose::Records, keys());
        assert_eq!(
            b.open(&mut sealed(&mut late, b"x")).map(|_| ()),
            Err(OpenFault::Key)
        );
    }

    #[test]
    fn reordering_within_the_window_is_allowed_and_beyond_it_refused() {
        let (mut a, mut b) = pair();
        let datagrams: Vec<_> = (0..REPLAY_WINDOW + 2)
            .map(|_| sealed(&mut a, b"x"))
            .collect();
        let mut open = |n: usize| b.open(&mut datagrams[n].clone()).map(|_| ());
        assert_eq!(open(REPLAY_WINDOW as usize + 1), Ok(()));
        assert_eq!(open(1), Err(OpenFault::Replayed));
        assert_eq!(open(2), Ok(()));
        assert_eq!(open(2), Err(OpenFault::Replayed));
        assert_eq!(open(500), Ok(()));
        assert_eq!(open(500), Err(OpenFault::Replayed));
    }

    #[test]
    fn no_number_is_taken_twice_in_a_long_random_order() {
        let (mut replay, mut taken) = (Replay::default(), std::collections::BTreeSet::new());
        let mut draw = 1_u64;
        for step in 0..20_000_u64 {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let number = (step + (draw >> 40) % 3000).saturating_sub(1500);
            if !replay.is_seen(number) {
                replay.note(number);
                assert!(taken.insert(number), "{number} came twice");
            }
        }
        assert!(taken.len() > 5000);
    }
}
