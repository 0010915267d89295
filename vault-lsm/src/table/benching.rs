//! What is measured of tables: the codec of their blocks, filters, the cache, lookups and scans. See [`crate::benching`].

use std::hint::black_box;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vault_core::batch::OperationKind;
use vault_core::random::SeededRandom;
use vault_core::transform::ChecksumTransform;
use vault_core::vfs::DiskFileSystem;
use vault_core::{Compression, FilterPolicy, Timestamp};

use super::block::Block;
use super::block_builder::BlockBuilder;
use super::cache::{CacheKey, Cached};
use super::fetch::Handle;
use super::filter::Filter;
use super::{
    BlockCache, MetadataBudget, Table, TableEnv, TableOptions, TableWriter, key_hash, recycle,
};
use crate::benching::{
    Bench, KEYSPACE, Key, PROBES, Part, Round, STORE, Walk, Work, expected, key_of, numbered_path,
    scattered, scattered_key, value_of,
};
use crate::internal_key::{SEQUENCE_MAX, pack, seek_trailer};
use crate::memory::{Memory, Shares};
use crate::options::Settings;

/// Bytes of a data block before it is compressed.
const BLOCK_BYTES: u32 = 4 << 10;
/// Everything that is read twice stays in memory.
const CACHE_BYTES: u64 = 64 << 20;
/// Entries of a table that is looked up in or walked over.
const TABLE_ENTRIES: u64 = 20_000;
/// Bits that a filter has for a key.
const BITS_PER_KEY: u8 = 10;
/// The cache into which more is inserted than it can hold.
const SMALL_CACHE_BYTES: u64 = 4 << 20;

/// The parts that tables are made of.
pub(crate) fn parts() -> Vec<Part> {
    vec![
        Part::new("block/encode", 4_000, block_encode),
        Part::new("block/compress", 1_000, block_compress),
        Part::new("block/decode", 4_000, block_decode),
        Part::new("block/search", 50_000, block_search),
        Part::new("filter/build", 40, filter_build),
        Part::new("filter/probe", 100_000, filter_probe),
        Part::new("cache/hit", 50_000, cache_hit),
        Part::new("cache/insert-evict", 20_000, cache_insert),
        Part::new("table/write", 20_000, TableWrite::begin),
        Part::new("table/lookup", 20_000, table_lookup),
        Part::new("table/scan", 50_000, table_scan),
    ]
}

/// Where tables are written to and read from: real files, and a cache of their own.
pub(crate) struct Ground {
    env: TableEnv,
    directory: PathBuf,
}

impl Ground {
    pub(crate) fn new(directory: &Path) -> Self {
        let shares = expected(Shares::of(&Settings::default()));
        let cache = Arc::new(BlockCache::new(CACHE_BYTES));
        let metadata_budget = Arc::new(MetadataBudget::new(CACHE_BYTES));
        let env = TableEnv {
            memory: Memory::over(shares, Arc::clone(&cache), Arc::clone(&metadata_budget)),
            fs: Arc::new(DiskFileSystem::new()),
            transform: Arc::new(ChecksumTransform),
            random: Arc::new(SeededRandom::new(1)),
            store: STORE,
            cache,
            metadata_budget,
        };
        Self {
            env,
            directory: directory.to_path_buf(),
        }
    }

    pub(crate) fn path(&self, number: u64) -> PathBuf {
        numbered_path(&self.directory, number)
    }

    fn writer(&self, number: u64) -> TableWriter {
        let options = TableOptions {
            block_bytes: BLOCK_BYTES,
            compression: Compression::Lz4,
            filter: FilterPolicy::Bloom {
                bits_per_key: BITS_PER_KEY,
            },
        };
        let path = self.path(number);
        let writer =
            TableWriter::create(&self.env, &path, number, KEYSPACE, &options, Timestamp(1));
        expected(writer)
    }

    /// A table of the keys with these numbers, which ascend.
    pub(crate) fn table(&self, number: u64, keys: &[u64]) -> Arc<Table> {
        let mut writer = self.writer(number);
        for (i, &key) in keys.iter().enumerate() {
            expected(writer.add(&key_of(key), trailer_of(i as u64), &value_of(key)));
        }
        let meta = expected(writer.finish());
        expected(Table::open(&self.env, &self.path(number), KEYSPACE, meta))
    }

    /// A table with evenly spread keys, and their numbers.
    fn usual_table(&self) -> (Arc<Table>, Vec<u64>) {
        let mut keys: Vec<u64> = (0..TABLE_ENTRIES).map(scattered).collect();
        keys.sort_unstable();
        (self.table(1, &keys), keys)
    }
}

