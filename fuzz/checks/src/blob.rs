//! Whole blob files, and pointers into them.
//!
//! A walk stays within the file and ends; a pointer gives a value or says what is there instead, and never takes more
//! memory than the file is worth; pointers and what manifest and tables keep of blob files come back the same.

use std::fmt;

use arbitrary::Arbitrary;
use vault_core::transform::HEADER_BYTES;
use vault_lsm::fuzzing::{BlobFile, Seals, blob_meta, blob_pointer, blob_uses};

use crate::{assert_blames_the_file, memory};

/// A key whose value is looked for, a pointer to it, and the file: the first two each behind a byte that is their length.
#[derive(Arbitrary)]
pub struct Input<'a> {
    /// All of it.
    pub bytes: &'a [u8],
}

/// An input taken apart.
struct Parts<'a> {
    key: &'a [u8],
    pointer: &'a [u8],
    file: &'a [u8],
}

impl<'a> Input<'a> {
    fn parts(&self) -> Parts<'a> {
        let mut rest = self.bytes;
        let mut part = || {
            let Some((&len, behind)) = rest.split_first() else {
                return &[][..];
            };
            let (part, behind) = behind.split_at(behind.len().min(usize::from(len)));
            rest = behind;
            part
        };
        let (key, pointer) = (part(), part());
        Parts {
            key,
            pointer,
            file: rest,
        }
    }
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.parts();
        let file = BlobFile::new(parts.file, Seals::Mended);
        let value = file.value(parts.key, parts.pointer);
        let described: &dyn fmt::Debug = &(&file, value);
        crate::debug_bytes(f, self.bytes, Some(described))
    }
}

/// Walks over the file and looks the value up, as it is and with its checksums mended.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    let input = input.parts();
    for seals in [Seals::Kept, Seals::Mended] {
        let file = BlobFile::new(input.file, seals);
        let len = input.file.len();
        match memory::bounded(len, || file.walk()) {
            Ok(walk) => {
                assert_eq!(walk.bytes, len as u64);
                let room = len.saturating_sub(HEADER_BYTES) as u64;
                assert!(walk.value_bytes <= room, "{walk:?}");
                assert!(walk.values <= walk.value_bytes, "{walk:?}");
                let whole = walk.problems.is_empty();
                assert!(!whole || walk.value_bytes < room, "a file without an end");
            }
            Err(error) => assert_blames_the_file(&error),
        }
        match memory::bounded(len, || file.value(input.key, input.pointer)) {
            Ok(Some(Err(problem))) => assert!(!problem.is_empty()),
            Ok(_) => {}
            Err(error) => assert_blames_the_file(&error),
        }
    }
    for decode in [blob_meta, blob_uses] {
        if let Some((bytes, read)) = decode(input.pointer) {
            assert!(bytes.len() <= read && read <= input.pointer.len());
            assert_eq!(decode(&bytes), Some((bytes.clone(), bytes.len())));
        }
    }
    if let Some(bytes) = blob_pointer(input.pointer) {
        assert_eq!(blob_pointer(&bytes), Some(bytes.clone()));
    }
}
