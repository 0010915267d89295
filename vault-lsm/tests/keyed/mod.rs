//! Encrypted stores for tests of what is done with and without their keys: small, with everything in them that a store
//! has, and with content that is known again wherever it turns up.
#![allow(dead_code, reason = "each test binary uses a part of this")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vault_core::clock::ManualClock;
use vault_core::random::SeededRandom;
use vault_core::transform::Protection;
use vault_core::vfs::{FileSystem, MemoryFileSystem};
use vault_core::{Engine, KeyspaceOptions, Result, Timestamp, WriteBatch, WriteOptions};
use vault_crypto::EncryptedProtection;
use vault_crypto::source::RawKey;
use vault_lsm::check::{
    ScrubReport, Severity, VerifyOptions, VerifyProgress, VerifyReport, scrub, verify,
};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions, Settings};

pub(crate) const DIRECTORY: &str = "/store";
/// Part of the names of keyspaces, of keys, and of values: none may stand anywhere in the clear.
pub(crate) const CANARIES: [&str; 3] = ["canary-space", "canary-key", "canary-value"];

/// Protection by the same key each time.
pub(crate) fn protection() -> Arc<dyn Protection> {
    let key = RawKey::from_slice(&mut [7; 32]).expect("a key of 32 bytes");
    Arc::new(EncryptedProtection::with_source(Arc::new(key)))
}

/// Without a key.
pub(crate) fn plain_options(fs: &MemoryFileSystem, seed: u64) -> LsmOptions {
    let settings = Settings {
        background: BackgroundWork::Manual,
        cache_bytes: Some(0),
        table_metadata_bytes: Some(0),
        log_segment_bytes: Some(64 << 10),
        log_bytes_max: Some(256 << 10),
        ..Settings::default()
    };
    LsmOptions::new(settings)
        .file_system(Arc::new(fs.clone()) as Arc<dyn FileSystem>)
        .clock(Arc::new(ManualClock::new(Timestamp(1_000_000))))
        .random(Arc::new(SeededRandom::new(seed)))
}

pub(crate) fn options(fs: &MemoryFileSystem, seed: u64) -> LsmOptions {
    plain_options(fs, seed).protection(protection())
}

pub(crate) fn key(n: u64) -> Vec<u8> {
    format!("canary-key-{n:04}").into_bytes()
}

pub(crate) fn value(n: u64) -> Vec<u8> {
    // Beside the canary, bytes that do not compress.
    let random = SeededRandom::new(n);
    let noise = (0..40).map(|_| random.next_u64() as u8);
    b"canary-value".iter().copied().chain(noise).collect()
}

/// Fills a store: two keyspaces, of which the second keeps its values apart, three tables, a range delete, and a log of two
/// openings behind them.
pub(crate) fn fill(options: impl Fn() -> LsmOptions) -> Result<Lsm> {
    let shape = KeyspaceOptions {
        block_bytes: 512,
        ..KeyspaceOptions::default()
    };
    let store = Lsm::open(DIRECTORY, options())?;
    let first = store.create_keyspace("canary-space-a", &shape)?;
    let second = store.create_keyspace("canary-space-b", &shape.large_values_from(Some(16)))?;
    for n in 0..60 {
        store.put(first, &key(n), &value(n), &WriteOptions::OS)?;
        store.put(second, &key(n * 3), &value(n), &WriteOptions::OS)?;
    }
    store.flush(None)?;
    for n in 20..40 {
        store.put(first, &key(n), &value(n + 100), &WriteOptions::OS)?;
    }
    let mut batch = WriteBatch::new();
    batch.delete_range(first, &key(2), &key(5));
    store.write(&batch, &WriteOptions::OS)?;
    store.flush(Some(first))?;
    store.put(first, &key(500), &value(500), &WriteOptions::SYNC)?;
    store.close()?;
    let store = Lsm::open(DIRECTORY, options())?;
    for n in 0..8 {
        store.put(second, &key(600 + n), &value(n), &WriteOptions::SYNC)?;
    }
    Ok(store)
}

/// An encrypted store, closed or as the end of its process leaves it.
pub(crate) fn encrypted(closed: bool) -> MemoryFileSystem {
    let fs = MemoryFileSystem::new();
    let store = fill(|| options(&fs, 7)).expect("nothing fails here");
    if closed {
        store.close().expect("nothing fails here");
    }
    fs.kill()
}

pub(crate) fn scrubbed(fs: &MemoryFileSystem) -> ScrubReport {
    let mut go_on = |_: &VerifyProgress| ControlFlow::Continue(());
    scrub(DIRECTORY, &plain_options(fs, 1), &mut go_on).expect("it can be read")
}

pub(crate) fn verified(fs: &MemoryFileSystem) -> VerifyReport {
    let mut go_on = |_: &VerifyProgress| ControlFlow::Continue(());
    let all = VerifyOptions::default();
    verify(DIRECTORY, &options(fs, 1), &all, &mut go_on).expect("it can be read")
}

/// Files of the store, with their content.
pub(crate) fn image(fs: &MemoryFileSystem) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = fs.list();
    files.retain(|(path, _)| path.starts_with(DIRECTORY));
    let read = |(path, _): (PathBuf, u64)| {
        let bytes = fs.read_file(&path).expect("it was just listed");
        (path, bytes)
    };
    files.into_iter().map(read).collect()
}

/// The files in which there is something to damage.
pub(crate) fn sealed_files(fs: &MemoryFileSystem) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = image(fs);
    files.retain(|(path, _)| !path.ends_with("LOCK"));
    files
}

pub(crate) fn name(path: &Path) -> String {
    let name = path.file_name().expect("a file has a name");
    name.to_string_lossy().into_owned()
}

/// How bad the worst is that a scrub found in a file.
pub(crate) fn worst(report: &ScrubReport, file: &str) -> Option<Severity> {
    let findings = report
        .findings
        .iter()
        .filter(|finding| finding.file == file);
    findings.map(|finding| finding.severity).min()
}
