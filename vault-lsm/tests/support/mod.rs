//! How the conformance suite opens this engine, and what the scenario tests share.
#![allow(unused, reason = "each test binary uses a part of this")]

pub(crate) mod alone;
pub(crate) mod batches;
pub(crate) mod keyed;
pub(crate) mod locking;
pub(crate) mod modes;
pub(crate) mod rotating;
pub(crate) mod shipped;
pub(crate) mod slow;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vault_core::clock::SystemClock;
use vault_core::conformance::{Harness, Setup};
use vault_core::random::{Random, SeededRandom};
use vault_core::stats::KeyspaceStats;
use vault_core::vfs::{FileSystem, MemoryFileSystem};
use vault_core::{
    Clock, Engine, Event, EventListener, KeyRange, KeyspaceId, KeyspaceOptions, Reader, Result,
    WriteOptions,
};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions, Settings};

pub(crate) use modes::protected;

/// Opens stores in memory file systems.
pub(crate) struct InMemory {
    pub(crate) background: BackgroundWork,
    pub(crate) cache_bytes: u64,
    /// From which length on values are kept apart.
    pub(crate) large_value_bytes: u32,
}

/// The least that is taken: nearly every value is kept apart.
pub(crate) const NEARLY_ALL_APART: u32 = 16;

pub(crate) const THREADS: InMemory = InMemory {
    background: BackgroundWork::Threads { compaction: 2 },
    cache_bytes: 1 << 20,
    large_value_bytes: 4 << 10,
};
pub(crate) const MANUAL: InMemory = InMemory {
    background: BackgroundWork::Manual,
    cache_bytes: 0,
    large_value_bytes: 4 << 10,
};
pub(crate) const THREADS_APART: InMemory = InMemory {
    large_value_bytes: NEARLY_ALL_APART,
    ..THREADS
};
pub(crate) const MANUAL_APART: InMemory = InMemory {
    large_value_bytes: NEARLY_ALL_APART,
    ..MANUAL
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
            cache_bytes: Some(self.cache_bytes),
            table_metadata_bytes: Some(self.cache_bytes),
            log_segment_bytes: Some(64 << 10),
            log_bytes_max: Some(256 << 10),
            ..Settings::default()
        };
        let options = protected(LsmOptions::new(settings))
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

    fn options(&self) -> KeyspaceOptions {
        KeyspaceOptions {
            block_bytes: 512,
            write_buffer_bytes: 16 << 10,
            table_bytes: 16 << 10,
            large_value_bytes: Some(self.large_value_bytes),
            ..KeyspaceOptions::default()
        }
    }

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

// What the scenario tests share: small stores that flush and compact early, data that can be told
// apart, and who hears of events.

/// Settings under which a few hundred kilobytes are a large store. Everything is timed.
pub(crate) fn small_settings(background: BackgroundWork) -> Settings {
    Settings {
        background,
        cache_bytes: Some(256 << 10),
        table_metadata_bytes: Some(256 << 10),
        log_segment_bytes: Some(64 << 10),
        log_bytes_max: Some(512 << 10),
        latency_sample_every: 1,
        ..Settings::default()
    }
}

pub(crate) const TWO_THREADS: BackgroundWork = BackgroundWork::Threads { compaction: 2 };

/// Options for a store in a memory file system, small, with the callers doing all the work.
pub(crate) fn manual(fs: &MemoryFileSystem) -> LsmOptions {
    protected(LsmOptions::new(small_settings(BackgroundWork::Manual)))
        .file_system(Arc::new(fs.clone()))
}

/// As [`manual`], with threads.
pub(crate) fn threaded(fs: &MemoryFileSystem) -> LsmOptions {
    protected(LsmOptions::new(small_settings(TWO_THREADS))).file_system(Arc::new(fs.clone()))
}

/// A keyspace that flushes every 16 KiB into tables of as many.
pub(crate) fn small_keyspace() -> KeyspaceOptions {
    KeyspaceOptions {
        write_buffer_bytes: 16 << 10,
        table_bytes: 16 << 10,
        block_bytes: 1 << 10,
        ..KeyspaceOptions::default()
    }
}

/// A keyspace whose memtable is only flushed when a test says so.
pub(crate) fn roomy_keyspace() -> KeyspaceOptions {
    KeyspaceOptions::default()
}

pub(crate) fn key(number: u64) -> Vec<u8> {
    format!("key-{number:08}").into_bytes()
}

/// A value that doesn't compress and differs for each number and version.
pub(crate) fn value(number: u64, version: u64) -> Vec<u8> {
    let random = SeededRandom::new(number.wrapping_mul(1_000_003) ^ version);
    let mut bytes = vec![0; 100];
    random
        .fill(&mut bytes)
        .expect("a seeded source never fails");
    bytes
}

