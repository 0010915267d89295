//! The audit log: what was refused and what was changed, each entry chained to the one before.
//!
//! # The bytes
//! ```text
//! keyspace vault.audit
//!   number u64, big-endian -> hash (32 bytes), entry (MessagePack)
//! keyspace vault.catalog
//!   0x08                   -> how many were ever written and the hash of the last; the number of the first that is kept, and
//!                             the hash before it
//! ```
//! The hash of an entry is SHA-256 over the hash before it (32 zero bytes before the first), its number and its bytes. The
//! count and the last hash are written in the same batch as the entry, so that entries missing at the end show as well. Whoever
//! can write to the store and compute hashes can make a chain of their own: keep [`AccessControl::audit_head`] elsewhere, or
//! encrypt the store.
//!
//! # Pruning
//! The oldest entries can be taken away, in one batch with an *anchor*: an entry at the end of the chain that tells who did it,
//! how many went, and the hash of the last of them. The chain of what is kept begins with that hash. So where the log begins
//! behind its first entry, the last anchor in it must say so, and an anchor is chained as any other entry: removing entries
//! without one shows, and so does changing one. What is about to be pruned is verified before: pruning hides nothing.
//!
//! [`AccessControl::audit_head`]: crate::AccessControl::audit_head

use serde::{Deserialize, Serialize};
use vault_core::{Engine, KeyspaceId, KeyspaceOptions, Reader, Timestamp, WriteBatch};
use vault_crypto::sha256;

use crate::catalog;
use crate::error::{Error, Result};
use crate::hex::hex;

const KEYSPACE: &str = "vault.audit";
/// Characters of a name that an entry keeps.
const NAME_CHARS_MAX: usize = 128;

/// What an audit entry tells of.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// # let control = db.access_control()?;
/// use vault_db::AuditAction;
/// control.set_role("reader", [])?;
/// assert_eq!(control.audit(1)?[0].action, AuditAction::RoleChanged);
/// # Ok(())
/// # }
/// ```
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
    /// The oldest entries of the audit log were taken away.
    AuditPruned,
}

/// One entry of the audit log.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # use vault_db::encryption::{Kdf, SecretBytes};
/// # let db = vault_db::Database::temp()?;
/// # let control = db.access_control()?;
/// # let secret = || SecretBytes::from_string("correct horse".to_owned());
/// # control.set_role("reader", [vault_db::Grant::new("*", [vault_db::Permission::Read])])?;
/// # control.create_principal("alice", &secret()?, ["reader"], Kdf::danger_weak())?;
/// assert!(control.log_in("mallory", &secret()?).is_err());
/// let entry = &control.audit(1)?[0];
/// println!("{}: {} {:?}: {}", entry.at, entry.principal, entry.action, entry.detail);
/// assert_eq!(entry.principal, "mallory");
/// # Ok(())
/// # }
/// ```
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
    /// What was pruned, where it tells of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<AuditAnchor>,
}

/// What is left of entries of the audit log that were pruned.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// # let control = db.access_control()?;
/// use vault_db::AuditPrune;
/// control.set_role("reader", [])?;
/// control.prune_audit("nightly job", AuditPrune::AllBut(0))?;
/// let anchor = control.audit(1)?[0].anchor.clone();
/// assert_eq!(anchor.map(|anchor| (anchor.pruned, anchor.first)), Some((1, 1)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditAnchor {
    /// How many went.
    pub pruned: u64,
    /// The number of the first that was kept.
    pub first: u64,
    /// The hash of the last that went, in hexadecimal, over which the first that was kept is chained.
    pub hash: String,
}

/// Which entries of the audit log are to go; the others stay.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// # let control = db.access_control()?;
/// use vault_db::{AuditPrune, Timestamp};
/// control.set_role("reader", [])?;
/// assert_eq!(control.prune_audit("me", AuditPrune::Before(Timestamp(0)))?, 0);
/// assert_eq!(control.prune_audit("me", AuditPrune::AllBut(0))?, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditPrune {
    /// The oldest, up to the first that was written at this time or later.
    Before(Timestamp),
    /// All but so many of the latest.
    AllBut(u64),
}

/// How long the log is, the hash of its last entry, and where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Head {
    /// How many were ever written.
    pub(super) entries: u64,
    pub(super) hash: [u8; 32],
    /// The number of the first that is kept.
    first: u64,
    /// The hash of the one before it.
    before: [u8; 32],
}

