//! The end of a catch-up, which takes many turns: what the giver no longer knows is forgotten.

use super::*;

/// Calls that node 0 is said to own and knows nothing of.
const STALE: u64 = 2_000;

/// Two nodes, of which node 1 holds calls that node 0 no longer knows, and calls that it does.
fn world_with_stale_calls(seed: u64, loss: u64) -> (World, Vec<CallId>) {
    let mut world = World::new(2, 2, seed, loss);
    let mut ids = Vec::new();
    traffic(&mut world, 0, &mut ids, 60, Mode::Async);
    world.settle();
    hold_stale(&mut world);
    (world.turn, world.looked_at) = (50_000, 4);
    (world, ids)
}

fn stale(n: u64) -> CallId {
    CallId::new(0, 0, 1, 1 << 20 | n)
}

fn hold_stale(world: &mut World) {
    for n in 0..STALE {
        let meta = Meta {
            id: stale(n),
            version: Version::first(1),
            rseq: 0,
            owner: 0,
            shard: 0,
            schema: 1,
            kind: Kind::Put,
            flags: 0,
            written: 0,
        };
        let applied = world.nodes[1].ring.apply(meta, &[7; 40]);
        assert!(matches!(applied, Ok(Applied::Stored | Applied::Duplicate)));
    }
}

fn stale_held(world: &World) -> usize {
    let ring = &world.nodes[1].ring;
    (0..STALE)
        .filter(|&n| ring.newest(stale(n)).is_some())
        .count()
}

fn is_forgetting(world: &World) -> bool {
    let link = world.nodes[1].replicator.link(0).expect("a peer");
    link.is_forgetting()
}

/// Asks for what is to stay, and runs until forgetting has begun.
fn begin(world: &mut World) {
    let view = world.view;
    world.nodes[1].replicator.request_share(0, view);
    go_on_until(world, is_forgetting);
}

fn go_on_until(world: &mut World, is_so: impl Fn(&World) -> bool) {
    for _ in 0..40_000 {
        if is_so(world) {
            return;
        }
        world.run(50_000);
    }
    panic!("it never came to that");
}

fn has_filled(world: &World) -> bool {
    let giver = world.nodes[0].replicator.link(1).expect("a peer");
    giver.is_past(0)
}

fn assert_alike(world: &World) {
    assert_eq!(world.fingerprint(0, 0), world.fingerprint(1, 0));
    assert_eq!(world.fingerprint(0, 1), world.fingerprint(1, 1));
    for node in &world.nodes {
        node.ring.verify();
    }
}

#[test]
fn a_turn_forgets_no_more_than_it_may_look_at_and_the_mark_is_acked_at_the_end() {
    let (mut world, _) = world_with_stale_calls(1, 0);
    begin(&mut world);
    let mut held = stale_held(&world);
    assert!(held + 8 > STALE as usize, "it has just begun");
    while held > 0 {
        assert!(is_forgetting(&world) && !has_filled(&world));
        assert!(world.nodes[1].replicator.is_asking(), "it is not filled");
        // Two turns at most.
        world.run(50_000);
        let left = stale_held(&world);
        assert!(held - left <= 2 * world.looked_at, "{}", held - left);
        held = left;
    }
    world.settle();
    assert!(has_filled(&world) && !is_forgetting(&world));
    assert!(!world.nodes[1].replicator.is_asking());
    let link = world.nodes[1].replicator.link(0).expect("a peer");
    assert!(link.counters().calls_forgotten >= STALE);
    assert_alike(&world);
}

#[test]
fn nothing_else_need_come_for_it_to_end() {
    let (mut world, _) = world_with_stale_calls(2, 0);
    begin(&mut world);
    world.cut.extend([(0, 1), (1, 0)]);
    world.run(100 * MS);
    assert_eq!(stale_held(&world), 0);
    assert!(!has_filled(&world), "the ack is lost");
    world.cut.clear();
    world.settle();
    assert!(has_filled(&world));
    assert_alike(&world);
}

