//! The TOML file as it is written, its defaults, and its way into [`Config`].

use std::net::SocketAddr;
use std::path::Path;

use serde::Deserialize;

use super::route::HOPS_MAX;
use super::{
    Auth, Classes, Config, ConfigError, Hop, Matcher, Node, Peer, Resolve, Route, Secret, Sip,
    triggers,
};

use crate::dialog::session_timer::Wanted;
use crate::env::LISTENERS_MAX;
use crate::transaction::Timers;

/// What is wrong, without the file's name.
pub(super) struct Wrong {
    pub(super) key: String,
    pub(super) reason: String,
    pub(super) fix: String,
}

impl Wrong {
    /// The same with the file's name.
    pub(super) fn of(self, file: &Path) -> ConfigError {
        ConfigError {
            file: file.to_owned(),
            key: self.key,
            reason: self.reason,
            fix: self.fix,
        }
    }
}

/// Builds one.
pub(super) fn wrong(
    key: impl Into<String>,
    reason: impl Into<String>,
    fix: impl Into<String>,
) -> Wrong {
    Wrong {
        key: key.into(),
        reason: reason.into(),
        fix: fix.into(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct File {
    node: NodeFile,
    sip: SipFile,
    charging: ChargingFile,
    admin: AdminFile,
    cluster: Option<super::cluster::ClusterFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NodeFile {
    name: String,
    cores: Vec<usize>,
    state_dir: String,
    data_dir: String,
    huge_pages: bool,
    ring_young_mib: u64,
    ring_old_mib: u64,
    drain_timeout_s: u64,
}

impl Default for NodeFile {
    fn default() -> Self {
        Self {
            name: "node1".to_owned(),
            cores: Vec::new(),
            state_dir: "/dev/shm/ringtoll".to_owned(),
            data_dir: "/var/lib/ringtoll".to_owned(),
            huge_pages: false,
            ring_young_mib: 64,
            ring_old_mib: 256,
            drain_timeout_s: 60,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SipFile {
    listen: Vec<String>,
    advertise: Option<String>,
    peer: Vec<PeerFile>,
    route: Vec<RouteFile>,
    t1_ms: u32,
    t2_ms: u32,
    t4_ms: u32,
    session_expires_s: u32,
    min_se_s: u32,
    max_call_duration_s: u64,
    ring_timeout_s: u64,
    probe_interval_s: u64,
    hop_penalty_s: u64,
    hop_timeout_ms: u64,
    ping_interval_s: u64,
    calls_max: usize,
}

impl Default for SipFile {
    fn default() -> Self {
        let timers = Timers::default();
        Self {
            listen: vec!["udp:127.0.0.1:5060".to_owned()],
            advertise: None,
            peer: Vec::new(),
            route: Vec::new(),
            t1_ms: timers.t1,
            t2_ms: timers.t2,
            t4_ms: timers.t4,
            session_expires_s: 1_800,
            min_se_s: 90,
            max_call_duration_s: 4 * 3_600,
            ring_timeout_s: 180,
            probe_interval_s: 0,
            hop_penalty_s: 30,
            hop_timeout_ms: 4_000,
            ping_interval_s: 0,
            calls_max: 250_000,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerFile {
    name: String,
    allow: Vec<String>,
    #[serde(default)]
    trusted: bool,
    nni: Option<String>,
    charging_class: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteFile {
    #[serde(rename = "match")]
    matcher: MatchFile,
    next_hop: NextHopFile,
    username: Option<String>,
    password: Option<String>,
    password_file: Option<String>,
    charging_class: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum MatchFile {
    Pattern(String),
    Conditions(ConditionsFile),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionsFile {
    method: Option<String>,
    domain: Option<String>,
    prefix: Option<String>,
    peer: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NextHopFile {
    One(String),
    Many(Vec<HopFile>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum HopFile {
    Address(String),
    Full(FullHopFile),
}

impl HopFile {
    fn text(&self) -> &str {
        match self {
            Self::Address(text) => text,
            Self::Full(hop) => &hop.address,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FullHopFile {
    address: String,
    #[serde(default)]
    priority: u16,
    #[serde(default = "one")]
    weight: u16,
}

fn one() -> u16 {
    1
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ChargingFile {
    rf: super::rf::RfFile,
    class: Vec<super::class::ClassFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AdminFile {
    listen: Option<String>,
}

impl Default for AdminFile {
    fn default() -> Self {
        Self {
            listen: Some("127.0.0.1:9060".to_owned()),
        }
    }
}

pub(super) fn parse(text: &str, resolve: Resolve) -> Result<Config, Wrong> {
    let document = toml::de::Deserializer::parse(text).map_err(|error| {
        let line = error
            .span()
            .map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        wrong(format!("line {line}"), error.message(), "write valid TOML")
    })?;
    let file: File = serde_path_to_error::deserialize(document).map_err(|error| {
        let key = error.path().to_string();
        let reason = error.into_inner().message().to_owned();
        wrong(
            key,
            reason,
            "see ringtoll.example.toml for the keys and their types",
        )
    })?;
    let node = node(file.node)?;
    let shards = node.cores.len().max(1);
    let cluster = file
        .cluster
        .map(|file| super::cluster::cluster(file, shards, resolve))
        .transpose()?;
    let rf = super::rf::rf(file.charging.rf, file.charging.class, resolve)?;
    let config = Config {
        node,
        cluster,
        sip: sip(file.sip, &rf.classes, resolve)?,
        rf,
        admin: file
            .admin
            .listen
            .map(|text| socket(resolve, "admin.listen", &text))
            .transpose()?,
    };
    Ok(config)
}

fn node(file: NodeFile) -> Result<Node, Wrong> {
    let fit = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if file.name.is_empty() || file.name.len() > 63 || !file.name.chars().all(fit) {
        return Err(wrong(
            "node.name",
            format!("`{}` cannot be part of a host name", file.name),
            "use 1 to 63 letters, digits, dots and hyphens",
        ));
    }
    let mut seen = file.cores.clone();
    seen.sort_unstable();
    seen.dedup();
    if seen.len() != file.cores.len() {
        return Err(wrong(
            "node.cores",
            "a core stands there twice",
            "name each core once",
        ));
    }
    if file.cores.len() > SHARDS_MAX {
        return Err(wrong(
            "node.cores",
            format!(
                "{} cores, at most {SHARDS_MAX} shards are possible",
                file.cores.len()
            ),
            "name fewer cores",
        ));
    }
    for (key, mib) in [
        ("ring_young_mib", file.ring_young_mib),
        ("ring_old_mib", file.ring_old_mib),
    ] {
        if !(4..=1 << 20).contains(&mib) {
            return Err(wrong(
                format!("node.{key}"),
                format!("{mib} MiB is out of range"),
                "write 4 to 1048576",
            ));
        }
    }
    Ok(Node {
        name: file.name,
        cores: file.cores,
        state_dir: file.state_dir.into(),
        data_dir: file.data_dir.into(),
        huge_pages: file.huge_pages,
        ring_young_bytes: file.ring_young_mib << 20,
        ring_old_bytes: file.ring_old_mib << 20,
        drain_timeout_s: file.drain_timeout_s,
    })
}

fn sip(file: SipFile, classes: &Classes, resolve: Resolve) -> Result<Sip, Wrong> {
    let listen = listeners(&file.listen, resolve)?;
    let advertise = advertised(&listen, file.advertise.as_deref())?;
    if file.min_se_s < 90 {
        return Err(wrong(
            "sip.min_se_s",
            "RFC 4028 allows no less than 90",
            "write 90 or more",
        ));
    }
    if file.session_expires_s != 0 && file.session_expires_s < file.min_se_s {
        return Err(wrong(
            "sip.session_expires_s",
            format!(
                "{} is below min_se_s = {}",
                file.session_expires_s, file.min_se_s
            ),
            "write 0 (off) or a number not below min_se_s",
        ));
    }
    if file.t1_ms == 0 || file.t2_ms < file.t1_ms || file.t1_ms > 60_000 {
        return Err(wrong(
            "sip.t1_ms",
            format!("t1_ms = {}, t2_ms = {}", file.t1_ms, file.t2_ms),
            "T1 is 1 to 60000 ms and not above T2",
        ));
    }
    watched(&file)?;
    let peers = file
        .peer
        .into_iter()
        .enumerate()
        .map(|(place, peer)| self::peer(place, peer, classes))
        .collect::<Result<Vec<_>, _>>()?;
    let routes = file
        .route
        .into_iter()
        .enumerate()
        .map(|(place, route)| self::route(place, route, (&peers, classes), resolve))
        .collect::<Result<Vec<_>, _>>()?;
    super::route::check_numbers(&routes)?;
    Ok(Sip {
        advertise_addrs: advertise.iter().map(|text| text.parse().ok()).collect(),
        advertise,
        listen,
        peers,
        routes,
        timers: Timers {
            t1: file.t1_ms,
            t2: file.t2_ms,
            t4: file.t4_ms,
        },
        session: Wanted {
            expires_s: file.session_expires_s,
            min_se_s: file.min_se_s,
        },
        max_call_duration_s: file.max_call_duration_s,
        ring_timeout_s: file.ring_timeout_s,
        probe_interval_s: file.probe_interval_s,
        hop_penalty_s: file.hop_penalty_s,
        hop_timeout_ms: file.hop_timeout_ms,
        ping_interval_s: file.ping_interval_s,
        calls_max: file.calls_max,
    })
}

// How next hops and the peers of calls are watched.
fn watched(file: &SipFile) -> Result<(), Wrong> {
    let bounds = [
        ("probe_interval_s", file.probe_interval_s, 10, 86_400),
        ("hop_penalty_s", file.hop_penalty_s, 1, 3_600),
        ("hop_timeout_ms", file.hop_timeout_ms, 100, 60_000),
        ("ping_interval_s", file.ping_interval_s, 2, 3_600),
    ];
    for (key, value, least, most) in bounds {
        if value != 0 && !(least..=most).contains(&value) {
            return Err(wrong(
                format!("sip.{key}"),
                format!("{value} is out of range"),
                format!("write 0 (off) or {least} to {most}"),
            ));
        }
    }
    Ok(())
}

fn listeners(listen: &[String], resolve: Resolve) -> Result<Vec<SocketAddr>, Wrong> {
    if listen.is_empty() || listen.len() > LISTENERS_MAX {
        return Err(wrong(
            "sip.listen",
            format!("{} addresses", listen.len()),
            format!("give 1 to {LISTENERS_MAX} like \"udp:192.0.2.1:5060\""),
        ));
    }
    let mut found = Vec::new();
    for (place, text) in listen.iter().enumerate() {
        let key = format!("sip.listen[{place}]");
        let Some(address) = text.strip_prefix("udp:") else {
            return Err(wrong(
                key,
                format!("`{text}` does not begin with a transport that is served"),
                "write \"udp:HOST:PORT\"",
            ));
        };
        found.push(socket(resolve, &key, address)?);
    }
    once("sip.listen", &found)?;
    Ok(found)
}

// One advertised host[:port] per listener; a host alone takes each listener's port.
fn advertised(listen: &[SocketAddr], advertise: Option<&str>) -> Result<Vec<String>, Wrong> {
    listen
        .iter()
        .map(|address| match advertise {
            None if address.ip().is_unspecified() => Err(wrong(
                "sip.advertise",
                format!("missing, and peers cannot answer to {address}"),
                "write the host name or address that peers reach this node by",
            )),
            None => Ok(address.to_string()),
            Some(text) if text.is_empty() || text.contains(['<', '>', ' ', ';']) => Err(wrong(
                "sip.advertise",
                format!("`{text}` is not a host"),
                "write HOST or HOST:PORT",
            )),
            Some(text) if text.parse::<SocketAddr>().is_ok() => Ok(text.to_owned()),
            Some(text) if !text.starts_with('[') && text.matches(':').count() > 1 => {
                Ok(format!("[{text}]:{}", address.port()))
            }
            Some(text)
                if text
                    .rsplit_once(':')
                    .is_some_and(|(_, p)| p.parse::<u16>().is_ok()) =>
            {
                Ok(text.to_owned())
            }
            Some(text) => Ok(format!("{text}:{}", address.port())),
        })
        .collect()
}

fn peer(place: usize, file: PeerFile, classes: &Classes) -> Result<Peer, Wrong> {
    let allow = file
        .allow
        .iter()
        .enumerate()
        .map(|(net, text)| {
            text.parse::<ipnet::IpNet>()
                .or_else(|_| text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from))
                .map_err(|_| {
                    wrong(
                        format!("sip.peer[{place}].allow[{net}]"),
                        format!("`{text}` is neither an address nor a network"),
                        "write \"192.0.2.7\" or \"192.0.2.0/24\"",
                    )
                })
        })
        .collect::<Result<_, _>>()?;
    let nni = triggers::nni(place, file.nni.as_deref())?;
    Ok(Peer {
        name: file.name,
        allow,
        trusted: file.trusted,
        nni,
        charging_class: classes.named(
            &format!("sip.peer[{place}]"),
            file.charging_class.as_deref(),
        )?,
    })
}

// Credentials towards the next hops of a route.
fn auth(place: usize, file: &RouteFile) -> Result<Option<Auth>, Wrong> {
    let key = |name: &str| format!("sip.route[{place}].{name}");
    let given = (&file.username, &file.password, &file.password_file);
    let (username, password) = match given {
        (None, None, None) => return Ok(None),
        (Some(username), Some(password), None) => (username, password.clone()),
        (Some(username), None, Some(path)) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                let reason = format!("`{path}` cannot be read: {error}");
                wrong(
                    key("password_file"),
                    reason,
                    "name a file that holds the password",
                )
            })?;
            (username, text.trim_end_matches(['\r', '\n']).to_owned())
        }
        (None, ..) => {
            return Err(wrong(
                key("username"),
                "missing",
                "write whose password it is",
            ));
        }
        (Some(_), ..) => {
            let fix = "write one of password and password_file";
            return Err(wrong(key("password"), "missing, or there twice", fix));
        }
    };
    // It goes into a quoted string as it is.
    if username.contains(|c: char| c.is_control() || c == '"' || c == '\\') {
        let fix = "leave out quotation marks, backslashes and control characters";
        return Err(wrong(key("username"), "cannot be quoted", fix));
    }
    Ok(Some(Auth {
        username: username.clone(),
        password: Secret::new(password),
    }))
}

fn route(
    place: usize,
    file: RouteFile,
    (peers, classes): (&[Peer], &Classes),
    resolve: Resolve,
) -> Result<Route, Wrong> {
    let auth = auth(place, &file)?;
    let class = file.charging_class.as_deref();
    let charging_class = classes.named(&format!("sip.route[{place}]"), class)?;
    let matcher = match file.matcher {
        MatchFile::Pattern(text) => Matcher {
            pattern: (text != "*").then_some(text),
            ..Matcher::default()
        },
        MatchFile::Conditions(given) => Matcher {
            method: given.method,
            domain: given.domain,
            prefix: given.prefix,
            peer: given.peer,
            pattern: None,
        },
    };
    if let Some(name) = &matcher.peer
        && !peers.iter().any(|peer| &peer.name == name)
    {
        return Err(wrong(
            format!("sip.route[{place}].match.peer"),
            format!("there is no peer called `{name}`"),
            "name one of [[sip.peer]]",
        ));
    }
    let hops = match file.next_hop {
        NextHopFile::One(text) => vec![HopFile::Address(text)],
        NextHopFile::Many(hops) => hops,
    };
    if hops.is_empty() || hops.len() > HOPS_MAX {
        return Err(wrong(
            format!("sip.route[{place}].next_hop"),
            format!("{} next hops", hops.len()),
            format!("give 1 to {HOPS_MAX}"),
        ));
    }
    let number = matcher.number(hops.iter().map(HopFile::text), file.username.as_deref());
    let hops = hops
        .into_iter()
        .enumerate()
        .map(|(order, hop)| {
            self::hop(
                &format!("sip.route[{place}].next_hop[{order}]"),
                order,
                hop,
                resolve,
            )
        })
        .collect::<Result<_, _>>()?;
    Ok(Route {
        number,
        matcher,
        hops,
        auth,
        charging_class,
    })
}

// A bare address takes its place in the list as its priority: the first is the main one.
fn hop(key: &str, order: usize, file: HopFile, resolve: Resolve) -> Result<Hop, Wrong> {
    let (text, priority, weight) = match file {
        HopFile::Address(text) => (text, order as u16, 1),
        HopFile::Full(hop) => (hop.address, hop.priority, hop.weight),
    };
    let bare = text
        .strip_prefix("udp:")
        .or_else(|| text.strip_prefix("sip:"))
        .unwrap_or(&text);
    let address = if let Ok(ip) = bare.parse::<std::net::IpAddr>() {
        SocketAddr::new(ip, 5060)
    } else if bare.contains(':') {
        socket(resolve, key, bare)?
    } else {
        socket(resolve, key, &format!("{bare}:5060"))?
    };
    Ok(Hop {
        address,
        priority,
        weight,
    })
}

/// Refuses a list in which an address stands twice.
pub(super) fn once(key: &str, list: &[SocketAddr]) -> Result<(), Wrong> {
    let again = (1..list.len()).find(|&place| list[..place].contains(&list[place]));
    again.map_or(Ok(()), |place| {
        Err(wrong(
            format!("{key}[{place}]"),
            format!("{} stands there twice", list[place]),
            "name each address once",
        ))
    })
}

pub(super) fn socket(resolve: Resolve, key: &str, text: &str) -> Result<SocketAddr, Wrong> {
    let fix = "write HOST:PORT, for instance \"127.0.0.1:3868\"";
    let error = |reason: String| wrong(key, reason, fix);
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if !text.contains(':') {
        return Err(error(format!("`{text}` has no port")));
    }
    resolve(text).ok_or_else(|| error(format!("`{text}` cannot be resolved")))
}

/// Most shards of a node: the shard number is a byte of the call token's routing.
const SHARDS_MAX: usize = 64;
