//! What must hold among the nodes of a cluster while the world runs, and of the bill at the end.
//!
//! The names S1.. and L1.. are those of the page of guarantees (`replication/GUARANTEES.md`).

use std::collections::{BTreeMap, BTreeSet};

use charging::state::RecordType;
use dataplane::b2bua::SCHEMA_FORMER;
use dataplane::shard::Shard;
use replication::{Ring, Standing, Version, View};

use crate::checks::Session;
use crate::cluster_copies::{Copies, Gone};
use crate::sim::{Misfortune, World};

/// What the other nodes did not have yet whenever a node went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Losses {
    /// Nodes that went.
    pub crashes: u64,
    /// Calls that they owned.
    pub owned: u64,
    /// Of these, calls that no other node held in their newest version.
    pub behind: u64,
    /// Of these, calls that no other node held at all.
    pub unknown: u64,
    /// Versions that no other node held.
    pub versions: u64,
    /// Age of the oldest newest version among them, milliseconds.
    pub oldest_ms: u64,
}

impl std::ops::AddAssign for Losses {
    fn add_assign(&mut self, other: Self) {
        self.crashes += other.crashes;
        self.owned += other.owned;
        self.behind += other.behind;
        self.unknown += other.unknown;
        self.versions += other.versions;
        self.oldest_ms = self.oldest_ms.max(other.oldest_ms);
    }
}

/// What was seen so far.
#[derive(Default)]
pub(crate) struct Seen {
    looked: u64,
    shown: String,
    /// Newest version of each call on each node.
    versions: BTreeMap<(u16, u128), Version>,
    /// Epoch and node that acted last, by Session-Id.
    acted: BTreeMap<Vec<u8>, (u32, u16)>,
    /// Times from the end of a node to when another one took its calls over, milliseconds.
    pub(crate) takeovers: Vec<u64>,
    adopted: BTreeMap<usize, u64>,
    /// Charging requests whose copies were counted.
    pub(crate) counted: u64,
    /// Nodes that left in order.
    pub(crate) left: u64,
    /// What other nodes lacked.
    pub(crate) losses: Losses,
    pub(crate) copies: Copies,
    /// View of each node and the copies due in it.
    pub(crate) dues: BTreeMap<u16, (u32, usize)>,
    /// When each node entered that view, and the copies due before.
    pub(crate) due_before: BTreeMap<u16, (u64, usize)>,
    /// What nodes held that went.
    pub(crate) gone: Vec<Gone>,
    /// Content of each view that any node entered.
    views: BTreeMap<u32, View>,
}

impl World {
    pub(crate) fn note_trouble(&mut self, what: &Misfortune) {
        self.troubles += u32::from(self.setup.cluster.is_some());
        self.note_span(what);
        let until = match what {
            Misfortune::Crash(_, down)
            | Misfortune::Loss(_, down)
            | Misfortune::DiskLoss(_, down) => *down,
            Misfortune::Lag(_, ms) if *ms > 0 => u64::MAX / 2,
            Misfortune::Lag(..) => 0,
            Misfortune::Pause(_, ms) => *ms,
            Misfortune::CutLink(..) => u64::MAX / 2,
            Misfortune::Join | Misfortune::Clock(..) | Misfortune::Over | Misfortune::Leave(..) => {
                0
            }
            _ => return,
        };
        let over = self.now.saturating_add(until);
        self.troubled_at = match what {
            Misfortune::Join | Misfortune::Lag(_, 0) => self.now,
            _ => self.troubled_at.max(over),
        };
    }

