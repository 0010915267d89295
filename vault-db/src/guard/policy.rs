//! Principals, roles, and what follows from them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vault_core::Timestamp;
use vault_crypto::SecretHash;

use super::pattern;
use super::token::TokenRecord;
use crate::error::{Error, Result};
use crate::hex::from_hex;

/// What a role can allow.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// use vault_db::{Grant, Permission};
/// let grant = Grant::new("app-*", [Permission::Read, Permission::Scan]);
/// assert!(!grant.allows(Permission::Write, "app-users"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Reading values: get and contains of keys that one knows, how much there is; and with [`Scan`](Self::Scan), all entries.
    Read,
    /// Setting keys.
    Write,
    /// Removing keys, and all of them.
    Delete,
    /// Finding keys: iterating, ranges, prefixes. Entries with their values take [`Read`](Self::Read) as well.
    Scan,
    /// Everything about vaults as such: creating, renaming, copying, deleting, describing, exporting and importing. What shows
    /// entries takes [`Read`](Self::Read) and [`Scan`](Self::Scan) as well, what sets them [`Write`](Self::Write), what takes
    /// them away with the vault they are in nothing else.
    Admin,
}

impl Permission {
    /// All of them.
    pub(super) const ALL: [Self; 5] = [
        Self::Read,
        Self::Write,
        Self::Delete,
        Self::Scan,
        Self::Admin,
    ];

    /// Its name, in small letters.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// assert_eq!(vault_db::Permission::Read.name(), "read");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
            Self::Scan => "scan",
            Self::Admin => "admin",
        }
    }
}

/// What a role allows on which vaults.
///
/// ```
/// use vault_db::{Grant, Permission};
/// let grant = Grant::new("app-*", [Permission::Read, Permission::Scan]);
/// assert!(grant.allows(Permission::Read, "app-users"));
/// assert!(!grant.allows(Permission::Write, "app-users"));
/// assert!(!grant.allows(Permission::Read, "payroll"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The names of the vaults, with `*` for any characters and `?` for any one.
    pub vaults: String,
    /// What is allowed there.
    #[serde(deserialize_with = "crate::catalog::list")]
    pub permissions: Vec<Permission>,
}

impl Grant {
    /// Allows something on the vaults whose names match a pattern.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use vault_db::{Grant, Permission};
    /// let grant = Grant::new("*", [Permission::Read]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(vaults: &str, permissions: impl IntoIterator<Item = Permission>) -> Self {
        Self {
            vaults: vaults.to_owned(),
            permissions: permissions.into_iter().collect(),
        }
    }

    /// Whether it allows this on a vault.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use vault_db::{Grant, Permission};
    /// assert!(Grant::new("*", [Permission::Read]).allows(Permission::Read, "users"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn allows(&self, permission: Permission, vault: &str) -> bool {
        self.permissions.contains(&permission) && pattern::matches(&self.vaults, vault)
    }

    pub(super) fn check(&self) -> Result<()> {
        pattern::check(&self.vaults)
    }
}

/// What is known of a principal: a person or a program that can come in.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # use vault_db::encryption::{Kdf, SecretBytes};
/// # let db = vault_db::Database::temp()?;
/// # let control = db.access_control()?;
/// # let secret = || SecretBytes::from_string("correct horse".to_owned());
/// # control.set_role("reader", [vault_db::Grant::new("*", [vault_db::Permission::Read])])?;
/// # control.create_principal("alice", &secret()?, ["reader"], Kdf::danger_weak())?;
/// let alice = &control.principals()[0];
/// assert_eq!((alice.name.as_str(), alice.enabled), ("alice", true));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrincipalInfo {
    /// Its name.
    pub name: String,
    /// The roles it has.
    pub roles: Vec<String>,
    /// When it was created.
    pub created: Timestamp,
    /// Whether it may come in at all.
    pub enabled: bool,
}

/// As the catalog keeps a principal.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Principal {
    /// An encoded [`SecretHash`](vault_crypto::SecretHash), in hexadecimal.
    pub(super) secret: String,
    #[serde(deserialize_with = "crate::catalog::list")]
    pub(super) roles: Vec<String>,
    /// In milliseconds since 1970.
    pub(super) created: u64,
    pub(super) enabled: bool,
    /// Another number with each secret, drawn at random: who came in with an older one, or as a principal of this name that was
    /// removed, is out.
    #[serde(default)]
    pub(super) version: u64,
}

impl Principal {
    /// The hash of its secret; `None` where what is stored is none.
    pub(super) fn hash(&self) -> Option<SecretHash> {
        SecretHash::decode(&from_hex(&self.secret)?)
    }
}

/// Everything that decides who may do what.
#[derive(Default)]
pub(super) struct Policy {
    pub(super) principals: BTreeMap<String, Principal>,
    pub(super) roles: BTreeMap<String, Vec<Grant>>,
    /// By the SHA-256 of the token.
    pub(super) tokens: BTreeMap<[u8; 32], TokenRecord>,
}

impl Policy {
    pub(super) fn principal(&self, name: &str) -> Result<&Principal> {
        self.principals
            .get(name)
            .ok_or_else(|| Error::NoSuchPrincipal {
                name: name.to_owned(),
            })
    }

    /// Whether a principal's roles allow this on a vault. A role that is gone allows nothing.
    pub(super) fn allows(
        &self,
        principal: &Principal,
        permission: Permission,
        vault: &str,
    ) -> bool {
        let roles = principal.roles.iter();
        let mut grants = roles.filter_map(|role| self.roles.get(role)).flatten();
        principal.enabled && grants.any(|grant| grant.allows(permission, vault))
    }

    /// Refuses where there is no role of one of these names.
    pub(super) fn check_roles(&self, roles: &[String]) -> Result<()> {
        let unknown = roles.iter().find(|&role| !self.roles.contains_key(role));
        unknown.map_or(Ok(()), |name| Err(Error::NoSuchRole { name: name.clone() }))
    }
}
