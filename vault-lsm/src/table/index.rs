//! The two levels of a table's index, decoded for searching.
//!
//! Both levels are a list of parts (data blocks, or partitions) told apart by [`Fences`]: see
//! `docs/format/table.md`. On disk lengths are stored and offsets are not; decoding adds the lengths up
//! and refuses a list whose sum is not what the level above says.

use vault_core::Slice;
use vault_core::codec::Decoder;
use vault_core::limits::KEY_BYTES_MAX;
use vault_core::transform::HEADER_BYTES;

use super::{Codec, head_of, plain_bytes_max};

/// A data block is LZ4-compressed.
pub(super) const FLAG_LZ4: u8 = 0x01;
/// The fence has a trailer.
pub(super) const FLAG_TRAILER: u8 = 0x02;
/// The partition has a filter block.
pub(super) const FLAG_FILTER: u8 = 0x04;
/// Fewest bytes that a data block but the first takes in an index block.
const BLOCK_ENTRY_BYTES_MIN: usize = 3;
/// Fewest bytes that a partition but the first takes in the top-level index.
const PARTITION_ENTRY_BYTES_MIN: usize = 5;
/// Ordinal of a table's first block; the footer has 0.
pub(super) const ORDINAL_FIRST: u64 = 1;

/// Internal keys that part neighbouring blocks, all but their common prefix.
///
/// The search looks at the first eight bytes of each as one number, which decides nearly always: fences
/// are as short as they can be.
#[derive(Debug, Clone)]
pub(super) struct Fences {
    /// Kept inside where it is short: it is the first thing that a search looks at.
    prefix: Slice,
    /// Beside it, as they are looked at next.
    spread: Spread,
    heads: Box<[u64]>,
    /// Where each fence ends in `keys`.
    ends: Box<[u32]>,
    keys: Box<[u8]>,
    /// `u64::MAX`, before all versions, where a fence has none. Empty if none has one.
    trailers: Box<[u64]>,
}

