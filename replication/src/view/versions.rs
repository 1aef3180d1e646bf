//! Which protocol and which payloads nodes have in common, so that a cluster can be upgraded node
//! by node.
//!
//! A node says in each heartbeat which versions it reads and writes. Everybody writes the highest
//! that everybody reads: a new schema appears in records only once the last member reads it, and
//! heartbeats, which come before any agreement, are written in the lowest version. A node reads
//! the present and the former version of both, so the way is one version at a time, in any order
//! of nodes, and back again until the last node has come up. A node that is dead holds the newer
//! schema back for ten minutes; who comes back later has to be upgraded first.
//!
//! Nodes with different numbers of shards have nothing in common either.
//!
//! Two nodes with nothing in common do not hear each other: neither acks the other's heartbeats,
//! so the one outside the majority never joins, and the ones inside go on as if it were off.
//! `Views::incompatible` names such peers; it is for the operator to see and to log.

use super::Views;
use crate::frame::{PROTOCOL, PROTOCOL_MIN};

/// What a node reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Versions {
    /// Lowest and highest protocol.
    pub protocol: (u8, u8),
    /// Lowest and highest schema of payloads.
    pub schema: (u16, u16),
    /// Highest schema among the records it holds: whoever joins must read it.
    pub schema_held: u16,
    /// Its shards; 0: it has none, or does not say. Shards of one number exchange calls, so that
    /// nodes with different numbers of them cannot.
    pub shards: u16,
}

impl Default for Versions {
    /// The protocols of this crate, and payloads that are all the same.
    fn default() -> Self {
        Self {
            protocol: (PROTOCOL_MIN, PROTOCOL),
            schema: (0, u16::MAX),
            schema_held: 0,
            shards: 0,
        }
    }
}

impl Versions {
    /// The protocol to speak with the other, if there is one and each reads the other's records.
    #[must_use]
    pub fn common_protocol(&self, other: &Self) -> Option<u8> {
        let protocol = self.protocol.1.min(other.protocol.1);
        let speaks = protocol >= self.protocol.0.max(other.protocol.0);
        let schema = self.schema.1.min(other.schema.1);
        let reads = schema >= self.schema.0.max(other.schema.0)
            && schema >= self.schema_held.max(other.schema_held);
        (speaks && reads && !self.has_other_shards(other)).then_some(protocol)
    }

    fn has_other_shards(&self, other: &Self) -> bool {
        self.shards != 0 && other.shards != 0 && self.shards != other.shards
    }
}

impl Views {
    /// Sets what this node reads and writes; before the first `tick`.
    pub fn set_versions(&mut self, versions: Versions) {
        self.versions = versions;
        let me = usize::from(self.config.node);
        self.peers[me].versions = versions;
    }

    /// Notes the schema of a record this node holds; from now on whoever joins must read it.
    pub fn note_schema(&mut self, schema: u16) {
        self.versions.schema_held = self.versions.schema_held.max(schema);
        let me = usize::from(self.config.node);
        self.peers[me].versions = self.versions;
    }

    /// Schema to write payloads in: the highest that every member heard so far reads, and every
    /// node that was one within the last ten minutes. It may only have been cut off for a moment,
    /// and could not come back while records are held that it does not read. Of one that was dead
    /// before this node started nobody knows what it reads: the lowest that this node does.
    #[must_use]
    pub fn schema(&self) -> u16 {
        let highest = |node: usize| {
            let peer = &self.peers[node];
            let is_heard = peer.incarnation != 0;
            let was_member = self.view.is_dead(node) && !self.view.never_had(node);
            match was_member {
                true if self.versions_forgotten >> node & 1 == 1 => u16::MAX,
                true if !is_heard => self.versions.schema.0,
                _ if is_heard => peer.versions.schema.1,
                _ => u16::MAX,
            }
        };
        let members = self.data_nodes().map(highest);
        members.fold(self.versions.schema.1, u16::min)
    }

    pub(super) fn forget_versions(&mut self, now: u64) {
        let is_long_dead = |&node: &usize| {
            self.view.is_dead(node) && now >= self.peers[node].dead_since + VERSIONS_KEPT_NS
        };
        let forgotten = self.data_nodes().filter(is_long_dead);
        self.versions_forgotten = forgotten.fold(0, |mask, node| mask | 1 << node);
    }

    /// Protocol to write to a peer, for `Replicator::set_protocol` and `Courier::set_protocol`;
    /// the lowest until it is heard.
    #[must_use]
    pub fn protocol(&self, peer: u8) -> u8 {
        let heard = self.peers.get(usize::from(peer));
        let heard = heard.filter(|peer| peer.incarnation != 0);
        let common = heard.and_then(|peer| self.versions.common_protocol(&peer.versions));
        common.unwrap_or(self.versions.protocol.0)
    }

    /// Bit per peer whose last heartbeat showed that it has no version in common with this node.
    #[must_use]
    pub fn incompatible(&self) -> u32 {
        self.incompatible
    }

    /// Bit per such peer that has another number of shards.
    #[must_use]
    pub fn with_other_shards(&self) -> u32 {
        self.with_other_shards
    }

    /// Heartbeats not taken because of that.
    #[must_use]
    pub fn heartbeats_incompatible(&self) -> u64 {
        self.heartbeats_incompatible
    }

    /// Whether a heartbeat of a peer may be taken.
    pub(super) fn is_compatible(&mut self, from: u8, versions: &Versions) -> bool {
        let is_compatible = self.versions.common_protocol(versions).is_some();
        self.with_other_shards &= !(1 << from);
        self.with_other_shards |= u32::from(self.versions.has_other_shards(versions)) << from;
        if is_compatible {
            self.incompatible &= !(1 << from);
        } else {
            self.incompatible |= 1 << from;
            self.heartbeats_incompatible += 1;
        }
        is_compatible
    }
}

/// So long the others write what a dead node reads: longer than a node takes to be started again,
/// by hand if need be.
const VERSIONS_KEPT_NS: u64 = 600_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(protocol: (u8, u8), schema: (u16, u16), schema_held: u16) -> Versions {
        Versions {
            protocol,
            schema,
            schema_held,
            shards: 0,
        }
    }

    #[test]
    fn nodes_with_different_numbers_of_shards_have_nothing_in_common() {
        let with = |shards| Versions {
            shards,
            ..Versions::default()
        };
        assert_eq!(with(2).common_protocol(&with(1)), None);
        assert!(with(2).common_protocol(&with(2)).is_some());
        let witness = with(0);
        assert!(with(2).common_protocol(&witness).is_some());
    }

    #[test]
    fn neighbours_agree_on_the_lower_of_the_highest_and_others_on_nothing() {
        let (former, present) = (versions((1, 2), (4, 5), 5), versions((2, 3), (5, 6), 5));
        assert_eq!(former.common_protocol(&present), Some(2));
        assert_eq!(present.common_protocol(&former), Some(2));
        let next = versions((3, 4), (5, 6), 5);
        assert_eq!(former.common_protocol(&next), None, "no protocol");
        let next = versions((2, 3), (6, 7), 6);
        assert_eq!(former.common_protocol(&next), None, "no schema");
        let written = versions((2, 3), (5, 6), 6);
        assert_eq!(
            former.common_protocol(&written),
            None,
            "records it cannot read"
        );
        assert_eq!(present.common_protocol(&written), Some(3));
    }
}
