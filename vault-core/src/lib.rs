//! The contracts that every part of Vault is written against.
//!
//! This crate holds no engine of its own except a small in-memory one. It says what an engine is
//! ([`Engine`]), what a caller may ask of it ([`WriteBatch`], [`KeyRange`], [`KeyspaceOptions`]), how
//! it fails ([`Error`]), and through which doors the outside world enters: files ([`vfs`]), time
//! ([`clock`]), randomness ([`random`]) and the transform that seals what is written ([`transform`]).
//! Nothing below these traits touches the ambient ones, so a simulation can own all of them.
//!
//! ```
//! use vault_core::{Engine, KeyspaceOptions, MemoryEngine, Reader, WriteBatch, WriteOptions};
//!
//! # fn main() -> vault_core::Result<()> {
//! let engine = MemoryEngine::new();
//! let users = engine.create_keyspace("users", &KeyspaceOptions::default())?;
//! let mut batch = WriteBatch::new();
//! batch.put(users, b"alice", b"admin").put(users, b"bob", b"guest");
//! engine.write(&batch, &WriteOptions::default())?;
//! assert_eq!(engine.get(users, b"alice")?.as_deref(), Some(&b"admin"[..]));
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)]

pub mod batch;
pub mod clock;
pub mod codec;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod engine;
pub mod error;
pub mod event;
pub mod limits;
pub mod memory_engine;
pub mod merge;
pub mod options;
pub mod random;
pub mod range;
pub mod scan;
pub mod slice;
pub mod stats;
pub mod transform;
pub mod vfs;

pub use batch::{Operation, WriteBatch};
pub use clock::{Clock, SystemClock, Timestamp};
pub use engine::{
    CasOutcome, CompactionOutcome, CompactionProgress, Cursor, Engine, EntryInfo, KeyspaceId,
    KeyspaceInfo, Reader, SequenceNumber, Snapshot,
};
pub use error::{Error, ErrorKind, Result};
pub use event::{Event, EventListener};
pub use limits::Limits;
pub use memory_engine::MemoryEngine;
pub use merge::MergeOperator;
pub use options::{
    CompactionPolicy, Compression, Durability, FilterPolicy, KeyspaceOptions, WriteOptions,
};
pub use range::KeyRange;
pub use scan::Scan;
pub use slice::Slice;