impl Fences {
    /// The part that can hold `(key, trailer)`: the last one whose fence is not behind it.
    #[inline]
    pub(super) fn find(&self, key: &[u8], trailer: u64) -> usize {
        let Some((front, rest)) = key.split_at_checked(self.prefix.len()) else {
            return if key > &self.prefix[..] {
                self.heads.len()
            } else {
                0
            };
        };
        match front.cmp(&self.prefix) {
            std::cmp::Ordering::Less => return 0,
            std::cmp::Ordering::Greater => return self.heads.len(),
            std::cmp::Ordering::Equal => {}
        }
        let head = head_of(rest);
        let mut low = lower_bound(&self.heads, &self.spread, head);
        if self.heads.get(low) != Some(&head) {
            return low;
        }
        let mut high = low + self.heads[low..].partition_point(|&fence| fence == head);
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.is_at_or_before(middle, rest, trailer) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The fence in front of part `part` (not the first): key and trailer.
    pub(super) fn before(&self, part: usize) -> Option<(Vec<u8>, u64)> {
        let fence = part.checked_sub(1)?;
        let end = *self.ends.get(fence)? as usize;
        let start = fence
            .checked_sub(1)
            .map_or(0, |before| self.ends[before] as usize);
        let key = [&self.prefix, &self.keys[start..end]].concat();
        let trailer = self.trailers.get(fence).copied().unwrap_or(u64::MAX);
        Some((key, trailer))
    }

    /// Whether part number `part` begins at or before `(key, trailer)`.
    pub(super) fn starts_by(&self, part: usize, key: &[u8], trailer: u64) -> bool {
        part == 0 || self.find(key, trailer) >= part
    }

    fn is_at_or_before(&self, fence: usize, rest: &[u8], trailer: u64) -> bool {
        let start = fence
            .checked_sub(1)
            .map_or(0, |before| self.ends[before] as usize);
        let own = &self.keys[start..self.ends[fence] as usize];
        let own_trailer = self.trailers.get(fence).copied().unwrap_or(u64::MAX);
        crate::internal_key::compare((own, own_trailer), (rest, trailer)).is_le()
    }

    /// The fence in front of part `number + 1`, whole, with the trailer that it stands for.
    #[cfg(feature = "fuzzing")]
    pub(super) fn fence(&self, number: usize) -> (Vec<u8>, u64) {
        let start = number
            .checked_sub(1)
            .map_or(0, |before| self.ends[before] as usize);
        let own = &self.keys[start..self.ends[number] as usize];
        let trailer = self.trailers.get(number).copied().unwrap_or(u64::MAX);
        ([&self.prefix, own].concat(), trailer)
    }

    fn memory_bytes(&self) -> u64 {
        let words = self.heads.len() * 12 + self.trailers.len() * 8;
        (words + self.prefix.len() + self.keys.len()) as u64
    }
}

/// Between which numbers the heads lie, and how close.
#[derive(Debug, Clone, Copy)]
struct Spread {
    first: u64,
    last: u64,
    /// Heads for each number between the first and the last.
    density: f64,
}

impl Spread {
    fn of(heads: &[u64]) -> Self {
        let (first, last) = match (heads.first(), heads.last()) {
            (Some(&first), Some(&last)) => (first, last),
            _ => (0, 0),
        };
        let steps = heads.len().saturating_sub(1) as f64;
        let density = if last > first {
            steps / (last - first) as f64
        } else {
            0.0
        };
        Self {
            first,
            last,
            density,
        }
    }
}

/// The first of the ascending `heads`, which are `spread` like that, that is not below `head`.
///
/// Keys are mostly spread evenly over a stretch as short as that of one partition, so the search begins where `head` would
/// be if they all were, and goes on from there in steps that double: one or two cache lines are touched instead of one for each
/// halving. Keys that are spread otherwise cost it twice the steps of a binary search at most.
#[inline]
fn lower_bound(heads: &[u64], spread: &Spread, head: u64) -> usize {
    /// So many heads lie in a few cache lines anyway.
    const FEW: usize = 32;
    if heads.len() <= FEW || head <= spread.first || head > spread.last {
        return heads.partition_point(|&fence| fence < head);
    }
    // In 128 bits exactly, but a guess needs no more than floats, which take a quarter of the time.
    let guess = ((head - spread.first) as f64 * spread.density) as usize;
    let guess = guess.min(heads.len() - 1);
    let mut step = 4;
    let (low, high) = if heads[guess] < head {
        let mut low = guess;
        while heads.get(low + step).is_some_and(|&fence| fence < head) {
            low += step;
            step *= 2;
        }
        (low + 1, (low + step).min(heads.len()))
    } else {
        let mut high = guess;
        while high >= step && heads[high - step] >= head {
            high -= step;
            step *= 2;
        }
        (high.saturating_sub(step), high)
    };
    low + heads[low..high].partition_point(|&fence| fence < head)
}

/// Gathers fences as they are decoded, in memory that was taken once for all of them: a list that grows
/// takes up to twice what it needs.
struct FencesDecoder {
    heads: Vec<u64>,
    ends: Vec<u32>,
    keys: Vec<u8>,
    /// Only from the first one on that has a trailer.
    trailers: Vec<u64>,
}

impl FencesDecoder {
    /// Gathers the fences of `parts` parts, of which the first has none, out of `bytes_left` bytes.
    fn new(parts: usize, bytes_left: usize) -> Self {
        let fences = parts.saturating_sub(1);
        Self {
            heads: Vec::with_capacity(fences),
            ends: Vec::with_capacity(fences),
            keys: Vec::with_capacity(bytes_left),
            trailers: Vec::new(),
        }
    }

    fn take(&mut self, d: &mut Decoder<'_>, has_trailer: bool) -> Option<()> {
        let fence = d.bytes()?;
        if fence.len() > KEY_BYTES_MAX {
            return None;
        }
        let trailer = if has_trailer { d.u64()? } else { u64::MAX };
        if has_trailer && self.trailers.is_empty() {
            self.trailers.reserve_exact(self.heads.capacity());
            self.trailers.resize(self.heads.len(), u64::MAX);
        }
        self.heads.push(head_of(fence));
        self.keys.extend_from_slice(fence);
        self.ends.push(u32::try_from(self.keys.len()).ok()?);
        if self.trailers.capacity() > 0 {
            self.trailers.push(trailer);
        }
        Some(())
    }

