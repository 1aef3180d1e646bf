//! One node, its phones and its CDFs in one thread and in virtual time, from one seed.
//!
//! ```text
//!  phones ── Net ── Shard (1..n) ── virtual TCP ── CDFs
//!                     │   └ Records (backlog)
//!                     └ Blobs (states)                 both outlive the shard
//! ```
//!
//! [`World::run_until`] takes the next event, be it a datagram that arrives, a deadline of
//! anybody or a misfortune of the plan, and plays the part of the shell: feed, settle, send.
//! What crosses the node's edge is watched; whatever must never happen is noted in
//! [`World::violations`].

pub(crate) mod diameter;
mod members;
mod node;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use charging::diameter::routing::PeerIndex;
use charging::server::{ConnectionId, Fault};
use dataplane::config::Config;
use dataplane::env::SplitMix64;
use dataplane::shard::Shard;
use replication::peer::LinkConfig;

use self::members::NodeState;
pub(crate) use self::members::ring_in;
pub use self::members::{Clock, Cluster};
use crate::cdf::Far;
use crate::checks::Watch;
use crate::net::Net;
use crate::store::{Blobs, Records};
use crate::ua::{Phone, Plan};

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Seed of everything random.
    pub seed: u64,
    /// Shards of the node.
    pub shards: u16,
    /// The network of the phones.
    pub net: Net,
    /// What is added to the configuration's `[sip]` section and after it.
    pub config: String,
    /// Number of CDFs.
    pub cdfs: usize,
    /// Acct-Interim-Interval that the CDFs give.
    pub interim_s: Option<u32>,
    /// A planted fault.
    pub sabotage: Sabotage,
    /// The cluster, if it is one.
    pub cluster: Option<Cluster>,
    /// Young ring of each shard of a cluster, bytes.
    pub young_bytes: u64,
    /// Bytes of the old ring of each shard of a cluster.
    pub old_bytes: u64,
    /// Bytes of copies that a node of a cluster gives each other one in a second of a catch-up.
    pub sync_bytes_per_s: u64,
}

impl Setup {
    fn parse(&self) -> Config {
        let cdfs: Vec<_> = (0..self.cdfs)
            .map(|n| format!("\"192.0.2.{}:3868\"", n + 1))
            .collect();
        let text = format!(
            "[node]\nname = \"node1\"\n[charging.rf]\nretry_interval_ms = 2000\nwatchdog_s = 6\n\
             origin_realm = \"example\"\ncdf = [{}]\n[sip]\nlisten = [\"udp:{NODE}\"]\n{}",
            cdfs.join(", "),
            self.config
        );
        Config::parse(&text, Path::new("simulation")).expect("a valid configuration")
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: 1,
            shards: 1,
            net: Net::PERFECT,
            config: String::new(),
            cdfs: 2,
            interim_s: Some(30),
            sabotage: Sabotage::None,
            cluster: None,
            young_bytes: 1 << 20,
            old_bytes: 4 << 20,
            sync_bytes_per_s: LinkConfig::default().sync_bytes_per_s,
        }
    }
}

/// A fault planted to prove that the checks find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// None.
    None,
    /// Every seventh ACR gets its answer and is not kept.
    LoseRecord,
    /// Every fifth ACR comes a second time with other content.
    ForgeRecord,
    /// Timers of the shard do not fire.
    NoTimers,
    /// Committed states are forgotten from some moment on.
    ForgetCommits,
    /// Every ninth 2xx is sent with another status as well.
    SecondFinal,
    /// Outputs do not wait for copies (BYE answered, record sent before it is replicated).
    NoWait,
    /// A node believes at once that everybody has filled it.
    NoSync,
    /// Calls end without a tombstone.
    NoTombstone,
    /// A state is written after what it promises has left.
    SendFirst,
    /// Timers run for calls of other nodes.
    ReplicaTimers,
    /// A node forgets its vote when it restarts.
    VoteForgotten,
    /// A node acts as soon as it joins.
    JoinerActs,
    /// A rule of the replication is left out (feature `plant`).
    #[cfg(feature = "plant")]
    Rule(replication::plant::Plant),
}

