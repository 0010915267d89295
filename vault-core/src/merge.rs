//! Merge operators: updates that need not read what they change.
//!
//! A merge writes an *operand*. Reading a key folds the operands, oldest first, over the value below
//! them; compaction does the same once and for all where nothing needs the parts any more.

use std::fmt;
use std::sync::Arc;

use crate::codec::{Decoder, put_varint};

/// Name of the built-in operator that adds 64-bit integers.
pub const COUNTER: &str = "vault.counter";
/// Name of the built-in operator that appends bytes.
pub const APPEND: &str = "vault.append";

/// Name of the built-in operator that adds up how much there is of something.
pub const TALLY: &str = "vault.tally";

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

/// Adds up how much there is of something: of six numbers five are added, with wrapping around, and of the sixth the greatest
/// stays. An absent value counts as zeros.
///
/// ```
/// use vault_core::merge::{MergeOperator, Tally};
/// let one = Tally::encode([1, 20, -3, 0, 1], 700);
/// let other = Tally::encode([2, 5, 3, 1, 1], 600);
/// let both = Tally.merge(b"books", Some(&one), &[&other]).unwrap();
/// assert_eq!(Tally::decode(&both), Some(([3, 25, 0, 1, 2], 700)));
/// ```
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally;

/// The numbers of a tally that are added.
const SUMS: usize = 5;

impl Tally {
    /// Lays a tally out: each of the sums as a zigzag-coded variable-length integer, then the greatest as a plain one.
    #[must_use]
    pub fn encode(sums: [i64; SUMS], greatest: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        for sum in sums {
            put_varint(&mut out, (sum << 1 ^ sum >> 63) as u64);
        }
        put_varint(&mut out, greatest);
        out
    }

    /// Takes a tally apart; `None` where it is none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<([i64; SUMS], u64)> {
        let mut decoder = Decoder::new(bytes);
        let mut sums = [0; SUMS];
        for sum in &mut sums {
            let coded = decoder.varint()?;
            *sum = (coded >> 1) as i64 ^ -((coded & 1) as i64);
        }
        let greatest = decoder.varint()?;
        decoder.is_empty().then_some((sums, greatest))
    }

    fn read(bytes: &[u8]) -> Result<([i64; SUMS], u64), String> {
        Self::decode(bytes).ok_or_else(|| {
            format!(
                "a tally is six variable-length integers, these {} bytes are not",
                bytes.len()
            )
        })
    }

    fn add(tally: &mut ([i64; SUMS], u64), operand: &[u8]) -> Result<(), String> {
        let (sums, greatest) = Self::read(operand)?;
        for (sum, by) in tally.0.iter_mut().zip(sums) {
            *sum = sum.wrapping_add(by);
        }
        tally.1 = tally.1.max(greatest);
        Ok(())
    }
}

impl MergeOperator for Tally {
    fn name(&self) -> &str {
        TALLY
    }

    fn merge(&self, _: &[u8], base: Option<&[u8]>, operands: &[&[u8]]) -> Result<Vec<u8>, String> {
        let mut tally = base.map_or(Ok(([0; SUMS], 0)), Self::read)?;
        for operand in operands {
            Self::add(&mut tally, operand)?;
        }
        Ok(Self::encode(tally.0, tally.1))
    }

    fn combine(&self, _: &[u8], older: &[u8], newer: &[u8]) -> Option<Vec<u8>> {
        let mut tally = Self::decode(older)?;
        Self::add(&mut tally, newer).ok()?;
        Some(Self::encode(tally.0, tally.1))
    }

    fn check_operand(&self, operand: &[u8]) -> Result<(), String> {
        Self::read(operand).map(drop)
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
    vec![Arc::new(Counter), Arc::new(Tally), Arc::new(Append)]
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
