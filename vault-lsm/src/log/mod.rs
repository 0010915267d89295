//! The write-ahead log. Bytes: `docs/format/log.md`.
//!
//! [`record`] lays records out, [`writer`] appends them to a mapped segment, whose pages are written as [`pages`] decides,
//! [`sync`] makes them durable for many writers at once, [`reader`] reads segments back, a window at a time ([`records`]), and
//! tells a torn tail from damage, [`secure`] makes what was read back durable.
//!
//! # Invariants
//! - Only one thread gives out places at a time: the engine's commit lock. Each record is written by the thread that
//!   has its place, once; how far the log reaches without a hole is published in the order of the places.
//! - No record is added to a segment that was opened for reading, and none is changed.
//! - A segment's header is durable and the manifest knows its number before its first record.
//! - *synced* positions only grow, and never pass what has been appended.

mod company;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod pages;
mod reader;
pub(crate) mod record;
mod records;
mod secure;
mod sync;
mod writer;

pub(crate) use reader::{Replay, ReplayRequest, ReplayedBatch, peek_start, replay};
pub(crate) use record::Start;
pub(crate) use secure::{rewrite, secure};
pub(crate) use sync::LogSync;
pub(crate) use writer::{LogWriter, Reserved, Segment, SegmentSource};

/// Version of the log's format.
pub(crate) const LOG_VERSION: u16 = 1;
