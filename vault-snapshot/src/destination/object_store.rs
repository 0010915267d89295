//! A store of objects as a place for snapshots: S3 and what speaks like it, GCS, Azure, or whatever implements
//! `object_store::ObjectStore`.
//!
//! There are no locks. A name is taken by an object, `<name>/writing`, that is put only where there is none, and so is the manifest.
//! Archives are uploaded in parts, and appear when the last one is there. What an interrupted writer leaves cannot be told from what
//! another one is just writing, so that it is old before it is cleaned. Parts of uploads that were never finished are not objects: let
//! a rule of the bucket remove them after some days.
//!
//! Calls wait for a runtime of their own, from whatever thread; also from a task of another runtime, which they block.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::path::Path as FilePath;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{
    Error as StoreError, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload,
};
use tokio::runtime::{Builder, Runtime};
use vault_core::Error as CoreError;
use vault_core::vfs::LockGuard;

use super::{ARCHIVE_FILE, Content, Destination, Found, MANIFEST_FILE, Upload};
use crate::archive::{Error, Result, SnapshotName};

/// The object that takes a name until its snapshot is there.
const WRITING_FILE: &str = "writing";
/// How many parts are on their way at once.
const PARTS_IN_FLIGHT_MAX: usize = 2;
/// Most parts of an upload, as S3 has it.
const PARTS_MAX: usize = 10_000;
/// Least length of a part but the last, as S3 has it.
const PART_BYTES_MIN: usize = 5 << 20;
/// What is fetched at once where an archive is read from front to back.
const READ_AHEAD_BYTES: usize = 4 << 20;

/// How a store of objects is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectStoreOptions {
    /// Length of the parts in which archives are uploaded, in bytes; 5 MiB at least. 10,000 of them are the longest archive. Three of
    /// them are held in memory.
    pub part_bytes: usize,
    /// How old what has no manifest must be to be taken for interrupted.
    pub interrupted_after: Duration,
}

impl Default for ObjectStoreOptions {
    fn default() -> Self {
        Self {
            part_bytes: 16 << 20,
            interrupted_after: Duration::from_secs(24 * 3600),
        }
    }
}

/// A repository in a store of objects, below a prefix.
///
/// ```
/// use std::sync::Arc;
/// use object_store::memory::InMemory;
/// use vault_snapshot::destination::{ObjectStoreDestination, ObjectStoreOptions};
/// use vault_snapshot::repository::{Repository, RepositoryOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bucket = Arc::new(InMemory::new());
/// let options = ObjectStoreOptions::default();
/// let place = ObjectStoreDestination::new(bucket, "backups/orders", options)?;
/// let repository = Repository::open(Arc::new(place), RepositoryOptions::default())?;
/// assert!(repository.list()?.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ObjectStoreDestination {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    runtime: Arc<Waiting>,
    options: ObjectStoreOptions,
}

