//! Sequences of operations with crashes, faults and clocks that jump, against a model.
//!
//! The bytes become a plan of the simulation (`vault-sim`), which carries it out on a file system in memory and
//! holds every answer, and whatever is left after each end, against its oracle.

use std::fmt;

use arbitrary::Arbitrary;
use vault_core::random::SeededRandom;
use vault_sim::plan::{Plan, Source};
use vault_sim::{run_guarded, run_plan, shrink};

/// A plan. Its `Debug` is the list of its operations, and where it fails the least of them that do.
#[derive(Arbitrary)]
pub struct Input<'a> {
    plan: Plan,
    /// What the plan had no use for.
    _rest: &'a [u8],
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.plan)?;
        let fails = |plan: &Plan| run_guarded(plan, &mut |_| {}).err();
        let Some(failure) = fails(&self.plan) else {
            return Ok(());
        };
        writeln!(f, "\nfails {failure}\n")?;
        let least = shrink(&self.plan, &mut |plan| fails(plan).is_some());
        writeln!(
            f,
            "the least of it that fails:\n{least:?}\nwhat comes of it:"
        )?;
        let mut trace = Vec::new();
        let failure = run_guarded(&least, &mut |line| trace.push(line.to_owned())).err();
        trace.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        failure.map_or(Ok(()), |failure| write!(f, "fails {failure}"))
    }
}

/// Carries the plan out.
///
/// # Panics
/// Where the engine does not do as the model says.
pub fn check(input: &Input<'_>) {
    if let Err(failure) = run_plan(&input.plan) {
        panic!("{failure}");
    }
}

/// Bytes that become a plan of about so many choices, each the roll of a die.
#[must_use]
pub fn seed(number: u64, bytes: usize) -> Vec<u8> {
    let mut recorder = Recorder {
        dice: SeededRandom::new(number),
        bytes: Vec::new(),
        enough: bytes,
    };
    let _ = Plan::choose(&mut recorder, 0, OPERATIONS_MAX);
    recorder.bytes
}

/// As many as a plan from bytes can have.
const OPERATIONS_MAX: usize = 200;

/// Rolls dice, and notes the bytes from which the same choices would be made.
struct Recorder {
    dice: SeededRandom,
    bytes: Vec<u8>,
    enough: usize,
}

impl Source for Recorder {
    fn below(&mut self, bound: u64) -> u64 {
        if bound < 2 {
            return 0;
        }
        let choice = self.dice.below(bound);
        // As many bytes as the greatest choice has, the highest first.
        let len = (u64::BITS - (bound - 1).leading_zeros()).div_ceil(8) as usize;
        self.bytes
            .extend_from_slice(&choice.to_be_bytes()[8 - len..]);
        choice
    }

    fn is_exhausted(&self) -> bool {
        self.bytes.len() >= self.enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arbitrary::Unstructured;

    /// Seeds are worth something only if they are the plans that they were made for.
    #[test]
    fn a_seed_becomes_the_plan_that_was_rolled() {
        for number in 0..20 {
            let mut recorder = Recorder {
                dice: SeededRandom::new(number),
                bytes: Vec::new(),
                enough: 700,
            };
            let rolled = Plan::choose(&mut recorder, 0, OPERATIONS_MAX);
            let read = Plan::arbitrary(&mut Unstructured::new(&recorder.bytes)).expect("a plan");
            assert_eq!(read.settings, rolled.settings);
            assert_eq!(read.keyspaces, rolled.keyspaces);
            let whole = rolled.operations.len().min(read.operations.len());
            assert!(whole + 1 >= rolled.operations.len());
            assert_eq!(read.operations[..whole], rolled.operations[..whole]);
        }
    }
}
