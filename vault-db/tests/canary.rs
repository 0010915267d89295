//! No key, value or name of an encrypted store stands anywhere: not in any file of its directory or of its checkpoints, not in
//! what the process prints, not in the text of any error.
//!
//! A process of its own uses a store in every way and is killed. All that it wrote bears a canary; so do the names of
//! keyspaces. Compression is off, for it could hide a canary that is not encrypted.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use vault_db::encryption::{
    Algorithm, EncryptedProtection, Kdf, KdfBounds, Passphrase, SecretBytes,
};
use vault_db::engine::{
    Clock as _, Compression, EncryptedStore, Engine, Error, Event, KeyRange, KeyspaceOptions, Lsm,
    LsmOptions, Reader, Result, SystemClock, WriteBatch, WriteOptions,
};

const DIRECTORY_VARIABLE: &str = "VAULT_TEST_CANARY";
const ALGORITHM_VARIABLE: &str = "VAULT_TEST_ALGORITHM";
/// Stands in each key, value and name, more than once, so that of any longer part of one it is a part.
const CANARY: &str = "peregrine";
const PASSPHRASE: &str = "the song of a nightingale";

fn key(n: u32) -> Vec<u8> {
    format!("peregrine-key-{n:06}-peregrine").into_bytes()
}

fn value(n: u32) -> Vec<u8> {
    format!("peregrine-value-{n:06}-").repeat(12).into_bytes()
}

fn name(n: u32) -> String {
    format!("peregrine-name-{n}-peregrine")
}

fn passphrase() -> Passphrase {
    let secret = SecretBytes::from_string(PASSPHRASE.to_owned()).unwrap();
    Passphrase::new(secret).unwrap()
}

fn protection(algorithm: Algorithm) -> EncryptedProtection {
    EncryptedProtection::with_source(Arc::new(passphrase()))
        .kdf(Kdf::danger_weak())
        .kdf_bounds(KdfBounds::danger_weak())
        .algorithm(algorithm)
}

fn options() -> LsmOptions {
    // All that it tells is printed, and the output is looked through.
    let listener = |event: &Event| {
        let mut out = std::io::stdout();
        writeln!(out, "{event:?}").unwrap();
    };
    let mut options = LsmOptions::default().listener(Arc::new(listener));
    options.settings.log_segment_bytes = Some(64 << 10);
    options
}

#[test]
fn nothing_that_was_written_stands_anywhere_in_the_clear() {
    for algorithm in Algorithm::ALL {
        let directory = tempfile::tempdir().unwrap();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "as_the_process_that_is_killed", "--nocapture"])
            .env(DIRECTORY_VARIABLE, directory.path())
            .env(ALGORITHM_VARIABLE, algorithm.id().to_string())
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let (out, err) = (output.stdout, output.stderr);
        let told = [&out[..], &err].concat();
        let text = String::from_utf8_lossy(&told).into_owned();
        assert!(text.contains("all was done"), "{text}");
        assert!(!output.status.success(), "it was killed");
        assert!(
            text.contains("Flushed") && text.contains("Compacted"),
            "{text}"
        );
        assert_eq!(place_of(&told), None, "{text}");
        let (files, bytes) = look_through(directory.path());
        println!(
            "{}: {files} files, {bytes} bytes, no canary",
            algorithm.name()
        );
        assert!(
            files > 10 && bytes > 300 << 10,
            "{files} files, {bytes} bytes"
        );
        errors_tell_nothing(&directory.path().join("store"), algorithm);
        look_through(directory.path());
    }
}

/// The search finds a canary where there is one: in a plain store.
#[test]
fn a_plain_store_is_full_of_canaries() {
    let directory = tempfile::tempdir().unwrap();
    let store = Lsm::open(directory.path(), LsmOptions::default()).unwrap();
    let ks = store
        .create_keyspace(&name(1), &KeyspaceOptions::default())
        .unwrap();
    store
        .put(ks, &key(1), &value(1), &WriteOptions::SYNC)
        .unwrap();
    store.close().unwrap();
    let files = files_below(directory.path());
    let with = files.iter().filter(|(_, bytes)| place_of(bytes).is_some());
    assert!(with.count() >= 2, "manifest and log");
}

fn place_of(bytes: &[u8]) -> Option<usize> {
    let canary = CANARY.as_bytes();
    bytes
        .windows(canary.len())
        .position(|window| window == canary)
}

#[expect(clippy::disallowed_methods, reason = "the files as anybody sees them")]
fn files_below(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut left = vec![directory.to_path_buf()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                files.push((path, bytes));
            }
        }
    }
    files
}

/// Looks for canaries, and for the passphrase, in all files. Gives how many files and bytes there were.
fn look_through(directory: &Path) -> (usize, usize) {
    let files = files_below(directory);
    for (path, bytes) in &files {
        assert_eq!(place_of(bytes), None, "{}", path.display());
        assert_eq!(place_of(path.to_string_lossy().as_bytes()), None);
        let passphrase = PASSPHRASE.as_bytes();
        assert!(
            !bytes
                .windows(passphrase.len())
                .any(|window| window == passphrase)
        );
    }
    (
        files.len(),
        files.iter().map(|(_, bytes)| bytes.len()).sum(),
    )
}

