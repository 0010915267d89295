//! Gathers the entries of one data block and lays them out.

use vault_core::limits::KEY_BYTES_MAX;

use super::block::{GROUP_BYTES, GROUP_ENTRIES, HEAD_BYTES, SUFFIX_ENDS_U16, SUFFIX_ENDS_U32};
use super::common_prefix_len;

/// What an entry is taken to add beside its key and value: end, trailer, its share of the group.
const ENTRY_BYTES_EXPECTED: usize = 8;

/// Most memory that is kept from block to block.
const RETAINED_BYTES_MAX: usize = 2 << 20;

/// Builds blocks, one after the other, in the same memory.
#[derive(Debug, Default)]
pub(super) struct BlockBuilder {
    values: Vec<u8>,
    value_ends: Vec<u32>,
    trailers: Vec<u64>,
    /// Finished groups and their records.
    keys: Vec<u8>,
    groups: Vec<[u8; GROUP_BYTES]>,
    /// Keys of the group that is not full yet, one behind the other, and where each ends.
    group_keys: Vec<u8>,
    group_ends: Vec<usize>,
    /// The whole block, once finished.
    bytes: Vec<u8>,
}

impl BlockBuilder {
    /// Whether there is no entry yet.
    pub(super) const fn is_empty(&self) -> bool {
        self.trailers.is_empty()
    }

    /// About how many bytes the block takes so far.
    pub(super) fn bytes(&self) -> usize {
        self.values.len()
            + self.keys.len()
            + self.group_keys.len()
            + self.trailers.len() * ENTRY_BYTES_EXPECTED
            + HEAD_BYTES
    }

    /// About how many bytes the block takes with one more entry.
    pub(super) fn bytes_with(&self, key: &[u8], value: &[u8]) -> usize {
        self.bytes() + key.len() + value.len() + ENTRY_BYTES_EXPECTED
    }

    /// Adds an entry. The caller keeps them in order.
    pub(super) fn add(&mut self, key: &[u8], trailer: u64, value: &[u8]) {
        assert!(key.len() <= KEY_BYTES_MAX, "key of {} bytes", key.len());
        if self.group_ends.len() == GROUP_ENTRIES {
            self.finish_group();
        }
        self.values.extend_from_slice(value);
        let end = u32::try_from(self.values.len());
        self.value_ends
            .push(end.expect("the writer keeps blocks below 4 GiB"));
        self.trailers.push(trailer);
        self.group_keys.extend_from_slice(key);
        self.group_ends.push(self.group_keys.len());
    }

    /// Lays out the block. Call [`Self::clear`] before the next.
    pub(super) fn finish(&mut self) -> &[u8] {
        assert!(!self.is_empty(), "a block has at least one entry");
        self.finish_group();
        self.bytes.clear();
        self.bytes.resize(HEAD_BYTES, 0);
        self.bytes.extend_from_slice(self.groups.as_flattened());
        self.bytes.extend_from_slice(&self.keys);
        let (trailer_width, trailer_shift, trailer_base) = self.put_trailers();
        let (value_width, value_len) = self.put_value_ends();
        let values_start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(&self.values);
        let head = &mut self.bytes[..HEAD_BYTES];
        head[0..4].copy_from_slice(&(self.trailers.len() as u32).to_le_bytes());
        head[4..8].copy_from_slice(&values_start.to_le_bytes());
        head[8..12].copy_from_slice(&value_len.to_le_bytes());
        head[12..16].copy_from_slice(&[value_width, trailer_width, trailer_shift, 0]);
        head[16..24].copy_from_slice(&trailer_base.to_le_bytes());
        assert!(
            u32::try_from(self.bytes.len()).is_ok(),
            "the writer keeps blocks below 4 GiB"
        );
        &self.bytes
    }

    /// Bytes of memory held.
    pub(super) const fn memory_bytes(&self) -> usize {
        self.values.capacity()
            + self.keys.capacity()
            + self.group_keys.capacity()
            + self.bytes.capacity()
            + self.trailers.capacity() * 12
            + self.groups.capacity() * GROUP_BYTES
    }

    /// Forgets all entries, keeping the memory, unless it was a large value that needed it.
    pub(super) fn clear(&mut self) {
        if self.bytes.capacity() > RETAINED_BYTES_MAX {
            *self = Self::default();
            return;
        }
        self.values.clear();
        self.value_ends.clear();
        self.trailers.clear();
        self.keys.clear();
        self.groups.clear();
    }

