//! A store with toy keys that is locked and resumed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use vault_core::vfs::MemoryFileSystem;
use vault_core::{Engine, KeyspaceId, Result, WriteOptions};
use vault_lsm::{Lsm, LsmOptions};

use super::keyed::Toy;
use super::{DIRECTORY, key, manual, small_keyspace, value};

/// A store with toy keys.
pub(crate) struct Keyed {
    pub(crate) fs: MemoryFileSystem,
    pub(crate) toy: Arc<Toy>,
    pub(crate) store: Lsm,
    pub(crate) ks: KeyspaceId,
}

impl Keyed {
    pub(crate) fn open(options: fn(&MemoryFileSystem) -> LsmOptions) -> Self {
        Self::open_with(options, |options| options)
    }

    pub(crate) fn open_with(
        options: fn(&MemoryFileSystem) -> LsmOptions,
        set: impl FnOnce(LsmOptions) -> LsmOptions,
    ) -> Self {
        let (fs, toy) = (MemoryFileSystem::new(), Toy::new());
        let options = set(options(&fs).protection(Arc::clone(&toy) as _));
        let store = Lsm::open(DIRECTORY, options).unwrap();
        let ks = store.create_keyspace("secret", &small_keyspace()).unwrap();
        Self { fs, toy, store, ks }
    }

    pub(crate) fn unlock_and_resume(&self) {
        self.toy.keys().unlock();
        self.store.resume().unwrap();
    }

    pub(crate) fn reopened_in(&self, fs: &MemoryFileSystem) -> Lsm {
        let options = manual(fs).protection(Arc::clone(&self.toy) as _);
        Lsm::open(DIRECTORY, options).unwrap()
    }

    pub(crate) fn put(&self, number: u64) -> Result<()> {
        let (key, value) = (key(number), value(number, 1));
        let written = self.store.put(self.ks, &key, &value, &WriteOptions::OS);
        written.map(drop)
    }
}

/// Asserts that each call was refused because of the lock.
macro_rules! assert_locked {
    ($($call:expr),+ $(,)?) => { $( crate::support::assert_error!($call, vault_core::Error::Locked, Unlock); )+ };
}
pub(crate) use assert_locked;
