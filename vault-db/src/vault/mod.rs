//! A vault: a dictionary with a name, kept on disk.

pub(crate) mod codec;
mod counters;
mod entry;
mod expiry;
mod manage;
mod metadata;
mod read;
mod scan;
mod scratch;
mod statistics;
mod write;

use std::fmt;
use std::sync::Arc;

use vault_core::SequenceNumber;

pub use codec::RawValue;
pub use entry::Entry;
pub use metadata::VaultInfo;
pub(crate) use scan::Entries;
pub use scan::{Keys, RawScan, Scan};
pub use statistics::VaultStats;

use crate::database::{Shared, VaultState};
use crate::error::{Error, Result};

/// A dictionary with a name, kept on disk: keys in order, each with a value of any type that serde knows.
///
/// [`Database::vault`](crate::Database::vault) gives one. A handle is cheap to clone, `Send` and `Sync`, and keeps the
/// database open; all handles of one name are the same vault.
///
/// Every verb takes effect as a whole, and is as durable as the database's writes are to be when it returns (by default:
/// on stable storage). Several verbs that belong together go into a [transaction](crate::Database::write).
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use vault_db::Database;
///
/// #[derive(Serialize, Deserialize)]
/// struct User {
///     role: String,
///     active: bool,
/// }
///
/// # fn main() -> vault_db::Result<()> {
/// let db = Database::temp()?;
/// let users = db.vault("users")?;
/// users.put("alice", &User { role: "admin".to_owned(), active: true })?;
/// users.put("bob", &User { role: "user".to_owned(), active: false })?;
///
/// let alice: User = users.get("alice")?.unwrap();
/// assert!(alice.active);
/// assert!(users.contains("bob")?);
/// let names = users.keys::<String>()?.collect::<vault_db::Result<Vec<_>>>()?;
/// assert_eq!(names, ["alice", "bob"]);
/// assert!(users.remove("bob")?);
/// assert_eq!(users.len()?, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Vault {
    shared: Arc<Shared>,
    state: Arc<VaultState>,
}

impl Vault {
    pub(crate) const fn new(shared: Arc<Shared>, state: Arc<VaultState>) -> Self {
        Self { shared, state }
    }

    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The vault that the handle stands for now.
    #[inline]
    pub(crate) fn state(&self) -> &Arc<VaultState> {
        self.state.latest()
    }

    /// The vault that the handle stands for at a moment.
    pub(crate) fn state_at(&self, moment: SequenceNumber) -> &Arc<VaultState> {
        self.state.at(moment)
    }

    /// Reads in the vault that the handle stands for, in another one where that has taken its place meanwhile.
    #[inline]
    pub(crate) fn reading<R>(&self, read: impl Fn(&Arc<VaultState>) -> Result<R>) -> Result<R> {
        loop {
            let state = self.state();
            match read(state) {
                Err(Error::VaultDeleted { .. }) if state.is_succeeded() => {}
                // What was deleted or exchanged is gone at that moment, and not when its files are.
                Ok(found) => return state.check().map(|()| found),
                error => return error,
            }
        }
    }

    /// The vault's name, which [`Vault::rename`] through any handle changes.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let vault = db.vault("v")?;
    /// assert_eq!(vault.name(), "v");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn name(&self) -> String {
        self.state().name().to_string()
    }

    /// Whether two handles are of the same vault.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let vault = db.vault("v")?;
    /// assert!(vault.is_same(&vault.clone()));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(self.state(), other.state())
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}
