//! What is known of vaults survives closing; a catalog that is newer or damaged is refused.

use serde::Serialize;
use vault_db::engine::{self, OpenMode};
use vault_db::{Database, Error, ErrorKind, Result, Timestamp};

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
