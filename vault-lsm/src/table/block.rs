//! A data block in memory: entries that are reached by number and searched in place.
//!
//! Keys, trailers and values lie apart (see `docs/format/table.md`), so that a search touches only the
//! few cache lines of keys, and any entry is found without walking over others, in either direction.
//! All that a search touches lies at the front, next to the count of references that each reader of a
//! shared block has to touch anyway: behind the values it would cost another miss of the processor's
//! cache, and of its page translation.
//!
//! [`Block::parse`] checks the whole structure once. After that each offset is known to lie within the
//! block, each range to be in order, and the accessors need no error path.

use std::cmp::Ordering;
use std::sync::Arc;

use vault_core::Slice;

use super::head_of;

/// Entries that share a prefix.
pub(super) const GROUP_ENTRIES: usize = 16;
/// Bytes of a group's record.
pub(super) const GROUP_BYTES: usize = 8;
/// Bytes of the head, behind which the groups are.
pub(super) const HEAD_BYTES: usize = 24;
/// Suffix length that says: each suffix has its own, ends are `u16`.
pub(super) const SUFFIX_ENDS_U16: u16 = 0xffff;
/// Suffix length that says: each suffix has its own, ends are `u32`.
pub(super) const SUFFIX_ENDS_U32: u16 = 0xfffe;

/// Longer values are not copied: the block that they hold on to instead is not much longer.
const COPIED_BYTES_MAX: usize = 1 << 10;

/// Why a block cannot be used.
pub(super) type Problem = &'static str;

/// A parsed block. Cloning shares the bytes.
#[derive(Debug, Clone)]
pub(super) struct Block {
    /// The block, and whatever the buffer is longer.
    bytes: Arc<[u8]>,
    entries: u32,
    keys_start: u32,
    trailers_start: u32,
    value_ends_start: u32,
    values_start: u32,
    value_len: u32,
    value_width: u8,
    trailer_width: u8,
    trailer_shift: u8,
    trailer_base: u64,
}

/// The keys of up to sixteen neighbours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    /// Where the prefix begins in the block; the suffixes follow it.
    prefix_start: usize,
    prefix_len: usize,
    suffixes: Suffixes,
}

#[derive(Debug, Clone, Copy)]
enum Suffixes {
    Even(usize),
    EndsU16(usize),
    EndsU32(usize),
}

impl Block {
    /// Checks the structure of a block, which is the first `len` bytes of the buffer.
    pub(super) fn parse(bytes: Arc<[u8]>, len: usize) -> Result<Self, Problem> {
        let head = bytes[..len]
            .first_chunk::<HEAD_BYTES>()
            .ok_or("block shorter than its head")?;
        if u32::try_from(bytes.len()).is_err() {
            return Err("block larger than 4 GiB");
        }
        let entries = read_u32(head, 0);
        let values_start = read_u32(head, 4);
        let (value_width, trailer_width, trailer_shift) = (head[12], head[13], head[14]);
        if entries == 0 {
            return Err("block without entries");
        }
        if !matches!(value_width, 0 | 2 | 4)
            || trailer_width > 8
            || !matches!(trailer_shift, 0 | 8)
            || head[15] != 0
        {
            return Err("unknown column width");
        }
        // In 64 bits nothing here overflows. The columns lie between the groups and the values.
        let n = u64::from(entries);
        let keys_start = HEAD_BYTES as u64 + n.div_ceil(GROUP_ENTRIES as u64) * GROUP_BYTES as u64;
        let columns = n * u64::from(value_width) + n * u64::from(trailer_width);
        if keys_start + columns > u64::from(values_start) || values_start as usize > len {
            return Err("columns larger than the block");
        }
        let value_ends_start = values_start - entries * u32::from(value_width);
        let block = Self {
            entries,
            keys_start: keys_start as u32,
            trailers_start: value_ends_start - entries * u32::from(trailer_width),
            value_ends_start,
            values_start,
            value_len: read_u32(head, 8),
            value_width,
            trailer_width,
            trailer_shift,
            trailer_base: read_u64(head, 16),
            bytes,
        };
        block.check_values(len)?;
        block.check_groups()?;
        Ok(block)
    }

