//! Kills a real writer with SIGKILL, again and again, and looks at what is left (L7, S6).
//!
//! The test runs itself as the child. The child writes to the rings and says on its standard
//! output, one line per operation, what the ring has acknowledged; the parent kills it at a
//! moment it cannot know, opens the rings and compares. `KILLS=300` runs longer.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use replication::{CallId, Origin, Reader, Recovery, Ring, RingConfig};

const CHILD: &str = "RINGTOLL_KILL_TEST_DIR";

fn config() -> RingConfig {
    RingConfig {
        node: 3,
        shard: 1,
        secret: 0xfeed,
        // Small, so that promotion and relocation never rest.
        young_bytes: 64 << 10,
        old_bytes: 256 << 10,
        payload_bytes_max: 1200,
        calls_max: 1000,
        ..RingConfig::default()
    }
}

fn fill(bytes: &mut [u8], id: CallId, ver: u32) {
    let seed = id.counter().wrapping_mul(31) ^ u64::from(ver);
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = (seed as usize).wrapping_add(n * 7) as u8;
    }
}

/// The child: writes until killed.
#[test]
fn child_writes_until_killed() {
    let Ok(dir) = std::env::var(CHILD) else {
        return;
    };
    let (mut ring, _) = Ring::open_files(Path::new(&dir), &config()).expect("the rings open");
    let mut ids: Vec<CallId> = ring.iter_live().map(|record| record.meta.id).collect();
    // Every other child lets tombstones go round, as in a cluster that is not settled; its parent
    // opens the ring in between.
    ring.set_settled(ring.incarnation() / 2 % 2 == 0);
    let mut seed = u64::from(ring.incarnation()) * 0x9e37_79b9 + 1;
    let mut out = std::io::stdout().lock();
    loop {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let draw = (seed >> 33) as usize;
        // Said before, and said again after: in between, either state is right.
        if ids.len() < 100 || draw.is_multiple_of(11) && ids.len() < 140 {
            let id = ring.next_id();
            let _ = writeln!(out, "\nbegin {:032x} 1", id.as_u128());
            let len = 100 + draw % 1000;
            let mut payload = vec![0; len];
            fill(&mut payload, id, 1);
            ring.put(id, 1, 1, &payload).expect("the rings have room");
            ids.push(id);
            let _ = writeln!(out, "\ndone {:032x} 1", id.as_u128());
        } else if draw.is_multiple_of(13) {
            let id = ids.swap_remove(draw % ids.len());
            let _ = writeln!(out, "\nbegin {:032x} 0", id.as_u128());
            ring.retire(id).expect("the call is live");
            let _ = writeln!(out, "\ndone {:032x} 0", id.as_u128());
        } else {
            let id = ids[draw % ids.len()];
            let next = ring.newest(id).expect("the call is live").meta.version.ver + 1;
            let _ = writeln!(out, "\nbegin {:032x} {next}", id.as_u128());
            ring.update(id, |bytes| fill(bytes, id, next))
                .expect("the call is live");
            let _ = writeln!(out, "\ndone {:032x} {next}", id.as_u128());
        }
        if draw.is_multiple_of(50) {
            ring.reclaim_idle(4);
        }
    }
}

