//! Nodes and CDFs that are killed under load: every answered call is billed exactly once.
//!
//! `RINGTOLL_KILL_SECONDS` lengthens the load, 20 s by default.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tests::by_hand::{Established, Phone};
use tests::process::{
    CdfProcess, NodeProcess, Running, Sipp, free_udp, is_installed, record_types, wait_until,
};

const RATE: u32 = 100;
const HOLD_MS: u32 = 3_000;

fn seconds() -> u32 {
    std::env::var("RINGTOLL_KILL_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20)
}

/// What a CDF says when a number of a session comes with two contents.
const CONFLICT: &str = "a record came again with other contents";

/// Calls that sipp makes through a node while the test does something else.
struct Load {
    caller: Running,
    _callee: Running,
    notes: PathBuf,
}

impl Load {
    fn start(node: &NodeProcess, callee: SocketAddr, scenario: &str, calls: u32) -> Self {
        let sipp = Sipp {
            scenario: (scenario, "survivor_uas"),
            calls,
            rate: RATE,
            hold_ms: HOLD_MS,
            limit: Duration::from_secs(1),
        };
        let file = |name: &str| node.dir.path().join(name);
        let notes = file("notes.txt");
        let path = notes.display().to_string();
        let errors = file("callee.err").display().to_string();
        let traced = ["-trace_err", "-error_file", &errors];
        let callee = sipp.callee_with(callee, &file("callee.log"), &traced);
        let noted = ["-trace_logs", "-log_file", &path];
        let caller = sipp.caller_with(node, &file("caller.log"), &noted);
        Self {
            caller,
            _callee: callee,
            notes,
        }
    }

    /// Waits for the last call. Whether every call went by its scenario is for the notes to say.
    fn finish(&mut self, node: &NodeProcess) -> Notes {
        let limit = Duration::from_secs(u64::from(seconds()) + 120);
        assert!(
            self.caller.wait(limit).is_some(),
            "sipp must end: {}",
            node.log()
        );
        Notes::read(&self.notes)
    }
}

/// What became of each call, by its number, as the caller saw it.
#[derive(Default)]
struct Notes(BTreeMap<String, BTreeSet<u32>>);

impl Notes {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut notes = Self::default();
        for line in text.lines() {
            let (what, number) = line.split_once(' ').expect("a word and a number");
            let number = number.trim().parse().expect("a call's number");
            notes.0.entry(what.to_owned()).or_default().insert(number);
        }
        notes
    }

    fn of(&self, what: &str) -> BTreeSet<u32> {
        self.0.get(what).cloned().unwrap_or_default()
    }

    fn count(&self, what: &str) -> usize {
        self.of(what).len()
    }
}

/// CDRs by the number of their call.
fn by_call(cdrs: &[Value]) -> BTreeMap<u32, Vec<&Value>> {
    let mut calls: BTreeMap<u32, Vec<&Value>> = BTreeMap::new();
    for cdr in cdrs {
        let calling = cdr["calling_party"].as_str().expect("a calling party");
        let number = calling
            .strip_prefix("sip:+4940")
            .and_then(|rest| rest.split('@').next());
        // A probe whether new calls are refused may get through and has no number.
        let Some(number) = number.and_then(|digits| digits.parse().ok()) else {
            continue;
        };
        calls.entry(number).or_default().push(cdr);
    }
    calls
}

/// Asserts that the CDRs are those of the calls: each answered call one complete session with
/// one START and one STOP, and nothing else but EVENTs of set-ups that the kill cut off.
fn assert_billed_once(notes: &Notes, cdrs: &[Value]) {
    let calls = by_call(cdrs);
    for number in notes.of("answered") {
        let own = calls.get(&number).map_or(&[][..], Vec::as_slice);
        let sessions: Vec<_> = own.iter().filter(|cdr| cdr["kind"] == "session").collect();
        assert_eq!(sessions.len(), 1, "call {number} is billed once: {own:?}");
        let types = record_types(sessions[0]);
        let rest = types
            .strip_prefix("START ")
            .and_then(|rest| rest.strip_suffix("STOP"));
        let rest = rest.unwrap_or_else(|| panic!("call {number} made {types}"));
        assert!(
            rest.split_whitespace().all(|word| word == "INTERIM"),
            "{number}: {types}"
        );
        assert_eq!(sessions[0]["status"], "complete", "{}", sessions[0]);
        assert_eq!(sessions[0]["cause_code"], 0, "{}", sessions[0]);
    }
    let answered = notes.of("answered");
    for (number, cdrs) in calls {
        let ghosts = cdrs.iter().filter(|cdr| cdr["kind"] == "session").count();
        assert!(
            ghosts == 0 || answered.contains(&number),
            "call {number} was never answered: {cdrs:?}"
        );
    }
}

