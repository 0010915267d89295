//! A log segment could not be begun, and the store has to open nonetheless.
//!
//! Regression: the disk was full when the record that begins a segment was written (on a file system that
//! does not keep what it reserves). The log position moved past that record all the same, the next sync
//! called it durable, and the next flush noted that in the manifest. From then on the store was refused:
//! its log ended before the position up to which it was known to be durable. Found by a simulation.

mod support;

use support::{DIRECTORY, assert_contents, expected, key, manual, small_keyspace, value};
use vault_core::vfs::{CrashPolicy, Fault, FaultKind, MemoryFileSystem, OperationClass};
use vault_core::{Engine, Error, WriteOptions};
use vault_lsm::Lsm;

#[test]
fn a_segment_that_could_not_be_begun_does_not_move_the_log() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    let put = |number| store.put(ks, &key(number), &value(number, 0), &WriteOptions::OS);
    put(0).unwrap();
    // A segment is made ready, so that beginning it is the first that finds no space.
    assert!(store.background_step().unwrap());
    let full = FaultKind::Error(std::io::ErrorKind::StorageFull);
    fs.inject(
        Fault::new(OperationClass::Write, full)
            .on_path(".log")
            .sticky(),
    );
    for attempt in 0..3 {
        let refused = put(1);
        assert!(
            matches!(refused, Err(Error::DiskFull { .. })),
            "{attempt}: {refused:?}"
        );
    }
    fs.clear_faults();
    store.sync().unwrap();
    store.flush(None).unwrap();
    for left in [fs.kill(), fs.crash(0, CrashPolicy::DropUnsynced)] {
        let store = Lsm::open(DIRECTORY, manual(&left)).unwrap();
        assert_contents(&store, ks, &expected(0..1, 0));
    }
    // There is space again: the log goes on.
    put(1).unwrap();
    store.sync().unwrap();
    put(2).unwrap();
    let store = Lsm::open(DIRECTORY, manual(&fs.kill())).unwrap();
    assert_contents(&store, ks, &expected(0..3, 0));
}
