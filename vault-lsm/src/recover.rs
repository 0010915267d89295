//! Opening a store: lock, pointer, manifest, tables, log; then a new manifest and a clean directory.
//!
//! The steps are those of `docs/format/store.md`. Nothing is written before everything has been read and
//! found sound, so a store that is refused is left as it was.

mod files;
mod instance;
mod keys;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vault_core::transform::{FileKind, StorePlace};
use vault_core::vfs::{FileSystem, LockedFileSystem, create_directories};
use vault_core::{Error, Event, KeyspaceId, MergeOperator, Result};

use crate::blob::{BlobFile, BlobMeta};
use crate::directory::{Found, look_at, place, take_lock};
use crate::keyspace::{Keyspace, KeyspaceView, WriteBuffer};
use crate::layout::{Env, POINTER_NAME, possible_number};
use crate::log::{LogSync, LogWriter, Replay, ReplayRequest, replay, secure};
use crate::manifest::{self, Instance, KeyspaceState, Manifest, Pointer, State};
use crate::memory::{Memory, Shares};
use crate::options::{LsmOptions, OpenMode, Settings};
use crate::reclaim::ReclaimQueue;
use crate::replay::{Progress, Reading};
use crate::store::{Store, StoreParts};
use crate::table::{Table, TableEnv};
use crate::version::{Placed, TableFile, Version};
use crate::view::{View, ViewCell};

/// How often a read-only opening starts over because the writer went on meanwhile.
const READ_ONLY_ATTEMPTS: usize = 16;

/// Opens a store for writing.
pub(crate) fn open(directory: &Path, mut options: LsmOptions) -> Result<Arc<Store>> {
    options.settings.check()?;
    let directory = &place(&*options.fs, directory)?;
    let fs = &*options.fs;
    let found = look_at(fs, directory)?;
    match (&found, options.settings.mode) {
        (Found::Store, OpenMode::MustCreate) => {
            return Err(Error::TargetExists {
                path: directory.to_path_buf(),
            });
        }
        (Found::Nothing | Found::Empty, OpenMode::MustExist) => {
            return Err(Error::NoSuchStore {
                path: directory.to_path_buf(),
            });
        }
        (Found::Foreign(problem), _) => {
            let path = directory.to_path_buf();
            return Err(Error::NotAStore {
                path,
                problem: problem.clone(),
            });
        }
        _ => {}
    }
    if !matches!(found, Found::Store) {
        // Also where the directory is there: an attempt before may have ended in between.
        create_directories(fs, directory)?;
    }
    let lock = take_lock(fs, directory)?;
    let locked = Arc::new(LockedFileSystem::new(
        Arc::clone(&options.fs),
        directory,
        lock,
    ));
    options.fs = Arc::clone(&locked) as Arc<dyn FileSystem>;
    Opening::new(directory, options, true)?.for_writing(locked)
}

/// Opens a store for reading, beside a writer if there is one.
pub(crate) fn open_read_only(directory: &Path, options: &LsmOptions) -> Result<Store> {
    options.settings.check()?;
    let directory = &place(&*options.fs, directory)?;
    match look_at(&*options.fs, directory)? {
        Found::Store => {}
        Found::Foreign(problem) => {
            return Err(Error::NotAStore {
                path: directory.to_path_buf(),
                problem,
            });
        }
        Found::Nothing | Found::Empty => {
            return Err(Error::NoSuchStore {
                path: directory.to_path_buf(),
            });
        }
    }
    let mut attempt = 0;
    loop {
        attempt += 1;
        match Opening::new(directory, options.clone(), false)?.for_reading() {
            // The writer may have replaced the manifest, or removed a file that it named, while we read.
            Err(Error::Io { .. } | Error::Corruption { .. }) if attempt < READ_ONLY_ATTEMPTS => {
                // Longer each time: on a busy machine a table may be gone before the manifest that lets go
                // of it has been read.
                let wait = 1 << attempt.min(6);
                options.clock.sleep(std::time::Duration::from_millis(wait));
            }
            outcome => return outcome,
        }
    }
}

fn no_such_store(directory: &Path) -> Error {
    Error::NoSuchStore {
        path: directory.to_path_buf(),
    }
}

/// A store on its way to being open.
struct Opening {
    env: Env,
    settings: Settings,
    operators: BTreeMap<String, Arc<dyn MergeOperator>>,
    table_env: TableEnv,
    reclaim: Arc<ReclaimQueue>,
    pointer: Option<Pointer>,
    replaying: bool,
    began: std::time::Duration,
}

/// What reading the log added.
struct Replayed {
    replay: Replay,
    progress: Progress,
}