    fn note_span(&mut self, what: &Misfortune) {
        let (now, never) = (self.now, u64::MAX);
        if matches!(what, Misfortune::Join) {
            for (_, end) in self.troubled.iter_mut().filter(|(_, end)| *end == CUT) {
                *end = now;
            }
            return;
        }
        let until = match what {
            Misfortune::Crash(_, down)
            | Misfortune::Loss(_, down)
            | Misfortune::DiskLoss(_, down)
            | Misfortune::Pause(_, down) => now + down,
            Misfortune::Leave(_, down) => now + down + LEFT_MS,
            Misfortune::CutLink(..) => CUT,
            Misfortune::Over => now,
            _ => never,
        };
        self.troubled.push((now, until));
    }

    // Whether something befell nodes in that time, or is not over since.
    fn was_troubled(&self, from: u64, to: u64) -> bool {
        let mut spans = self.troubled.iter();
        spans.any(|(begin, end)| *begin <= to && end.saturating_add(CALM_MS) >= from)
    }

    // Whether two nodes may have answered one request, which SIP repeats for 32 s.
    pub(crate) fn was_disturbed(&self) -> bool {
        self.now < self.troubled_at.saturating_add(ANSWERED_MS)
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.now > self.troubled_at.saturating_add(CALM_MS) && self.now > CALM_MS
    }

    // Prints the records of the session that RINGTOLL_SESSION names as they leave.
    pub(crate) fn show_record(&self, node: u16, session: &[u8], number: u32) {
        if std::env::var("RINGTOLL_SESSION").is_ok_and(|wanted| wanted.as_bytes() == session) {
            println!("{:>7} record {number} leaves node {node}", self.now);
        }
    }

    pub(crate) fn check_actor(&mut self, place: usize, shard: &Shard, id: u128, session: &[u8]) {
        let node = self.node_of(place);
        let Some(ring) = crate::sim::ring_in(shard) else {
            return;
        };
        let Some(held) = ring.newest_or_tombstone(replication::CallId::from_u128(id)) else {
            return;
        };
        let epoch = held.meta.version.epoch;
        let (before, actor) = *self
            .seen
            .acted
            .entry(session.to_vec())
            .or_insert((epoch, node));
        if epoch < before || (epoch == before && node != actor) {
            self.violations.push(format!(
                "{}: S1: node {node} acts for {} under {epoch}, node {actor} did under {before}",
                self.now,
                String::from_utf8_lossy(session)
            ));
        }
        self.seen.acted.insert(session.to_vec(), (epoch, node));
    }

    pub(crate) fn note_takeovers(&mut self, place: usize, shard: &mut Shard) {
        let Some(cluster) = shard.blobs().cluster() else {
            return;
        };
        let adopted = cluster.report().adopted;
        let before = self.seen.adopted.insert(place, adopted).unwrap_or(0);
        if adopted > before
            && let Some((down, _)) = self.outages.last()
        {
            self.seen.takeovers.push(self.now - down);
        }
    }

    /// S1, S2, S6, S11: what the rings hold, now and then.
    pub(crate) fn look_at_rings(&mut self) {
        if self.setup.cluster.is_none() || self.now < self.seen.looked + LOOK_MS {
            return;
        }
        self.seen.looked = self.now;
        self.show_call();
        self.look_at_views();
        self.look_at_actors();
        self.look_at_copies();
        let mut contents: BTreeMap<(u128, Version), (u16, u64)> = BTreeMap::new();
        let mut wrong = Vec::new();
        for place in 0..self.seats.len() {
            let node = self.node_of(place);
            let mut newer = Vec::new();
            let Some(ring) = self.ring_of(place) else {
                continue;
            };
            let is_former = self.is_former(node);
            // Whoever joins may be given an older copy first. It must have the newest when it acts.
            let is_filled = self.is_joining(node);
            ring.verify();
            for record in ring.iter_live() {
                if is_former && record.meta.schema > SCHEMA_FORMER {
                    let id = record.meta.id;
                    wrong.push(format!("node {node} cannot read what it holds of {id:?}"));
                }
                let (id, version) = (record.meta.id.as_u128(), record.meta.version);
                let content = dataplane::b2bua::fold(record.payload);
                let known = *contents.entry((id, version)).or_insert((node, content));
                if known.1 != content {
                    wrong.push(format!(
                        "S2: nodes {} and {node} hold two contents of {id:x} {version:?}",
                        known.0
                    ));
                }
                if is_filled {
                    continue;
                }
                let seen = self.seen.versions.get(&(node, id));
                if seen.is_some_and(|seen| *seen > version) {
                    wrong.push(format!(
                        "S2: node {node} went back with {id:x} to {version:?}"
                    ));
                }
                newer.push(((node, id), version));
            }
            self.seen.versions.extend(newer);
        }
        self.violations.extend(
            wrong
                .into_iter()
                .map(|what| format!("{}: {what}", self.now)),
        );
    }

