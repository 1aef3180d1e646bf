//! The admin pages: `/readyz`, `/metrics`, `/calls`, `/cluster`, and `POST /drain`. Cold path: a thread with a small library.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam::channel::{self, Sender};
use tiny_http::{Header, Method, Request, Response, Server};

use super::NodeError;
use super::member::unpoisoned;
use super::mesh::{Inlet, Question, ShardMetrics};
use crate::cluster::MembershipReport;
use crate::config::Cluster;
use crate::counters::{Counters, MemberCounters, StoreCounters};

/// What the pages are made from.
pub(super) struct Pages {
    pub(super) node: String,
    pub(super) inlets: Vec<Inlet>,
    pub(super) membership: Option<Arc<Mutex<MembershipReport>>>,
    pub(super) cluster: Option<Cluster>,
    /// Begins to end the node in order, if it is its own process' only purpose.
    pub(super) leave: Option<fn()>,
}

/// Serves the pages from a thread of its own, as long as the process lives.
pub(super) fn start(address: SocketAddr, pages: Pages) -> Result<(), NodeError> {
    let server = Server::http(address).map_err(|error| {
        NodeError::Listen(
            format!("http:{address}"),
            std::io::Error::other(error.to_string()),
        )
    })?;
    std::thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || {
            for request in server.incoming_requests() {
                answer(request, &pages);
            }
        })
        .map_err(|error| NodeError::Executor(error.to_string()))?;
    Ok(())
}

fn answer(request: Request, pages: &Pages) {
    let inlets = &pages.inlets[..];
    let path = request
        .url()
        .split('?')
        .next()
        .unwrap_or_default()
        .to_owned();
    let (status, kind, body) = match (request.method(), path.as_str()) {
        (Method::Get, "/readyz") => readyz(inlets),
        (Method::Get, "/metrics") => (200, PROMETHEUS, metrics(pages)),
        (Method::Get, "/calls") => (200, JSON, calls(inlets)),
        (Method::Get, "/cluster") => super::cluster_json::page(pages),
        (Method::Get, _) => (
            404,
            TEXT,
            "see /readyz, /metrics, /calls, /cluster\n".to_owned(),
        ),
        (Method::Post, "/drain") => drain(pages),
        _ => (405, TEXT, "GET only, but for POST /drain\n".to_owned()),
    };
    let mut response = Response::from_string(body).with_status_code(status);
    if let Ok(header) = Header::from_bytes(b"Content-Type", kind.as_bytes()) {
        response.add_header(header);
    }
    let _ = request.respond(response);
}

fn readyz(inlets: &[Inlet]) -> (u16, &'static str, String) {
    let shards = ask(inlets, Question::Ready);
    let ready = shards.len() == inlets.len() && shards.iter().all(|ready| *ready);
    if ready {
        (200, TEXT, "ready\n".to_owned())
    } else {
        (503, TEXT, "calls cannot be taken now\n".to_owned())
    }
}

fn drain(pages: &Pages) -> (u16, &'static str, String) {
    match pages.leave {
        Some(leave) => {
            leave();
            (202, TEXT, "draining\n".to_owned())
        }
        None => (409, TEXT, "this node ends with its program\n".to_owned()),
    }
}

fn calls(inlets: &[Inlet]) -> String {
    let lines = ask(inlets, Question::Calls).concat();
    let objects: Vec<&str> = lines.lines().collect();
    format!("[{}]\n", objects.join(",\n"))
}

