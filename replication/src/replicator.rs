//! All peers of one shard: who gets which record, and when an output that waits may leave.
//!
//! The rule of semi-sync (V4): what a version promises to the world leaves when
//! `min(k - 1, other members that are not dead)` members have acked that version or a newer one.
//! Any members count. What is not acked after 20 ms also goes to the members next in order; a
//! slow member is never dropped by its sender, only by a view.

mod ends;
mod roll;

use std::collections::VecDeque;

use hashbrown::HashTable;

use self::ends::End;
use self::roll::{Members, Roll, bits};
use crate::catch_up::{Belongings, Scope};
use crate::peer::{Link, LinkConfig, LinkEvent};
use crate::plant::{self, Plant};
use crate::record::{CallId, Kind, Meta, Version};
use crate::ring::Ring;
use crate::seal::{ClusterKeys, Ends, OpenFault};
use crate::takeover;

/// What a shard's replication is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicatorConfig {
    /// The cluster.
    pub cluster: u32,
    /// This node.
    pub node: u16,
    /// Its incarnation.
    pub incarnation: u32,
    /// The shard.
    pub shard: u16,
    /// Copies of a call, the owner's included (k).
    pub copies: usize,
    /// Outputs that may wait for acks at once.
    pub holds_max: usize,
    /// Limits of each link.
    pub link: LinkConfig,
}

/// A data node as the view shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The node.
    pub node: u16,
    /// Its incarnation.
    pub incarnation: u32,
    /// Where it stands.
    pub standing: Standing,
}

/// Where a node stands in a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It is being filled: holds copies and acks, does not act.
    Joining,
    /// It may own calls and act.
    Alive,
    /// It hands its calls over and takes no new ones.
    Draining,
    /// It is not a member.
    Dead,
}

/// Whether an output waits for the peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nobody waits.
    Async,
    /// The output waits until enough members acked.
    SemiSync,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// The output may leave.
    Released,
    /// It must wait for `ReplicationEvent::Released`.
    Held,
    /// It must wait, and nobody will say for what: too many wait. Try again with a next version.
    Refused,
}

/// What happened among the peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicationEvent {
    /// What waits for this version of the call, or an older one, may leave.
    Released(CallId, Version),
    /// A version came from a peer.
    Stored(CallId, Version),
    /// A peer has filled this node; it was in view `view` when it ended.
    Synced {
        /// The peer.
        peer: u16,
        /// Its view.
        view: u32,
    },
}

/// The links of one shard and the outputs that wait for them.
#[derive(Debug)]
pub struct Replicator {
    config: ReplicatorConfig,
    peers: Vec<Peer>,
    holds: VecDeque<Hold>,
    /// Number of the first hold.
    holds_base: u64,
    /// Newest hold of a call.
    newest: HashTable<(CallId, u64)>,
    /// Holds before this number have been sent on to further members, or need not be.
    escalated: u64,
    /// Calls of which members beside their places got a copy, so that these learn of the end.
    scattered: HashTable<CallId>,
    /// Ends that members beside the places are yet to learn of.
    ends: VecDeque<End>,
    /// How many of such they have been told of.
    ends_told: u64,
    turn: usize,
    roll: Roll,
    /// Number of the last settled view.
    settled: u32,
    /// Nothing is missing or moving in the view.
    is_still: bool,
    is_alive: bool,
    has_resumed: bool,
    held_refused: u64,
    held_escalated: u64,
}

impl Replicator {
    /// Replication to `peers`, none of which is a member yet.
    #[must_use]
    pub fn new(config: ReplicatorConfig, keys: ClusterKeys, peers: &[u16]) -> Self {
        let link = |peer| {
            let ReplicatorConfig {
                cluster,
                node,
                incarnation,
                shard,
                ..
            } = config;
            Link::new(
                Ends {
                    cluster,
                    node,
                    incarnation,
                    peer,
                    shard,
                },
                keys,
                config.link,
            )
        };
        let others = peers.iter().filter(|&&peer| peer != config.node);
        let peers: Vec<Peer> = others
            .map(|&node| Peer {
                node,
                link: link(node),
                is_place: false,
                waits_for: None,
            })
            .collect();
        assert!(
            peers.len() <= PEERS_MAX,
            "a cluster has at most 17 data nodes"
        );
        Self {
            peers,
            holds: VecDeque::with_capacity(config.holds_max),
            holds_base: 0,
            newest: HashTable::with_capacity(config.holds_max * 2),
            escalated: 0,
            scattered: HashTable::new(),
            ends: VecDeque::new(),
            ends_told: 0,
            turn: 0,
            roll: Roll::default(),
            settled: 0,
            is_still: false,
            is_alive: false,
            has_resumed: false,
            held_refused: 0,
            held_escalated: 0,
            config,
        }
    }

