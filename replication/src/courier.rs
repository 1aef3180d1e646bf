//! Single messages between nodes, sealed: what the view says, and SIP that another node handles.
//!
//! A letter is sent once; whoever needs an answer asks again, as the view and SIP do. Its seal is
//! that of the record streams with a key of its own, so that neither can be played for the other
//! and no nonce is shared, though both count from 1.
//!
//! ```text
//!  VIEW     one message of `view`
//!  FORWARD  0 u64 number of the letter  8 u32 length of the whole  12 u32 offset  16 the piece
//! ```
//!
//! **Before nodes know each other.** A letter is addressed to one incarnation of its receiver, so
//! that nothing recorded from a former life is believed. Heartbeats alone are addressed to any:
//! by them nodes learn each other's incarnation. One that is played again to a node that has
//! restarted tells it something old, which the next true one corrects 50 ms later; it proves no
//! round trip (acks are addressed), and everything in it that counts carries its view's number.
//!
//! **Long letters.** A forward that is longer than a datagram goes in pieces of 1280 bytes and is
//! put together in one of four buffers per peer; if a piece is lost, so is the letter, and SIP
//! sends it again. Paths between nodes therefore never need IP fragments.
//!
//! One courier serves one shard under one incarnation, for all its life: a second one with the
//! same node, incarnation and shard would repeat nonces. Other keys go in by `set_keys`; when
//! [`Views::incarnation`](crate::Views::incarnation) has risen, a new courier takes over.

use crate::frame::{
    Bytes, DATAGRAM_BYTES_ETHERNET, Entry, EntryKind, FrameError, FrameKind, HEAD, Head, TAG,
};
use crate::reassembly::{PIECE, Reassembly};
use crate::record::{CallId, Version};
use crate::replicator::PEERS_MAX;
use crate::seal::{Channel, ClusterKeys, Ends, OpenFault, Purpose};
use crate::view::ViewMessage;

/// Who a courier works for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CourierConfig {
    /// The cluster.
    pub cluster: u32,
    /// This node.
    pub node: u16,
    /// Its incarnation, as [`Views`](crate::Views) has it.
    pub incarnation: u32,
    /// The shard, the same on both sides.
    pub shard: u16,
}

/// Seals and opens the letters of one shard. Sans-IO.
#[derive(Debug)]
pub struct Courier {
    config: CourierConfig,
    peers: Vec<Peer>,
    letters: u64,
    counters: CourierCounters,
}

#[derive(Debug)]
struct Peer {
    node: u16,
    channel: Channel,
    /// Its incarnation as the view says.
    admitted: Option<u32>,
    pieces: Reassembly,
}

/// A letter that was believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Letter<'a> {
    /// For `Views::handle`.
    View(Box<ViewMessage>),
    /// What another node forwards.
    Forward(&'a [u8]),
    /// A piece of a forward; the others are on their way.
    Piece,
}

/// Why a letter was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealFault {
    /// No such peer.
    Stranger,
    /// The peer was not heard yet, so its incarnation is unknown. Heartbeats leave all the same.
    Unheard,
    /// Longer than `FORWARD_BYTES_MAX`, or than the buffer given.
    TooLong,
}

impl Courier {
    /// A courier to `peers`, witnesses included.
    ///
    /// # Panics
    /// If there are more than `PEERS_MAX` peers.
    #[must_use]
    pub fn new(config: CourierConfig, keys: ClusterKeys, peers: &[u16]) -> Self {
        let CourierConfig {
            cluster,
            node,
            incarnation,
            shard,
        } = config;
        let others = peers.iter().filter(|&&peer| peer != node);
        let peer = |&peer: &u16| Peer {
            node: peer,
            channel: Channel::new(
                Ends {
                    cluster,
                    node,
                    incarnation,
                    peer,
                    shard,
                },
                Purpose::Letters,
                keys,
            ),
            admitted: None,
            pieces: Reassembly::new(FORWARD_BYTES_MAX),
        };
        let peers: Vec<Peer> = others.map(peer).collect();
        assert!(peers.len() <= PEERS_MAX, "a cluster has at most 17 nodes");
        Self {
            config,
            peers,
            letters: 0,
            counters: CourierCounters::default(),
        }
    }

    /// Whether a datagram claims to be a letter; if not it is for the `Replicator`. Serves to
    /// tell them apart on one socket.
    #[must_use]
    pub fn is_letter(datagram: &[u8]) -> bool {
        let kind = Head::parse(datagram).map(|head| head.kind);
        matches!(kind, Ok(FrameKind::View | FrameKind::Forward))
    }

