//! How the quickstart tells what it did: steps with their timings, and the engine's own statistics.

use std::time::{Duration, Instant};

use vault_db::engine::stats::EngineStats;

use crate::Outcome;

/// What was done, how often and how long it took.
pub(crate) struct Report {
    steps: Vec<(String, usize, Duration)>,
}

impl Report {
    pub(crate) const fn new() -> Self {
        Self { steps: Vec::new() }
    }

    /// Times one step, which says how many operations it was (0: counting makes no sense).
    pub(crate) fn time<T>(
        &mut self,
        label: &str,
        step: impl FnOnce() -> Outcome<(T, usize)>,
    ) -> Outcome<T> {
        let begin = now();
        let (result, operations) = step().map_err(|error| format!("{label}: {error}"))?;
        let elapsed = now().duration_since(begin);
        self.steps.push((label.to_owned(), operations, elapsed));
        Ok(result)
    }

    pub(crate) fn print(&self) {
        println!(
            "\n{:<46} {:>10} {:>12} {:>12}",
            "step", "operations", "time", "a second"
        );
        for (label, operations, elapsed) in &self.steps {
            let (shown, rate) = match operations {
                0 => (String::new(), String::new()),
                n => {
                    let rate = *n as f64 / elapsed.as_secs_f64();
                    (grouped(*n), grouped(rate as usize))
                }
            };
            let millis = format!("{:.1} ms", elapsed.as_secs_f64() * 1e3);
            println!("{label:<46} {shown:>10} {millis:>12} {rate:>12}");
        }
    }
}

pub(crate) fn print_stats(stats: &EngineStats) {
    println!(
        "\n{:<22} {:>10} {:>10} {:>10} {:>10}",
        "operation", "count", "p50", "p99", "max"
    );
    for operation in &stats.operations {
        let shown = |duration: Duration| format!("{:.1} µs", duration.as_secs_f64() * 1e6);
        let latency = &operation.latency;
        println!(
            "{:<22} {:>10} {:>10} {:>10} {:>10}",
            operation.name,
            grouped(operation.count as usize),
            shown(latency.p50),
            shown(latency.p99),
            shown(latency.max)
        );
    }
    println!(
        "\n{:<22} {:>10} {:>10} {:>10} {:>10}",
        "keyspace", "level", "tables", "entries", "KiB"
    );
    for keyspace in &stats.keyspaces {
        for (depth, level) in keyspace
            .levels
            .iter()
            .enumerate()
            .filter(|(_, l)| l.tables > 0)
        {
            println!(
                "{:<22} {:>10} {:>10} {:>10} {:>10}",
                keyspace.name,
                depth,
                level.tables,
                grouped(level.entries as usize),
                grouped((level.bytes / 1024) as usize)
            );
        }
    }
    println!(
        "\nbytes given {}, written {:.2} times; {} flushes, {} compactions; \
         cache {} hits, {} misses; log {} segments",
        grouped(stats.written.user_bytes as usize),
        stats.written.amplification(),
        stats.background.flushes,
        stats.background.compactions,
        grouped(stats.cache.hits as usize),
        grouped(stats.cache.misses as usize),
        stats.log.segments
    );
}

/// Writes a number with its thousands apart.
pub(crate) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[expect(
    clippy::disallowed_methods,
    reason = "an example times itself by the real clock"
)]
fn now() -> Instant {
    Instant::now()
}
