//! Merge operators: updates that need not read what they change.
//!
//! A merge writes an *operand*. Reading a key folds the operands, oldest first, over the value below
//! them; compaction does the same once and for all where nothing needs the parts any more.

use std::fmt;
use std::sync::Arc;

/// Name of the built-in operator that adds 64-bit integers.
pub const COUNTER: &str = "vault.counter";
/// Name of the built-in operator that appends bytes.
pub const APPEND: &str = "vault.append";

/// Folds operands over a value. Implementations must be pure: the same input gives the same output
/// in every process that ever opens the store.
pub trait MergeOperator: Send + Sync + fmt::Debug {
    /// The name recorded in the store. Opening a keyspace that was written with an operator of
    /// another name is refused.
    fn name(&self) -> &str;

    /// Folds `operands`, oldest first, over `base` (`None` where there is no value below).
    ///
    /// # Errors
    /// What is wrong with the operands, in words: becomes [`crate::Error::MergeFailed`].
    fn merge(&self, key: &[u8], base: Option<&[u8]>, operands: &[&[u8]])
    -> Result<Vec<u8>, String>;

    /// Combines two neighbouring operands into one with the same effect, or `None` where that is not
    /// possible without the base. Lets compaction fold long chains early.
    fn combine(&self, _key: &[u8], _older: &[u8], _newer: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// Checks an operand before it is written, so that a bad one is refused with nothing written.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    fn check_operand(&self, _operand: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

/// Adds signed 64-bit little-endian integers; an absent value counts as 0; overflow wraps around.
///
/// ```
/// use vault_core::merge::{Counter, MergeOperator};
/// let (two, minus_five) = (2_i64.to_le_bytes(), (-5_i64).to_le_bytes());
/// let sum = Counter.merge(b"hits", Some(&two), &[&two, &minus_five]).unwrap();
/// assert_eq!(sum, (-1_i64).to_le_bytes());
/// ```
#[derive(Debug, Default, Clone, Copy)]
pub struct Counter;

impl Counter {
    fn number(bytes: &[u8]) -> Result<i64, String> {
        <[u8; 8]>::try_from(bytes)
            .map(i64::from_le_bytes)
            .map_err(|_| format!("a counter is 8 bytes long, this is {} bytes", bytes.len()))
    }
}

impl MergeOperator for Counter {
    fn name(&self) -> &str {
        COUNTER
    }

    fn merge(&self, _: &[u8], base: Option<&[u8]>, operands: &[&[u8]]) -> Result<Vec<u8>, String> {
        let mut sum = base.map_or(Ok(0), Self::number)?;
        for operand in operands {
            sum = sum.wrapping_add(Self::number(operand)?);
        }
        Ok(sum.to_le_bytes().to_vec())
    }

    fn combine(&self, _: &[u8], older: &[u8], newer: &[u8]) -> Option<Vec<u8>> {
        let sum = Self::number(older)
            .ok()?
            .wrapping_add(Self::number(newer).ok()?);
        Some(sum.to_le_bytes().to_vec())
    }

    fn check_operand(&self, operand: &[u8]) -> Result<(), String> {
        Self::number(operand).map(drop)
    }
}

/// Appends each operand to the value; an absent value counts as empty.
#[derive(Debug, Default, Clone, Copy)]
pub struct Append;

impl MergeOperator for Append {
    fn name(&self) -> &str {
        APPEND
    }

    fn merge(&self, _: &[u8], base: Option<&[u8]>, operands: &[&[u8]]) -> Result<Vec<u8>, String> {
        let parts: Vec<&[u8]> = base.into_iter().chain(operands.iter().copied()).collect();
        Ok(parts.concat())
    }

    fn combine(&self, _: &[u8], older: &[u8], newer: &[u8]) -> Option<Vec<u8>> {
        Some([older, newer].concat())
    }
}

/// The operators that every engine knows without being told.
#[must_use]
pub fn built_in() -> Vec<Arc<dyn MergeOperator>> {
    vec![Arc::new(Counter), Arc::new(Append)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counter_wraps_and_refuses_other_lengths() {
        let max = i64::MAX.to_le_bytes();
        let one = 1_i64.to_le_bytes();
        assert_eq!(
            Counter.merge(b"", Some(&max), &[&one]).unwrap(),
            i64::MIN.to_le_bytes()
        );
        assert!(Counter.check_operand(b"1234567").is_err());
        assert!(Counter.merge(b"", Some(b"x"), &[&one]).is_err());
    }

    #[test]
    fn combining_operands_first_changes_nothing() {
        let parts: [&[u8]; 3] = [b"a", b"", b"bc"];
        let whole = Append.merge(b"", Some(b"0"), &parts).unwrap();
        let pair = Append.combine(b"", parts[0], parts[1]).unwrap();
        assert_eq!(
            Append.merge(b"", Some(b"0"), &[&pair, parts[2]]).unwrap(),
            whole
        );
        assert_eq!(whole, b"0abc");
    }
}
