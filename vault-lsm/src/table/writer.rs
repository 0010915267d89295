//! Writes a table front to back.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vault_core::transform::{BlockIdentity, BlockTransform, FileHeader, FileIdentity, FileKind};
use vault_core::vfs::{File, FileSystem};
use vault_core::{Compression, Error, FilterPolicy, KeyspaceId, Result, Timestamp};

use super::block_builder::BlockBuilder;
use super::filter::Filter;
use super::footer::{FOOTER_BYTES, Footer};
use super::index::ORDINAL_FIRST;
use super::index_builder::{Fence, IndexBuilder};
use super::totals::Totals;
use super::trailer::{Summing, has_trailer, trailer_bytes};
use super::{
    BlockType, Codec, TABLE_VERSION, TableEnv, TableMeta, TableOptions, key_hash, plain_bytes_max,
    tombstones,
};
use crate::internal_key::RangeTombstone;
use crate::memory::{Class, LARGE_BLOCK_BYTES, Memory, Reservation};
use crate::store::sync_failed;

/// What a writer is taken to need at first: small blocks, and the hashes of a partition's keys.
const MEMORY_BYTES_AT_FIRST: usize = 128 << 10;
/// Bytes of an index block after which a partition is closed.
const PARTITION_INDEX_BYTES: usize = 4 << 10;
/// Keys in the filter of a partition after which it is closed.
const PARTITION_KEYS: usize = 32 << 10;
/// Bytes of data after which a partition is closed: offsets within it are 32 bits wide.
const PARTITION_DATA_BYTES: u64 = 1 << 30;

/// A table that is being written. Drop it only after [`Self::finish`] or [`Self::abandon`]: otherwise
/// its file stays behind.
pub(crate) struct TableWriter {
    output: Output,
    options: TableOptions,
    block: BlockBuilder,
    /// The fence in front of the block that is being gathered; `None` for a table's first.
    fence: Option<Fence>,
    partition: PartitionBuilder,
    top: IndexBuilder,
    tombstones: Vec<RangeTombstone>,
    last_key: Vec<u8>,
    last_trailer: u64,
    totals: Totals,
    memory: Reservation,
}

/// The partition that is being gathered.
#[derive(Default)]
struct PartitionBuilder {
    index: IndexBuilder,
    /// The fence of its first block, for the level above.
    fence: Option<Fence>,
    hashes: Vec<u64>,
    data_bytes: u64,
}

impl TableWriter {
    /// Creates the file.
    ///
    /// # Errors
    /// What the file system, the random source and the transform say. The file is then gone again.
    pub(crate) fn create(
        env: &TableEnv,
        path: &Path,
        number: u64,
        keyspace: KeyspaceId,
        options: &TableOptions,
        created: Timestamp,
    ) -> Result<Self> {
        let identity = FileIdentity {
            store: env.store,
            kind: FileKind::Table,
            number,
            domain: keyspace.0,
        };
        let (header, transform) =
            FileHeader::create(identity, TABLE_VERSION, &*env.transform, &*env.random)?;
        let file = env
            .fs
            .create(path)
            .map_err(|e| Error::io("create", path, e))?;
        let write_bytes = env.memory.shares().write_bytes;
        let mut buffer = Vec::with_capacity(write_bytes + write_bytes / 4);
        buffer.extend_from_slice(&header.encode());
        Ok(Self {
            output: Output {
                fs: Arc::clone(&env.fs),
                file,
                path: path.to_path_buf(),
                transform,
                write_bytes,
                memory: Arc::clone(&env.memory),
                buffer,
                written: 0,
                ordinal: ORDINAL_FIRST,
                scratch: Vec::new(),
                sums: has_trailer(header.transform).then(Summing::default),
            },
            options: *options,
            block: BlockBuilder::default(),
            fence: None,
            partition: PartitionBuilder::default(),
            top: IndexBuilder::default(),
            tombstones: Vec::new(),
            last_key: Vec::new(),
            last_trailer: 0,
            totals: Totals::new(number, header.salt, created),
            memory: Reservation::new(
                &env.memory,
                Class::Background,
                (write_bytes + write_bytes / 4 + MEMORY_BYTES_AT_FIRST) as u64,
            ),
        })
    }