    // By its own view: until it has been filled and goes on with what is its own.
    fn is_joining(&self, node: u16) -> bool {
        let board = &self.nodes[usize::from(node)].board;
        let own = board.view().nodes[usize::from(node)];
        let is_former_life = own.incarnation != board.incarnation();
        let is_filled_still = board.must_resume() == board.incarnation();
        is_former_life
            || is_filled_still
            || matches!(own.standing, Standing::Joining | Standing::Dead)
    }

    /// One number, one content: what the nodes take for the view.
    fn look_at_views(&mut self) {
        for node in 0..self.nodes.len() {
            let view = self.nodes[node].board.view();
            let known = *self.seen.views.entry(view.number).or_insert(view);
            if known != view {
                let what = format!("{}: two views have number {}", self.now, view.number);
                self.violations.push(what);
            }
        }
    }

    /// S1: no two nodes hold the right to act and have the same call to act for.
    fn look_at_actors(&mut self) {
        let mut actors: BTreeMap<u128, u16> = BTreeMap::new();
        let mut wrong = Vec::new();
        for place in 0..self.seats.len() {
            let node = self.node_of(place);
            if !self.has_lease(node) {
                continue;
            }
            let Some(shard) = &self.seats[place].shard else {
                continue;
            };
            let calls = shard.b2bua().calls();
            for call in calls.filter(|call| call.stored && !call.is_finished()) {
                let other = *actors.entry(call.state.id).or_insert(node);
                if other != node {
                    let id = call.state.id;
                    wrong.push(format!("S1: nodes {other} and {node} may act for {id}"));
                }
            }
        }
        let wrong = wrong.into_iter();
        self.violations
            .extend(wrong.map(|what| format!("{}: {what}", self.now)));
    }

    /// Records of peers that a shard has stored, if a datagram of `from` must not add to them.
    pub(crate) fn stored_of_dead(&mut self, from: u16, place: usize) -> Option<u64> {
        let board = self.nodes[usize::from(self.node_of(place))].board.clone();
        let view = board.view();
        let is_dead = view.nodes[usize::from(from)].standing == Standing::Dead;
        let shard = self.seats[place].shard.as_mut().filter(|_| is_dead)?;
        let follows = shard.blobs().cluster()?.report().view == view.number;
        let ring = crate::sim::ring_in(shard).filter(|_| follows)?;
        Some(ring.counters().apply_stored)
    }

    /// S12: what a node sends that is no member changes nothing.
    pub(crate) fn check_fence(&mut self, from: u16, place: usize, before: Option<u64>) {
        let after = self.ring_of(place).map(|ring| ring.counters().apply_stored);
        if before.is_some() && after > before {
            let node = self.node_of(place);
            self.violations.push(format!(
                "{}: S12: node {node} stores what node {from} sends, which is dead",
                self.now
            ));
        }
    }

