//! What copies of calls there must be while a cluster runs, whatever befalls it meanwhile: S3, S10,
//! L4, and that nothing waits longer than it has to (L6).
//!
//! A copy that went with its node is counted as well, for a while: what left under it left rightly.

use std::collections::{BTreeMap, BTreeSet};

use charging::diameter::dictionary::{ACCOUNTING_RECORD_NUMBER, SESSION_ID};
use dataplane::b2bua::{CallState, Phase, id_of, read_state};
use dataplane::shard::Shard;
use dataplane::sip::{Index, Method, TokenKey, parse};
use replication::{CallId, Cursor, Kind, Mode, Record, Ring, Standing, Version};

use crate::sim::diameter::requests;
use crate::sim::{TOKEN_KEY, World};

/// What a node holds of a call.
#[derive(Clone)]
struct Copy {
    version: Version,
    kind: Kind,
    state: Option<CallState>,
}

impl Copy {
    fn of(record: &Record<'_>) -> Self {
        let (meta, is_put) = (record.meta, record.meta.kind == Kind::Put);
        Self {
            version: meta.version,
            kind: meta.kind,
            state: is_put
                .then(|| read_state(meta.schema, record.payload))
                .flatten(),
        }
    }

    fn is(&self, wanted: impl Fn(&CallState) -> bool) -> bool {
        self.kind == Kind::Del || self.state.as_ref().is_some_and(wanted)
    }
}

/// What a shard held when its node went.
pub(crate) struct Gone {
    place: usize,
    at: u64,
    is_kept: bool,
    copies: BTreeMap<u128, Copy>,
}

/// Since when something is not as it should be.
#[derive(Clone, Copy)]
struct Since {
    at: u64,
    /// View of the node then: another one begins anew.
    view: u32,
    version: Version,
}

/// What the checks of copies remember.
#[derive(Default)]
pub(crate) struct Copies {
    /// Since when a node has had the right to act, by node.
    acting: BTreeMap<u16, u64>,
    /// Own calls whose version had not its copies yet, by place.
    behind: BTreeMap<(usize, u128), Since>,
    /// Calls of dead nodes, by place.
    orphaned: BTreeMap<(usize, u128), Since>,
    /// Copies of calls that their owners no longer know, by place.
    stale: BTreeMap<(usize, u128), Since>,
    /// Own calls of each node when its view began: their version, and the least copies due since it
    /// was written.
    before: BTreeMap<(u16, u128), (Version, usize)>,
    /// Calls whose BYE was answered rightly, with the epoch, where a catch-up takes seconds.
    answered: BTreeSet<(u128, Option<u32>)>,
    /// How many were looked at: versions of own calls, deadlines.
    pub(crate) looked: [u64; 2],
}

impl World {
    // Copies that what leaves node `node` must have on other nodes. What had enough of them under a
    // view leaves under the next one, which may want more.
    fn copies_due(&self, node: u16) -> usize {
        let due = self.copies_wanted(node);
        let before = self.seen.due_before.get(&node);
        let before = before.filter(|(changed, _)| self.now <= changed + DUE_MS);
        before.map_or(due, |&(_, before)| due.min(before))
    }

    // The same for the version `newest` of one call. Where a catch-up takes seconds, what was written
    // under a former view has the copies that were due then until the new places are filled.
    fn copies_due_of(&self, node: u16, id: u128, newest: Option<(Version, Kind)>) -> usize {
        let due = self.copies_due(node);
        let before = self.seen.copies.before.get(&(node, id));
        // A tombstone promises no more than the state that it follows.
        let same = before.filter(|(version, _)| {
            newest.is_some_and(|(newest, kind)| {
                newest == *version || kind == Kind::Del && version.next() == Some(newest)
            })
        });
        same.map_or(due, |&(_, before)| due.min(before))
    }