    /// `None` if the fences are not in order: a search among them would miss entries.
    fn finish(self, prefix: &[u8]) -> Option<Fences> {
        let fences = Fences {
            prefix: Slice::from(prefix),
            spread: Spread::of(&self.heads),
            heads: self.heads.into(),
            ends: self.ends.into(),
            keys: self.keys.into(),
            trailers: self.trailers.into(),
        };
        let mut start = 0;
        for (fence, &end) in fences
            .ends
            .iter()
            .enumerate()
            .take(fences.ends.len().saturating_sub(1))
        {
            let own = &fences.keys[start..end as usize];
            let trailer = fences.trailers.get(fence).copied().unwrap_or(u64::MAX);
            if fences.is_at_or_before(fence + 1, own, trailer) {
                return None;
            }
            start = end as usize;
        }
        Some(fences)
    }
}

/// Where a data block is, within its partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct DataBlock {
    /// From the partition's first byte.
    pub(super) offset: u32,
    /// Length before sealing.
    pub(super) stored_len: u32,
    /// Length before compression.
    pub(super) plain_len: u32,
    pub(super) codec: Codec,
}

/// The index of one partition.
#[derive(Debug)]
pub(super) struct IndexPartition {
    pub(super) fences: Fences,
    /// Of the first data block.
    ordinal: u64,
    blocks: Box<[DataBlock]>,
}

impl IndexPartition {
    /// Decodes the index of `partition`, whose blocks each carry `overhead` bytes of seal.
    pub(super) fn decode(bytes: &[u8], partition: &Partition, overhead: u64) -> Option<Self> {
        let mut d = Decoder::new(bytes);
        let count = count_of(&mut d, BLOCK_ENTRY_BYTES_MIN)?;
        if count as u64 != partition.blocks {
            return None;
        }
        let prefix = d.bytes()?;
        let mut fences = FencesDecoder::new(count, d.rest().len());
        let mut blocks = Vec::with_capacity(count);
        let mut offset = 0_u64;
        for i in 0..count {
            let flags = d.u8()?;
            let known = if i == 0 {
                FLAG_LZ4
            } else {
                FLAG_LZ4 | FLAG_TRAILER
            };
            if flags & !known != 0 {
                return None;
            }
            if i > 0 {
                fences.take(&mut d, flags & FLAG_TRAILER != 0)?;
            }
            let stored_len = u32::try_from(d.varint()?).ok()?;
            let (codec, plain_len) = if flags & FLAG_LZ4 == 0 {
                (Codec::Raw, stored_len)
            } else {
                (Codec::Lz4, u32::try_from(d.varint()?).ok()?)
            };
            if u64::from(plain_len) > plain_bytes_max(u64::from(stored_len)) {
                return None;
            }
            blocks.push(DataBlock {
                offset: u32::try_from(offset).ok()?,
                stored_len,
                plain_len,
                codec,
            });
            offset += u64::from(stored_len) + overhead;
        }
        if !d.is_empty() || offset != partition.data_bytes {
            return None;
        }
        Some(Self {
            fences: fences.finish(prefix)?,
            ordinal: partition.ordinal,
            blocks: blocks.into(),
        })
    }

    /// The ordinal of data block `number`.
    #[inline]
    pub(super) const fn ordinal(&self, number: usize) -> u64 {
        self.ordinal + number as u64
    }

    /// The data blocks in order; at least one.
    #[inline]
    pub(super) const fn blocks(&self) -> &[DataBlock] {
        &self.blocks
    }

    /// Bytes of memory held.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.fences.memory_bytes() + size_of_val::<[DataBlock]>(&self.blocks) as u64
    }
}

/// Where a partition is, and what it consists of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Partition {
    /// Where its first data block begins in the file.
    pub(super) offset: u64,
    /// Ordinal of its first data block.
    pub(super) ordinal: u64,
    /// Number of data blocks, at least one.
    pub(super) blocks: u64,
    /// Bytes of all data blocks, sealed.
    pub(super) data_bytes: u64,
    /// Stored length of the filter block; 0: there is none.
    pub(super) filter_len: u32,
    /// Stored length of the index block.
    pub(super) index_len: u32,
}

impl Partition {
    /// Where the filter block begins, if there is one.
    pub(super) const fn filter_offset(&self) -> u64 {
        self.offset + self.data_bytes
    }

