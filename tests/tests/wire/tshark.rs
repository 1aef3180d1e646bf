//! Wireshark's dissectors as the reader of what went over the wire: Diameter without a fault and
//! with the flags of the standards, and values that agree with the SIP of the same capture.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tests::process::{CdfProcess, NodeProcess, Running, free_udp, is_installed, skip, wait_until};
use tests::traffic::{self, KINDS};

/// What Wireshark reads otherwise than TS 32.299 says, and the standard is right.
const DISAGREEMENTS: [(&str, &str); 1] = [(
    "From-Address",
    "UTF8String in TS 32.299 7.2.75A; Wireshark reads an IPAddress and finds its family unknown",
)];

#[derive(Debug)]
struct Avp {
    name: String,
    depth: usize,
    flags: String,
    is_3gpp: bool,
    octets: Vec<u8>,
}

impl Avp {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.octets).into_owned()
    }

    fn number(&self) -> u32 {
        let octets: [u8; 4] = self.octets[..].try_into().expect("a 32-bit number");
        u32::from_be_bytes(octets)
    }
}

#[derive(Debug, Default)]
struct Diameter {
    command: u32,
    flags: u8,
    avps: Vec<Avp>,
}

impl Diameter {
    fn is_request(&self) -> bool {
        self.flags & 0x80 != 0
    }

    fn find(&self, name: &str) -> Option<&Avp> {
        self.avps.iter().find(|avp| avp.name == name)
    }

    fn get(&self, name: &str) -> &Avp {
        self.find(name)
            .unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    fn instant(&self, name: &str) -> Option<f64> {
        let seconds = self.find(name)?.number();
        let milliseconds = self.get(&format!("{name}-Fraction")).number();
        Some(f64::from(seconds) - NTP_TO_UNIX_S + f64::from(milliseconds) / 1e3)
    }
}

struct Sip {
    at: f64,
    from: String,
    to: String,
    method: String,
    status: String,
    cseq_method: String,
    call_id: String,
    request_uri: String,
    asserted: String,
    media: String,
}

struct Capture {
    process: Running,
    file: PathBuf,
    log: PathBuf,
}

impl Capture {
    /// Captures SIP and Diameter on loopback; `None`, said aloud, where that is not allowed.
    fn start(dir: &Path, cdf: SocketAddr, filter: &str) -> Option<Self> {
        let (file, log) = (dir.join("wire.pcapng"), dir.join("tshark.log"));
        let mut command = Command::new("tshark");
        command.args(["-i", "lo", "-f", filter, "-w"]).arg(&file);
        let mut process = Running::start(&mut command, &log);
        // It says that it captures before it does: only a packet in the file is a proof.
        let size = || std::fs::metadata(&file).map_or(0, |metadata| metadata.len());
        let mut has_ended = false;
        let begun = wait_until(Duration::from_secs(30), || {
            has_ended = process.wait(Duration::ZERO).is_some();
            let _ = TcpStream::connect(cdf);
            has_ended || size() > 1_000
        });
        if has_ended {
            skip("tshark may not capture here");
            return None;
        }
        assert!(
            begun,
            "tshark must capture: {}",
            std::fs::read_to_string(&log).unwrap_or_default()
        );
        Some(Self { process, file, log })
    }

    fn end(&mut self) {
        // What is in the kernel's buffer reaches the file within a second.
        std::thread::sleep(Duration::from_millis(1_500));
        self.process
            .terminate(Duration::from_secs(10))
            .expect("tshark ends when told");
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        assert!(!log.contains("dropped"), "{log}");
    }

