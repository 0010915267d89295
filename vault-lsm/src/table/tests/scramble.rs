//! Three transforms: one that, as a cipher would, changes every byte, opens in place, and destroys what it
//! opens; the same with keys behind it, so that what it seals is confidential; and one that seals nothing, so that
//! damage reaches the parsers.

use std::sync::Arc;

use vault_core::Result;
use vault_core::transform::{
    BlockIdentity, BlockTransform, ChecksumTransform, FileHeader, Keys, Transform, Unopened,
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

    fn create(&self, header: &mut FileHeader) -> Result<Arc<dyn BlockTransform>> {
        header.parameters[0] = 1;
        let inner = ChecksumTransform.create(header)?;
        Ok(Arc::new(ScrambleBlocks(inner)))
    }

    fn open(&self, header: &FileHeader) -> Result<Arc<dyn BlockTransform>> {
        assert_eq!(header.parameters[0], 1);
        let inner = ChecksumTransform.open(header)?;
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

    fn open<'a>(&self, block: &BlockIdentity, sealed: &'a mut [u8]) -> Result<&'a [u8], Unopened> {
        let (content, tag) = sealed
            .split_last_chunk_mut::<TAG_BYTES>()
            .ok_or(Unopened::Damaged)?;
        if *tag != [0xee; TAG_BYTES] {
            return Err(Unopened::Damaged);
        }
        // Opening a second time must fail.
        *tag = [0; TAG_BYTES];
        for byte in &mut *content {
            *byte ^= 0x5a;
        }
        self.0.open(block, content)
    }
}

/// Has keys, which nobody uses: it is enough that there are any.
#[derive(Debug)]
pub(super) struct Keyed;

impl Transform for Keyed {
    fn id(&self) -> u16 {
        Scramble.id()
    }

    fn create(&self, header: &mut FileHeader) -> Result<Arc<dyn BlockTransform>> {
        Scramble.create(header)
    }

    fn open(&self, header: &FileHeader) -> Result<Arc<dyn BlockTransform>> {
        Scramble.open(header)
    }

    fn keys(&self) -> Option<&dyn Keys> {
        Some(self)
    }
}

impl Keys for Keyed {
    fn has_domain(&self, _: u32) -> Result<bool> {
        Ok(true)
    }

    fn version(&self) -> u64 {
        1
    }

    fn epoch(&self) -> u32 {
        1
    }

    fn add_domain(&self, _: u32) -> Result<()> {
        Ok(())
    }

    fn keep_domains(&self, _: &[u32]) -> Result<()> {
        Ok(())
    }

    fn begin_epoch(&self) -> Result<u32> {
        Ok(1)
    }

    fn retire_epochs(&self, _: u32) -> Result<u32> {
        Ok(0)
    }

    fn copied(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn lock(&self) {}

    fn is_locked(&self) -> bool {
        false
    }
}

/// Adds nothing and checks nothing.
#[derive(Debug)]
pub(super) struct Trusting;

impl Transform for Trusting {
    fn id(&self) -> u16 {
        98
    }

    fn create(&self, _: &mut FileHeader) -> Result<Arc<dyn BlockTransform>> {
        Ok(Arc::new(Self))
    }

    fn open(&self, _: &FileHeader) -> Result<Arc<dyn BlockTransform>> {
        Ok(Arc::new(Self))
    }
}

impl BlockTransform for Trusting {
    fn overhead(&self) -> usize {
        0
    }

    fn seal(&self, _: &BlockIdentity, _: &mut Vec<u8>, _: usize) -> Result<()> {
        Ok(())
    }

    fn open<'a>(&self, _: &BlockIdentity, sealed: &'a mut [u8]) -> Result<&'a [u8], Unopened> {
        Ok(sealed)
    }
}
