//! Export and import: every form and every mode.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use vault_core::clock::{Clock, ManualClock};
use vault_db::{
    Database, Durability, Error, ExportFormat, ImportMode, ImportOptions, Key, Timestamp, Value,
    Vault,
};

const FORMATS: [ExportFormat; 3] = [
    ExportFormat::Json,
    ExportFormat::JsonLines,
    ExportFormat::Base64,
];

fn temp() -> Database {
    Database::builder()
        .durability(Durability::Os)
        .temp()
        .unwrap()
}

fn items(vault: &Vault) -> BTreeMap<Key, String> {
    let items = vault
        .items::<Key, Value>()
        .unwrap()
        .map(|item| item.unwrap());
    items
        .map(|(key, value)| (key, format!("{value:?}")))
        .collect()
}

fn exported(vault: &Vault, format: ExportFormat) -> String {
    let mut text = Vec::new();
    vault.export(format, &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

const CREATE: ImportOptions = ImportOptions {
    mode: ImportMode::Create,
};
const MERGE: ImportOptions = ImportOptions {
    mode: ImportMode::Merge,
};
const REPLACE: ImportOptions = ImportOptions {
    mode: ImportMode::Replace,
};

fn varied(db: &Database) -> Vault {
    let vault = db.vault("varied").unwrap();
    vault.describe(Some("of every kind")).unwrap();
    vault.set_tags(["a", "b"]).unwrap();
    vault.put("text", "grün \"quoted\" \\ \n").unwrap();
    vault.put(&b"\x00\xff"[..], &vec![0_u8, 255]).unwrap();
    vault.put(-7, &u64::MAX).unwrap();
    vault.put(("a", 1, true), &Some(1.0)).unwrap();
    vault.put("none", &None::<u8>).unwrap();
    vault
        .put("not finite", &[f64::INFINITY, f64::NEG_INFINITY])
        .unwrap();
    vault
        .put("by number", &BTreeMap::from([(1, "one"), (2, "two")]))
        .unwrap();
    vault
        .put("dollar", &BTreeMap::from([("$bytes", "not Base64")]))
        .unwrap();
    vault
        .put_for("expires", &1, Duration::from_secs(3600))
        .unwrap();
    vault
}

#[test]
fn every_form_comes_back() {
    let db = temp();
    let vault = varied(&db);
    for format in FORMATS {
        let text = exported(&vault, format);
        let name = format!("{format:?}");
        let outcome = db.import(&name, text.as_bytes(), &CREATE).unwrap();
        assert_eq!((outcome.entries, outcome.expired), (9, 0));
        let copy = db.vault(&name).unwrap();
        assert_eq!(items(&copy), items(&vault), "{format:?}");
        assert!(copy.time_to_live("expires").unwrap().unwrap().is_some());
        let (of_copy, of_vault) = (copy.info().unwrap(), vault.info().unwrap());
        assert_eq!(
            (of_copy.keys, of_copy.expiring),
            (of_vault.keys, of_vault.expiring)
        );
        if format != ExportFormat::Base64 {
            assert_eq!(of_copy.description.as_deref(), Some("of every kind"));
            assert_eq!(of_copy.tags, ["a", "b"]);
        }
    }
}

/// Whatever can be stored can be read, exported, and imported again.
#[test]
fn as_deep_as_a_value_may_be() {
    const DEPTH_MAX: usize = 128;
    let wraps: [fn(Value) -> Value; 3] = [
        |inner| Value::List(vec![inner]),
        |inner| Value::Map(vec![(Value::from("k"), inner)]),
        |inner| Value::Map(vec![(Value::Integer(1), inner)]),
    ];
    for (wrap, depth) in wraps
        .into_iter()
        .flat_map(|wrap| (120..=130).map(move |depth| (wrap, depth)))
    {
        let db = temp();
        let vault = db.vault("deep").unwrap();
        // The innermost is empty, and counts.
        let value = (1..depth).fold(Value::List(Vec::new()), |inner, _| wrap(inner));
        let put = vault.put("k", &value);
        assert_eq!(put.is_ok(), depth <= DEPTH_MAX, "{depth}: {put:?}");
        if put.is_err() {
            continue;
        }
        assert_eq!(vault.get::<Value>("k").unwrap(), Some(value), "{depth}");
        for format in FORMATS {
            let text = exported(&vault, format);
            let name = format!("of {format:?}");
            let name = name.to_lowercase();
            db.import(&name, text.as_bytes(), &CREATE).unwrap();
            assert_eq!(items(&db.vault(&name).unwrap()), items(&vault), "{depth}");
        }
    }
    let text = |brackets: usize| {
        let value = "[".repeat(brackets) + &"]".repeat(brackets);
        format!(r#"{{"format":"vault-json-v1","entries":[{{"key":"k","value":{value}}}]}}"#)
    };
    let db = temp();
    db.import("most", text(DEPTH_MAX).as_bytes(), &CREATE)
        .unwrap();
    for brackets in [DEPTH_MAX + 1, 1_000_000] {
        let refused = db.import("more", text(brackets).as_bytes(), &CREATE);
        let Err(Error::Import { problem, .. }) = refused else {
            panic!("{brackets}: {refused:?}")
        };
        assert!(
            problem.contains("more than 128 lists and maps"),
            "{problem}"
        );
    }
}

#[test]
fn raw_bytes_come_back_as_such() {
    let db = temp();
    let vault = db.vault("raw").unwrap();
    vault.put_raw("r", b"\x00\x01").unwrap();
    for format in FORMATS {
        let name = format!("{format:?}");
        db.import(&name, exported(&vault, format).as_bytes(), &CREATE)
            .unwrap();
        let copy = db.vault(&name).unwrap();
        assert_eq!(&copy.get_raw("r").unwrap().unwrap()[..], b"\x00\x01");
    }
}

#[test]
fn json_is_for_people() {
    let db = temp();
    let vault = db.vault("notes").unwrap();
    vault.put("backup", "weekly").unwrap();
    vault.put("port", &80).unwrap();
    let text = exported(&vault, ExportFormat::Json);
    assert!(text.contains("\n    {\"key\":\"backup\",\"value\":\"weekly\"},\n    {\"key\":\"port\",\"value\":80}\n"), "{text}");
    // And with every other program that reads JSON.
    let read: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read["vault"], "notes");
}

#[test]
fn modes_say_what_becomes_of_what_is_there() {
    let db = temp();
    let text = r#"{"format": "vault-json-v1", "entries": [{"key": "a", "value": 1}, {"key": "b", "value": 2}]}"#;
    let vault = db.vault("v").unwrap();
    db.import("v", text.as_bytes(), &CREATE).unwrap();
    // The handle of the empty vault goes on with the one that took its place.
    assert!(vault.is_same(&db.vault("v").unwrap()));
    assert_eq!(vault.len().unwrap(), 2);
    assert!(matches!(
        db.import("v", text.as_bytes(), &CREATE),
        Err(Error::VaultExists { .. })
    ));
    vault.update([("a", 10), ("c", 30)]).unwrap();
    db.import("v", text.as_bytes(), &MERGE).unwrap();
    let found: Vec<(String, i64)> = vault.items().unwrap().map(|item| item.unwrap()).collect();
    assert_eq!(
        found,
        [
            ("a".to_owned(), 1),
            ("b".to_owned(), 2),
            ("c".to_owned(), 30)
        ]
    );
    assert_eq!(vault.len().unwrap(), 3);
    db.import("v", text.as_bytes(), &REPLACE).unwrap();
    let vault = db.vault("v").unwrap();
    assert_eq!(
        (vault.len().unwrap(), vault.keys::<Key>().unwrap().count()),
        (2, 2)
    );
    assert_eq!(db.vaults().len(), 1);
}

/// More than what is merged as one commit: the vault is written anew, and readers see it before or after.
#[test]
fn large_imports_merge_as_a_whole() {
    let db = temp();
    let vault = db.vault("v").unwrap();
    vault.update((0..20_000).map(|n| (n * 2, "old"))).unwrap();
    vault
        .put_for("expires", &1, Duration::from_secs(3600))
        .unwrap();
    let source = db.vault("source").unwrap();
    let long = "x".repeat(600);
    for part in 0..10 {
        source
            .update((0..2000).map(|n| ((part * 2000 + n) * 3, long.as_str())))
            .unwrap();
    }
    let text = exported(&source, ExportFormat::JsonLines);
    let outcome = db.import("v", text.as_bytes(), &MERGE).unwrap();
    assert_eq!(outcome.entries, 20_000);
    let vault = db.vault("v").unwrap();
    let expected = (0..20_000)
        .map(|n| n * 2)
        .chain((0..20_000).map(|n| n * 3))
        .collect::<std::collections::BTreeSet<i64>>()
        .len()
        + 1;
    assert_eq!(vault.len().unwrap(), expected as u64);
    assert_eq!(vault.keys::<Key>().unwrap().count(), expected);
    assert_eq!(vault.get::<String>(6).unwrap().unwrap().len(), 600);
    assert_eq!(vault.get::<String>(2).unwrap().as_deref(), Some("old"));
    assert!(vault.time_to_live("expires").unwrap().unwrap().is_some());
    // Nothing is left of what was in between.
    let keyspaces = db.engine().keyspaces().unwrap();
    assert_eq!(
        keyspaces
            .iter()
            .filter(|info| info.name.starts_with("vault.v"))
            .count(),
        2
    );
}

/// An engine with little memory takes little at once: values go one by one, and what is merged goes anew.
#[test]
fn large_values_are_imported_with_little_memory() {
    let db = Database::builder()
        .durability(Durability::Os)
        .memory_bytes(16 << 20)
        .temp()
        .unwrap();
    let vault = db.vault("v").unwrap();
    vault.put("old", "x").unwrap();
    let value = "x".repeat(400_000);
    let lines: String = (0..10)
        .map(|n| format!("{{\"key\":\"k{n}\",\"value\":\"{value}\"}}\n"))
        .collect();
    let text = format!("{{\"format\":\"vault-jsonl-v1\"}}\n{lines}{{\"entries\":10}}\n");
    db.import("w", text.as_bytes(), &CREATE).unwrap();
    db.import("v", text.as_bytes(), &MERGE).unwrap();
    let vault = db.vault("v").unwrap();
    assert_eq!(vault.len().unwrap(), 11);
    assert_eq!(vault.get::<String>("k9").unwrap(), Some(value));
    assert_eq!(vault.copy_to("copy").unwrap().len().unwrap(), 11);
}

#[test]
fn what_has_expired_is_left_out() {
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
    let db = Database::builder()
        .clock(Arc::clone(&clock) as Arc<dyn Clock>)
        .temp()
        .unwrap();
    let vault = varied(&db);
    for format in FORMATS {
        let text = exported(&vault, format);
        clock.advance(Duration::from_secs(3601));
        let name = format!("{format:?}");
        let outcome = db.import(&name, text.as_bytes(), &CREATE).unwrap();
        assert_eq!((outcome.entries, outcome.expired), (8, 1));
        assert_eq!(db.vault(&name).unwrap().len().unwrap(), 8);
        vault
            .put_for("expires", &1, Duration::from_secs(3600))
            .unwrap();
    }
}

#[test]
fn readers_and_writers_that_fail_are_told_of() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the cable was cut"))
        }
    }
    impl io::Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::other("the cable was cut"))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let db = temp();
    let vault = varied(&db);
    let error = vault.export(ExportFormat::Json, Failing).unwrap_err();
    assert!(matches!(&error, Error::Stream { .. }) && error.to_string().contains("cable"));
    for head in [
        "{\"format\":\"vault-jsonl-v1\"}\n{\"key\"",
        "{\"format\": \"vault-json-v1\", \"entries\": [\n",
    ] {
        let input = BufReader::new(head.as_bytes().chain(Failing));
        let error = db.import("v", input, &CREATE).unwrap_err();
        assert!(matches!(&error, Error::Stream { .. }), "{error}");
        assert!(!db.contains_vault("v"));
    }
}

#[test]
fn both_can_be_stopped() {
    let db = temp();
    let vault = db.vault("source").unwrap();
    vault.update((0..5000).map(|n| (n, n))).unwrap();
    let stopped = vault.export_with(ExportFormat::Json, io::sink(), |progress| {
        assert_eq!(progress.entries_total, 5000);
        ControlFlow::Break(())
    });
    assert!(matches!(stopped, Err(Error::Cancelled)));
    let text = exported(&vault, ExportFormat::JsonLines);
    let stopped = db.import_with("v", text.as_bytes(), &CREATE, |progress| {
        match progress.entries_done {
            ..3000 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    });
    assert!(matches!(stopped, Err(Error::Cancelled)));
    assert!(!db.contains_vault("v"));
}
