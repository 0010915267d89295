//! Deletes, writes and reads of random keys: half of the operations delete.

use super::states::States;
use super::{Shape, Shaped};
use crate::data::{self, below, mix, random_at};
use crate::drive::drive;
use crate::error::Result;
use crate::target::Direction;

const GONE: u64 = 0;
const THERE: u64 = 1;

/// Runs the mix on a loaded store, then looks, unmeasured, whether just those keys are there that should be.
pub(super) fn run(shape: &Shape<'_>) -> Result<Shaped> {
    let n = shape.settings.n;
    let states = States::new(n, THERE);
    let stream = mix(shape.settings.seed ^ mix(shape.workload as u64));
    let how = shape.how(
        shape.workload.name(),
        shape.workload.operations(shape.settings),
    );
    let mut outcome = drive(&how, |hands, i| {
        let bits = random_at(stream, i);
        let (index, state) = states.claim(below(bits, n));
        let number = data::loaded(index);
        let mut left = state;
        // The low bits choose what is done, the high ones the key.
        match bits % 4 {
            0 | 1 => {
                shape.target.delete(&data::key(number))?;
                left = GONE;
            }
            2 => {
                hands.entry.fill(number, shape.generation);
                shape
                    .target
                    .put(&hands.entry.key, &hands.entry.value, false)?;
                left = THERE;
            }
            _ if state == THERE => hands.get_present(shape.target, number)?,
            _ => hands.get_absent(shape.target, number)?,
        }
        states.release(index, left);
        Ok(1)
    })?;
    let mut expected = (0..)
        .zip(states.words())
        .filter(|&(_, state)| state == THERE);
    let mut seen: u64 = 0;
    shape
        .target
        .scan(None, Direction::Forward, u64::MAX, &mut |key, value| {
            let right = expected
                .next()
                .is_some_and(|(index, _)| data::key(data::loaded(index)) == key);
            outcome.wrong += u64::from(!right || !data::is_value_of(key, value));
            seen += 1;
        })?;
    outcome.missing += expected.count() as u64;
    Ok(Shaped {
        outcome,
        details: vec![("entries_left", seen as f64)],
    })
}
