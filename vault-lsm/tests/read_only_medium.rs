//! A medium that takes no writes: a store on it opens read-only, and for writing is refused by an error that
//! says so. A medium that turns read-only under an open store refuses what needs a name, keeps what was
//! acknowledged, and is served again when it takes writes.

mod support;

use std::ops::ControlFlow;

use support::alone::{Mounted, alone_with_mounts};
use support::{
    TWO_THREADS, assert_contents, assert_error, expected, protected, put_all, small_keyspace,
    small_settings,
};
use vault_core::vfs::{Fault, FaultKind, MemoryFileSystem, OperationClass};
use vault_core::{Engine, Error, KeyRange};
use vault_lsm::{Lsm, LsmOptions, OpenMode};

fn options() -> LsmOptions {
    protected(LsmOptions::new(small_settings(TWO_THREADS)))
}

#[test]
fn a_read_only_mount() {
    alone_with_mounts("a_read_only_mount", || {
        let disk = Mounted::tmpfs("size=16m");
        let directory = disk.root().join("store");
        let store = Lsm::open(&directory, options()).unwrap();
        let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
        put_all(&store, ks, 0..700, 1);
        store.settle().unwrap();
        put_all(&store, ks, 700..800, 1);
        store.close().unwrap();
        drop(store);
        disk.set_read_only(true);
        for mode in [OpenMode::CreateIfMissing, OpenMode::MustExist] {
            let refused = Lsm::open(&directory, options().mode(mode));
            let error = assert_error!(refused, Error::ReadOnlyMedium { .. }, Unavailable);
            assert!(
                error.to_string().contains("open the store read-only"),
                "{error}"
            );
        }
        let new = Lsm::open(disk.root().join("new"), options());
        assert_error!(new, Error::ReadOnlyMedium { .. }, Unavailable);
        let reading = Lsm::open_read_only(&directory, &options()).unwrap();
        assert_contents(&reading, ks, &expected(0..800, 1));
        assert_error!(reading.checkpoint("/tmp/none"), Error::ReadOnly, Input);
        reading.explain_space().unwrap();
        reading.close().unwrap();
        drop(reading);
        disk.set_read_only(false);
        let store = Lsm::open(&directory, options()).unwrap();
        put_all(&store, ks, 800..900, 1);
        assert_contents(&store, ks, &expected(0..900, 1));
        // A checkpoint to where nothing can be written.
        let other = Mounted::tmpfs("size=1m,ro");
        let refused = store.checkpoint(other.root().join("copy"));
        assert_error!(refused, Error::ReadOnlyMedium { .. }, Unavailable);
        store.close().unwrap();
    });
}

/// A system that finds its disk failing turns it read-only under those who use it. (A real mount refuses that
/// while files are open for writing, so here the file system in memory does it.)
#[test]
fn a_medium_that_turns_read_only() {
    const READ_ONLY: FaultKind = FaultKind::Error(std::io::ErrorKind::ReadOnlyFilesystem);
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(support::DIRECTORY, support::manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..700, 1);
    for class in [
        OperationClass::Create,
        OperationClass::Remove,
        OperationClass::Rename,
    ] {
        fs.inject(Fault::new(class, READ_ONLY).sticky());
    }
    for _ in 0..2 {
        assert_error!(store.flush(None), Error::ReadOnlyMedium { .. }, Unavailable);
        let compacted = store.compact(ks, KeyRange::all(), &mut |_| ControlFlow::Continue(()));
        assert_error!(compacted, Error::ReadOnlyMedium { .. }, Unavailable);
        let ingested = store.ingest(ks, [(b"k", b"v")]);
        assert_error!(ingested, Error::ReadOnlyMedium { .. }, Unavailable);
        let copied = store.checkpoint("/copy");
        assert_error!(copied, Error::ReadOnlyMedium { .. }, Unavailable);
    }
    assert_contents(&store, ks, &expected(0..700, 1));
    fs.clear_faults();
    put_all(&store, ks, 700..900, 1);
    store.settle().unwrap();
    assert_contents(&store, ks, &expected(0..900, 1));
    store.close().unwrap();
    let store = Lsm::open(support::DIRECTORY, support::manual(&fs)).unwrap();
    assert_contents(&store, ks, &expected(0..900, 1));
}
