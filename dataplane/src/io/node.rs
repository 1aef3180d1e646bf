//! A whole node: its sockets, its shards, the bundled CDF if it needs one, and its end.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use charging::config::CtfConfig;
use charging::ctf::Ctf;
use charging::diameter::base::Identity;
use charging::diameter::peer::PeerConfig;
use charging::diameter::routing::{RoutedPeer, Router, RouterConfig};
use charging::rf::backlog::BacklogConfig;
use charging::time::Now;
use replication::peer::LinkConfig;
use replication::{ReplicatorConfig, RingConfig};

use super::clock::Clock;
use super::driver::{self, Seat};
use super::member::{self, Departure, Member, MemberParts, Vote};
use super::memory;
use super::mesh::{Inlet, Order, Question, ShardMetrics};
use super::wake::Doorbell;
use super::{BundledCdf, NodeError, admin, backlog, rings, sys, udp};
use crate::b2bua::{CallState, Place, SCHEMA, SCHEMA_FORMER};
use crate::cluster::{Board, ClusterStore, ClusterStoreParts, KeyFile};
use crate::config::Config;
use crate::shard::Parts;
use crate::sip::TokenKey;
use crate::store::BlobStore;

/// A running node.
pub struct Node {
    inlets: Vec<Inlet>,
    threads: Vec<JoinHandle<()>>,
    drain_timeout: Duration,
    _locks: Vec<File>,
    bundled: Option<BundledCdf>,
    member: Option<Member>,
    key_file: Option<PathBuf>,
}

/// Runs a node until it is told to stop (SIGTERM, SIGINT), then drains it.
pub fn run(config: Config) -> Result<(), NodeError> {
    let mut signals = signal_hook::iterator::Signals::new([
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGHUP,
    ])
    .map_err(|error| NodeError::Executor(error.to_string()))?;
    let mut node = Node::start_with(config, Some(leave))?;
    for signal in signals.forever() {
        if signal != signal_hook::consts::SIGHUP {
            break;
        }
        node.read_keys_again();
    }
    tracing::info!("draining: no new calls are taken");
    node.drain();
    node.stop();
    Ok(())
}

// What the operator's page does to end a node in order.
fn leave() {
    if let Err(error) = signal_hook::low_level::raise(signal_hook::consts::SIGTERM) {
        tracing::error!(%error, "the node cannot be told to leave");
    }
}

impl Node {
    /// Starts every shard of a node.
    pub fn start(config: Config) -> Result<Self, NodeError> {
        Self::start_with(config, None)
    }

    // `leave` begins to end the node when the operator's page is asked to.
    fn start_with(mut config: Config, leave: Option<fn()>) -> Result<Self, NodeError> {
        sys::raise_memlock();
        sys::keep_freed_memory();
        let clock = Clock::new();
        let number = config.node_number();
        refuse_witness(&config)?;
        let locks = vec![
            lock(&config.node.state_dir.join(number.to_string()))?,
            lock(&config.node.data_dir)?,
        ];
        memory::remove_rings_without_shard(&config)?;
        let bundled = start_bundled_cdf(&mut config)?;
        let config = Arc::new(config);
        let shards = config.node.cores.len().max(1);
        let mut groups = open_listeners(&config, shards)?;
        let (inlets, bells) = inlets(shards)?;
        let joining = Joining::open(&config, &clock, shards as u16)?;
        let plan = Plan {
            cluster: joining.as_ref().map(|joining| joining.plan.clone()),
            config: config.clone(),
            number,
            shards: shards as u16,
            tokens: TokenKey::new(&match &joining {
                Some(joining) => joining.keys.token,
                None => token_key(&config.node.data_dir)?,
            }),
            boot_epoch_s: boot_epoch(&config.node.data_dir, clock.now())?,
            boot_id: boot_id(),
        };
        let mut threads = Vec::new();
        for (shard, bell) in bells.into_iter().enumerate() {
            let seat = Seat {
                number: shard as u16,
                core: config.node.cores.get(shard).copied(),
                sockets: groups.iter_mut().filter_map(Iterator::next).collect(),
                inlets: inlets.clone(),
                bell,
                clock: clock.clone(),
                peers: peers_of(&config, shard as u16)?,
            };
            let plan = plan.clone();
            threads.push(driver::run(seat, move |now| plan.parts(shard as u16, now))?);
        }
        let member = match joining {
            Some(joining) => Some(joining.join(&config, clock, inlets.clone())?),
            None => None,
        };
        if let Some(address) = config.admin {
            let pages = admin::Pages {
                node: config.node.name.clone(),
                inlets: inlets.clone(),
                membership: member.as_ref().map(Member::reports),
                cluster: config.cluster.clone(),
                leave,
            };
            admin::start(address, pages)?;
        }
        tracing::info!(node = %config.node.name, shards, "ready");
        let drain_timeout = Duration::from_secs(config.node.drain_timeout_s);
        Ok(Self {
            inlets,
            threads,
            drain_timeout,
            _locks: locks,
            bundled,
            member,
            key_file: config.cluster.as_ref().map(|c| c.key_file.clone()),
        })
    }

