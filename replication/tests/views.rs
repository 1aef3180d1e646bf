//! Views among real nodes in virtual time: rules V1 to V13, and random faults.
//!
//! Each rule was taken out of the code, one at a time, to see which test misses it:
//!
//! | rule | test, here unless said otherwise |
//! |---|---|
//! | V1 suspicion by missing acks | none alone: mutual masks (V2) and the lease (V3) do the same |
//! | V2 everybody hears everybody; the dead do not propose | `a_partial_partition_...` |
//! | V2 a majority | `a_lone_minority_...`, held by the register too |
//! | V2 150 ms for an ambiguous choice | `a_healthy_node_that_suspects_first_...` |
//! | V3 acks, not hearing | `hearing_others_...` |
//! | V3 180 ms | `an_isolated_node_stops_acting_...` |
//! | V3 acks of what was sent | `an_ack_of_what_was_never_sent_...` |
//! | V3 no newer view accepted, here or there | `an_accepted_view_stops_acting_...` |
//! | V3 a member | `a_node_that_drains_acts_until_...` |
//! | V4 the fence | peers: `a_restarted_owner_...`, `a_fenced_sender_...` |
//! | V4 acks of this incarnation | peers: `an_ack_of_a_former_life_...` |
//! | V4 enough acks; next members | peers: `a_semi_sync_output_waits_...`, `more_copies_...` |
//! | V4 no ack for one that was succeeded | peers: `a_sender_that_was_succeeded_...` |
//! | V5 a newer epoch | model: the ring against its model; cluster: the ledger |
//! | V6a the lease of the adopter | `who_has_lost_the_lease_...` |
//! | V6b filled under the very view | `adoption_waits_for_the_sync_...` |
//! | V6c the lease of the dead | `a_partial_partition_...` |
//! | V6d fewer gone than copies; 5 s | `adoption_waits_when_as_many_...` |
//! | V7 gone; settled by all; all are filled | `while_a_member_is_missing_...` |
//! | V7 gone until settled | `a_node_that_lost_its_memory_...` |
//! | V7 kmin at a return, and when settled | `a_member_back_...`, `a_view_that_settled_...` |
//! | V8 joins, is filled, then alive | `a_joining_node_...` |
//! | V8 rises when told dead | `an_isolated_node_...` |
//! | V8 resumes first | `a_node_that_became_alive_...` |
//! | V8 what it lost comes back first | `..._waits_for_who_may_have_its_calls_...` |
//! | V9 all joining, or 6 s | `when_not_all_come_back_...`, `all_nodes_restarted_...` |
//! | V10 lost memory; half-filled memory | `a_node_that_lost_...`, `half_filled_memory_...` |
//! | V10 the vote before the answer | `a_vote_that_is_not_stored_...`; register_model |
//! | V10 a lost vote is read back first | `a_voter_that_lost_its_disk_...`; register_model |
//! | V11 the witness | `two_nodes_and_a_witness_...`, `a_witness_votes_...` |
//! | V12 two voters | `two_voters_...` |
//! | V13 leaving | those with *drain* and *given*; cluster: `nodes_leave_in_turn_...` |

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use replication::replicator::Standing;
use replication::view::{
    Adoption, Durable, SaveFault, StartFault, Versions, View, ViewConfig, ViewMessage, Views,
    VoteStore,
};

const MS: u64 = 1_000_000;

struct Disk {
    content: Durable,
    fails: bool,
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

struct Node {
    views: Views,
    disk: Disk,
    up: bool,
    paused_until: u64,
    /// Clock error in parts per million.
    ppm: i64,
    /// Answers catch-up requests at once; in between lies the replication of other tests.
    syncs: bool,
    /// Says that all its calls have their copies.
    settles: bool,
    /// Writes its calls anew when it must.
    resumes: bool,
}

struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % limit
    }
}

struct World {
    nodes: Vec<Node>,
    config: ViewConfig,
    now: u64,
    draw: Draw,
    loss: u64,
    cut: BTreeSet<(u8, u8)>,
    flying: BinaryHeap<(i64, i64, u8, u8, Vec<u8>)>,
    sent: i64,
    /// Content of every view number anybody entered.
    history: BTreeMap<u32, View>,
    adoptions: u64,
    /// Of these, beyond the promise.
    forced: u64,
}

fn config(node: u8, voters: u8, witnesses: u32) -> ViewConfig {
    ViewConfig {
        node,
        voters,
        witnesses,
        copies: 2,
    }
}