    /// Enters a view: `members` are its data nodes, this one included. Calls are sent to their
    /// new places; holds that need fewer acks now are released.
    pub fn set_view(
        &mut self,
        now: u64,
        view: u32,
        members: &[Member],
        on: &mut impl FnMut(ReplicationEvent),
    ) {
        let standing = |node| members.iter().find(|member| member.node == node);
        let own = standing(self.config.node);
        let own = own.filter(|own| own.incarnation == self.config.incarnation);
        let own = own.map_or(Standing::Dead, |own| own.standing);
        let is_alive = matches!(own, Standing::Alive | Standing::Draining);
        self.is_alive = is_alive;
        self.roll = Roll::of(members);
        let mut changed = 0_u32;
        for (n, peer) in self.peers.iter_mut().enumerate() {
            let member = standing(peer.node).filter(|m| m.standing != Standing::Dead);
            // What a dead node took in would be void once it is a member again: until it knows that
            // it is, it acks nothing, not even what others send it under the newer view.
            let admits = member.filter(|_| own != Standing::Dead);
            let admitted = admits.map(|member| member.incarnation);
            let is_place = member.is_some_and(|m| m.standing != Standing::Draining);
            if peer.link.admitted() != admitted || peer.is_place != is_place {
                changed |= 1 << n;
            }
            peer.is_place = is_place;
            peer.link.admit(admitted, now);
            peer.link.set_view(view);
            peer.link.set_giving(is_alive && self.has_resumed, now);
        }
        if changed == 0 {
            return;
        }
        self.tell_all_ends(now);
        for peer in self.peers.iter_mut().filter(|_| is_alive) {
            // Places have moved, so every member may miss calls that are its own now.
            peer.link.start_sync(Scope::Targets, now);
        }
        let need = self.need();
        for at in 0..self.holds.len() {
            // What lies outside of the call's places now is dropped there.
            let stays = self.places(self.holds[at].id);
            let hold = &mut self.holds[at];
            if !plant::is(Plant::AcksKept) {
                // An ack that is still under way from a former place counts as little.
                hold.targets = stays;
                hold.acked &= !changed & stays;
            }
            hold.settle(need, on);
        }
        self.pop_settled();
    }

    /// Sets the number of the last settled view, see [`View::settled`](crate::View::settled), and
    /// whether the present one is, see [`View::is_settled`](crate::View::is_settled).
    pub fn set_settled_view(&mut self, view: u32, is_settled: bool) {
        (self.settled, self.is_still) = (view, is_settled);
    }

    /// This node goes on with all calls that are its own (V8): what its peers hold beside them in
    /// its name they are to forget. Before, the only copy of a call may lie with one of them: a
    /// node whose memory was lost is alive for seconds before it knows all that was its.
    pub fn set_resumed(&mut self, now: u64) {
        self.has_resumed = true;
        for peer in &mut self.peers {
            peer.link.set_giving(self.is_alive, now);
        }
    }

