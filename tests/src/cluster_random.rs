//! Clusters drawn from a seed, each in one of the scenarios that such systems have died of.

use charging::server::Fault;
use dataplane::env::SplitMix64;
use replication::Mode;

use crate::cluster_checks::Losses;
use crate::net::Net;
use crate::random::{draw_message, draw_trouble};
use crate::sim::{Clock, Cluster, Misfortune, Sabotage, Setup, World};
use crate::ua::Plan;

/// What befalls a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Processes end and start again, their memory stays.
    Crash,
    /// Nodes lose their memory.
    Loss,
    /// A node is cut off from all others.
    Isolation,
    /// Nothing passes one way between two nodes, or from one to all.
    OneWay,
    /// Two nodes do not hear each other, but both hear the third.
    Partial,
    /// A node stands still.
    Pause,
    /// Clocks run off, step or stand still.
    Clocks,
    /// The CDFs misbehave while nodes crash.
    CdfTrouble,
    /// A node restarts while it is cut off.
    RestartInPartition,
    /// One after the other is restarted.
    Rolling,
    /// Anything of the above, one after the other.
    Everything,
    /// Several of the above at the same time.
    Overlap,
    /// One after the other hands its calls over and leaves, and comes back.
    Leave,
    /// A node loses memory and disk, and reads its vote back from the others.
    DiskLoss,
    /// What one node says and hears takes long.
    SlowPeer,
    /// A node reaches no CDF, and is killed sometimes before it does again.
    CutFromCdfs,
    /// Anything that can happen to one node at a time.
    Anything,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Crash,
        Self::Loss,
        Self::Isolation,
        Self::OneWay,
        Self::Partial,
        Self::Pause,
        Self::Clocks,
        Self::CdfTrouble,
        Self::RestartInPartition,
        Self::Rolling,
        Self::Everything,
        Self::Overlap,
        Self::Leave,
        Self::DiskLoss,
        Self::SlowPeer,
        Self::CutFromCdfs,
        Self::Anything,
    ];
}

/// The clusters that are played: nodes, witness, copies.
pub const SHAPES: [(u16, bool, u8); 4] =
    [(3, false, 2), (3, false, 3), (2, true, 2), (5, false, 3)];

/// What came of a world.
#[derive(Default)]
pub struct Outcome {
    /// What was wrong.
    pub wrong: Vec<String>,
    /// A number that two equal runs share.
    pub trace: u64,
    /// Calls that were established.
    pub calls: u64,
    /// Charging requests whose copies were counted.
    pub counted: u64,
    /// Nodes that left in order.
    pub left: u64,
    /// Times from the end of a node to when another one took its calls over, milliseconds.
    pub takeovers: Vec<u64>,
    /// What other nodes lacked when a node went.
    pub losses: Losses,
}

/// Plays the cluster of a seed.
#[must_use]
pub fn play(seed: u64, scenario: Scenario, mode: Mode, sabotage: Sabotage) -> Outcome {
    finish(draw(seed, scenario, mode, sabotage))
}

/// Plays a world to its end.
#[must_use]
pub fn finish(mut world: World) -> Outcome {
    world.run_until(HORIZON_MS);
    world.heal_and_drain();
    let wrong = world.cluster_verdict();
    let established = world.established();
    Outcome {
        wrong,
        trace: world.trace,
        calls: established,
        counted: world.seen.counted,
        left: world.seen.left,
        losses: world.seen.losses,
        takeovers: std::mem::take(&mut world.seen.takeovers),
    }
}

