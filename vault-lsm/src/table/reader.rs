//! Opens tables and answers lookups from them.

use std::ops::{Bound, ControlFlow, Deref};
use std::path::Path;
use std::sync::Arc;

use vault_core::transform::HEADER_BYTES;
use vault_core::vfs::File;
use vault_core::{KeyRange, KeyspaceId, Result, Slice};

use super::block::Block;
use super::cache::{CacheKey, Cached};
use super::cursor::TableCursor;
use super::fetch::{Handle, Source};
use super::filter::Filter;
use super::index::{IndexPartition, Partition, TopIndex};
use super::open::{Parts, open_source, read_parts};
use super::{BlockCache, BlockType, MetadataBudget, TableEnv, TableMeta, recycle};
use crate::internal_key::{RangeTombstone, sequence_of};
use crate::sync::OnceLock;

/// A table that is open for reading. Any number of threads share it.
pub(crate) struct Table {
    pub(super) source: Source,
    pub(super) top: TopIndex,
    meta: TableMeta,
    tombstones: Box<[RangeTombstone]>,
    pinned: Box<[Pinned]>,
    cache: Arc<BlockCache>,
    budget: Arc<MetadataBudget>,
    /// What `top` and `tombstones` take, reserved whether or not the budget had it.
    resident_bytes: u64,
}

/// What a partition keeps with its table, if the budget allowed it.
#[derive(Default)]
struct Pinned {
    index: OnceLock<Arc<IndexPartition>>,
    /// Not behind a pointer of its own: a lookup goes through those of many tables.
    filter: OnceLock<Filter>,
}

impl Table {
    /// Opens a table and checks that it is the one that `meta` describes. Reads the header and the end
    /// of the file, no data.
    ///
    /// # Errors
    /// [`vault_core::Error::Corruption`] where it is not; else what the file system and the transform say.
    pub(crate) fn open(
        env: &TableEnv,
        path: &Path,
        keyspace: KeyspaceId,
        meta: TableMeta,
    ) -> Result<Arc<Self>> {
        let (source, sealed_end) = open_source(env, path, keyspace, &meta)?;
        let parts = read_parts(&source, sealed_end, &meta)?;
        Ok(Arc::new(Self::new(env, source, parts, meta)))
    }

    /// This table as it is when it has just been opened: without the filters and indexes read since.
    pub(crate) fn as_opened(&self) -> Self {
        self.budget.reserve(self.resident_bytes);
        Self {
            source: self.source.clone(),
            top: self.top.clone(),
            meta: self.meta.clone(),
            tombstones: self.tombstones.clone(),
            pinned: no_parts(&self.top),
            cache: Arc::clone(&self.cache),
            budget: Arc::clone(&self.budget),
            resident_bytes: self.resident_bytes,
        }
    }

    /// The bytes of its file as they are.
    pub(crate) fn file(&self) -> Arc<dyn File> {
        Arc::clone(&self.source.file)
    }

    /// The epoch of the key that seals the table; 0 where there is none.
    pub(crate) fn epoch(&self) -> u32 {
        self.source.transform.epoch()
    }

    /// What is known of the table without reading it.
    pub(crate) const fn meta(&self) -> &TableMeta {
        &self.meta
    }

    /// The table's range tombstones, by start.
    pub(crate) const fn range_tombstones(&self) -> &[RangeTombstone] {
        &self.tombstones
    }

    /// Whether the table may have an entry of this user key. Reads no data block.
    ///
    /// # Errors
    /// What reading a filter says.
    #[cfg(test)]
    pub(crate) fn may_contain(&self, key_hash: u64, key: &[u8]) -> Result<bool> {
        let mut partition = self.top.fences.find(key, u64::MAX);
        while partition < self.top.partitions.len() {
            if self.filter_admits(partition, key_hash)? {
                return Ok(true);
            }
            partition += 1;
            if !self.top.fences.starts_by(partition, key, 0) {
                break;
            }
        }
        Ok(false)
    }

