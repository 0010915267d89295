//! A transform that, as a cipher would, changes every byte, opens in place, and destroys what it opens.

use std::sync::Arc;

use vault_core::Result;
use vault_core::transform::{
    BlockIdentity, BlockTransform, ChecksumTransform, Damaged, FileIdentity, PARAMETER_BYTES,
    SALT_BYTES, Transform,
};

#[derive(Debug)]
pub(super) struct Scramble;

#[derive(Debug)]
struct ScrambleBlocks(Arc<dyn BlockTransform>);

const TAG_BYTES: usize = 12;

impl Transform for Scramble {
    fn id(&self) -> u16 {
        99
    }

    fn create(
        &self,
        file: &FileIdentity,
        salt: &[u8; SALT_BYTES],
        parameters: &mut [u8; PARAMETER_BYTES],
    ) -> Result<Arc<dyn BlockTransform>> {
        parameters[0] = 1;
        let inner = ChecksumTransform.create(file, salt, &mut [0; PARAMETER_BYTES])?;
        Ok(Arc::new(ScrambleBlocks(inner)))
    }

    fn open(
        &self,
        file: &FileIdentity,
        salt: &[u8; SALT_BYTES],
        parameters: &[u8; PARAMETER_BYTES],
    ) -> Result<Arc<dyn BlockTransform>> {
        assert_eq!(parameters[0], 1);
        let inner = ChecksumTransform.open(file, salt, &[0; PARAMETER_BYTES])?;
        Ok(Arc::new(ScrambleBlocks(inner)))
    }
}

impl BlockTransform for ScrambleBlocks {
    fn overhead(&self) -> usize {
        self.0.overhead() + TAG_BYTES
    }

    fn seal(&self, block: &BlockIdentity, buffer: &mut Vec<u8>, start: usize) -> Result<()> {
        self.0.seal(block, buffer, start)?;
        for byte in &mut buffer[start..] {
            *byte ^= 0x5a;
        }
        buffer.extend_from_slice(&[0xee; TAG_BYTES]);
        Ok(())
    }

    fn open<'a>(&self, block: &BlockIdentity, sealed: &'a mut [u8]) -> Result<&'a [u8], Damaged> {
        let (content, tag) = sealed.split_last_chunk_mut::<TAG_BYTES>().ok_or(Damaged)?;
        if *tag != [0xee; TAG_BYTES] {
            return Err(Damaged);
        }
        // Opening a second time must fail.
        *tag = [0; TAG_BYTES];
        for byte in &mut *content {
            *byte ^= 0x5a;
        }
        self.0.open(block, content)
    }
}
