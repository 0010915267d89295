//! The verbs of tokens: issuing, revoking, listing.

use std::time::Duration;

use vault_core::random::SystemRandom;

use super::audit::AuditAction;
use super::control::AccessControl;
use super::policy::Policy;
use super::token::{self, Token, TokenInfo, TokenRecord};
use crate::catalog;
use crate::error::Result;

/// Longest time that a token may be good for.
const TOKEN_TIME_MAX: Duration = Duration::from_secs(400 * 24 * 60 * 60);

impl AccessControl {
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
    /// [`NoSuchPrincipal`](crate::Error::NoSuchPrincipal), [`InvalidExpiry`](vault_core::Error::InvalidExpiry), [`Engine`](crate::Error::Engine).
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
    /// [`Engine`](crate::Error::Engine).
    pub fn revoke_token(&self, token: &str) -> Result<bool> {
        self.revoke(&token::hash_of(token))
    }

    /// Ends the tokens with this [id](TokenInfo::id): for whoever runs the database and does not have them. Gives how many that were, one
    /// mostly.
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
    /// let id = &control.tokens()[0].id;
    /// assert_eq!(control.revoke_token_by_id(id)?, 1);
    /// assert!(control.with_token(token.expose()).is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Engine`](crate::Error::Engine).
    pub fn revoke_token_by_id(&self, id: &str) -> Result<u64> {
        let hashes: Vec<[u8; 32]> = {
            let policy = self.state.policy();
            let hashes = policy.tokens.keys().copied();
            hashes.filter(|hash| token::id_of(hash) == id).collect()
        };
        let mut revoked = 0;
        for hash in &hashes {
            revoked += u64::from(self.revoke(hash)?);
        }
        Ok(revoked)
    }

    fn revoke(&self, hash: &[u8; 32]) -> Result<bool> {
        let hash = *hash;
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
}
