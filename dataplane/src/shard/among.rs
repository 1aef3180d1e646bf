//! A shard among the nodes of its cluster: what waits for copies, what is taken over, and which
//! messages are another node's.

use slotmap::Key;

use super::{Shard, TAKEN_OVER_SPREAD_MS, Taken};
use crate::b2bua::{HoldEnv, Origin, id_of};
use crate::cluster::{Forward, claimed_keys};
use crate::env::{CallKey, ListenerId};
use crate::sip::{Message, Method, Token};
use crate::store::{Owner, StoreEvent};

/// Where a message goes.
enum Way {
    Here,
    Node(u16),
    /// That node should know; if it does not, this one answers as well.
    Perhaps(u16),
    /// Nobody can take it now; whoever sent it will repeat it.
    Nowhere,
}

impl Shard {
    /// Takes a datagram that the same shard of another node sent.
    pub fn handle_peer_datagram(&mut self, now: charging::time::Now, datagram: &mut [u8]) {
        self.set_now(now);
        let Some(cluster) = self.blobs.cluster() else {
            return;
        };
        cluster.handle_datagram(datagram);
        let mut message = std::mem::take(&mut self.forward);
        while let Some(from) = self
            .blobs
            .cluster()
            .and_then(|cluster| cluster.next_forwarded(&mut message))
        {
            self.on_forward(from, &message);
        }
        self.forward = message;
    }

    /// Writes the next datagram for another node into `buffer`; says for which, and its length.
    pub fn poll_peer_datagram(&mut self, buffer: &mut [u8]) -> Option<(u16, usize)> {
        self.blobs.cluster()?.poll_datagram(buffer)
    }

    fn on_forward(&mut self, from: u16, message: &[u8]) {
        self.env.counters.sip_datagram_forward_received += 1;
        match Forward::parse(message) {
            Some(Forward::Inward {
                hops,
                relay,
                listener,
                from: source,
                bytes,
            }) if usize::from(listener) < self.listeners => {
                let relay = u16::from(relay);
                let listener = if relay == self.place.node {
                    Some(ListenerId::new(usize::from(listener)))
                } else {
                    ListenerId::through(relay, listener)
                };
                let Some(listener) = listener else {
                    self.env.counters.forward_malformed += 1;
                    return;
                };
                let origin = Origin {
                    from: source,
                    listener,
                };
                if self.take_datagram(origin, bytes, hops) != Taken::Here {
                    // Nodes with different numbers of shards cannot share calls.
                    self.env.counters.forward_malformed += 1;
                }
            }
            Some(Forward::Outward {
                listener,
                to,
                bytes,
            }) if usize::from(listener) < self.listeners => {
                let listener = ListenerId::new(usize::from(listener));
                self.env.out.push(CallKey::null(), to, listener, bytes);
            }
            Some(Forward::Claims(keys)) => {
                for key in claimed_keys(keys) {
                    self.claims.note(self.env.now_ms, from, key);
                }
            }
            _ => self.env.counters.forward_malformed += 1,
        }
    }

    /// Whether a message is to be handled here. If not it was passed on or dropped.
    pub(super) fn is_for_here(
        &mut self,
        token: Option<Token>,
        message: &Message<'_>,
        origin: Origin,
        hops: u8,
    ) -> bool {
        match self.way_of(token, message) {
            Way::Here => true,
            Way::Node(node) | Way::Perhaps(node) if hops > 0 => {
                self.pass_on(node, message, origin, hops - 1);
                false
            }
            // It came a long way already: whatever is known here is the answer, unless this node
            // may not act, or knows that another one knows better (V14).
            Way::Perhaps(_) if self.acts => true,
            Way::Node(_) | Way::Perhaps(_) | Way::Nowhere => {
                self.env.counters.sip_datagram_ownerless += 1;
                false
            }
        }
    }

    fn way_of(&mut self, token: Option<Token>, message: &Message<'_>) -> Way {
        let own = self.place.node;
        let Some(token) = token else {
            return self.way_of_initial(message);
        };
        let id = id_of(&token);
        if self.b2bua.key_of(id).is_some() {
            return Way::Here;
        }
        match self.blobs.cluster() {
            None if token.node == own => Way::Here,
            None => {
                self.env.counters.token_refused += 1;
                Way::Nowhere
            }
            Some(cluster) => match cluster.owner_of(id) {
                Owner::At(node) => Way::Node(node),
                Owner::Perhaps(node) => Way::Perhaps(node),
                // Who may not act does not know that there is no such call.
                Owner::Here if !self.acts => Way::Nowhere,
                Owner::Here => Way::Here,
                Owner::Nobody => Way::Nowhere,
            },
        }
    }