/// What can happen to the node and its CDFs.
#[derive(Clone, Copy, Debug)]
pub enum Misfortune {
    /// The node's process ends and starts again after that time.
    Restart(u64),
    /// A CDF goes.
    CdfDown(usize),
    /// It comes back.
    CdfUp(usize),
    /// The connections to a CDF are cut.
    Cut(usize),
    /// Octets to and from a CDF vanish.
    Black(usize),
    /// They arrive again, on new connections.
    Clear(usize),
    /// The ACRs at a CDF suffer.
    Fault(usize, Fault),
    /// Octets need that long.
    Slow(usize, u64),
    /// From now on commits are forgotten.
    Forget,
    /// The stores have no room for anything, or have it again.
    Full(bool),
    /// A node's process ends, its memory stays, and it starts again after that time.
    Crash(u16, u64),
    /// A node is asked to leave; it starts again that long after it has.
    Leave(u16, u64),
    /// A node loses power: its memory goes, its disk stays. It starts again after that time.
    Loss(u16, u64),
    /// A node loses its disk as well; the one that it gets starts with leave to read its vote back.
    DiskLoss(u16, u64),
    /// Datagrams from and to a node take that long besides, in milliseconds; 0: no longer.
    Lag(u16, u64),
    /// A node reaches no CDF, whom the others reach.
    CutCdfs(u16),
    /// It does again.
    JoinCdfs(u16),
    /// A node stands still for that time (SIGSTOP).
    Pause(u16, u64),
    /// Nothing passes from the first node to the second.
    CutLink(u16, u16),
    /// Everything passes between all nodes again.
    Join,
    /// Whatever befell a node is over.
    Over,
    /// A node's clocks go wrong.
    Clock(u16, Clock),
}

enum Event {
    ToNode {
        from: SocketAddr,
        bytes: Vec<u8>,
    },
    Peer {
        from: u16,
        to: u16,
        // None: for the membership.
        shard: Option<u16>,
        bytes: Vec<u8>,
    },
    StartMember(u16),
    // Looks whether the node has left; after the second number it is ended anyway.
    Leaving(u16, u64, u64),
    ToPhone {
        phone: usize,
        bytes: Vec<u8>,
    },
    Phone(usize),
    Up {
        shard: usize,
        far: usize,
        id: ConnectionId,
        bytes: Vec<u8>,
    },
    Down {
        shard: usize,
        far: usize,
        id: ConnectionId,
        bytes: Vec<u8>,
    },
    Connected {
        shard: usize,
        far: usize,
        life: u32,
    },
    Misfortune(Misfortune),
    Start,
}

pub(crate) struct Seat {
    pub(crate) shard: Option<Shard>,
    blobs: Blobs,
    records: Records,
    armed: Option<u64>,
    // The memory of a ring whose process is gone.
    memory: Option<(replication::Map, replication::Map)>,
}

/// Everything.
pub struct World {
    /// Milliseconds since the beginning.
    pub now: u64,
    /// The phones.
    pub phones: Vec<Phone>,
    /// The CDFs, primary first.
    pub fars: Vec<Far>,
    /// What crossed the node's edge.
    pub watch: Watch,
    /// What must never happen and did.
    pub violations: Vec<String>,
    /// A number that two equal runs share.
    pub trace: u64,
    /// How often the node was started anew.
    pub restarts: u32,
    /// Times at which the node was down: from, until.
    pub outages: Vec<(u64, u64)>,
    /// Whether a CDF ever misbehaved.
    pub cdf_troubled: bool,
    /// Whether a CDF ever refused a record, which is then lost.
    pub cdf_refused: bool,
    /// How it was made.
    pub setup: Setup,
    /// How bad the network to the phones is now.
    pub net: Net,
    base: quanta::Instant,
    rng: SplitMix64,
    queue: BTreeMap<(u64, u64), Event>,
    order: u64,
    by_address: BTreeMap<SocketAddr, usize>,
    pub(crate) seats: Vec<Seat>,
    pub(crate) nodes: Vec<NodeState>,
    cut: std::collections::BTreeSet<(u16, u16)>,
    /// When a node last lost its memory.
    pub lost_at: Option<u64>,
    /// When the cluster was last disturbed.
    pub troubled_at: u64,
    /// From when until when something befell nodes; what is not over ends never.
    pub troubled: Vec<(u64, u64)>,
    /// How often something befell it, or was over.
    pub troubles: u32,
    pub(crate) seen: crate::cluster_checks::Seen,
    config: Arc<Config>,
    acrs: u64,
    finals: u64,
    shown: Vec<usize>,
    // What the phones sent.
    sent: Vec<(usize, Vec<u8>)>,
}

