//! The verbs that write.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Vault;
use super::codec;
use super::scratch::Scratch;
use crate::access::AccessVerb;
use crate::commit::{New, NewValue, Verdict};
use crate::error::{Error, Result};
use crate::key::{DecodeKey, EncodeKey};
use crate::value;

/// Most bytes of keys and values that [`Vault::update`] gathers. An engine takes half as much by default.
const UPDATE_BYTES_MAX: usize = 128 << 20;

impl Vault {
    /// Sets a key to a value.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let vault = db.vault("v")?;
    /// vault.put("alice", &("admin", 7))?;
    /// assert_eq!(vault.get::<(String, u8)>("alice")?, Some(("admin".to_owned(), 7)));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NotEncodable`](crate::Error::NotEncodable), [`InvalidKey`](crate::Error::InvalidKey), [`KeyTooLong`](crate::Error::KeyTooLong),
    /// [`ValueTooLong`](crate::Error::ValueTooLong), [`VaultFull`](crate::Error::VaultFull), [`VaultDeleted`](crate::Error::VaultDeleted),
    /// [`Engine`](crate::Error::Engine).
    pub fn put<V: Serialize + ?Sized>(&self, key: impl EncodeKey, value: &V) -> Result<()> {
        let stored = Scratch::filled(|out| value::encode_into(out, value, None))?;
        self.set(&codec::scratch_key(&key)?, &stored)
    }

    /// Sets a key to bytes, as they are. [`Vault::get_raw`] reads them.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let vault = db.vault("v")?;
    /// vault.put_raw("key", b"\x00\x01")?;
    /// assert_eq!(vault.get_raw("key")?.unwrap().len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::put`].
    #[inline]
    pub fn put_raw(&self, key: impl EncodeKey, bytes: &[u8]) -> Result<()> {
        let stored: Result<_> = Scratch::filled(|out| {
            value::encode_raw_into(out, bytes, None);
            Ok(())
        });
        self.set(&codec::scratch_key(&key)?, &stored?)
    }

    fn set(&self, key: &[u8], stored: &[u8]) -> Result<()> {
        let access = self
            .state()
            .access
            .begin(&self.shared, AccessVerb::Write, key);
        let new = New::Value {
            stored,
            expiry: None,
        };
        self.shared.change(self.state(), key, new)?;
        access.end();
        Ok(())
    }

    /// Removes a key. Gives whether it was there.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let vault = db.vault("v")?;
    /// vault.put("a", &1)?;
    /// assert!(vault.remove("a")?);
    /// assert!(!vault.remove("a")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::put`].
    pub fn remove(&self, key: impl EncodeKey) -> Result<bool> {
        let key = codec::scratch_key(&key)?;
        let access = self
            .state()
            .access
            .begin(&self.shared, AccessVerb::Delete, &key);
        let old = self.shared.change(self.state(), &key, New::Absent)?;
        access.end();
        Ok(old.is_some())
    }

    /// Removes a key and gives its value, which nobody else gets.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// let vault = db.vault("temp")?;
    /// vault.put("session", "abc123")?;
    /// assert_eq!(vault.pop::<String>("session")?.as_deref(), Some("abc123"));
    /// assert!(!vault.contains("session")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::get`]; where the value does not read as the type, the key is still there.
    pub fn pop<V: DeserializeOwned>(&self, key: impl EncodeKey) -> Result<Option<V>> {
        let key = codec::scratch_key(&key)?;
        let access = self
            .state()
            .access
            .begin(&self.shared, AccessVerb::Delete, &key);
        let popped = self.pop_encoded(&key)?;
        access.end();
        Ok(popped)
    }

    fn pop_encoded<V: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<V>> {
        loop {
            let Some(stored) = self.stored(key)? else {
                return Ok(None);
            };
            // The caller's own code reads the value, so nothing is locked meanwhile.
            let value = codec::decode_value(self.state(), key, &stored)?;
            if self.replace_if(key, Some(&stored), |_| Verdict::Remove)? {
                return Ok(Some(value));
            }
        }
    }

    /// Removes the entry with the least key and gives it, as a queue does; `None` where the vault is empty. Nobody else gets
    /// the same.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// let queue = db.vault("queue")?;
    /// queue.update([(1, "first"), (2, "second")])?;
    /// assert_eq!(queue.pop_first::<u64, String>()?, Some((1, "first".to_owned())));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::pop`].
    pub fn pop_first<K: DecodeKey, V: DeserializeOwned>(&self) -> Result<Option<(K, V)>> {
        self.pop_end(Iterator::next)
    }

    /// Removes the entry with the greatest key and gives it; `None` where the vault is empty.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let vault = db.vault("v")?;
    /// vault.update([(1, "first"), (2, "last")])?;
    /// assert_eq!(vault.pop_last::<u64, String>()?, Some((2, "last".to_owned())));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::pop`].
    pub fn pop_last<K: DecodeKey, V: DeserializeOwned>(&self) -> Result<Option<(K, V)>> {
        self.pop_end(DoubleEndedIterator::next_back)
    }