    /// Sends a committed version on its way.
    pub fn commit(
        &mut self,
        now: u64,
        id: CallId,
        version: Version,
        kind: Kind,
        mode: Mode,
    ) -> Committed {
        let targets = self.targets(id);
        let urgent = mode == Mode::SemiSync;
        for n in bits(targets) {
            self.peers[n].link.enqueue(id, version, kind, urgent, now);
        }
        if kind == Kind::Del {
            // Not counted among the targets: an end that is held in the wrong place may be dropped.
            self.tell_end(now, id, version, targets);
        }
        if mode == Mode::Async || self.need() == 0 {
            return Committed::Released;
        }
        if self.holds.len() >= self.config.holds_max {
            self.held_refused += 1;
            return Committed::Refused;
        }
        let number = self.holds_base + self.holds.len() as u64;
        let entry = self.newest.find_mut(id.hash(), |entry| entry.0 == id);
        let former = match entry {
            Some(entry) => Some(std::mem::replace(&mut entry.1, number)),
            None => {
                self.newest
                    .insert_unique(id.hash(), (id, number), |entry| entry.0.hash());
                None
            }
        };
        let next_at = now + NEXT_MEMBERS_NS;
        let (acked, settled) = (0, false);
        self.holds.push_back(Hold {
            id,
            version,
            kind,
            former,
            acked,
            targets,
            next_at,
            settled,
        });
        Committed::Held
    }

    /// Asks a peer which of its calls this node should hold, to drop the others: whoever was
    /// filled with everything holds more than its share. Only while the view is settled and
    /// nobody fills this node: before, what it holds too much may be the only copy, and others
    /// would bring it again.
    pub fn request_share(&mut self, peer: u16, view: u32) {
        self.request(peer, Scope::Targets, view);
    }

