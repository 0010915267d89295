//! Snapshots without the database that they are of: all that the repository alone allows, after the store is gone.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod support;

use std::ops::ControlFlow;
use std::path::Path;
use std::thread;
use std::time::Duration;

use support::Place;
use vault_core::vfs::{DiskFileSystem, FileSystem};
use vault_db::encryption::{Passphrase, SecretBytes};
use vault_db::snapshot::{
    ArchiveError, Form, Manifest, SnapshotOptions, StoredSnapshots, Until, VaultCount, is_encrypted,
};
use vault_db::{Database, EncryptedDatabase, Error, Scope, engine};
use vault_snapshot::repository::{CreateOptions, Document, Source};

impl Place {
    fn stored(&self) -> StoredSnapshots {
        StoredSnapshots::at(self.at("snapshots")).unwrap()
    }

    /// What lies in the place, but for locks.
    fn names(&self) -> Vec<String> {
        let entries = DiskFileSystem.read_dir(self.0.path()).unwrap();
        let names = entries.into_iter().map(|entry| entry.name);
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| !name.ends_with(".lock"));
        names.sort();
        names
    }
}

fn numbers(db: &Database) -> Vec<(i64, i64)> {
    let vault = db.existing_vault("v").unwrap();
    vault.items().unwrap().map(Result::unwrap).collect()
}

fn put(db: &Database, numbers: impl IntoIterator<Item = i64>) {
    let vault = db.vault("v").unwrap();
    for n in numbers {
        vault.put(n, &(n * n)).unwrap();
    }
}

/// A plain database with two snapshots, which is gone.
fn lost(place: &Place, form: Form) -> [Manifest; 2] {
    let db = Database::temp().unwrap();
    let snapshots = db.snapshots(place.at("snapshots")).unwrap();
    let options = SnapshotOptions {
        form,
        ..SnapshotOptions::default()
    };
    put(&db, 0..100);
    let first = snapshots.create_with(&options, &()).unwrap();
    put(&db, 100..150);
    [first, snapshots.create_with(&options, &()).unwrap()]
}

#[test]
fn everything_but_the_database_is_there() {
    for form in [Form::Physical, Form::Logical] {
        let place = Place::new();
        let [first, second] = lost(&place, form);
        let snapshots = place.stored();
        assert_eq!(snapshots.list().unwrap(), [first.clone(), second.clone()]);
        let verified = snapshots.verify(second.name, &()).unwrap();
        assert_eq!(verified.content.is_some(), form == Form::Physical);
        assert_eq!(numbers(&snapshots.open(first.name).unwrap()).len(), 100);
        let everything = Scope::Everything;
        let differences = snapshots.diff(first.name, second.name, &everything, |_| {
            ControlFlow::Continue(())
        });
        let differences = differences.unwrap();
        assert_eq!((differences[0].added, differences[0].same), (50, 100));
        let drilled = snapshots.drill().unwrap();
        assert!(drilled.is_good() && drilled.entries == 150, "{drilled:?}");
        let target = place.at("new");
        snapshots
            .restore_to(second.name, &target, None, &())
            .unwrap();
        let restored = Database::open(&target).unwrap();
        let expected: Vec<_> = (0..150).map(|n| (n, n * n)).collect();
        assert_eq!(numbers(&restored), expected);
    }
}

/// Documents may be those of an encrypted database.
#[test]
fn opened_documents_stay_in_memory() {
    let place = Place::new();
    let [first, _] = lost(&place, Form::Logical);
    let opened = place.stored().open(first.name).unwrap();
    assert!(opened.lsm().is_none(), "it has files");
}

