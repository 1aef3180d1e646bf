//! Time of the timer wheel's operations with a million timers armed.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use dataplane::timer::Wheel;

const ARMED: u64 = 1_000_000;

/// Spreads deadlines as the sum of many calls does, without drawing random numbers in the loop.
fn delay(key: u64) -> u64 {
    500 + key.wrapping_mul(0x9E37_79B9) % 180_000
}

fn full_wheel() -> Wheel {
    let mut wheel = Wheel::with_capacity(0, 2 * ARMED as u32);
    for key in 0..ARMED {
        wheel.insert(delay(key), key);
    }
    wheel
}

fn wheel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wheel");
    group.bench_function("insert_and_cancel", |bencher| {
        let mut wheel = full_wheel();
        let mut key = 0u64;
        bencher.iter(|| {
            key += 1;
            let handle = wheel.insert(delay(key), key);
            black_box(wheel.cancel(handle))
        });
    });
    group.bench_function("a_firing_rearmed", |bencher| {
        let mut wheel = full_wheel();
        let mut now = 0;
        bencher.iter(|| {
            loop {
                if let Some(key) = wheel.poll_expired() {
                    wheel.insert(now + delay(key), key);
                    break;
                }
                now += 1;
                wheel.advance(now);
            }
        });
    });
    group.finish();
}

criterion_group!(benches, wheel);
criterion_main!(benches);
