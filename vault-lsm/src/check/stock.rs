//! What a directory holds, taken down without demanding that any of it is sound.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use vault_core::transform::{
    ChecksumTransform, FileHeader, FileKind, HEADER_BYTES, KEYRING_NAME, StorePlace,
};
use vault_core::vfs::{EntryKind, FileSystem, read_up_to};
use vault_core::{Error, Result};

use super::report::{Finding, FindingKind, Severity};
use super::scrub::{TRANSFORM_OFFSET, survey_headers};
use crate::layout::{Env, NameMeaning, POINTER_NAME, meaning_of};
use crate::log::LOG_VERSION;
use crate::manifest::inspect::{Scanned, scan};
use crate::manifest::{MANIFEST_VERSION, Pointer, State};
use crate::memory::Memory;
use crate::options::LsmOptions;
use crate::table::{TABLE_VERSION, TableEnv};

/// A name in the directory.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) meaning: NameMeaning,
    pub(crate) kind: EntryKind,
}

/// A directory, taken down.
pub(crate) struct Stock {
    pub(crate) env: Env,
    pub(crate) entries: Vec<Entry>,
    /// `None` where it is missing or does not open.
    pub(crate) pointer: Option<Pointer>,
    /// The manifest that counts: the one that the pointer names, else the newest that can be read.
    pub(crate) manifest: Option<Scanned>,
    /// Whether newer manifests than that do not open: mostly they were being written when their writer ended.
    pub(crate) passed_over: bool,
    /// What the readable records behind damage of the manifest contradict.
    pub(crate) contradictions: Vec<String>,
    /// What is wrong with pointer and manifest.
    pub(crate) findings: Vec<Finding>,
}

const REPAIR: &str = "run repair, which says first what it would do";
/// What to do where neither file of the keyring can be used.
pub(super) const KEYRING_LOST_ADVICE: &str = "put back the keyring of this store as KEYRING: an exported one, or that of a checkpoint or backup of it";
const SALVAGE: &str = "run salvage into a new directory, or restore a copy";

/// Takes down what `directory` holds.
///
/// # Errors
/// [`Error::NoSuchStore`], [`Error::NotAStore`] where nothing of it is Vault's; [`Error::NewerFormat`],
/// [`Error::Encrypted`], [`Error::NotEncrypted`] where this build, or these options, cannot read it; [`Error::Io`];
/// what the keys say.
pub(crate) fn take(directory: &Path, options: &LsmOptions) -> Result<Stock> {
    let env = Env {
        directory: directory.to_path_buf(),
        store: [0; 16],
        fs: Arc::clone(&options.fs),
        clock: Arc::clone(&options.clock),
        random: Arc::clone(&options.random),
        // Until it is known which store this is.
        transform: Arc::new(ChecksumTransform),
        listener: None,
        listener_panics: Arc::default(),
    };
    let mut stock = Stock {
        entries: list(&*env.fs, directory)?,
        env,
        pointer: None,
        manifest: None,
        passed_over: false,
        contradictions: Vec::new(),
        findings: Vec::new(),
    };
    stock.find_store()?;
    let opened = options.protection.open(&StorePlace {
        fs: &options.fs,
        random: &options.random,
        directory,
        store: stock.env.store,
        writable: false,
    });
    stock.env.transform = match opened {
        Ok(transform) => transform,
        Err(error) => return Err(stock.without_keyring(error)?),
    };
    stock.read_pointer()?;
    if stock.pointer.is_none() {
        stock.check_protection()?;
    }
    stock.read_manifest()?;
    Ok(stock)
}

