//! Diameter over TCP: the sockets behind a shard's router.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use charging::diameter::routing::{IoAction, PeerIndex, Router};
use glommio::net::TcpStream;
use quanta::Instant;

use super::sys;
use super::wait::{Reactor, Waiter, Watch};

/// The connections of a shard.
pub(super) struct Connections {
    open: Vec<Connection>,
    // Attempts under way, and how those that are over ended.
    connecting: usize,
    attempts: Rc<RefCell<Vec<Attempt>>>,
    reactor: Rc<Reactor>,
    buffer: Vec<u8>,
}

/// How opening a connection ended.
type Attempt = (PeerIndex, io::Result<TcpStream>);

struct Connection {
    peer: PeerIndex,
    fd: RawFd,
    watch: Rc<Watch>,
    place: usize,
    // Since when something waits for company, and whether the socket is full.
    waiting_since: Option<Instant>,
    is_full: bool,
    is_over: bool,
}

impl Connections {
    pub(super) fn new(reactor: Rc<Reactor>) -> Self {
        Self {
            open: Vec::new(),
            connecting: 0,
            attempts: Rc::default(),
            reactor,
            buffer: vec![0; READ_BUFFER],
        }
    }

    /// Whether the shard may wait in the kernel for traffic: opening a connection takes the
    /// reactor.
    pub(super) const fn is_settled(&self) -> bool {
        self.connecting == 0
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether a socket is full: only [`Waiter::look`] tells when it takes more.
    pub(super) fn is_stuck(&self) -> bool {
        self.open.iter().any(|connection| connection.is_full)
    }

    /// Names the sockets to look at.
    pub(super) fn add_to(&mut self, waiter: &mut Waiter) {
        for connection in &mut self.open {
            connection.place = waiter.add(connection.fd, connection.is_full);
        }
    }

    /// When small writes have waited long enough even for a turn to leave with.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.open
            .iter()
            .filter(|connection| !connection.is_full)
            .filter_map(|connection| Some(connection.waiting_since? + GATHER_MAX))
            .min()
    }

    /// Feeds the router with what has come: bytes, ends of streams, opened connections.
    pub(super) fn read(&mut self, now: Instant, waiter: &Waiter, router: &mut Router) {
        for place in 0..self.open.len() {
            if waiter.is_ready(self.open[place].place) {
                self.read_one(place, now, router);
            }
        }
        self.drop_ended();
        if self.connecting > 0 {
            self.enter_attempts(now, router);
        }
    }

    fn read_one(&mut self, place: usize, now: Instant, router: &mut Router) {
        let connection = &mut self.open[place];
        connection.is_full = false;
        // What is left after these keeps the socket ready for the next turn.
        for _ in 0..READS_A_TURN {
            match sys::receive_now(connection.fd, &mut self.buffer) {
                Ok(0) => return connection.fail(now, router),
                Ok(got) => {
                    router.handle_bytes(now, connection.peer, &self.buffer[..got]);
                    if got < self.buffer.len() {
                        return;
                    }
                }
                Err(error) if is_passing(&error) => return,
                Err(_) => return connection.fail(now, router),
            }
        }
    }

    fn enter_attempts(&mut self, now: Instant, router: &mut Router) {
        let attempts = std::mem::take(&mut *self.attempts.borrow_mut());
        for (peer, opened) in attempts {
            self.connecting -= 1;
            let Ok(stream) = opened else {
                router.on_connect_failed(now, peer);
                continue;
            };
            let fd = stream.as_raw_fd();
            let watch = self.reactor.watch(async move || {
                let _ = stream.peek(&mut [0]).await;
            });
            self.open.push(Connection {
                peer,
                fd,
                watch,
                place: usize::MAX,
                waiting_since: None,
                is_full: false,
                is_over: false,
            });
            router.on_connected(now, peer);
        }
    }

    /// Does what the router asks for: connect, close, and write.
    pub(super) fn serve(&mut self, now: Instant, router: &mut Router, is_draining: bool) {
        // Records from the backlog leave one by one: each would wait for company that cannot come.
        let gather = if is_draining { Duration::ZERO } else { GATHER };
        // A connection that fails makes the router ask for more.
        loop {
            while let Some(action) = router.poll_io() {
                match action {
                    IoAction::Connect { peer, address } => self.connect(peer, address),
                    IoAction::Close { peer } => self.close(now, peer, router),
                }
            }
            for connection in &mut self.open {
                connection.write(now, router, gather);
            }
            if !self.drop_ended() {
                return;
            }
        }
    }

    fn connect(&mut self, peer: PeerIndex, address: SocketAddr) {
        self.connecting += 1;
        let (attempts, reactor) = (self.attempts.clone(), self.reactor.clone());
        glommio::spawn_local(async move {
            let opened = TcpStream::connect_timeout(address, CONNECT_TIMEOUT).await;
            let opened = opened.map_err(io::Error::from).and_then(|stream| {
                stream.set_nodelay(true)?;
                Ok(stream)
            });
            attempts.borrow_mut().push((peer, opened));
            reactor.ring();
        })
        .detach();
    }

    fn close(&mut self, now: Instant, peer: PeerIndex, router: &mut Router) {
        for connection in &mut self.open {
            if connection.peer == peer {
                // Whatever is left, a disconnect request for one, leaves in front of the end.
                connection.write(now, router, Duration::ZERO);
                connection.is_over = true;
            }
        }
        self.drop_ended();
    }

    fn drop_ended(&mut self) -> bool {
        let before = self.open.len();
        self.open.retain(|connection| {
            if connection.is_over {
                sys::shut_down(connection.fd);
                connection.watch.end();
            }
            !connection.is_over
        });
        self.open.len() < before
    }
}

impl Connection {
    fn write(&mut self, now: Instant, router: &mut Router, gather: Duration) {
        let Some(waiting) = router.transmit(self.peer) else {
            return;
        };
        if waiting.is_empty() || self.is_full || self.is_over {
            return;
        }
        let since = *self.waiting_since.get_or_insert(now);
        if waiting.len() < FULL_SEGMENT && now.duration_since(since) < gather {
            return;
        }
        match sys::send_now(self.fd, waiting) {
            Ok(sent) if sent == waiting.len() => {
                waiting.clear();
                self.waiting_since = None;
            }
            Ok(sent) => {
                waiting.drain(..sent);
                self.is_full = true;
            }
            Err(error) if is_passing(&error) => self.is_full = true,
            Err(_) => self.fail(now, router),
        }
    }

    fn fail(&mut self, now: Instant, router: &mut Router) {
        if !self.is_over {
            self.is_over = true;
            router.on_closed(now, self.peer);
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Longest wait for a TCP connection to a CDF.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a small write waits for company: records of the next moment share a segment, its
/// answer and two wake-ups; at 1,000 calls a second four of them do. A CDF is in no such hurry
/// as a phone.
const GATHER: Duration = Duration::from_millis(2);
/// How long it waits for a turn that is taken for another reason: under load one comes within a
/// millisecond, and waking the shard for the write alone would cost as much as for a datagram.
const GATHER_MAX: Duration = Duration::from_millis(6);
const _: () = assert!(GATHER.as_millis() < GATHER_MAX.as_millis());
/// From this many bytes on a write does not wait.
const FULL_SEGMENT: usize = 16 << 10;
/// Bytes read from a connection at once.
const READ_BUFFER: usize = 16 << 10;
/// Reads from one connection before the others have their turn.
const READS_A_TURN: usize = 4;
