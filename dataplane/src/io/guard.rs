//! Threads that a node cannot do without.

use super::mesh::{Inlet, Order};

/// Held by such a thread as long as it runs: a panic in it ends the process, as a kill would.
///
/// A node lives as long as its heartbeats do, which come from a thread of their own. With one shard
/// dead and the others alive nobody would ever go on with the calls of that shard. When the process
/// is gone they are another node's within half a second, or its own again after its restart.
pub(super) struct Indispensable;

impl Drop for Indispensable {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or_default();
            tracing::error!(thread = name, "it has panicked: the process ends");
            std::process::abort();
        }
    }
}

/// Looks whether every shard still takes its orders, from the thread that sends the heartbeats.
///
/// A shard that stands still for good (on a disk that never answers, in a loop without an end) would
/// keep its calls from everybody, and where there are two nodes the other one's outputs of the same
/// shard would wait for its acks.
pub(super) struct Watch {
    next: u64,
    /// Looks in a row at which a shard had not taken its orders; nothing before its first turn.
    missed: Vec<Option<u32>>,
    has_asked: bool,
}

impl Watch {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            next: 0,
            missed: vec![None; shards],
            has_asked: false,
        }
    }

    /// Gives every shard an order once a second; `now` in nanoseconds. Hands out one that has taken
    /// none for so many looks. Looks are counted, not time: if the whole process stood still, one
    /// is missed at most.
    pub(super) fn look(&mut self, now: u64, inlets: &[Inlet]) -> Option<usize> {
        if now < self.next {
            return None;
        }
        self.next = now + LOOK_EVERY_NS;
        for (missed, inlet) in self.missed.iter_mut().zip(inlets) {
            *missed = match *missed {
                _ if self.has_asked && inlet.has_taken_orders() => Some(0),
                missed => missed.map(|looks| looks + 1),
            };
            inlet.order(Order::Look);
        }
        self.has_asked = true;
        let stands_still = |missed: &Option<u32>| missed.is_some_and(|looks| looks >= MISSED_MAX);
        self.missed.iter().position(stands_still)
    }
}

const LOOK_EVERY_NS: u64 = 1_000_000_000;
/// Half a minute: longer than any turn, and than what a disk that still works takes.
const MISSED_MAX: u32 = 30;

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::io::wake::Doorbell;

    #[test]
    fn a_panic_in_an_indispensable_thread_ends_the_process() {
        const IN_CHILD: &str = "RINGTOLL_TEST_PANICS";
        if std::env::var_os(IN_CHILD).is_some() {
            let thread = std::thread::spawn(|| {
                let _indispensable = Indispensable;
                panic!("as it is meant to");
            });
            let _ = thread.join();
            return;
        }
        let binary = std::env::current_exe().expect("this test");
        let name = "io::guard::tests::a_panic_in_an_indispensable_thread_ends_the_process";
        let status = Command::new(binary)
            .args(["--exact", name])
            .env(IN_CHILD, "")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let signal = status.expect("it starts").signal();
        assert_eq!(signal, Some(libc::SIGABRT));
    }

    struct Shards {
        inlets: Vec<Inlet>,
        watch: Watch,
        now: u64,
        _sockets: Vec<std::os::unix::net::UnixStream>,
    }

    impl Shards {
        fn new() -> Self {
            let bells = (0..2).map(|_| Doorbell::new().expect("a socket pair"));
            let (bells, sockets): (Vec<_>, Vec<_>) = bells.unzip();
            Self {
                inlets: bells.into_iter().map(Inlet::new).collect(),
                watch: Watch::new(2),
                now: 1,
                _sockets: sockets,
            }
        }

        // A second passes, in which the shards named take a turn.
        fn second(&mut self, turning: &[usize]) -> Option<usize> {
            let found = self.watch.look(self.now, &self.inlets);
            assert_eq!(
                self.watch.look(self.now, &self.inlets),
                None,
                "once a second"
            );
            self.now += LOOK_EVERY_NS;
            for &shard in turning {
                self.inlets[shard].orders().for_each(drop);
            }
            found
        }
    }

    #[test]
    fn a_shard_that_takes_no_orders_for_half_a_minute_stands_still() {
        let mut shards = Shards::new();
        for _ in 0..100 {
            assert_eq!(shards.second(&[0, 1]), None);
        }
        let until = (0..100).find(|_| shards.second(&[0]).is_some());
        assert_eq!(until, Some(MISSED_MAX as usize));
        assert_eq!(shards.second(&[0]), Some(1));
    }

    #[test]
    fn who_has_not_begun_or_was_told_to_stop_does_not_stand_still() {
        let mut shards = Shards::new();
        for _ in 0..100 {
            assert_eq!(shards.second(&[0]), None, "1 is still starting");
        }
        shards.second(&[0, 1]);
        shards.second(&[0, 1]);
        shards.inlets[1].order(Order::Stop);
        for _ in 0..100 {
            assert_eq!(shards.second(&[0]), None, "1 has left its loop");
        }
    }

    #[test]
    fn a_process_that_stood_still_has_no_shard_that_does() {
        let mut shards = Shards::new();
        for _ in 0..100 {
            assert_eq!(shards.second(&[0, 1]), None);
            shards.now += 3_600 * LOOK_EVERY_NS;
            assert_eq!(shards.second(&[]), None);
        }
    }
}
