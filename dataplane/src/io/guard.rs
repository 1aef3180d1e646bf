//! Threads that a node cannot do without.

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

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;

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
}
