//! Restores in place that are disturbed: disks that run full half-way, callers that panic, sources that are the target itself, change, close or
//! are encrypted. Before and after there is one whole state, and nothing is left behind.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod support;

use std::io::{self, BufRead, Read};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use support::{everything, vault_keyspaces};
use vault_core::vfs::{Fault, FaultKind, FileSystem, MemoryFileSystem, OperationClass};
use vault_db::encryption::{EncryptedProtection, Kdf, KdfBounds, Passphrase, SecretBytes};
use vault_db::engine::{BackgroundWork, Settings};
use vault_db::{
    Database, DatabaseBuilder, Durability, Error, ErrorKind, ImportMode, ImportOptions, Quota,
    RestoreProgress, Scope, VaultChoice,
};

const STORE: &str = "/store";

fn temp() -> Database {
    Database::builder()
        .durability(Durability::Os)
        .temp()
        .unwrap()
}

fn in_memory(fs: &MemoryFileSystem) -> DatabaseBuilder {
    let fs: Arc<dyn FileSystem> = Arc::new(fs.clone());
    Database::builder()
        .settings(Settings {
            durability: Durability::Sync,
            background: BackgroundWork::Manual,
            memory_bytes: 16 << 20,
            log_segment_bytes: Some(64 << 10),
            ..Settings::default()
        })
        .engine_options(|engine| engine.file_system(fs))
}

/// More than goes without a word of progress.
fn large() -> Database {
    let db = temp();
    for name in ["first", "second"] {
        let many = (0..6_000_i64).map(|n| (format!("{n:06}"), n));
        db.vault(name).unwrap().update(many).unwrap();
    }
    db
}

/// The message of a panic that is meant to reach the caller.
fn panic_of<T>(work: impl FnOnce() -> T) -> String {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(_) => panic!("it was to panic"),
        Err(payload) => (*payload.downcast_ref::<&str>().unwrap()).to_owned(),
    }
}

/// Whatever room there is: either nothing has changed, and the error says that the disk is full, or everything has come.
#[test]
fn a_disk_that_runs_full_half_way_changes_nothing() {
    let source = large();
    let coming = everything(&source);
    let (mut refused, mut came) = (0, 0);
    for room in (0..).step_by(10 << 10) {
        let fs = MemoryFileSystem::new();
        let db = in_memory(&fs).open(STORE).unwrap();
        db.vault("here").unwrap().put("x", &1).unwrap();
        let (before, keyspaces) = (everything(&db), vault_keyspaces(&db));
        fs.set_capacity(Some(fs.bytes_used() + room));
        let restored = db.restore_from(&source, &Scope::Everything);
        fs.set_capacity(None);
        match restored {
            Ok(outcome) => {
                assert_eq!(outcome.vaults, 2);
                assert_eq!(everything(&db), coming);
                came += 1;
                break;
            }
            Err(error) => {
                assert!(matches!(error, Error::Engine(_)), "{room}: {error:?}");
                assert_eq!(error.kind(), ErrorKind::Full, "{room}: {error}");
                assert_eq!(everything(&db), before, "{room}");
                refused += 1;
            }
        }
        // With room again, it works, and so does everything else.
        db.vault("here").unwrap().put("y", &2).unwrap();
        assert_eq!(vault_keyspaces(&db), keyspaces, "{room}");
        db.restore_from(&source, &Scope::Everything).unwrap();
        assert_eq!(everything(&db), coming, "{room}");
        db.close().unwrap();
        assert_eq!(everything(&in_memory(&fs).open(STORE).unwrap()), coming);
    }
    assert!(refused >= 5 && came == 1, "{refused} and {came}");
}

/// A single operation that finds no room, each in turn. From the moment of the exchange on it may be in place all the same, and whole.
#[test]
fn one_operation_without_room_leaves_one_whole_state() {
    let source = large();
    let coming = everything(&source);
    let full = FaultKind::Error(io::ErrorKind::StorageFull);
    let (mut refused, mut after) = (0, 0);
    loop {
        let fs = MemoryFileSystem::new();
        let db = in_memory(&fs).open(STORE).unwrap();
        db.vault("here").unwrap().put("x", &1).unwrap();
        let before = everything(&db);
        fs.inject(Fault::new(OperationClass::Any, full).after(after));
        let restored = db.restore_from(&source, &Scope::Everything);
        let hit = fs.faults_hit();
        fs.clear_faults();
        match restored {
            Ok(_) => assert_eq!(everything(&db), coming, "{after}"),
            Err(error) => {
                assert!(matches!(error, Error::Engine(_)), "{after}: {error:?}");
                let found = everything(&db);
                assert!(found == before || found == coming, "{after}: {error}");
                refused += usize::from(found == before);
            }
        }
        drop(db);
        let again = in_memory(&fs).open(STORE).unwrap();
        let found = everything(&again);
        assert!(found == before || found == coming, "{after}");
        assert_eq!(vault_keyspaces(&again), found.len(), "{after}");
        if hit == 0 {
            break;
        }
        after += 1;
    }
    assert!(refused >= 5, "{refused} of {after}");
}