    /// Seals a message of the view into `buffer`; hands out the length of the datagram.
    ///
    /// # Errors
    /// See [`SealFault`]. Counted; the view repeats what matters.
    pub fn seal_view(
        &mut self,
        to: u16,
        message: &ViewMessage,
        buffer: &mut [u8],
    ) -> Result<usize, SealFault> {
        let is_heartbeat = matches!(message, ViewMessage::Heartbeat(_));
        let body = buffer.get_mut(HEAD..).unwrap_or_default();
        let encoded = message.encode(body).ok_or(SealFault::TooLong);
        let sealed = encoded.and_then(|len| {
            let peer = self.peer(to)?;
            let incarnation = match peer.channel.peer_incarnation() {
                _ if is_heartbeat => 0,
                Some(incarnation) => incarnation,
                None => return Err(SealFault::Unheard),
            };
            let sealed = peer
                .channel
                .seal(FrameKind::View, incarnation, 0, buffer, len);
            sealed.ok_or(SealFault::TooLong)
        });
        self.count_sealed(sealed.map(|_| 1));
        sealed
    }

    /// Seals a forward, piece by piece, into `buffer`, which should have room for
    /// `DATAGRAM_BYTES_ETHERNET`; each datagram is handed to `send`.
    ///
    /// # Errors
    /// See [`SealFault`]; nothing was sent then.
    pub fn seal_forward(
        &mut self,
        to: u16,
        payload: &[u8],
        buffer: &mut [u8],
        send: impl FnMut(&[u8]),
    ) -> Result<(), SealFault> {
        let sent = self.forward(to, payload, buffer, send);
        self.count_sealed(sent);
        sent.map(|_| ())
    }

    /// Opens a letter in place; hands out who sent it and what it says.
    ///
    /// # Errors
    /// See [`OpenFault`]; but for the number of a datagram that opened and made no sense, nothing
    /// has changed then.
    pub fn open<'a>(&'a mut self, datagram: &'a mut [u8]) -> Result<(u16, Letter<'a>), OpenFault> {
        let counters = &mut self.counters;
        let from = Head::parse(datagram).map(|head| head.from);
        let peer = from.map_err(OpenFault::Frame).and_then(|from| {
            let peer = self.peers.iter_mut().find(|peer| peer.node == from);
            peer.ok_or(OpenFault::Address)
        });
        let opened = peer.and_then(|peer| peer.open(datagram));
        match &opened {
            Ok((_, Letter::Forward(_))) => counters.forwards_received += 1,
            Ok(_) => {}
            Err(OpenFault::Body(_)) => counters.bodies_malformed += 1,
            Err(OpenFault::Frame(FrameError::Protocol)) => counters.protocols_refused += 1,
            Err(fault) => {
                counters.datagrams_refused += 1;
                counters.keys_unknown += u64::from(*fault == OpenFault::Key);
            }
        }
        opened
    }

    /// Who sent a datagram that `open` refused with [`OpenFault::Incarnation`], if it is a peer's own
    /// from an incarnation before the newest that has proven itself.
    pub fn former_life_of(&self, datagram: &mut [u8]) -> Option<u16> {
        let from = Head::parse(datagram).ok()?.from;
        let peer = self.peers.iter().find(|peer| peer.node == from)?;
        peer.channel.is_of_former_life(datagram).then_some(from)
    }

    /// Says under which incarnation the view has a peer, for couriers that hear no heartbeats.
    pub fn admit(&mut self, peer: u16, incarnation: Option<u32>) {
        if let Ok(peer) = self.peer(peer) {
            peer.admitted = incarnation;
        }
    }

    /// Sets which protocols it reads; for tests of versions to come.
    pub fn set_protocols(&mut self, lowest: u8, highest: u8) {
        for peer in &mut self.peers {
            peer.channel.set_protocols(lowest, highest);
        }
    }

    /// Writes to a peer in the protocol agreed on, see [`Views::protocol`](crate::Views::protocol).
    pub fn set_protocol(&mut self, to: u16, protocol: u8) {
        if let Ok(peer) = self.peer(to) {
            peer.channel.set_protocol(protocol);
        }
    }

    /// Takes other cluster keys.
    pub fn set_keys(&mut self, keys: ClusterKeys) {
        for peer in &mut self.peers {
            peer.channel.set_keys(keys);
        }
    }

    /// Incarnation this courier seals under; another one needs a new courier.
    #[must_use]
    pub fn incarnation(&self) -> u32 {
        self.config.incarnation
    }

    /// Newest incarnation of a peer that has proven itself here.
    #[must_use]
    pub fn peer_incarnation(&self, peer: u16) -> Option<u32> {
        let peer = self.peers.iter().find(|known| known.node == peer)?;
        peer.channel.peer_incarnation()
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> CourierCounters {
        let given_up = self.peers.iter().map(|peer| peer.pieces.given_up());
        CourierCounters {
            forwards_given_up: given_up.sum(),
            ..self.counters
        }
    }

    fn forward(
        &mut self,
        to: u16,
        payload: &[u8],
        buffer: &mut [u8],
        mut send: impl FnMut(&[u8]),
    ) -> Result<u64, SealFault> {
        let total = u32::try_from(payload.len()).map_err(|_| SealFault::TooLong)?;
        let len_max = buffer.len().min(DATAGRAM_BYTES_ETHERNET);
        let room = len_max
            .checked_sub(HEAD + FORWARD_HEAD + TAG)
            .filter(|room| *room >= PIECE)
            .ok_or(SealFault::TooLong)?;
        if payload.len() > FORWARD_BYTES_MAX {
            return Err(SealFault::TooLong);
        }
        let letter = self.letters + 1;
        let peer = self.peer(to)?;
        let heard = peer.channel.peer_incarnation();
        let incarnation = heard.max(peer.admitted).ok_or(SealFault::Unheard)?;
        let channel = &mut peer.channel;
        let step = if payload.len() <= room { room } else { PIECE };
        let mut datagrams = 0;
        for offset in (0..payload.len().max(1)).step_by(step) {
            let piece = &payload[offset..payload.len().min(offset + step)];
            let body = &mut buffer[HEAD..];
            body[..8].copy_from_slice(&letter.to_le_bytes());
            body[8..12].copy_from_slice(&total.to_le_bytes());
            body[12..16].copy_from_slice(&(offset as u32).to_le_bytes());
            body[FORWARD_HEAD..][..piece.len()].copy_from_slice(piece);
            let body_len = FORWARD_HEAD + piece.len();
            let sealed = channel.seal(FrameKind::Forward, incarnation, 0, buffer, body_len);
            let len = sealed.expect("the room was checked above");
            send(&buffer[..len]);
            datagrams += 1;
        }
        self.letters = letter;
        self.counters.forwards_sent += 1;
        Ok(datagrams)
    }

    fn peer(&mut self, node: u16) -> Result<&mut Peer, SealFault> {
        let mut peers = self.peers.iter_mut();
        peers
            .find(|peer| peer.node == node)
            .ok_or(SealFault::Stranger)
    }

    fn count_sealed(&mut self, sealed: Result<u64, SealFault>) {
        match sealed {
            Ok(datagrams) => self.counters.datagrams_sent += datagrams,
            Err(_) => self.counters.letters_unsent += 1,
        }
    }
}

