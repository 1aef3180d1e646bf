//! What the ring, the links and the letters of a shard have counted.

use replication::{Courier, Replicator, RingCounters};

use super::ClusterStore;
use crate::counters::StoreCounters;

impl ClusterStore {
    pub(super) fn counts(&self) -> StoreCounters {
        let mut counts = self.former_counts;
        add_ring(&mut counts, self.ring.counters());
        add_links(&mut counts, &self.replicator, &self.data_nodes);
        add_letters(&mut counts, &self.courier);
        counts.forward_dropped += self.report.forward_dropped;
        counts.call_adopted += self.report.adopted;
        counts.call_adopted_beyond_promise += self.report.adopted_beyond_promise;
        counts.call_adopt_failed += self.report.adopt_failed;
        counts.call_received += self.report.received;
        counts
    }

    // Before replication and courier give way to those of another incarnation.
    pub(super) fn keep_counts(&mut self) {
        add_links(&mut self.former_counts, &self.replicator, &self.data_nodes);
        add_letters(&mut self.former_counts, &self.courier);
    }
}

/// Adds what a ring has counted.
pub fn add_ring(counts: &mut StoreCounters, ring: &RingCounters) {
    counts.ring_version_put += ring.puts;
    counts.ring_version_updated += ring.updates;
    counts.ring_call_retired += ring.retires;
    counts.ring_put_refused += ring.put_refused;
    counts.ring_copy_stored += ring.apply_stored;
    counts.ring_copy_stale += ring.apply_stale;
    counts.ring_copy_duplicate += ring.apply_duplicate;
    counts.ring_copy_conflicting += ring.apply_conflict;
    counts.ring_tombstone_dropped += ring.tombstones_dropped;
    counts.ring_tombstone_dropped_early += ring.tombstones_dropped_early;
    counts.ring_tombstone_kept += ring.tombstones_kept;
    counts.ring_bytes_appended += ring.bytes_appended;
    counts.ring_bytes_promoted += ring.bytes_promoted;
    counts.ring_bytes_relocated += ring.bytes_relocated;
    counts.ring_reclaim_stuck += ring.reclaim_stuck;
}

fn add_links(counts: &mut StoreCounters, replicator: &Replicator, nodes: &[u16]) {
    counts.hold_refused += replicator.held_refused();
    counts.hold_escalated += replicator.held_escalated();
    for link in nodes.iter().filter_map(|&node| replicator.link(node)) {
        let link = link.counters();
        counts.link_datagram_sent += link.datagrams_sent;
        counts.link_datagram_refused += link.datagram_refused;
        counts.link_protocol_refused += link.protocol_refused;
        counts.link_key_unknown += link.datagram_key_unknown;
        counts.link_datagram_fenced += link.datagram_fenced;
        counts.link_body_malformed += link.body_malformed;
        counts.link_entry_sent += link.entries_sent;
        counts.link_entry_resent += link.entries_resent;
        counts.link_entry_put_off += link.entries_put_off;
        counts.link_entry_duplicate += link.entries_duplicate;
        counts.link_entry_beyond_window += link.entries_beyond_window;
        counts.link_entry_conflicting += link.entries_conflicting;
        counts.link_entry_refused += link.entries_refused;
        counts.link_queue_overflowed += link.queue_overflows;
        counts.link_sync_completed += link.syncs_completed;
        counts.link_sync_incomplete += link.syncs_incomplete;
        counts.link_call_forgotten += link.calls_forgotten;
    }
}

fn add_letters(counts: &mut StoreCounters, courier: &Courier) {
    let letters = courier.counters();
    counts.letter_datagram_sent += letters.datagrams_sent;
    counts.letter_forward_sent += letters.forwards_sent;
    counts.letter_unsent += letters.letters_unsent;
    counts.letter_datagram_refused += letters.datagrams_refused;
    counts.letter_key_unknown += letters.keys_unknown;
    counts.letter_protocol_refused += letters.protocols_refused;
    counts.letter_malformed += letters.bodies_malformed;
    counts.letter_forward_received += letters.forwards_received;
    counts.letter_forward_given_up += letters.forwards_given_up;
}
