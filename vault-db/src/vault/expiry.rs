//! Entries that end.

use std::time::Duration;

use serde::Serialize;
use vault_core::Timestamp;

use super::Vault;
use super::codec;
use crate::access::AccessVerb;
use crate::commit::{New, Verdict};
use crate::error::Result;
use crate::key::EncodeKey;
use crate::value;

impl Vault {
    /// Sets a key to a value for some time, at least a millisecond, after which it reads as absent.
    ///
    /// ```
    /// use std::time::Duration;
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// let sessions = db.vault("sessions")?;
    /// sessions.put_for("s1", &"alice", Duration::from_secs(3600))?;
    /// assert!(sessions.time_to_live("s1")?.unwrap().unwrap() > Duration::from_secs(3590));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::put`]; [`InvalidExpiry`](vault_core::Error::InvalidExpiry).
    pub fn put_for<V: Serialize + ?Sized>(
        &self,
        key: impl EncodeKey,
        value: &V,
        time_to_live: Duration,
    ) -> Result<()> {
        let expiry = self.shared.now().after(time_to_live)?;
        self.put_until(key, value, expiry)
    }

    /// Sets a key to a value until a moment, from which on it reads as absent.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let vault = db.vault("v")?;
    /// use vault_db::Timestamp;
    /// vault.put_until("offer", &"half price", Timestamp(4_102_444_800_000))?; // 2100
    /// assert!(vault.contains("offer")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::put_for`].
    pub fn put_until<V: Serialize + ?Sized>(
        &self,
        key: impl EncodeKey,
        value: &V,
        expiry: Timestamp,
    ) -> Result<()> {
        expiry.check_expiry(self.shared.now())?;
        let key = codec::scratch_key(&key)?;
        let stored = value::encode(value, Some(expiry))?;
        let access = self
            .state()
            .access
            .begin(&self.shared, AccessVerb::Write, &key);
        let new = New::Value {
            stored: &stored,
            expiry: Some(expiry),
        };
        self.shared.change(self.state(), &key, new)?;
        access.end();
        Ok(())
    }

    /// How long a key will still be there: `None` where it is not there, `Some(None)` where it has no expiry.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let vault = db.vault("v")?;
    /// assert_eq!(vault.time_to_live("missing")?, None);
    /// vault.put("stays", &1)?;
    /// assert_eq!(vault.time_to_live("stays")?, Some(None));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::get`].
    pub fn time_to_live(&self, key: impl EncodeKey) -> Result<Option<Option<Duration>>> {
        let key = codec::scratch_key(&key)?;
        self.shared.bounds.check_key(&key)?;
        let info = self.reading(|state| {
            let info = self.shared.engine.entry_info(state.keyspace, &key);
            info.map_err(|error| state.told(error))
        })?;
        let Some(info) = info else {
            return Ok(None);
        };
        let now = self.shared.now();
        let left = |expiry: Timestamp| Duration::from_millis(expiry.0.saturating_sub(now.0));
        Ok(Some(info.expiry.map(left)))
    }

    /// Gives a key a new expiry, or none with `None`. Gives whether the key was there. The value stays as it is.
    ///
    /// ```
    /// use std::time::Duration;
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// let sessions = db.vault("sessions")?;
    /// sessions.put("s1", &"alice")?;
    /// assert!(sessions.expire("s1", Some(Duration::from_secs(60)))?);
    /// assert!(sessions.expire("s1", None)?);
    /// assert_eq!(sessions.time_to_live("s1")?, Some(None));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::put_for`].
    pub fn expire(&self, key: impl EncodeKey, time_to_live: Option<Duration>) -> Result<bool> {
        let key = codec::scratch_key(&key)?;
        let now = self.shared.now();
        let expiry = time_to_live.map(|time| now.after(time)).transpose()?;
        let access = self
            .state()
            .access
            .begin(&self.shared, AccessVerb::Write, &key);
        let was_there = self.shared.decide(self.state(), &key, |current| {
            let Some(current) = current else {
                return Ok((Verdict::Keep, false));
            };
            let stored = codec::parse(self.state(), &key, current)?;
            let stored = value::with_expiry(&stored, expiry);
            Ok((Verdict::Replace { stored, expiry }, true))
        })?;
        access.end();
        Ok(was_there)
    }

    /// Takes away what has expired. Gives how many entries that were.
    ///
    /// Expired entries are never visible, counted or given, whether or not this is called, and the engine frees their space in
    /// time. Calling it keeps [`Vault::len`] fast where many entries expire.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let vault = db.vault("v")?;
    /// vault.put_for("short", &1, std::time::Duration::from_millis(100))?;
    /// # while vault.contains("short")? {}
    /// assert_eq!(vault.cleanup_expired()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`VaultDeleted`](crate::Error::VaultDeleted), [`Engine`](crate::Error::Engine).
    pub fn cleanup_expired(&self) -> Result<u64> {
        self.reading(|state| self.shared.remove_expired(state))
    }
}
