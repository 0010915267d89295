//! Stores that tests make snapshots of, and repositories to put them into.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vault_core::Timestamp;
use vault_core::clock::ManualClock;
use vault_core::random::SeededRandom;
use vault_core::vfs::{FileSystem, MemoryFileSystem};
use vault_snapshot::archive::{Error, Form, Manifest, Result, SnapshotName, VaultCount};
use vault_snapshot::destination::Directory;
use vault_snapshot::repository::{
    CreateOptions, Document, Limits, Parent, Repository, RepositoryOptions, Source, SourceFile,
};

pub(crate) const STORE: [u8; 16] = [7; 16];
/// 2026-11-22T153000Z.
pub(crate) const NOW: Timestamp = Timestamp(1_795_361_400_000);
pub(crate) const ROOT: &str = "/backups/repository";
pub(crate) const TARGET: &str = "/restored/store";

/// Files of a store, as content.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// A repository in a file system in memory, and a clock that stands still.
pub(crate) struct World {
    pub(crate) fs: MemoryFileSystem,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) repository: Repository,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::on(MemoryFileSystem::new())
    }

    pub(crate) fn on(fs: MemoryFileSystem) -> Self {
        Self::with(fs, Limits::default())
    }

    pub(crate) fn with(fs: MemoryFileSystem, limits: Limits) -> Self {
        let clock = Arc::new(ManualClock::new(NOW));
        let directory = Directory::new(Arc::new(fs.clone()), ROOT);
        let options = RepositoryOptions {
            clock: clock.clone(),
            limits,
        };
        let repository = Repository::open(Arc::new(directory), options).unwrap();
        Self {
            fs,
            clock,
            repository,
        }
    }

    pub(crate) fn create(&self, files: &Files, parent: Parent) -> Result<Manifest> {
        let options = CreateOptions {
            parent,
            ..CreateOptions::default()
        };
        let source = source_of(files);
        let made = self.repository.create(source, &options, &());
        self.clock.advance(Duration::from_secs(60));
        made
    }

    pub(crate) fn extract(&self, name: SnapshotName) -> Result<Files> {
        self.extract_to(name, TARGET)?;
        Ok(files_in(&self.fs, TARGET))
    }

    pub(crate) fn extract_to(&self, name: SnapshotName, target: &str) -> Result<()> {
        let target = Path::new(target);
        let all = |_: &_| true;
        self.repository
            .extract(name, &self.fs, target, &all, |_| Ok(()), &())
            .map(drop)
    }

    pub(crate) fn archive_path(&self, name: SnapshotName) -> PathBuf {
        Path::new(ROOT).join(name.to_string()).join("snapshot.zip")
    }

    pub(crate) fn manifest_path(&self, name: SnapshotName) -> PathBuf {
        Path::new(ROOT).join(name.to_string()).join("manifest.json")
    }
}

/// Files of some lengths, the first of them of a log: it changes. The others never do.
pub(crate) fn some_files(seed: u64) -> Files {
    let random = SeededRandom::new(seed);
    let mut files = Files::new();
    for (at, bytes) in [0usize, 1, 700, 5_000, 70_000].into_iter().enumerate() {
        let content = (0..bytes).map(|_| random.next_u64() as u8).collect();
        files.insert(format!("00000{at}.table"), content);
    }
    files.insert("000009.log".into(), vec![seed as u8; 300]);
    files.insert("CURRENT".into(), format!("manifest {seed}").into_bytes());
    files
}

/// The salt of a file, out of its content.
pub(crate) fn salt_of(content: &[u8]) -> [u8; 24] {
    let mut salt = [0; 24];
    let sum = content.iter().fold(content.len() as u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
    });
    salt[..8].copy_from_slice(&sum.to_le_bytes());
    salt
}

/// What a host gives: tables never change, everything else may.
pub(crate) fn source_of(files: &Files) -> Source {
    let fs = MemoryFileSystem::new();
    let mut source = Source::new(STORE, Form::Physical);
    for (name, content) in files {
        let path = Path::new("/").join(name);
        if let Some(directory) = path.parent() {
            fs.create_dir_all(directory).unwrap();
        }
        fs.write_file(&path, content).unwrap();
        source.files.push(SourceFile {
            name: name.clone(),
            bytes: content.len() as u64,
            salt: Some(salt_of(content)),
            immutable: name.ends_with(".table"),
            content: fs.open(&path).unwrap(),
        });
    }
    source.generation = 3;
    source.sequence = 4711;
    source
}

/// A document of so many lines.
pub(crate) fn document(name: &str, lines: u64) -> Document {
    let name = name.to_owned();
    Document {
        name: name.clone(),
        write: Box::new(move |to| {
            for line in 0..lines {
                writeln!(to, "{{\"vault\": \"{name}\", \"line\": {line}}}")?;
            }
            Ok(VaultCount {
                entries: lines,
                bytes: lines * 10,
            })
        }),
    }
}

/// All files below a directory, by their path relative to it.
pub(crate) fn files_in(fs: &MemoryFileSystem, directory: &str) -> Files {
    let listed = fs.list().into_iter().filter_map(|(path, _)| {
        let name = path.strip_prefix(directory).ok()?.to_str()?.to_owned();
        Some((name, fs.read_file(&path).unwrap()))
    });
    listed.collect()
}

/// Everything that a file system holds, to see that nothing was changed.
pub(crate) fn picture(fs: &MemoryFileSystem) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs.list().into_iter();
    files
        .map(|(path, _)| {
            let bytes = fs.read_file(&path).unwrap();
            (path, bytes)
        })
        // The lock file is written whenever somebody writes.
        .filter(|(path, _)| !path.ends_with("repository.lock"))
        .collect()
}

#[track_caller]
pub(crate) fn damaged<T: std::fmt::Debug>(result: Result<T>) -> String {
    match result {
        Err(error @ Error::Damaged { .. }) => error.to_string(),
        other => panic!("damage was to be found, not {other:?}"),
    }
}