fn charging_to(cdfs: &[&CdfProcess]) -> String {
    let list: Vec<String> = cdfs
        .iter()
        .map(|cdf| format!("\"{}\"", cdf.address))
        .collect();
    format!(
        "[charging.rf]\ncdf = [{}]\nretry_interval_ms = 500\nretries_max = 1\nwatchdog_s = 6\n",
        list.join(", ")
    )
}

/// Waits until every record that was produced is with a CDF.
fn wait_delivered(node: &NodeProcess) {
    let done = wait_until(Duration::from_secs(60), || {
        let metrics = node.metrics();
        metrics["ringtoll_calls"] == 0.0 && metrics["ringtoll_backlog_records"] == 0.0
    });
    assert!(
        done,
        "every record must reach the CDF: {:?}\n{}",
        node.metrics(),
        node.log()
    );
    assert_eq!(node.metrics()["ringtoll_acr_lost_total"], 0.0);
}

// In the moment of a kill a few set-ups are between 180 and 200: nothing was answered, nothing is
// billed, and the caller gives up. At 100 calls a second and 20 ms of ringing that is two.
const CUT_OFF_MAX: usize = 10;

#[test]
fn no_record_is_lost_when_the_cdf_is_away_and_the_node_is_killed() {
    if !is_installed("sipp") {
        return;
    }
    let callee = free_udp();
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let mut cdf = CdfProcess::new(dir.path(), "cdf");
    let mut node = NodeProcess::start(callee, &charging_to(&[&cdf]));
    let mut load = Load::start(&node, callee, "patient_uac", seconds() * RATE);
    std::thread::sleep(Duration::from_secs(u64::from(seconds()) / 2));
    node.kill();
    node.restart();
    let resumed = node.metrics()["ringtoll_call_resumed_total"];
    let notes = load.finish(&node);
    // The last records go into the backlog, too.
    std::thread::sleep(Duration::from_secs(3));
    let waiting = node.metrics()["ringtoll_backlog_records"];
    assert!(waiting > 0.0, "the records wait for the CDF");
    assert!(cdf.cdrs().is_empty());
    cdf.start();
    wait_delivered(&node);
    node.stop();
    let cdrs = cdf.cdrs();
    println!(
        "CDF away, node killed: {} answered, {} ended, {} gone, {} cut off in set-up; {resumed} \
         calls resumed, {waiting} records waited, {} CDRs",
        notes.count("answered"),
        notes.count("ended"),
        notes.count("gone"),
        notes.count("lost"),
        cdrs.len()
    );
    assert_billed_once(&notes, &cdrs);
    assert!(
        !cdf.log().contains(CONFLICT),
        "no number has two contents: {}",
        cdf.log()
    );
    assert!(
        resumed > f64::from(RATE),
        "calls were up at the kill: {resumed}"
    );
    assert!(notes.count("answered") + CUT_OFF_MAX >= (seconds() * RATE) as usize);
    let left = notes.count("answered") - notes.count("ended") - notes.count("gone");
    assert_eq!(left, 0, "every answered call could be ended by its caller");
    durations_are_right(&cdrs);
}

// From 200 to BYE, ring time apart; a BYE that met no node came again half a second later.
fn durations_are_right(cdrs: &[Value]) {
    for cdr in cdrs.iter().filter(|cdr| cdr["kind"] == "session") {
        let milliseconds = cdr["duration_ms"]
            .as_u64()
            .expect("a complete session has a duration");
        let expected = u64::from(HOLD_MS) - 100..u64::from(HOLD_MS) + 5_000;
        assert!(expected.contains(&milliseconds), "{cdr}");
    }
}

