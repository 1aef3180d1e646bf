//! Members of a cluster as processes: what an operator does to them, and what they say.

use std::cell::Cell;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tests::by_hand::{Established, Patient, Phone, Ringing};
use tests::process::{CdfProcess, Running, free_tcp, free_udp, record_types, ringtoll, wait_until};

// Two nodes and a witness.
fn configuration(dir: &Path, name: &str, id: u8, cores: &str, addresses: &[String]) -> String {
    let (dir, sip, admin) = (dir.display(), free_udp(), free_tcp());
    format!(
        "[node]\nname = \"{name}\"\ncores = [{cores}]\nstate_dir = \"{dir}/state\"\ndata_dir = \"{dir}/{name}\"\n\
         ring_young_mib = 4\nring_old_mib = 4\ndrain_timeout_s = 1\n[sip]\nlisten = [\"udp:{sip}\"]\n\
         [charging.rf]\nenabled = false\n[admin]\nlisten = \"{admin}\"\n[cluster]\nid = {id}\nkey_file = \"{dir}/cluster.key\"\n\
         members = [{{ id = 1, address = \"{}\" }}, {{ id = 2, address = \"{}\" }}]\n\
         witness = {{ id = 3, address = \"{}\" }}\n",
        addresses[0], addresses[1], addresses[2]
    )
}

// The first start of a node.
fn start(dir: &Path, command: &str, name: &str, config: &str) -> Running {
    fs::create_dir_all(dir.join(name)).expect("the directory takes files");
    fs::write(dir.join(name).join("vote.boot"), []).expect("the directory takes files");
    start_again(dir, command, name, config)
}

fn start_again(dir: &Path, command: &str, name: &str, config: &str) -> Running {
    let file = dir.join(format!("{name}.toml"));
    fs::write(&file, config).expect("the directory takes files");
    let mut process = Command::new(ringtoll());
    process.args([command, "--config"]).arg(&file);
    Running::start(&mut process, &dir.join(format!("{name}.log")))
}

fn make_keys(file: &Path) {
    let made = Command::new(ringtoll())
        .args(["key", "--file"])
        .arg(file)
        .status();
    assert!(made.expect("the program starts").success());
}

fn hang_up(pid: u32) {
    let sent = Command::new("kill")
        .args(["-HUP", &pid.to_string()])
        .status();
    assert!(sent.expect("kill is there").success());
}

#[test]
fn a_hang_up_makes_node_and_witness_read_their_keys_and_ends_neither() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let keys = dir.path().join("cluster.key");
    make_keys(&keys);
    // A node's shards use the ports behind its own; below those that the kernel gives to others.
    let ports = [21_310, 21_320, 21_330].map(|port| format!("127.0.0.1:{port}"));
    let started = [("run", "n1", 1), ("witness", "w", 3)].map(|(command, name, id)| {
        let config = configuration(dir.path(), name, id, "", &ports);
        (name, start(dir.path(), command, name, &config))
    });
    let log = |name: &str| fs::read_to_string(dir.path().join(format!("{name}.log")));
    let says = |name: &str, what: &str, times: usize| {
        let said = || log(name).unwrap_or_default().matches(what).count() >= times;
        assert!(
            wait_until(Duration::from_secs(10), said),
            "{name}: {:?}",
            log(name)
        );
    };
    for (name, process) in started {
        let mut process = process;
        says(name, "ready", 1);
        let hang_up = |times| {
            hang_up(process.pid());
            says(name, "the cluster's keys", times);
        };
        hang_up(1);
        says(name, "were read again", 1);
        let good = fs::read(&keys).expect("the keys are there");
        fs::write(&keys, "nonsense").expect("the file takes text");
        hang_up(2);
        says(name, "stay as they are", 1);
        fs::write(&keys, good).expect("the file takes text");
        let ended = process.terminate(Duration::from_secs(10));
        assert!(ended.is_some_and(|status| status.success()), "{name}");
    }
}

#[test]
fn nodes_with_different_numbers_of_shards_say_so() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    make_keys(&dir.path().join("cluster.key"));
    let ports = [21_340, 21_350, 21_360].map(|port| format!("127.0.0.1:{port}"));
    let started = [("n1", 1, ""), ("n2", 2, "0, 1")].map(|(name, id, cores)| {
        let config = configuration(dir.path(), name, id, cores, &ports);
        (name, start(dir.path(), "run", name, &config))
    });
    for (name, _process) in &started {
        let log = || fs::read_to_string(dir.path().join(format!("{name}.log"))).unwrap_or_default();
        let said = || log().contains("another number of shards");
        assert!(wait_until(Duration::from_secs(10), said), "{}", log());
        assert!(!log().contains("no version in common"));
    }
}

