//! The filter of a partition: a Bloom filter whose probes for one key share one cache line.
//!
//! After Putze, Sanders, Singler: "Cache-, Hash- and Space-Efficient Bloom Filters", 2007. One miss of
//! the processor's cache a lookup, at the price of a slightly higher rate of false positives (1.2 %
//! instead of 0.9 % at ten bits a key).

/// Bytes of a line, which is what a processor fetches at once.
const LINE_BYTES: usize = 64;
const WORDS: usize = LINE_BYTES / 8;
/// Most probes a filter may ask for.
const PROBES_MAX: u8 = 24;
/// Bits that choose one of the 512 of a line.
const BIT_BITS: u32 = 9;
/// Probes that one 64-bit product feeds.
const PROBES_A_WORD: u8 = (64 / BIT_BITS) as u8;
/// 2^64 divided by the golden ratio: spreads consecutive numbers best (Knuth, volume 3, 6.4).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Debug, Clone, PartialEq, Eq)]
#[repr(align(64))]
struct Line([u64; WORDS]);

/// A filter over the hashes of user keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    lines: Box<[Line]>,
    probes: u8,
}

impl Filter {
    /// A filter of `hashes` with `bits_per_key` bits each.
    pub(super) fn build(hashes: &[u64], bits_per_key: u8) -> Self {
        let bits = hashes.len() * usize::from(bits_per_key.clamp(1, 32));
        let count = bits.div_ceil(LINE_BYTES * 8).max(1);
        let mut filter = Self {
            lines: vec![Line([0; WORDS]); count].into(),
            probes: probes_for(bits_per_key),
        };
        for &hash in hashes {
            let line = filter.line_of(hash);
            let line = &mut filter.lines[line].0;
            for_each_bit(hash, filter.probes, |word, bit| line[word] |= 1 << bit);
        }
        filter
    }

    /// Whether a key with this hash may be there.
    #[inline]
    pub(super) fn may_contain(&self, hash: u64) -> bool {
        let line = &self.lines[self.line_of(hash)].0;
        // No early exit: all probes hit one cache line, and a branch that goes either way costs more.
        let mut all = 1;
        for_each_bit(hash, self.probes, |word, bit| all &= line[word] >> bit);
        all & 1 != 0
    }

    /// Appends the filter's bytes.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for word in self.lines.iter().flat_map(|line| line.0) {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.push(self.probes);
    }

    /// Reads a filter that takes all of `bytes`.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&probes, lines) = bytes.split_last()?;
        let (lines, rest) = lines.as_chunks::<LINE_BYTES>();
        if lines.is_empty() || !rest.is_empty() || !(1..=PROBES_MAX).contains(&probes) {
            return None;
        }
        let line = |bytes: &[u8; LINE_BYTES]| {
            let mut words = [0; WORDS];
            for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *word = u64::from_le_bytes(*bytes);
            }
            Line(words)
        };
        Some(Self {
            lines: lines.iter().map(line).collect(),
            probes,
        })
    }

    /// Bytes of memory held.
    pub(super) fn memory_bytes(&self) -> u64 {
        size_of_val::<[Line]>(&self.lines) as u64
    }

    #[inline]
    fn line_of(&self, hash: u64) -> usize {
        // Multiply-shift in place of a division (Lemire, 2019): below the number of lines.
        let wide = u128::from(hash >> 32) * self.lines.len() as u128;
        (wide >> 32) as usize
    }
}

/// Probes that keep false positives lowest. Below the ln 2 × bits of a plain Bloom filter, because
/// lines are filled unevenly.
fn probes_for(bits_per_key: u8) -> u8 {
    ((u32::from(bits_per_key) * 62 + 50) / 100).clamp(1, 16) as u8
}

#[inline]
fn for_each_bit(hash: u64, probes: u8, mut probe: impl FnMut(usize, u32)) {
    let mut word = hash.wrapping_mul(GOLDEN);
    let mut left = probes;
    loop {
        let mut bits = word;
        for _ in 0..left.min(PROBES_A_WORD) {
            bits = bits.rotate_left(BIT_BITS);
            let bit = (bits & 511) as usize;
            probe(bit >> 6, (bit & 63) as u32);
        }
        if left <= PROBES_A_WORD {
            return;
        }
        left -= PROBES_A_WORD;
        word = word.wrapping_mul(GOLDEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::key_hash;

    fn hashes(range: std::ops::Range<u64>) -> Vec<u64> {
        range.map(|i| key_hash(&i.to_be_bytes())).collect()
    }

    #[test]
    fn every_key_is_found_and_few_others_are() {
        // Rates in parts of 10 000, with some room above what was measured.
        for (bits, most) in [(1, 7000), (4, 1700), (10, 140), (16, 25), (32, 6)] {
            let filter = Filter::build(&hashes(0..20_000), bits);
            assert!(hashes(0..20_000).iter().all(|&h| filter.may_contain(h)));
            let wrong = hashes(1_000_000..1_100_000)
                .iter()
                .filter(|&&h| filter.may_contain(h))
                .count();
            assert!(wrong / 10 <= most, "{bits} bits: {wrong} of 100000");
        }
    }

    #[test]
    fn filters_round_trip_and_nonsense_is_refused() {
        let filter = Filter::build(&hashes(0..100), 10);
        let mut bytes = Vec::new();
        filter.encode(&mut bytes);
        assert_eq!(Filter::decode(&bytes), Some(filter));
        assert_eq!(Filter::decode(&bytes[1..]), None);
        assert_eq!(Filter::decode(&[]), None);
        assert_eq!(Filter::decode(&[7]), None);
        *bytes.last_mut().unwrap() = 0;
        assert_eq!(Filter::decode(&bytes), None);
    }

    #[test]
    fn the_bits_are_those_of_the_format() {
        let hash = 0x0123_4567_89ab_cdef_u64;
        let x = hash.wrapping_mul(GOLDEN);
        let y = x.wrapping_mul(GOLDEN);
        let mut bits = Vec::new();
        for_each_bit(hash, 9, |word, bit| {
            bits.push(word as u64 * 64 + u64::from(bit))
        });
        let shifts = [55, 46, 37, 28, 19, 10, 1];
        let mut expected: Vec<_> = shifts.iter().map(|s| (x >> s) & 511).collect();
        expected.extend([(y >> 55) & 511, (y >> 46) & 511]);
        assert_eq!(bits, expected);
    }
}