impl Opening {
    fn new(directory: &Path, options: LsmOptions, writable: bool) -> Result<Self> {
        let began = options.clock.monotonic();
        let found = Pointer::header(&*options.fs, directory)?;
        let mut store = found
            .as_ref()
            .map_or([0; 16], |header| header.identity.store);
        let least = options.settings.least_generation;
        if found.is_none() {
            options.random.fill(&mut store)?;
        }
        let place = StorePlace {
            fs: &options.fs,
            random: &options.random,
            directory,
            store,
            writable,
        };
        let (transform, pointer) = match found {
            None if least > 0 => {
                return Err(Error::RolledBack {
                    path: directory.join(POINTER_NAME),
                    found: 0,
                    least,
                });
            }
            None if writable => (options.protection.create(&place)?, None),
            None => return Err(no_such_store(directory)),
            Some(header) => {
                let transform = options.protection.open(&place);
                let transform =
                    transform.map_err(|error| keys::keyring_missing(error, directory, &header))?;
                let pointer = Pointer::read(&*options.fs, directory, &*transform)?;
                if let Some(pointer) = &pointer {
                    pointer.check_keyring(directory, &*transform)?;
                }
                (transform, pointer)
            }
        };
        if options.settings.lock_after_idle.is_some() && transform.keys().is_none() {
            return Err(Error::InvalidSetting {
                setting: "lock_after_idle",
                problem: "the store is not encrypted: there are no keys to wipe".to_owned(),
            });
        }
        let generation = pointer.map_or(0, |pointer| pointer.generation);
        if generation < least {
            return Err(Error::RolledBack {
                path: directory.join(POINTER_NAME),
                found: generation,
                least,
            });
        }
        let env = Env {
            directory: directory.to_path_buf(),
            store,
            fs: options.fs,
            clock: options.clock,
            random: options.random,
            transform,
            listener: options.listener,
            listener_panics: Arc::default(),
        };
        let memory = Memory::new(Shares::of(&options.settings)?);
        let mut settings = options.settings;
        settings.limits = memory.shares().limits;
        let table_env = TableEnv {
            fs: Arc::clone(&env.fs),
            transform: Arc::clone(&env.transform),
            random: Arc::clone(&env.random),
            store,
            cache: Arc::clone(memory.cache()),
            metadata_budget: Arc::clone(memory.tables()),
            memory,
        };
        let operators = options
            .operators
            .into_iter()
            .map(|op| (op.name().to_owned(), op))
            .collect();
        let reclaim = Arc::default();
        Ok(Self {
            env,
            settings,
            operators,
            table_env,
            reclaim,
            pointer,
            replaying: options.replaying,
            began,
        })
    }

    fn for_writing(self, locked: Arc<LockedFileSystem>) -> Result<Arc<Store>> {
        let state = match &self.pointer {
            Some(pointer) => manifest::read(&self.env, pointer, false)?,
            None => State::default(),
        };
        self.check_keys(&state)?;
        self.check_directory(&state)?;
        self.check_unknown_logs(&state)?;
        let view = self.view(&state)?;
        let replayed = self.replay(&state, &view, false)?;
        if self.clean_end().is_none() {
            secure(&self.env, &replayed.replay, state.log_synced.1)?;
        }

        if self.pointer.is_none() {
            // What an interrupted creation left behind. Two such manifests would no longer look like it.
            self.clean_directory(&state, 0, false)?;
        }
        self.mend_keys(&state)?;
        let clean_end = self.clean_end();
        let (mut settled, log) = self.settle(state.clone(), &replayed)?;
        settled.instance = self.begin_instance(&state)?;
        let mut manifest = self.begin_manifest(&state, settled)?;
        self.forget_mark()?;
        self.clean_directory(manifest.state(), manifest.number(), true)?;
        self.finish_drops(&mut manifest)?;

        let mut log_segments = BTreeMap::new();
        for &number in manifest.state().logs.keys() {
            log_segments.insert(number, self.log_bytes(number)?);
        }
        let log_sync = Arc::new(LogSync::new(log.position, Arc::clone(&self.env.clock)));
        let segment_bytes = self.table_env.memory.shares().log_segment_bytes;
        let writer = LogWriter::new(
            log.last,
            log.end,
            log.position,
            segment_bytes,
            Arc::clone(&log_sync),
        );
        let instance = manifest.state().instance;
        let writing = Some((writer, manifest, locked));
        let began = self.began;
        let progress = replayed.progress;
        let parts = (log_sync, log_segments);
        let store = self.into_store(view, progress, parts, instance, writing);
        store.log_current.store(log.last, Ordering::Release);
        let store = Arc::new(store);
        // There is no store yet that somebody has open and that would have to become read-only.
        crate::replay::finish(&store, &state, clean_end).map_err(manifest::cause)?;
        store.env.emit(&Event::Recovered {
            log_segments: replayed.replay.used.len() as u64,
            batches: replayed.replay.batches,
            torn_bytes: replayed.replay.torn_bytes,
            elapsed: store.env.clock.monotonic().saturating_sub(began),
        });
        Ok(store)
    }

