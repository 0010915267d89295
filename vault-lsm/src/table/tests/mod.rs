//! Tests of whole tables: against a model, against damage, against the bytes of the format.

mod damage;
mod golden;
mod model;
mod scramble;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vault_core::random::SeededRandom;
use vault_core::transform::{ChecksumTransform, Transform};
use vault_core::vfs::MemoryFileSystem;
use vault_core::{Compression, FilterPolicy, KeyspaceId, Result, Timestamp};

use super::*;
use crate::internal_key::RangeTombstone;
use crate::memory::Shares;
use crate::options::Settings;

pub(super) type Entry = (Vec<u8>, u64, Vec<u8>);

pub(super) const KEYSPACE: KeyspaceId = KeyspaceId(3);
pub(super) const NUMBER: u64 = 42;
pub(super) const CREATED: Timestamp = Timestamp(1_700_000_000_000);

pub(super) fn path() -> PathBuf {
    PathBuf::from("000042.tab")
}

/// A store of one table.
pub(super) struct Bench {
    pub(super) env: TableEnv,
    pub(super) fs: MemoryFileSystem,
}

impl Bench {
    pub(super) fn new(
        transform: Arc<dyn Transform>,
        cache_bytes: u64,
        metadata_bytes: u64,
    ) -> Self {
        let fs = MemoryFileSystem::new();
        let cache = Arc::new(BlockCache::new(cache_bytes));
        let metadata_budget = Arc::new(MetadataBudget::new(metadata_bytes));
        let shares = Shares::of(&Settings::default()).unwrap();
        let env = TableEnv {
            memory: Memory::over(shares, Arc::clone(&cache), Arc::clone(&metadata_budget)),
            fs: Arc::new(fs.clone()),
            transform,
            random: Arc::new(SeededRandom::new(7)),
            store: [9; 16],
            cache,
            metadata_budget,
        };
        Self { env, fs }
    }

    pub(super) fn plain() -> Self {
        Self::new(Arc::new(ChecksumTransform), 1 << 20, 1 << 20)
    }

    pub(super) fn write(
        &self,
        options: &TableOptions,
        entries: &[Entry],
        tombstones: &[RangeTombstone],
    ) -> TableMeta {
        let mut writer =
            TableWriter::create(&self.env, &path(), NUMBER, KEYSPACE, options, CREATED).unwrap();
        assert!(writer.is_empty());
        for (key, trailer, value) in entries {
            writer.add(key, *trailer, value).unwrap();
        }
        for tombstone in tombstones {
            writer.add_range_tombstone(tombstone);
        }
        let estimate = writer.estimated_bytes();
        let meta = writer.finish().unwrap();
        assert!(
            estimate > meta.bytes / 4,
            "estimated {estimate} of {}",
            meta.bytes
        );
        assert_eq!(meta.bytes, self.bytes().len() as u64);
        meta
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.fs.read_file(path()).unwrap()
    }

    pub(super) fn set_bytes(&self, bytes: &[u8]) {
        self.fs.write_file(path(), bytes).unwrap();
    }

    pub(super) fn open(&self, meta: &TableMeta) -> Result<Arc<Table>> {
        Table::open(&self.env, &path(), KEYSPACE, meta.clone())
    }
}

pub(super) fn options(
    block_bytes: u32,
    compression: Compression,
    filter: FilterPolicy,
) -> TableOptions {
    TableOptions {
        block_bytes,
        compression,
        filter,
    }
}

pub(super) fn tiny() -> TableOptions {
    options(512, Compression::Lz4, FilterPolicy::default())
}

pub(super) fn tombstone(start: &[u8], end: &[u8], sequence: u64) -> RangeTombstone {
    RangeTombstone {
        start: start.to_vec(),
        end: end.to_vec(),
        sequence,
    }
}

pub(super) fn sort(entries: &mut Vec<Entry>) {
    entries.sort_by(|a, b| crate::internal_key::compare((&a.0, a.1), (&b.0, b.1)));
    entries.dedup_by(|a, b| (&a.0, a.1) == (&b.0, b.1));
}

/// A path that differs from [`path`].
pub(super) fn other_path() -> &'static Path {
    Path::new("000043.tab")
}
