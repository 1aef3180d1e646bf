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
            let failed = send_all(sender, ports[self.port].fd, &self.batch, &self.bytes);
            shard.env().counters.peer_datagram_send_failed += failed;
        }
    }
}

// Sends a batch, each datagram of which says where it begins and ends in `bytes`; says how many the
// kernel did not take.
fn send_all(
    sender: &mut Sender,
    fd: RawFd,
    batch: &[(SocketAddr, usize, usize)],
    bytes: &[u8],
) -> u64 {
    let (mut start, mut failed) = (0, 0);
    while start < batch.len() {
        let left = batch[start..].iter();
        let left = left.map(|(to, from, until)| (*to, &bytes[*from..*until]));
        match sender.send(fd, left) {
            Ok(sent) if sent > 0 => start += sent,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The kernel's buffer is full.
            Ok(_) => return failed + (batch.len() - start) as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return failed + (batch.len() - start) as u64;
            }
            // One node cannot be reached: the others can.
            Err(_) => {
                failed += 1;
                start += 1;
            }
        }
    }
    failed
}

/// Batches to other nodes in one turn; what is left asks for the next turn at once.
const BATCHES_A_TURN: usize = 8;
/// Wanted size of the kernel's buffers, bytes: 50 ms at a gigabit per second.
const SOCKET_BUFFER: usize = 8 << 20;
/// How long a taken address may become free.
const TAKEN_WAIT: Duration = Duration::from_secs(3);
const TAKEN_POLL: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_cannot_be_reached_is_counted_and_keeps_nothing_from_the_others() {
        let (from, to) = (
            std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback has free ports"),
            std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback has free ports"),
        );
        let good = to.local_addr().expect("a bound socket has an address");
        // Not from the loopback.
        let bad: SocketAddr = "192.0.2.1:7000".parse().expect("a literal");
        let batch = [(good, 0, 2), (bad, 2, 4), (bad, 4, 6), (good, 6, 8)];
        let failed = send_all(&mut Sender::new(), from.as_raw_fd(), &batch, b"aabbccdd");
        assert_eq!(failed, 2);
        let mut buffer = [0; 4];
        for expected in [b"aa", b"dd"] {
            let length = to.recv(&mut buffer).expect("it was sent");
            assert_eq!(&buffer[..length], expected);
        }
    }
}