impl World {
    /// A world whose node starts at once.
    ///
    /// # Panics
    /// When the configuration is not valid.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let config = setup.parse();
        let fars = (0..setup.cdfs).map(|n| {
            let address = config.rf.cdf[n];
            Far::new(n, address, setup.interim_s)
        });
        let seat = || Seat {
            shard: None,
            blobs: Blobs::default(),
            records: Records::default(),
            armed: None,
            memory: None,
        };
        let members = setup.cluster.map_or(1, |cluster| cluster.nodes);
        #[cfg(feature = "plant")]
        replication::plant::set(match setup.sabotage {
            Sabotage::Rule(plant) => Some(plant),
            _ => None,
        });
        let base = quanta::Instant::now();
        let mut world = Self {
            now: 0,
            phones: Vec::new(),
            fars: fars.collect(),
            watch: Watch::default(),
            violations: Vec::new(),
            trace: 0xcbf2_9ce4_8422_2325,
            restarts: 0,
            outages: Vec::new(),
            cdf_troubled: false,
            cdf_refused: false,
            net: setup.net,
            base,
            rng: SplitMix64::new(setup.seed),
            queue: BTreeMap::new(),
            order: 0,
            by_address: BTreeMap::new(),
            seats: (0..setup.shards * members).map(|_| seat()).collect(),
            nodes: NodeState::all(&setup, base),
            cut: Default::default(),
            lost_at: None,
            troubled_at: 0,
            troubled: Vec::new(),
            troubles: 0,
            seen: Default::default(),
            config: Arc::new(config),
            acrs: 0,
            finals: 0,
            sent: Vec::new(),
            shown: std::env::var("RINGTOLL_PHONES")
                .map(|list| list.split(',').filter_map(|one| one.parse().ok()).collect())
                .unwrap_or_default(),
            setup,
        };
        match world.setup.cluster {
            None => world.start_node(),
            Some(_) => world.start_members(),
        }
        world
    }

    /// What the node reads when it starts the next time.
    ///
    /// # Panics
    /// When the configuration is not valid.
    pub fn reconfigure(&mut self, config: &str) {
        self.setup.config = config.to_owned();
        self.config = Arc::new(self.setup.parse());
    }

    /// Adds a phone; gives its number, from which its address follows.
    pub fn add_phone(&mut self, plan: Plan) -> usize {
        let number = self.phones.len();
        let address = phone_address(number);
        let phone = Phone::new(number, address, node_address(), plan);
        self.by_address.insert(address, number);
        self.phones.push(phone);
        self.arm_phone(number);
        number
    }

    /// Adds a caller and a callee, the caller calling the callee by address. Gives the caller.
    pub fn add_call(&mut self, mut caller: Plan, callee: Plan) -> usize {
        let number = self.phones.len();
        if caller.target.is_empty() {
            caller.target = format!("sip:callee@{}", phone_address(number + 1));
        }
        caller.calls_at.get_or_insert(self.now);
        self.add_phone(caller);
        self.add_phone(callee);
        number
    }

    /// Plans a misfortune.
    pub fn befall(&mut self, at: u64, what: Misfortune) {
        self.push(at, Event::Misfortune(what));
    }

    /// Lets a phone that the test plays itself send a datagram.
    pub fn say(&mut self, phone: usize, text: &str) {
        let from = self.phones[phone].address;
        let bytes = text.as_bytes().to_vec();
        self.sent.push((phone, bytes.clone()));
        let delays: Vec<u64> = self.net.copies(&mut self.rng).collect();
        for delay in delays {
            let bytes = bytes.clone();
            self.push(self.now + delay, Event::ToNode { from, bytes });
        }
    }

    /// Lets everything that a phone sent and that begins with `start` arrive once more, now.
    pub fn replay(&mut self, phone: usize, start: &str) {
        let from = self.phones[phone].address;
        let again: Vec<_> = self
            .sent
            .iter()
            .filter(|(sender, bytes)| *sender == phone && bytes.starts_with(start.as_bytes()))
            .map(|(_, bytes)| bytes.clone())
            .collect();
        assert!(!again.is_empty(), "phone {phone} sent no {start}");
        for bytes in again {
            self.push(self.now, Event::ToNode { from, bytes });
        }
    }

    /// Plays until that millisecond.
    pub fn run_until(&mut self, until: u64) {
        for turn in 0_u64.. {
            assert!(turn < TURNS_MAX, "the world does not come to rest");
            let queued = self.queue.keys().next().map(|key| key.0);
            let shards = (0..self.seats.len()).filter_map(|place| self.armed_at(place));
            let members = self.members_armed();
            let fars = self.fars.iter().filter_map(|far| far.cdf.next_deadline());
            let fars = fars.map(|at| self.ms_of(at)).min();
            let next = shards.chain(fars).chain(members).chain(queued).min();
            let Some(next) = next.filter(|next| *next <= until) else {
                break;
            };
            self.now = self.now.max(next);
            self.step();
            self.look_at_rings();
        }
        self.now = self.now.max(until);
    }

    /// Ends all trouble and plays until everything has to be over.
    pub fn heal_and_drain(&mut self) {
        self.happen(Misfortune::Join);
        for node in 0..self.nodes.len() as u16 {
            self.happen(Misfortune::Clock(node, Clock::True));
            self.happen(Misfortune::Lag(node, 0));
            self.happen(Misfortune::JoinCdfs(node));
            let state = &mut self.nodes[usize::from(node)];
            state.paused_until = state.paused_until.min(self.now);
        }
        self.net = Net {
            loss: 0,
            duplicates: 0,
            ..self.net
        };
        for place in 0..self.fars.len() {
            self.happen(Misfortune::Fault(place, Fault::None));
            self.happen(Misfortune::CdfUp(place));
            self.happen(Misfortune::Clear(place));
            self.fars[place].delay = 2;
        }
        let drain = match self.setup.cluster {
            None => DRAIN_MS,
            Some(_) => CLUSTER_DRAIN_MS,
        };
        self.run_until(self.now + drain);
    }

    fn step(&mut self) {
        let due = self.queue.first_key_value().map(|(key, _)| *key);
        if let Some(key) = due.filter(|key| key.0 <= self.now) {
            let event = self.queue.remove(&key).expect("it is the first");
            self.take(event);
        }
        self.tick_members();
        for place in 0..self.seats.len() {
            if self.armed_at(place).is_some_and(|at| at <= self.now) {
                self.turn(place, |_, _| ());
            }
        }
        for place in 0..self.fars.len() {
            let due = self.fars[place].cdf.next_deadline();
            if due.is_some_and(|at| self.ms_of(at) <= self.now) {
                let now = self.instant();
                self.fars[place].cdf.handle_timeout(now);
                self.serve_far(place);
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::ToNode { from, bytes } => self.reach_node(from, bytes),
            Event::Peer {
                from,
                to,
                shard,
                bytes,
            } => self.reach_member(from, to, shard, bytes),
            Event::StartMember(node) => self.start_member(node),
            Event::Leaving(node, until, down) => self.see_off(node, until, down),
            Event::ToPhone { phone, bytes } => {
                self.note(1, &bytes);
                self.show(phone, "in", &bytes);
                self.phones[phone].handle_datagram(self.now, node_address(), &bytes);
                self.after_phone(phone);
            }
            Event::Phone(phone) => {
                self.phones[phone].handle_timeout(self.now);
                self.after_phone(phone);
            }
            Event::Up {
                shard,
                far,
                id,
                bytes,
            } => self.reach_far(shard, far, id, &bytes),
            Event::Down {
                shard,
                far,
                id,
                bytes,
            } => {
                if let Some(until) = self.is_paused(self.node_of(shard)) {
                    let event = Event::Down {
                        shard,
                        far,
                        id,
                        bytes,
                    };
                    return self.push(until, event);
                }
                let link = self.fars[far].links.get(&shard);
                if link.is_some_and(|link| link.id == id && !link.broken) {
                    let now = self.now_of(self.node_of(shard)).instant;
                    self.turn(shard, |shard, _| {
                        shard
                            .router()
                            .handle_bytes(now, PeerIndex(far as u16), &bytes);
                    });
                }
            }
            Event::Connected { shard, far, life } => self.connect(shard, far, life),
            Event::Misfortune(what) => self.happen(what),
            Event::Start => self.start_node(),
        }
    }

    // ---- misfortunes

    fn happen(&mut self, what: Misfortune) {
        self.note_trouble(&what);
        self.cdf_refused |= matches!(what, Misfortune::Fault(_, Fault::Refuse(_)));
        self.cdf_troubled |= !matches!(
            what,
            Misfortune::Restart(_)
                | Misfortune::Fault(_, Fault::None)
                | Misfortune::Crash(..)
                | Misfortune::Leave(..)
                | Misfortune::Loss(..)
                | Misfortune::DiskLoss(..)
                | Misfortune::Lag(..)
                | Misfortune::Pause(..)
                | Misfortune::CutLink(..)
                | Misfortune::Join
                | Misfortune::Over
                | Misfortune::Clock(..)
        );
        match what {
            Misfortune::Restart(down) => {
                if self.seats[0].shard.is_some() {
                    self.stop_node();
                    self.restarts += 1;
                    self.outages.push((self.now, self.now + down));
                    self.push(self.now + down, Event::Start);
                }
            }
            Misfortune::CdfDown(far) => {
                self.fars[far].is_down = true;
                self.cut(far);
            }
            Misfortune::CdfUp(far) => self.fars[far].is_down = false,
            Misfortune::Cut(far) => self.cut(far),
            Misfortune::Black(far) => {
                self.fars[far].is_black = true;
                for link in self.fars[far].links.values_mut() {
                    link.broken = true;
                }
            }
            Misfortune::Clear(far) => self.fars[far].is_black = false,
            Misfortune::Fault(far, fault) => self.fars[far].cdf.set_fault(fault),
            Misfortune::Slow(far, ms) => self.fars[far].delay = self.fars[far].delay.max(ms),
            Misfortune::CutLink(from, to) => {
                self.cut.insert((from, to));
            }
            Misfortune::Join => self.cut.clear(),
            Misfortune::Over => {}
            Misfortune::Full(full) => {
                for seat in &self.seats {
                    *seat.blobs.full.borrow_mut() = full;
                }
            }
            Misfortune::Forget => {
                for seat in &self.seats {
                    *seat.blobs.forgets.borrow_mut() = true;
                }
            }
            of_node => self.happen_to_node(of_node),
        }
    }

    // ---- phones

    fn after_phone(&mut self, phone: usize) {
        for sent in self.phones[phone].take_sent() {
            let from = self.phones[phone].address;
            self.sent.push((phone, sent.bytes.clone()));
            if sent.to != node_address() {
                self.violations
                    .push(format!("phone {phone} sends to {}", sent.to));
                continue;
            }
            let delays: Vec<u64> = self.net.copies(&mut self.rng).collect();
            for delay in delays {
                let bytes = sent.bytes.clone();
                self.push(self.now + delay, Event::ToNode { from, bytes });
            }
        }
        self.arm_phone(phone);
    }

    fn arm_phone(&mut self, phone: usize) {
        if let Some(at) = self.phones[phone].next_deadline() {
            self.push(at.max(self.now), Event::Phone(phone));
        }
    }

    // ---- time and trace

    fn push(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.queue.insert((at, self.order), event);
    }

    // Behind whatever else happens in that millisecond.
    fn push_last(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.queue.insert((at, self.order | LAST), event);
    }

    /// What a node has sent to others and has not arrived goes with it.
    pub(crate) fn lose_under_way(&mut self, node: u16) {
        let is_its = |event: &Event| matches!(event, Event::Peer { from, .. } if *from == node);
        self.queue.retain(|_, event| !is_its(event));
    }

    fn note(&mut self, kind: u8, bytes: &[u8]) {
        let mut hash = self.trace ^ self.now;
        for byte in std::iter::once(&kind).chain(bytes) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.trace = hash;
    }

    // Prints the messages of the phones that RINGTOLL_PHONES names, for whoever looks for a fault.
    fn show(&self, phone: usize, what: &str, bytes: &[u8]) {
        if !self.shown.contains(&phone) {
            return;
        }
        let text = String::from_utf8_lossy(bytes);
        let line = text.lines().next().unwrap_or_default();
        let pick = |name: &str| {
            text.lines()
                .find(|line| line.starts_with(name))
                .unwrap_or("")
        };
        println!(
            "{:>7} {what:>7} {phone}: {line} | {} | {} | {}",
            self.now,
            pick("CSeq:"),
            pick("To:"),
            pick("Via:")
        );
    }

    fn instant(&self) -> quanta::Instant {
        self.base + Duration::from_millis(self.now)
    }

    fn ms_of(&self, at: quanta::Instant) -> u64 {
        at.saturating_duration_since(self.base)
            .as_micros()
            .div_ceil(1_000) as u64
    }

    // ---- what is left at the end

    /// What the shards still hold that they should not.
    pub fn leftovers(&mut self) -> Vec<String> {
        let mut left = Vec::new();
        for (place, seat) in self.seats.iter_mut().enumerate() {
            let Some(shard) = &mut seat.shard else {
                continue;
            };
            let counts = [
                ("calls", shard.b2bua().call_count()),
                ("transactions", shard.b2bua().transaction_count()),
                ("stored records", shard.backlog_len() as usize),
                ("unanswered ACRs", shard.router().pending()),
                ("states", seat.blobs.len()),
                ("timers", shard.env().wheel.len()),
            ];
            for (what, count) in counts {
                if count > 0 {
                    left.push(format!("shard {place} holds {count} {what}"));
                }
            }
            for call in shard.b2bua().calls() {
                left.push(format!(
                    "call in {:?}, over {}",
                    call.state.phase, call.set_up.over
                ));
            }
        }
        left
    }

    /// A shard of the node.
    pub fn shard(&mut self, place: usize) -> Option<&mut Shard> {
        self.seats[place].shard.as_mut()
    }
}

/// Where the node listens.
pub const NODE: &str = "10.0.0.1:5060";
/// The key of all call tokens.
pub const TOKEN_KEY: [u8; 16] = [7; 16];
/// Wall clock at the beginning.
pub const WALL: u64 = 1_700_000_000_000;
/// How long everything has to be over at the latest, once nothing goes wrong any more.
const DRAIN_MS: u64 = 900_000;
/// The same for a cluster, whose calls last two minutes at most.
const CLUSTER_DRAIN_MS: u64 = 260_000;
/// More events than any run needs.
const TURNS_MAX: u64 = 20_000_000;
/// Most bytes of texts of a call: it must not grow with what happens in the call.
const TEXTS_BOUND: usize = 8 * 1_024;

/// The node's address.
#[must_use]
pub fn node_address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 5_060))
}

/// The address of a phone.
#[must_use]
pub fn phone_address(number: usize) -> SocketAddr {
    SocketAddr::from((
        [10, 1, (number / 200) as u8, (number % 200) as u8 + 1],
        5_060,
    ))
}
/// Marks what comes last in its millisecond.
const LAST: u64 = 1 << 62;
