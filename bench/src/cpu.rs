//! CPU time of another process, as the scheduler counts it.

use std::fs;
use std::io;
use std::time::Duration;

/// Time all threads of a process and of its children have run so far.
///
/// # Errors
/// There is no such process, or the kernel does not say.
pub fn run_time(pid: u32) -> io::Result<Duration> {
    let mut total = Duration::ZERO;
    for process in family(pid)? {
        for task in fs::read_dir(format!("/proc/{process}/task"))? {
            // A thread may end while we look.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
                continue;
            };
            // Documentation/scheduler/sched-stats.rst: run time in ns, then waiting, slices.
            let run = text
                .split(' ')
                .next()
                .and_then(|run| run.trim().parse().ok());
            total += Duration::from_nanos(run.ok_or_else(unreadable)?);
        }
    }
    Ok(total)
}

/// A process and its descendants: servers fork their workers.
fn family(pid: u32) -> io::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(child) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Some(parent) = parent_of(child) {
            parents.push((child, parent));
        }
    }
    let mut family = vec![pid];
    let mut seen = 0;
    while seen < family.len() {
        let parent = family[seen];
        family.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(child, _)| *child),
        );
        seen += 1;
    }
    Ok(family)
}

fn parent_of(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; state and parent follow it.
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

fn unreadable() -> io::Error {
    io::Error::other("/proc/PID/task/TID/schedstat cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_of_our_own_shows() {
        let before = run_time(std::process::id()).expect("our own process");
        let mut word = 1u64;
        while run_time(std::process::id()).expect("our own process") == before {
            word = std::hint::black_box(word.wrapping_mul(3));
        }
    }
}
