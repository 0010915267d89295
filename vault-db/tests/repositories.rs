//! Whose snapshots a repository and an archive of the log hold: each is for one store, so that the retention of one database never
//! removes what another needs. And how old what is restored may be: by what the manifest says, and by what the files do.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use support::Place;
use vault_core::MemoryEngine;
use vault_core::vfs::{DiskFileSystem, FileSystem};
use vault_db::encryption::{Passphrase, SecretBytes};
use vault_db::snapshot::{
    ArchiveError, Form, LogArchive, Manifest, Retention, Schedule, SnapshotOptions, Snapshots,
    Until,
};
use vault_db::{Database, EncryptedDatabase, Error, Scope};
use vault_snapshot::repository::{CreateOptions, Source, SourceFile};

impl Place {
    /// A database with one entry.
    fn open(&self, name: &str) -> Database {
        let db = Database::open(self.at(name)).unwrap();
        db.vault("whose").unwrap().put("name", name).unwrap();
        db
    }

    /// An encrypted one with one entry.
    fn open_encrypted(&self, name: &str) -> EncryptedDatabase {
        let db = encrypted(&self.at(name));
        db.vault("whose").unwrap().put("name", name).unwrap();
        db
    }

    fn archive(&self, db: &Database, snapshots: &str) -> LogArchive {
        let snapshots = db.snapshots(self.at(snapshots)).unwrap();
        snapshots.log_archive(self.at("log"))
    }
}

fn whose(db: &Database) -> String {
    db.vault("whose").unwrap().get("name").unwrap().unwrap()
}

fn logical() -> SnapshotOptions {
    SnapshotOptions {
        form: Form::Logical,
        ..SnapshotOptions::default()
    }
}

#[track_caller]
fn is_of_another<T: std::fmt::Debug>(result: Result<T, Error>) {
    match result {
        Err(Error::Snapshot(error)) if matches!(&*error, ArchiveError::OtherStore { .. }) => {}
        other => panic!("{other:?}"),
    }
}

fn names(directory: &Path) -> Vec<std::ffi::OsString> {
    let entries = DiskFileSystem.read_dir(directory).unwrap_or_default();
    let mut names: Vec<_> = entries.into_iter().map(|entry| entry.name).collect();
    names.sort();
    names
}

#[test]
fn a_second_database_is_sent_elsewhere_and_may_look_all_the_same() {
    let place = Place::new();
    let (ours, other) = (place.open("ours"), place.open("other"));
    let snapshots = ours.snapshots(place.at("snapshots")).unwrap();
    let made = snapshots.create().unwrap();
    let theirs = other.snapshots(place.at("snapshots")).unwrap();
    is_of_another(theirs.create());
    is_of_another(theirs.create_with(&logical(), &()));
    is_of_another(
        theirs
            .clone()
            .run(Schedule::default(), SnapshotOptions::default(), None),
    );
    is_of_another(theirs.log_archive(place.at("log")).start(None));
    assert!(names(&place.at("log")).is_empty(), "nothing was shipped");
    assert_eq!(theirs.list().unwrap(), std::slice::from_ref(&made));
    assert_eq!(theirs.repository().survey().unwrap().interrupted, []);
    // Restoring what is another's is what moving a state is.
    theirs.restore(made.name, &Scope::Everything).unwrap();
    assert_eq!(whose(&other), "ours");
    is_of_another(theirs.create());
    let at_home = other.snapshots(place.at("of other")).unwrap();
    at_home.create().unwrap();
}

#[test]
fn both_forms_of_one_database_share_a_repository() {
    let place = Place::new();
    let db = place.open("ours");
    let snapshots = db.snapshots(place.at("snapshots")).unwrap();
    let physical = snapshots.create().unwrap();
    let documents = snapshots.create_with(&logical(), &()).unwrap();
    assert_eq!(documents.store, physical.store);
    let next = snapshots.create().unwrap();
    assert_eq!(next.parent, Some(physical.name));
    let later = snapshots.create_with(&logical(), &()).unwrap();
    let keep = Retention {
        last: 1,
        ..Retention::default()
    };
    let plan = snapshots.repository().prune(&keep, false).unwrap();
    // Each form for itself: newer documents are no reason to remove files.
    assert_eq!(plan.remove, [documents.name]);
    let left = [physical.name, next.name, later.name];
    assert_eq!(snapshots.repository().names().unwrap(), left);
}

