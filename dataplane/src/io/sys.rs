//! The few system calls that neither glommio nor socket2 offer, behind a safe face.
//!
//! `recvmmsg` and `sendmmsg` move a batch of datagrams with one system call each (glommio's own
//! `send_to` corrupts data when the socket's buffer is full, so it is not used). The steering
//! program decides which shard's socket of a `SO_REUSEPORT` group takes a datagram.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};
use std::time::Duration;

/// Datagrams moved by one system call.
pub(super) const BATCH: usize = 32;
/// Room for the largest UDP datagram, and a line of cache more, so that the slots of the arena
/// do not all fall into the same cache sets.
const SLOT: usize = 65_536 + 64;

/// Receives datagrams in batches into an arena of its own.
pub(super) struct Receiver {
    arena: Vec<u8>,
    addresses: [libc::sockaddr_storage; BATCH],
    lengths: [usize; BATCH],
    count: usize,
}

impl Receiver {
    pub(super) fn new() -> Self {
        Self {
            arena: vec![0; BATCH * SLOT],
            addresses: [empty_address(); BATCH],
            lengths: [0; BATCH],
            count: 0,
        }
    }

    /// Takes what waits on a non-blocking socket, at most [`BATCH`] datagrams. 0 when nothing
    /// waits.
    pub(super) fn receive(&mut self, fd: RawFd) -> io::Result<usize> {
        self.count = 0;
        let mut vectors: [libc::iovec; BATCH] = [empty_vector(); BATCH];
        let mut headers: [libc::mmsghdr; BATCH] = [empty_header(); BATCH];
        for (place, slot) in self.arena.chunks_exact_mut(SLOT).enumerate() {
            vectors[place] = libc::iovec {
                iov_base: slot.as_mut_ptr().cast(),
                iov_len: 65_535,
            };
            let header = &mut headers[place].msg_hdr;
            header.msg_iov = &raw mut vectors[place];
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut self.addresses[place]).cast();
            header.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as u32;
        }
        // SAFETY: every header points to a vector and an address that live until the call
        // returns, and every vector to a slot of the arena with room for 65,535 bytes.
        let got = unsafe {
            libc::recvmmsg(
                fd,
                headers.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        if got < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                // An ICMP error of an earlier datagram, reported on this socket: not ours to die of.
                io::ErrorKind::ConnectionRefused | io::ErrorKind::HostUnreachable => Ok(0),
                _ => Err(error),
            };
        }
        self.count = got as usize;
        for (place, header) in headers[..self.count].iter().enumerate() {
            self.lengths[place] = header.msg_len as usize;
        }
        Ok(self.count)
    }

    /// The datagrams of the last [`Receiver::receive`].
    pub(super) fn datagrams(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        (0..self.count).filter_map(|place| {
            let start = place * SLOT;
            let bytes = &self.arena[start..start + self.lengths[place].min(65_535)];
            Some((read_address(&self.addresses[place])?, bytes))
        })
    }
}

/// Sends datagrams in batches.
pub(super) struct Sender {
    addresses: [libc::sockaddr_storage; BATCH],
}

impl Sender {
    pub(super) fn new() -> Self {
        Self {
            addresses: [empty_address(); BATCH],
        }
    }

    /// Sends the first [`BATCH`] datagrams with one call; returns how many the kernel took.
    pub(super) fn send<'a>(
        &mut self,
        fd: RawFd,
        datagrams: impl Iterator<Item = (SocketAddr, &'a [u8])>,
    ) -> io::Result<usize> {
        let mut count = 0;
        let mut vectors: [libc::iovec; BATCH] = [empty_vector(); BATCH];
        let mut headers: [libc::mmsghdr; BATCH] = [empty_header(); BATCH];
        for (place, (to, bytes)) in datagrams.take(BATCH).enumerate() {
            vectors[place] = libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            };
            let length = write_address(&mut self.addresses[place], to);
            let header = &mut headers[place].msg_hdr;
            header.msg_iov = &raw mut vectors[place];
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut self.addresses[place]).cast();
            header.msg_namelen = length;
            count = place + 1;
        }
        // SAFETY: every header points to a vector and an address that live until the call
        // returns; sendmmsg only reads the payloads behind the vectors.
        let sent =
            unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), count as u32, libc::MSG_DONTWAIT) };
        if sent < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(sent as usize)
        }
    }
}

