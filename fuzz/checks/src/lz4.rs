//! Compressed data blocks, read out of a file with the plain length that an index claims.
//!
//! Whatever is claimed, no more is taken than the claim may be, and what decompresses to another length is
//! refused.

use std::fmt;

use arbitrary::Arbitrary;
use vault_lsm::fuzzing::Lz4Block;

use crate::{assert_blames_the_file, block, memory};

/// A stored block and its claim.
#[derive(Arbitrary)]
pub struct Input<'a> {
    /// The length that the block is said to decompress to.
    pub plain_len: u32,
    /// What is stored.
    pub stored: &'a [u8],
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stored, plain) = (self.stored.len(), self.plain_len);
        write!(f, "{stored} bytes stored, {plain} claimed: ")?;
        match Lz4Block::new(self.stored, self.plain_len) {
            Some(block) => write!(f, "{:#?}", block.read()),
            None => write!(f, "refused by the index"),
        }
    }
}

/// Reads it.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    let Some(file) = Lz4Block::new(input.stored, input.plain_len) else {
        return;
    };
    match memory::bounded(input.stored.len(), || file.read()) {
        Ok(block) => {
            let plain = lz4_flex::block::decompress(input.stored, input.plain_len as usize)
                .expect("what the engine decompresses, anybody does");
            assert_eq!(plain.len(), input.plain_len as usize);
            block::check_block(&block, plain.len(), u64::MAX);
        }
        Err(error) => assert_blames_the_file(&error),
    }
}
