//! The command line and the admin pages as an operator meets them.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use replication::{Ring, RingConfig};
use serde_json::Value;
use tests::process::{
    NodeProcess, Running, Sipp, free_tcp, free_udp, is_installed, ringtoll, wait_until,
};

fn ringtoll_with(arguments: &[&str]) -> Output {
    Command::new(ringtoll())
        .args(arguments)
        .output()
        .expect("the program starts")
}

fn check(dir: &Path, text: &str) -> (Option<i32>, String) {
    let file = dir.join("node.toml");
    std::fs::write(&file, text).expect("the directory takes files");
    let path = file.display().to_string();
    let output = ringtoll_with(&["check", "--config", &path]);
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn a_bad_file_is_refused_with_the_key_the_reason_and_what_to_write() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    for (text, key, reason, fix) in BAD_FILES {
        let (status, said) = check(dir.path(), text);
        assert_eq!(status, Some(2), "{text}{said}");
        let (what, how) = said
            .split_once("\n  fix: ")
            .unwrap_or_else(|| panic!("{text}{said}"));
        assert!(what.contains("node.toml: "), "names the file: {said}");
        assert!(
            what.contains(&format!("key `{key}`: ")),
            "names the key {key}: {said}"
        );
        assert!(what.contains(reason), "gives the reason {reason}: {said}");
        assert!(how.contains(fix), "says what to write, {fix}: {said}");
    }
    println!("{} bad files refused", BAD_FILES.len());
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let output = ringtoll_with(&["check", "--config", "nowhere.toml"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("nowhere.toml: cannot be read") && said.contains("fix: "),
        "{said}"
    );
    assert!(!said.contains("key"), "no key is wrong: {said}");
}

#[test]
fn a_file_that_does_not_fit_the_host_is_refused() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let at = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(at("file"), b"").expect("the directory takes files");
    for (key, value) in [
        ("node.cores", "[100000]".to_owned()),
        ("node.state_dir", format!("{:?}", at("file/below"))),
        ("node.data_dir", format!("{:?}", at("file"))),
    ] {
        let own = key.trim_start_matches("node.");
        let usual = [("state_dir", at("state")), ("data_dir", at("data"))];
        let usual = usual.iter().filter(|(name, _)| *name != own);
        let usual: String = usual
            .map(|(name, path)| format!("{name} = {path:?}\n"))
            .collect();
        let text = format!("[node]\n{usual}{own} = {value}\n");
        let (status, said) = check(dir.path(), &text);
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains(&format!("key `{key}`: ")), "{said}");
        assert!(said.contains("\n  fix: "), "{said}");
    }
    assert!(!Path::new(&at("state")).exists(), "nothing is made");
}

#[test]
fn the_program_says_its_own_name_and_version() {
    let output = ringtoll_with(&["--version"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with("ringtoll "), "{said}");
}

#[test]
fn the_bundled_cdf_listens_at_a_host_name() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let (port, log) = (free_tcp().port(), dir.path().join("cdf.log"));
    let mut command = Command::new(ringtoll());
    command.args(["cdf", "--listen", &format!("localhost:{port}"), "--store"]);
    command.arg(dir.path().join("cdf.sqlite"));
    let _cdf = Running::start(&mut command, &log);
    let listens = || std::net::TcpStream::connect(("localhost", port)).is_ok();
    assert!(wait_until(Duration::from_secs(10), listens));
}

#[test]
fn a_good_file_passes() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let here = format!(
        "[node]\nstate_dir = \"{dir}/state\"\ndata_dir = \"{dir}/data\"\n",
        dir = dir.path().display()
    );
    for text in [
        "",
        "name = \"n1\"\ncores = [0]\n",
        "[sip]\nlisten = [\"udp:127.0.0.1:5060\"]\n[[sip.route]]\nmatch = \"*\"\n\
         next_hop = \"127.0.0.1:5070\"\n[charging.rf]\ncdf = [\"127.0.0.1:3868\"]\n\
         [charging.rf.triggers]\nevent_on_cancel = false\n",
    ] {
        let (status, said) = check(dir.path(), &format!("{here}{text}"));
        assert_eq!(status, Some(0), "{said}");
        assert!(said.contains(": good"), "{said}");
    }
}

fn listed_calls(node: &NodeProcess) -> Vec<Value> {
    let state = node.dir.path().join("state").display().to_string();
    let output = ringtoll_with(&["calls", "--state-dir", &state]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("one JSON object a line"))
        .collect()
}