    // Under the view that ends now, `due` copies were due.
    fn note_versions(&mut self, node: u16, due: usize) {
        let mut before = std::mem::take(&mut self.seen.copies.before);
        let places = (0..self.seats.len()).filter(|&place| self.node_of(place) == node);
        let mut now = BTreeMap::new();
        for ring in places.filter_map(|place| self.ring_of(place)) {
            let mut cursor = Cursor::default();
            let records = std::iter::from_fn(|| ring.walk(&mut cursor));
            for record in records.filter(|record| record.meta.owner == node) {
                let (key, version) = ((node, record.meta.id.as_u128()), record.meta.version);
                let least = match before.get(&key) {
                    Some(&(known, least)) if known == version => least.min(due),
                    _ => due,
                };
                now.insert(key, (version, least));
            }
        }
        before.retain(|key, _| key.0 != node);
        before.extend(now);
        self.seen.copies.before = before;
    }

    fn has_slow_sync(&self) -> bool {
        self.setup.sync_bytes_per_s < 1 << 20
    }

    // What a catch-up takes that is slow.
    fn filling_ms(&self) -> u64 {
        if self.has_slow_sync() { FILLING_MS } else { 0 }
    }

    /// A node enters a view.
    pub(crate) fn note_view(&mut self, node: u16) {
        let view = self.nodes[usize::from(node)].board.view_number();
        let due = self.copies_wanted(node);
        let entry = self.seen.dues.entry(node).or_insert((view, due));
        let (former, before) = std::mem::replace(entry, (view, due));
        if former != view {
            self.seen.due_before.insert(node, (self.now, before));
            if self.has_slow_sync() {
                self.note_versions(node, before);
            }
        }
    }

    fn copies_wanted(&self, node: u16) -> usize {
        let Some(cluster) = self.setup.cluster.filter(|one| one.mode == Mode::SemiSync) else {
            return 0;
        };
        let view = self.nodes[usize::from(node)].board.view();
        let others = (0..cluster.nodes).filter(|&other| {
            // A member that leaves keeps copies but is no place for new ones.
            let standing = view.nodes[usize::from(other)].standing;
            other != node && matches!(standing, Standing::Alive | Standing::Joining)
        });
        others.count().min(usize::from(cluster.copies) - 1)
    }

