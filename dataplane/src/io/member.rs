//! The thread of a node's membership: heartbeats and votes over one UDP socket, the vote on disk.
//!
//! It is no shard: a vote is on the disk before anybody hears of it, and a disk takes its time.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use replication::frame::DATAGRAM_BYTES_MAX;
use replication::view::StartFault;
use replication::{Boot, ClusterKeys, Standing, ViewConfig, VoteFile, VoteIdentity};

use charging::time::Now;

use super::NodeError;
use super::clock::Clock;
use super::guard::{Indispensable, Watch};
use super::mesh::{Inlet, Order};
use crate::b2bua::{SCHEMA, SCHEMA_FORMER};
use crate::cluster::{Board, KeyFile, Membership, MembershipConfig, MembershipReport, ns_of};
use crate::config::Cluster;
use crate::log::Seldom;

/// A node's vote, opened: from here on its incarnation is spent.
pub(super) struct Vote {
    file: VoteFile,
}

impl Vote {
    /// Opens the vote below `data_dir`. `rings`: memory that the node left behind, so it ran.
    pub(super) fn open(
        data_dir: &Path,
        cluster: &Cluster,
        keys: &KeyFile,
        rings: Option<&Path>,
        now: Now,
    ) -> Result<Self, NodeError> {
        let path = data_dir.join("vote");
        let said_new = path.with_extension("boot").exists() && !path.exists();
        if let Some(rings) = rings.filter(|_| said_new) {
            return Err(NodeError::Vote(format!(
                "{} says that this node never ran, but its rings are in {}: remove them if they \
                 are of another cluster",
                path.with_extension("boot").display(),
                rings.display()
            )));
        }
        let identity = VoteIdentity {
            cluster: keys.cluster,
            node: cluster.own,
        };
        let now_s = u32::try_from(now.wall.0 / 1_000).unwrap_or(u32::MAX);
        let file = VoteFile::open(&path, identity, now_s)
            .map_err(|fault| NodeError::Vote(format!("{}: {fault}", path.display())))?;
        Ok(Self { file })
    }

    pub(super) fn incarnation(&self) -> u32 {
        self.file.incarnation()
    }

    fn is_first_boot(&self) -> bool {
        self.file.boot() == Boot::First
    }
}

/// Reads the key file of a cluster.
pub(super) fn read_keys(path: &Path) -> Result<KeyFile, NodeError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| NodeError::Keys(path.to_owned(), error.to_string()))?;
    KeyFile::parse(&text).map_err(|error| NodeError::Keys(path.to_owned(), error))
}

/// The running membership, as the rest of the process sees it.
pub(super) struct Member {
    /// The other members that hold calls.
    others: Vec<u16>,
    report: Arc<Mutex<MembershipReport>>,
    news: Arc<News>,
    thread: Option<JoinHandle<()>>,
}

/// What the membership is told from outside.
#[derive(Default)]
struct News {
    stop: AtomicBool,
    keys: Mutex<Option<ClusterKeys>>,
    drain: AtomicBool,
}

/// What a membership is started with.
pub(super) struct MemberParts<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) keys: &'a KeyFile,
    pub(super) vote: Vote,
    /// Whether the rings hold what they held before.
    pub(super) kept: bool,
    pub(super) board: Arc<Board>,
    pub(super) clock: Clock,
    pub(super) clock_start: quanta::Instant,
    pub(super) inlets: Vec<Inlet>,
}

impl Member {
    /// Joins the cluster from a thread of its own.
    pub(super) fn start(parts: MemberParts<'_>) -> Result<Self, NodeError> {
        let cluster = parts.cluster;
        let address = cluster.own_node().address;
        let socket = UdpSocket::bind(address)
            .map_err(|error| NodeError::Listen(format!("udp:{address} (cluster)"), error))?;
        let config = MembershipConfig {
            view: view_config(cluster),
            cluster: parts.keys.cluster,
            keys: parts.keys.keys,
            schemas: (SCHEMA_FORMER, SCHEMA),
            first_boot: parts.vote.is_first_boot(),
        };
        let durable = parts.vote.file.durable();
        let now = ns_of(parts.clock_start, parts.clock.now().instant);
        let membership = Membership::start(
            config,
            durable,
            parts.kept,
            now,
            Box::new(parts.vote.file),
            parts.board,
        )
        .map_err(|fault| NodeError::Vote(why(fault).to_owned()))?;
        let report = Arc::new(Mutex::new(membership.report(now)));
        let news = Arc::new(News::default());
        let runner = Runner {
            membership,
            socket,
            addresses: cluster.nodes.iter().map(|node| node.address).collect(),
            clock: parts.clock,
            clock_start: parts.clock_start,
            inlets: parts.inlets,
            report: report.clone(),
            news: news.clone(),
            incompatible: 0,
            went_back: 0,
            ran_before: false,
            saves_failed: Seldom::default(),
        };
        let thread = std::thread::Builder::new()
            .name("membership".to_owned())
            .spawn(move || runner.run())
            .map_err(|error| NodeError::Executor(error.to_string()))?;
        Ok(Self {
            others: others_of(cluster),
            report,
            news,
            thread: Some(thread),
        })
    }

