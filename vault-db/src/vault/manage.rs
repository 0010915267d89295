//! Whole vaults: cleared, renamed, copied, deleted.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::Vault;
use crate::access::AccessVerb;
use crate::database::CopyProgress;
use crate::error::Result;

impl Vault {
    /// Removes every entry, at once, however many there are. Gives how many there were.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let vault = db.vault("v")?;
    /// vault.update([("a", 1), ("b", 2)])?;
    /// assert_eq!(vault.clear()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`VaultDeleted`](crate::Error::VaultDeleted), [`Engine`](crate::Error::Engine).
    pub fn clear(&self) -> Result<u64> {
        let access = self
            .state()
            .access
            .begin(&self.shared, AccessVerb::Delete, &[]);
        let removed = self.shared.clear(self.state())?;
        access.end();
        Ok(removed)
    }

    /// Gives the vault another name, at once. Every handle goes on with it. Gives how many entries it has.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// let draft = db.vault("draft")?;
    /// draft.put("title", "On keys")?;
    /// draft.rename("final")?;
    /// assert_eq!(draft.name(), "final");
    /// assert!(db.existing_vault("draft").is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`VaultExists`](crate::Error::VaultExists), [`InvalidVaultName`](crate::Error::InvalidVaultName),
    /// [`VaultDeleted`](crate::Error::VaultDeleted), [`Engine`](crate::Error::Engine).
    pub fn rename(&self, name: &str) -> Result<u64> {
        self.shared.rename(self.state(), name)
    }

    /// Copies the vault, as it is at this moment, under another name. The copy appears whole, when it is done; reading and
    /// writing go on meanwhile. It has the description, owner and tags of this vault, and entries keep their expiry.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// let prices = db.vault("prices")?;
    /// prices.update([("lamp", 20), ("desk", 200)])?;
    /// let before = prices.copy_to("prices before")?;
    /// prices.put("lamp", &25)?;
    /// assert_eq!(before.get::<u32>("lamp")?, Some(20));
    /// assert_eq!(before.len()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::rename`], and [`TooManyVaults`](crate::Error::TooManyVaults).
    pub fn copy_to(&self, name: &str) -> Result<Self> {
        self.copy_with(name, |_| ControlFlow::Continue(()))
    }

    /// As [`Vault::copy_to`], with `progress` called from time to time, which can stop the work.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let vault = db.vault("v")?;
    /// use std::ops::ControlFlow;
    /// vault.put("a", &1)?;
    /// let copy = vault.copy_with("copy", |progress| {
    ///     println!("{} of {}", progress.entries_done, progress.entries_total);
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert_eq!(copy.len()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Vault::copy_to`]; [`Cancelled`](crate::Error::Cancelled), with no copy made.
    pub fn copy_with(
        &self,
        name: &str,
        progress: impl FnMut(CopyProgress) -> ControlFlow<()>,
    ) -> Result<Self> {
        let state = self.shared.copy(self.state(), name, progress)?;
        Ok(Self::new(Arc::clone(&self.shared), state))
    }

    /// Deletes the vault with everything in it, at once. Gives how many entries it had. Every other handle of it answers
    /// [`VaultDeleted`](crate::Error::VaultDeleted) from then on; transactions and scans that are open go on reading
    /// what they saw.
    ///
    /// In an encrypted database its key is destroyed with it, and what is kept of its entries beside it, under keys that live on
    /// (which of them expire, and which are used most), leaves tables and log before this returns: what is left of it on the disk
    /// opens for nobody. That takes as long as flushing everything, rewriting the catalog, and rewriting the part of the list of
    /// what expires that tells of the vault; others go on meanwhile. A crash on the way leaves the rest to the next opening.
    ///
    /// Not reached by it: what transactions, snapshots and scans that are open still see, which stays until the tables that hold it
    /// are compacted once more after their end; snapshots and copies that were made before; blocks of the device that no file owns
    /// any more, which open with the database's secret until its keys have been rotated.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let vault = db.vault("v")?;
    /// vault.put("a", &1)?;
    /// assert_eq!(vault.delete()?, 1);
    /// assert!(vault.get::<i64>("a").is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`VaultDeleted`](crate::Error::VaultDeleted), [`Engine`](crate::Error::Engine). After an error of the engine the vault may be
    /// gone all the same: the next opening gives back what space is left of it. Where an encrypted database could not rewrite
    /// tables, for want of room or because one is damaged, keys of what was to expire may stay in them: have
    /// [`Engine::compact`](vault_core::Engine::compact) rewrite all of `vault.expiry` and `vault.catalog` when that is mended.
    pub fn delete(&self) -> Result<u64> {
        self.shared.delete(self.state())
    }
}
