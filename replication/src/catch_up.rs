//! Filling a peer: a paced walk over the ring, beside live traffic, with a provable end.
//!
//! The giver walks its records into the peer's stream and then puts a mark there, with count and
//! xor-hash of what it walked. The receiver marks every call that comes from the giver meanwhile.
//! When it reaches the mark with all before it received, and count and hash agree, it forgets the
//! giver's calls that are not marked: the giver no longer knows them. A giver that may yet learn of
//! calls that are its own, for it joins or has lost its memory and waits, says so in the mark, and
//! nothing is forgotten. A mismatch repeats the whole. All of it is idempotent, so it may run
//! under full traffic and be begun again any time.
//!
//! A walk that brings a peer its share ends twice, for what it does not bring may have moved to
//! another place, where it has not arrived yet. The first mark says that all is there, and nothing
//! is forgotten; the second one follows when every place of the giver's calls has acked its first.
//! Else a member that joins, and is filled at leisure, would meanwhile leave the calls whose places
//! have moved to it with their owner alone.
//!
//! To forget is to look at the whole ring, so it goes on over many turns of the loop, and the mark
//! is acked only when it has ended: until then the giver has not filled the peer. Its end is as if
//! all had happened the moment the mark was reached. What was written since is passed over
//! ([`Sweep`]), what came again unchanged is marked, and a new catch-up voids it. The stream does
//! not wait behind the mark: its sender puts it off and goes on (see `peer`).

use hashbrown::HashTable;

use crate::frame::{ENTRY_SYNC, Entry, EntryKind};
use crate::layout::record_size;
use crate::record::{CallId, Kind, Meta, Version};
use crate::ring::{Cursor, Ring, Step, Sweep};

/// Which records a catch-up brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The giver's own calls that the peer should hold.
    Targets = 0,
    /// Everything, copies and tombstones too: for a node that joins.
    All = 1,
    /// For a node that adopts, which has all of its own: the calls of dead nodes that it is to go on
    /// with, those that others went on with or began since the last settled view, if it would have
    /// been the one to, and tombstones of such. They are few, however many calls there are: as a
    /// rule it holds its orphans already.
    Orphans = 2,
}

/// Which calls belong to the peer, in the giver's view.
pub(crate) struct Belongings<'a> {
    /// The peer is to hold a copy of that call of the giver's.
    pub(crate) is_target: &'a dyn Fn(CallId) -> bool,
    /// The peer is the one to go on with the call if its owner is dead, and either that is so, or
    /// the call may have had a dead one since the last settled view.
    pub(crate) is_orphan: &'a dyn Fn(&Meta) -> bool,
    /// Every other peer has what it should hold, so that this one may forget what it should not.
    pub(crate) are_elsewhere: bool,
}

impl Scope {
    /// Reads the byte of a request; what is unknown asks for everything.
    #[must_use]
    pub fn from_u8(byte: u8) -> Self {
        match byte {
            0 => Self::Targets,
            2 => Self::Orphans,
            _ => Self::All,
        }
    }
}

/// The giving side.
#[derive(Debug, Default)]
pub(crate) struct Giver {
    walk: Option<Walk>,
    /// End of a walk that is not acked yet.
    marked: Option<Mark>,
    /// End of a walk that is acked: the peer has its share, and is told to forget the rest when all
    /// others have theirs.
    waits: Option<Mark>,
    number: u32,
    /// When the newest walk began.
    started: u64,
    /// By scope: view of the last walk that was acked, and number of the datagram that said so.
    answered: [Option<(u32, u64)>; 3],
    /// What was under way when a walk for orphans came before it, which is short and urgent.
    after: Option<Mark>,
    /// The last walk left the peer with all that it should hold of the giver's calls, and none was
    /// begun since that could change what that is.
    is_filled: bool,
    /// And with nothing else.
    has_share: bool,
}

