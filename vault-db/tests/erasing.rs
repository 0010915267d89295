//! What is left of vaults that went out of an encrypted database: nothing that its own secret opens.
//!
//! Keys of entries stand beside the vault, too: of those that expire in `vault.expiry`, of those that are used most in
//! `vault.catalog`. Both live on, with their keys. So a verification reads every file of the store (tables, log, manifest), with
//! a cipher that looks for a key of the vault in each text that it opens.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::collections::BTreeSet;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vault_core::vfs::{CrashPolicy, Fault, FaultKind, MemoryFileSystem, OperationClass};
use vault_crypto::cipher::{self, Aead, NONCE_BYTES, Provider, TAG_BYTES, TooLong, Unauthentic};
use vault_db::encryption::{Algorithm, EncryptedProtection, RawKey, SecretKey};
use vault_db::engine::check::{VerifyOptions, verify};
use vault_db::engine::{BackgroundWork, LsmOptions, Settings};
use vault_db::{Database, EncryptedDatabase, ImportMode, ImportOptions, Quota};

const STORE: &str = "/store";
const TENANT: &str = "acme";
const ALGORITHM: Algorithm = Algorithm::ChaCha20Poly1305;
/// A key with an expiry, in the vault that goes.
const EXPIRING: &str = "peregrine-falcon";
/// A key without one, that is read.
const ACCESSED: &str = "goshawk-tiercel";
/// A key in the vaults that stay, on both sides of the one that goes.
const KEPT: &str = "kestrel-musket";

/// Looks for a canary in what is opened.
#[derive(Debug)]
struct Watch {
    inner: &'static dyn Provider,
    canary: &'static str,
    /// The keyspaces in whose files it stands; 0: the log, the manifest and the like.
    found: Mutex<BTreeSet<u32>>,
}

/// The watch as a cipher.
#[derive(Debug)]
struct Watching(Arc<Watch>);

impl Provider for Watching {
    fn name(&self) -> &'static str {
        "one that looks at what it opens"
    }

    fn algorithm(&self) -> Algorithm {
        self.0.inner.algorithm()
    }

    fn key(&self, key: &SecretKey) -> Box<dyn Aead> {
        Box::new(Eye {
            inner: self.0.inner.key(key),
            watch: Arc::clone(&self.0),
        })
    }
}

struct Eye {
    inner: Box<dyn Aead>,
    watch: Arc<Watch>,
}

impl Aead for Eye {
    fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        buffer: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], TooLong> {
        self.inner.seal(nonce, aad, buffer)
    }

    fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), Unauthentic> {
        self.inner.open(nonce, aad, buffer, tag)?;
        let canary = self.watch.canary.as_bytes();
        // What is bound to each block begins with its keyspace.
        if buffer.windows(canary.len()).any(|text| text == canary)
            && let Some(keyspace) = aad.first_chunk()
        {
            let mut found = self.watch.found.lock().unwrap();
            found.insert(u32::from_le_bytes(*keyspace));
        }
        Ok(())
    }
}

fn protection() -> EncryptedProtection {
    let key = RawKey::new(SecretKey::from_bytes(&mut [7; 32]));
    EncryptedProtection::with_source(Arc::new(key)).algorithm(ALGORITHM)
}

/// The keyspaces in whose files a canary can be read with the secret; 0 stands for what belongs to all of them.
fn readable(fs: &MemoryFileSystem, canary: &'static str) -> BTreeSet<u32> {
    let watch = Arc::new(Watch {
        inner: cipher::provider(ALGORITHM),
        canary,
        found: Mutex::default(),
    });
    let watching = Watching(Arc::clone(&watch));
    let options = LsmOptions::default()
        .file_system(Arc::new(fs.clone()))
        .protection(Arc::new(protection().provider(Arc::new(watching))));
    let mut go_on = |_: &_| ControlFlow::Continue(());
    let report = verify(STORE, &options, &VerifyOptions::default(), &mut go_on).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    let found = watch.found.lock().unwrap();
    found.clone()
}

/// Nothing happens in the background: what is compacted is what the database asked for.
fn open(fs: &MemoryFileSystem) -> EncryptedDatabase {
    let settings = Settings {
        background: BackgroundWork::Manual,
        memory_bytes: 16 << 20,
        log_segment_bytes: Some(64 << 10),
        ..Settings::default()
    };
    let fs = Arc::new(fs.clone());
    let builder = Database::builder()
        .settings(settings)
        .engine_options(|options| options.file_system(fs));
    builder.open_encrypted_with(STORE, protection()).unwrap()
}

/// The keyspaces `vault.expiry` and `vault.catalog`.
fn shared_keyspaces(db: &Database) -> BTreeSet<u32> {
    ["vault.expiry", "vault.catalog"]
        .map(|name| db.engine().keyspace(name).unwrap().unwrap().0)
        .into()
}

