//! Tables: a file stays while anybody may read it and goes afterwards; what a table keeps in memory is
//! booked once and given back.
//!
//! Of the block cache only what is ours is modelled (who fills it, who clears it, the budget beside it):
//! `quick_cache` keeps its locks, inside which no model switches threads.
#![expect(clippy::unwrap_used, reason = "a model fails by panicking")]

use std::path::PathBuf;

use vault_core::vfs::FileSystem;
use vault_core::{Engine, Reader};

use super::commit::{DIRECTORY, Shared, beside};
use super::explore::{fails, holds};

impl Shared {
    /// The files of the tables that a reader of the current view may look into, and a pin on that view.
    fn check_files_stay(&self) {
        let pinned = self.lsm.store().views.pin();
        for _ in 0..3 {
            // The queue's lock orders what is looked for here with what is removed under it.
            let _ = self.lsm.store().reclaim.held_bytes();
            let view = pinned.keyspace(self.left).unwrap();
            for (_, _, file) in view.version.tables() {
                let path = self.table_path(file.meta().number);
                let there = self.fs.kind(&path).unwrap().is_some();
                assert!(there, "wrong: a file is gone that somebody reads");
            }
        }
    }

    fn table_path(&self, number: u64) -> PathBuf {
        let kind = vault_core::transform::FileKind::Table;
        self.lsm.store().env.path(kind, number)
    }

    /// Nothing is left of tables that no version holds: no file, no byte that counts as held.
    fn check_nothing_is_left(&self) {
        let store = self.lsm.store();
        store.reclaim_files();
        assert_eq!(store.reclaim.held_bytes(), 0, "wrong: bytes count as held");
        let pinned = store.views.pin();
        let tables = pinned
            .keyspaces
            .iter()
            .flat_map(|view| view.version.tables());
        let mut expected: Vec<PathBuf> = tables
            .map(|(_, _, file)| self.table_path(file.meta().number))
            .collect();
        expected.sort();
        let extension = self.table_path(1).extension().unwrap().to_owned();
        let found: Vec<PathBuf> = self
            .fs
            .list()
            .into_iter()
            .map(|(path, _)| path)
            .filter(|path| path.starts_with(DIRECTORY) && path.extension() == Some(&extension))
            .collect();
        assert_eq!(found, expected, "wrong: files are left");
    }
}

#[test]
fn files_while_tables_are_merged() {
    holds("tables: files stay while they are read", [()], |()| {
        let merge = |shared: &Shared| {
            shared.compact();
            shared.lsm.store().reclaim_files();
        };
        let shared = beside(Shared::write_and_flush, &[Shared::check_files_stay], merge);
        shared.check_nothing_is_left();
    });
}

#[test]
fn files_while_a_keyspace_is_dropped() {
    holds(
        "tables: files stay while their keyspace is dropped",
        [()],
        |()| {
            let drop_it = |shared: &Shared| {
                let right = shared.right;
                shared.lsm.drop_keyspace(right).unwrap();
                shared.lsm.drop_keyspace(shared.left).unwrap();
            };
            let shared = beside(Shared::write_and_flush, &[read_files], drop_it);
            shared.check_nothing_is_left();
            let store = shared.lsm.store();
            assert_eq!(
                store.table_env.cache.stats().bytes,
                0,
                "wrong: blocks are left"
            );
            assert_eq!(
                store.table_env.metadata_budget.used(),
                0,
                "wrong: bytes stay booked"
            );
        },
    );
}

/// Reads the key out of tables, unless the keyspace is gone: fills the cache, pins index and filter.
fn read_files(shared: &Shared) {
    match shared.lsm.get(shared.left, b"key") {
        Ok(found) => assert!(found.is_some(), "wrong: an acknowledged write is not found"),
        Err(error) => assert!(
            matches!(error, vault_core::Error::UnknownKeyspace { .. }),
            "wrong: {error}"
        ),
    }
}

#[test]
fn parts_of_a_table_are_booked_once() {
    holds("tables: what two readers keep is booked once", [()], |()| {
        let one_table = |shared: &Shared| {
            shared.write(1);
            shared.lsm.flush(None).unwrap();
        };
        let shared = beside(one_table, &[read_files], read_files);
        let budget = &shared.lsm.store().table_env.metadata_budget;
        let together = budget.used();
        shared.lsm.drop_keyspace(shared.left).unwrap();
        let right = budget.used();
        shared.lsm.get(shared.right, b"key").unwrap();
        let read = budget.used();
        assert!(together > right && read >= right);
        shared.lsm.drop_keyspace(shared.right).unwrap();
        assert_eq!(budget.used(), 0, "wrong: bytes stay booked");
    });
}

#[test]
fn files_that_go_with_the_version() {
    let name = "tables: broken, files go with the version, not with the last reader";
    fails(name, "wrong: ", [()], |()| {
        let merge = |shared: &Shared| {
            let store = shared.lsm.store();
            let pinned = store.views.pin();
            let view = pinned.keyspace(shared.left).unwrap();
            let before = view.version.tables().map(|(_, _, file)| file.meta().number);
            let before: Vec<u64> = before.collect();
            shared.compact();
            for number in before {
                store.reclaim.push(shared.table_path(number), number);
            }
            store.reclaim_files();
        };
        beside(Shared::write_and_flush, &[Shared::check_files_stay], merge);
    });
}