#[test]
fn what_lives_meanwhile_stays_and_does_not_wait() {
    for (seed, loss) in [(1, 0), (2, 0), (3, 5), (4, 5), (5, 10)] {
        let (mut world, mut ids) = world_with_stale_calls(seed, loss);
        begin(&mut world);
        let (mut committed, mut slowest) = (0, 0);
        // Faster than the window of the stream would let past an entry that is not acked.
        while is_forgetting(&world) {
            // Nor so fast that more wait than may.
            let count = if world.nodes[0].replicator.held() < 400 {
                3
            } else {
                0
            };
            let turn: Vec<_> = (0..count)
                .map(|_| {
                    let id = world.new_call(0, 60, Mode::SemiSync);
                    (id, Version::first(1))
                })
                .collect();
            ids.extend(turn.first().map(|one| one.0));
            for other in turn.iter().skip(1) {
                world.nodes[0].ring.retire(other.0).expect("live");
                world.commit(0, other.0, Mode::Async);
            }
            let since = world.now;
            while loss == 0 && !turn.iter().all(|one| world.released[&0].contains(one)) {
                world.run(50_000);
                slowest = slowest.max(world.now - since);
            }
            world.run(50_000);
            committed += turn.len();
        }
        assert!(committed > 100, "{committed} while it went on");
        assert!(slowest < 2 * MS, "one waited for {slowest} ns");
        world.settle();
        assert_eq!(stale_held(&world), 0, "seed={seed}");
        assert_alike(&world);
        world.check_released(0, 2);
    }
}

// A copy that came before the walk and is not in it, of a call that has a place here all the same.
#[test]
fn what_comes_again_unchanged_meanwhile_stays() {
    let (mut world, _) = world_with_stale_calls(6, 0);
    begin(&mut world);
    let id = stale(STALE - 1);
    let now = world.now;
    // The giver knows it after all, in the very version.
    world.nodes[0].ring.put(id, 1, 1, &[7; 40]).expect("room");
    world.nodes[0]
        .replicator
        .tell(now, 1, id, Version::first(1));
    world.settle();
    assert!(world.nodes[1].ring.newest(id).is_some());
    assert_eq!(stale_held(&world), 1);
    assert_alike(&world);
}

#[test]
fn a_new_catch_up_begins_it_anew() {
    for seed in 0..4 {
        let (mut world, mut ids) = world_with_stale_calls(seed, seed * 3);
        for round in 0..3 {
            hold_stale(&mut world);
            begin(&mut world);
            world.run(MS);
            assert!(stale_held(&world) > 1_000, "seed={seed} round={round}");
            // A view in which a place has moved and moved back makes the giver begin again.
            world.members[1].standing = Standing::Draining;
            world.enter_view();
            world.members[1].standing = Standing::Alive;
            world.enter_view();
            // Of what the new walk has not brought yet nothing goes.
            let copies = |world: &World| {
                let ring = &world.nodes[1].ring;
                ids.iter().filter(|&&id| ring.newest(id).is_some()).count()
            };
            for _ in 0..100 {
                assert_eq!(copies(&world), ids.len(), "seed={seed} round={round}");
                world.run(50_000);
            }
            traffic(&mut world, 0, &mut ids, 3, Mode::Async);
            world.run(100 * MS);
        }
        world.settle();
        assert_eq!(stale_held(&world), 0, "seed={seed}");
        assert_alike(&world);
    }
}

#[test]
fn an_overflow_meanwhile_begins_it_anew() {
    let (mut world, ids) = world_with_stale_calls(7, 0);
    begin(&mut world);
    world.cut.insert((0, 1));
    for round in 0..3_000_usize {
        let (ring, id) = (&mut world.nodes[0].ring, ids[round % ids.len()]);
        ring.update(id, |bytes| bytes.fill(round as u8))
            .expect("live");
        world.commit(0, id, Mode::Async);
    }
    let link = world.nodes[0].replicator.link(1).expect("a peer");
    assert!(link.counters().queue_overflows > 0);
    world.cut.clear();
    world.settle();
    assert_eq!(stale_held(&world), 0);
    assert_alike(&world);
}

