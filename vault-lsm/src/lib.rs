//! The log-structured merge engine of Vault.
//!
//! Open a store with [`Lsm::open`]; what it can do is [`vault_core::Engine`], and what only this engine can
//! do stands on [`Lsm`] itself. The bytes on disk are documented in `docs/format/`.
//!
//! # The paths through the source
//! - **write**: `engine` → `write/` (`validate`, `admission`, `commit`) → `log/` → `memtable/` → `flush` →
//!   `compact/output` → `table/` → `manifest/`
//! - **read**: `engine` → `view` → `read/get` or `read/scan` → `memtable/`, `table/` → `read/visible`
//! - **compaction**: `background` → `compact/` (`job`, `output`) → `manifest/` → `reclaim`
//! - **open**: `recover` → `manifest/`, `log/reader`
//! - **check**: `check/` → `table/inspect`, `manifest/inspect`, `log/reader`

#![deny(unsafe_code)]

mod background;
#[cfg(feature = "benching")]
#[doc(hidden)]
pub mod benching;
mod blob;
mod capture;
pub mod check;
mod checkpoint;
mod close;
mod compact;
mod counters;
mod cursor;
mod directory;
mod engine;
mod flush;
mod frame;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gaps;
mod ingest;
mod internal_key;
mod keyspace;
mod keyspaces;
mod layout;
mod locking;
mod log;
mod manifest;
mod memory;
mod memtable;
#[cfg(all(test, vault_model))]
mod models;
mod options;
mod read;
mod reclaim;
mod recover;
mod replay;
mod report;
mod rest;
mod restored;
mod rotation;
pub mod shipping;
mod snapshot;
mod stock;
mod store;
mod sync;
mod table;
mod tombstones;
mod version;
mod view;
mod write;

pub use capture::{Capture, CapturedFile};
pub use checkpoint::CheckpointOutcome;
pub use engine::Lsm;
pub use ingest::IngestOutcome;
pub use options::{BackgroundWork, LsmOptions, OpenMode, Settings};
pub use restored::mark_restored;