impl World {
    fn new(voters: u8, witnesses: u32, seed: u64) -> Self {
        let mut draw = Draw(seed);
        let nodes = (0..voters)
            .map(|node| {
                let mut disk = Disk {
                    content: Durable::bootstrap(),
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
            history: BTreeMap::from([(1, View::genesis())]),
            adoptions: 0,
            forced: 0,
        }
    }

    fn clock(&self, node: usize) -> u64 {
        let elapsed = (self.now - 1000 * MS) as i64;
        (self.now as i64 + elapsed / 1_000_000 * self.nodes[node].ppm) as u64
    }

    fn is_running(&self, node: usize) -> bool {
        self.nodes[node].up && self.now >= self.nodes[node].paused_until
    }

    /// Millisecond by millisecond.
    fn run(&mut self, ms: u64) {
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

    fn after_step(&mut self, at: usize) {
        let view = *self.nodes[at].views.view();
        let known = *self.history.entry(view.number).or_insert(view);
        assert_eq!(known, view, "one content per view number");
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
    fn sync(&mut self, at: usize) {
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

    fn may_act(&self, node: usize) -> bool {
        self.is_running(node) && self.nodes[node].views.may_act(self.clock(node))
    }

    /// Who may adopt a node's calls may do so only while that node cannot act (S1, S8).
    fn check(&mut self) {
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

    fn isolate(&mut self, node: u8) {
        for other in (0..self.config.voters).filter(|&other| other != node) {
            self.cut.extend([(node, other), (other, node)]);
        }
    }

    fn restart(&mut self, at: usize, kept: bool) {
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

    fn standing(&self, seen_by: usize, node: usize) -> Standing {
        self.nodes[seen_by].views.view().nodes[node].standing
    }

    fn everybody_acts(&self) -> bool {
        let data = |at: &usize| self.config.witnesses >> at & 1 == 0;
        (0..self.nodes.len())
            .filter(data)
            .all(|at| self.may_act(at))
    }
}

#[test]
fn three_nodes_that_hear_each_other_act_under_the_first_view() {
    let mut world = World::new(3, 0, 1);
    world.run(2000);
    assert!(world.everybody_acts());
    assert_eq!(
        world.history.len(),
        1,
        "nothing has changed, so no view was needed"
    );
}

#[test]
fn a_crashed_node_is_dead_and_adoptable_within_half_a_second() {
    let mut world = World::new(3, 0, 2);
    world.run(1000);
    world.nodes[1].up = false;
    let mut waited = 0;
    while world.adoptions == 0 {
        world.run(1);
        waited += 1;
        assert!(waited < 500, "nobody adopts");
    }
    println!("adoptable after {waited} ms");
    assert_eq!(world.standing(0, 1), Standing::Dead);
}

#[test]
fn an_isolated_node_stops_acting_before_anybody_may_adopt() {
    let mut world = World::new(3, 0, 3);
    world.run(1000);
    world.isolate(0);
    world.run(181 + 50);
    assert!(!world.may_act(0), "its lease is over");
    // `check` compares at every millisecond.
    world.run(1000);
    assert!(world.adoptions > 0);
    assert_eq!(world.standing(0, 0), Standing::Alive, "it cannot know yet");
    world.cut.clear();
    world.run(2000);
    assert!(world.everybody_acts(), "and it joins again");
    assert_eq!(world.nodes[0].views.incarnation(), 2);
}

#[test]
fn hearing_others_is_no_right_to_act() {
    let mut world = World::new(3, 0, 4);
    world.run(1000);
    // Node 0 hears everything; nobody hears node 0.
    world.cut.extend([(0, 1), (0, 2)]);
    world.run(190);
    assert!(!world.may_act(0), "long before any view says so");
    assert!(world.may_act(1) && world.may_act(2));
}

#[test]
fn a_partial_partition_costs_one_node_and_does_not_flap() {
    let mut world = World::new(3, 0, 5);
    world.run(1000);
    world.cut.extend([(0, 1), (1, 0)]);
    world.run(4000);
    let views = world.history.len();
    world.run(10_000);
    let alive = (0..3)
        .filter(|&node| world.standing(2, node) == Standing::Alive)
        .count();
    assert_eq!(alive, 2);
    assert_eq!(
        world.history.len(),
        views,
        "no view follows while nothing changes"
    );
    world.cut.clear();
    world.run(3000);
    assert!(world.everybody_acts());
}

#[test]
fn an_accepted_view_stops_acting_before_it_is_decided() {
    let mut world = World::new(3, 0, 6);
    world.run(1000);
    let (mut view, now) = (*world.nodes[0].views.view(), world.clock(0));
    view.number += 1;
    assert!(world.may_act(0));
    let node = &mut world.nodes[0];
    let accept = replication::register::RegisterMessage::Accept(
        replication::register::Ballot::new(100, 1),
        view,
    );
    node.views
        .handle(now, 1, &ViewMessage::Register(accept), &mut node.disk);
    assert!(!world.may_act(0), "its own acceptor knows of a newer view");
    // And so does everybody whose majority includes it.
    world.isolate(2);
    world.run(200);
    assert!(!world.may_act(1));
}

#[test]
fn a_vote_that_is_not_stored_is_not_given() {
    let mut world = World::new(3, 0, 7);
    world.run(1000);
    while world.nodes[0].views.poll_message().is_some() {}
    world.nodes[0].disk.fails = true;
    let now = world.clock(0);
    let node = &mut world.nodes[0];
    let prepare =
        replication::register::RegisterMessage::Prepare(replication::register::Ballot::new(100, 1));
    node.views
        .handle(now, 1, &ViewMessage::Register(prepare), &mut node.disk);
    assert_eq!(node.views.poll_message(), None);
    node.disk.fails = false;
    node.views
        .handle(now, 1, &ViewMessage::Register(prepare), &mut node.disk);
    assert!(node.views.poll_message().is_some());
    assert_eq!(
        node.disk.content.vote.promised.round(),
        100,
        "stored before the answer"
    );
}

#[test]
fn adoption_waits_for_the_sync_under_the_very_view() {
    let mut world = World::new(3, 0, 8);
    world.run(1000);
    world.nodes[0].syncs = false;
    world.nodes[2].syncs = false;
    world.nodes[1].up = false;
    world.run(2000);
    assert_eq!(world.adoptions, 0);
    let view = world.nodes[0].views.view().number;
    world.nodes[0].views.note_synced(2, view - 1);
    world.nodes[0].views.note_synced(2, view + 1);
    assert_eq!(
        world.nodes[0].views.adoption(world.clock(0), 1),
        Adoption::NotNow
    );
    world.nodes[0].views.note_synced(2, view);
    assert_eq!(
        world.nodes[0].views.adoption(world.clock(0), 1),
        Adoption::Ready
    );
    assert_eq!(
        world.nodes[0].views.adoption(world.clock(0), 2),
        Adoption::NotNow,
        "it lives"
    );
}

#[test]
fn adoption_waits_when_as_many_are_gone_as_there_are_copies() {
    let mut world = World::new(5, 0, 9);
    world.run(1000);
    for node in 0..5 {
        world.nodes[node].syncs = true;
    }
    // Two at once, k = 2: both copies of some call may be among them.
    (world.nodes[3].up, world.nodes[4].up) = (false, false);
    world.run(3000);
    assert_eq!(world.standing(0, 3), Standing::Dead);
    assert_eq!(world.adoptions, 0, "it waits for a missing one");
    world.run(4000);
    assert!(world.adoptions > 0, "and then goes on");
    assert_eq!(
        world.adoptions, world.forced,
        "which is beyond the promise, and says so"
    );
}

#[test]
fn a_node_that_restarts_quickly_joins_without_having_been_dead() {
    let mut world = World::new(3, 0, 10);
    world.run(1000);
    world.nodes[1].up = false;
    world.run(30);
    world.restart(1, true);
    assert!(!world.may_act(1));
    world.run(2000);
    assert!(world.everybody_acts());
    let was_dead = world
        .history
        .values()
        .any(|view| view.nodes[1].standing == Standing::Dead);
    assert!(!was_dead);
    assert_eq!(world.adoptions, 0, "its calls are not adopted meanwhile");
}

#[test]
fn all_nodes_restarted_find_together_again() {
    let mut world = World::new(3, 0, 11);
    world.run(1000);
    for node in 0..3 {
        world.nodes[node].up = false;
    }
    world.run(500);
    for node in 0..3 {
        world.restart(node, true);
        world.nodes[node].syncs = false;
    }
    world.run(8000);
    let joins = |node| world.standing(node, node) == Standing::Joining && !world.may_act(node);
    assert!((0..3).all(joins), "nobody is filled");
    for node in 0..3 {
        world.nodes[node].syncs = true;
    }
    world.run(3000);
    assert!(world.everybody_acts());
}

#[test]
fn two_nodes_and_a_witness_survive_the_loss_of_one() {
    let mut world = World::new(3, 0b100, 12);
    world.nodes[2].syncs = false;
    world.run(1000);
    assert!(world.everybody_acts());
    world.nodes[0].up = false;
    world.run(700);
    assert!(world.may_act(1));
    assert!(world.adoptions > 0);
    assert_eq!(
        world.nodes[2].views.sync_wanted(),
        0,
        "a witness is never filled"
    );
}

#[test]
fn two_voters_are_refused_and_one_acts_alone() {
    let mut disk = Disk {
        content: Durable::bootstrap(),
        fails: false,
    };
    let two = Views::start(config(0, 2, 0), disk.content, true, MS, &mut disk);
    assert_eq!(two.map(|_| ()), Err(StartFault::TwoVoters));
    let none = Views::start(config(3, 3, 0), disk.content, true, MS, &mut disk);
    assert_eq!(none.map(|_| ()), Err(StartFault::Voters));
    let mut world = World::new(1, 0, 1);
    world.run(100);
    assert!(world.everybody_acts());
    for _ in 0..3 {
        world.restart(0, true);
        assert!(!world.may_act(0));
        world.run(2000);
        assert!(world.everybody_acts());
    }
}

#[test]
fn a_lone_minority_neither_acts_nor_decides() {
    let mut world = World::new(5, 0, 13);
    world.run(1000);
    world.nodes[2].up = false;
    world.nodes[3].up = false;
    world.nodes[4].up = false;
    world.run(10_000);
    assert!(!world.may_act(0) && !world.may_act(1));
    assert_eq!(world.history.len(), 1);
}

#[test]
fn a_node_that_hears_nobody_is_dead_though_everybody_hears_it() {
    let mut world = World::new(3, 0, 15);
    world.run(1000);
    world.cut.extend([(1, 0), (2, 0)]);
    world.run(800);
    assert_eq!(world.standing(1, 0), Standing::Dead, "its acks are missing");
    assert!(world.may_act(1) && world.may_act(2));
}

#[test]
fn a_healthy_node_that_suspects_first_is_not_taken_for_the_dead_one() {
    let mut world = World::new(3, 0, 16);
    world.run(1000);
    // Node 2 misses node 1 a little earlier than node 0, who prefers the lower numbers, does.
    world.cut.extend([(1, 2), (2, 1)]);
    world.run(100);
    world.nodes[1].up = false;
    world.run(2000);
    assert_eq!(world.standing(0, 1), Standing::Dead);
    let accused = |view: &View| view.nodes[2].standing != Standing::Alive;
    assert!(!world.history.values().any(accused));
}

#[test]
fn while_a_member_is_missing_everybody_alive_wants_to_be_filled() {
    let mut world = World::new(3, 0, 17);
    world.run(1000);
    assert_eq!(world.nodes[0].views.sync_wanted(), 0);
    for node in &mut world.nodes {
        node.syncs = false;
    }
    world.nodes[1].up = false;
    world.run(1000);
    assert_eq!(world.nodes[0].views.sync_wanted(), 0b100);
    assert_eq!(world.nodes[2].views.sync_wanted(), 0b001);
    assert_eq!(
        world.nodes[0].views.view().gone,
        0b010,
        "and is not settled"
    );
}

#[test]
fn a_joining_node_is_not_alive_before_it_is_filled_under_that_view() {
    let mut world = World::new(3, 0, 18);
    world.run(1000);
    world.nodes[1].up = false;
    world.run(2000);
    world.restart(1, true);
    world.nodes[1].syncs = false;
    world.run(3000);
    assert_eq!(world.standing(0, 1), Standing::Joining);
    assert!(!world.may_act(1));
    let view = world.nodes[1].views.view().number;
    world.nodes[1].views.note_synced(0, view - 1);
    world.nodes[1].views.note_synced(2, view);
    world.run(500);
    assert_eq!(world.standing(0, 1), Standing::Joining);
    world.nodes[1].views.note_synced(0, view);
    world.run(500);
    assert_eq!(world.standing(0, 1), Standing::Alive);
}

#[test]
fn a_node_that_became_alive_acts_only_after_it_resumed_its_calls() {
    let mut world = World::new(3, 0, 19);
    world.run(1000);
    world.nodes[1].resumes = false;
    world.restart(1, true);
    world.run(2000);
    assert_eq!(world.standing(1, 1), Standing::Alive);
    assert!(world.nodes[1].views.must_resume() && !world.may_act(1));
    world.nodes[1].views.set_resumed();
    assert!(!world.nodes[1].views.must_resume() && world.may_act(1));
}

#[test]
fn when_not_all_come_back_the_rest_waits_before_it_goes_on_without() {
    let mut world = World::new(3, 0, 20);
    world.run(1000);
    for node in 0..3 {
        world.nodes[node].up = false;
    }
    world.run(500);
    world.restart(0, true);
    world.restart(1, true);
    world.run(5000);
    assert!(
        !world.may_act(0) && !world.may_act(1),
        "node 2 may know more"
    );
    world.run(6000);
    assert!(world.may_act(0) && world.may_act(1));
}

#[test]
fn a_node_that_lost_its_memory_is_gone_until_the_view_is_settled() {
    let mut world = World::new(3, 0, 21);
    world.run(1000);
    for node in &mut world.nodes {
        node.settles = false;
    }
    let promised = world.nodes[1].disk.content.vote.promised;
    world.nodes[1].up = false;
    world.run(1000);
    world.restart(1, false);
    world.run(2000);
    assert_eq!(world.standing(0, 1), Standing::Alive);
    assert_eq!(
        world.nodes[0].views.view().gone,
        0b010,
        "it came back empty"
    );
    assert!(
        world.nodes[1].disk.content.vote.promised >= promised,
        "but it remembers its vote"
    );
    for node in &mut world.nodes {
        node.settles = true;
    }
    world.run(1000);
    assert_eq!(world.nodes[0].views.view().gone, 0);
}

#[test]
fn a_node_that_lost_its_memory_waits_for_who_may_have_its_calls_before_it_resumes() {
    let mut world = World::new(3, 0, 25);
    world.run(1000);
    // The only copies of its calls may be on node 0, which is away, with its memory.
    (world.nodes[1].up, world.nodes[0].up) = (false, false);
    world.run(100);
    world.restart(1, false);
    world.run(3000);
    assert_eq!(world.standing(1, 1), Standing::Alive);
    assert!(!world.may_act(1), "it has resumed nothing");
    world.restart(0, true);
    world.run(2000);
    assert!(world.everybody_acts());
    assert_eq!(world.nodes[0].views.view().gone, 0);
}

#[test]
fn a_voter_that_lost_its_disk_neither_votes_nor_acts_before_it_has_read_its_vote_back() {
    let mut world = World::new(3, 0, 23);
    world.run(1000);
    // Nodes 0 and 1 decide without 2; then 1 loses its disk, and 0 is away.
    world.isolate(2);
    world.run(1500);
    let decided = *world.nodes[0].views.view();
    assert_eq!(decided.nodes[2].standing, Standing::Dead);
    world.cut.clear();
    world.nodes[0].up = false;
    world.nodes[1].disk.content = Durable::replacement(1_800_000_000);
    world.restart(1, false);
    world.run(10_000);
    assert!(
        !world.nodes[1].views.has_vote(),
        "node 0 may know what it accepted"
    );
    assert!(!world.may_act(1) && !world.may_act(2));
    assert_eq!(world.history.keys().max(), Some(&decided.number));
    // Node 0 is back: everybody has told, and 1 counts again.
    world.restart(0, true);
    world.run(10_000);
    assert!(world.nodes[1].views.has_vote() && world.everybody_acts());
    world.nodes[0].up = false;
    world.run(2000);
    assert!(
        world.may_act(1) && world.may_act(2),
        "1 and 2 are a majority"
    );
}

#[test]
fn a_voter_that_lost_its_disk_confirms_nobodys_lease() {
    let mut world = World::new(3, 0, 24);
    world.run(1000);
    world.nodes[1].up = false;
    world.nodes[1].disk.content = Durable::replacement(1_800_000_000);
    world.nodes[2].up = false;
    world.restart(1, false);
    world.run(3000);
    assert!(!world.may_act(0), "the only ack is one that proves nothing");
}

#[test]
fn half_filled_memory_is_no_memory() {
    let mut world = World::new(3, 0, 22);
    world.run(1000);
    for node in &mut world.nodes {
        node.settles = false;
    }
    world.nodes[1].up = false;
    world.run(1000);
    world.restart(1, false);
    world.nodes[1].syncs = false;
    world.run(500);
    // It restarts before it was filled; its rings are there, but what they hold is not all.
    world.nodes[1].up = false;
    world.run(500);
    world.restart(1, true);
    world.run(500);
    assert_eq!(world.nodes[0].views.view().gone, 0b010);
    world.nodes[1].syncs = true;
    world.run(1000);
    assert_eq!(world.standing(0, 1), Standing::Alive);
    assert!(world.nodes[1].disk.content.kept, "from now on it is");
}

#[test]
fn a_member_back_with_its_memory_lacks_what_was_written_meanwhile() {
    let mut world = World::new(3, 0b100, 23);
    world.run(1000);
    for node in &mut world.nodes {
        node.settles = false;
    }
    // Node 1 writes alone while node 0 is away.
    world.nodes[0].up = false;
    world.run(1000);
    assert_eq!(world.nodes[1].views.view().gone, 0b001);
    world.restart(0, true);
    while world.nodes[1].views.view().gone != 0 {
        world.run(1);
    }
    assert_eq!(world.nodes[1].views.view().kmin, 1);
    world.run(2000);
    assert_eq!(world.standing(0, 0), Standing::Alive);
    let before = world.adoptions;
    world.nodes[1].up = false;
    world.run(3000);
    assert_eq!(world.standing(0, 1), Standing::Dead);
    assert_eq!(
        world.adoptions, before,
        "nothing says that it has all copies"
    );
}

#[test]
fn a_view_that_settled_with_one_copy_says_so_until_there_are_two_again() {
    let mut world = World::new(3, 0b100, 24);
    world.run(1000);
    world.nodes[0].up = false;
    world.run(2000);
    let view = *world.nodes[1].views.view();
    assert_eq!((view.gone, view.kmin), (0, 1));
    // The one that wrote alone is lost; who comes back knows less.
    world.nodes[1].up = false;
    world.restart(0, true);
    world.adoptions = 0;
    world.run(12_000);
    assert!(world.may_act(0));
    assert!(world.adoptions > 0);
    assert_eq!(
        world.adoptions, world.forced,
        "it says that this is no promise"
    );
    world.restart(1, true);
    world.run(4000);
    assert_eq!(
        world.nodes[0].views.view().kmin,
        replication::view::KMIN_FULL
    );
}

#[test]
fn a_witness_votes_and_is_nobodys_place() {
    let mut world = World::new(3, 0b100, 25);
    world.run(1000);
    for counter in 0..50 {
        let id = replication::CallId::new(1, 0, 1, counter);
        let adopters = (0..3).filter(|&node| world.nodes[node].views.is_adopter(id));
        assert_eq!(adopters.count(), 1);
        assert!(!world.nodes[2].views.is_adopter(id));
    }
    for node in &mut world.nodes {
        node.settles = false;
    }
    world.nodes[2].up = false;
    world.run(1000);
    assert!(world.everybody_acts());
    assert_eq!(world.nodes[0].views.view().gone, 0, "it held nothing");
}

#[test]
fn a_cluster_is_upgraded_node_by_node_and_writes_anew_only_at_the_end() {
    let former = Versions {
        protocol: (1, 2),
        schema: (4, 5),
        schema_held: 5,
    };
    let present = Versions {
        protocol: (2, 3),
        schema: (5, 6),
        schema_held: 5,
    };
    let mut world = World::new(3, 0, 26);
    for node in &mut world.nodes {
        node.views.set_versions(former);
    }
    world.run(1000);
    for at in 0..3 {
        world.restart(at, true);
        world.nodes[at].views.set_versions(present);
        world.run(2000);
        assert!(world.everybody_acts(), "after {at}");
        let (schema, protocol) = if at < 2 { (5, 2) } else { (6, 3) };
        for node in &world.nodes {
            assert_eq!(node.views.schema(), schema, "after {at}");
        }
        assert_eq!(world.nodes[0].views.protocol(2), protocol);
    }
    // Now a record of the new schema is held, and the way back is closed.
    world.nodes[0].views.note_schema(6);
    world.restart(2, true);
    world.nodes[2].views.set_versions(former);
    world.run(3000);
    assert!(!world.may_act(2));
    assert_eq!(world.nodes[0].views.incompatible(), 0b100);
    assert!(world.nodes[0].views.heartbeats_incompatible() > 0);
    assert!(world.may_act(0) && world.may_act(1), "the others go on");
}

#[test]
fn a_node_two_versions_ahead_is_refused_and_harms_nobody() {
    let mut world = World::new(3, 0, 27);
    world.run(1000);
    world.restart(1, true);
    world.nodes[1].views.set_versions(Versions {
        protocol: (2, 3),
        ..Versions::default()
    });
    world.run(3000);
    assert!(!world.may_act(1));
    assert_eq!(world.standing(0, 1), Standing::Dead);
    assert_eq!(world.nodes[0].views.incompatible(), 0b010);
    assert_eq!(world.nodes[1].views.incompatible(), 0b101);
    assert!(world.may_act(0) && world.may_act(2));
    world.restart(1, true);
    world.run(2000);
    assert!(world.everybody_acts());
    assert_eq!(world.nodes[0].views.incompatible(), 0);
}

#[test]
fn an_ack_of_what_was_never_sent_is_no_lease() {
    let mut world = World::new(3, 0, 28);
    world.run(1000);
    world.isolate(0);
    let now = world.clock(0);
    let accepted = world.nodes[0].views.view().number;
    // From a former life of this node, whose clock had run further.
    for (from, sent) in [(1, now + 1000 * MS), (2, now + 500 * MS)] {
        let node = &mut world.nodes[0];
        let ack = ViewMessage::Ack { sent, accepted };
        node.views.handle(now, from, &ack, &mut node.disk);
    }
    world.run(190);
    assert!(!world.may_act(0));
}

#[test]
fn who_has_lost_the_lease_adopts_nothing() {
    let mut world = World::new(3, 0, 29);
    world.run(1000);
    for node in &mut world.nodes {
        node.settles = false;
    }
    world.nodes[1].up = false;
    world.run(1000);
    let adoption = |world: &World| world.nodes[0].views.adoption(world.clock(0), 1);
    assert_eq!(adoption(&world), Adoption::Ready);
    world.isolate(0);
    world.run(190);
    assert_eq!(adoption(&world), Adoption::NotNow);
}

fn draining(voters: u8, witnesses: u32, node: usize) -> World {
    let mut world = World::new(voters, witnesses, 14);
    world.run(1000);
    world.nodes[node].views.drain();
    world.run(500);
    assert_eq!(world.standing(0, node), Standing::Draining);
    world
}

#[test]
fn a_node_that_drains_acts_until_it_is_empty_and_is_not_missed() {
    let mut world = draining(3, 0, 1);
    world.run(5000);
    assert_eq!(
        world.standing(0, 1),
        Standing::Draining,
        "as long as it takes"
    );
    assert!(world.everybody_acts(), "its calls go on meanwhile");
    for counter in 0..50 {
        let id = replication::CallId::new(1, 0, 1, counter);
        let heir = world.nodes[1].views.heir(id).expect("others are alive");
        assert!(heir != 1 && world.nodes[usize::from(heir)].views.heir(id).is_none());
        assert!(!world.nodes[1].views.is_adopter(id));
    }
    world.nodes[1].views.set_drained();
    world.run(500);
    for node in 0..3 {
        let view = world.nodes[node].views.view();
        assert_eq!((view.nodes[1].standing, view.gone), (Standing::Dead, 0));
    }
    assert!(world.nodes[1].views.has_left());
    assert!(!world.may_act(1), "it has a lease, but is no member");
    world.run(5000);
    assert_eq!(world.nodes[1].views.incarnation(), 1, "it does not rise");
    world.nodes[1].up = false;
    world.run(1000);
    assert!(world.may_act(0) && world.may_act(2));
    world.restart(1, true);
    world.run(2000);
    assert!(world.everybody_acts());
    assert_eq!(world.standing(0, 1), Standing::Alive);
}

#[test]
fn a_node_that_drains_stays_until_the_copies_it_held_are_elsewhere() {
    let mut world = World::new(3, 0, 14);
    world.run(1000);
    world.nodes[0].settles = false;
    world.nodes[1].views.drain();
    world.run(500);
    world.nodes[1].views.set_drained();
    world.run(3000);
    assert_eq!(world.standing(0, 1), Standing::Draining);
    world.nodes[0].settles = true;
    world.run(500);
    assert_eq!(world.standing(0, 1), Standing::Dead);
}

#[test]
fn what_was_drained_under_a_former_view_is_not_drained() {
    let mut world = World::new(4, 0, 14);
    world.run(1000);
    world.nodes[0].settles = false;
    world.nodes[1].views.drain();
    world.run(500);
    world.nodes[1].views.set_drained();
    world.nodes[2].up = false;
    world.run(600);
    assert_eq!(world.standing(0, 2), Standing::Dead);
    world.nodes[0].settles = true;
    world.run(2000);
    assert_eq!(world.standing(0, 1), Standing::Draining);
    world.nodes[1].views.set_drained();
    world.run(1000);
    assert_eq!(world.standing(0, 1), Standing::Dead);
}

#[test]
fn a_draining_node_that_fails_is_gone_like_any_other() {
    let mut world = draining(3, 0, 1);
    world.nodes[1].up = false;
    world.nodes[0].settles = false;
    world.run(400);
    let view = world.nodes[0].views.view();
    assert_eq!((view.nodes[1].standing, view.gone), (Standing::Dead, 0b10));
    world.run(200);
    assert!(world.adoptions > 0);
    world.restart(1, true);
    world.run(1000);
    assert!(!world.nodes[1].views.has_left());
    assert_eq!(
        world.standing(0, 1),
        Standing::Alive,
        "a restart drains no more"
    );
}

#[test]
fn the_last_alive_node_does_not_drain_and_one_that_becomes_it_drains_no_more() {
    let mut world = World::new(3, 0b100, 14);
    world.run(1000);
    for node in 0..2 {
        world.nodes[node].views.drain();
    }
    world.run(1000);
    let draining = (0..2).filter(|&node| world.standing(2, node) == Standing::Draining);
    assert_eq!(draining.collect::<Vec<_>>(), [0]);
    assert_eq!(
        world.nodes[2].views.view().kmin,
        1,
        "writes have one copy now"
    );
    world.nodes[1].up = false;
    world.run(1000);
    assert_eq!(world.standing(2, 0), Standing::Alive);
    assert!(world.may_act(0));
    assert_eq!(
        world.forced, world.adoptions,
        "what node 1 wrote alone may be lost"
    );
}

#[test]
fn a_given_call_is_taken_over_only_while_its_giver_is_draining() {
    let mut world = draining(3, 0, 1);
    let may = |world: &World, giver| world.nodes[0].views.may_take_over(world.clock(0), giver);
    assert!(may(&world, 1));
    assert!(!may(&world, 2), "it is not leaving");
    assert!(
        !may(&world, 3) && !may(&world, u16::MAX),
        "there is no such node"
    );
    // Without a lease it may not either.
    world.isolate(0);
    world.run(200);
    assert!(!may(&world, 1));
    world.cut.clear();
    world.run(2000);
    assert!(may(&world, 1));
    world.nodes[1].up = false;
    world.run(1000);
    assert_eq!(world.standing(0, 1), Standing::Dead);
    assert!(
        world.may_act(0) && !may(&world, 1),
        "it is adopted or not at all"
    );
    world.restart(1, true);
    while world.standing(0, 1) != Standing::Joining {
        world.run(1);
    }
    assert!(!may(&world, 1), "it will resume what it gave");
}

#[test]
fn an_heir_is_lost_only_when_it_can_act_no_more() {
    let mut world = draining(3, 0, 1);
    let is_lost = |world: &World| world.nodes[1].views.is_lost(world.clock(1), 2);
    assert!(!is_lost(&world));
    world.nodes[1].syncs = false;
    world.nodes[2].up = false;
    world.run(1000);
    assert_eq!(world.standing(1, 2), Standing::Dead);
    assert!(!is_lost(&world), "somebody may know more");
    world.nodes[1].syncs = true;
    world.run(100);
    assert!(is_lost(&world));
}

/// Random faults, one after the other or on top of each other; ends healed.
fn faults(voters: u8, witnesses: u32, seed: u64, overlap: bool) -> World {
    let mut world = World::new(voters, witnesses, seed);
    world.loss = 5;
    world.run(1000);
    for _ in 0..12 {
        let at = world.draw.below(voters.into()) as u8;
        let other = (at + 1 + world.draw.below(u64::from(voters) - 1) as u8) % voters;
        match world.draw.below(7) {
            0 => world.nodes[usize::from(at)].up = false,
            1 => world.isolate(at),
            2 => world.cut.extend([(at, other), (other, at)]),
            3 => drop(world.cut.insert((at, other))),
            4 => world
                .cut
                .extend((0..voters).filter(|&o| o != at).map(|o| (at, o))),
            5 => world
                .cut
                .extend((0..voters).filter(|&o| o != at).map(|o| (o, at))),
            _ => {
                let pause = 100 + world.draw.below(2000);
                world.nodes[usize::from(at)].paused_until = world.now + pause * MS;
            }
        }
        let lasts = 50 + world.draw.below(2500);
        world.run(lasts);
        if overlap && world.draw.below(2) == 0 {
            continue;
        }
        heal(&mut world);
        let rests = world.draw.below(3000);
        world.run(rests);
    }
    heal(&mut world);
    world.run(10_000);
    world
}

fn heal(world: &mut World) {
    world.cut.clear();
    for node in 0..world.nodes.len() {
        if !world.nodes[node].up {
            world.restart(node, true);
        }
    }
}

#[test]
fn under_random_faults_nobody_adopts_from_one_who_acts_and_all_act_again_at_the_end() {
    let seeds = std::env::var("SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(24);
    let mut adoptions = 0;
    for seed in 0..seeds {
        for (voters, witnesses) in [(3, 0), (3, 0b100), (5, 0)] {
            let world = faults(voters, witnesses, seed, seed % 2 == 1);
            assert!(world.everybody_acts(), "seed={seed} voters={voters}");
            adoptions += world.adoptions;
        }
    }
    assert!(adoptions > 0);
}
