//! Diameter over TCP: the sockets behind a shard's router.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use charging::diameter::routing::{IoAction, PeerIndex};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::TcpStream;

use super::driver::{Turn, spawn};
use super::sys;
use super::wake::Bell;

/// The connections of a shard, by peer.
#[derive(Default)]
pub(super) struct Connections {
    open: RefCell<Vec<Option<Rc<Connection>>>>,
}

struct Connection {
    fd: RawFd,
    writable: Bell,
    closing: std::cell::Cell<bool>,
}

impl Connections {
    /// Does what the router asks for: connect, close, and wake the writers that have work.
    pub(super) fn serve(&self, turn: &Rc<Turn>) {
        let mut shard = turn.shard.borrow_mut();
        while let Some(action) = shard.router().poll_io() {
            match action {
                IoAction::Connect { peer, address } => {
                    spawn(turn, connect(turn.clone(), peer, address));
                }
                IoAction::Close { peer } => self.close(peer),
            }
        }
        for (place, connection) in self.open.borrow().iter().enumerate() {
            let Some(connection) = connection else {
                continue;
            };
            let waiting = shard.router().transmit(PeerIndex(place as u16));
            if waiting.is_some_and(|bytes| !bytes.is_empty()) {
                connection.writable.ring();
            }
        }
    }

    fn close(&self, peer: PeerIndex) {
        let taken = self
            .open
            .borrow_mut()
            .get_mut(usize::from(peer.0))
            .and_then(Option::take);
        if let Some(connection) = taken {
            connection.closing.set(true);
            connection.writable.ring();
        }
    }

    fn enter(&self, peer: PeerIndex, connection: Rc<Connection>) {
        let mut open = self.open.borrow_mut();
        let place = usize::from(peer.0);
        if open.len() <= place {
            open.resize_with(place + 1, || None);
        }
        open[place] = Some(connection);
    }

    fn is_current(&self, peer: PeerIndex, connection: &Rc<Connection>) -> bool {
        let open = self.open.borrow();
        open.get(usize::from(peer.0))
            .and_then(Option::as_ref)
            .is_some_and(|current| Rc::ptr_eq(current, connection))
    }
}

async fn connect(turn: Rc<Turn>, peer: PeerIndex, address: SocketAddr) {
    let opened = TcpStream::connect_timeout(address, CONNECT_TIMEOUT).await;
    let pair = opened.ok().and_then(|stream| {
        stream.set_nodelay(true).ok()?;
        let writer = sys::second_handle(&stream).ok()?;
        Some((stream, writer))
    });
    let Some((reader, writer)) = pair else {
        let now = turn.clock.now();
        turn.shard
            .borrow_mut()
            .router()
            .on_connect_failed(now.instant, peer);
        return turn.take();
    };
    let connection = Rc::new(Connection {
        fd: reader.as_raw_fd(),
        writable: Bell::default(),
        closing: std::cell::Cell::new(false),
    });
    turn.connections.enter(peer, connection.clone());
    let now = turn.clock.now();
    turn.shard
        .borrow_mut()
        .router()
        .on_connected(now.instant, peer);
    spawn(&turn, write(turn.clone(), peer, connection.clone(), writer));
    turn.take();
    read(&turn, peer, &connection, reader).await;
    if turn.connections.is_current(peer, &connection) {
        turn.connections.close(peer);
        let now = turn.clock.now();
        turn.shard
            .borrow_mut()
            .router()
            .on_closed(now.instant, peer);
        turn.take();
    }
}

async fn read(
    turn: &Rc<Turn>,
    peer: PeerIndex,
    connection: &Rc<Connection>,
    mut reader: TcpStream,
) {
    let mut buffer = vec![0; READ_BUFFER];
    loop {
        let got = match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(got) => got,
        };
        if !turn.connections.is_current(peer, connection) {
            return;
        }
        let now = turn.clock.now();
        turn.shard
            .borrow_mut()
            .router()
            .handle_bytes(now.instant, peer, &buffer[..got]);
        turn.take();
    }
}

// Writes whatever the router has for the peer; ends with the connection.
async fn write(turn: Rc<Turn>, peer: PeerIndex, connection: Rc<Connection>, mut writer: TcpStream) {
    let mut chunk = Vec::new();
    loop {
        if turn.connections.is_current(peer, &connection) || connection.closing.get() {
            let mut shard = turn.shard.borrow_mut();
            if let Some(waiting) = shard.router().transmit(peer) {
                std::mem::swap(&mut chunk, waiting);
            }
        }
        if !chunk.is_empty() {
            let written = writer.write_all(&chunk).await;
            chunk.clear();
            if written.is_err() {
                return sys::shut_down(connection.fd);
            }
            continue;
        }
        if connection.closing.get() {
            return sys::shut_down(connection.fd);
        }
        connection.writable.wait().await;
        // Records of the next moment share a segment, its answer and two wake-ups: at 1,000
        // calls a second four of them do. A CDF is in no such hurry as a phone.
        let waiting = {
            let mut shard = turn.shard.borrow_mut();
            shard.router().transmit(peer).map_or(0, |bytes| bytes.len())
        };
        if waiting < FULL_SEGMENT && !connection.closing.get() {
            glommio::timer::Timer::new(GATHER).await;
        }
    }
}

/// Longest wait for a TCP connection to a CDF.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a small write waits for company.
const GATHER: Duration = Duration::from_millis(2);
/// From this many bytes on a write does not wait.
const FULL_SEGMENT: usize = 16 << 10;
/// Bytes read from a connection at once.
const READ_BUFFER: usize = 16 << 10;
