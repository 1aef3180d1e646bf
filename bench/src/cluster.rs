//! A cluster of our own: nodes and a CDF as processes that can be struck, on the loopback or in
//! network namespaces, with directories that go away with it.

use std::fs::{self, OpenOptions};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use dataplane::config::Config;
use tempfile::TempDir;

use crate::pages::Pages;

/// Nodes with their CDF; all end with it.
pub struct Cluster {
    nodes: Vec<Member>,
    cdf: Option<Running>,
    store: PathBuf,
    cdf_log: PathBuf,
    dir: TempDir,
}

/// What the cluster is to be like.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Where the nodes send calls.
    pub callee: SocketAddr,
    /// The CDF's interim interval, seconds.
    pub interim_interval_s: u32,
    /// Pinned shards of each node, from core 0 up; 0 = one that is not pinned.
    pub shards: usize,
    /// Where each node runs.
    pub hosts: Vec<Host>,
    /// Address of the CDF, which runs beside the phones.
    pub cdf: IpAddr,
    /// Networks that calls are taken from.
    pub network: String,
    /// Whether what is sent waits for the copies.
    pub mode: Mode,
}

/// `[cluster] mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Outputs wait for the copies.
    #[default]
    SemiSync,
    /// They do not.
    Async,
}

/// Where a node runs.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its address.
    pub ip: IpAddr,
    /// Address of its admin pages.
    pub admin: IpAddr,
    /// Its network namespace, if not ours. There all ports are free.
    pub namespace: Option<String>,
}

/// One node.
pub struct Member {
    process: Option<Running>,
    namespace: Option<String>,
    config: PathBuf,
    dir: PathBuf,
    sip: SocketAddr,
    admin: SocketAddr,
}

impl Mode {
    /// As the configuration spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SemiSync => "semi-sync",
            Self::Async => "async",
        }
    }
}

impl Wanted {
    /// Nodes on addresses of the loopback.
    #[must_use]
    pub fn on_loopback(
        callee: SocketAddr,
        interim_interval_s: u32,
        shards: usize,
        nodes: u8,
    ) -> Self {
        let host = |number| Host {
            ip: IpAddr::from([127, 0, 1, number]),
            admin: IpAddr::from([127, 0, 1, number]),
            namespace: None,
        };
        Self {
            callee,
            interim_interval_s,
            shards,
            hosts: (1..=nodes).map(host).collect(),
            cdf: IpAddr::from([127, 0, 0, 1]),
            network: "127.0.0.0/8".to_owned(),
            mode: Mode::default(),
        }
    }
}