/// Plays a cluster whose nodes are restarted in order, one after the other, while phones talk
/// over a good network: says what was wrong, and how many calls changed hands.
#[must_use]
pub fn play_upgrade(seed: u64) -> (Vec<String>, u64) {
    let mut rng = SplitMix64::new(seed);
    let (nodes, witness, copies) = SHAPES[(seed % 4) as usize];
    let cluster = Cluster {
        nodes,
        witness,
        copies,
        mode: Mode::SemiSync,
        scatter: 10,
        loss: 0,
        upgrade: true,
    };
    let mut world = World::new(Setup {
        seed,
        shards: 2,
        config: "session_expires_s = 0\n".to_owned(),
        interim_s: Some(5),
        cluster: Some(cluster),
        ..Setup::default()
    });
    for _ in 0..CALLS {
        let at = 2_000 + rng.below(20_000);
        let answers = rng.below(3_000);
        let caller = Plan {
            calls_at: Some(at),
            bye_after: Some(14_000 + rng.below(20_000)),
            inside: vec![(rng.below(5_000), "INFO"), (9_000, "INVITE")],
            ..Plan::default()
        };
        let callee = Plan {
            rings: vec![(answers / 2, 180)],
            answer: Some((answers, 200)),
            bye_after: Some(100_000),
            ..Plan::default()
        };
        world.add_call(caller, callee);
    }
    for node in 0..nodes {
        world.befall(
            8_000 + 6_000 * u64::from(node),
            Misfortune::Leave(node, 400),
        );
    }
    world.run_until(HORIZON_MS);
    let received = world.calls_received();
    world.heal_and_drain();
    let mut wrong = world.cluster_verdict();
    if world.established() < CALLS {
        let callers = world
            .phones
            .iter()
            .filter(|one| one.plan.calls_at.is_some());
        let failed = callers.filter(|one| one.ledger.acknowledged.is_none());
        let failed: Vec<_> = failed
            .map(|one| (&one.call_id, &one.ledger.finals))
            .collect();
        wrong.push(format!("not set up: {failed:?}"));
    }
    for phone in &world.phones {
        let failed = |(_, status): &&(String, u16)| *status >= 300;
        if let Some(inside) = phone.ledger.inside.iter().find(failed) {
            wrong.push(format!(
                "phone {}: a request inside a call failed: {inside:?}",
                phone.call_id
            ));
        }
    }
    (wrong, received)
}

/// Plays a few calls of a class with that mode in a cluster that waits for copies otherwise: says
/// how many datagrams waited, and what was wrong.
#[must_use]
pub fn play_class(mode: &str) -> (u64, Vec<String>) {
    let config = format!(
        "session_expires_s = 0\n[[charging.class]]\nname = \"quick\"\nmode = \"{mode}\"\n\
         [[sip.peer]]\nname = \"all\"\nallow = [\"10.1.0.0/16\"]\ncharging_class = \"quick\"\n"
    );
    let cluster = Cluster {
        nodes: 3,
        witness: false,
        copies: 2,
        mode: Mode::SemiSync,
        scatter: 0,
        loss: 0,
        upgrade: false,
    };
    let mut world = World::new(Setup {
        config,
        cluster: Some(cluster),
        ..Setup::default()
    });
    let mut rng = SplitMix64::new(1);
    for at in 0..8 {
        draw_call(&mut rng, &mut world, 2_000 + at * 500);
    }
    world.run_until(60_000);
    world.heal_and_drain();
    (world.datagrams_held(), world.leftovers_of_cluster())
}

/// What became of a cluster that lost a node while its rings were at their gates.
#[derive(Debug)]
pub struct FullOutcome {
    /// What was wrong.
    pub wrong: Vec<String>,
    /// Calls that were up when the node was lost, and calls that it owned of these.
    pub up: (u64, u64),
    /// Calls that were refused before.
    pub refused: u64,
    /// How full the fullest ring was before the loss, and the fullest since, percent.
    pub fill: (u32, u32),
    /// Calls the survivors took over.
    pub adopted: u64,
    /// New calls that came up after the loss.
    pub since: u64,
    /// Whether the lost node acted again before the calls had ended.
    pub is_back: bool,
}

