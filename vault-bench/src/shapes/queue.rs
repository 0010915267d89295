//! A queue: one thread pushes at one end and pops at the other, again and again.
//!
//! A pop is what an application does: seek to the first key, then delete it. What is pushed in between is not part of a
//! pop's latency. Where deleted keys are stepped over one by one, a pop takes longer the more were popped before it, until
//! something removes them: so the first tenth of the time and the last are told apart.

use std::time::Duration;

use vault_core::clock::{Clock, SystemClock};

use super::{Shape, Shaped};
use crate::data::{self, Entry};
use crate::drive::Outcome;
use crate::error::Result;
use crate::latency::Latencies;
use crate::target::Direction;

/// Seconds that it runs for unless something else is asked for.
pub const SECONDS: u64 = 600;
/// Entries that wait in the queue, at most.
const BACKLOG_MAX: u64 = 100_000;
/// Parts of the time that are told apart.
const PARTS: usize = 10;

/// Runs the queue on an empty store.
pub(super) fn run(shape: &Shape<'_>) -> Result<Shaped> {
    let backlog = shape.settings.n.min(BACKLOG_MAX);
    shape.load(0, backlog)?;
    let duration = shape.settings.timed(SECONDS);
    let clock = SystemClock::new();
    let mut parts: Vec<Latencies> = (0..PARTS).map(|_| Latencies::default()).collect();
    let mut outcome = Outcome::default();
    let mut entry = Entry::with_value_bytes(shape.settings.value_bytes);
    for head in 0.. {
        let begun = clock.monotonic();
        if begun >= duration && head > 0 {
            break;
        }
        entry.fill(data::loaded(backlog + head), shape.generation);
        shape.target.put(&entry.key, &entry.value, false)?;
        let pushed = clock.monotonic();
        pop(shape, head, &mut outcome)?;
        let popped = (clock.monotonic() - pushed).as_nanos() as u64;
        outcome.latencies.record(popped);
        parts[part_of(begun, duration)].record(popped);
        outcome.operations += 1;
    }
    outcome.elapsed = clock.monotonic();
    Ok(Shaped {
        outcome,
        details: compare(&parts),
    })
}

fn part_of(begun: Duration, duration: Duration) -> usize {
    let share = begun.as_secs_f64() / duration.as_secs_f64().max(1e-9);
    ((share * PARTS as f64) as usize).min(PARTS - 1)
}

/// Takes the first entry, which must be the one that was pushed as number `head`.
fn pop(shape: &Shape<'_>, head: u64, outcome: &mut Outcome) -> Result<()> {
    let expected = data::key(data::loaded(head));
    let (mut found, mut right) = (None, false);
    shape
        .target
        .scan(None, Direction::Forward, 1, &mut |key, value| {
            right = key == expected && data::is_value_of(key, value);
            found = data::Key::try_from(key).ok();
        })?;
    outcome.wrong += u64::from(found.is_some() && !right);
    outcome.missing += u64::from(found.is_none());
    shape.target.delete(&found.unwrap_or(expected))
}

fn compare(parts: &[Latencies]) -> Vec<(&'static str, f64)> {
    let told = |part: &Latencies, share| part.percentile_ns(share) as f64;
    let begun: Vec<&Latencies> = parts.iter().filter(|part| part.count() > 0).collect();
    let (Some(first), Some(last)) = (begun.first(), begun.last()) else {
        return Vec::new();
    };
    let worst = begun
        .iter()
        .map(|part| told(part, 0.99))
        .fold(0.0, f64::max);
    vec![
        ("first_tenth_p50_ns", told(first, 0.5)),
        ("first_tenth_p99_ns", told(first, 0.99)),
        ("last_tenth_p50_ns", told(last, 0.5)),
        ("last_tenth_p99_ns", told(last, 0.99)),
        ("worst_tenth_p99_ns", worst),
        ("p50_ratio", told(last, 0.5) / told(first, 0.5).max(1.0)),
        ("p99_ratio", told(last, 0.99) / told(first, 0.99).max(1.0)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_slows_down_shows_in_the_ratio() {
        let mut parts: Vec<Latencies> = (0..PARTS).map(|_| Latencies::default()).collect();
        for (i, part) in parts.iter_mut().enumerate() {
            (0..100).for_each(|_| part.record(1000 * (1 + i as u64)));
        }
        let details = compare(&parts);
        let of = |name| details.iter().find(|row| row.0 == name).unwrap().1;
        assert!((9.0..11.0).contains(&of("p50_ratio")) && of("first_tenth_p99_ns") < 1100.0);
        let second = Duration::from_secs(1);
        assert_eq!(part_of(Duration::ZERO, second), 0);
        assert_eq!(part_of(second / 2, second), 5);
        assert_eq!(part_of(second * 2, second), 9);
    }
}
