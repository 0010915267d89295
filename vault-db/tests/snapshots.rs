//! Snapshots of databases: made while everybody writes on, read where they lie, restored in place and into new directories, and
//! what is refused.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use support::{Place, everything};
use vault_core::vfs::{DiskFileSystem, FileSystem};
use vault_db::encryption::{Passphrase, SecretBytes};
use vault_db::engine::{BackgroundWork, Settings};
use vault_db::snapshot::{
    ArchiveError, Form, Kind, Parent, Retention, Schedule, SnapshotOptions, Snapshots, Trigger,
};
use vault_db::{
    Database, DatabaseBuilder, Durability, EncryptedDatabase, Error, Quota, Scope, VaultChoice,
};

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(SecretBytes::from_string(text.to_owned()).unwrap()).unwrap()
}

fn temp() -> Database {
    Database::builder()
        .durability(Durability::Os)
        .temp()
        .unwrap()
}

/// One in which nothing is merged behind one's back, so that files stay what they are.
fn at_rest() -> DatabaseBuilder {
    Database::builder().settings(Settings {
        durability: Durability::Os,
        background: BackgroundWork::Manual,
        ..Settings::default()
    })
}

/// Every path below a directory, with lengths.
fn tree(path: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    for entry in DiskFileSystem.read_dir(path).unwrap_or_default() {
        let inside = path.join(entry.name);
        match DiskFileSystem.open(&inside) {
            Ok(file) => found.insert(inside, file.len().unwrap()),
            Err(_) => {
                found.extend(tree(&inside));
                found.insert(inside, 0)
            }
        };
    }
    found
}

fn filled() -> Database {
    let db = temp();
    db.vault("a")
        .unwrap()
        .update((0..500).map(|n| (format!("{n:04}"), n)))
        .unwrap();
    db.vault("b").unwrap().put("only", &1).unwrap();
    let acme = db.create_tenant("acme", Quota::NONE).unwrap();
    acme.vault("v")
        .unwrap()
        .update([("x", 1), ("y", 2)])
        .unwrap();
    db
}

fn logical() -> SnapshotOptions {
    SnapshotOptions {
        form: Form::Logical,
        ..SnapshotOptions::default()
    }
}