    /// The CDF that was started beside the node, if there is one.
    #[must_use]
    pub fn bundled_cdf(&self) -> Option<&BundledCdf> {
        self.bundled.as_ref()
    }

    /// Takes no new calls and waits until the running ones have ended and their records are
    /// safe, or the time for it is over. In a cluster the calls go to the other members instead,
    /// and the node is none any more when this returns.
    pub fn drain(&mut self) {
        if let Some(member) = &self.member {
            member.drain();
        }
        for inlet in &self.inlets {
            inlet.order(Order::Drain);
        }
        let until = Instant::now() + self.drain_timeout;
        while Instant::now() < until {
            let departure = match &self.member {
                Some(member) => member.departure(),
                None => Departure::NobodyElse,
            };
            let left = match departure {
                Departure::Left => 0,
                Departure::UnderWay => 1,
                Departure::NobodyElse => self.metrics().iter().map(|shard| shard.calls).sum(),
            };
            if left == 0 {
                return;
            }
            std::thread::sleep(DRAIN_LOOK);
        }
        tracing::warn!("some calls did not end in time: they wait in the ring");
    }

    /// Takes the keys that the key file holds now; a bad file changes nothing.
    fn read_keys_again(&self) {
        let (Some(path), Some(member)) = (&self.key_file, &self.member) else {
            return;
        };
        member::read_keys_again(path, &self.inlets, member);
    }

    /// What the shards report.
    fn metrics(&self) -> Vec<ShardMetrics> {
        admin::ask(&self.inlets, Question::Metrics)
    }

