//! Real processes under test: the node, sipp, a CDF of its own.
//!
//! Every process is started by the test and ended by it, by its handle; ports are free ones of
//! the loopback interface, directories are temporary.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The `ringtoll` binary of this build profile, built on first use.
pub fn ringtoll() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let own = std::env::current_exe().expect("a test knows its own file");
        let dir = own
            .parent()
            .and_then(Path::parent)
            .expect("tests lie in target/PROFILE/deps");
        let mut build = Command::new(env!("CARGO"));
        // As the test command builds it: one package alone has other features of its dependencies,
        // and would be built once more.
        build.args(["build", "--quiet", "--workspace", "--all-targets"]);
        if dir.file_name().is_some_and(|name| name == "release") {
            build.arg("--release");
        }
        // What cargo tells a test about its own package makes build scripts run again, and with
        // them most of the build.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                build.env_remove(name.as_ref());
            }
        }
        let status = build.status().expect("cargo runs, since it runs this test");
        assert!(status.success(), "the node must build");
        dir.join("ringtoll")
    })
}

/// Whether a program is installed. If not, says so where the test's output is read.
pub fn is_installed(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()));
    if !found {
        skip(&format!("{program} is not installed"));
    }
    found
}

/// Says that a test is skipped and why, where the test's output is read.
///
/// # Panics
/// If `RINGTOLL_NO_SKIP` is set.
pub fn skip(reason: &str) {
    assert!(
        std::env::var_os("RINGTOLL_NO_SKIP").is_none(),
        "{reason}, and RINGTOLL_NO_SKIP forbids to skip its tests"
    );
    // Past the harness' capture, so that nobody misses it.
    let mut out = std::io::stderr().lock();
    let _ = writeln!(out, "SKIPPED: {reason}");
}

/// A directory for what is dear to make and can be kept between runs of a test.
pub fn cache(name: &str) -> PathBuf {
    let built = ringtoll().parent().expect("a program lies in a directory");
    let dir = built.join("interop").join(name);
    std::fs::create_dir_all(&dir).expect("the build directory takes files");
    dir
}

/// A free UDP port of 127.0.0.1.
pub fn free_udp() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has free ports");
    socket.local_addr().expect("a bound socket has an address")
}

/// A free TCP port of 127.0.0.1.
pub fn free_tcp() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    socket.local_addr().expect("a bound socket has an address")
}

/// Waits until `done` says so; false when it does not within `limit`.
pub fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + limit;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A process that is killed when the test is over, however it ends.
pub struct Running(Child);

impl Running {
    /// Starts a command with its output in `log`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .expect("a temporary directory takes files");
        let errors = file.try_clone().expect("a file can be opened twice");
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} must start: {error}"));
        Self(child)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Sends SIGTERM and waits for the end, at most `limit`.
    pub fn terminate(&mut self, limit: Duration) -> Option<ExitStatus> {
        let _ = Command::new("kill")
            .args(["-TERM", &self.pid().to_string()])
            .status();
        self.wait(limit)
    }

    /// Waits for the end, at most `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let mut status = None;
        wait_until(limit, || {
            status = self
                .0
                .try_wait()
                .expect("a child can be asked for its status");
            status.is_some()
        });
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A node with its files and addresses.
pub struct NodeProcess {
    process: Option<Running>,
    /// Where everything lies.
    pub dir: tempfile::TempDir,
    /// Where it takes SIP.
    pub sip: SocketAddr,
    /// Its admin pages.
    pub admin: SocketAddr,
    /// The store of its CDF.
    pub store: PathBuf,
}

impl NodeProcess {
    /// Starts a node that sends everything to `callee`. `more` is further TOML.
    pub fn start(callee: SocketAddr, more: &str) -> Self {
        Self::start_on_cores(callee, more, "[]")
    }

    /// The same with `node.cores` as given.
    pub fn start_on_cores(callee: SocketAddr, more: &str, cores: &str) -> Self {
        Self::start_whole(callee, "", more, |text| {
            text.replace("cores = []", &format!("cores = {cores}"))
        })
    }

    /// Starts one with further keys of `[sip]`, before `more`.
    pub fn start_with(callee: SocketAddr, sip: &str, more: &str) -> Self {
        Self::start_whole(callee, sip, more, |text| text)
    }

    /// Starts one whose configuration is what `edit` makes of the usual one.
    pub fn start_edited(
        callee: SocketAddr,
        more: &str,
        edit: impl FnOnce(String) -> String,
    ) -> Self {
        Self::start_whole(callee, "", more, edit)
    }

