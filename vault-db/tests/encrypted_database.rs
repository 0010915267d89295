//! An encrypted database: opened by its secret and by nothing else, locked, and told apart from a plain one.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on ends here; one writes a key file, and looks at the bytes of files"
)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vault_core::{Clock, SystemClock};
use vault_db::encryption::{
    EncryptedProtection, Kdf, KdfBounds, KeyFile, KeySource, Passphrase, RawKey, SecretBytes,
    SecretKey,
};
use vault_db::engine::{self, OpenMode};
use vault_db::{Database, EncryptedDatabase, Error, Result};

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(SecretBytes::from_string(text.to_owned()).unwrap()).unwrap()
}

/// A key derivation that is cheap, for tests.
fn protection(source: impl KeySource + 'static) -> EncryptedProtection {
    EncryptedProtection::with_source(Arc::new(source))
        .kdf(Kdf::danger_weak())
        .kdf_bounds(KdfBounds::danger_weak())
}

fn open(path: &Path, text: &str) -> Result<EncryptedDatabase> {
    Database::builder().open_encrypted_with(path, protection(passphrase(text)))
}

#[test]
fn each_kind_of_secret_opens_what_it_closed() {
    let directory = tempfile::tempdir().unwrap();
    let key_file = directory.path().join("secret-key");
    std::fs::write(&key_file, [7; 32]).unwrap();
    let mine = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&key_file, mine).unwrap();
    let sources: [(&str, &dyn Fn() -> EncryptedProtection); 3] = [
        ("passphrase", &|| protection(passphrase("correct horse"))),
        ("key", &|| {
            let key = RawKey::new(SecretKey::from_bytes(&mut [7; 32]));
            EncryptedProtection::with_source(Arc::new(key))
        }),
        ("file", &|| {
            EncryptedProtection::with_source(Arc::new(KeyFile::new(&key_file)))
        }),
    ];
    for (name, source) in sources {
        let path = directory.path().join(name);
        let open = |mode| {
            Database::builder()
                .mode(mode)
                .open_encrypted_with(&path, source())
        };
        let missing = open(OpenMode::MustExist);
        assert!(
            matches!(
                missing,
                Err(Error::Engine(engine::Error::NoSuchStore { .. }))
            ),
            "{name}"
        );
        let db = open(OpenMode::MustCreate).unwrap();
        db.vault("v").unwrap().put("a", "secret").unwrap();
        db.close().unwrap();
        drop(db);
        let db = open(OpenMode::MustExist).unwrap();
        let found = db.vault("v").unwrap().get::<String>("a").unwrap();
        assert_eq!(found.as_deref(), Some("secret"), "{name}");
        db.close().unwrap();
        drop(db);
        assert!(open(OpenMode::MustCreate).is_err(), "{name}");
        let read_only = Database::builder()
            .open_encrypted_read_only(&path, source())
            .unwrap();
        let vault = read_only.vault("v").unwrap();
        assert!(vault.get::<String>("a").unwrap().is_some(), "{name}");
        assert!(vault.put("a", "other").is_err(), "{name}");
    }
}

#[test]
fn a_wrong_secret_and_the_wrong_type_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (encrypted, plain) = (
        directory.path().join("encrypted"),
        directory.path().join("plain"),
    );
    let db = open(&encrypted, "correct horse").unwrap();
    db.vault("payroll").unwrap().put("alice", &5000).unwrap();
    db.close().unwrap();
    drop(db);
    Database::open(&plain).unwrap().close().unwrap();
    assert!(matches!(
        open(&encrypted, "wrong horse"),
        Err(Error::Engine(engine::Error::WrongKey { .. }))
    ));
    let as_plain = Database::open(&encrypted).map(drop).unwrap_err();
    assert!(as_plain.to_string().contains("encrypted"), "{as_plain}");
    let as_encrypted = open(&plain, "correct horse").map(drop).unwrap_err();
    assert!(
        as_encrypted.to_string().contains("encrypted"),
        "{as_encrypted}"
    );
    // Nothing of all this has changed either of them.
    let db = open(&encrypted, "correct horse").unwrap();
    let vault = db.existing_vault("payroll").unwrap();
    assert_eq!(vault.get::<i64>("alice").unwrap(), Some(5000));
    Database::open(&plain).unwrap();
    // Names of vaults, keys and values are nowhere on the disk.
    for entry in std::fs::read_dir(&encrypted).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap_or_default();
        for canary in [&b"payroll"[..], b"alice"] {
            assert!(!bytes.windows(canary.len()).any(|window| window == canary));
        }
    }
}

