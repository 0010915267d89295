//! Principals, roles and tokens: made, changed, and checked.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use vault_core::random::SystemRandom;
use vault_core::{KeyspaceId, WriteBatch};
use vault_crypto::{Kdf, SecretBytes, SecretHash};

use super::audit::{self, AuditAction, AuditEntry, AuditLog};
use super::guarded::{Credential, Guarded};
use super::policy::{Grant, Permission, Policy, Principal, PrincipalInfo};
use super::token::{self, Token, TokenInfo, TokenRecord};
use crate::catalog;
use crate::database::{Database, Shared, lock};
use crate::error::{Error, Result};
use crate::name::check_vault_name;

/// Longest time that a token may be good for.
const TOKEN_TIME_MAX: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// Who may do what, of one database.
pub(crate) struct ControlState {
    policy: RwLock<Policy>,
    audit: Mutex<AuditLog>,
}

impl ControlState {
    fn policy(&self) -> RwLockReadGuard<'_, Policy> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is to be done in memory once a change is written.
type Apply<'a> = Box<dyn FnOnce(&mut Policy) + 'a>;

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
    shared: Arc<Shared>,
    state: Arc<ControlState>,
}

impl Database {
    /// Who may do what with this database's vaults. Everything can be done through the [`Database`] itself: keep it from
    /// whoever is to be checked, and give them a [`Guarded`] one.
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
    /// [`Error::Malformed`], [`Error::Engine`].
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
    })
}

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
    /// [`Error::InvalidVaultName`] for the role's name, [`Error::InvalidPattern`], [`Error::Engine`].
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
    /// [`Error::Engine`].
    pub fn remove_role(&self, name: &str) -> Result<bool> {
        if !self.state.policy().roles.contains_key(name) {
            return Ok(false);
        }
        let detail = format!("role {name:?} removed");
        self.change(AuditAction::RoleChanged, "", detail, |_, batch, catalog| {
            batch.delete(catalog, &catalog::named_key(catalog::ROLE, name));
            Ok(Box::new(move |policy: &mut Policy| {
                policy.roles.remove(name);
            }))
        })?;
        Ok(true)
    }

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
        let roles = self.check_roles(roles)?;
        let hash = SecretHash::new(secret, kdf, &SystemRandom)?;
        let principal = Principal {
            secret: token::hex(&hash.encode()),
            roles,
            created: self.shared.now().0,
            enabled: true,
            version: 0,
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

    fn check_roles<R: AsRef<str>>(
        &self,
        roles: impl IntoIterator<Item = R>,
    ) -> Result<Vec<String>> {
        let policy = self.state.policy();
        let known = |role: R| {
            let role = role.as_ref();
            match policy.roles.contains_key(role) {
                true => Ok(role.to_owned()),
                false => Err(Error::NoSuchRole {
                    name: role.to_owned(),
                }),
            }
        };
        roles.into_iter().map(known).collect()
    }

    fn change_principal(
        &self,
        name: &str,
        detail: String,
        change: impl FnOnce(&mut Principal),
    ) -> Result<()> {
        self.change(
            AuditAction::PrincipalChanged,
            name,
            detail,
            |policy, batch, catalog| {
                let mut principal = policy.principal(name)?.clone();
                change(&mut principal);
                let key = catalog::named_key(catalog::PRINCIPAL, name);
                batch.put(catalog, &key, &catalog::encode(&principal)?);
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
        let roles = self.check_roles(roles)?;
        let detail = format!("roles are {roles:?}");
        self.change_principal(name, detail, |principal| principal.roles = roles)
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
        let hash = token::hex(&SecretHash::new(secret, kdf, &SystemRandom)?.encode());
        self.change_principal(name, "another secret".to_owned(), |principal| {
            principal.secret = hash;
            principal.version += 1;
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
        self.change_principal(name, detail.to_owned(), |principal| {
            principal.enabled = enabled;
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
    /// [`Error::BadCredentials`], [`Error::Engine`].
    pub fn log_in(&self, name: &str, secret: &SecretBytes) -> Result<Guarded> {
        let found = {
            let policy = self.state.policy();
            policy.principals.get(name).cloned()
        };
        let verified = match &found {
            Some(principal) => {
                let hash = token::from_hex(&principal.secret);
                let hash = hash.and_then(|hash| SecretHash::decode(&hash));
                let hash = hash.ok_or_else(|| catalog::malformed("the hash of a secret"))?;
                hash.verify(secret)? && principal.enabled
            }
            None => {
                SecretHash::new(secret, Kdf::ARGON2ID, &SystemRandom)?;
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

    /// Issues a token for a principal, good for some time: at most 400 days.
    ///
    /// ```
    /// # use vault_db::encryption::{Kdf, SecretBytes};
    /// # use vault_db::{Database, Error, Grant, Permission};
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = Database::temp()?;
    /// # let control = db.access_control()?;
    /// # control.set_role("reader", [Grant::new("*", [Permission::Read])])?;
    /// # let secret = SecretBytes::from_string("correct horse".to_owned())?;
    /// # control.create_principal("service", &secret, ["reader"], Kdf::danger_weak())?;
    /// let token = control.issue_token("service", std::time::Duration::from_secs(3600))?;
    /// let guarded = control.with_token(token.expose())?;
    /// assert!(control.revoke_token(token.expose())?);
    /// assert!(matches!(guarded.check(), Err(Error::InvalidToken { .. })));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchPrincipal`], [`InvalidExpiry`](vault_core::Error::InvalidExpiry), [`Error::Engine`].
    pub fn issue_token(&self, principal: &str, time_to_live: Duration) -> Result<Token> {
        let now = self.shared.now();
        let expires = now.after(time_to_live.min(TOKEN_TIME_MAX))?;
        let token = Token::random(&SystemRandom)?;
        let hash = token::hash_of(token.expose());
        let record = TokenRecord {
            principal: principal.to_owned(),
            issued: now.0,
            expires: expires.0,
            revoked: false,
        };
        let detail = format!("token {}", token::id_of(&hash));
        let encoded = catalog::encode(&record)?;
        self.change(
            AuditAction::TokenIssued,
            principal,
            detail,
            |policy, batch, catalog| {
                policy.principal(principal)?;
                // Those that have ended since are of no more use to anybody.
                let ended: Vec<_> = policy
                    .tokens
                    .iter()
                    .filter(|(_, record)| record.expires <= now.0)
                    .map(|(hash, _)| *hash)
                    .collect();
                for hash in &ended {
                    batch.delete(catalog, &catalog::token_key(hash));
                }
                batch.put(catalog, &catalog::token_key(&hash), &encoded);
                Ok(Box::new(move |policy: &mut Policy| {
                    for hash in &ended {
                        policy.tokens.remove(hash);
                    }
                    policy.tokens.insert(hash, record);
                }))
            },
        )?;
        Ok(token)
    }

    /// Revokes a token: whoever came in with it is out. Gives whether it was good.
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
    /// assert!(control.revoke_token(token.expose())?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Engine`].
    pub fn revoke_token(&self, token: &str) -> Result<bool> {
        let hash = token::hash_of(token);
        let found = self.state.policy().tokens.get(&hash).cloned();
        let Some(mut record) = found.filter(|record| !record.revoked) else {
            return Ok(false);
        };
        record.revoked = true;
        let principal = record.principal.clone();
        let detail = format!("token {}", token::id_of(&hash));
        let encoded = catalog::encode(&record)?;
        self.change(
            AuditAction::TokenRevoked,
            &principal,
            detail,
            |_, batch, catalog| {
                batch.put(catalog, &catalog::token_key(&hash), &encoded);
                Ok(Box::new(move |policy: &mut Policy| {
                    policy.tokens.insert(hash, record);
                }))
            },
        )?;
        Ok(true)
    }

    /// What is known of the tokens that were issued and are kept: those that ended go with the next one that is issued.
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
    /// control.issue_token("service", std::time::Duration::from_secs(60))?;
    /// assert_eq!(control.tokens().len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn tokens(&self) -> Vec<TokenInfo> {
        let policy = self.state.policy();
        let tokens = policy.tokens.iter();
        tokens
            .map(|(hash, record)| TokenInfo::new(hash, record))
            .collect()
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

    /// Changes the policy, in the catalog and in memory, with an entry in the audit log. `plan` adds to the batch, and gives
    /// what is to be done in memory once it is written.
    fn change<'a>(
        &self,
        action: AuditAction,
        principal: &str,
        detail: String,
        plan: impl FnOnce(&Policy, &mut WriteBatch, KeyspaceId) -> Result<Apply<'a>>,
    ) -> Result<()> {
        let policy = self.state.policy.write();
        let mut policy = policy.unwrap_or_else(PoisonError::into_inner);
        let mut audit = lock(&self.state.audit);
        let mut batch = WriteBatch::new();
        let apply = plan(&policy, &mut batch, self.shared.keyspaces()?.catalog)?;
        let entry = audit::entry(self.shared.now(), principal, action, None, detail);
        let head = audit.plan(&mut batch, &entry)?;
        self.shared
            .engine
            .write(&batch, &self.shared.structural())?;
        audit.written(head);
        apply(&mut policy);
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
        let mut batch = WriteBatch::new();
        let entry = audit::entry(self.shared.now(), principal, action, vault, detail);
        let head = audit.plan(&mut batch, &entry)?;
        self.shared
            .engine
            .write(&batch, &self.shared.structural())?;
        audit.written(head);
        Ok(())
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

    pub(super) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl fmt::Debug for AccessControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessControl").finish_non_exhaustive()
    }
}
