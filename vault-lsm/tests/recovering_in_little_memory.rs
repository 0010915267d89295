//! Opening a store whose log is larger than the memtables may be: the log is checked to its end before
//! anything is written, then flushed bit by bit; and whatever ends that, the next opening goes on.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "a sweep says how much it has covered")]

use std::sync::Arc;

use vault_core::transform::HEADER_BYTES;
use vault_core::vfs::{CrashPolicy, MemoryFileSystem};
use vault_core::{
    Engine, Error, KeyRange, KeyspaceId, KeyspaceOptions, Reader, WriteBatch, WriteOptions,
};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions, Settings};

const DIRECTORY: &str = "/store";
const BATCHES: u64 = 120;
const KEYSPACES: [&str; 3] = ["a", "b", "c"];
/// Where there is one keyspace only, no other memtable keeps the log from being let go of.
const ALONE: [&str; 1] = ["a"];
const VALUE_BYTES: usize = 16 << 10;

/// With much memory nothing is flushed; with little, memtables have about 3 MiB.
fn options(fs: &MemoryFileSystem, much: bool) -> LsmOptions {
    let settings = Settings {
        memory_bytes: if much { 1 << 30 } else { 16 << 20 },
        cache_bytes: Some(8 << 20),
        table_metadata_bytes: Some(0),
        log_segment_bytes: Some(512 << 10),
        background: BackgroundWork::Manual,
        ..Settings::default()
    };
    LsmOptions::new(settings).file_system(Arc::new(fs.clone()))
}

fn value(batch: u64, keyspace: usize, bytes: usize) -> Vec<u8> {
    let mut value = vec![batch as u8 ^ keyspace as u8; bytes];
    value[..8].copy_from_slice(&batch.to_le_bytes());
    value
}

/// A store whose log holds some MiB that are in no table: batches across keyspaces, each of which
/// overwrites an earlier one, the last one synced.
fn written(names: &[&str]) -> MemoryFileSystem {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, options(&fs, true)).unwrap();
    let create = |name| store.create_keyspace(name, &KeyspaceOptions::default());
    let keyspaces: Vec<KeyspaceId> = names.iter().map(|name| create(name).unwrap()).collect();
    let value_bytes = VALUE_BYTES * KEYSPACES.len() / names.len();
    for number in 0..BATCHES {
        let mut batch = WriteBatch::new();
        for (at, &keyspace) in keyspaces.iter().enumerate() {
            batch.put(
                keyspace,
                &(number % 100).to_be_bytes(),
                &value(number, at, value_bytes),
            );
            batch.put(keyspace, b"last", &number.to_le_bytes());
        }
        store.write(&batch, &WriteOptions::OS).unwrap();
    }
    store.sync().unwrap();
    assert_eq!(store.stats().unwrap().background.flushes, 0);
    fs.kill()
}

fn check(store: &Lsm, names: &[&str], context: &str) {
    let value_bytes = VALUE_BYTES * KEYSPACES.len() / names.len();
    for (at, name) in names.iter().enumerate() {
        let keyspace = store.keyspace(name).unwrap().unwrap();
        for key in 0..100 {
            let last = if key + 100 < BATCHES { key + 100 } else { key };
            let found = store.get(keyspace, &u64::to_be_bytes(key)).unwrap();
            assert!(
                found.as_deref() == Some(&value(last, at, value_bytes)[..]),
                "{context}: key {key} of {name}"
            );
        }
        let last = store.get(keyspace, b"last").unwrap();
        assert_eq!(last.as_deref(), Some(&(BATCHES - 1).to_le_bytes()[..]));
        let entries = store.scan(keyspace, KeyRange::all()).unwrap().count();
        assert_eq!(entries, 101, "{context}: {name}");
    }
}

