//! The merge operators that every store knows. Operands and values come out of logs and tables, so they can
//! be anything.
//!
//! Folding gives the same however neighbouring operands were combined before, or fails either way; what
//! `check_operand` accepts never fails; appending loses nothing.

use arbitrary::Arbitrary;
use vault_core::merge::built_in;

use crate::memory;

/// A value and what is merged into it.
#[derive(Debug, Arbitrary)]
pub struct Input<'a> {
    /// The value below, if there is one.
    pub base: Option<&'a [u8]>,
    /// Operands, oldest first.
    pub operands: Vec<&'a [u8]>,
}

/// Folds in one go, and after combining neighbours.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    let parts = input.base.into_iter().chain(input.operands.iter().copied());
    let bytes: usize = parts
        .clone()
        .map(|part| part.len() + size_of::<&[u8]>())
        .sum();
    for operator in built_in() {
        let merge = |operands: &[&[u8]]| operator.merge(b"key", input.base, operands);
        let whole = memory::bounded(bytes, || merge(&input.operands));
        if parts
            .clone()
            .all(|part| operator.check_operand(part).is_ok())
        {
            assert!(
                whole.is_ok(),
                "{}: checked operands fail: {whole:?}",
                operator.name()
            );
        }
        for at in 1..input.operands.len() {
            let (older, newer) = (input.operands[at - 1], input.operands[at]);
            let Some(combined) = operator.combine(b"key", older, newer) else {
                continue;
            };
            let mut operands = input.operands.clone();
            operands.splice(at - 1..=at, [&combined[..]]);
            assert_eq!(merge(&operands), whole, "{} at {at}", operator.name());
        }
    }
}