    // A request outside of our dialogs: whoever took it first has it.
    fn way_of_initial(&mut self, message: &Message<'_>) -> Way {
        let (own, now_ms) = (self.place.node, self.env.now_ms);
        let Some(cluster) = self.blobs.cluster() else {
            return Way::Here;
        };
        let key = self.claims.key(message);
        let method = message.method();
        let follows = matches!(method, Method::Ack | Method::Cancel);
        match self.claims.taker(key) {
            Some(taker) if taker == own && (self.acts || follows) => return Way::Here,
            Some(taker) if taker == own => return Way::Nowhere,
            Some(taker) if cluster.answers(taker) => return Way::Perhaps(taker),
            _ => {}
        }
        // Who leaves sends what cancels or acknowledges the way of what it sent on.
        let stays = self.acts && !self.b2bua.is_draining();
        if method == Method::Options || (follows && stays) {
            return Way::Here;
        }
        if !stays {
            // Who may not act does not refuse either: the request is repeated (V14).
            let nobody = if self.acts { Way::Here } else { Way::Nowhere };
            return cluster.deputy(key).map_or(nobody, Way::Perhaps);
        }
        self.claims.take(now_ms, own, key);
        Way::Here
    }

    fn pass_on(&mut self, node: u16, message: &Message<'_>, origin: Origin, hops: u8) {
        let relay = origin.listener.relay().unwrap_or(self.place.node);
        let inward = Forward::Inward {
            hops,
            relay: relay as u8,
            listener: origin.listener.index() as u8,
            from: origin.from,
            bytes: message.raw(),
        };
        self.send_forward(node, inward);
    }

    fn send_forward(&mut self, node: u16, message: Forward<'_>) {
        let mut bytes = self.env.pool.take();
        message.encode(&mut bytes);
        if let Some(cluster) = self.blobs.cluster() {
            self.env.counters.sip_datagram_forwarded += 1;
            cluster.forward(node, &bytes);
        }
        self.env.pool.give(bytes);
    }

    /// Follows the view and takes up what the store says happened.
    pub(super) fn follow_cluster(&mut self) {
        let Some(cluster) = self.blobs.cluster() else {
            return;
        };
        cluster.tick();
        let (acts, peers) = (cluster.may_act(), cluster.answering_peers());
        if peers & !self.told != 0 {
            self.claims.tell_anew(self.env.now_ms, self.place.node);
        }
        self.told = peers;
        while let Some(event) = self.blobs.cluster().and_then(|c| c.poll_event()) {
            self.on_store_event(event);
        }
        self.acts = acts;
        self.hand_over();
        if self.again_due <= self.env.now_ms {
            self.again_due = self.env.now_ms + AGAIN_MS;
            for key in self.again.drain(..) {
                self.b2bua.touch_call(key);
            }
        }
        if acts && !self.parked.is_empty() {
            for key in self.parked.drain(..) {
                self.b2bua.unpark(key);
            }
        }
        if self.claims.has_fresh_news()
            || (self.claims.has_news() && self.claims_due <= self.env.now_ms)
        {
            self.announce_claims();
        }
    }

    // Gives calls away, a bounded number in a turn, while this node is leaving.
    fn hand_over(&mut self) {
        let now_ms = self.env.now_ms;
        let Some(cluster) = self.blobs.cluster().filter(|cluster| cluster.is_leaving()) else {
            self.leaving = None;
            return;
        };
        let leaving = self.leaving.get_or_insert(Leaving {
            since: now_ms,
            next: now_ms,
        });
        if !self.acts || now_ms < leaving.next {
            return;
        }
        leaving.next = now_ms + GIVING_MS;
        let is_late = now_ms >= leaving.since + PATIENCE_MS;
        let mut calls = self.b2bua.movable(is_late, GIVEN_A_TURN);
        calls.retain(|(_, id)| cluster.give(*id));
        self.b2bua.forget_all(&mut self.env, &calls);
        self.env.counters.call_given += calls.len() as u64;
        if self.b2bua.call_count() == 0 {
            cluster.note_empty();
        }
    }

