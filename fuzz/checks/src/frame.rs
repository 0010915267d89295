//! Frames around records, and the search for them behind bytes that are none.
//!
//! The walk stays within the file and takes each byte once; what is found behind damage lies behind it.

use std::fmt;

use arbitrary::Arbitrary;
use vault_core::transform::HEADER_BYTES;
use vault_lsm::fuzzing::{Chained, Seals, Walked, walk};

use crate::memory;

/// A file of records.
#[derive(Arbitrary)]
pub struct Input<'a> {
    /// Whether the records begin with the checksum of the one before.
    pub chained: bool,
    /// Its bytes, with a header.
    pub bytes: &'a [u8],
}

impl Input<'_> {
    fn ready(&self, seals: Seals) -> Vec<u8> {
        let chained = if self.chained {
            Chained::Yes
        } else {
            Chained::No
        };
        seals.prepare(self.bytes, Some(chained))
    }
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let walked = walk(&mut self.ready(Seals::Mended), Seals::Mended);
        crate::debug_bytes(f, self.bytes, Some(&walked))
    }
}

/// Walks over it as it is, and with its checksums mended.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    let kept = walked(input, Seals::Kept);
    let mended = walked(input, Seals::Mended);
    assert!(
        kept.records <= mended.records,
        "mending lost a record: {kept:?}, {mended:?}"
    );
}

fn walked(input: &Input<'_>, seals: Seals) -> Walked {
    let mut bytes = input.ready(seals);
    let len = bytes.len();
    let walked = memory::bounded(len, || walk(&mut bytes, seals));
    assert!(walked.end >= HEADER_BYTES && walked.end <= len.max(HEADER_BYTES));
    assert!(walked.payload_bytes <= (walked.end - HEADER_BYTES) as u64);
    assert_eq!(walked.behind.is_some(), walked.records_behind > 0);
    if let Some(behind) = walked.behind {
        assert!(walked.broken && behind > walked.end && behind < len);
    }
    walked
}