/// Runs the child for a while; hands out what it said, line by line.
fn run_child(dir: &Path, pause: Duration) -> Vec<String> {
    let program = std::env::current_exe().expect("a test knows its own program");
    let mut child = Command::new(program)
        .args([
            "child_writes_until_killed",
            "--exact",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test can start itself");
    let stdout = child.stdout.take().expect("the output is piped");
    let lines = std::thread::spawn(move || {
        BufReader::new(stdout)
            .lines()
            .map_while(Result::ok)
            .collect::<Vec<_>>()
    });
    std::thread::sleep(pause);
    child.kill().expect("the child still runs");
    child.wait().expect("a killed child is waited for");
    lines
        .join()
        .expect("the reader of the output ends with the child")
}

/// What the parent knows: version per call (0: ended), and the one operation that may have been.
#[derive(Default)]
struct Ledger {
    calls: BTreeMap<u128, u32>,
    pending: Option<(u128, u32)>,
    acknowledged: u64,
}

impl Ledger {
    fn read(&mut self, lines: &[String]) {
        for line in lines {
            let words: Vec<_> = line.split(' ').collect();
            let [verb @ ("begin" | "done"), id, ver] = words[..] else {
                continue;
            };
            // The last line may be cut short by the kill.
            let (Ok(id), Ok(ver)) = (u128::from_str_radix(id, 16), ver.parse()) else {
                continue;
            };
            if verb == "begin" {
                self.pending = Some((id, ver));
            } else {
                self.calls.insert(id, ver);
                self.pending = None;
                self.acknowledged += 1;
            }
        }
    }

    /// Compares, and takes up what the ring decided about the pending operation.
    fn check(&mut self, ring: &Ring, recovery: &Recovery) {
        assert_eq!((recovery.origin, recovery.corrupt), (Origin::Recovered, 0));
        assert!(!recovery.closed_in_order);
        ring.verify();
        let mut live: BTreeMap<u128, u32> = BTreeMap::new();
        for record in ring.iter_live() {
            let (id, ver) = (record.meta.id, record.meta.version.ver);
            let mut expected = vec![0; record.payload.len()];
            fill(&mut expected, id, ver);
            assert_eq!(record.payload, expected, "call {id:?} version {ver}");
            live.insert(id.as_u128(), ver);
        }
        if let Some((id, ver)) = self.pending.take() {
            let found = live.get(&id).copied().unwrap_or(0);
            let before = self.calls.get(&id).copied().unwrap_or(0);
            assert!(
                found == ver || found == before,
                "{found} is neither {before} nor {ver}"
            );
            self.calls.insert(id, found);
        }
        self.calls.retain(|_, ver| *ver > 0);
        assert_eq!(live, self.calls, "lost or risen calls");
    }
}

#[test]
fn kill_minus_nine_loses_nothing_and_raises_nothing() {
    let kills = std::env::var("KILLS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(30_u64);
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let dir = dir.expect("a temporary folder");
    let mut ledger = Ledger::default();
    for kill in 0..kills {
        let lines = run_child(dir.path(), Duration::from_millis(25 + kill * 7 % 40));
        ledger.read(&lines);
        let Ok(reader) = Reader::open(dir.path(), 3, 1) else {
            assert!(ledger.calls.is_empty(), "killed before the rings were made");
            continue;
        };
        let snapshot = reader.snapshot();
        let (ring, recovery) = Ring::open_files(dir.path(), &config()).expect("the rings reopen");
        if recovery.origin == Origin::Created {
            assert!(ledger.calls.is_empty(), "killed before the rings were made");
            continue;
        }
        assert_eq!(
            snapshot
                .into_iter()
                .map(|(id, c)| (id, c.payload))
                .collect::<BTreeMap<_, _>>(),
            ring.iter_live()
                .map(|r| (r.meta.id, r.payload.into()))
                .collect::<BTreeMap<_, _>>(),
            "a reader sees what recovery finds"
        );
        ledger.check(&ring, &recovery);
    }
    println!(
        "{kills} kills, {} operations acknowledged",
        ledger.acknowledged
    );
    assert!(
        ledger.acknowledged > kills * 10,
        "the child was killed before it could write"
    );
}

#[test]
fn a_reader_beside_a_busy_writer_sees_the_calls_that_stay() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (mut ring, _) = Ring::open_files(dir.path(), &config()).expect("new rings");
    let steady: Vec<CallId> = (0..60)
        .map(|_| {
            let id = ring.next_id();
            ring.put(id, 1, 1, &[1; 500])
                .expect("an empty ring has room");
            id
        })
        .collect();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let is_writing = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut round = 0_usize;
            is_writing.wait();
            while round == 0 || !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let id = steady[round * 7 % steady.len()];
                ring.update(id, |bytes| bytes.fill(round as u8))
                    .expect("the call is live");
                round += 1;
                if round.is_multiple_of(64) {
                    std::thread::yield_now();
                }
            }
            round
        });
        let reader = Reader::open(dir.path(), 3, 1).expect("the rings exist");
        assert_eq!((reader.info().node, reader.info().shard), (3, 1));
        assert!(!reader.info().closed_in_order);
        is_writing.wait();
        for _ in 0..50 {
            let snapshot = reader.snapshot();
            for copied in snapshot.values() {
                let first = copied.payload[0];
                assert!(
                    copied.payload.iter().all(|&byte| byte == first),
                    "a torn record"
                );
            }
            assert!(snapshot.len() <= steady.len());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(writer.join().expect("the writer does not fail") > 0);
    });
    let ids: Vec<_> = Reader::open(dir.path(), 3, 1)
        .expect("the rings exist")
        .snapshot()
        .into_keys()
        .collect();
    assert_eq!(
        ids, steady,
        "with the writer at rest the snapshot is complete"
    );
}
