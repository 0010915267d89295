//! Restoring in place, under open handles: what readers, writers and transactions see before, meanwhile and after.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use support::{everything, vault_keyspaces};
use vault_db::{
    Database, Difference, DifferenceKind, Durability, Error, Quota, Scope, TransactionOptions,
    VaultChoice,
};

fn temp() -> Database {
    Database::builder()
        .durability(Durability::Os)
        .temp()
        .unwrap()
}

/// A database with a vault `a` of these entries.
fn with_a(entries: &[(&str, i64)]) -> Database {
    let db = temp();
    db.vault("a")
        .unwrap()
        .update(entries.iter().copied())
        .unwrap();
    db
}

#[test]
fn everything_comes_and_everything_else_goes() {
    let source = with_a(&[("x", 1), ("y", 2)]);
    source
        .vault("a")
        .unwrap()
        .describe(Some("from the source"))
        .unwrap();
    source.vault("new").unwrap().put("n", &9).unwrap();
    source
        .vault("new")
        .unwrap()
        .put_for("short", &1, Duration::from_secs(3600))
        .unwrap();
    let db = with_a(&[("x", 5), ("z", 6)]);
    db.vault("old").unwrap().put("o", &1).unwrap();
    let (a, old) = (db.vault("a").unwrap(), db.vault("old").unwrap());

    let outcome = db.restore_from(&source, &Scope::Everything).unwrap();
    assert_eq!(
        (outcome.vaults, outcome.vaults_before, outcome.entries),
        (2, 2, 4)
    );
    assert_eq!(everything(&db), everything(&source));
    // The handle goes on with what came, for reading and for writing.
    assert_eq!(a.get::<i64>("x").unwrap(), Some(1));
    assert_eq!(a.get::<i64>("z").unwrap(), None);
    assert_eq!(a.len().unwrap(), 2);
    assert_eq!(
        a.info().unwrap().description.as_deref(),
        Some("from the source")
    );
    a.put("w", &7).unwrap();
    assert!(a.is_same(&db.existing_vault("a").unwrap()));
    assert_eq!(db.existing_vault("a").unwrap().len().unwrap(), 3);
    // What went is gone.
    assert!(matches!(
        old.get::<i64>("o"),
        Err(Error::VaultDeleted { .. })
    ));
    assert!(matches!(old.put("o", &1), Err(Error::VaultDeleted { .. })));
    assert!(!db.contains_vault("old"));
    // The expiry came, and is counted.
    let new = db.existing_vault("new").unwrap();
    assert_eq!(new.info().unwrap().expiring, 1);
    assert!(new.time_to_live("short").unwrap().unwrap().is_some());
    assert_eq!(vault_keyspaces(&db), 2);
}

#[test]
fn what_was_restored_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let source = with_a(&[("x", 1)]);
    let path = directory.path().join("store");
    let db = Database::open(&path).unwrap();
    db.vault("b").unwrap().put("y", &2).unwrap();
    db.restore_from(&source, &Scope::Everything).unwrap();
    db.vault("a").unwrap().put("z", &3).unwrap();
    db.close().unwrap();
    let db = Database::open(&path).unwrap();
    let expected = vec![("x".to_owned(), 1), ("z".to_owned(), 3)];
    assert_eq!(
        everything(&db),
        BTreeMap::from([("a".to_owned(), expected)])
    );
    assert_eq!(vault_keyspaces(&db), 1);
    // New vaults get numbers of their own.
    db.vault("c").unwrap().put("k", &1).unwrap();
    assert_eq!(db.vault("a").unwrap().len().unwrap(), 2);
}

#[test]
fn one_vault_comes_and_the_others_stay() {
    let source = with_a(&[("x", 1)]);
    source.vault("b").unwrap().put("never", &1).unwrap();
    let db = with_a(&[("x", 2)]);
    db.vault("b").unwrap().put("stays", &3).unwrap();
    let scope = Scope::Vaults(vec![VaultChoice::named("a")]);
    db.restore_from(&source, &scope).unwrap();
    assert_eq!(db.vault("a").unwrap().get::<i64>("x").unwrap(), Some(1));
    assert_eq!(db.vault("b").unwrap().get::<i64>("stays").unwrap(), Some(3));
    assert_eq!(db.vault("b").unwrap().len().unwrap(), 1);
}

