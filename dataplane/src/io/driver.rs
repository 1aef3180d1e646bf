//! The loop of a shard on its glommio executor.
//!
//! One loop serves everything: it waits until a socket is ready or a deadline has come, feeds
//! what there is to the shard (UDP listeners, hops of other shards, Diameter connections), and
//! ends the turn: settle, send datagrams, write to the Diameter connections.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use charging::time::Now;
use glommio::{LocalExecutorBuilder, Placement};
use quanta::Instant;
use replication::RingCounters;
use socket2::Socket;

use super::clock::Clock;
use super::guard::Indispensable;
use super::mesh::{Hop, Inlet, Order, Question, ShardMetrics, Waits};
use super::stream::Connections;
use super::sys::{self, Receiver, Sender};
use super::udp::{self, Peers, Port, Use};
use super::wait::Waiter;
use super::{NodeError, calls_json};
use crate::b2bua::Origin;
use crate::env::ListenerId;
use crate::log::Seldom;
use crate::shard::{Parts, Shard, Taken};

/// What a shard's thread is started with.
pub(super) struct Seat {
    pub(super) number: u16,
    pub(super) core: Option<usize>,
    pub(super) sockets: Vec<Socket>,
    pub(super) inlets: Vec<Inlet>,
    pub(super) bell: UnixStream,
    pub(super) clock: Clock,
    /// Socket for the same shard of other nodes, and where that receives, by node.
    pub(super) peers: Option<(Socket, Vec<SocketAddr>)>,
}

/// Runs a shard until it is told to stop. Blocks the calling thread.
pub(super) fn run(
    seat: Seat,
    parts: impl FnOnce(Now) -> Result<(Parts, Vec<crate::b2bua::CallState>), NodeError> + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, NodeError> {
    let placement = seat.core.map_or(Placement::Unbound, Placement::Fixed);
    let name = format!("shard-{}", seat.number);
    let started = std::sync::mpsc::channel();
    let report = started.0;
    let thread = std::thread::Builder::new()
        .name(name.clone())
        .spawn(move || {
            let _indispensable = Indispensable;
            let executor = LocalExecutorBuilder::new(placement)
                .name(&name)
                .io_memory(IO_MEMORY)
                .ring_depth(RING_DEPTH)
                .make();
            let executor = match executor {
                Ok(executor) => executor,
                Err(error) => {
                    let _ = report.send(Err(NodeError::Executor(error.to_string())));
                    return;
                }
            };
            executor.run(async move {
                match parts(seat.clock.now()) {
                    Ok((parts, states)) => {
                        let _ = report.send(Ok(()));
                        Driver::new(seat, parts, states).run().await;
                    }
                    Err(error) => {
                        let _ = report.send(Err(error));
                    }
                }
            });
        })
        .map_err(|error| NodeError::Executor(error.to_string()))?;
    match started.1.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(NodeError::Executor("the shard's thread ended".to_owned())),
    }
}

/// A shard, what it waits for and what feeds it.
struct Driver {
    turn: Turn,
    receiver: Receiver,
    bell: RawFd,
    bell_place: usize,
    waiter: Waiter,
}

/// A shard and what its turns need.
struct Turn {
    shard: Shard,
    clock: Clock,
    ports: Vec<Port>,
    sender: Sender,
    connections: Connections,
    number: u16,
    inlets: Vec<Inlet>,
    peers: Peers,
    scratch: Vec<u8>,
    hop_waits: Waits,
    stops_at: Option<Instant>,
    alarms: Alarms,
}

impl Driver {
    fn new(seat: Seat, parts: Parts, states: Vec<crate::b2bua::CallState>) -> Self {
        let now = seat.clock.now();
        let mut shard = Shard::new(parts, now);
        shard.resume(now, states.into_iter());
        let waiter = Waiter::default();
        let reactor = waiter.reactor();
        let mut ports: Vec<Port> = seat
            .sockets
            .into_iter()
            .zip(0..)
            .map(|(socket, listener)| {
                Port::new(socket, Use::Sip(ListenerId::new(listener)), &reactor)
            })
            .collect();
        let peers = match seat.peers {
            Some((socket, addresses)) => {
                ports.push(Port::new(socket, Use::Peers, &reactor));
                Peers::new(ports.len() - 1, addresses)
            }
            None => Peers::default(),
        };
        let bell = seat.bell.as_raw_fd();
        let watched = sys::glommio_bell(seat.bell);
        reactor.watch(async move || {
            let _ = watched.peek(&mut [0]).await;
        });
        let turn = Turn {
            shard,
            clock: seat.clock,
            ports,
            sender: Sender::new(),
            connections: Connections::new(reactor),
            number: seat.number,
            inlets: seat.inlets,
            peers,
            scratch: Vec::new(),
            hop_waits: Waits::default(),
            stops_at: None,
            alarms: Alarms::default(),
        };
        Self {
            turn,
            receiver: Receiver::new(),
            bell,
            bell_place: usize::MAX,
            waiter,
        }
    }

