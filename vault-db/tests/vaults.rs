//! Whole vaults: the same under one name, renamed, copied, deleted.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use vault_db::{Database, Durability, Error, Key, Result, Value, Vault};

fn temp() -> Database {
    Database::builder()
        .durability(Durability::Os)
        .temp()
        .unwrap()
}

fn items(vault: &Vault) -> BTreeMap<Key, Value> {
    vault.items().unwrap().map(|item| item.unwrap()).collect()
}

#[test]
fn the_same_name_is_the_same_vault() {
    let db = temp();
    let (a, b) = (db.vault("v").unwrap(), db.clone().vault("v").unwrap());
    a.put("k", &1).unwrap();
    assert!(a.is_same(&b) && b.get::<i64>("k").unwrap() == Some(1));
    assert!(matches!(
        db.create_vault("v"),
        Err(Error::VaultExists { .. })
    ));
    assert!(matches!(
        db.existing_vault("w"),
        Err(Error::NoSuchVault { .. })
    ));
    assert!(!db.contains_vault("w"));
    // From many threads at once as well.
    let all: Vec<Vault> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| db.vault("w").unwrap()))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(all.iter().all(|vault| vault.is_same(&all[0])));
    // A handle keeps the database open.
    drop(db);
    drop(b);
    a.put("k", &2).unwrap();
}

