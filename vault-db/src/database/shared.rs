//! What all handles of a database share.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use vault_core::random::SeededRandom;
use vault_core::stats::Histogram;
use vault_core::{
    Clock, Durability, Engine, KeyspaceOptions, SequenceNumber, Timestamp, WriteBatch, WriteOptions,
};
use vault_lsm::Lsm;

use super::registry::Registry;
use super::temp::TemporaryDirectory;
use crate::access::AccessLog;
use crate::bounds::Bounds;
use crate::catalog::{Header, Keyspaces};
use crate::error::{Error, Result};
use crate::guard::ControlState;
use crate::transaction::Active;

/// What all handles of a database share.
///
/// # Locks, in the order in which they are taken
/// 1. `structure`: creating, renaming, copying and deleting vaults.
/// 2. The stripes of vaults, by vault and number ([`crate::commit::Stripes`]).
/// 3. `registry`, what is known of a vault, and the list of transactions: held for no longer than a look. Only whoever
///    changes names holds the registry for as long as one batch takes, without waiting for the disk.
pub(crate) struct Shared {
    pub(crate) engine: Arc<dyn Engine>,
    /// The same engine, where it is the one that this project has.
    pub(crate) lsm: Option<Lsm>,
    pub(crate) keyspaces: Option<Keyspaces>,
    pub(crate) bounds: Bounds,
    /// The options of vaults that are created.
    pub(crate) vaults: KeyspaceOptions,
    pub(crate) durability: Durability,
    pub(crate) clock: Arc<dyn Clock>,
    /// For waiting times that must differ, and for nothing that must be secret.
    pub(crate) jitter: SeededRandom,
    pub(crate) registry: RwLock<Registry>,
    pub(crate) structure: Mutex<Header>,
    pub(crate) transactions: Active,
    /// Whether this handle was opened for writing.
    pub(crate) writable: bool,
    /// How long accesses take, by their verb.
    pub(crate) latencies: [Histogram; 4],
    pub(crate) accesses: AccessLog,
    /// Whether a restore is under way.
    pub(crate) restoring: AtomicBool,
    /// How often tables were taken in past the log: who ships the log needs a snapshot for what is in none.
    pub(crate) ingests: AtomicU64,
    /// How many accesses there were to vaults that are gone, by their verb. Changed while the registry is held for writing.
    pub(crate) gone_accesses: [AtomicU64; 4],
    /// Who may do what, once somebody has asked.
    pub(crate) control: Mutex<Option<Arc<ControlState>>>,
    /// Taken away when the last handle goes; behind the engine, which closes first.
    pub(crate) _directory: Option<TemporaryDirectory>,
}

impl Shared {
    /// The keyspaces of the catalog, which a store that was opened read-only may lack.
    pub(crate) fn keyspaces(&self) -> Result<Keyspaces> {
        self.keyspaces
            .ok_or(Error::Engine(vault_core::Error::ReadOnly))
    }

    pub(crate) fn structure(&self) -> MutexGuard<'_, Header> {
        lock(&self.structure)
    }

    pub(crate) fn registry(&self) -> RwLockReadGuard<'_, Registry> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn registry_mut(&self) -> RwLockWriteGuard<'_, Registry> {
        self.registry
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.engine.now()
    }

    /// Applies a batch without waiting for the disk: what it holds is visible, and in the order of commits.
    pub(crate) fn apply(&self, batch: &WriteBatch) -> Result<SequenceNumber> {
        Ok(self.engine.write(batch, &WriteOptions::OS)?)
    }

    /// Waits until what this thread applied is as durable as this database's writes are to be. Called without any
    /// lock, so that others get on with their commits and share the wait.
    pub(crate) fn make_durable(&self) -> Result<()> {
        match self.durability {
            Durability::Os => Ok(()),
            Durability::Sync => Ok(self.engine.sync()?),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The last handle goes: what was noted since it was last saved would be lost. Should the engine be closed, this
        // does nothing.
        self.save_accesses();
    }
}

/// Takes a lock. One that a panic left behind guards nothing that can be half changed: what changes under these locks
/// does so in single steps, after the engine has taken the batch.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
