//! What is known of a vault.

use serde::{Deserialize, Serialize};
use vault_core::Timestamp;

use super::Vault;
use crate::catalog::{Record, Tally};
use crate::error::Result;

/// What is known of a vault. Looking it up reads none of its entries.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// let vault = db.vault("notes")?;
/// vault.put("a", &1)?;
/// vault.set_tags(["private"])?;
/// let info = &db.vaults()[0];
/// assert_eq!((info.name.as_str(), info.keys, info.tags.len()), ("notes", 1, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultInfo {
    /// Its name.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
    /// When an entry was last written or removed.
    pub updated: Timestamp,
    /// How many keys it has. Entries that have expired count until they are
    /// [cleaned up](Vault::cleanup_expired); [`Vault::len`] leaves them out.
    pub keys: u64,
    /// Bytes of its keys and values, as encoded and before compression.
    pub bytes: u64,
    /// How many of the keys have an expiry.
    pub expiring: u64,
    /// What it is for.
    pub description: Option<String>,
    /// Whose it is.
    pub owner: Option<String>,
    /// What it is found by.
    pub tags: Vec<String>,
}

impl VaultInfo {
    pub(crate) fn new(name: &str, record: &Record, tally: &Tally) -> Self {
        Self {
            name: name.to_owned(),
            created: Timestamp(record.created),
            updated: tally.updated,
            keys: tally.entries,
            bytes: tally.bytes(),
            expiring: tally.expiring,
            description: record.description.clone(),
            owner: record.owner.clone(),
            tags: record.tags.clone(),
        }
    }
}

impl Vault {
    /// What is known of the vault.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// let notes = db.vault("notes")?;
    /// notes.describe(Some("what not to forget"))?;
    /// notes.set_tags(["personal"])?;
    /// notes.put("backup", "weekly")?;
    /// let info = notes.info()?;
    /// assert_eq!(info.keys, 1);
    /// assert_eq!(info.description.as_deref(), Some("what not to forget"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`VaultDeleted`](crate::Error::VaultDeleted).
    pub fn info(&self) -> Result<VaultInfo> {
        let state = self.state();
        state.check()?;
        let tally = state.counts.tally();
        let live = state.live();
        Ok(VaultInfo::new(&live.name, &live.record, &tally))
    }

    /// Says what the vault is for, in up to [`DESCRIPTION_BYTES_MAX`](crate::DESCRIPTION_BYTES_MAX) bytes.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let vault = db.vault("v")?;
    /// vault.describe(Some("letters of the alphabet"))?;
    /// assert!(vault.info()?.description.is_some());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`MetadataTooLong`](crate::Error::MetadataTooLong), [`VaultDeleted`](crate::Error::VaultDeleted),
    /// [`Engine`](crate::Error::Engine).
    pub fn describe(&self, description: Option<&str>) -> Result<()> {
        self.change_record(|record| record.description = description.map(str::to_owned))
    }

    /// Says whose the vault is, in up to [`TAG_BYTES_MAX`](crate::TAG_BYTES_MAX) bytes. This is a note for people;
    /// [`AccessControl`](crate::AccessControl) goes by roles.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let vault = db.vault("v")?;
    /// vault.set_owner(Some("the shop team"))?;
    /// assert_eq!(vault.info()?.owner.as_deref(), Some("the shop team"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`MetadataTooLong`](crate::Error::MetadataTooLong), [`VaultDeleted`](crate::Error::VaultDeleted),
    /// [`Engine`](crate::Error::Engine).
    pub fn set_owner(&self, owner: Option<&str>) -> Result<()> {
        self.change_record(|record| record.owner = owner.map(str::to_owned))
    }

    /// Says what the vault is found by: up to [`TAGS_MAX`](crate::TAGS_MAX) tags of up to
    /// [`TAG_BYTES_MAX`](crate::TAG_BYTES_MAX) bytes.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let vault = db.vault("v")?;
    /// vault.set_tags(["shop", "2024"])?;
    /// assert_eq!(vault.info()?.tags, ["shop", "2024"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`MetadataTooLong`](crate::Error::MetadataTooLong), [`VaultDeleted`](crate::Error::VaultDeleted),
    /// [`Engine`](crate::Error::Engine).
    pub fn set_tags<T: Into<String>>(&self, tags: impl IntoIterator<Item = T>) -> Result<()> {
        let tags: Vec<String> = tags.into_iter().map(Into::into).collect();
        self.change_record(|record| record.tags = tags)
    }

    fn change_record(&self, change: impl FnOnce(&mut Record)) -> Result<()> {
        self.shared.change_record(self.state(), change)
    }
}
