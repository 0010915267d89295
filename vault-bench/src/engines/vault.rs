//! Vault's own engine, as it is set up for a benchmark.

use std::path::Path;
use std::sync::Arc;

use vault_core::{Compression, Durability, Engine, FilterPolicy, KeyspaceOptions};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions};

use crate::error::{Error, Result};
use crate::settings::Settings;
use crate::target::{EngineKind, EngineTarget, Target};

const NAME: &str = "vault";

/// Describes the engine.
pub(super) fn kind() -> EngineKind {
    EngineKind {
        name: NAME,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        persists: true,
        setup: "leveled, LZ4, bloom filter of 10 bits, everything else as it comes",
        open,
    }
}

fn open(dir: &Path, settings: &Settings) -> Result<Box<dyn Target>> {
    let own = |e: vault_core::Error| Error::engine(NAME, &e);
    // Each put says its durability; the default is named for those that come from the engine itself.
    // The budget for blocks, filters and indexes is one and the same for every engine: what Vault keeps
    // apart for filters and indexes is taken from the cache.
    let metadata_bytes = settings.cache_bytes() / 16;
    let mut options = LsmOptions::default()
        .cache_bytes(settings.cache_bytes() - metadata_bytes)
        .durability(Durability::Os);
    options.settings.table_metadata_bytes = Some(metadata_bytes);
    // The other parts of the budget are what they are by default, however large the cache is.
    options.settings.memory_bytes += settings.cache_bytes();
    if let Some(compaction) = u8::try_from(settings.background_threads)
        .ok()
        .filter(|&n| n > 0)
    {
        options = options.background(BackgroundWork::Threads { compaction });
    }
    let engine = Lsm::open(dir, options).map_err(own)?;
    let keyspace_options = KeyspaceOptions {
        compression: Compression::Lz4,
        filter: FilterPolicy::Bloom { bits_per_key: 10 },
        write_buffer_bytes: settings.write_buffer_bytes(),
        ..KeyspaceOptions::default()
    };
    let keyspace = engine
        .create_keyspace("bench", &keyspace_options)
        .map_err(own)?;
    let settling = engine.clone();
    let target = EngineTarget::new(NAME, Arc::new(engine), keyspace);
    Ok(Box::new(target.settle_with(move || settling.settle())))
}