    fn finish_group(&mut self) {
        let first = &self.group_keys[..self.group_ends[0]];
        let last_start = match self.group_ends[..] {
            [.., start, _] => start,
            _ => 0,
        };
        // Keys are in order, so what the first and the last share they all share.
        let shared = common_prefix_len(first, &self.group_keys[last_start..]);
        let prefix_len = shared.min(usize::from(u16::MAX));
        let suffix_len = first.len() - prefix_len;
        let count = self.group_ends.len();
        let even = self.group_keys.len() == count * first.len()
            && self
                .group_ends
                .iter()
                .enumerate()
                .all(|(i, &end)| end == (i + 1) * first.len())
            && suffix_len < usize::from(SUFFIX_ENDS_U32);
        let start = u32::try_from(self.keys.len()).expect("the writer keeps blocks below 4 GiB");
        let kind = if even {
            suffix_len as u16
        } else {
            self.put_suffix_ends(prefix_len)
        };
        self.keys.extend_from_slice(&self.group_keys[..prefix_len]);
        let mut key_start = 0;
        for &end in &self.group_ends {
            self.keys
                .extend_from_slice(&self.group_keys[key_start + prefix_len..end]);
            key_start = end;
        }
        let record = u64::from(start) | (prefix_len as u64) << 32 | u64::from(kind) << 48;
        self.groups.push(record.to_le_bytes());
        self.group_keys.clear();
        self.group_ends.clear();
    }

    /// Writes where each suffix of the group ends, and gives the mark of the width that was used.
    fn put_suffix_ends(&mut self, prefix_len: usize) -> u16 {
        let end_of = |(i, &end): (usize, &usize)| end - (i + 1) * prefix_len;
        let narrow =
            self.group_keys.len() - self.group_ends.len() * prefix_len <= usize::from(u16::MAX);
        for end in self.group_ends.iter().enumerate().map(end_of) {
            if narrow {
                self.keys.extend_from_slice(&(end as u16).to_le_bytes());
            } else {
                self.keys.extend_from_slice(&(end as u32).to_le_bytes());
            }
        }
        if narrow {
            SUFFIX_ENDS_U16
        } else {
            SUFFIX_ENDS_U32
        }
    }

    /// Writes the column of value ends; gives its width and, where that is 0, the length of all values.
    fn put_value_ends(&mut self) -> (u8, u32) {
        let len = self.value_ends[0];
        let even = |(i, &end): (usize, &u32)| u64::from(end) == (i as u64 + 1) * u64::from(len);
        if self.value_ends.iter().enumerate().all(even) {
            return (0, len);
        }
        let last = self.value_ends[self.value_ends.len() - 1];
        if u16::try_from(last).is_ok() {
            for &end in &self.value_ends {
                self.bytes.extend_from_slice(&(end as u16).to_le_bytes());
            }
            return (2, 0);
        }
        for &end in &self.value_ends {
            self.bytes.extend_from_slice(&end.to_le_bytes());
        }
        (4, 0)
    }

