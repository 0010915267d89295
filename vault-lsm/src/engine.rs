//! The engine's handle: what callers hold.

mod keys;

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vault_core::stats::{EngineStats, SpaceReport};
use vault_core::{
    CasOutcome, CompactionOutcome, CompactionProgress, Cursor, Engine, EntryInfo, KeyRange,
    KeyspaceId, KeyspaceInfo, KeyspaceOptions, Reader, Result, SequenceNumber, Slice, Snapshot,
    Timestamp, WriteBatch, WriteOptions,
};

use crate::background::{self, Background};
use crate::capture::{self, Capture};
use crate::checkpoint::{self, CheckpointOutcome};
use crate::counters::Operation;
use crate::ingest::{self, IngestOutcome};
use crate::options::LsmOptions;
use crate::read::get;
use crate::read::scan::ScanCursor;
use crate::shipping::{LogShipper, ShipOptions};
use crate::snapshot::LsmSnapshot;
use crate::store::{Store, unknown_keyspace};
use crate::write::admission::Patience;
use crate::{close, compact, flush, keyspaces, locking, recover, report, rotation};

/// A store on disk, open.
///
/// A handle is cheap to clone and serves any number of threads; the store is closed by [`Engine::close`]
/// or when the last handle goes. What [`Engine`] guarantees holds here; beyond it there are bulk
/// [ingest](Lsm::ingest), [checkpoints](Lsm::checkpoint), opening [read-only](Lsm::open_read_only) beside
/// a writer, and a [report on space](Lsm::explain_space).
///
/// A write that asks for [`Durability::Sync`](vault_core::Durability::Sync) is applied, and visible to other
/// readers, before it is durable; it returns when it is durable.
///
/// ```
/// use vault_core::{Engine, KeyspaceOptions, Reader, WriteOptions};
/// use vault_lsm::{Lsm, LsmOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// let store = Lsm::open(directory.path(), LsmOptions::default())?;
/// let users = store.create_keyspace("users", &KeyspaceOptions::default())?;
/// store.put(users, b"alice", b"admin", &WriteOptions::SYNC)?;
/// assert_eq!(store.get(users, b"alice")?.as_deref(), Some(&b"admin"[..]));
/// store.close()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Lsm {
    handle: Arc<Handle>,
}

/// Log segments that are left as they are on opening; where there are more, what is in them is flushed.
const REPLAYED_SEGMENTS_MAX: usize = 8;

/// Closes the store when the last handle goes.
struct Handle {
    store: Arc<Store>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Nobody is left to hear of an error: that is what `close` is for.
        let _ = close::close(&self.store);
    }
}

impl Lsm {
    /// Opens the store in `directory`, or creates it, as [`OpenMode`](crate::OpenMode) says.
    ///
    /// What else lies in the directory is left alone, and reported as
    /// [`Event::ForeignFile`](vault_core::Event::ForeignFile). Should the directory be moved or replaced while
    /// the store is open, the handle stops using it: [`Displaced`](vault_core::Error::Displaced). Copying its files
    /// meanwhile gives a copy that opens as the store was at some moment, or is refused as damaged; one that
    /// always opens is made by [`Lsm::checkpoint`].
    ///
    /// Where the process runs under a limit on the length of files (`RLIMIT_FSIZE`), it must ignore the signal
    /// `SIGXFSZ`, which would end it; the limit then is a [`DiskFull`](vault_core::Error::DiskFull).
    ///
    /// # Errors
    /// [`AlreadyOpen`](vault_core::Error::AlreadyOpen) with the process that holds it,
    /// [`NotAStore`](vault_core::Error::NotAStore), [`NoSuchStore`](vault_core::Error::NoSuchStore),
    /// [`TargetExists`](vault_core::Error::TargetExists),
    /// [`NewerFormat`](vault_core::Error::NewerFormat), [`Corruption`](vault_core::Error::Corruption),
    /// [`MissingMergeOperator`](vault_core::Error::MissingMergeOperator),
    /// [`InvalidSetting`](vault_core::Error::InvalidSetting), [`Io`](vault_core::Error::Io),
    /// [`DiskFull`](vault_core::Error::DiskFull), [`TooManyOpenFiles`](vault_core::Error::TooManyOpenFiles),
    /// [`ReadOnlyMedium`](vault_core::Error::ReadOnlyMedium). A store that is refused is left as it was.
    pub fn open(directory: impl AsRef<Path>, options: LsmOptions) -> Result<Self> {
        let store = recover::open(directory.as_ref(), options)?;
        let lsm = Self {
            handle: Arc::new(Handle { store }),
        };
        let store = &lsm.handle.store;
        compact::update_pressure(store);
        rotation::take_up(store)?;
        Background::start(store)?;
        if crate::store::lock(&store.log_segments).len() > REPLAYED_SEGMENTS_MAX {
            // Many short sessions: what they left in the log goes to tables, or opening would take longer
            // each time.
            store.seal_all()?;
        }
        if store.manifest()?.state().forget_logs != 0 {
            // A drop ended midway.
            keyspaces::erase_dropped(store)?;
        }
        Ok(lsm)
    }