impl Peer {
    fn open<'a>(&'a mut self, datagram: &'a mut [u8]) -> Result<(u16, Letter<'a>), OpenFault> {
        let (head, body) = self.channel.open(datagram)?;
        let letter = match head.kind {
            FrameKind::View => {
                let message = ViewMessage::parse(body).map_err(OpenFault::Body)?;
                let is_heartbeat = matches!(message, ViewMessage::Heartbeat(_));
                if head.to_incarnation == 0 && !is_heartbeat {
                    return Err(OpenFault::Incarnation);
                }
                Letter::View(Box::new(message))
            }
            FrameKind::Forward => {
                let entry = forwarded(body).map_err(OpenFault::Body)?;
                if entry.is_whole() {
                    Letter::Forward(entry.piece)
                } else {
                    let whole = self.pieces.add_once(&entry);
                    whole.map_or(Letter::Piece, Letter::Forward)
                }
            }
            FrameKind::Data | FrameKind::Ack | FrameKind::SyncRequest => {
                return Err(OpenFault::Body(FrameError::Kind));
            }
        };
        Ok((self.node, letter))
    }
}

/// Reads a forward as a piece of a record, which is put together the same way.
fn forwarded(body: &[u8]) -> Result<Entry<'_>, FrameError> {
    let mut bytes = Bytes::new(body);
    let (number, total, offset) = (bytes.u64()?, bytes.u32()?, bytes.u32()?);
    let piece = bytes.rest();
    let end = (offset as usize).checked_add(piece.len());
    let fits =
        end.is_some_and(|end| end <= total as usize) && (total as usize) <= FORWARD_BYTES_MAX;
    if number == 0 || !fits || (total > 0 && piece.is_empty()) {
        return Err(FrameError::Piece);
    }
    Ok(Entry {
        id: CallId::from_u128(0),
        version: Version::first(0),
        number,
        owner: 0,
        shard: 0,
        schema: 0,
        kind: EntryKind::Put,
        flags: 0,
        total,
        offset,
        piece,
    })
}

/// Counters of one courier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CourierCounters {
    /// Datagrams sealed.
    pub datagrams_sent: u64,
    /// Forwards among them, each counted once.
    pub forwards_sent: u64,
    /// Letters not sealed, see [`SealFault`].
    pub letters_unsent: u64,
    /// Datagrams not believed.
    pub datagrams_refused: u64,
    /// Of these, sealed under a cluster key that is not in force here.
    pub keys_unknown: u64,
    /// Datagrams in a version of the protocol that this node does not read.
    pub protocols_refused: u64,
    /// Bodies that could not be read to the end.
    pub bodies_malformed: u64,
    /// Forwards received whole.
    pub forwards_received: u64,
    /// Forwards of which pieces came, that gave way to newer ones.
    pub forwards_given_up: u64,
}

/// Longest forward: the longest SIP datagram, and room to say where it came from.
pub const FORWARD_BYTES_MAX: usize = (64 << 10) + 256;
const FORWARD_HEAD: usize = 16;
const _: () = assert!(HEAD + FORWARD_HEAD + PIECE + TAG <= DATAGRAM_BYTES_ETHERNET);

#[cfg(test)]
mod tests;
