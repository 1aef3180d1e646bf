//! A running node against everything that anybody wrote down as a hard SIP message, and against
//! datagrams that mean harm.
//!
//! The torture messages are read where they lie, as in `torture.rs`; every file is sent from an
//! address of its own in 127.0.0.0/8 and from the port its Via names, so that the answer finds it.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dataplane::sip::{self, HeaderId, Index, Via};
use tests::process::{NodeProcess, skip, wait_until};

/// A message, the socket it is sent from, and the statuses that came back.
struct Case {
    name: String,
    class: String,
    section: String,
    raw: Vec<u8>,
    socket: UdpSocket,
    statuses: Vec<u16>,
}

impl Case {
    fn is_response(&self) -> bool {
        self.raw.starts_with(b"SIP/2.0 ")
    }

    fn last(&self) -> Option<u16> {
        self.statuses.last().copied()
    }
}

fn directory(name: &str) -> Option<PathBuf> {
    let root = match std::env::var_os("RINGTOLL_TORTURE") {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/torture"),
    };
    let directory = root.join(name);
    if directory.join("manifest.tsv").is_file() {
        return Some(directory);
    }
    skip(&format!("the torture messages of {name} are not there"));
    None
}

fn port_of(raw: &[u8]) -> u16 {
    let mut index = Index::new();
    let message = match sip::parse(raw, &mut index) {
        Ok(message) => Some(message),
        Err(_) => sip::salvage(raw, &index),
    };
    let via = message
        .as_ref()
        .and_then(|message| message.values(HeaderId::Via).next());
    let port = via
        .and_then(|via| Via::parse(via).ok())
        .and_then(|via| via.port);
    port.unwrap_or(5060)
}

fn case(number: usize, name: &str, section: &str, class: &str, raw: Vec<u8>) -> Case {
    let own = Ipv4Addr::new(127, 77, (number / 250) as u8, (number % 250 + 1) as u8);
    let socket = UdpSocket::bind((own, port_of(&raw)))
        .or_else(|_| UdpSocket::bind((own, 0)))
        .expect("loopback has many addresses");
    socket
        .set_nonblocking(true)
        .expect("a socket need not block");
    Case {
        name: name.to_owned(),
        class: class.to_owned(),
        section: section.to_owned(),
        raw,
        socket,
        statuses: Vec::new(),
    }
}

fn all_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for set in ["rfc4475", "rfc5118", "samples"] {
        let Some(directory) = directory(set) else {
            continue;
        };
        let manifest = std::fs::read_to_string(directory.join("manifest.tsv")).expect("a manifest");
        for line in manifest.lines().skip(1).filter(|line| !line.is_empty()) {
            let fields: Vec<&str> = line.split('\t').collect();
            let raw = std::fs::read(directory.join(fields[0])).expect("a file the manifest names");
            let (section, class) = if set == "samples" {
                (set, "")
            } else {
                (fields[1], fields[2])
            };
            cases.push(case(cases.len(), fields[0], section, class, raw));
        }
    }
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/sip");
    let mut files: Vec<PathBuf> = std::fs::read_dir(corpus)
        .expect("the corpus is part of the project")
        .map(|entry| entry.expect("a readable directory").path())
        .collect();
    files.sort();
    for file in files {
        let raw = std::fs::read(&file).expect("a readable file");
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        cases.push(case(cases.len(), &name, "corpus", "", raw));
    }
    cases
}

fn status_of(datagram: &[u8]) -> Option<u16> {
    let rest = datagram.strip_prefix(b"SIP/2.0 ")?;
    std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()
}

