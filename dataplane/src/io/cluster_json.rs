//! The page `/cluster`: the view, the lease, the links, the rings.

use serde::Serialize;

use super::admin::{Pages, ask};
use super::member::unpoisoned;
use super::mesh::Question;
use crate::store::ClusterReport;

#[derive(Serialize)]
struct Page {
    node: u16,
    incarnation: u32,
    view: u32,
    lease_left_ms: u64,
    gone: Vec<u16>,
    /// Fewest copies that writes of the last disturbance may have; null: all have theirs.
    fewest_copies: Option<u8>,
    /// Layout that call states are written in: the newest that all members read.
    schema: u16,
    /// Members with which this node has no version in common.
    incompatible: Vec<u16>,
    /// Of these, those that have another number of shards (`node.cores`).
    with_other_shards: Vec<u16>,
    /// Members that run under an earlier incarnation than they did and are not heard.
    went_back: Vec<u16>,
    /// Whether this node votes: its vote was not lost, or is read back.
    votes: bool,
    datagrams_refused: u64,
    members: Vec<MemberPage>,
    shards: Vec<ShardPage>,
}

#[derive(Serialize)]
struct MemberPage {
    id: u16,
    address: String,
    witness: bool,
    standing: String,
    incarnation: u32,
}

#[derive(Serialize)]
struct ShardPage {
    shard: u16,
    view: u32,
    epoch: u32,
    ring_fill_percent: u32,
    outputs_held: u64,
    calls_held: u64,
    calls_adopted: u64,
    calls_adopted_beyond_promise: u64,
    calls_not_adopted: u64,
    calls_given: u64,
    calls_received: u64,
    datagrams_refused: u64,
    forwards_dropped: u64,
    peers: Vec<PeerPage>,
}

#[derive(Serialize)]
struct PeerPage {
    id: u16,
    admitted: bool,
    /// Records it has not acked yet.
    lag_records: u64,
    settled: bool,
    round_trip_us: f64,
}

/// Status, type and body of the page.
pub(super) fn page(pages: &Pages) -> (u16, &'static str, String) {
    let (Some(membership), Some(cluster)) = (&pages.membership, &pages.cluster) else {
        return (
            404,
            "text/plain; charset=utf-8",
            "this node is in no cluster\n".to_owned(),
        );
    };
    let report = *unpoisoned(membership);
    let nodes = cluster.nodes.iter().zip(&report.view.nodes);
    let members = nodes.map(|(node, state)| MemberPage {
        id: node.id,
        address: node.address.to_string(),
        witness: node.is_witness,
        standing: format!("{:?}", state.standing).to_lowercase(),
        incarnation: state.incarnation,
    });
    let mut shards = ask(&pages.inlets, Question::Cluster);
    shards.sort_by_key(|(shard, _)| *shard);
    let of = |mask: u32| {
        let nodes = cluster.nodes.iter().zip(0..);
        let nodes = nodes.filter(|(_, number)| mask >> number & 1 == 1);
        nodes.map(|(node, _)| node.id).collect()
    };
    let page = Page {
        node: cluster.own_node().id,
        incarnation: report.incarnation,
        view: report.view.number,
        lease_left_ms: report.lease_left_ns / 1_000_000,
        gone: of(report.view.gone),
        fewest_copies: (report.view.kmin != replication::view::KMIN_FULL)
            .then_some(report.view.kmin),
        schema: report.schema,
        incompatible: of(report.incompatible),
        with_other_shards: of(report.with_other_shards),
        went_back: of(report.went_back),
        votes: report.has_vote,
        datagrams_refused: report.counters.member_datagram_refused,
        members: members.collect(),
        shards: shards
            .iter()
            .map(|(shard, report)| shard_page(*shard, report, pages))
            .collect(),
    };
    let body = serde_json::to_string_pretty(&page).unwrap_or_default();
    (200, "application/json", body + "\n")
}

fn shard_page(shard: u16, report: &ClusterReport, pages: &Pages) -> ShardPage {
    let nodes = pages.cluster.iter().flat_map(|cluster| {
        let others = cluster.nodes.iter().zip(0..);
        others.filter(|(node, number)| !node.is_witness && *number != usize::from(cluster.own))
    });
    ShardPage {
        shard,
        view: report.view,
        epoch: report.epoch,
        ring_fill_percent: report.ring_fill_percent,
        outputs_held: report.held,
        calls_held: report.copies,
        calls_adopted: report.adopted,
        calls_adopted_beyond_promise: report.adopted_beyond_promise,
        calls_not_adopted: report.adopt_failed,
        calls_given: report.given,
        calls_received: report.received,
        datagrams_refused: report.refused,
        forwards_dropped: report.forward_dropped,
        peers: nodes
            .map(|(node, number)| {
                let link = report.links[number];
                PeerPage {
                    id: node.id,
                    admitted: link.admitted,
                    lag_records: link.lag_records,
                    settled: link.settled,
                    round_trip_us: link.srtt_ns as f64 / 1e3,
                }
            })
            .collect(),
    }
}