#[derive(Debug)]
struct Walk {
    /// What the mark at the end will say.
    mark: Mark,
    cursor: Cursor,
    started: u64,
    bytes: u64,
    next_at: u64,
}

/// What stands at the end of a catch-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) scope: Scope,
    /// The giver knew all its calls when the walk began: what it did not bring is to be forgotten.
    pub(crate) is_final: bool,
    /// Another mark of the same walk will follow, which is final.
    pub(crate) follows: bool,
    /// View in which the walk began: it brought what was known in that view or later.
    pub(crate) view: u32,
    xor: u64,
    pub(crate) count: u32,
}

impl Mark {
    /// All but view and count, in the place of a call id.
    pub(crate) fn as_id(self) -> CallId {
        let ends = u128::from(self.is_final) << 8 | u128::from(self.follows) << 9;
        let high = self.scope as u128 | ends;
        CallId::from_u128(high << 64 | u128::from(self.xor))
    }

    pub(crate) fn parse(id: CallId, version: Version) -> Self {
        let high = (id.as_u128() >> 64) as u64;
        let (view, count) = (version.epoch, version.ver);
        Self {
            scope: Scope::from_u8(high as u8),
            is_final: high >> 8 & 1 == 1,
            follows: high >> 9 & 1 == 1,
            view,
            xor: id.as_u128() as u64,
            count,
        }
    }
}

/// What the walk has for the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walked {
    Record(CallId, Version, EntryKind),
    End(Mark),
    Wait,
}

impl Giver {
    /// Begins a walk, or begins it again. One for orphans goes before any other.
    pub(crate) fn start(&mut self, scope: Scope, view: u32, is_final: bool, now: u64) {
        let mark = Mark {
            scope,
            // Orphans are no calls of the giver's, and say nothing about those.
            is_final: is_final && scope == Scope::All,
            follows: is_final && scope == Scope::Targets,
            view,
            xor: 0,
            count: 0,
        };
        let walk = self.walk.take().map(|walk| walk.mark);
        let under_way = walk.or(self.marked.take()).or(self.waits.take());
        let put_off = under_way.filter(|mark| mark.scope != Scope::Orphans);
        self.after = match scope {
            Scope::Orphans => put_off.or(self.after),
            Scope::Targets | Scope::All => None,
        };
        self.is_filled &= scope == Scope::Orphans;
        self.has_share &= scope == Scope::Orphans;
        self.begin(mark, now);
    }

    fn begin(&mut self, mark: Mark, now: u64) {
        self.number += 1;
        self.started = now;
        (self.marked, self.waits) = (None, None);
        let is_share = mark.scope == Scope::Targets;
        let mark = Mark {
            is_final: mark.is_final && !is_share,
            follows: (mark.follows || mark.is_final) && is_share,
            xor: 0,
            count: 0,
            ..mark
        };
        let cursor = Cursor::default();
        self.walk = Some(Walk {
            mark,
            cursor,
            started: now,
            bytes: 0,
            next_at: now,
        });
    }

    /// Begins what is under way again after a while, as long as it took so far: the peer has no
    /// room for what it brings.
    pub(crate) fn begin_later(&mut self, now: u64) {
        let walk = self.walk.as_ref().map(|walk| walk.mark);
        let Some(mark) = walk.or(self.marked) else {
            return;
        };
        let took = now.saturating_sub(self.started).max(LATER_NS);
        self.begin(mark, now + took);
        self.started = now;
    }

    /// Whether what is under way is, or includes, a catch-up of this scope in this view.
    pub(crate) fn is_giving(&self, scope: Scope, view: u32) -> bool {
        let walk = self.walk.as_ref().map(|walk| walk.mark);
        let serves =
            |mark: Mark| mark.view == view && (mark.scope == scope || mark.scope == Scope::All);
        let under_way = [walk, self.marked, self.waits, self.after];
        under_way.into_iter().flatten().any(serves)
    }