impl ObjectStoreDestination {
    /// The objects below `prefix`.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for a prefix that cannot be one or parts below 5 MiB; [`Error::Storage`] where no thread can
    /// be started.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        prefix: &str,
        options: ObjectStoreOptions,
    ) -> Result<Self> {
        if options.part_bytes < PART_BYTES_MIN {
            let found = options.part_bytes;
            return Err(Error::request(format!(
                "`part_bytes` is {found}, at least {PART_BYTES_MIN} is accepted"
            )));
        }
        let parsed = Path::parse(prefix);
        let prefix = parsed.map_err(|error| Error::request(error.to_string()))?;
        Ok(Self {
            store,
            prefix,
            runtime: Arc::new(Waiting::start()?),
            options,
        })
    }

    fn path(&self, name: SnapshotName, file: &str) -> Path {
        self.prefix.clone().join(name.to_string()).join(file)
    }

    /// Puts an object where there is none; whether there was none.
    fn put_new(&self, operation: &'static str, path: &Path, bytes: &[u8]) -> Result<bool> {
        let (store, to) = (Arc::clone(&self.store), path.clone());
        let payload = PutPayload::from(bytes.to_vec());
        let put = self.runtime.wait(async move {
            let options = PutOptions::from(PutMode::Create);
            store.put_opts(&to, payload, options).await
        })?;
        match put {
            Ok(_) => Ok(true),
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => Ok(false),
            Err(error) => Err(remote(operation, path, error)),
        }
    }

    /// An object whole, if it is there and not too long.
    fn get(&self, path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>> {
        let (store, from) = (Arc::clone(&self.store), path.clone());
        let got = self.runtime.wait(async move {
            let found = store.get(&from).await?;
            let size = found.meta.size;
            if size > bytes_max {
                return Ok(Err(size));
            }
            found.bytes().await.map(Ok)
        })?;
        match got {
            Ok(Ok(bytes)) => Ok(Some(bytes.into())),
            Ok(Err(found)) => Err(Error::OverLimit {
                what: format!("bytes of {path}"),
                found,
                max: bytes_max,
                setting: "manifest_bytes_max",
            }),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(remote("get", path, error)),
        }
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        let (store, of) = (Arc::clone(&self.store), path.clone());
        match self.runtime.wait(async move { store.head(&of).await })? {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(remote("look at", path, error)),
        }
    }

    fn delete(&self, path: &Path) -> Result<()> {
        let (store, gone) = (Arc::clone(&self.store), path.clone());
        let deleted = self
            .runtime
            .wait(async move { store.delete(&gone).await })?;
        match deleted {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(remote("delete", path, error)),
        }
    }

    /// Begins an archive under a name that was taken.
    fn begin_taken(&self, name: SnapshotName) -> Result<Box<dyn Upload>> {
        // Whoever had the name before may have published in between, and let go of it: then it is his for good. Nobody can from
        // here on.
        if self.exists(&self.path(name, MANIFEST_FILE))? {
            return Err(Error::Busy {
                location: self.location(Some(name)),
                holder: "another snapshot of this name".into(),
            });
        }
        let path = self.path(name, ARCHIVE_FILE);
        let (store, to) = (Arc::clone(&self.store), path.clone());
        let begun = self
            .runtime
            .wait(async move { store.put_multipart(&to).await })?;
        Ok(Box::new(ObjectUpload {
            upload: Some(begun.map_err(|error| remote("begin to upload", &path, error))?),
            runtime: Arc::clone(&self.runtime),
            part: Vec::with_capacity(self.options.part_bytes),
            part_bytes: self.options.part_bytes,
            parts: 0,
            in_flight: VecDeque::new(),
            path,
        }))
    }
}

fn remote(operation: &'static str, path: &Path, source: StoreError) -> Error {
    Error::Remote {
        operation,
        location: path.to_string(),
        denied: matches!(
            source,
            StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. }
        ),
        source: Arc::new(source),
    }
}

impl Destination for ObjectStoreDestination {
    fn location(&self, name: Option<SnapshotName>) -> String {
        let path = name.map(|name| self.prefix.clone().join(name.to_string()));
        format!("{}/{}", self.store, path.as_ref().unwrap_or(&self.prefix))
    }

    fn lock(&self) -> Result<Option<Box<dyn LockGuard>>> {
        Ok(None)
    }

    fn list(&self) -> Result<Vec<Found>> {
        let (store, prefix) = (Arc::clone(&self.store), self.prefix.clone());
        let listed = self.runtime.wait(async move {
            let objects = store.list(Some(&prefix));
            let names = objects.map_ok(|object| object.location);
            names.try_collect::<Vec<_>>().await
        })?;
        let listed = listed.map_err(|error| remote("list", &self.prefix, error))?;
        let mut found = BTreeMap::new();
        for object in listed {
            let Some(mut parts) = object.prefix_match(&self.prefix) else {
                continue;
            };
            let name = parts.next().and_then(|name| name.as_ref().parse().ok());
            let (Some(name), Some(file), None) = (name, parts.next(), parts.next()) else {
                continue;
            };
            *found.entry(name).or_insert(false) |= file.as_ref() == MANIFEST_FILE;
        }
        let found = found.into_iter();
        Ok(found
            .map(|(name, manifest)| Found { name, manifest })
            .collect())
    }

