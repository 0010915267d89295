//! Sorted tables: the immutable files that entries live in once they leave a memtable.
//!
//! [`TableWriter`] takes entries in internal key order and writes one file front to back;
//! [`Table`] answers lookups from such a file, [`TableCursor`] walks it in both directions. The bytes
//! are described in `docs/format/table.md`.
//!
//! A lookup goes: top-level index in memory → filter of the one partition that can hold the key →
//! index of that partition → data block, searched in place. Filters and indexes of partitions stay
//! with their table as long as the [`MetadataBudget`] has room, and share the [`BlockCache`] with the
//! data blocks otherwise. A value is handed out as a slice of its block, without a copy.
//!
//! # What holds
//! - Every block is opened through the transform under its own ordinal before a byte of it is used.
//! - A parsed structure ([`block::Block`], [`index::IndexPartition`], …) has been checked whole:
//!   its accessors rely on that and have no error path.
//! - A file is never written to after [`TableWriter::finish`].

use std::sync::Arc;

use vault_core::error::{printable, withheld};
use vault_core::random::Random;
use vault_core::transform::Transform;
use vault_core::vfs::FileSystem;
use vault_core::{Compression, FilterPolicy, KeyspaceOptions};

use crate::memory::Memory;

#[cfg(feature = "benching")]
pub(crate) mod benching;
mod block;
mod block_builder;
mod budget;
mod cache;
mod cursor;
mod doorkeeper;
mod fetch;
mod filter;
mod footer;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod index;
mod index_builder;
pub(crate) mod inspect;
mod meta;
mod open;
mod reader;
mod recycle;
#[cfg(test)]
mod tests;
mod tombstones;
mod totals;
pub(crate) mod trailer;
mod writer;

pub(crate) use budget::MetadataBudget;
pub(crate) use cache::BlockCache;
pub(crate) use cursor::TableCursor;
pub(crate) use meta::TableMeta;
pub(crate) use reader::Table;
pub(crate) use writer::TableWriter;

/// Version of the table format that is written, and the newest that is read.
pub(crate) const TABLE_VERSION: u16 = 1;

/// What the blocks of a table can be. Values are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum BlockType {
    Data = 1,
    Filter = 2,
    Index = 3,
    RangeTombstones = 4,
    TopIndex = 5,
    Properties = 6,
    Footer = 7,
}

/// How a data block is compressed. Values are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Codec {
    Raw = 0,
    Lz4 = 1,
}

/// Most bytes that a block of `stored_bytes` can have been before it was compressed. A writer stays below.
///
/// Nothing in a file makes a reader allocate more than sixteen times its size plus 1 MiB. This leaves of that
/// once what is stored, into which it is read, and a little for the way there.
pub(crate) const fn plain_bytes_max(stored_bytes: u64) -> u64 {
    const FACTOR: u64 = 15;
    const FREE_BYTES: u64 = (1 << 20) - (64 << 10);
    stored_bytes
        .saturating_mul(FACTOR)
        .saturating_add(FREE_BYTES)
}

/// What tables of a store share.
#[derive(Debug, Clone)]
pub(crate) struct TableEnv {
    /// Where files are.
    pub(crate) fs: Arc<dyn FileSystem>,
    /// Seals and opens blocks.
    pub(crate) transform: Arc<dyn Transform>,
    /// Where salts come from.
    pub(crate) random: Arc<dyn Random>,
    /// The store's id.
    pub(crate) store: [u8; 16],
    /// Decoded blocks. Serves one store only: it tells tables apart by their numbers.
    pub(crate) cache: Arc<BlockCache>,
    /// Bounds what tables keep of their filters and indexes.
    pub(crate) metadata_budget: Arc<MetadataBudget>,
    /// Where the rest is counted.
    pub(crate) memory: Arc<Memory>,
}

impl TableEnv {
    /// How keys are told in messages: those of an encrypted store are not.
    pub(crate) fn shown(&self) -> Shown {
        shown(&*self.transform)
    }
}

/// Writes a key, or some other content, so that it may stand in a message.
pub(crate) type Shown = fn(&[u8]) -> String;

/// How the content of a store is told in messages.
pub(crate) fn shown(transform: &dyn Transform) -> Shown {
    if transform.keys().is_some() {
        withheld
    } else {
        printable
    }
}

/// How a table is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableOptions {
    /// Bytes of a data block before compression.
    pub(crate) block_bytes: u32,
    /// How data blocks are compressed.
    pub(crate) compression: Compression,
    /// Which filter the table gets.
    pub(crate) filter: FilterPolicy,
}

impl From<&KeyspaceOptions> for TableOptions {
    fn from(options: &KeyspaceOptions) -> Self {
        Self {
            block_bytes: options.block_bytes,
            compression: options.compression,
            filter: options.filter,
        }
    }
}

/// The hash of a user key that all filters are asked with: compute it once a lookup.
#[inline]
pub(crate) fn key_hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

/// The first eight bytes as a number that orders like them; zeros where there are fewer. Two keys
/// whose heads differ are ordered as their heads are.
#[inline]
fn head_of(bytes: &[u8]) -> u64 {
    match bytes.first_chunk::<8>() {
        Some(head) => u64::from_be_bytes(*head),
        None => {
            let mut head = [0; 8];
            head[..bytes.len()].copy_from_slice(bytes);
            u64::from_be_bytes(head)
        }
    }
}

/// Length of what both begin with.
fn common_prefix_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}
