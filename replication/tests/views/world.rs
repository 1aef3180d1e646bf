//! Nodes that have nothing but views, in virtual time.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use replication::replicator::Standing;
use replication::view::{
    Adoption, Durable, SaveFault, View, ViewConfig, ViewMessage, Views, VoteStore,
};

pub(crate) const MS: u64 = 1_000_000;
/// A time.
const SECONDS: u32 = 1_700_000_000;

pub(crate) struct Disk {
    pub(crate) content: Durable,
    pub(crate) fails: bool,
}

impl VoteStore for Disk {
    fn save(&mut self, durable: &Durable) -> Result<(), SaveFault> {
        if self.fails {
            return Err(SaveFault);
        }
        self.content = *durable;
        Ok(())
    }
}

pub(crate) struct Node {
    pub(crate) views: Views,
    pub(crate) disk: Disk,
    pub(crate) up: bool,
    pub(crate) paused_until: u64,
    /// Clock error in parts per million.
    pub(crate) ppm: i64,
    /// Answers catch-up requests at once; in between lies the replication of other tests.
    pub(crate) syncs: bool,
    /// Says that all its calls have their copies.
    pub(crate) settles: bool,
    /// Writes its calls anew when it must.
    pub(crate) resumes: bool,
}

pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % limit
    }
}

pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) config: ViewConfig,
    pub(crate) now: u64,
    pub(crate) draw: Draw,
    pub(crate) loss: u64,
    pub(crate) cut: BTreeSet<(u8, u8)>,
    pub(crate) flying: BinaryHeap<(i64, i64, u8, u8, Vec<u8>)>,
    pub(crate) sent: i64,
    /// Content of every view number anybody entered.
    pub(crate) history: BTreeMap<u32, View>,
    pub(crate) adoptions: u64,
    /// Of these, beyond the promise.
    pub(crate) forced: u64,
}

pub(crate) fn config(node: u8, voters: u8, witnesses: u32) -> ViewConfig {
    ViewConfig {
        node,
        voters,
        witnesses,
        copies: 2,
    }
}

impl World {
    pub(crate) fn new(voters: u8, witnesses: u32, seed: u64) -> Self {
        Self::begun(voters, witnesses, seed, Durable::bootstrap())
    }

    /// All nodes boot for the first time.
    pub(crate) fn first_boot(voters: u8, witnesses: u32, seed: u64) -> Self {
        let mut world = Self::begun(voters, witnesses, seed, Durable::first_boot(SECONDS));
        for node in &mut world.nodes {
            node.views.set_first_boot();
        }
        world
    }

    fn begun(voters: u8, witnesses: u32, seed: u64, disk: Durable) -> Self {
        let mut draw = Draw(seed);
        let nodes = (0..voters)
            .map(|node| {
                let mut disk = Disk {
                    content: disk,
                    fails: false,
                };
                let config = config(node, voters, witnesses);
                let views = Views::start(config, disk.content, true, 1000 * MS, &mut disk);
                let views = views.expect("a possible configuration");
                let ppm = draw.below(401) as i64 - 200;
                Node {
                    views,
                    disk,
                    up: true,
                    paused_until: 0,
                    ppm,
                    syncs: true,
                    settles: true,
                    resumes: true,
                }
            })
            .collect();
        Self {
            nodes,
            config: config(0, voters, witnesses),
            now: 1000 * MS,
            draw,
            loss: 0,
            cut: BTreeSet::new(),
            flying: BinaryHeap::new(),
            sent: 0,
            history: BTreeMap::from([(1, disk.vote.accepted.1)]),
            adoptions: 0,
            forced: 0,
        }
    }

    pub(crate) fn clock(&self, node: usize) -> u64 {
        let elapsed = (self.now - 1000 * MS) as i64;
        (self.now as i64 + elapsed / 1_000_000 * self.nodes[node].ppm) as u64
    }

    pub(crate) fn is_running(&self, node: usize) -> bool {
        self.nodes[node].up && self.now >= self.nodes[node].paused_until
    }

