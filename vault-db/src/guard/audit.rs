//! The audit log: what was refused and what was changed, each entry chained to the one before.
//!
//! # The bytes
//! ```text
//! keyspace vault.audit
//!   number u64, big-endian -> hash (32 bytes), entry (MessagePack)
//! keyspace vault.catalog
//!   0x08                   -> how many there are, and the hash of the last
//! ```
//! The hash of an entry is SHA-256 over the hash before it (32 zero bytes before the first), its number and its bytes. The
//! count and the last hash are written in the same batch as the entry, so that entries missing at the end show as well. Whoever
//! can write to the store and compute hashes can make a chain of their own: keep [`AccessControl::audit_head`] elsewhere, or
//! encrypt the store.
//!
//! [`AccessControl::audit_head`]: crate::AccessControl::audit_head

use serde::{Deserialize, Serialize};
use vault_core::{Engine, KeyspaceId, KeyspaceOptions, Timestamp, WriteBatch};
use vault_crypto::sha256;

use crate::catalog;
use crate::error::{Error, Result};

const KEYSPACE: &str = "vault.audit";

/// What an audit entry tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AuditAction {
    /// Somebody came in with a secret.
    LogIn,
    /// Somebody failed to come in, with a secret or a token.
    LogInRefused,
    /// A call was refused.
    Denied,
    /// A principal was created, changed, enabled, disabled or removed.
    PrincipalChanged,
    /// A role was set or removed.
    RoleChanged,
    /// A token was issued.
    TokenIssued,
    /// A token was revoked.
    TokenRevoked,
}

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its number, from 0.
    #[serde(skip)]
    pub number: u64,
    /// When it was written.
    pub at: Timestamp,
    /// Who it is about.
    pub principal: String,
    /// What it tells of.
    pub action: AuditAction,
    /// The vault, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<String>,
    /// More, in words.
    pub detail: String,
}

/// How long the log is, and the hash of its last entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) entries: u64,
    pub(super) hash: [u8; 32],
}

/// The log, open.
pub(super) struct AuditLog {
    keyspace: KeyspaceId,
    catalog: KeyspaceId,
    head: Head,
}

fn hash_of(before: &[u8; 32], number: u64, entry: &[u8]) -> [u8; 32] {
    sha256(&[before, &number.to_be_bytes(), entry])
}

impl AuditLog {
    pub(super) fn open(engine: &dyn Engine, catalog: KeyspaceId) -> Result<Self> {
        let keyspace = engine.create_keyspace(KEYSPACE, &KeyspaceOptions::default())?;
        let head = match engine.get(catalog, &catalog::audit_key())? {
            Some(stored) => catalog::decode("the head of the audit log", &stored)?,
            None => Head::default(),
        };
        Ok(Self {
            keyspace,
            catalog,
            head,
        })
    }

    pub(super) const fn head(&self) -> Head {
        self.head
    }

    /// Adds an entry to a batch. Gives the head as it is once the batch is written, which is for the caller to
    /// [take over](AuditLog::written).
    pub(super) fn plan(&self, batch: &mut WriteBatch, entry: &AuditEntry) -> Result<Head> {
        let encoded = catalog::encode(entry)?;
        let number = self.head.entries;
        let hash = hash_of(&self.head.hash, number, &encoded);
        let mut stored = hash.to_vec();
        stored.extend_from_slice(&encoded);
        batch.put(self.keyspace, &number.to_be_bytes(), &stored);
        let head = Head {
            entries: number + 1,
            hash,
        };
        batch.put(
            self.catalog,
            &catalog::audit_key(),
            &catalog::encode(&head)?,
        );
        Ok(head)
    }

    /// Takes note that the batch of a plan was written.
    pub(super) const fn written(&mut self, head: Head) {
        self.head = head;
    }

    /// The latest entries, the last one first.
    pub(super) fn latest(&self, engine: &dyn Engine, count: usize) -> Result<Vec<AuditEntry>> {
        let scan = engine.scan(self.keyspace, vault_core::KeyRange::all())?;
        let latest = scan.rev().take(count).map(|entry| {
            let (key, stored) = entry?;
            Ok(parse(&key, &stored)?.1)
        });
        latest.collect()
    }

    /// Checks every entry against the one before, and the last against the head. Gives how many there are.
    pub(super) fn verify(&self, engine: &dyn Engine) -> Result<u64> {
        let (mut number, mut before) = (0_u64, [0; 32]);
        for entry in engine.scan(self.keyspace, vault_core::KeyRange::all())? {
            let (key, stored) = entry?;
            if *key != number.to_be_bytes() {
                return Err(broken(number, "it is missing"));
            }
            let (hash, encoded) = stored
                .split_first_chunk::<32>()
                .ok_or_else(|| broken(number, "it is too short"))?;
            if *hash != hash_of(&before, number, encoded) {
                return Err(broken(
                    number,
                    "its hash is another one: it was changed, or one before it",
                ));
            }
            parse(&key, &stored)?;
            before = *hash;
            number += 1;
        }
        if number != self.head.entries {
            return Err(broken(number, "it is missing, with all behind it"));
        }
        if before != self.head.hash {
            return Err(broken(
                number.saturating_sub(1),
                "it is not the one that was written last",
            ));
        }
        Ok(number)
    }
}

fn parse(key: &[u8], stored: &[u8]) -> Result<([u8; 32], AuditEntry)> {
    let number = key.try_into().map(u64::from_be_bytes);
    let number = number.map_err(|_| broken(0, "its number is none"))?;
    let (hash, encoded) = stored
        .split_first_chunk::<32>()
        .ok_or_else(|| broken(number, "it is too short"))?;
    let entry: AuditEntry = catalog::decode("an audit entry", encoded)?;
    Ok((*hash, AuditEntry { number, ..entry }))
}

fn broken(number: u64, problem: &str) -> Error {
    Error::Malformed {
        what: format!("entry {number} of the audit log"),
        problem: problem.to_owned(),
    }
}

/// An entry that is about to be written.
pub(super) fn entry(
    at: Timestamp,
    principal: &str,
    action: AuditAction,
    vault: Option<&str>,
    detail: String,
) -> AuditEntry {
    AuditEntry {
        number: 0,
        at,
        principal: principal.chars().take(128).collect(),
        action,
        vault: vault.map(str::to_owned),
        detail,
    }
}