    fn begin(&self, name: SnapshotName) -> Result<Box<dyn Upload>> {
        let holder = format!("process {}", std::process::id());
        let writing = self.path(name, WRITING_FILE);
        if !self.put_new("take the name", &writing, holder.as_bytes())? {
            return Err(Error::Busy {
                location: self.location(Some(name)),
                holder: "another writer".into(),
            });
        }
        self.begin_taken(name).inspect_err(|_| {
            // The name alone: an archive may be there, of whoever had it before.
            drop(self.delete(&writing));
        })
    }

    fn publish(&self, name: SnapshotName, manifest: &[u8]) -> Result<()> {
        let path = self.path(name, MANIFEST_FILE);
        if !self.put_new("publish", &path, manifest)? {
            // A request that was answered too late is repeated, and finds itself.
            let there = self.get(&path, manifest.len() as u64);
            if !matches!(there, Ok(Some(there)) if there == manifest) {
                return Err(Error::Busy {
                    location: self.location(Some(name)),
                    holder: "another snapshot of this name".into(),
                });
            }
        }
        // The manifest holds the name from here on: what stays of this is in nobody's way.
        drop(self.delete(&self.path(name, WRITING_FILE)));
        Ok(())
    }

    fn manifest(&self, name: SnapshotName, bytes_max: u64) -> Result<Vec<u8>> {
        let found = self.get(&self.path(name, MANIFEST_FILE), bytes_max)?;
        found.ok_or_else(|| Error::NoSuchSnapshot {
            name: name.to_string(),
            location: self.location(None),
        })
    }

    fn archive(&self, name: SnapshotName) -> Result<Arc<dyn Content>> {
        let path = self.path(name, ARCHIVE_FILE);
        let (store, of) = (Arc::clone(&self.store), path.clone());
        let bytes = match self.runtime.wait(async move { store.head(&of).await })? {
            Ok(object) => object.size,
            Err(StoreError::NotFound { .. }) => {
                let problem = "the manifest is there, and the archive is missing";
                return Err(Error::damaged(path, problem));
            }
            Err(error) => return Err(remote("look at", &path, error)),
        };
        Ok(Arc::new(ObjectContent {
            store: Arc::clone(&self.store),
            runtime: Arc::clone(&self.runtime),
            path,
            bytes,
            ahead: Mutex::default(),
        }))
    }

    fn withdraw(&self, name: SnapshotName) -> Result<()> {
        self.delete(&self.path(name, MANIFEST_FILE))
    }

    fn discard(&self, name: SnapshotName) -> Result<()> {
        self.delete(&self.path(name, ARCHIVE_FILE))?;
        self.delete(&self.path(name, WRITING_FILE))
    }

    fn interrupted_after(&self) -> Duration {
        self.options.interrupted_after
    }
}

/// A runtime, and waiting for what runs there.
#[derive(Debug)]
struct Waiting {
    /// Always there, until it is dropped.
    runtime: Option<Runtime>,
}

impl Waiting {
    fn start() -> Result<Self> {
        let mut builder = Builder::new_multi_thread();
        let named = builder.worker_threads(1).thread_name("vault-objects");
        let runtime = named.enable_all().build();
        let place = FilePath::new("a thread for the store of objects");
        let runtime = runtime.map_err(|error| CoreError::io("start", place, error))?;
        Ok(Self {
            runtime: Some(runtime),
        })
    }

    /// Runs something there; its answer comes through the channel.
    fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Receiver<T> {
        let (answer, answered) = sync_channel(1);
        if let Some(runtime) = &self.runtime {
            // Nobody may be waiting any more.
            runtime.spawn(async move { drop(answer.send(work.await)) });
        }
        answered
    }

    /// Waits for what is run there.
    fn wait<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<T> {
        receive(&self.run(work))
    }
}

