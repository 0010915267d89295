//! How the conformance suite opens this engine.
#![allow(dead_code, reason = "each test binary uses a part of this")]

use std::path::Path;
use std::sync::Arc;

use vault_core::conformance::{Harness, Setup};
use vault_core::vfs::{FileSystem, MemoryFileSystem};
use vault_core::{Engine, Result};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions, Settings};

/// Opens stores in memory file systems.
pub(crate) struct InMemory {
    pub(crate) background: BackgroundWork,
    pub(crate) cache_bytes: u64,
}

pub(crate) const THREADS: InMemory = InMemory {
    background: BackgroundWork::Threads { compaction: 2 },
    cache_bytes: 1 << 20,
};
pub(crate) const MANUAL: InMemory = InMemory {
    background: BackgroundWork::Manual,
    cache_bytes: 0,
};

pub(crate) struct Opened {
    pub(crate) fs: MemoryFileSystem,
    pub(crate) lsm: Lsm,
}

impl InMemory {
    pub(crate) fn options(&self, fs: &MemoryFileSystem, setup: &Setup) -> LsmOptions {
        let settings = Settings {
            limits: setup.limits,
            background: self.background,
            cache_bytes: self.cache_bytes,
            table_metadata_bytes: self.cache_bytes,
            log_segment_bytes: 64 << 10,
            log_bytes_max: 256 << 10,
            ..Settings::default()
        };
        let options = LsmOptions::new(settings)
            .file_system(Arc::new(fs.clone()) as Arc<dyn FileSystem>)
            .clock(Arc::clone(&setup.clock));
        setup
            .merge_operators
            .iter()
            .cloned()
            .fold(options, LsmOptions::merge_operator)
    }
}

pub(crate) const DIRECTORY: &str = "/store";

impl Harness for InMemory {
    type Store = Opened;

    fn open(&self, setup: &Setup) -> Opened {
        let fs = MemoryFileSystem::new();
        let lsm = Lsm::open(Path::new(DIRECTORY), self.options(&fs, setup)).expect("a new store");
        Opened { fs, lsm }
    }

    fn engine(&self, store: &Opened) -> Arc<dyn Engine> {
        Arc::new(store.lsm.clone())
    }

    fn reopen(&self, store: &mut Opened, setup: &Setup) -> Option<Result<()>> {
        Some(self.reopened(store, setup))
    }

    fn settle(&self, store: &Opened) {
        // A closed store has nothing left to settle.
        let _ = store.lsm.settle();
    }
}

impl InMemory {
    fn reopened(&self, store: &mut Opened, setup: &Setup) -> Result<()> {
        store.lsm.close()?;
        store.lsm = Lsm::open(Path::new(DIRECTORY), self.options(&store.fs, setup))?;
        Ok(())
    }
}
