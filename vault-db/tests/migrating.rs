//! Moving a database to another store.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use vault_core::vfs::{CrashPolicy, MemoryFileSystem};
use vault_db::encryption::{EncryptedProtection, Kdf, KdfBounds, Passphrase, SecretBytes};
use vault_db::engine::{BackgroundWork, ManualClock, Settings};
use vault_db::{
    Database, Durability, Error, Grant, Key, Permission, Quota, Timestamp, Value, VaultInfo,
};

fn temp() -> Database {
    Database::builder()
        .durability(Durability::Os)
        .temp()
        .unwrap()
}

type Everything = Vec<(VaultInfo, BTreeMap<Key, String>)>;

fn everything(db: &Database) -> Everything {
    let infos = db.vaults().into_iter();
    infos
        .map(|info| {
            let vault = db.existing_vault(&info.name).unwrap();
            let items = vault
                .items::<Key, Value>()
                .unwrap()
                .map(|item| item.unwrap());
            let items = items
                .map(|(key, value)| (key, format!("{value:?}")))
                .collect();
            (info, items)
        })
        .collect()
}

fn fill(db: &Database) {
    for n in 0..5 {
        let vault = db.vault(&format!("vault {n}")).unwrap();
        vault.update((0..500).map(|k| ((n, k), k * n))).unwrap();
        vault.describe(Some("migrates")).unwrap();
    }
    let vault = db.vault("vault 0").unwrap();
    vault
        .put_for("expires", &1, Duration::from_secs(3600))
        .unwrap();
    vault.put("large", &"x".repeat(100_000)).unwrap();
    vault.put_raw("raw", b"\x00").unwrap();
    db.vault("empty").unwrap();
}

#[test]
fn everything_arrives() {
    let source = temp();
    fill(&source);
    let tenant = source
        .create_tenant(
            "t",
            Quota {
                keys_max: 7,
                ..Quota::NONE
            },
        )
        .unwrap();
    tenant.vault("a").unwrap().put(1, "a tenant's").unwrap();
    let control = source.access_control().unwrap();
    control
        .set_role("r", [Grant::new("*", [Permission::Read])])
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let passphrase = SecretBytes::from_string("correct horse".to_owned()).unwrap();
    let protection =
        EncryptedProtection::with_source(Arc::new(Passphrase::new(passphrase).unwrap()))
            .kdf(Kdf::danger_weak())
            .kdf_bounds(KdfBounds::danger_weak());
    let target = Database::builder()
        .open_encrypted_with(directory.path(), protection)
        .unwrap();
    let outcome = source.migrate_to(&target).unwrap();
    assert_eq!((outcome.vaults, outcome.copied), (7, 7));
    assert_eq!(outcome.entries, 5 * 500 + 3 + 1);
    assert_eq!(everything(&target), everything(&source));
    let arrived = target.tenant("t").unwrap();
    assert_eq!(
        arrived
            .vault("a")
            .unwrap()
            .get::<String>(1)
            .unwrap()
            .as_deref(),
        Some("a tenant's")
    );
    assert_eq!(arrived.info().unwrap(), tenant.info().unwrap());
    let control = target.access_control().unwrap();
    assert_eq!(control.roles().len(), 1);
    assert_eq!(control.verify_audit().unwrap(), 1);
    let (of_source, of_target) = (
        source.vault("vault 0").unwrap(),
        target.vault("vault 0").unwrap(),
    );
    let (of_source, of_target) = (of_source.stats().unwrap(), of_target.stats().unwrap());
    assert_eq!(of_source.writes, 4);
    assert_eq!(of_target.writes, 4);
    assert_eq!(of_source.top_keys, of_target.top_keys);
    // The two go their own ways from here.
    target.vault("vault 0").unwrap().put("new", &1).unwrap();
    target.vault("new").unwrap().put("new", &1).unwrap();
    assert!(!source.contains_vault("new"));
    assert!(matches!(
        source.migrate_to(&target),
        Err(Error::TargetNotEmpty { .. })
    ));
    assert!(matches!(
        source.migrate_to(&source),
        Err(Error::TargetNotEmpty { .. })
    ));
    let other = temp();
    other.create_tenant("t", Quota::NONE).unwrap();
    assert!(matches!(
        source.migrate_to(&other),
        Err(Error::TargetNotEmpty { .. })
    ));
}

