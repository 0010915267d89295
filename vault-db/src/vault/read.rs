//! The verbs that read.

use serde::de::DeserializeOwned;
use vault_core::{KeyRange, Slice};

use super::Vault;
use super::codec::{self, RawValue};
use super::scan::{Entries, Keys, RawScan, Scan};
use crate::access::AccessVerb;
use crate::error::Result;
use crate::key::{DecodeKey, EncodeKey, KeyBounds, prefix_range};

impl Vault {
    /// Reads a value.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// let vault = db.vault("settings")?;
    /// vault.put("port", &5432)?;
    /// let port: Option<u16> = vault.get("port")?;
    /// assert_eq!(port, Some(5432));
    /// assert_eq!(vault.get::<u16>("missing")?, None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`TypeMismatch`](crate::Error::TypeMismatch) where the value is of another type,
    /// [`InvalidKey`](crate::Error::InvalidKey), [`VaultDeleted`](crate::Error::VaultDeleted),
    /// [`Engine`](crate::Error::Engine).
    pub fn get<V: DeserializeOwned>(&self, key: impl EncodeKey) -> Result<Option<V>> {
        let key = codec::scratch_key(&key)?;
        let stored = self.stored(&key)?;
        stored
            .map(|stored| codec::decode_value(self.state(), &key, &stored))
            .transpose()
    }

    /// Reads a value, or takes the one given where the key is not there.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// let user: String = db.vault("session")?.get_or("user", "anonymous".to_owned())?;
    /// assert_eq!(user, "anonymous");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::get`].
    pub fn get_or<V: DeserializeOwned>(&self, key: impl EncodeKey, default: V) -> Result<V> {
        Ok(self.get(key)?.unwrap_or(default))
    }

    /// Reads the bytes that [`Vault::put_raw`] stored.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let vault = db.vault("v")?;
    /// assert!(vault.get_raw("missing")?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::get`].
    #[inline]
    pub fn get_raw(&self, key: impl EncodeKey) -> Result<Option<RawValue>> {
        let key = codec::scratch_key(&key)?;
        let stored = self.stored(&key)?;
        stored
            .map(|stored| RawValue::new(self.state(), &key, stored))
            .transpose()
    }

    /// Whether a key is there. Reads no value.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let vault = db.vault("v")?;
    /// vault.put("a", &1)?;
    /// assert!(vault.contains("a")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::get`].
    pub fn contains(&self, key: impl EncodeKey) -> Result<bool> {
        let key = codec::scratch_key(&key)?;
        self.shared.bounds.check_key(&key)?;
        let access = self
            .state()
            .access
            .begin(&self.shared, AccessVerb::Read, &key);
        let info = self.reading(|state| {
            let info = self.shared.engine.entry_info(state.keyspace, &key);
            info.map_err(|error| state.told(error))
        })?;
        access.end();
        Ok(info.is_some())
    }

    /// All keys, in order.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// let vault = db.vault("letters")?;
    /// vault.update([("b", 2), ("a", 1)])?;
    /// let last: Option<String> = vault.keys()?.next_back().transpose()?;
    /// assert_eq!(last.as_deref(), Some("b"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::get`]; each key can be an error of its own: [`KeyMismatch`](crate::Error::KeyMismatch),
    /// [`ScanTooLong`](crate::Error::ScanTooLong).
    pub fn keys<K: DecodeKey>(&self) -> Result<Keys<K>> {
        self.entries(&KeyRange::all()).map(Keys::new)
    }

    /// All values, in the order of their keys.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let vault = db.vault("v")?;
    /// vault.update([("a", 1), ("b", 2)])?;
    /// let sum: i64 = vault.values::<i64>()?.sum::<vault_db::Result<i64>>()?;
    /// assert_eq!(sum, 3);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::items`].
    pub fn values<V: DeserializeOwned>(
        &self,
    ) -> Result<impl DoubleEndedIterator<Item = Result<V>> + use<V>> {
        let items: Scan<crate::Key, V> = self.items()?;
        Ok(items.map(|item| item.map(|(_, value)| value)))
    }

