//! Footers of tables: one form, and no other.

use std::fmt;

use arbitrary::Arbitrary;
use vault_lsm::fuzzing::FooterBlock;

use crate::memory;

/// A footer.
#[derive(Arbitrary)]
pub struct Input<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decoded = FooterBlock::decode(self.bytes);
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
    if let Some(footer) = memory::bounded(input.bytes.len(), || FooterBlock::decode(input.bytes)) {
        assert_eq!(footer.encode(), input.bytes, "another form");
    }
}