    fn for_reading(self) -> Result<Store> {
        let Some(pointer) = &self.pointer else {
            return Err(no_such_store(&self.env.directory));
        };
        // Judged as when opening for writing: who reads must not be shown less than was promised either.
        // What only looks like damage, because a writer was at work between two reads, looks otherwise at
        // the next attempt.
        let state = manifest::read(&self.env, pointer, false)?;
        self.check_keys(&state)?;
        self.check_directory(&state)?;
        let view = self.view(&state)?;
        let replayed = self.replay(&state, &view, true)?;
        let log_sync = Arc::new(LogSync::new(
            replayed.replay.position,
            Arc::clone(&self.env.clock),
        ));
        let progress = replayed.progress;
        let parts = (log_sync, BTreeMap::new());
        Ok(self.into_store(view, progress, parts, state.instance, None))
    }

    fn into_store(
        self,
        view: View,
        progress: Progress,
        (log_sync, log_segments): (Arc<LogSync>, BTreeMap<u64, u64>),
        instance: Instance,
        writing: Option<(LogWriter, Manifest, Arc<LockedFileSystem>)>,
    ) -> Store {
        let runs = view.keyspaces.iter().flat_map(|keyspace| {
            keyspace
                .version
                .levels
                .first()
                .into_iter()
                .flat_map(|level| &level.runs)
        });
        let generation = self.generation();
        let next_run = runs.map(|run| run.number).max().unwrap_or(0) + 1;
        Store::new(StoreParts {
            env: self.env,
            settings: self.settings,
            operators: self.operators,
            table_env: self.table_env,
            views: ViewCell::new(view),
            progress,
            reclaim: self.reclaim,
            log_sync,
            log_segments,
            next_run,
            generation,
            instance,
            writing,
        })
    }

    /// Opens the keyspaces with their tables.
    fn view(&self, state: &State) -> Result<View> {
        let keyspaces: Result<Vec<_>> = state
            .keyspaces
            .iter()
            .map(|(&id, keyspace)| self.keyspace(KeyspaceId(id), keyspace).map(Arc::new))
            .collect();
        Ok(View {
            generation: 1,
            keyspaces: keyspaces?,
        })
    }

    fn keyspace(&self, id: KeyspaceId, state: &KeyspaceState) -> Result<KeyspaceView> {
        let operator = find_operator(
            &self.operators,
            &state.name,
            state.options.merge_operator.as_deref(),
        )
        .map_err(|error| self.env.discreet(error))?;
        let confidential = self.env.is_confidential();
        let mut placed = Vec::with_capacity(state.tables.len());
        for place in state.tables.values() {
            let path = self.env.path(FileKind::Table, place.meta.number);
            let meta = crate::table::TableMeta::clone(&place.meta);
            let table = Table::open(&self.table_env, &path, id, meta)?;
            let file = Arc::new(TableFile::new(table, path, Arc::clone(&self.reclaim)));
            placed.push(Placed {
                level: place.level as usize,
                run: place.run,
                file,
            });
        }
        let mut blobs = Vec::with_capacity(state.blobs.len());
        for place in state.blobs.values() {
            let path = self.env.path(FileKind::Blob, place.meta.number);
            let meta = BlobMeta::clone(&place.meta);
            let blob = BlobFile::open(&self.table_env, &path, id, meta, &self.reclaim)?;
            blobs.push(blob);
        }
        Ok(KeyspaceView {
            keyspace: Arc::new(Keyspace::new(
                id,
                state.name.clone(),
                operator,
                confidential,
            )),
            options: Arc::new(state.options.clone()),
            planner: Arc::from(vault_snapshot::policy::planner(&state.options.policy)),
            active: Arc::new(WriteBuffer::new(&self.table_env.memory)),
            sealed: Vec::new(),
            version: Arc::new(Version::build(placed, blobs)),
        })
    }

    /// The generation that the store was found at.
    fn generation(&self) -> u64 {
        self.pointer.map_or(0, |pointer| pointer.generation)
    }