#[test]
fn a_node_without_vote_starts_only_if_its_operator_says_that_it_never_ran() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    make_keys(&dir.path().join("cluster.key"));
    let ports = [21_370, 21_380, 21_390].map(|port| format!("127.0.0.1:{port}"));
    let config = configuration(dir.path(), "n1", 1, "", &ports);
    let log = || fs::read_to_string(dir.path().join("n1.log")).unwrap_or_default();
    let is_refused = |what: &str| {
        let mut process = start_again(dir.path(), "run", "n1", &config);
        let status = process.wait(Duration::from_secs(20));
        assert_eq!(
            status.and_then(|status| status.code()),
            Some(1),
            "{}",
            log()
        );
        assert!(log().contains(what), "{}", log());
    };
    is_refused("`touch vote.boot`");
    let mut process = start(dir.path(), "run", "n1", &config);
    let is_ready = || log().matches("ready").count() == 1;
    assert!(wait_until(Duration::from_secs(20), is_ready), "{}", log());
    process.kill();
    // Said again and again it is not asked any more: there is a vote.
    let data = dir.path().join("n1");
    assert!(data.join("vote").exists() && !data.join("vote.boot").exists());
    fs::remove_file(data.join("vote")).expect("it was there");
    is_refused("date +%s > vote.replace");
    fs::write(data.join("vote.boot"), []).expect("the directory takes files");
    is_refused("its rings are in");
    assert!(data.join("vote.boot").exists() && !data.join("vote").exists());
}

/// One of two nodes with a witness beside them, that calls go through.
struct Node {
    process: Running,
    name: &'static str,
    config: String,
    sip: SocketAddr,
    admin: SocketAddr,
}

impl Node {
    fn start(
        dir: &Path,
        (name, id): (&'static str, u8),
        ports: &[String],
        (callee, cdf): (SocketAddr, SocketAddr),
    ) -> Self {
        let config = configuration(dir, name, id, "", ports);
        let address = |before: &str| {
            let rest = config
                .split(before)
                .nth(1)
                .and_then(|r| r.split('"').next());
            let address = rest.and_then(|text| text.parse().ok());
            address.expect("the configuration names it")
        };
        let (sip, admin) = (address("udp:"), address("[admin]\nlisten = \""));
        let config = config.replace(
            "[charging.rf]\nenabled = false\n",
            &format!(
                "[[sip.route]]\nmatch = \"*\"\nnext_hop = \"{callee}\"\n\
                 [charging.rf]\ncdf = [\"{cdf}\"]\nretry_interval_ms = 500\n"
            ),
        );
        Self {
            process: start(dir, "run", name, &config),
            name,
            config,
            sip,
            admin,
        }
    }

    fn start_again(&mut self, dir: &Path) {
        self.process = start_again(dir, "run", self.name, &self.config);
    }

    fn page(&self, path: &str) -> String {
        let fetch = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.admin)?;
            write!(stream, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n")?;
            let mut page = String::new();
            stream.read_to_string(&mut page)?;
            Ok(page)
        };
        fetch().unwrap_or_default()
    }