    pub(super) fn reports(&self) -> Arc<Mutex<MembershipReport>> {
        self.report.clone()
    }

    pub(super) fn set_keys(&self, keys: ClusterKeys) {
        *unpoisoned(&self.news.keys) = Some(keys);
    }

    /// Begins to leave in order.
    pub(super) fn drain(&self) {
        self.news.drain.store(true, Ordering::Release);
    }

    /// How far leaving has come.
    pub(super) fn departure(&self) -> Departure {
        let report = *unpoisoned(&self.report);
        let standing = |node: &u16| report.view.nodes[usize::from(*node)].standing;
        let alone = !self
            .others
            .iter()
            .any(|node| standing(node) == Standing::Alive);
        match (report.has_left, alone) {
            (true, _) => Departure::Left,
            (false, true) => Departure::NobodyElse,
            (false, false) => Departure::UnderWay,
        }
    }

    pub(super) fn stop(&mut self) {
        self.news.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How far a node has come with leaving its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Departure {
    UnderWay,
    /// It is no member any more and owns nothing.
    Left,
    /// There is no other member to leave anything to.
    NobodyElse,
}

fn others_of(cluster: &Cluster) -> Vec<u16> {
    let mut nodes = cluster.data_nodes();
    nodes.retain(|&node| node != cluster.own);
    nodes
}

fn view_config(cluster: &Cluster) -> ViewConfig {
    let witnesses = cluster.nodes.iter().zip(0..);
    let witnesses = witnesses.filter(|(node, _)| node.is_witness);
    ViewConfig {
        node: cluster.own as u8,
        voters: cluster.nodes.len() as u8,
        witnesses: witnesses.fold(0, |mask, (_, number)| mask | 1 << number),
        copies: cluster.copies,
    }
}

fn why(fault: StartFault) -> &'static str {
    match fault {
        StartFault::TwoVoters => "two voters are not enough: configure a witness",
        StartFault::Voters => "this node is no voter",
        StartFault::Save => "the disk did not take the new incarnation",
    }
}

/// The thread's own.
struct Runner {
    membership: Membership,
    socket: UdpSocket,
    addresses: Vec<SocketAddr>,
    clock: Clock,
    clock_start: quanta::Instant,
    inlets: Vec<Inlet>,
    report: Arc<Mutex<MembershipReport>>,
    news: Arc<News>,
    /// Members that were named as incompatible.
    incompatible: u32,
    /// Members that were named because their incarnation went back.
    went_back: u32,
    /// It was said that this node had run before.
    ran_before: bool,
    saves_failed: Seldom,
}

impl Runner {
    fn run(mut self) {
        let _indispensable = Indispensable;
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        let mut watch = Watch::new(self.inlets.len());
        while !self.news.stop.load(Ordering::Acquire) {
            let wait = self.membership.deadline().saturating_sub(self.now());
            let wait = Duration::from_nanos(wait).clamp(WAIT_MIN, WAIT_MAX);
            // A zero time-out would mean for ever; an error only means that nothing came.
            let _ = self.socket.set_read_timeout(Some(wait));
            let mut news = false;
            let received = self.socket.recv_from(&mut buffer);
            // Before what has come, which may be sealed under a key that is new here. The operator
            // goes by the log: what leaves after it is sealed under the new keys.
            if let Some(keys) = unpoisoned(&self.news.keys).take() {
                self.membership.set_keys(keys);
                tracing::info!("the cluster's keys were read again");
            }
            if let Ok((length, _)) = received {
                news |= self
                    .membership
                    .handle_datagram(self.now(), &mut buffer[..length]);
            }
            if self.news.drain.swap(false, Ordering::AcqRel) {
                self.membership.drain();
            }
            let now = self.now();
            if self.membership.deadline() <= now {
                news |= self.membership.tick(now);
            }
            self.send(&mut buffer);
            if news {
                for inlet in &self.inlets {
                    inlet.order(Order::Look);
                }
            }
            if let Some(shard) = watch.look(self.now(), &self.inlets) {
                tracing::error!(shard, "it stands still: the process ends");
                std::process::abort();
            }
            let report = self.membership.report(self.now());
            self.log_incompatible(&report);
            self.log_lost_disks(&report);
            *unpoisoned(&self.report) = report;
        }
    }

