//! Counters of one shard: plain numbers with one writer, summed by whoever reads them.

macro_rules! counters {
    ($(#[$about:meta])* $set:ident { $($(#[doc = $help:literal])+ $name:ident,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $set {
            $($(#[doc = $help])+ pub $name: u64,)*
        }

        impl $set {
            /// Names and what they mean, in a fixed order, for the metrics page.
            pub const NAMES: &[(&'static str, &'static str)] =
                &[$((stringify!($name), concat!($($help),+))),*];

            /// Values in the order of the names.
            pub fn values(&self) -> impl Iterator<Item = u64> {
                [$(self.$name),*].into_iter()
            }

            /// Adds other counts.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counters! {
    /// Events counted by one shard since it started.
    Counters {
    /// Datagrams received.
    sip_datagram_received,
    /// Datagrams sent.
    sip_datagram_sent,
    /// Datagrams the kernel would not take.
    sip_datagram_send_failed,
    /// Datagrams handed to another shard.
    sip_datagram_handed_over,
    /// Datagrams lost because another shard's queue was full.
    sip_hand_over_dropped,
    /// Keep-alives (RFC 5626 3.5.1) received.
    sip_keepalive_received,
    /// Malformed messages that could not even be answered.
    sip_malformed_dropped,
    /// Malformed requests answered with an error.
    sip_malformed_answered,
    /// Requests from sources outside the access list.
    sip_source_refused,
    /// Requests received again.
    sip_request_repeated,
    /// Requests or responses sent again by a timer.
    sip_message_resent,
    /// Responses that belong to no transaction.
    sip_response_stray,
    /// ACKs that belong to nothing.
    sip_ack_stray,
    /// Tags, branches or Contacts with a forged or foreign call token.
    token_refused,
    /// Requests answered 481.
    sip_unknown_dialog,
    /// Requests answered 503 because a limit was reached.
    sip_overload_refused,
    /// Requests answered 420, 422 or 483 before they opened anything: they make no record.
    sip_request_declined,
    /// Calls begun (INVITE forwarded).
    call_started,
    /// Calls answered.
    call_answered,
    /// Set-ups that failed.
    call_failed,
    /// Answered calls that ended.
    call_ended,
    /// Calls ended because a session timer ran out.
    call_session_expired,
    /// OPTIONS sent inside the dialogs of legs without session timer.
    call_probed,
    /// Calls ended because a peer did not know them any more when it was asked so.
    call_probe_failed,
    /// Calls ended because they reached the longest duration allowed.
    call_duration_exceeded,
    /// Calls ended because charging said so.
    call_ended_by_charging,
    /// 2xx that were never acknowledged.
    call_ack_missing,
    /// Requests outside dialogs relayed.
    event_relayed,
    /// INVITEs that went to another next hop because nothing came from the one before.
    hop_left,
    /// Times that a next hop was put behind the others: it was silent or sent 503.
    hop_penalised,
    /// OPTIONS sent to next hops.
    hop_ping_sent,
    /// Of such, those that got no answer, or 503.
    hop_ping_unanswered,
    /// Challenges of trunks answered.
    challenge_answered,
    /// ACRs of type START produced.
    acr_start_produced,
    /// ACRs of type INTERIM produced.
    acr_interim_produced,
    /// ACRs of type STOP produced.
    acr_stop_produced,
    /// ACRs of type EVENT produced.
    acr_event_produced,
    /// ACRs answered with success.
    acr_acknowledged,
    /// ACRs put into the backlog on disk.
    acr_stored,
    /// ACRs from the backlog acknowledged.
    acr_drained,
    /// ACRs lost because the backlog was full.
    acr_lost,
    /// Call states written to the ring.
    blob_committed,
    /// Call states refused by a full ring.
    blob_refused,
    /// Idle turns in which room was made in the ring ahead of need.
    blob_reclaim_idle,
    /// Calls taken up again from the ring after a restart.
    call_resumed,
    /// Calls that another node goes on with.
    call_lost_to_peer,
    /// Calls given to other nodes because this one was leaving.
    call_given,
    /// Datagrams that waited for the copies of the state behind them.
    sip_datagram_held,
    /// Of such, those dropped because too many of one call waited.
    sip_datagram_held_dropped,
    /// Datagrams passed on to the node that answers for them.
    sip_datagram_forwarded,
    /// Datagrams that another node passed on.
    sip_datagram_forward_received,
    /// Datagrams of calls that nobody answers for at the moment.
    sip_datagram_ownerless,
    /// Messages of other nodes' shards that could not be read.
    forward_malformed,
    /// Charging requests that waited until this node might act.
    acr_parked,
    /// Calls taken up whose charging class is not configured here: charged as the default says.
    charging_class_unknown,
    /// Datagrams for other nodes that the kernel would not take.
    peer_datagram_send_failed,
    }
}

counters! {
    /// What befell the call states of one shard: its ring, and the way to other nodes' rings.
    StoreCounters {
    /// Whole versions of call states written to the ring.
    ring_version_put,
    /// Versions written by altering the newest in place.
    ring_version_updated,
    /// Calls ended in the ring.
    ring_call_retired,
    /// Writes to the ring refused for want of room.
    ring_put_refused,
    /// Records of other nodes stored.
    ring_copy_stored,
    /// Records of other nodes older than what is held.
    ring_copy_stale,
    /// Records of other nodes that are held already.
    ring_copy_duplicate,
    /// Records of other nodes with a version that is held with other content. Never, or memory is
    /// damaged or there is a bug.
    ring_copy_conflicting,
    /// Tombstones dropped because they were old enough.
    ring_tombstone_dropped,
    /// Of these, dropped before the cluster was settled, for there were too many: a node that comes
    /// back with its memory may know of such an end no more.
    ring_tombstone_dropped_early,
    /// Tombstones kept for longer, because the cluster was not settled.
    ring_tombstone_kept,
    /// Bytes of records written to the ring.
    ring_bytes_appended,
    /// Bytes copied from the young to the old ring.
    ring_bytes_promoted,
    /// Bytes copied within the old ring.
    ring_bytes_relocated,
    /// Times the ring found no room to tidy up. Never, or its gate does not hold.
    ring_reclaim_stuck,
    /// Datagrams with records sealed for other nodes.
    link_datagram_sent,
    /// Datagrams of other nodes not believed.
    link_datagram_refused,
    /// Of these, in a version of the protocol that this node does not read.
    link_protocol_refused,
    /// Of these, sealed under a cluster key that is not in force here.
    link_key_unknown,
    /// Datagrams of an incarnation that the view does not admit.
    link_datagram_fenced,
    /// Bodies that could not be read to the end.
    link_body_malformed,
    /// Records sent to other nodes, each time.
    link_entry_sent,
    /// Of these, sent again.
    link_entry_resent,
    /// Records put behind others because the peer kept refusing them.
    link_entry_put_off,
    /// Records that had come before.
    link_entry_duplicate,
    /// Records too far ahead to be acked.
    link_entry_beyond_window,
    /// Records whose version is held with other content. Never, or memory is damaged or there is a
    /// bug.
    link_entry_conflicting,
    /// Records the ring had no room for.
    link_entry_refused,
    /// Times a queue was full, so that the peer was filled anew.
    link_queue_overflowed,
    /// Catch-ups that ended complete.
    link_sync_completed,
    /// Catch-ups that ended incomplete.
    link_sync_incomplete,
    /// Copies dropped because their owner no longer knows the call.
    link_call_forgotten,
    /// Outputs refused because too many waited for their copies.
    hold_refused,
    /// Outputs whose records went to further members because the first took too long.
    hold_escalated,
    /// Datagrams with forwarded messages sealed for other nodes.
    letter_datagram_sent,
    /// Messages forwarded to other nodes.
    letter_forward_sent,
    /// Messages not forwarded: too long, or the node was not heard yet.
    letter_unsent,
    /// Forwards of other nodes not believed.
    letter_datagram_refused,
    /// Of these, sealed under a cluster key that is not in force here.
    letter_key_unknown,
    /// Forwards in a version of the protocol that this node does not read.
    letter_protocol_refused,
    /// Forwards that could not be read to the end.
    letter_malformed,
    /// Forwarded messages received whole.
    letter_forward_received,
    /// Forwarded messages of which pieces came that gave way to newer ones.
    letter_forward_given_up,
    /// Messages from or for other nodes dropped because too many waited.
    forward_dropped,
    /// Calls taken over from dead nodes.
    call_adopted,
    /// Of these, calls taken over although copies may have been missing.
    call_adopted_beyond_promise,
    /// Calls of dead nodes that this one should have taken over and could not.
    call_adopt_failed,
    /// Calls taken over from nodes that were leaving.
    call_received,
    }
}

counters! {
    /// What befell the membership of a node.
    MemberCounters {
    /// Datagrams of the membership sealed.
    member_datagram_sent,
    /// Datagrams of the membership that the kernel would not take.
    member_datagram_send_failed,
    /// Messages of the membership not sealed, mostly for nodes that were not heard yet.
    member_letter_unsent,
    /// Messages of the membership dropped because too many waited.
    member_message_dropped,
    /// Datagrams of other nodes that the membership did not believe.
    member_datagram_refused,
    /// Of these, sealed under a cluster key that is not in force here.
    member_key_unknown,
    /// Heartbeats of nodes with which this one has no version or number of shards in common.
    member_heartbeat_incompatible,
    /// Steps not taken because the disk did not take this node's vote.
    vote_save_failed,
    }
}
