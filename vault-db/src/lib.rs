//! What applications embed: named vaults of typed values, over one encrypted or plain store.
//!
//! Begin at [`Database`], or at [`EncryptedDatabase`]. A [`Vault`] is a dictionary with a name; several of its verbs that
//! belong together go into a [`Transaction`]. Errors tell by [`Error::kind`] what a program can do about them.
//!
//! ```
//! use vault_db::{Database, Result};
//!
//! # fn main() -> Result<()> {
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path();
//! let db = Database::open(path)?;
//! let users = db.vault("users")?;
//! users.put("alice", "admin")?;
//! users.put("bob", "guest")?;
//! assert_eq!(users.get::<String>("alice")?.as_deref(), Some("admin"));
//!
//! db.write(|tx| {
//!     let users = tx.of(&users)?;
//!     let role: Option<String> = users.pop("bob")?;
//!     users.put("carol", &role)
//! })?;
//! assert_eq!(users.len()?, 2);
//! # Ok(())
//! # }
//! ```
//!
//! The crates below stay within reach: [`engine`] for the storage engine, [`encryption`] for what opens an encrypted
//! database. The dependencies are the whole bill: no async runtime, and no C, unless the feature `ring` asks for
//! hardware-tuned ciphers.
//!
//! # The path of a write through the source
//! `vault/write` → `value/`, `key/` → `commit/` → the engine. A transaction: `transaction/` → `commit/many`. Vaults come
//! and go in `database/`; what is known of them is laid out in `catalog/`.

#![forbid(unsafe_code)]

mod access;
#[cfg(feature = "benching")]
#[doc(hidden)]
pub mod benching;
mod bounds;
mod catalog;
mod commit;
mod database;
mod encrypted;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod hex;
mod key;
mod metrics;
mod migrate;
mod name;
mod portable;
mod restore;
pub mod snapshot;
mod tenant;
mod transaction;
mod value;
mod vault;

/// What opens an encrypted database, and what can be chosen of how it is encrypted.
pub mod encryption {
    pub use vault_crypto::keyring::{export, import, read_info};
    pub use vault_crypto::source::{
        Command, EnvironmentVariable, KeyFile, Passphrase, RawKey, ServiceKey,
    };
    pub use vault_crypto::{
        Algorithm, EncryptedProtection, Kdf, KdfBounds, KeyService, KeySource, KeyringInfo, Secret,
        SecretBytes, SecretKey,
    };
}

/// The storage engine underneath: keyspaces of byte strings.
///
/// ```
/// use vault_db::engine::{Engine, KeyspaceOptions, Lsm, LsmOptions, Reader, WriteOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path();
/// let store = Lsm::open(path, LsmOptions::default())?;
/// let users = store.create_keyspace("users", &KeyspaceOptions::default())?;
/// store.put(users, b"bob", b"guest", &WriteOptions::OS)?;
/// store.put(users, b"alice", b"admin", &WriteOptions::SYNC)?;
/// let entries = store.scan_prefix(users, b"al")?.collect::<vault_db::engine::Result<Vec<_>>>()?;
/// assert_eq!(&entries[0].1[..], b"admin");
/// store.close()?;
/// # Ok(())
/// # }
/// ```
pub mod engine {
    pub use crate::encrypted::EncryptedStore;
    pub use vault_core::clock::ManualClock;
    pub use vault_core::{
        CasOutcome, Clock, CompactionOutcome, CompactionPolicy, CompactionProgress, Compression,
        Cursor, Durability, Engine, EntryInfo, Error, ErrorKind, Event, EventListener,
        FilterPolicy, KeyRange, KeyspaceId, KeyspaceInfo, KeyspaceOptions, Limits, MemoryEngine,
        MergeOperator, Operation, Reader, Result, Scan, SequenceNumber, Slice, Snapshot,
        SystemClock, Timestamp, WriteBatch, WriteOptions, merge, stats, vfs,
    };
    pub use vault_lsm::check;
    pub use vault_lsm::{
        BackgroundWork, CheckpointOutcome, IngestOutcome, Lsm, LsmOptions, OpenMode, Settings,
    };
}

pub use access::{AccessRecord, AccessVerb, KeyAccesses};
pub use bounds::{
    Bounds, DESCRIPTION_BYTES_MAX, TAG_BYTES_MAX, TAGS_MAX, VAULT_NAME_BYTES_MAX, VAULTS_CEILING,
};
pub use database::{CopyProgress, Database, DatabaseBuilder, EncryptedDatabase};
pub use error::{Error, Result};
pub use guard::{
    AccessControl, AuditAction, AuditAnchor, AuditEntry, AuditPrune, Grant, Guarded, GuardedVault,
    Permission, PrincipalInfo, Token, TokenInfo,
};
pub use key::{DecodeKey, EncodeKey, Key, KeyBounds};
pub use migrate::{MigrationOutcome, MigrationProgress};
pub use portable::{
    ExportFormat, ExportProgress, ImportMode, ImportOptions, ImportOutcome, ImportProgress,
};
pub use restore::{
    Difference, DifferenceKind, RestoreOutcome, RestoreProgress, Scope, VaultChoice,
    VaultDifference,
};
pub use tenant::{Quota, Tenant, TenantInfo};
pub use transaction::{
    Isolation, Savepoint, Transaction, TransactionOptions, TransactionScan, TransactionVault,
};
pub use value::Value;
pub use vault::{Entry, Keys, RawScan, RawValue, Scan, Vault, VaultInfo, VaultStats};
pub use vault_core::{Durability, ErrorKind, Timestamp};

/// Holds the README to what compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
