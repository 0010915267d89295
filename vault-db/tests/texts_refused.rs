//! Texts that are not as they must be: nothing of them is imported.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::io::{self, BufReader, Read};
use std::ops::ControlFlow;

use vault_db::{Bounds, Database, Durability, Error, ErrorKind, ImportMode, ImportOptions};

fn temp() -> Database {
    Database::builder()
        .durability(Durability::Os)
        .temp()
        .unwrap()
}

const CREATE: ImportOptions = ImportOptions {
    mode: ImportMode::Create,
};
const MERGE: ImportOptions = ImportOptions {
    mode: ImportMode::Merge,
};

fn refused(db: &Database, text: &str) -> Error {
    let error = db.import("v", text.as_bytes(), &CREATE).unwrap_err();
    assert!(!db.contains_vault("v"), "{error}");
    let keyspaces = db.engine().keyspaces().unwrap();
    let of_vaults = keyspaces
        .iter()
        .filter(|info| info.name.starts_with("vault.v"))
        .count();
    assert_eq!(of_vaults, db.vaults().len(), "something is left of {error}");
    error
}

#[test]
fn texts_that_are_not_as_they_must_be() {
    let db = temp();
    let at = |line: u64, text: &str| match refused(&db, text) {
        Error::Import {
            line: found,
            problem,
        } => assert_eq!(found, line, "{problem}\n{text}"),
        other => panic!("{other}\n{text}"),
    };
    at(1, "");
    at(1, "no JSON at all");
    at(1, "[]");
    at(1, "{}");
    at(1, r#"{"format": "something-else", "entries": []}"#);
    at(1, r#"{"format": "vault-json-v1"}"#);
    at(1, r#"{"entries": [], "format": "vault-json-v1"}"#);
    at(1, r#"{"format": "vault-json-v1", "data": {}}"#);
    at(
        2,
        "{\"format\": \"vault-json-v1\",\n\"what\": 1, \"entries\": []}",
    );
    at(
        3,
        "{\"format\": \"vault-json-v1\", \"entries\": [\n{\"key\": \"a\", \"value\": 1},\n{\"key\": 2, \"value\": 1}]}",
    );
    at(
        2,
        "{\"format\": \"vault-json-v1\", \"entries\": [\n{\"key\": \"a\", \"wert\": 1}]}",
    );
    at(
        2,
        "{\"format\": \"vault-json-v1\", \"entries\": [\n{\"key\": \"a\", \"value\": {\"$bytes\": \"?\"}}]}",
    );
    at(
        2,
        "{\"format\": \"vault-json-v1\", \"entries\": [\n{\"key\": \"a\", \"value\": 1}",
    );
    at(1, r#"{"format": "vault-json-v1", "entries": []} and more"#);
    at(
        1,
        r#"{"format": "vaults-base64-v1", "data": {"!": "AA=="}}"#,
    );
    at(
        1,
        r#"{"format": "vaults-base64-v1", "data": {"AmE=": "wQ=="}}"#,
    );
    at(
        1,
        r#"{"format": "vaults-base64-v1", "data": {"AmE=": "AcE="}}"#,
    );
    let head = "{\"format\":\"vault-jsonl-v1\"}\n";
    at(2, head);
    at(2, &format!("{head}{{\"key\":\"a\"}}\n"));
    at(
        3,
        &format!("{head}{{\"key\":\"a\",\"value\":1}}\nnonsense\n"),
    );
    at(
        3,
        &format!("{head}{{\"key\":\"a\",\"value\":1}}\n{{\"entries\":2}}\n"),
    );
    at(
        3,
        &format!("{head}{{\"entries\":0}}\n{{\"key\":\"a\",\"value\":1}}\n"),
    );
    // Deeper than what can be read.
    at(
        2,
        &format!(
            "{head}{{\"key\":\"a\",\"value\":{}1{}}}\n",
            "[".repeat(300),
            "]".repeat(300)
        ),
    );

    for twice in [
        "{\"format\": \"vault-json-v1\", \"entries\": [\n{\"key\": \"a\", \"value\": 1},\n{\"key\": \"a\", \"value\": 2}]}".to_owned(),
        format!("{head}{{\"key\":\"a\",\"value\":1}}\n{{\"key\":\"a\",\"value\":2}}\n{{\"entries\":2}}\n"),
    ] {
        let Error::DuplicateKey { line: 3, key } = refused(&db, &twice) else { panic!() };
        assert_eq!(key, "\"a\"");
    }
    for newer in ["vault-json-v2", "vault-jsonl-v7", "vaults-base64-v2"] {
        let error = refused(
            &db,
            &format!("{{\"format\": \"{newer}\", \"entries\": []}}"),
        );
        assert!(
            matches!(&error, Error::NewerExport { found } if found == newer),
            "{error}"
        );
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    assert!(matches!(
        db.import("a/b", "".as_bytes(), &CREATE),
        Err(Error::InvalidVaultName { .. })
    ));
}

/// A key that comes twice is found wherever the first one is: just before, written already, or in between.
#[test]
fn a_key_that_comes_twice_is_found_at_any_distance() {
    let db = temp();
    let value = "x".repeat(2000);
    for (count, again) in [
        (2, 0),
        (200, 0),
        (200, 130),
        (200, 131),
        (200, 198),
        (1000, 1),
        (1000, 500),
    ] {
        let mut lines: Vec<String> = (0..count)
            .map(|n| format!("{{\"key\":\"k{n}\",\"value\":\"{value}\"}}\n"))
            .collect();
        lines.push(lines[again].clone());
        let text = format!("{{\"format\":\"vault-jsonl-v1\"}}\n{}", lines.concat());
        let Error::DuplicateKey { line, key } = refused(&db, &text) else {
            panic!("{count} {again}")
        };
        assert_eq!((line, key), (count + 2, format!("\"k{again}\"")));
    }
    for distance in 1..300 {
        let mut lines: Vec<String> = (0..distance)
            .map(|n| format!("{{\"key\":\"k{n}\",\"value\":\"{value}\"}}\n"))
            .collect();
        lines.push(lines[0].clone());
        let text = format!("{{\"format\":\"vault-jsonl-v1\"}}\n{}", lines.concat());
        assert!(
            matches!(refused(&db, &text), Error::DuplicateKey { .. }),
            "{distance}"
        );
    }
}

/// A text that would fill any memory is read, and refused, one entry at a time.
#[test]
fn ten_gigabytes_are_read_in_little_memory() {
    struct Endless {
        line: u64,
        rest: Vec<u8>,
        bytes: u64,
    }
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.rest.is_empty() {
                self.line += 1;
                let key = self.line;
                self.rest = format!(
                    "{{\"key\":{{\"$integer\":{key}}},\"value\":\"{}\"}}\n",
                    "x".repeat(1000)
                )
                .into_bytes();
            }
            let len = buffer.len().min(self.rest.len());
            buffer[..len].copy_from_slice(&self.rest[..len]);
            self.rest.drain(..len);
            self.bytes += len as u64;
            Ok(len)
        }
    }
    let bounds = Bounds {
        keys_per_vault_max: 50_000,
        ..Bounds::default()
    };
    let db = Database::builder()
        .bounds(bounds)
        .durability(Durability::Os)
        .memory_bytes(32 << 20)
        .temp()
        .unwrap();
    let endless = Endless {
        line: 0,
        rest: b"{\"format\":\"vault-jsonl-v1\"}\n".to_vec(),
        bytes: 0,
    };
    let refused = db.import("v", BufReader::new(endless), &CREATE);
    assert!(matches!(refused, Err(Error::VaultFull { max: 50_000, .. })));
    assert!(!db.contains_vault("v"));
}

/// An entry without an end is not read to its end, in no form; nor is anything else that has none.
#[test]
fn an_entry_without_an_end_is_refused() {
    let bounds = Bounds {
        value_bytes_max: 1 << 20,
        ..Bounds::default()
    };
    let db = Database::builder()
        .bounds(bounds)
        .durability(Durability::Os)
        .temp()
        .unwrap();
    for (head, byte, line) in [
        ("{\"format\":\"vault-jsonl-v1\"}\n", b'x', 2),
        (
            "{\"format\":\"vault-jsonl-v1\"}\n{\"key\":\"a\",\"value\":\"",
            b'x',
            2,
        ),
        (
            "{\"format\":\"vault-json-v1\",\"entries\":[\n{\"key\":\"a\",\"value\":1},\n{\"key\":\"b\",\"value\":\"",
            b'x',
            3,
        ),
        (
            "{\"format\":\"vault-json-v1\",\"entries\":[\n{\"key\":\"",
            b'x',
            2,
        ),
        ("{\"format\":\"vault-json-v1\",\"entries\":[\n", b' ', 2),
        (
            "{\"format\":\"vault-json-v1\",\n\"description\":\"",
            b'x',
            2,
        ),
        (
            "{\"format\":\"vault-json-v1\",\n\"exported_at\":\"",
            b'x',
            2,
        ),
        ("{\"format\":\"vaults-base64-v1\",\n\"data\":{\"", b'A', 2),
        (
            "{\"format\":\"vaults-base64-v1\",\"data\":{\"AmE=\":\"",
            b'A',
            1,
        ),
        ("", b'[', 1),
        ("", b' ', 1),
    ] {
        let bytes = std::cell::Cell::new(0_u64);
        struct Counted<'a>(&'a std::cell::Cell<u64>, u8);
        impl Read for Counted<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                buffer.fill(self.1);
                self.0.set(self.0.get() + buffer.len() as u64);
                Ok(buffer.len())
            }
        }
        let endless = head.as_bytes().chain(Counted(&bytes, byte));
        let refused = db.import("v", BufReader::new(endless), &CREATE);
        let Err(Error::Import {
            line: found,
            problem,
        }) = refused
        else {
            panic!("{head}: {refused:?}")
        };
        assert_eq!(found, line, "{head}: {problem}");
        assert!(bytes.get() < 16 << 20, "{head}: {} bytes", bytes.get());
        assert!(!db.contains_vault("v"));
    }
}

/// Entries that expire so late that no engine keeps them are refused, not taken for some that have expired.
#[test]
fn an_expiry_beyond_all_years_is_refused() {
    let db = temp();
    let late = u64::MAX / 2;
    let text = format!(
        "{{\"format\": \"vault-json-v1\", \"entries\": [\n{{\"key\": \"a\", \"value\": 1, \"expires_at\": {late}}}]}}"
    );
    let error = refused(&db, &text);
    assert!(matches!(error, Error::Import { line: 2, .. }), "{error}");
}

#[test]
fn bounds_hold_for_what_is_imported() {
    let bounds = Bounds {
        vaults_max: 2,
        keys_per_vault_max: 3000,
        key_bytes_max: 100,
        value_bytes_max: 8000,
        ..Bounds::default()
    };
    let db = Database::builder()
        .bounds(bounds)
        .durability(Durability::Os)
        .temp()
        .unwrap();
    let text = |from: u32, to: u32, value: &str| {
        let lines: String = (from..to)
            .map(|n| format!("{{\"key\":\"k{n}\",\"value\":\"{value}\"}}\n"))
            .collect();
        let head = "{\"format\":\"vault-jsonl-v1\"}";
        format!("{head}\n{lines}{{\"entries\":{}}}\n", to - from)
    };
    let long_key = format!(
        "{{\"format\": \"vault-json-v1\", \"entries\": [{{\"key\": \"{}\", \"value\": 1}}]}}",
        "k".repeat(100)
    );
    assert!(matches!(
        refused(&db, &long_key),
        Error::KeyTooLong { len: 101, max: 100 }
    ));
    assert!(matches!(
        refused(&db, &text(0, 1, &"x".repeat(8000))),
        Error::ValueTooLong { max: 8000, .. }
    ));
    assert!(matches!(
        refused(&db, &text(0, 3001, "x")),
        Error::VaultFull { max: 3000, .. }
    ));
    // More than what is merged as one commit: both together are too many, and nothing is merged.
    let long = "x".repeat(7000);
    db.import("v", text(0, 2000, "old").as_bytes(), &CREATE)
        .unwrap();
    let merged = db.import("v", text(1000, 3001, &long).as_bytes(), &MERGE);
    assert!(
        matches!(&merged, Err(Error::VaultFull { max: 3000, vault }) if vault == "v"),
        "{merged:?}"
    );
    let merged = db.import("v", text(1999, 3001, "x").as_bytes(), &MERGE);
    assert!(matches!(merged, Err(Error::VaultFull { max: 3000, .. })));
    let vault = db.vault("v").unwrap();
    assert_eq!(vault.len().unwrap(), 2000);
    assert_eq!(
        vault.get::<String>("k1999").unwrap().as_deref(),
        Some("old")
    );
    // Somebody takes the last room while an import is under way.
    let late = db.import_with("late", text(0, 2000, "x").as_bytes(), &CREATE, |_| {
        db.vault("faster").unwrap();
        ControlFlow::Continue(())
    });
    assert!(matches!(late, Err(Error::TooManyVaults { max: 2 })));
    assert_eq!(db.vaults().len(), 2);
    assert!(!db.contains_vault("late"));
}