    fn start_whole(
        callee: SocketAddr,
        sip_keys: &str,
        more: &str,
        edit: impl FnOnce(String) -> String,
    ) -> Self {
        let dir = tempfile::tempdir().expect("there is room for temporary files");
        let (sip, admin) = (free_udp(), free_tcp());
        let text = format!(
            "[node]\nname = \"test\"\ncores = []\nstate_dir = \"{dir}/state\"\ndata_dir = \"{dir}/data\"\n\
             drain_timeout_s = 20\nring_young_mib = 16\nring_old_mib = 32\n\
             [admin]\nlisten = \"{admin}\"\n\
             [sip]\nlisten = [\"udp:{sip}\"]\n{sip_keys}[[sip.route]]\nmatch = \"*\"\n\
             next_hop = \"{callee}\"\n{more}",
            dir = dir.path().display(),
        );
        std::fs::write(dir.path().join("node.toml"), edit(text))
            .expect("the directory takes files");
        let store = dir.path().join("data/cdf.sqlite");
        let mut node = Self {
            process: None,
            dir,
            sip,
            admin,
            store,
        };
        node.restart();
        node
    }

    /// Starts the process again, with the same files and addresses.
    pub fn restart(&mut self) {
        let log = self.dir.path().join("node.log");
        let process = Running::start(
            Command::new(ringtoll())
                .arg("run")
                .arg("--config")
                .arg(self.dir.path().join("node.toml")),
            &log,
        );
        self.process = Some(process);
        let ready = wait_until(Duration::from_secs(20), || {
            self.get("/readyz").is_some_and(|(status, _)| status == 200)
        });
        assert!(ready, "the node must become ready:\n{}", self.log());
    }

    /// What the node wrote.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("node.log")).unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the node runs").pid()
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Sends SIGTERM and leaves it to the node when it ends.
    pub fn drain(&mut self) {
        let _ = Command::new("kill")
            .args(["-TERM", &self.pid().to_string()])
            .status();
    }

    /// Waits for the end of a node that was told to drain.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.process
            .as_mut()
            .expect("the node was not killed")
            .wait(limit)
    }

    /// Resident memory, bytes.
    pub fn resident(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: u64 = line
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|number| number.parse().ok())
            .expect("a running process has a resident size");
        kib << 10
    }

    /// Ends it with SIGTERM and asserts that it leaves in order.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("the node runs");
        let status = process
            .terminate(Duration::from_secs(60))
            .expect("the node must end");
        assert!(
            status.success(),
            "the node must exit with 0:\n{}",
            self.log()
        );
    }

    /// Fetches an admin page.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.admin, Duration::from_secs(1)).ok()?;
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        let body = answer.split_once("\r\n\r\n")?.1.to_owned();
        Some((status, body))
    }

    /// The metrics, summed over the shards, by name.
    pub fn metrics(&self) -> HashMap<String, f64> {
        let (_, page) = self.get("/metrics").expect("a running node answers");
        let mut sums = HashMap::new();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split('{').next().unwrap_or_default();
            let value: f64 = line
                .rsplit(' ')
                .next()
                .and_then(|v| v.parse().ok())
                .unwrap_or(0.0);
            *sums.entry(name.to_owned()).or_insert(0.0) += value;
        }
        sums
    }

    /// Waits until no call is left, their records included.
    pub fn wait_idle(&self) {
        let idle = wait_until(Duration::from_secs(60), || {
            self.metrics()
                .get("ringtoll_calls")
                .is_some_and(|calls| *calls == 0.0)
        });
        assert!(
            idle,
            "every call must end: {:?}\n{}",
            self.metrics(),
            self.log()
        );
    }

    /// Waits until the node is connected to a CDF: before, records go through the backlog.
    pub fn wait_cdf(&self) {
        let reachable = wait_until(Duration::from_secs(20), || {
            let metrics = self.metrics();
            metrics
                .get("ringtoll_cdf_reachable")
                .is_some_and(|count| *count >= 1.0)
        });
        assert!(reachable, "no CDF: {:?}\n{}", self.metrics(), self.log());
    }

    /// The CDRs in the store of the bundled CDF.
    pub fn cdrs(&self) -> Vec<Value> {
        cdrs(&self.store)
    }
}