    /// Brings what is counted up to what is held.
    fn count_memory(&mut self) {
        let index = self.partition.index.memory_bytes() + self.top.memory_bytes();
        let hashes = self.partition.hashes.capacity() * 8;
        let held = self.output.memory_bytes() + self.block.memory_bytes() + index + hashes;
        let (held, counted) = (held as u64, self.memory.bytes());
        if held > counted || counted > 2 * held {
            self.memory.resize(held);
        }
    }

    /// Adds an entry. Entries come in strictly ascending internal key order.
    ///
    /// # Errors
    /// [`Error::Corruption`] where they don't, or where an entry cannot be one: what is added was read
    /// from other tables, and their damage must not spread. Else what the file system says; then
    /// [abandon](Self::abandon) the table.
    pub(crate) fn add(&mut self, key: &[u8], trailer: u64, stored_value: &[u8]) -> Result<()> {
        let first = self.totals.entries == 0;
        let order = if first {
            Ordering::Less
        } else {
            self.last_key[..].cmp(key)
        };
        if order == Ordering::Greater || (order == Ordering::Equal && self.last_trailer <= trailer)
        {
            return Err(self.out_of_order(key, trailer));
        }
        self.totals
            .add(key, trailer, stored_value)
            .ok_or_else(|| self.no_entry(key, trailer))?;
        if !self.block.is_empty()
            && self.block.bytes_with(key, stored_value) > self.options.block_bytes as usize
        {
            self.finish_block()?;
        }
        if self.block.is_empty() && !first {
            self.fence = Some(Fence::between(&self.last_key, key, trailer));
        }
        if matches!(self.options.filter, FilterPolicy::Bloom { .. })
            && (order == Ordering::Less || self.partition.hashes.is_empty())
        {
            self.partition.hashes.push(key_hash(key));
        }
        self.block.add(key, trailer, stored_value);
        if order == Ordering::Less {
            self.last_key.clear();
            self.last_key.extend_from_slice(key);
        }
        self.last_trailer = trailer;
        Ok(())
    }

    /// Adds a range tombstone; they may come in any order. One that covers nothing is left out.
    pub(crate) fn add_range_tombstone(&mut self, tombstone: &RangeTombstone) {
        if tombstone.start < tombstone.end {
            self.totals.saw_sequence(tombstone.sequence);
            self.tombstones.push(tombstone.clone());
        }
    }

    /// About how long the file would be if it were finished now. What is not compressed yet counts
    /// in full.
    pub(crate) fn estimated_bytes(&self) -> u64 {
        let bits_per_key = match self.options.filter {
            FilterPolicy::Bloom { bits_per_key } => usize::from(bits_per_key),
            FilterPolicy::None => 0,
        };
        let tombstones: usize = self
            .tombstones
            .iter()
            .map(|t| t.start.len() + t.end.len() + 12)
            .sum();
        let pending = if self.block.is_empty() {
            0
        } else {
            self.block.bytes()
        } + self.partition.index.bytes()
            + self.partition.hashes.len() * bits_per_key / 8
            + self.top.bytes()
            + tombstones
            + FOOTER_BYTES;
        self.output
            .with_trailer(self.output.offset() + pending as u64)
    }

    /// Whether nothing has been added.
    pub(crate) fn is_empty(&self) -> bool {
        self.totals.entries == 0 && self.tombstones.is_empty()
    }

    /// Writes what is left, and syncs the file. The directory is not synced.
    ///
    /// # Errors
    /// What the file system and the transform say; the file is then removed, as far as that works.
    ///
    /// # Panics
    /// If nothing was added: there is no such table.
    pub(crate) fn finish(mut self) -> Result<TableMeta> {
        assert!(
            !self.is_empty(),
            "a table has at least one entry or range tombstone"
        );
        match self.write_rest() {
            Ok(meta) => Ok(meta),
            Err(error) => {
                self.abandon();
                Err(error)
            }
        }
    }

    /// Removes the file, as far as that works.
    pub(crate) fn abandon(self) {
        let Output { fs, path, file, .. } = self.output;
        drop(file);
        // The recovery of a store removes what stays behind, so a failure here is of no consequence.
        drop(fs.remove(&path));
    }