    /// The peer has acked the mark of catch-up `number` in its datagram `by`.
    pub(crate) fn on_mark_acked(&mut self, number: u32, by: u64, now: u64) {
        if number != self.number {
            return;
        }
        if let Some(mark) = self.marked.take() {
            self.is_filled |= mark.scope != Scope::Orphans;
            if mark.follows {
                self.waits = Some(mark);
                return;
            }
            self.answered[mark.scope as usize] = Some((mark.view, by));
            self.has_share |= mark.scope == Scope::Targets && mark.is_final;
        }
        if let Some(mark) = self.after.take() {
            self.begin(mark, now);
        }
    }

    /// Whether the peer has all that it should hold of the giver's calls.
    pub(crate) fn is_filled(&self) -> bool {
        self.is_filled
    }

    /// Whether it is yet to be told to forget the rest, when all others are filled.
    pub(crate) fn waits(&self) -> bool {
        self.waits.is_some()
    }

    /// Whether a request is answered that came in datagram `number`: it left before the ack of
    /// its answer, but was late. To walk again would bring what the peer has tidied away since.
    pub(crate) fn has_answered(&self, scope: Scope, view: u32, number: u64) -> bool {
        self.answered[scope as usize].is_some_and(|(of, by)| of == view && number < by)
    }

    /// Whether the peer holds of the giver's calls those it should, and no others.
    pub(crate) fn has_share(&self) -> bool {
        self.has_share
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        let ends = [self.marked, self.waits, self.after];
        self.walk.is_none() && ends.iter().all(Option::is_none)
    }

    /// Number of the newest catch-up, 0 before the first.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn deadline(&self) -> Option<u64> {
        self.walk.as_ref().map(|walk| walk.next_at)
    }

    /// What comes next; the peer is also to have the calls it is the heir of.
    pub(crate) fn next(
        &mut self,
        now: u64,
        bytes_per_s: u64,
        ring: &Ring,
        peer: u16,
        belongings: &Belongings<'_>,
    ) -> Walked {
        if belongings.are_elsewhere
            && let Some(mark) = self.waits.take()
        {
            let (is_final, follows) = (true, false);
            let mark = Mark {
                is_final,
                follows,
                ..mark
            };
            self.marked = Some(mark);
            return Walked::End(mark);
        }
        let Some(walk) = &mut self.walk else {
            return Walked::Wait;
        };
        if now < walk.next_at {
            return Walked::Wait;
        }
        let mut looks = PASSED_OVER_MAX;
        loop {
            let record = match ring.walk_some(&mut walk.cursor, &mut looks) {
                Step::Record(record) => record,
                Step::Later => return Walked::Wait, // others have their turn, too
                Step::End => {
                    let mark = walk.mark;
                    (self.walk, self.marked) = (None, Some(mark));
                    return Walked::End(mark);
                }
            };
            let meta = record.meta;
            let wanted = match walk.mark.scope {
                _ if ring.is_leftover(&meta) => false,
                Scope::All => true,
                Scope::Targets => {
                    let is_heir = meta.heir() == Some(peer);
                    meta.owner == ring.node() && (is_heir || (belongings.is_target)(meta.id))
                }
                Scope::Orphans => (belongings.is_orphan)(&meta),
            };
            if !wanted {
                continue;
            }
            walk.mark.count += 1;
            walk.mark.xor ^= fingerprint(meta.id);
            walk.bytes += record_size(record.payload.len());
            // Time by which that many bytes may have gone out.
            let spent = u128::from(walk.bytes) * 1_000_000_000 / u128::from(bytes_per_s.max(1));
            walk.next_at = walk.started + spent as u64;
            let kind = if meta.kind == Kind::Del {
                EntryKind::Del
            } else {
                EntryKind::Put
            };
            return Walked::Record(meta.id, meta.version, kind);
        }
    }
}