    /// Opens the store in `directory` for reading only, beside the process that writes it, if there is
    /// one. The handle shows the moment of its opening; open another to see later writes. Nothing on
    /// disk is touched.
    ///
    /// # Errors
    /// As [`Lsm::open`], but never [`AlreadyOpen`](vault_core::Error::AlreadyOpen).
    pub fn open_read_only(directory: impl AsRef<Path>, options: &LsmOptions) -> Result<Self> {
        let store = Arc::new(recover::open_read_only(directory.as_ref(), options)?);
        Ok(Self {
            handle: Arc::new(Handle { store }),
        })
    }

    /// Takes in sorted data past the log: pairs with strictly ascending keys become tables, and are
    /// visible all at once when this returns, durable. They replace what was there under their keys.
    ///
    /// ```
    /// # use vault_core::{Engine, KeyspaceOptions, Reader};
    /// # use vault_lsm::{Lsm, LsmOptions};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = Lsm::open(directory.path(), LsmOptions::default())?;
    /// let squares = store.create_keyspace("squares", &KeyspaceOptions::default())?;
    /// let pairs = (0..1000_u32).map(|n| (n.to_be_bytes(), (n * n).to_be_bytes()));
    /// let outcome = store.ingest(squares, pairs)?;
    /// assert_eq!(outcome.entries, 1000);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`UnsortedInput`](vault_core::Error::UnsortedInput) with the position of the entry, and the
    /// errors of a write; then nothing was taken in.
    pub fn ingest<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        keyspace: KeyspaceId,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<IngestOutcome> {
        let store = self.store();
        ingest::ingest(store, keyspace, pairs.into_iter()).map_err(|error| store.told(error))
    }

    /// Copies the store as it is now into a new directory, by hard links: at once, however large it is,
    /// and sharing its space. The copy is a store of its own.
    ///
    /// # Errors
    /// [`TargetExists`](vault_core::Error::TargetExists), [`Io`](vault_core::Error::Io),
    /// [`DiskFull`](vault_core::Error::DiskFull) and the errors of [`Engine::flush`]. What was begun is
    /// removed; should the process end midway, what is left does not open as a store.
    pub fn checkpoint(&self, directory: impl AsRef<Path>) -> Result<CheckpointOutcome> {
        let store = self.store();
        checkpoint::checkpoint(store, directory.as_ref()).map_err(|error| store.told(error))
    }

