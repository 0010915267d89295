//! Brings blocks from the file into memory: one by one, or out of a window that was read ahead.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;

use vault_core::transform::{BlockIdentity, BlockTransform, Unopened};
use vault_core::vfs::{File, read_exact_at};
use vault_core::{Error, Result};

use super::block::Block;
use super::{BlockType, Codec, recycle};
use crate::memory::{LARGE_BLOCK_BYTES, Memory};

/// Most memory that a thread keeps for reading sealed blocks into.
const SCRATCH_BYTES_MAX: usize = 128 << 10;

thread_local! {
    /// Sealed bytes of the block that is being read: taken for the time of one read.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Which block, and what it is, as the level above says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handle {
    pub(super) offset: u64,
    pub(super) stored_len: u32,
    pub(super) plain_len: u32,
    pub(super) ordinal: u64,
    pub(super) block_type: BlockType,
    pub(super) codec: Codec,
}

impl Handle {
    /// A block that is never compressed.
    pub(super) const fn raw(block_type: BlockType, offset: u64, len: u32, ordinal: u64) -> Self {
        Self {
            offset,
            stored_len: len,
            plain_len: len,
            ordinal,
            block_type,
            codec: Codec::Raw,
        }
    }

    const fn identity(&self) -> BlockIdentity {
        BlockIdentity {
            ordinal: self.ordinal,
            block_type: self.block_type as u8,
            codec: self.codec as u8,
        }
    }
}

/// A table's file, and what opens its blocks.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) file: Arc<dyn File>,
    pub(super) path: PathBuf,
    pub(super) transform: Arc<dyn BlockTransform>,
    pub(super) memory: Arc<Memory>,
}

impl Source {
    /// Bytes that sealing adds to a block.
    pub(super) fn overhead(&self) -> u64 {
        self.transform.overhead() as u64
    }

    /// Length of a block in the file.
    pub(super) fn sealed_len(&self, handle: &Handle) -> usize {
        handle.stored_len as usize + self.transform.overhead()
    }

    /// Reads and parses a data block.
    pub(super) fn data_block(&self, handle: &Handle) -> Result<Block> {
        self.with_sealed(handle, |sealed| self.open_data_block(handle, sealed))
    }

    /// Parses a data block that has been read.
    pub(super) fn open_data_block(&self, handle: &Handle, sealed: &mut [u8]) -> Result<Block> {
        let content = self.open(handle, sealed)?;
        // The index was checked not to ask for more than a fair multiple of what is stored.
        let len = handle.plain_len as usize;
        let mut bytes = recycle::take(len);
        let buffer = Arc::get_mut(&mut bytes).expect("nobody else has the new block yet");
        match handle.codec {
            // As long as the index says: it was compared when the block was opened.
            Codec::Raw => buffer[..len].copy_from_slice(content),
            Codec::Lz4 => self.decompress(handle, content, &mut buffer[..len])?,
        }
        Block::parse(bytes, len).map_err(|problem| self.damaged(handle, problem))
    }