    /// Number of entries, at least 1.
    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.entries as usize
    }

    /// Bytes of memory held.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Gives up the buffer.
    pub(super) fn into_buffer(self) -> Arc<[u8]> {
        self.bytes
    }

    /// The first entry at or behind `(key, trailer)` in internal key order; [`Self::len`] if none.
    pub(super) fn lower_bound(&self, key: &[u8], trailer: u64) -> usize {
        // The last group whose first entry is not behind the target. The first group needs no look.
        let (mut low, mut high) = (0, self.len().div_ceil(GROUP_ENTRIES));
        while high - low > 1 {
            let middle = usize::midpoint(low, high);
            let first = self.group(middle).first_key(&self.bytes, self.keys_end());
            let order = first
                .cmp(key)
                .then_with(|| trailer.cmp(&self.trailer(middle * GROUP_ENTRIES)));
            if order == Ordering::Greater {
                high = middle;
            } else {
                low = middle;
            }
        }
        low * GROUP_ENTRIES + self.lower_bound_in_group(low, key, trailer)
    }

    /// Whether the entry has this user key.
    #[inline]
    pub(super) fn has_key(&self, entry: usize, key: &[u8]) -> bool {
        let group = self.group(entry / GROUP_ENTRIES);
        key.split_at_checked(group.prefix_len)
            .is_some_and(|(prefix, suffix)| {
                suffix == self.suffix(&group, entry % GROUP_ENTRIES)
                    && prefix == self.prefix(&group)
            })
    }

    /// The group that an entry divided by [`GROUP_ENTRIES`] is in.
    #[inline]
    pub(super) fn group(&self, group: usize) -> Group {
        let record = read_u64(&self.bytes, HEAD_BYTES + group * GROUP_BYTES);
        let start = self.keys_start as usize + (record as u32) as usize;
        let prefix_len = usize::from((record >> 32) as u16);
        let suffix = (record >> 48) as u16;
        let count = self.group_len(group);
        let (ends_bytes, suffixes) = match suffix {
            SUFFIX_ENDS_U16 => (2 * count, Suffixes::EndsU16(start)),
            SUFFIX_ENDS_U32 => (4 * count, Suffixes::EndsU32(start)),
            len => (0, Suffixes::Even(usize::from(len))),
        };
        Group {
            prefix_start: start + ends_bytes,
            prefix_len,
            suffixes,
        }
    }

    /// What the keys of a group begin with.
    #[inline]
    pub(super) fn prefix(&self, group: &Group) -> &[u8] {
        &self.bytes[group.prefix_start..group.prefix_start + group.prefix_len]
    }

    /// How the key of an entry goes on behind its group's prefix.
    #[inline]
    pub(super) fn suffix(&self, group: &Group, entry_in_group: usize) -> &[u8] {
        let (start, end) = group.suffix_range(&self.bytes, entry_in_group);
        &self.bytes[start..end]
    }

    /// Replaces what stands behind the prefix in `key` by the suffix of an entry; gives the length of
    /// the whole key. The buffer may stay longer than that.
    #[inline]
    pub(super) fn put_suffix(
        &self,
        group: &Group,
        entry_in_group: usize,
        key: &mut Vec<u8>,
    ) -> usize {
        let (start, end) = group.suffix_range(&self.bytes, entry_in_group);
        let key_len = group.prefix_len + end - start;
        // Nearly all suffixes are short: one word is moved without a call, whatever lies behind it.
        if end - start <= 8
            && let Some(word) = self.bytes[start..].first_chunk::<8>()
            && let Some(room) = key.get_mut(group.prefix_len..group.prefix_len + 8)
        {
            room.copy_from_slice(word);
        } else {
            key.truncate(group.prefix_len);
            key.extend_from_slice(&self.bytes[start..end]);
            key.resize(key_len + 8, 0);
        }
        key_len
    }

    /// The trailer of an entry.
    #[inline]
    pub(super) fn trailer(&self, entry: usize) -> u64 {
        let width = usize::from(self.trailer_width);
        if width == 0 {
            return self.trailer_base;
        }
        let word = read_u64_or_less(&self.bytes, self.trailers_start as usize + entry * width);
        let delta = word & (u64::MAX >> (64 - 8 * width));
        self.trailer_base.wrapping_add(delta << self.trailer_shift)
    }

    /// The stored value of an entry.
    #[inline]
    pub(super) fn value(&self, entry: usize) -> &[u8] {
        let (start, end) = self.value_range(entry);
        &self.bytes[start..end]
    }

    /// The stored value of an entry, sharing the block if it is not short.
    #[inline]
    pub(super) fn value_slice(&self, entry: usize) -> Slice {
        let (start, end) = self.value_range(entry);
        Slice::shared(&self.bytes, start, end - start)
    }

    /// The stored value of an entry, copied unless it is long.
    #[inline]
    pub(super) fn value_copied(&self, entry: usize) -> Slice {
        let value = self.value(entry);
        if value.len() <= COPIED_BYTES_MAX {
            Slice::from(value)
        } else {
            self.value_slice(entry)
        }
    }

    #[inline]
    fn value_range(&self, entry: usize) -> (usize, usize) {
        let (start, end) = match self.value_width {
            0 => {
                let len = self.value_len as usize;
                (entry * len, (entry + 1) * len)
            }
            2 => ends_u16(&self.bytes, self.value_ends_start as usize, entry),
            _ => ends_u32(&self.bytes, self.value_ends_start as usize, entry),
        };
        let base = self.values_start as usize;
        (base + start, base + end)
    }

    fn lower_bound_in_group(&self, number: usize, key: &[u8], trailer: u64) -> usize {
        let group = self.group(number);
        let count = self.group_len(number);
        let prefix = self.prefix(&group);
        let rest = match key.split_at_checked(group.prefix_len) {
            Some((front, rest)) => match front.cmp(prefix) {
                Ordering::Less => return 0,
                Ordering::Equal => rest,
                Ordering::Greater => return count,
            },
            // Shorter than the prefix: behind all keys if it differs upwards, else before them.
            None => return if key > prefix { count } else { 0 },
        };
        let head = head_of(rest);
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = usize::midpoint(low, high);
            let (start, end) = group.suffix_range(&self.bytes, middle);
            let order = head_within(&self.bytes, start, end - start)
                .cmp(&head)
                .then_with(|| self.bytes[start..end].cmp(rest))
                .then_with(|| trailer.cmp(&self.trailer(number * GROUP_ENTRIES + middle)));
            if order == Ordering::Less {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    #[inline]
    fn group_len(&self, group: usize) -> usize {
        (self.len() - group * GROUP_ENTRIES).min(GROUP_ENTRIES)
    }

    #[inline]
    const fn keys_end(&self) -> usize {
        self.trailers_start as usize
    }

    fn check_values(&self, len: usize) -> Result<(), Problem> {
        let n = self.len();
        let end = len as u64 - u64::from(self.values_start);
        let ends = &self.bytes[self.value_ends_start as usize..self.values_start as usize];
        let sound = match self.value_width {
            0 => n as u64 * u64::from(self.value_len) == end,
            2 => ascends(
                ends.as_chunks()
                    .0
                    .iter()
                    .map(|e| u64::from(u16::from_le_bytes(*e))),
                end,
            ),
            _ => ascends(
                ends.as_chunks()
                    .0
                    .iter()
                    .map(|e| u64::from(u32::from_le_bytes(*e))),
                end,
            ),
        };
        if sound {
            Ok(())
        } else {
            Err("value lengths don't add up")
        }
    }

    fn check_groups(&self) -> Result<(), Problem> {
        const PROBLEM: Problem = "key lengths don't add up";
        let keys = &self.bytes[self.keys_start as usize..self.keys_end()];
        let mut start = 0_usize;
        for number in 0..self.len().div_ceil(GROUP_ENTRIES) {
            let record = read_u64(&self.bytes, HEAD_BYTES + number * GROUP_BYTES);
            if (record as u32) as usize != start {
                return Err(PROBLEM);
            }
            let count = self.group_len(number);
            let prefix_len = usize::from((record >> 32) as u16);
            let len = match (record >> 48) as u16 {
                SUFFIX_ENDS_U16 => {
                    let ends = keys
                        .get(start..start + 2 * count)
                        .ok_or(PROBLEM)?
                        .as_chunks()
                        .0;
                    let last = u16::from_le_bytes(ends[count - 1]);
                    let ends = ends.iter().map(|e| u64::from(u16::from_le_bytes(*e)));
                    if !ascends(ends, u64::from(last)) {
                        return Err(PROBLEM);
                    }
                    2 * count + usize::from(last)
                }
                SUFFIX_ENDS_U32 => {
                    let ends = keys
                        .get(start..start + 4 * count)
                        .ok_or(PROBLEM)?
                        .as_chunks()
                        .0;
                    let last = u32::from_le_bytes(ends[count - 1]);
                    let ends = ends.iter().map(|e| u64::from(u32::from_le_bytes(*e)));
                    if !ascends(ends, u64::from(last)) {
                        return Err(PROBLEM);
                    }
                    4 * count + last as usize
                }
                len => count * usize::from(len),
            };
            start += prefix_len + len;
            if start > keys.len() {
                return Err(PROBLEM);
            }
        }
        if start == keys.len() {
            Ok(())
        } else {
            Err(PROBLEM)
        }
    }
}

impl Group {
    #[inline]
    fn suffix_range(&self, bytes: &[u8], entry: usize) -> (usize, usize) {
        let (start, end) = match self.suffixes {
            Suffixes::Even(len) => (entry * len, (entry + 1) * len),
            Suffixes::EndsU16(ends) => ends_u16(bytes, ends, entry),
            Suffixes::EndsU32(ends) => ends_u32(bytes, ends, entry),
        };
        let base = self.prefix_start + self.prefix_len;
        (base + start, base + end)
    }

    /// The first key, which the file has in one piece.
    #[inline]
    fn first_key<'a>(&self, bytes: &'a [u8], keys_end: usize) -> &'a [u8] {
        let (_, end) = self.suffix_range(bytes, 0);
        debug_assert!(end <= keys_end, "the parser checked where keys end");
        &bytes[self.prefix_start..end]
    }
}