/// A database, closed, with a vault of a tenant amid others. All of it is in tables, what is noted of accesses too.
fn filled() -> MemoryFileSystem {
    const HOUR: Duration = Duration::from_secs(3600);
    let fs = MemoryFileSystem::new();
    let db = open(&fs);
    let tenant = db.create_tenant(TENANT, Quota::NONE).unwrap();
    let before = db.vault("before").unwrap();
    let sessions = tenant.vault("sessions").unwrap();
    let behind = db.vault("behind").unwrap();
    for vault in [&before, &behind] {
        vault.put_for(KEPT, &1, HOUR).unwrap();
    }
    sessions.put_for(EXPIRING, &1, HOUR).unwrap();
    sessions.put(ACCESSED, &1).unwrap();
    assert_eq!(sessions.get::<i64>(ACCESSED).unwrap(), Some(1));
    db.close().unwrap();
    drop((before, sessions, behind, tenant, db));
    let db = open(&fs);
    db.engine().flush(None).unwrap();
    let shared = shared_keyspaces(&db);
    db.close().unwrap();
    drop(db);
    // The search finds what is there.
    for canary in [EXPIRING, KEPT] {
        let found = readable(&fs, canary);
        assert!(found.is_superset(&shared), "{canary}: {found:?}");
    }
    assert!(!readable(&fs, ACCESSED).is_disjoint(&shared));
    fs
}

fn assert_erased(fs: &MemoryFileSystem, context: &str) {
    for canary in [EXPIRING, ACCESSED] {
        let found = readable(fs, canary);
        assert!(found.is_empty(), "{context}: {canary} in {found:?}");
    }
}

#[test]
fn nothing_of_a_vault_that_went_can_be_read() {
    let delete = |db: &EncryptedDatabase| {
        let tenant = db.tenant(TENANT).unwrap();
        let vault = tenant.existing_vault("sessions").unwrap();
        assert_eq!(vault.delete().unwrap(), 2);
    };
    let replace = |db: &EncryptedDatabase| {
        let text = r#"{"format": "vault-json-v1", "entries": []}"#;
        let options = ImportOptions {
            mode: ImportMode::Replace,
        };
        let tenant = db.tenant(TENANT).unwrap();
        tenant
            .import("sessions", text.as_bytes(), &options)
            .unwrap();
    };
    let drop_tenant = |db: &EncryptedDatabase| {
        assert_eq!(db.drop_tenant(TENANT).unwrap(), 2);
    };
    type Way<'a> = (&'a str, &'a dyn Fn(&EncryptedDatabase));
    let ways: [Way<'_>; 3] = [
        ("deleted", &delete),
        ("replaced", &replace),
        ("dropped with its tenant", &drop_tenant),
    ];
    let whole = filled();
    for (how, go) in ways {
        let fs = whole.kill();
        let db = open(&fs);
        go(&db);
        // As soon as it returns.
        assert_erased(&fs.kill(), how);
        // What others have is where it was.
        let kept = readable(&fs.kill(), KEPT);
        assert!(kept.is_superset(&shared_keyspaces(&db)), "{how}: {kept:?}");
        let vault = db.existing_vault("behind").unwrap();
        assert_eq!(vault.get::<i64>(KEPT).unwrap(), Some(1), "{how}");
        let left = vault.time_to_live(KEPT).unwrap().unwrap();
        assert!(left.is_some(), "{how}");
    }
}

/// Where there is no room to compact before the vault's own tables go, it is done behind them.
#[test]
fn a_vault_that_goes_makes_the_room_to_erase_it() {
    let fs = filled();
    let db = open(&fs);
    let full = FaultKind::Error(io::ErrorKind::StorageFull);
    fs.inject(Fault::new(OperationClass::Create, full).on_path(".tab"));
    db.drop_tenant(TENANT).unwrap();
    assert_eq!(fs.faults_hit(), 1);
    assert_erased(&fs.kill(), "after a full disk");
}

/// Wherever the process or the power ends while a tenant is dropped: once it is gone, and the database was opened again, nothing
/// of it can be read.
#[test]
fn a_drop_that_was_interrupted_is_finished_by_the_next_opening() {
    let stride = if cfg!(debug_assertions) { 3 } else { 1 };
    let whole = filled();
    let operations = {
        let fs = whole.kill();
        let db = open(&fs);
        let before = fs.operations();
        db.drop_tenant(TENANT).unwrap();
        fs.operations() - before
    };
    let (mut gone, mut there) = (0, 0);
    for n in (0..operations).step_by(stride) {
        for loses_power in [false, true] {
            let fs = whole.kill();
            let db = open(&fs);
            fs.set_crash_point(Some(fs.operations() + n));
            // It may have been told as an error and have happened all the same.
            let _ = db.drop_tenant(TENANT);
            drop(db);
            let after = match loses_power {
                true => fs.crash(n, CrashPolicy::DropUnsynced),
                false => fs.kill(),
            };
            let db = open(&after);
            if db.tenant(TENANT).is_ok() {
                there += 1;
                continue;
            }
            gone += 1;
            let context = format!("operation {n} of {operations}, loses power: {loses_power}");
            assert_erased(&after.kill(), &context);
        }
    }
    assert!(gone > 10 && there > 0, "{gone} gone, {there} there");
}
