//! Time of a record on its way to the CDF.

use bench::operation;
use criterion::{Criterion, criterion_group, criterion_main};

fn acr(criterion: &mut Criterion) {
    // Many at a time, for the call is made first.
    criterion.bench_function("acr/1000_starts_by_template", |bencher| {
        bencher.iter(|| operation::acr_start_by_template(1_000));
    });
}

criterion_group!(benches, acr);
criterion_main!(benches);
