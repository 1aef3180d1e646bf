use std::collections::BTreeMap;

use super::*;

/// A seeded generator (SplitMix64), so that a failure repeats.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Short and long spans alike: a random number of random bits.
    fn span(&mut self, bits_max: u64) -> u64 {
        let bits = self.below(bits_max + 1);
        self.next() & ((1u64 << bits) - 1)
    }
}

/// Drains what is due at `now`, as a driver does: again while the wheel says it has more to do.
fn drain<T: Copy>(wheel: &mut Wheel<T>, now: u64) -> Vec<T> {
    let mut fired = Vec::new();
    loop {
        wheel.advance(now);
        while let Some(key) = wheel.poll_expired() {
            fired.push(key);
        }
        if wheel.next_deadline().is_none_or(|next| next > now) {
            return fired;
        }
    }
}

#[test]
fn a_timer_fires_at_its_tick_and_not_before() {
    for start in [0, 1, 63, 64, 4095, 1 << 36, u64::MAX >> 1] {
        for delay in [
            0u64,
            1,
            63,
            64,
            65,
            4096,
            500,
            32_000,
            86_400_000,
            7 * 86_400_000,
            1 << 40,
        ] {
            let mut wheel = Wheel::new(start);
            wheel.insert(start + delay, 7u64);
            if delay > 0 {
                assert!(drain(&mut wheel, start + delay - 1).is_empty());
            }
            assert_eq!(wheel.len(), 1);
            assert_eq!(drain(&mut wheel, start + delay), [7], "{start} + {delay}");
            assert!(wheel.is_empty());
            assert_eq!(wheel.next_deadline(), None);
        }
    }
}

#[test]
fn the_ends_of_time_are_deadlines_like_any_other() {
    let mut wheel = Wheel::new(0);
    wheel.insert(u64::MAX, 1u64);
    assert!(drain(&mut wheel, u64::MAX - 1).is_empty());
    wheel.insert(0, 2);
    assert_eq!(
        drain(&mut wheel, u64::MAX - 1),
        [2],
        "the past is due at once"
    );
    assert_eq!(drain(&mut wheel, u64::MAX), [1]);
}

#[test]
fn a_cancelled_timer_does_not_fire_and_its_handle_goes_stale() {
    let mut wheel = Wheel::new(0);
    let first = wheel.insert(10, 1u64);
    assert!(wheel.is_armed(first));
    assert_eq!(wheel.cancel(first), Some(1));
    assert_eq!(wheel.cancel(first), None);
    let second = wheel.insert(10, 2);
    assert_eq!(wheel.cancel(first), None, "the node is in use again");
    assert!(!wheel.is_armed(first));
    assert_eq!(drain(&mut wheel, 10), [2]);
    assert_eq!(wheel.cancel(second), None, "it has fired");
}

#[test]
fn time_that_goes_backwards_stands_still() {
    let mut wheel = Wheel::new(100);
    wheel.insert(150, 1u64);
    assert!(drain(&mut wheel, 50).is_empty());
    assert!(drain(&mut wheel, 149).is_empty());
    assert!(drain(&mut wheel, 120).is_empty());
    assert_eq!(drain(&mut wheel, 150), [1]);
}

#[test]
fn a_full_wheel_refuses_and_takes_again_after_a_firing() {
    let mut wheel = Wheel::with_capacity(0, 2);
    wheel.insert(1, 1u64);
    let second = wheel.insert(1000, 2);
    assert_eq!(wheel.try_insert(5, 3), None);
    assert_eq!(drain(&mut wheel, 1), [1]);
    assert!(wheel.try_insert(5, 3).is_some());
    assert_eq!(wheel.try_insert(5, 4), None);
    wheel.cancel(second);
    assert!(wheel.try_insert(5, 4).is_some());
    assert_eq!(drain(&mut wheel, 2000), [3, 4]);
}

#[test]
fn one_turn_moves_a_bounded_number_of_timers() {
    const TIMERS: u64 = 10 * CASCADE_MAX as u64;
    let mut wheel = Wheel::new(0);
    // All in one slot of level 2, due at its very start.
    for key in 0..TIMERS {
        wheel.insert(8192, key);
    }
    let mut turns = 0;
    let mut fired = 0;
    while fired < TIMERS {
        turns += 1;
        wheel.advance(8192);
        let before = fired;
        while let Some(key) = wheel.poll_expired() {
            assert_eq!(key, fired, "insertion order survives the cascade");
            fired += 1;
        }
        if fired == before {
            assert_eq!(wheel.next_deadline(), Some(8192), "come back at once");
        }
    }
    assert_eq!(
        turns,
        TIMERS / u64::from(CASCADE_MAX),
        "each turn moved its portion"
    );
}

