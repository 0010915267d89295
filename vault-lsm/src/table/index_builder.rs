//! Gathers both levels of a table's index while the table is written.

use vault_core::codec::{put_bytes, put_varint};

use super::common_prefix_len;
use super::index::{FLAG_FILTER, FLAG_LZ4, FLAG_TRAILER};

/// What parts a block from the one before it: see `docs/format/table.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fence {
    pub(super) key: Vec<u8>,
    /// Only where two versions of one user key are parted.
    pub(super) trailer: Option<u64>,
}

impl Fence {
    /// The fence between an entry and the one that follows it.
    pub(super) fn between(last_key: &[u8], key: &[u8], trailer: u64) -> Self {
        if last_key == key {
            return Self {
                key: key.to_vec(),
                trailer: Some(trailer),
            };
        }
        // Keys ascend: either they differ at this place, or the first one ends here.
        let shared = common_prefix_len(last_key, key);
        Self {
            key: key[..=shared].to_vec(),
            trailer: None,
        }
    }
}

/// Builds the block of one level of the index.
#[derive(Debug, Default)]
pub(super) struct IndexBuilder {
    parts: Vec<Part>,
    bytes: usize,
}

#[derive(Debug)]
struct Part {
    fence: Option<Fence>,
    flags: u8,
    /// What stands behind the fence.
    lengths: Vec<u8>,
}

impl IndexBuilder {
    /// Adds a data block. The first one of a partition has no fence.
    pub(super) fn add_block(&mut self, fence: Option<Fence>, stored: u64, lz4_plain: Option<u64>) {
        let mut lengths = Vec::with_capacity(6);
        put_varint(&mut lengths, stored);
        let flags = match lz4_plain {
            Some(plain) => {
                put_varint(&mut lengths, plain);
                FLAG_LZ4
            }
            None => 0,
        };
        self.add(fence, flags, lengths);
    }

    /// Adds a partition. The first one of a table has no fence.
    pub(super) fn add_partition(
        &mut self,
        fence: Option<Fence>,
        blocks: u64,
        data_bytes: u64,
        filter_len: Option<u64>,
        index_len: u64,
    ) {
        let mut lengths = Vec::with_capacity(12);
        put_varint(&mut lengths, blocks);
        put_varint(&mut lengths, data_bytes);
        if let Some(len) = filter_len {
            put_varint(&mut lengths, len);
        }
        put_varint(&mut lengths, index_len);
        let flags = if filter_len.is_some() { FLAG_FILTER } else { 0 };
        self.add(fence, flags, lengths);
    }

    /// Number of parts so far.
    pub(super) const fn len(&self) -> usize {
        self.parts.len()
    }

    /// About how many bytes of memory are held.
    pub(super) const fn memory_bytes(&self) -> usize {
        // A fence and the lengths are allocations of their own.
        self.parts.capacity() * size_of::<Part>() + self.parts.len() * 64 + self.bytes
    }

    /// At most how many bytes the block takes.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends the block's bytes and starts over.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        let mut fences = self.parts.iter().filter_map(|part| part.fence.as_ref());
        // Fences ascend, so what the first and the last share they all share.
        let prefix_len = match (fences.next(), fences.next_back()) {
            (Some(first), Some(last)) => common_prefix_len(&first.key, &last.key),
            (Some(only), None) => only.key.len(),
            _ => 0,
        };
        put_varint(out, self.parts.len() as u64);
        let first = self.parts.iter().find_map(|part| part.fence.as_ref());
        put_bytes(out, first.map_or(&[], |fence| &fence.key[..prefix_len]));
        for part in self.parts.drain(..) {
            let trailer = part.fence.as_ref().and_then(|fence| fence.trailer);
            out.push(part.flags | if trailer.is_some() { FLAG_TRAILER } else { 0 });
            if let Some(fence) = &part.fence {
                put_bytes(out, &fence.key[prefix_len..]);
            }
            if let Some(trailer) = trailer {
                out.extend_from_slice(&trailer.to_le_bytes());
            }
            out.extend_from_slice(&part.lengths);
        }
        self.bytes = 0;
    }

    fn add(&mut self, fence: Option<Fence>, flags: u8, lengths: Vec<u8>) {
        debug_assert_eq!(
            fence.is_none(),
            self.parts.is_empty(),
            "all but the first have fences"
        );
        self.bytes += 4 + lengths.len();
        if let Some(fence) = &fence {
            self.bytes += fence.key.len() + if fence.trailer.is_some() { 8 } else { 0 };
        }
        self.parts.push(Part {
            fence,
            flags,
            lengths,
        });
    }
}

#[cfg(test)]
mod tests {
    use vault_core::codec::Decoder;
    use vault_core::transform::HEADER_BYTES;

    use super::super::index::{IndexPartition, Partition, TopIndex};
    use super::*;
    use crate::internal_key::compare;

