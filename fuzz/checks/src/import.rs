//! Texts that a vault is imported from.
//!
//! Whatever is read can be read again as it is stored; what is refused says on which line, and why.

use std::fmt;

use arbitrary::Arbitrary;
use vault_db::{Error, fuzzing};

use crate::memory;

/// Longest value that is taken in, in bytes.
const VALUE_BYTES_MAX: usize = 1 << 10;

/// A text.
#[derive(Arbitrary)]
pub struct Input<'a> {
    /// Its bytes.
    pub text: &'a [u8],
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = fuzzing::text(self.text, VALUE_BYTES_MAX);
        write!(f, "{} is {read:?}", String::from_utf8_lossy(self.text))
    }
}

/// Reads it.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    match memory::bounded(input.text.len() * 4, || {
        fuzzing::text(input.text, VALUE_BYTES_MAX)
    }) {
        Ok(entries) => {
            for (key, stored) in entries {
                assert!(
                    fuzzing::key(&key).is_some(),
                    "a key that cannot be read again"
                );
                assert!(
                    fuzzing::stored(&stored).is_some(),
                    "a value that cannot be read again"
                );
            }
        }
        Err(Error::Import { line, problem }) => assert!(line > 0 && !problem.is_empty()),
        Err(Error::NewerExport { found }) => assert!(!found.is_empty()),
        Err(other) => panic!("an error of another kind: {other}"),
    }
}