/// The receiving side.
#[derive(Debug)]
pub(crate) struct Marks {
    number: u32,
    marked: Marked,
    overflowed: bool,
    /// Number of the walk's first entry, or of its mark if there was none. What was queued before is
    /// in the walk, if it is to stay.
    first: u64,
    xor: u64,
    count: u32,
    /// The mark has done its part: nothing is to be marked until the next catch-up.
    has_ended: bool,
}

impl Marks {
    pub(crate) fn new(ids_max: usize) -> Self {
        Self {
            number: 0,
            marked: Marked::new(ids_max),
            overflowed: false,
            first: u64::MAX,
            xor: 0,
            count: 0,
            has_ended: false,
        }
    }

    /// Notes the number of the giver's newest catch-up. True if it is a new one, which voids the
    /// marks, and what is still being forgotten for a former one.
    pub(crate) fn begin(&mut self, number: u32) -> bool {
        let is_new = number > self.number;
        if is_new {
            self.number = number;
            self.marked.clear();
            (self.overflowed, self.xor, self.count) = (false, 0, 0);
            (self.first, self.has_ended) = (u64::MAX, false);
        } else if self.has_ended {
            self.marked.tables.pop();
        }
        is_new
    }

    /// Whether a mark in a datagram of catch-up `sync` is yet to be heeded. One of a former
    /// catch-up came late: it says nothing about the marks there are now.
    pub(crate) fn awaits(&self, sync: u32) -> bool {
        sync != 0 && sync == self.number && !self.has_ended
    }

    /// The walk has brought all it is to bring, says a mark under `number`. What comes from then on
    /// is marked until the last mark.
    pub(crate) fn end_walk(&mut self, number: u64) {
        self.first = self.first.min(number);
    }

    /// Nothing more is marked in this catch-up. The marks go bit by bit, as datagrams come: to
    /// give back those of a million calls takes milliseconds.
    pub(crate) fn end(&mut self) {
        self.has_ended = true;
    }

    /// Marks an entry's call; called once per number of the stream.
    pub(crate) fn note(&mut self, entry: &Entry<'_>, sync: u32) {
        if !self.awaits(sync) || entry.kind == EntryKind::Mark {
            return;
        }
        let Some(newest) = self.marked.newest_mut(entry.id) else {
            self.overflowed = true;
            return;
        };
        *newest = (*newest).max(entry.number);
        if entry.flags & ENTRY_SYNC != 0 {
            *newest = BROUGHT;
            self.first = self.first.min(entry.number);
            self.count += 1;
            self.xor ^= fingerprint(entry.id);
        }
    }

    pub(crate) fn is_complete(&self, mark: &Mark) -> bool {
        !self.has_overflowed() && (self.xor, self.count) == (mark.xor, mark.count)
    }

    /// There were more calls than can be marked.
    pub(crate) fn has_overflowed(&self) -> bool {
        self.overflowed
    }
}

/// Calls, and the number of the newest entry of each; `BROUGHT` for those of the walk.
///
/// In many small tables, for one of a million calls would grow in one piece: tens of milliseconds
/// in which nothing else is done.
#[derive(Debug)]
struct Marked {
    tables: Vec<HashTable<(CallId, u64)>>,
    len: usize,
    len_max: usize,
}

impl Marked {
    fn new(len_max: usize) -> Self {
        Self {
            tables: Vec::new(),
            len: 0,
            len_max,
        }
    }

    fn clear(&mut self) {
        (self.tables, self.len) = (Vec::new(), 0);
    }

    fn newest(&self, id: CallId) -> Option<u64> {
        let table = self.tables.get(table_of(id))?;
        let found = table.find(id.hash(), |known| known.0 == id);
        found.map(|known| known.1)
    }

