//! A handle bound to one tenant.

use std::fmt;
use std::io::BufRead;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::quota::{TenantInfo, TenantState};
use crate::access::AccessRecord;
use crate::database::Shared;
use crate::error::{Error, Result};
use crate::portable::{ImportOptions, ImportOutcome, ImportProgress};
use crate::transaction::{self, Transaction, TransactionOptions};
use crate::vault::{Vault, VaultInfo};

/// A handle bound to one tenant: its vaults, and no others.
///
/// The verbs are those of [`Database`](crate::Database). A handle is cheap to clone, `Send` and `Sync`; give it to the code
/// that serves the tenant, and keep the database to yourself.
///
/// ```
/// use vault_db::{Database, Error, Quota};
/// # fn main() -> vault_db::Result<()> {
/// let db = Database::temp()?;
/// let acme = db.create_tenant("acme", Quota { keys_max: 2, ..Quota::NONE })?;
/// let other = db.create_tenant("other", Quota::NONE)?;
/// acme.vault("users")?.put("alice", "admin")?;
/// assert!(!other.contains_vault("users"));
/// assert!(!db.contains_vault("users"));
///
/// acme.vault("users")?.put("bob", "guest")?;
/// let refused = acme.vault("notes")?.put("one more", &1);
/// assert!(matches!(refused, Err(Error::OverQuota { what: "keys", max: 2, .. })));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Tenant {
    shared: Arc<Shared>,
    state: Arc<TenantState>,
}

impl Tenant {
    pub(super) const fn new(shared: Arc<Shared>, state: Arc<TenantState>) -> Self {
        Self { shared, state }
    }

    /// The tenant's name.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let tenant = db.create_tenant("acme", vault_db::Quota::NONE)?;
    /// assert_eq!(tenant.name(), "acme");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// How much the tenant has, and may have.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let tenant = db.create_tenant("acme", vault_db::Quota::NONE)?;
    /// tenant.vault("users")?.put("alice", "admin")?;
    /// assert_eq!(tenant.info()?.keys, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchTenant`] where it was dropped.
    pub fn info(&self) -> Result<TenantInfo> {
        self.state.check()?;
        Ok(self.shared.tenant_info(&self.state))
    }

    /// The tenant's vault of this name, created if there is none, as [`Database::vault`](crate::Database::vault).
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let tenant = db.create_tenant("acme", vault_db::Quota::NONE)?;
    /// tenant.vault("users")?.put("alice", "admin")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::OverQuota`], [`Error::NoSuchTenant`] where it was dropped, and as
    /// [`Database::vault`](crate::Database::vault).
    pub fn vault(&self, name: &str) -> Result<Vault> {
        self.state.check()?;
        let state = self.shared.vault(self.state.id, name)?;
        Ok(Vault::new(Arc::clone(&self.shared), state))
    }

    /// The tenant's vault of this name, which must exist.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let tenant = db.create_tenant("acme", vault_db::Quota::NONE)?;
    /// assert!(tenant.existing_vault("users").is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchVault`], [`Error::InvalidVaultName`], [`Error::NoSuchTenant`] where it was dropped.
    pub fn existing_vault(&self, name: &str) -> Result<Vault> {
        self.state.check()?;
        let state = self.shared.existing_vault(self.state.id, name)?;
        Ok(Vault::new(Arc::clone(&self.shared), state))
    }

    /// Creates a vault of the tenant, which must not exist.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let tenant = db.create_tenant("acme", vault_db::Quota::NONE)?;
    /// tenant.create_vault("users")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::VaultExists`], and as [`Tenant::vault`].
    pub fn create_vault(&self, name: &str) -> Result<Vault> {
        self.state.check()?;
        let state = self.shared.create_vault(self.state.id, name)?;
        Ok(Vault::new(Arc::clone(&self.shared), state))
    }

