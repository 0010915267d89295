//! Coming in, by a secret or a token, and what is checked of every call afterwards.

use std::sync::RwLockReadGuard;

use vault_core::random::SystemRandom;
use vault_crypto::{Kdf, SecretBytes, SecretHash};

use super::audit::AuditAction;
use super::control::AccessControl;
use super::guarded::{Credential, Guarded};
use super::policy::{Permission, Policy, Principal};
use super::token;
use crate::catalog;
use crate::error::{Error, Result};

impl AccessControl {
    /// Lets a principal in by its secret. Takes as long for a name that nobody has as for a wrong secret,
    /// where all secrets are derived alike: else as long as for most.
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
                let hash = principal
                    .hash()
                    .ok_or_else(|| catalog::malformed("the hash of a secret"))?;
                let verified = self.state.hashing.in_turn(|| Ok(hash.verify(secret)?))?;
                verified && principal.enabled
            }
            None => {
                self.hash(secret, self.usual_kdf())?;
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

    /// What most principals' secrets were derived by: a name that nobody has takes as long as theirs.
    fn usual_kdf(&self) -> Kdf {
        let policy = self.state.policy();
        let hashes = policy.principals.values().filter_map(Principal::hash);
        let mut counts: Vec<(Kdf, usize)> = Vec::new();
        for kdf in hashes.map(|hash| hash.kdf()) {
            match counts.iter_mut().find(|(known, _)| *known == kdf) {
                Some((_, count)) => *count += 1,
                None => counts.push((kdf, 1)),
            }
        }
        let usual = counts.into_iter().max_by_key(|&(_, count)| count);
        usual.map_or(Kdf::ARGON2ID, |(kdf, _)| kdf)
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

    /// As [`AccessControl::check`], for somebody who was let in and wants to do something. That the credential is no longer good goes
    /// into the audit log, with whom it was of.
    pub(super) fn check_noted(
        &self,
        credential: &Credential,
        vault: Option<&str>,
        wanted: &str,
    ) -> Result<String> {
        let error = match self.check(credential) {
            Ok(name) => return Ok(name),
            Err(error) => error,
        };
        let (name, detail) = match credential {
            Credential::Secret { principal, .. } => {
                (principal.clone(), format!("{wanted}: {error}"))
            }
            Credential::Token { hash } => {
                let record = self.state.policy().tokens.get(hash).cloned();
                let name = record.map_or_else(String::new, |record| record.principal);
                (
                    name,
                    format!("{wanted}, token {}: {error}", token::id_of(hash)),
                )
            }
        };
        self.note(AuditAction::Denied, &name, vault, detail)?;
        Err(error)
    }

    /// Checks that whoever comes with a credential may do this with a vault. A refusal goes into the audit log.
    pub(super) fn allow(
        &self,
        credential: &Credential,
        permission: Permission,
        vault: &str,
    ) -> Result<()> {
        let name = self.check_noted(credential, Some(vault), permission.name())?;
        let allowed = self.allowed_to(name);
        if allowed.may(permission, vault) {
            return Ok(());
        }
        let name = allowed.into_principal();
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

    /// What whoever comes with a credential may do with any vault, as it is now.
    pub(super) fn allowed(&self, credential: &Credential) -> Result<Allowed<'_>> {
        let name = self.check_noted(credential, None, "which vaults there are")?;
        Ok(self.allowed_to(name))
    }

    /// As [`AccessControl::allowed`], for whoever asks for one vault.
    pub(super) fn allowed_with(&self, credential: &Credential, vault: &str) -> Result<Allowed<'_>> {
        let name = self.check_noted(credential, Some(vault), "a handle")?;
        Ok(self.allowed_to(name))
    }

    fn allowed_to(&self, principal: String) -> Allowed<'_> {
        Allowed {
            policy: self.state.policy(),
            principal,
        }
    }

    /// What whoever comes with a credential may do with a vault of this name. Nothing is noted of it.
    pub(super) fn permissions(
        &self,
        credential: &Credential,
        vault: &str,
    ) -> Result<Vec<Permission>> {
        let allowed = self.allowed_to(self.check(credential)?);
        let all = Permission::ALL.into_iter();
        Ok(all.filter(|&it| allowed.may(it, vault)).collect())
    }
}

/// What a principal may do. No rule changes while this is there.
pub(super) struct Allowed<'a> {
    policy: RwLockReadGuard<'a, Policy>,
    principal: String,
}

impl Allowed<'_> {
    /// Who it is.
    fn into_principal(self) -> String {
        self.principal
    }

    pub(super) fn may(&self, permission: Permission, vault: &str) -> bool {
        let principal = self.policy.principals.get(&self.principal);
        principal.is_some_and(|principal| self.policy.allows(principal, permission, vault))
    }

    /// Whether it may do anything with a vault.
    pub(super) fn may_any(&self, vault: &str) -> bool {
        let mut all = Permission::ALL.into_iter();
        all.any(|permission| self.may(permission, vault))
    }
}
