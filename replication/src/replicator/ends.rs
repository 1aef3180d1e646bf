//! The end of calls of which members beside their places have copies.
//!
//! A place that was slow may still hold a state from before the end, while outputs have left for the
//! copies elsewhere. Should the owner die now, these must be there to tell it, be it as tombstones,
//! which do not live for ever. So the others learn of an end when every place knows of it.

use super::{Replicator, StreamMarks, bits};
use crate::record::{CallId, Kind, Version};

/// An end that some members have not been told of.
#[derive(Debug)]
pub(super) struct End {
    id: CallId,
    version: Version,
    /// Who was told.
    told: u32,
    /// Where the streams stood behind it.
    marks: StreamMarks,
}

impl Replicator {
    /// An end was sent to those in `told`; the others are told later.
    pub(super) fn note_end(&mut self, now: u64, id: CallId, version: Version, told: u32) {
        if self.ends.len() >= self.config.holds_max {
            self.tell_oldest_end(now);
        }
        let marks = self.stream_marks();
        self.ends.push_back(End {
            id,
            version,
            told,
            marks,
        });
    }

    /// Tells the others of what all places know.
    pub(super) fn tell_ends(&mut self, now: u64) {
        while let Some(end) = self.ends.front() {
            let mut told = bits(end.told).map(|n| (&self.peers[n].link, end.marks.0[n]));
            if !told.all(|(link, mark)| link.admitted().is_none() || link.has_acked(mark)) {
                return;
            }
            self.tell_oldest_end(now);
        }
    }

    /// Tells the others of everything: places move, and nothing is said of former ones.
    pub(super) fn tell_all_ends(&mut self, now: u64) {
        while !self.ends.is_empty() {
            self.tell_oldest_end(now);
        }
    }

    fn tell_oldest_end(&mut self, now: u64) {
        let Some(end) = self.ends.pop_front() else {
            return;
        };
        for (n, peer) in self.peers.iter_mut().enumerate() {
            if end.told >> n & 1 == 0 {
                peer.link
                    .enqueue(end.id, end.version, Kind::Del, false, now);
            }
        }
    }
}
