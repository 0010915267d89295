//! What the attacks share: stores to attack, with all that their files have ever been; what became of an attack; counts.
#![allow(dead_code, reason = "each test binary uses a part of this")]

pub(crate) mod forge;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vault_core::random::{Random, SystemRandom};
use vault_core::transform::{BlockIdentity, FileHeader, FileKind, HEADER_BYTES, StorePlace};
use vault_core::vfs::{FileSystem, MemoryFileSystem};
use vault_core::{Engine, Error};

use super::sweep::run::{Account, filled, perform};
use super::sweep::{DIRECTORY, Model, Step, contents, modes, open_at};
use forge::Kind;

/// A change of the directory: files with their new bytes, or gone.
pub(crate) type Attack = Vec<(PathBuf, Option<Vec<u8>>)>;

/// A store whose files are attacked while it is closed, or its process has ended.
pub(crate) struct Subject {
    pub(crate) fs: MemoryFileSystem,
    pub(crate) directory: PathBuf,
    /// What it held after each commit.
    pub(crate) account: Account,
    /// Its files.
    pub(crate) files: BTreeMap<PathBuf, Vec<u8>>,
    pub(crate) closed: bool,
    /// Everything that each file has ever been, by its name, at any step.
    pub(crate) past: BTreeMap<PathBuf, Vec<Vec<u8>>>,
    /// The whole store after each step, with the generation.
    pub(crate) images: Vec<(MemoryFileSystem, u64)>,
}

impl Subject {
    /// Runs a workload on a new store.
    pub(crate) fn new(steps: &[Step], closed: bool) -> Self {
        let fs = MemoryFileSystem::new();
        Self::going_on(&fs, Path::new(DIRECTORY), Account::new(), steps, closed)
    }

    /// Runs a workload on a store that is there or not.
    pub(crate) fn going_on(
        fs: &MemoryFileSystem,
        directory: &Path,
        mut account: Account,
        steps: &[Step],
        closed: bool,
    ) -> Self {
        let mut past: BTreeMap<_, Vec<Vec<u8>>> = BTreeMap::new();
        let mut images = Vec::new();
        let mut store = open_at(fs, directory).expect("nothing fails here");
        for step in steps {
            account.begin(step);
            if matches!(step, Step::Reopen) {
                store.close().expect("nothing fails here");
                note_past(&mut past, files_of(fs, directory));
                store = open_at(fs, directory).expect("nothing fails here");
            } else {
                perform(&mut store, fs, step).expect("nothing fails here");
            }
            account.end(&store, step);
            note_past(&mut past, files_of(fs, directory));
            images.push((fs.kill(), store.generation()));
        }
        if closed {
            store.close().expect("a clean close");
        }
        let fs = fs.kill();
        let files = files_of(&fs, directory);
        note_past(&mut past, files.clone());
        drop(store);
        Self {
            fs,
            directory: directory.to_path_buf(),
            account,
            files,
            closed,
            past,
            images,
        }
    }

    pub(crate) fn state(&self) -> &Model {
        self.account.state()
    }

    /// Files of this kind.
    pub(crate) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&PathBuf, &Vec<u8>)> {
        self.files
            .iter()
            .filter(move |(path, _)| Kind::of(path) == kind)
    }

    /// The directory as it is after an attack.
    pub(crate) fn attacked(&self, attack: &Attack) -> MemoryFileSystem {
        let fs = self.fs.kill();
        for (path, bytes) in attack {
            match bytes {
                Some(bytes) => fs.write_file(path, bytes).expect("room for it"),
                None => fs.remove(path).expect("it is there"),
            }
        }
        fs
    }

    /// Opens the store after an attack, for writing, and reads all of it.
    pub(crate) fn after(&self, attack: &Attack) -> Outcome {
        let fs = self.attacked(attack);
        let before = files_of(&fs, &self.directory);
        match open_at(&fs, &self.directory) {
            Ok(store) => match contents(&store) {
                Ok(found) => self.judge(&found),
                Err(error) => Outcome::refused(&error),
            },
            Err(error) => {
                let after = files_of(&fs, &self.directory);
                assert!(before == after, "it was refused ({error}) and yet changed");
                Outcome::refused(&error)
            }
        }
    }

    fn judge(&self, found: &Model) -> Outcome {
        let last = self.account.acknowledged;
        if *found == self.account.states[last] {
            return Outcome::Same;
        }
        let found = filled(found);
        let earlier = (0..=last).find(|back| filled(&self.account.states[last - back]) == found);
        earlier.map_or(Outcome::Wrong, Outcome::Shorter)
    }
}

fn note_past(past: &mut BTreeMap<PathBuf, Vec<Vec<u8>>>, files: BTreeMap<PathBuf, Vec<u8>>) {
    for (path, bytes) in files {
        let known = past.entry(path).or_default();
        if known.last() != Some(&bytes) {
            known.push(bytes);
        }
    }
}

