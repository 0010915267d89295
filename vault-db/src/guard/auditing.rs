//! The verbs of the audit log: reading and verifying it.

use super::audit::AuditEntry;
use super::control::AccessControl;
use super::token;
use crate::database::lock;
use crate::error::Result;

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
    /// [`Error::Malformed`], [`Error::Engine`].
    pub fn audit(&self, count: usize) -> Result<Vec<AuditEntry>> {
        lock(&self.state.audit).latest(&*self.shared.engine, count)
    }

    /// Checks the audit log: that no entry is missing, at its end neither, and none was changed. Gives how many there are.
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
    /// [`Error::Malformed`] with the number of the first entry that is not as it was written; [`Error::Engine`].
    pub fn verify_audit(&self) -> Result<u64> {
        lock(&self.state.audit).verify(&*self.shared.engine)
    }

    /// How many entries the audit log has, and the hash of the last in hexadecimal: to be kept elsewhere, so that a log that
    /// was made anew as a whole shows too.
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
        (head.entries, token::hex(&head.hash))
    }
}