/// Writes `numbers` in this version, one by one.
pub(crate) fn put_all(
    store: &Lsm,
    keyspace: KeyspaceId,
    numbers: impl IntoIterator<Item = u64>,
    version: u64,
) {
    for number in numbers {
        let written = store.put(
            keyspace,
            &key(number),
            &value(number, version),
            &WriteOptions::default(),
        );
        written.expect("nothing hinders this write");
    }
}

/// Everything that a reader sees in a keyspace.
pub(crate) fn contents(reader: &dyn Reader, keyspace: KeyspaceId) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let scan = reader.scan(keyspace, KeyRange::all()).expect("it is open");
    scan.map(|entry| {
        let (key, value) = entry.expect("nothing is damaged");
        (key.to_vec(), value.to_vec())
    })
    .collect()
}

/// What [`put_all`] leaves.
pub(crate) fn expected(
    numbers: impl IntoIterator<Item = u64>,
    version: u64,
) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let pair = |number| (key(number), value(number, version));
    numbers.into_iter().map(pair).collect()
}

/// Checks that a keyspace holds exactly this, by a scan and by lookups.
#[track_caller]
pub(crate) fn assert_contents(
    reader: &dyn Reader,
    keyspace: KeyspaceId,
    expected: &BTreeMap<Vec<u8>, Vec<u8>>,
) {
    let found = contents(reader, keyspace);
    let missing: Vec<_> = expected
        .keys()
        .filter(|k| !found.contains_key(*k))
        .collect();
    assert!(
        missing.is_empty(),
        "{} of {} keys are missing, the first is {:?}",
        missing.len(),
        expected.len(),
        missing[0].escape_ascii().to_string()
    );
    assert!(found == *expected, "a value differs, or a key is too many");
    for (key, value) in expected.iter().step_by(7) {
        let got = reader.get(keyspace, key).expect("nothing is damaged");
        assert_eq!(got.as_deref(), Some(value.as_slice()));
    }
}

/// The counts of a keyspace.
pub(crate) fn keyspace_stats(store: &Lsm, keyspace: KeyspaceId) -> KeyspaceStats {
    let stats = store.stats().expect("the store is open");
    let found = stats.keyspaces.into_iter().find(|k| k.id == keyspace);
    found.expect("the keyspace exists")
}

/// Collects what the engine tells.
#[derive(Clone, Default)]
pub(crate) struct Events(Arc<Mutex<Vec<Event>>>);

impl EventListener for Events {
    fn on_event(&self, event: &Event) {
        self.0
            .lock()
            .expect("no listener panics")
            .push(event.clone());
    }
}

impl Events {
    pub(crate) fn listener(&self) -> Arc<dyn EventListener> {
        Arc::new(self.clone())
    }

    pub(crate) fn all(&self) -> Vec<Event> {
        self.0.lock().expect("no listener panics").clone()
    }

    pub(crate) fn count(&self, matches: impl Fn(&Event) -> bool) -> usize {
        self.all().iter().filter(|event| matches(event)).count()
    }
}

/// The files of a directory in memory that end in this, with their lengths.
pub(crate) fn files_in_memory(
    fs: &MemoryFileSystem,
    directory: &str,
    ending: &str,
) -> Vec<(PathBuf, u64)> {
    let is_meant = |(path, _): &(PathBuf, u64)| {
        path.starts_with(directory) && path.to_string_lossy().ends_with(ending)
    };
    fs.list().into_iter().filter(is_meant).collect()
}

/// Everything under a directory in memory, to see that nothing changed.
pub(crate) fn image(fs: &MemoryFileSystem, directory: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = files_in_memory(fs, directory, "");
    files
        .into_iter()
        .map(|(path, _)| {
            let bytes = fs.read_file(&path).expect("it was just listed");
            (path, bytes)
        })
        .collect()
}

/// Says whether so much time has passed since this was called.
pub(crate) fn ends_in(time: Duration) -> impl Fn() -> bool {
    let clock = SystemClock::new();
    let began = clock.monotonic();
    move || clock.monotonic().saturating_sub(began) >= time
}

/// Waits until a condition holds, and panics where it doesn't within ten seconds.
#[track_caller]
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let clock = SystemClock::new();
    let began = clock.monotonic();
    while !condition() {
        let waited = clock.monotonic().saturating_sub(began);
        assert!(
            waited < Duration::from_secs(10),
            "waited in vain for: {what}"
        );
        std::thread::yield_now();
    }
}

/// Asserts that a call was refused with this error, and that it is of this kind. Gives the error.
macro_rules! assert_error {
    ($outcome:expr, $pattern:pat, $kind:ident) => {
        match $outcome {
            Ok(_) => panic!("{} was not refused", stringify!($outcome)),
            Err(error) => {
                assert!(
                    matches!(error, $pattern),
                    "{} expected, {error:?} found",
                    stringify!($pattern)
                );
                assert_eq!(error.kind(), vault_core::ErrorKind::$kind);
                error
            }
        }
    };
}
pub(crate) use assert_error;
