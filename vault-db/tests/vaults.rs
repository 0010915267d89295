//! The dictionary verbs of a vault, whole vaults, and what both refuse.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};
use vault_db::engine::{self, OpenMode};
use vault_db::{
    Bounds, Database, Durability, Error, ErrorKind, Key, Result, Timestamp, Value, Vault,
};

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
fn values_of_every_type_come_back() {
    let db = temp();
    let vault = db.vault("types").unwrap();
    vault.put("string", "hello").unwrap();
    vault.put("int", &42).unwrap();
    vault.put("float", &2.5).unwrap();
    vault.put("bool", &true).unwrap();
    vault.put("none", &None::<u8>).unwrap();
    vault.put("list", &(1, 2, "three")).unwrap();
    vault.put("russian", "привет").unwrap();
    vault.put("emoji", "👋").unwrap();
    vault
        .put("special", "!@#$%^&*()_+-=[]{}|;':\",./<>?\0\n")
        .unwrap();
    vault.put("large", &"x".repeat(100_000)).unwrap();
    vault.put("larger", &vec![7_u8; 1 << 20]).unwrap();
    assert_eq!(
        vault.get::<String>("string").unwrap().as_deref(),
        Some("hello")
    );
    assert_eq!(vault.get::<i64>("int").unwrap(), Some(42));
    assert_eq!(vault.get::<f64>("float").unwrap(), Some(2.5));
    assert_eq!(vault.get::<bool>("bool").unwrap(), Some(true));
    assert_eq!(vault.get::<Option<u8>>("none").unwrap(), Some(None));
    assert_eq!(
        vault.get::<(u8, u8, String)>("list").unwrap(),
        Some((1, 2, "three".to_owned()))
    );
    assert_eq!(
        vault.get::<String>("russian").unwrap().as_deref(),
        Some("привет")
    );
    assert_eq!(vault.get::<String>("emoji").unwrap().as_deref(), Some("👋"));
    assert_eq!(
        vault.get::<String>("large").unwrap().unwrap().len(),
        100_000
    );
    assert_eq!(
        vault.get::<Vec<u8>>("larger").unwrap().unwrap(),
        vec![7; 1 << 20]
    );
    assert_eq!(
        vault.get::<Value>("list").unwrap(),
        Some(Value::List(vec![1.into(), 2.into(), "three".into()]))
    );
    assert_eq!(vault.get::<i64>("missing").unwrap(), None);
    assert_eq!(vault.get_or("missing", 9).unwrap(), 9);
    assert_eq!(vault.len().unwrap(), 11);
}

#[test]
fn keys_of_every_kind_stand_in_order() {
    let db = temp();
    let vault = db.vault("keys").unwrap();
    vault.put("text", &1).unwrap();
    vault.put(&b"bytes"[..], &2).unwrap();
    vault.put(("a", 1_u8), &3).unwrap();
    vault.put(("a", 2_u8), &4).unwrap();
    vault.put(("b", -1_i64), &5).unwrap();
    vault.put(-5, &6).unwrap();
    vault.put(70_000, &7).unwrap();
    vault.put(true, &8).unwrap();
    let order: Vec<i64> = vault
        .values()
        .unwrap()
        .map(|value| value.unwrap())
        .collect();
    assert_eq!(order, [2, 1, 3, 4, 5, 6, 7, 8]);
    let of_a: Vec<(String, u8)> = vault
        .prefix::<(String, u8), i64>(("a",))
        .unwrap()
        .map(|item| item.unwrap().0)
        .collect();
    assert_eq!(of_a, [("a".to_owned(), 1), ("a".to_owned(), 2)]);
    let Some(Err(Error::KeyMismatch {
        found, expected, ..
    })) = vault.keys::<String>().unwrap().next()
    else {
        panic!()
    };
    assert_eq!((found, expected), ("bytes", "alloc::string::String"));
    let last: Vec<i64> = vault
        .range::<i64, i64>(0..)
        .unwrap()
        .filter_map(Result::ok)
        .map(|(_, n)| n)
        .collect();
    assert_eq!(last, [7]);
}

