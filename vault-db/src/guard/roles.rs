//! Roles: what they allow.

use super::audit::AuditAction;
use super::control::AccessControl;
use super::policy::{Grant, Policy};
use crate::catalog;
use crate::error::Result;
use crate::name::check_vault_name;

impl AccessControl {
    /// Sets what a role allows, whether or not it was there. Whoever has it is held to it from the next call on.
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
    /// control.set_role("writer", [Grant::new("app-*", [Permission::Read, Permission::Write])])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidVaultName`](crate::Error::InvalidVaultName) for the role's name,
    /// [`Error::InvalidPattern`](crate::Error::InvalidPattern), [`Error::Engine`](crate::Error::Engine).
    pub fn set_role(&self, name: &str, grants: impl IntoIterator<Item = Grant>) -> Result<()> {
        check_vault_name(name)?;
        let grants: Vec<Grant> = grants.into_iter().collect();
        grants.iter().try_for_each(Grant::check)?;
        let detail = format!("role {name:?} has {} grants", grants.len());
        let encoded = catalog::encode(&grants)?;
        self.change(AuditAction::RoleChanged, "", detail, |_, batch, catalog| {
            batch.put(catalog, &catalog::named_key(catalog::ROLE, name), &encoded);
            Ok(Box::new(move |policy: &mut Policy| {
                policy.roles.insert(name.to_owned(), grants);
            }))
        })
    }

    /// Removes a role from whoever has it. Gives whether there was one.
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
    /// assert!(control.remove_role("reader")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Engine`](crate::Error::Engine).
    pub fn remove_role(&self, name: &str) -> Result<bool> {
        if !self.state.policy().roles.contains_key(name) {
            return Ok(false);
        }
        let detail = format!("role {name:?} removed");
        self.change(
            AuditAction::RoleChanged,
            "",
            detail,
            |policy, batch, catalog| {
                batch.delete(catalog, &catalog::named_key(catalog::ROLE, name));
                // Whoever has it loses it: another role of this name is not meant for them.
                let mut without = Vec::new();
                for (principal, had) in &policy.principals {
                    if had.roles.iter().any(|role| role == name) {
                        let mut left = had.clone();
                        left.roles.retain(|role| role != name);
                        let key = catalog::named_key(catalog::PRINCIPAL, principal);
                        batch.put(catalog, &key, &catalog::encode(&left)?);
                        without.push((principal.clone(), left));
                    }
                }
                Ok(Box::new(move |policy: &mut Policy| {
                    policy.roles.remove(name);
                    policy.principals.extend(without);
                }))
            },
        )?;
        Ok(true)
    }

    /// What each role allows, in the order of their names.
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
    /// assert_eq!(control.roles()[0].0, "reader");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn roles(&self) -> Vec<(String, Vec<Grant>)> {
        let policy = self.state.policy();
        let roles = policy.roles.iter();
        roles
            .map(|(name, grants)| (name.clone(), grants.clone()))
            .collect()
    }
}