    /// Captures the store as it is now: the files that a physical snapshot of it stores, while writes go on. What is in memory
    /// is flushed, and nothing else is written. See [`Capture`] for what becomes of the files meanwhile.
    ///
    /// ```
    /// # use vault_core::vfs::{DiskFileSystem, FileSystem, read_whole};
    /// # use vault_core::{Engine, KeyspaceOptions, Reader, WriteOptions};
    /// # use vault_lsm::{Lsm, LsmOptions};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// let store = Lsm::open(directory.path().join("store"), LsmOptions::default())?;
    /// let users = store.create_keyspace("users", &KeyspaceOptions::default())?;
    /// store.put(users, b"alice", b"admin", &WriteOptions::SYNC)?;
    /// let capture = store.capture()?;
    /// store.put(users, b"alice", b"nobody", &WriteOptions::SYNC)?;
    ///
    /// // Written into an empty directory, its files are the store as it was.
    /// let copy = directory.path().join("copy");
    /// let disk = DiskFileSystem::new();
    /// disk.create_dir_all(&copy)?;
    /// for captured in &capture.files {
    ///     let bytes = read_whole(&*captured.content)?;
    ///     disk.create(&copy.join(&captured.name))?.write_at(&bytes, 0)?;
    /// }
    /// let copy = Lsm::open(&copy, LsmOptions::default())?;
    /// assert_eq!(copy.latest_sequence(), capture.sequence);
    /// assert_eq!(copy.get(users, b"alice")?.as_deref(), Some(&b"admin"[..]));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`Engine::flush`]; [`Locked`](vault_core::Error::Locked).
    pub fn capture(&self) -> Result<Capture> {
        let store = self.store();
        capture::capture(store).map_err(|error| store.told(error))
    }

    /// Whether the log is being shipped: then what is [ingested](Lsm::ingest) past it ends the reach of what has been shipped.
    #[must_use]
    pub fn is_shipping(&self) -> bool {
        self.store().shipping.is_under_way()
    }

    /// Begins to ship the log: what is written from now on, or since another shipper ended, as bytes that a follower keeps and
    /// [`replay_shipped`](crate::shipping::replay_shipped) brings a restored [capture](Lsm::capture) forward with. The base is captured when
    /// the first shipper has been begun. See [`shipping`](crate::shipping), and an example at `replay_shipped`.
    ///
    /// # Errors
    /// [`LogGap`](vault_core::Error::LogGap) where [`from`](ShipOptions::from) cannot be gone on from,
    /// [`InvalidSetting`](vault_core::Error::InvalidSetting) where there is a shipper already; those of a write.
    pub fn ship_log(&self, options: &ShipOptions) -> Result<LogShipper> {
        let store = self.store();
        LogShipper::begin(store, options).map_err(|error| store.told(error))
    }

    /// About how many bytes the tables hold of a range, with the values that they keep apart. Reads nothing from disk.
    ///
    /// # Errors
    /// [`UnknownKeyspace`](vault_core::Error::UnknownKeyspace), [`Closed`](vault_core::Error::Closed).
    pub fn approximate_bytes(&self, keyspace: KeyspaceId, range: &KeyRange) -> Result<u64> {
        let (view, _) = self.store().pin()?;
        let view = view
            .keyspace(keyspace)
            .ok_or_else(|| unknown_keyspace(keyspace))?;
        let tables = view.version.runs().flat_map(|run| run.overlapping(range));
        let bytes = |file: &Arc<crate::version::TableFile>| {
            let (meta, part) = (file.meta(), file.table.approximate_bytes_in(range));
            let apart = u128::from(meta.apart_bytes()) * u128::from(part);
            part + (apart / u128::from(meta.bytes.max(1))) as u64
        };
        Ok(tables.map(bytes).sum())
    }

    /// Says where the bytes of the store go, and who keeps those that could be freed.
    ///
    /// Reads keys to do so: all of them in keyspaces of up to a million entries, a sample in larger ones.
    ///
    /// # Errors
    /// [`Corruption`](vault_core::Error::Corruption), [`Io`](vault_core::Error::Io),
    /// [`Closed`](vault_core::Error::Closed).
    pub fn explain_space(&self) -> Result<SpaceReport> {
        let store = self.store();
        report::space::explain(store).map_err(|error| store.told(error))
    }

    /// Runs one step of background work on this thread, whatever is most urgent. Gives whether there was
    /// something to do. Meant for [`BackgroundWork::Manual`](crate::BackgroundWork::Manual).
    ///
    /// # Errors
    /// How the step failed. It will be tried again with the next one.
    pub fn background_step(&self) -> Result<bool> {
        if locking::attend(self.store()) {
            return Ok(true);
        }
        background::step(self.store())
    }

