//! Requests without an answer: a bounded slab, and a list of them in the order of deadlines.
//!
//! Every try waits equally long, so a renewed deadline is always the last one and the list needs
//! no sorting.

use quanta::Instant;

use super::super::avp::{Avps, Message};
use super::super::dictionary::{self as d, Attribute};
use super::super::header::{self, HEADER_LENGTH};
use super::{AnswerSummary, PeerIndex, Tag};

/// No slot.
const NONE: u32 = u32::MAX;

/// What an answer must name to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestKey {
    command: u32,
    record_type: u32,
    record_number: u32,
    session_at: u32,
    session_length: u32,
}

/// One request.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) tag: Tag,
    /// The complete request as it is sent next.
    pub(super) message: Vec<u8>,
    /// The peer of the present try.
    pub(super) peer: PeerIndex,
    /// Copies sent to that peer.
    pub(super) tries: u8,
    /// Peers that were chosen, one bit each.
    pub(super) tried: u32,
    /// Peers a copy was sent to, one bit each.
    pub(super) asked: u32,
    key: RequestKey,
    deadline: Instant,
    generation: u32,
    first_generation: u32,
    occupied: bool,
    before: u32,
    after: u32,
}

/// Whether an answer belongs to its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verified {
    Right(AnswerSummary),
    /// It names another command, session, type or number.
    Lie,
    /// It cannot be read.
    Malformed,
}

/// All requests without an answer.
#[derive(Debug)]
pub(super) struct PendingTable {
    slots: Vec<Pending>,
    free: Vec<u32>,
    slots_max: usize,
    slot_bits: u32,
    first_generation: u32,
    head: u32,
    tail: u32,
    occupied: usize,
}

impl RequestKey {
    /// Reads the key of an encoded request; `None` if that is not one.
    pub(super) fn read(request: &[u8]) -> Option<Self> {
        let message = Message::parse(request).ok()?;
        if !message.header.is_request() {
            return None;
        }
        let command = message.header.command;
        let (type_code, number_code) = numbering(command);
        let mut avps = message.avps();
        // RFC 6733 s8.8: Session-Id comes first.
        let session = avps.next()?.ok().filter(|avp| avp.is(d::SESSION_ID))?;
        let session_at = HEADER_LENGTH + session.raw.len().min(8);
        let mut record_type = None;
        let mut record_number = None;
        for avp in avps {
            let avp = avp.ok()?;
            if avp.is(type_code) {
                record_type = avp.u32().ok();
            } else if avp.is(number_code) {
                record_number = avp.u32().ok();
            }
            if record_type.is_some() && record_number.is_some() {
                break;
            }
        }
        Some(Self {
            command,
            record_type: record_type?,
            record_number: record_number?,
            session_at: session_at as u32,
            session_length: session.data.len() as u32,
        })
    }
}

impl Pending {
    /// Compares an answer with this request.
    pub(super) fn verify(&self, answer: &Message<'_>) -> Verified {
        if answer.header.command != self.key.command {
            return Verified::Lie;
        }
        let start = self.key.session_at as usize;
        let session = &self.message[start..start + self.key.session_length as usize];
        let (type_code, number_code) = numbering(self.key.command);
        let mut found = AnswerSummary {
            command: answer.header.command,
            is_protocol_error: answer.header.is_error(),
            ..AnswerSummary::default()
        };
        let mut result = None;
        let mut session_seen = false;
        for avp in answer.avps() {
            let Ok(avp) = avp else {
                return Verified::Malformed;
            };
            // One comparison turns most AVPs away: all that matter here are the IETF's.
            if avp.vendor != 0 {
                continue;
            }
            if avp.is(d::SESSION_ID) {
                session_seen = true;
                if avp.data != session {
                    return Verified::Lie;
                }
            } else if avp.is(d::RESULT_CODE) {
                result = avp.u32().ok();
            } else if avp.is(d::EXPERIMENTAL_RESULT) {
                result = result.or_else(|| experimental(avp.grouped().ok()?));
            } else if avp.is(type_code) {
                found.record_type = avp.u32().ok();
            } else if avp.is(number_code) {
                found.record_number = avp.u32().ok();
            } else if avp.is(d::ACCT_INTERIM_INTERVAL) {
                found.interim_interval_s = avp.u32().ok();
            }
        }
        let Some(result) = result else {
            return Verified::Malformed;
        };
        found.result_code = result;
        // RFC 6733 s7.2: only a protocol error may come without the session.
        if !session_seen && !found.is_protocol_error {
            return Verified::Malformed;
        }
        let differs = |said: Option<u32>, asked| said.is_some_and(|said| said != asked);
        if differs(found.record_type, self.key.record_type)
            || differs(found.record_number, self.key.record_number)
        {
            return Verified::Lie;
        }
        Verified::Right(found)
    }
}

