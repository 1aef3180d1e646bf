//! Datagrams and questions that cross from one shard (or the admin thread) to another.

use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam::channel::Sender;
use crossbeam::queue::ArrayQueue;

use super::wake::Doorbell;
use crate::b2bua::Origin;
use crate::counters::Counters;
use crate::env::ListenerId;
use crate::store::ClusterReport;

/// A datagram on its way to the shard that owns its call.
pub(super) struct Hop {
    pub(super) from: SocketAddr,
    pub(super) listener: ListenerId,
    pub(super) bytes: Vec<u8>,
}

impl Hop {
    pub(super) fn origin(&self) -> Origin {
        Origin {
            from: self.from,
            listener: self.listener,
        }
    }
}

/// A question or an order for a shard.
pub(super) enum Order {
    /// Report counters and sizes.
    Metrics(Sender<ShardMetrics>),
    /// Report the calls as JSON objects, one a line.
    Calls(Sender<String>),
    /// Report whether calls can be taken.
    Ready(Sender<bool>),
    /// Look at the board of the cluster.
    Look,
    /// Take other keys of the cluster.
    Keys(replication::ClusterKeys),
    /// Report on the replication.
    Cluster(Sender<(u16, ClusterReport)>),
    /// Refuse new calls from now on.
    Drain,
    /// Say good-bye to the CDFs and leave the loop.
    Stop,
}

/// What a shard reports for the metrics page.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ShardMetrics {
    pub(super) shard: u16,
    pub(super) counters: Counters,
    pub(super) calls: u64,
    pub(super) transactions: u64,
    pub(super) timers: u64,
    pub(super) backlog: u64,
    pub(super) ring_fill_percent: u64,
    pub(super) cdf_up: u64,
    pub(super) cpu_ns: u64,
}

/// The way into one shard.
#[derive(Clone)]
pub(super) struct Inlet {
    hops: Arc<ArrayQueue<Hop>>,
    orders: Arc<ArrayQueue<Order>>,
    bell: Doorbell,
}

impl Inlet {
    pub(super) fn new(bell: Doorbell) -> Self {
        Self {
            hops: Arc::new(ArrayQueue::new(HOPS_MAX)),
            orders: Arc::new(ArrayQueue::new(ORDERS_MAX)),
            bell,
        }
    }

    /// Hands a datagram over; it comes back when the queue is full.
    pub(super) fn hand_over(&self, hop: Hop) -> Result<(), Hop> {
        self.hops.push(hop)?;
        self.bell.ring();
        Ok(())
    }

    /// Gives an order; false when too many wait.
    pub(super) fn order(&self, order: Order) -> bool {
        let taken = self.orders.push(order).is_ok();
        self.bell.ring();
        taken
    }

    /// The shard is awake: it needs no ringing.
    pub(super) fn wake(&self) {
        self.bell.wake();
    }

    /// The shard is about to sleep. False when it may not, for something waits.
    pub(super) fn sleep(&self) -> bool {
        self.bell.sleep();
        self.hops.is_empty() && self.orders.is_empty()
    }

    pub(super) fn next_hop(&self) -> Option<Hop> {
        self.hops.pop()
    }

    pub(super) fn next_order(&self) -> Option<Order> {
        self.orders.pop()
    }
}

/// Datagrams that may wait for one shard: 4 ms of a million datagrams a second.
const HOPS_MAX: usize = 4_096;
/// Orders that may wait for one shard.
const ORDERS_MAX: usize = 64;
