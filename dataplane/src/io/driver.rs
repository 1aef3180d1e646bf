//! The loop of a shard on its glommio executor.
//!
//! Each source of input is a small task: a UDP listener, the bell of the mesh, the timer, each
//! Diameter connection. A task waits for ONE thing, feeds it to the shard and takes a turn:
//! settle, send datagrams, ring the writers of the Diameter connections, arm the timer.

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::{AsyncReadExt, FutureExt};
use glommio::timer::Timer;
use glommio::{Latency, LocalExecutorBuilder, Placement, Shares, TaskQueueHandle};
use socket2::Socket;

use super::clock::Clock;
use super::mesh::{Hop, Inlet, Order, ShardMetrics};
use super::stream::Connections;
use super::sys::{self, Receiver, Sender};
use super::udp;
use super::wake::Bell;
use super::{NodeError, calls_json};
use crate::b2bua::Origin;
use crate::env::ListenerId;
use crate::shard::{Parts, Shard, Taken};

/// What a shard's thread is started with.
pub(super) struct Seat {
    pub(super) number: u16,
    pub(super) core: Option<usize>,
    pub(super) sockets: Vec<Socket>,
    pub(super) inlets: Vec<Inlet>,
    pub(super) bell: UnixStream,
    pub(super) clock: Clock,
}

/// Everything the tasks of one shard share.
pub(super) struct Turn {
    pub(super) shard: RefCell<Shard>,
    pub(super) clock: Clock,
    pub(super) connections: Connections,
    number: u16,
    sender: RefCell<Sender>,
    sockets: Vec<RawFd>,
    inlets: Vec<Inlet>,
    timer_bell: Bell,
    armed: Cell<Option<quanta::Instant>>,
    stopped: Bell,
    pub(super) queue: TaskQueueHandle,
}

