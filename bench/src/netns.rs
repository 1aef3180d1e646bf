//! Network namespaces on one hub whose wires lose, repeat and reorder, and a clean link beside
//! them for those who watch.
//!
//! ```text
//!   phones and CDF .254 --+-- hub --+-- node 1 .1     10.213.0.0/24: all that is under test
//!          |                        +-- node 2 .2
//!          +------- one clean link to each node       10.214.N.0/24: admin pages only
//! ```

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cluster::Host;

/// The namespaces; they go away with it.
pub struct Net {
    word: String,
    nodes: u8,
}

impl Net {
    /// Makes the namespaces of the hub, the phones and of so many nodes. Needs root and `ip`.
    ///
    /// # Errors
    /// A command fails: this machine cannot have such a net.
    pub fn new(nodes: u8) -> io::Result<Self> {
        remove_left_over();
        let word = format!("{WORD}{}", std::process::id());
        let net = Self { word, nodes };
        // The hub has a namespace of its own: what it does not pass on leads nowhere.
        ip(&format!("netns add {}", hub(&net.word)))?;
        ip(&format!("netns add {}", net.phones()))?;
        net.plug(&net.phones(), nodes)?;
        for number in 0..nodes {
            let namespace = node(&net.word, number);
            ip(&format!("netns add {namespace}"))?;
            net.plug(&namespace, number)?;
            net.watch(&namespace, number)?;
        }
        Ok(net)
    }

    fn plug(&self, namespace: &str, number: u8) -> io::Result<()> {
        let (hub, port) = (hub(&self.word), format!("port{number}"));
        let (address, mac) = (address(number, self.nodes), mac(number));
        ip(&format!("-n {namespace} link set lo up"))?;
        ip(&format!(
            "-n {hub} link add {port} type veth peer name eth0 netns {namespace}"
        ))?;
        ip(&format!("-n {hub} link set {port} addrgenmode none up"))?;
        // The hub reads whole Ethernet frames: no segment may be larger.
        ip(&format!(
            "-n {namespace} link set eth0 address {mac} gso_max_segs 1 addrgenmode none up"
        ))?;
        ip(&format!("-n {namespace} addr add {address}/24 dev eth0"))
    }

    fn watch(&self, namespace: &str, number: u8) -> io::Result<()> {
        let phones = self.phones();
        let (far, near) = (admin(number), Ipv4Addr::new(10, 214, number, 254));
        ip(&format!(
            "-n {namespace} link add eth1 type veth peer name watch{number} netns {phones}"
        ))?;
        ip(&format!("-n {namespace} link set eth1 up"))?;
        ip(&format!("-n {phones} link set watch{number} up"))?;
        ip(&format!("-n {namespace} addr add {far}/24 dev eth1"))?;
        ip(&format!("-n {phones} addr add {near}/24 dev watch{number}"))
    }

    /// Name of the phones' namespace.
    #[must_use]
    pub fn phones(&self) -> String {
        format!("{}-phones", self.word)
    }

    /// The word that names them all.
    #[must_use]
    pub fn word(&self) -> &str {
        &self.word
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for number in 0..self.nodes {
            let _ = ip(&format!("netns del {}", node(&self.word, number)));
        }
        let _ = ip(&format!("netns del {}", hub(&self.word)));
        let _ = ip(&format!("netns del {}", self.phones()));
    }
}

// What a run that was killed could not remove: its process id is in the names.
fn remove_left_over() {
    let Ok(listed) = Command::new("ip").args(["netns", "list"]).output() else {
        return;
    };
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        let name = line.split(' ').next().unwrap_or_default();
        let owner = name
            .strip_prefix(WORD)
            .and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists()) {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

/// Where the nodes of a net run, for those who are in its phones' namespace.
#[must_use]
pub fn hosts(word: &str, nodes: u8) -> Vec<Host> {
    let host = |number| Host {
        ip: IpAddr::V4(address(number, nodes)),
        admin: IpAddr::V4(admin(number)),
        namespace: Some(node(word, number)),
    };
    (0..nodes).map(host).collect()
}

/// Name of the hub's namespace.
#[must_use]
pub fn hub(word: &str) -> String {
    format!("{word}-hub")
}

fn node(word: &str, number: u8) -> String {
    format!("{word}-node{}", number + 1)
}

// The port behind the nodes' is the phones'.
fn address(number: u8, nodes: u8) -> Ipv4Addr {
    if number == nodes {
        PHONES
    } else {
        Ipv4Addr::new(10, 213, 0, 1 + number)
    }
}

fn admin(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 214, number, 1)
}

// The hub knows ports by the last byte.
fn mac(number: u8) -> String {
    format!("02:00:00:00:00:{number:02x}")
}

fn ip(arguments: &str) -> io::Result<()> {
    run("ip", arguments)
}

/// Runs a command whose words have no blanks in them.
///
/// # Errors
/// It is not there or fails.
pub fn run(program: &str, arguments: &str) -> io::Result<()> {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| io::Error::other(format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "{program} {arguments}: {}",
        why.trim()
    )))
}

/// Address of the phones and the CDF.
pub const PHONES: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 254);
/// An address that nobody has: to speak to it is to ask everybody for it.
pub const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 253);
/// All addresses.
pub const NETWORK: &str = "10.213.0.0/24";
const WORD: &str = "ringtoll";