    // Other places of the same shard.
    fn places_elsewhere(&self, place: usize) -> impl Iterator<Item = usize> + '_ {
        let shards = usize::from(self.setup.shards);
        let same = move |other: &usize| other % shards == place % shards;
        (0..self.seats.len())
            .filter(same)
            .filter(move |&other| self.node_of(other) != self.node_of(place))
    }

    // Nodes that hold, or lately held, a copy of a call that is as wanted, beside the one at `place`.
    fn holders(&self, place: usize, id: u128, wanted: impl Fn(&Copy) -> bool) -> BTreeSet<u16> {
        let running = self.places_elsewhere(place).filter(|&other| {
            let ring = self.ring_of(other);
            let held = ring.and_then(|ring| ring.newest_or_tombstone(CallId::from_u128(id)));
            held.is_some_and(|record| wanted(&Copy::of(&record)))
        });
        let gone = self.seen.gone.iter().filter(|gone| {
            let counts = gone.is_kept || self.now < gone.at + LOST_COUNTS_MS;
            counts && gone.copies.get(&id).is_some_and(&wanted)
        });
        let gone: BTreeSet<_> = gone.map(|gone| gone.place).collect();
        let gone = self.places_elsewhere(place).filter(|at| gone.contains(at));
        running.chain(gone).map(|at| self.node_of(at)).collect()
    }

    /// A node goes; with its memory or without.
    pub(crate) fn note_gone(&mut self, node: u16, is_kept: bool) {
        let at = self.now;
        for place in 0..self.seats.len() {
            let Some(ring) = self.ring_of(place).filter(|ring| ring.node() == node) else {
                continue;
            };
            let mut cursor = Cursor::default();
            let records = std::iter::from_fn(|| ring.walk(&mut cursor));
            let copies = records.map(|record| (record.meta.id.as_u128(), Copy::of(&record)));
            let gone = Gone {
                place,
                at,
                is_kept,
                copies: copies.collect(),
            };
            self.seen.gone.push(gone);
        }
    }

    /// A node is back: what it kept is in its rings again.
    pub(crate) fn note_back(&mut self, node: u16) {
        let (now, shards) = (self.now, usize::from(self.setup.shards));
        let of_node = |gone: &Gone| gone.place / shards == usize::from(node);
        let is_past = |gone: &Gone| !gone.is_kept && now >= gone.at + LOST_COUNTS_MS;
        let gone = &mut self.seen.gone;
        gone.retain(|gone| !(is_past(gone) || gone.is_kept && of_node(gone)));
    }

    /// S3: no record leaves before the state that holds it as pending has its copies. S1: nobody
    /// acts for a session under an older epoch than somebody did before.
    pub(crate) fn check_copied_ahead(&mut self, place: usize, shard: &Shard, bytes: &[u8]) {
        let node = self.node_of(place);
        for acr in requests(bytes) {
            let session = acr.find(SESSION_ID).map(|avp| avp.data).unwrap_or_default();
            let number = acr.find(ACCOUNTING_RECORD_NUMBER);
            let number = number.and_then(|avp| avp.u32().ok()).unwrap_or(u32::MAX);
            self.show_record(node, session, number);
            let mut calls = shard.b2bua().calls();
            let of_session = |state: &CallState| {
                let accounting = state.charging.accounting.as_ref();
                accounting.is_some_and(|accounting| accounting.session_id() == session)
            };
            let Some(call) = calls.find(|call| of_session(&call.state)) else {
                continue; // from the backlog, or of a call that another node goes on with
            };
            let id = call.state.id;
            let has = |state: &CallState| {
                let accounting = state.charging.accounting.as_ref();
                accounting.is_none_or(|accounting| accounting.next_number() > number)
            };
            let newest = newest_in(crate::sim::ring_in(shard), id);
            let due = self.copies_due_of(node, id, newest);
            let copies = self.holders(place, id, |copy| copy.is(has)).len();
            self.seen.counted += 1;
            if copies < due {
                self.violations.push(format!(
                    "{}: S3: record {number} of {} left node {node} with {copies} of {due} copies of {id}",
                    self.now,
                    String::from_utf8_lossy(session)
                ));
            }
            self.check_actor(place, shard, id, session);
        }
    }

    /// S10: no 200 to a BYE leaves before the end of the call has its copies.
    pub(crate) fn check_bye_copied(&mut self, place: usize, shard: &Shard, bytes: &[u8]) {
        if self.setup.cluster.is_none() || !bytes.starts_with(b"SIP/2.0 200") {
            return;
        }
        let mut index = Index::new();
        let Ok(message) = parse(bytes, &mut index) else {
            return;
        };
        if message.cseq().1 != Method::Bye {
            return;
        }
        let token = message.to_tag().and_then(|tag| {
            TokenKey::new(&TOKEN_KEY).open(tag.get(..dataplane::sip::TOKEN_BYTES)?)
        });
        let Some((token, _)) = token else { return };
        let id = id_of(&token);
        if self.is_setting_up(shard, id) {
            return; // a BYE in an early dialog, of a call that its node alone knows
        }
        let own = crate::sim::ring_in(shard)
            .and_then(|ring| ring.newest_or_tombstone(CallId::from_u128(id)))
            .map(|held| held.meta.owner);
        let owner = own.unwrap_or(self.node_of(place));
        let newest = if owner == self.node_of(place) {
            newest_in(crate::sim::ring_in(shard), id)
        } else {
            let mut elsewhere = self.places_elsewhere(place);
            let at = elsewhere.find(|&at| self.node_of(at) == owner);
            newest_in(at.and_then(|at| self.ring_of(at)), id)
        };
        let answer = (id, newest.map(|(version, _)| version.epoch));
        if self.seen.copies.answered.contains(&answer) {
            return; // it is repeated, and the new places may not be filled yet
        }
        let due = self.copies_due_of(owner, id, newest);
        let ended = |state: &CallState| state.phase == Phase::Ended;
        let mut holders = self.holders(place, id, |copy| copy.is(ended));
        if owner != self.node_of(place) {
            // The owner's own is among those elsewhere, and this one's is not.
            holders.remove(&owner);
            if own.is_some() {
                holders.insert(self.node_of(place));
            }
        }
        if holders.len() < due {
            self.violations.push(format!(
                "{}: S10: node {} answers a BYE of {id} with {} of {due} copies: {}",
                self.now,
                self.node_of(place),
                holders.len(),
                String::from_utf8_lossy(message.call_id())
            ));
        } else if self.has_slow_sync() {
            self.seen.copies.answered.insert(answer);
        }
    }

    fn is_setting_up(&self, turn: &Shard, id: u128) -> bool {
        let others = self.seats.iter().filter_map(|seat| seat.shard.as_ref());
        let mut shards = others.chain([turn]);
        shards.any(|shard| {
            let mut calls = shard.b2bua().calls();
            calls.any(|call| call.state.id == id && call.state.phase == Phase::SettingUp)
        })
    }

    /// Notes who has had the right to act for how long, then looks whether copies and deadlines
    /// keep up.
    pub(crate) fn look_at_copies(&mut self) {
        for node in 0..self.setup.cluster.map_or(0, |cluster| cluster.nodes) {
            if self.has_lease(node) {
                self.seen.copies.acting.entry(node).or_insert(self.now);
            } else {
                self.seen.copies.acting.remove(&node);
            }
        }
        let mut copies = std::mem::take(&mut self.seen.copies);
        // Who may not act cannot do anything about it: it has its time from when it may again.
        let acts = |place: usize| copies.acting.contains_key(&self.node_of(place));
        copies.behind.retain(|(place, _), _| acts(*place));
        copies.stale.retain(|(place, _), _| acts(*place));
        copies.orphaned.retain(|(place, _), _| acts(*place));
        let mut wrong = Vec::new();
        for place in 0..self.seats.len() {
            let node = self.node_of(place);
            let Some(&since) = copies.acting.get(&node) else {
                continue;
            };
            self.look_for_missing(place, &mut copies, &mut wrong);
            let view = self.nodes[usize::from(node)].board.view();
            if view.nodes[usize::from(node)].standing == Standing::Alive {
                self.look_for_stale(place, &mut copies, &mut wrong);
            }
            self.look_for_orphans(place, &mut copies, &mut wrong);
            if self.now > since + OVERDUE_MS {
                self.look_for_overdue(place, &mut copies, &mut wrong);
            }
        }
        self.seen.copies = copies;
        let wrong = wrong.into_iter();
        self.violations
            .extend(wrong.map(|what| format!("{}: {what}", self.now)));
    }

    // Whether it is so for longer than it may, in one view.
    fn lasts(
        &self,
        since: &mut BTreeMap<(usize, u128), Since>,
        key: (usize, u128),
        version: Version,
        may_ms: u64,
    ) -> bool {
        let at = self.now;
        let view = self.nodes[usize::from(self.node_of(key.0))]
            .board
            .view_number();
        let new = Since { at, view, version };
        let entry = since.entry(key).or_insert(new);
        if entry.view != view {
            *entry = new;
        }
        let is_long = at > entry.at + may_ms;
        if is_long {
            *entry = new; // said once
        }
        is_long
    }

    // L4: the copies of an owner's calls follow. While the clock of a node stands still it acks and
    // does nothing else, so that no view comes about which could do without another one.
    fn look_for_missing(&self, place: usize, seen: &mut Copies, wrong: &mut Vec<String>) {
        if self.has_stuck_clock() {
            return seen.behind.clear();
        }
        let (node, due) = (self.node_of(place), self.copies_due(self.node_of(place)));
        let behind_ms = BEHIND_MS + self.filling_ms();
        let records = self.ring_of(place).into_iter().flat_map(Ring::iter_live);
        for record in records.filter(|record| record.meta.owner == node) {
            let (id, newest) = (record.meta.id.as_u128(), record.meta.version);
            let key = (place, id);
            let asked = seen.behind.get(&key).map_or(newest, |since| since.version);
            let holders = self.holders(place, id, |copy| copy.version >= asked).len();
            seen.looked[0] += 1;
            if holders >= due {
                seen.behind.remove(&key);
            } else if self.lasts(&mut seen.behind, key, newest, behind_ms) {
                wrong.push(format!(
                    "L4: {holders} of {due} copies of {id} {asked:?} of node {node}"
                ));
            }
        }
    }

    // L4: what an owner no longer knows does not stay with others.
    fn look_for_stale(&self, place: usize, seen: &mut Copies, wrong: &mut Vec<String>) {
        let node = self.node_of(place);
        let records = self.ring_of(place).into_iter().flat_map(Ring::iter_live);
        for record in records.filter(|record| record.meta.owner != node) {
            let (id, owner) = (record.meta.id, record.meta.owner);
            let key = (place, id.as_u128());
            let acts = seen.acting.contains_key(&owner);
            let at_owner = self
                .places_elsewhere(place)
                .find(|&at| self.node_of(at) == owner);
            let ring = at_owner.and_then(|at| self.ring_of(at)).filter(|_| acts);
            let is_known = ring.is_none_or(|ring| ring.newest(id).is_some());
            if is_known {
                seen.stale.remove(&key);
            } else if self.lasts(&mut seen.stale, key, record.meta.version, STALE_MS) {
                wrong.push(format!(
                    "L4: node {node} still holds {id:?}, which node {owner} has ended"
                ));
            }
        }
    }

    // Who has died is succeeded.
    fn look_for_orphans(&self, place: usize, seen: &mut Copies, wrong: &mut Vec<String>) {
        let Some(cluster) = self.setup.cluster else {
            return;
        };
        let node = self.node_of(place);
        let view = self.nodes[usize::from(node)].board.view();
        let may_ms = match view.gone.count_ones() < u32::from(cluster.copies.min(view.kmin)) {
            true => ORPHANED_MS,
            false => ORPHANED_BEYOND_MS,
        };
        let records = self.ring_of(place).into_iter().flat_map(Ring::iter_live);
        for record in records {
            let (id, owner) = (record.meta.id.as_u128(), record.meta.owner);
            let key = (place, id);
            // Copies that are no place's stay until the view is settled.
            let is_newer = |copy: &Copy| copy.version.epoch > record.meta.version.epoch;
            let is_over = self.has_slow_sync() && !self.holders(place, id, is_newer).is_empty();
            if is_over || view.nodes[usize::from(owner)].standing != Standing::Dead {
                seen.orphaned.remove(&key);
            } else if self.lasts(&mut seen.orphaned, key, record.meta.version, may_ms) {
                wrong.push(format!(
                    "nobody goes on with {id} of node {owner}, says node {node}"
                ));
            }
        }
    }

    // L6: what is due is done, within 2 s of the moment from which the node may act for the call.
    fn look_for_overdue(&self, place: usize, seen: &mut Copies, wrong: &mut Vec<String>) {
        let node = self.node_of(place);
        let Some(shard) = &self.seats[place].shard else {
            return;
        };
        let now = self.now_of(node).steady;
        for call in shard.b2bua().calls() {
            let state = &call.state;
            let due = state.charging.next_deadline().filter(|_| call.stored);
            seen.looked[1] += u64::from(due.is_some());
            if let Some(late) = due
                .map(|due| now.ms_since(due))
                .filter(|&ms| ms > OVERDUE_MS)
            {
                let id = state.id;
                wrong.push(format!(
                    "L6: node {node} is {late} ms late with the charging of {id}"
                ));
            }
        }
    }
}

fn newest_in(ring: Option<&Ring>, id: u128) -> Option<(Version, Kind)> {
    let held = ring?.newest_or_tombstone(CallId::from_u128(id));
    held.map(|held| (held.meta.version, held.meta.kind))
}

/// What is on its way out while the view changes has left by then.
const DUE_MS: u64 = 5;
/// A copy whose memory was lost counts that long: until the others have noticed, and have made it
/// anew. What left meanwhile left because it had its copies.
const LOST_COUNTS_MS: u64 = 1_500;
/// In a view that lasts, a version has its copies within that time, whatever is lost on the way.
const BEHIND_MS: u64 = 2_000;
/// A catch-up that is slow takes no longer than that, be it begun twice.
const FILLING_MS: u64 = 8_000;
/// Copies of ended calls are gone within that time.
const STALE_MS: u64 = 10_000;
/// Calls of dead nodes are gone on with within that time.
const ORPHANED_MS: u64 = 2_000;
/// The same where as many members are missing as there are copies, who are waited for.
const ORPHANED_BEYOND_MS: u64 = 7_500;
/// A deadline that was missed meanwhile is met that long after the node may act.
const OVERDUE_MS: u64 = 2_000;
