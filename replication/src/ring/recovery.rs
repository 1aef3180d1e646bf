//! What a restart finds: the scan of both generations.
//!
//! Old first, then young; of each call the highest (epoch, version) counts. Whatever else is
//! committed was superseded, and is marked dead now if the kill came before that.

use super::{Entry, OLD, Ring};
use crate::generation::{Found, Which};
use crate::record;

impl Ring {
    /// Scans one generation, oldest first, indexing what counts and redoing lost DEAD marks.
    pub(super) fn recover(&mut self, which: Which, recovery: &mut Recovery) {
        loop {
            let generation = self.generation_mut(which);
            let lsn = generation.head();
            let size = match generation.examine(lsn) {
                Found::End => break,
                Found::Pad(size) => size,
                Found::Dead(size) => {
                    recovery.dead += 1;
                    self.note_rseq(lsn | flag(which));
                    size
                }
                Found::Corrupt(size) => {
                    // At the head it is a torn write and as good as absent. Further back it
                    // costs one call its newest version; the peers have it.
                    if !matches!(generation.examine_after(lsn, size), Found::End) {
                        generation.mark_dead(lsn);
                        recovery.corrupt += 1;
                        size
                    } else {
                        recovery.torn += 1;
                        break;
                    }
                }
                Found::Live(size) => {
                    self.note_rseq(lsn | flag(which));
                    self.recover_record(lsn | flag(which), recovery);
                    size
                }
            };
            recovery.records += 1;
            self.generation_mut(which).advance_head(size);
        }
        // Where a head is, nothing follows. If something does, the chain was broken amid others,
        // and all behind the break is lost to this ring.
        let generation = self.generation_mut(which);
        let head = generation.head();
        recovery.cut_off += u64::from(generation.wipe_behind(head));
    }

    fn recover_record(&mut self, place: u64, recovery: &mut Recovery) {
        let (generation, lsn) = self.generation(place);
        let head = generation.head_at(lsn);
        let (id, version) = (record::call_id(head), record::version(head));
        let Some(held) = self.held(id) else {
            self.index.insert_unique(
                id.hash(),
                Entry {
                    hash: id.hash(),
                    place,
                },
                |e| e.hash,
            );
            self.count(place);
            return;
        };
        recovery.superseded += 1;
        if version > held.meta.version {
            self.uncount(held.place);
            self.replace(id, held.place, place);
            self.count(place);
            self.mark_dead(held.place);
        } else {
            // Equal versions are the two ends of a move that a kill cut short.
            self.mark_dead(place);
        }
    }

    fn note_rseq(&mut self, place: u64) {
        let (generation, lsn) = self.generation(place);
        let rseq = record::meta(generation.head_at(lsn)).map_or(0, |meta| meta.rseq);
        self.rseq = self.rseq.max(rseq);
    }
}

/// What an opened ring found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Where the content comes from.
    pub origin: Origin,
    /// Whether the last writer closed the ring; false after a kill.
    pub closed_in_order: bool,
    /// Incarnation of the last writer, 0 if there was none.
    pub incarnation_former: u32,
    /// Live calls.
    pub calls: u64,
    /// Tombstones still held.
    pub tombstones: u64,
    /// Records scanned.
    pub records: u64,
    /// Of these, marked dead before.
    pub dead: u64,
    /// Of these, found superseded; marked dead now.
    pub superseded: u64,
    /// Committed records with a wrong checksum amid others: memory was damaged.
    pub corrupt: u64,
    /// Generations whose scan ended before their head: memory was damaged, and what lay behind is
    /// lost.
    pub cut_off: u64,
    /// Records at a head whose content was cut short: dropped, as never committed.
    pub torn: u64,
}

impl Recovery {
    /// Whether all is there that was: what a node tells the others when it joins again (V10).
    #[must_use]
    pub fn kept(&self) -> bool {
        self.origin == Origin::Recovered && self.corrupt + self.torn + self.cut_off == 0
    }

    pub(super) fn new(origin: Origin) -> Self {
        Self {
            origin,
            closed_in_order: false,
            incarnation_former: 0,
            calls: 0,
            tombstones: 0,
            records: 0,
            dead: 0,
            superseded: 0,
            corrupt: 0,
            cut_off: 0,
            torn: 0,
        }
    }
}

/// Where an opened ring's content comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// There was none: the ring is new.
    Created,
    /// A former process of this boot left it.
    Recovered,
    /// A former boot left it, so it was emptied; the peers have the calls.
    OtherBoot,
}

fn flag(which: Which) -> u64 {
    if which == Which::Old { OLD } else { 0 }
}