#[test]
fn renamed_copied_deleted() {
    let db = temp();
    let vault = db.vault("a").unwrap();
    vault.describe(Some("letters")).unwrap();
    vault.set_owner(Some("me")).unwrap();
    vault.set_tags(["x", "y"]).unwrap();
    vault.update((0..5000).map(|n| (n, n))).unwrap();
    vault
        .put_for("expires", &1, std::time::Duration::from_secs(3600))
        .unwrap();
    vault.put("large", &"x".repeat(50_000)).unwrap();
    let before = items(&vault);
    assert_eq!(vault.rename("b").unwrap(), 5002);
    assert!(matches!(
        db.existing_vault("a"),
        Err(Error::NoSuchVault { .. })
    ));
    assert!(db.vault("b").unwrap().is_same(&vault));
    db.vault("taken").unwrap();
    assert!(matches!(
        vault.rename("taken"),
        Err(Error::VaultExists { .. })
    ));
    assert!(matches!(
        vault.copy_to("taken"),
        Err(Error::VaultExists { .. })
    ));
    assert_eq!(vault.rename("b").unwrap(), 5002);

    let mut heard = 0;
    let copy = vault
        .copy_with("c", |progress| {
            assert_eq!(progress.entries_total, 5002);
            heard += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(heard > 0);
    assert_eq!(items(&copy), before);
    let (of_vault, of_copy) = (vault.info().unwrap(), copy.info().unwrap());
    assert_eq!(
        (of_copy.keys, of_copy.bytes, of_copy.expiring),
        (of_vault.keys, of_vault.bytes, 1)
    );
    assert_eq!(of_copy.description.as_deref(), Some("letters"));
    assert!(copy.time_to_live("expires").unwrap().unwrap().is_some());
    copy.put(0, &-1).unwrap();
    assert_eq!(vault.get::<i64>(0).unwrap(), Some(0));

    let cancelled = vault.copy_with("d", |_| ControlFlow::Break(()));
    assert!(matches!(cancelled, Err(Error::Cancelled)));
    assert!(!db.contains_vault("d"));

    let scan = vault.items::<Key, Value>().unwrap();
    assert_eq!(vault.delete().unwrap(), 5002);
    assert!(matches!(
        vault.get::<i64>(1),
        Err(Error::VaultDeleted { .. })
    ));
    assert!(matches!(vault.put(1, &1), Err(Error::VaultDeleted { .. })));
    assert!(matches!(vault.remove(1), Err(Error::VaultDeleted { .. })));
    assert!(matches!(
        vault.update([(1, 1)]),
        Err(Error::VaultDeleted { .. })
    ));
    assert!(matches!(vault.len(), Err(Error::VaultDeleted { .. })));
    assert!(matches!(
        vault.items::<Key, Value>(),
        Err(Error::VaultDeleted { .. })
    ));
    assert!(matches!(vault.clear(), Err(Error::VaultDeleted { .. })));
    assert!(matches!(vault.info(), Err(Error::VaultDeleted { .. })));
    assert!(matches!(vault.rename("e"), Err(Error::VaultDeleted { .. })));
    assert!(matches!(
        vault.copy_to("e"),
        Err(Error::VaultDeleted { .. })
    ));
    assert!(matches!(vault.delete(), Err(Error::VaultDeleted { .. })));
    assert_eq!(scan.filter(Result::is_ok).count(), 5002);
    // The name is free for another vault, which has nothing to do with the old one.
    let another = db.vault("b").unwrap();
    assert!(another.is_empty().unwrap() && !another.is_same(&vault));
}

/// Copies go on while the vault is written to, and show one moment.
#[test]
fn a_copy_shows_one_moment() {
    let db = temp();
    let vault = db.vault("v").unwrap();
    vault.update((0..20_000).map(|n| (n, 0))).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                round += 1;
                // Both ends in one batch: any moment has them equal.
                vault.update([(0, round), (19_999, round)]).unwrap();
            }
        });
        for n in 0..5 {
            let copy = vault.copy_to(&format!("copy {n}")).unwrap();
            let end = |key: i64| copy.get::<i64>(key).unwrap().unwrap();
            assert_eq!(end(0), end(19_999));
            assert_eq!(copy.len().unwrap(), 20_000);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn handles_go_to_any_thread_and_outlive_scopes() {
    const fn any_thread<T: Send + Sync + Clone + 'static>() {}
    const {
        any_thread::<Database>();
        any_thread::<vault_db::EncryptedDatabase>();
        any_thread::<Vault>();
        any_thread::<vault_db::Tenant>();
        any_thread::<vault_db::AccessControl>();
        any_thread::<vault_db::Guarded>();
        any_thread::<vault_db::GuardedVault>();
    };
    let vault = {
        let db = temp();
        let tenant = db.create_tenant("t", vault_db::Quota::NONE).unwrap();
        tenant.vault("v").unwrap()
    };
    let thread = std::thread::spawn(move || {
        vault.put("a", &1).unwrap();
        vault.get::<i64>("a").unwrap()
    });
    assert_eq!(thread.join().unwrap(), Some(1));
}

/// Every way to name a vault refuses what cannot name one, and leaves everything as it was.
#[test]
fn names_that_are_none_are_refused_everywhere() {
    let db = temp();
    let vault = db.vault("v").unwrap();
    vault.put("a", &1).unwrap();
    let tenant = db.create_tenant("t", vault_db::Quota::NONE).unwrap();
    let text = br#"{"format": "vault-json-v1", "entries": []}"#;
    let import = vault_db::ImportOptions::default();
    let long = "x".repeat(129);
    for (name, problem) in [
        ("", "empty"),
        (long.as_str(), "long"),
        ("a/b", "separator"),
        ("a\\b", "separator"),
        ("a:b", "separator"),
        ("a|b", "separator"),
        ("a\nb", "control"),
        ("a\u{7f}b", "control"),
        ("a\u{85}b", "control"),
        ("..", "dot"),
        ("vault.catalog", "dot"),
        (" a", "space"),
        ("vault-x", "kept"),
        ("a\u{200b}b", "character"),
        ("a\u{202e}b", "character"),
    ] {
        let refused = |how: &str, result: Result<()>| {
            let Err(Error::InvalidVaultName {
                problem: found,
                max: 128,
                ..
            }) = result
            else {
                panic!("{how} {name:?}: {result:?}")
            };
            assert!(found.contains(problem), "{how} {name:?}: {found}");
        };
        refused("vault", db.vault(name).map(drop));
        refused("existing", db.existing_vault(name).map(drop));
        refused("create", db.create_vault(name).map(drop));
        refused("rename", vault.rename(name).map(drop));
        refused("copy", vault.copy_to(name).map(drop));
        refused("import", db.import(name, &text[..], &import).map(drop));
        refused("write", db.write(|tx| tx.vault(name).map(drop)));
        refused("read", db.read(|tx| tx.vault(name).map(drop)));
        refused(
            "tenant",
            db.create_tenant(name, vault_db::Quota::NONE).map(drop),
        );
        refused("of tenant", tenant.vault(name).map(drop));
        assert!(!db.contains_vault(name));
    }
    assert_eq!(
        (db.vaults().len(), db.tenants().len(), tenant.vaults().len()),
        (1, 1, 0)
    );
    assert_eq!(vault.get::<i64>("a").unwrap(), Some(1));
}

/// A copy holds up nobody: while it is made, and by whoever makes it, everything else can be done. It shows none of that.
#[test]
fn all_goes_on_while_a_copy_is_made() {
    let db = temp();
    let vault = db.vault("v").unwrap();
    vault.update((0..20_000).map(|n| (n, 0))).unwrap();
    let mut rounds = 0;
    let copy = vault
        .copy_with("copy", |_| {
            rounds += 1;
            vault.put(0, &1).unwrap();
            vault.remove(19_999).unwrap();
            vault.put("new", &1).unwrap();
            db.write(|tx| tx.vault("v")?.put(1, &1)).unwrap();
            assert_eq!(vault.len().unwrap(), 20_000);
            assert!(!db.contains_vault("copy"));
            db.vault("another").unwrap().put(rounds, &1).unwrap();
            vault.rename(&format!("renamed {rounds}")).unwrap();
            vault.rename("v").unwrap();
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(rounds >= 4);
    assert_eq!(copy.len().unwrap(), 20_000);
    let zero = |item: Result<(i64, i64)>| item.is_ok_and(|(_, value)| value == 0);
    assert!(copy.items::<i64, i64>().unwrap().all(zero));
    // Who deletes the vault meanwhile does not end the copy.
    let vault = copy;
    let copy = vault.copy_with("again", |_| {
        let _ = db.existing_vault("copy").map(|vault| vault.delete());
        ControlFlow::Continue(())
    });
    assert_eq!(copy.unwrap().len().unwrap(), 20_000);
    assert!(!db.contains_vault("copy"));
}