impl PendingTable {
    /// A table for at most `slots_max` requests; identifiers start at `first`.
    pub(super) fn new(slots_max: usize, first: u32) -> Self {
        let slots_max = slots_max.clamp(1, 1 << 20);
        let slot_bits = usize::BITS - (slots_max - 1).leading_zeros();
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            slots_max,
            slot_bits,
            first_generation: first,
            head: NONE,
            tail: NONE,
            occupied: 0,
        }
    }

    /// Takes a request; `None` if the table is full. The message gets its hop-by-hop identifier.
    pub(super) fn insert(
        &mut self,
        tag: Tag,
        request: &[u8],
        key: RequestKey,
        deadline: Instant,
    ) -> Option<u32> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < self.slots_max => self.grow(key, deadline),
            None => return None,
        };
        let entry = &mut self.slots[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.first_generation = entry.generation;
        entry.occupied = true;
        entry.tag = tag;
        entry.key = key;
        entry.deadline = deadline;
        (entry.tries, entry.tried, entry.asked) = (0, 0, 0);
        entry.message.clear();
        entry.message.extend_from_slice(request);
        let id = Self::id(self.slot_bits, index, entry.generation);
        header::set_hop_by_hop(&mut entry.message, id);
        self.occupied += 1;
        self.link_last(index);
        Some(id)
    }

    /// A new identifier and deadline for a request that is sent again.
    pub(super) fn renew(&mut self, id: u32, deadline: Instant) -> Option<(u32, &mut Pending)> {
        let index = self.index_of_current(id)?;
        self.unlink(index);
        self.link_last(index);
        let entry = &mut self.slots[index as usize];
        entry.deadline = deadline;
        entry.generation = entry.generation.wrapping_add(1);
        let id = Self::id(self.slot_bits, index, entry.generation);
        header::set_hop_by_hop(&mut entry.message, id);
        Some((id, entry))
    }

    /// The request with that very identifier.
    pub(super) fn get(&self, id: u32) -> Option<&Pending> {
        self.index_of_current(id)
            .map(|index| &self.slots[index as usize])
    }

    /// The request with that very identifier.
    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Pending> {
        self.index_of_current(id)
            .map(|index| &mut self.slots[index as usize])
    }

    /// The request of which some copy carried that identifier.
    pub(super) fn answered(&self, id: u32) -> Option<&Pending> {
        let entry = self.slots.get(self.index_of(id))?;
        let generations = u32::MAX >> self.slot_bits;
        let back = entry.generation.wrapping_sub(id >> self.slot_bits) & generations;
        let copies = entry.generation.wrapping_sub(entry.first_generation);
        (entry.occupied && back <= copies).then_some(entry)
    }

    /// The newest identifier of the request some copy of which carried `id`.
    pub(super) fn current_id(&self, id: u32) -> u32 {
        let index = self.index_of(id);
        match self.slots.get(index) {
            Some(entry) => Self::id(self.slot_bits, index as u32, entry.generation),
            None => id,
        }
    }

    /// Removes a request and gives its tag back.
    pub(super) fn remove(&mut self, id: u32) -> Option<Tag> {
        let index = self.index_of_current(id)?;
        self.unlink(index);
        self.free.push(index);
        self.occupied -= 1;
        let entry = &mut self.slots[index as usize];
        entry.occupied = false;
        Some(entry.tag)
    }

    /// Removes every request of a tag. Walks the table: calls rarely end with a request open.
    pub(super) fn remove_tag(&mut self, tag: Tag) {
        for index in 0..self.slots.len() as u32 {
            let entry = &self.slots[index as usize];
            if entry.occupied && entry.tag == tag {
                let id = Self::id(self.slot_bits, index, entry.generation);
                self.remove(id);
            }
        }
    }

    /// The identifiers of all requests whose present try is at that peer, oldest last.
    pub(super) fn for_each_at(&self, peer: PeerIndex, mut each: impl FnMut(u32)) {
        let mut index = self.tail;
        while let Some(entry) = self.slots.get(index as usize) {
            if entry.peer == peer {
                each(Self::id(self.slot_bits, index, entry.generation));
            }
            index = entry.before;
        }
    }

    /// The oldest request whose deadline passed.
    pub(super) fn expired(&self, now: Instant) -> Option<u32> {
        let entry = self.slots.get(self.head as usize)?;
        (entry.deadline <= now).then(|| Self::id(self.slot_bits, self.head, entry.generation))
    }

    /// The next deadline.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.slots
            .get(self.head as usize)
            .map(|entry| entry.deadline)
    }

    /// Requests in the table.
    pub(super) const fn len(&self) -> usize {
        self.occupied
    }

    const fn id(slot_bits: u32, index: u32, generation: u32) -> u32 {
        (generation << slot_bits) | index
    }

    const fn index_of(&self, id: u32) -> usize {
        (id & ((1 << self.slot_bits) - 1)) as usize
    }

    fn index_of_current(&self, id: u32) -> Option<u32> {
        let index = self.index_of(id);
        let entry = self.slots.get(index)?;
        let current = Self::id(self.slot_bits, index as u32, entry.generation);
        (entry.occupied && current == id).then_some(index as u32)
    }

    fn grow(&mut self, key: RequestKey, deadline: Instant) -> u32 {
        self.slots.push(Pending {
            tag: Tag {
                call: 0,
                session: 0,
            },
            message: Vec::new(),
            peer: PeerIndex(0),
            tries: 0,
            tried: 0,
            asked: 0,
            key,
            deadline,
            generation: self.first_generation,
            first_generation: self.first_generation,
            occupied: false,
            before: NONE,
            after: NONE,
        });
        (self.slots.len() - 1) as u32
    }

    fn link_last(&mut self, index: u32) {
        let before = self.tail;
        match self.slots.get_mut(before as usize) {
            Some(last) => last.after = index,
            None => self.head = index,
        }
        let entry = &mut self.slots[index as usize];
        (entry.before, entry.after) = (before, NONE);
        self.tail = index;
    }

    fn unlink(&mut self, index: u32) {
        let (before, after) = {
            let entry = &self.slots[index as usize];
            (entry.before, entry.after)
        };
        match self.slots.get_mut(before as usize) {
            Some(entry) => entry.after = after,
            None => self.head = after,
        }
        match self.slots.get_mut(after as usize) {
            Some(entry) => entry.before = before,
            None => self.tail = before,
        }
    }
}

/// Which AVPs number the records of a command.
const fn numbering(command: u32) -> (Attribute, Attribute) {
    match command {
        d::CREDIT_CONTROL => (d::CC_REQUEST_TYPE, d::CC_REQUEST_NUMBER),
        _ => (d::ACCOUNTING_RECORD_TYPE, d::ACCOUNTING_RECORD_NUMBER),
    }
}

fn experimental(inside: Avps<'_>) -> Option<u32> {
    inside
        .find_attribute(d::EXPERIMENTAL_RESULT_CODE)?
        .u32()
        .ok()
}