#[test]
fn timers_may_be_cancelled_and_armed_in_the_middle_of_a_cascade() {
    let mut wheel = Wheel::new(0);
    let handles: Vec<_> = (0..3 * u64::from(CASCADE_MAX))
        .map(|key| wheel.insert(4096 + key % 50, key))
        .collect();
    wheel.advance(4100);
    assert_eq!(wheel.poll_expired(), None, "not all are moved");
    wheel.insert(4097, u64::MAX);
    for handle in &handles {
        assert!(wheel.cancel(*handle).is_some());
    }
    assert_eq!(wheel.len(), 1);
    assert_eq!(drain(&mut wheel, 4100), [u64::MAX]);
}

#[test]
fn a_wheel_and_a_sorted_map_fire_the_same() {
    for seed in 0..60 {
        same_as_a_sorted_map(seed);
    }
}

fn same_as_a_sorted_map(seed: u64) {
    let mut random = Random(seed);
    let start = random.span(50);
    let mut wheel = Wheel::new(start);
    let mut model: BTreeMap<(u64, u64), TimerHandle> = BTreeMap::new();
    let mut gone = Vec::new();
    let mut now = start;
    for key in 0..4_000 {
        match random.below(10) {
            0..=4 => {
                let deadline = (now + random.span(33)).saturating_sub(random.below(3));
                let handle = wheel.insert(deadline, (deadline, key));
                model.insert((deadline, key), handle);
            }
            5..=6 => {
                let from = (now + random.span(33), 0);
                if let Some((&entry, &handle)) = model.range(from..).next() {
                    assert_eq!(wheel.cancel(handle), Some(entry), "seed {seed}");
                    model.remove(&entry);
                    gone.push(handle);
                }
            }
            7 => {
                if let Some(&handle) = gone.get(random.below(64) as usize) {
                    assert_eq!(wheel.cancel(handle), None, "seed {seed}");
                }
            }
            _ => {
                let earliest = model.keys().next().map(|entry| entry.0);
                let next = wheel.next_deadline();
                assert_eq!(next.is_some(), earliest.is_some(), "seed {seed}");
                assert!(
                    next <= earliest.map(|earliest| earliest.max(now)),
                    "seed {seed}"
                );
                now += random.span(22);
                check_firings(&mut wheel, &mut model, &mut gone, now, seed);
            }
        }
        assert_eq!(wheel.len(), model.len(), "seed {seed}");
    }
}

fn check_firings(
    wheel: &mut Wheel<(u64, u64)>,
    model: &mut BTreeMap<(u64, u64), TimerHandle>,
    gone: &mut Vec<TimerHandle>,
    now: u64,
    seed: u64,
) {
    let later = model.split_off(&(now + 1, 0));
    let due = std::mem::replace(model, later);
    let mut fired = drain(wheel, now);
    // What was armed for the past counts for the tick it was armed in.
    assert!(
        fired.iter().all(|entry| entry.0 <= now),
        "never early, seed {seed}"
    );
    fired.sort_unstable();
    assert_eq!(
        fired,
        due.keys().copied().collect::<Vec<_>>(),
        "seed {seed}"
    );
    gone.extend(due.values());
}

#[test]
fn firings_come_in_the_order_of_their_ticks() {
    let mut random = Random(9);
    let mut wheel = Wheel::new(0);
    for _ in 0..20_000 {
        let deadline = random.span(30);
        wheel.insert(deadline, deadline);
    }
    let fired = drain(&mut wheel, 1 << 30);
    assert_eq!(fired.len(), 20_000);
    assert!(fired.is_sorted());
}

#[test]
fn steady_use_allocates_nothing() {
    let mut wheel = Wheel::with_capacity(0, 100);
    let room = (wheel.links.capacity(), wheel.timers.capacity());
    for now in 0..100_000u64 {
        let handle = wheel.insert(now + 32_000, now);
        wheel.insert(now + 50, now);
        wheel.cancel(handle);
        drain(&mut wheel, now);
    }
    assert_eq!((wheel.links.capacity(), wheel.timers.capacity()), room);
}