#[test]
fn a_panic_of_the_caller_leaves_nothing_of_a_restore() {
    let source = large();
    let db = temp();
    db.vault("here").unwrap().put("x", &1).unwrap();
    let before = everything(&db);
    // In the second vault, when the first one is filled.
    let seen = panic_of(|| {
        db.restore_with(&source, &Scope::Everything, |told| {
            assert!(told.vaults_done == 0, "the caller's");
            ControlFlow::Continue(())
        })
    });
    assert_eq!(seen, "the caller's");
    assert_eq!(everything(&db), before);
    assert_eq!(vault_keyspaces(&db), 1);
    // And the next one is not held up.
    db.restore_from(&source, &Scope::Everything).unwrap();
    assert_eq!(everything(&db), everything(&source));
}

#[test]
fn a_panic_of_the_caller_leaves_nothing_of_a_copy() {
    let db = large();
    let vault = db.existing_vault("first").unwrap();
    let seen = panic_of(|| vault.copy_with("copy", |_| panic!("the caller's")));
    assert_eq!(seen, "the caller's");
    assert_eq!(vault_keyspaces(&db), 2);
    assert!(db.existing_vault("copy").is_err());
    assert_eq!(vault.copy_to("copy").unwrap().len().unwrap(), 6_000);
}

/// Text that panics at some point, as a reader of the caller's own may.
struct Breaking<'a>(&'a [u8]);

impl Read for Breaking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Breaking<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        assert!(!self.0.is_empty(), "the caller's");
        Ok(&self.0[..self.0.len().min(64)])
    }

    fn consume(&mut self, bytes: usize) {
        self.0 = &self.0[bytes..];
    }
}

#[test]
fn a_panic_of_the_caller_leaves_nothing_of_an_import() {
    let mut text = Vec::new();
    let source = large();
    let from = source.existing_vault("first").unwrap();
    from.export(vault_db::ExportFormat::Json, &mut text)
        .unwrap();
    let db = temp();
    let vault = db.vault("v").unwrap();
    vault.put("x", &1).unwrap();
    let before = everything(&db);
    let replace = ImportOptions {
        mode: ImportMode::Replace,
    };
    let by_progress =
        panic_of(|| db.import_with("v", &text[..], &replace, |_| panic!("the caller's")));
    let half = &text[..text.len() / 2];
    let by_reader = panic_of(|| db.import("v", Breaking(half), &replace));
    assert_eq!([by_progress, by_reader], ["the caller's"; 2]);
    assert_eq!(everything(&db), before);
    assert_eq!(vault_keyspaces(&db), 1);
    db.import("v", &text[..], &replace).unwrap();
    assert_eq!(vault.len().unwrap(), 6_000);
}

#[test]
fn a_database_can_be_its_own_source() {
    let db = large();
    let acme = db.create_tenant("acme", Quota::NONE).unwrap();
    acme.vault("theirs").unwrap().put("x", &1).unwrap();
    let (before, keyspaces) = (everything(&db), vault_keyspaces(&db));
    let vault = db.existing_vault("first").unwrap();
    let outcome = db.restore_from(&db, &Scope::Everything).unwrap();
    assert_eq!((outcome.vaults, outcome.vaults_before), (3, 3));
    db.restore_from(&db.clone(), &Scope::Tenant("acme".to_owned()))
        .unwrap();
    let beside = VaultChoice::named("first").under("first again");
    db.restore_from(&db, &Scope::Vaults(vec![beside])).unwrap();
    let mut after = everything(&db);
    assert_eq!(after.remove("first again").as_ref(), before.get("first"));
    assert_eq!(after, before);
    assert_eq!(vault_keyspaces(&db), keyspaces + 1);
    // Handles of before go on.
    vault.put("new", &1).unwrap();
    assert_eq!(db.existing_vault("first").unwrap().len().unwrap(), 6_001);
    assert_eq!(
        acme.vault("theirs").unwrap().get::<i64>("x").unwrap(),
        Some(1)
    );
}

/// Restores while something is done at the first word of progress.
fn meanwhile(
    db: &Database,
    source: &Database,
    mut act: impl FnMut(),
) -> vault_db::Result<vault_db::RestoreOutcome> {
    let mut acted = false;
    db.restore_with(source, &Scope::Everything, |_: &RestoreProgress| {
        if !std::mem::replace(&mut acted, true) {
            act();
        }
        ControlFlow::Continue(())
    })
}