#[test]
fn a_vault_comes_under_another_name_beside_the_one_that_is_there() {
    let source = with_a(&[("x", 1)]);
    let db = with_a(&[("x", 2)]);
    let beside = Scope::Vaults(vec![VaultChoice::named("a").under("a before")]);
    db.restore_from(&source, &beside).unwrap();
    assert_eq!(db.vault("a").unwrap().get::<i64>("x").unwrap(), Some(2));
    assert_eq!(
        db.vault("a before").unwrap().get::<i64>("x").unwrap(),
        Some(1)
    );
    // Not twice: the name is taken.
    let again = db.restore_from(&source, &beside);
    assert!(matches!(again, Err(Error::VaultExists { .. })), "{again:?}");
}

#[test]
fn what_cannot_be_restored_changes_nothing() {
    let source = with_a(&[("x", 1)]);
    source
        .create_tenant("acme", Quota::NONE)
        .unwrap()
        .vault("v")
        .unwrap();
    let db = with_a(&[("x", 2)]);
    let before = everything(&db);
    let twice = vec![
        VaultChoice::named("a").under("c"),
        VaultChoice::named("a").under("c"),
    ];
    let refused = |scope: &Scope| db.restore_from(&source, scope).unwrap_err();
    let vaults = |choices: Vec<VaultChoice>| refused(&Scope::Vaults(choices));
    assert!(matches!(
        vaults(vec![VaultChoice::named("missing")]),
        Error::NoSuchVault { .. }
    ));
    assert!(matches!(
        vaults(vec![VaultChoice::named("v").of("nobody")]),
        Error::NoSuchTenant { .. }
    ));
    // The source has the tenant, and this database does not.
    assert!(matches!(
        vaults(vec![VaultChoice::named("v").of("acme")]),
        Error::NoSuchTenant { .. }
    ));
    assert!(matches!(
        vaults(vec![VaultChoice::named("a").under("no/name")]),
        Error::InvalidVaultName { .. }
    ));
    assert!(matches!(vaults(twice), Error::VaultExists { .. }));
    assert!(matches!(
        refused(&Scope::Tenant("nobody".to_owned())),
        Error::NoSuchTenant { .. }
    ));
    let closed = temp();
    closed.close().unwrap();
    assert!(matches!(
        db.restore_from(&closed, &Scope::Everything),
        Err(Error::Engine(_))
    ));
    assert_eq!(everything(&db), before);
    assert_eq!(vault_keyspaces(&db), 1);
}

#[test]
fn cancelling_leaves_nothing_behind() {
    let source = temp();
    let many = (0..20_000).map(|n| (n, n));
    source.vault("big").unwrap().update(many).unwrap();
    let db = with_a(&[("x", 2)]);
    let mut calls = 0;
    let cancelled = db.restore_with(&source, &Scope::Everything, |progress| {
        calls += 1;
        assert_eq!(
            (progress.vault.as_str(), progress.entries_total),
            ("big", 20_000)
        );
        ControlFlow::Break(())
    });
    assert!(matches!(cancelled, Err(Error::Cancelled)), "{cancelled:?}");
    assert_eq!(calls, 1);
    assert_eq!(db.vault("a").unwrap().get::<i64>("x").unwrap(), Some(2));
    assert_eq!(vault_keyspaces(&db), 1);
    // And the next one is not held up.
    db.restore_from(&source, &Scope::Everything).unwrap();
}