/// The log, open.
#[derive(Clone)]
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
            ..self.head
        };
        self.plan_head(batch, &head)?;
        Ok(head)
    }

    fn plan_head(&self, batch: &mut WriteBatch, head: &Head) -> Result<()> {
        batch.put(self.catalog, &catalog::audit_key(), &catalog::encode(head)?);
        Ok(())
    }

    /// Takes note that the batch of a plan was written.
    pub(super) const fn written(&mut self, head: Head) {
        self.head = head;
    }

    /// The latest entries, the last one first.
    pub(super) fn latest(&self, reader: &dyn Reader, count: usize) -> Result<Vec<AuditEntry>> {
        let scan = reader.scan(self.keyspace, vault_core::KeyRange::all())?;
        let latest = scan.rev().take(count).map(|entry| {
            let (key, stored) = entry?;
            Ok(parse(&key, &stored)?.1)
        });
        latest.collect()
    }

    /// Checks every entry against the one before, the last against the head, and the first against the last anchor. Gives how
    /// many there are.
    pub(super) fn verify(&self, reader: &dyn Reader) -> Result<u64> {
        let (mut number, mut before) = (self.head.first, self.head.before);
        let mut anchor = None;
        for entry in reader.scan(self.keyspace, vault_core::KeyRange::all())? {
            let (key, stored) = entry?;
            let (hash, entry) = check(&key, &stored, number, &before)?;
            anchor = entry.anchor.or(anchor);
            before = hash;
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
        let begins = anchor.map_or((0, hex(&[0; 32])), |it| (it.first, it.hash));
        if begins != (self.head.first, hex(&self.head.before)) {
            return Err(broken(
                self.head.first,
                "the log begins with it, and the last anchor does not say so",
            ));
        }
        Ok(number - self.head.first)
    }

    /// Whether the log still has what was its head once, or what was pruned of it led up to what is kept.
    pub(super) fn contains(&self, reader: &dyn Reader, entries: u64, hash: &str) -> Result<bool> {
        let Some(last) = entries.checked_sub(1) else {
            return Ok(hash == hex(&[0; 32]));
        };
        if entries == self.head.first {
            return Ok(hash == hex(&self.head.before));
        }
        let stored = reader.get(self.keyspace, &last.to_be_bytes())?;
        let found = stored.as_deref().and_then(<[u8]>::split_first_chunk::<32>);
        Ok(found.is_some_and(|(found, _)| hash == hex(found)))
    }

    /// Adds to a batch that the oldest entries go, with the anchor that tells of it. Gives how many go, and the head as it is
    /// once the batch is written; `None` where none are to go.
    pub(super) fn plan_prune(
        &self,
        reader: &dyn Reader,
        batch: &mut WriteBatch,
        at: Timestamp,
        by: &str,
        prune: AuditPrune,
    ) -> Result<Option<(u64, Head)>> {
        self.verify(reader)?;
        let first = match prune {
            AuditPrune::AllBut(kept) => self.head.entries.saturating_sub(kept),
            AuditPrune::Before(time) => self.first_since(reader, time)?,
        };
        if first <= self.head.first {
            return Ok(None);
        }
        let last = reader.get(self.keyspace, &(first - 1).to_be_bytes())?;
        let before = last.as_deref().and_then(<[u8]>::first_chunk::<32>);
        let before = *before.ok_or_else(|| broken(first - 1, "it is missing"))?;
        let pruned = first - self.head.first;
        let detail = format!("{pruned} entries, up to number {}", first - 1);
        let mut entry = entry(at, by, AuditAction::AuditPruned, None, detail);
        entry.anchor = Some(AuditAnchor {
            pruned,
            first,
            hash: hex(&before),
        });
        batch.delete_range(
            self.keyspace,
            &self.head.first.to_be_bytes(),
            &first.to_be_bytes(),
        );
        let head = Head {
            first,
            before,
            ..self.plan(batch, &entry)?
        };
        self.plan_head(batch, &head)?;
        Ok(Some((pruned, head)))
    }

    /// The number of the first entry that was written at a time or later, as they stand.
    fn first_since(&self, reader: &dyn Reader, time: Timestamp) -> Result<u64> {
        for entry in reader.scan(self.keyspace, vault_core::KeyRange::all())? {
            let (key, stored) = entry?;
            let (_, entry) = parse(&key, &stored)?;
            if entry.at >= time {
                return Ok(entry.number);
            }
        }
        Ok(self.head.entries)
    }
}

/// Checks that an entry has this number, and is chained over this hash.
fn check(
    key: &[u8],
    stored: &[u8],
    number: u64,
    before: &[u8; 32],
) -> Result<([u8; 32], AuditEntry)> {
    if *key != number.to_be_bytes() {
        return Err(broken(number, "it is missing"));
    }
    let (hash, entry) = parse(key, stored)?;
    if hash != hash_of(before, number, &stored[hash.len()..]) {
        return Err(broken(
            number,
            "its hash is another one: it was changed, or one before it",
        ));
    }
    Ok((hash, entry))
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
        principal: cut(principal),
        action,
        vault: vault.map(cut),
        detail,
        anchor: None,
    }
}

/// As much of a name as an entry keeps. Whoever is refused chooses it, and is not to choose how much is written.
fn cut(name: &str) -> String {
    name.chars().take(NAME_CHARS_MAX).collect()
}
