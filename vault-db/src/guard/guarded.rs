//! A database behind access control.

use std::fmt;
use std::io::BufRead;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::control::AccessControl;
use super::guarded_vault::GuardedVault;
use super::policy::Permission;
use crate::database::NO_TENANT;
use crate::error::Result;
use crate::portable::{ImportOptions, ImportOutcome, ImportProgress};
use crate::vault::{Vault, VaultInfo};

/// What somebody came in with.
#[derive(Clone)]
pub(super) enum Credential {
    /// A principal's secret, of this version.
    Secret { principal: String, version: u64 },
    /// A token of this hash.
    Token { hash: [u8; 32] },
}

/// A database as one principal may use it. Every call is checked anew: a role that is taken away, or a token that is revoked,
/// takes effect with the next. A scan that has begun goes on.
///
/// [`AccessControl::log_in`] and [`AccessControl::with_token`] give one. It has no transactions over several vaults: what
/// needs them runs beside the database, and guards its own verbs.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # use vault_db::encryption::{Kdf, SecretBytes};
/// # let db = vault_db::Database::temp()?;
/// # let control = db.access_control()?;
/// # let secret = || SecretBytes::from_string("correct horse".to_owned());
/// # control.set_role("reader", [vault_db::Grant::new("*", [vault_db::Permission::Read])])?;
/// # control.create_principal("alice", &secret()?, ["reader"], Kdf::danger_weak())?;
/// db.vault("notes")?.put("a", &1)?;
/// let guarded = control.log_in("alice", &secret()?)?;
/// assert_eq!(guarded.vault("notes")?.get::<i64>("a")?, Some(1));
/// assert!(guarded.vault("another").is_err()); // reading is all that alice may
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Guarded {
    control: AccessControl,
    credential: Arc<Credential>,
}

impl Guarded {
    pub(super) fn new(control: AccessControl, credential: Credential) -> Self {
        Self {
            control,
            credential: Arc::new(credential),
        }
    }

    /// Whether the secret or token is still good. Gives the principal's name.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{Kdf, SecretBytes};
    /// # use vault_db::{Grant, Permission};
    /// # let db = vault_db::Database::temp()?;
    /// # let control = db.access_control()?;
    /// # let all = [Permission::Read, Permission::Write, Permission::Delete, Permission::Scan, Permission::Admin];
    /// # control.set_role("all", [Grant::new("app-*", all)])?;
    /// # let secret = || SecretBytes::from_string("correct horse".to_owned());
    /// # control.create_principal("service", &secret()?, ["all"], Kdf::danger_weak())?;
    /// # let guarded = control.log_in("service", &secret()?)?;
    /// # let vault = guarded.vault("app-users")?;
    /// assert_eq!(guarded.check()?, "service");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`BadCredentials`](crate::Error::BadCredentials), [`InvalidToken`](crate::Error::InvalidToken).
    pub fn check(&self) -> Result<String> {
        self.control.check(&self.credential)
    }

    /// Whether this is allowed on a vault now. A refusal goes into the audit log.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{Kdf, SecretBytes};
    /// # use vault_db::{Grant, Permission};
    /// # let db = vault_db::Database::temp()?;
    /// # let control = db.access_control()?;
    /// # let all = [Permission::Read, Permission::Write, Permission::Delete, Permission::Scan, Permission::Admin];
    /// # control.set_role("all", [Grant::new("app-*", all)])?;
    /// # let secret = || SecretBytes::from_string("correct horse".to_owned());
    /// # control.create_principal("service", &secret()?, ["all"], Kdf::danger_weak())?;
    /// # let guarded = control.log_in("service", &secret()?)?;
    /// # let vault = guarded.vault("app-users")?;
    /// assert!(guarded.allow(Permission::Read, "payroll").is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Denied`](crate::Error::Denied), and as [`Guarded::check`].
    pub fn allow(&self, permission: Permission, vault: &str) -> Result<()> {
        self.control.allow(&self.credential, permission, vault)
    }

    /// What the principal may do with a vault of this name.
    pub(super) fn permissions(&self, vault: &str) -> Result<Vec<Permission>> {
        self.control.permissions(&self.credential, vault)
    }

    /// The vault of this name. Where there is none it is created, which needs [`Permission::Admin`].
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{Kdf, SecretBytes};
    /// # use vault_db::{Grant, Permission};
    /// # let db = vault_db::Database::temp()?;
    /// # let control = db.access_control()?;
    /// # let all = [Permission::Read, Permission::Write, Permission::Delete, Permission::Scan, Permission::Admin];
    /// # control.set_role("all", [Grant::new("app-*", all)])?;
    /// # let secret = || SecretBytes::from_string("correct horse".to_owned());
    /// # control.create_principal("service", &secret()?, ["all"], Kdf::danger_weak())?;
    /// # let guarded = control.log_in("service", &secret()?)?;
    /// # let vault = guarded.vault("app-users")?;
    /// guarded.vault("app-notes")?.put("a", &1)?;
    /// assert!(guarded.vault("payroll").is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Denied`](crate::Error::Denied), and as [`Database::vault`](crate::Database::vault).
    pub fn vault(&self, name: &str) -> Result<GuardedVault> {
        let shared = self.control.shared();
        if !self
            .control
            .allowed_with(&self.credential, name)?
            .may_any(name)
        {
            // Refused for want of the least that could be asked, whether or not there is such a vault: that is not told.
            self.allow(Permission::Read, name)?;
        }
        let known = shared.registry().find(NO_TENANT, name).map(Arc::clone);
        let state = match known {
            // Not looked up again: should it be deleted meanwhile, it is not created anew.
            Some(state) => state,
            None => {
                self.allow(Permission::Admin, name)?;
                shared.vault(NO_TENANT, name)?
            }
        };
        let vault = Vault::new(Arc::clone(shared), state);
        Ok(GuardedVault::new(self.clone(), vault))
    }

