//! The bytes of keys, values and names.
//!
//! Each holds [`CANARY`], as far as it is long enough, so that a scan of whatever a store leaves behind tells whether anything of
//! it can be read there. What follows the canary says what it is: `k` a key, `v` a value, `n` the name of a keyspace.

use super::{Key, SLOTS, Slot, Value};

/// Stands in every key, value and keyspace name of a plan that is long enough for it. Nothing else of a store looks like it.
pub const CANARY: &[u8; 8] = b"Canary7Q";

impl Slot {
    /// Its place among [`SLOTS`].
    #[must_use]
    pub const fn index(self) -> usize {
        (self.0 % SLOTS) as usize
    }

    /// The name of its keyspace.
    #[must_use]
    pub fn keyspace_name(self) -> String {
        format!("{}n-ks{}", CANARY.escape_ascii(), self.index())
    }
}

impl Key {
    /// The bytes of the key.
    #[must_use]
    pub fn bytes(self) -> Vec<u8> {
        match self.0 {
            0 => Vec::new(),
            1 => vec![0],
            2 => vec![0xff],
            3 => vec![0xff, 0xff, 0x00],
            4 => [CANARY, b"k".as_slice()].concat(),
            5 => [CANARY, b"k05".as_slice(), &[b'L'; 300]].concat(),
            n => [CANARY, format!("k{n:03}").as_bytes()].concat(),
        }
    }

    /// The first bytes of the key, those of the canary not counted.
    #[must_use]
    pub fn prefix(self, bytes: u8) -> Vec<u8> {
        let mut key = self.bytes();
        let before = if bytes > 0 && key.starts_with(CANARY) {
            CANARY.len()
        } else {
            0
        };
        key.truncate(before + usize::from(bytes));
        key
    }
}

impl Value {
    /// The bytes of the value.
    #[must_use]
    pub fn bytes(self) -> Vec<u8> {
        let len = usize::from(self.bytes);
        let mut bytes = format!("#{}:{}v", self.stamp, CANARY.escape_ascii()).into_bytes();
        if self.noise {
            let random = vault_core::random::SeededRandom::new(u64::from(self.stamp));
            while bytes.len() < len {
                bytes.extend_from_slice(&random.next_u64().to_le_bytes());
            }
        }
        bytes.resize(len, b'a' + (self.stamp % 26) as u8);
        bytes
    }

    /// The bytes of the value as a counter.
    #[must_use]
    pub fn counter(self) -> Vec<u8> {
        (i64::from(self.stamp) - 1_000).to_le_bytes().to_vec()
    }
}