#[test]
fn an_encrypted_one_comes_back_with_its_key() {
    let place = Place::new();
    let db = EncryptedDatabase::open(place.at("store"), passphrase()).unwrap();
    put(&db, 0..10);
    let made = db.snapshots(place.at("snapshots")).unwrap();
    let made = made.create().unwrap();
    assert!(is_encrypted(&made));
    db.close().unwrap();
    drop(db);

    let without = place.stored();
    assert!(without.verify(made.name, &()).unwrap().content.is_none());
    let error = without.drill().unwrap_err();
    assert!(
        matches!(error, Error::Engine(engine::Error::Encrypted { .. })),
        "{error}"
    );
    let with = without.with_key(passphrase());
    let content = with.verify(made.name, &()).unwrap().content;
    assert!(content.unwrap().is_clean());
    assert!(with.drill().unwrap().is_good());
    with.restore_to(made.name, place.at("new"), None, &())
        .unwrap();
    let restored = EncryptedDatabase::open(place.at("new"), passphrase()).unwrap();
    assert_eq!(numbers(&restored).len(), 10);
}

fn passphrase() -> Passphrase {
    let secret = SecretBytes::from_string("open sesame".to_owned());
    Passphrase::new(secret.unwrap()).unwrap()
}

#[track_caller]
fn is_damaged<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Snapshot(error)) if matches!(&*error, ArchiveError::Damaged { .. }) => {
            error.to_string()
        }
        other => panic!("{other:?}"),
    }
}

/// Whoever takes what others made of documents into memory takes a bounded part of it.
#[test]
fn documents_that_are_too_large_for_memory_are_restored_into_a_directory() {
    let place = Place::new();
    let [first, _] = lost(&place, Form::Logical);
    let bytes = first.bytes();
    let enough = place.stored().with_documents_bytes_max(bytes);
    assert_eq!(numbers(&enough.open(first.name).unwrap()).len(), 100);
    let snapshots = place.stored().with_documents_bytes_max(bytes - 1);
    let error = snapshots.open(first.name).unwrap_err();
    assert!(error.to_string().contains("into a directory"), "{error}");
    assert!(
        matches!(&error, Error::Snapshot(e) if matches!(**e, ArchiveError::OverLimit { .. })),
        "{error}"
    );
    // What keeps nothing needs no bound.
    snapshots.verify(first.name, &()).unwrap();
    let target = place.at("new");
    snapshots
        .restore_to(first.name, &target, None, &())
        .unwrap();
    assert_eq!(numbers(&Database::open(&target).unwrap()).len(), 100);
}

/// What anybody could have put there is not called whole, as it is not restored.
#[test]
fn a_plain_one_is_refused_where_a_key_is_given() {
    let place = Place::new();
    let [first, _] = lost(&place, Form::Physical);
    let snapshots = place.stored().with_key(passphrase());
    let said = is_damaged(snapshots.verify(first.name, &()));
    assert!(said.contains("not encrypted"), "{said}");
    is_damaged(snapshots.restore_to(first.name, place.at("new"), None, &()));
    assert_eq!(place.names(), ["snapshots"]);
    place.stored().verify(first.name, &()).unwrap();
}

/// A logical snapshot of one document, of which every hash is right.
fn of_text(place: &Place, text: &'static str) -> Manifest {
    let mut source = Source::new([7; 16], Form::Logical);
    source.documents.push(Document {
        name: "v".to_owned(),
        write: Box::new(move |to| {
            to.write_all(text.as_bytes())?;
            Ok(VaultCount {
                entries: 1,
                bytes: 1,
            })
        }),
    });
    let snapshots = place.stored();
    let repository = snapshots.repository();
    repository
        .create(source, &CreateOptions::default(), &())
        .unwrap()
}

