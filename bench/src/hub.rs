//! The hub between network namespaces: a process that reads every frame and passes it on, but
//! loses some, repeats some and lets some be overtaken, and cuts nodes off when told.
//!
//! Not every kernel has netem; this one needs packet sockets only, counts what it does, and does
//! it from a seed.
//!
//! ```text
//!   read frame -> to a port, or to all others -> cut?  -> lost?  -> held 3 ms or sent at once
//!                                                                   and perhaps once more
//! ```

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use dataplane::env::SplitMix64;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::cluster::wait_until;
use crate::netns;

/// A hub at work, as its owner sees it; it ends with this.
pub struct Hub {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// From whom a node is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nobody.
    Whole,
    /// The other nodes; phones and CDF still reach it.
    Peers,
    /// Everybody.
    All,
}

/// What happens to frames on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Wires {
    /// Some are lost, repeated, overtaken.
    #[default]
    Rough,
    /// Nothing.
    Clean,
}

impl Wires {
    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rough => "rough",
            Self::Clean => "clean",
        }
    }
}

/// What became of frames.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Frames that were to be passed on.
    pub frames: u64,
    /// Of these: lost.
    pub lost: u64,
    /// Of these: passed on twice.
    pub repeated: u64,
    /// Of these: held back, so that later ones overtook them.
    pub held: u64,
    /// Of these: to or from a node that was cut off.
    pub cut: u64,
}

/// All that a hub did.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Told {
    /// From node to node.
    pub nodes: Traffic,
    /// From or to the phones and the CDF.
    pub phones: Traffic,
    /// Frames that came faster than the hub read: lost besides.
    pub overrun: u64,
    /// Frames that could not be sent.
    pub unsent: u64,
    /// Ports from which nothing came yet: nothing can be sent there.
    pub silent: usize,
}

impl Hub {
    /// Starts the hub of a net with so many nodes, from within the phones' namespace.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(word: &str, nodes: u8, seed: u64, wires: Wires) -> io::Result<Self> {
        let mut process = Command::new("ip")
            .args(["netns", "exec", &netns::hub(word)])
            .arg(std::env::current_exe()?)
            .args([HUB, &nodes.to_string(), &seed.to_string(), wires.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = process.stdin.take().expect("it is a pipe");
        let answers = process.stdout.take().expect("it is a pipe");
        let mut hub = Self {
            process,
            orders,
            answers: BufReader::new(answers),
        };
        hub.tell()?;
        // Whoever has spoken can be reached.
        let somebody = SocketAddr::from((netns::NOBODY, DISCARD));
        for host in netns::hosts(word, nodes) {
            let namespace = host.namespace.expect("nodes of a net have one");
            let own = std::env::current_exe()?;
            let speak = format!("netns exec {namespace} {} {SPEAK}", own.display());
            netns::run("ip", &format!("{speak} {somebody}"))?;
        }
        UdpSocket::bind((netns::PHONES, 0))?.send_to(&[], somebody)?;
        wait_until("the hub does not find its ports", || {
            Ok(hub.tell()?.silent == 0)
        })?;
        Ok(hub)
    }

    /// Cuts a node off, or joins it again.
    ///
    /// # Errors
    /// The hub has ended.
    pub fn cut(&mut self, number: usize, cut: Cut) -> io::Result<()> {
        let order = match cut {
            Cut::Whole => "join",
            Cut::Peers => "peers",
            Cut::All => "all",
        };
        self.order(&format!("{order} {number}")).map(drop)
    }

    /// What it did so far.
    ///
    /// # Errors
    /// The hub has ended.
    pub fn tell(&mut self) -> io::Result<Told> {
        self.order("tell 0")
    }

    // The answer comes when the order is carried out.
    fn order(&mut self, order: &str) -> io::Result<Told> {
        writeln!(self.orders, "{order}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        serde_json::from_str(&answer).map_err(io::Error::other)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Becomes the hub if this process was started as one. `None`: it was not.
#[must_use]
pub fn become_child() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [HUB, nodes, seed, wires] => match (nodes.parse(), seed.parse()) {
            (Ok(nodes), Ok(seed)) => {
                let rough = *wires == Wires::Rough.name();
                Switch::new(nodes, seed, rough).and_then(Switch::run)
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        },
        [SPEAK, to] => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
            .and_then(|own| own.send_to(&[], to).map(drop)),
        _ => return None,
    };
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the hub fails: {error}");
            ExitCode::FAILURE
        }
    })
}

/// The hub within its process.
struct Switch {
    socket: Socket,
    // Where frames for each port go; the last port is the phones'.
    ports: Vec<Option<SockAddr>>,
    cuts: Vec<Cut>,
    held: VecDeque<(Instant, usize, Vec<u8>)>,
    random: SplitMix64,
    rough: bool,
    // Frames that the kernel gave to the ports before we came, and those that we read since.
    before: u64,
    read: u64,
    told: Told,
}

