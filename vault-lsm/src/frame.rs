//! The frame around each record of a log segment or manifest, and the search for frames behind damage.
//!
//! ```text
//! u32  length of the sealed payload
//! u32  ordinal of the record in its file
//! u32  CRC-32 of the eight bytes before, started from the checksum in the file's header
//! ```
//!
//! Because a frame checks by itself, a reader that meets a record it cannot open can look for whole
//! records behind it, and so tell a tail that was never synced from damage in the middle.

use vault_core::transform::{BlockIdentity, BlockTransform, HEADER_BYTES};

/// Bytes of a frame.
pub(crate) const FRAME_BYTES: usize = 12;
/// The block type of a record.
pub(crate) const RECORD_BLOCK: u8 = 1;

/// The identity under which a record is sealed.
pub(crate) const fn record_identity(ordinal: u32) -> BlockIdentity {
    BlockIdentity {
        ordinal: ordinal as u64,
        block_type: RECORD_BLOCK,
        codec: 0,
    }
}

/// Encodes a frame.
#[inline]
pub(crate) fn encode(header_checksum: u32, ordinal: u32, sealed_len: u32) -> [u8; FRAME_BYTES] {
    let mut frame = [0; FRAME_BYTES];
    frame[..4].copy_from_slice(&sealed_len.to_le_bytes());
    frame[4..8].copy_from_slice(&ordinal.to_le_bytes());
    let check = checksum(header_checksum, &frame[..8]);
    frame[8..].copy_from_slice(&check.to_le_bytes());
    frame
}

fn checksum(header_checksum: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(header_checksum);
    hasher.update(bytes);
    hasher.finalize()
}

/// Decodes the frame at the front of `bytes`: ordinal and sealed length. `None` where it does not
/// check or the bytes end too early.
pub(crate) fn decode(header_checksum: u32, bytes: &[u8]) -> Option<(u32, usize)> {
    let frame = bytes.first_chunk::<FRAME_BYTES>()?;
    let word =
        |at: usize| u32::from_le_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
    if word(0) == 0 || checksum(header_checksum, &frame[..8]) != word(8) {
        return None;
    }
    Some((word(4), word(0) as usize))
}

/// What stands at a place in a file of records.
pub(crate) enum Next<'a> {
    /// A whole record: its payload, and its sealed bytes' checksum.
    Record {
        payload: &'a [u8],
        sealed_checksum: u32,
    },
    /// Nothing but zeros from here on: the file's end.
    End,
    /// Bytes that are no record.
    Broken,
}

/// Walks over the records of a file that was read whole.
pub(crate) struct Records<'a> {
    bytes: &'a mut [u8],
    header_checksum: u32,
    blocks: &'a dyn BlockTransform,
    offset: usize,
    ordinal: u32,
}

impl<'a> Records<'a> {
    /// Starts behind the header. `bytes` is the whole file.
    pub(crate) fn new(
        bytes: &'a mut [u8],
        header_checksum: u32,
        blocks: &'a dyn BlockTransform,
    ) -> Self {
        Self {
            bytes,
            header_checksum,
            blocks,
            offset: HEADER_BYTES,
            ordinal: 0,
        }
    }

    /// Where the next record begins, in bytes from the start of the file.
    pub(crate) const fn offset(&self) -> usize {
        self.offset
    }

    /// Reads the record at the current place and moves behind it. Stays where it is at the end and
    /// at broken bytes.
    pub(crate) fn next(&mut self) -> Next<'_> {
        let offset = self.offset;
        let rest = self.bytes.get(offset..).unwrap_or(&[]);
        let Some((ordinal, sealed_len)) = decode(self.header_checksum, rest) else {
            let zeros = rest.iter().all(|&byte| byte == 0);
            return if zeros { Next::End } else { Next::Broken };
        };
        let start = offset + FRAME_BYTES;
        let Some(sealed) = self.bytes.get_mut(start..start.saturating_add(sealed_len)) else {
            return Next::Broken;
        };
        if ordinal != self.ordinal {
            return Next::Broken;
        }
        let sealed_checksum = crc32fast::hash(sealed);
        match self.blocks.open(&record_identity(ordinal), sealed) {
            Ok(payload) => {
                self.offset = start + sealed_len;
                self.ordinal += 1;
                Next::Record {
                    payload,
                    sealed_checksum,
                }
            }
            Err(_) => Next::Broken,
        }
    }

    /// Looks behind broken bytes for a whole record that satisfies `wanted`; gives its offset.
    pub(crate) fn find_behind(&mut self, mut wanted: impl FnMut(&[u8]) -> bool) -> Option<usize> {
        let mut at = self.offset + 1;
        while at + FRAME_BYTES <= self.bytes.len() {
            // Most of an unused segment is zero: skip it in strides.
            if self.bytes[at..at + FRAME_BYTES] == [0; FRAME_BYTES] {
                at += FRAME_BYTES - 1;
                continue;
            }
            if let Some((ordinal, sealed_len)) = decode(self.header_checksum, &self.bytes[at..])
                && ordinal >= self.ordinal
            {
                let start = at + FRAME_BYTES;
                if let Some(sealed) = self.bytes.get_mut(start..start.saturating_add(sealed_len)) {
                    // Opening may decrypt in place: work on a copy, this place may be tried again.
                    let mut copy = sealed.to_vec();
                    if let Ok(payload) = self.blocks.open(&record_identity(ordinal), &mut copy)
                        && wanted(payload)
                    {
                        return Some(at);
                    }
                }
            }
            at += 1;
        }
        None
    }

    /// Moves behind broken bytes to the next whole record, for whoever wants all that can be read. Gives
    /// whether there is one.
    pub(crate) fn resume_behind(&mut self) -> bool {
        let Some(at) = self.find_behind(|_| true) else {
            return false;
        };
        let Some((ordinal, _)) = decode(self.header_checksum, &self.bytes[at..]) else {
            return false;
        };
        (self.offset, self.ordinal) = (at, ordinal);
        true
    }
}
