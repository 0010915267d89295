//! Options of keyspaces, as the manifest records them.
//!
//! What decodes is within the bounds that callers are held to, and comes back the same when encoded.

use std::fmt;

use arbitrary::Arbitrary;
use vault_lsm::fuzzing::{decode_options, encode_options};

use crate::memory;

/// Encoded options.
#[derive(Arbitrary)]
pub struct Input<'a> {
    /// Their bytes.
    pub bytes: &'a [u8],
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = decode_options(self.bytes);
        crate::debug_bytes(
            f,
            self.bytes,
            options.as_ref().map(|o| o as &dyn fmt::Debug),
        )
    }
}

/// Decodes them.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    let Some(options) = memory::bounded(input.bytes.len(), || decode_options(input.bytes)) else {
        return;
    };
    assert!(options.check().is_ok(), "out of bounds: {options:?}");
    assert_eq!(decode_options(&encode_options(&options)), Some(options));
}
