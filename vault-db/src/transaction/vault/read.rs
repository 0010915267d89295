//! Reading in a transaction.

use serde::de::{DeserializeOwned, IgnoredAny};
use vault_core::{KeyRange, Snapshot};

use super::TransactionVault;
use crate::error::Result;
use crate::key::{DecodeKey, EncodeKey, Key, KeyBounds, prefix_range};
use crate::transaction::TransactionScan;
use crate::vault::codec::{self, RawValue};

impl<'a> TransactionVault<'a> {
    /// Reads a value.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # db.write(|tx| {
    /// # let vault = tx.vault("v")?;
    /// assert_eq!(vault.get::<i64>("missing")?, None);
    /// # Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::TypeMismatch`](crate::Error::TypeMismatch), [`Error::InvalidKey`](crate::Error::InvalidKey),
    /// [`Error::TransactionEnded`](crate::Error::TransactionEnded),
    /// [`Error::TransactionTooLong`](crate::Error::TransactionTooLong),
    /// [`Error::Engine`](crate::Error::Engine).
    pub fn get<V: DeserializeOwned>(&self, key: impl EncodeKey) -> Result<Option<V>> {
        let key = codec::encode_key(&key)?;
        let stored = self.transaction.get(&self.state, &key)?;
        stored
            .map(|stored| codec::decode_value(&self.state, &key, &stored))
            .transpose()
    }

    /// Reads a value, or gives `default` where the key is absent.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # db.write(|tx| {
    /// # let vault = tx.vault("v")?;
    /// assert_eq!(vault.get_or("missing", 9)?, 9);
    /// # Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TransactionVault::get`].
    pub fn get_or<V: DeserializeOwned>(&self, key: impl EncodeKey, default: V) -> Result<V> {
        Ok(self.get(key)?.unwrap_or(default))
    }

    /// Reads the bytes that [`TransactionVault::put_raw`] or [`Vault::put_raw`](crate::Vault::put_raw) stored.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # db.write(|tx| {
    /// # let vault = tx.vault("v")?;
    /// vault.put_raw("a", b"bytes")?;
    /// assert_eq!(&vault.get_raw("a")?.unwrap()[..], b"bytes");
    /// # Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TransactionVault::get`].
    pub fn get_raw(&self, key: impl EncodeKey) -> Result<Option<RawValue>> {
        let key = codec::encode_key(&key)?;
        let stored = self.transaction.get(&self.state, &key)?;
        stored
            .map(|stored| RawValue::new(&self.state, &key, stored))
            .transpose()
    }

    /// Whether a key is there.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # db.write(|tx| {
    /// # let vault = tx.vault("v")?;
    /// assert!(!vault.contains("missing")?);
    /// # Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TransactionVault::get`].
    pub fn contains(&self, key: impl EncodeKey) -> Result<bool> {
        let key = codec::encode_key(&key)?;
        Ok(self.transaction.get(&self.state, &key)?.is_some())
    }