#[test]
fn calls_go_on_after_the_node_was_killed_and_are_billed_once() {
    if !is_installed("sipp") {
        return;
    }
    let callee = free_udp();
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let mut cdf = CdfProcess::new(dir.path(), "cdf");
    cdf.start();
    let mut node = NodeProcess::start(callee, &charging_to(&[&cdf]));
    let mut load = Load::start(&node, callee, "survivor_uac", seconds() * RATE / 2);
    std::thread::sleep(Duration::from_secs(u64::from(seconds()) / 4));
    node.kill();
    node.restart();
    let resumed = node.metrics()["ringtoll_call_resumed_total"];
    let notes = load.finish(&node);
    wait_delivered(&node);
    node.stop();
    let cdrs = cdf.cdrs();
    let again = cdrs
        .iter()
        .filter(|cdr| record_types(cdr) == "START INTERIM INTERIM STOP")
        .count();
    let marked = cdrs
        .iter()
        .filter(|cdr| cdr["retransmission"] == true)
        .count();
    println!(
        "node killed: {} answered, {} re-INVITEd, {} ended, {} gone, {} cut off; {resumed} calls \
         resumed, {again} re-INVITEs repeated over the kill, {marked} CDRs with a repeated record",
        notes.count("answered"),
        notes.count("changed"),
        notes.count("ended"),
        notes.count("gone"),
        notes.count("lost")
    );
    assert_billed_once(&notes, &cdrs);
    assert!(
        !cdf.log().contains(CONFLICT),
        "no number has two contents: {}",
        cdf.log()
    );
    assert!(
        resumed > f64::from(RATE),
        "calls were up at the kill: {resumed}"
    );
    assert!(notes.count("answered") + CUT_OFF_MAX >= (seconds() * RATE / 2) as usize);
    let calls = by_call(&cdrs);
    for number in notes.of("answered") {
        assert!(
            notes.of("changed").contains(&number),
            "call {number}: re-INVITE failed"
        );
        let types = record_types(
            calls[&number]
                .iter()
                .find(|c| c["kind"] == "session")
                .expect("billed"),
        );
        assert!(types.starts_with("START INTERIM"), "{number}: {types}");
    }
    assert!(again <= CUT_OFF_MAX);
    let ended = notes.count("ended") + notes.count("gone");
    assert_eq!(ended, notes.count("answered"), "every BYE was answered");
}

fn invite(node: SocketAddr, caller: &UdpSocket, name: &str) -> String {
    let own = caller.local_addr().expect("a bound socket has an address");
    format!(
        "INVITE sip:+49301@{node} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{name}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:+494099@{own}>;tag=n\r\nTo: <sip:+49301@{node}>\r\n\
         Call-ID: {name}@{own}\r\nCSeq: 1 INVITE\r\nContact: <sip:{own}>\r\nContent-Length: 0\r\n\r\n"
    )
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has free ports");
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("a socket takes a timeout");
    socket
}