fn collect(cases: &mut [Case], time: Duration) {
    let mut buffer = vec![0; 65_535];
    let until = Instant::now() + time;
    while Instant::now() < until {
        for case in cases.iter_mut() {
            while let Ok(length) = case.socket.recv(&mut buffer) {
                // The node's own requests do not count: the OPTIONS probes of what it set up.
                let Some(status) = status_of(&buffer[..length]) else {
                    continue;
                };
                if case.last() != Some(status) {
                    case.statuses.push(status);
                }
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Which messages may be sent at the same time: many of them share a branch or a Call-ID, and
/// what is sent while the other's transaction lives is a retransmission to the node.
fn waves(cases: &[Case]) -> Vec<usize> {
    let mut taken: Vec<HashSet<Vec<u8>>> = vec![HashSet::new(); WAVES_MAX];
    let mut waves = Vec::new();
    for case in cases {
        let keys = keys(&case.raw);
        let free = taken
            .iter()
            .position(|taken| keys.iter().all(|key| !taken.contains(key)));
        let wave = free.unwrap_or(WAVES_MAX - 1);
        taken[wave].extend(keys);
        waves.push(wave);
    }
    waves
}

fn keys(raw: &[u8]) -> Vec<Vec<u8>> {
    let mut index = Index::new();
    let message = match sip::parse(raw, &mut index) {
        Ok(message) => Some(message),
        Err(_) => sip::salvage(raw, &index),
    };
    let Some(message) = message else {
        return Vec::new();
    };
    let via = message
        .values(HeaderId::Via)
        .next()
        .and_then(|via| Via::parse(via).ok());
    let branch = via.and_then(|via| via.branch).map(<[u8]>::to_vec);
    [Some(message.call_id().to_vec()), branch]
        .into_iter()
        .flatten()
        .collect()
}

/// A node whose callee never answers, with a T1 of 5 ms so that every timer runs out soon.
fn node() -> (NodeProcess, UdpSocket) {
    let callee = UdpSocket::bind("127.0.0.1:0").expect("loopback has free ports");
    let address = callee.local_addr().expect("a bound socket has an address");
    (
        NodeProcess::start_with(address, "t1_ms = 5\nt2_ms = 25\nt4_ms = 25\n", ""),
        callee,
    )
}

fn answers_options(node: &NodeProcess) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has free ports");
    let own = socket.local_addr().expect("a bound socket has an address");
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .expect("a socket takes a timeout");
    let options = format!(
        "OPTIONS sip:{} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{}\r\nMax-Forwards: 70\r\n\
         From: <sip:probe@{own}>;tag=1\r\nTo: <sip:{}>\r\nCall-ID: probe@{own}\r\n\
         CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
        node.sip,
        own.port(),
        node.sip
    );
    let mut buffer = [0; 65_535];
    (0..6).any(|_| {
        socket
            .send_to(options.as_bytes(), node.sip)
            .expect("loopback takes datagrams");
        socket
            .recv(&mut buffer)
            .is_ok_and(|length| status_of(&buffer[..length]) == Some(200))
    })
}

fn is_idle(node: &NodeProcess) -> bool {
    let metrics = node.metrics();
    metrics["ringtoll_calls"] == 0.0 && metrics["ringtoll_transactions"] == 0.0
}

fn is_well(node: &NodeProcess) {
    assert!(
        answers_options(node),
        "OPTIONS is answered 200:\n{}",
        node.log()
    );
    assert_eq!(
        node.get("/readyz").map(|(status, _)| status),
        Some(200),
        "{}",
        node.log()
    );
    let left = wait_until(Duration::from_secs(60), || is_idle(node));
    assert!(
        left,
        "no call and no transaction outlives its timers: {:?}",
        node.metrics()
    );
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

#[test]
fn torture_messages_get_the_answers_of_the_rfcs_and_leave_nothing_behind() {
    let mut cases = all_cases();
    let (mut node, _callee) = node();
    let before = node.resident();
    let waves = waves(&cases);
    for wave in 0..=waves.iter().copied().max().unwrap_or(0) {
        for (case, _) in cases.iter().zip(&waves).filter(|(_, own)| **own == wave) {
            let length = case.raw.len().min(UDP_MAX);
            case.socket
                .send_to(&case.raw[..length], node.sip)
                .expect("loopback takes datagrams");
            std::thread::sleep(Duration::from_millis(5));
        }
        // Timers B, F, H and J are at 64 T1 = 320 ms: B or F, then the final answer's own. Once
        // no transaction is left, nothing more can come.
        let until = Instant::now() + Duration::from_millis(3_500);
        collect(&mut cases, Duration::from_millis(100));
        while Instant::now() < until && !is_idle(&node) {
            collect(&mut cases, Duration::from_millis(50));
        }
        collect(&mut cases, Duration::from_millis(20));
    }
    for case in &cases {
        println!(
            "{:<10}{:<12}{:<50}{:?}",
            case.section, case.class, case.name, case.statuses
        );
    }
    is_well(&node);
    let grown = node.resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more than before");
    answers_are_right(&cases);
    println!(
        "{} messages, {} KiB more resident memory",
        cases.len(),
        grown >> 10
    );
    node.stop();
}

fn answers_are_right(cases: &[Case]) {
    for case in cases.iter().filter(|case| case.is_response()) {
        assert!(
            case.statuses.is_empty(),
            "a response is not answered: {}",
            case.name
        );
    }
    let of = |section: &str| -> Vec<&Case> {
        let requests = cases.iter().filter(|case| !case.is_response());
        requests
            .filter(|case| case.section.starts_with(section))
            .collect()
    };
    let valid: Vec<_> = of("3.1.1.").into_iter().chain(of("4.")).collect();
    for case in valid.iter().filter(|case| case.class == "valid") {
        assert!(
            !case.statuses.contains(&400),
            "{} is valid: {:?}",
            case.name,
            case.statuses
        );
        let answered = case.statuses.iter().any(|status| *status >= 200);
        assert!(
            answered,
            "{} gets a final answer: {:?}",
            case.name, case.statuses
        );
    }
    let invalid = of("3.1.2.");
    // 408 only says that the callee keeps silent: the node let the message pass. It may do that
    // with a Date that it does not read (3.1.2.12).
    let is_refused = |case: &&&Case| case.last().is_none_or(|status| status != 408);
    let refused = invalid.iter().filter(is_refused).count();
    println!(
        "RFC 4475 3.1.2: {refused} of {} requests refused",
        invalid.len()
    );
    let passed: Vec<_> = invalid
        .iter()
        .filter(|case| !is_refused(case))
        .map(|c| &c.name)
        .collect();
    assert_eq!(passed, ["baddate.dat"]);
    for (name, statuses) in EXPECTED {
        for case in cases.iter().filter(|case| case.name == name) {
            let fits = case
                .last()
                .map_or(statuses.is_empty(), |last| statuses.contains(&last));
            assert!(fits, "{name}: {:?}, not one of {statuses:?}", case.statuses);
        }
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn octets(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

fn invite(number: u64, own: SocketAddr) -> Vec<u8> {
    format!(
        "INVITE sip:+4930{number}@127.0.0.1 SIP/2.0\r\n\
         Via: SIP/2.0/UDP {own};branch=z9hG4bK{number};rport\r\nMax-Forwards: 70\r\n\
         From: \"A\" <sip:+4940{number}@{own}>;tag={number}\r\nTo: <sip:+4930{number}@127.0.0.1>\r\n\
         Call-ID: {number}@{own}\r\nCSeq: 1 INVITE\r\nContact: <sip:a@{own}>\r\n\
         Supported: timer, 100rel\r\nSession-Expires: 1800\r\nRecord-Route: <sip:{own};lr>\r\n\
         P-Asserted-Identity: <sip:+4940{number}@home.example>, <tel:+4940{number}>\r\n\
         P-Charging-Vector: icid-value=i{number};orig-ioi=a.example\r\n\
         Content-Type: application/sdp\r\nContent-Length: 96\r\n\r\n\
         v=0\r\no=phone 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=audio 6000 RTP/AVP 0\r\n"
    )
    .into_bytes()
}

/// Flips, cuts, doubles, inserts and swaps, one to eight times.
fn mutate(random: &mut Random, message: &mut Vec<u8>) {
    const PIECES: [&[u8]; 12] = [
        b"\r\n",
        b"\r\n\r\n",
        b",",
        b";",
        b"\"",
        b"<",
        b">",
        b"\0",
        b"%00",
        b"@",
        b"\r\n ",
        b"4294967296",
    ];
    for _ in 0..=random.below(8) {
        let at = random.below(message.len().max(1));
        match random.below(5) {
            0 if !message.is_empty() => message[at] ^= 1 << random.below(8),
            1 => {
                let end = (at + random.below(40)).min(message.len());
                message.drain(at.min(end)..end);
            }
            2 => {
                let end = (at + random.below(200)).min(message.len());
                let piece = message[at.min(end)..end].to_vec();
                message.splice(at..at, piece);
            }
            3 => {
                let piece = PIECES[random.below(PIECES.len())];
                message.splice(at..at, piece.iter().copied());
            }
            _ => {
                let other = random.below(message.len().max(1));
                if !message.is_empty() {
                    message.swap(at, other);
                }
            }
        }
    }
}

#[test]
fn hostile_datagrams_neither_end_the_node_nor_fill_it() {
    let (mut node, _callee) = node();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has free ports");
    let own = socket.local_addr().expect("a bound socket has an address");
    socket
        .set_nonblocking(true)
        .expect("a socket need not block");
    let mut random = Random(SEED);
    let mut buffer = vec![0; 65_535];
    // The first round shows what the node needs at all, the others that it needs no more.
    let mut resident = Vec::new();
    let mut sent = 0;
    for round in 0..ROUNDS {
        for number in 0..DATAGRAMS {
            let datagram = match number % 16 {
                0 => {
                    let length = random.below(2_000);
                    random.octets(length)
                }
                1 => large(&mut random, number, own),
                _ => {
                    let mut message = invite(round * DATAGRAMS + number, own);
                    mutate(&mut random, &mut message);
                    message
                }
            };
            let length = datagram.len().min(UDP_MAX);
            sent += usize::from(socket.send_to(&datagram[..length], node.sip).is_ok());
            while socket.recv(&mut buffer).is_ok() {}
            if number % 8 == 0 {
                std::thread::sleep(Duration::from_millis(4));
            }
        }
        is_well(&node);
        resident.push(node.resident());
    }
    let metrics = node.metrics();
    println!(
        "seed {SEED:#x}: {sent} hostile datagrams, {} received, {} refused, {} dropped, {} became \
         calls; resident {} MiB after the first round, {} MiB after the last",
        metrics["ringtoll_sip_datagram_received_total"],
        metrics["ringtoll_sip_malformed_answered_total"],
        metrics["ringtoll_sip_malformed_dropped_total"],
        metrics["ringtoll_call_started_total"],
        resident[0] >> 20,
        resident[resident.len() - 1] >> 20
    );
    let grown = resident[resident.len() - 1].saturating_sub(resident[0]);
    assert!(grown < 32 << 20, "{resident:?}");
    assert!(
        metrics["ringtoll_call_started_total"] > 0.0,
        "some get through the parser"
    );
    node.stop();
}

/// As long as UDP allows: octets, one header without end, or a body without end.
fn large(random: &mut Random, number: u64, own: SocketAddr) -> Vec<u8> {
    match random.below(3) {
        0 => random.octets(UDP_MAX),
        1 => {
            let mut message = invite(number, own);
            let at = message.iter().position(|byte| *byte == b'\n').unwrap_or(0) + 1;
            let mut header = b"X-Long: ".to_vec();
            header.resize(64_000, b'a');
            header.extend_from_slice(b"\r\n");
            message.splice(at..at, header);
            message
        }
        _ => {
            let mut message = invite(number, own);
            message.resize(UDP_MAX, b'a');
            message
        }
    }
}

/// Waves at most; what collides even then is sent for its harm alone.
const WAVES_MAX: usize = 14;
/// Longest payload of a datagram over IPv4.
const UDP_MAX: usize = 65_507;
const SEED: u64 = 0x7269_6e67_746f_6c6c;
const ROUNDS: u64 = 3;
const DATAGRAMS: u64 = 4_000;
/// The final answers that the RFCs ask for; none where nothing can be answered.
const EXPECTED: [(&str, &[u16]); 26] = [
    ("badinv01.dat", &[400]),
    ("clerr.dat", &[400]),
    ("ncl.dat", &[400]),
    ("scalar02.dat", &[400]),
    ("quotbal.dat", &[400]),
    ("ltgtruri.dat", &[400]),
    ("lwsruri.dat", &[400]),
    ("lwsstart.dat", &[400]),
    ("trws.dat", &[400]),
    ("escruri.dat", &[400]),
    ("regbadct.dat", &[400]),
    ("badaspec.dat", &[400]),
    ("baddn.fixed.dat", &[400]),
    ("badvers.dat", &[505]),
    ("mismatch01.dat", &[400]),
    ("mismatch02.dat", &[400, 501]),
    ("unkscm.dat", &[416]),
    ("novelsc.dat", &[416]),
    ("bext01.dat", &[420]),
    ("multi01.dat", &[400]),
    ("mcl01.dat", &[400]),
    ("zeromf.dat", &[483, 200]),
    ("ipv6-bad.dat", &[400]),
    ("ipv6-in-sdp.asprinted.dat", &[400]),
    // Without a Call-ID or a Via nothing can be answered.
    ("insuf.dat", &[]),
    ("test.dat", &[]),
];