#[test]
fn what_does_not_fit_is_flushed_while_opening() {
    let fs = written(&KEYSPACES);
    let store = Lsm::open(DIRECTORY, options(&fs, false)).unwrap();
    let stats = store.stats().unwrap();
    assert!(stats.background.flushes >= 3, "{:?}", stats.background);
    assert!(stats.memory.memtables < 4 << 20, "{:?}", stats.memory);
    check(&store, &KEYSPACES, "just opened");
    // Writing goes on where the log ended, and all of it is there again after that.
    let keyspace = store.keyspace("a").unwrap().unwrap();
    let latest = store.latest_sequence();
    assert_eq!(latest, BATCHES * 2 * KEYSPACES.len() as u64);
    store
        .put(keyspace, b"one more", b"v", &WriteOptions::SYNC)
        .unwrap();
    let fs = fs.crash(1, CrashPolicy::DropUnsynced);
    let store = Lsm::open(DIRECTORY, options(&fs, false)).unwrap();
    assert_eq!(store.latest_sequence(), latest + 1);
    store
        .delete(keyspace, b"one more", &WriteOptions::SYNC)
        .unwrap();
    check(&store, &KEYSPACES, "after another crash");
    store.close().unwrap();
    check(
        &Lsm::open(DIRECTORY, options(&fs, false)).unwrap(),
        &KEYSPACES,
        "after closing",
    );
}

/// Also an opening that flushes loses nothing when it is cut short, at whichever operation.
#[test]
fn power_is_lost_at_every_operation_of_such_an_opening() {
    lose_power_while_opening(&KEYSPACES);
}

#[test]
fn power_is_lost_while_a_single_keyspace_is_opened() {
    lose_power_while_opening(&ALONE);
}

fn lose_power_while_opening(names: &[&str]) {
    let before = written(names);
    let mut crashes = 0;
    let every = if full() { 1 } else { 5 };
    for n in (0..).step_by(every) {
        let fs = before.kill();
        fs.set_crash_point(Some(n));
        if Lsm::open(DIRECTORY, options(&fs, false)).is_ok() {
            break;
        }
        crashes += 1;
        let policies = [
            CrashPolicy::DropUnsynced,
            CrashPolicy::Random { percent: 50 },
        ];
        for policy in policies {
            let after = fs.crash(n, policy);
            let store = Lsm::open(DIRECTORY, options(&after, n % 2 == 0)).unwrap();
            check(
                &store,
                names,
                &format!("crash at operation {n}, {policy:?}"),
            );
        }
    }
    assert!(crashes * every > 50, "{crashes} crashes");
    println!("{crashes} crashes while opening");
}

/// Set to `full`: a crash at every operation.
fn full() -> bool {
    std::env::var("VAULT_SWEEP").is_ok_and(|extent| extent == "full")
}

/// Damage at the log's end, behind what no longer fits into memory, is found before anything is written.
#[test]
fn a_log_that_is_refused_leaves_the_store_as_it_was() {
    let fs = written(&KEYSPACES);
    // Closed cleanly, the store knows where its log ends: what does not open before is damage.
    let store = Lsm::open(DIRECTORY, options(&fs, true)).unwrap();
    store.close().unwrap();
    drop(store);
    let fs = fs.kill();
    let files = fs.list().into_iter().map(|(path, _)| path);
    let last = files
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .max()
        .unwrap();
    let mut bytes = fs.read_file(&last).unwrap();
    bytes[HEADER_BYTES + 300] ^= 1;
    fs.write_file(&last, &bytes).unwrap();
    let before = contents(&fs);
    let opened = Lsm::open(DIRECTORY, options(&fs, false)).map(drop);
    assert!(
        matches!(opened, Err(Error::Corruption { .. })),
        "{opened:?}"
    );
    assert!(contents(&fs) == before, "something was written");
}

fn contents(fs: &MemoryFileSystem) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let files = fs.list().into_iter();
    let files = files.filter(|(path, _)| !path.ends_with("LOCK"));
    files
        .map(|(path, _)| {
            let bytes = fs.read_file(&path).unwrap();
            (path, bytes)
        })
        .collect()
}

/// Beside a writer nothing can be flushed: what does not fit takes from the cache.
#[test]
fn reading_only_takes_from_the_cache_what_it_needs() {
    let fs = written(&KEYSPACES);
    let reader = Lsm::open_read_only(DIRECTORY, &options(&fs, false)).unwrap();
    check(&reader, &KEYSPACES, "read-only");
    let stats = reader.stats().unwrap();
    assert!(stats.cache.capacity_bytes < 6 << 20, "{:?}", stats.cache);
    assert!(
        stats.memory.peak <= stats.memory.budget,
        "{:?}",
        stats.memory
    );
}