    /// A number that grows with each opening for writing, each close and some changes in between, and never goes
    /// back. A host that keeps it elsewhere can open with [`Settings::least_generation`](crate::Settings), and so
    /// notice that an older copy of the whole store was put back. To be asked for after opening, and once more after
    /// closing. It says nothing that is worth hiding.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.store().generation()
    }

    /// The store's id: 16 random bytes, drawn when it is created, in the header of each of its files. A copy has the same;
    /// [`Lsm::instance`] tells them apart.
    #[must_use]
    pub fn store_id(&self) -> [u8; 16] {
        self.store().env.store
    }

    /// Which instance of the store this is: 16 random bytes, drawn when the store is created and once more when a copy of it
    /// ([checkpoint](Lsm::checkpoint), [capture](Lsm::capture), or one [marked](crate::mark_restored) as such) is first opened for
    /// writing. Unlike the id that stands in all its files, no two stores that go their own ways share it.
    ///
    /// `None` only for a handle that reads, where nobody has opened the store for writing since it was copied, or since a Vault
    /// wrote it that did not know instances.
    #[must_use]
    pub fn instance(&self) -> Option<[u8; 16]> {
        self.store().instance.id()
    }

    /// Whether what is on disk is encrypted.
    ///
    /// ```
    /// # use vault_lsm::{Lsm, LsmOptions};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// let store = Lsm::open(directory.path(), LsmOptions::default())?;
    /// assert!(!store.is_encrypted());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.store().env.is_confidential()
    }

    /// Whether this handle can write now.
    ///
    /// # Errors
    /// [`Closed`](vault_core::Error::Closed), [`ReadOnly`](vault_core::Error::ReadOnly),
    /// [`Locked`](vault_core::Error::Locked), [`Poisoned`](vault_core::Error::Poisoned).
    pub fn check_writable(&self) -> Result<()> {
        self.store().check_writable()
    }

    /// Waits until there is nothing left to flush or to compact.
    ///
    /// # Errors
    /// As [`Engine::flush`].
    pub fn settle(&self) -> Result<()> {
        let store = self.store();
        report::settle(store).map_err(|error| store.told(error))
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.handle.store
    }
}

impl fmt::Debug for Lsm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lsm")
            .field("directory", &self.store().env.directory)
            .finish_non_exhaustive()
    }
}