fn ids(calls: &[Value]) -> Vec<&str> {
    let mut ids: Vec<&str> = calls
        .iter()
        .filter_map(|call| call["id"].as_str())
        .collect();
    ids.sort_unstable();
    ids
}

#[test]
fn calls_and_pages_of_a_live_and_of_a_dead_node() {
    if !is_installed("sipp") {
        return;
    }
    let callee = free_udp();
    let mut node = NodeProcess::start(callee, "");
    let sipp = Sipp {
        scenario: ("basic_uac", "basic_uas"),
        calls: 5,
        rate: 50,
        hold_ms: 60_000,
        limit: Duration::from_secs(90),
    };
    let log = |name: &str| node.dir.path().join(name);
    let _callee = sipp.callee(callee, &log("callee.log"));
    let _caller = sipp.caller_with(&node, &log("caller.log"), &[]);
    // Confirmed and with the answer to its START: nothing of the state changes any more.
    let settled = wait_until(Duration::from_secs(20), || {
        let metrics = node.metrics();
        metrics["ringtoll_call_answered_total"] == 5.0
            && metrics["ringtoll_acr_acknowledged_total"] == 5.0
    });
    assert!(settled, "{:?}", node.metrics());

    let (status, page) = node.get("/calls").expect("a running node answers");
    assert_eq!(status, 200);
    let page: Value = serde_json::from_str(&page).expect("one JSON array");
    let shown = page.as_array().expect("an array").clone();
    assert_eq!(shown.len(), 5);
    for call in &shown {
        assert_eq!(call["phase"], "confirmed", "{call}");
        assert_eq!(call["peers"][1], callee.to_string(), "{call}");
        assert!(
            call["from"]
                .as_str()
                .is_some_and(|from| from.contains("sip:+4940")),
            "{call}"
        );
        assert!(
            call["answered_ms"].as_u64() >= call["begun_ms"].as_u64(),
            "{call}"
        );
        assert_eq!(call["charging"]["state"], "Open", "{call}");
        assert_eq!(call["charging"]["interim_interval_s"], 300, "{call}");
    }
    let live = listed_calls(&node);
    assert_eq!(ids(&live), ids(&shown), "the ring says what the node says");

    pages_have_their_formats(&node);

    node.kill();
    let dead = listed_calls(&node);
    assert_eq!(ids(&dead), ids(&shown), "the ring outlives the process");
    assert_eq!(
        dead[0]["charging"]["session_id"]
            .as_str()
            .map(str::is_empty),
        Some(false)
    );
    damaged_rings_are_named_and_the_others_listed(&node, &ids(&dead));
}

fn damaged_rings_are_named_and_the_others_listed(node: &NodeProcess, whole: &[&str]) {
    let state = node.dir.path().join("state");
    std::fs::write(state.join("1/7.young"), [7; 8192]).expect("the directory takes files");
    // A call of a layout that nobody reads.
    let config = RingConfig {
        node: 1,
        shard: 8,
        ..RingConfig::default()
    };
    let (mut ring, _) = Ring::open_files(&state, &config).expect("there is room for a ring");
    let id = ring.next_id();
    ring.put(id, 1, 9_999, b"nothing").expect("an empty ring");
    let output = ringtoll_with(&["calls", "--state-dir", &state.display().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let listed: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("one JSON object a line"))
        .collect();
    assert_eq!(ids(&listed), whole, "what can be read");
    let said = String::from_utf8_lossy(&output.stderr);
    for what in ["/1/7.*: ", "/1/8.*: 1 calls cannot", "1 rings and 1 calls"] {
        assert!(said.contains(what), "{said}");
    }
}

fn pages_have_their_formats(node: &NodeProcess) {
    assert_eq!(node.get("/readyz"), Some((200, "ready\n".to_owned())));
    assert_eq!(node.get("/").map(|(status, _)| status), Some(404));
    let (status, page) = node.get("/metrics").expect("a running node answers");
    assert_eq!(status, 200);
    let (mut declared_name, mut is_histogram) = ("", false);
    let mut explained = "";
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').expect("a name and a text");
            assert!(text.ends_with('.') && !text.starts_with(' '), "{line}");
            explained = name;
            continue;
        }
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, of) = declared.split_once(' ').expect("a name and a kind");
            assert_eq!(name.ends_with("_total"), of == "counter", "{line}");
            assert_eq!(name, explained, "what it means comes first");
            (declared_name, is_histogram) = (name, of == "histogram");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a series and a value");
        let (name, labels) = series.split_once('{').expect("labels");
        let own = name.strip_prefix(declared_name);
        let is_bucket = is_histogram && own == Some("_bucket");
        let follows = is_bucket || is_histogram && matches!(own, Some("_sum" | "_count"));
        assert!(
            follows != (own == Some("")),
            "follows its declaration: {line}"
        );
        let more = labels.strip_prefix("node=\"test\",shard=\"0\"");
        let bound = more.and_then(|more| more.strip_prefix(",le=\"")?.strip_suffix("\"}"));
        assert_eq!(bound.is_some(), is_bucket, "{line}");
        assert!(is_bucket || more == Some("}"), "{line}");
        assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
    }
    assert!(
        page.contains("ringtoll_cdf_reachable{node=\"test\",shard=\"0\"} 1\n"),
        "{page}"
    );
}

