//! Entries that end, in a transaction.

use std::time::Duration;

use serde::Serialize;
use vault_core::Timestamp;

use super::TransactionVault;
use crate::error::Result;
use crate::key::EncodeKey;
use crate::value;
use crate::vault::codec;

impl TransactionVault<'_> {
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

    /// Sets a key to a value until a moment, as [`Vault::put_until`](crate::Vault::put_until).
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # db.write(|tx| {
    /// # let vault = tx.vault("v")?;
    /// use vault_db::Timestamp;
    /// vault.put_until("offer", "half price", Timestamp(4_102_444_800_000))?; // 2100
    /// # Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TransactionVault::put_for`].
    pub fn put_until<V: Serialize + ?Sized>(
        &self,
        key: impl EncodeKey,
        value: &V,
        expiry: Timestamp,
    ) -> Result<()> {
        expiry.check_expiry(self.transaction.shared.now())?;
        let expiry = Some(expiry);
        self.set(&key, Some((value::encode(value, expiry)?, expiry)))
    }

    /// How long a key will be there: `None` where it is absent, `Some(None)` where it is there for good.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # db.write(|tx| {
    /// # let vault = tx.vault("v")?;
    /// vault.put("a", &1)?;
    /// assert_eq!(vault.time_to_live("a")?, Some(None));
    /// # Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TransactionVault::get`].
    pub fn time_to_live(&self, key: impl EncodeKey) -> Result<Option<Option<Duration>>> {
        let key = codec::encode_key(&key)?;
        let Some(stored) = self.transaction.get(&self.state, &key)? else {
            return Ok(None);
        };
        let now = self.transaction.shared.now();
        let left = |expiry: Timestamp| Duration::from_millis(expiry.0.saturating_sub(now.0));
        let stored = codec::parse(&self.state, &key, &stored)?;
        Ok(Some(stored.expiry.map(left)))
    }

    /// Gives a key a new expiry, or none with `None`. Gives whether the key was there. The value stays as it is.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # db.write(|tx| {
    /// # let vault = tx.vault("v")?;
    /// vault.put("session", "alice")?;
    /// assert!(vault.expire("session", Some(std::time::Duration::from_secs(60)))?);
    /// assert!(vault.time_to_live("session")?.flatten().is_some());
    /// # Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TransactionVault::put_for`].
    pub fn expire(&self, key: impl EncodeKey, time_to_live: Option<Duration>) -> Result<bool> {
        let key = codec::encode_key(&key)?;
        let now = self.transaction.shared.now();
        let expiry = time_to_live.map(|time| now.after(time)).transpose()?;
        let Some(current) = self.transaction.get(&self.state, &key)? else {
            return Ok(false);
        };
        let current = codec::parse(&self.state, &key, &current)?;
        let new = Some((value::with_expiry(&current, expiry), expiry));
        self.transaction.set(&self.state, key, new)?;
        Ok(true)
    }
}