/// Fills a cluster until its gates shut, then takes a node and its memory away for `back`
/// milliseconds.
#[must_use]
pub fn play_full(nodes: u16, copies: u8, back: u64) -> FullOutcome {
    let cluster = Cluster {
        nodes,
        witness: nodes == 2,
        copies,
        mode: Mode::SemiSync,
        scatter: 0,
        loss: 0,
        upgrade: false,
    };
    let mut world = World::new(Setup {
        config: "session_expires_s = 0\n".to_owned(),
        interim_s: Some(15),
        cluster: Some(cluster),
        old_bytes: FULL_OLD_BYTES,
        ..Setup::default()
    });
    let mut rng = SplitMix64::new(u64::from(nodes));
    let mut call = |at, bye_after| {
        let caller = Plan {
            calls_at: Some(at),
            bye_after: Some(bye_after),
            ..Plan::default()
        };
        let callee = Plan {
            answer: Some((20, 200)),
            bye_after: Some(100_000),
            ..Plan::default()
        };
        world.add_call(caller, callee);
    };
    let many = FULL_CALLS * u64::from(nodes) / u64::from(copies);
    for number in 0..many {
        call(2_000 + number * 10, 30_000 + rng.below(20_000));
    }
    // Once the calls have ended, the cluster takes new ones.
    let later = 100_000;
    for number in 0..20 {
        call(later + number * 100, 3_000);
    }
    let loss = 2_000 + many * 10 + 5_000;
    world.befall(loss, Misfortune::Loss(0, back));
    world.run_until(loss - 1);
    let (up, fill) = (world.established(), world.fullest());
    let owned = world.calls_of(0);
    let refused = many - up;
    let mut fullest = 0;
    let mut adopted = 0;
    for now in (loss..loss + 15_000).step_by(250) {
        world.run_until(now);
        fullest = fullest.max(world.fullest());
        adopted = adopted.max(world.calls_adopted());
    }
    let is_back = world.has_lease(0);
    world.run_until(later + 10_000);
    let since = world.established() - up;
    world.heal_and_drain();
    FullOutcome {
        wrong: world.cluster_verdict(),
        up: (up, owned),
        refused,
        fill: (fill, fullest),
        adopted,
        since,
        is_back,
    }
}

/// Plays 300 calls of three seconds, all nodes cut off from each other for `ms` in their midst:
/// what each caller got as final answers.
#[must_use]
pub fn play_parted(ms: u64) -> Vec<Vec<u16>> {
    play_cut(&[(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)], ms)
}

/// As [`play_parted`], but one node is cut off from the two others.
#[must_use]
pub fn play_cut_off(ms: u64) -> Vec<Vec<u16>> {
    play_cut(&[(0, 1), (1, 0), (0, 2), (2, 0)], ms)
}

fn play_cut(links: &[(u16, u16)], ms: u64) -> Vec<Vec<u16>> {
    let cluster = Cluster {
        nodes: 3,
        witness: false,
        copies: 2,
        mode: Mode::SemiSync,
        scatter: 0,
        loss: 0,
        upgrade: false,
    };
    let mut world = World::new(Setup {
        config: "session_expires_s = 0\n".to_owned(),
        cluster: Some(cluster),
        ..Setup::default()
    });
    for number in 0..300 {
        let caller = Plan {
            calls_at: Some(5_000 + number * 10),
            bye_after: Some(3_000),
            ..Plan::default()
        };
        let callee = Plan {
            answer: Some((20, 200)),
            ..Plan::default()
        };
        world.add_call(caller, callee);
    }
    for &(from, to) in links {
        world.befall(6_000, Misfortune::CutLink(from, to));
    }
    world.befall(6_000 + ms, Misfortune::Join);
    world.run_until(HORIZON_MS);
    world.heal_and_drain();
    let callers = world
        .phones
        .iter()
        .filter(|one| one.plan.calls_at.is_some());
    let codes = |one: &crate::ua::Phone| one.ledger.finals.iter().map(|(code, _)| *code).collect();
    callers.map(codes).collect()
}

/// A node whose memory goes in the midst of a burst of calls.
pub struct BurstEnd {
    /// What the others lacked.
    pub losses: Losses,
    /// Versions that it wrote in the last [`WAY_MS`].
    pub written_in_a_way: u64,
    /// Versions that it wrote a second then.
    pub rate: u64,
    /// The world since, for whoever wants to play on.
    pub world: World,
}