/// Errors of all kinds that have something to do with keys, values and names.
fn errors_tell_nothing(path: &Path, algorithm: Algorithm) {
    let open = || EncryptedStore::open_with(path, options(), protection(algorithm));
    let store = open().unwrap();
    let ks = store.keyspace(&name(0)).unwrap().unwrap();
    let mut refused: Vec<Error> = Vec::new();
    let mut note = |what: &str, outcome: Result<()>| {
        refused.push(outcome.expect_err(what));
    };
    let os = WriteOptions::OS;
    let counting = KeyspaceOptions::default().merge("vault.counter");
    let unknown = KeyspaceOptions::default().merge("no such operator");
    let create = |name: &str, options| store.create_keyspace(name, options).map(drop);
    note("another operator", create(&name(0), &counting));
    note(
        "a name that is none",
        create("peregrine\0peregrine", &counting),
    );
    note("a long name", create(&name(7).repeat(100), &counting));
    note("an unknown operator", create(&name(8), &unknown));
    let write = |change: &dyn Fn(&mut WriteBatch)| {
        let mut batch = WriteBatch::new();
        change(&mut batch);
        store.write(&batch, &os).map(drop)
    };
    note(
        "no operator",
        write(&|batch| {
            batch.merge(ks, &key(1), &value(1));
        }),
    );
    note(
        "a range the wrong way round",
        write(&|batch| {
            batch.delete_range(ks, &key(2), &key(1));
        }),
    );
    note(
        "a long key",
        store.put(ks, &key(1).repeat(10_000), b"", &os).map(drop),
    );
    note(
        "not sorted",
        store
            .ingest(ks, [(key(2), value(2)), (key(1), value(1))])
            .map(drop),
    );
    let counted = store.create_keyspace(&name(9), &counting).unwrap();
    store.put(counted, &key(1), &value(1), &os).unwrap();
    let merged = write(&|batch| {
        batch.merge(counted, &key(1), &value(1));
    });
    note(
        "no counter",
        merged.and_then(|()| store.get(counted, &key(1)).map(drop)),
    );
    store.lock().unwrap();
    note("locked", store.get(ks, &key(1)).map(drop));
    store.close().unwrap();
    note("closed", store.get(ks, &key(1)).map(drop));
    for error in &refused {
        let told = format!("{error} {error:?}");
        assert_eq!(place_of(told.as_bytes()), None, "{told}");
    }
    let told = format!("{store:?} {:?}", store.keyring_info());
    assert_eq!(place_of(told.as_bytes()), None, "{told}");
}

/// The process: does everything there is, and kills itself in the midst of it. Without a directory in the environment this is
/// no test of its own.
#[test]
fn as_the_process_that_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY_VARIABLE).map(PathBuf::from) else {
        return;
    };
    let id = std::env::var(ALGORITHM_VARIABLE).unwrap().parse().unwrap();
    let algorithm = Algorithm::from_id(id).unwrap();
    let path = directory.join("store");
    let open = || EncryptedStore::open_with(&path, options(), protection(algorithm)).unwrap();
    let go_on = |_| ControlFlow::Continue(());
    let store = open();
    let shape = KeyspaceOptions {
        compression: Compression::None,
        ..KeyspaceOptions::default()
    };
    let appending = shape.clone().merge("vault.append");
    let ks = store.create_keyspace(&name(0), &shape).unwrap();
    let merged = store.create_keyspace(&name(1), &appending).unwrap();
    let dropped = store.create_keyspace(&name(2), &shape).unwrap();
    for round in 0..4 {
        let mut batch = WriteBatch::new();
        for n in 0..300 {
            batch
                .put(ks, &key(n * 7 + round), &value(n))
                .merge(merged, &key(n % 50), &value(n));
        }
        batch
            .delete_range(ks, &key(20), &key(30))
            .delete(ks, &key(7));
        batch.put(dropped, &key(round), &value(round));
        store.write(&batch, &WriteOptions::SYNC).unwrap();
        let counted = store.compare_and_set(ks, &key(0), None, Some(&value(0)), &WriteOptions::OS);
        counted.unwrap();
        store.flush(None).unwrap();
    }
    store.compact(ks, KeyRange::all(), &mut { go_on }).unwrap();
    store
        .ingest(merged, (0..50).map(|n| (key(90_000 + n), value(n))))
        .unwrap();
    store.checkpoint(directory.join("copy")).unwrap();
    // Who may ask what the keyspaces are called may print statistics with their names; from a locked store come none.
    store.lock().unwrap();
    println!("{:?}", store.stats().unwrap());
    store.unlock(&passphrase()).unwrap();
    store.close().unwrap();
    drop(store);
    let store = open();
    store.rotate_keys().unwrap();
    store.drop_keyspace(dropped).unwrap();
    store.finish_rotation(go_on).unwrap();
    store
        .put(ks, &key(1), &value(1), &WriteOptions::SYNC)
        .unwrap();
    let wrong = EncryptedStore::open_with(&path, options(), protection(algorithm));
    println!("{}", wrong.unwrap_err());
    println!("{}", Lsm::open_read_only(&path, &options()).unwrap_err());
    println!("all was done");
    let mut batch = WriteBatch::new();
    (0..200).for_each(|n| {
        batch.put(ks, &key(n), &value(n + 1));
    });
    // In the midst of writing: another thread never stops.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                store.write(&batch, &WriteOptions::OS).unwrap();
            }
        });
        store.flush(None).unwrap();
        let own = std::process::id().to_string();
        let _ = Command::new("kill").args(["-KILL", &own]).status();
        SystemClock::new().sleep(Duration::from_secs(60));
    });
}
