//! Counts the instructions and allocations of single operations and holds them to their bars.
//!
//! `cargo run -p bench --release --bin instructions [name...]` runs each operation under
//! callgrind twice, with different numbers of rounds; the difference, divided, is the cost of one
//! round without its set-up. The count does not depend on the machine's load, so a regression
//! shows as a number. Fails when one is above its bar, or when valgrind is missing.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};

use bench::operation::{OPERATIONS, Operation};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to `System` unchanged, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: `pointer` came from `System` with this layout, and the caller vouches for size.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Two numbers of rounds, far enough apart that one stray instruction does not show.
const ROUNDS: [u64; 2] = [1_000, 3_000];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, name, rounds] = arguments.as_slice()
        && command == "run"
    {
        let rounds = rounds.parse().expect("a number of rounds");
        (find(name).expect("a name of the table").run)(rounds);
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = arguments.iter().find(|name| find(name).is_none()) {
        eprintln!("no operation is called {unknown}");
        return ExitCode::FAILURE;
    }
    println!(
        "{:<28}{:>12}{:>8}{:>13}{:>6}",
        "operation", "instructions", "bar", "allocations", "bar"
    );
    let mut failed = false;
    for operation in OPERATIONS {
        if arguments.is_empty() || arguments.iter().any(|name| name == operation.name) {
            failed |= !measure(operation);
        }
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn find(name: &str) -> Option<&'static Operation> {
    OPERATIONS.iter().find(|operation| operation.name == name)
}

/// Measures and prints one operation; whether it stays below its bars.
fn measure(operation: &Operation) -> bool {
    let [few, many] = ROUNDS.map(|rounds| instructions(operation, rounds));
    let (Some(few), Some(many)) = (few, many) else {
        eprintln!(
            "{}: valgrind --tool=callgrind gave no count; is it installed?",
            operation.name
        );
        return false;
    };
    // What a process allocates once and for all is no round's.
    (operation.run)(1);
    let counted = ROUNDS.map(|rounds| allocations(operation, rounds));
    let (Some(instructions), Some(allocations)) = (per_round([few, many]), per_round(counted))
    else {
        eprintln!(
            "{}: more rounds cost less than few ({many} instructions against {few}): its set-up \
             does not cost the same each time, so nothing can be said of a round",
            operation.name
        );
        return false;
    };
    let good =
        instructions <= operation.instructions_max && allocations <= operation.allocations_max;
    println!(
        "{:<28}{:>12}{:>8}{:>13}{:>6}{}",
        operation.name,
        instructions,
        operation.instructions_max,
        allocations,
        operation.allocations_max,
        if good { "" } else { "  ABOVE THE BAR" },
    );
    good
}

/// The cost of one round, rounded up; `None` when the set-up hides it.
fn per_round([few, many]: [u64; 2]) -> Option<u64> {
    Some(many.checked_sub(few)?.div_ceil(ROUNDS[1] - ROUNDS[0]))
}

fn allocations(operation: &Operation, rounds: u64) -> u64 {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    (operation.run)(rounds);
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

/// The instructions of a whole run, as callgrind's last lines give them: `Collected : 12345`.
fn instructions(operation: &Operation, rounds: u64) -> Option<u64> {
    let program = std::env::current_exe().ok()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["run", operation.name, &rounds.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(' ').next()?.parse().ok()
}