    // Prints what the nodes hold of the call that RINGTOLL_CALL names, for whoever looks for a
    // fault.
    fn show_call(&mut self) {
        let Some(id) = std::env::var("RINGTOLL_CALL")
            .ok()
            .and_then(|id| id.parse().ok())
        else {
            return;
        };
        let id = replication::CallId::from_u128(id);
        let mut line = String::new();
        for place in 0..self.seats.len() {
            let node = self.node_of(place);
            let view = self.nodes[usize::from(node)].board.view_number();
            line += &match self.ring_of(place).map(|ring| ring.newest_or_tombstone(id)) {
                None => format!("{node}: down | "),
                Some(None) => format!("{node}/{view}: - | "),
                Some(Some(held)) => format!(
                    "{node}/{view}: {:?} {}.{} of {} | ",
                    held.meta.kind, held.meta.version.epoch, held.meta.version.ver, held.meta.owner
                ),
            };
        }
        if line != self.seen.shown {
            println!("{:>7} {line}", self.now);
            self.seen.shown = line;
        }
    }

    /// A node that has left in order leaves nothing behind.
    pub(crate) fn check_left(&mut self, node: u16) {
        self.seen.left += 1;
        let shards = usize::from(self.setup.shards);
        let first = usize::from(node) * shards;
        for place in first..first + shards {
            let table = self.seats[place].shard.as_ref();
            let calls = table.map_or(0, |shard| shard.b2bua().call_count());
            let live = self.ring_of(place).into_iter().flat_map(Ring::iter_live);
            let own = live.filter(|record| record.meta.owner == node).count();
            if calls + own > 0 {
                self.violations.push(format!(
                    "{}: node {node} left with {calls} calls and {own} records of its own",
                    self.now
                ));
            }
        }
    }

    /// A node goes: notes what the others do not have of its calls.
    pub(crate) fn note_losses(&mut self, node: u16) {
        let mut losses = Losses {
            crashes: 1,
            ..Losses::default()
        };
        let now = self.now_of(node).wall.0;
        for place in (0..self.seats.len()).filter(|&place| self.node_of(place) == node) {
            let Some(ring) = self.ring_of(place) else {
                continue;
            };
            let shard = place % usize::from(self.setup.shards);
            let others: Vec<_> = (0..self.seats.len())
                .filter(|other| other % usize::from(self.setup.shards) == shard)
                .filter(|&other| self.node_of(other) != node)
                .filter_map(|other| self.ring_of(other))
                .collect();
            for record in ring.iter_live().filter(|record| record.meta.owner == node) {
                losses.owned += 1;
                let (id, newest) = (record.meta.id, record.meta.version);
                let held = others
                    .iter()
                    .filter_map(|ring| ring.newest_or_tombstone(id))
                    .map(|held| held.meta.version)
                    .max();
                if held >= Some(newest) {
                    continue;
                }
                let before = held.filter(|held| held.epoch == newest.epoch);
                losses.behind += 1;
                losses.unknown += u64::from(held.is_none());
                losses.versions += u64::from(newest.ver - before.map_or(0, |held| held.ver));
                let age = now.saturating_sub(record.meta.written);
                losses.oldest_ms = losses.oldest_ms.max(age);
            }
        }
        self.seen.losses += losses;
    }

    /// The memory of a node is gone, and what it was seen to hold with it.
    pub(crate) fn forget_seen(&mut self, node: u16) {
        self.seen.versions.retain(|(of, _), _| *of != node);
    }

    /// Everything that is wrong, now that the cluster has come to rest.
    pub fn cluster_verdict(&mut self) -> Vec<String> {
        let mut wrong = std::mem::take(&mut self.violations);
        wrong.extend(self.leftovers_of_cluster());
        self.check_stores(&mut wrong);
        let sessions = self.sessions();
        for (id, session) in &sessions {
            let known = self
                .phones
                .iter()
                .any(|phone| phone.call_id == session.call_id);
            if !known {
                wrong.push(format!("a bill for nothing: {session:?}"));
            }
            if let Err(what) = whole(session)
                && !(self.cdf_troubled && what == MISSING)
            {
                wrong.push(format!(
                    "{}: {what}: {session:?}",
                    String::from_utf8_lossy(id)
                ));
            }
        }
        for caller in 0..self.phones.len() {
            if let Err(what) = self.check_call(caller, sessions.values()) {
                wrong.push(format!("call of phone {caller}: {what}"));
            }
            if let Err(what) = self.check_kept(caller) {
                wrong.push(format!("L3: call of phone {caller}: {what}"));
            }
            if let Err(what) = self.check_duration(caller, sessions.values()) {
                wrong.push(format!("L2: call of phone {caller}: {what}"));
            }
        }
        wrong
    }