    /// Ends the shards.
    pub fn stop(&mut self) {
        for inlet in &self.inlets {
            inlet.order(Order::Stop);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        if let Some(member) = &mut self.member {
            member.stop();
        }
        if let Some(cdf) = self.bundled.take() {
            cdf.stop();
        }
    }
}

fn start_bundled_cdf(config: &mut Config) -> Result<Option<BundledCdf>, NodeError> {
    if !config.rf.enabled || !config.rf.cdf.is_empty() {
        return Ok(None);
    }
    let store = config.node.data_dir.join("cdf.sqlite");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let cdf = BundledCdf::start(any, &store, config.rf.bundled_interim_interval_s)?;
    println!(
        "no CDF is configured: the bundled one runs beside this node on {}, store {}",
        cdf.address(),
        store.display()
    );
    config.rf.cdf.push(cdf.address());
    Ok(Some(cdf))
}

/// The sockets of each listener, one per shard.
type Groups = Vec<std::vec::IntoIter<socket2::Socket>>;

fn open_listeners(config: &Config, shards: usize) -> Result<Groups, NodeError> {
    let mut groups = Vec::new();
    for address in &config.sip.listen {
        let group = udp::open_group(*address, shards)
            .map_err(|error| NodeError::Listen(format!("udp:{address}"), error))?;
        groups.push(group.into_iter());
    }
    Ok(groups)
}

/// The way into each shard, and the end of its bell that the shard waits at.
fn inlets(shards: usize) -> Result<(Vec<Inlet>, Vec<UnixStream>), NodeError> {
    let mut inlets = Vec::new();
    let mut bells = Vec::new();
    for _ in 0..shards {
        let (bell, waiting) =
            Doorbell::new().map_err(|error| NodeError::Executor(error.to_string()))?;
        inlets.push(Inlet::new(bell));
        bells.push(waiting);
    }
    Ok((inlets, bells))
}

fn refuse_witness(config: &Config) -> Result<(), NodeError> {
    match &config.cluster {
        Some(cluster) if cluster.own_node().is_witness => Err(NodeError::Vote(format!(
            "node {} is the witness, which takes no calls: use `ringtoll witness`",
            cluster.own_node().id
        ))),
        _ => Ok(()),
    }
}

// The socket of a shard for its likes on other nodes, and where those receive.
fn peers_of(
    config: &Config,
    shard: u16,
) -> Result<Option<(socket2::Socket, Vec<SocketAddr>)>, NodeError> {
    let Some(cluster) = &config.cluster else {
        return Ok(None);
    };
    let address = |node| {
        cluster
            .shard_address(node, shard)
            .expect("ports were checked")
    };
    let own = address(cluster.own);
    let socket = udp::open_alone(own)
        .map_err(|error| NodeError::Listen(format!("udp:{own} (cluster)"), error))?;
    let nodes = 0..cluster.nodes.len() as u16;
    Ok(Some((socket, nodes.map(address).collect())))
}

/// What a node of a cluster opens before its shards start, and joins with once they run.
struct Joining {
    plan: ClusterPlan,
    keys: KeyFile,
    vote: Vote,
}

impl Joining {
    fn open(config: &Config, clock: &Clock, shards: u16) -> Result<Option<Self>, NodeError> {
        let Some(cluster) = &config.cluster else {
            return Ok(None);
        };
        let keys = member::read_keys(&cluster.key_file)?;
        let rings = config.node.state_dir.join(cluster.own.to_string());
        let rings = rings.join("0.young").exists().then_some(rings.as_path());
        let vote = Vote::open(&config.node.data_dir, cluster, &keys, rings, clock.now())?;
        let plan = ClusterPlan {
            keys: keys.keys,
            number: keys.cluster,
            incarnation: vote.incarnation(),
            board: Arc::new(Board::new(shards)),
            clock_start: clock.now().instant,
            kept: Arc::new(AtomicBool::new(true)),
        };
        Ok(Some(Self { plan, keys, vote }))
    }

    fn join(self, config: &Config, clock: Clock, inlets: Vec<Inlet>) -> Result<Member, NodeError> {
        let cluster = config.cluster.as_ref().expect("it was there");
        let kept = self.plan.kept.load(Ordering::Acquire);
        Member::start(MemberParts {
            cluster,
            keys: &self.keys,
            vote: self.vote,
            kept,
            board: self.plan.board,
            clock,
            clock_start: self.plan.clock_start,
            inlets,
        })
    }
}

/// What the shards of a cluster's node share.
#[derive(Clone)]
struct ClusterPlan {
    keys: replication::ClusterKeys,
    number: u32,
    incarnation: u32,
    board: Arc<Board>,
    clock_start: quanta::Instant,
    /// Whether every shard found its ring as it was left.
    kept: Arc<AtomicBool>,
}

/// What all shards of a node are made from.
#[derive(Clone)]
struct Plan {
    config: Arc<Config>,
    cluster: Option<ClusterPlan>,
    number: u16,
    shards: u16,
    tokens: TokenKey,
    boot_epoch_s: u32,
    boot_id: [u8; 16],
}

impl Plan {
    fn parts(&self, shard: u16, now: Now) -> Result<(Parts, Vec<CallState>), NodeError> {
        let config = &self.config;
        let seed = now.wall.0.rotate_left(20) ^ u64::from(shard) ^ u64::from(std::process::id());
        let ring = RingConfig {
            node: self.number,
            shard,
            boot_id: self.boot_id,
            secret: random_secret()?,
            schema_hash: u64::from(SCHEMA),
            schema_hash_former: Some(u64::from(SCHEMA_FORMER)),
            huge_pages: config.node.huge_pages,
            young_bytes: config.node.ring_young_bytes,
            old_bytes: config.node.ring_old_bytes,
            payload_bytes_max: BLOB_MAX,
            calls_max: self.ring_calls_max(),
            incarnation: self
                .cluster
                .as_ref()
                .map_or(1, |cluster| cluster.incarnation),
            ..RingConfig::default()
        };
        let (ring, recovery, states) = self.open_ring(&ring)?;
        let incarnation = ring.incarnation();
        let blobs = self.store(ring, shard);
        if recovery.corrupt + recovery.cut_off + recovery.torn > 0 {
            tracing::error!(
                shard,
                ?recovery,
                "the memory of the ring was damaged: calls are lost"
            );
        }
        if recovery.calls > 0 {
            tracing::info!(shard, calls = recovery.calls, "calls found in the ring");
        }
        let backlog_dir = config.node.data_dir.join("backlog").join(shard.to_string());
        let limits = BacklogConfig {
            octets_max: config.rf.backlog_bytes_max / u64::from(self.shards),
            ..BacklogConfig::default()
        };
        let backlog = backlog::open(&backlog_dir, limits)
            .map_err(|error| NodeError::File(backlog_dir, error))?;
        if !backlog.is_empty() {
            tracing::info!(
                shard,
                records = backlog.len(),
                "records found in the backlog"
            );
        }
        let host = format!(
            "shard{shard}.{}.{}",
            config.node.name, config.rf.origin_realm
        );
        let ctf = self.ctf(host.clone(), shard, seed, now);
        let router = self.router(host, seed, now);
        let place = Place {
            node: self.number,
            shard,
            incarnation,
        };
        let parts = Parts {
            config: config.clone(),
            place,
            shards: self.shards,
            tokens: self.tokens,
            ctf,
            router,
            blobs,
            backlog,
            seed,
        };
        Ok((parts, states))
    }