/// Whether the numbers never go down and end at `last`.
fn ascends(ends: impl Iterator<Item = u64>, last: u64) -> bool {
    let mut previous = 0;
    let mut sound = true;
    for end in ends {
        sound &= end >= previous;
        previous = end;
    }
    sound && previous == last
}

#[inline]
fn ends_u16(bytes: &[u8], column: usize, entry: usize) -> (usize, usize) {
    let at = column + 2 * entry;
    let read = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    (if entry == 0 { 0 } else { read(at - 2) }, read(at))
}

#[inline]
fn ends_u32(bytes: &[u8], column: usize, entry: usize) -> (usize, usize) {
    let at = column + 4 * entry;
    let start = if entry == 0 {
        0
    } else {
        read_u32(bytes, at - 4) as usize
    };
    (start, read_u32(bytes, at) as usize)
}

/// The [head](head_of) of `len` bytes at `start`, read without looking where they end.
#[inline]
fn head_within(bytes: &[u8], start: usize, len: usize) -> u64 {
    let word = read_u64_or_less(bytes, start).swap_bytes();
    match len {
        0 => 0,
        1..=7 => word & (u64::MAX << (64 - 8 * len)),
        _ => word,
    }
}

#[inline]
fn read_u32(bytes: &[u8], at: usize) -> u32 {
    let chunk = bytes[at..].first_chunk::<4>();
    u32::from_le_bytes(*chunk.expect("the parser checked that the columns lie in the block"))
}

#[inline]
fn read_u64(bytes: &[u8], at: usize) -> u64 {
    let chunk = bytes[at..].first_chunk::<8>();
    u64::from_le_bytes(*chunk.expect("the parser checked that the columns lie in the block"))
}

/// Reads eight bytes, zeros where the block ends before. For columns that are narrower than that:
/// the caller masks off what it did not want.
#[inline]
fn read_u64_or_less(bytes: &[u8], at: usize) -> u64 {
    let rest = &bytes[at..];
    match rest.first_chunk::<8>() {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => {
            let mut chunk = [0; 8];
            chunk[..rest.len()].copy_from_slice(rest);
            u64::from_le_bytes(chunk)
        }
    }
}