#[test]
fn two_restores_at_once_are_refused() {
    let source = temp();
    source
        .vault("big")
        .unwrap()
        .update((0..10_000).map(|n| (n, n)))
        .unwrap();
    let db = temp();
    let mut second = None;
    db.restore_with(&source, &Scope::Everything, |_| {
        second.get_or_insert_with(|| db.restore_from(&source, &Scope::Everything));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(
        matches!(second, Some(Err(Error::RestoreUnderWay))),
        "{second:?}"
    );
}

#[test]
fn a_reading_transaction_ends_on_what_it_began_with() {
    let source = with_a(&[("x", 1)]);
    source.vault("new").unwrap().put("n", &1).unwrap();
    let db = with_a(&[("x", 2), ("y", 3)]);
    db.vault("old").unwrap().put("o", &4).unwrap();
    let (a, old) = (db.vault("a").unwrap(), db.vault("old").unwrap());
    db.read(|tx| {
        assert_eq!(tx.of(&a)?.get::<i64>("x")?, Some(2));
        db.restore_from(&source, &Scope::Everything)?;
        // By handle and by name, what it has looked at and what it has not.
        assert_eq!(tx.of(&a)?.get::<i64>("y")?, Some(3));
        assert_eq!(tx.of(&a)?.len()?, 2);
        assert_eq!(tx.vault("a")?.get::<i64>("x")?, Some(2));
        assert_eq!(tx.vault("old")?.get::<i64>("o")?, Some(4));
        assert_eq!(tx.of(&old)?.get::<i64>("o")?, Some(4));
        assert!(matches!(tx.vault("new"), Err(Error::NoSuchVault { .. })));
        // A second one in between changes nothing for it.
        db.restore_from(&temp(), &Scope::Everything)?;
        assert_eq!(tx.vault("a")?.get::<i64>("x")?, Some(2));
        assert!(matches!(tx.vault("new"), Err(Error::NoSuchVault { .. })));
        Ok(())
    })
    .unwrap();
    assert!(db.vaults().is_empty());
}

#[test]
fn a_scan_ends_on_what_it_began_with() {
    let db = with_a(&[("x", 1), ("y", 2)]);
    let a = db.vault("a").unwrap();
    let mut items = a.items::<String, i64>().unwrap();
    assert_eq!(items.next().unwrap().unwrap(), ("x".to_owned(), 1));
    db.restore_from(&with_a(&[("x", 8), ("y", 9)]), &Scope::Everything)
        .unwrap();
    assert_eq!(items.next().unwrap().unwrap(), ("y".to_owned(), 2));
    assert!(items.next().is_none());
    let now: Vec<_> = a
        .items::<String, i64>()
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(now, [("x".to_owned(), 8), ("y".to_owned(), 9)]);
}

#[test]
fn a_transaction_that_relied_on_what_was_replaced_collides() {
    let source = with_a(&[("x", 1)]);
    for relies_by_name in [false, true] {
        for reads_only in [false, true] {
            let db = with_a(&[("x", 2)]);
            let other = db.vault("other").unwrap();
            let a = db.vault("a").unwrap();
            let tx = db.begin(TransactionOptions::default()).unwrap();
            let inside = match relies_by_name {
                true => tx.vault("a").unwrap(),
                false => tx.of(&a).unwrap(),
            };
            assert_eq!(inside.get::<i64>("x").unwrap(), Some(2));
            if !reads_only {
                inside.put("x", &7).unwrap();
            }
            tx.of(&other).unwrap().put("k", &1).unwrap();
            let scope = Scope::Vaults(vec![VaultChoice::named("a")]);
            db.restore_from(&source, &scope).unwrap();
            let ended = tx.commit();
            assert!(matches!(ended, Err(Error::Conflict { .. })), "{ended:?}");
            assert_eq!(a.get::<i64>("x").unwrap(), Some(1));
            assert!(other.is_empty().unwrap());
        }
    }
}

#[test]
fn a_transaction_cannot_write_into_what_came_after_its_moment() {
    let source = with_a(&[("x", 1)]);
    let db = temp();
    let tx = db.begin(TransactionOptions::default()).unwrap();
    db.restore_from(&source, &Scope::Everything).unwrap();
    assert!(matches!(tx.vault("a"), Err(Error::Conflict { .. })));
    // Through a handle that is younger than its moment neither.
    let a = db.existing_vault("a").unwrap();
    let tx = db.begin(TransactionOptions::default()).unwrap();
    db.restore_from(&source, &Scope::Everything).unwrap();
    tx.of(&a).unwrap().put("y", &1).unwrap();
    assert!(matches!(tx.commit(), Err(Error::Conflict { .. })));
    assert_eq!(a.len().unwrap(), 1);
    // Run again, it goes through.
    let mut runs = 0;
    db.write(|tx| {
        runs += 1;
        if runs == 1 {
            db.restore_from(&source, &Scope::Everything)?;
        }
        tx.of(&a)?.put("y", &1)
    })
    .unwrap();
    assert_eq!((runs, a.len().unwrap()), (2, 2));
}

#[test]
fn tenants_come_go_and_stay_themselves() {
    let source = temp();
    let quota = Quota {
        keys_max: 100,
        ..Quota::NONE
    };
    let acme = source.create_tenant("acme", quota).unwrap();
    acme.vault("v")
        .unwrap()
        .update([("a", 1), ("b", 2)])
        .unwrap();
    source
        .create_tenant("fresh", Quota::NONE)
        .unwrap()
        .vault("w")
        .unwrap()
        .put("c", &3)
        .unwrap();

    let db = temp();
    db.create_tenant("gone", Quota::NONE)
        .unwrap()
        .vault("v")
        .unwrap()
        .put("z", &1)
        .unwrap();
    let there = db.create_tenant("acme", Quota::NONE).unwrap();
    there.vault("v").unwrap().put("a", &9).unwrap();
    let gone = db.tenant("gone").unwrap();
    db.restore_from(&source, &Scope::Everything).unwrap();

    assert_eq!(
        there.existing_vault("v").unwrap().get::<i64>("b").unwrap(),
        Some(2)
    );
    let info = there.info().unwrap();
    assert_eq!((info.keys, info.vaults, info.quota.keys_max), (2, 1, 100));
    assert_eq!(info.bytes, acme.info().unwrap().bytes);
    let fresh = db.tenant("fresh").unwrap();
    assert_eq!(
        fresh.existing_vault("w").unwrap().get::<i64>("c").unwrap(),
        Some(3)
    );
    assert!(matches!(gone.vault("v"), Err(Error::NoSuchTenant { .. })));
    assert!(matches!(db.tenant("gone"), Err(Error::NoSuchTenant { .. })));
    // Tenants that come later are nobody who was there before.
    let later = db.create_tenant("later", Quota::NONE).unwrap();
    assert!(later.vaults().is_empty());
}

#[test]
fn one_tenant_comes_and_the_others_stay() {
    let source = temp();
    source
        .create_tenant("acme", Quota::NONE)
        .unwrap()
        .vault("v")
        .unwrap()
        .put("a", &1)
        .unwrap();
    let db = with_a(&[("x", 2)]);
    let acme = db.create_tenant("acme", Quota::NONE).unwrap();
    acme.vault("extra").unwrap().put("e", &1).unwrap();
    let bolt = db.create_tenant("bolt", Quota::NONE).unwrap();
    bolt.vault("v").unwrap().put("b", &5).unwrap();
    db.restore_from(&source, &Scope::Tenant("acme".to_owned()))
        .unwrap();
    assert_eq!(
        acme.existing_vault("v").unwrap().get::<i64>("a").unwrap(),
        Some(1)
    );
    assert!(!acme.contains_vault("extra"));
    assert_eq!(acme.info().unwrap().keys, 1);
    assert_eq!(
        bolt.existing_vault("v").unwrap().get::<i64>("b").unwrap(),
        Some(5)
    );
    assert_eq!(db.vault("a").unwrap().get::<i64>("x").unwrap(), Some(2));
}

#[test]
fn chosen_vaults_must_fit_into_a_quota() {
    let source = temp();
    let full = source.create_tenant("acme", Quota::NONE).unwrap();
    full.vault("v")
        .unwrap()
        .update((0..10).map(|n| (n, n)))
        .unwrap();
    let db = temp();
    let acme = db
        .create_tenant(
            "acme",
            Quota {
                keys_max: 5,
                ..Quota::NONE
            },
        )
        .unwrap();
    acme.vault("v").unwrap().put("a", &1).unwrap();
    let scope = Scope::Vaults(vec![VaultChoice::named("v").of("acme")]);
    let refused = db.restore_from(&source, &scope);
    assert!(
        matches!(refused, Err(Error::OverQuota { .. })),
        "{refused:?}"
    );
    assert_eq!(acme.existing_vault("v").unwrap().len().unwrap(), 1);
    assert_eq!(acme.info().unwrap().keys, 1);
    assert_eq!(vault_keyspaces(&db), 1);
}

#[test]
fn comparing_says_what_a_restore_would_change() {
    let source = with_a(&[("both", 1), ("changed", 2), ("new", 3)]);
    source.vault("comes").unwrap().put("k", &1).unwrap();
    let db = with_a(&[("both", 1), ("changed", 9), ("old", 4)]);
    db.vault("goes")
        .unwrap()
        .update([("k", 1), ("l", 2)])
        .unwrap();
    let before = everything(&db);
    let mut seen = Vec::new();
    let note = |difference: &Difference<'_>| {
        let (vault, key) = (difference.vault.to_owned(), difference.key.clone());
        seen.push((vault, key, difference.kind));
        ControlFlow::Continue(())
    };
    let found = db.differences(&source, &Scope::Everything, note).unwrap();
    let counts: Vec<_> = found
        .iter()
        .map(|vault| {
            (
                vault.vault.as_str(),
                vault.added,
                vault.changed,
                vault.removed,
                vault.same,
            )
        })
        .collect();
    assert_eq!(
        counts,
        [
            ("a", 1, 1, 1, 1),
            ("comes", 1, 0, 0, 0),
            ("goes", 0, 0, 2, 0)
        ]
    );
    assert!(found[1].is_new && !found[1].is_gone && found[2].is_gone && !found[2].is_new);
    let key = |vault: &str, key: &str, kind| (vault.to_owned(), key.into(), kind);
    assert_eq!(
        seen,
        [
            key("a", "changed", DifferenceKind::Changed),
            key("a", "new", DifferenceKind::Added),
            key("a", "old", DifferenceKind::Removed),
            key("comes", "k", DifferenceKind::Added),
            key("goes", "k", DifferenceKind::Removed),
            key("goes", "l", DifferenceKind::Removed),
        ]
    );
    assert_eq!(everything(&db), before);
    // After restoring there is nothing left to change.
    db.restore_from(&source, &Scope::Everything).unwrap();
    let after = db.compare_with(&source, &Scope::Everything).unwrap();
    assert!(
        after.iter().all(vault_db::VaultDifference::is_empty),
        "{after:?}"
    );
    // A choice looks at nothing else.
    let scope = Scope::Vaults(vec![VaultChoice::named("a")]);
    assert_eq!(db.compare_with(&source, &scope).unwrap().len(), 1);
}

/// A comparison that promises a change that is then refused is of no use.
#[test]
fn comparing_refuses_what_a_restore_refuses() {
    let source = with_a(&[("k", 1)]);
    let theirs = source.create_tenant("acme", Quota::NONE).unwrap();
    let v = theirs.vault("v").unwrap();
    v.update((0..10).map(|n| (n, n))).unwrap();
    theirs.vault("w").unwrap().put("k", &1).unwrap();
    source.create_tenant("missing", Quota::NONE).unwrap();
    let missing = source.tenant("missing").unwrap();
    missing.vault("v").unwrap().put("k", &1).unwrap();

    let db = with_a(&[("k", 2)]);
    db.vault("b").unwrap().put("k", &3).unwrap();
    let quota = Quota {
        keys_max: 5,
        vaults_max: 1,
        ..Quota::NONE
    };
    let ours = db.create_tenant("acme", quota).unwrap();
    ours.vault("v").unwrap().put("k", &1).unwrap();
    let before = everything(&db);
    let choices = [
        VaultChoice::named("a").under("b"),
        VaultChoice::named("v").of("acme"),
        VaultChoice::named("w").of("acme"),
        VaultChoice::named("v").of("missing"),
        VaultChoice::named("none"),
    ];
    for choice in choices {
        let scope = Scope::Vaults(vec![choice]);
        let compared = db.compare_with(&source, &scope).unwrap_err();
        let refused = db.restore_from(&source, &scope).unwrap_err();
        assert_eq!(compared.to_string(), refused.to_string(), "{scope:?}");
        assert_eq!(everything(&db), before);
    }
    // What has expired does not come, and takes no room.
    let five = VaultChoice::named("five").of("acme");
    let few = theirs.vault("five").unwrap();
    few.update((0..5).map(|n| (n, n))).unwrap();
    few.put_for("gone", &1, Duration::from_millis(1)).unwrap();
    thread::park_timeout(Duration::from_millis(20));
    ours.existing_vault("v").unwrap().delete().unwrap();
    let scope = Scope::Vaults(vec![five]);
    db.compare_with(&source, &scope).unwrap();
    assert_eq!(db.restore_from(&source, &scope).unwrap().entries, 5);
}

/// Readers, writers and transactions go on through restores. Both vaults of a source say the same generation, so whoever sees
/// two generations at once has seen a restore half done.
#[test]
fn nobody_sees_a_restore_half_done() {
    const RESTORES: i64 = 60;
    let source = |generation: i64| {
        let db = temp();
        for name in ["a", "b"] {
            db.vault(name)
                .unwrap()
                .put("generation", &generation)
                .unwrap();
        }
        db
    };
    let db = source(0);
    let kept = db.vault("kept").unwrap();
    let (done, rounds, written) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let reader = |transactional: bool| {
            let (a, b) = (db.vault("a").unwrap(), db.vault("b").unwrap());
            let mut newest = 0;
            while !done.load(Ordering::Relaxed) {
                let (first, second) = if transactional {
                    db.read(|tx| {
                        let a = tx.of(&a)?.get::<i64>("generation")?.unwrap();
                        let b = tx.vault("b")?.get::<i64>("generation")?.unwrap();
                        assert_eq!(a, b, "a transaction saw two generations");
                        Ok((a, b))
                    })
                    .unwrap()
                } else {
                    let first = a.get::<i64>("generation").unwrap().unwrap();
                    // By handle and by name, in turn.
                    let second = match first % 2 {
                        0 => b.get::<i64>("generation"),
                        _ => db.existing_vault("b").unwrap().get::<i64>("generation"),
                    };
                    (first, second.unwrap().unwrap())
                };
                assert!(first <= second, "saw {first}, and then {second} beside it");
                assert!(newest <= first, "went back from {newest} to {first}");
                newest = second;
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        };
        scope.spawn(move || reader(false));
        scope.spawn(move || reader(true));
        scope.spawn(|| {
            let a = db.vault("a").unwrap();
            while !done.load(Ordering::Relaxed) {
                a.put("written", &1).unwrap();
                a.increment("counted", 1).unwrap();
                db.write(|tx| {
                    let generation: i64 = tx.of(&a)?.get("generation")?.unwrap();
                    tx.of(&kept)?.put("generation", &generation)?;
                    tx.vault("b")?.put("generation", &generation)
                })
                .unwrap();
                written.fetch_add(1, Ordering::Relaxed);
            }
        });
        let choice = |name: &str| VaultChoice::named(name);
        for generation in 1..=RESTORES {
            let both = Scope::Vaults(vec![choice("a"), choice("b")]);
            let outcome = db.restore_from(&source(generation), &both).unwrap();
            assert_eq!(outcome.vaults, 2);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(rounds.load(Ordering::Relaxed) > 100 && written.load(Ordering::Relaxed) > 10);
    assert_eq!(
        db.vault("b").unwrap().get::<i64>("generation").unwrap(),
        Some(RESTORES)
    );
    for info in db.vaults() {
        let vault = db.existing_vault(&info.name).unwrap();
        let keys = vault.keys::<String>().unwrap().count() as u64;
        assert_eq!(
            (info.keys, vault.len().unwrap()),
            (keys, keys),
            "{}",
            info.name
        );
    }
    assert_eq!(vault_keyspaces(&db), 3);
}

#[test]
fn a_handle_that_is_younger_than_a_transaction_stands_for_what_there_was() {
    let source = with_a(&[("x", 1)]);
    source.vault("new").unwrap();
    let db = with_a(&[("x", 2)]);
    db.read(|tx| {
        db.restore_from(&source, &Scope::Everything)?;
        let (a, new) = (db.vault("a")?, db.vault("new")?);
        assert_eq!(tx.of(&a)?.get::<i64>("x")?, Some(2));
        assert!(matches!(tx.of(&new), Err(Error::NoSuchVault { .. })));
        assert_eq!(a.get::<i64>("x")?, Some(1));
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_tenant_gets_no_more_vaults_than_it_may_have() {
    let source = temp();
    let acme = source.create_tenant("acme", Quota::NONE).unwrap();
    acme.vault("v").unwrap().put("a", &1).unwrap();
    let db = temp();
    let quota = Quota {
        vaults_max: 1,
        ..Quota::NONE
    };
    let acme = db.create_tenant("acme", quota).unwrap();
    acme.vault("v").unwrap();
    let beside = Scope::Vaults(vec![VaultChoice::named("v").of("acme").under("w")]);
    let refused = db.restore_from(&source, &beside);
    assert!(
        matches!(refused, Err(Error::OverQuota { .. })),
        "{refused:?}"
    );
    assert_eq!(acme.vaults().len(), 1);
    let in_place = Scope::Vaults(vec![VaultChoice::named("v").of("acme")]);
    db.restore_from(&source, &in_place).unwrap();
}

/// A handle that is older than very many exchanges follows them all, and lets go of them without running out of stack.
#[test]
fn a_handle_outlives_any_number_of_exchanges() {
    let db = temp();
    let old = db.vault("v").unwrap();
    let tx = db.begin(TransactionOptions::default()).unwrap();
    let text = r#"{"format": "vault-json-v1", "entries": []}"#;
    let replace = vault_db::ImportOptions {
        mode: vault_db::ImportMode::Replace,
    };
    for _ in 0..300 {
        db.import("v", text.as_bytes(), &replace).unwrap();
    }
    old.put("a", &1).unwrap();
    assert!(old.is_same(&db.vault("v").unwrap()));
    drop(tx);
    drop(old);
    assert_eq!(db.vault("v").unwrap().len().unwrap(), 1);
}
