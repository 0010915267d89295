//! Where the choices that plans are made of come from: a seed, or a fuzzer.

use vault_core::random::SeededRandom;

/// Where choices come from.
pub trait Source {
    /// A number below the bound; 0 where the bound is 0 or 1.
    fn below(&mut self, bound: u64) -> u64;

    /// Whether there are no more choices to be had: what is being made comes to an end.
    fn is_exhausted(&self) -> bool {
        false
    }
}

/// Choices that follow from a seed.
#[derive(Debug)]
pub struct Dice(SeededRandom);

impl Dice {
    /// Starts from a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(SeededRandom::new(seed))
    }
}

impl Source for Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }
}

#[cfg(feature = "arbitrary")]
mod arbitrary_input {
    use arbitrary::{Arbitrary, Result, Unstructured};

    use super::Source;
    use crate::plan::{Operation, Plan};

    /// Operations of a plan that a fuzzer makes.
    const OPERATIONS_MAX: usize = 200;

    /// A fuzzer's bytes as choices.
    struct Bytes<'a, 'b>(&'a mut Unstructured<'b>);

    impl Source for Bytes<'_, '_> {
        fn below(&mut self, bound: u64) -> u64 {
            if bound < 2 {
                return 0;
            }
            self.0.int_in_range(0..=bound - 1).unwrap_or(0)
        }

        fn is_exhausted(&self) -> bool {
            self.0.is_empty()
        }
    }

    impl<'a> Arbitrary<'a> for Plan {
        fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
            Ok(Self::choose(&mut Bytes(u), 0, OPERATIONS_MAX))
        }
    }

    impl<'a> Arbitrary<'a> for Operation {
        fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
            Ok(Plan::choose_operation(&mut Bytes(u)))
        }
    }
}

#[cfg(all(test, feature = "arbitrary"))]
mod tests {
    use arbitrary::{Arbitrary, Unstructured};
    use vault_core::random::{Random, SeededRandom};

    use crate::plan::Plan;

    #[test]
    fn any_bytes_make_a_plan_that_can_be_carried_out() {
        for (seed, len) in [(1, 0), (2, 1), (3, 100), (4, 2_000), (5, 20_000)] {
            let mut bytes = vec![0; len];
            SeededRandom::new(seed).fill(&mut bytes).unwrap();
            let plan = Plan::arbitrary(&mut Unstructured::new(&bytes)).unwrap();
            assert_eq!(plan.operations.is_empty(), len < 2, "{plan:?}");
            assert!(plan.operations.len() <= 200);
            crate::run_plan(&plan).unwrap_or_else(|failure| panic!("{plan:?}{failure}"));
        }
    }
}