#[test]
fn documents_that_cannot_be_restored_are_not_called_whole() {
    const CUT: &str = r#"{"format": "vault-json-v1", "entries": [{"key": "a", "#;
    const TWICE: &str = r#"{"format": "vault-json-v1", "entries": [
        {"key": "a", "value": 1}, {"key": "a", "value": 2}]}"#;
    const TWICE_UNSORTED: &str = r#"{"format": "vault-json-v1", "entries": [
        {"key": "a", "value": 1}, {"key": "b", "value": 1}, {"key": "a", "value": 2}]}"#;
    for text in [CUT, TWICE, TWICE_UNSORTED, "no document"] {
        let place = Place::new();
        let made = of_text(&place, text);
        let snapshots = place.stored();
        snapshots.repository().verify(made.name, &()).unwrap();
        let said = is_damaged(snapshots.verify(made.name, &()));
        assert!(said.contains("cannot be read"), "{said}");
        let restored = snapshots.restore_to(made.name, place.at("new"), None, &());
        assert!(restored.is_err(), "{text}");
        assert_eq!(place.names(), ["snapshots"]);
    }
    let place = Place::new();
    let unsorted = r#"{"format": "vault-json-v1", "entries": [
        {"key": "b", "value": 4}, {"key": "a", "value": 1}]}"#;
    let made = of_text(&place, unsorted);
    place.stored().verify(made.name, &()).unwrap();
    let target = place.at("new");
    place
        .stored()
        .restore_to(made.name, &target, None, &())
        .unwrap();
    let restored = Database::open(&target).unwrap();
    let vault = restored.existing_vault("v").unwrap();
    assert_eq!(vault.get::<i64>("a").unwrap(), Some(1));
    assert_eq!(vault.get::<i64>("b").unwrap(), Some(4));
}

/// A later one that cannot be read is told, and no older one is tried out in its place.
#[test]
fn a_drill_is_of_the_latest_or_says_that_nobody_can_tell() {
    let place = Place::new();
    let [_, second] = lost(&place, Form::Physical);
    let manifest = place
        .at("snapshots")
        .join(second.name.to_string())
        .join("manifest.json");
    let file = DiskFileSystem.open_for_write(&manifest).unwrap();
    file.write_at(b"!", 0).unwrap();
    let said = is_damaged(place.stored().drill());
    assert!(said.contains("what is the latest cannot be told"), "{said}");
}

/// Ships everything that is written, and gives the last write.
fn ship(place: &Place) -> u64 {
    let db = Database::open(place.at("store")).unwrap();
    let snapshots = db.snapshots(place.at("snapshots")).unwrap();
    let archiver = snapshots.log_archive(place.at("log")).start(None).unwrap();
    put(&db, 0..20);
    let latest = db.engine().latest_sequence();
    while archiver.status().sequence < latest {
        thread::park_timeout(Duration::from_millis(20));
    }
    archiver.stop();
    db.close().unwrap();
    latest
}

#[test]
fn the_log_is_restored_and_not_shipped() {
    let place = Place::new();
    let latest = ship(&place);
    let archive = place.stored().log_archive(place.at("log"));
    let error = archive.start(None).unwrap_err();
    assert!(
        matches!(error, Error::UnsupportedSnapshot { .. }),
        "{error}"
    );
    let chains = archive.chains().unwrap();
    assert_eq!((chains.len(), chains[0].until), (1, latest));
    let restored = archive.restore_to(Until::End, place.at("new")).unwrap();
    assert_eq!(restored.sequence, latest);
    assert_eq!(numbers(&Database::open(place.at("new")).unwrap()).len(), 20);
}

#[test]
fn what_is_cancelled_leaves_nothing() {
    let place = Place::new();
    ship(&place);
    let stop = |_: u64, _: u64| ControlFlow::Break(());
    let before = place.names();
    let archive = place.stored().log_archive(place.at("log"));
    let target: &Path = &place.at("new");
    let cancelled = [
        archive
            .restore_to_with(Until::End, target, &stop, |_| ControlFlow::Continue(()))
            .unwrap_err(),
        place.stored().drill_with(&stop).unwrap_err(),
    ];
    for error in cancelled {
        let is_cancelled = |error: &ArchiveError| matches!(error, ArchiveError::Cancelled);
        assert!(
            matches!(&error, Error::Snapshot(error) if is_cancelled(error)),
            "{error}"
        );
    }
    assert_eq!(place.names(), before);
}