/// The source is written to all the time; the target is the source at one moment.
#[test]
fn it_is_online() {
    let source = temp();
    fill(&source);
    let target = temp();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0_i64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                round += 1;
                // The same number everywhere at any moment.
                source
                    .write(|tx| {
                        (0..5)
                            .try_for_each(|n| tx.vault(&format!("vault {n}"))?.put("round", &round))
                    })
                    .unwrap();
                source
                    .vault(&format!("brief {}", round % 3))
                    .unwrap()
                    .put(1, &1)
                    .unwrap();
                let _ = source
                    .vault(&format!("brief {}", (round + 1) % 3))
                    .unwrap()
                    .delete();
            }
        });
        while source.vault("vault 0").unwrap().stats().unwrap().commits < 20 {
            std::thread::yield_now();
        }
        let migrated = source.migrate_to(&target);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        migrated.unwrap();
    });
    let rounds: Vec<i64> = (0..5)
        .map(|n| {
            target
                .existing_vault(&format!("vault {n}"))
                .unwrap()
                .get("round")
                .unwrap()
                .unwrap()
        })
        .collect();
    assert!(
        rounds[0] > 0 && rounds.iter().all(|round| *round == rounds[0]),
        "{rounds:?}"
    );
    for info in target.vaults() {
        let vault = target.existing_vault(&info.name).unwrap();
        assert_eq!(
            vault.keys::<Key>().unwrap().count() as u64,
            info.keys,
            "{info:?}"
        );
    }
}

#[test]
fn interrupted_it_goes_on_where_it_was() {
    let source = temp();
    fill(&source);
    let directory = tempfile::tempdir().unwrap();
    let open = || Database::open(directory.path()).unwrap();
    {
        let target = open();
        let stopped = source.migrate_with(&target, |progress| match progress.vaults_done {
            0..3 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        });
        assert!(matches!(stopped, Err(Error::Cancelled)));
        assert!(target.vaults().is_empty());
        let other = temp();
        fill(&other);
        assert!(matches!(
            other.migrate_to(&target),
            Err(Error::TargetNotEmpty { .. })
        ));
        target.close().unwrap();
    }
    // What was there and has changed is copied again, what has not is not.
    source.vault("vault 0").unwrap().put("changed", &1).unwrap();
    let target = open();
    let outcome = source.migrate_to(&target).unwrap();
    assert_eq!(outcome.vaults, 6);
    assert!(outcome.copied < 6, "{outcome:?}");
    assert_eq!(everything(&target), everything(&source));
    target.close().unwrap();
    drop(target);
    assert_eq!(everything(&open()), everything(&source));
}

/// A source that waits for no disk, and whose clock stands still: no time tells one write from another.
fn forgetful(fs: &MemoryFileSystem) -> Database {
    let fs = Arc::new(fs.clone());
    let settings = Settings {
        durability: Durability::Os,
        background: BackgroundWork::Manual,
        memory_bytes: 64 << 20,
        ..Settings::default()
    };
    Database::builder()
        .settings(settings)
        .clock(Arc::new(ManualClock::new(Timestamp(1_000_000))))
        .engine_options(|options| options.file_system(fs))
        .open("/source")
        .unwrap()
}

fn commits(db: &Database, vault: &str) -> u64 {
    db.existing_vault(vault).unwrap().stats().unwrap().commits
}

/// Migrates until so many vaults are there, and as many entries of the next one were copied.
fn migrate_until(source: &Database, target: &Database, vaults: u64, entries: u64) {
    let stopped = source.migrate_with(target, |progress| {
        match (progress.vaults_done, progress.entries_done) >= (vaults, entries) {
            false => ControlFlow::Continue(()),
            true => ControlFlow::Break(()),
        }
    });
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
}

/// A source loses what it had not waited for, and what was copied already with it. Other commits bring it to the same number.
#[test]
fn a_source_that_loses_what_was_copied_is_copied_again() {
    let fs = MemoryFileSystem::new();
    let source = forgetful(&fs);
    for name in ["a stays", "b loses", "c is to come"] {
        let vault = source.vault(name).unwrap();
        for n in 0..8 {
            vault.put(n, &n).unwrap();
        }
    }
    source.sync().unwrap();
    let vault = source.vault("b loses").unwrap();
    vault.put("lost", &1).unwrap();
    vault.put(0, "lost too").unwrap();
    assert_eq!(commits(&source, "b loses"), 10);
    let target = temp();
    migrate_until(&source, &target, 2, 0);

    let source = forgetful(&fs.crash(0, CrashPolicy::DropUnsynced));
    assert_eq!(commits(&source, "b loses"), 8);
    let vault = source.vault("b loses").unwrap();
    vault.put("other", &1).unwrap();
    vault.put(1, "other").unwrap();
    assert_eq!(commits(&source, "b loses"), 10);
    let outcome = source.migrate_to(&target).unwrap();
    assert_eq!(everything(&target), everything(&source));
    // What it has not lost is not copied again.
    assert_eq!((outcome.vaults, outcome.copied), (3, 2));
}

