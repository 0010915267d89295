//! A catalog that damage took something from: what it does not know any more stays where it is.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::path::Path;
use std::time::Duration;

use vault_db::engine::{
    Engine, KeyRange, KeyspaceOptions, Lsm, LsmOptions, Reader, WriteBatch, WriteOptions,
};
use vault_db::{Database, Durability, Error, Vault};

const CATALOG: &str = "vault.catalog";
const HEADER: &[u8] = b"\x00";
/// Of the vault "second", which belongs to no tenant.
const RECORD_OF_SECOND: &[u8] = b"\x01\x00\x00\x00\x00second";

fn open(directory: &Path) -> Result<Database, Error> {
    Database::builder()
        .durability(Durability::Os)
        .open(directory)
}

fn fill(vault: &Vault, of: &str) {
    for i in 0..99_u32 {
        vault.put(format!("{of}-{i}"), &i).unwrap();
    }
    let hour = Duration::from_secs(3600);
    vault.put_for(format!("{of}-x"), &0, hour).unwrap();
}

/// A store with two vaults, of which each key begins with the vault's name.
fn two_vaults(directory: &Path) {
    let db = open(directory).unwrap();
    for name in ["first", "second"] {
        fill(&db.vault(name).unwrap(), name);
    }
    db.close().unwrap();
}

/// The store without the data layer: what damage, or a salvage of what it left, would do to it.
fn below<T>(directory: &Path, act: impl FnOnce(&Lsm) -> T) -> T {
    let store = Lsm::open(directory, LsmOptions::default()).unwrap();
    let outcome = act(&store);
    store.close().unwrap();
    outcome
}

fn lose(store: &Lsm, key: &[u8]) -> Vec<u8> {
    let catalog = store.keyspace(CATALOG).unwrap().unwrap();
    let lost = store.get(catalog, key).unwrap().unwrap();
    let mut batch = WriteBatch::new();
    batch.delete(catalog, key);
    store.write(&batch, &WriteOptions::SYNC).unwrap();
    lost.to_vec()
}

/// How many entries the keyspace of a vault has, and how its first key begins; `None`: there is no such keyspace.
fn entries(store: &Lsm, vault: u32) -> Option<(usize, Vec<u8>)> {
    let keyspace = store.keyspace(&format!("vault.v{vault}")).unwrap()?;
    let entries = store.scan(keyspace, KeyRange::all()).unwrap();
    let keys: Vec<Vec<u8>> = entries.map(|entry| entry.unwrap().0.to_vec()).collect();
    let first = keys.first().map(|key| key[1..6].to_vec());
    Some((keys.len(), first.unwrap_or_default()))
}

#[test]
fn a_vault_whose_record_is_lost_stays_and_nothing_takes_its_place() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("db");
    two_vaults(&directory);
    let before = below(&directory, |store| entries(store, 2));
    assert_eq!(before, Some((100, b"secon".to_vec())));
    below(&directory, |store| lose(store, RECORD_OF_SECOND));

    for round in 0..2 {
        let db = open(&directory).unwrap();
        let names: Vec<String> = db.vaults().into_iter().map(|info| info.name).collect();
        assert_eq!(names.contains(&"second".to_owned()), round > 0);
        assert_eq!(db.existing_vault("first").unwrap().len().unwrap(), 100);
        // A new one of that name has nothing of the old one's.
        assert!(db.vault("second").unwrap().is_empty().unwrap());
        db.close().unwrap();
        assert_eq!(below(&directory, |store| entries(store, 2)), before);
        let expiring = below(&directory, |store| {
            let expiry = store.keyspace("vault.expiry").unwrap().unwrap();
            let of_second = store.scan_prefix(expiry, &2_u32.to_be_bytes());
            of_second.unwrap().count()
        });
        assert_eq!(expiring, 1);
    }
}

