//! Configuration: read once from TOML into types that cannot be wrong.
//!
//! [`Config::load`] names the file, the key, what is wrong and what to write instead. Every
//! default stands in `file.rs` beside the key it belongs to; `ringtoll.example.toml`
//! documents them all.

mod class;
mod cluster;
mod file;
mod host;
mod rf;
mod route;
mod triggers;

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use charging::config::RealtimePolicy;
use ipnet::IpNet;

pub use class::{Class, Classes};
pub use cluster::{Cluster, ClusterNode};
pub use route::{Auth, Hop, Matcher, Route, Secret};

use crate::dialog::session_timer::Wanted;
use crate::transaction::Timers;

/// Looks up `HOST:PORT`.
pub type Resolve = fn(&str) -> Option<SocketAddr>;

/// A whole, valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[node]`.
    pub node: Node,
    /// `[sip]`.
    pub sip: Sip,
    /// `[charging.rf]`.
    pub rf: Rf,
    /// `[cluster]`; a node without one stands alone.
    pub cluster: Option<Cluster>,
    /// `[admin] listen`.
    pub admin: Option<SocketAddr>,
}

/// `[node]`.
#[derive(Clone, Debug)]
pub struct Node {
    /// Name: part of Diameter identities, metrics and paths.
    pub name: String,
    /// Cores, one pinned shard on each; empty = one unpinned shard.
    pub cores: Vec<usize>,
    /// Where the rings live; memory that survives the process (tmpfs).
    pub state_dir: PathBuf,
    /// Where the backlog and the bundled CDF's store live; a disk.
    pub data_dir: PathBuf,
    /// Bytes of each shard's young ring: about 3 s of traffic.
    pub ring_young_bytes: u64,
    /// Whether the rings ask for pages of 2 MiB.
    pub huge_pages: bool,
    /// Bytes of each shard's old ring: bytes of its live calls / 0.75.
    pub ring_old_bytes: u64,
    /// Longest wait for calls to end after SIGTERM, seconds.
    pub drain_timeout_s: u64,
}

/// `[sip]`.
#[derive(Clone, Debug)]
pub struct Sip {
    /// UDP addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Host and port written into Via and Contact, one per listener.
    pub advertise: Vec<String>,
    /// The same as addresses, where they are literal: what counts as "us" in a Route.
    pub advertise_addrs: Vec<Option<SocketAddr>>,
    /// Known peers; empty = everybody may send.
    pub peers: Vec<Peer>,
    /// Route table in order.
    pub routes: Vec<Route>,
    /// Base timers.
    pub timers: Timers,
    /// Session timers.
    pub session: Wanted,
    /// A call is ended after this many seconds; 0 = never.
    pub max_call_duration_s: u64,
    /// How often a leg without session timer is asked by OPTIONS whether it knows the call,
    /// seconds; 0 = never.
    pub probe_interval_s: u64,
    /// An unanswered call is given up after this many seconds.
    pub ring_timeout_s: u64,
    /// A next hop that sent nothing, or 503, is tried last for so long, seconds; 0 = never.
    pub hop_penalty_s: u64,
    /// An INVITE that a next hop leaves without any response for so long goes to the next one, if
    /// there is one, milliseconds; 0 = Timer B alone counts.
    pub hop_timeout_ms: u64,
    /// How often OPTIONS asks each next hop whether it lives, seconds; 0 = never.
    pub ping_interval_s: u64,
    /// Most calls per shard.
    pub calls_max: usize,
}

impl Sip {
    /// The route of that number, if it is in the table.
    #[must_use]
    pub fn route(&self, number: u16) -> Option<&Route> {
        self.routes.iter().find(|route| route.number == number)
    }
}

/// `[[sip.peer]]`.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Name for logs and routes.
    pub name: String,
    /// Source networks.
    pub allow: Vec<IpNet>,
    /// Inside the trust domain: gets and may send P-Charging-* and P-Asserted-Identity.
    pub trusted: bool,
    /// The border of another network that the peer stands for (NNI-Information).
    pub nni: Option<charging::trigger::NniType>,
    /// Number of the charging class of what it sends; the route's comes first.
    pub charging_class: Option<u16>,
}

