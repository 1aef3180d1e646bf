//! The loop around the phones: sockets, the clock and the schedule of arrivals.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use dataplane::env::SplitMix64;
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};

use crate::latency::Latency;
use crate::ledger::{Call, Ledger};
use crate::phone::Phone;
use crate::plan::{Run, Side};

/// Where the phones are and whom they talk to.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The caller's socket.
    pub caller: SocketAddr,
    /// The callee's socket.
    pub callee: SocketAddr,
    /// The server under test, or the nodes of one.
    pub targets: Vec<SocketAddr>,
}

/// When calls begin. The schedule is fixed beforehand: no answer, early or late, moves it.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Calls per second.
    pub rate: f64,
    /// Number of the first call.
    pub first: u32,
    /// How many calls.
    pub calls: u32,
    /// Exponential gaps instead of equal ones.
    pub poisson: bool,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Calls begun.
    pub begun: u32,
    /// Calls going on.
    pub active: u32,
}

/// What a run leaves.
pub struct Outcome {
    /// Every call, with both phones' views.
    pub calls: Vec<Call>,
    /// Both phones' measurements.
    pub latency: Latency,
    /// Calls that had begun when the run ended.
    pub begun: u32,
    /// How late the phones were at worst against their own schedule.
    pub lag: Duration,
}

/// Runs both phones, each on a thread of its own, until every call has ended.
///
/// # Errors
/// A socket cannot be had or fails.
pub fn run(
    run: &Run,
    addresses: &Addresses,
    schedule: Schedule,
    report: impl FnMut(Progress),
) -> io::Result<Outcome> {
    let (outcome, ()) = run_and_stay(run, addresses, schedule, report, || ())?;
    Ok(outcome)
}

/// The same, and the phones go on answering what comes again until `after` returns, which is called
/// once the caller has no call left: a BYE whose answer was lost is repeated for 64*T1 to a phone
/// that has gone.
///
/// # Errors
/// A socket cannot be had or fails.
pub fn run_and_stay<A>(
    run: &Run,
    addresses: &Addresses,
    schedule: Schedule,
    mut report: impl FnMut(Progress),
    after: impl FnOnce() -> A,
) -> io::Result<(Outcome, A)> {
    let mut callee = Driver::new(addresses.callee, |local| {
        Phone::new(Side::Callee, run.clone(), local, &addresses.targets)
    })?;
    let mut caller = Driver::new(addresses.caller, |local| {
        Phone::new(Side::Caller, run.clone(), local, &addresses.targets)
    })?;
    let is_over = AtomicBool::new(false);
    let (progress, reports) = mpsc::channel();
    let mut arrivals = Arrivals::new(schedule, run.seed);
    std::thread::scope(|scope| {
        let is_over = &is_over;
        let callee = scope.spawn(move || callee.answer(is_over).map(|()| callee));
        let caller = scope.spawn(move || {
            caller.call(&mut arrivals, &progress)?;
            drop(progress);
            caller.answer(is_over).map(|()| caller)
        });
        for progress in reports {
            report(progress);
        }
        let left = after();
        is_over.store(true, Ordering::Release);
        let caller = caller.join().expect("a phone does not panic")?;
        let callee = callee.join().expect("a phone does not panic")?;
        Ok((outcome(run, schedule, caller, callee), left))
    })
}

fn outcome(run: &Run, schedule: Schedule, caller: Driver, callee: Driver) -> Outcome {
    let ids: Vec<String> = (schedule.first..schedule.first + schedule.calls)
        .map(|number| caller.phone.call_id(number))
        .collect();
    let lag = caller.lag;
    let (begun, _) = caller.phone.progress();
    let (called, mut latency): (Ledger, Latency) = caller.phone.into_results();
    let (answered, more) = callee.phone.into_results();
    latency.add(&more);
    let calls = (schedule.first..)
        .zip(ids)
        .map(|(number, call_id)| Call {
            call_id,
            plan: run.plan(number),
            caller: called.of(number),
            callee: answered.of(number),
        })
        .collect();
    Outcome {
        calls,
        latency,
        begun,
        lag,
    }
}

/// One phone on one socket.
struct Driver {
    phone: Phone,
    socket: UdpSocket,
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    lag: Duration,
}

