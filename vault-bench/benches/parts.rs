//! How long each part of the engine takes, by itself: one operation, without its set-up.
//!
//! `cargo bench -p vault-bench --bench parts`, with a part of a name behind it for some of them only. What the parts are
//! stands in `vault-lsm/src/benching.rs`.

mod support;

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vault_core::{Clock, SystemClock};
use vault_lsm::benching::{Bench, Part, Work};

fn parts(c: &mut Criterion) {
    let clock = SystemClock::new();
    for part in support::all() {
        // On the disk that everything is built on: a temporary directory may be in memory.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .expect("files are made where the benchmark was built");
        let mut bench = part.begin(directory.path());
        let (component, what) = part.name.split_once('/').unwrap_or((&part.name, "all"));
        let mut group = c.benchmark_group(component);
        group.throughput(match bench.work() {
            Work::Bytes(bytes) => Throughput::Bytes(bytes),
            Work::Entries(entries) => Throughput::Elements(entries),
        });
        group.bench_function(what, |b| {
            b.iter_custom(|operations| time(&clock, &part, &mut *bench, operations));
        });
        group.finish();
    }
}

/// The time that so many operations take, without that of making ready for them.
fn time(clock: &dyn Clock, part: &Part, bench: &mut dyn Bench, operations: u64) -> Duration {
    let mut time = Duration::ZERO;
    let mut left = operations;
    while left > 0 {
        let next = left.min(part.operations);
        bench.prepare(next);
        let begin = clock.monotonic();
        bench.run(next);
        time += clock.monotonic() - begin;
        left -= next;
    }
    time
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(50)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = parts
}
criterion_main!(benches);
