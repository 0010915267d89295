//! A store that is filled, then loses everything: by single deletes, by a range delete, or because all of it expires.
//!
//! Nobody asks for a compaction or a flush. What is told is how long it takes until the directory has less than a twentieth
//! of its bytes (at most `--shrink-wait`), and what is left then.

use std::time::Duration;

use vault_core::clock::{Clock, SystemClock};

use super::{Shape, Shaped, once};
use crate::data;
use crate::drive::drive;
use crate::error::Result;
use crate::workload::Workload;

/// So many percent of the bytes may be left.
const LEFT_PERCENT: u64 = 5;
/// A fill of expiring entries is done in time at this many a second.
const FILL_RATE_MIN: u64 = 100_000;
/// The shortest life of entries: a machine that is busy with other things may take that long to fill a few.
const LIFE_MIN: Duration = Duration::from_secs(3);
/// Time on top of that for settling.
const SETTLE_TIME: Duration = Duration::from_secs(5);

/// Fills the empty store, empties it, and waits.
pub(super) fn run(shape: &Shape<'_>) -> Result<Shaped> {
    let clock = SystemClock::new();
    let n = shape.settings.n;
    let expiry_in = expiry_in(shape);
    let expiry = clock
        .now()
        .after(expiry_in)
        .map_err(|e| crate::Error::engine("this benchmark", &e))?;
    if shape.workload == Workload::DrainExpiry {
        drive(&unlimited(shape, "load"), |hands, i| {
            hands
                .entry
                .fill(data::loaded(shape.order.at(i)), shape.generation);
            shape
                .target
                .put_until(&hands.entry.key, &hands.entry.value, expiry)?;
            Ok(1)
        })?;
    } else {
        shape.load(0, n)?;
    }
    let filled = shape.disk_bytes()?;
    shape.target.settle()?;
    let before = shape.disk_bytes()?.max(filled);
    let begun = clock.monotonic();
    match shape.workload {
        Workload::DrainExpiry => clock.sleep(expiry_in.saturating_sub(clock.monotonic())),
        Workload::DrainRange => {
            shape
                .target
                .delete_range(&data::key(0), &data::key(data::loaded(n)))?;
        }
        _ => {
            drive(&unlimited(shape, "delete"), |_, i| {
                let number = data::loaded(shape.order.at(i));
                shape.target.delete(&data::key(number))?;
                Ok(1)
            })?;
        }
    }
    let emptied_in = clock.monotonic() - begun;
    let (waited, after) = shape.wait_for_space(before * LEFT_PERCENT / 100)?;
    let mut outcome = once(waited);
    outcome.wrong = shape.count_entries()?;
    Ok(Shaped {
        outcome,
        details: vec![
            ("bytes_before", before as f64),
            ("bytes_after", after as f64),
            ("left_percent", 100.0 * after as f64 / before.max(1) as f64),
            ("emptied_in_seconds", emptied_in.as_secs_f64()),
        ],
    })
}

/// How long entries live that are all to expire at once: as long as a slow fill takes.
fn expiry_in(shape: &Shape<'_>) -> Duration {
    if shape.settings.timed_ms > 0 {
        return shape.settings.timed(0).max(LIFE_MIN);
    }
    SETTLE_TIME + Duration::from_secs(shape.settings.n / FILL_RATE_MIN)
}

fn unlimited<'a>(shape: &Shape<'a>, title: &'a str) -> crate::drive::Drive<'a> {
    let mut how = shape.how(title, shape.settings.n);
    how.duration_max = Duration::ZERO;
    how
}