impl Driver {
    fn new(local: SocketAddr, phone: impl FnOnce(SocketAddr) -> Phone) -> io::Result<Self> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(local),
            socket2::Type::DGRAM,
            Some(socket2::Protocol::UDP),
        )?;
        // The kernel takes less where its limit is lower.
        socket.set_recv_buffer_size(SOCKET_BUFFER)?;
        socket.set_send_buffer_size(SOCKET_BUFFER)?;
        socket.bind(&local.into())?;
        socket.set_nonblocking(true)?;
        let mut socket = UdpSocket::from_std(socket.into());
        let poll = Poll::new()?;
        poll.registry()
            .register(&mut socket, Token(0), Interest::READABLE)?;
        Ok(Self {
            phone: phone(socket.local_addr()?),
            socket,
            poll,
            events: Events::with_capacity(8),
            buffer: vec![0; 1 << 16],
            lag: Duration::ZERO,
        })
    }

    /// Places the calls of the schedule, then waits until all have ended.
    fn call(&mut self, arrivals: &mut Arrivals, progress: &Sender<Progress>) -> io::Result<()> {
        let mut next_report = Instant::now();
        loop {
            let now = Instant::now();
            while let Some((due, number)) = arrivals.take(now) {
                self.lag = self.lag.max(now.saturating_duration_since(due));
                self.phone.place(now, due, number);
                self.send()?;
            }
            if now >= next_report {
                let (begun, active) = self.phone.progress();
                // Nobody listening is no reason to stop.
                let _ = progress.send(Progress { begun, active });
                next_report = now + REPORT_EVERY;
            }
            if arrivals.next_due().is_none() && self.phone.is_idle() {
                return Ok(());
            }
            let wake = arrivals
                .next_due()
                .map_or(next_report, |due| due.min(next_report));
            self.turn(wake)?;
        }
    }

    /// Answers until it is over and no call is left.
    fn answer(&mut self, is_over: &AtomicBool) -> io::Result<()> {
        let mut deadline = None;
        loop {
            if deadline.is_none() && is_over.load(Ordering::Acquire) {
                deadline = Some(Instant::now() + LEFT_OVER_MAX);
            }
            if let Some(deadline) = deadline
                && (self.phone.is_idle() || Instant::now() >= deadline)
            {
                return Ok(());
            }
            self.turn(Instant::now() + REPORT_EVERY)?;
        }
    }

    /// Waits for a datagram, an alarm or `wake`, and serves it.
    fn turn(&mut self, wake: Instant) -> io::Result<()> {
        let wake = self
            .phone
            .deadline()
            .map_or(wake, |deadline| deadline.min(wake));
        let patience = wake.saturating_duration_since(Instant::now());
        match self.poll.poll(&mut self.events, Some(patience)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for received in 0.. {
            match self.socket.recv_from(&mut self.buffer) {
                Ok((length, from)) => {
                    self.phone
                        .handle(Instant::now(), from, &self.buffer[..length]);
                    self.send()?;
                }
                // A port on the loopback that is not open yet or any more.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            if received % ALARMS_EVERY == 0 {
                self.phone.handle_timeout(Instant::now());
                self.send()?;
            }
        }
        self.phone.handle_timeout(Instant::now());
        self.send()
    }

    fn send(&mut self) -> io::Result<()> {
        while let Some((to, bytes)) = self.phone.poll() {
            match self.socket.send_to(&bytes, to) {
                Err(error)
                    if !matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused
                    ) =>
                {
                    return Err(error);
                }
                // A datagram that found no room is lost like any other: it will be sent again.
                _ => self.phone.recycle(bytes),
            }
        }
        Ok(())
    }
}

/// The schedule as it runs.
struct Arrivals {
    schedule: Schedule,
    random: SplitMix64,
    next: Option<Instant>,
    placed: u32,
}

impl Arrivals {
    fn new(schedule: Schedule, seed: u64) -> Self {
        Self {
            schedule,
            random: SplitMix64::new(seed),
            next: (schedule.calls > 0).then(Instant::now),
            placed: 0,
        }
    }

    const fn next_due(&self) -> Option<Instant> {
        self.next
    }

    /// The next call, if it is due.
    fn take(&mut self, now: Instant) -> Option<(Instant, u32)> {
        let due = self.next.filter(|due| *due <= now)?;
        let number = self.schedule.first + self.placed;
        self.placed += 1;
        let gap = if self.schedule.poisson {
            // 53 random bits in (0, 1]: the logarithm is finite.
            let uniform = ((self.random.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
            -uniform.ln() / self.schedule.rate
        } else {
            1.0 / self.schedule.rate
        };
        self.next = (self.placed < self.schedule.calls).then(|| due + Duration::from_secs_f64(gap));
        Some((due, number))
    }
}

/// How often progress is reported.
const REPORT_EVERY: Duration = Duration::from_millis(100);
/// Longest time the callee waits for calls the caller has done with: 64*T1 and a bit.
const LEFT_OVER_MAX: Duration = Duration::from_secs(35);
/// Bytes asked for a socket's queue.
const SOCKET_BUFFER: usize = 8 << 20;
/// Datagrams between two looks at the alarms.
const ALARMS_EVERY: u32 = 32;
