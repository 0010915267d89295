//! Keys and values: which bytes stand for which number.
//!
//! A key is 16 lower-case hexadecimal digits, so that the order of keys is the order of numbers.
//! Loaded entry `i` has the number `4 * i`; `4 * i + 1` is never written, so that a lookup of it falls
//! between two entries that are there (the hard case for an engine: no table's key range rules it out);
//! `4 * i + 2` is for entries that a workload inserts later, anywhere in the key space.
//!
//! A value is half random and half repetition:
//!
//! ```text
//! check     8 bytes    a hash of the key: what every read verifies
//! random    up to half the value
//! copy      the first half again, as often as it takes
//! ```
//!
//! LZ4 makes half of it, within a value and without finding anything across values.

/// Bytes of a key.
pub const KEY_BYTES: usize = 16;

/// Bytes at the front of a value that follow from its key.
pub const CHECK_BYTES: usize = 8;

/// A key as it is stored.
pub type Key = [u8; KEY_BYTES];

/// One entry, with its own memory, to be filled again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Vec<u8>,
}

impl Entry {
    /// An entry with room for a value of this many bytes.
    #[must_use]
    pub fn with_value_bytes(value_bytes: usize) -> Self {
        Self {
            key: [b'0'; KEY_BYTES],
            value: vec![0; value_bytes],
        }
    }

    /// Makes this the entry with the given key number. The `generation` tells apart the values that
    /// one key has over time.
    pub fn fill(&mut self, number: u64, generation: u64) {
        self.key = key(number);
        let half = (self.value.len() / 2)
            .max(CHECK_BYTES)
            .min(self.value.len());
        let check = check_of(&self.key).to_le_bytes();
        let check_bytes = half.min(CHECK_BYTES);
        self.value[..check_bytes].copy_from_slice(&check[..check_bytes]);
        let mut state = mix(number ^ generation.rotate_left(48));
        for chunk in self.value[check_bytes..half].chunks_mut(8) {
            state = state.wrapping_add(GAMMA);
            chunk.copy_from_slice(&mix(state).to_le_bytes()[..chunk.len()]);
        }
        let mut filled = half;
        while filled < self.value.len() {
            let more = half.min(self.value.len() - filled);
            self.value.copy_within(..more, filled);
            filled += more;
        }
    }
}

/// Number of the key of loaded entry `index`.
#[must_use]
pub const fn loaded(index: u64) -> u64 {
    4 * index
}

/// Number of a key next to loaded entry `index` that is never written.
#[must_use]
pub const fn absent(index: u64) -> u64 {
    4 * index + 1
}

/// Number of a key next to loaded entry `index` that workloads may insert.
#[must_use]
pub const fn inserted(index: u64) -> u64 {
    4 * index + 2
}

/// The key with a number.
#[must_use]
pub fn key(number: u64) -> Key {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut key = [0; KEY_BYTES];
    for (i, digit) in key.iter_mut().enumerate() {
        *digit = DIGITS[(number >> (60 - 4 * i)) as usize & 15];
    }
    key
}

/// Whether a value is one that was written under this key.
#[inline]
#[must_use]
pub fn is_value_of(key: &[u8], value: &[u8]) -> bool {
    let (Ok(key), Some(check)) = (<&Key>::try_from(key), value.first_chunk()) else {
        return false;
    };
    u64::from_le_bytes(*check) == check_of(key)
}

#[inline]
fn check_of(key: &Key) -> u64 {
    let word = u128::from_le_bytes(*key);
    mix((word as u64).rotate_left(29) ^ (word >> 64) as u64)
}

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// Scatters a number over 64 bits: the finalizer of `SplitMix64` (Steele, Lea, Flood, 2014).
#[inline]
#[must_use]
pub const fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(GAMMA);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Random bits that follow from a stream (seed and workload) and a position in it.
#[inline]
#[must_use]
pub const fn random_at(stream: u64, position: u64) -> u64 {
    mix(stream ^ mix(position))
}

/// Maps random bits to a number below `bound`, evenly.
#[inline]
#[must_use]
pub const fn below(bits: u64, bound: u64) -> u64 {
    ((bits as u128 * bound as u128) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stand_in_the_order_of_their_numbers() {
        let numbers = [0, 1, 4, 15, 16, 255, 256, 1 << 40, u64::MAX];
        assert!(numbers.windows(2).all(|pair| key(pair[0]) < key(pair[1])));
        assert_eq!(&key(0x1f), b"000000000000001f");
    }

    #[test]
    fn a_value_belongs_to_one_key_and_differs_by_generation() {
        let (mut a, mut b) = (Entry::with_value_bytes(100), Entry::with_value_bytes(100));
        a.fill(loaded(7), 0);
        b.fill(loaded(7), 1);
        assert_ne!(a.value, b.value);
        assert!(is_value_of(&a.key, &a.value) && is_value_of(&a.key, &b.value));
        assert!(!is_value_of(&key(loaded(8)), &a.value));
        assert!(!is_value_of(&a.key, &a.value[..7]) && !is_value_of(b"short", &a.value));
    }

    #[test]
    fn half_of_a_value_is_repetition() {
        for bytes in [16, 17, 100, 1024] {
            let mut entry = Entry::with_value_bytes(bytes);
            entry.fill(12, 3);
            let half = bytes / 2;
            assert_eq!(entry.value[..half], entry.value[half..2 * half]);
            if bytes == 1024 {
                let distinct: std::collections::BTreeSet<_> =
                    entry.value[..half].chunks(8).collect();
                assert_eq!(distinct.len(), half / 8, "the other half must not compress");
            }
        }
    }
}