fn receive<T>(answered: &Receiver<T>) -> Result<T> {
    let place = FilePath::new("the store of objects");
    let gone = |_| CoreError::io("wait for", place, io::Error::other("its thread has ended"));
    Ok(answered.recv().map_err(gone)?)
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Waiting for its threads is not allowed inside of another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// An archive that is being uploaded in parts.
struct ObjectUpload {
    upload: Option<Box<dyn MultipartUpload>>,
    runtime: Arc<Waiting>,
    path: Path,
    /// What is not on its way yet.
    part: Vec<u8>,
    part_bytes: usize,
    parts: usize,
    in_flight: VecDeque<Receiver<object_store::Result<()>>>,
}

impl ObjectUpload {
    fn send_part(&mut self) -> Result<()> {
        let part = std::mem::replace(&mut self.part, Vec::with_capacity(self.part_bytes));
        self.parts += 1;
        if self.parts > PARTS_MAX {
            return Err(Error::OverLimit {
                what: format!("parts of {}", self.path),
                found: self.parts as u64,
                max: PARTS_MAX as u64,
                setting: "part_bytes",
            });
        }
        if let Some(upload) = &mut self.upload {
            let sent = upload.put_part(PutPayload::from(part));
            self.in_flight.push_back(self.runtime.run(sent));
        }
        self.wait_until(PARTS_IN_FLIGHT_MAX)
    }

    /// Waits until at most so many parts are on their way.
    fn wait_until(&mut self, in_flight_max: usize) -> Result<()> {
        while self.in_flight.len() > in_flight_max
            && let Some(oldest) = self.in_flight.pop_front()
        {
            receive(&oldest)?.map_err(|error| remote("upload", &self.path, error))?;
        }
        Ok(())
    }
}

impl Upload for ObjectUpload {
    fn rewrites(&self) -> bool {
        false
    }

    fn write(&mut self, mut bytes: &[u8], _offset: u64) -> Result<()> {
        while !bytes.is_empty() {
            let room = self.part_bytes - self.part.len();
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.part.extend_from_slice(now);
            bytes = rest;
            if self.part.len() == self.part_bytes {
                self.send_part()?;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        if !self.part.is_empty() {
            self.send_part()?;
        }
        self.wait_until(0)?;
        if let Some(mut upload) = self.upload.take() {
            let completed = self.runtime.wait(async move { upload.complete().await })?;
            completed.map_err(|error| remote("finish uploading", &self.path, error))?;
        }
        Ok(())
    }

    fn abort(&mut self) {
        // Parts still on their way would otherwise come after the end.
        drop(self.wait_until(0));
        if let Some(mut upload) = self.upload.take() {
            drop(self.runtime.wait(async move { upload.abort().await }));
        }
    }
}

/// An archive in a store of objects. What is read from front to back is fetched ahead.
struct ObjectContent {
    store: Arc<dyn ObjectStore>,
    runtime: Arc<Waiting>,
    path: Path,
    bytes: u64,
    ahead: Mutex<Ahead>,
}

#[derive(Default)]
struct Ahead {
    at: u64,
    bytes: Vec<u8>,
}

impl Ahead {
    fn end(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }
}

impl Content for ObjectContent {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let mut filled = 0;
        while filled < buffer.len() {
            let at = offset + filled as u64;
            if at >= self.bytes {
                break;
            }
            if !(ahead.at..ahead.end()).contains(&at) {
                let sequential = at == ahead.end();
                let wanted = buffer.len() - filled;
                let wanted = if sequential {
                    wanted.max(READ_AHEAD_BYTES)
                } else {
                    wanted
                };
                let end = self.bytes.min(at.saturating_add(wanted as u64));
                let (store, path) = (Arc::clone(&self.store), self.path.clone());
                let fetched = async move { store.get_range(&path, at..end).await };
                let fetched = self.runtime.wait(fetched).map_err(io::Error::other)?;
                let bytes: Vec<u8> = fetched.map_err(io::Error::other)?.into();
                if bytes.len() as u64 != end - at {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                *ahead = Ahead { at, bytes };
            }
            let from = usize::try_from(at - ahead.at).unwrap_or(usize::MAX);
            let there = &ahead.bytes[from..];
            let copied = there.len().min(buffer.len() - filled);
            buffer[filled..filled + copied].copy_from_slice(&there[..copied]);
            filled += copied;
        }
        Ok(filled)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }
}