    fn write_rest(&mut self) -> Result<TableMeta> {
        if !self.block.is_empty() {
            self.finish_block()?;
        }
        if self.partition.index.len() > 0 {
            self.finish_partition()?;
        }
        tombstones::sort(&mut self.tombstones);
        let mut content = Vec::new();
        let mut tombstones_len = 0;
        if !self.tombstones.is_empty() {
            tombstones::encode(&self.tombstones, &mut content);
            tombstones_len = content.len() as u64;
            self.output
                .put_block(BlockType::RangeTombstones, &content)?;
        }
        content.clear();
        self.top.finish(&mut content);
        let top_index_len = content.len() as u64;
        self.output.put_block(BlockType::TopIndex, &content)?;

        let mut meta = self.totals.meta(&self.last_key, &self.tombstones);
        content.clear();
        meta.encode(&mut content);
        let overhead = self.output.transform.overhead();
        let properties_len = content.len() as u64;
        // The length of the properties does not depend on the length of the file that they tell.
        let rest = content.len() + FOOTER_BYTES + 2 * overhead;
        let sealed = self.output.offset() + rest as u64;
        meta.bytes = self.output.with_trailer(sealed);
        content.clear();
        meta.encode(&mut content);
        self.output.put_block(BlockType::Properties, &content)?;
        let footer = Footer {
            tombstones_len,
            top_index_len,
            properties_len,
            file_bytes: meta.bytes,
            blocks: self.output.ordinal,
            entries: meta.entries,
        };
        content.clear();
        footer.encode(&mut content);
        self.output.put_footer(&content)?;
        self.output.put_trailer();
        assert_eq!(
            self.output.offset(),
            meta.bytes,
            "the file is as long as its footer says"
        );
        self.output.sync()?;
        Ok(meta)
    }

    fn finish_block(&mut self) -> Result<()> {
        let plain = self.block.finish();
        let (stored, codec) = self
            .output
            .put_data_block(plain, self.options.compression)?;
        let lz4_plain = (codec == Codec::Lz4).then_some(plain.len() as u64);
        let sealed = stored + self.output.transform.overhead() as u64;
        self.block.clear();
        let partition = &mut self.partition;
        if partition.index.len() == 0 {
            // The fence of a partition's first block stands in the level above.
            partition.fence = self.fence.take();
        }
        partition
            .index
            .add_block(self.fence.take(), stored, lz4_plain);
        partition.data_bytes += sealed;
        let index_bytes_max = PARTITION_INDEX_BYTES.min(self.options.block_bytes as usize);
        if partition.index.bytes() >= index_bytes_max
            || partition.hashes.len() >= PARTITION_KEYS
            || partition.data_bytes >= PARTITION_DATA_BYTES
        {
            self.finish_partition()?;
        }
        self.count_memory();
        Ok(())
    }

    fn finish_partition(&mut self) -> Result<()> {
        let partition = &mut self.partition;
        let mut content = Vec::new();
        let filter_len = match self.options.filter {
            FilterPolicy::Bloom { bits_per_key } => {
                Filter::build(&partition.hashes, bits_per_key).encode(&mut content);
                self.output.put_block(BlockType::Filter, &content)?;
                Some(content.len() as u64)
            }
            FilterPolicy::None => None,
        };
        content.clear();
        let blocks = partition.index.len() as u64;
        partition.index.finish(&mut content);
        self.output.put_block(BlockType::Index, &content)?;
        self.top.add_partition(
            partition.fence.take(),
            blocks,
            partition.data_bytes,
            filter_len,
            content.len() as u64,
        );
        partition.hashes.clear();
        partition.data_bytes = 0;
        Ok(())
    }

    #[cold]
    fn out_of_order(&self, key: &[u8], trailer: u64) -> Error {
        let problem = format!(
            "entries in order expected: entry {} has a key of {} bytes with trailer {trailer:#x}, \
             and follows one of {} bytes with trailer {:#x}",
            self.totals.entries,
            key.len(),
            self.last_key.len(),
            self.last_trailer
        );
        Error::corruption(&self.output.path, self.output.offset(), problem)
    }

    #[cold]
    fn no_entry(&self, key: &[u8], trailer: u64) -> Error {
        let problem = format!(
            "no entry has trailer {trailer:#x} and this value: entry {}, with a key of {} bytes",
            self.totals.entries,
            key.len()
        );
        Error::corruption(&self.output.path, self.output.offset(), problem)
    }
}