    // L1: an established call has exactly one bill.
    fn check_call<'a>(
        &self,
        caller: usize,
        sessions: impl Iterator<Item = &'a Session>,
    ) -> Result<(), String> {
        let phone = &self.phones[caller];
        let established = phone.ledger.asked.is_some()
            && phone.plan.method.is_empty()
            && phone.ledger.answered.is_some()
            && phone.ledger.acknowledged.is_some();
        if !established {
            return Ok(());
        }
        let ours: Vec<_> = sessions
            .filter(|session| session.call_id == phone.call_id)
            .collect();
        let count = |kind| ours.iter().map(|one| one.count(kind)).sum::<usize>();
        let counts = [count(RecordType::Start), count(RecordType::Stop)];
        let answered = phone.ledger.answered.unwrap_or(0);
        let asked = phone.ledger.asked.unwrap_or(0);
        // An INVITE repeated to another node while the first one dies opens a call there too.
        let disturbed = self
            .outages
            .iter()
            .any(|(down, _)| *down >= asked && *down <= answered + SETTLED_MS);
        if counts == [1, 1] || (disturbed && counts[0] == counts[1] && counts[0] >= 1) {
            return Ok(());
        }
        Err(format!(
            "START, STOP: {counts:?}; answered at {answered}; bills {ours:?}"
        ))
    }

    // L3: an established call ends when one of its phones ends it, and not before.
    fn check_kept(&self, caller: usize) -> Result<(), String> {
        let Some(callee) = self.phones.get(caller + 1) else {
            return Ok(());
        };
        let pair = [&self.phones[caller], callee];
        let is_up = pair[0].plan.calls_at.is_some()
            && pair.iter().all(|phone| phone.ledger.acknowledged.is_some());
        let ledgers = pair.map(|phone| &phone.ledger);
        let longest = LONGEST_MS + callee.ledger.answered.unwrap_or(0);
        let asked = ledgers.iter().filter_map(|ledger| ledger.bye_sent).min();
        for told in ledgers.iter().filter_map(|ledger| ledger.bye_received) {
            if is_up && told < longest && asked.is_none_or(|asked| asked > told) {
                let reasons = ledgers.map(|ledger| &ledger.bye_reason);
                return Err(format!(
                    "ended at {told} {reasons:?}, asked for at {asked:?}"
                ));
            }
        }
        Ok(())
    }

    // L2: a call that nothing befell is billed for as long as its phones talked.
    fn check_duration<'a>(
        &self,
        caller: usize,
        mut sessions: impl Iterator<Item = &'a Session>,
    ) -> Result<(), String> {
        let (phone, callee) = (&self.phones[caller], self.phones.get(caller + 1));
        let Some(callee) = callee.filter(|_| phone.plan.calls_at.is_some()) else {
            return Ok(());
        };
        let byes = [phone.ledger.bye_sent, callee.ledger.bye_sent];
        let ended = byes.into_iter().flatten().min();
        let (Some(asked), Some(answered), Some(ended)) =
            (phone.ledger.asked, callee.ledger.answered, ended)
        else {
            return Ok(());
        };
        if phone.ledger.acknowledged.is_none() || self.was_troubled(asked, ended + CALM_MS) {
            return Ok(());
        }
        let Some(session) = sessions.find(|session| session.call_id == phone.call_id) else {
            return Ok(());
        };
        let at = |kind| session.one(kind).map(|record| record.at_s);
        let (Some(start), Some(stop)) = (at(RecordType::Start), at(RecordType::Stop)) else {
            return Ok(());
        };
        let (billed, talked) = (stop - start, (ended - answered) / 1_000);
        // Both ends are whole seconds; a lossy way to the node takes repetitions.
        let late = if self.setup.net.loss > 0 { 16 } else { 2 };
        if billed.abs_diff(talked) > late {
            return Err(format!(
                "billed for {billed} s, its phones talked for {talked} s"
            ));
        }
        Ok(())
    }

    /// L4, L5: nothing is left, and everybody agrees on that.
    pub(crate) fn leftovers_of_cluster(&mut self) -> Vec<String> {
        let mut left = Vec::new();
        for place in 0..self.seats.len() {
            let node = self.node_of(place);
            let live = self.ring_of(place).map(|ring| ring.iter_live().count());
            for record in self
                .ring_of(place)
                .into_iter()
                .flat_map(|ring| ring.iter_live())
            {
                let (id, version, owner) = (record.meta.id, record.meta.version, record.meta.owner);
                left.push(format!(
                    "L5: node {node} holds {id:?} {version:?} of {owner}"
                ));
            }
            let Some(shard) = &mut self.seats[place].shard else {
                left.push(format!("node {node} is not up"));
                continue;
            };
            let counts = [
                ("calls", shard.b2bua().call_count()),
                ("transactions", shard.b2bua().transaction_count()),
                ("stored records", shard.backlog_len() as usize),
                ("unanswered ACRs", shard.router().pending()),
                ("timers", shard.env().wheel.len()),
                ("live records", live.unwrap_or(0)),
                (
                    "lost records",
                    shard.env().counters.acr_lost as usize * usize::from(!self.cdf_refused),
                ),
            ];
            for (what, count) in counts {
                if count > 0 {
                    left.push(format!("L5: node {node} holds {count} {what}"));
                }
            }
        }
        if !left.is_empty() {
            left.push(self.members());
        }
        left
    }

    /// Ids of all calls that any ring holds alive.
    #[must_use]
    pub fn live_calls(&self) -> BTreeSet<u128> {
        let rings = (0..self.seats.len()).filter_map(|place| self.ring_of(place));
        rings
            .flat_map(|ring| ring.iter_live().map(|record| record.meta.id.as_u128()))
            .collect()
    }
}

