//! A snapshot that is held while a quarter of the keys is overwritten several times.
//!
//! It should cost what it pins: about a quarter of the store, however often the keys are overwritten. What is told is what
//! the directory has before, while it is held, and how long it takes until that space is back once it is released. Nobody
//! asks for a compaction then.

use std::time::Duration;

use super::{Shape, Shaped, once};
use crate::data;
use crate::drive::{Drive, drive};
use crate::error::Result;

/// One in so many keys is overwritten.
const SHARE: u64 = 4;
/// How often.
pub(crate) const TIMES: u64 = 3;
/// Old values that are read through the snapshot.
const CHECKS: u64 = 1000;
/// The space counts as given back when the store has at most so many percent of its bytes before.
const BACK_PERCENT: u64 = 110;

/// Runs on a store that is loaded and settled.
pub(super) fn run(shape: &Shape<'_>) -> Result<Shaped> {
    let before = shape.disk_bytes()?;
    let keys = (shape.settings.n / SHARE).max(1);
    let overwritten = shape.shuffled(shape.settings.n, 0);
    let checked = (0..CHECKS.min(keys)).map(|i| data::key(data::loaded(overwritten.at(i))));
    let mut old: Vec<(data::Key, Vec<u8>)> = Vec::new();
    let (mut held, mut wrong, mut missing) = (0, 0, 0);
    for key in checked {
        let found = shape
            .target
            .get(&key, &mut |value| old.push((key, value.to_vec())))?;
        missing += u64::from(!found);
    }
    shape.target.while_held(&mut |snapshot| {
        for time in 0..TIMES {
            let order = shape.shuffled(keys, 1 + time);
            drive(&unlimited(shape, keys), |hands, i| {
                let number = data::loaded(overwritten.at(order.at(i)));
                hands.entry.fill(number, shape.generation + time);
                shape
                    .target
                    .put(&hands.entry.key, &hands.entry.value, false)?;
                Ok(1)
            })?;
        }
        shape.target.settle()?;
        held = shape.disk_bytes()?;
        for (key, expected) in &old {
            let mut right = false;
            let found = snapshot.get(key, &mut |value| right = value == expected)?;
            missing += u64::from(!found);
            wrong += u64::from(found && !right);
        }
        Ok(())
    })?;
    let goal = before * BACK_PERCENT / 100;
    let (waited, after) = shape.wait_for_space(goal)?;
    let mut outcome = once(waited);
    (outcome.wrong, outcome.missing) = (wrong, missing);
    let percent = |bytes: u64| 100.0 * bytes as f64 / before.max(1) as f64;
    Ok(Shaped {
        outcome,
        details: vec![
            ("bytes_before", before as f64),
            ("held_percent", percent(held)),
            ("released_percent", percent(after)),
        ],
    })
}

fn unlimited<'a>(shape: &Shape<'a>, operations: u64) -> Drive<'a> {
    let mut how = shape.how("overwrite", operations);
    how.duration_max = Duration::ZERO;
    how
}