    // Once for each: neither hears the other, which from outside looks like a peer that is off.
    fn log_incompatible(&mut self, report: &MembershipReport) {
        let new =
            report.incompatible & !std::mem::replace(&mut self.incompatible, report.incompatible);
        for (node, address) in self.addresses.iter().enumerate() {
            if new >> node & 1 == 0 {
                continue;
            }
            if report.with_other_shards >> node & 1 == 1 {
                tracing::error!(
                    member = %address,
                    "it has another number of shards and cannot be joined: name equally many cores \
                     in node.cores of all members"
                );
            } else {
                tracing::error!(
                    member = %address,
                    "it has no version in common: upgrade one version at a time"
                );
            }
        }
    }

    fn log_lost_disks(&mut self, report: &MembershipReport) {
        let new = report.went_back & !std::mem::replace(&mut self.went_back, report.went_back);
        for (node, address) in self.addresses.iter().enumerate() {
            if new >> node & 1 == 1 {
                tracing::error!(
                    member = %address,
                    "it runs under an earlier incarnation than it did: its disk is an old one or its \
                     clock was wrong at its first start, or two processes run as this node; it is \
                     not heard"
                );
            }
        }
        if report.ran_before && !std::mem::replace(&mut self.ran_before, true) {
            tracing::error!(
                "vote.boot said that this node never ran, but the cluster knew it: its disk is \
                 lost, and its vote is read back from the others"
            );
        }
        let now = self.clock.now().instant;
        if let Some(failed) = self
            .saves_failed
            .rise(now, report.counters.vote_save_failed)
        {
            tracing::error!(failed, "the disk does not take this node's vote");
        }
    }

    fn now(&self) -> u64 {
        ns_of(self.clock_start, self.clock.now().instant)
    }

    fn send(&mut self, buffer: &mut [u8]) {
        while let Some((to, length)) = self.membership.poll_datagram(buffer) {
            let address = self.addresses.get(usize::from(to));
            let sent = address.map(|address| self.socket.send_to(&buffer[..length], address));
            if sent.is_some_and(|sent| sent.is_err()) {
                self.membership.note_send_failed();
            }
        }
    }
}

pub(super) fn unpoisoned<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Runs a witness until it is told to stop.
pub fn run_witness(config: &crate::config::Config) -> Result<(), NodeError> {
    let Some(cluster) = &config.cluster else {
        return Err(NodeError::Vote(
            "a witness needs a [cluster] section".to_owned(),
        ));
    };
    if !cluster.own_node().is_witness {
        return Err(NodeError::Vote(format!(
            "node {} is a member, not the witness: use `ringtoll run`",
            cluster.own_node().id
        )));
    }
    let mut signals = signal_hook::iterator::Signals::new([
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGHUP,
    ])
    .map_err(|error| NodeError::Executor(error.to_string()))?;
    let clock = Clock::new();
    let clock_start = clock.now().instant;
    let keys = read_keys(&cluster.key_file)?;
    let mut member = Member::start(MemberParts {
        cluster,
        keys: &keys,
        vote: Vote::open(&config.node.data_dir, cluster, &keys, None, clock.now())?,
        kept: true,
        board: Arc::new(Board::new(0)),
        clock,
        clock_start,
        inlets: Vec::new(),
    })?;
    tracing::info!(node = %config.node.name, "witness ready");
    for signal in signals.forever() {
        if signal != signal_hook::consts::SIGHUP {
            break;
        }
        read_keys_again(&cluster.key_file, &[], &member);
    }
    member.stop();
    Ok(())
}

/// Hands out the keys that the key file holds now, to the membership last, which says so; a bad file
/// changes nothing.
pub(super) fn read_keys_again(path: &Path, inlets: &[Inlet], member: &Member) {
    match read_keys(path) {
        Ok(file) => {
            for inlet in inlets {
                inlet.order(Order::Keys(file.keys));
            }
            member.set_keys(file.keys);
        }
        Err(error) => tracing::error!(%error, "the cluster's keys stay as they are"),
    }
}

const WAIT_MIN: Duration = Duration::from_micros(200);
const WAIT_MAX: Duration = Duration::from_millis(50);
