//! Principals: who there is, with which secret and which roles.

use vault_core::random::{Random, SystemRandom};
use vault_crypto::{Kdf, SecretBytes};

use super::audit::AuditAction;
use super::control::AccessControl;
use super::policy::{Policy, Principal, PrincipalInfo};
use crate::catalog;
use crate::error::{Error, Result};
use crate::hex::hex;
use crate::name::check_vault_name;

impl AccessControl {
    /// Creates a principal with a secret and roles. Its secret is kept as a hash; `kdf` says how dear that is to guess, and how
    /// long coming in takes: [`Kdf::ARGON2ID`], some tenths of a second, in earnest.
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
    /// let another = SecretBytes::from_string("a secret of its own".to_owned())?;
    /// control.create_principal("alice", &another, ["reader"], Kdf::danger_weak())?; // `Kdf::ARGON2ID` in earnest
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::PrincipalExists`], [`Error::NoSuchRole`], [`Error::InvalidVaultName`] for the principal's name,
    /// [`Error::Engine`].
    pub fn create_principal<R: AsRef<str>>(
        &self,
        name: &str,
        secret: &SecretBytes,
        roles: impl IntoIterator<Item = R>,
        kdf: Kdf,
    ) -> Result<()> {
        check_vault_name(name)?;
        let roles = owned(roles);
        // Before the hash, which is dear; and again once nobody changes the roles any more.
        self.state.policy().check_roles(&roles)?;
        let hash = self.hash(secret, kdf)?;
        let principal = Principal {
            secret: hex(&hash.encode()),
            roles,
            created: self.shared.now().0,
            enabled: true,
            version: random_version()?,
        };
        let detail = format!("created with roles {:?}", principal.roles);
        let encoded = catalog::encode(&principal)?;
        self.change(
            AuditAction::PrincipalChanged,
            name,
            detail,
            |policy, batch, catalog| {
                if policy.principals.contains_key(name) {
                    return Err(Error::PrincipalExists {
                        name: name.to_owned(),
                    });
                }
                policy.check_roles(&principal.roles)?;
                batch.put(
                    catalog,
                    &catalog::named_key(catalog::PRINCIPAL, name),
                    &encoded,
                );
                Ok(Box::new(move |policy: &mut Policy| {
                    policy.principals.insert(name.to_owned(), principal);
                }))
            },
        )
    }

    /// Gives a principal other roles.
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
    /// control.set_roles("service", Vec::<String>::new())?; // it may do nothing now
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchPrincipal`], [`Error::NoSuchRole`], [`Error::Engine`].
    pub fn set_roles<R: AsRef<str>>(
        &self,
        name: &str,
        roles: impl IntoIterator<Item = R>,
    ) -> Result<()> {
        let roles = owned(roles);
        let detail = format!("roles are {roles:?}");
        self.change_principal(name, detail, |policy, principal| {
            policy.check_roles(&roles)?;
            principal.roles = roles;
            Ok(())
        })
    }

    /// Gives a principal another secret. Whoever came in with the old one is out; tokens stay good.
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
    /// let another = SecretBytes::from_string("another horse".to_owned())?;
    /// control.set_secret("service", &another, Kdf::danger_weak())?;
    /// assert!(control.log_in("service", &secret()?).is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchPrincipal`], [`Error::Engine`].
    pub fn set_secret(&self, name: &str, secret: &SecretBytes, kdf: Kdf) -> Result<()> {
        let hash = hex(&self.hash(secret, kdf)?.encode());
        let version = random_version()?;
        self.change_principal(name, "another secret".to_owned(), |_, principal| {
            principal.secret = hash;
            principal.version = version;
            Ok(())
        })
    }

    /// Lets a principal in, or keeps it out, whatever it comes with.
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
    /// control.set_enabled("service", false)?;
    /// assert!(control.log_in("service", &secret()?).is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchPrincipal`], [`Error::Engine`].
    pub fn set_enabled(&self, name: &str, enabled: bool) -> Result<()> {
        let detail = if enabled { "enabled" } else { "disabled" };
        self.change_principal(name, detail.to_owned(), |_, principal| {
            principal.enabled = enabled;
            Ok(())
        })
    }

    /// Removes a principal, with its tokens. Gives whether there was one.
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
    /// assert!(control.remove_principal("service")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Engine`].
    pub fn remove_principal(&self, name: &str) -> Result<bool> {
        if !self.state.policy().principals.contains_key(name) {
            return Ok(false);
        }
        self.change(
            AuditAction::PrincipalChanged,
            name,
            "removed".to_owned(),
            |policy, batch, catalog| {
                batch.delete(catalog, &catalog::named_key(catalog::PRINCIPAL, name));
                for (hash, record) in &policy.tokens {
                    if record.principal == name {
                        batch.delete(catalog, &catalog::token_key(hash));
                    }
                }
                Ok(Box::new(move |policy: &mut Policy| {
                    policy.principals.remove(name);
                    policy.tokens.retain(|_, record| record.principal != name);
                }))
            },
        )?;
        Ok(true)
    }

    /// What is known of every principal, in the order of their names.
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
    /// assert_eq!(control.principals()[0].roles, ["reader"]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn principals(&self) -> Vec<PrincipalInfo> {
        let policy = self.state.policy();
        let principals = policy.principals.iter();
        let info = |(name, principal): (&String, &Principal)| PrincipalInfo {
            name: name.clone(),
            roles: principal.roles.clone(),
            created: vault_core::Timestamp(principal.created),
            enabled: principal.enabled,
        };
        principals.map(info).collect()
    }

    fn change_principal(
        &self,
        name: &str,
        detail: String,
        change: impl FnOnce(&Policy, &mut Principal) -> Result<()>,
    ) -> Result<()> {
        self.change(
            AuditAction::PrincipalChanged,
            name,
            detail,
            |policy, batch, catalog| {
                let mut principal = policy.principal(name)?.clone();
                change(policy, &mut principal)?;
                let key = catalog::named_key(catalog::PRINCIPAL, name);
                batch.put(catalog, &key, &catalog::encode(&principal)?);
                Ok(Box::new(move |policy: &mut Policy| {
                    policy.principals.insert(name.to_owned(), principal);
                }))
            },
        )
    }
}

/// A version of a secret that no other has, those of an earlier principal of the same name included.
fn owned<R: AsRef<str>>(roles: impl IntoIterator<Item = R>) -> Vec<String> {
    let roles = roles.into_iter();
    roles.map(|role| role.as_ref().to_owned()).collect()
}

fn random_version() -> Result<u64> {
    let mut bytes = [0; 8];
    SystemRandom.fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