/// The files of a store.
pub(crate) fn files_of(fs: &MemoryFileSystem, directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs.list().into_iter().map(|(path, _)| path);
    paths
        .filter(|path| path.parent() == Some(directory) && !path.ends_with("LOCK"))
        .map(|path| {
            let bytes = fs.read_file(&path).expect("it was just listed");
            (path, bytes)
        })
        .collect()
}

/// What became of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The store holds what it held.
    Same,
    /// It holds what it held so many commits earlier.
    Shorter(usize),
    /// It was refused, with this error.
    Refused(&'static str),
    /// It holds what it never held.
    Wrong,
}

impl Outcome {
    /// An error, which must be one that says what somebody did to the files.
    fn refused(error: &Error) -> Self {
        Self::Refused(match error {
            Error::Corruption { .. } => "Corruption",
            Error::NewerFormat { .. } => "NewerFormat",
            Error::NotEncrypted { .. } => "NotEncrypted",
            Error::NotAStore { .. } => "NotAStore",
            Error::RolledBack { .. } => "RolledBack",
            Error::UnacceptableKeyring { .. } => "UnacceptableKeyring",
            Error::WrongKey { .. } => "WrongKey",
            other => panic!("no error for a file that was tampered with: {other:?}"),
        })
    }
}

/// Counts what became of attacks, and accepts nothing.
pub(crate) struct Tally {
    attack: &'static str,
    counts: BTreeMap<(Kind, String), u64>,
}

impl Tally {
    pub(crate) const fn new(attack: &'static str) -> Self {
        Self {
            attack,
            counts: BTreeMap::new(),
        }
    }

    /// Notes an outcome. The store must be refused, or hold what it held.
    #[track_caller]
    pub(crate) fn note(&mut self, path: &Path, outcome: Outcome, context: &str) {
        let accepted = matches!(outcome, Outcome::Shorter(_) | Outcome::Wrong);
        let path = path.display();
        assert!(!accepted, "{}, {path}, {context}: {outcome:?}", self.attack);
        self.count(Kind::of(Path::new(&path.to_string())), outcome);
    }

    /// As [`Tally::note`], where the end of the log or of the manifest of a store that was not closed may be missing.
    #[track_caller]
    pub(crate) fn note_end(&mut self, path: &Path, outcome: Outcome, context: &str) {
        match outcome {
            Outcome::Shorter(_) if Kind::of(path).has_records() => {
                self.count(Kind::of(path), outcome);
            }
            _ => self.note(path, outcome, context),
        }
    }

    fn count(&mut self, kind: Kind, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Same => "the same content".to_owned(),
            Outcome::Shorter(_) => "its end missing".to_owned(),
            Outcome::Refused(error) => format!("refused as {error}"),
            Outcome::Wrong => "ACCEPTED".to_owned(),
        };
        *self.counts.entry((kind, outcome)).or_default() += 1;
    }

    /// How many were refused.
    pub(crate) fn refused(&self) -> u64 {
        let refused = self.counts.iter();
        let refused = refused.filter(|((_, outcome), _)| outcome.starts_with("refused"));
        refused.map(|(_, count)| count).sum()
    }
}

impl Drop for Tally {
    #[expect(clippy::print_stdout, reason = "a sweep says how much it has covered")]
    fn drop(&mut self) {
        for ((kind, outcome), count) in &self.counts {
            println!("{}: {kind:?}: {count} {outcome}", self.attack);
        }
    }
}

/// Where the blocks of a table lie, in the order of the file. Nobody without the keys knows; the attacks guess it right.
pub(crate) fn blocks_of(subject: &Subject, path: &Path) -> Vec<std::ops::Range<usize>> {
    const FOOTER_TYPE: u8 = 7;
    let bytes = &subject.files[path];
    let header = FileHeader::decode(path, bytes, FileKind::Table, u16::MAX).expect("it is whole");
    let fs: Arc<dyn FileSystem> = Arc::new(subject.fs.clone());
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    let algorithm = modes::algorithm().expect("the attacks are on encrypted stores");
    let place = StorePlace {
        fs: &fs,
        random: &random,
        directory: &subject.directory,
        store: header.identity.store,
        writable: false,
    };
    let transform = modes::protection(algorithm).open(&place).expect("its key");
    let seal = header.open(path, &*transform).expect("its keys");
    let end = forge::trailer_start(bytes.len());
    let mut blocks = Vec::new();
    let mut at = HEADER_BYTES;
    let opens = |ordinal, block_type, codec, sealed: &[u8]| {
        let identity = BlockIdentity {
            ordinal,
            block_type,
            codec,
        };
        seal.open(&identity, &mut sealed.to_vec()).is_ok()
    };
    while at < end {
        let ordinal = blocks.len() as u64 + 1;
        let len = (17..=end - at).find(|len| {
            let sealed = &bytes[at..at + len];
            let any = (1..FOOTER_TYPE)
                .any(|block_type| (0..2).any(|codec| opens(ordinal, block_type, codec, sealed)));
            any || (at + len == end && opens(0, FOOTER_TYPE, 0, sealed))
        });
        let len = len.expect("a table is made of blocks that open");
        blocks.push(at..at + len);
        at += len;
    }
    blocks
}
