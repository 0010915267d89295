//! The rules in force, and how they change: in the catalog and in memory at once, with an entry in the audit log.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use vault_core::{KeyspaceId, WriteBatch};

use super::audit::{self, AuditAction, AuditEntry, AuditLog};
use super::hashing::Hashing;
use super::policy::Policy;
use crate::catalog;
use crate::database::{Database, Shared, lock};
use crate::error::Result;

/// Who may do what, of one database.
pub(crate) struct ControlState {
    policy: RwLock<Policy>,
    pub(super) audit: Mutex<AuditLog>,
    pub(super) hashing: Hashing,
}

impl ControlState {
    pub(super) fn policy(&self) -> RwLockReadGuard<'_, Policy> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is to be done in memory once a change is written.
pub(super) type Apply<'a> = Box<dyn FnOnce(&mut Policy) + 'a>;

/// Who may do what: principals with secrets, roles, tokens, and the audit log. [`Database::access_control`] gives it.
///
/// ```
/// use vault_db::encryption::{Kdf, SecretBytes};
/// use vault_db::{Database, Error, Grant, Permission};
/// # fn main() -> vault_db::Result<()> {
/// # let db = Database::temp()?;
/// db.vault("app-users")?.put("alice", "admin")?;
/// let control = db.access_control()?;
/// control.set_role("reader", [Grant::new("app-*", [Permission::Read])])?;
/// let secret = || SecretBytes::from_string("correct horse".to_owned());
/// control.create_principal("service", &secret()?, ["reader"], Kdf::danger_weak())?; // `Kdf::ARGON2ID` in earnest
///
/// let guarded = control.log_in("service", &secret()?)?;
/// let users = guarded.vault("app-users")?;
/// assert_eq!(users.get::<String>("alice")?.as_deref(), Some("admin"));
/// assert!(matches!(users.put("alice", "guest"), Err(Error::Denied { .. })));
/// assert_eq!(control.audit(1)?[0].detail, "write");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct AccessControl {
    pub(super) shared: Arc<Shared>,
    pub(super) state: Arc<ControlState>,
}

impl Database {
    /// Who may do what with this database's vaults. Everything can be done through the [`Database`] itself: keep it from
    /// whoever is to be checked, and give them a [`Guarded`](crate::Guarded) one.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// assert!(db.access_control()?.principals().is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Malformed`](crate::Error::Malformed), [`Error::MigrationUnderWay`](crate::Error::MigrationUnderWay),
    /// [`Error::Engine`](crate::Error::Engine).
    pub fn access_control(&self) -> Result<AccessControl> {
        let shared = self.shared();
        let mut control = lock(&shared.control);
        let state = match &*control {
            Some(state) => Arc::clone(state),
            None => {
                let loaded = Arc::new(load(shared)?);
                *control = Some(Arc::clone(&loaded));
                loaded
            }
        };
        Ok(AccessControl {
            shared: Arc::clone(shared),
            state,
        })
    }
}

fn load(shared: &Shared) -> Result<ControlState> {
    let catalog = shared.keyspaces()?.catalog;
    shared.check_no_migration()?;
    let engine = &*shared.engine;
    let mut policy = Policy::default();
    let name_of = |key: &[u8], what: &str| {
        let name = std::str::from_utf8(&key[1..]).map(str::to_owned);
        name.map_err(|_| catalog::malformed(what))
    };
    for entry in engine.scan_prefix(catalog, &[catalog::PRINCIPAL])? {
        let (key, value) = entry?;
        let what = "a principal";
        policy
            .principals
            .insert(name_of(&key, what)?, catalog::decode(what, &value)?);
    }
    for entry in engine.scan_prefix(catalog, &[catalog::ROLE])? {
        let (key, value) = entry?;
        let what = "a role";
        policy
            .roles
            .insert(name_of(&key, what)?, catalog::decode(what, &value)?);
    }
    for entry in engine.scan_prefix(catalog, &[catalog::TOKEN])? {
        let (key, value) = entry?;
        let what = "a token";
        let hash = <[u8; 32]>::try_from(&key[1..]).map_err(|_| catalog::malformed(what))?;
        policy.tokens.insert(hash, catalog::decode(what, &value)?);
    }
    Ok(ControlState {
        policy: RwLock::new(policy),
        audit: Mutex::new(AuditLog::open(engine, catalog)?),
        hashing: Hashing::default(),
    })
}

impl AccessControl {
    /// Changes the policy, in the catalog and in memory, with an entry in the audit log. `plan` adds to the batch, and gives
    /// what is to be done in memory once it is written.
    pub(super) fn change<'a>(
        &self,
        action: AuditAction,
        principal: &str,
        detail: String,
        plan: impl FnOnce(&Policy, &mut WriteBatch, KeyspaceId) -> Result<Apply<'a>>,
    ) -> Result<()> {
        // One change at a time, and nobody is kept from a check while it is written.
        let mut audit = lock(&self.state.audit);
        let mut batch = WriteBatch::new();
        let catalog = self.shared.keyspaces()?.catalog;
        let apply = plan(&self.state.policy(), &mut batch, catalog)?;
        let entry = audit::entry(self.shared.now(), principal, action, None, detail);
        self.write(&mut audit, batch, &entry)?;
        let policy = self.state.policy.write();
        apply(&mut policy.unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    /// Writes an entry to the audit log.
    pub(super) fn note(
        &self,
        action: AuditAction,
        principal: &str,
        vault: Option<&str>,
        detail: String,
    ) -> Result<()> {
        let mut audit = lock(&self.state.audit);
        let entry = audit::entry(self.shared.now(), principal, action, vault, detail);
        self.write(&mut audit, WriteBatch::new(), &entry)
    }

    /// Writes a batch with an entry in the audit log.
    fn write(&self, audit: &mut AuditLog, mut batch: WriteBatch, entry: &AuditEntry) -> Result<()> {
        let head = audit.plan(&mut batch, entry)?;
        let shared = &self.shared;
        shared.engine.write(&batch, &shared.structural())?;
        audit.written(head);
        Ok(())
    }

    pub(super) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl fmt::Debug for AccessControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessControl").finish_non_exhaustive()
    }
}
