//! Snapshots: their manifests, and archives that somebody has changed.
//!
//! A manifest that is read is consistent, and comes back the same. Of an archive, whatever was changed in it, either nothing is restored,
//! with an error that says what is wrong, or what was put into it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use arbitrary::Arbitrary;
use vault_core::Timestamp;
use vault_core::clock::ManualClock;
use vault_core::vfs::{FileSystem, MemoryFileSystem};
use vault_snapshot::archive::{Error, Form, Manifest, ManifestProblem, SnapshotName, VaultCount};
use vault_snapshot::destination::Directory;
use vault_snapshot::repository::{
    CreateOptions, Document, Repository, RepositoryOptions, Source, SourceFile,
};

use crate::memory;

/// Most changes that are made to an archive.
const CHANGES_MAX: usize = 16;

/// A manifest, and what is done to an archive.
#[derive(Debug, Arbitrary)]
pub struct Input<'a> {
    /// Whether the archive is one of documents, which are compressed.
    pub logical: bool,
    /// Places in it, and what is added to the bytes there.
    pub changes: Vec<(u16, u8)>,
    /// How many bytes are cut from its end.
    pub cut: u8,
    /// A manifest.
    pub manifest: Text<'a>,
}

/// Text, printed as such.
#[derive(Arbitrary)]
pub struct Text<'a>(pub &'a [u8]);

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(self.0))
    }
}

const ROOT: &str = "/snapshots";

type Files = BTreeMap<String, Vec<u8>>;

/// A snapshot as it was made: its name, its two files, and what it restores to.
struct Made {
    name: SnapshotName,
    manifest: Vec<u8>,
    archive: Vec<u8>,
    content: Files,
}

/// Reads the manifest, and restores what was changed.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    check_manifest(input.manifest.0);
    if input.changes.is_empty() && input.cut == 0 {
        return;
    }
    let made = made(input.logical);
    let mut archive = made.archive.clone();
    archive.truncate(archive.len().saturating_sub(input.cut.into()));
    for (at, add) in input.changes.iter().take(CHANGES_MAX) {
        if let Some(byte) = archive.get_mut(usize::from(*at)) {
            *byte = byte.wrapping_add(*add);
        }
    }
    check_archive(made, &archive);
}

fn check_manifest(bytes: &[u8]) {
    match memory::bounded(bytes.len(), || Manifest::parse(bytes)) {
        Ok(manifest) => {
            assert_eq!(manifest.check(), Ok(()));
            assert_eq!(Manifest::parse(&manifest.to_json()), Ok(manifest));
        }
        Err(ManifestProblem::Newer(version)) => assert!(version > 1),
        Err(ManifestProblem::Malformed(problem)) => assert!(!problem.is_empty()),
    }
}

fn check_archive(made: &Made, archive: &[u8]) {
    let fs = MemoryFileSystem::new();
    let directory = Path::new(ROOT).join(made.name.to_string());
    let put = |file: &str, bytes: &[u8]| {
        let put = fs.write_file(directory.join(file), bytes);
        put.expect("a file in memory");
    };
    fs.create_dir_all(&directory)
        .expect("a directory in memory");
    put("snapshot.zip", archive);
    put("manifest.json", &made.manifest);
    let repository = repository(&fs);
    let verified = repository.verify(made.name, &());
    let restored = restored(&repository, &fs, made.name);
    match (verified, restored) {
        (Ok(_), Ok(restored)) => assert_eq!(restored, made.content),
        (Err(Error::Damaged { .. }), Err(Error::Damaged { .. })) => {
            let left = fs.list().len();
            assert_eq!(left, 2, "something was written");
        }
        (verified, restored) => panic!("verified: {verified:?}, restored: {restored:?}"),
    }
}

fn repository(fs: &MemoryFileSystem) -> Repository {
    let options = RepositoryOptions {
        clock: Arc::new(ManualClock::new(Timestamp(1_700_000_000_000))),
        ..RepositoryOptions::default()
    };
    let directory = Directory::new(Arc::new(fs.clone()), ROOT);
    Repository::open(Arc::new(directory), options).expect("limits of their own")
}

fn restored(
    repository: &Repository,
    fs: &MemoryFileSystem,
    name: SnapshotName,
) -> Result<Files, Error> {
    let target = Path::new("/target");
    repository.extract(name, fs, target, &|_| true, |_| Ok(()), &())?;
    let files = fs.list().into_iter().filter_map(|(path, _)| {
        let name = path.strip_prefix(target).ok()?.to_str()?.to_owned();
        Some((name, fs.read_file(&path).ok()?))
    });
    Ok(files.collect())
}

/// The snapshots that are changed, made once.
fn made(logical: bool) -> &'static Made {
    static MADE: [OnceLock<Made>; 2] = [const { OnceLock::new() }; 2];
    MADE[usize::from(logical)].get_or_init(|| make(logical).expect("a snapshot in memory"))
}

fn make(logical: bool) -> Result<Made, Error> {
    let fs = MemoryFileSystem::new();
    let form = if logical {
        Form::Logical
    } else {
        Form::Physical
    };
    let mut source = Source::new([7; 16], form);
    for (name, content) in [("CURRENT", &b"000001.man"[..]), ("000001.tab", &[9; 300])] {
        if logical {
            let write = move |to: &mut dyn std::io::Write| {
                to.write_all(content)?;
                Ok(VaultCount::default())
            };
            source.documents.push(Document {
                name: name.into(),
                write: Box::new(write),
            });
        } else {
            let path = Path::new("/").join(name);
            fs.write_file(&path, content).expect("a file in memory");
            source.files.push(SourceFile {
                name: name.into(),
                bytes: content.len() as u64,
                salt: Some([content[0]; 24]),
                immutable: true,
                content: fs.open(&path).expect("a file in memory"),
            });
        }
    }
    let repository = repository(&fs);
    let name = repository
        .create(source, &CreateOptions::default(), &())?
        .name;
    let directory = Path::new(ROOT).join(name.to_string());
    let read = |file: &str| {
        fs.read_file(directory.join(file))
            .expect("a file in memory")
    };
    Ok(Made {
        name,
        manifest: read("manifest.json"),
        archive: read("snapshot.zip"),
        content: restored(&repository, &fs, name)?,
    })
}

/// Inputs to begin with: both manifests, and changes at the end of an archive, where its directory is.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let sound = |logical: bool| [&[u8::from(logical), 0, 0], &made(logical).manifest[..]].concat();
    let mut changed = vec![1];
    for at in [0u16, 14, 30, 60, 700] {
        changed.push(1);
        changed.extend_from_slice(&at.to_le_bytes());
        changed.push(1);
    }
    changed.extend_from_slice(&[0, 0]);
    vec![
        ("physical", sound(false)),
        ("logical", sound(true)),
        ("changed", changed),
        ("cut", vec![0, 0, 9]),
    ]
}