impl Cluster {
    /// Starts the CDF and all nodes and waits until they take calls.
    ///
    /// # Errors
    /// No directory, no port, no process; or they do not become ready.
    pub fn start(wanted: &Wanted) -> io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("ringtoll-cluster-");
        // The rings are memory: a disk would only slow them down.
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() {
            builder.tempdir_in(memory)?
        } else {
            builder.tempdir()?
        };
        let keys = dir.path().join("keys");
        dataplane::io::write_keys(&keys).map_err(io::Error::other)?;
        let (store, cdf_log) = (dir.path().join("cdf.sqlite"), dir.path().join("cdf.log"));
        let cdf_address = free_tcp(wanted.cdf)?;
        let mut cdf = ourselves(None)?;
        cdf.arg(CDF)
            .arg(cdf_address.to_string())
            .arg(&store)
            .arg(wanted.interim_interval_s.to_string());
        let cdf = Running::start(&mut cdf, &cdf_log)?;
        wait_until("the CDF does not listen", || {
            Ok(TcpStream::connect(cdf_address).is_ok())
        })?;
        let mut seats = Vec::new();
        for host in &wanted.hosts {
            seats.push(Seat::find(host, wanted.shards.max(1) as u16)?);
        }
        let mut nodes = Vec::new();
        for number in 0..seats.len() {
            let text = configuration(wanted, &seats, number, dir.path(), cdf_address);
            let own = dir.path().join(format!("node{}", number + 1));
            let data = own.join("data");
            fs::create_dir_all(&data)?;
            // It never ran.
            fs::write(data.join("vote.boot"), [])?;
            fs::write(own.join("node.toml"), text)?;
            nodes.push(Member {
                process: None,
                namespace: wanted.hosts[number].namespace.clone(),
                config: own.join("node.toml"),
                dir: own,
                sip: seats[number].sip,
                admin: seats[number].admin,
            });
        }
        let mut cluster = Self {
            nodes,
            cdf: Some(cdf),
            store,
            cdf_log,
            dir,
        };
        for number in 0..cluster.nodes.len() {
            cluster.nodes[number].start()?;
        }
        cluster.wait_whole()?;
        Ok(cluster)
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Member] {
        &self.nodes
    }

    /// A node.
    pub fn node(&mut self, number: usize) -> &mut Member {
        &mut self.nodes[number]
    }

    /// The CDF's store.
    #[must_use]
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// Records that came again with other contents, as the CDF says.
    #[must_use]
    pub fn conflicts(&self) -> usize {
        let log = fs::read_to_string(&self.cdf_log).unwrap_or_default();
        log.matches(CONFLICT).count()
    }

    /// Ends all processes; the directory stays until the cluster is dropped.
    pub fn stop(&mut self) {
        for node in &mut self.nodes {
            node.kill();
        }
        self.cdf = None;
    }

    /// Where everything lies.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Leaves the directory where it is, to be looked at.
    pub fn keep(&mut self) {
        self.dir.disable_cleanup(true);
    }

    /// Waits until every node takes calls and knows that every other does.
    ///
    /// # Errors
    /// They do not.
    pub fn wait_whole(&self) -> io::Result<()> {
        wait_until("the nodes do not become a cluster", || {
            Ok(self.nodes.iter().all(|node| {
                let pages = node.pages();
                pages.is_ready().unwrap_or(false) && pages.is_whole().unwrap_or(false)
            }))
        })
        .map_err(|error| io::Error::other(format!("{error}\n{}", self.logs())))
    }

    /// Waits until no node has a call or an undelivered record left; false if that takes too
    /// long.
    #[must_use]
    pub fn wait_idle(&self) -> bool {
        let is_idle = |node: &Member| {
            let left = |name| node.pages().metric(name).unwrap_or(1.0);
            left("ringtoll_calls") + left("ringtoll_backlog_records") == 0.0
        };
        // A request whose phone has gone meanwhile is given up after 64*T1.
        let until = Instant::now() + IDLE_MAX;
        while !self.nodes.iter().all(is_idle) {
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        true
    }

    /// CPU time of all shards that run now, seconds.
    ///
    /// # Errors
    /// An admin page does not answer.
    pub fn shard_cpu_s(&self) -> io::Result<f64> {
        self.nodes
            .iter()
            .map(|node| node.pages().shard_cpu_s())
            .sum()
    }

    /// How long datagrams waited between two shards of one node, as
    /// [`Pages::add_hand_over_waits`] has it.
    ///
    /// # Errors
    /// An admin page does not answer.
    pub fn hand_over_waits(&self) -> io::Result<Vec<(f64, u64)>> {
        let mut waits = Vec::new();
        for node in &self.nodes {
            node.pages().add_hand_over_waits(&mut waits)?;
        }
        Ok(waits)
    }

    /// What the nodes wrote.
    #[must_use]
    pub fn logs(&self) -> String {
        let log = |node: &Member| fs::read_to_string(node.dir.join("log")).unwrap_or_default();
        self.nodes.iter().map(log).collect()
    }
}

impl Member {
    /// Where it takes calls.
    #[must_use]
    pub const fn sip(&self) -> SocketAddr {
        self.sip
    }

    /// Its admin pages.
    #[must_use]
    pub const fn pages(&self) -> Pages {
        Pages::new(self.admin)
    }

    /// Starts it, the first time or again.
    ///
    /// # Errors
    /// There is no process to be had.
    pub fn start(&mut self) -> io::Result<()> {
        let mut command = ourselves(self.namespace.as_deref())?;
        command.arg(NODE).arg(&self.config);
        self.process = Some(Running::start(&mut command, &self.dir.join("log"))?);
        Ok(())
    }

    /// SIGTERM.
    ///
    /// # Errors
    /// It does not run.
    pub fn ask_to_end(&self) -> io::Result<()> {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.ok_or_else(|| io::Error::other("the node does not run"))?;
        let told = Command::new("kill").arg(pid.to_string()).status()?;
        told.success()
            .then_some(())
            .ok_or_else(|| io::Error::other("no signal was sent"))
    }

