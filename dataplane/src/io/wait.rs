//! How a shard waits for whatever comes next.
//!
//! A look of glommio's reactor costs seven `io_uring_enter`, two preemption timers and the sleep,
//! more than the work a datagram asks for. So a shard that had traffic a moment ago waits for
//! more of it in one `ppoll` over all its sockets, and goes to rest in the reactor when none
//! came: there small tasks watch the sockets, and connections are opened.

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::FutureExt;
use glommio::timer::Timer;

use super::sys;
use super::wake::Bell;

/// Readiness of the sockets of one shard.
#[derive(Default)]
pub(super) struct Waiter {
    polled: Vec<libc::pollfd>,
    reactor: Rc<Reactor>,
}

/// The part of a waiter that the tasks of the reactor know.
#[derive(Default)]
pub(super) struct Reactor {
    awake: Bell,
    watches: RefCell<Vec<Rc<Watch>>>,
}

/// A task that watches one socket while the shard rests.
#[derive(Default)]
pub(super) struct Watch {
    armed: Bell,
    over: Cell<bool>,
}

impl Waiter {
    pub(super) fn reactor(&self) -> Rc<Reactor> {
        self.reactor.clone()
    }

    /// Looks at no socket until they are named again.
    pub(super) fn clear(&mut self) {
        self.polled.clear();
    }

    /// Also looks at `fd`; returns the place to ask about it after the wait.
    pub(super) fn add(&mut self, fd: RawFd, is_writer_waiting: bool) -> usize {
        let events = if is_writer_waiting {
            libc::POLLIN | libc::POLLOUT
        } else {
            libc::POLLIN
        };
        self.polled.push(libc::pollfd {
            fd,
            events,
            revents: 0,
        });
        self.polled.len() - 1
    }

    /// Waits at most `patience`; true when a socket is ready.
    pub(super) fn look(&mut self, patience: Duration) -> bool {
        sys::poll(&mut self.polled, patience)
    }

    /// Whether the socket at that place has something to be read, even if only its end.
    pub(super) fn is_ready(&self, place: usize) -> bool {
        self.polled
            .get(place)
            .is_some_and(|polled| polled.revents != 0)
    }

    /// Leaves the thread to the reactor until a socket is ready, a task rings or the time is
    /// over. Which socket it was is for [`Waiter::look`] to find out.
    pub(super) async fn rest(&self, time: Option<Duration>) {
        self.reactor.watches.borrow_mut().retain(|watch| {
            watch.armed.ring();
            !watch.over.get()
        });
        let rung = self.reactor.awake.wait();
        match time {
            Some(time) => {
                let over = async {
                    Timer::new(time).await;
                };
                rung.or(over).await;
            }
            None => rung.await,
        }
    }
}

impl Reactor {
    /// Ends the rest of the shard.
    pub(super) fn ring(&self) {
        self.awake.ring();
    }

    /// Watches a socket by `readable`, which waits until it has something to be read.
    pub(super) fn watch(self: &Rc<Self>, readable: impl AsyncFn() + 'static) -> Rc<Watch> {
        let watch = Rc::new(Watch::default());
        self.watches.borrow_mut().push(watch.clone());
        let (reactor, own) = (self.clone(), watch.clone());
        let task = async move {
            loop {
                own.armed.wait().await;
                if own.over.get() {
                    return;
                }
                readable().await;
                reactor.ring();
            }
        };
        glommio::spawn_local(task).detach();
        watch
    }
}

impl Watch {
    /// Ends the task once its socket is shut down.
    pub(super) fn end(&self) {
        self.over.set(true);
        self.armed.ring();
    }
}
