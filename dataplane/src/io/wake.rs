//! A bell between tasks of one executor, and one between shards.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    rung: AtomicBool,
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
                    rung: AtomicBool::new(false),
                    sender,
                }),
            },
            receiver,
        ))
    }

    /// Wakes the shard. Cheap when it was woken before and has not looked yet.
    pub(super) fn ring(&self) {
        if !self.shared.rung.swap(true, Ordering::AcqRel) {
            // A full socket means that a ring is under way already.
            let _ = (&self.shared.sender).write(&[1]);
        }
    }

    /// The shard is about to look at its queues: later rings must wake it again.
    pub(super) fn answer(&self) {
        self.shared.rung.store(false, Ordering::Release);
    }
}
