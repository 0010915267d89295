//! The block of range tombstones.

use std::cmp::Reverse;

use vault_core::codec::{Decoder, put_bytes, put_varint};
use vault_core::limits::KEY_BYTES_MAX;

use crate::internal_key::{RangeTombstone, SEQUENCE_MAX};

/// Fewest bytes that a range tombstone takes.
const TOMBSTONE_BYTES_MIN: usize = 4;

/// Brings tombstones into the order in which a table has them.
pub(super) fn sort(tombstones: &mut [RangeTombstone]) {
    tombstones.sort_by(|a, b| rank(a).cmp(&rank(b)));
}

/// Appends the block's bytes. The tombstones are sorted.
pub(super) fn encode(tombstones: &[RangeTombstone], out: &mut Vec<u8>) {
    put_varint(out, tombstones.len() as u64);
    for tombstone in tombstones {
        put_bytes(out, &tombstone.start);
        put_bytes(out, &tombstone.end);
        put_varint(out, tombstone.sequence);
    }
}

/// Decodes a block. `None` where its bytes make no sense.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<RangeTombstone>> {
    let mut d = Decoder::new(bytes);
    let count = usize::try_from(d.varint()?).ok()?;
    if count == 0 || count > d.rest().len() / TOMBSTONE_BYTES_MIN {
        return None;
    }
    let mut tombstones: Vec<RangeTombstone> = Vec::with_capacity(count);
    for _ in 0..count {
        let (start, end, sequence) = (d.bytes()?, d.bytes()?, d.varint()?);
        let sound = start < end
            && start.len() <= KEY_BYTES_MAX
            && end.len() <= KEY_BYTES_MAX
            && sequence <= SEQUENCE_MAX;
        let tombstone = RangeTombstone {
            start: start.to_vec(),
            end: end.to_vec(),
            sequence,
        };
        if !sound
            || tombstones
                .last()
                .is_some_and(|last| rank(last) > rank(&tombstone))
        {
            return None;
        }
        tombstones.push(tombstone);
    }
    d.is_empty().then_some(tombstones)
}

fn rank(tombstone: &RangeTombstone) -> (&[u8], Reverse<u64>, &[u8]) {
    (
        &tombstone.start,
        Reverse(tombstone.sequence),
        &tombstone.end,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tombstone(start: &[u8], end: &[u8], sequence: u64) -> RangeTombstone {
        RangeTombstone {
            start: start.to_vec(),
            end: end.to_vec(),
            sequence,
        }
    }

    #[test]
    fn tombstones_round_trip_in_order() {
        let mut all = vec![
            tombstone(b"b", b"c", 3),
            tombstone(b"", b"z", 1),
            tombstone(b"b", b"d", 9),
        ];
        sort(&mut all);
        assert_eq!(
            all.iter().map(|t| t.sequence).collect::<Vec<_>>(),
            [1, 9, 3]
        );
        let mut bytes = Vec::new();
        encode(&all, &mut bytes);
        assert_eq!(decode(&bytes), Some(all));
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), None);
        }
    }

    #[test]
    fn inverted_and_unsorted_ones_are_refused() {
        for all in [
            vec![tombstone(b"c", b"b", 1)],
            vec![tombstone(b"b", b"c", 1), tombstone(b"a", b"c", 1)],
            vec![tombstone(b"b", b"c", 1), tombstone(b"b", b"c", 2)],
            vec![tombstone(b"b", b"c", SEQUENCE_MAX + 1)],
        ] {
            let mut bytes = Vec::new();
            encode(&all, &mut bytes);
            assert_eq!(decode(&bytes), None);
        }
    }
}