/// What the list says of a copy is not said of the next one, which was only begun; not even where that happens to be what a
/// source has that lost what both were made of.
#[test]
fn a_copy_that_was_only_begun_is_not_taken_for_the_one_before() {
    // A copy is stopped when it comes to the next one.
    const BEGUN: i64 = 4095;
    let fs = MemoryFileSystem::new();
    let source = forgetful(&fs);
    let vault = source.vault("v").unwrap();
    vault.update((0..BEGUN).map(|n| (n, n))).unwrap();
    source.sync().unwrap();
    vault.put(BEGUN, &BEGUN).unwrap();
    assert_eq!(commits(&source, "v"), 2);
    let target = temp();
    migrate_until(&source, &target, 1, 0);
    vault.put(BEGUN + 1, &BEGUN).unwrap();
    migrate_until(&source, &target, 0, 1);
    let begun = target.engine().keyspace("vault.v1").unwrap().unwrap();
    let entries = target
        .engine()
        .scan(begun, vault_db::engine::KeyRange::all());
    assert_eq!(entries.unwrap().count() as i64, BEGUN);

    let source = forgetful(&fs.crash(0, CrashPolicy::DropUnsynced));
    assert_eq!(commits(&source, "v"), 1);
    source.vault("v").unwrap().put(0_i64, &0_i64).unwrap();
    assert_eq!(commits(&source, "v"), 2);
    let outcome = source.migrate_to(&target).unwrap();
    assert_eq!(outcome.entries as i64, BEGUN);
    assert_eq!(everything(&target), everything(&source));
}

#[test]
fn a_target_that_has_anything_is_refused_and_left_alone() {
    type Fill = fn(&Database);
    let fills: [(&str, Fill); 5] = [
        ("1 vaults", |db| {
            db.vault("v").unwrap().put("a", &1).unwrap();
        }),
        ("tenants", |db| {
            db.create_tenant("t", Quota::NONE).unwrap();
        }),
        ("rules of access control", |db| {
            let control = db.access_control().unwrap();
            control.set_role("r", []).unwrap();
        }),
        ("an audit log", |db| {
            let control = db.access_control().unwrap();
            control.set_role("r", []).unwrap();
            control.remove_role("r").unwrap();
        }),
        ("an audit log", |db| {
            db.access_control().unwrap();
        }),
    ];
    let source = temp();
    fill(&source);
    for (what, fill) in fills {
        let target = temp();
        fill(&target);
        let keyspaces = target.engine().keyspaces().unwrap().len();
        let refused = source.migrate_to(&target).unwrap_err();
        assert!(
            matches!(&refused, Error::TargetNotEmpty { what: found } if found == what),
            "{what}: {refused}"
        );
        assert_eq!(target.engine().keyspaces().unwrap().len(), keyspaces);
        assert!(target.vaults().len() <= 1);
        target.vault("goes on").unwrap().put("a", &1).unwrap();
    }
    let itself = source.migrate_to(&source);
    assert!(matches!(itself, Err(Error::TargetNotEmpty { .. })));
}

