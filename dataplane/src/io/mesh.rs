//! Datagrams and questions that cross from one shard (or the admin thread) to another.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Sender;
use crossbeam::queue::ArrayQueue;
use quanta::Instant;

use super::wake::Doorbell;
use crate::b2bua::Origin;
use crate::counters::{Counters, StoreCounters};
use crate::env::ListenerId;
use crate::store::ClusterReport;

/// A datagram on its way to the shard that owns its call.
pub(super) struct Hop {
    pub(super) from: SocketAddr,
    pub(super) listener: ListenerId,
    pub(super) bytes: Vec<u8>,
    /// When it was handed over.
    pub(super) since: Instant,
}

impl Hop {
    pub(super) fn origin(&self) -> Origin {
        Origin {
            from: self.from,
            listener: self.listener,
        }
    }
}

/// How long hops waited for their shard, as a histogram: place `n` counts waits of less than
/// `2^n` microseconds that are not counted before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waits {
    counts: [u64; WAIT_PLACES],
    sum_us: u64,
}

impl Waits {
    pub(super) fn add(&mut self, wait: Duration) {
        let us = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        let place = (u64::BITS - us.leading_zeros()) as usize;
        self.counts[place.min(WAIT_PLACES - 1)] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// For each bound in seconds how many waited no longer; the last bound is infinite.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut sum = 0;
        self.counts.iter().enumerate().map(move |(place, count)| {
            sum += count;
            let bound = if place + 1 < WAIT_PLACES {
                (1u64 << place) as f64 / 1e6
            } else {
                f64::INFINITY
            };
            (bound, sum)
        })
    }

    pub(super) fn sum_s(&self) -> f64 {
        self.sum_us as f64 / 1e6
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
    pub(super) store: StoreCounters,
    /// Most records that one write had to tidy up.
    pub(super) reclaim_burst_max: u64,
    pub(super) calls: u64,
    pub(super) transactions: u64,
    pub(super) timers: u64,
    pub(super) backlog: u64,
    pub(super) ring_fill_percent: u64,
    pub(super) cdf_up: u64,
    pub(super) hops_avoided: u64,
    pub(super) cpu_ns: u64,
    pub(super) hop_waits: Waits,
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
/// Places of the histogram of waits: up to 2^17 us, and what is longer.
const WAIT_PLACES: usize = 19;
/// Orders that may wait for one shard.
const ORDERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_counted_below_the_next_power_of_two() {
        let mut waits = Waits::default();
        for us in [0, 1, 5, 1_000_000] {
            waits.add(Duration::from_micros(us));
        }
        let at = |bound: f64| {
            waits
                .cumulative()
                .find(|(known, _)| *known == bound)
                .map(|(_, count)| count)
        };
        assert_eq!(at(1e-6), Some(1));
        assert_eq!(at(2e-6), Some(2));
        assert_eq!(at(4e-6), Some(2));
        assert_eq!(at(8e-6), Some(3));
        assert_eq!(at(f64::INFINITY), Some(4));
    }
}
