//! Tenants: what one does, another does not see, count, slow down without bound or delete.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod actor;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use vault_core::clock::{Clock, ManualClock};
use vault_core::vfs::MemoryFileSystem;
use vault_db::encryption::{EncryptedProtection, Kdf, KdfBounds, Passphrase, SecretBytes};
use vault_db::{
    Database, Durability, Error, ErrorKind, ImportMode, ImportOptions, Quota, Result, Tenant,
    Timestamp,
};

use actor::Actor;

fn temp() -> Database {
    Database::builder()
        .durability(Durability::Os)
        .temp()
        .unwrap()
}

#[test]
fn names_are_their_own() {
    let db = temp();
    let (a, b) = (
        db.create_tenant("a", Quota::NONE).unwrap(),
        db.create_tenant("b", Quota::NONE).unwrap(),
    );
    db.vault("users").unwrap().put("who", "nobody's").unwrap();
    a.vault("users").unwrap().put("who", "a's").unwrap();
    b.vault("users").unwrap().put("who", "b's").unwrap();
    let who = |tenant: &Tenant| {
        tenant
            .vault("users")
            .unwrap()
            .get::<String>("who")
            .unwrap()
            .unwrap()
    };
    assert_eq!((who(&a), who(&b)), ("a's".to_owned(), "b's".to_owned()));
    assert_eq!(db.vaults().len(), 1);
    a.vault("only of a").unwrap();
    assert!(matches!(
        b.existing_vault("only of a"),
        Err(Error::NoSuchVault { .. })
    ));
    assert!(!b.contains_vault("only of a") && !db.contains_vault("only of a"));
    assert_eq!(b.vaults().len(), 1);
    a.vault("users").unwrap().rename("people").unwrap();
    a.vault("people").unwrap().copy_to("more people").unwrap();
    assert!(
        a.contains_vault("more people")
            && !db.contains_vault("more people")
            && !b.contains_vault("people")
    );
    let of_a = a.vault("people").unwrap();
    let foreign = b.write(|tx| tx.of(&of_a)?.put("who", "b"));
    assert!(matches!(foreign, Err(Error::ForeignVault { .. })));
    // Whoever has the database may reach over all of them.
    db.write(|tx| tx.of(&of_a)?.put("who", "the owner's"))
        .unwrap();
    a.read(|tx| {
        assert!(matches!(tx.vault("users"), Err(Error::NoSuchVault { .. })));
        assert_eq!(
            tx.vault("people")?.get::<String>("who")?.as_deref(),
            Some("the owner's")
        );
        Ok(())
    })
    .unwrap();
    assert!(matches!(
        db.create_tenant("a", Quota::NONE),
        Err(Error::TenantExists { .. })
    ));
    assert!(matches!(db.tenant("c"), Err(Error::NoSuchTenant { .. })));
    assert!(matches!(
        db.create_tenant("a/b", Quota::NONE),
        Err(Error::InvalidVaultName { .. })
    ));
}