    /// All keys, in order.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # db.write(|tx| {
    /// # let vault = tx.vault("v")?;
    /// vault.put("a", &1)?;
    /// assert_eq!(vault.keys::<String>()?.next().transpose()?.as_deref(), Some("a"));
    /// # Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TransactionVault::get`].
    pub fn keys<K: DecodeKey>(
        &self,
    ) -> Result<impl DoubleEndedIterator<Item = Result<K>> + use<'a, K>> {
        let items: TransactionScan<'a, K, IgnoredAny> = self.items()?;
        Ok(items.map(|item| item.map(|(key, _)| key)))
    }

    /// All values, in the order of their keys.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # db.write(|tx| {
    /// # let vault = tx.vault("v")?;
    /// vault.put("a", &1)?;
    /// vault.put("b", &2)?;
    /// assert_eq!(vault.values::<i64>()?.sum::<vault_db::Result<i64>>()?, 3);
    /// # Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TransactionVault::get`].
    pub fn values<V: DeserializeOwned>(
        &self,
    ) -> Result<impl DoubleEndedIterator<Item = Result<V>> + use<'a, V>> {
        let items: TransactionScan<'a, Key, V> = self.items()?;
        Ok(items.map(|item| item.map(|(_, value)| value)))
    }

    /// All entries.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # db.write(|tx| {
    /// # let vault = tx.vault("v")?;
    /// vault.put("a", &1)?;
    /// for item in vault.items::<String, i64>()? {
    ///     let (key, value) = item?;
    ///     vault.put(format!("copy of {key}"), &value)?;
    /// }
    /// # Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TransactionVault::get`].
    pub fn items<K: DecodeKey, V: DeserializeOwned>(&self) -> Result<TransactionScan<'a, K, V>> {
        self.scan(KeyRange::all())
    }

    /// The entries of a range, in the order of their keys, from either end.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # db.write(|tx| {
    /// # let vault = tx.vault("v")?;
    /// vault.put(5, "five")?;
    /// assert_eq!(vault.range::<i64, String>(1..10)?.count(), 1);
    /// # Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TransactionVault::get`].
    pub fn range<K: DecodeKey, V: DeserializeOwned>(
        &self,
        bounds: impl KeyBounds,
    ) -> Result<TransactionScan<'a, K, V>> {
        self.scan(bounds.key_range()?)
    }

    /// The entries whose keys begin with `prefix`: strings with these first characters, tuples with these first
    /// elements.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # db.write(|tx| {
    /// # let vault = tx.vault("v")?;
    /// vault.put("user:alice", &1)?;
    /// assert_eq!(vault.prefix::<String, i64>("user:")?.count(), 1);
    /// # Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TransactionVault::get`].
    pub fn prefix<K: DecodeKey, V: DeserializeOwned>(
        &self,
        prefix: impl EncodeKey,
    ) -> Result<TransactionScan<'a, K, V>> {
        self.scan(prefix_range(&prefix)?)
    }

    /// How many entries there are. Relied on like a scan of all of them.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # db.write(|tx| {
    /// # let vault = tx.vault("v")?;
    /// vault.put("a", &1)?;
    /// assert_eq!(vault.len()?, 1);
    /// # Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TransactionVault::get`].
    pub fn len(&self) -> Result<u64> {
        self.transaction.check()?;
        let number = self.transaction.rely_on_range(&self.state);
        let all = |range: &mut KeyRange| *range = KeyRange::all();
        self.transaction
            .change_relied_range(self.state.id, number, all);
        let moment = self.transaction.moment()?;
        let snapshot = &*moment.snapshot;
        let mut len = self.len_of_moment(snapshot)?;
        let state = self.transaction.state.borrow();
        for (key, new) in state.writes.in_range(self.state.id, &KeyRange::all()) {
            let there = snapshot.entry_info(self.state.keyspace, &key);
            let there = there.or_else(|error| {
                let transaction = self.transaction;
                transaction
                    .without_keyspace(&self.state, error)
                    .map(|()| None)
            })?;
            let will_be = self.transaction.still_visible(&new).is_some();
            match (there.is_some(), will_be) {
                (false, true) => len += 1,
                (true, false) => len = len.saturating_sub(1),
                _ => {}
            }
        }
        Ok(len)
    }

    /// How many entries there were at the transaction's moment.
    fn len_of_moment(&self, snapshot: &dyn Snapshot) -> Result<u64> {
        let shared = &self.transaction.shared;
        if self.transaction.relies() {
            let stripes = self.state.stripes.lock_all();
            // Again, now that they are held: what was written since its moment is remembered for as long as its time is not over.
            self.transaction.check()?;
            if self.state.is_exchanged() {
                return Err(self.transaction.conflict());
            }
            let moment = snapshot.sequence();
            let all = KeyRange::all();
            if stripes
                .iter()
                .any(|recent| recent.is_range_changed(&all, moment))
            {
                // It could not commit any more: better to know now.
                return Err(self.transaction.conflict());
            }
            // Nothing was written since: what is counted now was counted then.
            return shared.len_held(&self.state);
        }
        let tally = shared.tally_at(snapshot, self.state.id)?;
        if tally.expiring == 0 {
            return Ok(tally.entries);
        }
        let expired = shared.count_expired(snapshot, self.state.id)?;
        Ok(tally.entries.saturating_sub(expired))
    }

    /// Whether there are no entries. Relies on no more than it needs to look at.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # db.write(|tx| {
    /// # let vault = tx.vault("v")?;
    /// assert!(vault.is_empty()?);
    /// # Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TransactionVault::get`].
    pub fn is_empty(&self) -> Result<bool> {
        let mut entries =
            TransactionScan::<Key, ()>::encoded(self.transaction, &self.state, KeyRange::all())?;
        Ok(entries.next_encoded()?.is_none())
    }

    fn scan<K: DecodeKey, V: DeserializeOwned>(
        &self,
        range: KeyRange,
    ) -> Result<TransactionScan<'a, K, V>> {
        TransactionScan::encoded(self.transaction, &self.state, range)
    }
}
