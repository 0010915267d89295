//! Tails: overwrites at a fixed rate, 70 % of what could be reached just before unless another was asked for, as an application
//! sees them that does not wait for the store.
//!
//! The schedule is open: write number `i` is due at `i / rate`, whatever became of those before it, and its latency counts from
//! that moment. A store that stands still for a second thus has a whole second's writes that were late, not one: nothing is left
//! out because the client was waiting too (*coordinated omission*). A thread that is ahead sleeps; that it wakes up some 60 µs
//! late is part of the latency, for every engine alike. What the call itself took is told beside it (`service_…`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use vault_core::clock::{Clock, SystemClock};

use super::{Shape, Shaped};
use crate::data::{self, Entry};
use crate::drive::{Outcome, drive};
use crate::error::{Error, Result};
use crate::latency::Latencies;

/// Seconds that it runs for unless something else is asked for.
pub const SECONDS: u64 = 3600;
/// Share of the peak rate, in percent.
const RATE_PERCENT: f64 = 70.0;
/// The peak is measured for this part of the time.
const PEAK_PART: u32 = 6;
/// But no longer.
const PEAK_TIME_MAX: Duration = Duration::from_secs(60);
/// A write that takes longer is counted.
const LONG: Duration = Duration::from_millis(50);
/// Being ahead by less is not worth a sleep.
const AHEAD_MIN: Duration = Duration::from_micros(50);

/// Runs on a loaded store.
pub(super) fn run(shape: &Shape<'_>) -> Result<Shaped> {
    let duration = shape.settings.timed(SECONDS);
    let n = shape.settings.n;
    let order = shape.shuffled(n, 0);
    let mut how = shape.how("peak", u64::MAX / 2);
    how.duration_max = (duration / PEAK_PART).min(PEAK_TIME_MAX);
    let peak = drive(&how, |hands, i| {
        hands
            .entry
            .fill(data::loaded(order.at(i % n)), shape.generation);
        shape
            .target
            .put(&hands.entry.key, &hands.entry.value, false)?;
        Ok(1)
    })?;
    let peak_rate = peak.operations as f64 / peak.elapsed.as_secs_f64().max(1e-9);
    let schedule = Schedule {
        shape,
        clock: SystemClock::new(),
        rate: match shape.settings.rate {
            0 => (peak_rate * RATE_PERCENT / 100.0).max(1.0),
            asked => asked as f64,
        },
        duration,
        next: AtomicU64::new(0),
        stopped: AtomicBool::new(false),
    };
    let parts: Vec<Result<Part>> = std::thread::scope(|scope| {
        let run = |_| scope.spawn(|| schedule.run());
        let threads: Vec<_> = (0..shape.settings.threads).map(run).collect();
        let panicked = |_| {
            Err(Error::engine(
                "this benchmark",
                &"a client thread panicked inside the engine",
            ))
        };
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(panicked))
            .collect()
    });
    let (mut outcome, mut service, mut long) = (Outcome::default(), Latencies::default(), 0);
    for part in parts {
        let part = part?;
        outcome.operations += part.latencies.count();
        outcome.latencies.merge(&part.latencies);
        service.merge(&part.service);
        long += part.long;
    }
    outcome.elapsed = schedule.clock.monotonic();
    Ok(Shaped {
        details: vec![
            ("peak_operations_per_second", peak_rate),
            ("scheduled_operations_per_second", schedule.rate),
            ("writes_over_50_ms", long as f64),
            ("p9999_ns", outcome.latencies.percentile_ns(0.9999) as f64),
            ("service_p50_ns", service.percentile_ns(0.5) as f64),
            ("service_p999_ns", service.percentile_ns(0.999) as f64),
            ("service_max_ns", service.max_ns() as f64),
        ],
        outcome,
    })
}

struct Schedule<'a> {
    shape: &'a Shape<'a>,
    clock: SystemClock,
    /// Writes a second.
    rate: f64,
    duration: Duration,
    next: AtomicU64,
    stopped: AtomicBool,
}

#[derive(Default)]
struct Part {
    /// From the moment at which a write was due.
    latencies: Latencies,
    /// From the moment at which it was begun.
    service: Latencies,
    long: u64,
}

impl Schedule<'_> {
    fn run(&self) -> Result<Part> {
        let shape = self.shape;
        let n = shape.settings.n;
        let order = shape.shuffled(n, 1);
        let mut part = Part::default();
        let mut entry = Entry::with_value_bytes(shape.settings.value_bytes);
        while !self.stopped.load(Ordering::Relaxed) {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            let due = Duration::from_secs_f64(i as f64 / self.rate);
            if due >= self.duration {
                break;
            }
            entry.fill(data::loaded(order.at(i % n)), shape.generation + 1 + i / n);
            let ahead = due.saturating_sub(self.clock.monotonic());
            if ahead >= AHEAD_MIN {
                self.clock.sleep(ahead);
            }
            let begun = self.clock.monotonic();
            shape
                .target
                .put(&entry.key, &entry.value, false)
                .inspect_err(|_| self.stopped.store(true, Ordering::Relaxed))?;
            let ended = self.clock.monotonic();
            let latency = ended.saturating_sub(due);
            part.latencies.record((latency.as_nanos() as u64).max(1));
            part.service.record((ended - begun).as_nanos() as u64);
            part.long += u64::from(latency > LONG);
        }
        Ok(part)
    }
}
