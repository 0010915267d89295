//! The payload of a log record.

use vault_core::codec::{Decoder, VARINT_BYTES_MAX, put_varint, varint_len};

const KIND_START: u8 = 1;
const KIND_BATCH: u8 = 2;
/// The upper half of a batch's first byte: how many zeros stand behind its operations.
const PADDING_SHIFT: u32 = 4;

/// A decoded payload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// The log position known to be durable when the record was written.
    pub(crate) synced: u64,
    /// What the record says.
    pub(crate) body: Body<'a>,
}

/// What a record says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Body<'a> {
    /// A segment begins.
    Start(Start),
    /// A batch was committed.
    Batch {
        first_sequence: u64,
        count: u32,
        operations: &'a [u8],
    },
}

/// The first record of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    /// Number of the segment before this one; 0: none.
    pub(crate) previous: u64,
    /// Byte offset at which that segment ends.
    pub(crate) previous_end: u64,
    /// Log position at which this segment begins.
    pub(crate) base: u64,
}

/// Appends the payload of a start record.
pub(crate) fn encode_start(out: &mut Vec<u8>, synced: u64, start: &Start) {
    out.push(KIND_START);
    put_varint(out, synced);
    put_varint(out, start.previous);
    put_varint(out, start.previous_end);
    put_varint(out, start.base);
}

/// What stands in front of the operations in the payload of a batch record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchHead {
    /// As [`Record::synced`].
    pub(crate) synced: u64,
    pub(crate) first_sequence: u64,
    pub(crate) count: u32,
    /// Zeros behind the operations, at most [`Self::PADDING_MAX`].
    pub(crate) padding: u8,
}

impl BatchHead {
    /// It is never longer.
    pub(crate) const BYTES_MAX: usize = 1 + 3 * VARINT_BYTES_MAX;
    /// The most zeros there can be behind the operations.
    pub(crate) const PADDING_MAX: usize = 15;

    /// Its length in bytes.
    pub(crate) const fn len(&self) -> usize {
        1 + varint_len(self.synced)
            + varint_len(self.first_sequence)
            + varint_len(self.count as u64)
    }

    /// Bytes of the payload that it begins.
    pub(crate) const fn payload_len(&self, operations: &[u8]) -> usize {
        self.len() + operations.len() + self.padding as usize
    }

    /// With zeros up to a multiple of `stride` bytes of payload, 1 to 16.
    pub(crate) fn padded(self, operations: &[u8], stride: usize) -> Self {
        let excess = self.payload_len(operations) % stride;
        let padding = if excess == 0 { 0 } else { stride - excess };
        debug_assert!(self.padding == 0 && padding <= Self::PADDING_MAX);
        Self {
            padding: padding as u8,
            ..self
        }
    }
}

/// Appends the payload of a batch record.
#[inline]
pub(crate) fn encode_batch(out: &mut Vec<u8>, head: &BatchHead, operations: &[u8]) {
    out.push(KIND_BATCH | head.padding << PADDING_SHIFT);
    put_varint(out, head.synced);
    put_varint(out, head.first_sequence);
    put_varint(out, u64::from(head.count));
    out.extend_from_slice(operations);
    out.extend_from_slice(&[0; BatchHead::PADDING_MAX][..usize::from(head.padding)]);
}

/// Decodes a payload; `None` where it makes no sense.
pub(crate) fn decode(payload: &[u8]) -> Option<Record<'_>> {
    let mut decoder = Decoder::new(payload);
    let first = decoder.u8()?;
    let padding = first >> PADDING_SHIFT;
    let kind = first & ((1 << PADDING_SHIFT) - 1);
    let synced = decoder.varint()?;
    let body = match kind {
        KIND_START => {
            let start = Start {
                previous: decoder.varint()?,
                previous_end: decoder.varint()?,
                base: decoder.varint()?,
            };
            if !decoder.is_empty() || padding != 0 {
                return None;
            }
            Body::Start(start)
        }
        KIND_BATCH => Body::Batch {
            first_sequence: decoder.varint()?,
            count: u32::try_from(decoder.varint()?).ok()?,
            operations: without_padding(decoder.rest(), padding)?,
        },
        _ => return None,
    };
    Some(Record { synced, body })
}

/// What stands in front of the zeros at the end; `None` where there are fewer.
fn without_padding(bytes: &[u8], padding: u8) -> Option<&[u8]> {
    let len = bytes.len().checked_sub(usize::from(padding))?;
    let (operations, zeros) = bytes.split_at(len);
    zeros.iter().all(|&byte| byte == 0).then_some(operations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip() {
        let start = Start {
            previous: 3,
            previous_end: 4096,
            base: 1 << 40,
        };
        let mut out = Vec::new();
        encode_start(&mut out, 9, &start);
        assert_eq!(
            decode(&out),
            Some(Record {
                synced: 9,
                body: Body::Start(start)
            })
        );
        out.clear();
        let head = BatchHead {
            synced: 300,
            first_sequence: 7,
            count: 2,
            padding: 0,
        };
        encode_batch(&mut out, &head, b"operations");
        assert_eq!(out.len(), head.len() + b"operations".len());
        let batch = || Record {
            synced: 300,
            body: Body::Batch {
                first_sequence: 7,
                count: 2,
                operations: b"operations",
            },
        };
        assert_eq!(decode(&out), Some(batch()));
        for stride in 1..=16 {
            out.clear();
            let padded = head.padded(b"operations", stride);
            encode_batch(&mut out, &padded, b"operations");
            assert_eq!(out.len(), padded.payload_len(b"operations"));
            assert!(out.len() % stride == 0 && out.len() < head.len() + 10 + stride);
            assert_eq!(decode(&out), Some(batch()));
        }
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[9, 0]), None);
        // Padding of a start, padding that is no zeros, more of it than there are bytes.
        assert_eq!(decode(&[0x11, 9, 0, 0, 0, 0]), None);
        assert_eq!(decode(&[0x12, 9, 7, 2, 1]), None);
        assert_eq!(decode(&[0x12, 9, 7, 2]), None);
    }
}