/// `[charging.rf]`.
#[derive(Clone, Debug)]
pub struct Rf {
    /// Whether calls of any class are charged.
    pub enabled: bool,
    /// Origin-Realm of what we send.
    pub origin_realm: String,
    /// CDFs, primary first; empty = the bundled one is started.
    pub cdf: Vec<SocketAddr>,
    /// The interim interval of the bundled CDF, seconds.
    pub bundled_interim_interval_s: u32,
    /// Time until an unanswered ACR is sent again, milliseconds.
    pub retry_interval_ms: u64,
    /// How often it is sent again before the CDF counts as failed.
    pub retries_max: u32,
    /// Watchdog interval (RFC 3539), milliseconds.
    pub watchdog_ms: u64,
    /// Most bytes of the backlog on disk.
    pub backlog_bytes_max: u64,
    /// How calls are charged, by class.
    pub classes: Classes,
}

impl Rf {
    /// The class of that number; the default one in place of a class that is not there any more.
    #[must_use]
    pub fn class(&self, number: u16) -> &Class {
        self.classes.find(number)
    }
}

/// What is wrong with a configuration.
#[derive(Debug)]
pub struct ConfigError {
    /// The file, if there is one.
    pub file: PathBuf,
    /// The key, dotted; empty if it is none of them.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
    /// What to write instead.
    pub fix: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            key,
            reason,
            fix,
        } = self;
        let file = file.display();
        match key.is_empty() {
            // The file as a whole is wrong.
            true => write!(f, "{file}: {reason}\n  fix: {fix}"),
            false => write!(f, "{file}: key `{key}`: {reason}\n  fix: {fix}"),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Number of this node: its place in the cluster, or that of a node that stands alone.
    #[must_use]
    pub fn node_number(&self) -> u16 {
        self.cluster.as_ref().map_or(NODE_ALONE, |c| c.own)
    }

    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            file: path.to_owned(),
            key: String::new(),
            reason: format!("cannot be read: {error}"),
            fix: "give the path of a readable TOML file".to_owned(),
        })?;
        Self::parse(&text, path)
    }

    /// Checks a text; `path` is only named in errors. Host names are looked up.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Self::parse_with(text, path, |name| name.to_socket_addrs().ok()?.next())
    }

    /// Checks a text, with host names looked up by `resolve`.
    pub fn parse_with(text: &str, path: &Path, resolve: Resolve) -> Result<Self, ConfigError> {
        file::parse(text, resolve).map_err(|wrong| wrong.of(path))
    }

    /// The embedded defaults: what `ringtoll run` uses without a file.
    #[must_use]
    pub fn embedded() -> Self {
        file::parse("", |_| None)
            .ok()
            .expect("the embedded defaults are valid")
    }

    /// The peer that `source` belongs to.
    #[must_use]
    pub fn peer_of(&self, source: SocketAddr) -> Option<usize> {
        let ip = source.ip();
        self.sip
            .peers
            .iter()
            .position(|peer| peer.allow.iter().any(|net| net.contains(&ip)))
    }

    /// Number of the charging class of a call that took the route of that number and came from
    /// `source`.
    #[must_use]
    pub fn class_of(&self, route: u16, source: SocketAddr) -> u16 {
        let route = self.sip.route(route);
        let of_peer = || self.sip.peers[self.peer_of(source)?].charging_class;
        route
            .and_then(|route| route.charging_class)
            .or_else(of_peer)
            .unwrap_or(0)
    }

    /// Whether calls of a class go on when their records are lost, or have none.
    #[must_use]
    pub fn may_lose(&self, class: u16) -> bool {
        let rules = &self.rf.class(class).rules;
        !rules.offline || rules.realtime == RealtimePolicy::GrantAndLose
    }

    /// Whether `source` may send at all: an empty list admits everybody.
    #[must_use]
    pub fn admits(&self, source: SocketAddr) -> bool {
        self.sip.peers.is_empty() || self.peer_of(source).is_some()
    }

    /// Whether `address` is inside the trust domain (RFC 3325 2.3).
    #[must_use]
    pub fn trusts(&self, address: SocketAddr) -> bool {
        self.peer_of(address)
            .is_some_and(|peer| self.sip.peers[peer].trusted)
    }
}

