//! A hierarchical timer wheel: levels of 64 slots, each slot of a level as long as the whole
//! level below it.
//!
//! ```text
//!   level 0   64 slots of 1 ms          a timer's level is the highest group of six bits in
//!   level 1   64 slots of 64 ms         which its deadline differs from `elapsed`; its slot is
//!   level 2   64 slots of 4 s           the value of those six bits in the deadline
//!   ...
//!   level 10                            the rest of the 64-bit range: no deadline is too far
//! ```
//!
//! From that rule follows all there is to know: every occupied slot of a level lies at or after
//! the wheel's position, every slot of a level comes before any slot of the level above, and so
//! the first occupied slot of the lowest occupied level is the next thing to do. Two bitmaps find
//! it in two instructions. If it is on level 0 its timers are due; if not it is *cascaded*: the
//! wheel moves to its start and its timers go to lower levels.
//!
//! A slot may hold a million timers, so cascading one is cut into portions of [`CASCADE_MAX`]
//! per [`Wheel::advance`]. Until the rest is moved nothing fires and [`Wheel::next_deadline`] is
//! in the past, so the caller comes back at once, after its other work. A timer is therefore late
//! by at most one turn of the caller's loop for each `CASCADE_MAX` timers that share its slot,
//! and never early.

use std::num::NonZeroU32;

/// The key of a timer, where nothing more telling is used.
pub type TimerKey = u64;

/// How many timers one [`Wheel::advance`] moves to lower levels at most: some ten microseconds.
pub const CASCADE_MAX: u32 = 1024;

const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = u64::BITS.div_ceil(SLOT_BITS) as usize;
/// The heads of the slots' lists are nodes of their own, before those of the timers.
const HEADS: usize = LEVELS * SLOTS;
const NIL: u32 = u32::MAX;

/// Names an inserted timer. It goes stale when the timer fires or is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerHandle {
    index: u32,
    /// Odd, so never zero: an `Option<TimerHandle>` is as small as a handle.
    generation: NonZeroU32,
}

impl TimerHandle {
    #[inline]
    fn new(index: u32, generation: u32) -> TimerHandle {
        debug_assert!(generation % 2 == 1, "an armed timer's generation is odd");
        TimerHandle {
            index,
            generation: NonZeroU32::MIN | generation,
        }
    }
}

/// A node's place in a circular doubly linked list.
#[derive(Clone, Copy, Debug)]
struct Link {
    next: u32,
    prev: u32,
}

#[derive(Clone, Copy, Debug)]
struct Timer<T> {
    /// While the node is free: the next free node.
    deadline: u64,
    /// Counts how often the node was taken and given back: odd while it is armed. A handle with
    /// another count is stale.
    generation: u32,
    /// Left over from the last use while the node is free.
    key: T,
}

/// A timer wheel. Sans-IO: time is what [`Wheel::advance`] says it is, in milliseconds.
#[derive(Debug)]
pub struct Wheel<T = TimerKey> {
    /// The position: all that was due before it has fired, and nothing after it.
    elapsed: u64,
    /// Up to when timers may fire.
    now: u64,
    /// One bit per level that holds a timer.
    levels: u16,
    /// One bit per slot that holds a timer.
    slots: [u64; LEVELS],
    /// The slot being cascaded, by the index of its head; [`NIL`] if none.
    cascading: u32,
    cascade_left: u32,
    links: Vec<Link>,
    timers: Vec<Timer<T>>,
    /// First of the free nodes, chained by their deadlines.
    free: u32,
    count: u32,
    capacity: u32,
}

const _: () = assert!(
    LEVELS <= u16::BITS as usize,
    "one bit per level in `levels`"
);

impl<T: Copy> Wheel<T> {
    /// An empty wheel that stands at `start_ms` and grows as needed.
    pub fn new(start_ms: u64) -> Wheel<T> {
        Wheel::build(start_ms, 0, NIL - HEADS as u32)
    }

    /// An empty wheel with room for `capacity` timers and never more.
    pub fn with_capacity(start_ms: u64, capacity: u32) -> Wheel<T> {
        let capacity = capacity.min(NIL - HEADS as u32);
        Wheel::build(start_ms, capacity as usize, capacity)
    }

    fn build(start_ms: u64, reserve: usize, capacity: u32) -> Wheel<T> {
        let mut links = Vec::with_capacity(HEADS + reserve);
        links.extend((0..HEADS as u32).map(|head| Link {
            next: head,
            prev: head,
        }));
        Wheel {
            elapsed: start_ms,
            now: start_ms,
            levels: 0,
            slots: [0; LEVELS],
            cascading: NIL,
            cascade_left: CASCADE_MAX,
            links,
            timers: Vec::with_capacity(reserve),
            free: NIL,
            count: 0,
            capacity,
        }
    }

    /// Arms a timer. A deadline that has passed fires at the next [`Wheel::poll_expired`].
    ///
    /// # Panics
    ///
    /// When the wheel is full; use [`Wheel::try_insert`] where that can happen.
    #[inline]
    pub fn insert(&mut self, deadline_ms: u64, key: T) -> TimerHandle {
        self.try_insert(deadline_ms, key)
            .expect("the wheel has room for every timer in use")
    }

    /// Arms a timer, unless the wheel holds as many as it may.
    #[inline(always)]
    pub fn try_insert(&mut self, deadline_ms: u64, key: T) -> Option<TimerHandle> {
        let deadline = deadline_ms.max(self.elapsed);
        let index = self.free;
        let handle = match self.timers.get_mut(index as usize) {
            Some(timer) => {
                self.free = timer.deadline as u32;
                timer.deadline = deadline;
                timer.generation = timer.generation.wrapping_add(1);
                timer.key = key;
                TimerHandle::new(index, timer.generation)
            }
            None => self.add_node(deadline, key)?,
        };
        self.count += 1;
        self.link(HEADS as u32 + handle.index, deadline);
        Some(handle)
    }