#[test]
fn the_verbs_of_a_dictionary() {
    let db = temp();
    let vault = db.vault("items").unwrap();
    assert!(vault.is_empty().unwrap());
    vault.put("a", &1).unwrap();
    vault.put("a", &2).unwrap();
    assert_eq!(vault.len().unwrap(), 1);
    assert!(vault.contains("a").unwrap() && !vault.contains("b").unwrap());
    vault.update([("b", 3), ("c", 4), ("b", 5)]).unwrap();
    assert_eq!(vault.get::<i64>("b").unwrap(), Some(5));
    assert_eq!(vault.pop::<i64>("b").unwrap(), Some(5));
    assert_eq!(vault.pop::<i64>("b").unwrap(), None);
    assert_eq!(vault.set_default("d", &6).unwrap(), 6);
    assert_eq!(vault.set_default("d", &7).unwrap(), 6);
    assert!(vault.remove("d").unwrap() && !vault.remove("d").unwrap());
    assert_eq!(
        vault.pop_last::<String, i64>().unwrap(),
        Some(("c".to_owned(), 4))
    );
    assert_eq!(
        vault.pop_first::<String, i64>().unwrap(),
        Some(("a".to_owned(), 2))
    );
    assert_eq!(vault.pop_first::<String, i64>().unwrap(), None);
    assert_eq!(vault.len().unwrap(), 0);
    vault.update((0..1000).map(|n| (n, n))).unwrap();
    assert_eq!(vault.clear().unwrap(), 1000);
    assert!(vault.is_empty().unwrap() && vault.keys::<Key>().unwrap().next().is_none());
    vault.update(std::iter::empty::<(&str, i64)>()).unwrap();
}

#[test]
fn entries_are_changed_with_nobody_between() {
    let db = temp();
    let vault = db.vault("words").unwrap();
    assert_eq!(vault.entry("n").unwrap().or_insert(1).unwrap(), 1);
    assert_eq!(vault.entry("n").unwrap().or_insert(2).unwrap(), 1);
    let doubled = vault
        .entry::<i64>("n")
        .unwrap()
        .and_modify(|n| *n *= 10)
        .unwrap();
    assert_eq!(doubled, Some(10));
    assert_eq!(
        vault
            .entry::<i64>("m")
            .unwrap()
            .and_modify(|n| *n *= 10)
            .unwrap(),
        None
    );
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let vault = vault.clone();
            scope.spawn(move || {
                for n in 0..50 {
                    let entry = vault.entry::<Vec<(i32, i32)>>("list").unwrap();
                    entry
                        .modify_or_insert(|list| list.push((thread, n)), || vec![(thread, n)])
                        .unwrap();
                    vault.increment("sum", 1).unwrap();
                }
            });
        }
    });
    assert_eq!(
        vault.get::<Vec<(i32, i32)>>("list").unwrap().unwrap().len(),
        200
    );
    assert_eq!(vault.get::<i64>("sum").unwrap(), Some(200));
}

#[test]
fn of_many_who_swap_one_wins() {
    let db = temp();
    let vault = db.vault("locks").unwrap();
    let won: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let vault = vault.clone();
                scope
                    .spawn(move || usize::from(vault.compare_and_set("k", None, Some(&n)).unwrap()))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(won, 1);
    let value = vault.get::<i32>("k").unwrap().unwrap();
    assert!(
        !vault
            .compare_and_set("k", Some(&(value + 1)), None)
            .unwrap()
    );
    assert!(vault.compare_and_set("k", Some(&value), None).unwrap());
    assert!(vault.is_empty().unwrap());
}