    /// The last log segment and where it ends, where the store was closed cleanly.
    fn clean_end(&self) -> Option<(u64, u64)> {
        let end = self.pointer.map(|pointer| pointer.log_end);
        end.filter(|end| end.0 != 0)
    }

    /// Reads the log into the view's memtables, as far as they have room for it.
    fn replay(&self, state: &State, view: &View, read_only: bool) -> Result<Replayed> {
        let segments: Vec<u64> = state.logs.keys().copied().collect();
        let clean_end = self.clean_end();
        let request = ReplayRequest {
            segments: &segments,
            salts: &state.logs,
            clean_end,
            live: false,
        };
        let mut reading = Reading {
            env: &self.env,
            state,
            view,
            memory: &self.table_env.memory,
            read_only,
            log_last: 0,
            progress: Progress {
                last_sequence: state.last_sequence,
                left_from: None,
            },
        };
        let replay = replay(&self.env, &request, |batch| reading.take(&batch))?;
        self.check_log_whole(state, &replay)?;
        let progress = reading.progress;
        self.table_env.memory.rebalance();
        Ok(Replayed { replay, progress })
    }

    /// Checks that the log reaches as far as the manifest relies on: what is in tables may not be
    /// newer than what is missing.
    fn check_log_whole(&self, state: &State, replay: &Replay) -> Result<()> {
        let (segment, position) = state.log_synced;
        if replay.last_segment >= segment && (segment == 0 || replay.position >= position) {
            return Ok(());
        }
        let path = self.env.path(FileKind::Log, segment);
        let (end, last) = (replay.position, replay.last_segment);
        let problem = format!(
            "the log was durable up to position {position}, and ends at {end} in segment {last}"
        );
        Err(Error::corruption(&path, replay.last_end, problem))
    }

    /// Removes what nobody needs any more, to free space.
    fn make_room(&self, read: &State, pointer: &Pointer) -> Result<()> {
        // Only now, and only what is durably let go of: until there is a new manifest, a loss of
        // power brings the old one back as the medium has it, with whatever files it needs.
        manifest::secure(&self.env, pointer)?;
        self.env.sync_directory()?;
        self.clean_directory(read, pointer.manifest, false)
    }

    /// Begins the manifest of this opening, with the state that was `settled`. Where the disk is full, what
    /// nobody needs any more goes first.
    fn begin_manifest(&self, read: &State, settled: State) -> Result<Manifest> {
        let generation = self.generation();
        let bytes_max = self.settings.manifest_bytes_max;
        let begin = |state| Manifest::begin(&self.env, state, generation, bytes_max);
        let begun = match (begin(settled.clone()), &self.pointer) {
            (Err(Error::DiskFull { .. }), Some(pointer)) => {
                self.make_room(read, pointer)?;
                begin(settled)
            }
            (begun, _) => begun,
        };
        // There is no open store yet that would have to become read-only: the cause itself says more.
        begun.map_err(manifest::cause)
    }

    /// What the new manifest shall state, and where the log goes on.
    fn settle(&self, mut state: State, replayed: &Replayed) -> Result<(State, LogEnd)> {
        // File numbers that were given out without an edit: their files are still there. Whatever else has
        // such a name, a directory too, would be in the way of a file with this number.
        let given_out = state.next_file;
        for (name, _) in self.list()? {
            if let Some(number) = possible_number(&name, given_out) {
                state.next_file = state.next_file.max(number + 1);
            }
        }
        state.last_sequence = state.last_sequence.max(replayed.progress.last_sequence);
        // Segments behind the end hold nothing that counts: they must not come back.
        let unused: BTreeSet<u64> = replayed.replay.unused.iter().copied().collect();
        state.logs.retain(|number, _| !unused.contains(number));
        let replay = &replayed.replay;
        let log = LogEnd {
            last: replay.last_segment,
            end: replay.last_end,
            position: replay.position,
        };
        if log.last != 0 {
            // All that was read is durable by now. Were its end missing the next time, that would be damage.
            state.log_synced = (log.last, log.position);
        }
        Ok((state, log))
    }
}

/// Where the log goes on.
struct LogEnd {
    last: u64,
    end: u64,
    position: u64,
}

/// Finds the merge operator a keyspace was created with.
pub(crate) fn find_operator(
    operators: &BTreeMap<String, Arc<dyn MergeOperator>>,
    keyspace: &str,
    name: Option<&str>,
) -> Result<Option<Arc<dyn MergeOperator>>> {
    let Some(name) = name else { return Ok(None) };
    operators
        .get(name)
        .cloned()
        .map(Some)
        .ok_or_else(|| Error::MissingMergeOperator {
            keyspace: keyspace.to_owned(),
            operator: name.to_owned(),
        })
}