    /// Where the index block begins.
    pub(super) const fn index_offset(&self, overhead: u64) -> u64 {
        match self.filter_len {
            0 => self.filter_offset(),
            len => self.filter_offset() + len as u64 + overhead,
        }
    }

    /// Ordinal of the filter block, if there is one.
    pub(super) const fn filter_ordinal(&self) -> u64 {
        self.ordinal + self.blocks
    }

    /// Ordinal of the index block.
    pub(super) const fn index_ordinal(&self) -> u64 {
        self.filter_ordinal() + (self.filter_len > 0) as u64
    }
}

/// The top level of the index.
#[derive(Debug, Clone)]
pub(super) struct TopIndex {
    pub(super) fences: Fences,
    pub(super) partitions: Box<[Partition]>,
    /// Where the first byte behind all partitions is.
    pub(super) end: u64,
    /// Ordinal of the first block behind all partitions.
    pub(super) ordinal_end: u64,
}

impl TopIndex {
    /// Decodes the top level of a table whose partitions end at `end`.
    pub(super) fn decode(bytes: &[u8], end: u64, overhead: u64) -> Option<Self> {
        let mut d = Decoder::new(bytes);
        let count = count_of(&mut d, PARTITION_ENTRY_BYTES_MIN)?;
        let prefix = d.bytes()?;
        let mut fences = FencesDecoder::new(count, d.rest().len());
        let mut partitions = Vec::with_capacity(count);
        let (mut offset, mut ordinal) = (HEADER_BYTES as u64, ORDINAL_FIRST);
        for i in 0..count {
            let flags = d.u8()?;
            let known = if i == 0 {
                FLAG_FILTER
            } else {
                FLAG_FILTER | FLAG_TRAILER
            };
            if flags & !known != 0 {
                return None;
            }
            if i > 0 {
                fences.take(&mut d, flags & FLAG_TRAILER != 0)?;
            }
            let blocks = d.varint()?;
            let data_bytes = d.varint()?;
            let filter_len = if flags & FLAG_FILTER == 0 {
                0
            } else {
                u32::try_from(d.varint()?).ok().filter(|&len| len > 0)?
            };
            let index_len = u32::try_from(d.varint()?).ok()?;
            let left = end.checked_sub(offset)?;
            if blocks == 0 || blocks > data_bytes || data_bytes > left {
                return None;
            }
            let partition = Partition {
                offset,
                ordinal,
                blocks,
                data_bytes,
                filter_len,
                index_len,
            };
            offset = partition.index_offset(overhead) + u64::from(index_len) + overhead;
            ordinal = partition.index_ordinal() + 1;
            partitions.push(partition);
        }
        if !d.is_empty() || offset != end {
            return None;
        }
        Some(Self {
            fences: fences.finish(prefix)?,
            partitions: partitions.into(),
            end,
            ordinal_end: ordinal,
        })
    }

    /// Bytes of memory held.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.fences.memory_bytes() + size_of_val::<[Partition]>(&self.partitions) as u64
    }
}

/// Reads a number of entries that the rest of the bytes can hold.
fn count_of(d: &mut Decoder<'_>, entry_bytes_min: usize) -> Option<usize> {
    let count = usize::try_from(d.varint()?).ok()?;
    (count <= d.rest().len() / entry_bytes_min + 1).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the plain search, for heads that are spread evenly, by powers, in clusters, and all alike.
    #[test]
    fn the_guess_finds_what_halving_finds() {
        let spreads: [fn(u64) -> u64; 5] = [
            |i| i * 1_000_003 + 17,
            |i| 1 << (i * 64 / 200).min(63),
            |i| ((i / 50) << 40) | (i % 50),
            |_| 7,
            |i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        ];
        for spread in spreads {
            for count in [0, 1, 31, 33, 64, 200] {
                let mut heads: Vec<u64> = (0..count).map(spread).collect();
                heads.sort_unstable();
                let near = heads
                    .iter()
                    .flat_map(|&h| [h.wrapping_sub(1), h, h.wrapping_add(1)]);
                for head in near.chain([0, 1 << 33, u64::MAX]) {
                    let expected = heads.partition_point(|&fence| fence < head);
                    let found = lower_bound(&heads, &Spread::of(&heads), head);
                    assert_eq!(found, expected, "{head} in {heads:?}");
                }
            }
        }
    }
}