    /// Reads an uncompressed block and decodes it, `None` being damage.
    pub(super) fn decode<T>(
        &self,
        handle: &Handle,
        decode: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<T> {
        self.with_sealed(handle, |sealed| self.decode_sealed(handle, sealed, decode))
    }

    /// Decodes an uncompressed block that has been read.
    pub(super) fn decode_sealed<T>(
        &self,
        handle: &Handle,
        sealed: &mut [u8],
        decode: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<T> {
        let content = self.open(handle, sealed)?;
        decode(content).ok_or_else(|| self.damaged(handle, "its content makes no sense"))
    }

    /// Reads bytes of the file.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        read_exact_at(&*self.file, buffer, offset).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Error::corruption(&self.path, offset, e.to_string())
            }
            _ => Error::io("read", &self.path, e),
        })
    }

    fn with_sealed<T>(
        &self,
        handle: &Handle,
        use_sealed: impl FnOnce(&mut [u8]) -> Result<T>,
    ) -> Result<T> {
        let len = self.sealed_len(handle);
        let _large = (len > LARGE_BLOCK_BYTES).then(|| self.memory.begin_large_read(len));
        let mut scratch = SCRATCH.take();
        if scratch.len() < len {
            // Not by growing: that would keep the old bytes and take twice what is needed.
            drop(std::mem::take(&mut scratch));
            scratch = vec![0; len];
        }
        let result = self
            .read(&mut scratch[..len], handle.offset)
            .and_then(|()| use_sealed(&mut scratch[..len]));
        if scratch.len() <= SCRATCH_BYTES_MAX {
            SCRATCH.set(scratch);
        }
        result
    }

    fn open<'a>(&self, handle: &Handle, sealed: &'a mut [u8]) -> Result<&'a [u8]> {
        let content = self
            .transform
            .open(&handle.identity(), sealed)
            .map_err(|unopened| match unopened {
                Unopened::Damaged => {
                    self.damaged(handle, "its seal does not match its content and place")
                }
                Unopened::Locked => Error::Locked,
            })?;
        if content.len() != handle.stored_len as usize {
            return Err(self.damaged(handle, "its length is not what the index says"));
        }
        Ok(content)
    }

    fn decompress(&self, handle: &Handle, content: &[u8], buffer: &mut [u8]) -> Result<()> {
        match lz4_flex::block::decompress_into(content, buffer) {
            Ok(written) if written == buffer.len() => Ok(()),
            Ok(_) => {
                Err(self.damaged(handle, "it decompresses to fewer bytes than the index says"))
            }
            Err(_) => Err(self.damaged(handle, "it does not decompress")),
        }
    }

    fn damaged(&self, handle: &Handle, problem: &str) -> Error {
        let Handle {
            ordinal,
            stored_len,
            plain_len,
            block_type,
            ..
        } = handle;
        Error::corruption(
            &self.path,
            handle.offset,
            format!(
                "{block_type:?} block {ordinal} ({stored_len} bytes stored, {plain_len} plain): {problem}"
            ),
        )
    }
}

/// Which way a cursor goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Backward,
}

/// A window of the file, read at once because the blocks in it are about to be asked for in order.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    buffer: Vec<u8>,
    /// Where the buffer's first byte is in the file.
    offset: u64,
    /// What of the buffer has not been used yet. Opening a block may destroy its bytes, so what was
    /// handed out is never handed out again.
    unused: std::ops::Range<usize>,
}

impl ReadAhead {
    /// The sealed bytes of a block, out of the window; if it lies outside, the window is moved there
    /// first, and made `window_bytes` long (more for a larger block) as far as `limits` allow.
    /// Also says whether the window was moved.
    pub(super) fn sealed(
        &mut self,
        source: &Source,
        handle: &Handle,
        direction: Direction,
        window_bytes: usize,
        limits: &std::ops::Range<u64>,
    ) -> Result<(&mut [u8], bool)> {
        let len = source.sealed_len(handle);
        let found = self.find(handle.offset, len);
        let start = match found {
            Some(start) => start,
            None => self.refill(source, handle.offset, len, direction, window_bytes, limits)?,
        };
        match direction {
            Direction::Forward => self.unused.start = start + len,
            Direction::Backward => self.unused.end = start,
        }
        Ok((&mut self.buffer[start..start + len], found.is_none()))
    }

    /// Bytes of memory held.
    pub(super) const fn memory_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Forgets what was read ahead, and gives its memory back.
    pub(super) fn release(&mut self) {
        *self = Self::default();
    }

    /// Forgets what was read ahead.
    pub(super) const fn clear(&mut self) {
        self.unused = 0..0;
    }

    fn find(&self, offset: u64, len: usize) -> Option<usize> {
        let start = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        let end = start.checked_add(len)?;
        (start >= self.unused.start && end <= self.unused.end).then_some(start)
    }

    fn refill(
        &mut self,
        source: &Source,
        offset: u64,
        len: usize,
        direction: Direction,
        window_bytes: usize,
        limits: &std::ops::Range<u64>,
    ) -> Result<usize> {
        let (block_end, window) = (offset + len as u64, window_bytes.max(len) as u64);
        let (start, end) = match direction {
            Direction::Forward => (
                offset,
                offset.saturating_add(window).min(limits.end).max(block_end),
            ),
            Direction::Backward => (
                block_end
                    .saturating_sub(window)
                    .max(limits.start)
                    .min(offset),
                block_end,
            ),
        };
        let bytes = (end - start) as usize;
        self.unused = 0..0;
        if self.buffer.len() < bytes {
            drop(std::mem::take(&mut self.buffer));
            self.buffer = vec![0; bytes];
        }
        source.read(&mut self.buffer[..bytes], start)?;
        self.offset = start;
        self.unused = 0..bytes;
        Ok((offset - start) as usize)
    }
}