/// `ringtoll cdf` in a process of its own.
pub struct CdfProcess {
    process: Option<Running>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its store.
    pub store: PathBuf,
    log: PathBuf,
}

impl CdfProcess {
    /// A CDF with its files in `dir`, not started yet.
    pub fn new(dir: &Path, name: &str) -> Self {
        let file = |end: &str| dir.join(format!("{name}.{end}"));
        Self {
            process: None,
            address: free_tcp(),
            store: file("sqlite"),
            log: file("log"),
        }
    }

    /// Starts it, the first time or again, and waits until it listens.
    pub fn start(&mut self) {
        let process = Running::start(
            Command::new(ringtoll())
                .args([
                    "cdf",
                    "--interim-interval",
                    "0",
                    "--listen",
                    &self.address.to_string(),
                ])
                .arg("--store")
                .arg(&self.store),
            &self.log,
        );
        self.process = Some(process);
        let up = wait_until(Duration::from_secs(20), || {
            TcpStream::connect(self.address).is_ok()
        });
        assert!(up, "the CDF must listen: {}", self.log());
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its CDRs; none if it never ran.
    pub fn cdrs(&self) -> Vec<Value> {
        if self.store.exists() {
            cdrs(&self.store)
        } else {
            Vec::new()
        }
    }
}

/// The CDRs of a store, as `ringtoll cdr list --json` prints them.
pub fn cdrs(store: &Path) -> Vec<Value> {
    let output = Command::new(ringtoll())
        .args(["cdr", "list", "--json", "--store"])
        .arg(store)
        .output()
        .expect("the program starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("one JSON object a line"))
        .collect()
}

/// The types of a CDR's records in the order of their numbers: `START INTERIM STOP`.
pub fn record_types(cdr: &Value) -> String {
    let records = cdr["records"].as_array().expect("a CDR has records");
    let types: Vec<&str> = records
        .iter()
        .filter_map(|record| record["record_type"].as_str())
        .collect();
    types.join(" ")
}

/// A pair of sipp scenarios, run through a node.
pub struct Sipp<'a> {
    /// Names of the scenario files: caller and callee.
    pub scenario: (&'a str, &'a str),
    /// Calls in all.
    pub calls: u32,
    /// Calls per second.
    pub rate: u32,
    /// Hold time, milliseconds.
    pub hold_ms: u32,
    /// Longest time for all of it.
    pub limit: Duration,
}

impl Sipp<'_> {
    /// Starts the callee.
    pub fn callee(&self, address: SocketAddr, log: &Path) -> Running {
        self.callee_with(address, log, &[])
    }

    /// Starts the callee with further arguments.
    pub fn callee_with(&self, address: SocketAddr, log: &Path, more: &[&str]) -> Running {
        let port = address.port().to_string();
        Running::start(
            sipp_command(self.scenario.1).args(["-p", &port]).args(more),
            log,
        )
    }

    /// Starts the caller with further arguments.
    pub fn caller_with(&self, node: &NodeProcess, log: &Path, more: &[&str]) -> Running {
        let port = free_udp().port().to_string();
        Running::start(
            sipp_command(self.scenario.0)
                .arg(node.sip.to_string())
                .args([
                    "-p",
                    &port,
                    "-m",
                    &self.calls.to_string(),
                    "-r",
                    &self.rate.to_string(),
                ])
                .args(["-d", &self.hold_ms.to_string(), "-l", "15000"])
                .args(more),
            log,
        )
    }

    /// Runs the caller to its end and asserts that no call failed.
    pub fn call(&self, node: &NodeProcess) {
        self.call_with(node, &[]);
    }

    /// The same with further arguments.
    pub fn call_with(&self, node: &NodeProcess, more: &[&str]) {
        let log = node.dir.path().join("caller.log");
        let mut caller = self.caller_with(node, &log, more);
        let status = caller.wait(self.limit);
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let end = text.len().saturating_sub(6_000);
        assert!(
            status.is_some_and(|status| status.success()),
            "sipp must not see a failed call: {status:?}\n{}\n{:?}",
            text.get(end..).unwrap_or_default(),
            node.metrics(),
        );
    }
}

fn sipp_command(scenario: &str) -> Command {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("sipp")
        .join(format!("{scenario}.xml"));
    let mut command = Command::new("sipp");
    command
        .arg("-sf")
        .arg(file)
        .args(["-i", "127.0.0.1", "-nostdin", "-timeout_error"]);
    // What it writes down is in local time.
    command.env("TZ", "UTC");
    command
}