#[test]
fn an_older_header_that_damage_brings_back_has_no_vault_take_the_place_of_another() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("db");
    let db = open(&directory).unwrap();
    fill(&db.vault("first").unwrap(), "first");
    db.close().unwrap();
    let older = below(&directory, |store| {
        let catalog = store.keyspace(CATALOG).unwrap().unwrap();
        store.get(catalog, HEADER).unwrap().unwrap().to_vec()
    });
    two_vaults(&directory);
    below(&directory, |store| {
        let catalog = store.keyspace(CATALOG).unwrap().unwrap();
        let mut batch = WriteBatch::new();
        batch.put(catalog, HEADER, &older);
        store.write(&batch, &WriteOptions::SYNC).unwrap();
        lose(store, RECORD_OF_SECOND);
    });
    let before = below(&directory, |store| entries(store, 2));

    let db = open(&directory).unwrap();
    assert!(db.vault("third").unwrap().is_empty().unwrap());
    db.close().unwrap();
    assert_eq!(below(&directory, |store| entries(store, 2)), before);
    assert_eq!(before, Some((100, b"secon".to_vec())));
}

#[test]
fn a_store_of_vaults_without_a_header_is_refused_as_it_is() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("db");
    two_vaults(&directory);
    below(&directory, |store| lose(store, HEADER));
    let error = open(&directory).unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
    assert!(error.to_string().contains("header"), "{error}");

    // As after a salvage that nobody told the names of the data layer's keyspaces.
    below(&directory, |store| {
        let catalog = store.keyspace(CATALOG).unwrap().unwrap();
        store.drop_keyspace(catalog).unwrap();
    });
    let error = open(&directory).unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
    below(&directory, |store| {
        assert_eq!(store.keyspace(CATALOG).unwrap(), None);
        for (vault, first) in [(1, "first"), (2, "secon")] {
            let expected = Some((100, first.as_bytes().to_vec()));
            assert_eq!(entries(store, vault), expected);
        }
    });
}

#[test]
fn what_is_marked_as_on_its_way_goes_with_its_mark() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("db");
    two_vaults(&directory);
    below(&directory, |store| {
        let catalog = store.keyspace(CATALOG).unwrap().unwrap();
        let stray = store
            .create_keyspace("vault.v3", &KeyspaceOptions::default())
            .unwrap();
        let mut batch = WriteBatch::new();
        batch.put(stray, b"key", b"value");
        // One on its way, one that has a record all the same, and one that nothing is left of.
        for marked in [3_u32, 2, 7] {
            batch.put(catalog, &[&[9], &marked.to_be_bytes()[..]].concat(), b"");
        }
        store.write(&batch, &WriteOptions::SYNC).unwrap();
    });
    open(&directory).unwrap().close().unwrap();
    below(&directory, |store| {
        assert_eq!(entries(store, 3), None);
        assert_eq!(entries(store, 2), Some((100, b"secon".to_vec())));
        let catalog = store.keyspace(CATALOG).unwrap().unwrap();
        let marks = store.scan_prefix(catalog, &[9]).unwrap();
        assert_eq!(marks.count(), 0);
    });
}

/// What a vault leaves behind that was created, deleted, copied and renamed: no marks.
#[test]
fn marks_end_with_what_they_are_for() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("db");
    two_vaults(&directory);
    let db = open(&directory).unwrap();
    let first = db.existing_vault("first").unwrap();
    first.copy_to("copy").unwrap();
    first.copy_to("first").unwrap_err();
    db.existing_vault("copy").unwrap().rename("other").unwrap();
    db.existing_vault("second").unwrap().delete().unwrap();
    db.close().unwrap();
    below(&directory, |store| {
        let catalog = store.keyspace(CATALOG).unwrap().unwrap();
        assert_eq!(store.scan_prefix(catalog, &[9]).unwrap().count(), 0);
        let vaults = [1, 2, 3].map(|vault| entries(store, vault).map(|(count, _)| count));
        assert_eq!(vaults, [Some(100), None, Some(100)]);
    });
}