#[test]
fn what_becomes_of_the_source_meanwhile_does_not_come() {
    let source = large();
    let then = everything(&source);
    let db = temp();
    meanwhile(&db, &source, || {
        source.existing_vault("first").unwrap().clear().unwrap();
        source
            .existing_vault("second")
            .unwrap()
            .put("more", &1)
            .unwrap();
        source.vault("third").unwrap().put("x", &1).unwrap();
    })
    .unwrap();
    assert_eq!(everything(&db), then);

    let source = large();
    meanwhile(&db, &source, || {
        source
            .existing_vault("first")
            .unwrap()
            .rename("renamed")
            .unwrap();
        source.existing_vault("second").unwrap().delete().unwrap();
    })
    .unwrap();
    assert_eq!(everything(&db), then);
    assert_eq!(vault_keyspaces(&db), 2);
}

#[test]
fn a_source_that_is_closed_meanwhile_is_an_error_or_all_of_it_comes() {
    let source = large();
    let then = everything(&source);
    let db = temp();
    db.vault("here").unwrap().put("x", &1).unwrap();
    let before = everything(&db);
    let restored = meanwhile(&db, &source, || source.close().unwrap());
    match restored {
        Ok(_) => assert_eq!(everything(&db), then),
        Err(error) => {
            assert!(matches!(error, Error::Engine(_)), "{error:?}");
            assert_eq!(everything(&db), before);
            assert_eq!(vault_keyspaces(&db), 1);
        }
    }
    // One that was closed before is refused.
    let closed = db.restore_from(&source, &Scope::Everything);
    assert!(matches!(closed, Err(Error::Engine(_))), "{closed:?}");
    // Other handles of the source may go: the one that is given keeps it open.
    let source = large();
    let mut other = Some(source.clone());
    meanwhile(&db, &source, || drop(other.take())).unwrap();
    assert_eq!(everything(&db), then);
}

fn protection() -> EncryptedProtection {
    let passphrase = SecretBytes::from_string("correct horse".to_owned()).unwrap();
    EncryptedProtection::with_source(Arc::new(Passphrase::new(passphrase).unwrap()))
        .kdf(Kdf::danger_weak())
        .kdf_bounds(KdfBounds::danger_weak())
}

fn holds(fs: &MemoryFileSystem, canary: &[u8]) -> bool {
    let files = fs.list().into_iter();
    let mut contents = files.map(|(path, _)| fs.read_file(path).unwrap());
    contents.any(|bytes| bytes.windows(canary.len()).any(|window| window == canary))
}

/// What is encrypted on one side is in the clear on the other, and nowhere else: each store keeps its own way.
#[test]
fn between_encrypted_and_plain_each_stays_what_it_is() {
    const CANARY: &str = "a canary that nobody may read";
    let (plain_fs, secret_fs) = (MemoryFileSystem::new(), MemoryFileSystem::new());
    let plain = in_memory(&plain_fs).open(STORE).unwrap();
    let secret = in_memory(&secret_fs)
        .open_encrypted_with(STORE, protection())
        .unwrap();
    let both = |db: &Database, value: i64| {
        db.vault("v").unwrap().put(CANARY, &value).unwrap();
        db.vault("large")
            .unwrap()
            .update((0..5_000_i64).map(|n| (n.to_string(), n)))
            .unwrap();
    };
    both(&plain, 1);
    both(&secret, 2);
    secret.restore_from(&plain, &Scope::Everything).unwrap();
    assert_eq!(everything(&secret), everything(&plain));
    secret.close().unwrap();
    assert!(!holds(&secret_fs, CANARY.as_bytes()));

    let secret = in_memory(&secret_fs)
        .open_encrypted_with(STORE, protection())
        .unwrap();
    assert_eq!(
        secret.vault("v").unwrap().get::<i64>(CANARY).unwrap(),
        Some(1)
    );
    secret.vault("v").unwrap().put(CANARY, &3).unwrap();
    plain.restore_from(&secret, &Scope::Everything).unwrap();
    assert_eq!(everything(&plain), everything(&secret));
    plain.close().unwrap();
    let plain = in_memory(&plain_fs).open(STORE).unwrap();
    assert_eq!(
        plain.vault("v").unwrap().get::<i64>(CANARY).unwrap(),
        Some(3)
    );
    assert!(holds(&plain_fs, CANARY.as_bytes()));
    assert_eq!(plain_fs.kind(Path::new("/store/KEYRING")).unwrap(), None);
}
