//! The data keys of a store: one for each domain and epoch.
//!
//! A table never changes: each change makes another one that shares the keys, so that the old one holds until the new one
//! is durable. A key is wiped when the last table that has it goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vault_core::Result;
use vault_core::codec::Decoder;
use vault_core::limits::KEYSPACES_MAX;
use vault_core::random::Random;
use zeroize::Zeroizing;

use crate::secret::{KEY_BYTES, SecretKey};

/// The domain of the store's own files.
pub(crate) const STORE_DOMAIN: u32 = 0;
/// The first epoch.
pub(crate) const EPOCH_FIRST: u32 = 1;
/// Most keys in a keyring: all domains there can be, in the current epoch and three earlier ones.
pub(crate) const KEYS_MAX: usize = 4 * (KEYSPACES_MAX + 1);
/// Bytes of a key with its domain and epoch.
pub(crate) const ENTRY_BYTES: usize = 4 + 4 + KEY_BYTES;

/// The data keys by domain and epoch, and which epoch is current.
pub(crate) struct KeyTable {
    epoch: u32,
    keys: BTreeMap<(u32, u32), Arc<SecretKey>>,
}

impl KeyTable {
    /// Keys of a new store: one for its own files.
    pub(crate) fn first(random: &dyn Random) -> Result<Self> {
        let key = Arc::new(SecretKey::random(random)?);
        Ok(Self {
            epoch: EPOCH_FIRST,
            keys: BTreeMap::from([((STORE_DOMAIN, EPOCH_FIRST), key)]),
        })
    }

    /// The epoch under which new files are sealed.
    pub(crate) const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Number of keys.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The key of a domain and epoch.
    pub(crate) fn get(&self, domain: u32, epoch: u32) -> Option<&SecretKey> {
        self.keys.get(&(domain, epoch)).map(|key| &**key)
    }

    /// Whether the domain has keys. Then it has one of the current epoch.
    pub(crate) fn has_domain(&self, domain: u32) -> bool {
        self.keys.contains_key(&(domain, self.epoch))
    }

    /// The domains that have keys.
    pub(crate) fn domains(&self) -> impl Iterator<Item = u32> {
        let epoch = self.epoch;
        let current = self.keys.keys().filter(move |(_, of)| *of == epoch);
        current.map(|(domain, _)| *domain)
    }

    /// The epochs of which there are keys.
    pub(crate) fn epochs(&self) -> BTreeSet<u32> {
        self.keys.keys().map(|(_, epoch)| *epoch).collect()
    }

    /// With a fresh key for one more domain.
    pub(crate) fn with_domain(&self, domain: u32, random: &dyn Random) -> Result<Self> {
        let mut keys = self.keys.clone();
        keys.insert((domain, self.epoch), Arc::new(SecretKey::random(random)?));
        Ok(Self {
            epoch: self.epoch,
            keys,
        })
    }

    /// With a fresh key for every domain under an epoch that becomes the current one.
    pub(crate) fn with_epoch(&self, epoch: u32, random: &dyn Random) -> Result<Self> {
        debug_assert!(epoch > self.epoch, "epochs count up");
        let mut keys = self.keys.clone();
        for domain in self.domains() {
            keys.insert((domain, epoch), Arc::new(SecretKey::random(random)?));
        }
        Ok(Self { epoch, keys })
    }

    /// With only the keys for which `keep` says so, of the same current epoch.
    pub(crate) fn keeping(&self, keep: impl Fn(u32, u32) -> bool) -> Self {
        let kept = self.keys.iter().filter(|((d, e), _)| keep(*d, *e));
        Self {
            epoch: self.epoch,
            keys: kept.map(|(at, key)| (*at, Arc::clone(key))).collect(),
        }
    }