/// Each entry of a queue goes to exactly one of those who take from it.
#[test]
fn a_queue_gives_each_entry_once() {
    let db = temp();
    let queue = db.vault("queue").unwrap();
    queue.update((0..200).map(|n| (n, n))).unwrap();
    let mut taken: Vec<i64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let queue = queue.clone();
                scope.spawn(move || {
                    let mut taken = Vec::new();
                    while let Some((key, _)) = queue.pop_first::<i64, i64>().unwrap() {
                        taken.push(key);
                    }
                    taken
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    taken.sort_unstable();
    assert_eq!(taken, (0..200).collect::<Vec<_>>());
}

#[test]
fn raw_bytes_and_values_are_told_apart() {
    let db = temp();
    let vault = db.vault("raw").unwrap();
    vault.put_raw("r", b"\x93\x01").unwrap();
    vault.put_raw("empty", b"").unwrap();
    vault.put("v", &1).unwrap();
    assert_eq!(&vault.get_raw("r").unwrap().unwrap()[..], b"\x93\x01");
    assert_eq!(&vault.get_raw("empty").unwrap().unwrap()[..], b"");
    assert!(vault.get_raw("missing").unwrap().is_none());
    let Err(Error::TypeMismatch { found, .. }) = vault.get::<Vec<u8>>("r") else {
        panic!()
    };
    assert_eq!(found, "raw bytes");
    let Err(Error::TypeMismatch {
        expected, found, ..
    }) = vault.get_raw("v")
    else {
        panic!()
    };
    assert_eq!((expected, found), ("raw bytes", "an integer"));
}

#[test]
fn a_type_that_does_not_fit_is_named_and_nothing_is_lost() {
    #[derive(Debug, Serialize, Deserialize)]
    struct User {
        name: String,
        age: u8,
    }
    let db = temp();
    let vault = db.vault("users").unwrap();
    vault.put("alice", "just a string").unwrap();
    let error = vault.get::<User>("alice").unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("\"alice\"") && text.contains("a string") && text.contains("User"),
        "{text}"
    );
    assert_eq!(error.kind(), ErrorKind::Input);
    vault
        .put("bob", &BTreeMap::from([("name", "bob")]))
        .unwrap();
    assert!(
        vault
            .get::<User>("bob")
            .unwrap_err()
            .to_string()
            .contains("age")
    );
    assert!(matches!(
        vault.pop::<User>("alice"),
        Err(Error::TypeMismatch { .. })
    ));
    assert!(matches!(
        vault.increment("alice", 1),
        Err(Error::TypeMismatch { .. })
    ));
    assert!(matches!(
        vault.pop_first::<String, User>(),
        Err(Error::TypeMismatch { .. })
    ));
    assert!(matches!(
        vault.pop_first::<i64, String>(),
        Err(Error::KeyMismatch { .. })
    ));
    assert_eq!(vault.len().unwrap(), 2);
    vault.put("n", &i64::MAX).unwrap();
    let Err(Error::CounterOverflow { from, by, .. }) = vault.increment("n", 1) else {
        panic!()
    };
    assert_eq!((from, by), (i64::MAX, 1));
    assert_eq!(vault.get::<i64>("n").unwrap(), Some(i64::MAX));
    // A scan tells of it, and goes on.
    let users: Vec<bool> = vault
        .items::<String, User>()
        .unwrap()
        .map(|item| item.is_ok())
        .collect();
    assert_eq!(users, [false, false, false]);
}

#[test]
fn each_bound_has_its_error() {
    let bounds = Bounds {
        vaults_max: 2,
        keys_per_vault_max: 3,
        key_bytes_max: 10,
        value_bytes_max: 20,
        scan_results_max: 2,
    };
    let db = Database::builder()
        .bounds(bounds)
        .durability(Durability::Os)
        .temp()
        .unwrap();
    let vault = db.vault("one").unwrap();
    db.vault("two").unwrap();
    let full = db.vault("three").unwrap_err();
    assert!(matches!(full, Error::TooManyVaults { max: 2 }));
    assert_eq!(full.kind(), ErrorKind::Full);
    assert!(matches!(
        vault.copy_to("three"),
        Err(Error::TooManyVaults { max: 2 })
    ));
    let long = "x".repeat(10);
    assert!(matches!(
        vault.put(&long, &1),
        Err(Error::KeyTooLong { len: 11, max: 10 })
    ));
    assert!(matches!(
        vault.get::<i64>(&long),
        Err(Error::KeyTooLong { .. })
    ));
    assert!(matches!(
        vault.put("k", &"x".repeat(20)),
        Err(Error::ValueTooLong { max: 20, .. })
    ));
    assert!(matches!(
        vault.update([("k", "x".repeat(20))]),
        Err(Error::ValueTooLong { .. })
    ));
    vault.update([(1, 1), (2, 2), (3, 3)]).unwrap();
    assert!(matches!(
        vault.put(4, &4),
        Err(Error::VaultFull { max: 3, .. })
    ));
    assert!(matches!(
        vault.increment(4, 4),
        Err(Error::VaultFull { max: 3, .. })
    ));
    assert!(matches!(
        vault.update([(4, 4)]),
        Err(Error::VaultFull { max: 3, .. })
    ));
    vault.put(3, &33).unwrap();
    assert_eq!(vault.len().unwrap(), 3);
    let mut items = vault.items::<i64, i64>().unwrap();
    assert!(items.next().unwrap().is_ok() && items.next_back().unwrap().is_ok());
    assert!(matches!(
        items.next(),
        Some(Err(Error::ScanTooLong { max: 2 }))
    ));
    assert!(items.next().is_none() && items.next_back().is_none());
    assert_eq!(
        vault
            .range::<i64, i64>(..3)
            .unwrap()
            .filter(Result::is_ok)
            .count(),
        2
    );
    for (name, bad) in [
        (
            "bounds.vaults_max",
            Bounds {
                vaults_max: 1 << 20,
                ..bounds
            },
        ),
        (
            "bounds.keys_per_vault_max",
            Bounds {
                keys_per_vault_max: 0,
                ..bounds
            },
        ),
        (
            "bounds.key_bytes_max",
            Bounds {
                key_bytes_max: 1 << 20,
                ..bounds
            },
        ),
        (
            "bounds.value_bytes_max",
            Bounds {
                value_bytes_max: 0,
                ..bounds
            },
        ),
        (
            "bounds.scan_results_max",
            Bounds {
                scan_results_max: 0,
                ..bounds
            },
        ),
    ] {
        let Err(Error::Engine(engine::Error::InvalidSetting { setting, .. })) =
            Database::builder().bounds(bad).temp()
        else {
            panic!("{name} passed")
        };
        assert_eq!(setting, name);
    }
}

#[test]
fn odd_names_and_keys_are_refused() {
    let db = temp();
    for name in [
        "",
        ".",
        "..",
        "a/b",
        "a\\b",
        "a.b",
        "a\0b",
        "vault-x",
        &"x".repeat(129),
    ] {
        assert!(
            matches!(db.vault(name), Err(Error::InvalidVaultName { .. })),
            "{name:?}"
        );
        assert!(
            matches!(db.existing_vault(name), Err(Error::InvalidVaultName { .. })),
            "{name:?}"
        );
    }
    let vault = db.vault("v").unwrap();
    assert!(matches!(
        vault.rename("a/b"),
        Err(Error::InvalidVaultName { .. })
    ));
    assert!(matches!(
        vault.copy_to(""),
        Err(Error::InvalidVaultName { .. })
    ));
    assert!(matches!(
        vault.put(i128::MAX, &1),
        Err(Error::InvalidKey { .. })
    ));
    let mut deep = Key::from(1);
    for _ in 0..100 {
        deep = Key::Tuple(vec![deep]);
    }
    assert!(matches!(
        vault.put(&deep, &1),
        Err(Error::InvalidKey { .. })
    ));
    vault.put("", &1).unwrap();
    vault.put(&b""[..], &2).unwrap();
    assert_eq!(vault.len().unwrap(), 2);
    assert_eq!(db.vaults().len(), 1);
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

#[test]
fn what_is_known_survives_closing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let before = {
        let db = Database::open(&path).unwrap();
        let vault = db.vault("Ключи").unwrap();
        vault.put("a", &1).unwrap();
        vault.put(("b", 2), "two").unwrap();
        vault.describe(Some("all kinds")).unwrap();
        db.vault("gone").unwrap().delete().unwrap();
        let before = db.vaults();
        db.close().unwrap();
        assert!(matches!(
            vault.get::<i64>("a"),
            Err(Error::Engine(engine::Error::Closed))
        ));
        before
    };
    assert!(before[0].created > Timestamp(0) && before[0].keys == 2 && before[0].bytes > 8);
    let db = Database::builder()
        .mode(OpenMode::MustExist)
        .open(&path)
        .unwrap();
    assert_eq!(db.vaults(), before);
    let read_only = Database::builder().open_read_only(&path).unwrap();
    assert_eq!(read_only.vaults(), before);
    let vault = read_only.vault("Ключи").unwrap();
    assert_eq!(
        vault.get::<String>(("b", 2)).unwrap().as_deref(),
        Some("two")
    );
    let refused =
        |result: Result<()>| matches!(result, Err(Error::Engine(engine::Error::ReadOnly)));
    assert!(refused(vault.put("a", &2)));
    assert!(refused(read_only.vault("new").map(drop)));
    assert!(refused(vault.clear().map(drop)));
    assert!(refused(vault.delete().map(drop)));
    assert!(refused(vault.rename("x").map(drop)));
    assert!(refused(vault.copy_to("x").map(drop)));
    assert!(refused(
        read_only.write(|tx| tx.vault("Ключи")?.put("a", &2))
    ));
    let missing = directory.path().join("missing");
    let opened = Database::builder().mode(OpenMode::MustExist).open(missing);
    assert!(matches!(
        opened,
        Err(Error::Engine(engine::Error::NoSuchStore { .. }))
    ));
}

#[test]
fn a_newer_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let db = Database::open(path).unwrap();
    let catalog = db.engine().keyspace("vault.catalog").unwrap().unwrap();
    #[derive(Serialize)]
    struct Header {
        format: u32,
        next_vault: u32,
        unknown: bool,
    }
    let header = Header {
        format: 2,
        next_vault: 1,
        unknown: true,
    };
    let stored = rmp_serde::to_vec_named(&header).unwrap();
    db.engine()
        .put(catalog, &[0], &stored, &engine::WriteOptions::SYNC)
        .unwrap();
    db.close().unwrap();
    let refused = Database::open(path);
    assert!(matches!(
        refused,
        Err(Error::NewerFormat {
            found: 2,
            supported: 1
        })
    ));
}