    /// Millisecond by millisecond.
    pub(crate) fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now += MS;
            while self
                .flying
                .peek()
                .is_some_and(|packet| -packet.0 as u64 <= self.now)
            {
                let (_, order, from, to, bytes) = self.flying.pop().expect("peeked");
                let at = usize::from(to);
                if self.nodes[at].up && !self.is_running(at) {
                    let later = self.nodes[at].paused_until as i64;
                    self.flying.push((-later, order, from, to, bytes));
                } else if self.nodes[at].up {
                    let now = self.clock(at);
                    let message = ViewMessage::parse(&bytes).expect("as it was sent");
                    let node = &mut self.nodes[at];
                    node.views.handle(now, from, &message, &mut node.disk);
                    self.after_step(at);
                }
            }
            for at in 0..self.nodes.len() {
                if self.is_running(at) {
                    let now = self.clock(at);
                    let node = &mut self.nodes[at];
                    node.views.tick(now, &mut node.disk);
                    self.after_step(at);
                }
            }
            self.check();
        }
    }

    pub(crate) fn after_step(&mut self, at: usize) {
        let view = *self.nodes[at].views.view();
        let known = *self.history.entry(view.number).or_insert(view);
        // Whoever starts knows none yet.
        let is_same = known == view || view == View::genesis();
        assert!(is_same, "one content per view number");
        let now = self.clock(at);
        let node = &mut self.nodes[at];
        if node.resumes && node.views.may_resume(now) && node.views.sync_wanted() == 0 {
            node.views.set_resumed();
        }
        while let Some((to, message)) = self.nodes[at].views.poll_message() {
            let mut bytes = vec![0; 300];
            let len = message.encode(&mut bytes).expect("300 bytes are enough");
            bytes.truncate(len);
            let copies = 1 + u64::from(self.draw.below(100) < self.loss);
            for _ in 0..copies {
                if self.draw.below(100) < self.loss || self.cut.contains(&(at as u8, to)) {
                    continue;
                }
                let straggles = self.draw.below(100) < self.loss;
                let jitter = if straggles {
                    self.draw.below(40 * MS)
                } else {
                    0
                };
                let due = self.now + MS / 10 + self.draw.below(2 * MS) + jitter;
                self.sent += 1;
                self.flying
                    .push((-(due as i64), -self.sent, at as u8, to, bytes.clone()));
            }
        }
        self.sync(at);
    }

    /// Catch-up as an oracle: it succeeds if both are in the same view and hear each other.
    pub(crate) fn sync(&mut self, at: usize) {
        let wanted = self.nodes[at].views.sync_wanted();
        for peer in (0..self.nodes.len()).filter(|peer| wanted >> peer & 1 == 1) {
            let there = (at as u8, peer as u8);
            let cut = self.cut.contains(&there) || self.cut.contains(&(there.1, there.0));
            let number = self.nodes[peer].views.view().number;
            if self.nodes[at].syncs && !cut && self.is_running(peer) {
                self.nodes[at].views.note_synced(peer as u8, number);
            }
        }
        // Settled: whatever could be adopted is, which here takes no time.
        let (now, views) = (self.clock(at), &self.nodes[at].views);
        let is_done = |node: usize| {
            !views.must_adopt(node as u8) || views.adoption(now, node as u8) != Adoption::NotNow
        };
        let all_done = (0..self.nodes.len()).all(is_done) && self.nodes[at].settles;
        if all_done && self.nodes[at].views.sync_wanted() == 0 {
            self.nodes[at].views.set_settled();
        }
    }

    pub(crate) fn may_act(&self, node: usize) -> bool {
        self.is_running(node) && self.nodes[node].views.may_act(self.clock(node))
    }

    /// Who may adopt a node's calls may do so only while that node cannot act (S1, S8).
    pub(crate) fn check(&mut self) {
        let running: Vec<_> = (0..self.nodes.len())
            .filter(|&at| self.is_running(at))
            .collect();
        for at in running {
            for owner in (0..self.nodes.len()).filter(|&owner| owner != at) {
                let adoption = self.nodes[at].views.adoption(self.clock(at), owner as u8);
                if adoption == Adoption::NotNow {
                    continue;
                }
                self.adoptions += 1;
                self.forced += u64::from(adoption == Adoption::BeyondThePromise);
                let view = self.nodes[owner].views.view();
                let behind = view.number < self.nodes[at].views.view().number;
                assert!(
                    !(self.may_act(owner) && behind),
                    "{at} adopts from {owner}, who acts"
                );
            }
        }
    }

    pub(crate) fn isolate(&mut self, node: u8) {
        for other in (0..self.config.voters).filter(|&other| other != node) {
            self.cut.extend([(node, other), (other, node)]);
        }
    }

    pub(crate) fn restart(&mut self, at: usize, kept: bool) {
        let now = self.clock(at);
        let config = ViewConfig {
            node: at as u8,
            ..self.config
        };
        let node = &mut self.nodes[at];
        let started = Views::start(config, node.disk.content, kept, now, &mut node.disk);
        node.views = started.expect("it started before");
        node.up = true;
    }

    /// The operator takes its disk for new and says that it never ran.
    pub(crate) fn boot_first_again(&mut self, at: usize) {
        let disk = &mut self.nodes[at].disk;
        disk.content = Durable::first_boot(SECONDS + 3600);
        self.restart(at, false);
        self.nodes[at].views.set_first_boot();
    }

    pub(crate) fn standing(&self, seen_by: usize, node: usize) -> Standing {
        self.nodes[seen_by].views.view().nodes[node].standing
    }

    pub(crate) fn everybody_acts(&self) -> bool {
        let data = |at: &usize| self.config.witnesses >> at & 1 == 0;
        (0..self.nodes.len())
            .filter(data)
            .all(|at| self.may_act(at))
    }
}
