//! `[cluster]`: the nodes, how many copies a call has, and the keys they trust each other by.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use replication::Mode;
use serde::Deserialize;

use super::Resolve;
use super::file::{Wrong, wrong};
use crate::store::NODES_MAX;

/// `[cluster]`, checked.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Nodes in the order of their ids, witnesses last; the place in it is the node's number.
    pub nodes: Vec<ClusterNode>,
    /// Number of this node.
    pub own: u16,
    /// Copies of a call, the owner's included.
    pub copies: u8,
    /// Whether outputs wait for their copies.
    pub mode: Mode,
    /// File with the keys.
    pub key_file: PathBuf,
}

/// One node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNode {
    /// Its id in the configuration.
    pub id: u16,
    /// Address of its membership; shard n has that port + 1 + n.
    pub address: SocketAddr,
    /// It votes and holds no calls.
    pub is_witness: bool,
}

impl Cluster {
    /// Numbers of the nodes that hold calls.
    #[must_use]
    pub fn data_nodes(&self) -> Vec<u16> {
        let nodes = self.nodes.iter().zip(0..);
        nodes
            .filter(|(node, _)| !node.is_witness)
            .map(|(_, number)| number)
            .collect()
    }

    /// The node itself.
    #[must_use]
    pub fn own_node(&self) -> &ClusterNode {
        &self.nodes[usize::from(self.own)]
    }

    /// Where a shard of a node receives.
    #[must_use]
    pub fn shard_address(&self, node: u16, shard: u16) -> Option<SocketAddr> {
        let mut address = self.nodes.get(usize::from(node))?.address;
        address.set_port(address.port().checked_add(1 + shard)?);
        Some(address)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClusterFile {
    id: u16,
    members: Vec<MemberFile>,
    #[serde(default = "two")]
    copies: u8,
    #[serde(default = "semi_sync")]
    mode: String,
    key_file: String,
    witness: Option<MemberFile>,
    /// Former versions took a node without vote file for one that never ran if this said so.
    #[serde(default)]
    bootstrap: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberFile {
    id: u16,
    address: String,
}

fn two() -> u8 {
    2
}

fn semi_sync() -> String {
    "semi-sync".to_owned()
}

/// Reads a mode of replication.
pub(super) fn mode(key: &str, name: &str) -> Result<Mode, Wrong> {
    match name {
        "semi-sync" => Ok(Mode::SemiSync),
        "async" => Ok(Mode::Async),
        other => Err(wrong(
            key,
            format!("`{other}` is no mode"),
            "write \"semi-sync\" (nothing acknowledged is lost) or \"async\"",
        )),
    }
}

pub(super) fn cluster(
    file: ClusterFile,
    shards: usize,
    resolve: Resolve,
) -> Result<Cluster, Wrong> {
    let mode = mode("cluster.mode", &file.mode)?;
    let nodes = nodes(&file, shards, resolve)?;
    let data = nodes.iter().filter(|node| !node.is_witness).count();
    if nodes.len() == 2 {
        return Err(wrong(
            "cluster.members",
            "two voters: if either is lost the other is no majority and must not go on",
            "add a third member, or a [cluster] witness = { id = .., address = \"HOST:PORT\" }",
        ));
    }
    if file.copies == 0 || usize::from(file.copies) > data {
        return Err(wrong(
            "cluster.copies",
            format!("{} copies on {data} members", file.copies),
            format!("write 1 to {data}"),
        ));
    }
    let Some(own) = nodes.iter().position(|node| node.id == file.id) else {
        let ids: Vec<_> = nodes.iter().map(|node| node.id.to_string()).collect();
        return Err(wrong(
            "cluster.id",
            format!("no member has the id {}", file.id),
            format!("write this node's own: one of {}", ids.join(", ")),
        ));
    };
    if file.bootstrap {
        return Err(wrong(
            "cluster.bootstrap",
            "a setting cannot say that a node never ran: it would still say so after a disk was lost",
            "leave it out, and `touch vote.boot` in node.data_dir before a node's very first start",
        ));
    }
    if file.key_file.is_empty() {
        return Err(wrong(
            "cluster.key_file",
            "it is empty",
            "name a file that `ringtoll key --file FILE` made, the same on every node",
        ));
    }
    Ok(Cluster {
        nodes,
        own: own as u16,
        copies: file.copies,
        mode,
        key_file: file.key_file.into(),
    })
}

fn nodes(file: &ClusterFile, shards: usize, resolve: Resolve) -> Result<Vec<ClusterNode>, Wrong> {
    let mut nodes = Vec::new();
    let members = file.members.iter().enumerate();
    let members = members.map(|(n, member)| (format!("cluster.members[{n}]"), member, false));
    let witness = file.witness.iter();
    let witness = witness.map(|member| ("cluster.witness".to_owned(), member, true));
    let (mut ids, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for (key, member, is_witness) in members.chain(witness) {
        let address = super::file::socket(resolve, &format!("{key}.address"), &member.address)?;
        if !ids.insert(member.id) || !addresses.insert(address) {
            return Err(wrong(
                key,
                "its id or address stands there twice",
                "give every member an id and an address of its own",
            ));
        }
        if usize::from(address.port()) + 1 + shards > usize::from(u16::MAX) {
            return Err(wrong(
                format!("{key}.address"),
                "the ports of its shards follow this one, and there is no room",
                "choose a lower port",
            ));
        }
        nodes.push(ClusterNode {
            id: member.id,
            address,
            is_witness,
        });
    }
    if nodes.is_empty() || nodes.len() > NODES_MAX {
        return Err(wrong(
            "cluster.members",
            format!("{} nodes", nodes.len()),
            format!("name 1, or 3 to {NODES_MAX}, witness included"),
        ));
    }
    nodes.sort_by_key(|node| (node.is_witness, node.id));
    Ok(nodes)
}