fn refused(error: &Error) -> &ArchiveError {
    match error {
        Error::Snapshot(error) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn both_forms_hold_what_there_was_and_say_how_much() {
    let (db, place) = (filled(), Place::new());
    let snapshots = db.snapshots(place.at("snapshots")).unwrap();
    let then = everything(&db);
    for options in [SnapshotOptions::default(), logical()] {
        let made = snapshots.create_with(&options, &()).unwrap();
        let counts: Vec<_> = made
            .counts
            .iter()
            .map(|(name, count)| (name.as_str(), count.entries))
            .collect();
        assert_eq!(
            counts,
            [("a", 500), ("acme/v", 2), ("b", 1)],
            "{:?}",
            options.form
        );
        let opened = snapshots.open(made.name).unwrap();
        assert_eq!(everything(&opened), then);
        let acme = opened.tenant("acme").unwrap().existing_vault("v").unwrap();
        assert_eq!(acme.get::<i64>("y").unwrap(), Some(2));
        // For reading only, where it lies.
        if options.form == Form::Physical {
            assert!(opened.vault("a").unwrap().put("x", &1).is_err());
        }
    }
}

#[test]
fn a_snapshot_is_of_one_moment_while_everybody_writes() {
    let (db, place) = (temp(), Place::new());
    let snapshots = db.snapshots(place.at("snapshots")).unwrap();
    let (a, b) = (db.vault("a").unwrap(), db.vault("b").unwrap());
    let done = AtomicBool::new(false);
    let rounds = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0_i64;
            while !done.load(Ordering::Relaxed) {
                n += 1;
                db.write(|tx| {
                    tx.of(&a)?.put(n, &n)?;
                    tx.of(&b)?.put(n, &n)
                })
                .unwrap();
                rounds.store(n as u64, Ordering::Relaxed);
            }
        });
        for options in [
            SnapshotOptions::default(),
            logical(),
            SnapshotOptions::default(),
        ] {
            let before = rounds.load(Ordering::Relaxed);
            while rounds.load(Ordering::Relaxed) < before + 50 {
                thread::yield_now();
            }
            let made = snapshots.create_with(&options, &()).unwrap();
            let opened = snapshots.open(made.name).unwrap();
            let of = |name: &str| -> Vec<i64> {
                let vault = opened.existing_vault(name).unwrap();
                vault.keys().unwrap().map(Result::unwrap).collect()
            };
            let (in_a, in_b) = (of("a"), of("b"));
            assert_eq!(in_a, in_b);
            assert!(in_a.len() as u64 >= before + 50);
            assert_eq!(in_a, (1..=in_a.len() as i64).collect::<Vec<_>>());
            assert_eq!(made.counts["a"].entries, in_a.len() as u64);
            assert_eq!(made.counts["b"].entries, in_a.len() as u64);
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn an_incremental_one_has_only_what_is_new() {
    let (db, place) = (at_rest().temp().unwrap(), Place::new());
    let vault = db.vault("v").unwrap();
    for n in 0..20 {
        vault
            .update((0..500).map(|i| (n * 1000 + i, "x".repeat(100))))
            .unwrap();
    }
    let snapshots = db.snapshots(place.at("snapshots")).unwrap();
    let full = snapshots.create().unwrap();
    assert_eq!((full.kind, full.parent), (Kind::Full, None));
    vault.put(5, "changed").unwrap();
    let next = snapshots.create().unwrap();
    assert_eq!(
        (next.kind, next.parent),
        (Kind::Incremental, Some(full.name))
    );
    assert!(
        next.own_bytes() * 5 < full.own_bytes(),
        "{} of {}",
        next.own_bytes(),
        full.own_bytes()
    );
    let opened = snapshots.open(next.name).unwrap();
    assert_eq!(
        opened
            .vault("v")
            .unwrap()
            .get::<String>(5)
            .unwrap()
            .unwrap(),
        "changed"
    );
    assert_eq!(opened.vault("v").unwrap().len().unwrap(), 10_000);
    // The parent stays for as long as somebody needs it.
    let keep_last = Retention {
        last: 1,
        ..Retention::default()
    };
    snapshots.repository().prune(&keep_last, false).unwrap();
    assert_eq!(snapshots.list().unwrap().len(), 2);
    // Made into one, nobody does.
    let whole = snapshots.repository().consolidate(next.name, &()).unwrap();
    snapshots.repository().prune(&keep_last, false).unwrap();
    assert_eq!(
        snapshots
            .list()
            .unwrap()
            .iter()
            .map(|m| m.name)
            .collect::<Vec<_>>(),
        [whole.name]
    );
    assert_eq!(
        snapshots
            .open(whole.name)
            .unwrap()
            .vault("v")
            .unwrap()
            .len()
            .unwrap(),
        10_000
    );
}

#[test]
fn it_comes_back_in_place_and_in_a_new_directory() {
    let (db, place) = (filled(), Place::new());
    let snapshots = db.snapshots(place.at("snapshots")).unwrap();
    let then = everything(&db);
    for options in [SnapshotOptions::default(), logical()] {
        let made = snapshots.create_with(&options, &()).unwrap();
        let a = db.vault("a").unwrap();
        a.clear().unwrap();
        db.vault("later").unwrap().put("x", &1).unwrap();
        db.tenant("acme")
            .unwrap()
            .vault("v")
            .unwrap()
            .put("x", &99)
            .unwrap();
        let preview = snapshots.preview(made.name, &Scope::Everything).unwrap();
        let changed: Vec<_> = preview.iter().filter(|vault| !vault.is_empty()).collect();
        // Documents do not say what there was beside them.
        let whole = options.form == Form::Physical;
        assert_eq!(changed.len(), 2 + usize::from(whole), "{preview:?}");
        assert!(a.is_empty().unwrap(), "a preview changes nothing");

        let target = place.at(&format!("restored {:?}", options.form));
        snapshots.restore_to(made.name, &target, None, &()).unwrap();
        let restored = Database::open(&target).unwrap();
        assert_eq!(everything(&restored), then);
        let acme = restored.tenant("acme").unwrap();
        assert_eq!(acme.vault("v").unwrap().get::<i64>("x").unwrap(), Some(1));
        restored.vault("goes").unwrap().put("on", &1).unwrap();

        let outcome = snapshots.restore(made.name, &Scope::Everything).unwrap();
        assert_eq!((outcome.vaults, outcome.entries), (3, 503));
        if !whole {
            db.existing_vault("later").unwrap().delete().unwrap();
        }
        assert_eq!(everything(&db), then);
        assert_eq!(a.len().unwrap(), 500);
        let acme = db.tenant("acme").unwrap();
        assert_eq!(acme.vault("v").unwrap().get::<i64>("x").unwrap(), Some(1));
    }
}

#[test]
fn a_restored_store_is_an_instance_of_its_own() {
    let (db, place) = (filled(), Place::new());
    let snapshots = db.snapshots(place.at("snapshots")).unwrap();
    let made = snapshots.create().unwrap();
    let of = |db: &Database| db.lsm().unwrap().instance();
    let mut seen = vec![of(&db)];
    for n in 0..2 {
        let target = place.at(&n.to_string());
        snapshots.restore_to(made.name, &target, None, &()).unwrap();
        let restored = at_rest().open(&target).unwrap();
        assert!(!seen.contains(&of(&restored)));
        seen.push(of(&restored));
        // Its snapshots build on those of the one that it was made of: what never changes is the same file.
        let on_top = restored.snapshots(place.at("snapshots")).unwrap();
        restored.vault("b").unwrap().put("n", &n).unwrap();
        let next = on_top.create().unwrap();
        assert!(next.own_bytes() < made.own_bytes());
        let opened = on_top.open(next.name).unwrap();
        assert_eq!(opened.vault("b").unwrap().get::<i64>("n").unwrap(), Some(n));
        assert_eq!(opened.vault("a").unwrap().len().unwrap(), 500);
    }
}

#[test]
fn an_encrypted_database_stays_encrypted_all_the_way() {
    let place = Place::new();
    let secret = || passphrase("correct horse battery staple");
    let db = EncryptedDatabase::open(place.at("store"), secret()).unwrap();
    let keys = db.vault("canary-vault").unwrap();
    keys.put("canary-key", "canary-value").unwrap();
    let snapshots = db.snapshots(place.at("snapshots")).unwrap();
    let made = snapshots.create().unwrap();
    assert!(made.counts.is_empty(), "names and counts are confidential");
    snapshots.repository().verify(made.name, &()).unwrap();
    for path in tree(&place.at("snapshots")).into_keys() {
        let Ok(file) = DiskFileSystem.open(&path) else {
            continue;
        };
        let bytes = vault_core::vfs::read_whole(&*file).unwrap();
        let found = bytes.windows(6).any(|window| window == b"canary");
        assert!(!found, "{path:?}");
    }
    // Hashes are verified without a key, blocks with it.
    let blind = snapshots.verify(made.name, &()).unwrap();
    assert!(blind.content.is_none());
    let seeing = snapshots
        .clone()
        .with_key(secret())
        .verify(made.name, &())
        .unwrap();
    assert!(seeing.content.is_some_and(|content| content.is_clean()));
    // Without a key it is restored and not looked into.
    let blind = place.at("blind");
    snapshots.restore_to(made.name, &blind, None, &()).unwrap();
    assert!(snapshots.open(made.name).is_err());
    let reopened = EncryptedDatabase::open(&blind, secret()).unwrap();
    assert_eq!(
        reopened
            .vault("canary-vault")
            .unwrap()
            .get::<String>("canary-key")
            .unwrap()
            .as_deref(),
        Some("canary-value")
    );
    // With one that does not fit, nothing is restored.
    keys.put("canary-key", "later").unwrap();
    let wrong = db
        .snapshots(place.at("snapshots"))
        .unwrap()
        .with_key(passphrase("another one"));
    let target = place.at("never");
    let refusal = wrong.restore_to(made.name, &target, None, &()).unwrap_err();
    assert!(
        matches!(refused(&refusal), ArchiveError::Prepare { .. }),
        "{refusal:?}"
    );
    assert!(refusal.to_string().contains("key"), "{refusal}");
    assert!(
        tree(place.0.path())
            .keys()
            .all(|path| !path.starts_with(&target))
    );
    assert!(wrong.restore(made.name, &Scope::Everything).is_err());
    assert_eq!(
        keys.get::<String>("canary-key").unwrap().as_deref(),
        Some("later")
    );
    // With the right one everything works.
    let right = db
        .snapshots(place.at("snapshots"))
        .unwrap()
        .with_key(secret());
    assert!(right.drill().unwrap().is_good());
    right.restore(made.name, &Scope::Everything).unwrap();
    assert_eq!(
        keys.get::<String>("canary-key").unwrap().as_deref(),
        Some("canary-value")
    );
    // In the clear only where that is asked for.
    let refusal = right.create_with(&logical(), &()).unwrap_err();
    assert!(matches!(refusal, Error::UnsupportedSnapshot { .. }));
    let clear = SnapshotOptions {
        danger_in_the_clear: true,
        ..logical()
    };
    let made = right.create_with(&clear, &()).unwrap();
    assert_eq!(made.counts["canary-vault"].entries, 1);
    let then = right.open(made.name).unwrap();
    assert_eq!(then.vault("canary-vault").unwrap().len().unwrap(), 1);
}

#[test]
fn chosen_vaults_and_tenants_as_documents() {
    let (db, place) = (filled(), Place::new());
    let snapshots = db.snapshots(place.at("snapshots")).unwrap();
    let of = |scope: Scope| SnapshotOptions { scope, ..logical() };
    let one = of(Scope::Vaults(vec![VaultChoice::named("b")]));
    let made = snapshots.create_with(&one, &()).unwrap();
    assert_eq!(made.counts.keys().collect::<Vec<_>>(), ["b"]);
    let tenant = snapshots
        .create_with(&of(Scope::Tenant("acme".to_owned())), &())
        .unwrap();
    assert_eq!(tenant.counts.keys().collect::<Vec<_>>(), ["acme/v"]);
    let acme = db.tenant("acme").unwrap();
    acme.vault("v").unwrap().clear().unwrap();
    snapshots
        .restore(tenant.name, &Scope::Tenant("acme".to_owned()))
        .unwrap();
    assert_eq!(acme.vault("v").unwrap().len().unwrap(), 2);
    assert_eq!(db.vault("a").unwrap().len().unwrap(), 500);
    // What is not in it cannot be restored, and nothing is changed.
    let a = Scope::Vaults(vec![VaultChoice::named("a")]);
    assert!(matches!(
        snapshots.restore(made.name, &a),
        Err(Error::NoSuchVault { .. })
    ));
    // Files are whole.
    let physical = SnapshotOptions {
        scope: a,
        ..SnapshotOptions::default()
    };
    let refusal = snapshots.create_with(&physical, &()).unwrap_err();
    assert!(matches!(refusal, Error::UnsupportedSnapshot { .. }));
    let missing = of(Scope::Vaults(vec![VaultChoice::named("missing")]));
    assert!(matches!(
        snapshots.create_with(&missing, &()),
        Err(Error::NoSuchVault { .. })
    ));
    assert_eq!(snapshots.list().unwrap().len(), 2);
}

/// Documents do not say what there was beside them: nothing else goes, and tenants keep their quotas.
#[test]
fn a_logical_one_takes_nothing_away() {
    let (db, place) = (filled(), Place::new());
    let quota = Quota {
        keys_max: 10,
        ..Quota::NONE
    };
    db.set_quota("acme", quota).unwrap();
    db.create_tenant("empty", Quota::NONE).unwrap();
    let snapshots = db.snapshots(place.at("snapshots")).unwrap();
    let b = SnapshotOptions {
        scope: Scope::Vaults(vec![
            VaultChoice::named("b"),
            VaultChoice::named("v").of("acme"),
        ]),
        ..logical()
    };
    let made = snapshots.create_with(&b, &()).unwrap();
    db.vault("b").unwrap().clear().unwrap();
    snapshots.restore(made.name, &Scope::Everything).unwrap();
    assert_eq!(db.vault("b").unwrap().len().unwrap(), 1);
    assert_eq!(db.vault("a").unwrap().len().unwrap(), 500);
    assert_eq!(
        db.tenant("acme").unwrap().info().unwrap().quota.keys_max,
        10
    );
    assert!(db.tenant("empty").is_ok());
}

#[test]
fn what_cannot_be_restored_changes_nothing() {
    let (db, place) = (filled(), Place::new());
    let snapshots = db.snapshots(place.at("snapshots")).unwrap();
    let made = snapshots.create().unwrap();
    let before = everything(&db);
    // A directory in which there is something, a store that is open above all.
    let occupied = place.at("occupied");
    let store = Database::open(&occupied).unwrap();
    store.vault("v").unwrap().put("x", &1).unwrap();
    let refusal = snapshots
        .restore_to(made.name, &occupied, None, &())
        .unwrap_err();
    assert!(matches!(
        refused(&refusal),
        ArchiveError::TargetOccupied { .. }
    ));
    assert_eq!(store.vault("v").unwrap().len().unwrap(), 1);
    // An older one than what is acceptable.
    let least = Some(made.generation + 1);
    let refusal = snapshots
        .restore_to(made.name, place.at("old"), least, &())
        .unwrap_err();
    assert!(matches!(refusal, Error::TooOld { .. }));
    // One that is damaged: a byte in the middle of its archive.
    let archive = place
        .at("snapshots")
        .join(made.name.to_string())
        .join("snapshot.zip");
    let file = DiskFileSystem.open_for_write(&archive).unwrap();
    let middle = file.len().unwrap() / 2;
    let mut byte = [0];
    file.read_at(&mut byte, middle).unwrap();
    file.write_at(&[byte[0] ^ 1], middle).unwrap();
    let refusal = snapshots
        .restore(made.name, &Scope::Everything)
        .unwrap_err();
    assert!(
        matches!(refused(&refusal), ArchiveError::Damaged { .. }),
        "{refusal:?}"
    );
    let refusal = snapshots
        .restore_to(made.name, place.at("damaged"), None, &())
        .unwrap_err();
    assert!(matches!(refused(&refusal), ArchiveError::Damaged { .. }));
    assert!(snapshots.drill().is_err());
    // One that is not there.
    let missing = made.name.next().unwrap();
    let refusal = snapshots.restore(missing, &Scope::Everything).unwrap_err();
    assert!(matches!(
        refused(&refusal),
        ArchiveError::NoSuchSnapshot { .. }
    ));
    assert_eq!(everything(&db), before);
    for name in ["old", "damaged"] {
        assert!(tree(&place.at(name)).is_empty(), "{name}");
    }
    let empty = db.snapshots(place.at("nothing")).unwrap();
    assert!(matches!(empty.drill(), Err(Error::NoSnapshots)));
}

#[test]
fn cancelling_leaves_no_snapshot() {
    let (db, place) = (filled(), Place::new());
    let snapshots = db.snapshots(place.at("snapshots")).unwrap();
    for options in [SnapshotOptions::default(), logical()] {
        let cancelled = snapshots.create_with(&options, &|_, _| ControlFlow::Break(()));
        assert!(matches!(
            refused(&cancelled.unwrap_err()),
            ArchiveError::Cancelled
        ));
    }
    assert!(snapshots.list().unwrap().is_empty());
    let survey = snapshots.repository().survey().unwrap();
    assert!(survey.interrupted.is_empty(), "{:?}", survey.interrupted);
}

#[test]
fn what_differs_between_two_snapshots() {
    let (db, place) = (filled(), Place::new());
    let snapshots = db.snapshots(place.at("snapshots")).unwrap();
    let older = snapshots.create().unwrap();
    let a = db.vault("a").unwrap();
    a.put("0001", &-1).unwrap();
    a.remove("0002").unwrap();
    a.put("9999", &9).unwrap();
    db.vault("b").unwrap().delete().unwrap();
    let newer = snapshots.create().unwrap();
    let mut keys = Vec::new();
    let differences = snapshots
        .diff(older.name, newer.name, &Scope::Everything, |difference| {
            keys.push(difference.key.to_string());
            ControlFlow::Continue(())
        })
        .unwrap();
    let of = |name: &str| {
        differences
            .iter()
            .find(|vault| vault.vault == name)
            .unwrap()
    };
    let a = of("a");
    assert_eq!((a.added, a.changed, a.removed, a.same), (1, 1, 1, 498));
    assert!(of("b").is_gone && of("v").is_empty());
    assert_eq!(keys.len(), 4);
}

#[test]
fn a_drill_finds_what_is_not_as_it_was_said_to_be() {
    let (db, place) = (filled(), Place::new());
    let snapshots = db.snapshots(place.at("snapshots")).unwrap();
    let made = snapshots.create().unwrap();
    let report = snapshots.drill().unwrap();
    assert!(report.is_good(), "{:?}", report.problems);
    assert_eq!(
        (report.snapshot, report.vaults, report.entries),
        (made.name, 3, 503)
    );
    assert!(report.bytes > 0);
    snapshots.create_with(&logical(), &()).unwrap();
    let report = snapshots.drill().unwrap();
    assert!(report.is_good(), "{:?}", report.problems);
    assert_eq!((report.vaults, report.entries), (3, 503));
}

#[test]
fn a_runner_makes_snapshots_by_change_by_event_and_keeps_some() {
    let (db, place) = (temp(), Place::new());
    let vault = db.vault("v").unwrap();
    let snapshots = db.snapshots(place.at("snapshots")).unwrap();
    let schedule = Schedule {
        changed_entries: Some(1000),
        events: ["patch merged".to_owned()].into(),
        ..Schedule::default()
    };
    let keep = Retention {
        last: 2,
        ..Retention::default()
    };
    let full = SnapshotOptions {
        parent: Parent::None,
        ..SnapshotOptions::default()
    };
    let runner = snapshots.clone().run(schedule, full, Some(keep)).unwrap();
    let wait_for = |made: u64| {
        for _ in 0..600 {
            if runner.status().made >= made {
                return;
            }
            thread::park_timeout(Duration::from_millis(50));
        }
        panic!("{:?}", runner.status());
    };
    runner.happened("nothing of interest");
    runner.happened("patch merged");
    wait_for(1);
    vault.update((0..1500).map(|n| (n, n))).unwrap();
    wait_for(2);
    runner.happened("patch merged");
    wait_for(3);
    let status = runner.stop();
    assert!(status.error.is_none(), "{:?}", status.error);
    let listed = snapshots.list().unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(listed.last().map(|made| made.name), status.last);
    assert_eq!(listed[0].trigger, Trigger::Change);
    assert_eq!(listed[1].trigger, Trigger::Event("patch merged".to_owned()));
}

#[test]
fn a_repository_elsewhere_is_as_good() {
    let (db, place) = (filled(), Place::new());
    let snapshots: Snapshots = db.snapshots(place.at("deep/down/snapshots")).unwrap();
    let made = snapshots.create().unwrap();
    // What lies there can be moved.
    DiskFileSystem.create_dir_all(&place.at("moved")).unwrap();
    DiskFileSystem
        .rename(&place.at("deep/down/snapshots"), &place.at("moved/here"))
        .unwrap();
    let moved = db.snapshots(place.at("moved/here")).unwrap();
    assert_eq!(moved.list().unwrap(), [made]);
    assert!(snapshots.list().unwrap().is_empty());
}