// Numbers without a gap, START first and STOP last, or one EVENT (S5, L1).
fn whole(session: &Session) -> Result<(), &'static str> {
    let numbers: Vec<u32> = session.records.keys().copied().collect();
    if session.one(RecordType::Event).is_some() {
        return match numbers.len() {
            1 => Ok(()),
            _ => Err("an EVENT and more"),
        };
    }
    if !numbers.iter().copied().eq(0..numbers.len() as u32) {
        return Err(MISSING);
    }
    let kinds: Vec<_> = session.records.values().map(|record| record.kind).collect();
    match kinds.as_slice() {
        [RecordType::Start, between @ .., RecordType::Stop]
            if between.iter().all(|kind| *kind == RecordType::Interim) =>
        {
            Ok(())
        }
        _ => Err("not START, INTERIMs, STOP"),
    }
}

const MISSING: &str = "a number is missing";
/// Between looks at the rings.
const LOOK_MS: u64 = 250;
/// After that time nothing of a disturbance is under way any more.
const CALM_MS: u64 = 3_000;
/// Answers that a request got in both times may still differ that long after.
const ANSWERED_MS: u64 = 35_000;
const SETTLED_MS: u64 = 3_000;
/// Longest duration of a call in these worlds.
const LONGEST_MS: u64 = 120_000;
/// The end of a cut that is not over yet.
const CUT: u64 = u64::MAX - 1;
/// A node that is asked to leave has left by then.
const LEFT_MS: u64 = 60_000;