    /// Hands the versions of a user key whose trailers are at most `from_trailer` to `f`, newest first,
    /// until `f` breaks. Gives what `f` gave last. Asks the filters where it is given the key's hash.
    ///
    /// # Errors
    /// What reading a block says.
    pub(crate) fn visit<F: FnMut(u64, Slice) -> ControlFlow<()>>(
        &self,
        key: &[u8],
        key_hash: Option<u64>,
        from_trailer: u64,
        mut f: F,
    ) -> Result<ControlFlow<()>> {
        let from_trailer = self.stored_trailer(from_trailer);
        let mut number = self.top.fences.find(key, from_trailer);
        while number < self.top.partitions.len() {
            let admitted = match key_hash {
                Some(hash) => self.filter_admits(number, hash)?,
                None => true,
            };
            if admitted
                && self
                    .visit_partition(number, key, from_trailer, &mut f)?
                    .is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
            number += 1;
            // Versions of one key may go on in the next partition, but only if that begins with it.
            if number == self.top.partitions.len() || !self.top.fences.starts_by(number, key, 0) {
                break;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The trailer of an entry, given the one that is stored: an ingested table's entries all have the
    /// sequence number of the ingest.
    #[inline]
    pub(super) const fn shown_trailer(&self, stored: u64) -> u64 {
        stored | self.meta.ingest_sequence << 8
    }

    /// Where to look among the stored trailers for what is looked for among those shown.
    #[inline]
    pub(super) const fn stored_trailer(&self, shown: u64) -> u64 {
        let ingested = self.meta.ingest_sequence;
        let sequence = sequence_of(shown);
        if ingested == 0 {
            shown
        } else if sequence > ingested {
            u8::MAX as u64
        } else if sequence == ingested {
            shown & u8::MAX as u64
        } else {
            0
        }
    }

    /// A cursor for reads: looks into the cache and fills it.
    pub(crate) fn cursor(self: &Arc<Self>) -> TableCursor {
        TableCursor::new(Arc::clone(self), false)
    }

    /// A cursor for compaction: leaves the cache alone and reads far ahead.
    pub(crate) fn scan_cursor(self: &Arc<Self>) -> TableCursor {
        TableCursor::new(Arc::clone(self), true)
    }

    /// About how many bytes of the file hold keys within the range. Reads nothing: as exact as a block
    /// where a partition's index is in memory, else as exact as half a partition.
    pub(crate) fn approximate_bytes_in(&self, range: &KeyRange) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let position = |bound: &Bound<Vec<u8>>, unbounded: u64| match bound {
            Bound::Included(key) | Bound::Excluded(key) => self.position_of(key),
            Bound::Unbounded => unbounded,
        };
        // Keys outside the table have no place in its index: it would give them one inside.
        let begin = HEADER_BYTES as u64;
        let start = if range.is_after_start(&self.meta.smallest) {
            begin
        } else {
            position(&range.start, begin)
        };
        let end = if range.is_before_end(&self.meta.largest) {
            self.top.end
        } else {
            position(&range.end, self.top.end)
        };
        end.saturating_sub(start)
    }

    /// A data block, out of the cache or the file, and whether the cache holds it now. Where it is in the file is looked up
    /// only to read it there.
    pub(super) fn data_block(
        &self,
        partition: usize,
        index: &IndexPartition,
        number: usize,
    ) -> Result<(Block, bool)> {
        let ordinal = index.ordinal(number);
        if let Some(block) = self.cached_data_block(ordinal) {
            return Ok((block, true));
        }
        let handle = self.data_handle(partition, index, number);
        let block = self.source.data_block(&handle)?;
        let kept = self.keep_data_block(ordinal, &block);
        Ok((block, kept))
    }

    /// A data block, if the cache has it.
    pub(super) fn cached_data_block(&self, ordinal: u64) -> Option<Block> {
        match self.cache.get(self.cache_key(ordinal)) {
            Some(Cached::Data(block)) => Some(block),
            _ => None,
        }
    }

    /// Offers a data block to the cache. Gives whether it was taken.
    pub(super) fn keep_data_block(&self, ordinal: u64, block: &Block) -> bool {
        let key = self.cache_key(ordinal);
        let admitted = self.cache.admits(key);
        if admitted {
            self.cache.insert(key, Cached::Data(block.clone()));
        }
        admitted
    }

    /// Where the data block `number` of a partition is.
    pub(super) fn data_handle(
        &self,
        partition: usize,
        index: &IndexPartition,
        number: usize,
    ) -> Handle {
        let (partition, block) = (&self.top.partitions[partition], &index.blocks()[number]);
        Handle {
            offset: partition.offset + u64::from(block.offset),
            stored_len: block.stored_len,
            plain_len: block.plain_len,
            ordinal: index.ordinal(number),
            block_type: BlockType::Data,
            codec: block.codec,
        }
    }

    /// The index of a partition.
    pub(super) fn index(&self, number: usize) -> Result<Held<'_, IndexPartition>> {
        if let Some(index) = self.pinned[number].index.get() {
            return Ok(Held::Pinned(index));
        }
        let partition = &self.top.partitions[number];
        let key = self.cache_key(partition.index_ordinal());
        if let Some(Cached::Index(index)) = self.cache.get(key) {
            return Ok(Held::Shared(index));
        }
        let overhead = self.source.overhead();
        let handle = Handle::raw(
            BlockType::Index,
            partition.index_offset(overhead),
            partition.index_len,
            key.ordinal,
        );
        let decode = |bytes: &[u8]| IndexPartition::decode(bytes, partition, overhead);
        let index = Arc::new(self.source.decode(&handle, decode)?);
        let (slot, bytes) = (&self.pinned[number].index, index.memory_bytes());
        if let Err(unpinned) = self.pin(slot, Arc::clone(&index), bytes) {
            self.cache.insert(key, Cached::Index(unpinned));
        }
        Ok(Held::Shared(index))
    }

    fn new(env: &TableEnv, source: Source, parts: Parts, meta: TableMeta) -> Self {
        let Parts { top, tombstones } = parts;
        let resident_bytes = resident_bytes(&top, &tombstones, &meta);
        env.metadata_budget.reserve(resident_bytes);
        Self {
            pinned: no_parts(&top),
            cache: Arc::clone(&env.cache),
            budget: Arc::clone(&env.metadata_budget),
            source,
            top,
            meta,
            tombstones,
            resident_bytes,
        }
    }

    fn visit_partition(
        &self,
        partition: usize,
        key: &[u8],
        from_trailer: u64,
        f: &mut impl FnMut(u64, Slice) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let index = self.index(partition)?;
        let mut number = index.fences.find(key, from_trailer);
        loop {
            let (block, kept) = self.data_block(partition, &index, number)?;
            let visited = self.visit_block(&block, kept, key, from_trailer, f);
            if !kept {
                recycle::give(block.into_buffer());
            }
            if let Some(end) = visited {
                return Ok(end);
            }
            number += 1;
            // The block ended within the key's versions, or before them.
            if number == index.blocks().len() || !index.fences.starts_by(number, key, 0) {
                return Ok(ControlFlow::Continue(()));
            }
        }
    }

    /// As [`Table::visit`], in one block. `None` where the key's versions may go on in the next one. Values out of a block that the
    /// cache has not `kept` are copied, so that its buffer is free again at once.
    #[inline]
    fn visit_block(
        &self,
        block: &Block,
        kept: bool,
        key: &[u8],
        from_trailer: u64,
        f: &mut impl FnMut(u64, Slice) -> ControlFlow<()>,
    ) -> Option<ControlFlow<()>> {
        for entry in block.lower_bound(key, from_trailer)..block.len() {
            if !block.has_key(entry, key) {
                return Some(ControlFlow::Continue(()));
            }
            let value = if kept {
                block.value_slice(entry)
            } else {
                block.value_copied(entry)
            };
            if f(self.shown_trailer(block.trailer(entry)), value).is_break() {
                return Some(ControlFlow::Break(()));
            }
        }
        None
    }

    #[inline]
    fn filter_admits(&self, partition: usize, key_hash: u64) -> Result<bool> {
        if let Some(filter) = self.pinned[partition].filter.get() {
            return Ok(filter.may_contain(key_hash));
        }
        if self.top.partitions[partition].filter_len == 0 {
            return Ok(true);
        }
        self.read_filter_admits(partition, key_hash)
    }

    #[cold]
    fn read_filter_admits(&self, number: usize, key_hash: u64) -> Result<bool> {
        let partition: &Partition = &self.top.partitions[number];
        let key = self.cache_key(partition.filter_ordinal());
        if let Some(Cached::Filter(filter)) = self.cache.get(key) {
            return Ok(filter.may_contain(key_hash));
        }
        let handle = Handle::raw(
            BlockType::Filter,
            partition.filter_offset(),
            partition.filter_len,
            key.ordinal,
        );
        let filter = self.source.decode(&handle, Filter::decode)?;
        let admits = filter.may_contain(key_hash);
        let bytes = filter.memory_bytes();
        if let Err(filter) = self.pin(&self.pinned[number].filter, filter, bytes) {
            self.cache.insert(key, Cached::Filter(Arc::new(filter)));
        }
        Ok(admits)
    }

    /// Keeps a part of the index with the table if the budget has room, or has kept it already; else gives it back.
    fn pin<T>(&self, slot: &OnceLock<T>, part: T, bytes: u64) -> Result<(), T> {
        if !self.budget.try_reserve(bytes) {
            return Err(part);
        }
        if slot.set(part).is_err() {
            // Another thread was faster, and has reserved for it.
            self.budget.release(bytes);
        }
        Ok(())
    }

    /// Where in the file an entry of this user key would be.
    fn position_of(&self, key: &[u8]) -> u64 {
        let number = self.top.fences.find(key, u64::MAX);
        let Some(partition) = self.top.partitions.get(number) else {
            return self.top.end;
        };
        let within = match self.pinned[number].index.get() {
            Some(index) => u64::from(index.blocks()[index.fences.find(key, u64::MAX)].offset),
            None => partition.data_bytes / 2,
        };
        partition.offset + within
    }

    const fn cache_key(&self, ordinal: u64) -> CacheKey {
        CacheKey {
            table: self.meta.number,
            ordinal,
        }
    }
}

/// Room for what each partition may keep with its table.
fn no_parts(top: &TopIndex) -> Box<[Pinned]> {
    top.partitions.iter().map(|_| Pinned::default()).collect()
}

/// What a table takes for as long as it is open, whatever the budget says.
fn resident_bytes(top: &TopIndex, tombstones: &[RangeTombstone], meta: &TableMeta) -> u64 {
    /// The table's own structures, its file, its places in a version and in the manifest.
    const FIXED_BYTES: usize = 1024;
    /// As they are, and cut into fragments.
    const TOMBSTONE_COPIES: usize = 2;
    let keys: usize = tombstones.iter().map(|t| t.start.len() + t.end.len()).sum();
    let tombstones = TOMBSTONE_COPIES * (size_of_val(tombstones) + keys);
    // The table has them, and so does the manifest.
    let bounds = 2 * (meta.smallest.len() + meta.largest.len());
    let partitions = top.partitions.len() * size_of::<Pinned>();
    let blobs = 2 * size_of_val(&*meta.blobs);
    top.memory_bytes() + (FIXED_BYTES + tombstones + bounds + blobs + partitions) as u64
}

impl Drop for Table {
    fn drop(&mut self) {
        let pinned: u64 = self
            .pinned
            .iter()
            .map(|p| {
                p.index.get().map_or(0, |i| i.memory_bytes())
                    + p.filter.get().map_or(0, Filter::memory_bytes)
            })
            .sum();
        self.budget.release(pinned + self.resident_bytes);
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table")
            .field("path", &self.source.path)
            .field("meta", &self.meta)
            .finish_non_exhaustive()
    }
}

/// A part of the index, kept with the table or shared with the cache.
pub(super) enum Held<'a, T> {
    Pinned(&'a Arc<T>),
    Shared(Arc<T>),
}

impl<T> Held<'_, T> {
    pub(super) fn into_arc(self) -> Arc<T> {
        match self {
            Self::Pinned(part) => Arc::clone(part),
            Self::Shared(part) => part,
        }
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match self {
            Self::Pinned(part) => part,
            Self::Shared(part) => part,
        }
    }
}