    /// The bytes of the body, before it is sealed, with room for `more` behind: they are never moved in memory.
    pub(crate) fn encode(&self, more: usize) -> Zeroizing<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.keys.len() * ENTRY_BYTES + more);
        for ((domain, epoch), key) in &self.keys {
            bytes.extend_from_slice(&domain.to_le_bytes());
            bytes.extend_from_slice(&epoch.to_le_bytes());
            bytes.extend_from_slice(key.expose());
        }
        Zeroizing::new(bytes)
    }

    /// Reads a body that was opened. The error says what is wrong with it.
    pub(crate) fn decode(epoch: u32, bytes: &[u8]) -> Result<Self, &'static str> {
        let mut decoder = Decoder::new(bytes);
        let mut keys = BTreeMap::new();
        while !decoder.is_empty() {
            let (Some(domain), Some(of)) = (decoder.u32(), decoder.u32()) else {
                return Err("the keys end in the middle of one");
            };
            let key = decoder.take(KEY_BYTES).ok_or("a key is cut short")?;
            let key = SecretKey::build(|place| {
                place.copy_from_slice(key);
                Ok::<_, &'static str>(())
            })?;
            let ascending = keys.last_key_value();
            if ascending.is_some_and(|(last, _)| *last >= (domain, of)) {
                return Err("the keys are out of order");
            }
            if of < EPOCH_FIRST || of > epoch {
                return Err("a key is of an epoch that has not begun");
            }
            keys.insert((domain, of), Arc::new(key));
        }
        let current = |domain: u32| keys.contains_key(&(domain, epoch));
        if !current(STORE_DOMAIN) || !keys.keys().all(|(domain, _)| current(*domain)) {
            return Err("a domain has no key of the current epoch");
        }
        Ok(Self { epoch, keys })
    }
}

#[cfg(test)]
mod tests {
    use vault_core::random::SeededRandom;

    use super::*;

    fn table() -> KeyTable {
        let random = SeededRandom::new(1);
        let first = KeyTable::first(&random).unwrap();
        let two = first.with_domain(7, &random).unwrap();
        two.with_epoch(2, &random).unwrap()
    }

    #[test]
    fn every_domain_has_a_key_of_every_epoch_since_it_came() {
        let table = table().with_domain(9, &SeededRandom::new(2)).unwrap();
        let has = |domain, epoch| table.get(domain, epoch).is_some();
        assert!(has(0, 1) && has(0, 2) && has(7, 1) && has(7, 2));
        assert!(!has(9, 1) && has(9, 2) && !has(0, 3));
        assert_eq!(table.domains().collect::<Vec<_>>(), [0, 7, 9]);
        assert_eq!(table.epochs(), BTreeSet::from([1, 2]));
        let kept = table.keeping(|domain, _| domain != 7);
        assert!(kept.get(7, 1).is_none() && kept.get(9, 2).is_some());
        let mut bytes: Vec<_> = table.keys.values().map(|key| *key.expose()).collect();
        bytes.sort_unstable();
        bytes.dedup();
        assert_eq!(bytes.len(), 5, "no two keys are the same");
    }

    #[test]
    fn a_body_that_contradicts_itself_is_refused() {
        let bytes = table().encode(0);
        let again = KeyTable::decode(2, &bytes).unwrap();
        assert_eq!(*again.encode(0), *bytes);
        let error = |epoch, bytes: &[u8]| KeyTable::decode(epoch, bytes).err();
        let mut swapped = bytes.to_vec();
        swapped.rotate_left(ENTRY_BYTES);
        assert_eq!(error(2, &swapped), Some("the keys are out of order"));
        let cut = &bytes[..bytes.len() - 1];
        assert_eq!(error(2, cut), Some("a key is cut short"));
        let cut = &bytes[..3 * ENTRY_BYTES + 5];
        assert_eq!(error(2, cut), Some("the keys end in the middle of one"));
        let later = "a key is of an epoch that has not begun";
        assert_eq!(error(1, &bytes), Some(later));
        let lacking = "a domain has no key of the current epoch";
        assert_eq!(error(3, &bytes), Some(lacking));
        assert_eq!(error(2, &bytes[..3 * ENTRY_BYTES]), Some(lacking));
        assert_eq!(error(2, &bytes[2 * ENTRY_BYTES..]), Some(lacking));
        assert_eq!(error(2, &[]), Some(lacking));
    }
}
