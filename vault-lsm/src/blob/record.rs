//! The records of a blob file: a frame, and a sealed payload that holds a value beside its key.

use vault_core::Compression;
use vault_core::codec::{Decoder, put_bytes, put_varint};
use vault_core::limits::VALUE_BYTES_CEILING;

use crate::frame::FRAME_BYTES;
use crate::table::plain_bytes_max;

/// The shortest record there is: its frame, a checksum, its kind, and three lengths.
pub(super) const RECORD_BYTES_MIN: usize = FRAME_BYTES + 4 + 3;

const END: u8 = 0;
const RAW: u8 = 1;
const LZ4: u8 = 2;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// A value with its key.
    Value(StoredValue<'a>),
    /// The last of a file: how many values stand before it, in how many bytes.
    End { values: u64, value_bytes: u64 },
}

/// A value as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredValue<'a> {
    pub(crate) key: &'a [u8],
    compressed: bool,
    raw: u32,
    content: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads a payload. `None` where it makes no sense.
    pub(crate) fn decode(payload: &'a [u8]) -> Option<Self> {
        let mut decoder = Decoder::new(payload);
        let kind = decoder.u8()?;
        match kind {
            END => {
                let (values, value_bytes) = (decoder.varint()?, decoder.varint()?);
                let end = Self::End {
                    values,
                    value_bytes,
                };
                decoder.is_empty().then_some(end)
            }
            RAW | LZ4 => {
                let raw = u32::try_from(decoder.varint()?).ok()?;
                let key = decoder.bytes()?;
                let content = decoder.rest();
                let stored = content.len() as u64;
                let sound = match kind {
                    RAW => u64::from(raw) == stored,
                    // Nothing in a file makes a reader allocate more than a fair multiple of it.
                    _ => u64::from(raw) <= plain_bytes_max(stored),
                };
                (sound && raw as usize <= VALUE_BYTES_CEILING).then_some(Self::Value(StoredValue {
                    key,
                    compressed: kind == LZ4,
                    raw,
                    content,
                }))
            }
            _ => None,
        }
    }
}

impl<'a> StoredValue<'a> {
    /// Bytes of the value.
    pub(crate) const fn raw(&self) -> u32 {
        self.raw
    }

    /// The value, where it stands here as it is.
    pub(crate) fn uncompressed(&self) -> Option<&'a [u8]> {
        (!self.compressed).then_some(self.content)
    }

    /// Writes the value into `out`, which is as long as it is. Gives whether that could be done.
    pub(crate) fn decompress_into(&self, out: &mut [u8]) -> bool {
        if !self.compressed {
            out.copy_from_slice(self.content);
            return true;
        }
        let written = lz4_flex::block::decompress_into(self.content, out);
        written.is_ok_and(|written| written == out.len())
    }
}

/// Appends the payload of a value, compressed where that is wanted and worth it.
pub(super) fn put_value(key: &[u8], value: &[u8], compression: Compression, out: &mut Vec<u8>) {
    let start = out.len();
    let head = |kind: u8, out: &mut Vec<u8>| {
        out.push(kind);
        put_varint(out, value.len() as u64);
        put_bytes(out, key);
    };
    if compression == Compression::Lz4 {
        head(LZ4, out);
        let content = out.len();
        out.resize(
            content + lz4_flex::block::get_maximum_output_size(value.len()),
            0,
        );
        let len = lz4_flex::block::compress_into(value, &mut out[content..]).unwrap_or(usize::MAX);
        let worth_it = len <= value.len() - value.len() / 8;
        if worth_it && value.len() as u64 <= plain_bytes_max(len as u64) {
            out.truncate(content + len);
            return;
        }
        out.truncate(start);
    }
    head(RAW, out);
    out.extend_from_slice(value);
}

/// Appends the payload of the last record.
pub(super) fn put_end(values: u64, value_bytes: u64, out: &mut Vec<u8>) {
    out.push(END);
    put_varint(out, values);
    put_varint(out, value_bytes);
}
