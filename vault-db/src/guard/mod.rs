//! Access control: who may do what with which vaults, and a log of who was refused.
//!
//! The check sits at the handle, never in storage: whoever has a [`Database`](crate::Database) can do everything, and gives
//! others a [`Guarded`] one, on which every call is checked anew. A role that is taken away, a token that is revoked or
//! expires takes effect with the next call.
//!
//! Secrets are kept as hashes that are dear to guess ([`SecretHash`](vault_crypto::SecretHash)), tokens as SHA-256 of their
//! 256 random bits. What was refused, who came and failed to come in, and every change to these rules is written to an audit
//! log in which each entry carries the hash of the one before ([`audit`]): an entry that is taken out or changed shows. The
//! oldest can be pruned, which the log tells of.

mod audit;
mod auditing;
mod control;
mod guarded;
mod guarded_vault;
mod hashing;
mod login;
mod pattern;
mod policy;
mod principals;
mod roles;
mod token;
mod tokens;

pub use audit::{AuditAction, AuditAnchor, AuditEntry, AuditPrune};
pub use control::AccessControl;
pub(crate) use control::ControlState;
pub use guarded::Guarded;
pub use guarded_vault::GuardedVault;
pub use policy::{Grant, Permission, PrincipalInfo};
pub use token::{Token, TokenInfo};
