//! Properties of tables, which the manifest keeps too.
//!
//! What decodes agrees with itself, has one form, and takes as many bytes as that.

use std::fmt;

use arbitrary::Arbitrary;
use vault_lsm::fuzzing::PropertiesBlock;

use crate::memory;

/// A properties block.
#[derive(Arbitrary)]
pub struct Input<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decoded = PropertiesBlock::decode(self.bytes);
        crate::debug_bytes(
            f,
            self.bytes,
            decoded.as_ref().map(|d| d as &dyn fmt::Debug),
        )
    }
}

/// Decodes it.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    let decoded = memory::bounded(input.bytes.len(), || PropertiesBlock::decode(input.bytes));
    let Some((properties, taken)) = decoded else {
        return;
    };
    let (smallest, largest) = properties.bounds();
    assert!(smallest <= largest);
    let (first, last) = properties.sequences();
    assert!(first <= last && last < 1 << 56);
    let encoded = properties.encode();
    assert!(encoded.len() <= taken, "a longer form than was decoded");
    assert_eq!(
        PropertiesBlock::decode(&encoded),
        Some((properties, encoded.len()))
    );
}
