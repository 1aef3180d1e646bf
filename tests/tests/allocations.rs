//! How often a running node's shard asks for memory per call: a whole node, its bundled CDF
//! included, is embedded, and phones call each other through real sockets. Only what the shard's
//! own thread allocates is counted, glommio's reactor included.

// The global allocator's trait is unsafe to implement; this one only counts.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dataplane::config::Config;
use dataplane::io::Node;
use tests::by_hand::Phone;
use tests::process::free_udp;

struct Counting;

/// What each thread allocated, and which it is: every thread takes a place of its own.
static COUNTS: [AtomicU64; THREADS_MAX] = [const { AtomicU64::new(0) }; THREADS_MAX];
static THREADS: [AtomicU64; THREADS_MAX] = [const { AtomicU64::new(0) }; THREADS_MAX];
static TAKEN: AtomicU64 = AtomicU64::new(0);
const THREADS_MAX: usize = 256;

thread_local! {
    static PLACE: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn count_one() {
    // A thread that is going away counts nothing.
    let _ = PLACE.try_with(|place| {
        if place.get() == usize::MAX {
            // Taken before the thread is looked up, which allocates and comes back here.
            place.set(TAKEN.fetch_add(1, Ordering::Relaxed) as usize);
            if let Some(thread) = THREADS.get(place.get()) {
                thread.store(own_thread(), Ordering::Relaxed);
            }
        }
        if let Some(count) = COUNTS.get(place.get()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
}

// The kernel's number of this thread.
fn own_thread() -> u64 {
    let link = std::fs::read_link("/proc/thread-self").ok();
    let number = link.as_deref().and_then(Path::file_name);
    let number = number.and_then(|number| number.to_str()?.parse().ok());
    number.unwrap_or(0)
}

// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_one();
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_one();
        // SAFETY: the caller's promise is the same.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What the threads of that name have allocated.
fn allocated_by(name: &str) -> u64 {
    let of = |place: usize| {
        let thread = THREADS[place].load(Ordering::Relaxed);
        let is_meant = std::fs::read_to_string(format!("/proc/self/task/{thread}/comm"))
            .is_ok_and(|found| found.trim_end() == name);
        is_meant.then(|| COUNTS[place].load(Ordering::Relaxed))
    };
    (0..THREADS_MAX).filter_map(of).sum()
}

fn calls_until(phones: &[Phone; 2], node: std::net::SocketAddr, until: Instant, run: &str) -> u64 {
    let mut calls = 0;
    while Instant::now() < until {
        let call = phones[0].call(&phones[1], node, &format!("{run}-{calls}"));
        call.hang_up(&phones[0], &phones[1], node);
        calls += 1;
    }
    calls
}

#[test]
fn a_call_through_a_running_node_allocates_little() {
    let phones = ["127.0.0.2", "127.0.0.3"].map(Phone::at);
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let (sip, callee) = (free_udp(), phones[1].address());
    // Short timers, so that the buffers of ended transactions soon come back as fast as they go.
    let text = format!(
        "[node]\nname = \"counted\"\ncores = []\nstate_dir = \"{dir}/state\"\n\
         data_dir = \"{dir}/data\"\nring_young_mib = 16\nring_old_mib = 32\n\
         [sip]\nlisten = [\"udp:{sip}\"]\nt1_ms = 50\nt2_ms = 400\nt4_ms = 500\n\
         [[sip.route]]\nmatch = \"*\"\nnext_hop = \"{callee}\"\n\
         [charging.rf]\nbundled_interim_interval_s = 0\n",
        dir = dir.path().display(),
    );
    let config = Config::parse(&text, Path::new("counted.toml"));
    let node = Node::start(config.unwrap_or_else(|wrong| panic!("{wrong}")));
    let mut node = node.unwrap_or_else(|fault| panic!("{fault}"));
    // The CDF is greeted, the buffers are filled: 64 T1 and more.
    calls_until(
        &phones,
        sip,
        Instant::now() + Duration::from_secs(6),
        "warm",
    );
    let before = allocated_by("shard-0");
    assert!(before > 0, "the shard's thread is found by its name");
    let calls = calls_until(
        &phones,
        sip,
        Instant::now() + Duration::from_secs(4),
        "counted",
    );
    let per_call = (allocated_by("shard-0") - before) as f64 / calls as f64;
    println!("{per_call:.1} allocations per call over {calls} calls");
    assert!(calls >= 50, "{calls} calls");
    assert!(per_call <= PER_CALL_MAX, "{per_call:.1} over {calls} calls");
    node.stop();
}

/// 7.1 were measured; the margin is for turns in which other processes take the shard's core.
const PER_CALL_MAX: f64 = 12.0;
