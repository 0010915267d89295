//! Snapshot archives: what is in one, and how it is written and read.
//!
//! An archive is a zip that any program opens. What it holds is said by its [`Manifest`], which lies in it as the last entry
//! and once more beside it. The bytes of both are described in `docs/format/snapshot.md`.
//!
//! [`repository`](crate::repository) makes archives and restores them; this module is what it is made of.

mod digest;
mod error;
mod hex;
mod manifest;
mod name;
pub mod path;
mod progress;
mod reader;
mod sink;
mod writer;

pub use error::{BoxError, Error, Result};
pub use hex::{Hex, Salt, Sha256Hash, StoreId};
pub use manifest::{
    Entry, FORMAT_VERSION, Form, Kind, LABEL_BYTES_MAX, Manifest, ManifestProblem, NOTE_BYTES_MAX,
    TAGS_MAX, Trigger, VaultCount,
};
pub use name::SnapshotName;
pub use progress::Watcher;

pub(crate) use digest::Hasher;
pub(crate) use progress::Progress;
pub(crate) use reader::ArchiveReader;
pub(crate) use writer::ArchiveWriter;
