//! Time to read a message.

use std::hint::black_box;

use bench::{message, operation};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dataplane::sip::{self, Index, Message};

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    let nothing: fn(&Message<'_>) = |_| {};
    let validate: fn(&Message<'_>) = |message| message.validate().expect("a valid message");
    let cases = [
        ("invite", message::invite(), nothing),
        (
            "invite_and_values",
            message::invite(),
            operation::needed_values,
        ),
        ("invite_and_validate", message::invite(), validate),
        ("bye", message::bye(), nothing),
    ];
    for (name, raw, then) in cases {
        group.throughput(Throughput::Bytes(raw.len() as u64));
        group.bench_function(name, |bencher| {
            let mut index = Index::new();
            bencher.iter(|| {
                let message = sip::parse(black_box(&raw), &mut index).expect("well formed");
                then(black_box(&message));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, parse);
criterion_main!(benches);
