//! The calls whose records other implementations get to read, and the SIP messages of these calls.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::process::{NodeProcess, Sipp};

/// A kind of call and the Accounting-Record-Types it must produce.
pub struct Kind {
    /// Name of the scenario pair.
    pub name: &'static str,
    /// Record types in order.
    pub records: &'static [&'static str],
    /// The Cause-Code of the last record.
    pub cause: i64,
}

/// Every kind of record: START, INTERIM, STOP, and EVENT for a 486, a CANCEL and a MESSAGE.
pub const KINDS: [Kind; 6] = [
    Kind {
        name: "basic",
        records: &["START", "STOP"],
        cause: 0,
    },
    Kind {
        name: "reinvite",
        records: &["START", "INTERIM", "STOP"],
        cause: 0,
    },
    Kind {
        name: "prack",
        records: &["START", "STOP"],
        cause: 0,
    },
    Kind {
        name: "busy",
        records: &["EVENT"],
        cause: 486,
    },
    Kind {
        name: "cancel",
        records: &["EVENT"],
        cause: 487,
    },
    Kind {
        name: "message",
        records: &["EVENT"],
        cause: -1,
    },
];

/// How many records of each type `calls` calls of every kind make.
pub fn records_of_type(record_type: &str, calls: u32) -> u32 {
    let of_type = |kind: &Kind| {
        kind.records
            .iter()
            .filter(|name| **name == record_type)
            .count()
    };
    KINDS.iter().map(|kind| of_type(kind) as u32 * calls).sum()
}

/// Configuration that makes both sides of the calls the border of another network.
pub const BORDER: &str = "[[sip.peer]]\nname = \"border\"\nallow = [\"127.0.0.1\"]\n\
     trusted = true\nnni = \"non-roaming\"\n";

/// Runs `calls` calls of every kind through `node` to `callee`, one kind after the other. What
/// the caller and the callee saw lies in `KIND_caller.msg` and `KIND_callee.msg` of the node's
/// directory afterwards.
pub fn run(node: &NodeProcess, callee: SocketAddr, calls: u32) {
    for kind in &KINDS {
        let (caller_name, callee_name) =
            (format!("{}_uac", kind.name), format!("{}_uas", kind.name));
        let sipp = Sipp {
            scenario: (&caller_name, &callee_name),
            calls,
            rate: 50,
            hold_ms: 300,
            limit: Duration::from_secs(60),
        };
        let file = |side: &str| {
            trace_file(node.dir.path(), kind, side)
                .display()
                .to_string()
        };
        let log = node.dir.path().join("callee.log");
        let traced = ["-trace_msg", "-message_file"];
        let callee_trace = [traced[0], traced[1], &file("callee")];
        let _callee = sipp.callee_with(callee, &log, &callee_trace);
        sipp.call_with(node, &[traced[0], traced[1], &file("caller")]);
    }
    node.wait_idle();
}

fn trace_file(dir: &Path, kind: &Kind, side: &str) -> std::path::PathBuf {
    dir.join(format!("{}_{side}.msg", kind.name))
}

/// A SIP message that sipp wrote down.
pub struct Traced {
    /// When: seconds of the day, UTC.
    pub time_of_day: f64,
    /// Sent by the side that wrote it down; received otherwise.
    pub is_sent: bool,
    /// The message.
    pub text: String,
}

impl Traced {
    /// The messages that one side (`caller` or `callee`) of the calls of a kind saw.
    pub fn read_all(dir: &Path, kind: &Kind, side: &str) -> Vec<Self> {
        let path = trace_file(dir, kind, side);
        let text = std::fs::read_to_string(path).expect("sipp writes down its messages");
        text.split("----------------------------------------------- ")
            .filter(|part| !part.trim().is_empty())
            .map(Self::read)
            .collect()
    }

    // `2026-11-22 14:42:26.248437\nUDP message sent (525 bytes):\n\nINVITE ...`
    fn read(part: &str) -> Self {
        let (head, text) = part
            .split_once("\n\n")
            .expect("a head, an empty line, a message");
        let (time, rest) = head.split_once('\n').expect("a time in a line of its own");
        let clock = time.split_whitespace().nth(1).unwrap_or_default();
        let unit =
            |seconds: f64, part: &str| seconds * 60.0 + part.parse::<f64>().unwrap_or(f64::NAN);
        Self {
            time_of_day: clock.split(':').fold(0.0, unit),
            is_sent: rest.contains("sent"),
            text: text.replace("\r\n", "\n"),
        }
    }

    /// Whether an instant, in seconds since 1970, is at most `limit_s` from this message.
    pub fn is_near(&self, instant: f64, limit_s: f64) -> bool {
        let apart = (instant - self.time_of_day).rem_euclid(DAY);
        apart.min(DAY - apart) <= limit_s
    }

    /// The first line.
    pub fn first_line(&self) -> &str {
        self.text.lines().next().unwrap_or_default()
    }

    /// The value of a header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.text
            .lines()
            .take_while(|line| !line.is_empty())
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    }

    /// What stands between angle brackets in a header field.
    pub fn uri(&self, name: &str) -> Option<&str> {
        self.header(name)?.split_once('<')?.1.split('>').next()
    }

    /// The lines of the body that begin with `kind`, without it: `m=`.
    pub fn body_lines(&self, kind: &str) -> Vec<&str> {
        let body = self.text.split_once("\n\n").map_or("", |(_, body)| body);
        body.lines()
            .filter_map(|line| line.strip_prefix(kind))
            .collect()
    }

    /// Whether it is a request of this method, or a response with this status to one.
    pub fn is(&self, what: &str, cseq_method: &str) -> bool {
        let line = self.first_line();
        let fits = line.starts_with(what) || line.starts_with(&format!("SIP/2.0 {what}"));
        fits && self
            .header("CSeq")
            .is_some_and(|cseq| cseq.ends_with(cseq_method))
    }
}

const DAY: f64 = 86_400.0;
