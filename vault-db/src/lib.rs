//! What applications embed: a Vault store behind one dependency.
//!
//! For now this crate gathers the names that an embedder needs from the crates below it, so that
//! `use vault_db::…` stays the same while typed vaults, transactions and encryption arrive on top. It
//! holds no logic of its own, and its dependencies are the whole bill: no async runtime, no C.

#![forbid(unsafe_code)]

pub use vault_core::{
    CasOutcome, Clock, CompactionOutcome, CompactionPolicy, CompactionProgress, Compression,
    Cursor, Durability, Engine, Error, ErrorKind, Event, EventListener, FilterPolicy, KeyRange,
    KeyspaceId, KeyspaceInfo, KeyspaceOptions, Limits, MergeOperator, Operation, Reader, Result,
    Scan, SequenceNumber, Slice, Snapshot, SystemClock, Timestamp, WriteBatch, WriteOptions, merge,
    stats,
};
pub use vault_lsm::{
    BackgroundWork, CheckpointOutcome, IngestOutcome, Lsm, LsmOptions, OpenMode, Settings,
};

/// Holds the README to what compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
