//! One key of a vault, to be looked at and changed.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Vault;
use super::codec;
use crate::access::{AccessVerb, Begun};
use crate::commit::Verdict;
use crate::error::Result;
use crate::key::EncodeKey;
use crate::value;

/// One key of a vault, as [`Vault::entry`] gives it: to be changed if it is there, and set if it is not.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// let votes = db.vault("votes")?;
/// for name in ["ada", "grace", "ada"] {
///     votes.entry::<u64>(name)?.modify_or_insert(|votes| *votes += 1, || 1)?;
/// }
/// assert_eq!(votes.get::<u64>("ada")?, Some(2));
/// # Ok(())
/// # }
/// ```
pub struct Entry<'a, V> {
    vault: &'a Vault,
    key: Vec<u8>,
    value: PhantomData<fn() -> V>,
}

impl Vault {
    /// Gives one key's entry, in the manner of the standard library's maps.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// let carts = db.vault("carts")?;
    /// for item in ["lamp", "desk"] {
    ///     carts.entry::<Vec<String>>("alice")?.modify_or_insert(|cart| cart.push(item.to_owned()), || vec![item.to_owned()])?;
    /// }
    /// assert_eq!(carts.get::<Vec<String>>("alice")?.unwrap(), ["lamp", "desk"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`InvalidKey`](crate::Error::InvalidKey), [`KeyTooLong`](crate::Error::KeyTooLong).
    pub fn entry<V: Serialize + DeserializeOwned>(
        &self,
        key: impl EncodeKey,
    ) -> Result<Entry<'_, V>> {
        let key = codec::encode_key(&key)?;
        self.shared.bounds.check_key(&key)?;
        Ok(Entry {
            vault: self,
            key,
            value: PhantomData,
        })
    }
}

impl<V: Serialize + DeserializeOwned> Entry<'_, V> {
    /// Sets the key if it is not there, and gives the value that it has then.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let vault = db.vault("v")?;
    /// assert_eq!(vault.entry("n")?.or_insert(1)?, 1);
    /// assert_eq!(vault.entry("n")?.or_insert(2)?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::put`] and [`Vault::get`].
    pub fn or_insert(self, value: V) -> Result<V> {
        self.or_insert_with(|| value)
    }

    /// As [`Entry::or_insert`], with a value that is made only where it is needed.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let vault = db.vault("v")?;
    /// let long: String = vault.entry("text")?.or_insert_with(|| "x".repeat(100))?;
    /// assert_eq!(long.len(), 100);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::put`] and [`Vault::get`].
    pub fn or_insert_with(self, value: impl FnOnce() -> V) -> Result<V> {
        let mut value = Some(value);
        self.change(|current| match current {
            Some(current) => (current, false),
            None => (
                value
                    .take()
                    .map_or_else(|| unreachable!("absent once"), |value| value()),
                true,
            ),
        })
    }

    /// Changes the value if the key is there. Gives the value that it has then.
    ///
    /// Where others change the key at the same time, `change` is run again on what they made of it: it should do nothing
    /// else than change the value. An expiry stays as it is.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let vault = db.vault("v")?;
    /// vault.put("n", &20)?;
    /// assert_eq!(vault.entry("n")?.and_modify(|n: &mut i32| *n += 1)?, Some(21));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::put`] and [`Vault::get`].
    pub fn and_modify(self, mut change: impl FnMut(&mut V)) -> Result<Option<V>> {
        let mut access = None;
        loop {
            let Some(stored) = self.vault.stored(&self.key)? else {
                return Ok(None);
            };
            let mut value = codec::decode_value(&self.vault.state, &self.key, &stored)?;
            change(&mut value);
            if self.replace(Some(&stored), &value, &mut access)? {
                return Ok(Some(value));
            }
        }
    }

    /// Changes the value if the key is there, and sets it if not. Gives the value that it has then. Both closures may run
    /// several times, as that of [`Entry::and_modify`].
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let vault = db.vault("v")?;
    /// for _ in 0..3 {
    ///     vault.entry("n")?.modify_or_insert(|n: &mut i32| *n *= 2, || 1)?;
    /// }
    /// assert_eq!(vault.get::<i32>("n")?, Some(4));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::put`] and [`Vault::get`].
    pub fn modify_or_insert(
        self,
        mut change: impl FnMut(&mut V),
        mut insert: impl FnMut() -> V,
    ) -> Result<V> {
        self.change(|current| match current {
            Some(mut current) => {
                change(&mut current);
                (current, true)
            }
            None => (insert(), true),
        })
    }

    /// Has `change` say what the value is to be, and whether that is to be written, until nobody came between.
    fn change(&self, mut change: impl FnMut(Option<V>) -> (V, bool)) -> Result<V> {
        let vault = self.vault;
        let (mut made, mut access): (Option<V>, _) = (None, None);
        loop {
            let stored = vault.stored(&self.key)?;
            let current = stored
                .as_deref()
                .map(|stored| codec::decode_value(&vault.state, &self.key, stored))
                .transpose()?;
            let (value, written) = match (current, made.take()) {
                // Made before, for a key that was not there and still is not.
                (None, Some(made)) => (made, true),
                (current, _) => change(current),
            };
            if !written || self.replace(stored.as_deref(), &value, &mut access)? {
                return Ok(value);
            }
            if stored.is_none() {
                made = Some(value);
            }
        }
    }

    /// Sets the value if the key still has the expected one. Its expiry is the one that the key has then: that may have been
    /// moved since the value was read. `access` counts the first of several tries.
    fn replace<'a>(
        &'a self,
        expected: Option<&[u8]>,
        value: &V,
        access: &mut Option<Begun<'a>>,
    ) -> Result<bool> {
        let vault = self.vault;
        let recorder = &vault.state().access;
        access.get_or_insert_with(|| recorder.begin(&vault.shared, AccessVerb::Write, &self.key));
        let new = value::encode(value, None)?;
        let replaced = vault.replace_if(&self.key, expected, |current| {
            let expiry = current.and_then(|current| value::Stored::parse(current)?.expiry);
            let stored = match (expiry, value::Stored::parse(&new)) {
                (Some(_), Some(parsed)) => value::with_expiry(&parsed, expiry),
                _ => new.clone(),
            };
            Verdict::Replace { stored, expiry }
        })?;
        if replaced && let Some(access) = access.take() {
            access.end();
        }
        Ok(replaced)
    }
}

impl<V> std::fmt::Debug for Entry<'_, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("vault", &self.vault.name())
            .field("key", &crate::key::printable(&self.key))
            .finish_non_exhaustive()
    }
}
