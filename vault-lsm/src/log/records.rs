//! Walks over the records of a log segment, a window of the file at a time.
//!
//! A segment may be larger than the memory there is for opening a store. What is held is a window, or one
//! record where that is longer.

use std::path::Path;
use std::sync::Arc;

use vault_core::transform::{BlockTransform, HEADER_BYTES, Unopened};
use vault_core::vfs::{File, read_up_to};
use vault_core::{Error, Result};

use crate::frame::{FRAME_BYTES, decode, record_identity};
use crate::layout::NewFile;

/// Bytes read at a time.
const WINDOW_BYTES: usize = 256 << 10;

/// What stands at a place in a segment.
pub(super) enum Next<'a> {
    /// A whole record: its payload, and its length in the file.
    Record { payload: &'a [u8], len: usize },
    /// Nothing but zeros from here on.
    End,
    /// Bytes that are no record.
    Broken,
}

/// The records of a segment, from its first on.
pub(super) struct SegmentRecords<'a> {
    path: &'a Path,
    file: Arc<dyn File>,
    blocks: Arc<dyn BlockTransform>,
    header_checksum: u32,
    /// Bytes of the file.
    len: u64,
    offset: u64,
    ordinal: u32,
    window: Vec<u8>,
    /// Where the window begins in the file.
    window_start: u64,
}

impl<'a> SegmentRecords<'a> {
    /// Starts behind the header.
    pub(super) fn new(opened: &'a NewFile) -> Result<Self> {
        let len = opened.file.len();
        Ok(Self {
            len: len.map_err(|e| Error::io("measure", &opened.path, e))?,
            path: &opened.path,
            file: Arc::clone(&opened.file),
            blocks: Arc::clone(&opened.blocks),
            header_checksum: opened.header_checksum,
            offset: HEADER_BYTES as u64,
            ordinal: 0,
            window: Vec::new(),
            window_start: 0,
        })
    }

    /// Where the next record begins, in bytes from the start of the file.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of the file from the next record on.
    pub(super) const fn rest(&self) -> u64 {
        self.len.saturating_sub(self.offset)
    }

    /// Reads the record at the current place and moves behind it. Stays where it is at the end and at
    /// broken bytes.
    pub(super) fn next(&mut self) -> Result<Next<'_>> {
        let offset = self.offset;
        let checksum = self.header_checksum;
        let frame = self.bytes(offset, FRAME_BYTES)?;
        let Some((ordinal, sealed_len)) = frame.and_then(|frame| decode(checksum, frame)) else {
            let zeros = self.is_zero_from(offset)?;
            return Ok(if zeros { Next::End } else { Next::Broken });
        };
        if ordinal != self.ordinal {
            return Ok(Next::Broken);
        }
        let start = offset + FRAME_BYTES as u64;
        let blocks = Arc::clone(&self.blocks);
        let whole = self.bytes(start, sealed_len)?.is_some();
        let at = (start.wrapping_sub(self.window_start)) as usize;
        if !whole {
            return Ok(Next::Broken);
        }
        let sealed = &mut self.window[at..at + sealed_len];
        match blocks.open(&record_identity(ordinal), sealed) {
            Ok(payload) => {
                self.offset = start + sealed_len as u64;
                self.ordinal += 1;
                let len = FRAME_BYTES + sealed_len;
                Ok(Next::Record { payload, len })
            }
            Err(Unopened::Locked) => Err(Error::Locked),
            Err(Unopened::Damaged) => Ok(Next::Broken),
        }
    }

    /// Whether the record at the current place, which did not open, does by now: a writer may have been at it. Stays where it
    /// is.
    pub(super) fn opens_by_now(&mut self) -> Result<bool> {
        self.window.clear();
        let (offset, ordinal) = (self.offset, self.ordinal);
        let opens = matches!(self.next()?, Next::Record { .. });
        (self.offset, self.ordinal) = (offset, ordinal);
        // Opening may have destroyed what is there.
        self.window.clear();
        Ok(opens)
    }

    /// Looks from the current place on, whatever stands there, for a whole record that satisfies `wanted`; gives
    /// its offset. In a segment behind the broken one the first record counts as well.
    pub(super) fn find_from_here(
        &mut self,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Result<Option<u64>> {
        // Opening may have destroyed what is there.
        self.window.clear();
        let mut at = self.offset;
        while let Some(frame) = self.bytes(at, FRAME_BYTES)? {
            // Most of an unused segment is zero: skip it in strides.
            if frame.iter().all(|&byte| byte == 0) {
                at += FRAME_BYTES as u64 - 1;
                continue;
            }
            let frame = <[u8; FRAME_BYTES]>::try_from(&*frame).expect("as long as was asked for");
            if let Some((ordinal, sealed_len)) = decode(self.header_checksum, &frame)
                && ordinal >= self.ordinal
                && let Some(mut sealed) = self.copy(at + FRAME_BYTES as u64, sealed_len)?
                && let Ok(payload) = self.blocks.open(&record_identity(ordinal), &mut sealed)
                && wanted(payload)
            {
                return Ok(Some(at));
            }
            at += 1;
        }
        Ok(None)
    }

    /// Bytes of the file; `None` where it ends before.
    fn bytes(&mut self, offset: u64, len: usize) -> Result<Option<&mut [u8]>> {
        let end = offset.saturating_add(len as u64);
        if end > self.len {
            return Ok(None);
        }
        let window_end = self.window_start + self.window.len() as u64;
        if offset < self.window_start || end > window_end {
            let wanted = (self.len - offset).min(WINDOW_BYTES.max(len) as u64);
            // One long record does not make all windows after it as long.
            self.window.truncate(wanted as usize);
            self.window.shrink_to(2 * WINDOW_BYTES);
            self.window.resize(wanted as usize, 0);
            let read = self.read(offset)?;
            self.window.truncate(read);
            self.window_start = offset;
            if read < wanted as usize {
                // The file was cut meanwhile.
                self.len = offset + read as u64;
            }
        }
        let start = (offset - self.window_start) as usize;
        Ok(self.window.get_mut(start..start + len))
    }

    fn read(&mut self, offset: u64) -> Result<usize> {
        let read = read_up_to(&*self.file, &mut self.window, offset);
        read.map_err(|e| Error::io("read", self.path, e))
    }

    /// A copy of bytes of the file, past the window; `None` where it ends before.
    fn copy(&self, offset: u64, len: usize) -> Result<Option<Vec<u8>>> {
        if offset.saturating_add(len as u64) > self.len {
            return Ok(None);
        }
        let mut bytes = vec![0; len];
        let read = read_up_to(&*self.file, &mut bytes, offset);
        let read = read.map_err(|e| Error::io("read", self.path, e))?;
        Ok((read == len).then_some(bytes))
    }

    fn is_zero_from(&mut self, offset: u64) -> Result<bool> {
        let mut at = offset;
        while at < self.len {
            let step = (self.len - at).min(WINDOW_BYTES as u64);
            // `None`: the file was cut meanwhile; the loop sees where.
            if let Some(bytes) = self.bytes(at, step as usize)? {
                if bytes.iter().any(|&byte| byte != 0) {
                    return Ok(false);
                }
                at += step;
            }
        }
        Ok(true)
    }
}