    /// Where the number of a call's newest entry is to be noted, 0 before the first; nothing if
    /// there are too many calls.
    fn newest_mut(&mut self, id: CallId) -> Option<&mut u64> {
        if self.tables.is_empty() {
            self.tables.resize_with(TABLES, HashTable::new);
        }
        let table = &mut self.tables[table_of(id)];
        let (hash, is_full) = (id.hash(), self.len >= self.len_max);
        let is_known = |known: &(CallId, u64)| known.0 == id;
        if table.find(hash, is_known).is_none() {
            if is_full {
                return None;
            }
            table.insert_unique(hash, (id, 0), |known| known.0.hash());
            self.len += 1;
        }
        let known = table.find_mut(hash, is_known);
        known.map(|known| &mut known.1)
    }
}

// Of the hash, a table itself uses the lowest and the highest bits.
fn table_of(id: CallId) -> usize {
    (id.hash() >> 32) as usize % TABLES
}

/// The dropping of the giver's calls that a walk did not bring, but for those it sent since the
/// walk began. What was on its way before proves nothing: it may have left for a place that has
/// moved.
#[derive(Debug)]
pub(crate) struct Forgetting {
    pub(crate) mark: Mark,
    /// Number under which the mark came last.
    pub(crate) at: u64,
    /// The mark came again meanwhile, and its sender is to be told to put it off.
    pub(crate) is_asked: bool,
    /// Number of the walk's first entry, the mark's if there was none.
    first: u64,
    sweep: Sweep,
}

impl Forgetting {
    /// Begins when `mark` is reached under number `at`.
    pub(crate) fn begin(mark: Mark, at: u64, marks: &Marks, ring: &Ring) -> Self {
        Self {
            mark,
            at,
            is_asked: false,
            first: marks.first.min(at),
            sweep: ring.begin_sweep(),
        }
    }

    /// Looks at `limit` records at most; says how many calls of `owner` it dropped, and whether
    /// it has seen all.
    pub(crate) fn go_on(
        &mut self,
        ring: &mut Ring,
        limit: usize,
        owner: u16,
        marks: &Marks,
    ) -> (u64, bool) {
        let first = self.first;
        let stays = |id| marks.marked.newest(id).is_some_and(|newest| newest > first);
        ring.sweep(&mut self.sweep, limit, |meta| {
            meta.owner == owner && !stays(meta.id)
        })
    }
}

/// Records that one step of a walk looks at, dead ones too: tens of microseconds.
const PASSED_OVER_MAX: usize = 512;
/// So many that a table of a million calls' marks has some thousand.
const TABLES: usize = 256;
/// Least pause before a walk begins again for which the peer had no room.
const LATER_NS: u64 = 200_000_000;
/// Greater than the number of any entry.
const BROUGHT: u64 = u64::MAX;

/// A call's part in the xor-hash of a catch-up.
fn fingerprint(id: CallId) -> u64 {
    id.hash()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_lie_in_many_small_tables_and_go_one_table_at_a_time() {
        let calls = 40_000;
        let mut marks = Marks::new(calls);
        let id = |n: usize| CallId::new(0, 0, 1, n as u64);
        for n in 0..calls {
            let newest = marks.marked.newest_mut(id(n)).expect("there is room");
            *newest = n as u64 + 1;
        }
        assert_eq!(marks.marked.newest_mut(id(calls)), None, "they are full");
        assert!(marks.marked.newest_mut(id(7)).is_some(), "it is known");
        for n in 0..calls {
            assert_eq!(marks.marked.newest(id(n)), Some(n as u64 + 1));
        }
        let fair = calls / TABLES;
        for table in &marks.marked.tables {
            assert!((fair / 2..fair * 2).contains(&table.len()));
        }
        marks.begin(1);
        assert_eq!(marks.marked.newest(id(7)), None, "void");
        marks.marked.newest_mut(id(7)).expect("there is room");
        marks.end();
        for left in (0..TABLES).rev() {
            assert!(!marks.begin(1));
            assert_eq!(marks.marked.tables.len(), left);
        }
        assert!(!marks.begin(1) && marks.begin(2));
    }
}