/// Takes down the names in a directory that holds something of a store.
///
/// # Errors
/// [`Error::NoSuchStore`], [`Error::NotAStore`], [`Error::Io`].
pub(super) fn list(fs: &dyn FileSystem, directory: &Path) -> Result<Vec<Entry>> {
    let path = directory.to_path_buf();
    let kind = fs.kind(&path).map_err(|e| Error::io("look at", &path, e))?;
    match kind {
        Some(EntryKind::Directory) => {}
        None => return Err(Error::NoSuchStore { path }),
        Some(_) => {
            let problem = "it is a file, not a directory".to_owned();
            return Err(Error::NotAStore { path, problem });
        }
    }
    let found = fs
        .read_dir(&path)
        .map_err(|e| Error::io("list", &path, e))?;
    let mut entries: Vec<Entry> = found
        .into_iter()
        .map(|entry| Entry {
            meaning: meaning_of(Path::new(&entry.name)),
            name: entry.name.to_string_lossy().into_owned(),
            kind: entry.kind,
        })
        .collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let ours = |entry: &Entry| {
        matches!(entry.meaning, NameMeaning::Numbered(..)) && entry.kind == EntryKind::File
    };
    if !entries.iter().any(ours) {
        if entries.is_empty() {
            return Err(Error::NoSuchStore { path });
        }
        let problem = "no file in it is a table, a log segment or a manifest".to_owned();
        return Err(Error::NotAStore { path, problem });
    }
    Ok(entries)
}

