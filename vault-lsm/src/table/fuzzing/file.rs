//! Whole tables: made ready, opened, read, and taken apart.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use vault_core::codec::Decoder;
use vault_core::random::SeededRandom;
use vault_core::vfs::MemoryFileSystem;
use vault_core::{KeyRange, KeyspaceId, Result};

use super::super::footer::{FOOTER_BYTES, Footer};
use super::super::index::{IndexPartition, TopIndex};
use super::super::{Codec, Table, TableCursor, TableEnv, TableMeta};
use crate::cursor::InternalCursor;
use crate::fuzzing::{SEAL_BYTES, Seals, put_file, stated_identity};
use crate::memory::Memory;

/// A table that is ready for opening.
pub struct TableFile {
    env: TableEnv,
    keyspace: KeyspaceId,
    meta: Option<TableMeta>,
}

const TABLE_PATH: &str = "/table";

impl TableFile {
    /// Makes a table ready. Whose it is, and what the manifest would know of it, is taken from the file;
    /// `ingest_sequence` is what only the manifest knows, 0 for none.
    #[must_use]
    pub fn new(bytes: &[u8], ingest_sequence: u64, seals: Seals) -> Self {
        let mut bytes = seals.prepare(bytes, None);
        let (store, _) = stated_identity(&bytes);
        let domain = bytes.get(12..16).and_then(|domain| domain.try_into().ok());
        let keyspace = KeyspaceId(domain.map_or(0, u32::from_le_bytes));
        let meta = properties_of(&mut bytes, seals);
        let meta = meta.map(|meta| match ingest_sequence {
            0 => meta,
            sequence => meta.with_sequence(sequence),
        });
        let fs = MemoryFileSystem::new();
        put_file(&fs, TABLE_PATH, &bytes);
        let memory = Memory::without_store(1 << 20);
        let env = TableEnv {
            fs: Arc::new(fs),
            transform: seals.transform(),
            random: Arc::new(SeededRandom::new(1)),
            store,
            cache: Arc::clone(memory.cache()),
            metadata_budget: Arc::clone(memory.tables()),
            memory,
        };
        Self {
            env,
            keyspace,
            meta,
        }
    }

    /// Opens it. `None` where not even its properties can be made out, so that no manifest could name it.
    ///
    /// # Errors
    /// What the reader says.
    #[must_use]
    pub fn open(&self) -> Option<Result<TableReader>> {
        let meta = self.meta.clone()?;
        let table = Table::open(&self.env, TABLE_PATH.as_ref(), self.keyspace, meta);
        Some(table.map(TableReader))
    }
}

/// Finds the properties of a table by its footer. Where the seals are mended, so is the length of the file
/// in both, that a longer or shorter file is not turned away at the door.
fn properties_of(bytes: &mut [u8], seals: Seals) -> Option<TableMeta> {
    let file_bytes = bytes.len() as u64;
    let footer_start = bytes.len().checked_sub(FOOTER_BYTES + SEAL_BYTES)?;
    let footer = &mut bytes[footer_start..footer_start + FOOTER_BYTES];
    if seals == Seals::Mended {
        footer[24..32].copy_from_slice(&file_bytes.to_le_bytes());
    }
    let footer = Footer::decode(footer)?;
    let end = footer_start.checked_sub(SEAL_BYTES)?;
    let start = end.checked_sub(usize::try_from(footer.properties_len).ok()?)?;
    let properties = &mut bytes[start..end];
    if seals == Seals::Mended {
        let mut decoder = Decoder::new(properties);
        decoder.varint()?;
        let at = properties.len() - decoder.rest().len();
        let length = properties.get_mut(at..at + 8)?;
        length.copy_from_slice(&file_bytes.to_le_bytes());
    }
    TableMeta::decode(&mut Decoder::new(properties))
}

/// The blocks of a sound table, taken apart for seeds.
#[derive(Debug, Default)]
pub struct TableParts {
    /// The footer.
    pub footer: Vec<u8>,
    /// The properties.
    pub properties: Vec<u8>,
    /// Range tombstones; empty where there are none.
    pub tombstones: Vec<u8>,
    /// The top-level index, and where the partitions that it tells of end.
    pub top_index: (Vec<u8>, u64),
    /// Index block, number of data blocks and their bytes, of each partition.
    pub indexes: Vec<(Vec<u8>, u64, u64)>,
    /// Filter blocks.
    pub filters: Vec<Vec<u8>>,
    /// Data blocks as they are stored, and the length before compression where they are compressed.
    pub blocks: Vec<(Vec<u8>, Option<u32>)>,
}

