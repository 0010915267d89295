//! RocksDB 11.8 through the `rocksdb` crate, with its best reasonable settings at equal memory.
//!
//! - One LRU cache for blocks, filters and indexes, as large as everyone's; filters and indexes of level 0 are pinned in it, which is what
//!   its tuning guide advises where they are cached at all. Ribbon filters would save memory for processor time; the bloom
//!   filter of 10 bits is what the others have, and the faster one.
//! - LZ4 on every level, blocks of 4 KiB, format version 5 (the filters that fit a cache line), dynamic level sizes: its defaults today, or its guide's.
//! - Three memtables at most beside the one that takes writes (`max_write_buffer_number` 4), inserts in parallel, pipelined
//!   writes: both help two writers. As many background jobs as processors unless the run says otherwise.
//! - Each write passes its log entry to the operating system before it returns, as Vault's `Os` does; a durable write syncs.
//! - Values of 1 KiB and more stand apart (`BlobDB`, with garbage collection), as they do in Vault; the standard workload has none.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, FlushOptions, Options, ReadOptions, Snapshot,
    WaitForCompactOptions, WriteBatch, WriteOptions,
};
use vault_bench::data::Entry;
use vault_bench::settings::Settings;
use vault_bench::target::{Direction, EngineKind, Held, Target, Verb};
use vault_bench::timeline::Accounted;
use vault_bench::{Error, Result};
use vault_bench_rivals::{locked_version, worker};

const NAME: &str = "rocksdb";
/// From this size on values stand apart.
const BLOB_BYTES_MIN: usize = 1024;

fn main() -> ExitCode {
    let binding = format!("rocksdb crate {}", locked_version("rocksdb"));
    let library = locked_version("librocksdb-sys");
    let version = library.split_once('+').map_or(&*library, |(_, v)| v);
    worker(EngineKind {
        name: NAME,
        version: format!("{version}, {binding}"),
        persists: true,
        setup: "LZ4, 4 KiB blocks, bloom 10 bits, dynamic levels, pipelined writes, filters and indexes in the cache, \
                cache and memtable as set; BlobDB from 1 KiB",
        open,
    })
}

struct Rocks {
    database: DB,
}

fn own<T>(result: std::result::Result<T, rocksdb::Error>) -> Result<T> {
    result.map_err(|e| Error::engine(NAME, &e))
}

fn options(settings: &Settings) -> Options {
    let mut tables = BlockBasedOptions::default();
    let cache = usize::try_from(settings.cache_bytes()).unwrap_or(usize::MAX);
    tables.set_block_cache(&Cache::new_lru_cache(cache));
    tables.set_block_size(4096);
    tables.set_bloom_filter(10.0, false);
    tables.set_format_version(5);
    tables.set_cache_index_and_filter_blocks(true);
    tables.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&tables);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_write_buffer_size(
        usize::try_from(settings.write_buffer_bytes()).unwrap_or(usize::MAX),
    );
    options.set_max_write_buffer_number(4);
    options.set_enable_pipelined_write(true);
    options.set_allow_concurrent_memtable_write(true);
    options.set_max_open_files(-1);
    options.set_bytes_per_sync(1 << 20);
    let jobs = match settings.background_threads {
        0 => std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
        threads => threads,
    };
    options.increase_parallelism(i32::try_from(jobs.max(2)).unwrap_or(i32::MAX));
    if settings.value_bytes >= BLOB_BYTES_MIN {
        options.set_enable_blob_files(true);
        options.set_min_blob_size(BLOB_BYTES_MIN as u64);
        options.set_blob_compression_type(DBCompressionType::Lz4);
        options.set_enable_blob_gc(true);
    }
    options
}

fn open(dir: &Path, settings: &Settings) -> Result<Box<dyn Target>> {
    let database = own(DB::open(&options(settings), dir))?;
    Ok(Box::new(Rocks { database }))
}

struct HeldSnapshot<'a>(Snapshot<'a>);

impl Held for HeldSnapshot<'_> {
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = own(self.0.get_pinned(key))?;
        if let Some(value) = &value {
            read(value);
        }
        Ok(value.is_some())
    }
}

impl Target for Rocks {
    fn put(&self, key: &[u8], value: &[u8], durable: bool) -> Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(durable);
        own(self.database.put_opt(key, value, &options))
    }

    fn put_batch(&self, entries: &[Entry]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for entry in entries {
            batch.put(entry.key, &entry.value);
        }
        own(self.database.write(batch))
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        own(self.database.delete(key))
    }

    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = own(self.database.get_pinned(key))?;
        if let Some(value) = &value {
            read(value);
        }
        Ok(value.is_some())
    }

    fn scan(
        &self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: u64,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<()> {
        let mut entries = self.database.raw_iterator_opt(ReadOptions::default());
        match (direction, from) {
            (Direction::Forward, Some(key)) => entries.seek(key),
            (Direction::Forward, None) => entries.seek_to_first(),
            (Direction::Backward, Some(key)) => entries.seek_for_prev(key),
            (Direction::Backward, None) => entries.seek_to_last(),
        }
        let mut left = limit;
        while let (1.., Some((key, value))) = (left, entries.item()) {
            visit(key, value);
            left -= 1;
            if left > 0 {
                match direction {
                    Direction::Forward => entries.next(),
                    Direction::Backward => entries.prev(),
                }
            }
        }
        own(entries.status())
    }

    fn offers(&self, verb: Verb) -> bool {
        // Its expiry is a filter of compactions: readers go on seeing what has expired until one comes by.
        matches!(verb, Verb::RangeDelete | Verb::Snapshot)
    }

    fn delete_range(&self, from: &[u8], to: &[u8]) -> Result<()> {
        let mut batch = WriteBatch::default();
        batch.delete_range(from, to);
        own(self.database.write(batch))
    }

    fn while_held(&self, work: &mut dyn FnMut(&dyn Held) -> Result<()>) -> Result<()> {
        work(&HeldSnapshot(self.database.snapshot()))
    }

    fn settle(&self) -> Result<Duration> {
        let mut flush = FlushOptions::default();
        flush.set_wait(true);
        own(self.database.flush_opt(&flush))?;
        own(self
            .database
            .wait_for_compact(&WaitForCompactOptions::default()))?;
        Ok(Duration::ZERO)
    }

    fn memory(&self) -> Option<Accounted> {
        // The cache holds filters and indexes too.
        let parts = [
            "rocksdb.cur-size-all-mem-tables",
            "rocksdb.block-cache-usage",
        ];
        let held = |name: &&str| self.database.property_int_value(*name).ok().flatten();
        Some(Accounted {
            used_bytes: parts.iter().filter_map(held).sum(),
            budget_bytes: 0,
        })
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.database.cancel_all_background_work(true);
        Ok(())
    }
}
