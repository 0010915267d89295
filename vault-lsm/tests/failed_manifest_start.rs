//! A manifest was to be replaced by a new one, of which not even the header could be written, nor could the file be
//! removed again. Its number counted as unused, so that each further attempt found the name taken: the store refused all
//! that needs the manifest until it was opened again, whatever worked meanwhile.

mod support;

use std::io::ErrorKind::StorageFull;

use support::{
    DIRECTORY, assert_contents, assert_error, expected, manual, put_all, roomy_keyspace,
};
use vault_core::vfs::{Fault, FaultKind, MemoryFileSystem, OperationClass};
use vault_core::{Engine, Error};
use vault_lsm::Lsm;

#[test]
fn the_next_attempt_takes_another_number() {
    let fs = MemoryFileSystem::new();
    let mut options = manual(&fs);
    options.settings.manifest_bytes_max = 1 << 10;
    let store = Lsm::open(DIRECTORY, options).unwrap();
    let mut created = 0;
    let mut create = || {
        created += 1;
        store.create_keyspace(&format!("keyspace-{created}"), &roomy_keyspace())
    };
    let ks = create().unwrap();
    put_all(&store, ks, 0..10, 1);
    // Until a manifest is replaced, writing goes to the one that is there: only what is created counts.
    let refused = loop {
        let before = fs.list().len();
        fs.inject(Fault::new(OperationClass::Remove, FaultKind::Errno(5)).on_path(".man"));
        fs.inject(Fault::new(OperationClass::Write, FaultKind::Error(StorageFull)).on_path(".man"));
        let outcome = create();
        fs.clear_faults();
        if fs.list().len() > before {
            break outcome;
        }
        // The tail is unknown now: what comes next begins a new file.
        assert!(outcome.is_err());
    };
    assert_error!(refused, Error::DiskFull { .. }, Full);
    for _ in 0..100 {
        create().unwrap();
    }
    assert_contents(&store, ks, &expected(0..10, 1));
    store.close().unwrap();
}
