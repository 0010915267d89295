//! Top-level index blocks: the fences between partitions, and what each consists of.
//!
//! Partitions lie back to back from the header to the place where the footer says that they end.

use std::fmt;

use arbitrary::Arbitrary;
use vault_core::transform::HEADER_BYTES;
use vault_lsm::fuzzing::TopIndexBlock;

use crate::{index, memory};

/// A top-level index, and what the footer says of it.
#[derive(Arbitrary)]
pub struct Input<'a> {
    /// The trailer that is looked for.
    pub trailer: u64,
    /// Where the partitions end in the file.
    pub end: u64,
    /// The block.
    pub bytes: &'a [u8],
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partitions end at {}; ", self.end)?;
        let top = TopIndexBlock::decode(self.bytes, self.end);
        crate::debug_bytes(f, self.bytes, top.as_ref().map(|t| t as &dyn fmt::Debug))
    }
}

/// Decodes and searches it.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    let Some(top) = memory::bounded(input.bytes.len(), || {
        TopIndexBlock::decode(input.bytes, input.end)
    }) else {
        return;
    };
    let mut end = HEADER_BYTES as u64;
    for partition in 0..top.partitions() {
        let (offset, index, behind) = top.place(partition);
        assert_eq!(offset, end, "partitions lie back to back");
        assert!(offset < index && index < behind);
        end = behind;
    }
    assert_eq!(end, input.end);
    let fences: Vec<_> = (1..top.partitions())
        .map(|number| top.fence(number - 1))
        .collect();
    index::check_fences(&fences, input.trailer, |key, trailer| {
        top.find(key, trailer)
    });
    let encoded = top.encode();
    let again = TopIndexBlock::decode(&encoded, input.end).expect("what was encoded decodes");
    assert_eq!(again.encode(), encoded);
}
