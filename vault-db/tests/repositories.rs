//! Whose snapshots a repository and an archive of the log hold: each is for one store, so that the retention of one database never
//! removes what another needs.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vault_core::MemoryEngine;
use vault_core::vfs::{DiskFileSystem, FileSystem};
use vault_db::snapshot::{
    ArchiveError, Form, LogArchive, Retention, Schedule, SnapshotOptions, Until,
};
use vault_db::{Database, Error, Scope};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A database with one entry.
    fn open(&self, name: &str) -> Database {
        let db = Database::open(self.at(name)).unwrap();
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
    assert_eq!(theirs.list().unwrap(), [made.clone()]);
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
    assert_eq!(snapshots.create().unwrap().parent, Some(physical.name));
    let keep = Retention {
        last: 1,
        ..Retention::default()
    };
    let plan = snapshots.repository().prune(&keep, false).unwrap();
    assert_eq!(plan.remove, [documents.name]);
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
