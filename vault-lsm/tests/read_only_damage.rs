//! A damaged log, opened read-only: refused as it is when opened for writing, whether there is a writer or not.
//!
//! Beside a writer, a record that is not whole may be one that is just being appended, so a read-only
//! opening took the first such record for the log's end, without judgement. Where a byte had been changed in
//! the middle, everything behind it was silently missing, acknowledged or not.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::PathBuf;
use std::sync::Arc;

use support::{
    DIRECTORY, assert_contents, assert_error, expected, files_in_memory, key, manual,
    roomy_keyspace, value,
};
use vault_core::clock::ManualClock;
use vault_core::vfs::{FileSystem as _, MemoryFileSystem};
use vault_core::{Engine, Error, KeyspaceId, Timestamp, WriteOptions};
use vault_lsm::Lsm;

/// A store with ten records in its log, each synced.
fn ten_records(fs: &MemoryFileSystem) -> (Lsm, KeyspaceId, PathBuf) {
    let store = Lsm::open(DIRECTORY, manual(fs)).unwrap();
    let ks = store.create_keyspace("k", &roomy_keyspace()).unwrap();
    for number in 0..10 {
        let put = store.put(ks, &key(number), &value(number, 1), &WriteOptions::SYNC);
        put.unwrap();
    }
    let log = files_in_memory(fs, DIRECTORY, ".log").remove(0).0;
    (store, ks, log)
}

#[test]
fn a_changed_byte_in_the_middle_is_noticed() {
    for closed in [false, true] {
        let fs = MemoryFileSystem::new();
        let (store, ks, log) = ten_records(&fs);
        if closed {
            store.close().unwrap();
        }
        // Nobody writes any more, closed or not.
        let fs = fs.kill();
        let whole = fs.read_file(&log).unwrap();
        let end = whole.iter().rposition(|&byte| byte != 0).unwrap() + 1;
        // Behind the header and the record that begins the segment; before the last two records, which may
        // be a torn tail where the store was not closed.
        let last = if closed { end } else { end - 300 };
        for at in (200..last).step_by(11) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            fs.write_file(&log, &bytes).unwrap();
            // Waiting between its attempts takes no time of ours.
            let options = manual(&fs).clock(Arc::new(ManualClock::new(Timestamp(1))));
            let opened = Lsm::open_read_only(DIRECTORY, &options);
            let error = assert_error!(opened, Error::Corruption { .. }, Restore);
            assert!(error.to_string().contains(".log"), "{error}");
        }
        fs.write_file(&log, &whole).unwrap();
        let reading = Lsm::open_read_only(DIRECTORY, &manual(&fs)).unwrap();
        assert_contents(&reading, ks, &expected(0..10, 1));
    }
}

/// A table that is needed and missing was told as a file that cannot be opened, not as damage.
#[test]
fn a_missing_table_is_damage() {
    let fs = MemoryFileSystem::new();
    let (store, _, _) = ten_records(&fs);
    store.settle().unwrap();
    store.close().unwrap();
    let table = files_in_memory(&fs, DIRECTORY, ".tab").remove(0).0;
    fs.remove(&table).unwrap();
    let error = assert_error!(
        Lsm::open_read_only(DIRECTORY, &manual(&fs)),
        Error::Corruption { .. },
        Restore
    );
    assert!(error.to_string().contains(".tab"), "{error}");
}
