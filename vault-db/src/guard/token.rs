//! Tokens: what a principal comes in with instead of its secret, for some time.

use std::fmt;

use serde::{Deserialize, Serialize};
use vault_core::Timestamp;
use vault_core::random::Random;
use vault_crypto::sha256;

use crate::error::Result;
use crate::hex::hex;

/// What every token begins with, so that one is known where it should not be.
const PREFIX: &str = "vault-token-";
/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

/// A token: 256 random bits as text. It is shown once, when it is issued; the database keeps its hash.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # use vault_db::encryption::{Kdf, SecretBytes};
/// # let db = vault_db::Database::temp()?;
/// # let control = db.access_control()?;
/// # let secret = || SecretBytes::from_string("correct horse".to_owned());
/// # control.set_role("reader", [vault_db::Grant::new("*", [vault_db::Permission::Read])])?;
/// # control.create_principal("alice", &secret()?, ["reader"], Kdf::danger_weak())?;
/// let token = control.issue_token("alice", std::time::Duration::from_secs(60))?;
/// assert_eq!(control.with_token(token.expose())?.check()?, "alice");
/// assert_eq!(format!("{token:?}"), "Token(…)"); // it does not come into logs by accident
/// # Ok(())
/// # }
/// ```
pub struct Token(String);

impl Token {
    pub(super) fn random(random: &dyn Random) -> Result<Self> {
        let mut bytes = [0; TOKEN_BYTES];
        random.fill(&mut bytes)?;
        Ok(Self(format!("{PREFIX}{}", hex(&bytes))))
    }

    /// The text, to be given to whoever comes in with it.
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
    /// assert!(token.expose().starts_with("vault-token-"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The hash that a token is known by.
pub(super) fn hash_of(token: &str) -> [u8; 32] {
    sha256(&[token.as_bytes()])
}

/// As the catalog keeps a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TokenRecord {
    pub(super) principal: String,
    /// In milliseconds since 1970.
    pub(super) issued: u64,
    pub(super) expires: u64,
    pub(super) revoked: bool,
}

/// What is known of a token that was issued.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # use vault_db::encryption::{Kdf, SecretBytes};
/// # let db = vault_db::Database::temp()?;
/// # let control = db.access_control()?;
/// # let secret = || SecretBytes::from_string("correct horse".to_owned());
/// # control.set_role("reader", [vault_db::Grant::new("*", [vault_db::Permission::Read])])?;
/// # control.create_principal("alice", &secret()?, ["reader"], Kdf::danger_weak())?;
/// let token = control.issue_token("alice", std::time::Duration::from_secs(60))?;
/// control.revoke_token(token.expose())?;
/// let known = &control.tokens()[0];
/// assert!(known.revoked && known.principal == "alice");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInfo {
    /// The first characters of its hash, which name it in the audit log.
    pub id: String,
    /// Who comes in with it.
    pub principal: String,
    /// When it was issued.
    pub issued: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// Whether it was revoked.
    pub revoked: bool,
}

impl TokenInfo {
    pub(super) fn new(hash: &[u8; 32], record: &TokenRecord) -> Self {
        Self {
            id: id_of(hash),
            principal: record.principal.clone(),
            issued: Timestamp(record.issued),
            expires: Timestamp(record.expires),
            revoked: record.revoked,
        }
    }
}

/// What names a token without giving it away.
pub(super) fn id_of(hash: &[u8; 32]) -> String {
    hex(&hash[..8])
}
