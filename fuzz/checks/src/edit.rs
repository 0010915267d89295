//! Edits of the manifest.
//!
//! An edit that decodes has one form, which the writer would lay out too. However edits contradict each
//! other, applying them refuses and never fails otherwise.

use std::fmt;

use arbitrary::Arbitrary;
use vault_lsm::fuzzing::{ManifestEdit, manifest_edit};

use crate::memory;

/// Edits, one behind the other.
#[derive(Arbitrary)]
pub struct Input<'a> {
    /// Their bytes.
    pub bytes: &'a [u8],
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (edits, taken) = decode_all(self.bytes);
        f.debug_list().entries(&edits).finish()?;
        match &self.bytes[taken..] {
            [] => Ok(()),
            rest => write!(f, " refused: {}", vault_core::error::printable(rest)),
        }
    }
}

fn decode_all(bytes: &[u8]) -> (Vec<ManifestEdit>, usize) {
    let (mut edits, mut at) = (Vec::new(), 0);
    while let Some((edit, taken)) = manifest_edit(&bytes[at..]) {
        assert!(
            taken > 0 && taken <= bytes.len() - at,
            "an edit of no bytes, or of others"
        );
        edits.push(edit);
        at += taken;
    }
    (edits, at)
}

/// Decodes and applies them.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    let mut at = 0;
    while let Some((edit, taken)) =
        memory::bounded(input.bytes.len(), || manifest_edit(&input.bytes[at..]))
    {
        let encoded = edit.encode();
        let again = manifest_edit(&encoded).expect("what was encoded decodes");
        assert_eq!(again.1, encoded.len());
        assert_eq!(again.0.encode(), encoded, "{edit:?}");
        at += taken;
    }
    let (edits, _) = decode_all(input.bytes);
    assert!(ManifestEdit::apply_all(&edits) <= edits.len());
}
