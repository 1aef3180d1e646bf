//! Counters of one shard: plain numbers with one writer, summed by whoever reads them.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Events counted by one shard since it started.
        #[derive(Clone, Copy, Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Names and values in a fixed order, for the metrics page.
            pub fn each(&self, mut visit: impl FnMut(&'static str, u64)) {
                $(visit(stringify!($name), self.$name);)*
            }

            /// Adds the counts of another shard.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counters! {
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
}
