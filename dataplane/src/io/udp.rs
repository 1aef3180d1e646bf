//! The UDP sockets of a node: one per listener and shard, steered, read and written in batches.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use replication::frame::DATAGRAM_BYTES_MAX;

use super::sys::{self, BATCH, Sender};
use super::wait::Reactor;
use crate::counters::Counters;
use crate::env::{ListenerId, Outbox};
use crate::shard::Shard;

/// What the datagrams of a socket are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// SIP messages to that listener.
    Sip(ListenerId),
    /// The same shard of other nodes.
    Peers,
}

/// One UDP socket of a shard.
#[derive(Clone, Copy)]
pub(super) struct Port {
    pub(super) fd: RawFd,
    pub(super) serves: Use,
    /// Where the shard's waiter keeps its readiness.
    pub(super) place: usize,
}

impl Port {
    /// Takes the socket over: it stays open as long as the shard's executor.
    pub(super) fn new(socket: Socket, serves: Use, reactor: &Rc<Reactor>) -> Self {
        let socket = sys::glommio_udp(socket);
        let fd = socket.as_raw_fd();
        reactor.watch(async move || {
            // An error is an ICMP answer to an earlier datagram: for the one who reads.
            let _ = socket.peek_from(&mut [0]).await;
        });
        Self {
            fd,
            serves,
            place: usize::MAX,
        }
    }
}

/// Opens the sockets of one listener, one per shard, and steers datagrams evenly over them.
pub(super) fn open_group(address: SocketAddr, shards: usize) -> io::Result<Vec<Socket>> {
    refuse_if_taken(address)?;
    let sockets = (0..shards)
        .map(|_| open(address))
        .collect::<io::Result<Vec<_>>>()?;
    if shards > 1 {
        sys::steer_evenly(&sockets[0], shards as u32)?;
    }
    Ok(sockets)
}

// SO_REUSEPORT would share the port silently with another node that runs already. One that was
// killed keeps its sockets until the kernel has taken its io_uring down, which goes on after the
// process is gone: a node that is started again at once has to wait for that.
fn refuse_if_taken(address: SocketAddr) -> io::Result<()> {
    let until = Instant::now() + TAKEN_WAIT;
    loop {
        match std::net::UdpSocket::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(TAKEN_POLL);
            }
            other => return other.map(drop),
        }
    }
}

/// Opens one socket for itself.
pub(super) fn open_alone(address: SocketAddr) -> io::Result<Socket> {
    refuse_if_taken(address)?;
    open(address)
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    // Blocking: a read through io_uring on a non-blocking socket would fail at once instead of
    // waiting. The batched calls say MSG_DONTWAIT themselves.
    socket.set_reuse_port(true)?;
    // The kernel's default holds a few milliseconds of load: overload would become a storm of
    // drops and retransmissions. What it grants depends on net.core.rmem_max.
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Sends everything in the outbox, in order per listener, and empties it.
pub(super) fn flush(
    out: &mut Outbox,
    sender: &mut Sender,
    ports: &[Port],
    counters: &mut Counters,
) {
    let datagrams = out.datagrams();
    let mut start = 0;
    while start < datagrams.len() {
        let listener = datagrams[start].listener;
        let end = start
            + datagrams[start..]
                .iter()
                .take(BATCH)
                .take_while(|datagram| datagram.listener == listener)
                .count();
        let batch = datagrams[start..end]
            .iter()
            .map(|one| (one.to, out.payload(one)));
        // Listeners are the first ports, in their order.
        match sender.send(ports[listener.index()].fd, batch) {
            Ok(0) => break,
            Ok(sent) => {
                counters.sip_datagram_sent += sent as u64;
                start += sent;
            }
            // The first datagram of the batch cannot be sent: SIP sends it again if it matters.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => {
                counters.sip_datagram_send_failed += 1;
                start += 1;
            }
        }
    }
    out.clear();
}

/// The way to the same shard of other nodes.
#[derive(Default)]
pub(super) struct Peers {
    port: usize,
    addresses: Vec<SocketAddr>,
    /// Datagrams of one batch: where each begins and ends in `bytes`, and for whom it is.
    batch: Vec<(SocketAddr, usize, usize)>,
    bytes: Vec<u8>,
}

impl Peers {
    /// The socket is that port; `addresses` by number of the node.
    pub(super) fn new(port: usize, addresses: Vec<SocketAddr>) -> Self {
        Self {
            port,
            addresses,
            batch: Vec::with_capacity(BATCH),
            bytes: vec![0; BATCH * DATAGRAM_BYTES_MAX],
        }
    }

    /// Sends what the shard has for other nodes. What the kernel does not take is lost, as in any
    /// network, and sent again by the protocol.
    pub(super) fn flush(&mut self, shard: &mut Shard, sender: &mut Sender, ports: &[Port]) {
        if self.addresses.is_empty() {
            return;
        }
        for _ in 0..BATCHES_A_TURN {
            self.batch.clear();
            let mut start = 0;
            while self.batch.len() < BATCH
                && let Some((node, length)) = shard.poll_peer_datagram(&mut self.bytes[start..])
            {
                if let Some(address) = self.addresses.get(usize::from(node)) {
                    self.batch.push((*address, start, start + length));
                    start += length;
                }
            }
            if self.batch.is_empty() {
                return;
            }
            let datagrams = self.batch.iter();
            let datagrams = datagrams.map(|(to, from, until)| (*to, &self.bytes[*from..*until]));
            let _ = sender.send(ports[self.port].fd, datagrams);
        }
    }
}

/// Batches to other nodes in one turn; what is left asks for the next turn at once.
const BATCHES_A_TURN: usize = 8;
/// Wanted size of the kernel's buffers, bytes: 50 ms at a gigabit per second.
const SOCKET_BUFFER: usize = 8 << 20;
/// How long a taken address may become free.
const TAKEN_WAIT: Duration = Duration::from_secs(3);
const TAKEN_POLL: Duration = Duration::from_millis(5);