/// Plays a call each millisecond among three nodes with two copies, until the memory of node 0
/// goes at `at` milliseconds, and with it what it has sent to the others and has not arrived.
///
/// # Panics
/// When node 0 is not up.
#[must_use]
pub fn play_burst(at: u64, mode: Mode) -> BurstEnd {
    let cluster = Cluster {
        nodes: 3,
        witness: false,
        copies: 2,
        mode,
        scatter: 0,
        loss: 0,
        upgrade: false,
    };
    let mut world = World::new(Setup {
        config: "session_expires_s = 0\n".to_owned(),
        cluster: Some(cluster),
        ..Setup::default()
    });
    for number in 0..BURST_CALLS {
        let caller = Plan {
            calls_at: Some(BURST_MS + number),
            bye_after: Some(100),
            ..Plan::default()
        };
        let callee = Plan {
            answer: Some((20, 200)),
            bye_after: Some(100_000),
            ..Plan::default()
        };
        world.add_call(caller, callee);
    }
    world.befall(at, Misfortune::Loss(0, 2_000));
    let written = |world: &mut World, until| {
        world.run_until(until);
        let ring = world.ring_of(0).expect("node 0 is up");
        let counters = ring.counters();
        counters.puts + counters.updates + counters.retires
    };
    // It goes before anything else happens in its last millisecond.
    let last = at - 1;
    let before = written(&mut world, last - RATE_MS);
    let way = written(&mut world, last - WAY_MS);
    let all = written(&mut world, last);
    world.run_until(at);
    world.lose_under_way(0);
    BurstEnd {
        losses: world.seen.losses,
        written_in_a_way: all - way,
        rate: (all - before) * 1_000 / RATE_MS,
        world,
    }
}

/// Plays the cluster of a seed as seeds were taken once: neighbours shared most of what they drew.
#[must_use]
pub fn play_alike(seed: u64, scenario: Scenario) -> Outcome {
    let rng = SplitMix64::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ scenario as u64);
    finish(draw_from(
        rng,
        seed,
        scenario,
        Mode::SemiSync,
        Sabotage::None,
        0,
    ))
}

/// The cluster of a seed, before anything happened.
#[must_use]
pub fn draw(seed: u64, scenario: Scenario, mode: Mode, sabotage: Sabotage) -> World {
    let rng = SplitMix64::of(seed << 8 | scenario as u64);
    let has_timers = seed % 4 == 1;
    let session_s = if has_timers { 90 } else { 0 };
    let mut world = draw_from(rng, seed, scenario, mode, sabotage, session_s);
    if has_timers {
        draw_session_timers(seed, scenario, &mut world);
    }
    if world.setup.cluster.is_some_and(|cluster| cluster.witness) {
        draw_witness_trouble(seed, scenario, &mut world);
    }
    world
}

// What befalls the witness while the nodes have their own troubles: it ends, stands still, is cut
// off, or loses its vote.
fn draw_witness_trouble(seed: u64, scenario: Scenario, world: &mut World) {
    let mut rng = SplitMix64::of(seed << 8 | scenario as u64 | 1 << 62);
    let cluster = world.setup.cluster.expect("a cluster");
    let witness = cluster.nodes;
    for _ in 0..rng.below(4) {
        let (at, lasting) = (8_000 + rng.below(HORIZON_MS - 28_000), rng.below(4_000));
        // Where nodes lose their disks the witness does not: of two lost votes neither can be read
        // back.
        let loses_disk = !matches!(scenario, Scenario::DiskLoss | Scenario::Anything);
        match rng.below(5) {
            0 | 1 => world.befall(at, Misfortune::Crash(witness, 50 + lasting)),
            2 => world.befall(at, Misfortune::Pause(witness, 100 + lasting)),
            3 if loses_disk => world.befall(at, Misfortune::DiskLoss(witness, 50 + lasting)),
            _ => isolate(world, at, witness, cluster.voters(), at + lasting),
        }
    }
}