impl std::fmt::Debug for TableWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableWriter")
            .field("path", &self.output.path)
            .field("entries", &self.totals.entries)
            .finish_non_exhaustive()
    }
}

/// The file, and what has been sealed but not written yet.
struct Output {
    fs: Arc<dyn FileSystem>,
    file: Arc<dyn File>,
    path: PathBuf,
    transform: Arc<dyn BlockTransform>,
    /// Bytes that are gathered before the file is written to.
    write_bytes: usize,
    memory: Arc<Memory>,
    buffer: Vec<u8>,
    /// Bytes of the file before the buffer.
    written: u64,
    /// Of the next block.
    ordinal: u64,
    /// Where blocks are compressed into.
    scratch: Vec<u8>,
    /// The checksums of what was written, where the table is to end in them.
    sums: Option<Summing>,
}

impl Output {
    const fn offset(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    const fn memory_bytes(&self) -> usize {
        let sums = match &self.sums {
            Some(sums) => sums.memory_bytes(),
            None => 0,
        };
        self.buffer.capacity() + self.scratch.capacity() + sums
    }

    /// Compresses and seals a data block; gives its stored length and what became of it.
    fn put_data_block(&mut self, plain: &[u8], compression: Compression) -> Result<(u64, Codec)> {
        // Compressed beside what is gathered, and gathered: twice its length while this runs.
        let large = plain.len() > LARGE_BLOCK_BYTES;
        let bytes = 2 * plain.len() as u64;
        let _large = large.then(|| Reservation::new(&self.memory, Class::Background, bytes));
        if compression == Compression::Lz4 {
            let most = lz4_flex::block::get_maximum_output_size(plain.len());
            if self.scratch.len() < most {
                self.scratch.resize(most, 0);
            }
            let compressed = lz4_flex::block::compress_into(plain, &mut self.scratch);
            let len = compressed.unwrap_or(usize::MAX);
            let worth_it = len <= plain.len() - plain.len() / 8;
            if worth_it && plain.len() as u64 <= plain_bytes_max(len as u64) {
                let start = self.buffer.len();
                self.buffer.extend_from_slice(&self.scratch[..len]);
                self.seal(BlockType::Data, Codec::Lz4, start)?;
                return Ok((len as u64, Codec::Lz4));
            }
        }
        self.put_block(BlockType::Data, plain)?;
        Ok((plain.len() as u64, Codec::Raw))
    }

    fn put_block(&mut self, block_type: BlockType, content: &[u8]) -> Result<()> {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(content);
        self.seal(block_type, Codec::Raw, start)
    }

    fn put_footer(&mut self, content: &[u8]) -> Result<()> {
        // The one block whose number a reader must know beforehand.
        self.ordinal = 0;
        self.put_block(BlockType::Footer, content)
    }

    /// Length of the file, if what is sealed takes this much of it.
    const fn with_trailer(&self, sealed: u64) -> u64 {
        match self.sums {
            Some(_) => sealed + trailer_bytes(sealed),
            None => sealed,
        }
    }

    /// Ends the file in the checksums of all before it.
    fn put_trailer(&mut self) {
        if let Some(mut sums) = self.sums.take() {
            sums.add(&self.buffer);
            sums.finish(&mut self.buffer);
        }
    }

    fn seal(&mut self, block_type: BlockType, codec: Codec, start: usize) -> Result<()> {
        let identity = BlockIdentity {
            ordinal: self.ordinal,
            block_type: block_type as u8,
            codec: codec as u8,
        };
        let before = self.buffer.len();
        self.transform.seal(&identity, &mut self.buffer, start)?;
        debug_assert_eq!(self.buffer.len() - before, self.transform.overhead());
        self.ordinal += 1;
        if self.buffer.len() >= self.write_bytes {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        if let Some(sums) = &mut self.sums {
            sums.add(&self.buffer);
        }
        self.file
            .write_at(&self.buffer, self.written)
            .map_err(|e| Error::io("write", &self.path, e))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        // What one large value needed is not kept for those that come.
        let kept = 2 * self.write_bytes;
        self.buffer.shrink_to(kept);
        if self.scratch.len() > kept {
            self.scratch = Vec::new();
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.write()?;
        self.file
            .sync()
            .map_err(|e| sync_failed(Error::io("sync", &self.path, e)))
    }
}
