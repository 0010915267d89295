//! A vault inside a transaction.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use vault_core::{KeyRange, Snapshot};

use super::{Transaction, TransactionScan};
use crate::commit::NewValue;
use crate::database::VaultState;
use crate::error::Result;
use crate::key::{DecodeKey, EncodeKey, KeyBounds, prefix_range};
use crate::value;
use crate::vault::codec::{self, RawValue};

/// A vault inside a [`Transaction`]: it shows the transaction's moment and the transaction's own changes over it.
///
/// Its verbs are those of [`Vault`](crate::Vault).
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// db.write(|tx| {
///     let (from, to) = (tx.vault("inbox")?, tx.vault("archive")?);
///     from.put("letter", "Dear …")?;
///     let letter: Option<String> = from.pop("letter")?;
///     to.put("letter", &letter)
/// })?;
/// assert_eq!((db.vault("inbox")?.len()?, db.vault("archive")?.len()?), (0, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TransactionVault<'a> {
    transaction: &'a Transaction,
    state: Arc<VaultState>,
}

impl<'a> TransactionVault<'a> {
    pub(super) const fn new(transaction: &'a Transaction, state: Arc<VaultState>) -> Self {
        Self { transaction, state }
    }

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

    /// Sets a key to a value for some time, as [`Vault::put_for`](crate::Vault::put_for).
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # db.write(|tx| {
    /// # let vault = tx.vault("v")?;
    /// vault.put_for("session", "alice", std::time::Duration::from_secs(60))?;
    /// # Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TransactionVault::put`]; [`InvalidExpiry`](vault_core::Error::InvalidExpiry).
    pub fn put_for<V: Serialize + ?Sized>(
        &self,
        key: impl EncodeKey,
        value: &V,
        time_to_live: Duration,
    ) -> Result<()> {
        let expiry = Some(self.transaction.shared.now().after(time_to_live)?);
        self.set(&key, Some((value::encode(value, expiry)?, expiry)))
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
        let mut entries = TransactionScan::<crate::Key, ()>::encoded(
            self.transaction,
            &self.state,
            KeyRange::all(),
        )?;
        Ok(entries.next_encoded()?.is_none())
    }

    fn scan<K: DecodeKey, V: DeserializeOwned>(
        &self,
        range: KeyRange,
    ) -> Result<TransactionScan<'a, K, V>> {
        TransactionScan::encoded(self.transaction, &self.state, range)
    }

    fn set(&self, key: &impl EncodeKey, new: NewValue) -> Result<()> {
        let key = codec::encode_key(key)?;
        self.transaction.set(&self.state, key, new)
    }
}

impl fmt::Debug for TransactionVault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionVault")
            .field("name", &self.state.name())
            .finish_non_exhaustive()
    }
}
