//! A store with toy keys whose keys are rotated, and what must hold of it afterwards.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vault_core::merge::COUNTER;
use vault_core::stats::KeyRotation;
use vault_core::transform::HEADER_BYTES;
use vault_core::vfs::MemoryFileSystem;
use vault_core::{Engine, KeyRange, KeyspaceId, KeyspaceOptions, Reader, WriteBatch, WriteOptions};
use vault_lsm::{Lsm, LsmOptions};

use super::keyed::Toy;
use super::{
    DIRECTORY, Events, contents, files_in_memory, key, put_all, small_keyspace, value, wait_until,
};

pub(crate) type Content = BTreeMap<Vec<u8>, Vec<u8>>;

pub(crate) struct Keyed {
    pub(crate) fs: MemoryFileSystem,
    pub(crate) toy: Arc<Toy>,
    pub(crate) events: Events,
    pub(crate) store: Lsm,
    pub(crate) ks: KeyspaceId,
    pub(crate) counts: KeyspaceId,
}

impl Keyed {
    pub(crate) fn open(options: fn(&MemoryFileSystem) -> LsmOptions) -> Self {
        Self::open_in(MemoryFileSystem::new(), options)
    }

    pub(crate) fn open_in(
        fs: MemoryFileSystem,
        options: fn(&MemoryFileSystem) -> LsmOptions,
    ) -> Self {
        Self::try_open(fs, DIRECTORY, options).unwrap()
    }

    pub(crate) fn try_open(
        fs: MemoryFileSystem,
        directory: &str,
        options: fn(&MemoryFileSystem) -> LsmOptions,
    ) -> vault_core::Result<Self> {
        let (toy, events) = (Toy::new(), Events::default());
        let options = options(&fs)
            .protection(Arc::clone(&toy) as _)
            .listener(events.listener());
        let store = Lsm::open(directory, options)?;
        let ks = store.create_keyspace("k", &small_keyspace().large_values_from(Some(64)))?;
        let counts = KeyspaceOptions {
            merge_operator: Some(COUNTER.to_owned()),
            ..small_keyspace()
        };
        let counts = store.create_keyspace("counts", &counts)?;
        Ok(Self {
            fs,
            toy,
            events,
            store,
            ks,
            counts,
        })
    }

    pub(crate) fn reopened(self, options: fn(&MemoryFileSystem) -> LsmOptions) -> Self {
        let Self { fs, store, .. } = self;
        store.close().unwrap();
        drop(store);
        Self::open_in(fs, options)
    }

    /// Data of every kind, in tables of several levels, in memtables and in the log.
    pub(crate) fn fill(&self) {
        let (store, ks, options) = (&self.store, self.ks, WriteOptions::OS);
        put_all(store, ks, 0..600, 1);
        store.settle().unwrap();
        for number in (0..600).step_by(7) {
            store.delete(ks, &key(number), &options).unwrap();
        }
        let mut batch = WriteBatch::new();
        batch.delete_range(ks, &key(100), &key(200));
        for number in 250..300 {
            let expires = store.now().after(Duration::from_secs(3600)).unwrap();
            batch.put_until(ks, &key(number), &value(number, 2), expires);
        }
        store.write(&batch, &options).unwrap();
        store.flush(None).unwrap();
        let pairs = (1000..1200_u64).map(|number| (key(number), value(number, 3)));
        store.ingest(ks, pairs).unwrap();
        for round in 0..3 {
            for number in 0..50 {
                let operand = (number as i64 + round).to_le_bytes();
                let mut batch = WriteBatch::new();
                batch.merge(self.counts, &key(number), &operand);
                store.write(&batch, &options).unwrap();
            }
            store.flush(Some(self.counts)).unwrap();
        }
        put_all(store, ks, 1100..1110, 4);
        store.delete(ks, &key(1), &options).unwrap();
    }

    pub(crate) fn both(&self) -> (Content, Content) {
        let of = |ks| contents(&self.store, ks);
        (of(self.ks), of(self.counts))
    }

    pub(crate) fn status(&self) -> KeyRotation {
        self.store.key_rotation().unwrap()
    }

    pub(crate) fn finish(&self) -> KeyRotation {
        let finished = self.store.finish_rotation(|_| ControlFlow::Continue(()));
        finished.unwrap()
    }

    pub(crate) fn epochs(&self) -> BTreeSet<u32> {
        self.toy.keys().epochs()
    }

    /// Nothing on disk is of an older epoch, and neither is a key.
    #[track_caller]
    pub(crate) fn assert_all_of(&self, epoch: u32) {
        // Keys go when nothing is read under them any more; the files then wait for the background to remove them.
        let older = || -> Vec<_> {
            let files = files_in_memory(&self.fs, DIRECTORY, "").into_iter();
            let epochs = files.map(|(path, _)| (epoch_of(&self.fs, &path), path));
            let others = epochs.filter(|(of, _)| of.is_some_and(|of| of != epoch));
            others.collect()
        };
        wait_until("the files of other epochs are gone", || older().is_empty());
        assert_eq!(self.epochs(), BTreeSet::from([epoch]));
        let status = self.status();
        assert_eq!((status.epoch, status.oldest_epoch_in_use), (epoch, epoch));
        assert_eq!((status.tables_left, status.bytes_left), (0, 0));
        // The background may merge tables between two looks.
        wait_until("the statistics say the same", || {
            self.store.stats().unwrap().key_rotation == Some(self.status())
        });
    }
}

/// The epoch in a file's header, where it has one. A file that the background has removed meanwhile has none.
pub(crate) fn epoch_of(fs: &MemoryFileSystem, path: &Path) -> Option<u32> {
    let bytes = match fs.read_file(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("{}: {error}", path.display()),
    };
    let has_header = bytes.len() >= HEADER_BYTES && bytes.starts_with(b"VAULT\0");
    has_header.then(|| u32::from_le_bytes(bytes[66..70].try_into().unwrap()))
}

pub(crate) fn all() -> KeyRange {
    KeyRange::new::<&[u8]>(..)
}
