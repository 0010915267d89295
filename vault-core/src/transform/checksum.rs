//! The transform of stores without keys.

use std::sync::Arc;

use super::{
    BlockIdentity, BlockTransform, FileHeader, FileIdentity, SALT_BYTES, Transform, Unopened,
};
use crate::error::Result;

/// The transform of plain stores: a CRC-32 behind each block, seeded with the block's context.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChecksumTransform;

impl ChecksumTransform {
    /// The id of this transform in a file's header.
    pub const ID: u16 = 0;
}

impl Transform for ChecksumTransform {
    fn id(&self) -> u16 {
        Self::ID
    }

    fn create(&self, header: &mut FileHeader) -> Result<Arc<dyn BlockTransform>> {
        self.open(header)
    }

    fn open(&self, header: &FileHeader) -> Result<Arc<dyn BlockTransform>> {
        Ok(Arc::new(Checksum::new(&header.identity, &header.salt)))
    }
}

/// Checksums of one file.
#[derive(Debug)]
struct Checksum {
    seed: u32,
}

const CHECKSUM_BYTES: usize = 4;
/// 72 ns where it was measured.
const QUICK_BYTES: usize = 4096;

impl Checksum {
    fn new(file: &FileIdentity, salt: &[u8; SALT_BYTES]) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&file.store);
        hasher.update(&[file.kind as u8]);
        hasher.update(&file.number.to_le_bytes());
        hasher.update(&file.domain.to_le_bytes());
        hasher.update(salt);
        Self {
            seed: hasher.finalize(),
        }
    }

    fn of(&self, block: &BlockIdentity, content: &[u8]) -> u32 {
        let mut context = [0; 18];
        context[..8].copy_from_slice(&block.ordinal.to_le_bytes());
        context[8] = block.block_type;
        context[9] = block.codec;
        context[10..].copy_from_slice(&(content.len() as u64).to_le_bytes());
        let mut hasher = crc32fast::Hasher::new_with_initial(self.seed);
        hasher.update(&context);
        hasher.update(content);
        hasher.finalize()
    }
}

impl BlockTransform for Checksum {
    fn quick_bytes(&self) -> usize {
        QUICK_BYTES
    }

    fn overhead(&self) -> usize {
        CHECKSUM_BYTES
    }

    fn seal(&self, block: &BlockIdentity, buffer: &mut Vec<u8>, start: usize) -> Result<()> {
        let checksum = self.of(block, &buffer[start..]);
        buffer.extend_from_slice(&checksum.to_le_bytes());
        Ok(())
    }

    fn open<'a>(&self, block: &BlockIdentity, sealed: &'a mut [u8]) -> Result<&'a [u8], Unopened> {
        let (content, stored) = sealed
            .split_last_chunk::<CHECKSUM_BYTES>()
            .ok_or(Unopened::Damaged)?;
        if self.of(block, content) != u32::from_le_bytes(*stored) {
            return Err(Unopened::Damaged);
        }
        Ok(content)
    }
}