fn receive(socket: &UdpSocket) -> Option<String> {
    let mut buffer = [0; 65_535];
    let length = socket.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Sends an INVITE of its own and returns the status of the final response.
fn status_of_new_call(node: SocketAddr) -> Option<u16> {
    let caller = socket();
    caller
        .send_to(invite(node, &caller, "new").as_bytes(), node)
        .expect("it is sent");
    loop {
        let status: u16 = receive(&caller)?.split(' ').nth(1)?.parse().ok()?;
        if status >= 200 {
            return Some(status);
        }
    }
}

/// The response of a callee to a request, with what the request dictates.
fn response(request: &str, status: &str, own: SocketAddr) -> String {
    let copied = ["Via", "From", "Call-ID", "CSeq"].map(|name| {
        let is_it = |line: &&str| line.starts_with(&format!("{name}:"));
        request
            .split("\r\n")
            .find(is_it)
            .expect("a header every request has")
            .to_owned()
    });
    let to = request
        .split("\r\n")
        .find(|line| line.starts_with("To:"))
        .expect("a To");
    format!(
        "SIP/2.0 {status}\r\n{}\r\n{to};tag=callee\r\nContact: <sip:{own}>\r\n\
         Content-Length: 0\r\n\r\n",
        copied.join("\r\n")
    )
}

#[test]
fn a_late_answer_to_a_call_of_the_killed_process_meets_no_call_of_the_next() {
    let (caller, callee) = (socket(), socket());
    let callee_address = callee.local_addr().expect("a bound socket has an address");
    let mut node = NodeProcess::start(callee_address, "");
    let forwarded = |name: &str, node: &NodeProcess| {
        caller
            .send_to(invite(node.sip, &caller, name).as_bytes(), node.sip)
            .expect("it is sent");
        receive(&callee).expect("the INVITE is forwarded")
    };
    let first = forwarded("first", &node);
    node.kill();
    node.restart();
    let second = forwarded("second", &node);
    let number = |invite: &str| {
        let branch = invite
            .split("branch=")
            .nth(1)
            .and_then(|rest| rest.split(';').next());
        branch
            .and_then(|branch| branch.split('.').nth(1))
            .expect("a branch")
            .to_owned()
    };
    assert_ne!(
        number(&first),
        number(&second),
        "each is the first of its process, and is named as that of no other"
    );
    let late = response(&first, "200 OK", callee_address);
    callee
        .send_to(late.as_bytes(), node.sip)
        .expect("it is sent");
    let counted = wait_until(Duration::from_secs(20), || {
        node.metrics()["ringtoll_sip_response_stray_total"] == 1.0
    });
    assert!(counted, "it is a stray: {:?}", node.metrics());
    assert_eq!(node.metrics()["ringtoll_call_answered_total"], 0.0);
    let busy = response(&second, "486 Busy Here", callee_address);
    callee
        .send_to(busy.as_bytes(), node.sip)
        .expect("it is sent");
    let failed = wait_until(Duration::from_secs(20), || {
        node.metrics()["ringtoll_call_failed_total"] == 1.0
    });
    assert!(
        failed,
        "the second call gets its own answer: {:?}",
        node.metrics()
    );
}

#[test]
fn a_node_that_is_told_to_end_refuses_new_calls_and_serves_the_running_ones() {
    if !is_installed("sipp") {
        return;
    }
    let callee = free_udp();
    let mut node = NodeProcess::start(callee, "");
    let mut load = Load::start(&node, callee, "patient_uac", RATE);
    let all_up = wait_until(Duration::from_secs(20), || {
        node.metrics()["ringtoll_call_answered_total"] == f64::from(RATE)
    });
    assert!(all_up, "{:?}", node.metrics());
    node.drain();
    let refuses = wait_until(Duration::from_secs(20), || {
        status_of_new_call(node.sip) == Some(503)
    });
    assert!(refuses, "a new call gets 503: {}", node.log());
    assert_eq!(
        node.get("/readyz").map(|(status, _)| status),
        Some(503),
        "nobody sends it calls"
    );
    let notes = load.finish(&node);
    assert_eq!(
        notes.count("ended"),
        RATE as usize,
        "every running call ends as it would have"
    );
    let status = node
        .wait(Duration::from_secs(20))
        .expect("the node ends with its last call");
    assert!(status.success(), "{}", node.log());
    let cdrs = node.cdrs();
    assert_billed_once(&notes, &cdrs);
    let sessions = cdrs.iter().filter(|cdr| cdr["kind"] == "session").count();
    assert_eq!(sessions, RATE as usize);
    println!("drained: {sessions} calls ended and billed, new ones refused with 503");
}

#[test]
fn a_cdf_may_be_killed_and_come_back() {
    if !is_installed("sipp") {
        return;
    }
    let callee = free_udp();
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let mut cdf = CdfProcess::new(dir.path(), "cdf");
    cdf.start();
    let mut node = NodeProcess::start(callee, &charging_to(&[&cdf]));
    let calls = seconds() * RATE / 2;
    let mut load = Load::start(&node, callee, "patient_uac", calls);
    std::thread::sleep(Duration::from_secs(u64::from(seconds()) / 4));
    cdf.kill();
    std::thread::sleep(Duration::from_secs(2));
    cdf.start();
    let notes = load.finish(&node);
    wait_delivered(&node);
    let stored = node.metrics()["ringtoll_acr_stored_total"];
    node.stop();
    let cdrs = cdf.cdrs();
    let marked = cdrs
        .iter()
        .filter(|cdr| cdr["retransmission"] == true)
        .count();
    println!(
        "CDF killed for 2 s: {} calls, {} CDRs, {stored} records stored, {marked} CDRs with a \
         repeated record",
        notes.count("ended"),
        cdrs.len()
    );
    assert_eq!(notes.count("ended"), calls as usize, "no call notices");
    assert_billed_once(&notes, &cdrs);
    assert_eq!(cdrs.len(), calls as usize);
    assert!(
        !cdf.log().contains(CONFLICT),
        "no number has two contents: {}",
        cdf.log()
    );
}

#[test]
fn the_secondary_takes_over_from_a_killed_primary() {
    if !is_installed("sipp") {
        return;
    }
    let callee = free_udp();
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let mut primary = CdfProcess::new(dir.path(), "primary");
    let mut secondary = CdfProcess::new(dir.path(), "secondary");
    primary.start();
    secondary.start();
    let mut node = NodeProcess::start(callee, &charging_to(&[&primary, &secondary]));
    let calls = seconds() * RATE / 2;
    // Who is connected first gets the first records.
    let connected = || node.metrics()["ringtoll_cdf_reachable"] == 2.0;
    assert!(wait_until(Duration::from_secs(20), connected));
    let mut load = Load::start(&node, callee, "patient_uac", calls);
    std::thread::sleep(Duration::from_secs(u64::from(seconds()) / 4));
    assert!(
        secondary.cdrs().is_empty(),
        "while the primary serves, it serves alone"
    );
    primary.kill();
    let notes = load.finish(&node);
    wait_delivered(&node);
    node.stop();
    assert_eq!(notes.count("ended"), calls as usize, "no call notices");

    let (first, second) = (records(&primary.cdrs()), records(&secondary.cdrs()));
    let both: Vec<_> = first
        .keys()
        .filter(|key| second.contains_key(*key))
        .collect();
    for key in &both {
        assert_eq!(
            first[*key].0, second[*key].0,
            "one number, one type: {key:?}"
        );
        assert!(
            second[*key].1,
            "what the primary may have got comes with the T flag: {key:?}"
        );
    }
    let mut sessions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let union: BTreeMap<_, _> = first.iter().chain(&second).collect();
    for ((session, _), (kind, _)) in union {
        sessions.entry(session).or_default().push(kind);
    }
    assert_eq!(sessions.len(), calls as usize);
    for (session, types) in &sessions {
        assert_eq!(types[..], ["START", "STOP"], "{session}");
    }
    let split = sessions.keys().filter(|session| {
        first.contains_key(&((**session).to_owned(), 0))
            && second.contains_key(&((**session).to_owned(), 1))
    });
    let split = split.count();
    println!(
        "failover: {} records at the primary, {} at the secondary, {} at both; {split} sessions \
         began here and ended there",
        first.len(),
        second.len(),
        both.len()
    );
    assert!(
        split > RATE as usize,
        "calls that began at the primary end at the secondary"
    );
}

/// Type and T flag of every record, by session and number.
fn records(cdrs: &[Value]) -> BTreeMap<(String, u64), (String, bool)> {
    let mut all = BTreeMap::new();
    for cdr in cdrs {
        let session = cdr["session_id"].as_str().expect("a Session-Id").to_owned();
        for record in cdr["records"].as_array().expect("records") {
            let number = record["record_number"].as_u64().expect("a number");
            let kind = record["record_type"].as_str().expect("a type").to_owned();
            let marked = record["retransmitted"] == true;
            all.insert((session.clone(), number), (kind, marked));
        }
    }
    all
}

#[test]
fn an_answer_whose_ack_has_not_come_is_sent_on_by_the_next_process() {
    let (caller, callee) = (Phone::at("127.0.0.1"), Phone::at("127.0.0.1"));
    let mut node = NodeProcess::start(callee.address(), "");
    let invite = caller.invite(node.sip, "+49301", "unacknowledged");
    let reached = callee.request("INVITE");
    callee.answer(node.sip, &reached, "200 OK", "");
    let is_answer = |text: &str| text.starts_with("SIP/2.0 200");
    let first = caller.receive(is_answer);
    node.kill();
    let at_once = Duration::from_millis(1);
    while caller.receive_within(at_once, is_answer).is_some() {}
    node.restart();
    let again = caller.receive(is_answer);
    assert_eq!(again, first, "the same answer, without the callee's help");
    let repeated = caller.receive(is_answer);
    assert_eq!(repeated, first, "until the ACK comes");
    let established = Established::of(invite, first);
    caller.send(node.sip, &established.request("ACK", 1));
    callee.request("ACK");
    established.hang_up(&caller, &callee, node.sip);
    let metrics = node.metrics();
    assert_eq!(metrics["ringtoll_call_resumed_total"], 1.0);
    assert_eq!(metrics["ringtoll_call_ack_missing_total"], 0.0);
}