    fn pop_end<K: DecodeKey, V: DeserializeOwned>(
        &self,
        end: impl Fn(&mut super::Entries) -> Option<Result<(vault_core::Slice, vault_core::Slice)>>,
    ) -> Result<Option<(K, V)>> {
        loop {
            let mut entries = self.entries(&vault_core::KeyRange::all())?;
            let Some((key, stored)) = end(&mut entries).transpose()? else {
                return Ok(None);
            };
            drop(entries);
            let value = codec::decode_value(self.state(), &key, &stored)?;
            let decoded = codec::decode_key(self.state(), &key)?;
            let access = self
                .state()
                .access
                .begin(&self.shared, AccessVerb::Delete, &key);
            if self.replace_if(&key, Some(&stored), |_| Verdict::Remove)? {
                access.end();
                return Ok(Some((decoded, value)));
            }
        }
    }

    /// Sets many keys at once: all of them or, after an error, none. A later pair replaces an earlier one of the same key.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// let vault = db.vault("letters")?;
    /// vault.update([("a", 1), ("b", 2)])?;
    /// assert_eq!(vault.len()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::put`]; [`TransactionTooLarge`](crate::Error::TransactionTooLarge) where it is more than the engine takes at
    /// once (64 MiB by default), or more than 128 MiB: `pairs` is not asked for more than that.
    pub fn update<K: EncodeKey, V: Serialize>(
        &self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<()> {
        let mut changes: BTreeMap<Vec<u8>, NewValue> = BTreeMap::new();
        let mut bytes = 0;
        for (key, value) in pairs {
            let stored = value::encode(&value, None)?;
            let key = codec::encode_key(&key)?;
            self.shared.bounds.check_key(&key)?;
            self.shared.bounds.check_value(&stored)?;
            bytes += key.len() + stored.len();
            if bytes > UPDATE_BYTES_MAX {
                let max = UPDATE_BYTES_MAX;
                return Err(Error::TransactionTooLarge { bytes, max });
            }
            changes.insert(key, Some((stored, None)));
        }
        if changes.is_empty() {
            return self.state().check();
        }
        let access = self
            .state()
            .access
            .begin(&self.shared, AccessVerb::Write, &[]);
        self.shared.change_keys(self.state(), changes)?;
        access.end();
        Ok(())
    }

    /// Sets a key unless it is there, and gives the value that it has then.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// let config = db.vault("config")?;
    /// assert!(!config.set_default("debug", &false)?);
    /// config.put("debug", &true)?;
    /// assert!(config.set_default("debug", &false)?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::put`] and [`Vault::get`].
    pub fn set_default<V: Serialize + DeserializeOwned>(
        &self,
        key: impl EncodeKey,
        default: &V,
    ) -> Result<V> {
        let key = codec::scratch_key(&key)?;
        let new = value::encode(default, None)?;
        let access = self
            .state()
            .access
            .begin(&self.shared, AccessVerb::Write, &key);
        let stored = self.shared.decide(self.state(), &key, |current| {
            Ok(match current {
                Some(current) => (Verdict::Keep, current.to_vec()),
                None => {
                    let stored = new.clone();
                    let expiry = None;
                    (Verdict::Replace { stored, expiry }, new.clone())
                }
            })
        })?;
        access.end();
        codec::decode_value(self.state(), &key, &stored)
    }

    /// Replaces the value of a key with `new` if it is `expected`; `None` stands for absent on both sides. Gives whether it
    /// did. Nobody changes the key in between. A value is the same if it is stored as the same bytes; its expiry is not
    /// compared, and the new value has none.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// let locks = db.vault("locks")?;
    /// assert!(locks.compare_and_set("job", None, Some("worker 1"))?);
    /// assert!(!locks.compare_and_set("job", None, Some("worker 2"))?);
    /// assert!(locks.compare_and_set::<str>("job", Some("worker 1"), None)?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::put`].
    pub fn compare_and_set<V: Serialize + ?Sized>(
        &self,
        key: impl EncodeKey,
        expected: Option<&V>,
        new: Option<&V>,
    ) -> Result<bool> {
        let key = codec::scratch_key(&key)?;
        let encode = |value: Option<&V>| value.map(|value| value::encode(value, None)).transpose();
        let (expected, new) = (encode(expected)?, encode(new)?);
        let access = self
            .state()
            .access
            .begin(&self.shared, AccessVerb::Write, &key);
        let swapped = self.replace_if(&key, expected.as_deref(), |_| match &new {
            None => Verdict::Remove,
            Some(stored) => Verdict::Replace {
                stored: stored.clone(),
                expiry: None,
            },
        })?;
        access.end();
        Ok(swapped)
    }

    /// Does what `verdict` says of the key's stored value if that is still the expected one, but perhaps for its expiry.
    pub(super) fn replace_if(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        verdict: impl Fn(Option<&[u8]>) -> Verdict,
    ) -> Result<bool> {
        self.shared.decide(self.state(), key, |current| {
            if codec::is_same_content(current, expected) {
                Ok((verdict(current), true))
            } else {
                Ok((Verdict::Keep, false))
            }
        })
    }
}
