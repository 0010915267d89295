//! `CURRENT`: the pointer to the manifest.
//!
//! What it says, written anew and read again, says the same.

use std::fmt;

use arbitrary::Arbitrary;
use vault_lsm::fuzzing::{PointerFile, Seals};

use crate::{assert_blames_the_file, memory};

/// The file.
#[derive(Arbitrary)]
pub struct Input<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = PointerFile::new(self.bytes, Seals::Mended).read();
        crate::debug_bytes(f, self.bytes, Some(&read))
    }
}

/// Reads it as it is, and with its checksums mended.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    for seals in [Seals::Kept, Seals::Mended] {
        let file = PointerFile::new(input.bytes, seals);
        match memory::bounded(input.bytes.len(), || file.read()) {
            Ok(read) => {
                let read = read.expect("the file is there");
                let written = file
                    .write(&read)
                    .expect("nothing keeps it from being written");
                let again = PointerFile::new(&written, seals).read();
                assert_eq!(again.ok().flatten(), Some(read));
            }
            Err(error) => assert_blames_the_file(&error),
        }
    }
}