    /// Whether any peer was asked to fill this node and has not done it.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        self.peers.iter().any(|peer| peer.link.is_asking())
    }

    /// Sends the last version of a call of this node, which names its heir, to that one and to the
    /// call's places (V13). What still waits for older versions never leaves: the heir may have
    /// acted by then.
    pub fn hand_over(&mut self, now: u64, id: CallId, version: Version, heir: u16) {
        for n in bits(self.targets(id)) {
            self.peers[n]
                .link
                .enqueue(id, version, Kind::Put, false, now);
        }
        self.tell(now, heir, id, version);
        let first = self.newest.find(id.hash(), |entry| entry.0 == id);
        let first = first.map(|entry| entry.1);
        each_hold(&mut self.holds, self.holds_base, first, |hold| {
            hold.settled = true;
        });
        self.pop_settled();
    }

    /// Sends a call's newest version to one member, whether that is a place of it or not: what
    /// was taken over to the giver, or once more what was given to the heir.
    pub fn tell(&mut self, now: u64, to: u16, id: CallId, version: Version) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.node == to) {
            peer.link.enqueue(id, version, Kind::Put, true, now);
        }
    }

    /// Asks a peer to fill this node with everything, for the answer to count in `view`.
    pub fn request_sync(&mut self, peer: u16, view: u32) {
        self.request(peer, Scope::All, view);
    }

    /// Asks a peer for the calls of dead nodes that this node is to go on with, for the answer to
    /// count in `view`. For a node that has all of its own calls.
    pub fn request_orphans(&mut self, peer: u16, view: u32) {
        self.request(peer, Scope::Orphans, view);
    }

    fn request(&mut self, peer: u16, scope: Scope, view: u32) {
        if let Some(peer) = self.peers.iter_mut().find(|known| known.node == peer) {
            peer.link.request_sync(scope, view);
        }
    }

    /// Takes a datagram that claims to come from `from`.
    ///
    /// # Errors
    /// See [`OpenFault`]; nothing has changed then.
    pub fn handle_datagram(
        &mut self,
        now: u64,
        from: u16,
        datagram: &mut [u8],
        ring: &mut Ring,
        on: &mut impl FnMut(ReplicationEvent),
    ) -> Result<(), OpenFault> {
        let n = self
            .peers
            .iter()
            .position(|peer| peer.node == from)
            .ok_or(OpenFault::Address)?;
        let need = self.need();
        let ack = u32::from(self.peers[n].is_place) << n;
        let mut newer = [None; NEWER_MAX];
        let (holds, base, newest) = (&mut self.holds, self.holds_base, &self.newest);
        let mut newer_count = 0;
        self.peers[n]
            .link
            .handle_datagram(now, datagram, ring, &mut |event| match event {
                LinkEvent::Acked(id, version) => {
                    let first = newest.find(id.hash(), |entry| entry.0 == id);
                    each_hold(holds, base, first.map(|entry| entry.1), |hold| {
                        if hold.version <= version {
                            hold.acked |= ack & hold.targets;
                            hold.settle(need, on);
                        }
                    });
                }
                LinkEvent::Stored(id, version) => {
                    // Another node owns the call under a newer epoch: what this node still
                    // wanted to say about it must never leave (S1).
                    let first = newest.find(id.hash(), |entry| entry.0 == id);
                    each_hold(holds, base, first.map(|entry| entry.1), |hold| {
                        hold.settled |= hold.version.epoch < version.epoch;
                    });
                    on(ReplicationEvent::Stored(id, version));
                }
                LinkEvent::Newer(id) => {
                    if let Some(slot) = newer.get_mut(newer_count) {
                        *slot = Some(id);
                        newer_count += 1;
                    }
                }
                LinkEvent::Synced { view } => on(ReplicationEvent::Synced { peer: from, view }),
            })?;
        self.pop_settled();
        for id in newer.into_iter().flatten() {
            if let Some(held) = ring.newest_or_tombstone(id) {
                let (version, kind) = (held.meta.version, held.meta.kind);
                self.peers[n].link.enqueue(id, version, kind, false, now);
            }
        }
        Ok(())
    }

    /// Goes on with forgetting what peers no longer know, which their last catch-up showed; looks
    /// at `limit` records at most. Once per turn of the loop: until it has ended nothing else that
    /// waits for that catch-up goes on.
    pub fn forget_some(
        &mut self,
        now: u64,
        ring: &mut Ring,
        limit: usize,
        on: &mut impl FnMut(ReplicationEvent),
    ) {
        let mut peers = self.peers.iter_mut();
        let Some(peer) = peers.find(|peer| peer.link.is_forgetting()) else {
            return;
        };
        let from = peer.node;
        peer.link.forget_some(now, ring, limit, &mut |event| {
            if let LinkEvent::Synced { view } = event {
                on(ReplicationEvent::Synced { peer: from, view });
            }
        });
    }

    /// Writes the next datagram to send into `buffer`; hands out for whom and how long.
    pub fn poll(&mut self, now: u64, ring: &Ring, buffer: &mut [u8]) -> Option<(u16, usize)> {
        self.send_to_next_members(now);
        self.tell_ends(now);
        self.note_waiting();
        let (own, copies) = (self.config.node, self.config.copies);
        let members = Members::of(&self.peers);
        let (scattered, roll, settled) = (&self.scattered, self.roll, self.settled);
        let (are_filled, told) = (self.are_filled(), self.ends_told);
        // Turn by turn, so that no peer waits for another's backlog.
        for _ in 0..self.peers.len() {
            let n = self.turn % self.peers.len();
            let peer = &mut self.peers[n];
            let node = peer.node;
            // A copy that went to further members may be what an output left for.
            let is_scattered = |id: CallId| scattered.find(id.hash(), |known| *known == id);
            let is_target = |id: CallId| {
                takeover::is_among_first(id, node, copies - 1, members.iter(own))
                    || is_scattered(id).is_some()
            };
            let is_orphan = |meta: &Meta| {
                let changed_hands = meta.version.epoch > settled;
                (changed_hands || !roll.has(meta.owner)) && roll.adopter_of(meta.id) == Some(node)
            };
            let belongings = Belongings {
                is_target: &is_target,
                is_orphan: &is_orphan,
                are_elsewhere: are_filled && peer.may_forget(told),
            };
            if let Some(len) = peer.link.poll(now, ring, buffer, &belongings) {
                return Some((node, len));
            }
            self.turn += 1;
        }
        None
    }

    /// When `poll` has something to do although nothing came in.
    #[must_use]
    pub fn deadline(&self, now: u64) -> Option<u64> {
        let links = self
            .peers
            .iter()
            .filter_map(|peer| peer.link.deadline(now))
            .min();
        let mut peers = self.peers.iter();
        let may_forget = |peer: &Peer| {
            peer.link.waits() && peer.link.has_room_for_walk() && peer.may_forget(self.ends_told)
        };
        let forget = (self.are_filled() && peers.any(may_forget)).then_some(now);
        let at = (self.escalated.max(self.holds_base) - self.holds_base) as usize;
        let hold = self.holds.get(at).map(|hold| hold.next_at);
        [links, hold, forget].into_iter().flatten().min()
    }

    /// Incarnation this replication runs under; another one needs a new `Replicator`.
    #[must_use]
    pub fn incarnation(&self) -> u32 {
        self.config.incarnation
    }

    /// Link to a peer.
    #[must_use]
    pub fn link(&self, peer: u16) -> Option<&Link> {
        self.peers
            .iter()
            .find(|known| known.node == peer)
            .map(|known| &known.link)
    }

    /// Sets which protocols it reads; for tests of versions to come.
    pub fn set_protocols(&mut self, lowest: u8, highest: u8) {
        for peer in &mut self.peers {
            peer.link.set_protocols(lowest, highest);
        }
    }

    /// Writes to a peer in the protocol agreed on, see [`Views::protocol`](crate::Views::protocol).
    pub fn set_protocol(&mut self, peer: u16, protocol: u8) {
        if let Some(peer) = self.peers.iter_mut().find(|known| known.node == peer) {
            peer.link.set_protocol(protocol);
        }
    }

    /// Takes other cluster keys.
    pub fn set_keys(&mut self, keys: ClusterKeys) {
        for peer in &mut self.peers {
            peer.link.set_keys(keys);
        }
    }

    /// Outputs that wait.
    #[must_use]
    pub fn held(&self) -> usize {
        self.holds.iter().filter(|hold| !hold.settled).count()
    }

    /// Outputs refused because too many waited.
    #[must_use]
    pub fn held_refused(&self) -> u64 {
        self.held_refused
    }

    /// Outputs whose records went to further members after 20 ms.
    #[must_use]
    pub fn held_escalated(&self) -> u64 {
        self.held_escalated
    }

    /// Whether all peers have all they should.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.peers
            .iter()
            .all(|peer| peer.link.admitted().is_none() || peer.link.is_settled())
    }

    /// How far the stream to each peer has come, to ask later whether all until then is acked.
    #[must_use]
    pub fn stream_marks(&self) -> StreamMarks {
        let mut marks = StreamMarks::default();
        for (mark, peer) in marks.0.iter_mut().zip(&self.peers) {
            *mark = peer.link.stream_end();
        }
        marks
    }

    /// Whether every peer has been filled and has acked what stood before `marks` were taken.
    /// Unlike `is_settled` it comes true under traffic as well.
    #[must_use]
    pub fn is_past(&self, marks: &StreamMarks) -> bool {
        let mut peers = self.peers.iter().zip(marks.0);
        peers.all(|(peer, mark)| peer.link.admitted().is_none() || peer.link.is_past(mark))
    }

    /// Acks an output must wait for.
    fn need(&self) -> u32 {
        let members = self.peers.iter().filter(|peer| peer.is_place).count();
        members.min(self.config.copies - 1) as u32
    }

    fn targets(&self, id: CallId) -> u32 {
        let members = Members::of(&self.peers);
        let first = self.config.copies - 1;
        let is_target = |peer: &Peer| {
            peer.is_place
                && takeover::is_among_first(id, peer.node, first, members.iter(self.config.node))
        };
        let peers = self.peers.iter().enumerate();
        peers
            .filter(|(_, peer)| is_target(peer))
            .fold(0, |set, (n, _)| set | 1 << n)
    }

    // Peers that hold copies of the call and are not to drop them.
    fn places(&self, id: CallId) -> u32 {
        let is_scattered = self.scattered.find(id.hash(), |known| *known == id);
        match is_scattered {
            Some(_) => u32::MAX,
            None => self.targets(id),
        }
    }

    // Whether members beside the places of an ended call have copies of it.
    fn take_scattered(&mut self, id: CallId) -> bool {
        let found = self.scattered.find_entry(id.hash(), |known| *known == id);
        found.map(|entry| entry.remove()).is_ok()
    }

    // Whether every place of this node's calls has what it should, so that a copy elsewhere may go.
    fn are_filled(&self) -> bool {
        let mut places = self.peers.iter().filter(|peer| peer.is_place);
        plant::is(Plant::ForgottenEarly)
            || places.all(|peer| peer.link.admitted().is_none() || peer.link.is_filled())
    }

    // Who may hold a copy that it should not, and so must learn of an end: whoever was filled with
    // everything and has not asked for its share, and whose places have moved. It could outlive
    // the tombstones of the others, and the call rise again when its owner is dead.
    fn misplaced(&self) -> u32 {
        let peers = self.peers.iter().enumerate();
        peers
            .filter(|(_, peer)| !self.is_still || !peer.link.has_share())
            .fold(0, |set, (n, _)| set | 1 << n)
    }

    fn note_scattered(&mut self, id: CallId, now: u64) {
        if self
            .scattered
            .find(id.hash(), |known| *known == id)
            .is_some()
        {
            return;
        }
        if self.scattered.len() >= self.config.holds_max * SCATTERED_PER_HOLD {
            // A full catch-up tells every peer what is not its.
            self.scattered.clear();
            for peer in &mut self.peers {
                peer.link.start_sync(Scope::Targets, now);
            }
        }
        self.scattered
            .insert_unique(id.hash(), id, |known| known.hash());
    }

    fn send_to_next_members(&mut self, now: u64) {
        self.escalated = self.escalated.max(self.holds_base);
        while let Some(hold) = self
            .holds
            .get_mut((self.escalated - self.holds_base) as usize)
        {
            if hold.next_at > now && !hold.settled {
                return;
            }
            self.escalated += 1;
            if hold.settled {
                continue;
            }
            self.held_escalated += 1;
            let id = hold.id;
            for (n, peer) in self.peers.iter_mut().enumerate() {
                if hold.targets >> n & 1 == 0 {
                    peer.link
                        .enqueue(hold.id, hold.version, hold.kind, true, now);
                    hold.targets |= 1 << n;
                }
            }
            self.note_scattered(id, now);
        }
    }

    fn pop_settled(&mut self) {
        while let Some(&hold) = self.holds.front().filter(|hold| hold.settled) {
            self.holds.pop_front();
            let number = self.holds_base;
            self.holds_base += 1;
            let found = self
                .newest
                .find_entry(hold.id.hash(), |entry| entry.0 == hold.id);
            if let Ok(entry) = found
                && entry.get().1 == number
            {
                entry.remove();
            }
        }
    }
}