    async fn run(mut self) {
        self.turn.end();
        loop {
            self.wait().await;
            let now = self.turn.clock.now();
            self.read_ports();
            if self.waiter.is_ready(self.bell_place) {
                let _ = sys::receive_now(self.bell, &mut [0; 8]);
            }
            self.turn.read_mesh();
            self.turn.read_connections(now, &self.waiter);
            self.turn.end();
            if self.turn.is_over(now.instant) {
                return;
            }
        }
    }

    /// Waits for a socket or a deadline.
    async fn wait(&mut self) {
        self.name_sockets();
        let turn = &mut self.turn;
        let now = turn.clock.now().instant;
        let due = turn.deadline(now);
        let until_due = due.map(|due| due.saturating_duration_since(now));
        let may_sleep = turn.inlet().sleep();
        let patience = if may_sleep && turn.connections.is_settled() {
            until_due.unwrap_or(LINGER).min(LINGER)
        } else {
            Duration::ZERO
        };
        let found = self.waiter.look(patience);
        let is_due = until_due.is_some_and(|left| left <= patience);
        // Nothing to do is the time to make room in the ring, a little at a time.
        let is_idle = may_sleep && !found && !is_due;
        if is_idle && !turn.shard.make_room() {
            let time = if turn.connections.is_stuck() {
                Some(Duration::ZERO)
            } else {
                due.map(|due| due.saturating_duration_since(turn.clock.now().instant))
            };
            self.waiter.rest(time).await;
            self.waiter.look(Duration::ZERO);
        }
        self.turn.inlet().wake();
    }

    fn name_sockets(&mut self) {
        self.waiter.clear();
        for port in &mut self.turn.ports {
            port.place = self.waiter.add(port.fd, false);
        }
        self.bell_place = self.waiter.add(self.bell, false);
        self.turn.connections.add_to(&mut self.waiter);
    }

    fn read_ports(&mut self) {
        for number in 0..self.turn.ports.len() {
            let Port { fd, serves, place } = self.turn.ports[number];
            if !self.waiter.is_ready(place) {
                continue;
            }
            for _ in 0..BATCHES_A_TURN {
                let got = self.receiver.receive(fd).unwrap_or(0);
                // Read before, the clock would have messages arrive earlier than they were sent
                // when the thread had to wait for its core.
                let now = self.turn.clock.now();
                for (from, bytes) in self.receiver.datagrams() {
                    match serves {
                        Use::Sip(listener) => {
                            self.turn.take_sip(now, Origin { from, listener }, bytes);
                        }
                        Use::Peers => self.turn.take_from_peer(now, bytes),
                    }
                }
                if got < sys::BATCH {
                    break;
                }
                self.turn.end();
            }
        }
    }
}

impl Turn {
    fn inlet(&self) -> &Inlet {
        &self.inlets[usize::from(self.number)]
    }

    // A shard that sleeps is woken for its timers no more often than the slack allows; one that
    // did not get through what was due goes on at once.
    fn deadline(&mut self, now: Instant) -> Option<Instant> {
        let timers = self.shard.next_deadline().map(|due| {
            if due <= now {
                due
            } else {
                due.max(now + TIMER_SLACK)
            }
        });
        [timers, self.connections.next_deadline(), self.stops_at]
            .into_iter()
            .flatten()
            .min()
    }

    fn take_sip(&mut self, now: Now, origin: Origin, bytes: &[u8]) {
        let shard = &mut self.shard;
        if let Taken::Elsewhere(other) = shard.handle_datagram(now, origin, bytes) {
            let hop = Hop {
                from: origin.from,
                listener: origin.listener,
                bytes: shard.env().pool.copy_of(bytes),
                since: self.clock.now().instant,
            };
            let refused = match self.inlets.get(usize::from(other)) {
                Some(inlet) => inlet.hand_over(hop).err(),
                None => Some(hop),
            };
            if let Some(hop) = refused {
                shard.env().counters.sip_hand_over_dropped += 1;
                shard.env().pool.give(hop.bytes);
            }
        }
    }

    fn take_from_peer(&mut self, now: Now, bytes: &[u8]) {
        self.scratch.clear();
        self.scratch.extend_from_slice(bytes);
        self.shard.handle_peer_datagram(now, &mut self.scratch);
    }

    fn read_mesh(&mut self) {
        let now = self.clock.now();
        // What comes in meanwhile waits for the next turn.
        for _ in 0..HOPS_A_TURN {
            let Some(hop) = self.inlet().next_hop() else {
                break;
            };
            self.hop_waits
                .add(now.instant.saturating_duration_since(hop.since));
            let _ = self.shard.handle_datagram(now, hop.origin(), &hop.bytes);
            self.shard.env().pool.give(hop.bytes);
        }
        while let Some(question) = self.inlet().next_question() {
            self.answer(question);
        }
        for order in self.inlet().orders() {
            self.obey(order, now);
        }
    }

    fn read_connections(&mut self, now: Now, waiter: &Waiter) {
        let router = self.shard.router();
        self.connections.read(now.instant, waiter, router);
    }