fn metrics(pages: &Pages) -> String {
    let node = &pages.node;
    let shards = ask(&pages.inlets, Question::Metrics);
    let mut out = String::new();
    let of_shards = |values: fn(&ShardMetrics) -> Vec<u64>| -> Vec<Row> {
        let row = |shard: &ShardMetrics| (labels(node, shard), values(shard));
        shards.iter().map(row).collect()
    };
    let counted = of_shards(|shard| shard.counters.values().collect());
    counters(&mut out, Counters::NAMES, &counted);
    let stored = of_shards(|shard| shard.store.values().collect());
    counters(&mut out, StoreCounters::NAMES, &stored);
    if let Some(membership) = &pages.membership {
        let counted = unpoisoned(membership).counters;
        let row = (format!("node=\"{node}\""), counted.values().collect());
        counters(&mut out, MemberCounters::NAMES, &[row]);
    }
    for (name, help, value) in GAUGES {
        head(&mut out, &format!("ringtoll_{name}"), help, "gauge");
        for shard in &shards {
            let labels = labels(node, shard);
            let _ = writeln!(out, "ringtoll_{name}{{{labels}}} {}", value(shard));
        }
    }
    hand_over_waits(node, &shards, &mut out);
    out
}

fn labels(node: &str, shard: &ShardMetrics) -> String {
    format!("node=\"{node}\",shard=\"{}\"", shard.shard)
}

fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", help.trim());
}

fn counters(out: &mut String, names: &[(&str, &str)], rows: &[Row]) {
    for (place, (name, help)) in names.iter().enumerate() {
        let name = format!("ringtoll_{name}_total");
        head(out, &name, help, "counter");
        for (labels, values) in rows {
            let _ = writeln!(out, "{name}{{{labels}}} {}", values[place]);
        }
    }
}

fn hand_over_waits(node: &str, shards: &[ShardMetrics], out: &mut String) {
    let name = "ringtoll_hand_over_wait_seconds";
    let help = "How long datagrams waited for the shard they were handed over to.";
    head(out, name, help, "histogram");
    for shard in shards {
        let labels = labels(node, shard);
        let mut all = 0;
        for (bound, count) in shard.hop_waits.cumulative() {
            all = count;
            let bound = if bound.is_finite() {
                bound.to_string()
            } else {
                "+Inf".to_owned()
            };
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}", shard.hop_waits.sum_s());
        let _ = writeln!(out, "{name}_count{{{labels}}} {all}");
    }
}

/// Labels, and a value for each name.
type Row = (String, Vec<u64>);

/// Name, what it means, value.
type Gauge = (&'static str, &'static str, fn(&ShardMetrics) -> f64);

const GAUGES: [Gauge; 9] = [
    ("calls", "Calls under way.", |shard| shard.calls as f64),
    ("transactions", "SIP transactions under way.", |shard| {
        shard.transactions as f64
    }),
    ("timers", "Timers that run.", |shard| shard.timers as f64),
    (
        "backlog_records",
        "Charging records on disk that no CDF took yet.",
        |shard| shard.backlog as f64,
    ),
    (
        "ring_fill_percent",
        "How full the ring of call states is.",
        |shard| shard.ring_fill_percent as f64,
    ),
    (
        "ring_reclaim_burst_max",
        "Most records that one write to the ring had to tidy up.",
        |shard| shard.reclaim_burst_max as f64,
    ),
    ("cdf_reachable", "CDFs that answer.", |shard| {
        shard.cdf_up as f64
    }),
    (
        "hops_avoided",
        "Next hops that are put behind the others.",
        |shard| shard.hops_avoided as f64,
    ),
    (
        "shard_cpu_seconds",
        "Processor time that the shard has used.",
        |shard| shard.cpu_ns as f64 / 1e9,
    ),
];

/// Asks every shard; those that do not answer in time, or have too much to answer, are left out.
pub(super) fn ask<T>(inlets: &[Inlet], question: fn(Sender<T>) -> Question) -> Vec<T> {
    let (reply, answers) = channel::bounded(inlets.len());
    let mut left_out = 0;
    for inlet in inlets {
        left_out += usize::from(!inlet.ask(question(reply.clone())));
    }
    if left_out > 0 {
        tracing::warn!(
            shards = left_out,
            "too many questions wait: a page lacks these shards"
        );
    }
    drop(reply);
    let mut all = Vec::new();
    while let Ok(answer) = answers.recv_timeout(ANSWER_TIMEOUT) {
        all.push(answer);
    }
    all
}

const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const PROMETHEUS: &str = "text/plain; version=0.0.4";