#[test]
fn a_peer_that_is_gone_makes_nobody_forget() {
    let (mut world, _) = world_with_stale_calls(8, 0);
    begin(&mut world);
    world.run(MS);
    world.nodes[0].up = false;
    world.members[0].standing = Standing::Dead;
    world.enter_view();
    assert!(!is_forgetting(&world));
    let held = stale_held(&world);
    assert!((1..STALE as usize).contains(&held), "it was under way");
    world.run(100 * MS);
    assert_eq!(stale_held(&world), held);
    // It comes back without its memory: it does not know, and says so.
    world.nodes[0] = Node::new(0, 2, 2, &[0, 1], None);
    world.members[0] = Member {
        node: 0,
        incarnation: 2,
        standing: Standing::Joining,
    };
    world.enter_view();
    let view = world.view;
    world.nodes[0].replicator.request_sync(1, view);
    world.settle();
    assert_eq!(stale_held(&world), held);
    assert_eq!(world.fingerprint(0, 0), world.fingerprint(1, 0));
}

#[test]
fn calls_beyond_what_can_be_marked_meanwhile_are_not_forgotten() {
    let (mut world, _) = world_with_stale_calls(9, 0);
    begin(&mut world);
    let incomplete = |world: &World| {
        let link = world.nodes[1].replicator.link(0).expect("a peer");
        link.counters().syncs_incomplete
    };
    // More calls than there may be marks come and go.
    (world.looked_at, world.turn) = (1, MS);
    while incomplete(&world) == 0 {
        assert!(is_forgetting(&world), "too few calls went by");
        for _ in 0..10 {
            let id = world.new_call(0, 20, Mode::Async);
            world.nodes[0].ring.retire(id).expect("live");
            world.commit(0, id, Mode::Async);
        }
        world.run(MS);
    }
    let id = world.new_call(0, 20, Mode::Async);
    world.looked_at = 100;
    world.settle();
    assert!(world.nodes[1].ring.newest(id).is_some());
    assert_eq!(stale_held(&world), 0, "it was begun anew");
    assert_alike(&world);
}

// It tells of another walk than the marks do that there are now.
#[test]
fn the_mark_of_a_former_catch_up_that_comes_late_says_nothing() {
    let mut world = World::new(2, 2, 10, 0);
    world.settle();
    let now = world.now;
    // An empty walk, whose mark is held back on the way.
    let mut mark = vec![0; DATAGRAM_BYTES_MAX];
    world.nodes[1].replicator.request_share(0, world.view);
    let node = &mut world.nodes[1];
    let request = node.replicator.poll(now, &node.ring, &mut mark);
    let request = mark[..request.expect("a request").1].to_vec();
    world.deliver(1, 0, request);
    let node = &mut world.nodes[0];
    let len = node.replicator.poll(now, &node.ring, &mut mark);
    mark.truncate(len.expect("the mark").1);
    // A copy that came and was acked, and then another catch-up, which has only begun.
    hold_stale(&mut world);
    world.members[1].standing = Standing::Draining;
    world.enter_view();
    let node = &mut world.nodes[0];
    let mut next = vec![0; DATAGRAM_BYTES_MAX];
    let len = node.replicator.poll(now, &node.ring, &mut next);
    next.truncate(len.expect("its beginning").1);
    world.cut.insert((0, 1));
    world.deliver(0, 1, next);
    let before = world.nodes[1]
        .replicator
        .link(0)
        .expect("a peer")
        .counters()
        .syncs_completed;
    world.deliver(0, 1, mark);
    world.run(MS);
    let link = world.nodes[1].replicator.link(0).expect("a peer");
    assert_eq!(link.counters().syncs_completed, before);
    assert_eq!(stale_held(&world), STALE as usize);
}