    /// All entries, in the order of their keys.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// let vault = db.vault("letters")?;
    /// vault.update([("b", 2), ("a", 1)])?;
    /// for item in vault.items::<String, u32>()? {
    ///     let (key, value) = item?;
    ///     println!("{key}: {value}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::get`]; each entry can be an error of its own: [`KeyMismatch`](crate::Error::KeyMismatch),
    /// [`TypeMismatch`](crate::Error::TypeMismatch), [`ScanTooLong`](crate::Error::ScanTooLong).
    pub fn items<K: DecodeKey, V: DeserializeOwned>(&self) -> Result<Scan<K, V>> {
        self.entries(&KeyRange::all()).map(Scan::new)
    }

    /// The entries of a range of keys.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// let log = db.vault("log")?;
    /// log.update((0..100).map(|n| (n, n * n)))?;
    /// let some = log.range::<u32, u32>(10..13)?.collect::<vault_db::Result<Vec<_>>>()?;
    /// assert_eq!(some, [(10, 100), (11, 121), (12, 144)]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::items`].
    pub fn range<K: DecodeKey, V: DeserializeOwned>(
        &self,
        bounds: impl KeyBounds,
    ) -> Result<Scan<K, V>> {
        self.entries(&bounds.key_range()?).map(Scan::new)
    }

    /// The entries whose keys begin with `prefix`: strings and bytes with these first characters, tuples with these
    /// first elements.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// let orders = db.vault("orders")?;
    /// orders.put(("alice", 1), "lamp")?;
    /// orders.put(("alice", 2), "desk")?;
    /// orders.put(("bob", 1), "chair")?;
    /// assert_eq!(orders.prefix::<(String, u32), String>(("alice",))?.count(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::items`].
    pub fn prefix<K: DecodeKey, V: DeserializeOwned>(
        &self,
        prefix: impl EncodeKey,
    ) -> Result<Scan<K, V>> {
        self.entries(&prefix_range(&prefix)?).map(Scan::new)
    }

    /// The entries of a range whose values were stored by [`Vault::put_raw`]. Longer values share the block they were read
    /// from.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// let vault = db.vault("blobs")?;
    /// vault.put_raw(1, b"one")?;
    /// vault.put_raw(2, b"two")?;
    /// let lengths: Vec<usize> = vault.range_raw::<u8>(1..)?.map(|item| item.map(|(_, value)| value.len())).collect::<vault_db::Result<_>>()?;
    /// assert_eq!(lengths, [3, 3]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::items`].
    pub fn range_raw<K: DecodeKey>(&self, bounds: impl KeyBounds) -> Result<RawScan<K>> {
        self.entries(&bounds.key_range()?).map(RawScan::new)
    }

    /// How many entries there are: exactly, and without looking at them. Those that have expired and were not
    /// [cleaned up](Vault::cleanup_expired) yet are looked up in a list of their own, so that they do not count; where that list
    /// is long, they are cleaned up first.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let vault = db.vault("v")?;
    /// vault.update([("a", 1), ("b", 2)])?;
    /// assert_eq!(vault.len()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`VaultDeleted`](crate::Error::VaultDeleted), [`Engine`](crate::Error::Engine).
    pub fn len(&self) -> Result<u64> {
        let state = self.state();
        state.check()?;
        if state.counts.expiring() == 0 {
            return Ok(state.counts.entries());
        }
        // Counted while nobody can commit to the vault: not twice, where there are many. Where they cannot be taken away, it has to be.
        if matches!(self.shared.has_backlog(state), Ok(true)) {
            let _ = self.shared.remove_expired(state);
        }
        let held = state.hold_all()?;
        self.shared.len_held(held.vault)
    }

    /// Whether there are no entries.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let vault = db.vault("v")?;
    /// assert!(vault.is_empty()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::len`].
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// The stored value of an encoded key.
    #[inline]
    pub(crate) fn stored(&self, key: &[u8]) -> Result<Option<Slice>> {
        self.shared.bounds.check_key(key)?;
        self.reading(|state| {
            let access = state.access.begin(&self.shared, AccessVerb::Read, key);
            let found = self.shared.engine.get(state.keyspace, key);
            access.end();
            found.map_err(|error| state.told(error))
        })
    }

    pub(crate) fn entries(&self, range: &KeyRange) -> Result<Entries> {
        self.reading(|state| {
            let access = state.access.begin(&self.shared, AccessVerb::Scan, &[]);
            let entries = Entries::open(&self.shared, state, range.clone())?;
            access.end();
            Ok(entries)
        })
    }
}
