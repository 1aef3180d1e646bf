//! A whole node: its sockets, its shards, the bundled CDF if it needs one, and its end.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use charging::config::CtfConfig;
use charging::ctf::Ctf;
use charging::diameter::base::Identity;
use charging::diameter::peer::PeerConfig;
use charging::diameter::routing::{RoutedPeer, Router, RouterConfig};
use charging::rf::backlog::BacklogConfig;
use charging::time::Now;
use replication::RingConfig;

use super::clock::Clock;
use super::driver::{self, Seat};
use super::mesh::{Inlet, Order, ShardMetrics};
use super::wake::Doorbell;
use super::{BundledCdf, NodeError, admin, backlog, rings, sys, udp};
use crate::b2bua::{CallState, Place};
use crate::config::Config;
use crate::shard::Parts;
use crate::sip::TokenKey;

/// A running node.
pub struct Node {
    inlets: Vec<Inlet>,
    threads: Vec<JoinHandle<()>>,
    drain_timeout: Duration,
    _locks: Vec<File>,
    bundled: Option<BundledCdf>,
}

/// Runs a node until it is told to stop (SIGTERM, SIGINT), then drains it.
pub fn run(config: Config) -> Result<(), NodeError> {
    let mut signals = signal_hook::iterator::Signals::new([
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGINT,
    ])
    .map_err(|error| NodeError::Executor(error.to_string()))?;
    let mut node = Node::start(config)?;
    let _ = signals.forever().next();
    tracing::info!("draining: new calls are refused");
    node.drain();
    node.stop();
    Ok(())
}

impl Node {
    /// Starts every shard of a node.
    pub fn start(mut config: Config) -> Result<Self, NodeError> {
        sys::raise_memlock();
        let clock = Clock::new();
        let number = NODE_ALONE;
        let locks = vec![
            lock(&config.node.state_dir.join(number.to_string()))?,
            lock(&config.node.data_dir)?,
        ];
        let bundled = start_bundled_cdf(&mut config)?;
        let config = Arc::new(config);
        let shards = config.node.cores.len().max(1);
        let mut groups = Vec::new();
        for address in &config.sip.listen {
            let group = udp::open_group(*address, shards)
                .map_err(|error| NodeError::Listen(format!("udp:{address}"), error))?;
            groups.push(group.into_iter());
        }
        let mut inlets = Vec::new();
        let mut bells = Vec::new();
        for _ in 0..shards {
            let (bell, waiting) =
                Doorbell::new().map_err(|error| NodeError::Executor(error.to_string()))?;
            inlets.push(Inlet::new(bell));
            bells.push(waiting);
        }
        let plan = Plan {
            config: config.clone(),
            number,
            shards: shards as u16,
            tokens: TokenKey::new(&token_key(&config.node.data_dir)?),
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
            };
            let plan = plan.clone();
            threads.push(driver::run(seat, move |now| plan.parts(shard as u16, now))?);
        }
        if let Some(address) = config.admin {
            admin::start(address, config.node.name.clone(), inlets.clone())?;
        }
        tracing::info!(node = %config.node.name, shards, "ready");
        let drain_timeout = Duration::from_secs(config.node.drain_timeout_s);
        Ok(Self {
            inlets,
            threads,
            drain_timeout,
            _locks: locks,
            bundled,
        })
    }

    /// The CDF that was started beside the node, if there is one.
    #[must_use]
    pub fn bundled_cdf(&self) -> Option<&BundledCdf> {
        self.bundled.as_ref()
    }

    /// Refuses new calls and waits until the running ones have ended and their records are
    /// safe, or the time for it is over.
    pub fn drain(&mut self) {
        for inlet in &self.inlets {
            inlet.order(Order::Drain);
        }
        let until = Instant::now() + self.drain_timeout;
        while Instant::now() < until {
            let left: u64 = self.metrics().iter().map(|shard| shard.calls).sum();
            if left == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        tracing::warn!("some calls did not end in time: they wait in the ring");
    }

    /// What the shards report.
    fn metrics(&self) -> Vec<ShardMetrics> {
        admin::ask(&self.inlets, Order::Metrics)
    }

    /// Ends the shards.
    pub fn stop(&mut self) {
        for inlet in &self.inlets {
            inlet.order(Order::Stop);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
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

/// What all shards of a node are made from.
#[derive(Clone)]
struct Plan {
    config: Arc<Config>,
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
            secret: seed,
            schema_hash: u64::from(crate::b2bua::SCHEMA),
            young_bytes: config.node.ring_young_bytes,
            old_bytes: config.node.ring_old_bytes,
            payload_bytes_max: BLOB_MAX,
            calls_max: config.sip.calls_max * 2,
            ..RingConfig::default()
        };
        let (blobs, recovery, states) = rings::open(&config.node.state_dir, &ring)
            .map_err(|error| NodeError::Ring(error.to_string()))?;
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
            incarnation: blobs.incarnation(),
        };
        let parts = Parts {
            config: config.clone(),
            place,
            shards: self.shards,
            tokens: self.tokens,
            ctf,
            router,
            blobs: Box::new(blobs),
            backlog,
            seed,
        };
        Ok((parts, states))
    }

    fn ctf(&self, origin_host: String, shard: u16, seed: u64, now: Now) -> Ctf {
        let rf = &self.config.rf;
        let mut class = rf.class.clone();
        class.destination_realm.clone_from(&rf.destination_realm);
        let config = CtfConfig {
            origin_host,
            origin_realm: rf.origin_realm.clone(),
            origin_state_id: Some(self.boot_epoch_s),
            boot_epoch_s: self.boot_epoch_s,
            shard: u32::from(shard),
            seed,
            classes: vec![class],
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

fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).unwrap_or("0");
        *byte = u8::from_str_radix(pair, 16).unwrap_or(0);
    }
    id
}

/// Number of a node that is not in a cluster.
const NODE_ALONE: u16 = 1;
/// Longest archived call state, bytes: the strings of a call are limited, and so are its records.
const BLOB_MAX: usize = 128 << 10;
