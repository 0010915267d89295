//! The header that every file begins with.
//!
//! A header that decodes is the very bytes that encoding it gives, and no other kind of file takes it.

use std::fmt;
use std::path::Path;

use arbitrary::Arbitrary;
use vault_core::Result;
use vault_core::transform::{ChecksumTransform, FileHeader, FileKind, HEADER_BYTES};

use crate::{assert_blames_the_file, memory};

/// A file of which only the header counts.
#[derive(Arbitrary)]
pub struct Input<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mended = mended(self.bytes);
        let found = KINDS.iter().find_map(|&kind| decode(&mended, kind).ok());
        let found = found.as_ref().map(|header| header as &dyn fmt::Debug);
        crate::debug_bytes(f, self.bytes, found)
    }
}

const KINDS: [FileKind; 7] = [
    FileKind::Log,
    FileKind::Table,
    FileKind::Manifest,
    FileKind::Pointer,
    FileKind::Blob,
    FileKind::Archive,
    FileKind::Keyring,
];
const VERSION_MAX: u16 = 1;

/// Decodes as every kind of file, as it is and with its checksum mended.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    for bytes in [input.bytes.to_vec(), mended(input.bytes)] {
        let mut accepted = 0;
        for kind in KINDS {
            match memory::bounded(bytes.len(), || decode(&bytes, kind)) {
                Ok(header) => {
                    accepted += 1;
                    assert_eq!(header.encode(), bytes[..HEADER_BYTES], "another form");
                    assert_eq!(header.identity.kind, kind);
                    assert!((1..=VERSION_MAX).contains(&header.version));
                    let opened = header.open(Path::new("file"), &ChecksumTransform);
                    assert_eq!(opened.is_ok(), header.transform == ChecksumTransform::ID);
                }
                Err(error) => assert_blames_the_file(&error),
            }
        }
        assert!(accepted <= 1, "a header of two kinds");
    }
}

fn decode(bytes: &[u8], kind: FileKind) -> Result<FileHeader> {
    FileHeader::decode(Path::new("file"), bytes, kind, VERSION_MAX)
}

fn mended(bytes: &[u8]) -> Vec<u8> {
    let mut mended = bytes.to_vec();
    vault_lsm::fuzzing::mend_header(&mut mended);
    mended
}