impl Stock {
    /// The numbers of the files of a kind, ascending.
    pub(crate) fn numbers(&self, kind: FileKind) -> Vec<u64> {
        let number = |entry: &Entry| match entry.meaning {
            NameMeaning::Numbered(of, number) if of == kind && entry.kind == EntryKind::File => {
                Some(number)
            }
            _ => None,
        };
        let mut numbers: Vec<u64> = self.entries.iter().filter_map(number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// What makes up the store, if that is known.
    pub(crate) fn state(&self) -> Option<&State> {
        self.manifest.as_ref().map(|manifest| &manifest.state)
    }

    /// What is needed to read tables. Keeps nothing in memory.
    pub(crate) fn table_env(&self) -> TableEnv {
        table_env(&self.env)
    }

    pub(crate) fn note(
        &mut self,
        kind: FindingKind,
        file: &str,
        offset: Option<u64>,
        [expected, found]: [&str; 2],
        advice: &'static str,
    ) {
        self.findings.push(Finding {
            severity: Severity::Damage,
            file: file.to_owned(),
            offset,
            kind,
            expected: expected.to_owned(),
            found: found.to_owned(),
            advice,
        });
    }

    /// Says what an error of opening the keyring means, where it is the keyring that is lost.
    fn without_keyring(&self, error: Error) -> Result<Error> {
        let (offset, problem) = match &error {
            Error::NotEncrypted { .. } => (0, "neither the keyring nor its copy is there"),
            Error::Corruption {
                offset, problem, ..
            } => (*offset, &**problem),
            _ => return Ok(error),
        };
        let most = survey_headers(&*self.env.fs, &self.env.directory, &self.entries)?;
        if most.is_none_or(|most| most.transform == ChecksumTransform::ID) {
            return Ok(error);
        }
        let path = self.env.directory.join(KEYRING_NAME);
        let problem = format!(
            "{problem}. Without it nothing of this store can be read, repaired or salvaged: {KEYRING_LOST_ADVICE}"
        );
        Ok(Error::corruption(&path, offset, problem))
    }

    /// Refuses to take the files of an encrypted store for damaged ones of a plain store, or the other way round, where
    /// there is no pointer to say which it is.
    fn check_protection(&self) -> Result<()> {
        let most = survey_headers(&*self.env.fs, &self.env.directory, &self.entries)?;
        let Some(most) = most else { return Ok(()) };
        let path = || self.env.directory.clone();
        let plain = |id: u16| id == ChecksumTransform::ID;
        match (plain(most.transform), plain(self.env.transform.id())) {
            (true, false) => Err(Error::NotEncrypted { path: path() }),
            (false, true) => Err(Error::Encrypted { path: path() }),
            _ => Ok(()),
        }
    }

    fn read_pointer(&mut self) -> Result<()> {
        let env = &self.env;
        match Pointer::read(&*env.fs, &env.directory, &*env.transform) {
            Ok(Some(pointer)) => {
                self.pointer = Some(pointer);
                if let Err(error) = pointer.check_keyring(&env.directory, &*env.transform) {
                    let words = [
                        "the keyring that the pointer was written beside",
                        &*error.to_string(),
                    ];
                    let advice = KEYRING_LOST_ADVICE;
                    self.note(FindingKind::Keyring, KEYRING_NAME, None, words, advice);
                }
            }
            Ok(None) => {
                let words = ["the pointer to the manifest", "no file"];
                self.note(FindingKind::Pointer, POINTER_NAME, None, words, REPAIR);
            }
            Err(Error::Corruption {
                offset, problem, ..
            }) => {
                let words = ["a pointer to the manifest", &problem];
                let offset = Some(offset);
                self.note(FindingKind::Pointer, POINTER_NAME, offset, words, REPAIR);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn read_manifest(&mut self) -> Result<()> {
        let named = self.pointer.map(|pointer| pointer.manifest);
        // Behind the one that is named, the others: one before it may still be there.
        let others = self.numbers(FileKind::Manifest).into_iter().rev();
        let others = others.filter(|&number| Some(number) != named);
        let candidates: Vec<u64> = named.into_iter().chain(others).collect();
        let mut passed_over = Vec::new();
        for number in candidates {
            let path = self.env.path(FileKind::Manifest, number);
            let name = file_name_of(&path);
            let scanned = scan(&*self.env.fs, &*self.env.transform, &path, number);
            let scanned = match scanned.map_err(as_damage) {
                Ok(scanned) => {
                    let pointer = self.pointer.filter(|_| named == Some(number));
                    if pointer.is_some_and(|pointer| pointer.manifest_salt != scanned.salt) {
                        let problem = "another manifest with the same number was put in its place";
                        self.note(
                            FindingKind::Manifest,
                            &name,
                            Some(40),
                            ["the manifest that the pointer names", problem],
                            REPAIR,
                        );
                    }
                    scanned
                }
                Err(Error::Corruption {
                    offset, problem, ..
                }) => {
                    if named == Some(number) {
                        let words = ["a manifest", &*problem];
                        self.note(FindingKind::Manifest, &name, Some(offset), words, SALVAGE);
                    } else {
                        passed_over.push((name, offset, problem));
                    }
                    continue;
                }
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    let words = ["the manifest that the pointer names", "no file"];
                    self.note(FindingKind::Missing, &name, None, words, SALVAGE);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if named.is_some() && scanned.store != self.env.store {
                let words = ["a manifest of this store", "one of another store"];
                self.note(FindingKind::Manifest, &name, Some(16), words, SALVAGE);
                continue;
            }
            // One that was being written when its writer ended states nothing, and nothing names it.
            if named != Some(number) && scanned.records == 0 {
                passed_over.push((name, scanned.end, "no record opens".to_owned()));
                continue;
            }
            self.take_manifest(scanned, &name);
            break;
        }
        self.passed_over = !passed_over.is_empty();
        if self.manifest.is_some() {
            return Ok(());
        }
        for (name, offset, problem) in passed_over {
            let words = ["a manifest", &*problem];
            self.note(FindingKind::Manifest, &name, Some(offset), words, SALVAGE);
        }
        if named.is_none() {
            let words = ["a manifest that can be read", "none"];
            self.note(FindingKind::Manifest, "*.man", None, words, SALVAGE);
        }
        Ok(())
    }

    fn take_manifest(&mut self, mut scanned: Scanned, name: &str) {
        let named = self.pointer.filter(|p| p.manifest == scanned.number);
        let durable = named.map_or(0, |pointer| pointer.manifest_bytes);
        let problem = scanned.problem.as_deref().unwrap_or("its end");
        if !scanned.is_sound(durable) {
            let expected = format!("whole records up to byte {durable} at least");
            let found = format!("{problem}; {} records behind it open", scanned.behind.len());
            let at = Some(scanned.end);
            let words = [&*expected, &*found];
            self.note(FindingKind::Manifest, name, at, words, REPAIR);
            self.contradictions = scanned.apply_behind();
        } else if scanned.problem.is_some() {
            self.findings.push(Finding {
                severity: Severity::Note,
                file: name.to_owned(),
                offset: Some(scanned.end),
                kind: FindingKind::TornTail,
                expected: "the end of the manifest".to_owned(),
                found: format!(
                    "{} bytes of a record that was never whole",
                    scanned.bytes.saturating_sub(scanned.end)
                ),
                advice: "nothing: nothing relied on it, and opening the store cuts it",
            });
        }
        self.env.store = scanned.store;
        self.manifest = Some(scanned);
    }

    /// Finds the store's id in the header of the pointer, or where that does not tell it, in those of the other files:
    /// the one that most of them have.
    fn find_store(&mut self) -> Result<()> {
        if let Ok(Some(store)) = Pointer::store(&*self.env.fs, &self.env.directory) {
            self.env.store = store;
            return Ok(());
        }
        let mut seen: Vec<[u8; 16]> = Vec::new();
        for kind in [FileKind::Manifest, FileKind::Table, FileKind::Log] {
            for number in self.numbers(kind) {
                seen.extend(store_of(&self.env, kind, number)?);
            }
        }
        let distinct: BTreeSet<_> = seen.iter().copied().collect();
        let count = |id: &[u8; 16]| seen.iter().filter(|other| *other == id).count();
        if let Some(store) = distinct.into_iter().max_by_key(count) {
            self.env.store = store;
        }
        Ok(())
    }
}

/// The store that a file says it belongs to.
fn store_of(env: &Env, kind: FileKind, number: u64) -> Result<Option<[u8; 16]>> {
    let path = env.path(kind, number);
    let mut bytes = [0; HEADER_BYTES];
    let read = env
        .fs
        .open(&path)
        .and_then(|file| read_up_to(&*file, &mut bytes, 0));
    let Ok(read) = read else { return Ok(None) };
    let version = match kind {
        FileKind::Log => LOG_VERSION,
        FileKind::Manifest => MANIFEST_VERSION,
        _ => TABLE_VERSION,
    };
    match FileHeader::decode(&path, &bytes[..read], kind, version) {
        Ok(header) => Ok(Some(header.identity.store)),
        Err(error @ Error::NewerFormat { .. }) => Err(error),
        Err(_) => Ok(None),
    }
}

/// What is needed to read and write tables in `env`. Keeps nothing in memory.
pub(crate) fn table_env(env: &Env) -> TableEnv {
    let memory = Memory::without_store(0);
    TableEnv {
        fs: Arc::clone(&env.fs),
        transform: Arc::clone(&env.transform),
        random: Arc::clone(&env.random),
        store: env.store,
        cache: Arc::clone(memory.cache()),
        metadata_budget: Arc::clone(memory.tables()),
        memory,
    }
}

/// Takes what a transform says of a file that it cannot open for damage of that file: it is not sealed as the others are,
/// or under a key that the store does not have (any more). The others are read all the same.
pub(super) fn as_damage(error: Error) -> Error {
    let at = TRANSFORM_OFFSET;
    match error {
        Error::Encrypted { path } => {
            Error::corruption(&path, at, "it is encrypted, unlike the store")
        }
        Error::NotEncrypted { path } => {
            Error::corruption(&path, at, "it is not encrypted, unlike the store")
        }
        Error::UnacceptableKeyring { path, problem } => Error::corruption(&path, at, problem),
        error => error,
    }
}

/// The last part of a path, as text.
pub(crate) fn file_name_of(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}