/// Number of a node that is not in a cluster.
const NODE_ALONE: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> (String, String) {
        let error = Config::parse(text, Path::new("test.toml")).expect_err("the text is wrong");
        assert!(
            error.to_string().contains("test.toml"),
            "the file is named: {error}"
        );
        assert!(!error.fix.is_empty(), "a way out is shown: {error}");
        (error.key, error.reason)
    }

    #[test]
    fn the_example_file_says_the_defaults() {
        let text = include_str!("../../../ringtoll.example.toml");
        let example = Config::parse(text, Path::new("ringtoll.example.toml")).expect("valid");
        assert_eq!(format!("{example:?}"), format!("{:?}", Config::embedded()));
    }

    #[test]
    fn errors_name_the_key() {
        assert_eq!(wrong("[node]\nnam = \"x\"").0, "node.nam");
        assert_eq!(
            wrong("[sip]\nlisten = [\"tcp:127.0.0.1:5060\"]").0,
            "sip.listen[0]"
        );
        assert_eq!(
            wrong("[sip]\nlisten = [\"udp:127.0.0.1\"]").0,
            "sip.listen[0]"
        );
        assert_eq!(
            wrong("[sip]\nlisten = [\"udp:0.0.0.0:5060\"]").0,
            "sip.advertise"
        );
        assert_eq!(wrong("[node]\ncores = [1, 1]").0, "node.cores");
        let twice = "[\"udp:127.0.0.1:5060\", \"udp:[::1]:5060\", \"udp:127.0.0.1:5060\"]";
        assert_eq!(
            wrong(&format!("[sip]\nlisten = {twice}")).0,
            "sip.listen[2]"
        );
        let twice = twice.replace("udp:", "");
        let key = wrong(&format!("[charging.rf]\ncdf = {twice}")).0;
        assert_eq!(key, "charging.rf.cdf[2]");
        assert_eq!(wrong("[sip]\nmin_se_s = 10").0, "sip.min_se_s");
        assert_eq!(
            wrong("[charging.rf]\ncdf = [\"nowhere\"]").0,
            "charging.rf.cdf[0]"
        );
        assert_eq!(
            wrong("[charging.rf.triggers]\nfoo = true").0,
            "charging.rf.triggers.foo"
        );
        let (key, reason) = wrong("[charging.rf]\nomit_avps = [\"From-Address\", \"Event-Type\"]");
        assert_eq!(key, "charging.rf.omit_avps[1]");
        assert!(reason.contains("Event-Type"), "{reason}");
        assert_eq!(wrong("[node]\nname = 3").0, "node.name");
        assert_eq!(wrong("[node\nname = 3").0, "line 1");
        let route = "[[sip.route]]\nmatch = { peer = \"x\" }\nnext_hop = \"127.0.0.1\"";
        assert_eq!(wrong(route).0, "sip.route[0].match.peer");
    }

    #[test]
    fn a_route_takes_its_password_from_the_file_or_from_another() {
        let route = "[[sip.route]]\nmatch = \"*\"\nnext_hop = \"127.0.0.1\"\n";
        let of = |keys: &str| Config::parse(&format!("{route}{keys}"), Path::new("x"));
        let auth = |keys: &str| of(keys).expect("valid").sip.routes[0].auth.clone();
        let given = auth("username = \"ada\"\npassword = \"s3cret\"").expect("credentials");
        assert_eq!(
            (given.username.as_str(), given.password.reveal()),
            ("ada", "s3cret")
        );
        assert!(!format!("{given:?}").contains("s3cret"));
        let file = std::env::temp_dir().join(format!("ringtoll-secret-{}", std::process::id()));
        std::fs::write(&file, "fr0m file\n").expect("a file can be written");
        let keys = format!(
            "username = \"ada\"\npassword_file = {:?}",
            file.display().to_string()
        );
        assert_eq!(
            auth(&keys).expect("credentials").password.reveal(),
            "fr0m file"
        );
        std::fs::remove_file(&file).expect("it was there");
        assert_eq!(
            wrong(&format!("{route}{keys}")).0,
            "sip.route[0].password_file"
        );
        assert_eq!(
            wrong(&format!("{route}username = \"a\"")).0,
            "sip.route[0].password"
        );
        assert_eq!(
            wrong(&format!("{route}password = \"a\"")).0,
            "sip.route[0].username"
        );
        let quoted = format!("{route}username = \"a\\\"b\"\npassword = \"a\"");
        assert_eq!(wrong(&quoted).0, "sip.route[0].username");
        assert!(auth("").is_none());
    }

    #[test]
    fn a_cluster_is_checked_as_a_whole() {
        let member = |id: u16| format!("{{ id = {id}, address = \"127.0.0.{id}:7000\" }}");
        let text = |id: u16, members: &[u16], rest: &str| {
            let members: Vec<_> = members.iter().map(|&id| member(id)).collect();
            let members = members.join(", ");
            format!("[cluster]\nid = {id}\nmembers = [{members}]\nkey_file = \"k\"\n{rest}")
        };
        let good = text(7, &[9, 7], &format!("witness = {}", member(3)));
        let config = Config::parse(&good, Path::new("x")).expect("valid");
        let cluster = config.cluster.expect("a cluster");
        assert_eq!(
            cluster.nodes.iter().map(|n| n.id).collect::<Vec<_>>(),
            [7, 9, 3]
        );
        assert_eq!((cluster.own, cluster.data_nodes()), (0, vec![0, 1]));
        let of_shard = cluster.shard_address(1, 2).map(|a| a.to_string());
        assert_eq!(of_shard.as_deref(), Some("127.0.0.9:7003"));
        assert_eq!(wrong(&text(1, &[1, 2], "")).0, "cluster.members");
        assert_eq!(wrong(&text(4, &[1, 2, 3], "")).0, "cluster.id");
        assert_eq!(wrong(&text(1, &[1, 2, 2], "")).0, "cluster.members[2]");
        assert_eq!(
            wrong(&text(1, &[1, 2, 3], "copies = 4")).0,
            "cluster.copies"
        );
        assert_eq!(
            wrong(&text(1, &[1, 2, 3], "mode = \"x\"")).0,
            "cluster.mode"
        );
        assert_eq!(
            wrong(&text(1, &[1, 2, 3], "bootstrap = true")).0,
            "cluster.bootstrap"
        );
        let former = text(1, &[1, 2, 3], "bootstrap = false");
        assert!(Config::parse(&former, Path::new("x")).is_ok());
        assert_eq!(wrong("[cluster]\nid = 1\nmembers = []").0, "cluster");
    }

    #[test]
    fn access_and_trust_follow_the_source_network() {
        let text = "[[sip.peer]]\nname = \"core\"\nallow = [\"192.0.2.0/24\"]\ntrusted = true\n\
                    [[sip.peer]]\nname = \"trunk\"\nallow = [\"198.51.100.7\"]\n";
        let config = Config::parse(text, Path::new("x")).expect("valid");
        let at = |text: &str| text.parse::<SocketAddr>().expect("a literal");
        assert!(config.admits(at("192.0.2.9:1")) && config.trusts(at("192.0.2.9:1")));
        assert!(config.admits(at("198.51.100.7:1")) && !config.trusts(at("198.51.100.7:1")));
        assert!(!config.admits(at("203.0.113.1:1")));
        assert!(Config::embedded().admits(at("203.0.113.1:1")));
    }
}
