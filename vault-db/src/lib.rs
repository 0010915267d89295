//! What applications embed: a Vault store behind one dependency.
//!
//! For now this crate gathers the names that an embedder needs from the crates below it, so that
//! `use vault_db::…` stays the same while typed vaults and transactions arrive on top, and adds encrypted
//! stores ([`EncryptedStore`], [`encryption`]). Its dependencies are the whole bill: no async runtime, and no C,
//! unless the feature `ring` asks for hardware-tuned ciphers.
//!
//! Begin at [`Lsm::open`]; what a store can do is [`Engine`] and [`Reader`], and what is special to this
//! engine stands on [`Lsm`]. Errors tell by [`Error::kind`] what a program can do about them.
//!
//! ```
//! use vault_db::{Engine, KeyspaceOptions, Lsm, LsmOptions, Reader, WriteOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path();
//! let store = Lsm::open(path, LsmOptions::default())?;
//! let users = store.create_keyspace("users", &KeyspaceOptions::default())?;
//! store.put(users, b"bob", b"guest", &WriteOptions::OS)?;
//! store.put(users, b"alice", b"admin", &WriteOptions::SYNC)?;
//! let entries = store.scan_prefix(users, b"al")?.collect::<vault_db::Result<Vec<_>>>()?;
//! assert_eq!(&entries[0].1[..], b"admin");
//! store.close()?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod encrypted;

/// What opens an encrypted store, and what can be chosen of how it is encrypted.
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

pub use encrypted::EncryptedStore;
pub use vault_core::{
    CasOutcome, Clock, CompactionOutcome, CompactionPolicy, CompactionProgress, Compression,
    Cursor, Durability, Engine, Error, ErrorKind, Event, EventListener, FilterPolicy, KeyRange,
    KeyspaceId, KeyspaceInfo, KeyspaceOptions, Limits, MergeOperator, Operation, Reader, Result,
    Scan, SequenceNumber, Slice, Snapshot, SystemClock, Timestamp, WriteBatch, WriteOptions, merge,
    stats,
};
pub use vault_lsm::check;
pub use vault_lsm::{
    BackgroundWork, CheckpointOutcome, IngestOutcome, Lsm, LsmOptions, OpenMode, Settings,
};

/// Holds the README to what compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