#[test]
fn quotas_hold_exactly() {
    let db = temp();
    let quota = Quota {
        vaults_max: 2,
        keys_max: 10,
        bytes_max: 1000,
    };
    let tenant = db.create_tenant("t", quota).unwrap();
    let (one, two) = (tenant.vault("one").unwrap(), tenant.vault("two").unwrap());
    let over = |result: Result<()>, expected: &str| match result {
        Err(error @ Error::OverQuota { what, .. }) => {
            assert_eq!((what, error.kind()), (expected, ErrorKind::Full));
        }
        other => panic!("{other:?}"),
    };
    over(tenant.vault("three").map(drop), "vaults");
    over(one.copy_to("three").map(drop), "vaults");
    for n in 0..5 {
        one.put(n, &n).unwrap();
        two.put(n, &n).unwrap();
    }
    over(one.put(5, &5), "keys");
    over(one.increment(5, 5).map(drop), "keys");
    over(two.update([(5, 5), (6, 6)]), "keys");
    over(tenant.write(|tx| tx.vault("one")?.put(5, &5)), "keys");
    let text = r#"{"format": "vault-json-v1", "entries": [{"key": "a", "value": 1}]}"#;
    let merge = ImportOptions {
        mode: ImportMode::Merge,
    };
    over(
        tenant.import("one", text.as_bytes(), &merge).map(drop),
        "keys",
    );
    one.put(4, &44).unwrap();
    one.remove(4).unwrap();
    two.put(5, &5).unwrap();
    over(one.put(0, &"x".repeat(1000)), "bytes");
    let info = tenant.info().unwrap();
    assert_eq!((info.vaults, info.keys), (2, 10));
    assert_eq!(
        info.bytes,
        one.info().unwrap().bytes + two.info().unwrap().bytes
    );
    one.clear().unwrap();
    assert_eq!(tenant.info().unwrap().keys, 6);
    two.delete().unwrap();
    assert_eq!(
        (tenant.info().unwrap().keys, tenant.info().unwrap().bytes),
        (0, 0)
    );
    db.set_quota(
        "t",
        Quota {
            keys_max: 1,
            ..quota
        },
    )
    .unwrap();
    one.put(1, &1).unwrap();
    over(one.put(2, &2), "keys");
    // Of many at once no more get in than there is room for.
    db.set_quota(
        "t",
        Quota {
            keys_max: 50,
            ..Quota::NONE
        },
    )
    .unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let one = one.clone();
            scope.spawn(move || {
                for n in 0..50 {
                    match one.put((thread, n), &n) {
                        Ok(()) | Err(Error::OverQuota { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    assert!(
        (45..=50).contains(&one.len().unwrap()),
        "{}",
        one.len().unwrap()
    );
    while one.len().unwrap() < 50 {
        one.put(("more", one.len().unwrap()), &1).unwrap();
    }
    over(one.put("one more", &1), "keys");
}

/// What only moves from one of a tenant's vaults to another needs no room, and what grows on the whole is refused on the whole.
#[test]
fn a_transaction_is_held_against_the_quota_as_a_whole() {
    let db = temp();
    let quota = Quota {
        keys_max: 4,
        bytes_max: 100,
        ..Quota::NONE
    };
    let tenant = db.create_tenant("t", quota).unwrap();
    let (one, two) = (tenant.vault("one").unwrap(), tenant.vault("two").unwrap());
    one.update([(1, 1), (2, 2), (3, 3), (4, 4)]).unwrap();
    let move_keys = |keys: std::ops::Range<i64>, added: usize| {
        tenant.write(|tx| {
            let (one, two) = (tx.vault("one")?, tx.vault("two")?);
            for key in keys.clone() {
                let value = one.pop::<i64>(key)?;
                two.put(key, &value)?;
            }
            (0..added).try_for_each(|n| two.put(("added", n as i64), &n))
        })
    };
    move_keys(1..4, 0).unwrap();
    assert_eq!((one.len().unwrap(), two.len().unwrap()), (1, 3));
    let refused = move_keys(4..5, 1);
    assert!(matches!(
        refused,
        Err(Error::OverQuota {
            what: "keys",
            max: 4,
            ..
        })
    ));
    assert_eq!((one.len().unwrap(), two.len().unwrap()), (1, 3));
    assert_eq!(tenant.info().unwrap().keys, 4);
    // The other way round, in the order of the vaults.
    tenant
        .write(|tx| {
            let value = tx.vault("two")?.pop::<i64>(1)?;
            tx.vault("one")?.put(1, &value)
        })
        .unwrap();
    assert_eq!((one.len().unwrap(), two.len().unwrap()), (2, 2));
}

#[test]
fn they_survive_closing_and_are_dropped_whole() {
    let directory = tempfile::tempdir().unwrap();
    let protection = || {
        let passphrase = SecretBytes::from_string("correct horse".to_owned()).unwrap();
        EncryptedProtection::with_source(Arc::new(Passphrase::new(passphrase).unwrap()))
            .kdf(Kdf::danger_weak())
            .kdf_bounds(KdfBounds::danger_weak())
    };
    let open = || {
        Database::builder()
            .open_encrypted_with(directory.path(), protection())
            .unwrap()
    };
    let quota = Quota {
        keys_max: 3,
        ..Quota::NONE
    };
    {
        let db = open();
        let tenant = db.create_tenant("t", quota).unwrap();
        tenant.vault("a").unwrap().update([(1, 1), (2, 2)]).unwrap();
        tenant.vault("b").unwrap().put(3, &3).unwrap();
        db.create_tenant("other", Quota::NONE)
            .unwrap()
            .vault("a")
            .unwrap()
            .put(1, "kept")
            .unwrap();
        db.close().unwrap();
    }
    let db = open();
    let tenant = db.tenant("t").unwrap();
    assert_eq!(tenant.info().unwrap().keys, 3);
    assert_eq!(tenant.info().unwrap().quota, quota);
    assert!(matches!(
        tenant.vault("a").unwrap().put(4, &4),
        Err(Error::OverQuota { .. })
    ));
    let vault = tenant.vault("a").unwrap();
    assert_eq!(db.drop_tenant("t").unwrap(), 3);
    assert!(matches!(
        vault.get::<i64>(1),
        Err(Error::VaultDeleted { .. })
    ));
    assert!(matches!(tenant.vault("a"), Err(Error::NoSuchTenant { .. })));
    assert!(matches!(
        tenant.create_vault("c"),
        Err(Error::NoSuchTenant { .. })
    ));
    assert!(matches!(
        tenant.write(|_| Ok(())),
        Err(Error::NoSuchTenant { .. })
    ));
    assert!(matches!(tenant.info(), Err(Error::NoSuchTenant { .. })));
    assert!(matches!(
        db.drop_tenant("t"),
        Err(Error::NoSuchTenant { .. })
    ));
    assert_eq!(db.tenants().len(), 1);
    // One of the same name begins with nothing.
    let again = db.create_tenant("t", Quota::NONE).unwrap();
    assert!(again.vaults().is_empty() && again.vault("a").unwrap().is_empty().unwrap());
    db.close().unwrap();
    drop(db);
    let db = open();
    let kept = db.tenant("other").unwrap().vault("a").unwrap();
    assert_eq!(kept.get::<String>(1).unwrap().as_deref(), Some("kept"));
}

/// An import that is stopped on its way leaves no vault, no keyspace, and nothing in the quota.
#[test]
fn an_import_is_stopped_by_its_progress() {
    let db = temp();
    let tenant = db.create_tenant("t", Quota::NONE).unwrap();
    let before = db.engine().keyspaces().unwrap();
    let entries: Vec<_> = (0..5_000)
        .map(|n| format!(r#"{{"key": "k{n}", "value": {n}}}"#))
        .collect();
    let entries = entries.join(",");
    let text = format!(r#"{{"format": "vault-json-v1", "entries": [{entries}]}}"#);
    let options = ImportOptions::default();
    let mut heard = Vec::new();
    let stopped = tenant.import_with("v", text.as_bytes(), &options, |progress| {
        heard.push(progress.entries_done);
        match heard.len() {
            1 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    });
    assert!(matches!(stopped, Err(Error::Cancelled)));
    assert!(heard.len() == 2 && heard[0] < heard[1] && heard[1] < 5_000);
    assert!(!tenant.contains_vault("v"));
    assert_eq!(tenant.info().unwrap().keys, 0);
    assert_eq!(db.engine().keyspaces().unwrap(), before);
    let outcome = tenant.import("v", text.as_bytes(), &options).unwrap();
    assert_eq!(outcome.entries, 5_000);
}

/// Two-tenant metamorphic test: a tenant observes the same whether or not another one is at work beside it, whatever that does.
/// 10,000 random sequences.
const SEQUENCES: u64 = 10_000;

#[test]
fn what_one_does_the_other_does_not_observe() {
    let quota = Quota {
        vaults_max: 3,
        keys_max: 12,
        bytes_max: 400,
    };
    // On disks in memory: this is about what is seen, not about what is kept. Two of them, whose clocks go in step.
    let database = || {
        let fs = Arc::new(MemoryFileSystem::new());
        let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
        let db = Database::builder()
            .durability(Durability::Os)
            .clock(Arc::clone(&clock) as Arc<dyn Clock>)
            .engine_options(|options| options.file_system(fs))
            .open("/store")
            .unwrap();
        (clock, db)
    };
    let (alone, beside) = (database(), database());
    for sequence in 0..SEQUENCES {
        let steps = 6 + sequence % 5;
        let observed = |(clock, db): &(Arc<ManualClock>, Database), with_other: bool| {
            let mut one = Actor::new(db.create_tenant("one", quota).unwrap(), sequence);
            let mut other = with_other
                .then(|| Actor::new(db.create_tenant("other", quota).unwrap(), sequence ^ 0xabcd));
            for _ in 0..steps {
                clock.advance(Duration::from_secs(1));
                one.step();
                if let Some(other) = &mut other {
                    other.step();
                    other.step();
                }
            }
            db.drop_tenant("one").unwrap();
            if with_other {
                db.drop_tenant("other").unwrap();
            }
            one.observed
        };
        let (alone, beside) = (observed(&alone, false), observed(&beside, true));
        assert_eq!(alone, beside, "sequence {sequence}");
    }
}

/// However much another one does, it takes nothing out of a tenant's log of accesses.
#[test]
fn logs_of_accesses_are_their_own() {
    let db = temp();
    let one = db.create_tenant("one", Quota::NONE).unwrap();
    let other = db.create_tenant("other", Quota::NONE).unwrap();
    one.vault("v").unwrap().put("mine", &1).unwrap();
    db.vault("v").unwrap().put("nobody's", &1).unwrap();
    let (of_one, of_none) = (one.recent_accesses(), db.recent_accesses());
    for n in 0..100 {
        // The first accesses to each vault are all looked at.
        let vault = other.vault(&format!("v{n}")).unwrap();
        for key in 0..30 {
            vault.put(key, &n).unwrap();
        }
    }
    assert_eq!(one.recent_accesses(), of_one);
    assert_eq!(db.recent_accesses(), of_none);
    assert_eq!(of_one.len(), 1);
    assert_eq!(other.recent_accesses().len(), 128);
    db.drop_tenant("other").unwrap();
    assert!(other.recent_accesses().is_empty());
}
