//! Writing in a transaction.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::TransactionVault;
use crate::error::Result;
use crate::key::{DecodeKey, EncodeKey, Key};
use crate::transaction::TransactionScan;
use crate::value;
use crate::vault::codec;

impl TransactionVault<'_> {
    /// Sets a key to a value.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # db.write(|tx| {
    /// # let vault = tx.vault("v")?;
    /// vault.put("a", &1)?;
    /// assert!(vault.contains("a")?);
    /// # Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotEncodable`](crate::Error::NotEncodable), [`Error::KeyTooLong`](crate::Error::KeyTooLong),
    /// [`Error::ValueTooLong`](crate::Error::ValueTooLong),
    /// [`Error::TransactionTooLarge`](crate::Error::TransactionTooLarge),
    /// [`Error::ReadOnlyTransaction`](crate::Error::ReadOnlyTransaction), and as [`TransactionVault::get`].
    pub fn put<V: Serialize + ?Sized>(&self, key: impl EncodeKey, value: &V) -> Result<()> {
        self.set(&key, Some((value::encode(value, None)?, None)))
    }

    /// Sets a key to bytes, as they are.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # db.write(|tx| {
    /// # let vault = tx.vault("v")?;
    /// vault.put_raw("a", b"bytes")?;
    /// # Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TransactionVault::put`].
    pub fn put_raw(&self, key: impl EncodeKey, bytes: &[u8]) -> Result<()> {
        self.set(&key, Some((value::encode_raw(bytes, None), None)))
    }

    /// Sets many keys. After an error, those before it are set: give the transaction up, or roll it back to a
    /// [savepoint](crate::Transaction::savepoint).
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # db.write(|tx| {
    /// # let vault = tx.vault("v")?;
    /// vault.update([("a", 1), ("b", 2)])?;
    /// assert_eq!(vault.len()?, 2);
    /// # Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TransactionVault::put`].
    pub fn update<K: EncodeKey, V: Serialize>(
        &self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<()> {
        let mut pairs = pairs.into_iter();
        pairs.try_for_each(|(key, value)| self.put(key, &value))
    }

    /// Sets a key unless it is there, and gives the value that it has then.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # db.write(|tx| {
    /// # let vault = tx.vault("v")?;
    /// assert!(!vault.set_default("debug", &false)?);
    /// assert!(!vault.set_default("debug", &true)?);
    /// # Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TransactionVault::put`] and [`TransactionVault::get`].
    pub fn set_default<V: Serialize + DeserializeOwned>(
        &self,
        key: impl EncodeKey,
        default: &V,
    ) -> Result<V> {
        let key = codec::encode_key(&key)?;
        if let Some(stored) = self.transaction.get(&self.state, &key)? {
            return codec::decode_value(&self.state, &key, &stored);
        }
        let stored = value::encode(default, None)?;
        let given = codec::decode_value(&self.state, &key, &stored)?;
        self.transaction
            .set(&self.state, key, Some((stored, None)))?;
        Ok(given)
    }

    /// Replaces the value of a key with `new` if it is `expected`, as
    /// [`Vault::compare_and_set`](crate::Vault::compare_and_set). Gives whether it did.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # db.write(|tx| {
    /// # let vault = tx.vault("v")?;
    /// assert!(vault.compare_and_set("job", None, Some("worker 1"))?);
    /// assert!(!vault.compare_and_set("job", None, Some("worker 2"))?);
    /// assert!(vault.compare_and_set::<str>("job", Some("worker 1"), None)?);
    /// # Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TransactionVault::put`].
    pub fn compare_and_set<V: Serialize + ?Sized>(
        &self,
        key: impl EncodeKey,
        expected: Option<&V>,
        new: Option<&V>,
    ) -> Result<bool> {
        let key = codec::encode_key(&key)?;
        let encode = |value: Option<&V>| value.map(|value| value::encode(value, None)).transpose();
        let (expected, new) = (encode(expected)?, encode(new)?);
        let current = self.transaction.get(&self.state, &key)?;
        let is_expected = codec::is_same_content(current.as_deref(), expected.as_deref());
        if is_expected {
            let new = new.map(|stored| (stored, None));
            self.transaction.set(&self.state, key, new)?;
        }
        Ok(is_expected)
    }

    /// Adds to a counter, which begins at 0. Gives what it is now.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # db.write(|tx| {
    /// # let vault = tx.vault("v")?;
    /// assert_eq!(vault.increment("visits", 1)?, 1);
    /// # Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::CounterOverflow`](crate::Error::CounterOverflow),
    /// [`Error::TypeMismatch`](crate::Error::TypeMismatch) where the value is no whole number, and as
    /// [`TransactionVault::put`].
    pub fn increment(&self, key: impl EncodeKey, by: i64) -> Result<i64> {
        let key = codec::encode_key(&key)?;
        let current = self.transaction.get(&self.state, &key)?;
        let (stored, expiry, sum) = codec::increment(&self.state, &key, current.as_deref(), by)?;
        let new = Some((stored, expiry));
        self.transaction.set(&self.state, key, new)?;
        Ok(sum)
    }

    /// Removes a key. Gives whether it was there, which the transaction then relies on.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # db.write(|tx| {
    /// # let vault = tx.vault("v")?;
    /// vault.put("a", &1)?;
    /// assert!(vault.remove("a")?);
    /// # Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TransactionVault::put`].
    pub fn remove(&self, key: impl EncodeKey) -> Result<bool> {
        let key = codec::encode_key(&key)?;
        let was_there = self.transaction.get(&self.state, &key)?.is_some();
        self.transaction.set(&self.state, key, None)?;
        Ok(was_there)
    }

    /// Removes a key and gives its value.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # db.write(|tx| {
    /// # let vault = tx.vault("v")?;
    /// vault.put("a", &1)?;
    /// assert_eq!(vault.pop::<i64>("a")?, Some(1));
    /// # Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TransactionVault::put`]; after a [`Error::TypeMismatch`](crate::Error::TypeMismatch) the key is still
    /// there.
    pub fn pop<V: DeserializeOwned>(&self, key: impl EncodeKey) -> Result<Option<V>> {
        let key = codec::encode_key(&key)?;
        let Some(stored) = self.transaction.get(&self.state, &key)? else {
            return Ok(None);
        };
        let value = codec::decode_value(&self.state, &key, &stored)?;
        self.transaction.set(&self.state, key, None)?;
        Ok(Some(value))
    }

    /// Removes the entry with the smallest key and gives it; `None` where the vault is empty.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # db.write(|tx| {
    /// # let vault = tx.vault("v")?;
    /// vault.update([(1, "first"), (2, "last")])?;
    /// assert_eq!(vault.pop_first::<u64, String>()?, Some((1, "first".to_owned())));
    /// # Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TransactionVault::pop`], and [`Error::KeyMismatch`](crate::Error::KeyMismatch).
    pub fn pop_first<K: DecodeKey, V: DeserializeOwned>(&self) -> Result<Option<(K, V)>> {
        self.pop_end(|entries| entries.next())
    }

    /// Removes the entry with the greatest key and gives it; `None` where the vault is empty.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # db.write(|tx| {
    /// # let vault = tx.vault("v")?;
    /// vault.update([(1, "first"), (2, "last")])?;
    /// assert_eq!(vault.pop_last::<u64, String>()?, Some((2, "last".to_owned())));
    /// # Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TransactionVault::pop_first`].
    pub fn pop_last<K: DecodeKey, V: DeserializeOwned>(&self) -> Result<Option<(K, V)>> {
        self.pop_end(|entries| entries.next_back())
    }

    fn pop_end<K: DecodeKey, V: DeserializeOwned>(
        &self,
        end: impl Fn(&mut TransactionScan<'_, Key, V>) -> Option<Result<(Key, V)>>,
    ) -> Result<Option<(K, V)>> {
        let mut entries: TransactionScan<'_, Key, V> = self.items()?;
        let Some((key, value)) = end(&mut entries).transpose()? else {
            return Ok(None);
        };
        let key = codec::encode_key(&key)?;
        let decoded = codec::decode_key(&self.state, &key)?;
        self.transaction.set(&self.state, key, None)?;
        Ok(Some((decoded, value)))
    }
}