    /// Writes the column of trailers; gives its width, shift and base.
    fn put_trailers(&mut self) -> (u8, u8, u64) {
        let (mut least, mut greatest, mut differing) = (u64::MAX, 0, 0);
        for &trailer in &self.trailers {
            least = least.min(trailer);
            greatest = greatest.max(trailer);
            differing |= trailer ^ self.trailers[0];
        }
        let shift = if differing & 0xff == 0 { 8 } else { 0 };
        let span = (greatest - least) >> shift;
        let width = (64 - span.leading_zeros() as usize).div_ceil(8);
        for &trailer in &self.trailers {
            let delta = (trailer - least) >> shift;
            self.bytes.extend_from_slice(&delta.to_le_bytes()[..width]);
        }
        (width as u8, shift, least)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::block::Block;
    use super::*;

    type Entry = (Vec<u8>, u64, Vec<u8>);

    fn build(entries: &[Entry]) -> Vec<u8> {
        let mut builder = BlockBuilder::default();
        // A builder that was used before must give the same block.
        builder.add(b"rubbish", 1, b"rubbish");
        builder.finish();
        builder.clear();
        for (key, trailer, value) in entries {
            builder.add(key, *trailer, value);
        }
        builder.finish().to_vec()
    }

    fn key_of(block: &Block, entry: usize) -> Vec<u8> {
        let group = block.group(entry / GROUP_ENTRIES);
        let mut key = block.prefix(&group).to_vec();
        key.extend_from_slice(block.suffix(&group, entry % GROUP_ENTRIES));
        key
    }

    fn check(entries: &[Entry]) {
        let bytes = build(entries);
        let block = Block::parse(Arc::from(&bytes[..]), bytes.len()).unwrap();
        assert_eq!(block.len(), entries.len());
        for (i, (key, trailer, value)) in entries.iter().enumerate() {
            assert_eq!(&key_of(&block, i), key);
            assert_eq!(block.trailer(i), *trailer);
            assert_eq!(block.value(i), value);
            assert_eq!(block.value_slice(i), &value[..]);
            assert!(block.has_key(i, key));
            let longer = [&key[..], &[0]].concat();
            assert!(!block.has_key(i, &longer));
            assert_eq!(block.lower_bound(key, *trailer), i);
            for (key, trailer) in [(key, u64::MAX), (key, 0), (&longer, 7), (key, trailer - 1)] {
                let expected = entries.iter().position(|e| {
                    crate::internal_key::compare((&e.0, e.1), (key, trailer)).is_ge()
                });
                assert_eq!(
                    block.lower_bound(key, trailer),
                    expected.unwrap_or(entries.len())
                );
            }
            if let Some((_, shorter)) = key.split_last() {
                let expected = entries.iter().position(|e| &e.0[..] >= shorter);
                assert_eq!(block.lower_bound(shorter, u64::MAX), expected.unwrap());
            }
        }
    }

    #[test]
    fn blocks_of_every_shape_read_back() {
        let even =
            |n: u64| (0..n).map(|i| (format!("key{i:05}").into_bytes(), 256 * 9 + 1, vec![7; 3]));
        check(&even(1).collect::<Vec<_>>());
        check(&even(16).collect::<Vec<_>>());
        check(&even(17).collect::<Vec<_>>());
        check(&even(500).collect::<Vec<_>>());
        // Different lengths, kinds, many versions of a key, keys that are prefixes of others.
        let mut uneven = Vec::new();
        for i in 0..60_usize {
            for version in (1..=i as u64 % 23 + 1).rev() {
                let key = [vec![b'a'; i / 7], vec![i as u8; i % 13]].concat();
                uneven.push((key, version << 8 | (version % 3 + 1), vec![1; i * 5 % 77]));
            }
        }
        uneven.sort_by(|a, b| crate::internal_key::compare((&a.0, a.1), (&b.0, b.1)));
        uneven.dedup_by(|a, b| (&a.0, a.1) == (&b.0, b.1));
        check(&uneven);
        // Huge keys and values, an empty key, no value.
        check(&[
            (vec![], 1 << 63 | 1, vec![]),
            (vec![3; KEY_BYTES_MAX], 513, vec![9; 100_000]),
            (vec![4; KEY_BYTES_MAX - 1], 257, vec![]),
            (vec![4; KEY_BYTES_MAX], 769, vec![2; 10]),
        ]);
        check(&[(vec![3; KEY_BYTES_MAX], u64::MAX, vec![])]);
        check(&[
            (vec![3; KEY_BYTES_MAX], 4, vec![1]),
            (vec![3; KEY_BYTES_MAX], 3, vec![2]),
        ]);
    }

    #[test]
    fn constant_columns_cost_nothing() {
        let entries: Vec<Entry> = (0..256_u32)
            .map(|i| (i.to_be_bytes().to_vec(), 257, vec![1; 10]))
            .collect();
        // 16 groups: 8 bytes of record, 3 of prefix, 16 suffixes of 1 byte each.
        assert_eq!(
            build(&entries).len(),
            256 * 10 + 16 * (8 + 3 + 16) + HEAD_BYTES
        );
    }

    #[test]
    fn hostile_blocks_are_refused_or_harmless() {
        let entries: Vec<Entry> = (0..40_u64)
            .map(|i| {
                (
                    vec![b'k'; i as usize % 5 + 1 + i as usize / 5],
                    512 + i,
                    vec![1; i as usize % 4],
                )
            })
            .collect();
        let mut entries = entries;
        entries.sort_by(|a, b| crate::internal_key::compare((&a.0, a.1), (&b.0, b.1)));
        let bytes = build(&entries);
        for cut in 0..bytes.len() {
            use_all(&bytes[..cut]);
        }
        let values = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff];
        for at in 0..bytes.len() {
            for value in values {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                use_all(&damaged);
            }
        }
    }

    /// Calls each accessor: nothing may panic on a block that parses.
    fn use_all(bytes: &[u8]) {
        let Ok(block) = Block::parse(Arc::from(bytes), bytes.len()) else {
            return;
        };
        for i in 0..block.len() {
            let key = key_of(&block, i);
            std::hint::black_box((block.value(i), block.has_key(i, &key)));
            assert!(block.lower_bound(&key, block.trailer(i)) <= block.len());
        }
    }
}
