//! A store whose log is shipped, and copies of it that are brought forward.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::path::Path;

use vault_core::vfs::{FileSystem, MemoryFileSystem, read_whole};
use vault_core::{Engine, KeyspaceId, Result};
use vault_lsm::shipping::{LogShipper, Replayed, ShipOptions, Shipment, Until, replay_shipped};
use vault_lsm::{Capture, Lsm, OpenMode};

use super::{DIRECTORY, manual, put_all, small_keyspace};

pub(crate) const COPY: &str = "/copy";

pub(crate) fn begin(store: &Lsm) -> LogShipper {
    store.ship_log(&ShipOptions::default()).unwrap()
}

/// A store with some data, its shipper and its base.
pub(crate) struct World {
    pub(crate) fs: MemoryFileSystem,
    pub(crate) store: Lsm,
    pub(crate) ks: KeyspaceId,
    pub(crate) shipper: LogShipper,
    pub(crate) base: Capture,
}

impl World {
    pub(crate) fn new() -> Self {
        let fs = MemoryFileSystem::new();
        let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
        let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
        put_all(&store, ks, 0..200, 1);
        let shipper = begin(&store);
        put_all(&store, ks, 200..210, 1);
        let base = store.capture().unwrap();
        Self {
            fs,
            store,
            ks,
            shipper,
            base,
        }
    }

    pub(crate) fn restored(&self) -> MemoryFileSystem {
        restore(&self.base)
    }
}

pub(crate) fn restore(base: &Capture) -> MemoryFileSystem {
    let fs = MemoryFileSystem::new();
    fs.create_dir_all(Path::new(COPY)).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    for file in &base.files {
        let bytes = read_whole(&*file.content).unwrap();
        fs.write_file(Path::new(COPY).join(&file.name), &bytes)
            .unwrap();
    }
    fs
}

pub(crate) fn replay(
    fs: &MemoryFileSystem,
    shipped: &[Shipment],
    until: Until,
) -> Result<Replayed> {
    replay_shipped(COPY, &manual(fs), shipped.iter().cloned().map(Ok), until)
}

pub(crate) fn open_copy(fs: &MemoryFileSystem) -> Lsm {
    Lsm::open(COPY, manual(fs).mode(OpenMode::MustExist)).unwrap()
}