/// Sequence numbers of a table lie in no order, and the later ones take three bytes.
const fn trailer_of(entry: u64) -> u64 {
    let sequence = 5_000_000 + scattered(entry) % TABLE_ENTRIES;
    pack(sequence, OperationKind::Put as u8)
}

/// The first block of the usual table: as it is in the file, and parsed.
struct FirstBlock {
    table: Arc<Table>,
    keys: Vec<u64>,
    handle: Handle,
    sealed: Vec<u8>,
    block: Block,
}

impl FirstBlock {
    fn new(directory: &Path) -> Self {
        let (table, keys) = Ground::new(directory).usual_table();
        let index = expected(table.index(0)).into_arc();
        let handle = table.data_handle(0, &index, 0);
        let mut sealed = vec![0; table.source.sealed_len(&handle)];
        expected(table.source.read(&mut sealed, handle.offset));
        let block = expected(table.source.open_data_block(&handle, &mut sealed));
        let whole = u64::from(BLOCK_BYTES) * 3 / 4..=u64::from(BLOCK_BYTES);
        assert!(whole.contains(&u64::from(handle.plain_len)), "{handle:?}");
        assert!(handle.stored_len < handle.plain_len, "{handle:?}");
        Self {
            table,
            keys,
            handle,
            sealed,
            block,
        }
    }

    const fn plain(&self) -> Work {
        Work::Bytes(self.handle.plain_len as u64)
    }

    fn entries(&self) -> Vec<(Key, u64, Vec<u8>)> {
        let keys = self.keys[..self.block.len()].iter().zip(0..);
        keys.map(|(&key, i)| (key_of(key), trailer_of(i), value_of(key)))
            .collect()
    }
}

/// Laying out the entries of a block.
fn block_encode(directory: &Path) -> Box<dyn Bench> {
    let first = FirstBlock::new(directory);
    let mut builder = BlockBuilder::default();
    Round::over(vec![first.entries()], first.plain(), move |entries| {
        for (key, trailer, value) in entries {
            builder.add(key, *trailer, value);
        }
        black_box(builder.finish());
        builder.clear();
    })
}

/// Compressing a block that has been laid out, as the writer does it.
fn block_compress(directory: &Path) -> Box<dyn Bench> {
    let first = FirstBlock::new(directory);
    let mut builder = BlockBuilder::default();
    for (key, trailer, value) in first.entries() {
        builder.add(&key, trailer, &value);
    }
    let plain = builder.finish().to_vec();
    let mut room = vec![0; lz4_flex::block::get_maximum_output_size(plain.len())];
    Round::over(vec![plain], first.plain(), move |plain| {
        let compressed = lz4_flex::block::compress_into(plain, &mut room);
        black_box(compressed.expect("the room is enough for any block"));
    })
}

/// Opening a block that has been read: its checksum, decompression, and the check of its structure. Its buffer is used
/// again, as it is once the cache is full.
fn block_decode(directory: &Path) -> Box<dyn Bench> {
    let first = FirstBlock::new(directory);
    let work = first.plain();
    let FirstBlock {
        table,
        handle,
        mut sealed,
        ..
    } = first;
    Round::over(vec![handle], work, move |handle| {
        // Checksums leave what they check as it is, so that it can be opened time and again.
        let block = expected(table.source.open_data_block(handle, &mut sealed));
        recycle::give(black_box(block).into_buffer());
    })
}

/// Finding a key that is in the block.
fn block_search(directory: &Path) -> Box<dyn Bench> {
    let FirstBlock { keys, block, .. } = FirstBlock::new(directory);
    let entries = block.len() as u64;
    let there: Vec<Key> = (0..PROBES as u64)
        .map(|i| key_of(keys[(scattered(i) % entries) as usize]))
        .collect();
    Round::over(there, Work::Entries(1), move |key: &Key| {
        let entry = block.lower_bound(key, seek_trailer(SEQUENCE_MAX));
        assert!(block.has_key(entry, key));
    })
}

/// The filter of as many keys as there are probes.
fn filter_build(_: &Path) -> Box<dyn Bench> {
    let work = Work::Entries(PROBES as u64);
    Round::over(vec![hashes(0)], work, |hashes: &Vec<u64>| {
        black_box(Filter::build(hashes, BITS_PER_KEY));
    })
}