/// Places in the streams to all peers; see [`Replicator::stream_marks`].
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamMarks([u64; PEERS_MAX]);

#[derive(Debug)]
struct Peer {
    node: u16,
    link: Link,
    /// Whether it is a member that stays, so that copies belong there and its acks count.
    is_place: bool,
    /// It waits to be told what to forget, until so many ends are told: those of before, for the
    /// walk brought no call that has ended.
    waits_for: Option<u64>,
}

impl Peer {
    fn may_forget(&self, told: u64) -> bool {
        plant::is(Plant::ForgottenEarly) || self.waits_for.is_some_and(|ends| ends <= told)
    }
}

/// An output that waits.
#[derive(Clone, Copy, Debug)]
struct Hold {
    id: CallId,
    version: Version,
    kind: Kind,
    /// Number of the hold before this one of the same call; may be gone.
    former: Option<u64>,
    acked: u32,
    /// Who was sent it or is filled with it, and keeps it: only their acks count.
    targets: u32,
    next_at: u64,
    settled: bool,
}

impl Hold {
    fn settle(&mut self, need: u32, on: &mut impl FnMut(ReplicationEvent)) {
        if !self.settled && self.acked.count_ones() >= need {
            self.settled = true;
            on(ReplicationEvent::Released(self.id, self.version));
        }
    }
}

/// Visits the holds of one call, newest first.
fn each_hold(
    holds: &mut VecDeque<Hold>,
    base: u64,
    mut next: Option<u64>,
    mut visit: impl FnMut(&mut Hold),
) {
    while let Some(at) = next.and_then(|number| number.checked_sub(base)) {
        let hold = &mut holds[at as usize];
        visit(hold);
        next = hold.former;
    }
}

/// Data nodes beside this one.
pub const PEERS_MAX: usize = 16;
/// Patience with the first members before the next ones are asked too.
pub const NEXT_MEMBERS_NS: u64 = 20_000_000;
/// Calls remembered as scattered, for each hold there may be.
const SCATTERED_PER_HOLD: usize = 4;
/// Calls one datagram may show to be another node's; the sender repeats what is left.
const NEWER_MAX: usize = 32;