impl Switch {
    fn new(nodes: usize, seed: u64, rough: bool) -> io::Result<Self> {
        let every = Protocol::from(i32::from(ETH_P_ALL.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(every))?;
        socket.set_recv_buffer_size(SOCKET_BUFFER)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            ports: vec![None; nodes + 1],
            cuts: vec![Cut::Whole; nodes + 1],
            held: VecDeque::new(),
            random: SplitMix64::new(seed),
            rough,
            before: received()?,
            read: 0,
            told: Told::default(),
        })
    }

    fn run(mut self) -> io::Result<()> {
        let mut poll = Poll::new()?;
        let fd = self.socket.as_raw_fd();
        poll.registry()
            .register(&mut SourceFd(&fd), Token(0), Interest::READABLE)?;
        let orders = read_orders(Waker::new(poll.registry(), Token(1))?);
        let mut events = Events::with_capacity(4);
        let mut frame = vec![0; 1 << 16];
        loop {
            let patience = self.held.front().map(|(due, ..)| *due);
            let patience = patience.map(|due| due.saturating_duration_since(Instant::now()));
            match poll.poll(&mut events, patience) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            self.pass_on_all(&mut frame)?;
            loop {
                match orders.try_recv() {
                    Ok(order) => self.obey(&order)?,
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return Ok(()),
                }
            }
        }
    }

    fn obey(&mut self, order: &str) -> io::Result<()> {
        let (verb, number) = order.split_once(' ').unwrap_or((order, ""));
        let number = number.parse().unwrap_or(usize::MAX);
        let cut = self.cuts.get_mut(number);
        match (verb, cut) {
            ("join", Some(cut)) => *cut = Cut::Whole,
            ("peers", Some(cut)) => *cut = Cut::Peers,
            ("all", Some(cut)) => *cut = Cut::All,
            _ => {}
        }
        self.told.overrun = received()?.saturating_sub(self.before + self.read);
        self.told.silent = self.ports.iter().filter(|port| port.is_none()).count();
        println!("{}", serde_json::to_string(&self.told)?);
        io::stdout().flush()
    }

    // The poll tells an edge: all that is there has to be read.
    fn pass_on_all(&mut self, frame: &mut [u8]) -> io::Result<()> {
        loop {
            self.release();
            // Frames come with the port's address; it is asked for until all are known.
            let from = match self.ports.iter().all(Option::is_some) {
                true => None,
                false => self.socket.peek_sender().ok(),
            };
            match (&self.socket).read(frame) {
                Ok(length) => {
                    self.read += 1;
                    self.handle(&mut frame[..length], from);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn handle(&mut self, frame: &mut [u8], from: Option<SockAddr>) {
        let (Some(to), Some(sender)) = (port_of(frame, 0), port_of(frame, 6)) else {
            return;
        };
        if let Some(place @ None) = self.ports.get_mut(sender) {
            *place = from;
        }
        finish_checksum(frame);
        if frame[0] & 1 == 1 {
            for port in (0..self.ports.len()).filter(|port| *port != sender) {
                self.pass_on(frame, sender, port);
            }
        } else {
            self.pass_on(frame, sender, to);
        }
    }

    fn pass_on(&mut self, frame: &[u8], from: usize, to: usize) {
        let phones = self.ports.len() - 1;
        if to > phones || from > phones {
            return;
        }
        let is_outside = from == phones || to == phones;
        let is_cut = [from, to].iter().any(|end| match self.cuts[*end] {
            Cut::Whole => false,
            Cut::Peers => !is_outside,
            Cut::All => true,
        });
        let draws = [LOST_PPM, REPEATED_PPM, HELD_PPM];
        let draws = draws.map(|ppm| self.random.below(MILLION) < ppm && self.rough);
        let [is_lost, is_repeated, is_held] = draws;
        let traffic = if is_outside {
            &mut self.told.phones
        } else {
            &mut self.told.nodes
        };
        traffic.frames += 1;
        if is_cut {
            traffic.cut += 1;
            return;
        }
        if is_lost {
            traffic.lost += 1;
            return;
        }
        traffic.repeated += u64::from(is_repeated);
        traffic.held += u64::from(is_held);
        if is_repeated {
            self.send(frame, to);
        }
        if is_held {
            let due = Instant::now() + HELD;
            self.held.push_back((due, to, frame.to_vec()));
        } else {
            self.send(frame, to);
        }
    }

    fn release(&mut self) {
        while self
            .held
            .front()
            .is_some_and(|(due, ..)| *due <= Instant::now())
        {
            let (_, to, frame) = self.held.pop_front().expect("it was looked at");
            self.send(&frame, to);
        }
    }

    // Who has said nothing yet cannot be reached; ARP makes everybody speak.
    fn send(&mut self, frame: &[u8], to: usize) {
        let sent = match &self.ports[to] {
            Some(port) => self.socket.send_to(frame, port).is_ok(),
            None => false,
        };
        self.told.unsent += u64::from(!sent);
    }
}

// Orders come as lines; their end is the end of the hub.
fn read_orders(waker: Waker) -> Receiver<String> {
    let (orders, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if orders.send(line).is_err() || waker.wake().is_err() {
                return;
            }
        }
        drop(orders);
        let _ = waker.wake();
    });
    receiver
}

// Frames that came to the hub's ports, as the kernel counts them.
fn received() -> io::Result<u64> {
    let devices = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    let frames = devices.lines().filter_map(|line| {
        let (name, counts) = line.split_once(':')?;
        let is_port = name.trim().starts_with("port");
        is_port.then(|| counts.split_whitespace().nth(1)?.parse::<u64>().ok())?
    });
    Ok(frames.sum())
}

// Addresses are 02:00:00:00:00:PORT; any port does for a broadcast.
fn port_of(frame: &[u8], at: usize) -> Option<usize> {
    frame.get(at + 5).map(|port| usize::from(*port))
}

// Between namespaces the kernel leaves checksums to a card that is not there: UDP needs none
// (RFC 768), TCP gets its own (RFC 9293 3.1).
fn finish_checksum(frame: &mut [u8]) {
    let Some((ethernet, packet)) = frame.split_at_mut_checked(ETHERNET_BYTES) else {
        return;
    };
    if ethernet[12..] != IPV4 || packet.len() < IP_BYTES_MIN {
        return;
    }
    let header_bytes = usize::from(packet[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    let is_first = u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff == 0;
    let protocol = packet[9];
    let addresses: [u8; 8] = packet[12..20].try_into().expect("eight bytes");
    let Some(segment) = packet.get_mut(header_bytes..total).filter(|_| is_first) else {
        return;
    };
    match protocol {
        UDP if segment.len() >= 8 => segment[6..8].fill(0),
        TCP if segment.len() >= 20 => {
            segment[16..18].fill(0);
            let length = segment.len() as u32;
            let pseudo = sum(&addresses) + u32::from(TCP) + length;
            let sum = sum(segment) + pseudo;
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = (sum & 0xffff) + (sum >> 16);
            segment[16..18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        }
        _ => {}
    }
}

// Words of 64 KiB at most: 32 bits hold their sum.
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|pair| {
        let second = pair.get(1).copied().unwrap_or_default();
        u32::from(u16::from_be_bytes([pair[0], second]))
    });
    words.sum()
}

/// What a hub's process is started as, and one that says a word in its namespace.
const HUB: &str = "hub-process";
const SPEAK: &str = "speak-process";
/// In a million frames: lost, repeated, held back.
const LOST_PPM: u64 = 10_000;
const REPEATED_PPM: u64 = 5_000;
const HELD_PPM: u64 = 20_000;
const MILLION: u64 = 1_000_000;
/// How long a frame is held back.
const HELD: Duration = Duration::from_millis(3);
/// Bytes asked for the socket's queue; the kernel takes less where its limit is lower.
const SOCKET_BUFFER: usize = 8 << 20;
/// RFC 863: nobody listens there.
const DISCARD: u16 = 9;
/// linux/if_ether.h: frames of every kind.
const ETH_P_ALL: u16 = 3;
const ETHERNET_BYTES: usize = 14;
const IPV4: [u8; 2] = [8, 0];
const IP_BYTES_MIN: usize = 20;
const TCP: u8 = 6;
const UDP: u8 = 17;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tcp_segment_gets_the_checksum_that_makes_its_sum_all_ones() {
        let mut frame = vec![0; ETHERNET_BYTES];
        frame[12] = 8;
        let mut packet = [0x45u8, 0, 0, 43, 0, 0, 0x40, 0, 64, TCP, 0, 0].to_vec();
        packet.extend_from_slice(&[10, 213, 0, 1, 10, 213, 0, 254]);
        packet.extend((1..=23).map(|byte| byte * 11));
        frame.extend_from_slice(&packet);
        finish_checksum(&mut frame);
        let segment = &frame[ETHERNET_BYTES + IP_BYTES_MIN..];
        let all = sum(&packet[12..20]) + u32::from(TCP) + 23 + sum(segment);
        assert_eq!((all & 0xffff) + (all >> 16), 0xffff);
    }

    #[test]
    fn a_udp_datagram_goes_without_a_checksum_but_its_later_fragments_are_left_alone() {
        for (fragment, expected) in [(0u8, [0, 0]), (1, [7, 7])] {
            let mut frame = vec![0; ETHERNET_BYTES];
            frame[12] = 8;
            frame.extend_from_slice(&[0x45, 0, 0, 28, 0, 0, 0, fragment, 64, UDP, 0, 0]);
            frame.extend_from_slice(&[10, 213, 0, 1, 10, 213, 0, 2]);
            frame.extend_from_slice(&[7; 8]);
            finish_checksum(&mut frame);
            assert_eq!(frame[40..42], expected);
        }
    }
}
