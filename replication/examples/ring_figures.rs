//! Measures the rings: cost of put and update, write amplification over a call's life, bytes per
//! held call, recovery scan. Run with `--release`; one argument picks one measurement. `RING_DIR`
//! says where the rings are to lie, `RING_HUGE=1` asks for huge pages.
//!
//! For instructions: `valgrind --tool=callgrind .. hot-update 120000`, less the same with 20000.

use std::collections::BinaryHeap;
use std::time::Instant;

use replication::{CallId, Ring, RingConfig};

/// Bytes of an archived call (`bench::state`).
const PAYLOAD: usize = 1600;
/// The same with its head, as it lies in the ring.
const RECORD: u64 = replication::layout::record_size(PAYLOAD);

fn config(young: u64, old: u64, calls: usize) -> RingConfig {
    RingConfig {
        node: 1,
        secret: 0xfeed,
        young_bytes: young & !63,
        old_bytes: old & !63,
        payload_bytes_max: 8192,
        calls_max: calls,
        prefault: true,
        huge_pages: std::env::var_os("RING_HUGE").is_some(),
        ..RingConfig::default()
    }
}

fn file_ring(dir: &std::path::Path, config: &RingConfig) -> Ring {
    Ring::open_files(dir, config)
        .expect("the folder takes ring files")
        .0
}

fn main() {
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_else(|| "all".to_owned());
    let count: usize = args
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(2_000_000);
    let memory = std::env::var("RING_DIR").unwrap_or_else(|_| "/dev/shm".to_owned());
    let dir = tempfile::tempdir_in(memory).expect("shared memory");
    let all = what == "all";
    if all || what == "hot-put" {
        hot_put(&dir.path().join("hot"), count);
    }
    if all || what == "hot-update" {
        hot_update(&dir.path().join("hot"), count);
    }
    if all || what == "large" {
        large(&dir.path().join("large"));
    }
    if all || what == "life" {
        life(&dir.path().join("life"));
    }
}

/// A thousand calls, rewritten whole.
fn hot_put(dir: &std::path::Path, count: usize) {
    let mut ring = file_ring(dir, &config(4 << 20, 4 << 20, 2000));
    let ids: Vec<CallId> = (0..1000).map(|_| ring.next_id()).collect();
    let payload = [7; PAYLOAD];
    for &id in &ids {
        ring.put(id, 1, 1, &payload).expect("room");
    }
    let start = Instant::now();
    measured_puts(&mut ring, &ids, &payload, count);
    report("put, 1,000 hot calls", start, count);
}

#[inline(never)]
fn measured_puts(ring: &mut Ring, ids: &[CallId], payload: &[u8], count: usize) {
    for n in 0..count {
        ring.put(ids[n * 7 % ids.len()], 1, 1, payload)
            .expect("room");
    }
}

/// A thousand calls, altered in place.
fn hot_update(dir: &std::path::Path, count: usize) {
    let mut ring = file_ring(dir, &config(4 << 20, 4 << 20, 2000));
    let ids: Vec<CallId> = (0..1000).map(|_| ring.next_id()).collect();
    for &id in &ids {
        ring.put(id, 1, 1, &[7; PAYLOAD]).expect("room");
    }
    let start = Instant::now();
    measured_updates(&mut ring, &ids, count);
    report("update in place, 1,000 hot calls", start, count);
}

#[inline(never)]
fn measured_updates(ring: &mut Ring, ids: &[CallId], count: usize) {
    for n in 0..count {
        let change = |bytes: &mut [u8]| bytes[900..908].copy_from_slice(&n.to_le_bytes());
        ring.update(ids[n * 7 % ids.len()], change).expect("room");
    }
}

/// A million calls at 70 %: memory, random updates, recovery.
fn large(dir: &std::path::Path) {
    let calls = 1_000_000_usize;
    let live = calls as u64 * RECORD;
    let config = config(256 << 20, live * 10 / 7, calls + calls / 4);
    let mut ring = file_ring(dir, &config);
    let ids: Vec<CallId> = (0..calls).map(|_| ring.next_id()).collect();
    for &id in &ids {
        ring.put(id, 1, 1, &[7; PAYLOAD]).expect("room");
    }
    let mut draw = 88_172_645_463_325_252_u64;
    let count = 3_000_000;
    let start = Instant::now();
    for _ in 0..count {
        draw ^= draw << 13;
        draw ^= draw >> 7;
        draw ^= draw << 17;
        let id = ids[(draw % calls as u64) as usize];
        ring.update(id, |bytes| bytes[900] = draw as u8)
            .expect("room");
    }
    report("update in place, 1,000,000 calls at random", start, count);
    let bytes = config.young_bytes + config.old_bytes;
    println!(
        "held calls {}: {:.0} ring bytes per call at {:.0} % of the old ring, {:.0} with the young",
        ring.calls(),
        config.old_bytes as f64 / ring.calls() as f64,
        ring.fill(),
        bytes as f64 / ring.calls() as f64
    );
    drop(ring);
    let start = Instant::now();
    let (ring, recovery) = Ring::open_files(dir, &config).expect("the rings reopen");
    println!(
        "recovery of {} calls, {} records: {:.0} ms",
        ring.calls(),
        recovery.records,
        start.elapsed().as_secs_f64() * 1e3
    );
}