// Calls that outlast their session interval, refreshed by either phone or by the node.
fn draw_session_timers(seed: u64, scenario: Scenario, world: &mut World) {
    // A refresh that is lost for 15 s comes too late: that ends a call rightly (RFC 4028 10).
    world.net = Net::PERFECT;
    let mut rng = SplitMix64::of(seed << 8 | scenario as u64 | 1 << 63);
    for _ in 0..SESSION_CALLS {
        let mut session_s = || [0, 90, 90][rng.below(3) as usize];
        let (of_caller, of_callee) = (session_s(), session_s());
        let talk = 50_000 + rng.below(60_000);
        let caller = Plan {
            calls_at: Some(2_000 + rng.below(HORIZON_MS / 2)),
            session_s: of_caller,
            bye_after: Some(talk),
            ..Plan::default()
        };
        let callee = Plan {
            session_s: of_callee,
            node_refreshes: rng.below(2) == 0,
            answer: Some((rng.below(3_000), 200)),
            bye_after: Some(200_000),
            ..Plan::default()
        };
        world.add_call(caller, callee);
    }
}

fn draw_from(
    mut rng: SplitMix64,
    seed: u64,
    scenario: Scenario,
    mode: Mode,
    sabotage: Sabotage,
    session_s: u32,
) -> World {
    let (nodes, witness, copies) = SHAPES[rng.below(4) as usize];
    let cluster = Cluster {
        nodes,
        witness,
        copies,
        mode,
        scatter: [0, 10, 60][rng.below(3) as usize],
        loss: [0, 5, 20][rng.below(3) as usize],
        upgrade: scenario == Scenario::Leave && seed.is_multiple_of(2),
    };
    let setup = Setup {
        seed,
        shards: [1, 1, 2][rng.below(3) as usize],
        net: if seed.is_multiple_of(3) {
            Net::draw(&mut rng)
        } else {
            Net::PERFECT
        },
        config: format!(
            "session_expires_s = {session_s}\nring_timeout_s = 40\nmax_call_duration_s = 120\n"
        ),
        cdfs: 1 + rng.below(2) as usize,
        interim_s: Some([5, 10, 30][rng.below(3) as usize]),
        sabotage,
        cluster: Some(cluster),
        sync_bytes_per_s: sync_bytes_per_s(seed),
        young_bytes: young_bytes(seed),
        ..Setup::default()
    };
    let mut world = World::new(setup);
    for _ in 0..CALLS {
        let at = 2_000 + rng.below(HORIZON_MS / 2);
        if rng.below(10) == 0 {
            draw_message(&mut rng, &mut world, at);
        } else {
            draw_call(&mut rng, &mut world, at);
        }
    }
    let mut at = 8_000 + rng.below(4_000);
    while at < HORIZON_MS - 20_000 {
        let what = match scenario {
            Scenario::Everything | Scenario::Overlap => Scenario::ALL[rng.below(9) as usize],
            Scenario::Anything => ANYTHING[rng.below(ANYTHING.len() as u64) as usize],
            other => other,
        };
        // With two copies the memory of one node may go, and of no other until they are made anew.
        let must_be_alone = scenario == Scenario::Overlap && what == Scenario::Loss && copies == 2;
        at += if must_be_alone { ALONE_MS } else { 0 };
        befall(&mut rng, &mut world, what, at);
        at += if must_be_alone { ALONE_MS } else { 0 };
        at += if scenario == Scenario::Overlap {
            500 + rng.below(6_000)
        } else {
            9_000 + rng.below(8_000)
        };
    }
    world
}

// In every fourth cluster a catch-up takes seconds, as one does of a million calls.
fn sync_bytes_per_s(seed: u64) -> u64 {
    if seed % 4 == 2 {
        SLOW_SYNC_BYTES_PER_S
    } else {
        Setup::default().sync_bytes_per_s
    }
}

