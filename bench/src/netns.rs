//! Network namespaces on one bridge, each behind a link that loses, repeats and reorders.
//!
//! ```text
//!   phones and CDF .254 --+-- bridge --+-- node 1 .1
//!                                      +-- node 2 .2   every end: netem on what leaves it
//! ```

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};

use crate::cluster::Host;

/// The namespaces; they go away with it.
pub struct Net {
    word: String,
    nodes: u8,
}

impl Net {
    /// Makes the namespaces of the phones and of so many nodes. Needs root, `ip` and `tc`.
    ///
    /// # Errors
    /// A command fails.
    pub fn new(nodes: u8) -> io::Result<Self> {
        // Interface names have 15 characters at most.
        let word = format!("rt{:x}", std::process::id() & 0xff_ffff);
        let net = Self { word, nodes };
        let hub = net.hub();
        // The bridge has a namespace of its own: a port that is taken off it leads nowhere.
        ip(&format!("netns add {hub}"))?;
        ip(&format!("-n {hub} link add hub type bridge"))?;
        ip(&format!("-n {hub} link set hub up"))?;
        for number in 0..nodes {
            net.plug(&net.node(number), &port(number), address(number))?;
        }
        net.plug(&net.phones(), "phones", PHONES)?;
        net.spoil()?;
        Ok(net)
    }

    fn plug(&self, namespace: &str, port: &str, address: Ipv4Addr) -> io::Result<()> {
        let hub = self.hub();
        ip(&format!("netns add {namespace}"))?;
        ip(&format!("-n {namespace} link set lo up"))?;
        ip(&format!(
            "-n {hub} link add {port} type veth peer name eth0 netns {namespace}"
        ))?;
        ip(&format!("-n {hub} link set {port} master hub up"))?;
        ip(&format!("-n {namespace} link set eth0 up"))?;
        ip(&format!("-n {namespace} addr add {address}/24 dev eth0"))
    }

    // Not every kernel has netem: a fault on clean links is still a fault.
    fn spoil(&self) -> io::Result<()> {
        let namespaces = (0..self.nodes).map(|number| self.node(number));
        for namespace in namespaces.chain([self.phones()]) {
            match tc(
                &namespace,
                &format!("qdisc add dev eth0 root netem {NETEM}"),
            ) {
                Err(error) if error.to_string().contains("kind is unknown") => {
                    eprintln!("SKIPPED: loss, repetition, reordering: this kernel has no netem");
                    return Ok(());
                }
                result => result?,
            }
        }
        Ok(())
    }

    /// Name of the phones' namespace.
    #[must_use]
    pub fn phones(&self) -> String {
        format!("{}-p", self.word)
    }

    fn hub(&self) -> String {
        format!("{}-h", self.word)
    }

    fn node(&self, number: u8) -> String {
        format!("{}-{number}", self.word)
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
            let _ = ip(&format!("netns del {}", self.node(number)));
        }
        let _ = ip(&format!("netns del {}", self.hub()));
        let _ = ip(&format!("netns del {}", self.phones()));
    }
}

/// Where the nodes of a net run, for those who are in its phones' namespace.
#[must_use]
pub fn hosts(word: &str, nodes: u8) -> Vec<Host> {
    let host = |number| Host {
        ip: IpAddr::V4(address(number)),
        namespace: Some(format!("{word}-{number}")),
    };
    (0..nodes).map(host).collect()
}

/// Cuts a node off, or joins it again: nothing leaves it and nothing reaches it, and its link
/// does not say so.
///
/// # Errors
/// `ip` fails.
pub fn cut(word: &str, number: u8, is_cut: bool) -> io::Result<()> {
    let master = if is_cut { "nomaster" } else { "master hub" };
    let port = port(number);
    ip(&format!("-n {word}-h link set {port} {master}"))
}

fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 213, 0, 1 + number)
}

fn port(number: u8) -> String {
    format!("port{number}")
}

fn ip(arguments: &str) -> io::Result<()> {
    run("ip", arguments)
}

fn tc(namespace: &str, arguments: &str) -> io::Result<()> {
    run("ip", &format!("netns exec {namespace} tc {arguments}"))
}

/// Runs a command whose words have no blanks in them.
///
/// # Errors
/// It is not there or fails.
pub fn run(program: &str, arguments: &str) -> io::Result<()> {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program} {arguments}: {why}")))
}

/// Address of the phones and the CDF.
pub const PHONES: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 254);
/// All addresses.
pub const NETWORK: &str = "10.213.0.0/24";
/// What each link does to what leaves it. A quarter overtakes what waits its millisecond.
const NETEM: &str = "limit 100000 delay 1ms reorder 25% 50% loss 1% duplicate 0.5%";