impl Reader for Lsm {
    #[inline]
    fn get(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<Slice>> {
        let store = self.store();
        let timing = store.counters.begin(Operation::Get, &*store.env.clock);
        store.settings.limits.check_key(key)?;
        let (view, sequence) = store.pin()?;
        let view = view
            .keyspace(keyspace)
            .ok_or_else(|| unknown_keyspace(keyspace))?;
        let found = get::get(view, key, sequence, &*store.env.clock);
        store
            .counters
            .end(Operation::Get, &timing, &*store.env.clock);
        found.map_err(|error| store.told(error))
    }

    #[inline]
    fn entry_info(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<EntryInfo>> {
        let store = self.store();
        store.settings.limits.check_key(key)?;
        let (view, sequence) = store.pin()?;
        let view = view
            .keyspace(keyspace)
            .ok_or_else(|| unknown_keyspace(keyspace))?;
        get::entry_info(view, key, sequence, &*store.env.clock).map_err(|error| store.told(error))
    }

    fn multi_get(&self, keyspace: KeyspaceId, keys: &[&[u8]]) -> Result<Vec<Option<Slice>>> {
        let store = self.store();
        let timing = store.counters.begin(Operation::MultiGet, &*store.env.clock);
        keys.iter()
            .try_for_each(|key| store.settings.limits.check_key(key))?;
        let (view, sequence) = store.pin()?;
        let view = view
            .keyspace(keyspace)
            .ok_or_else(|| unknown_keyspace(keyspace))?;
        let found: Result<_> = keys
            .iter()
            .map(|key| get::get(view, key, sequence, &*store.env.clock))
            .collect();
        store
            .counters
            .end(Operation::MultiGet, &timing, &*store.env.clock);
        found.map_err(|error| store.told(error))
    }

    fn cursor(&self, keyspace: KeyspaceId, range: KeyRange) -> Result<Box<dyn Cursor>> {
        let store = self.store();
        let timing = store.counters.begin(Operation::Cursor, &*store.env.clock);
        let (view, sequence) = store.pin()?;
        let view = view
            .keyspace(keyspace)
            .ok_or_else(|| unknown_keyspace(keyspace))?;
        let cursor = ScanCursor::new(Arc::clone(store), Arc::clone(view), sequence, range, None)?;
        store
            .counters
            .end(Operation::Cursor, &timing, &*store.env.clock);
        Ok(Box::new(cursor))
    }
}

impl Engine for Lsm {
    fn create_keyspace(&self, name: &str, options: &KeyspaceOptions) -> Result<KeyspaceId> {
        let store = self.store();
        keyspaces::create(store, name, options).map_err(|error| store.told(error))
    }

    fn keyspace(&self, name: &str) -> Result<Option<KeyspaceId>> {
        let (view, _) = self.store().pin()?;
        let found = view
            .keyspaces
            .iter()
            .find(|view| view.keyspace.name == name);
        Ok(found.map(|view| view.keyspace.id))
    }

    fn keyspaces(&self) -> Result<Vec<KeyspaceInfo>> {
        let (view, _) = self.store().pin()?;
        let info = |view: &Arc<crate::keyspace::KeyspaceView>| KeyspaceInfo {
            id: view.keyspace.id,
            name: view.keyspace.name.clone(),
            options: KeyspaceOptions::clone(&view.options),
        };
        Ok(view.keyspaces.iter().map(info).collect())
    }

    fn drop_keyspace(&self, keyspace: KeyspaceId) -> Result<()> {
        let store = self.store();
        keyspaces::drop(store, keyspace).map_err(|error| store.told(error))
    }

    fn write(&self, batch: &WriteBatch, options: &WriteOptions) -> Result<SequenceNumber> {
        let store = self.store();
        store
            .write(batch, options, Patience::Wait)
            .map_err(|error| store.told(error))
    }

    fn try_write(&self, batch: &WriteBatch, options: &WriteOptions) -> Result<SequenceNumber> {
        let store = self.store();
        store
            .write(batch, options, Patience::Refuse)
            .map_err(|error| store.told(error))
    }

    fn compare_and_set(
        &self,
        keyspace: KeyspaceId,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
        options: &WriteOptions,
    ) -> Result<CasOutcome> {
        let store = self.store();
        store
            .compare_and_set(keyspace, key, expected, new, options)
            .map_err(|error| store.told(error))
    }

    fn snapshot(&self) -> Result<Arc<dyn Snapshot>> {
        Ok(Arc::new(LsmSnapshot::take(self.store())?))
    }

    fn latest_sequence(&self) -> SequenceNumber {
        self.store().visible.load(Ordering::Acquire)
    }

    fn now(&self) -> Timestamp {
        self.store().env.clock.now()
    }

    fn sync(&self) -> Result<()> {
        let store = self.store();
        let timing = store.counters.begin(Operation::Sync, &*store.env.clock);
        store.check_writable()?;
        store.sync_log(store.log_sync.position())?;
        store
            .counters
            .end(Operation::Sync, &timing, &*store.env.clock);
        Ok(())
    }

    fn flush(&self, keyspace: Option<KeyspaceId>) -> Result<()> {
        let store = self.store();
        flush::flush_and_wait(store, keyspace).map_err(|error| store.told(error))
    }

    fn compact(
        &self,
        keyspace: KeyspaceId,
        range: KeyRange,
        progress: &mut dyn FnMut(CompactionProgress) -> ControlFlow<()>,
    ) -> Result<CompactionOutcome> {
        let store = self.store();
        compact::manual::compact_range(store, keyspace, &range, progress)
            .map_err(|error| store.told(error))
    }

    fn stats(&self) -> Result<EngineStats> {
        report::stats(self.store())
    }

    fn close(&self) -> Result<()> {
        close::close(self.store())
    }
}
