//! Coming in, by a secret or a token, and what is checked of every call afterwards.

use vault_core::random::SystemRandom;
use vault_crypto::{Kdf, SecretBytes, SecretHash};

use super::audit::AuditAction;
use super::control::AccessControl;
use super::guarded::{Credential, Guarded};
use super::policy::Permission;
use super::token;
use crate::catalog;
use crate::error::{Error, Result};
use crate::hex::from_hex;

impl AccessControl {
    /// Lets a principal in by its secret. Takes as long for a name that nobody has as for a wrong secret.
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
    /// let guarded = control.log_in("service", &secret()?)?;
    /// assert_eq!(guarded.check()?, "service");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::BadCredentials`], [`Error::TooManyLogIns`], [`Error::Engine`].
    pub fn log_in(&self, name: &str, secret: &SecretBytes) -> Result<Guarded> {
        let found = {
            let policy = self.state.policy();
            policy.principals.get(name).cloned()
        };
        let verified = match &found {
            Some(principal) => {
                let hash = from_hex(&principal.secret);
                let hash = hash.and_then(|hash| SecretHash::decode(&hash));
                let hash = hash.ok_or_else(|| catalog::malformed("the hash of a secret"))?;
                let verified = self.state.hashing.in_turn(|| Ok(hash.verify(secret)?))?;
                verified && principal.enabled
            }
            None => {
                self.hash(secret, Kdf::ARGON2ID)?;
                false
            }
        };
        let Some(principal) = found.filter(|_| verified) else {
            self.note(
                AuditAction::LogInRefused,
                name,
                None,
                "wrong name or secret, or disabled".to_owned(),
            )?;
            return Err(Error::BadCredentials);
        };
        self.note(AuditAction::LogIn, name, None, "with its secret".to_owned())?;
        let credential = Credential::Secret {
            principal: name.to_owned(),
            version: principal.version,
        };
        Ok(Guarded::new(self.clone(), credential))
    }

    /// Hashes a secret, when it is its turn.
    pub(super) fn hash(&self, secret: &SecretBytes, kdf: Kdf) -> Result<SecretHash> {
        let hash = || Ok(SecretHash::new(secret, kdf, &SystemRandom)?);
        self.state.hashing.in_turn(hash)
    }

    /// Lets in whoever has a token.
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
    /// let token = control.issue_token("service", std::time::Duration::from_secs(60))?;
    /// assert_eq!(control.with_token(token.expose())?.check()?, "service");
    /// assert!(control.with_token("a guess").is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidToken`], [`Error::Engine`].
    pub fn with_token(&self, token: &str) -> Result<Guarded> {
        let hash = token::hash_of(token);
        let guarded = Guarded::new(self.clone(), Credential::Token { hash });
        if let Err(error) = guarded.check() {
            let detail = format!("token {}: {error}", token::id_of(&hash));
            self.note(AuditAction::LogInRefused, "", None, detail)?;
            return Err(error);
        }
        Ok(guarded)
    }

    /// Who comes with a credential, if it is good.
    pub(super) fn check(&self, credential: &Credential) -> Result<String> {
        let policy = self.state.policy();
        let name = match credential {
            Credential::Secret { principal, version } => {
                let current = policy.principals.get(principal);
                let good =
                    current.is_some_and(|current| current.enabled && current.version == *version);
                if !good {
                    return Err(Error::BadCredentials);
                }
                principal
            }
            Credential::Token { hash } => {
                let problem = match policy.tokens.get(hash) {
                    None => "nobody issued it, or it ended long ago",
                    Some(record) if record.revoked => "it was revoked",
                    Some(record) if record.expires <= self.shared.now().0 => "it has expired",
                    Some(record) => match policy.principals.get(&record.principal) {
                        Some(principal) if principal.enabled => {
                            return Ok(record.principal.clone());
                        }
                        _ => "its principal is disabled",
                    },
                };
                return Err(Error::InvalidToken { problem });
            }
        };
        Ok(name.clone())
    }

    /// Checks that whoever comes with a credential may do this with a vault. A refusal goes into the audit log.
    pub(super) fn allow(
        &self,
        credential: &Credential,
        permission: Permission,
        vault: &str,
    ) -> Result<()> {
        let name = self.check(credential)?;
        let allowed = {
            let policy = self.state.policy();
            let principal = policy.principals.get(&name);
            principal.is_some_and(|principal| policy.allows(principal, permission, vault))
        };
        if allowed {
            return Ok(());
        }
        self.note(
            AuditAction::Denied,
            &name,
            Some(vault),
            permission.name().to_owned(),
        )?;
        Err(Error::Denied {
            principal: name,
            permission: permission.name(),
            vault: vault.to_owned(),
        })
    }

    /// Whether whoever comes with a credential may do anything with a vault.
    pub(super) fn allows_any(&self, credential: &Credential, vault: &str) -> Result<bool> {
        let name = self.check(credential)?;
        let policy = self.state.policy();
        let principal = policy.principals.get(&name);
        Ok(principal.is_some_and(|principal| policy.allows_any(principal, vault)))
    }

    /// What whoever comes with a credential may do with a vault of this name. Nothing is noted of it.
    pub(super) fn permissions(
        &self,
        credential: &Credential,
        vault: &str,
    ) -> Result<Vec<Permission>> {
        let name = self.check(credential)?;
        let policy = self.state.policy();
        let principal = policy.principals.get(&name);
        let allowed = |permission: &Permission| {
            principal.is_some_and(|principal| policy.allows(principal, *permission, vault))
        };
        Ok(Permission::ALL.into_iter().filter(allowed).collect())
    }
}
