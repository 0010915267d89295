//! Taking stock: what makes up the store at one moment, while writers go on. Checkpoints and captures begin with it.
//!
//! # Steps
//! 1. Under the commit lock all memtables are sealed at one moment.
//! 2. They are flushed. What is sealed later is not, and nothing is ingested, created or dropped, until the tables of
//!    that moment have been noted; so they show exactly that moment in every keyspace.
//! 3. Under the manifest lock the tables and blob files are pinned, and the files made that a copy has of its own: keyring, manifest
//!    and pointer. They are made in memory, whoever takes stock writes them where they are wanted.
//!
//! Nothing but the flushes writes to the store. The files of a copy come from the ordinary code ([`Manifest::begin`]), which is
//! given a file system in memory to write to.
//!
//! Keys neither come nor go between the keyring's copy and the manifest that is sealed beside it: both are made under the manifest
//! lock, without which no epoch begins.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vault_core::transform::{FileKind, KEYRING_COPY_NAME, KEYRING_NAME, SALT_BYTES, Salt};
use vault_core::vfs::{File, FileSystem, MemoryFileSystem, read_exact_at};
use vault_core::{Error, Result, SequenceNumber};

use crate::blob::BlobFile;
use crate::layout::{Env, POINTER_NAME, SALT_OFFSET, file_name};
use crate::manifest::{self, Manifest, State};
use crate::store::{Store, lock};
use crate::version::TableFile;

/// What makes up the store at one moment.
pub(crate) struct Stock {
    /// The last write that it holds.
    pub(crate) sequence: SequenceNumber,
    /// The instance whose stock it is.
    pub(crate) instance: Option<[u8; 16]>,
    /// The generation of the store at that moment.
    pub(crate) generation: u64,
    /// Held, so that their files stay.
    pub(crate) tables: Vec<Arc<TableFile>>,
    /// Held, so that their files stay.
    pub(crate) blobs: Vec<Arc<BlobFile>>,
    /// What a copy has of its own. The last one is the pointer, without which the others are no store.
    pub(crate) made: Vec<Made>,
}

/// A file that was made for the copy, in memory.
pub(crate) struct Made {
    pub(crate) name: String,
    pub(crate) salt: Salt,
    pub(crate) bytes: u64,
    pub(crate) content: Arc<dyn File>,
}

/// Holds back the flushes of what is sealed after a moment.
struct Barrier<'a>(&'a Store);

impl Drop for Barrier<'_> {
    fn drop(&mut self) {
        self.0.flush_barrier.store(u64::MAX, Ordering::Release);
        self.0.background.wake();
        self.0.background.notify_progress();
    }
}

/// Takes stock. One at a time: they share the barrier.
///
/// # Errors
/// Those of a flush; [`Error::Locked`].
pub(crate) fn take(store: &Arc<Store>) -> Result<Stock> {
    let _turn = lock(&store.checkpoint_turn);
    let _barrier = Barrier(store);
    let sequence = flush_moment(store)?;
    let manifest = store.manifest()?;
    let (instance, generation) = (manifest.state().instance.id(), manifest.generation());
    let made = make(store, copy_of(manifest.state(), sequence), generation)?;
    let pinned = store.views.pin();
    let tables = pinned
        .keyspaces
        .iter()
        .flat_map(|view| view.version.tables().map(|(_, _, file)| Arc::clone(file)))
        .collect();
    let blobs = pinned
        .keyspaces
        .iter()
        .flat_map(|view| view.version.blobs().map(|(file, _)| Arc::clone(file)))
        .collect();
    Ok(Stock {
        sequence,
        instance,
        generation,
        tables,
        blobs,
        made,
    })
}

/// Moves everything up to this moment to tables, and nothing of what comes later. Gives the last write before it.
fn flush_moment(store: &Arc<Store>) -> Result<SequenceNumber> {
    let commit = store.commit()?;
    let pinned = store.views.pin();
    for view in &pinned.keyspaces {
        store.seal(&commit, view.keyspace.id);
    }
    store
        .flush_barrier
        .store(store.next_run.load(Ordering::Acquire), Ordering::Release);
    let pinned = store.views.pin();
    let waiting: Vec<_> = pinned
        .keyspaces
        .iter()
        .flat_map(|view| view.sealed.iter().cloned())
        .collect();
    let sequence = commit.last_sequence;
    drop(commit);
    crate::flush::wait_until_flushed(store, &waiting)?;
    Ok(sequence)
}

/// What the manifest of a copy states.
fn copy_of(state: &State, sequence: SequenceNumber) -> State {
    let mut state = state.clone();
    // The copy has no log: everything of its moment is in tables.
    state.logs.clear();
    state.log_floor = 0;
    state.log_synced = (0, 0);
    state.forget_logs = 0;
    // Whoever opens it for writing makes it an instance of its own.
    state.instance = state.instance.copied();
    state.last_sequence = sequence;
    state
}

/// Makes the files that a copy has of its own. Its pointer tells the generation, sealed where the store is: who has the keys need not
/// believe what stands beside the copy.
fn make(store: &Store, state: State, generation: u64) -> Result<Vec<Made>> {
    let memory = MemoryFileSystem::new();
    let env = Env {
        directory: PathBuf::from("/"),
        fs: Arc::new(memory.clone()),
        ..store.env.clone()
    };
    let mut names = Vec::new();
    if let Some(keys) = store.env.transform.keys() {
        let bytes = keys.copied()?;
        for name in [KEYRING_NAME, KEYRING_COPY_NAME] {
            let path = env.directory.join(name);
            let written = memory.write_file(&path, &bytes);
            written.map_err(|e| Error::io("make", &path, e))?;
            names.push(name.to_owned());
        }
    }
    // The store itself is as it was, whatever became of the copy.
    let before = generation.saturating_sub(1);
    let manifest = Manifest::begin(&env, state, before, u64::MAX).map_err(manifest::cause)?;
    names.push(file_name(FileKind::Manifest, manifest.number()));
    names.push(POINTER_NAME.to_owned());
    names.into_iter().map(|name| made(&memory, name)).collect()
}

fn made(memory: &MemoryFileSystem, name: String) -> Result<Made> {
    let path = Path::new("/").join(&name);
    let opened = (|| {
        let content = memory.open(&path)?;
        let bytes = content.len()?;
        let mut salt = [0; SALT_BYTES];
        read_exact_at(&*content, &mut salt, SALT_OFFSET)?;
        Ok((content, bytes, salt))
    })();
    let (content, bytes, salt) = opened.map_err(|e: io::Error| Error::io("read", &path, e))?;
    Ok(Made {
        name,
        salt,
        bytes,
        content,
    })
}