    fn on_store_event(&mut self, event: StoreEvent) {
        match event {
            StoreEvent::Released(id, version) => {
                if let Some(key) = self.b2bua.key_of(id) {
                    self.b2bua.release(&mut self.env, key, version);
                }
            }
            StoreEvent::TakeOver(state) => self.take_up(*state, TAKEN_OVER_SPREAD_MS),
            StoreEvent::Received(state) => self.take_up(*state, 0),
            StoreEvent::Lost(id) => {
                let lost = self.b2bua.forget(&mut self.env, id);
                self.env.counters.call_lost_to_peer += u64::from(lost);
            }
            StoreEvent::AllLost => {
                self.env.counters.call_lost_to_peer += self.b2bua.forget_stored(&mut self.env);
            }
        }
    }

    fn take_up(&mut self, state: crate::b2bua::CallState, spread_ms: u64) {
        if self.b2bua.key_of(state.id).is_none() {
            self.go_on_with(state, spread_ms);
        }
    }

    fn announce_claims(&mut self) {
        self.claims_due = self.env.now_ms + CLAIMS_AGAIN_MS;
        let mut keys = self.env.pool.take();
        if self.claims.announce(&mut keys) {
            let peers = self.blobs.cluster().map_or(0, |c| c.answering_peers());
            for node in (0..32).filter(|node| peers >> node & 1 == 1) {
                self.send_forward(node, Forward::Claims(&keys));
            }
        }
        self.env.pool.give(keys);
    }

    pub(super) fn park(&mut self, key: CallKey) {
        if self.b2bua.park(key) {
            self.env.counters.acr_parked += 1;
            self.parked.push(key);
        }
    }

    /// Keeps back what waits for copies or for room, and hands over what other nodes have to send.
    pub(super) fn hold_outputs(&mut self) {
        let mut cluster = self.blobs.cluster();
        if cluster.is_none() && self.full.is_empty() {
            return;
        }
        let (b2bua, node) = (&mut self.b2bua, &mut self.forward);
        let mut surroundings = HoldEnv {
            pool: &mut self.env.pool,
            counters: &mut self.env.counters,
        };
        self.env.out.extract(|datagram, payload| {
            if b2bua.hold(
                &mut surroundings,
                datagram.call,
                datagram.to,
                datagram.listener,
                payload,
            ) {
                return true;
            }
            let (Some(cluster), Some(relay)) = (&mut cluster, datagram.listener.relay()) else {
                return false;
            };
            if !cluster.answers(relay) {
                return false;
            }
            node.clear();
            let outward = Forward::Outward {
                listener: datagram.listener.index() as u8,
                to: datagram.to,
                bytes: payload,
            };
            outward.encode(node);
            cluster.forward(relay, node);
            true
        });
    }

    pub(super) fn cluster_deadline(&mut self) -> Option<quanta::Instant> {
        let cluster = self.blobs.cluster()?;
        let own = cluster.next_deadline();
        let again = self.again_due.max(self.env.now_ms + 1);
        let soon = (!self.again.is_empty()).then(|| self.env.instant_of(again));
        let claims = (self.claims.has_news()).then(|| self.env.instant_of(self.claims_due));
        let leaving = self.leaving.as_ref();
        let leaving = leaving.map(|leaving| self.env.instant_of(leaving.next));
        let parked = !self.parked.is_empty();
        let parked = parked.then(|| self.env.instant_of(self.env.now_ms + PARKED_MS));
        [own, soon, claims, parked, leaving]
            .into_iter()
            .flatten()
            .min()
    }
}

/// How far this shard has come with handing its calls over.
pub(super) struct Leaving {
    since: u64,
    /// When it gives the next calls away.
    next: u64,
}

/// Calls given away in one turn, and the pause until the next.
const GIVEN_A_TURN: usize = 128;
const GIVING_MS: u64 = 5;
/// So long a call waits for the answers to its charging requests before it is given; whoever has
/// it then sends them again.
const PATIENCE_MS: u64 = 5_000;
/// Pause before states are committed again while too many outputs wait, or this node is no member.
const AGAIN_MS: u64 = 10;
/// Pause between looks whether this node may act again.
const PARKED_MS: u64 = 20;
/// A claim is told again after that time, against loss.
const CLAIMS_AGAIN_MS: u64 = 100;