/// Runs a shard until it is told to stop. Blocks the calling thread.
pub(super) fn run(
    seat: Seat,
    parts: impl FnOnce(charging::time::Now) -> Result<(Parts, Vec<crate::b2bua::CallState>), NodeError>
    + Send
    + 'static,
) -> Result<std::thread::JoinHandle<()>, NodeError> {
    let placement = seat.core.map_or(Placement::Unbound, Placement::Fixed);
    let name = format!("shard-{}", seat.number);
    let started = std::sync::mpsc::channel();
    let report = started.0;
    let thread = std::thread::Builder::new()
        .name(name.clone())
        .spawn(move || {
            let executor = LocalExecutorBuilder::new(placement)
                .name(&name)
                .io_memory(IO_MEMORY)
                .ring_depth(RING_DEPTH)
                .preempt_timer(Duration::from_millis(1))
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
                        serve(seat, parts, states).await;
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

async fn serve(seat: Seat, parts: Parts, states: Vec<crate::b2bua::CallState>) {
    // The default queue delays wakeups by up to 100 ms on a busy shard.
    let queue = glommio::executor().create_task_queue(
        Shares::default(),
        Latency::Matters(Duration::from_millis(1)),
        "sip",
    );
    let now = seat.clock.now();
    let mut shard = Shard::new(parts, now);
    shard.resume(now, states.into_iter());
    let turn = Rc::new(Turn {
        shard: RefCell::new(shard),
        clock: seat.clock,
        connections: Connections::default(),
        number: seat.number,
        sender: RefCell::new(Sender::new()),
        sockets: seat.sockets.iter().map(udp::descriptor).collect(),
        inlets: seat.inlets,
        timer_bell: Bell::default(),
        armed: Cell::new(None),
        stopped: Bell::default(),
        queue,
    });
    for (listener, socket) in seat.sockets.into_iter().enumerate() {
        spawn(
            &turn,
            listen(turn.clone(), socket, ListenerId::new(listener)),
        );
    }
    spawn(&turn, watch_mesh(turn.clone(), seat.bell));
    spawn(&turn, watch_timer(turn.clone()));
    turn.take();
    turn.stopped.wait().await;
    // Let the connections send their DPR.
    Timer::new(Duration::from_millis(200)).await;
}

/// Starts a task in the shard's queue.
pub(super) fn spawn(turn: &Rc<Turn>, task: impl std::future::Future<Output = ()> + 'static) {
    glommio::spawn_local_into(task, turn.queue)
        .expect("the shard's queue lives as long as its executor")
        .detach();
}

async fn listen(turn: Rc<Turn>, socket: Socket, listener: ListenerId) {
    let socket = sys::glommio_udp(socket);
    let fd = udp::descriptor(&socket);
    let mut receiver = Receiver::new();
    loop {
        let mut byte = [0];
        if socket.peek_from(&mut byte).await.is_err() {
            // An ICMP error of an earlier datagram; the next wait starts afresh.
            glommio::executor().yield_task_queue_now().await;
            continue;
        }
        // A few batches, then the other tasks have their turn.
        for _ in 0..BATCHES_A_TURN {
            let got = receiver.receive(fd).unwrap_or(0);
            if got == 0 {
                break;
            }
            let now = turn.clock.now();
            for (from, bytes) in receiver.datagrams() {
                turn.take_datagram(now, Origin { from, listener }, bytes);
            }
            turn.take();
            if got < sys::BATCH {
                break;
            }
        }
        glommio::executor().yield_if_needed().await;
    }
}

async fn watch_mesh(turn: Rc<Turn>, bell: UnixStream) {
    let mut bell = sys::glommio_bell(bell);
    let own = turn.inlets[usize::from(turn.number)].clone();
    let mut ring = [0; 8];
    while bell.read(&mut ring).await.is_ok_and(|got| got > 0) {
        own.answer_bell();
        let now = turn.clock.now();
        while let Some(hop) = own.next_hop() {
            turn.take_hop(now, hop);
        }
        while let Some(order) = own.next_order() {
            turn.obey(order);
        }
        turn.take();
    }
}

async fn watch_timer(turn: Rc<Turn>) {
    loop {
        let deadline = turn.shard.borrow_mut().next_deadline();
        turn.armed.set(deadline);
        let now = turn.clock.now();
        match deadline {
            Some(due) if due <= now.instant => {
                turn.shard.borrow_mut().handle_timeout(now);
                turn.take();
                glommio::executor().yield_if_needed().await;
            }
            Some(due) => {
                let wait = due.duration_since(now.instant).max(TIMER_SLACK);
                let sleep = Timer::new(wait);
                let sleep = async {
                    sleep.await;
                };
                turn.timer_bell.wait().or(sleep).await;
            }
            None => turn.timer_bell.wait().await,
        }
    }
}

impl Turn {
    fn take_datagram(&self, now: charging::time::Now, origin: Origin, bytes: &[u8]) {
        let mut shard = self.shard.borrow_mut();
        if let Taken::Elsewhere(other) = shard.handle_datagram(now, origin, bytes) {
            let copy = shard.env().pool.copy_of(bytes);
            let hop = Hop {
                from: origin.from,
                listener: origin.listener,
                bytes: copy,
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

    fn take_hop(&self, now: charging::time::Now, hop: Hop) {
        let mut shard = self.shard.borrow_mut();
        let _ = shard.handle_datagram(now, hop.origin(), &hop.bytes);
        shard.env().pool.give(hop.bytes);
    }

    /// Ends a turn: settle, send, arm.
    pub(super) fn take(self: &Rc<Self>) {
        let now = self.clock.now();
        {
            let mut shard = self.shard.borrow_mut();
            shard.handle_timeout(now);
            shard.settle(now);
            let (out, counters) = shard.outbox_and_counters();
            udp::flush(out, &mut self.sender.borrow_mut(), &self.sockets, counters);
        }
        self.connections.serve(self);
        let deadline = self.shard.borrow_mut().next_deadline();
        let earlier = match (deadline, self.armed.get()) {
            (Some(new), Some(armed)) => new < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if earlier {
            self.armed.set(deadline);
            self.timer_bell.ring();
        }
    }

    fn obey(self: &Rc<Self>, order: Order) {
        let mut shard = self.shard.borrow_mut();
        match order {
            Order::Metrics(reply) => {
                let _ = reply.send(self.metrics(&mut shard));
            }
            Order::Calls(reply) => {
                let _ = reply.send(calls_json::lines(shard.b2bua()));
            }
            Order::Ready(reply) => {
                let _ = reply.send(shard.is_ready());
            }
            Order::Drain => shard.drain(),
            Order::Stop => {
                let now = self.clock.now();
                let cause = charging::diameter::base::DisconnectCause::Rebooting;
                shard.router().stop(now.instant, cause);
                self.stopped.ring();
            }
        }
    }

    fn metrics(&self, shard: &mut Shard) -> ShardMetrics {
        let ctf = shard.b2bua().ctf_counters();
        let mut counters = shard.env().counters;
        counters.acr_start_produced = ctf.acr_start_made;
        counters.acr_interim_produced = ctf.acr_interim_made;
        counters.acr_stop_produced = ctf.acr_stop_made;
        counters.acr_event_produced = ctf.acr_event_made;
        ShardMetrics {
            shard: self.number,
            counters,
            calls: shard.b2bua().call_count() as u64,
            transactions: shard.b2bua().transaction_count() as u64,
            timers: shard.env().wheel.len() as u64,
            backlog: shard.backlog_len(),
            ring_fill_percent: u64::from(shard.ring_fill_percent()),
            cdf_up: u64::from(shard.router().available()),
            cpu_ns: sys::thread_cpu_ns(),
        }
    }
}

/// Memory that glommio pins per executor, bytes; its default is 30 MiB, and datagrams do not use
/// it.
const IO_MEMORY: usize = 64 << 10;
/// Entries of the io_uring rings: one per listener and Diameter connection and a few more.
const RING_DEPTH: usize = 128;
/// A shard that sleeps is woken for its timers no more often than this: timers that are due
/// within it fire together. One that is busy looks at every turn.
const TIMER_SLACK: Duration = Duration::from_millis(4);
/// Batches read before the other tasks of the shard have their turn.
const BATCHES_A_TURN: usize = 4;