/// Asking a filter that is in the processor's cache, for keys of which every other one is in it.
fn filter_probe(_: &Path) -> Box<dyn Bench> {
    let there = hashes(0);
    let filter = Filter::build(&there, BITS_PER_KEY);
    let asked = there.into_iter().zip(hashes(PROBES as u64));
    let asked = asked.flat_map(|(there, absent)| [there, absent]).collect();
    Round::over(asked, Work::Entries(1), move |&hash| {
        black_box(filter.may_contain(hash));
    })
}

fn hashes(first: u64) -> Vec<u64> {
    (first..first + PROBES as u64)
        .map(|number| key_hash(&scattered_key(number)))
        .collect()
}

/// A block out of the cache, and back: the count of those who hold it goes up and down.
fn cache_hit(directory: &Path) -> Box<dyn Bench> {
    let FirstBlock { block, .. } = FirstBlock::new(directory);
    let cache = BlockCache::new(CACHE_BYTES);
    // No more than fit, in whichever shards they land.
    let keys: Vec<CacheKey> = (0..PROBES as u64).map(cache_key).collect();
    for &key in &keys {
        cache.insert(key, Cached::Data(block.clone()));
    }
    Round::over(keys, Work::Entries(1), move |&key| {
        let found = cache.get(key);
        assert!(found.is_some(), "the cache has room for all of them");
        black_box(found);
    })
}

/// A block into a cache that is full, so that another goes.
fn cache_insert(directory: &Path) -> Box<dyn Bench> {
    let FirstBlock { block, .. } = FirstBlock::new(directory);
    let cache = BlockCache::new(SMALL_CACHE_BYTES);
    let mut ordinal = 0;
    let mut insert = move |block: &Block| {
        ordinal += 1;
        cache.insert(cache_key(ordinal), Cached::Data(block.clone()));
    };
    for _ in 0..2 * SMALL_CACHE_BYTES / u64::from(BLOCK_BYTES) {
        insert(&block);
    }
    Round::over(vec![block], Work::Entries(1), insert)
}

const fn cache_key(ordinal: u64) -> CacheKey {
    CacheKey { table: 1, ordinal }
}

/// Entries into a table, with all that comes of it: blocks, compression, filters, index, checksums, writes to the file.
struct TableWrite {
    ground: Ground,
    entries: Vec<(Key, u64, Vec<u8>)>,
    writer: Option<TableWriter>,
    written: usize,
    number: u64,
}

impl TableWrite {
    fn begin(directory: &Path) -> Box<dyn Bench> {
        let mut keys: Vec<u64> = (0..TABLE_ENTRIES).map(scattered).collect();
        keys.sort_unstable();
        let entries = keys.into_iter().zip(0..);
        let entries = entries.map(|(key, i)| (key_of(key), trailer_of(i), value_of(key)));
        Box::new(Self {
            ground: Ground::new(directory),
            entries: entries.collect(),
            writer: None,
            written: 0,
            number: 0,
        })
    }
}

impl Bench for TableWrite {
    fn work(&self) -> Work {
        Work::Entries(1)
    }

    fn prepare(&mut self, operations: u64) {
        if self.writer.is_none() || self.written + operations as usize > self.entries.len() {
            if let Some(writer) = self.writer.take() {
                writer.abandon();
            }
            self.number += 1;
            self.writer = Some(self.ground.writer(self.number));
            self.written = 0;
        }
    }

    fn run(&mut self, operations: u64) {
        let writer = self.writer.as_mut().expect("it was made ready");
        let end = self.written + operations as usize;
        for (key, trailer, value) in &self.entries[self.written..end] {
            expected(writer.add(black_box(key), *trailer, black_box(value)));
        }
        self.written = end;
    }
}

/// Looking a key up that is there, with everything in the cache: the hash, the fences, the filter, the block, the entry.
fn table_lookup(directory: &Path) -> Box<dyn Bench> {
    let (table, keys) = Ground::new(directory).usual_table();
    let there: Vec<Key> = (0..PROBES as u64)
        .map(|i| key_of(keys[(scattered(i) % TABLE_ENTRIES) as usize]))
        .collect();
    let mut lookup = move |key: &Key| {
        let hash = Some(key_hash(key));
        let found = table.visit(key, hash, seek_trailer(SEQUENCE_MAX), |trailer, value| {
            black_box((trailer, value));
            ControlFlow::Break(())
        });
        assert!(expected(found).is_break(), "the key is there");
    };
    there.iter().for_each(&mut lookup);
    Round::over(there, Work::Entries(1), lookup)
}

/// From entry to entry, with everything in the cache.
fn table_scan(directory: &Path) -> Box<dyn Bench> {
    let (table, _) = Ground::new(directory).usual_table();
    Walk::over(table.cursor())
}