#[test]
fn a_store_that_was_restored_goes_on_in_its_repository_and_one_made_of_documents_does_not() {
    let place = Place::new();
    let db = place.open("ours");
    let snapshots = db.snapshots(place.at("snapshots")).unwrap();
    let physical = snapshots.create().unwrap();
    let documents = snapshots.create_with(&logical(), &()).unwrap();
    snapshots
        .restore_to(physical.name, place.at("again"), None, &())
        .unwrap();
    snapshots
        .restore_to(documents.name, place.at("anew"), None, &())
        .unwrap();
    drop(db);

    let again = Database::open(place.at("again")).unwrap();
    let went_on = again
        .snapshots(place.at("snapshots"))
        .unwrap()
        .create()
        .unwrap();
    assert_eq!(went_on.store, physical.store);
    assert_ne!(went_on.instance, physical.instance);
    let anew = Database::open(place.at("anew")).unwrap();
    is_of_another(anew.snapshots(place.at("snapshots")).unwrap().create());
    let migrated = Database::open(place.at("migrated")).unwrap();
    again.migrate_to(&migrated).unwrap();
    is_of_another(migrated.snapshots(place.at("snapshots")).unwrap().create());
}

#[test]
fn databases_without_files_are_told_apart_too() {
    let place = Place::new();
    let in_memory = || {
        let db = Database::builder()
            .on(Arc::new(MemoryEngine::new()))
            .unwrap();
        db.vault("v").unwrap().put("a", &1).unwrap();
        db
    };
    let (ours, other) = (in_memory(), in_memory());
    let snapshots = ours.snapshots(place.at("snapshots")).unwrap();
    let made = snapshots.create_with(&logical(), &()).unwrap();
    assert_ne!(made.store.0, [0; 16]);
    snapshots.create_with(&logical(), &()).unwrap();
    is_of_another(
        other
            .snapshots(place.at("snapshots"))
            .unwrap()
            .create_with(&logical(), &()),
    );
}

/// Two databases that ship into one directory: each one's chains seemed to the other to go on from no snapshot.
#[test]
fn pruning_the_log_leaves_what_another_store_shipped() {
    let place = Place::new();
    let every = Some(Duration::from_millis(10));
    let (ours, other) = (place.open("ours"), place.open("other"));
    let (archive, theirs) = (
        place.archive(&ours, "snapshots"),
        place.archive(&other, "of other"),
    );
    for (archive, db) in [(&archive, &ours), (&theirs, &other)] {
        let archiver = archive.start(every).unwrap();
        db.vault("whose").unwrap().put("then", "more").unwrap();
        archiver.stop();
    }
    assert_eq!(archive.chains().unwrap().len(), 2);
    archive.prune().unwrap();
    assert_eq!(archive.chains().unwrap().len(), 2);
    theirs.restore_to(Until::End, place.at("then")).unwrap();
    assert_eq!(whose(&Database::open(place.at("then")).unwrap()), "other");
}

fn passphrase() -> Passphrase {
    Passphrase::new(SecretBytes::from_string("correct horse".to_owned()).unwrap()).unwrap()
}

fn encrypted(path: &Path) -> EncryptedDatabase {
    EncryptedDatabase::open(path, passphrase()).unwrap()
}

#[track_caller]
fn is_too_old<T: std::fmt::Debug>(result: Result<T, Error>, generation: u64) {
    match result {
        Err(Error::TooOld {
            generation: found,
            least,
            ..
        }) => {
            assert_eq!(found, generation);
            assert!(least > found);
        }
        other => panic!("{other:?}"),
    }
}

/// A snapshot whose manifest claims a later generation than the files have.
fn forged(db: &Database, snapshots: &Snapshots, generation: u64) -> Manifest {
    let capture = db.lsm().unwrap().capture().unwrap();
    let mut source = Source::new(capture.store, Form::Physical);
    source.instance = db.lsm().unwrap().instance();
    source.generation = generation;
    source.sequence = capture.sequence;
    source.files = capture
        .files
        .into_iter()
        .map(|file| SourceFile {
            name: file.name,
            bytes: file.bytes,
            salt: file.salt,
            immutable: file.immutable,
            content: file.content,
        })
        .collect();
    let options = CreateOptions::default();
    snapshots
        .repository()
        .create(source, &options, &())
        .unwrap()
}

