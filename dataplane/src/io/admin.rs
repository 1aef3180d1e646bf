//! The admin pages: `/readyz`, `/metrics`, `/calls`, `/cluster`, and `POST /drain`. Cold path: a thread with a small library.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam::channel::{self, Sender};
use tiny_http::{Header, Method, Request, Response, Server};

use super::NodeError;
use super::mesh::{Inlet, Order, ShardMetrics};
use crate::cluster::MembershipReport;
use crate::config::Cluster;

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
    let (node, inlets) = (&pages.node[..], &pages.inlets[..]);
    let path = request
        .url()
        .split('?')
        .next()
        .unwrap_or_default()
        .to_owned();
    let (status, kind, body) = match (request.method(), path.as_str()) {
        (Method::Get, "/readyz") => readyz(inlets),
        (Method::Get, "/metrics") => (200, PROMETHEUS, metrics(node, inlets)),
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
    let shards = ask(inlets, Order::Ready);
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
    let lines = ask(inlets, Order::Calls).concat();
    let objects: Vec<&str> = lines.lines().collect();
    format!("[{}]\n", objects.join(",\n"))
}

fn metrics(node: &str, inlets: &[Inlet]) -> String {
    let shards = ask(inlets, Order::Metrics);
    let mut out = String::new();
    let mut names = Vec::new();
    ShardMetrics::default()
        .counters
        .each(|name, _| names.push(name));
    for name in names {
        let _ = writeln!(out, "# TYPE ringtoll_{name}_total counter");
        for shard in &shards {
            let number = shard.shard;
            shard.counters.each(|own, value| {
                if own == name {
                    let _ = writeln!(
                        out,
                        "ringtoll_{name}_total{{node=\"{node}\",shard=\"{number}\"}} {value}"
                    );
                }
            });
        }
    }
    let gauges: [Gauge; 8] = [
        ("calls", |shard| shard.calls as f64),
        ("transactions", |shard| shard.transactions as f64),
        ("timers", |shard| shard.timers as f64),
        ("backlog_records", |shard| shard.backlog as f64),
        ("ring_fill_percent", |shard| shard.ring_fill_percent as f64),
        ("cdf_reachable", |shard| shard.cdf_up as f64),
        ("hops_avoided", |shard| shard.hops_avoided as f64),
        ("shard_cpu_seconds", |shard| shard.cpu_ns as f64 / 1e9),
    ];
    for (name, value) in gauges {
        let _ = writeln!(out, "# TYPE ringtoll_{name} gauge");
        for shard in &shards {
            let _ = writeln!(
                out,
                "ringtoll_{name}{{node=\"{node}\",shard=\"{}\"}} {}",
                shard.shard,
                value(shard)
            );
        }
    }
    hand_over_waits(node, &shards, &mut out);
    out
}

fn hand_over_waits(node: &str, shards: &[ShardMetrics], out: &mut String) {
    let _ = writeln!(out, "# TYPE ringtoll_hand_over_wait_seconds histogram");
    for shard in shards {
        let labels = format!("node=\"{node}\",shard=\"{}\"", shard.shard);
        let name = "ringtoll_hand_over_wait_seconds";
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

type Gauge = (&'static str, fn(&ShardMetrics) -> f64);

/// Asks every shard; those that do not answer in time are left out.
pub(super) fn ask<T>(inlets: &[Inlet], order: fn(Sender<T>) -> Order) -> Vec<T> {
    let (reply, answers) = channel::bounded(inlets.len());
    for inlet in inlets {
        inlet.order(order(reply.clone()));
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