/// Spreads the datagrams of a `SO_REUSEPORT` group evenly over its `sockets`, whatever their
/// source: carriers send from few addresses, so the kernel's hash of the addresses would starve
/// cores. To be attached to one socket after all of the group are bound.
pub(super) fn steer_evenly(socket: &impl AsRawFd, sockets: u32) -> io::Result<()> {
    let mut program = [
        libc::sock_filter {
            code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
            jt: 0,
            jf: 0,
            k: (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32,
        },
        libc::sock_filter {
            code: (libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K) as u16,
            jt: 0,
            jf: 0,
            k: sockets,
        },
        libc::sock_filter {
            code: (libc::BPF_RET | libc::BPF_A) as u16,
            jt: 0,
            jf: 0,
            k: 0,
        },
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the option value is a sock_fprog of that size whose program lives until the call
    // returns; the kernel copies it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const filter).cast(),
            mem::size_of::<libc::sock_fprog>() as u32,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Hands a socket over to glommio's reactor.
pub(super) fn glommio_udp(socket: socket2::Socket) -> glommio::net::UdpSocket {
    let fd = socket.into_raw_fd();
    // SAFETY: the descriptor was just given up by its only owner.
    unsafe { glommio::net::UdpSocket::from_raw_fd(fd) }
}

/// Waits until one of the descriptors is ready, at most `patience`; true when one is.
pub(super) fn poll(polled: &mut [libc::pollfd], patience: Duration) -> bool {
    let timeout = libc::timespec {
        tv_sec: patience.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(patience.subsec_nanos()),
    };
    // SAFETY: the pointers are to the slice and a timespec that live until the call returns.
    let ready = unsafe {
        libc::ppoll(
            polled.as_mut_ptr(),
            polled.len() as libc::nfds_t,
            &raw const timeout,
            std::ptr::null(),
        )
    };
    if ready < 0 {
        // A signal; what an earlier wait found says nothing about now.
        for one in &mut *polled {
            one.revents = 0;
        }
    }
    ready > 0
}

/// Takes what waits on a stream, without waiting for more. 0 = the end of the stream.
pub(super) fn receive_now(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of a live buffer.
    let got = unsafe {
        libc::recv(
            fd,
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_DONTWAIT,
        )
    };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

/// Gives a stream what it takes without waiting.
pub(super) fn send_now(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of a live buffer.
    let sent = unsafe {
        libc::send(
            fd,
            bytes.as_ptr().cast(),
            bytes.len(),
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Hands the waiting end of a shard's bell over to glommio's reactor.
pub(super) fn glommio_bell(bell: std::os::unix::net::UnixStream) -> glommio::net::UnixStream {
    let fd = bell.into_raw_fd();
    // SAFETY: the descriptor was just given up by its only owner.
    unsafe { glommio::net::UnixStream::from_raw_fd(fd) }
}

/// A second handle of a connected stream, so that one task can read while another writes.
pub(super) fn second_handle(
    stream: &glommio::net::TcpStream,
) -> io::Result<glommio::net::TcpStream> {
    // SAFETY: dup has no requirement on memory; a bad descriptor is an error it returns.
    let fd = unsafe { libc::dup(stream.as_raw_fd()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { glommio::net::TcpStream::from_raw_fd(fd) })
}

/// Ends both directions of a connection; its reader then sees the end of the stream.
pub(super) fn shut_down(fd: RawFd) {
    // SAFETY: shutdown has no requirement on memory; a bad descriptor is an error, and ignored.
    unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
}

/// Lifts the limit on locked memory, which io_uring needs on older kernels. Best effort.
pub(super) fn raise_memlock() {
    let limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the pointer is to a valid rlimit for the time of the call.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}

/// Tells the allocator to keep what it has: giving the top of a heap back to the kernel and
/// asking for it again would cost two system calls whenever a large buffer comes and goes. The
/// heaps of the shards' threads, 64 MiB of addresses each, are opened as a whole: otherwise
/// glibc asks the kernel for every page that is added to one, two for each call.
pub(super) fn keep_freed_memory() {
    for (parameter, bytes) in [
        (libc::M_TRIM_THRESHOLD, 512 << 20),
        (libc::M_TOP_PAD, 64 << 20),
        (libc::M_MMAP_THRESHOLD, 32 << 20),
    ] {
        // SAFETY: mallopt has no requirement but to be called before other threads allocate
        // through these settings, which the node does when it starts.
        unsafe { libc::mallopt(parameter, bytes) };
    }
}

/// Processor time used by the calling thread, nanoseconds.
pub(super) fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a valid timespec for the time of the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

const fn empty_vector() -> libc::iovec {
    libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }
}

const fn empty_header() -> libc::mmsghdr {
    // SAFETY: all zeroes is a valid mmsghdr: null pointers with zero lengths.
    unsafe { mem::zeroed() }
}

const fn empty_address() -> libc::sockaddr_storage {
    // SAFETY: all zeroes is a valid sockaddr_storage: of no family.
    unsafe { mem::zeroed() }
}

fn read_address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the kernel wrote a sockaddr_in, which is smaller and no more aligned.
            let inet = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(inet.sin_addr.s_addr));
            Some(SocketAddr::V4(SocketAddrV4::new(
                ip,
                u16::from_be(inet.sin_port),
            )))
        }
        libc::AF_INET6 => {
            // SAFETY: the kernel wrote a sockaddr_in6, which is smaller and no more aligned.
            let inet = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(inet.sin6_addr.s6_addr);
            let port = u16::from_be(inet.sin6_port);
            Some(SocketAddr::V6(SocketAddrV6::new(
                ip,
                port,
                0,
                inet.sin6_scope_id,
            )))
        }
        _ => None,
    }
}

fn write_address(storage: &mut libc::sockaddr_storage, address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V4(address) => {
            // SAFETY: sockaddr_storage has room and alignment for a sockaddr_in.
            let inet = unsafe { &mut *(&raw mut *storage).cast::<libc::sockaddr_in>() };
            inet.sin_family = libc::AF_INET as u16;
            inet.sin_port = address.port().to_be();
            inet.sin_addr.s_addr = u32::from(*address.ip()).to_be();
            mem::size_of::<libc::sockaddr_in>() as u32
        }
        SocketAddr::V6(address) => {
            // SAFETY: sockaddr_storage has room and alignment for a sockaddr_in6.
            let inet = unsafe { &mut *(&raw mut *storage).cast::<libc::sockaddr_in6>() };
            inet.sin6_family = libc::AF_INET6 as u16;
            inet.sin6_port = address.port().to_be();
            inet.sin6_flowinfo = address.flowinfo();
            inet.sin6_addr.s6_addr = address.ip().octets();
            inet.sin6_scope_id = address.scope_id();
            mem::size_of::<libc::sockaddr_in6>() as u32
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_round_through_the_kernels_form() {
        for text in ["192.0.2.1:5060", "[2001:db8::1]:5070", "[fe80::1%3]:5060"] {
            let address: SocketAddr = text.parse().expect("a literal");
            let mut storage = empty_address();
            write_address(&mut storage, address);
            assert_eq!(read_address(&storage), Some(address));
        }
        assert_eq!(read_address(&empty_address()), None);
    }
}
