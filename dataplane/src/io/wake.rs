//! A bell between tasks of one executor, and one between shards.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::{Poll, Waker};

/// Wakes one waiting task of the same executor.
#[derive(Default)]
pub(super) struct Bell {
    rung: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Bell {
    pub(super) fn ring(&self) {
        self.rung.set(true);
        if let Some(waker) = self.waiting.borrow_mut().take() {
            waker.wake();
        }
    }

    pub(super) async fn wait(&self) {
        poll_fn(|context| {
            if self.rung.replace(false) {
                return Poll::Ready(());
            }
            *self.waiting.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Wakes another shard: a byte on a socket pair, sent only when the shard may be asleep.
#[derive(Clone)]
pub(super) struct Doorbell {
    shared: Arc<Shared>,
}

struct Shared {
    // Set while a ring is under way and while the shard is awake: it looks before it sleeps.
    heard: AtomicBool,
    sender: UnixStream,
}

impl Doorbell {
    /// A doorbell and the socket its shard waits on.
    pub(super) fn new() -> io::Result<(Self, UnixStream)> {
        let (sender, receiver) = UnixStream::pair()?;
        sender.set_nonblocking(true)?;
        Ok((
            Self {
                shared: Arc::new(Shared {
                    heard: AtomicBool::new(false),
                    sender,
                }),
            },
            receiver,
        ))
    }

    /// Wakes the shard, to be called after its queue was filled. Costs no system call while the
    /// shard is awake.
    pub(super) fn ring(&self) {
        // Pairs with the fence in `sleep`: either we see that the shard sleeps, or it sees what
        // we put into its queue.
        fence(Ordering::SeqCst);
        if !self.shared.heard.swap(true, Ordering::AcqRel) {
            // A full socket means that a ring is under way already.
            let _ = (&self.shared.sender).write(&[1]);
        }
    }

    /// The shard is about to sleep: rings send a byte from now on. It has to look at its queues
    /// once more before it does.
    pub(super) fn sleep(&self) {
        self.shared.heard.store(false, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// The shard is awake and will look at its queues before it sleeps again.
    pub(super) fn wake(&self) {
        self.shared.heard.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn bytes_waiting(socket: &mut UnixStream) -> usize {
        socket.set_nonblocking(true).expect("a socket");
        socket.read(&mut [0; 8]).unwrap_or(0)
    }

    #[test]
    fn only_a_sleeping_shard_is_sent_a_byte_and_only_one() {
        let (bell, mut socket) = Doorbell::new().expect("a socket pair");
        bell.wake();
        bell.ring();
        assert_eq!(bytes_waiting(&mut socket), 0);
        bell.sleep();
        bell.ring();
        bell.ring();
        assert_eq!(bytes_waiting(&mut socket), 1);
    }
}
