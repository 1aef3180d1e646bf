//! The bundled CDF on its sockets: a glommio executor of its own beside the shards, or the
//! whole process of `ringtoll cdf`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use charging::diameter::base::Identity;
use charging::diameter::peer::PeerConfig;
use charging::server::cdf::{Cdf, CdfConfig, CdfIo, ConnectionId};
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::timer::Timer;
use glommio::{LocalExecutorBuilder, Placement};

use super::NodeError;
use super::clock::Clock;
use super::store::SqliteStore;
use super::sys;
use super::wake::Bell;

/// A CDF that runs on a thread of this process.
pub struct BundledCdf {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl BundledCdf {
    /// Starts it on `listen` (port 0 takes a free one) with its records in `store`.
    pub fn start(
        listen: SocketAddr,
        store: &Path,
        interim_interval_s: u32,
    ) -> Result<Self, NodeError> {
        let store_file = store.to_owned();
        let (report, started) = std::sync::mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let thread = std::thread::Builder::new()
            .name("cdf".to_owned())
            .spawn(move || {
                let store = match SqliteStore::open(&store_file, interim_interval_s) {
                    Ok(store) => store,
                    Err(error) => {
                        let _ = report.send(Err(error));
                        return;
                    }
                };
                let executor = LocalExecutorBuilder::new(Placement::Unbound)
                    .name("cdf")
                    .io_memory(64 << 10)
                    .make();
                let executor = match executor {
                    Ok(executor) => executor,
                    Err(error) => {
                        let _ = report.send(Err(NodeError::Executor(error.to_string())));
                        return;
                    }
                };
                executor.run(serve(listen, store, interim_interval_s, report, stopping));
            })
            .map_err(|error| NodeError::Executor(error.to_string()))?;
        match started.recv() {
            Ok(Ok(address)) => Ok(Self {
                address,
                stop,
                thread,
            }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(NodeError::Executor("the CDF's thread ended".to_owned())),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.thread.join();
    }
}

/// Runs a CDF until SIGTERM or SIGINT: the whole of `ringtoll cdf`.
pub fn serve_cdf(
    listen: SocketAddr,
    store: &Path,
    interim_interval_s: u32,
) -> Result<(), NodeError> {
    sys::raise_memlock();
    let mut signals = signal_hook::iterator::Signals::new([
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGINT,
    ])
    .map_err(|error| NodeError::Executor(error.to_string()))?;
    let cdf = BundledCdf::start(listen, store, interim_interval_s)?;
    println!(
        "CDF listens on {}, store {}",
        cdf.address(),
        store.display()
    );
    let _ = signals.forever().next();
    cdf.stop();
    Ok(())
}

struct Shared {
    cdf: RefCell<Cdf<SqliteStore>>,
    clock: Clock,
    writers: RefCell<HashMap<ConnectionId, Rc<Writer>>>,
}

struct Writer {
    bell: Bell,
    closing: std::cell::Cell<bool>,
}

async fn serve(
    listen: SocketAddr,
    store: SqliteStore,
    interim_interval_s: u32,
    report: std::sync::mpsc::Sender<Result<SocketAddr, NodeError>>,
    stop: Arc<AtomicBool>,
) {
    let listener = match TcpListener::bind(listen) {
        Ok(listener) => listener,
        Err(error) => {
            let error = std::io::Error::other(error.to_string());
            let _ = report.send(Err(NodeError::Listen(format!("tcp:{listen}"), error)));
            return;
        }
    };
    let address = listener.local_addr().unwrap_or(listen);
    let config = CdfConfig {
        identity: Identity {
            origin_host: "cdf.ringtoll.invalid".to_owned(),
            origin_realm: "ringtoll.invalid".to_owned(),
            host_addresses: vec![address.ip()],
            vendor_id: 0,
            product_name: "ringtoll-cdf".to_owned(),
            firmware_revision: None,
            origin_state_id: None,
        },
        peer: PeerConfig::default(),
        connections_max: CONNECTIONS_MAX,
        interim_interval_s: (interim_interval_s > 0).then_some(interim_interval_s),
    };
    let clock = Clock::new();
    let seed = clock.now().wall.0;
    let shared = Rc::new(Shared {
        cdf: RefCell::new(Cdf::new(config, store, seed)),
        clock,
        writers: RefCell::default(),
    });
    let _ = report.send(Ok(address));
    glommio::spawn_local(watch_timer(shared.clone())).detach();
    while !stop.load(Ordering::Acquire) {
        let accepted = async { listener.accept().await.ok() };
        let patience = async {
            Timer::new(STOP_POLL).await;
            None
        };
        if let Some(stream) = accepted.or(patience).await {
            glommio::spawn_local(converse(shared.clone(), stream)).detach();
        }
    }
}

async fn converse(shared: Rc<Shared>, mut reader: TcpStream) {
    let now = shared.clock.now().instant;
    let Some(id) = shared.cdf.borrow_mut().accept(now) else {
        return;
    };
    let Ok(stream) = sys::second_handle(&reader) else {
        return;
    };
    let _ = reader.set_nodelay(true);
    let writer = Rc::new(Writer {
        bell: Bell::default(),
        closing: std::cell::Cell::new(false),
    });
    shared.writers.borrow_mut().insert(id, writer.clone());
    glommio::spawn_local(write(shared.clone(), id, writer, stream)).detach();
    let mut buffer = vec![0; READ_BUFFER];
    while let Ok(got) = reader.read(&mut buffer).await {
        if got == 0 {
            break;
        }
        let now = shared.clock.now().instant;
        shared
            .cdf
            .borrow_mut()
            .handle_bytes(now, id, &buffer[..got]);
        serve_io(&shared);
    }
    shared.cdf.borrow_mut().on_closed(id);
    if let Some(writer) = shared.writers.borrow_mut().remove(&id) {
        writer.closing.set(true);
        writer.bell.ring();
    }
}

async fn write(shared: Rc<Shared>, id: ConnectionId, writer: Rc<Writer>, mut stream: TcpStream) {
    let mut chunk = Vec::new();
    loop {
        if let Some(waiting) = shared.cdf.borrow_mut().transmit(id) {
            std::mem::swap(&mut chunk, waiting);
        }
        if !chunk.is_empty() {
            let written = stream.write_all(&chunk).await;
            chunk.clear();
            if written.is_ok() {
                continue;
            }
            writer.closing.set(true);
        }
        if writer.closing.get() {
            use std::os::fd::AsRawFd;
            return sys::shut_down(stream.as_raw_fd());
        }
        writer.bell.wait().await;
    }
}

fn serve_io(shared: &Rc<Shared>) {
    let mut cdf = shared.cdf.borrow_mut();
    let writers = shared.writers.borrow();
    while let Some(CdfIo::Close(id)) = cdf.poll_io() {
        if let Some(writer) = writers.get(&id) {
            writer.closing.set(true);
        }
    }
    for writer in writers.values() {
        writer.bell.ring();
    }
}

// The CDF's own deadlines are watchdogs: a coarse tick serves them.
async fn watch_timer(shared: Rc<Shared>) {
    loop {
        Timer::new(TICK).await;
        let now = shared.clock.now().instant;
        let due = shared
            .cdf
            .borrow()
            .next_deadline()
            .is_some_and(|due| due <= now);
        if due {
            shared.cdf.borrow_mut().handle_timeout(now);
            serve_io(&shared);
        }
    }
}

/// Clients served at once.
const CONNECTIONS_MAX: usize = 1_024;
/// Bytes read at once.
const READ_BUFFER: usize = 64 << 10;
/// How often the order to stop is looked for.
const STOP_POLL: Duration = Duration::from_millis(200);
const TICK: Duration = Duration::from_millis(100);
