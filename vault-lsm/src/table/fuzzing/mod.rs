//! What fuzz targets reach of tables. See [`crate::fuzzing`].

mod file;

use std::fmt;
use std::sync::Arc;

use vault_core::Result;
use vault_core::codec::Decoder;
use vault_core::transform::{FileIdentity, FileKind, HEADER_BYTES};
use vault_core::vfs::{FileSystem, MemoryFileSystem};

use super::block::Block;
use super::fetch::{Handle, Source};
use super::filter::Filter;
use super::footer::Footer;
use super::index::{IndexPartition, Partition, TopIndex};
use super::index_builder::{Fence, IndexBuilder};
use super::{BlockType, Codec, TableMeta, tombstones};
use crate::fuzzing::{SEAL_BYTES, Seals, blank_header};
use crate::internal_key::RangeTombstone;
use crate::memory::Memory;
use crate::tombstones::Fragments;

pub use file::{TableFile, TableParts, TableReader};

/// A data block that has been checked.
#[derive(Clone)]
pub struct DataBlock(Block);

impl DataBlock {
    /// Checks the structure of a block.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        Block::parse(Arc::from(bytes), bytes.len()).map(Self)
    }

    /// Number of entries.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a block is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Key, trailer and stored value of an entry.
    #[must_use]
    pub fn entry(&self, entry: usize) -> (Vec<u8>, u64, &[u8]) {
        let group = self.0.group(entry / super::block::GROUP_ENTRIES);
        let suffix = self.0.suffix(&group, entry % super::block::GROUP_ENTRIES);
        let key = [self.0.prefix(&group), suffix].concat();
        (key, self.0.trailer(entry), self.0.value(entry))
    }

    /// The key of an entry, put together as cursors do it.
    #[must_use]
    pub fn key_of_cursor(&self, entry: usize, buffer: &mut Vec<u8>) -> Vec<u8> {
        let group = self.0.group(entry / super::block::GROUP_ENTRIES);
        buffer.clear();
        buffer.extend_from_slice(self.0.prefix(&group));
        let number = entry % super::block::GROUP_ENTRIES;
        let len = self.0.put_suffix(&group, number, buffer);
        buffer[..len].to_vec()
    }

    /// The first entry at or behind `(key, trailer)`.
    #[must_use]
    pub fn lower_bound(&self, key: &[u8], trailer: u64) -> usize {
        self.0.lower_bound(key, trailer)
    }

    /// Whether an entry has this key.
    #[must_use]
    pub fn has_key(&self, entry: usize, key: &[u8]) -> bool {
        self.0.has_key(entry, key)
    }

    /// The stored value of an entry as a slice that may share the block.
    #[must_use]
    pub fn value_slice(&self, entry: usize) -> vault_core::Slice {
        self.0.value_slice(entry)
    }
}

/// A compressed block in a file of its own.
pub struct Lz4Block {
    source: Source,
    handle: Handle,
}

impl Lz4Block {
    /// Puts stored bytes into a file, with the plain length that an index claims. `None` where no index
    /// could claim it.
    #[must_use]
    pub fn new(stored: &[u8], plain_len: u32) -> Option<Self> {
        let fs = MemoryFileSystem::new();
        let sealed = [stored, &[0; SEAL_BYTES]].concat();
        fs.write_file("/block", &sealed).ok()?;
        let stored_len = u32::try_from(stored.len()).ok()?;
        if u64::from(plain_len) > super::plain_bytes_max(u64::from(stored_len)) {
            return None;
        }
        let identity = FileIdentity {
            store: [0; 16],
            kind: FileKind::Table,
            number: 1,
            domain: 1,
        };
        let transform = Seals::Mended.transform();
        let source = Source {
            file: fs.open("/block".as_ref()).ok()?,
            path: "/block".into(),
            transform: transform.open(&blank_header(identity)).ok()?,
            memory: Memory::without_store(0),
        };
        let handle = Handle {
            offset: 0,
            stored_len,
            plain_len,
            ordinal: 1,
            block_type: BlockType::Data,
            codec: Codec::Lz4,
        };
        Some(Self { source, handle })
    }