    #[test]
    fn fences_are_as_short_as_they_can_be() {
        let fence = |last: &[u8], key: &[u8]| {
            let fence = Fence::between(last, key, 7);
            assert_eq!(fence.trailer.is_some(), last == key);
            fence.key
        };
        assert_eq!(fence(b"apple", b"banana"), b"b");
        assert_eq!(fence(b"apple", b"apricot"), b"apr");
        assert_eq!(fence(b"app", b"apple"), b"appl");
        assert_eq!(fence(b"", b"x"), b"x");
        assert_eq!(fence(b"same", b"same"), b"same");
    }

    fn partition(blocks: u64, data_bytes: u64) -> Partition {
        Partition {
            offset: HEADER_BYTES as u64,
            ordinal: 1,
            blocks,
            data_bytes,
            filter_len: 0,
            index_len: 0,
        }
    }

    /// The fences must choose, for each entry and each place between entries, the block that a linear
    /// search would.
    #[test]
    fn searches_agree_with_a_linear_one() {
        let mut keys: Vec<(Vec<u8>, u64)> = Vec::new();
        for i in 0..200_u64 {
            let key = format!(
                "prefix{:03}{}",
                i / 3 * 7 % 1000,
                "x".repeat(i as usize % 11)
            );
            keys.push((key.into_bytes(), 1000 - i % 5));
        }
        keys.sort_by(|a, b| compare((&a.0, a.1), (&b.0, b.1)));
        keys.dedup();
        for per_block in [1, 2, 5] {
            let blocks: Vec<_> = keys.chunks(per_block).collect();
            let mut builder = IndexBuilder::default();
            builder.add_block(None, 10, None);
            for pair in blocks.windows(2) {
                let ((last, _), (first, trailer)) = (&pair[0][pair[0].len() - 1], &pair[1][0]);
                builder.add_block(Some(Fence::between(last, first, *trailer)), 10, Some(30));
            }
            let bound = builder.bytes();
            let mut bytes = Vec::new();
            builder.finish(&mut bytes);
            assert!(bytes.len() <= bound + 16);
            let count = blocks.len() as u64;
            let index = IndexPartition::decode(&bytes, &partition(count, count * 14), 4).unwrap();
            assert_eq!(index.blocks().len(), blocks.len());
            for (i, block) in blocks.iter().enumerate() {
                for (key, trailer) in *block {
                    assert_eq!(index.fences.find(key, *trailer), i);
                    assert!(index.fences.starts_by(i, key, *trailer));
                    assert!(!index.fences.starts_by(i + 1, key, *trailer));
                }
            }
            assert_eq!(index.fences.find(b"", 0), 0);
            assert_eq!(index.fences.find(b"zzz", 0), blocks.len() - 1);
            assert_eq!(index.fences.find(b"prefiy", 0), blocks.len() - 1);
            assert_eq!(index.fences.find(b"pre", 0), 0);
            assert_eq!(index.fences.find(b"z", 0), blocks.len() - 1);
        }
    }

    #[test]
    fn lengths_that_do_not_add_up_are_refused() {
        let mut builder = IndexBuilder::default();
        builder.add_block(None, 10, None);
        builder.add_block(Some(Fence::between(b"a", b"b", 1)), 10, Some(1 << 21));
        let mut bytes = Vec::new();
        builder.finish(&mut bytes);
        // A plain length beyond what a reader allocates for ten bytes.
        assert!(IndexPartition::decode(&bytes, &partition(2, 28), 4).is_none());
        builder.add_block(None, 10, None);
        builder.add_block(Some(Fence::between(b"a", b"b", 1)), 10, Some(30));
        bytes.clear();
        builder.finish(&mut bytes);
        assert!(IndexPartition::decode(&bytes, &partition(2, 28), 4).is_some());
        assert!(IndexPartition::decode(&bytes, &partition(2, 29), 4).is_none());
        assert!(IndexPartition::decode(&bytes, &partition(1, 28), 4).is_none());
        for cut in 0..bytes.len() {
            assert!(IndexPartition::decode(&bytes[..cut], &partition(2, 28), 4).is_none());
        }
    }

    #[test]
    fn the_top_level_adds_up_offsets_and_ordinals() {
        let mut builder = IndexBuilder::default();
        builder.add_partition(None, 3, 300, Some(65), 40);
        builder.add_partition(Some(Fence::between(b"a", b"b", 1)), 2, 200, None, 30);
        let mut bytes = Vec::new();
        builder.finish(&mut bytes);
        let end = 128 + 300 + 69 + 44 + 200 + 34;
        let top = TopIndex::decode(&bytes, end, 4).unwrap();
        let second = top.partitions[1];
        assert_eq!((second.offset, second.ordinal), (128 + 413, 6));
        assert_eq!((second.index_offset(4), second.index_ordinal()), (741, 8));
        assert_eq!(top.ordinal_end, 9);
        assert!(TopIndex::decode(&bytes, end + 1, 4).is_none());
        assert!(TopIndex::decode(&bytes, end - 1, 4).is_none());
        assert!(Decoder::new(&bytes).varint() == Some(2));
    }
}