impl TableParts {
    /// Takes a table apart. `None` where it is not sound.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let overhead = SEAL_BYTES as u64;
        let content = |start: u64, len: u64| {
            let start = usize::try_from(start).ok()?;
            let len = usize::try_from(len).ok()?;
            bytes
                .get(start..start.checked_add(len)?)
                .map(<[u8]>::to_vec)
        };
        let footer_at = (bytes.len() as u64).checked_sub(FOOTER_BYTES as u64 + overhead)?;
        let mut parts = Self {
            footer: content(footer_at, FOOTER_BYTES as u64)?,
            ..Self::default()
        };
        let footer = Footer::decode(&parts.footer)?;
        let mut at = footer_at.checked_sub(footer.properties_len + overhead)?;
        parts.properties = content(at, footer.properties_len)?;
        at = at.checked_sub(footer.top_index_len + overhead)?;
        parts.top_index.0 = content(at, footer.top_index_len)?;
        if footer.tombstones_len > 0 {
            at = at.checked_sub(footer.tombstones_len + overhead)?;
            parts.tombstones = content(at, footer.tombstones_len)?;
        }
        parts.top_index.1 = at;
        let top = TopIndex::decode(&parts.top_index.0, at, overhead)?;
        for partition in &top.partitions {
            let index_at = partition.index_offset(overhead);
            let index = content(index_at, u64::from(partition.index_len))?;
            let decoded = IndexPartition::decode(&index, partition, overhead)?;
            for block in decoded.blocks() {
                let stored = content(
                    partition.offset + u64::from(block.offset),
                    u64::from(block.stored_len),
                )?;
                let plain = (block.codec == Codec::Lz4).then_some(block.plain_len);
                parts.blocks.push((stored, plain));
            }
            if partition.filter_len > 0 {
                let filter = content(partition.filter_offset(), u64::from(partition.filter_len))?;
                parts.filters.push(filter);
            }
            parts
                .indexes
                .push((index, partition.blocks, partition.data_bytes));
        }
        Some(parts)
    }
}

/// A table that is open.
pub struct TableReader(Arc<Table>);

impl TableReader {
    /// Hands every entry to `f`, in or against their order.
    ///
    /// # Errors
    /// What reading a block says.
    pub fn scan(
        &self,
        forward: bool,
        ahead: bool,
        mut f: impl FnMut(&[u8], u64, &[u8]),
    ) -> Result<()> {
        let mut cursor = if ahead {
            self.0.scan_cursor()
        } else {
            self.0.cursor()
        };
        if forward {
            cursor.first()?;
        } else {
            cursor.last()?;
        }
        while cursor.valid() {
            f(cursor.key(), cursor.trailer(), cursor.value());
            if forward {
                cursor.next()?;
            } else {
                cursor.prev()?;
            }
        }
        Ok(())
    }

    /// The versions of a key from a trailer on: trailer and length of each.
    ///
    /// # Errors
    /// What reading a block says.
    pub fn get(&self, key: &[u8], from_trailer: u64) -> Result<Vec<(u64, usize)>> {
        let mut found = Vec::new();
        let hash = crate::table::key_hash(key);
        let _ = self
            .0
            .visit(key, Some(hash), from_trailer, |trailer, value| {
                found.push((trailer, value.len()));
                ControlFlow::Continue(())
            })?;
        Ok(found)
    }

    /// The entries that seeking there, forwards and backwards, ends at.
    ///
    /// # Errors
    /// What reading a block says.
    #[expect(clippy::type_complexity, reason = "two entries, each perhaps absent")]
    pub fn seek(
        &self,
        key: &[u8],
        trailer: u64,
    ) -> Result<(Option<(Vec<u8>, u64)>, Option<(Vec<u8>, u64)>)> {
        let mut cursor = self.0.cursor();
        let here = |c: &TableCursor| c.valid().then(|| (c.key().to_vec(), c.trailer()));
        cursor.seek(key, trailer)?;
        let at_or_behind = here(&cursor);
        cursor.seek_back(key, trailer)?;
        Ok((at_or_behind, here(&cursor)))
    }

    /// What the table says of a range without reading it.
    #[must_use]
    pub fn approximate_bytes(&self, start: &[u8], end: &[u8]) -> u64 {
        self.0.approximate_bytes_in(&KeyRange::new(start..end))
    }

    /// Range tombstones: start, end, sequence number.
    pub fn tombstones(&self) -> impl Iterator<Item = (&[u8], &[u8], u64)> {
        self.0
            .range_tombstones()
            .iter()
            .map(|t| (&t.start[..], &t.end[..], t.sequence))
    }

    /// Entries that the properties promise.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.0.meta().entries
    }
}

impl fmt::Debug for TableReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