    /// What is known of the vaults that the principal may read, in the order of their names. Others that it may do something with
    /// are among the [names](Guarded::vault_names).
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{Kdf, SecretBytes};
    /// # use vault_db::{Grant, Permission};
    /// # let db = vault_db::Database::temp()?;
    /// # let control = db.access_control()?;
    /// # let all = [Permission::Read, Permission::Write, Permission::Delete, Permission::Scan, Permission::Admin];
    /// # control.set_role("all", [Grant::new("app-*", all)])?;
    /// # let secret = || SecretBytes::from_string("correct horse".to_owned());
    /// # control.create_principal("service", &secret()?, ["all"], Kdf::danger_weak())?;
    /// # let guarded = control.log_in("service", &secret()?)?;
    /// # let vault = guarded.vault("app-users")?;
    /// assert_eq!(guarded.vaults()?.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Guarded::check`].
    pub fn vaults(&self) -> Result<Vec<VaultInfo>> {
        let mut vaults = self.control.shared().vaults_of(NO_TENANT);
        let allowed = self.control.allowed(&self.credential)?;
        vaults.retain(|info| allowed.may(Permission::Read, &info.name));
        Ok(vaults)
    }

    /// The names of the vaults that the principal may do anything with, in order.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{Kdf, SecretBytes};
    /// # use vault_db::{Grant, Permission};
    /// # let db = vault_db::Database::temp()?;
    /// # let control = db.access_control()?;
    /// control.set_role("drop box", [Grant::new("inbox", [Permission::Write])])?;
    /// # let secret = || SecretBytes::from_string("correct horse".to_owned());
    /// control.create_principal("courier", &secret()?, ["drop box"], Kdf::danger_weak())?;
    /// db.vault("inbox")?;
    /// let guarded = control.log_in("courier", &secret()?)?;
    /// assert_eq!(guarded.vault_names()?, ["inbox"]);
    /// assert!(guarded.vaults()?.is_empty(), "how much is in it is not told");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Guarded::check`].
    pub fn vault_names(&self) -> Result<Vec<String>> {
        let vaults = self.control.shared().vaults_of(NO_TENANT).into_iter();
        let allowed = self.control.allowed(&self.credential)?;
        let names = vaults.map(|info| info.name);
        Ok(names.filter(|name| allowed.may_any(name)).collect())
    }

    /// Reads a vault from text, as [`Database::import`](crate::Database::import). Needs [`Permission::Admin`] and
    /// [`Permission::Write`].
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{Kdf, SecretBytes};
    /// # use vault_db::{Grant, Permission};
    /// # let db = vault_db::Database::temp()?;
    /// # let control = db.access_control()?;
    /// # let all = [Permission::Read, Permission::Write, Permission::Delete, Permission::Scan, Permission::Admin];
    /// # control.set_role("all", [Grant::new("app-*", all)])?;
    /// # let secret = || SecretBytes::from_string("correct horse".to_owned());
    /// # control.create_principal("service", &secret()?, ["all"], Kdf::danger_weak())?;
    /// # let guarded = control.log_in("service", &secret()?)?;
    /// # let vault = guarded.vault("app-users")?;
    /// let text = r#"{"format": "vault-json-v1", "entries": []}"#;
    /// guarded.import("app-letters", text.as_bytes(), &vault_db::ImportOptions::default())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Denied`](crate::Error::Denied), and as [`Database::import`](crate::Database::import).
    pub fn import(
        &self,
        name: &str,
        input: impl BufRead,
        options: &ImportOptions,
    ) -> Result<ImportOutcome> {
        self.import_with(name, input, options, |_| ControlFlow::Continue(()))
    }

    /// As [`Guarded::import`], with `progress` called from time to time, which can stop the work.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{Kdf, SecretBytes};
    /// # use vault_db::{Grant, Permission};
    /// # let db = vault_db::Database::temp()?;
    /// # let control = db.access_control()?;
    /// # let all = [Permission::Read, Permission::Write, Permission::Delete, Permission::Scan, Permission::Admin];
    /// # control.set_role("all", [Grant::new("app-*", all)])?;
    /// # let secret = || SecretBytes::from_string("correct horse".to_owned());
    /// # control.create_principal("service", &secret()?, ["all"], Kdf::danger_weak())?;
    /// # let guarded = control.log_in("service", &secret()?)?;
    /// use std::ops::ControlFlow;
    /// use vault_db::ImportOptions;
    /// let text = r#"{"format": "vault-json-v1", "entries": []}"#;
    /// guarded.import_with("app-letters", text.as_bytes(), &ImportOptions::default(), |progress| {
    ///     println!("{} entries", progress.entries_done);
    ///     ControlFlow::Continue(())
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Guarded::import`]; [`Cancelled`](crate::Error::Cancelled), with nothing taken in.
    pub fn import_with(
        &self,
        name: &str,
        input: impl BufRead,
        options: &ImportOptions,
        progress: impl FnMut(ImportProgress) -> ControlFlow<()>,
    ) -> Result<ImportOutcome> {
        self.allow(Permission::Admin, name)?;
        self.allow(Permission::Write, name)?;
        self.control
            .shared()
            .import(NO_TENANT, name, input, options, progress)
    }
}

impl Guarded {
    pub(super) const fn control(&self) -> &AccessControl {
        &self.control
    }
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded")
            .field("principal", &self.check().ok())
            .finish_non_exhaustive()
    }
}