    fn metric(&self, name: &str) -> Option<f64> {
        let page = self.page("/metrics");
        let mut lines = page.lines();
        let line = lines.find(|line| line.split('{').next() == Some(name))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    fn is_whole(&self) -> bool {
        let ready = self.page("/readyz").contains(" 200 ");
        ready && self.page("/cluster").matches("\"alive\"").count() == 3
    }
}

fn calls(of: &str, at: &Node, count: u32, phones: (&Phone, &Phone)) -> Vec<Established> {
    let call = |n| phones.0.call(phones.1, at.sip, &format!("{of}{n}"));
    (0..count).map(call).collect()
}

fn shows_what_it_counts(node: &Node) {
    for name in [
        "link_entry_sent",
        "ring_version_put",
        "member_datagram_sent",
    ] {
        let count = node.metric(&format!("ringtoll_{name}_total"));
        assert!(count > Some(0.0), "{name}: {count:?}");
        let help = format!("# HELP ringtoll_{name}_total ");
        assert!(node.page("/metrics").contains(&help), "{name}");
    }
    for name in [
        "ring_copy_conflicting",
        "ring_reclaim_stuck",
        "vote_save_failed",
    ] {
        let count = node.metric(&format!("ringtoll_{name}_total"));
        assert_eq!(count, Some(0.0), "{name}");
    }
}

fn assert_billed_once(cdf: &CdfProcess, calls: usize) {
    let is_billed = || {
        cdf.cdrs()
            .iter()
            .filter(|cdr| cdr["status"] == "complete")
            .count()
            == calls
    };
    assert!(
        wait_until(Duration::from_secs(20), is_billed),
        "{:?}",
        cdf.cdrs()
    );
    let cdrs = cdf.cdrs();
    assert_eq!(cdrs.len(), calls, "none is billed twice");
    for cdr in &cdrs {
        let types = record_types(cdr);
        let rest = types
            .strip_prefix("START ")
            .and_then(|t| t.strip_suffix("STOP"));
        let is_one = rest.is_some_and(|t| t.split_whitespace().all(|word| word == "INTERIM"));
        assert!(is_one, "{cdr}");
    }
    assert!(!cdf.log().contains("other contents"), "{}", cdf.log());
}

#[test]
fn two_nodes_and_a_witness_go_on_without_one_node_and_without_the_witness() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    make_keys(&dir.path().join("cluster.key"));
    let mut cdf = CdfProcess::new(dir.path(), "cdf");
    cdf.start();
    let (caller, callee) = (Phone::at("127.0.0.1"), Phone::at("127.0.0.1"));
    let phones = (&caller, &callee);
    let ports = [21_400, 21_410, 21_420].map(|port| format!("127.0.0.1:{port}"));
    let talks_to = (callee.address(), cdf.address);
    let node = |name, id| Node::start(dir.path(), (name, id), &ports, talks_to);
    let (mut first, second) = (node("n1", 1), node("n2", 2));
    let votes = configuration(dir.path(), "w", 3, "", &ports);
    let mut witness = start(dir.path(), "witness", "w", &votes);
    let logs = || {
        let log = |name| fs::read_to_string(dir.path().join(format!("{name}.log")));
        ["n1", "n2", "w"].map(|name| log(name).unwrap_or_default())
    };
    let are_whole = |first: &Node| {
        let is_so = || first.is_whole() && second.is_whole();
        assert!(wait_until(Duration::from_secs(30), is_so), "{:?}", logs());
    };
    are_whole(&first);
    let mut of_first = calls("first", &first, 8, phones);
    let mut of_second = calls("second", &second, 8, phones);
    shows_what_it_counts(&second);

    // One node is gone: the other and the witness are a majority.
    first.process.kill();
    let has_adopted = || second.metric("ringtoll_call_adopted_total") == Some(8.0);
    let in_time = wait_until(Duration::from_secs(10), has_adopted);
    assert!(in_time, "{}\n{:?}", second.page("/metrics"), logs());
    for call in of_first.drain(..4).chain(of_second.drain(..4)) {
        call.hang_up(&caller, &callee, second.sip);
    }
    let meanwhile = calls("meanwhile", &second, 2, phones);
    first.start_again(dir.path());
    are_whole(&first);

    // The witness is gone: the two nodes are a majority.
    witness.kill();
    let without = calls("without", &first, 2, phones);
    for call in of_second.drain(..2).chain(of_first.drain(..2)) {
        call.hang_up(&caller, &callee, first.sip);
    }
    let _witness = start_again(dir.path(), "witness", "w", &votes);
    let with = calls("with", &second, 2, phones);
    are_whole(&first);
    let rest = of_first.into_iter().chain(of_second);
    for call in rest.chain(meanwhile).chain(without).chain(with) {
        call.hang_up(&caller, &callee, first.sip);
    }
    assert_billed_once(&cdf, 22);
    assert_eq!(
        second.metric("ringtoll_call_adopted_beyond_promise_total"),
        Some(0.0)
    );
}

/// A cluster whose keys are rotated, its node 1 and 2 and its witness.
struct Rotation<'a> {
    dir: &'a Path,
    nodes: [&'a Node; 2],
    witness: &'a Running,
    phones: Patient<'a>,
    calls: Cell<usize>,
}

