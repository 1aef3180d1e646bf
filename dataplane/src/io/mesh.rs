//! Datagrams, questions and orders that cross from one shard (or the admin thread) to another.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
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

/// A question to a shard.
pub(super) enum Question {
    /// Report counters and sizes.
    Metrics(Sender<ShardMetrics>),
    /// Report the calls as JSON objects, one a line.
    Calls(Sender<String>),
    /// Report whether calls can be taken.
    Ready(Sender<bool>),
    /// Report on the replication.
    Cluster(Sender<(u16, ClusterReport)>),
}

/// What a shard is told to do. Orders of one kind that were not taken yet are one, the newest, so
/// that there is room for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Look at the board of the cluster.
    Look,
    /// Take other keys of the cluster.
    Keys(replication::ClusterKeys),
    /// Refuse new calls from now on.
    Drain,
    /// Say good-bye to the CDFs and leave the loop.
    Stop,
}

/// Orders that were not taken yet.
struct Orders {
    /// Bit per kind.
    given: AtomicU8,
    keys: ArrayQueue<replication::ClusterKeys>,
    /// The shard was told to leave its loop: it takes no order after that.
    is_last: AtomicBool,
}

impl Orders {
    fn give(&self, order: Order) {
        let bit = match order {
            Order::Look => LOOK,
            Order::Keys(keys) => {
                self.keys.force_push(keys);
                KEYS
            }
            Order::Drain => DRAIN,
            Order::Stop => {
                self.is_last.store(true, Ordering::Release);
                STOP
            }
        };
        self.given.fetch_or(bit, Ordering::AcqRel);
    }

    fn take(&self) -> impl Iterator<Item = Order> + use<> {
        let given = match self.given.load(Ordering::Acquire) {
            0 => 0,
            _ => self.given.swap(0, Ordering::AcqRel),
        };
        let has_keys = given & KEYS != 0;
        let keys = has_keys.then(|| self.keys.pop().map(Order::Keys)).flatten();
        let others = [
            (LOOK, Order::Look),
            (DRAIN, Order::Drain),
            (STOP, Order::Stop),
        ];
        let others = others.into_iter().filter(move |(bit, _)| given & bit != 0);
        keys.into_iter().chain(others.map(|(_, order)| order))
    }
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
    questions: Arc<ArrayQueue<Question>>,
    orders: Arc<Orders>,
    bell: Doorbell,
}

impl Inlet {
    pub(super) fn new(bell: Doorbell) -> Self {
        Self {
            hops: Arc::new(ArrayQueue::new(HOPS_MAX)),
            questions: Arc::new(ArrayQueue::new(QUESTIONS_MAX)),
            orders: Arc::new(Orders {
                given: AtomicU8::new(0),
                keys: ArrayQueue::new(1),
                is_last: AtomicBool::new(false),
            }),
            bell,
        }
    }

    /// Hands a datagram over; it comes back when the queue is full.
    pub(super) fn hand_over(&self, hop: Hop) -> Result<(), Hop> {
        self.hops.push(hop)?;
        self.bell.ring();
        Ok(())
    }

    /// Asks a question; false when too many wait.
    #[must_use]
    pub(super) fn ask(&self, question: Question) -> bool {
        let taken = self.questions.push(question).is_ok();
        self.bell.ring();
        taken
    }

    /// Gives an order, which is not lost whatever waits.
    pub(super) fn order(&self, order: Order) {
        self.orders.give(order);
        self.bell.ring();
    }

    /// Whether the shard has taken its orders, or need not any more.
    pub(super) fn has_taken_orders(&self) -> bool {
        let none = self.orders.given.load(Ordering::Acquire) == 0;
        none || self.orders.is_last.load(Ordering::Acquire)
    }

    /// The shard is awake: it needs no ringing.
    pub(super) fn wake(&self) {
        self.bell.wake();
    }

    /// The shard is about to sleep. False when it may not, for something waits.
    pub(super) fn sleep(&self) -> bool {
        self.bell.sleep();
        let is_quiet = self.orders.given.load(Ordering::Acquire) == 0;
        is_quiet && self.hops.is_empty() && self.questions.is_empty()
    }

    pub(super) fn next_hop(&self) -> Option<Hop> {
        self.hops.pop()
    }

    pub(super) fn next_question(&self) -> Option<Question> {
        self.questions.pop()
    }

    pub(super) fn orders(&self) -> impl Iterator<Item = Order> + use<> {
        self.orders.take()
    }
}

/// Datagrams that may wait for one shard: 4 ms of a million datagrams a second.
const HOPS_MAX: usize = 4_096;
/// Places of the histogram of waits: up to 2^17 us, and what is longer.
const WAIT_PLACES: usize = 19;
/// Questions that may wait for one shard.
const QUESTIONS_MAX: usize = 64;
const LOOK: u8 = 1;
const KEYS: u8 = 2;
const DRAIN: u8 = 4;
const STOP: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shard_is_told_to_do_is_not_lost_among_questions() {
        let (bell, _socket) = Doorbell::new().expect("a socket pair");
        let inlet = Inlet::new(bell);
        let (reply, _answers) = crossbeam::channel::bounded(1);
        let asked = (0..2 * QUESTIONS_MAX).filter(|_| inlet.ask(Question::Ready(reply.clone())));
        assert_eq!(asked.count(), QUESTIONS_MAX);
        let keys = |id| replication::ClusterKeys {
            current: (id, [7; 32]),
            other: None,
        };
        inlet.order(Order::Drain);
        for id in 0..100 {
            inlet.order(Order::Look);
            inlet.order(Order::Keys(keys(id)));
        }
        inlet.order(Order::Stop);
        while inlet.next_question().is_some() {}
        assert!(!inlet.sleep(), "there is something to do");
        let given: Vec<Order> = inlet.orders().collect();
        let wanted = [
            Order::Keys(keys(99)),
            Order::Look,
            Order::Drain,
            Order::Stop,
        ];
        assert_eq!(given, wanted);
        assert_eq!(inlet.orders().count(), 0);
        assert!(inlet.sleep());
    }

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