#[test]
fn cdr_list_prints_a_table_and_json() {
    if !is_installed("sipp") {
        return;
    }
    let callee = free_udp();
    let mut node = NodeProcess::start(callee, "");
    let sipp = Sipp {
        scenario: ("basic_uac", "basic_uas"),
        calls: 3,
        rate: 50,
        hold_ms: 1_200,
        limit: Duration::from_secs(30),
    };
    let _callee = sipp.callee(callee, &node.dir.path().join("callee.log"));
    sipp.call(&node);
    node.wait_idle();
    node.stop();
    let cdrs = node.cdrs();
    assert_eq!(cdrs.len(), 3);
    for cdr in &cdrs {
        let seconds = cdr["duration_ms"].as_u64().expect("a duration") as f64 / 1e3;
        assert!((1.1..2.5).contains(&seconds), "{cdr}");
        assert_eq!(cdr["duration_ms"], end_less_start(cdr), "{cdr}");
    }
    let store = node.store.display().to_string();
    let output = ringtoll_with(&["cdr", "list", "--store", &store]);
    assert!(output.status.success());
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    let heads: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(
        heads,
        [
            "KIND",
            "METHOD",
            "STATUS",
            "RECORDS",
            "SECONDS",
            "CAUSE",
            "CALLING",
            "CALLED",
            "SESSION-ID"
        ]
    );
    for (line, cdr) in lines[1..].iter().zip(&cdrs) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            fields[..4],
            ["session", "INVITE", "complete", "2"],
            "{table}"
        );
        assert_eq!(fields[5], "0", "{table}");
        assert_eq!(fields[8], cdr["session_id"], "{table}");
    }
    let nowhere = ringtoll_with(&["cdr", "list", "--store", "nowhere.sqlite"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("nowhere.sqlite"));
}

fn end_less_start(cdr: &Value) -> u64 {
    let time = |key: &str| cdr[key].as_u64().expect("a time");
    time("end_time_ms") - time("start_time_ms")
}

