//! The write-ahead log. Bytes: `docs/format/log.md`.
//!
//! [`record`] lays records out, [`writer`] appends them to a mapped segment, [`sync`] makes them durable
//! for many writers at once, [`reader`] reads segments back and tells a torn tail from damage, [`secure`] makes
//! what was read back durable.
//!
//! # Invariants
//! - Only one thread appends at a time: the engine's commit lock.
//! - No record is added to a segment that was opened for reading, and none is changed.
//! - A segment's header is durable and the manifest knows its number before its first record.
//! - *synced* positions only grow, and never pass what has been appended.

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod reader;
mod record;
mod secure;
mod sync;
mod writer;

pub(crate) use reader::{Replay, ReplayRequest, ReplayedBatch, replay};
pub(crate) use secure::{rewrite, secure};
pub(crate) use sync::LogSync;
pub(crate) use writer::{LogWriter, Segment, SegmentSource};

/// Version of the log's format.
pub(crate) const LOG_VERSION: u16 = 1;
