//! Closing while callers are at work on their own threads.
mod support;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use support::slow::SlowFiles;
use support::{assert_contents, expected, key, protected, put_all, small_settings};
use vault_core::clock::{Clock as _, SystemClock};
use vault_core::vfs::{DiskFileSystem, FileSystem as _};
use vault_core::{Engine, Error, KeyspaceOptions, WriteBatch, WriteOptions};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions};

const TABLES: &str = "tab";
const KEYS: u64 = 100;
/// How long a table takes to be created: the store is closed in the midst of it.
const CREATED_LATE: Duration = Duration::from_secs(1);

#[test]
fn a_flush_that_a_caller_began_is_told_that_the_store_was_closed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let options = protected(LsmOptions::new(small_settings(BackgroundWork::Manual)));
    let slow = options.clone().file_system(Arc::new(SlowFiles {
        extension: TABLES,
        created_late: CREATED_LATE,
        removed_late: Duration::ZERO,
        disk: DiskFileSystem::new(),
    }));
    let store = Lsm::open(&path, slow).unwrap();
    let ks = store
        .create_keyspace("k", &KeyspaceOptions::default())
        .unwrap();
    put_all(&store, ks, 0..KEYS, 1);
    store.flush(None).unwrap();
    // With nothing else to write, the flush looks at the store's state for the last time before it creates the table.
    let mut batch = WriteBatch::new();
    batch.delete_range(ks, &key(0), &key(KEYS / 2));
    store.write(&batch, &WriteOptions::default()).unwrap();

    let tables = || {
        let entries = DiskFileSystem::new().read_dir(&path).unwrap();
        let is_table = |name: &OsString| Path::new(name).extension() == Some(OsStr::new(TABLES));
        entries.iter().filter(|entry| is_table(&entry.name)).count()
    };
    assert_eq!(tables(), 1);
    thread::scope(|scope| {
        let flush = scope.spawn(|| store.flush(None));
        while tables() == 1 && !flush.is_finished() {
            SystemClock::new().sleep(Duration::from_millis(1));
        }
        store.close().unwrap();
        let error = flush.join().unwrap().unwrap_err();
        assert!(matches!(error, Error::Closed), "{error:?}");
    });

    let again = Lsm::open(&path, options).unwrap();
    assert_contents(&again, ks, &expected(KEYS / 2..KEYS, 1));
    assert_eq!(tables(), 1, "what the flush left behind is gone");
    again.close().unwrap();
}