/// What is written, the key named, a word of the reason, a word of the fix.
const BAD_FILES: [(&str, &str, &str, &str); 46] = [
    ("[node\nname = 1\n", "line 1", "", "valid TOML"),
    (
        "[node]\nname = \"a\"\nname = \"b\"\n",
        "line 3",
        "duplicate",
        "valid TOML",
    ),
    (
        "[node]\nnmae = \"a\"\n",
        "node.nmae",
        "unknown field",
        "ringtoll.example.toml",
    ),
    (
        "[charging.ro]\nenabled = true\n",
        "charging.ro",
        "unknown field",
        "ringtoll.example.toml",
    ),
    (
        "[node]\ncores = \"all\"\n",
        "node.cores",
        "invalid type",
        "types",
    ),
    ("[sip]\nt1_ms = -1\n", "sip.t1_ms", "invalid value", "types"),
    ("[node]\ncores = [0, 1, 0]\n", "node.cores", "twice", "once"),
    ("[node]\nname = \"a b\"\n", "node.name", "a b", "letters"),
    (
        "[node]\nring_old_mib = 1\n",
        "node.ring_old_mib",
        "1 MiB",
        "4 to",
    ),
    ("[sip]\nlisten = []\n", "sip.listen", "0 addresses", "udp:"),
    (
        "[sip]\nlisten = [\"tcp:127.0.0.1:5060\"]\n",
        "sip.listen[0]",
        "transport",
        "udp:HOST:PORT",
    ),
    (
        "[sip]\nlisten = [\"udp:127.0.0.1\"]\n",
        "sip.listen[0]",
        "no port",
        "HOST:PORT",
    ),
    (
        "[sip]\nlisten = [\"udp:1.2.3.4.5:5060\"]\n",
        "sip.listen[0]",
        "1.2.3.4.5",
        "HOST:PORT",
    ),
    (
        "[sip]\nlisten = [\"udp:0.0.0.0:5060\"]\n",
        "sip.advertise",
        "0.0.0.0",
        "peers reach",
    ),
    ("[sip]\nmin_se_s = 30\n", "sip.min_se_s", "RFC 4028", "90"),
    (
        "[[sip.peer]]\nname = \"p\"\nallow = [\"10.0.0.0/40\"]\n",
        "sip.peer[0].allow[0]",
        "10.0.0.0/40",
        "192.0.2.0/24",
    ),
    (
        "[[sip.route]]\nmatch = { peer = \"x\" }\nnext_hop = \"127.0.0.1:1\"\n",
        "sip.route[0].match.peer",
        "`x`",
        "[[sip.peer]]",
    ),
    (
        "[[sip.route]]\nmatch = \"*\"\nnext_hop = []\n",
        "sip.route[0].next_hop",
        "0 next hops",
        "1 to",
    ),
    (
        "[charging.rf]\ncdf = [\"127.0.0.1\"]\n",
        "charging.rf.cdf[0]",
        "no port",
        "127.0.0.1:3868",
    ),
    (
        "[sip]\nlisten = [\"udp:127.0.0.1:5060\", \"udp:127.0.0.1:5060\"]\n",
        "sip.listen[1]",
        "twice",
        "once",
    ),
    (
        "[sip]\nping_interval_s = 1\n",
        "sip.ping_interval_s",
        "1 is out of range",
        "0 (off) or 2 to 3600",
    ),
    (
        "[sip]\nprobe_interval_s = 3\n",
        "sip.probe_interval_s",
        "3 is out of range",
        "0 (off) or 10 to 86400",
    ),
    (
        "[charging.rf]\ncdf = [\"127.0.0.1:3868\", \"127.0.0.1:3868\"]\n",
        "charging.rf.cdf[1]",
        "twice",
        "once",
    ),
    (
        "[charging.rf]\norigin_realm = \"a b\"\n",
        "charging.rf.origin_realm",
        "a b",
        "domain",
    ),
    (
        "[charging.rf]\nrealtime = \"maybe\"\n",
        "charging.rf.realtime",
        "maybe",
        "grant-and-store",
    ),
    (
        "[charging.rf]\nwatchdog_s = 1\n",
        "charging.rf.watchdog_s",
        "RFC 3539",
        "6 or more",
    ),
    (
        "[charging.rf.triggers]\nevent_on_rain = true\n",
        "charging.rf.triggers.event_on_rain",
        "no such occurrence",
        "event_on_cancel",
    ),
    (
        "[charging.rf]\nlate_offer = \"later\"\n",
        "charging.rf.late_offer",
        "`later`",
        "start-at-ack",
    ),
    (
        "[charging.rf]\nstop_hold_ms = 600001\n",
        "charging.rf.stop_hold_ms",
        "600001 ms",
        "0 to 600000",
    ),
    (
        "[charging.rf]\nservice_context_id = \"a b\"\n",
        "charging.rf.service_context_id",
        "`a b`",
        "17.32260@3gpp.org",
    ),
    (
        "[charging.rf]\ndestination_host = \"\"\n",
        "charging.rf.destination_host",
        "host name",
        "domain name",
    ),
    (
        "[charging.rf]\nrecord_sdp = \"no\"\n",
        "charging.rf.record_sdp",
        "invalid type",
        "types",
    ),
    (
        "[[charging.class]]\nenabled = true\n",
        "charging.class[0]",
        "missing field `name`",
        "types",
    ),
    (
        "[[charging.class]]\nname = \"a b\"\n",
        "charging.class[0].name",
        "`a b`",
        "1 to 63",
    ),
    (
        "[[charging.class]]\nname = \"default\"\n",
        "charging.class[0].name",
        "already",
        "[charging.rf]",
    ),
    (
        "[[charging.class]]\nname = \"a\"\n[[charging.class]]\nname = \"a\"\n",
        "charging.class[1].name",
        "already",
        "once",
    ),
    (
        "[[charging.class]]\nname = \"a\"\ncdf = []\n",
        "charging.class[0].cdf",
        "unknown field",
        "ringtoll.example.toml",
    ),
    (
        "[[charging.class]]\nname = \"a\"\nmode = \"sync\"\n",
        "charging.class[0].mode",
        "`sync`",
        "semi-sync",
    ),
    (
        "[[charging.class]]\nname = \"a\"\nrealtime = \"maybe\"\n",
        "charging.class[0].realtime",
        "`maybe`",
        "grant-and-store",
    ),
    (
        "[[charging.class]]\nname = \"a\"\nlate_offer = \"x\"\n",
        "charging.class[0].late_offer",
        "`x`",
        "start-at-answer",
    ),
    (
        "[[charging.class]]\nname = \"a\"\ndestination_realm = \"a b\"\n",
        "charging.class[0].destination_realm",
        "`a b`",
        "domain name",
    ),
    (
        "[[charging.class]]\nname = \"a\"\nomit_avps = [\"Event-Type\"]\n",
        "charging.class[0].omit_avps[0]",
        "Event-Type",
        "From-Address",
    ),
    (
        "[[charging.class]]\nname = \"a\"\ntriggers = { event_on_rain = true }\n",
        "charging.class[0].triggers.event_on_rain",
        "no such occurrence",
        "event_on_cancel",
    ),
    (
        "[[sip.route]]\nmatch = \"*\"\nnext_hop = \"127.0.0.1\"\ncharging_class = \"x\"\n",
        "sip.route[0].charging_class",
        "no class `x`",
        "[[charging.class]]",
    ),
    (
        "[[sip.peer]]\nname = \"p\"\nallow = []\ncharging_class = \"x\"\n",
        "sip.peer[0].charging_class",
        "no class `x`",
        "[[charging.class]]",
    ),
    (
        "[admin]\nlisten = \"9060\"\n",
        "admin.listen",
        "no port",
        "HOST:PORT",
    ),
];

