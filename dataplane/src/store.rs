//! Where the states of a shard's calls are kept: the stateful tier as a shard sees it.
//!
//! A store of one node keeps them out of the process, so that the process may die. A store of a
//! cluster keeps copies on other nodes as well, and so has more to say: an output may have to
//! wait for its copies, calls of a dead node are taken over, and a node that is not sure to be a
//! member of the cluster must not act.

use charging::time::Now;
use replication::{Mode, RingCounters, Version};

use crate::b2bua::{CallState, SCHEMA};
use crate::counters::StoreCounters;

/// The calls of one shard, newest state each. Time is what [`BlobStore::set_now`] said last.
pub trait BlobStore: std::any::Any {
    /// Sets the time: records are stamped with it, leases are judged by it.
    fn set_now(&mut self, now: Now);
    /// Writes the newest state of a call.
    fn commit(&mut self, call: u128, blob: Blob<'_>) -> Stored;
    /// Forgets a call.
    fn retire(&mut self, call: u128);
    /// Schema in which states are to be written: the newest that whoever may read them reads.
    fn schema(&self) -> u16 {
        SCHEMA
    }
    /// Whether new calls may still be taken (below the high-water mark).
    fn is_open(&self) -> bool;
    /// Whether the next call that was taken finds room, however long its state is.
    fn has_room(&self) -> bool {
        true
    }
    /// How full the store is, 0 to 100 %.
    fn fill_percent(&self) -> u32;
    /// Tidies up a little; true if there was something to do.
    fn reclaim(&mut self) -> bool;

    /// What happened so far, for the page of the operator.
    fn counters(&self) -> StoreCounters {
        StoreCounters::default()
    }
    /// Of this, what the ring behind the store counts, if there is one.
    fn ring_counters(&self) -> Option<&RingCounters> {
        None
    }

    /// What a store with copies on other nodes does besides.
    fn cluster(&mut self) -> Option<&mut dyn ClusterSide> {
        None
    }
}

/// A call's state on its way into the store.
#[derive(Clone, Copy, Debug)]
pub struct Blob<'a> {
    /// The state, archived.
    pub bytes: &'a [u8],
    /// The layout it is archived in.
    pub schema: u16,
    /// This node becomes the call's owner anew.
    pub takes_over: bool,
    /// Whether its outputs wait for copies, if that is not what the store does anyway.
    pub mode: Option<Mode>,
}

/// What a store has to do with other nodes.
pub trait ClusterSide {
    /// Follows the view of the cluster and does what is due.
    fn tick(&mut self);
    /// The next thing that happened among the nodes.
    fn poll_event(&mut self) -> Option<StoreEvent>;
    /// Whether this node may act at this very moment: send charging requests, fire the timers
    /// of calls, take new calls.
    fn may_act(&self) -> bool;
    /// Until when, if nothing new is heard; `None`: not at all.
    fn acts_until(&self) -> Option<quanta::Instant>;
    /// Who answers for a call that is not in this shard's table.
    fn owner_of(&self, call: u128) -> Owner;
    /// Whether this node is leaving, so that its calls are to be given to others.
    fn is_leaving(&self) -> bool;
    /// Gives a call to another node, which goes on with it; this one must be silent about it from
    /// now on. False if it stays here.
    fn give(&mut self, call: u128) -> bool;
    /// The shard has no call left. While this node is leaving it may go once all shards say so.
    fn note_empty(&mut self);
    /// A node that may take a new call in this one's stead, always the same for a key.
    fn deputy(&self, key: u64) -> Option<u16>;
    /// Whether a node answers for calls it has, as far as is known here: it may be leaving.
    fn answers(&self, node: u16) -> bool;
    /// The other nodes that do, as a bit mask.
    fn answering_peers(&self) -> u32;
    /// Hands a message for the same shard of another node over, to be sealed and sent.
    fn forward(&mut self, node: u16, message: &[u8]);
    /// Takes the next message of that kind from another node out; says from which.
    fn next_forwarded(&mut self, into: &mut Vec<u8>) -> Option<u16>;
    /// Takes a datagram that another node sent.
    fn handle_datagram(&mut self, datagram: &mut [u8]);
    /// Writes the next datagram for another node into `buffer`; says for which, and its length.
    fn poll_datagram(&mut self, buffer: &mut [u8]) -> Option<(u16, usize)>;
    /// When [`ClusterSide::tick`] is wanted at the latest.
    fn next_deadline(&self) -> Option<quanta::Instant>;
    /// Takes other keys of the cluster.
    fn set_keys(&mut self, keys: replication::ClusterKeys);
    /// Numbers for the pages of the operator.
    fn report(&self) -> ClusterReport;
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// What the state promises may leave.
    Safe,
    /// It must wait for [`StoreEvent::Released`] with this version or a newer one.
    Waits(Version),
    /// Too much waits to wait for it, or this node is no member at the moment: commit again later,
    /// and let nothing leave until then.
    Again,
    /// There was no room for it: commit again later, and let nothing leave until then.
    Full,
    /// It was not written and never will be: it is too long, or another node's.
    Refused,
}

/// What happened among the nodes.
#[derive(Debug)]
pub enum StoreEvent {
    /// The call's state has its copies, up to this version.
    Released(u128, Version),
    /// This node has to go on with a call: its owner is dead, or it was this node itself.
    TakeOver(Box<CallState>),
    /// This node has to go on with a call that a leaving node gave to it.
    Received(Box<CallState>),
    /// Another node goes on with the call.
    Lost(u128),
    /// This node was not a member for a while: what it still owns will be given to it anew.
    AllLost,
}

/// Who answers for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This node, be it to say that there is no such call.
    Here,
    /// That node.
    At(u16),
    /// That node if any: this one knows nothing of the call.
    Perhaps(u16),
    /// Nobody yet: the owner is dead and the call not taken over, or the owner is coming back.
    Nobody,
}

/// Numbers of a shard's replication.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClusterReport {
    /// View the shard follows; its number is the epoch of what is written anew.
    pub view: u32,
    /// Highest epoch that this shard has written a call of its own under.
    pub epoch: u32,
    /// How full the ring is, percent.
    pub ring_fill_percent: u32,
    /// Outputs that wait for copies.
    pub held: u64,
    /// Calls taken over from dead nodes.
    pub adopted: u64,
    /// Of these, calls taken over although copies may have been missing.
    pub adopted_beyond_promise: u64,
    /// Calls of dead nodes that this one should have taken over and could not.
    pub adopt_failed: u64,
    /// Calls given to other nodes while this one was leaving.
    pub given: u64,
    /// Calls taken over from nodes that were leaving.
    pub received: u64,
    /// Calls held for other nodes.
    pub copies: u64,
    /// Datagrams of other nodes that were refused (forged, old or foreign).
    pub refused: u64,
    /// Messages from or for other nodes dropped because too many waited.
    pub forward_dropped: u64,
    /// State of each link, by node number.
    pub links: [LinkReport; NODES_MAX],
}

/// Numbers of one link.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkReport {
    /// Whether the peer is a member.
    pub admitted: bool,
    /// Records it has not acked yet.
    pub lag_records: u64,
    /// Whether it holds all it should.
    pub settled: bool,
    /// Smoothed round trip, nanoseconds; 0 before the first.
    pub srtt_ns: u64,
}

/// Nodes of a cluster, witnesses included.
pub const NODES_MAX: usize = replication::view::VOTERS_MAX;
