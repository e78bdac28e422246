//! How long each part of the hot path takes, and an append to each store of the log.
#![allow(clippy::unwrap_used)]

mod stores;

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nova_benchmarks::parts;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The work that `make guard` counts. Making it ready is not timed.
fn parts(c: &mut Criterion) {
    let mut group = c.benchmark_group("parts");
    for part in parts::all() {
        group.throughput(Throughput::Elements(part.operations));
        group.bench_function(format!("{}, per {}", part.name, part.per), |bench| {
            let mut work = (part.prepare)();
            bench.iter_custom(|runs| {
                let mut took = Duration::ZERO;
                for _ in 0..runs {
                    work.ready();
                    let begun = Instant::now();
                    work.run();
                    took += begun.elapsed();
                }
                took
            });
        });
    }
}

criterion_group!(benches, parts, stores::appends);
criterion_main!(benches);