#[test]
fn drain_ends_a_running_node_in_order_and_says_who_does_not_answer() {
    let mut node = NodeProcess::start(free_udp(), "");
    let admin = node.admin.to_string();
    let output = ringtoll_with(&["drain", "--admin", &admin]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("the node has ended"), "{said}");
    let ended = node.wait(Duration::from_secs(10)).expect("it ended");
    assert_eq!(ended.code(), Some(0), "{}", node.log());
    let log = node.log();
    assert!(
        log.contains("INFO") && !log.contains('\u{1b}'),
        "no colours: {log:?}"
    );
    let output = ringtoll_with(&["drain", "--admin", &admin]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&admin) && said.contains("fix:"), "{said}");
}

fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("Linux");
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16)
        .expect("hexadecimal")
        .to_be_bytes()
}

// With fewer cores than before, the calls of the shards that are gone would just be lost.
#[test]
fn a_ring_with_calls_and_without_a_shard_is_not_passed_over() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let (state, data) = (dir.path().join("state"), dir.path().join("data"));
    let config = replication::RingConfig {
        node: 1,
        shard: 1,
        boot_id: boot_id(),
        ..replication::RingConfig::default()
    };
    let (mut ring, _) = replication::Ring::open_files(&state, &config).expect("a ring");
    let id = ring.next_id();
    ring.put(id, 1, 1, &[1; 100]).expect("there is room");
    ring.close();
    let text = format!(
        "[node]\nstate_dir = \"{}\"\ndata_dir = \"{}\"\nring_young_mib = 4\nring_old_mib = 4\n\
         drain_timeout_s = 1\n[sip]\nlisten = [\"udp:{}\"]\n[charging.rf]\nenabled = false\n\
         [admin]\nlisten = \"{}\"\n",
        state.display(),
        data.display(),
        free_udp(),
        free_tcp()
    );
    let (status, said) = check(dir.path(), &text);
    assert_eq!(status, Some(2), "{said}");
    for what in ["1.young", "key `node.cores`", "1 calls", "name 2 cores"] {
        assert!(said.contains(what), "{what}: {said}");
    }
    let file = dir.path().join("node.toml").display().to_string();
    let run = ringtoll_with(&["run", "--config", &file]);
    assert!(!run.status.success());
    assert!(String::from_utf8_lossy(&run.stderr).contains("key `node.cores`"));

    let (mut ring, _) = replication::Ring::open_files(&state, &config).expect("a ring");
    ring.retire(id).expect("it is held");
    ring.close();
    let (status, said) = check(dir.path(), &text);
    assert_eq!(status, Some(0), "{said}");
    let log = dir.path().join("log");
    let mut command = Command::new(ringtoll());
    command.args(["run", "--config", &file]);
    let _node = Running::start(&mut command, &log);
    let is_gone = || !state.join("1/1.young").exists() && state.join("1/0.young").exists();
    assert!(wait_until(Duration::from_secs(10), is_gone));
}