    /// Whether the tenant has a vault of this name.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let tenant = db.create_tenant("acme", vault_db::Quota::NONE)?;
    /// tenant.vault("users")?;
    /// assert!(tenant.contains_vault("users") && !db.contains_vault("users"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn contains_vault(&self, name: &str) -> bool {
        self.shared.registry().find(self.state.id, name).is_some()
    }

    /// What is known of each of the tenant's vaults, in the order of their names.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let tenant = db.create_tenant("acme", vault_db::Quota::NONE)?;
    /// tenant.vault("users")?;
    /// assert_eq!(tenant.vaults().len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn vaults(&self) -> Vec<VaultInfo> {
        self.shared.vaults_of(self.state.id)
    }

    /// Runs a closure as a transaction over the tenant's vaults, as [`Database::write`](crate::Database::write).
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let tenant = db.create_tenant("acme", vault_db::Quota::NONE)?;
    /// tenant.write(|tx| tx.vault("users")?.put("alice", "admin"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Database::write`](crate::Database::write); [`Error::OverQuota`].
    pub fn write<R>(&self, f: impl FnMut(&Transaction) -> Result<R>) -> Result<R> {
        self.write_with(TransactionOptions::default(), f)
    }

    /// As [`Tenant::write`], with options, and with any error that one of this crate can be turned into.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let tenant = db.create_tenant("acme", vault_db::Quota::NONE)?;
    /// use vault_db::{Error, TransactionOptions};
    /// tenant.write_with(TransactionOptions::default(), |tx| tx.vault("users")?.put("alice", "admin"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Tenant::write`].
    pub fn write_with<R, E: From<Error>>(
        &self,
        options: TransactionOptions,
        f: impl FnMut(&Transaction) -> Result<R, E>,
    ) -> Result<R, E> {
        self.state.check()?;
        transaction::write(&self.shared, self.state.id, options, f)
    }

    /// Runs a closure on one moment of the tenant's vaults, as [`Database::read`](crate::Database::read).
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let tenant = db.create_tenant("acme", vault_db::Quota::NONE)?;
    /// tenant.vault("users")?.put("alice", "admin")?;
    /// assert!(tenant.read(|tx| tx.vault("users")?.contains("alice"))?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Database::read`](crate::Database::read).
    pub fn read<R>(&self, f: impl FnOnce(&Transaction) -> Result<R>) -> Result<R> {
        self.state.check()?;
        transaction::read(&self.shared, self.state.id, f)
    }

    /// Begins a transaction over the tenant's vaults, as [`Database::begin`](crate::Database::begin).
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let tenant = db.create_tenant("acme", vault_db::Quota::NONE)?;
    /// let tx = tenant.begin(vault_db::TransactionOptions::default())?;
    /// tx.vault("users")?.put("alice", "admin")?;
    /// tx.commit()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Database::begin`](crate::Database::begin).
    pub fn begin(&self, options: TransactionOptions) -> Result<Transaction> {
        self.state.check()?;
        transaction::check_not_nested(&self.shared)?;
        let mode = transaction::Mode::Write;
        Transaction::begin(&self.shared, self.state.id, options, mode)
    }

    /// Reads a vault of the tenant from text, as [`Database::import`](crate::Database::import).
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let tenant = db.create_tenant("acme", vault_db::Quota::NONE)?;
    /// let text = r#"{"format": "vault-json-v1", "entries": [{"key": "a", "value": 1}]}"#;
    /// tenant.import("letters", text.as_bytes(), &vault_db::ImportOptions::default())?;
    /// assert_eq!(tenant.vault("letters")?.len()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Database::import`](crate::Database::import); [`Error::OverQuota`].
    pub fn import(
        &self,
        name: &str,
        input: impl BufRead,
        options: &ImportOptions,
    ) -> Result<ImportOutcome> {
        self.import_with(name, input, options, |_| ControlFlow::Continue(()))
    }

    /// As [`Tenant::import`], with `progress` called from time to time, which can stop the work.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let tenant = db.create_tenant("acme", vault_db::Quota::NONE)?;
    /// use std::ops::ControlFlow;
    /// use vault_db::ImportOptions;
    /// let text = r#"{"format": "vault-json-v1", "entries": []}"#;
    /// tenant.import_with("letters", text.as_bytes(), &ImportOptions::default(), |progress| {
    ///     println!("{} entries", progress.entries_done);
    ///     ControlFlow::Continue(())
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Tenant::import`]; [`Error::Cancelled`], with nothing taken in.
    pub fn import_with(
        &self,
        name: &str,
        input: impl BufRead,
        options: &ImportOptions,
        progress: impl FnMut(ImportProgress) -> ControlFlow<()>,
    ) -> Result<ImportOutcome> {
        self.state.check()?;
        self.shared
            .import(self.state.id, name, input, options, progress)
    }

    /// Takes away what has expired in any of the tenant's vaults. Gives how many entries that were.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let tenant = db.create_tenant("acme", vault_db::Quota::NONE)?;
    /// assert_eq!(tenant.cleanup_expired()?, 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Engine`].
    pub fn cleanup_expired(&self) -> Result<u64> {
        self.state.check()?;
        self.shared.cleanup_expired(Some(self.state.id))
    }

    /// The latest accesses to the tenant's vaults that were sampled, the last one first.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let tenant = db.create_tenant("acme", vault_db::Quota::NONE)?;
    /// tenant.vault("users")?.put("alice", "admin")?;
    /// assert_eq!(tenant.recent_accesses().len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn recent_accesses(&self) -> Vec<AccessRecord> {
        self.shared.recent_accesses(self.state.id)
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant")
            .field("name", &self.state.name)
            .finish_non_exhaustive()
    }
}