    // Own calls, and as many copies of others'.
    fn ring_calls_max(&self) -> usize {
        self.config.sip.calls_max * 2
    }

    fn open_ring(
        &self,
        ring: &RingConfig,
    ) -> Result<(replication::Ring, replication::Recovery, Vec<CallState>), NodeError> {
        let state_dir = &self.config.node.state_dir;
        let opened = match &self.cluster {
            None => rings::open(state_dir, ring),
            // What this node owns it is told once it is a member again.
            Some(cluster) => replication::Ring::open_files(state_dir, ring).map(|(ring, found)| {
                cluster.kept.fetch_and(found.kept(), Ordering::AcqRel);
                (ring, found, Vec::new())
            }),
        };
        opened.map_err(|error| {
            let (young, _) = replication::ring_paths(state_dir, ring.node, ring.shard);
            NodeError::Ring(format!("{}: {error}", young.with_extension("*").display()))
        })
    }

    fn store(&self, ring: replication::Ring, shard: u16) -> Box<dyn BlobStore> {
        let (Some(plan), Some(cluster)) = (&self.cluster, &self.config.cluster) else {
            return Box::new(rings::RingStore::new(ring));
        };
        let replicator = ReplicatorConfig {
            cluster: plan.number,
            node: cluster.own,
            incarnation: plan.incarnation,
            shard,
            copies: cluster.copies.into(),
            holds_max: HOLDS_MAX,
            link: LinkConfig {
                payload_bytes_max: BLOB_MAX,
                // A catch-up brings calls and tombstones: no more than a ring indexes.
                marks_max: 2 * self.ring_calls_max(),
                ..LinkConfig::default()
            },
        };
        Box::new(ClusterStore::new(ClusterStoreParts {
            ring,
            replicator,
            keys: plan.keys,
            data_nodes: cluster.data_nodes(),
            mode: cluster.mode,
            board: plan.board.clone(),
            clock_start: plan.clock_start,
        }))
    }

    fn ctf(&self, origin_host: String, shard: u16, seed: u64, now: Now) -> Ctf {
        let rf = &self.config.rf;
        let config = CtfConfig {
            origin_host,
            origin_realm: rf.origin_realm.clone(),
            origin_state_id: Some(self.boot_epoch_s),
            boot_epoch_s: self.boot_epoch_s,
            shard: u32::from(shard),
            seed,
            classes: rf.classes.rules(),
        };
        Ctf::new(config, now)
    }

