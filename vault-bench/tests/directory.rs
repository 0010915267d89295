//! A directory of stores serves one run at a time. Alone in its file: a process that another test starts at the wrong moment
//! holds the lock for as long as it takes to become another program.

#![expect(clippy::disallowed_methods, reason = "the directory is a real one")]

use std::fs;

use vault_bench::Error;
use vault_bench::measure::claim_dir;

#[test]
fn a_directory_serves_one_run_and_loses_what_interrupted_ones_left() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("store-old/sub")).unwrap();
    fs::create_dir_all(dir.path().join("mine")).unwrap();
    let lock = claim_dir(dir.path(), "store-").unwrap();
    assert!(!dir.path().join("store-old").exists() && dir.path().join("mine").exists());
    assert!(matches!(
        claim_dir(dir.path(), "store-"),
        Err(Error::DirectoryBusy { .. })
    ));
    drop(lock);
    assert!(claim_dir(dir.path(), "store-").is_ok());
}