#[test]
fn a_damaged_catalog_is_refused() {
    type Change = fn(&Database, engine::KeyspaceId);
    let sync = engine::WriteOptions::SYNC;
    let changes: [(&str, Change); 5] = [
        ("a header that is none", |db, catalog| {
            db.engine()
                .put(catalog, &[0], b"\xc1", &engine::WriteOptions::SYNC)
                .unwrap();
        }),
        ("a record that is none", |db, catalog| {
            db.engine()
                .put(
                    catalog,
                    b"\x01\0\0\0\0x",
                    b"\xc1",
                    &engine::WriteOptions::SYNC,
                )
                .unwrap();
        }),
        ("a name that is none", |db, catalog| {
            db.engine()
                .put(
                    catalog,
                    b"\x01\0\0\0\0\xff",
                    b"",
                    &engine::WriteOptions::SYNC,
                )
                .unwrap();
        }),
        ("a short tally", |db, catalog| {
            db.engine()
                .put(
                    catalog,
                    b"\x02\0\0\0\x01",
                    b"short",
                    &engine::WriteOptions::SYNC,
                )
                .unwrap();
        }),
        ("no keyspace", |db, _| {
            let keyspace = db.engine().keyspace("vault.v1").unwrap().unwrap();
            db.engine().drop_keyspace(keyspace).unwrap();
        }),
    ];
    for (what, change) in changes {
        let directory = tempfile::tempdir().unwrap();
        let db = Database::open(directory.path()).unwrap();
        db.vault("v").unwrap().put("a", &1).unwrap();
        let catalog = db.engine().keyspace("vault.catalog").unwrap().unwrap();
        change(&db, catalog);
        db.close().unwrap();
        let error = Database::open(directory.path()).map(drop).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{what}: {error}");
        assert_eq!(error.kind(), ErrorKind::Restore);
    }
    let _ = sync;
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
