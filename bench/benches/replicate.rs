//! Time of a version: in the ring, and from the owner's write to its release by the replica's ack.

use bench::replicate::{Side, pair, version};
use criterion::{Criterion, criterion_group, criterion_main};

fn replicate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("replicate");
    group.bench_function("put", |bencher| {
        let mut side = Side::new(0);
        bencher.iter(|| side.put());
    });
    group.bench_function("update", |bencher| {
        let mut side = Side::new(0);
        bencher.iter(|| side.update());
    });
    group.bench_function("version_owner_and_replica", |bencher| {
        let (mut owner, mut replica) = pair();
        let mut ack = Vec::new();
        bencher.iter(|| version(&mut owner, &mut replica, &mut ack));
    });
    group.finish();
}

criterion_group!(benches, replicate);
criterion_main!(benches);