/// What comes into a target beside the migration would have the numbers of vaults that are still to come: of them, it would
/// show what is theirs.
#[test]
fn a_target_gets_nothing_else_before_it_is_done() {
    let source = temp();
    fill(&source);
    let control = source.access_control().unwrap();
    for n in 0..10 {
        control.set_role(&format!("role {n}"), []).unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let refused = |target: &Database| {
        let no = |result: vault_db::Result<()>| {
            assert!(
                matches!(result, Err(Error::MigrationUnderWay)),
                "{result:?}"
            );
        };
        no(target.vault("v").map(drop));
        no(target.create_vault("v").map(drop));
        no(target.create_tenant("t", Quota::NONE).map(drop));
        no(target.access_control().map(drop));
        no(target.write(|tx| tx.vault("v")?.put("a", &1)));
        let text = br#"{"format": "vault-json-v1", "entries": []}"#;
        let import = vault_db::ImportOptions::default();
        no(target.import("v", &text[..], &import).map(drop));
        assert!(target.vaults().is_empty() && target.tenants().is_empty());
    };
    {
        let target = Database::open(directory.path()).unwrap();
        let stopped = source.migrate_with(&target, |progress| match progress.vaults_done {
            0..6 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        });
        assert!(matches!(stopped, Err(Error::Cancelled)));
        refused(&target);
        // As if it had come as far as the audit log, which is pruned before it goes on.
        let audit = target
            .engine()
            .create_keyspace("vault.audit", &vault_db::engine::KeyspaceOptions::default())
            .unwrap();
        target
            .engine()
            .put(
                audit,
                &3_u64.to_be_bytes(),
                b"x",
                &vault_db::engine::WriteOptions::SYNC,
            )
            .unwrap();
        target.close().unwrap();
    }
    let target = Database::open(directory.path()).unwrap();
    refused(&target);
    control
        .prune_audit("me", vault_db::AuditPrune::AllBut(2))
        .unwrap();
    source.migrate_to(&target).unwrap();
    assert_eq!(everything(&target), everything(&source));
    let migrated = target.access_control().unwrap();
    assert_eq!(migrated.verify_audit().unwrap(), 3);
    assert_eq!(migrated.audit_head(), control.audit_head());
    target.vault("v").unwrap().put("a", &1).unwrap();
    assert_eq!(target.vault("v").unwrap().len().unwrap(), 1);
}

/// What was copied is compared with what it was copied from, and one entry more, less or other is found.
#[test]
fn a_copy_that_differs_is_found_and_made_again() {
    type Damage = fn(&Database, vault_db::engine::KeyspaceId, &[u8]);
    let damages: [(&str, Damage); 2] = [
        ("one more", |target, keyspace, _| {
            let os = vault_db::engine::WriteOptions::OS;
            target
                .engine()
                .put(keyspace, b"\x02zz", b"\x01\x01", &os)
                .unwrap();
        }),
        ("one more among them", |target, keyspace, key| {
            let os = vault_db::engine::WriteOptions::OS;
            let between = [key, b"\x00"].concat();
            target
                .engine()
                .put(keyspace, &between, b"\x01\x07", &os)
                .unwrap();
        }),
    ];
    for (how, damage) in damages {
        let source = temp();
        let vault = source.vault("v").unwrap();
        vault.update((0..9000).map(|n| (n, n))).unwrap();
        let target = temp();
        let mut damaged = false;
        let refused = source.migrate_with(&target, |progress| {
            let keyspace = target.engine().keyspace("vault.v1").unwrap();
            if progress.vaults_done == 0
                && let Some(keyspace) = keyspace
                && !damaged
            {
                damaged = true;
                let mut key = Vec::new();
                vault_db::EncodeKey::encode_key(&8999, &mut key).unwrap();
                damage(&target, keyspace, &key);
            }
            ControlFlow::Continue(())
        });
        assert!(damaged, "{how}");
        let Err(Error::CopyDiffers { vault, key }) = refused else {
            panic!("{how}: {refused:?}")
        };
        assert_eq!(vault, "v");
        assert!(!key.is_empty());
        assert!(target.vaults().is_empty());
        source.migrate_to(&target).unwrap();
        assert_eq!(everything(&target), everything(&source), "{how}");
    }
}

/// A crash at any file operation of the target leaves one that is empty, or whole; and the migration goes on.
#[test]
fn the_target_loses_power_at_any_moment() {
    let source = temp();
    for n in 0..3 {
        source
            .vault(&format!("v{n}"))
            .unwrap()
            .update((0..20).map(|k| (k, k * n)))
            .unwrap();
    }
    source
        .vault("v0")
        .unwrap()
        .put_for("expires", &1, Duration::from_secs(3600))
        .unwrap();
    let expected = everything(&source);
    let open = |fs: &MemoryFileSystem| {
        let fs = Arc::new(fs.clone());
        let settings = Settings {
            durability: Durability::Sync,
            background: BackgroundWork::Manual,
            memory_bytes: 16 << 20,
            log_segment_bytes: Some(64 << 10),
            ..Settings::default()
        };
        Database::builder()
            .settings(settings)
            .engine_options(|options| options.file_system(fs))
            .open("/target")
    };
    let whole = MemoryFileSystem::new();
    source.migrate_to(&open(&whole).unwrap()).unwrap();
    let operations = whole.operations();
    let stride = if cfg!(debug_assertions) { 5 } else { 1 };
    for n in (0..operations).step_by(stride) {
        let fs = MemoryFileSystem::new();
        fs.set_crash_point(Some(n));
        let finished = open(&fs)
            .and_then(|target| source.migrate_to(&target))
            .is_ok();
        for policy in [
            CrashPolicy::DropUnsynced,
            CrashPolicy::KeepUnsynced,
            CrashPolicy::Random { percent: 50 },
        ] {
            let after = fs.crash(n, policy);
            let target = open(&after).unwrap();
            let found = everything(&target);
            assert!(
                found.is_empty() || found == expected,
                "{n} {policy:?}: {found:?}"
            );
            assert!(!finished || !found.is_empty(), "{n} {policy:?}");
            if found.is_empty() {
                source.migrate_to(&target).unwrap();
                assert_eq!(everything(&target), expected, "{n} {policy:?}");
            }
        }
    }
}