    /// Whether it has ended by itself.
    ///
    /// # Errors
    /// It ended with a failure.
    pub fn has_ended(&mut self) -> io::Result<bool> {
        let Some(process) = &mut self.process else {
            return Ok(true);
        };
        match process.0.try_wait()? {
            None => Ok(false),
            Some(status) if status.success() => {
                self.process = None;
                Ok(true)
            }
            Some(status) => Err(io::Error::other(format!("a node ended with {status}"))),
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Removes its memory: what a power cut leaves of it.
    ///
    /// # Errors
    /// The directory cannot be removed.
    pub fn lose_memory(&mut self) -> io::Result<()> {
        fs::remove_dir_all(self.dir.join("state"))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.0.id())
    }
}

/// A process that is killed when it is no longer wanted.
struct Running(Child);

impl Running {
    fn start(command: &mut Command, log: &Path) -> io::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        let errors = log.try_clone()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The addresses of a node.
struct Seat {
    sip: SocketAddr,
    admin: SocketAddr,
    membership: SocketAddr,
}

impl Seat {
    fn find(host: &Host, shards: u16) -> io::Result<Self> {
        if host.namespace.is_some() {
            return Ok(Self {
                sip: (host.ip, 5060).into(),
                admin: (host.admin, 8080).into(),
                membership: (host.ip, 7000).into(),
            });
        }
        Ok(Self {
            sip: UdpSocket::bind((host.ip, 0))?.local_addr()?,
            admin: free_tcp(host.admin)?,
            membership: free_row(host.ip, 1 + shards)?,
        })
    }
}

fn free_tcp(ip: IpAddr) -> io::Result<SocketAddr> {
    TcpListener::bind((ip, 0))?.local_addr()
}

// So many UDP ports in a row.
fn free_row(ip: IpAddr, ports: u16) -> io::Result<SocketAddr> {
    for _ in 0..ROWS_TRIED_MAX {
        let first = UdpSocket::bind((ip, 0))?;
        let address = first.local_addr()?;
        let more = (1..ports).all(|more| {
            let port = address.port().checked_add(more);
            port.is_some_and(|port| UdpSocket::bind((ip, port)).is_ok())
        });
        if more {
            return Ok(address);
        }
    }
    Err(io::Error::other("there are no free ports in a row"))
}

fn configuration(
    wanted: &Wanted,
    seats: &[Seat],
    number: usize,
    dir: &Path,
    cdf: SocketAddr,
) -> String {
    let cores: Vec<String> = (0..wanted.shards).map(|core| core.to_string()).collect();
    let members = seats.iter().zip(1..).map(|(seat, id)| {
        let address = seat.membership;
        format!("{{ id = {id}, address = \"{address}\" }}")
    });
    let members: Vec<String> = members.collect();
    let seat = &seats[number];
    let id = number + 1;
    let own = dir.join(format!("node{id}"));
    format!(
        "[node]\n\
         name = \"node{id}\"\n\
         cores = [{cores}]\n\
         state_dir = {state:?}\n\
         data_dir = {data:?}\n\
         ring_young_mib = 16\n\
         ring_old_mib = 32\n\
         [cluster]\n\
         id = {id}\n\
         members = [{members}]\n\
         key_file = {keys:?}\n\
         mode = {mode:?}\n\
         [sip]\n\
         listen = [\"udp:{sip}\"]\n\
         [[sip.peer]]\n\
         name = \"phones\"\n\
         allow = [\"{network}\"]\n\
         trusted = true\n\
         [[sip.route]]\n\
         match = \"*\"\n\
         next_hop = \"udp:{callee}\"\n\
         [charging.rf]\n\
         cdf = [\"{cdf}\"]\n\
         retry_interval_ms = 1000\n\
         watchdog_s = 6\n\
         [admin]\n\
         listen = \"{admin}\"\n",
        cores = cores.join(", "),
        state = own.join("state"),
        data = own.join("data"),
        members = members.join(", "),
        keys = dir.join("keys"),
        mode = wanted.mode.name(),
        sip = seat.sip,
        network = wanted.network,
        callee = wanted.callee,
        admin = seat.admin,
    )
}

// This program once more, as something else.
fn ourselves(namespace: Option<&str>) -> io::Result<Command> {
    let own = std::env::current_exe()?;
    Ok(match namespace {
        None => Command::new(own),
        Some(namespace) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", namespace]).arg(own);
            command
        }
    })
}

/// Becomes the node or the CDF that this process was started as, and returns when that ends.
/// `None`: it was started as itself.
#[must_use]
pub fn become_child() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [NODE, config] => {
            dataplane::log::set_up();
            match Config::load(Path::new(config)) {
                Ok(config) => dataplane::io::run(config).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            }
        }
        [CDF, listen, store, interim] => {
            dataplane::log::set_up();
            match (listen.parse(), interim.parse()) {
                (Ok(listen), Ok(interim)) => {
                    let served = dataplane::io::serve_cdf(listen, Path::new(store), interim);
                    served.map_err(|error| error.to_string())
                }
                _ => Err("no address, or no number of seconds".to_owned()),
            }
        }
        _ => return None,
    };
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    })
}

/// Waits until `done` says so.
///
/// # Errors
/// It does not within 20 s, with `otherwise`; or it fails.
pub fn wait_until(otherwise: &str, mut done: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let until = Instant::now() + READY_MAX;
    while !done()? {
        if Instant::now() > until {
            return Err(io::Error::other(otherwise));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// What a process of ours is started as.
const NODE: &str = "node-process";
const CDF: &str = "cdf-process";
/// What the CDF says when a number of a session comes with two contents.
const CONFLICT: &str = "a record came again with other contents";
/// Longest wait for the end of all calls: Timer F, and what its end leads to.
const IDLE_MAX: Duration = Duration::from_secs(45);
/// Longest wait for processes.
const READY_MAX: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const ROWS_TRIED_MAX: u32 = 100;
