//! The end of calls of which members beside their places have copies.
//!
//! A place that was slow may still hold a state from before the end, while outputs have left for the
//! copies elsewhere. Should the owner die now, these must be there to tell it, be it as tombstones,
//! which do not live for ever. So the others learn of an end when every place knows of it. Until the
//! view is settled tombstones are kept, and everybody learns of an end at once.

use super::{Replicator, StreamMarks, bits};
use crate::record::{CallId, Kind, Version};

/// An end that some members have not been told of.
#[derive(Debug)]
pub(super) struct End {
    id: CallId,
    version: Version,
    /// The places, which were told.
    told: u32,
    /// Who is to be told when these know.
    later: u32,
    /// Where the streams stood behind it.
    marks: StreamMarks,
}

impl Replicator {
    /// An end was sent to the places in `told`: tells the others, now or later.
    pub(super) fn tell_end(&mut self, now: u64, id: CallId, version: Version, told: u32) {
        let others = if self.take_scattered(id) {
            u32::MAX
        } else {
            self.misplaced()
        };
        let later = others & !told & self.admitted();
        if later == 0 {
            return;
        }
        let marks = self.stream_marks();
        self.ends.push_back(End {
            id,
            version,
            told,
            later,
            marks,
        });
        if !self.is_still {
            self.tell_all_ends(now);
        } else if self.ends.len() > self.config.holds_max {
            self.tell_oldest_end(now);
        }
    }

    /// Tells the others of what all places know.
    pub(super) fn tell_ends(&mut self, now: u64) {
        self.tell_places_again(now);
        while let Some(end) = self.ends.front() {
            let mut told = bits(end.told).map(|n| (&self.peers[n].link, end.marks.0[n]));
            let is_known = told.all(|(link, mark)| {
                link.admitted().is_none() || (link.has_acked(mark) && !link.has_dropped(mark))
            });
            if !is_known {
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

    /// Whoever has come to wait for being told what to forget waits for the ends of until now.
    pub(super) fn note_waiting(&mut self) {
        let noted = self.ends_told + self.ends.len() as u64;
        for peer in &mut self.peers {
            let waits = peer.link.waits();
            peer.waits_for = waits.then(|| peer.waits_for.unwrap_or(noted));
        }
    }

    fn admitted(&self) -> u32 {
        let peers = self.peers.iter().enumerate();
        let admitted = peers.filter(|(_, peer)| peer.link.admitted().is_some());
        admitted.fold(0, |set, (n, _)| set | 1 << n)
    }

    // What waited in a queue that ran over is void, and a walk brings no tombstone that has left the
    // ring.
    fn tell_places_again(&mut self, now: u64) {
        for end in self.ends.iter_mut().take(AGAIN_AT_ONCE) {
            for n in bits(end.told) {
                let (link, mark) = (&mut self.peers[n].link, &mut end.marks.0[n]);
                if link.has_dropped(*mark) && link.is_filled() {
                    link.enqueue(end.id, end.version, Kind::Del, false, now);
                    *mark = link.stream_end();
                }
            }
        }
    }

    fn tell_oldest_end(&mut self, now: u64) {
        let Some(end) = self.ends.pop_front() else {
            return;
        };
        self.ends_told += 1;
        for n in bits(end.later) {
            let link = &mut self.peers[n].link;
            link.enqueue(end.id, end.version, Kind::Del, false, now);
        }
    }
}

/// Ends that are told again at once: few against a queue that ran over before.
const AGAIN_AT_ONCE: usize = 32;
