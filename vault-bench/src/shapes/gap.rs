//! Half of the keys deleted, side by side in the middle, and reads that have to get across.

use std::ops::Range;
use std::time::Duration;

use vault_core::clock::{Clock, SystemClock};

use super::{Shape, Shaped, once};
use crate::data::{self, below, mix, random_at};
use crate::drive::{Hands, drive};
use crate::error::Result;
use crate::target::Direction;
use crate::workload::Workload;

/// Longest time that seeks are repeated for: an engine that steps over each deleted key takes a good part of a second for one.
const SEEK_TIME_MAX: Duration = Duration::from_secs(10);
/// Entries that are read behind the gap.
const SEEK_ENTRIES: u64 = 10;

/// The loaded entries that are deleted, of `n`.
#[must_use]
pub fn deleted(n: u64) -> Range<u64> {
    let begin = n / 4;
    begin..begin + (n / 2).max(1)
}

/// Deletes them: one by one in ascending order, or by one range delete.
pub(super) fn delete(shape: &Shape<'_>) -> Result<Shaped> {
    let gap = deleted(shape.settings.n);
    if shape.workload == Workload::DeleteHalfRange {
        let clock = SystemClock::new();
        let (from, to) = (
            data::key(data::loaded(gap.start)),
            data::key(data::loaded(gap.end)),
        );
        shape.target.delete_range(&from, &to)?;
        return Ok(Shaped {
            outcome: once(clock.monotonic()),
            details: Vec::new(),
        });
    }
    let mut how = shape.how(shape.workload.name(), gap.end - gap.start);
    // Half a gap is none: what follows counts on all of it.
    how.duration_max = Duration::ZERO;
    let outcome = drive(&how, |_, i| {
        shape
            .target
            .delete(&data::key(data::loaded(gap.start + i)))?;
        Ok(1)
    })?;
    Ok(Shaped {
        outcome,
        details: Vec::new(),
    })
}

/// Reads every entry that is left, and sees to it that there is no other.
pub(super) fn scan(shape: &Shape<'_>) -> Result<Shaped> {
    let n = shape.settings.n;
    let gap = deleted(n);
    let left = n - (gap.end - gap.start);
    let outcome = drive(&shape.how(shape.workload.name(), 1), |hands, _| {
        let seen = hands.scan(shape.target, None, Direction::Forward, u64::MAX, left)?;
        hands.wrong += seen.saturating_sub(left);
        // Also where nothing is left: an operation was done.
        Ok(seen.max(1))
    })?;
    Ok(Shaped {
        outcome,
        details: Vec::new(),
    })
}

/// Seeks to random keys of the gap. The entries behind it must follow, one after the other.
pub(super) fn seek(shape: &Shape<'_>) -> Result<Shaped> {
    let n = shape.settings.n;
    let gap = deleted(n);
    let stream = mix(shape.settings.seed ^ mix(Workload::GapSeek as u64));
    let mut how = shape.how(
        shape.workload.name(),
        shape.workload.operations(shape.settings),
    );
    if how.duration_max.is_zero() || how.duration_max > SEEK_TIME_MAX {
        how.duration_max = SEEK_TIME_MAX;
    }
    let outcome = drive(&how, |hands, i| {
        let from = gap.start + below(random_at(stream, i), gap.end - gap.start);
        read_behind(shape, hands, from, gap.end)?;
        Ok(1)
    })?;
    Ok(Shaped {
        outcome,
        details: Vec::new(),
    })
}

fn read_behind(shape: &Shape<'_>, hands: &mut Hands, from: u64, gap_end: u64) -> Result<()> {
    let expected = SEEK_ENTRIES.min(shape.settings.n - gap_end);
    let (mut seen, mut wrong) = (0, 0);
    let from = data::key(data::loaded(from));
    shape.target.scan(
        Some(&from),
        Direction::Forward,
        SEEK_ENTRIES,
        &mut |key, value| {
            let right = data::key(data::loaded(gap_end + seen)) == key
                && value.len() == shape.settings.value_bytes
                && data::is_value_of(key, value);
            wrong += u64::from(!right);
            seen += 1;
        },
    )?;
    hands.wrong += wrong + seen.saturating_sub(expected);
    hands.missing += expected.saturating_sub(seen);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_entries_are_deleted_and_some_stay_on_both_sides() {
        for n in [1, 2, 3, 4, 100, 5_000_000] {
            let gap = deleted(n);
            assert!(gap.start < gap.end && gap.end <= n, "{n}");
            assert!(n < 4 || (gap.start > 0 && gap.end < n && gap.end - gap.start == n / 2));
        }
    }
}
