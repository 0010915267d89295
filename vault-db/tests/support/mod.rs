//! What tests of snapshots and restores share: places on disk, and what a database holds.
#![allow(dead_code, reason = "each test binary uses a part of this")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use vault_db::Database;
use vault_db::snapshot::LogArchiver;

/// A directory of the test's own.
pub(crate) struct Place(pub(crate) tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// Every vault with its entries.
pub(crate) fn everything(db: &Database) -> BTreeMap<String, Vec<(String, i64)>> {
    let vaults = db.vaults().into_iter().map(|info| {
        let vault = db.existing_vault(&info.name).unwrap();
        let items = vault.items::<String, i64>().unwrap();
        (info.name, items.map(Result::unwrap).collect())
    });
    vaults.collect()
}

/// The keyspaces that hold vaults: as many as there are vaults, once nothing is left behind.
pub(crate) fn vault_keyspaces(db: &Database) -> usize {
    let keyspaces = db.engine().keyspaces().unwrap();
    let of_vaults = keyspaces.iter().filter(|info| {
        let number = info.name.strip_prefix("vault.v");
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    });
    of_vaults.count()
}

/// Waits until everything that was written is in the archive.
pub(crate) fn shipped(db: &Database, archiver: &LogArchiver) {
    let latest = db.engine().latest_sequence();
    for _ in 0..2_400 {
        if archiver.status().sequence >= latest {
            return;
        }
        thread::park_timeout(Duration::from_millis(5));
    }
    panic!("{:?}", archiver.status());
}

/// The keys of the vault `v`, which are numbers.
pub(crate) fn numbers(db: &Database) -> Vec<i64> {
    let vault = db.existing_vault("v").unwrap();
    vault.keys().unwrap().map(Result::unwrap).collect()
}
