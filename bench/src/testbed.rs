//! A node of our own for the demonstration: free ports, directories that go away with it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use dataplane::config::{Config, ConfigError};
use dataplane::io::{Node, NodeError};
use tempfile::TempDir;

use crate::pages::Pages;

/// A node on free ports of the loopback.
pub struct Testbed {
    node: Node,
    dir: TempDir,
    listen: SocketAddr,
    admin: SocketAddr,
}

/// What the node is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Where it sends calls.
    pub callee: SocketAddr,
    /// The bundled CDF's interim interval, seconds.
    pub interim_interval_s: u32,
    /// Pinned shards, from core 0 up; 0 = one that is not pinned.
    pub shards: usize,
}

/// Why it does not run.
#[derive(Debug)]
pub enum TestbedError {
    /// No directory, no port, no answer from the admin page.
    Io(io::Error),
    /// The configuration we wrote is refused.
    Config(ConfigError),
    /// The node does not start.
    Node(NodeError),
}

impl std::fmt::Display for TestbedError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Config(error) => write!(f, "{error}"),
            Self::Node(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for TestbedError {}

impl Testbed {
    /// Starts the node with its bundled CDF.
    ///
    /// # Errors
    /// See [`TestbedError`].
    pub fn start(wanted: Wanted) -> Result<Self, TestbedError> {
        let dir = tempfile::Builder::new()
            .prefix("ringtoll-demo-")
            .tempdir()
            .map_err(TestbedError::Io)?;
        let listen = free_udp_address().map_err(TestbedError::Io)?;
        let admin = free_tcp_address().map_err(TestbedError::Io)?;
        let text = configuration(wanted, dir.path(), listen, admin);
        let path = dir.path().join("node.toml");
        std::fs::write(&path, &text).map_err(TestbedError::Io)?;
        let config = Config::parse(&text, &path).map_err(TestbedError::Config)?;
        let node = Node::start(config).map_err(TestbedError::Node)?;
        Ok(Self {
            node,
            dir,
            listen,
            admin,
        })
    }

    /// Where it takes calls.
    #[must_use]
    pub const fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// The CDF's store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.dir.path().join("data").join("cdf.sqlite")
    }

    /// Its admin pages.
    #[must_use]
    pub const fn pages(&self) -> Pages {
        Pages::new(self.admin)
    }

    /// Lets the node end in order: records are delivered, the CDF closes its store.
    pub fn finish(mut self) -> TempDir {
        self.node.drain();
        self.node.stop();
        self.dir
    }
}

fn configuration(wanted: Wanted, dir: &Path, listen: SocketAddr, admin: SocketAddr) -> String {
    let cores: Vec<String> = (0..wanted.shards).map(|core| core.to_string()).collect();
    format!(
        "[node]\n\
         name = \"demo\"\n\
         cores = [{cores}]\n\
         state_dir = {state:?}\n\
         data_dir = {data:?}\n\
         drain_timeout_s = 20\n\
         [sip]\n\
         listen = [\"udp:{listen}\"]\n\
         [[sip.peer]]\n\
         name = \"phones\"\n\
         allow = [\"127.0.0.0/8\"]\n\
         trusted = true\n\
         [[sip.route]]\n\
         match = \"*\"\n\
         next_hop = \"udp:{callee}\"\n\
         [charging.rf]\n\
         bundled_interim_interval_s = {interim}\n\
         [admin]\n\
         listen = \"{admin}\"\n",
        cores = cores.join(", "),
        state = dir.join("state"),
        data = dir.join("data"),
        callee = wanted.callee,
        interim = wanted.interim_interval_s,
    )
}

/// Removes the last record of a session from the store of a CDF that has ended.
///
/// # Errors
/// The store cannot be changed.
pub fn lose_record(store: &Path) -> Result<(), rusqlite::Error> {
    let last = "DELETE FROM records WHERE (session_id, number) = (SELECT session_id, number \
                FROM records ORDER BY session_id, number DESC LIMIT 1)";
    rusqlite::Connection::open(store)?.execute(last, ())?;
    Ok(())
}

/// A UDP port of the loopback that was free a moment ago.
///
/// # Errors
/// There is none.
pub fn free_udp_address() -> io::Result<SocketAddr> {
    UdpSocket::bind((LOOPBACK, 0))?.local_addr()
}

/// A TCP port of the loopback that was free a moment ago.
///
/// # Errors
/// There is none.
pub fn free_tcp_address() -> io::Result<SocketAddr> {
    TcpListener::bind((LOOPBACK, 0))?.local_addr()
}

const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;