// In every other cluster so little that tombstones come to the end of it, as they do under load.
fn young_bytes(seed: u64) -> u64 {
    if seed % 4 >= 2 {
        LITTLE_YOUNG_BYTES
    } else {
        Setup::default().young_bytes
    }
}

fn draw_call(rng: &mut SplitMix64, world: &mut World, at: u64) {
    let talk = [2_000, 10_000, 25_000, 40_000][rng.below(4) as usize];
    let callee_ends = rng.below(2) == 0;
    let mut inside = Vec::new();
    for _ in 0..rng.below(3) {
        let method = ["INVITE", "UPDATE", "INFO"][rng.below(3) as usize];
        inside.push((rng.below(talk + 500), method));
    }
    let caller = Plan {
        calls_at: Some(at),
        cancel_after: (rng.below(8) == 0)
            .then(|| rng.below(4_000))
            .or(Some(60_000)),
        bye_after: Some(if callee_ends { 100_000 } else { talk }),
        inside,
        ..Plan::default()
    };
    let answers = rng.below(3_000);
    let code = if rng.below(8) == 0 { 486 } else { 200 };
    let callee = Plan {
        rings: vec![(answers / 2, 180)],
        answer: Some((answers, code)),
        bye_after: Some(if callee_ends { talk } else { 100_000 }),
        ..Plan::default()
    };
    world.add_call(caller, callee);
}

fn befall(rng: &mut SplitMix64, world: &mut World, scenario: Scenario, at: u64) {
    use Scenario as S;
    let cluster = world.setup.cluster.expect("a cluster");
    let (nodes, voters) = (u64::from(cluster.nodes), cluster.voters());
    let node = rng.below(nodes) as u16;
    let other = (node + 1 + rng.below(nodes - 1) as u16) % cluster.nodes;
    let lasting = 300 + rng.below(6_000);
    match scenario {
        S::Crash => world.befall(at, Misfortune::Crash(node, 50 + rng.below(4_000))),
        S::Loss => world.befall(at, Misfortune::Loss(node, 50 + rng.below(4_000))),
        S::Isolation => isolate(world, at, node, voters, at + lasting),
        S::OneWay => {
            world.befall(at, Misfortune::CutLink(node, other));
            if rng.below(2) == 0 {
                for to in (0..voters).filter(|&to| to != node) {
                    world.befall(at, Misfortune::CutLink(node, to));
                }
            }
            world.befall(at + lasting, Misfortune::Join);
        }
        S::Partial => {
            world.befall(at, Misfortune::CutLink(node, other));
            world.befall(at, Misfortune::CutLink(other, node));
            world.befall(at + lasting, Misfortune::Join);
        }
        S::Pause => world.befall(at, Misfortune::Pause(node, 100 + rng.below(3_000))),
        S::Clocks => {
            let clock = match rng.below(4) {
                0 => Clock::Skewed(400),
                1 => Clock::Skewed(-400),
                2 => Clock::Stepped([-5_000, 3_000, 60_000][rng.below(3) as usize]),
                _ => Clock::Stuck,
            };
            world.befall(at, Misfortune::Clock(node, clock));
            world.befall(at + lasting, Misfortune::Clock(node, Clock::True));
        }
        S::CdfTrouble => {
            let far = rng.below(world.fars.len() as u64) as usize;
            world.befall(at, Misfortune::Fault(far, Fault::Delay { ms: 2_500 }));
            world.befall(at + 200, Misfortune::Cut(far));
            world.befall(at + lasting, Misfortune::Fault(far, Fault::None));
            world.befall(at + rng.below(lasting), Misfortune::Crash(node, 1_000));
            if rng.below(3) == 0 {
                draw_trouble(rng, world);
            }
        }
        S::RestartInPartition => {
            isolate(world, at, node, voters, at + lasting);
            world.befall(at + rng.below(lasting), Misfortune::Crash(node, 100));
        }
        S::Rolling => {
            for (turn, node) in (0..cluster.nodes).enumerate() {
                let at = at + turn as u64 * 2_500;
                world.befall(at, Misfortune::Crash(node, 400));
            }
        }
        S::Leave => {
            for (turn, node) in (0..cluster.nodes).enumerate() {
                let at = at + turn as u64 * 2_500;
                world.befall(at, Misfortune::Leave(node, 400));
            }
            if rng.below(3) == 0 {
                world.befall(at + rng.below(3_000), Misfortune::Crash(other, 1_000));
            }
        }
        S::DiskLoss | S::SlowPeer | S::CutFromCdfs => {
            befall_alone(rng, world, scenario, at, lasting);
        }
        S::Everything | S::Overlap | S::Anything => {}
    }
}