    /// Reads, decompresses and parses it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(&self) -> Result<DataBlock> {
        self.source.data_block(&self.handle).map(DataBlock)
    }
}

/// An index block, decoded.
#[derive(Debug)]
pub struct IndexBlock(IndexPartition);

impl IndexBlock {
    /// Decodes the index of a partition of so many blocks and bytes.
    #[must_use]
    pub fn decode(bytes: &[u8], blocks: u64, data_bytes: u64) -> Option<Self> {
        let partition = Partition {
            offset: HEADER_BYTES as u64,
            ordinal: 1,
            blocks,
            data_bytes,
            filter_len: 0,
            index_len: 0,
        };
        IndexPartition::decode(bytes, &partition, SEAL_BYTES as u64).map(Self)
    }

    /// Number of blocks.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an index is never empty")]
    pub fn len(&self) -> usize {
        self.0.blocks().len()
    }

    /// The last block whose fence is not behind `(key, trailer)`.
    #[must_use]
    pub fn find(&self, key: &[u8], trailer: u64) -> usize {
        self.0.fences.find(key, trailer)
    }

    /// Whether a block begins at or before `(key, trailer)`.
    #[must_use]
    pub fn starts_by(&self, block: usize, key: &[u8], trailer: u64) -> bool {
        self.0.fences.starts_by(block, key, trailer)
    }

    /// The fence in front of block `number + 1`.
    #[must_use]
    pub fn fence(&self, number: usize) -> (Vec<u8>, u64) {
        self.0.fences.fence(number)
    }

    /// Offset and stored length of a block.
    #[must_use]
    pub fn place(&self, block: usize) -> (u32, u32) {
        let block = self.0.blocks()[block];
        (block.offset, block.stored_len)
    }

    /// The bytes that the writer would have laid out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut builder = IndexBuilder::default();
        for (i, block) in self.0.blocks().iter().enumerate() {
            let fence = i.checked_sub(1).map(|number| fence_of(self.fence(number)));
            let plain = (block.codec == Codec::Lz4).then_some(u64::from(block.plain_len));
            builder.add_block(fence, u64::from(block.stored_len), plain);
        }
        let mut out = Vec::new();
        builder.finish(&mut out);
        out
    }
}

fn fence_of((key, trailer): (Vec<u8>, u64)) -> Fence {
    Fence {
        key,
        trailer: (trailer != u64::MAX).then_some(trailer),
    }
}

/// A top-level index, decoded.
#[derive(Debug)]
pub struct TopIndexBlock(TopIndex);

impl TopIndexBlock {
    /// Decodes the top level of a table whose partitions end at `end`.
    #[must_use]
    pub fn decode(bytes: &[u8], end: u64) -> Option<Self> {
        TopIndex::decode(bytes, end, SEAL_BYTES as u64).map(Self)
    }

    /// Number of partitions.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.0.partitions.len()
    }

    /// The last partition whose fence is not behind `(key, trailer)`.
    #[must_use]
    pub fn find(&self, key: &[u8], trailer: u64) -> usize {
        self.0.fences.find(key, trailer)
    }

    /// The fence in front of partition `number + 1`.
    #[must_use]
    pub fn fence(&self, number: usize) -> (Vec<u8>, u64) {
        self.0.fences.fence(number)
    }

    /// First byte of a partition, of its index, and the byte behind that.
    #[must_use]
    pub fn place(&self, partition: usize) -> (u64, u64, u64) {
        let partition = self.0.partitions[partition];
        let overhead = SEAL_BYTES as u64;
        let index = partition.index_offset(overhead);
        let end = index + u64::from(partition.index_len) + overhead;
        (partition.offset, index, end)
    }

    /// The bytes that the writer would have laid out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut builder = IndexBuilder::default();
        for (i, partition) in self.0.partitions.iter().enumerate() {
            let fence = i.checked_sub(1).map(|number| fence_of(self.fence(number)));
            let filter = (partition.filter_len > 0).then_some(u64::from(partition.filter_len));
            let index_len = u64::from(partition.index_len);
            builder.add_partition(
                fence,
                partition.blocks,
                partition.data_bytes,
                filter,
                index_len,
            );
        }
        let mut out = Vec::new();
        builder.finish(&mut out);
        out
    }
}