    /// Ends a turn: settle, send, write.
    fn end(&mut self) {
        let now = self.clock.now();
        self.shard.handle_timeout(now);
        self.shard.settle(now);
        let (out, counters) = self.shard.outbox_and_counters();
        udp::flush(out, &mut self.sender, &self.ports, counters);
        self.peers
            .flush(&mut self.shard, &mut self.sender, &self.ports);
        if let Some(ring) = self.shard.blobs_ref().ring_counters() {
            self.alarms.look(now.instant, self.number, ring);
        }
        let is_draining = self.shard.backlog_len() > 0;
        self.connections
            .serve(now.instant, self.shard.router(), is_draining);
    }

    fn is_over(&self, now: Instant) -> bool {
        self.stops_at
            .is_some_and(|at| self.connections.is_empty() || at <= now)
    }

    // Whoever asked may have gone meanwhile.
    fn answer(&mut self, question: Question) {
        match question {
            Question::Metrics(reply) => {
                let _ = reply.send(self.metrics());
            }
            Question::Calls(reply) => {
                let _ = reply.send(calls_json::lines(self.shard.b2bua()));
            }
            Question::Ready(reply) => {
                let _ = reply.send(self.shard.is_ready());
            }
            Question::Cluster(reply) => {
                let number = self.number;
                if let Some(cluster) = self.shard.blobs().cluster() {
                    let _ = reply.send((number, cluster.report()));
                }
            }
        }
    }

    fn obey(&mut self, order: Order, now: Now) {
        match order {
            Order::Look => {}
            Order::Keys(keys) => {
                if let Some(cluster) = self.shard.blobs().cluster() {
                    cluster.set_keys(keys);
                }
            }
            Order::Drain => self.shard.drain(),
            Order::Stop => {
                let cause = charging::diameter::base::DisconnectCause::Rebooting;
                self.shard.router().stop(now.instant, cause);
                self.stops_at = Some(now.instant + GOOD_BYE);
            }
        }
    }

    fn metrics(&mut self) -> ShardMetrics {
        let shard = &mut self.shard;
        let ctf = shard.b2bua().ctf_counters();
        let mut counters = shard.env().counters;
        counters.acr_start_produced = ctf.acr_start_made;
        counters.acr_interim_produced = ctf.acr_interim_made;
        counters.acr_stop_produced = ctf.acr_stop_made;
        counters.acr_event_produced = ctf.acr_event_made;
        counters.charging_class_unknown = ctf.class_unknown;
        let ring = shard.blobs_ref().ring_counters();
        let burst = ring.map_or(0, |ring| {
            ring.reclaim_burst_max.max(ring.reclaim_old_burst_max)
        });
        ShardMetrics {
            shard: self.number,
            counters,
            store: shard.blobs_ref().counters(),
            reclaim_burst_max: burst.into(),
            calls: shard.b2bua().call_count() as u64,
            transactions: shard.b2bua().transaction_count() as u64,
            timers: shard.env().wheel.len() as u64,
            backlog: shard.backlog_len(),
            ring_fill_percent: u64::from(shard.ring_fill_percent()),
            cdf_up: shard.router().reachable() as u64,
            hops_avoided: shard.hops_avoided() as u64,
            cpu_ns: sys::thread_cpu_ns(),
            hop_waits: self.hop_waits,
        }
    }
}

/// What must never happen to a ring.
#[derive(Default)]
struct Alarms {
    conflicting: Seldom,
    stuck: Seldom,
}

impl Alarms {
    fn look(&mut self, now: Instant, shard: u16, ring: &RingCounters) {
        if let Some(records) = self.conflicting.rise(now, ring.apply_conflict) {
            tracing::error!(
                shard,
                records,
                "another node sent other content under a version that is held: memory is damaged, \
                 or this is a bug"
            );
        }
        if let Some(times) = self.stuck.rise(now, ring.reclaim_stuck) {
            tracing::error!(shard, times, "the ring found no room to tidy up");
        }
    }
}

/// Memory that glommio pins per executor, bytes; its default is 30 MiB, and datagrams do not use
/// it.
const IO_MEMORY: usize = 64 << 10;
/// Entries of the io_uring rings: one per listener and Diameter connection and a few more.
const RING_DEPTH: usize = 128;
/// How long a shard waits for more traffic before it goes to rest in the reactor. It sleeps in
/// the kernel either way.
const LINGER: Duration = Duration::from_millis(10);
/// A shard that sleeps is woken for its timers no more often than this: timers that are due
/// within it fire together. One that is busy looks at every turn.
const TIMER_SLACK: Duration = Duration::from_millis(4);
/// Batches read from one socket before the others have their turn.
const BATCHES_A_TURN: usize = 4;
/// Datagrams taken from other shards before the sockets have their turn.
const HOPS_A_TURN: usize = 128;
/// Longest wait for the answers to the last messages of the Diameter connections.
const GOOD_BYE: Duration = Duration::from_millis(200);
