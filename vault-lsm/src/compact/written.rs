//! What a flush, a compaction or an ingest has written: its files, how they become part of the store, and how they go where
//! they don't.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use vault_core::transform::FileKind;
use vault_core::{Error, KeyspaceId, Result};

use crate::blob::{BlobFile, BlobMeta};
use crate::counters::Counters;
use crate::manifest::Edit;
use crate::rotation::WritingIn;
use crate::store::Store;
use crate::table::{Table, TableMeta};
use crate::version::{BlobChange, TableFile};

/// What was written, and what was not needed any more.
#[derive(Default)]
pub(crate) struct OutputTables {
    pub(crate) tables: Vec<Arc<TableMeta>>,
    /// Of each table, how many of its entries only snapshots can see.
    pub(crate) shadowed: Vec<u64>,
    /// Blob files that they point into and that were written with them.
    pub(crate) blobs: Vec<Arc<BlobMeta>>,
    pub(crate) counts: Removed,
    /// Keeps the keys that they may be sealed under.
    _writing_in: Option<WritingIn>,
}

/// Entries that were not needed any more.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Removed {
    pub(crate) obsolete: u64,
    pub(crate) tombstones: u64,
    pub(crate) expired: u64,
}

impl Removed {
    pub(crate) fn add_to(&self, counters: &Counters) {
        counters.obsolete_removed.fetch_add(self.obsolete, Relaxed);
        counters
            .tombstones_removed
            .fetch_add(self.tombstones, Relaxed);
        counters.expired_removed.fetch_add(self.expired, Relaxed);
    }

    pub(crate) const fn total(&self) -> u64 {
        self.obsolete + self.tombstones + self.expired
    }
}

impl OutputTables {
    /// None yet, of a job that is about to write some.
    pub(crate) fn begin(store: &Store) -> Self {
        Self {
            _writing_in: store.rotation.writing_in(store.env.transform.keys()),
            ..Self::default()
        }
    }

    /// Bytes of all that was written.
    pub(crate) fn bytes(&self) -> u64 {
        let tables = self.tables.iter().map(|meta| meta.bytes);
        tables.sum::<u64>() + self.blobs.iter().map(|meta| meta.bytes).sum::<u64>()
    }

    /// The edits that make what was written part of a keyspace: its tables in run `run` of a level.
    pub(crate) fn additions(&self, keyspace: KeyspaceId, level: usize, run: u64) -> Vec<Edit> {
        let keyspace = keyspace.0;
        let blobs = self.blobs.iter().map(|meta| Edit::AddBlob {
            keyspace,
            meta: Arc::clone(meta),
        });
        let tables = self.tables.iter().map(|meta| Edit::AddTable {
            keyspace,
            level: level as u32,
            run,
            meta: Arc::clone(meta),
        });
        blobs.chain(tables).collect()
    }

    /// Opens what was written. Where something cannot be, all of it is removed.
    pub(crate) fn open(&self, store: &Store, keyspace: KeyspaceId) -> Result<OpenedOutput> {
        let open = || {
            let tables = self.tables.iter().enumerate().map(|(at, meta)| {
                let file = open_table(store, keyspace, TableMeta::clone(meta))?;
                let shadowed = self.shadowed.get(at).copied().unwrap_or(0);
                file.shadowed.store(shadowed, Relaxed);
                Ok(file)
            });
            let tables = tables.collect::<Result<_>>()?;
            let blobs = self.blobs.iter();
            let blobs = blobs.map(|meta| open_blob(store, keyspace, BlobMeta::clone(meta)));
            let blobs = blobs.collect::<Result<_>>()?;
            Ok(OpenedOutput { tables, blobs })
        };
        open().inspect_err(|_| self.discard(store))
    }

    /// Removes the files of tables that did not become part of the store, as `error` says. Where nobody
    /// knows whether they did, they stay: the next opening may find them named.
    pub(crate) fn discard_after(&self, store: &Store, error: &Error) {
        if !matches!(error, Error::Poisoned { .. }) {
            self.discard(store);
        }
    }

    /// Removes the files of tables that did not become part of the store.
    pub(crate) fn discard(&self, store: &Store) {
        let tables = self
            .tables
            .iter()
            .map(|meta| (FileKind::Table, meta.number));
        let blobs = self.blobs.iter().map(|meta| (FileKind::Blob, meta.number));
        for (kind, number) in tables.chain(blobs) {
            // Should this fail, the next opening removes the orphan.
            let _ = store.env.fs.remove(&store.env.path(kind, number));
        }
    }
}

/// What was written, open for reading.
pub(crate) struct OpenedOutput {
    pub(crate) tables: Vec<Arc<TableFile>>,
    blobs: Vec<Arc<BlobFile>>,
}

impl OpenedOutput {
    /// What it changes of the blob files of a version.
    pub(crate) fn blobs_added(&self) -> BlobChange {
        BlobChange {
            added: self.blobs.clone(),
            removed: Vec::new(),
        }
    }
}

/// Opens a blob file of the store.
fn open_blob(store: &Store, keyspace: KeyspaceId, meta: BlobMeta) -> Result<Arc<BlobFile>> {
    let path = store.env.path(FileKind::Blob, meta.number);
    BlobFile::open(&store.table_env, &path, keyspace, meta, &store.reclaim)
}

/// Opens a table of the store.
pub(crate) fn open_table(
    store: &Store,
    keyspace: KeyspaceId,
    meta: TableMeta,
) -> Result<Arc<TableFile>> {
    let path = store.env.path(FileKind::Table, meta.number);
    let table = Table::open(&store.table_env, &path, keyspace, meta)?;
    Ok(Arc::new(TableFile::new(
        table,
        path,
        Arc::clone(&store.reclaim),
    )))
}
