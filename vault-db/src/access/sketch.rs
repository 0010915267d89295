//! Which keys are accessed most.

use serde::{Deserialize, Serialize};

use crate::key::{DecodeKey, Key};

/// Keys that are followed at once, in each vault.
pub(crate) const KEYS_MAX: usize = 32;
/// Longer keys are not followed, so that memory stays bounded.
const KEY_BYTES_MAX: usize = 128;

/// Follows the keys that are accessed most, in bounded memory: the *Space-Saving* sketch (Metwally, Agrawal, El Abbadi:
/// "Efficient computation of frequent and top-k elements in data streams", 2005). A key that is not followed takes the
/// place of the one with the smallest count, and inherits that count as its possible error.
///
/// Any key with more than one in [`KEYS_MAX`] of the accesses is among those followed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sketch {
    #[serde(deserialize_with = "crate::catalog::list")]
    followed: Vec<Followed>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Followed {
    #[serde(with = "bytes")]
    key: Vec<u8>,
    count: u64,
    error: u64,
}

/// How often a key was accessed, about.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// let vault = db.vault("notes")?;
/// for _ in 0..10 {
///     vault.put("often", &1)?;
/// }
/// let top = &vault.stats()?.top_keys[0];
/// assert_eq!((top.key.clone(), top.accesses), ("often".into(), 10));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyAccesses {
    /// The key.
    pub key: Key,
    /// Accesses: at most this many.
    pub accesses: u64,
    /// By how many that may be too much. Sampling adds to it what chance does.
    pub error: u64,
}

impl Sketch {
    /// Takes note of accesses to a key.
    pub(crate) fn note(&mut self, key: &[u8], accesses: u64) {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return;
        }
        if let Some(followed) = self
            .followed
            .iter_mut()
            .find(|followed| followed.key == key)
        {
            followed.count += accesses;
            return;
        }
        if self.followed.len() < KEYS_MAX {
            self.followed.push(Followed {
                key: key.to_vec(),
                count: accesses,
                error: 0,
            });
            return;
        }
        let least = self
            .followed
            .iter_mut()
            .min_by_key(|followed| followed.count);
        if let Some(least) = least {
            least.error = least.count;
            least.count += accesses;
            least.key.clear();
            least.key.extend_from_slice(key);
        }
    }

    /// The keys that were accessed most, the first one most of all.
    pub(crate) fn top(&self) -> Vec<KeyAccesses> {
        let mut followed: Vec<_> = self.followed.iter().collect();
        followed.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.key.cmp(&b.key)));
        let decoded = followed.into_iter().filter_map(|followed| {
            Some(KeyAccesses {
                key: Key::decode_key(&followed.key).ok()?,
                accesses: followed.count,
                error: followed.error,
            })
        });
        decoded.collect()
    }
}

/// Byte strings as such, not as lists of numbers.
mod bytes {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::value::Value;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bytes(bytes) => Ok(bytes),
            other => Err(serde::de::Error::custom(format_args!(
                "expected bytes, found {}",
                other.kind()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use vault_core::random::SeededRandom;

    use super::*;
    use crate::key::EncodeKey;

    fn encoded(n: u64) -> Vec<u8> {
        let mut out = Vec::new();
        n.encode_key(&mut out).unwrap();
        out
    }

    #[test]
    fn frequent_keys_are_found_among_many() {
        let mut sketch = Sketch::default();
        let random = SeededRandom::new(3);
        for n in 0..100_000_u64 {
            // Three keys get a tenth each, the rest is spread over thousands.
            let key = match random.below(10) {
                0..3 => random.below(3),
                _ => 10 + random.below(20_000),
            };
            sketch.note(&encoded(key), 1);
            assert!(sketch.followed.len() <= KEYS_MAX, "after {n}");
        }
        let top: Vec<_> = sketch.top().into_iter().take(3).collect();
        let mut keys: Vec<_> = top.iter().map(|found| found.key.clone()).collect();
        keys.sort();
        assert_eq!(keys, [Key::from(0), Key::from(1), Key::from(2)]);
        for found in top {
            assert!(
                found.accesses >= 9_000 && found.accesses - found.error <= 11_000,
                "{found:?}"
            );
        }
    }

    #[test]
    fn long_keys_and_scans_are_not_followed() {
        let mut sketch = Sketch::default();
        sketch.note(&[2; KEY_BYTES_MAX + 1], 1);
        sketch.note(&[], 1);
        assert_eq!(sketch, Sketch::default());
    }

    #[test]
    fn it_is_stored_and_read() {
        let mut sketch = Sketch::default();
        sketch.note(&encoded(300), 5);
        let stored = crate::catalog::encode(&sketch).unwrap();
        assert_eq!(
            crate::catalog::decode::<Sketch>("a sketch", &stored).unwrap(),
            sketch
        );
    }
}
