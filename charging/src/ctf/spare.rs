//! Memory of what is over, for what begins: in steady traffic no session allocates.

use crate::state::{AccountingSession, Opening};

/// Emptied memory, bounded.
#[derive(Debug, Default)]
pub(super) struct Spare {
    /// For the content of records and what is written only once.
    buffers: Vec<Vec<u8>>,
    /// Template and method of a session.
    sessions: Vec<(Vec<u8>, Vec<u8>)>,
    // A session holds its box, which is what is worth keeping.
    #[expect(clippy::vec_box)]
    openings: Vec<Box<Opening>>,
}

impl Spare {
    /// An empty buffer.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let spare = self.buffers.pop();
        spare.unwrap_or_else(|| Vec::with_capacity(CONTENT_LENGTH_TYPICAL))
    }

    pub(super) fn give(&mut self, mut buffer: Vec<u8>) {
        if self.buffers.len() < SPARE_MAX && buffer.capacity() <= SPARE_CAPACITY_MAX {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }

    /// Empty memory for the template and for the method of a session.
    pub(super) fn take_session(&mut self) -> (Vec<u8>, Vec<u8>) {
        self.sessions.pop().unwrap_or_default()
    }

    pub(super) fn give_session(&mut self, session: AccountingSession) {
        let held = session.held_stop.map(|(record, _)| record);
        for record in session
            .pending
            .into_iter()
            .chain(session.waiting)
            .chain(held)
        {
            self.give(record.content);
        }
        if let Some(opening) = session.opening {
            self.give_opening(opening);
        }
        let (mut template, mut method) = (session.template, session.method);
        let largest = template.capacity().max(method.capacity());
        if self.sessions.len() < SPARE_SESSIONS_MAX && largest <= SPARE_CAPACITY_MAX {
            template.clear();
            method.clear();
            self.sessions.push((template, method));
        }
    }

    /// Empty facts.
    pub(super) fn take_opening(&mut self) -> Box<Opening> {
        self.openings.pop().unwrap_or_default()
    }

    pub(super) fn give_opening(&mut self, mut opening: Box<Opening>) {
        if self.openings.len() < SPARE_MAX && opening.largest_buffer() <= SPARE_CAPACITY_MAX {
            opening.clear();
            self.openings.push(opening);
        }
    }
}

/// First guess at the size of a record's content, octets.
const CONTENT_LENGTH_TYPICAL: usize = 512;
/// Buffers and facts kept for the next records, and the largest worth keeping, octets.
const SPARE_MAX: usize = 64;
const SPARE_CAPACITY_MAX: usize = 4 * 1024;
/// Sessions whose memory is kept: as many as may end at once and begin again soon after.
const SPARE_SESSIONS_MAX: usize = 1_024;