#[test]
fn what_is_older_than_asked_for_is_refused_everywhere_and_nothing_changes() {
    let place = Place::new();
    let db = place.open("ours");
    let snapshots = db.snapshots(place.at("snapshots")).unwrap();
    let physical = snapshots.create().unwrap();
    let documents = snapshots.create_with(&logical(), &()).unwrap();
    let generation = physical.generation;
    assert_eq!(documents.generation, generation);
    db.vault("whose").unwrap().put("name", "later").unwrap();

    let accepts = snapshots.clone().with_least_generation(generation);
    accepts.open(physical.name).unwrap();
    accepts.drill().unwrap();
    let refuses = snapshots.clone().with_least_generation(generation + 1);
    for made in [&physical, &documents] {
        is_too_old(refuses.open(made.name), generation);
        is_too_old(refuses.verify(made.name, &()), generation);
        is_too_old(refuses.restore(made.name, &Scope::Everything), generation);
        is_too_old(refuses.preview(made.name, &Scope::Everything), generation);
        is_too_old(
            refuses.restore_to(made.name, place.at("then"), None, &()),
            generation,
        );
        // The stricter of the two counts.
        let less = Some(generation);
        is_too_old(
            refuses.restore_to(made.name, place.at("then"), less, &()),
            generation,
        );
        let more = Some(generation + 1);
        is_too_old(
            accepts.restore_to(made.name, place.at("then"), more, &()),
            generation,
        );
    }
    is_too_old(refuses.drill(), generation);
    assert_eq!(whose(&db), "later");
    assert!(names(&place.at("then")).is_empty());
    accepts.restore(documents.name, &Scope::Everything).unwrap();
    assert_eq!(whose(&db), "ours");
}

#[test]
fn a_manifest_that_claims_a_later_generation_is_found_out_by_the_files() {
    let place = Place::new();
    let secret = place.open_encrypted("secret");
    let plain = place.open("plain");
    for (db, at) in [(&plain, "of plain"), (&*secret, "of secret")] {
        let mut snapshots = db.snapshots(place.at(at)).unwrap();
        if at == "of secret" {
            snapshots = snapshots.with_key(passphrase());
        }
        let generation = db.lsm().unwrap().generation();
        let made = forged(db, &snapshots, generation + 10);
        let refuses = snapshots.clone().with_least_generation(generation + 1);
        db.vault("whose").unwrap().put("name", "later").unwrap();
        is_too_old(refuses.restore(made.name, &Scope::Everything), generation);
        is_too_old(
            refuses.restore_to(made.name, place.at("then"), None, &()),
            generation,
        );
        is_too_old(refuses.drill(), generation);
        is_too_old(refuses.verify(made.name, &()), generation);
        assert_eq!(whose(db), "later");
        assert!(names(&place.at("then")).is_empty());
        let accepts = snapshots.with_least_generation(generation);
        let target = place.at(&format!("then {at}"));
        accepts.restore_to(made.name, &target, None, &()).unwrap();
        accepts.restore(made.name, &Scope::Everything).unwrap();
        assert_ne!(whose(db), "later");
    }
    // Without the key nobody has looked into it: all there is to go by is the manifest.
    let blind = secret.snapshots(place.at("of secret")).unwrap();
    let newest = blind.list().unwrap().pop().unwrap();
    let blind = blind.with_least_generation(newest.generation);
    blind
        .restore_to(newest.name, place.at("blind"), None, &())
        .unwrap();
}

#[test]
fn going_back_in_the_log_looks_at_the_generation_of_its_base() {
    let place = Place::new();
    let db = place.open("ours");
    let archive = place.archive(&db, "snapshots");
    let archiver = archive.start(Some(Duration::from_millis(10))).unwrap();
    archiver.stop();
    let base = db
        .snapshots(place.at("snapshots"))
        .unwrap()
        .list()
        .unwrap()
        .pop()
        .unwrap();
    let at_least = |generation: u64| {
        let snapshots = db.snapshots(place.at("snapshots")).unwrap();
        let snapshots = snapshots.with_least_generation(generation);
        let target = place.at(&format!("then {generation}"));
        snapshots
            .log_archive(place.at("log"))
            .restore_to(Until::End, target)
    };
    is_too_old(at_least(base.generation + 1), base.generation);
    at_least(base.generation).unwrap();
}

/// What somebody without the key puts in the place of an encrypted snapshot.
#[test]
fn a_plain_snapshot_is_not_taken_for_an_encrypted_one() {
    let place = Place::new();
    let secret = place.open_encrypted("secret");
    let plain = place.open("plain");
    let planted = plain
        .snapshots(place.at("snapshots"))
        .unwrap()
        .create()
        .unwrap();
    let snapshots = secret
        .snapshots(place.at("snapshots"))
        .unwrap()
        .with_key(passphrase());
    let refused = |error: Error| match error {
        Error::Snapshot(error) => {
            assert!(matches!(&*error, ArchiveError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains("not encrypted"), "{error}");
        }
        other => panic!("{other:?}"),
    };
    refused(
        snapshots
            .restore(planted.name, &Scope::Everything)
            .unwrap_err(),
    );
    refused(
        snapshots
            .restore_to(planted.name, place.at("then"), None, &())
            .unwrap_err(),
    );
    refused(snapshots.open(planted.name).unwrap_err());
    assert_eq!(whose(&secret), "secret");
    assert!(names(&place.at("then")).is_empty());
}