    fn read(&self, arguments: &[&str]) -> String {
        let output = Command::new("tshark")
            .arg("-r")
            .arg(&self.file)
            .args(arguments)
            .output();
        let output = output.expect("tshark starts");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

#[test]
fn wireshark_finds_no_fault_and_agrees_with_the_sip_of_the_capture() {
    if !["tshark", "sipp"]
        .iter()
        .all(|program| is_installed(program))
    {
        return;
    }
    let callee = free_udp();
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let mut cdf = CdfProcess::new(dir.path(), "cdf");
    cdf.start();
    let port = cdf.address.port();
    let filter = format!("tcp port {port} or udp");
    let Some(mut capture) = Capture::start(dir.path(), cdf.address, &filter) else {
        return;
    };
    let more = format!(
        "[charging.rf]\ncdf = [\"{}\"]\npropose_interim_interval_s = 600\nwatchdog_s = 6\n",
        cdf.address
    );
    let mut node = NodeProcess::start(callee, &more);
    let calls = 3;
    traffic::run(&node, callee, calls);
    // Long enough for a watchdog.
    std::thread::sleep(Duration::from_secs(9));
    let sip_port = node.sip.port();
    node.stop();
    capture.end();

    let decode = format!("tcp.port=={port},diameter");
    let pdml = capture.read(&["-d", &decode, "-Y", "diameter", "-T", "pdml"]);
    let messages = diameter(&pdml);
    no_faults(&capture, &decode, &pdml);
    all_kinds(&messages, calls);
    for message in &messages {
        flags_are_right(message);
        answers_agree(message, &messages);
    }
    let sip = sip(&capture, sip_port, callee);
    let records = messages
        .iter()
        .filter(|message| message.command == 271 && message.is_request());
    let mut count = 0;
    for record in records {
        agrees(record, &sip, sip_port, callee);
        count += 1;
    }
    let avps: usize = messages.iter().map(|message| message.avps.len()).sum();
    println!(
        "tshark read {} Diameter messages with {avps} AVPs, {count} ACRs",
        messages.len()
    );
    for (name, why) in DISAGREEMENTS {
        println!("disagreement let pass: {name}: {why}");
    }
}

fn attribute<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let start = line.find(&format!(" {name}=\""))? + name.len() + 3;
    line[start..].split('"').next()
}

// PDML has one element a line, indented by its depth.
fn diameter(pdml: &str) -> Vec<Diameter> {
    let mut messages: Vec<Diameter> = Vec::new();
    for line in pdml.lines() {
        let name = attribute(line, "name").unwrap_or_default();
        if line.contains("<proto name=\"diameter\"") {
            messages.push(Diameter::default());
        }
        let Some(message) = messages.last_mut() else {
            continue;
        };
        let show = attribute(line, "show").unwrap_or_default();
        match name {
            "diameter.cmd.code" => message.command = show.parse().expect("a number"),
            "diameter.flags" => {
                message.flags = u8::from_str_radix(&show[2..], 16).expect("a flag byte");
            }
            "diameter.avp" => message.avps.push(avp(line)),
            _ => {
                let Some(own) = name.strip_prefix("diameter.") else {
                    continue;
                };
                let depth = indent(line);
                let of = message.avps.iter_mut().rev().find(|avp| avp.name == own);
                if let Some(avp) = of.filter(|avp| avp.depth < depth && avp.octets.is_empty()) {
                    avp.octets = octets(attribute(line, "value").unwrap_or_default());
                }
            }
        }
    }
    messages
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn octets(hex: &str) -> Vec<u8> {
    let pair = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits");
    (0..hex.len() / 2)
        .map(|pair_at| pair(pair_at * 2))
        .collect()
}

// `AVP: SIP-Method(824) l=18 f=VM- vnd=TGPP val=INVITE`
fn avp(line: &str) -> Avp {
    let shown = attribute(line, "showname").expect("a shown AVP");
    let words: Vec<&str> = shown.split(' ').collect();
    let flags = words
        .iter()
        .find_map(|word| word.strip_prefix("f="))
        .expect("flags");
    Avp {
        name: words[1].split('(').next().unwrap_or_default().to_owned(),
        depth: indent(line),
        flags: flags.to_owned(),
        is_3gpp: words.contains(&"vnd=TGPP"),
        octets: Vec::new(),
    }
}

fn no_faults(capture: &Capture, decode: &str, pdml: &str) {
    assert!(!pdml.contains("_ws.malformed"), "no malformed message");
    let columns = [
        "-T",
        "fields",
        "-e",
        "_ws.expert.severity",
        "-e",
        "_ws.expert.message",
    ];
    let expert = capture.read(
        &[
            &["-d", decode, "-Y", "diameter && _ws.expert"],
            &columns[..],
        ]
        .concat(),
    );
    let faults: Vec<&str> = expert
        .lines()
        .filter(|line| !line.contains("Connection") && !line.contains("connection closing"))
        .collect();
    assert!(faults.is_empty(), "experts complain: {faults:?}");
    for line in pdml.lines().filter(|line| line.contains("diameter")) {
        let shown = attribute(line, "showname").unwrap_or_default();
        let known = DISAGREEMENTS
            .iter()
            .any(|(name, _)| shown.starts_with(&format!("{name} ")));
        let is_unknown = shown.contains("Unknown") || line.contains("diameter.avp.unknown");
        assert!(!is_unknown || known, "Wireshark does not know: {shown}");
    }
}

fn all_kinds(messages: &[Diameter], calls: u32) {
    let count = |command: u32, request: bool| {
        let of =
            |message: &&Diameter| message.command == command && message.is_request() == request;
        messages.iter().filter(of).count() as u32
    };
    let records: u32 = KINDS
        .iter()
        .map(|kind| kind.records.len() as u32 * calls)
        .sum();
    assert_eq!(count(271, true), records, "ACR");
    assert_eq!(count(271, false), records, "ACA");
    for (command, name) in [(257, "CER"), (280, "DWR"), (282, "DPR")] {
        assert!(count(command, true) >= 1, "{name} must be seen");
        assert_eq!(
            count(command, true),
            count(command, false),
            "{name} is answered"
        );
    }
    for (number, record_type) in [(1, "EVENT"), (2, "START"), (3, "INTERIM"), (4, "STOP")] {
        let of_type = messages
            .iter()
            .filter(|message| message.command == 271 && message.is_request())
            .filter(|message| message.get("Accounting-Record-Type").number() == number);
        let expected = traffic::records_of_type(record_type, calls);
        assert_eq!(of_type.count() as u32, expected, "{record_type}");
    }
}

// RFC 6733 4.5 and TS 32.299 7.1, 7.2: 3GPP's are V and M, IETF's M, a few none.
fn flags_are_right(message: &Diameter) {
    let expected_header = match (message.command, message.is_request()) {
        (271, true) => 0xc0,
        (271, false) => 0x40,
        (_, true) => 0x80,
        (_, false) => 0,
    };
    assert_eq!(
        message.flags, expected_header,
        "flags of command {}",
        message.command
    );
    for avp in &message.avps {
        let optional = [
            "Product-Name",
            "Firmware-Revision",
            "Error-Message",
            "User-Equipment-Info",
            "User-Equipment-Info-Type",
            "User-Equipment-Info-Value",
        ];
        let expected = match (avp.is_3gpp, optional.contains(&avp.name.as_str())) {
            (true, _) => "VM-",
            (false, true) => "---",
            (false, false) => "-M-",
        };
        assert_eq!(avp.flags, expected, "flags of {}", avp.name);
    }
}

fn answers_agree(message: &Diameter, all: &[Diameter]) {
    if message.is_request() {
        return;
    }
    assert_eq!(message.get("Result-Code").number(), 2001);
    if message.command == 271 {
        let key = |message: &Diameter| {
            [
                "Session-Id",
                "Accounting-Record-Type",
                "Accounting-Record-Number",
            ]
            .map(|name| message.get(name).octets.clone())
        };
        let requests = all
            .iter()
            .filter(|other| other.command == 271 && other.is_request());
        let answered = requests
            .filter(|request| key(request) == key(message))
            .count();
        assert_eq!(answered, 1, "an answer names the record it answers");
    }
}

fn sip(capture: &Capture, port: u16, callee: SocketAddr) -> Vec<Sip> {
    let fields = [
        "frame.time_epoch",
        "udp.srcport",
        "udp.dstport",
        "sip.Method",
        "sip.Status-Code",
        "sip.CSeq.method",
        "sip.Call-ID",
        "sip.r-uri",
        "sip.P-Asserted-Identity",
        "sdp.media",
    ];
    let decode = [
        format!("udp.port=={port},sip"),
        format!("udp.port=={},sip", callee.port()),
    ];
    let mut arguments = vec![
        "-d", &decode[0], "-d", &decode[1], "-Y", "sip", "-T", "fields",
    ];
    arguments.extend(fields.iter().flat_map(|field| ["-e", field]));
    let text = capture.read(&arguments);
    text.lines()
        .map(|line| {
            let mut values = line.split('\t').map(str::to_owned);
            let mut value = || values.next().unwrap_or_default();
            Sip {
                at: value().parse().expect("a time"),
                from: value(),
                to: value(),
                method: value(),
                status: value(),
                cseq_method: value(),
                call_id: value(),
                request_uri: value(),
                asserted: value(),
                media: value(),
            }
        })
        .collect()
}

fn agrees(record: &Diameter, sip: &[Sip], port: u16, callee: SocketAddr) {
    let (node, callee) = (port.to_string(), callee.port().to_string());
    let (incoming, outgoing) = (
        record.get("User-Session-ID").text(),
        record.get("Outgoing-Session-Id").text(),
    );
    let record_type = record.get("Accounting-Record-Type").number();
    let method = record.get("3GPP-SIP-Method").text();
    let received: Vec<&Sip> = sip
        .iter()
        .filter(|m| m.call_id == incoming && m.to == node && m.from != callee)
        .collect();
    let opening = received
        .iter()
        .find(|m| !m.method.is_empty())
        .expect("the caller's request");
    let left = sip
        .iter()
        .find(|m| m.call_id == outgoing && m.from == node && m.to == callee && !m.method.is_empty())
        .expect("the request as it left the node");
    assert_eq!(
        opening.asserted,
        format!("<{}>", record.get("Calling-Party-Address").text())
    );
    assert_eq!(left.request_uri, record.get("Called-Party-Address").text());
    if record_type == START {
        let media: Vec<String> = record
            .avps
            .iter()
            .filter(|avp| avp.name == "SDP-Media-Name")
            .map(Avp::text)
            .collect();
        assert!(
            media.contains(&opening.media),
            "{media:?} lacks {}",
            opening.media
        );
    }

    let requests: Vec<&&Sip> = received.iter().filter(|m| m.method == method).collect();
    let nth = usize::from(record_type == INTERIM);
    let requested = record
        .instant("SIP-Request-Timestamp")
        .expect("each has one");
    near(requested, requests[nth].at, &method);
    let from_callee: Vec<&Sip> = sip
        .iter()
        .filter(|m| m.call_id == outgoing && m.from == callee && m.cseq_method == method)
        .filter(|m| m.status.parse::<u16>().is_ok_and(|status| status >= 200))
        .collect();
    match record.instant("SIP-Response-Timestamp") {
        Some(responded) => near(responded, from_callee[nth].at, &from_callee[nth].status),
        None => assert_eq!(record_type, STOP, "only the STOP has no response"),
    }
}

// The kernel stamps a packet as it comes, the node when its loop turns: after, but for a packet that
// comes while the loop already reads; and in whole milliseconds.
fn near(recorded: f64, captured: f64, what: &str) {
    let later = recorded - captured;
    let range = -0.02..0.25;
    assert!(
        range.contains(&later),
        "{what}: recorded {later} s after the capture"
    );
}

const START: u32 = 2;
const INTERIM: u32 = 3;
const STOP: u32 = 4;
const NTP_TO_UNIX_S: f64 = 2_208_988_800.0;

#[test]
fn a_pdml_line_is_read() {
    let line = "  <field name=\"diameter.avp\" showname=\"AVP: 3GPP-SIP-Method(824) l=18 f=VM- \
                vnd=TGPP val=INVITE\" size=\"20\" pos=\"1\" show=\"00\" value=\"00\">";
    let avp = avp(line);
    assert_eq!(
        (avp.name.as_str(), avp.flags.as_str(), avp.depth),
        ("3GPP-SIP-Method", "VM-", 2)
    );
    assert!(avp.is_3gpp);
}
