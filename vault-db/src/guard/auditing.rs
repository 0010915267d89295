//! The verbs of the audit log: reading, verifying and pruning it.

use std::sync::Arc;

use vault_core::{Snapshot, WriteBatch};

use super::audit::{AuditEntry, AuditLog, AuditPrune};
use super::control::AccessControl;
use super::guarded::Guarded;
use super::policy::Permission;
use crate::database::lock;
use crate::error::Result;
use crate::hex::hex;

impl AccessControl {
    /// The latest entries of the audit log, the last one first.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{Kdf, SecretBytes};
    /// # use vault_db::{Grant, Permission};
    /// # let db = vault_db::Database::temp()?;
    /// # let control = db.access_control()?;
    /// # control.set_role("reader", [Grant::new("app-*", [Permission::Read])])?;
    /// # let secret = || SecretBytes::from_string("correct horse".to_owned());
    /// # control.create_principal("service", &secret()?, ["reader"], Kdf::danger_weak())?;
    /// assert_eq!(control.audit(10)?[0].principal, "service");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Malformed`](crate::Error::Malformed), [`Engine`](crate::Error::Engine).
    pub fn audit(&self, count: usize) -> Result<Vec<AuditEntry>> {
        let (audit, snapshot) = self.audit_of_now()?;
        audit.latest(&*snapshot, count)
    }

    /// Checks the audit log: that no entry is missing but those that were [pruned](AccessControl::prune_audit), at its end
    /// neither, and none was changed. Gives how many there are.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{Kdf, SecretBytes};
    /// # use vault_db::{Grant, Permission};
    /// # let db = vault_db::Database::temp()?;
    /// # let control = db.access_control()?;
    /// # control.set_role("reader", [Grant::new("app-*", [Permission::Read])])?;
    /// # let secret = || SecretBytes::from_string("correct horse".to_owned());
    /// # control.create_principal("service", &secret()?, ["reader"], Kdf::danger_weak())?;
    /// assert_eq!(control.verify_audit()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Malformed`](crate::Error::Malformed) with the number of the first entry that is not as it was written; [`Engine`](crate::Error::Engine).
    pub fn verify_audit(&self) -> Result<u64> {
        let (audit, snapshot) = self.audit_of_now()?;
        audit.verify(&*snapshot)
    }

    /// How many entries were ever written to the audit log, and the hash of the last in hexadecimal: to be kept elsewhere, so that a log that
    /// was made anew as a whole shows too ([`AccessControl::audit_contains`]).
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{Kdf, SecretBytes};
    /// # use vault_db::{Grant, Permission};
    /// # let db = vault_db::Database::temp()?;
    /// # let control = db.access_control()?;
    /// # control.set_role("reader", [Grant::new("app-*", [Permission::Read])])?;
    /// # let secret = || SecretBytes::from_string("correct horse".to_owned());
    /// # control.create_principal("service", &secret()?, ["reader"], Kdf::danger_weak())?;
    /// let (entries, hash) = control.audit_head();
    /// assert_eq!((entries, hash.len()), (2, 64));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn audit_head(&self) -> (u64, String) {
        let head = lock(&self.state.audit).head();
        (head.entries, hex(&head.hash))
    }

    /// Whether the audit log goes on from what [`AccessControl::audit_head`] gave once. Entries that were pruned prove nothing any
    /// more: of a head among them, only the last can be recognized.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let control = db.access_control()?;
    /// control.set_role("reader", [])?;
    /// let (entries, hash) = control.audit_head(); // kept elsewhere
    /// control.set_role("writer", [])?;
    /// assert!(control.audit_contains(entries, &hash)?);
    /// assert!(!control.audit_contains(entries, "another hash")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Malformed`](crate::Error::Malformed) where the log does not prove itself; [`Engine`](crate::Error::Engine).
    pub fn audit_contains(&self, entries: u64, hash: &str) -> Result<bool> {
        let (audit, snapshot) = self.audit_of_now()?;
        audit.verify(&*snapshot)?;
        audit.contains(&*snapshot, entries, hash)
    }

    /// The log as it is now. Whoever walks over it, which takes time, holds up nobody who is to be noted in it.
    fn audit_of_now(&self) -> Result<(AuditLog, Arc<dyn Snapshot>)> {
        let audit = lock(&self.state.audit);
        Ok((audit.clone(), self.shared.engine.snapshot()?))
    }

    /// Takes the oldest entries out of the audit log, so that it stays as long as it is to be, and says in it who did so (`by`, in
    /// words of yours) and how many went. What is kept goes on proving itself. Gives how many went; where none do, nothing is
    /// written.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::AuditPrune;
    /// # let db = vault_db::Database::temp()?;
    /// # let control = db.access_control()?;
    /// for name in ["reader", "writer", "keeper"] {
    ///     control.set_role(name, [])?;
    /// }
    /// assert_eq!(control.prune_audit("nightly job", AuditPrune::AllBut(1))?, 2);
    /// let entries = control.audit(10)?;
    /// assert_eq!(entries[0].principal, "nightly job");
    /// assert_eq!(entries[0].anchor.as_ref().map(|anchor| anchor.pruned), Some(2));
    /// assert_eq!(control.verify_audit()?, 2); // the one that was kept, and what tells of the others
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Malformed`](crate::Error::Malformed) where the log does not prove itself before: nothing is pruned then;
    /// [`Engine`](crate::Error::Engine).
    pub fn prune_audit(&self, by: &str, prune: AuditPrune) -> Result<u64> {
        let engine = &*self.shared.engine;
        let mut audit = lock(&self.state.audit);
        let mut batch = WriteBatch::new();
        let planned = audit.plan_prune(engine, &mut batch, self.shared.now(), by, prune)?;
        let Some((pruned, head)) = planned else {
            return Ok(0);
        };
        engine.write(&batch, &self.shared.structural())?;
        audit.written(head);
        Ok(pruned)
    }
}

/// What [`Permission::Admin`] must be allowed on to prune the audit log: no vault can have this name.
const AUDIT_LOG: &str = "vault.audit";

impl Guarded {
    /// Takes the oldest entries out of the audit log: [`AccessControl::prune_audit`], in the principal's name. Needs
    /// [`Permission::Admin`] on `vault.audit`, a name that no vault has: a role for `*` has it, or one for this name alone.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{Kdf, SecretBytes};
    /// # use vault_db::{AuditPrune, Grant, Permission};
    /// # let db = vault_db::Database::temp()?;
    /// # let control = db.access_control()?;
    /// # let secret = || SecretBytes::from_string("correct horse".to_owned());
    /// control.set_role("auditor", [Grant::new("vault.audit", [Permission::Admin])])?;
    /// control.create_principal("alice", &secret()?, ["auditor"], Kdf::danger_weak())?; // `Kdf::ARGON2ID` in earnest
    /// let alice = control.log_in("alice", &secret()?)?;
    /// assert_eq!(alice.prune_audit(AuditPrune::AllBut(1))?, 2);
    /// assert_eq!(control.audit(1)?[0].principal, "alice");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Denied`](crate::Error::Denied), and as [`AccessControl::prune_audit`].
    pub fn prune_audit(&self, prune: AuditPrune) -> Result<u64> {
        let name = self.check()?;
        self.allow(Permission::Admin, AUDIT_LOG)?;
        self.control().prune_audit(&name, prune)
    }
}
