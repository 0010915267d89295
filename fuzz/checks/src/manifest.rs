//! Whole manifests.
//!
//! What a manifest adds up to, stated anew as the next opening does, adds up to the same.

use std::fmt;

use arbitrary::Arbitrary;
use vault_lsm::fuzzing::{ManifestFile, ManifestRead, Seals};

use crate::{assert_blames_the_file, memory};

/// A manifest, and what the pointer says of it.
#[derive(Arbitrary)]
pub struct Input<'a> {
    /// Whether a writer may be appending.
    pub live: bool,
    /// How much of it was durable when the pointer was written.
    pub durable: u32,
    /// Its bytes.
    pub bytes: &'a [u8],
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read =
            |seals| ManifestFile::new(self.bytes, u64::from(self.durable), seals).read(self.live);
        f.debug_struct("Manifest")
            .field("live", &self.live)
            .field("durable", &self.durable)
            .field("bytes", &self.bytes.len())
            .field("kept", &read(Seals::Kept))
            .field("mended", &read(Seals::Mended))
            .finish()
    }
}

/// Reads it as it is, and with its checksums mended.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    for seals in [Seals::Kept, Seals::Mended] {
        let file = ManifestFile::new(input.bytes, u64::from(input.durable), seals);
        match memory::bounded(input.bytes.len(), || file.read(input.live)) {
            Ok(read) => {
                let statement = read.statement();
                let again = ManifestRead::of_statement(&statement)
                    .unwrap_or_else(|| panic!("what it adds up to cannot be stated: {read:?}"));
                assert_eq!(again.statement(), statement);
            }
            Err(error) => assert_blames_the_file(&error),
        }
    }
}