impl Rotation<'_> {
    // As the guarantees have it: each step everywhere before the next.
    fn rotate(&self, old: &str, new: &str) {
        let [first, second] = self.nodes.map(|node| (node.name, node.process.pid()));
        for keys in [&[old, new][..], &[new, old], &[new]] {
            write_keys(self.dir, keys);
            for (name, pid) in [first, second, ("w", self.witness.pid())] {
                self.hang_up(name, pid);
            }
            // What was sealed before has arrived: what they send is mostly answers.
            let sent = || {
                let sent = |node: &Node| node.metric("ringtoll_member_datagram_sent_total");
                self.nodes.map(|node| sent(node).unwrap_or_default())
            };
            let before = sent();
            self.wait(|| {
                sent()
                    .iter()
                    .zip(before)
                    .all(|(now, then)| *now >= then + 20.0)
            });
        }
    }

    // Lets a process read its keys again, while calls are set up and ended.
    fn hang_up(&self, name: &str, pid: u32) {
        let log = || fs::read_to_string(self.dir.join(format!("{name}.log"))).unwrap_or_default();
        let times = || log().matches("were read again").count();
        let before = times();
        let ringing = self.nodes.map(|node| self.ring(node));
        hang_up(pid);
        let until = Instant::now() + Duration::from_secs(20);
        while times() == before {
            assert!(Instant::now() < until, "{}", log());
            self.end(self.nodes.map(|node| self.ring(node)));
        }
        self.end(ringing);
    }

    fn ring(&self, node: &Node) -> Ringing {
        self.calls.set(self.calls.get() + 1);
        self.phones
            .ring(node.sip, &format!("call{}", self.calls.get()))
    }

    // Each through the other node, so that its BYE is passed on.
    fn end(&self, [first, second]: [Ringing; 2]) {
        for (ringing, node) in [(first, self.nodes[1]), (second, self.nodes[0])] {
            let up = self.phones.pick_up(ringing);
            self.phones.hang_up(&up, node.sip);
        }
    }

    fn wait(&self, done: impl FnMut() -> bool) {
        let in_time = wait_until(Duration::from_secs(20), done);
        assert!(in_time, "{}", self.nodes[1].page("/metrics"));
    }

    // Datagrams at each node that were sealed under a key unknown there.
    fn unknown(&self, node: &Node) -> f64 {
        let of = |way| node.metric(&format!("ringtoll_{way}_key_unknown_total"));
        let counts = ["link", "letter", "member"].map(|way| of(way).expect("it is counted"));
        counts.iter().sum()
    }

    // A key that nobody else has is first, and theirs is gone.
    fn rotate_in_the_wrong_order(&self, good: &str, alone: &str) {
        let node = self.nodes[0];
        let read_again = || hang_up(node.process.pid());
        write_keys(self.dir, &[alone]);
        read_again();
        self.wait(|| self.nodes.iter().all(|node| self.unknown(node) > 0.0));
        self.wait(|| node.page("/readyz").contains(" 503 "));
        write_keys(self.dir, &[good]);
        read_again();
        self.wait(|| self.nodes.iter().all(|node| node.is_whole()));
    }
}

fn write_keys(dir: &Path, keys: &[&str]) {
    let mut text = format!("token {}\n", "5a".repeat(16));
    for key in keys {
        text += &format!("key {}\n", key.repeat(32));
    }
    fs::write(dir.join("cluster.key"), text).expect("the directory takes files");
}

#[test]
fn keys_rotate_under_traffic_and_cost_no_call() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    write_keys(dir.path(), &["a1"]);
    let mut cdf = CdfProcess::new(dir.path(), "cdf");
    cdf.start();
    let (caller, callee) = (Phone::at("127.0.0.1"), Phone::at("127.0.0.1"));
    let ports = [21_430, 21_440, 21_450].map(|port| format!("127.0.0.1:{port}"));
    let talks_to = (callee.address(), cdf.address);
    let node = |name, id| Node::start(dir.path(), (name, id), &ports, talks_to);
    let (first, second) = (node("n1", 1), node("n2", 2));
    let votes = configuration(dir.path(), "w", 3, "", &ports);
    let witness = start(dir.path(), "witness", "w", &votes);
    let rotation = Rotation {
        dir: dir.path(),
        nodes: [&first, &second],
        witness: &witness,
        phones: Patient {
            caller: &caller,
            callee: &callee,
        },
        calls: Cell::new(0),
    };
    rotation.wait(|| first.is_whole() && second.is_whole());
    let up = |node| rotation.phones.pick_up(rotation.ring(node));
    let held: Vec<_> = (0..4).flat_map(|_| [up(&first), up(&second)]).collect();
    let ringing = rotation.nodes.map(|node| rotation.ring(node));
    rotation.rotate("a1", "b2");
    rotation.end(ringing);
    for node in rotation.nodes {
        assert_eq!(rotation.unknown(node), 0.0, "{}", node.page("/metrics"));
        let passed_on = node.metric("ringtoll_letter_forward_received_total");
        assert!(passed_on > Some(0.0), "{passed_on:?}");
    }
    rotation.rotate_in_the_wrong_order("b2", "c3");
    for call in held {
        rotation.phones.hang_up(&call, first.sip);
    }
    assert_billed_once(&cdf, rotation.calls.get());
}