/// The life of calls in a steady state: four versions in set-up, an interim every 300 s, two at
/// the end, a tombstone; calls last 100 s on average, exponentially.
fn life(dir: &std::path::Path) {
    let (calls, mean_s) = (300_000_usize, 100.0_f64);
    let live = calls as u64 * RECORD;
    let rate = calls as f64 / mean_s;
    // Three seconds of traffic.
    let young = (rate * 3.0 * (6.33 * RECORD as f64 + 64.0)) as u64;
    let mut ring = file_ring(dir, &config(young, live * 10 / 7, calls * 2));
    let mut events = Events {
        heap: BinaryHeap::new(),
        draw: 88_172_645_463_325_252,
    };
    let (mut arrival, mut warm) = (0.0, None);
    let (mut spent, mut versions) = (std::time::Duration::ZERO, 0_u64);
    while arrival < mean_s * 6.0 {
        if events.next_s() > arrival {
            let id = ring.next_id();
            ring.put(id, 1, 1, &[7; PAYLOAD]).expect("room");
            events.plan(id, arrival, mean_s);
            arrival += 1.0 / rate;
            continue;
        }
        let (_, id, step) = events.heap.pop().expect("the next one has a time");
        let start = Instant::now();
        if step == END {
            ring.retire(id).expect("the call is live");
        } else {
            ring.update(id, |bytes| bytes[900] = step)
                .expect("the call is live");
        }
        if arrival > mean_s * 4.0 {
            warm.get_or_insert(*ring.counters());
            spent += start.elapsed();
            versions += 1;
        }
    }
    let (after, warm) = (
        ring.counters(),
        warm.expect("the run is longer than its warming up"),
    );
    let appended = (after.bytes_appended - warm.bytes_appended) as f64;
    let promoted = (after.bytes_promoted - warm.bytes_promoted) as f64 / appended;
    let relocated = (after.bytes_relocated - warm.bytes_relocated) as f64 / appended;
    println!(
        "call lives: {} calls held, {versions} versions, {:.0} ns each, write amplification {:.2} \
         (promoted {promoted:.2}, relocated {relocated:.2}), longest burst {} young, {} old, \
         fill {:.0} %",
        ring.calls(),
        spent.as_nanos() as f64 / versions as f64,
        1.0 + promoted + relocated,
        after.reclaim_burst_max,
        after.reclaim_old_burst_max,
        ring.fill()
    );
}

/// What happens to calls and when: (microseconds, negated for a max-heap; call; step).
struct Events {
    heap: BinaryHeap<(i64, CallId, u8)>,
    draw: u64,
}

impl Events {
    fn next_s(&self) -> f64 {
        self.heap
            .peek()
            .map_or(f64::MAX, |event| -event.0 as f64 / 1e6)
    }

    fn plan(&mut self, id: CallId, start: f64, mean_s: f64) {
        let end = start + 8.0 - mean_s * (1.0 - self.uniform()).ln();
        let mut at = |time: f64, step| self.heap.push((-(time * 1e6) as i64, id, step));
        for (step, delay) in [(1, 0.2), (2, 3.0), (3, 3.1)] {
            at(start + delay, step);
        }
        let mut interim = start + 303.0;
        while interim < end {
            at(interim, 4);
            at(interim + 0.01, 4);
            interim += 300.0;
        }
        at(end, 5);
        at(end + 0.02, END);
    }

    fn uniform(&mut self) -> f64 {
        self.draw ^= self.draw << 13;
        self.draw ^= self.draw >> 7;
        self.draw ^= self.draw << 17;
        (self.draw >> 11) as f64 / (1_u64 << 53) as f64
    }
}

const END: u8 = 6;

fn report(what: &str, start: Instant, count: usize) {
    println!(
        "{what}: {:.0} ns",
        start.elapsed().as_nanos() as f64 / count as f64
    );
}