// What befalls one node and its surroundings.
fn befall_alone(
    rng: &mut SplitMix64,
    world: &mut World,
    scenario: Scenario,
    at: u64,
    lasting: u64,
) {
    let nodes = u64::from(world.setup.cluster.expect("a cluster").nodes);
    let node = rng.below(nodes) as u16;
    let other = ((u64::from(node) + 1 + rng.below(nodes - 1)) % nodes) as u16;
    match scenario {
        Scenario::DiskLoss => {
            world.befall(at, Misfortune::DiskLoss(node, 50 + rng.below(4_000)));
        }
        Scenario::SlowPeer => {
            // From what only delays acks to what makes a node suspect now and then.
            let lag = [3, 15, 40, 70, 130][rng.below(5) as usize];
            world.befall(at, Misfortune::Lag(node, lag));
            if rng.below(3) == 0 {
                let during = at + rng.below(lasting);
                world.befall(during, Misfortune::Crash(other, 50 + rng.below(2_000)));
            }
            world.befall(at + lasting, Misfortune::Lag(node, 0));
        }
        _ => {
            world.befall(at, Misfortune::CutCdfs(node));
            if rng.below(2) == 0 {
                world.befall(at + rng.below(lasting), Misfortune::Crash(node, 1_000));
            }
            world.befall(at + lasting, Misfortune::JoinCdfs(node));
        }
    }
}

fn isolate(world: &mut World, at: u64, node: u16, voters: u16, until: u64) {
    for other in (0..voters).filter(|&other| other != node) {
        world.befall(at, Misfortune::CutLink(node, other));
        world.befall(at, Misfortune::CutLink(other, node));
    }
    world.befall(until, Misfortune::Join);
}

/// The longest way from node to node where nothing is lost.
pub const WAY_MS: u64 = 2;
/// When the burst of [`play_burst`] begins.
pub const BURST_MS: u64 = 3_000;
/// Its calls.
const BURST_CALLS: u64 = 700;
/// Time over which the versions of a burst are counted.
const RATE_MS: u64 = 200;
/// What [`Scenario::Anything`] draws from.
const ANYTHING: [Scenario; 14] = [
    Scenario::Crash,
    Scenario::Loss,
    Scenario::Isolation,
    Scenario::OneWay,
    Scenario::Partial,
    Scenario::Pause,
    Scenario::Clocks,
    Scenario::CdfTrouble,
    Scenario::RestartInPartition,
    Scenario::Rolling,
    Scenario::Leave,
    Scenario::DiskLoss,
    Scenario::SlowPeer,
    Scenario::CutFromCdfs,
];
/// The old rings of [`play_full`], and the calls that would more than fill one.
const FULL_OLD_BYTES: u64 = 1 << 20;
const FULL_CALLS: u64 = 900;
/// Calls and messages of a world.
const CALLS: u64 = 24;
/// Room for some seventy states.
const LITTLE_YOUNG_BYTES: u64 = 128 << 10;
/// So slow that some ten calls take a second and a half.
const SLOW_SYNC_BYTES_PER_S: u64 = 10_000;
/// Of these, in every fourth world, calls with session timers.
const SESSION_CALLS: u64 = 8;
/// When everything becomes well again.
const HORIZON_MS: u64 = 75_000;
/// So long before and after the loss of a memory nothing else happens where the promise is that of
/// one loss: all of the other misfortunes are over by then.
const ALONE_MS: u64 = 12_000;