    /// Disarms a timer and gives its key; `None` if it has fired or was cancelled before.
    #[inline]
    pub fn cancel(&mut self, handle: TimerHandle) -> Option<T> {
        let timer = self.timers.get(handle.index as usize)?;
        // A handle is made with an odd generation, so an equal one is armed.
        if timer.generation != handle.generation.get() {
            return None;
        }
        self.unlink(HEADS as u32 + handle.index);
        Some(self.release(handle.index))
    }

    /// Says what time it is. Time that goes backwards stands still.
    #[inline]
    pub fn advance(&mut self, now_ms: u64) {
        self.now = self.now.max(now_ms);
        self.cascade_left = CASCADE_MAX;
    }

    /// A timer that is due, in the order of ticks; `None` when there is no more to do before
    /// [`Wheel::next_deadline`].
    pub fn poll_expired(&mut self) -> Option<T> {
        loop {
            if self.cascading != NIL && !self.cascade() {
                return None;
            }
            let Some((head, start)) = self.next_slot().filter(|&(_, start)| start <= self.now)
            else {
                // Nothing starts before `now`, so every slot is still ahead from there.
                self.elapsed = self.now;
                return None;
            };
            self.elapsed = start;
            if head >= SLOTS as u32 {
                self.cascading = head;
                continue;
            }
            let node = self.links[head as usize].next;
            self.unlink(node);
            return Some(self.release(node - HEADS as u32));
        }
    }

    /// When to call [`Wheel::advance`] next: never later than the earliest deadline, and exact
    /// when that is less than 64 ms away. `None` when no timer is armed.
    #[inline]
    pub fn next_deadline(&self) -> Option<u64> {
        if self.cascading != NIL {
            return Some(self.elapsed);
        }
        self.next_slot().map(|(_, start)| start)
    }

    /// How many timers are armed.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether no timer is armed.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether `handle` names a timer that is still armed.
    pub fn is_armed(&self, handle: TimerHandle) -> bool {
        let timer = self.timers.get(handle.index as usize);
        timer.is_some_and(|timer| timer.generation == handle.generation.get())
    }

    #[cold]
    fn add_node(&mut self, deadline: u64, key: T) -> Option<TimerHandle> {
        if self.count == self.capacity {
            return None;
        }
        let index = self.timers.len() as u32;
        self.timers.push(Timer {
            deadline,
            generation: 1,
            key,
        });
        self.links.push(Link {
            next: NIL,
            prev: NIL,
        });
        Some(TimerHandle::new(index, 1))
    }

    /// Appends `node` to the list of the slot that `deadline` belongs to.
    #[inline]
    fn link(&mut self, node: u32, deadline: u64) {
        debug_assert!(deadline >= self.elapsed, "the past has no slot");
        let differs = (deadline ^ self.elapsed) | (SLOTS as u64 - 1);
        let level = (u64::BITS - 1 - differs.leading_zeros()) / SLOT_BITS;
        let slot = (deadline >> (level * SLOT_BITS)) as usize % SLOTS;
        let head = level << SLOT_BITS | slot as u32;
        self.levels |= 1 << level;
        self.slots[level as usize] |= 1 << slot;
        let last = std::mem::replace(&mut self.links[head as usize].prev, node);
        self.links[last as usize].next = node;
        self.links[node as usize] = Link {
            next: head,
            prev: last,
        };
    }

    /// Takes `node` out of its list.
    #[inline]
    fn unlink(&mut self, node: u32) {
        let Link { next, prev } = self.links[node as usize];
        self.links[prev as usize].next = next;
        self.links[next as usize].prev = prev;
        // Both neighbours are one node only if that is the head: the slot is empty now.
        if next == prev {
            self.vacate(next);
        }
    }

    /// Clears the bits of an empty slot.
    #[inline]
    fn vacate(&mut self, head: u32) {
        let level = (head >> SLOT_BITS) as usize;
        self.slots[level] &= !(1 << (head % SLOTS as u32));
        if self.slots[level] == 0 {
            self.levels &= !(1 << level);
        }
        if head == self.cascading {
            self.cascading = NIL;
        }
    }

    /// Puts a node that is in no list among the free and gives its key.
    #[inline]
    fn release(&mut self, index: u32) -> T {
        let timer = &mut self.timers[index as usize];
        timer.deadline = u64::from(self.free);
        timer.generation = timer.generation.wrapping_add(1);
        self.free = index;
        self.count -= 1;
        timer.key
    }

    /// The head of the first occupied slot, and when the slot starts.
    #[inline]
    fn next_slot(&self) -> Option<(u32, u64)> {
        if self.levels == 0 {
            return None;
        }
        let level = self.levels.trailing_zeros();
        let slot = self.slots[level as usize % LEVELS].trailing_zeros();
        let shift = level * SLOT_BITS;
        // Above the slot's own six bits the deadline and the position agree. The top level has
        // fewer than six bits and nothing above.
        let above = (self.elapsed >> shift >> SLOT_BITS << SLOT_BITS) << shift;
        Some((level << SLOT_BITS | slot, above | u64::from(slot) << shift))
    }

    /// Moves timers of the slot being cascaded to lower levels; whether all are moved.
    fn cascade(&mut self) -> bool {
        let head = self.cascading;
        while self.cascading == head {
            if self.cascade_left == 0 {
                return false;
            }
            self.cascade_left -= 1;
            let node = self.links[head as usize].next;
            self.unlink(node);
            self.link(node, self.timers[node as usize - HEADS].deadline);
        }
        true
    }
}

#[cfg(test)]
mod tests;
