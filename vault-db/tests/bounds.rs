//! What is refused for its size, its number or its name.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use vault_db::engine;
use vault_db::{
    Bounds, Database, Durability, Error, ErrorKind, ImportMode, ImportOptions, Key, Result,
};

fn temp() -> Database {
    Database::builder()
        .durability(Durability::Os)
        .temp()
        .unwrap()
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

/// What is known of a vault is held in memory and counts towards no quota: it is bounded, whichever way it comes in.
#[test]
fn what_is_known_of_a_vault_is_bounded() {
    let db = temp();
    let vault = db.vault("v").unwrap();
    vault.put("a", &1).unwrap();
    vault.describe(Some(&"d".repeat(4096))).unwrap();
    vault.set_owner(Some(&"o".repeat(128))).unwrap();
    vault
        .set_tags((0..64).map(|n| format!("{n:0128}")))
        .unwrap();
    let before = vault.info().unwrap();
    let refused = |result: Result<()>, expected: (usize, usize)| {
        let Err(Error::MetadataTooLong { len, max, .. }) = result else {
            panic!("{result:?}")
        };
        assert_eq!((len, max), expected);
    };
    refused(vault.describe(Some(&"d".repeat(4097))), (4097, 4096));
    refused(vault.set_owner(Some(&"ß".repeat(65))), (130, 128));
    refused(vault.set_tags((0..65).map(|n| n.to_string())), (65, 64));
    refused(
        vault.set_tags(["short".to_owned(), "t".repeat(129)]),
        (129, 128),
    );
    assert_eq!(vault.info().unwrap(), before);
    for (about, expected) in [
        (
            format!("\"description\": \"{}\"", "d".repeat(4097)),
            (4097, 4096),
        ),
        (format!("\"tags\": [\"{}\"]", "t".repeat(129)), (129, 128)),
    ] {
        let text = format!("{{\"format\": \"vault-json-v1\", {about}, \"entries\": []}}");
        for (name, mode) in [
            ("new", ImportMode::Create),
            ("v", ImportMode::Replace),
            ("v", ImportMode::Merge),
        ] {
            let imported = db.import(name, text.as_bytes(), &ImportOptions { mode });
            refused(imported.map(drop), expected);
        }
    }
    assert!(!db.contains_vault("new"));
    assert_eq!(vault.info().unwrap(), before);
    assert_eq!(vault.get::<i64>("a").unwrap(), Some(1));
}

/// Pairs without an end are not gathered until memory is full, and those that are too much at once leave nothing.
#[test]
fn pairs_without_an_end_are_refused() {
    let db = temp();
    let vault = db.vault("v").unwrap();
    vault.put(0, "kept").unwrap();
    let mut asked = 0;
    let endless = (0..).map(|n: u64| {
        asked += 1;
        (n, "x".repeat(1 << 20))
    });
    let refused = vault.update(endless);
    assert!(
        matches!(refused, Err(Error::TransactionTooLarge { .. })),
        "{refused:?}"
    );
    assert!(asked <= 128);
    let large = vault.update((0..80).map(|n| (n, "x".repeat(1 << 20))));
    assert!(
        matches!(large, Err(Error::TransactionTooLarge { .. })),
        "{large:?}"
    );
    assert_eq!(vault.len().unwrap(), 1);
    assert_eq!(vault.get::<String>(0).unwrap().as_deref(), Some("kept"));
}