/// A filter block, decoded.
#[derive(Debug, PartialEq, Eq)]
pub struct FilterBlock(Filter);

impl FilterBlock {
    /// Decodes a filter.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Filter::decode(bytes).map(Self)
    }

    /// A filter of these keys.
    #[must_use]
    pub fn of_keys(keys: &[&[u8]], bits_per_key: u8) -> Self {
        let hashes: Vec<u64> = keys.iter().map(|key| super::key_hash(key)).collect();
        Self(Filter::build(&hashes, bits_per_key))
    }

    /// The bytes that the writer would have laid out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.0.encode(&mut out);
        out
    }

    /// Whether a key may be there.
    #[must_use]
    pub fn admits(&self, key: &[u8]) -> bool {
        self.0.may_contain(super::key_hash(key))
    }

    /// Whether a key with this hash may be there.
    #[must_use]
    pub fn may_contain(&self, hash: u64) -> bool {
        self.0.may_contain(hash)
    }
}

/// A footer, decoded.
#[derive(Debug, PartialEq, Eq)]
pub struct FooterBlock(Footer);

impl FooterBlock {
    /// Decodes a footer.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Footer::decode(bytes).map(Self)
    }

    /// The bytes that the writer would have laid out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.0.encode(&mut out);
        out
    }
}

/// A properties block, decoded.
#[derive(Debug, PartialEq, Eq)]
pub struct PropertiesBlock(TableMeta);

impl PropertiesBlock {
    /// Decodes the properties at the front; also gives how many bytes they took.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut decoder = Decoder::new(bytes);
        let meta = TableMeta::decode(&mut decoder)?;
        Some((Self(meta), bytes.len() - decoder.rest().len()))
    }

    /// The bytes that the writer would have laid out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.0.encode(&mut out);
        out
    }

    /// The least and the greatest key.
    #[must_use]
    pub fn bounds(&self) -> (&[u8], &[u8]) {
        (&self.0.smallest, &self.0.largest)
    }

    /// The least and the greatest sequence number.
    #[must_use]
    pub const fn sequences(&self) -> (u64, u64) {
        (self.0.sequence_min, self.0.sequence_max)
    }
}

/// A block of range tombstones, decoded.
#[derive(Debug, PartialEq, Eq)]
pub struct TombstoneBlock(Vec<RangeTombstone>);

impl TombstoneBlock {
    /// Decodes a block.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        tombstones::decode(bytes).map(Self)
    }

    /// The bytes that the writer would have laid out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        tombstones::encode(&self.0, &mut out);
        out
    }

    /// Start, end and sequence number of each.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8], u64)> {
        self.0
            .iter()
            .map(|t| (&t.start[..], &t.end[..], t.sequence))
    }

    /// The sequence numbers that cover each key, newest first, as readers ask for them.
    #[must_use]
    pub fn covering(&self, keys: &[&[u8]]) -> Vec<Vec<u64>> {
        let fragments = Fragments::build(self.0.iter().cloned());
        keys.iter()
            .map(|key| fragments.covering_all(key).to_vec())
            .collect()
    }
}

impl fmt::Debug for DataBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = (0..self.len()).map(|i| {
            let (key, trailer, value) = self.entry(i);
            let key = vault_core::error::printable(&key);
            format!("{key} @{trailer:#x} {} bytes", value.len())
        });
        f.debug_list().entries(entries).finish()
    }
}