    // Every shard has connections of its own under a DiameterIdentity of its own: a peer may
    // refuse or misroute a second connection under one Origin-Host.
    fn router(&self, origin_host: String, seed: u64, now: Now) -> Router {
        let rf = &self.config.rf;
        let peers = if rf.enabled { &rf.cdf[..] } else { &[] };
        let config = RouterConfig {
            peers: peers
                .iter()
                .map(|address| RoutedPeer {
                    address: *address,
                    config: PeerConfig {
                        watchdog_interval_ms: rf.watchdog_ms,
                        reconnect_ms_max: 5_000,
                        ..PeerConfig::default()
                    },
                })
                .collect(),
            acr_retry_interval_ms: rf.retry_interval_ms,
            acr_max_retries: rf.retries_max.min(255) as u8,
            ..RouterConfig::default()
        };
        let identity = Identity {
            origin_host,
            origin_realm: rf.origin_realm.clone(),
            host_addresses: self
                .config
                .sip
                .listen
                .iter()
                .map(SocketAddr::ip)
                .take(1)
                .collect(),
            vendor_id: 0,
            product_name: "ringtoll".to_owned(),
            firmware_revision: None,
            origin_state_id: Some(self.boot_epoch_s),
        };
        Router::new(config, &identity, seed, now.instant)
    }
}

// Takes the directory for this process alone; the lock goes with the process.
fn lock(dir: &Path) -> Result<File, NodeError> {
    let wrong = |error| NodeError::File(dir.to_owned(), error);
    fs::create_dir_all(dir).map_err(wrong)?;
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join("lock"))
        .map_err(wrong)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(NodeError::InUse(dir.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(wrong(error)),
    }
}

// The key of the call tokens stays the same over restarts, so that requests of calls that were
// taken up again are still recognised.
fn token_key(data_dir: &Path) -> Result<[u8; 16], NodeError> {
    let path = data_dir.join("token.key");
    let wrong = |error| NodeError::File(path.clone(), error);
    let mut key = [0; 16];
    match File::open(&path) {
        Ok(mut file) => file.read_exact(&mut key).map_err(wrong)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            use ring::rand::SecureRandom;
            ring::rand::SystemRandom::new()
                .fill(&mut key)
                .map_err(|_| wrong(std::io::Error::other("no random numbers")))?;
            let new = data_dir.join("token.key.new");
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&new)
                .map_err(wrong)?;
            file.write_all(&key)
                .and_then(|()| file.sync_all())
                .map_err(wrong)?;
            fs::rename(&new, &path).map_err(wrong)?;
        }
        Err(error) => return Err(wrong(error)),
    }
    Ok(key)
}

// Session-Ids must be new after every restart, even two in one second or a clock set back.
fn boot_epoch(data_dir: &Path, now: Now) -> Result<u32, NodeError> {
    let path = data_dir.join("boot.epoch");
    let wrong = |error| NodeError::File(path.clone(), error);
    let last: u32 = match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().unwrap_or(0),
        Err(_) => 0,
    };
    let epoch = (now.wall.seconds() as u32).max(last.saturating_add(1));
    let new: PathBuf = data_dir.join("boot.epoch.new");
    fs::write(&new, epoch.to_string()).map_err(wrong)?;
    fs::rename(&new, &path).map_err(wrong)?;
    Ok(epoch)
}

// What a former ring left in the memory must never pass for a record of this one.
fn random_secret() -> Result<u64, NodeError> {
    use ring::rand::SecureRandom;
    let mut secret = [0; 8];
    ring::rand::SystemRandom::new()
        .fill(&mut secret)
        .map_err(|_| NodeError::Ring("the system has no random numbers".to_owned()))?;
    Ok(u64::from_le_bytes(secret))
}

pub(super) fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).unwrap_or("0");
        *byte = u8::from_str_radix(pair, 16).unwrap_or(0);
    }
    id
}

/// Writes a new key file, readable by its owner alone; an existing one is left alone.
pub fn write_keys(path: &Path) -> Result<(), NodeError> {
    use ring::rand::SecureRandom;
    let wrong = |error| NodeError::File(path.to_owned(), error);
    let mut random = [0; 48];
    ring::rand::SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| wrong(std::io::Error::other("no random numbers")))?;
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(wrong)?;
    file.write_all(KeyFile::fresh(&random).as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(wrong)
}

/// Pause between looks whether the last call is gone.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// Outputs of one shard that may wait for copies at once.
const HOLDS_MAX: usize = 64 * 1_024;
/// Longest archived call state, bytes: the strings of a call are limited, and so are its records.
const BLOB_MAX: usize = 128 << 10;