#[test]
fn a_locked_database_answers_locked_until_its_secret_comes() {
    let directory = tempfile::tempdir().unwrap();
    let db = open(directory.path(), "correct horse").unwrap();
    let vault = db.vault("v").unwrap();
    vault.put("a", &1).unwrap();
    let tx = db.begin(vault_db::TransactionOptions::default()).unwrap();
    tx.vault("v").unwrap().put("b", &2).unwrap();
    db.lock().unwrap();
    let locked = |result: Result<()>| {
        assert!(
            matches!(&result, Err(Error::Engine(engine::Error::Locked))),
            "{result:?}"
        );
    };
    locked(vault.get::<i64>("a").map(drop));
    locked(vault.contains("a").map(drop));
    locked(vault.items::<String, i64>().map(drop));
    locked(vault.put("a", &2));
    locked(vault.remove("a").map(drop));
    locked(vault.update([("a", 1)]));
    locked(vault.clear().map(drop));
    locked(vault.delete().map(drop));
    locked(vault.rename("w").map(drop));
    locked(vault.copy_to("w").map(drop));
    locked(db.vault("w").map(drop));
    locked(db.write(|tx| tx.vault("v")?.put("a", &2)));
    locked(db.read(|tx| tx.vault("v")?.get::<i64>("a").map(drop)));
    locked(tx.commit());
    locked(db.access_control().map(drop));
    locked(db.create_tenant("t", vault_db::Quota::NONE).map(drop));
    let text = br#"{"format": "vault-json-v1", "entries": []}"#;
    let import = vault_db::ImportOptions::default();
    locked(db.import("w", &text[..], &import).map(drop));
    // What is known of vaults stays known: their names, and how much is in them.
    assert_eq!(db.vaults()[0].keys, 1);
    assert_eq!(vault.len().unwrap(), 1);
    assert!(matches!(
        db.unlock(&passphrase("wrong horse")),
        Err(Error::Engine(engine::Error::WrongKey { .. }))
    ));
    locked(vault.get::<i64>("a").map(drop));
    db.unlock(&passphrase("correct horse")).unwrap();
    assert_eq!(vault.get::<i64>("a").unwrap(), Some(1));
    assert_eq!(db.vaults().len(), 1);
    vault.put("b", &2).unwrap();
    assert_eq!(vault.len().unwrap(), 2);
}

#[test]
fn an_idle_database_locks_itself() {
    let directory = tempfile::tempdir().unwrap();
    let db = Database::builder()
        .engine_options(|options| options.lock_after_idle(Duration::from_secs(1)))
        .open_encrypted_with(directory.path(), protection(passphrase("correct horse")))
        .unwrap();
    let vault = db.vault("v").unwrap();
    vault.put("a", &1).unwrap();
    let clock = SystemClock::new();
    let mut waits = (0..200).map(|_| clock.sleep(Duration::from_millis(100)));
    assert!(
        waits.any(|()| db.store().is_locked()),
        "open after 20 seconds"
    );
    let locked = vault.get::<i64>("a");
    assert!(matches!(locked, Err(Error::Engine(engine::Error::Locked))));
    assert_eq!(db.vaults()[0].keys, 1);
    db.unlock(&passphrase("correct horse")).unwrap();
    assert_eq!(vault.get::<i64>("a").unwrap(), Some(1));
}

#[test]
fn a_changed_secret_is_the_one_that_opens() {
    let directory = tempfile::tempdir().unwrap();
    let db = open(directory.path(), "correct horse").unwrap();
    db.vault("v").unwrap().put("a", &1).unwrap();
    db.change_secret(&passphrase("another horse"), Some(Kdf::danger_weak()))
        .unwrap();
    db.close().unwrap();
    drop(db);
    assert!(open(directory.path(), "correct horse").is_err());
    let db = open(directory.path(), "another horse").unwrap();
    let vault = db.vault("v").unwrap();
    assert_eq!(vault.get::<i64>("a").unwrap(), Some(1));
}
