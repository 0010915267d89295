//! Making snapshots.
//!
//! 1. Look at what is to be stored, before anything is written.
//! 2. Take the lock, see that what is there is of the same store, and take a name: the clock's, or a second after the newest where
//!    that is not behind it.
//! 3. Decide what the parent's chain has already: files that never change, of the same name, length and salt.
//! 4. Write the archive, with the manifest as its last entry, and make it durable.
//! 5. See that what it builds on is still there, publish the manifest, and look once more: where there are no locks, somebody may prune
//!    at the same time. From here on there is a snapshot.
//!
//! Whatever goes wrong before, what was written is removed; where that fails too, it has no manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write;
use std::sync::Arc;

use vault_core::vfs::File;

use super::Repository;
use crate::archive::path::{document_path, file_path};
use crate::archive::{
    ArchiveWriter, BoxError, Entry, Error, FORMAT_VERSION, Form, Hex, Kind, Manifest, Progress,
    Result, SnapshotName, StoreId, Trigger, VaultCount, Watcher,
};

/// How many names are tried where others take them at the same time.
const NAMES_TRIED_MAX: usize = 16;

/// What a snapshot is made of: one moment of a store, which stays as it is until the snapshot is made.
#[derive(Debug)]
pub struct Source {
    /// Identity of the store.
    pub store: [u8; 16],
    /// Which of the store's copies this is, if it says so.
    pub instance: Option<[u8; 16]>,
    /// Generation of the store.
    pub generation: u64,
    /// The last write that the snapshot holds.
    pub sequence: u64,
    /// Files or documents.
    pub form: Form,
    /// The store's files, for [`Form::Physical`].
    pub files: Vec<SourceFile>,
    /// Documents that are written when their turn comes, for [`Form::Logical`].
    pub documents: Vec<Document>,
    /// What each vault holds. Leave it empty where that is confidential; documents add theirs.
    pub counts: BTreeMap<String, VaultCount>,
    /// The newest name that there was before this moment was taken, where the host has looked: where somebody has made a snapshot since
    /// that holds more, this one is not put behind it.
    pub taken_behind: Option<SnapshotName>,
}

impl Source {
    /// A source without files, documents and counts.
    #[must_use]
    pub fn new(store: [u8; 16], form: Form) -> Self {
        Self {
            store,
            instance: None,
            generation: 0,
            sequence: 0,
            form,
            files: Vec::new(),
            documents: Vec::new(),
            counts: BTreeMap::new(),
            taken_behind: None,
        }
    }
}

/// A file of a store.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Its name, relative to the store's directory, with `/` between parts.
    pub name: String,
    /// How many of its bytes are stored. It may be longer.
    pub bytes: u64,
    /// The salt in its header, which no other file has.
    pub salt: Option<[u8; 24]>,
    /// Whether it never changes: then, and with a salt, later snapshots need not store it again.
    pub immutable: bool,
    /// Its bytes.
    pub content: Arc<dyn File>,
}

/// Writes a document, and tells how many entries and bytes of its vault are in it.
pub type WriteDocument = Box<dyn FnOnce(&mut dyn Write) -> Result<VaultCount, BoxError> + Send>;

/// A document: the content of a vault as text.
pub struct Document {
    /// Name of the vault. Any text but an empty one.
    pub name: String,
    /// Writes it.
    pub write: WriteDocument,
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What a snapshot builds on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Parent {
    /// Nothing: it is full.
    #[default]
    None,
    /// The newest of this store's physical snapshots, if there is one whose chain is whole and not too long; else it is full.
    Newest,
    /// This one.
    Named(SnapshotName),
}

/// How a snapshot is made, and what is noted of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CreateOptions {
    /// What it builds on.
    pub parent: Parent,
    /// Why it is made.
    pub trigger: Trigger,
    /// Words for retention.
    pub tags: Vec<String>,
    /// Anything worth saying.
    pub note: String,
}

impl Repository {
    /// Makes a snapshot, and returns when it is durable.
    ///
    /// Memory stays within some mebibytes whatever the size; `watcher` is told of every mebibyte and can end it.
    ///
    /// # Errors
    /// - [`Error::InvalidRequest`], [`Error::InvalidPath`], [`Error::OverLimit`]: what was given cannot be stored; nothing was
    ///   written.
    /// - [`Error::OtherStore`]: there are snapshots of another store here; nothing was written.
    /// - [`Error::NoSuchSnapshot`], [`Error::Parent`]: the parent cannot be built on, or was removed meanwhile; nothing is left of what
    ///   was written.
    /// - [`Error::Busy`]: somebody else is writing here, or has made a snapshot that shows more since
    ///   [the moment was taken](Source::taken_behind).
    /// - [`Error::Cancelled`], [`Error::SourceChanged`], [`Error::Document`], and what the destination says: there is no
    ///   such snapshot, and what was written of it is removed.
    pub fn create(
        &self,
        source: Source,
        options: &CreateOptions,
        watcher: &dyn Watcher,
    ) -> Result<Manifest> {
        let plan = Plan::check(source, options)?;
        let bytes = plan.files.iter().map(|(_, file)| file.bytes).sum();
        let entries = plan.files.len() + plan.documents.len();
        self.check_size("the new snapshot", entries, bytes)?;
        let _lock = self.destination.lock()?;
        let snapshots = self.list()?;
        self.check_one_store(&snapshots, plan.store)?;
        self.check_not_overtaken(&plan, &snapshots)?;
        let parent = self.parent(&plan, options.parent, snapshots)?;
        self.write_snapshot(|clock_behind, name, archive| {
            let mut manifest = Manifest {
                format_version: FORMAT_VERSION,
                store: plan.store,
                instance: plan.instance,
                generation: plan.generation,
                kind: parent.as_ref().map_or(Kind::Full, |_| Kind::Incremental),
                form: plan.form,
                parent: parent.as_ref().map(|parent| parent.name),
                chain_root: parent.as_ref().map_or(name, |parent| parent.chain_root),
                name,
                time: self.clock.now(),
                clock_behind,
                content_of: None,
                sequence: plan.sequence,
                entries: Vec::new(),
                counts: plan.counts.clone(),
                trigger: options.trigger.clone(),
                tags: options.tags.clone(),
                note: options.note.clone(),
                created_by: env!("CARGO_PKG_VERSION").to_owned(),
            };
            plan.write(&mut manifest, parent.as_ref(), archive, watcher)?;
            Ok(manifest)
        })
    }

    /// Refuses what shows less than a snapshot that was made since it was taken: behind that, it would be the newest.
    fn check_not_overtaken(&self, plan: &Plan, snapshots: &[Manifest]) -> Result<()> {
        let overtakes = |other: &&Manifest| {
            let since = plan.taken_behind.is_some_and(|seen| other.name > seen);
            since && other.instance == plan.instance && other.sequence > plan.sequence
        };
        match snapshots.iter().rfind(overtakes) {
            None => Ok(()),
            Some(other) => Err(Error::Busy {
                location: self.destination.location(None),
                holder: format!("{}, which was made meanwhile and shows more", other.name),
            }),
        }
    }

    /// Finds what the new snapshot builds on, among those there are.
    fn parent(
        &self,
        plan: &Plan,
        parent: Parent,
        mut candidates: Vec<Manifest>,
    ) -> Result<Option<Manifest>> {
        if let Parent::Named(name) = parent {
            let manifest = self.load(name)?.manifest;
            let refuse = |problem: String| Error::Parent {
                snapshot: "that is to be made".into(),
                parent: name.to_string(),
                problem,
            };
            if manifest.store != plan.store {
                let problem = format!("it is of store {}, not of {}", manifest.store, plan.store);
                return Err(refuse(problem));
            }
            if manifest.form != Form::Physical {
                return Err(refuse(
                    "it holds documents; name one that holds files".into(),
                ));
            }
            if self.chain(&manifest)?.len() >= self.limits.chain_max {
                let max = self.limits.chain_max;
                return Err(refuse(format!(
                    "its chain has {max} snapshots already; make a full one, or raise `chain_max`"
                )));
            }
            return Ok(Some(manifest));
        }
        if parent == Parent::None {
            return Ok(None);
        }
        candidates.retain(|m| m.form == Form::Physical);
        let newest = candidates
            .into_iter()
            .max_by_key(|manifest| (manifest.moment(), manifest.name));
        let Some(manifest) = newest else {
            return Ok(None);
        };
        match self.chain(&manifest) {
            Ok(chain) if chain.len() < self.limits.chain_max => Ok(Some(manifest)),
            Ok(_) | Err(Error::Parent { .. } | Error::Damaged { .. } | Error::OverLimit { .. }) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes a snapshot out of what `build` writes into its archive; removes what was written where it fails.
    pub(super) fn write_snapshot(
        &self,
        build: impl FnOnce(Option<SnapshotName>, SnapshotName, &mut ArchiveWriter) -> Result<Manifest>,
    ) -> Result<Manifest> {
        let (clock_behind, mut name) = self.next_name()?;
        let mut upload = self.destination.begin(name);
        for _ in 1..NAMES_TRIED_MAX {
            if !matches!(upload, Err(Error::Busy { .. })) {
                break;
            }
            name = name.next()?;
            upload = self.destination.begin(name);
        }
        let upload = upload?;
        let finished = ArchiveWriter::begin(upload, name).and_then(|mut archive| {
            let manifest = build(clock_behind, name, &mut archive)?;
            let json = self.manifest_json(&manifest)?;
            archive.finish(&json)?;
            Ok((manifest, json))
        });
        let published = finished.and_then(|(manifest, json)| {
            self.check_needed(&manifest)?;
            self.destination.publish(name, &json)?;
            // Where there are no locks, somebody may have pruned meanwhile. Whoever does so from now on sees this one.
            self.check_needed(&manifest)?;
            Ok(manifest)
        });
        published.inspect_err(|error| {
            // A manifest that is there already is not ours to remove.
            if !matches!(error, Error::Busy { .. }) && self.destination.withdraw(name).is_ok() {
                drop(self.destination.discard(name));
            }
        })
    }

    /// Whether what a snapshot builds on is still there.
    fn check_needed(&self, manifest: &Manifest) -> Result<()> {
        if manifest.parent.is_none() {
            return Ok(());
        }
        let there: BTreeSet<_> = self.names()?.into_iter().collect();
        let holders = manifest.entries.iter().map(|entry| entry.holder);
        let mut needed = manifest
            .parent
            .into_iter()
            .chain([manifest.chain_root])
            .chain(holders.filter(|holder| *holder != manifest.name));
        match needed.find(|name| !there.contains(name)) {
            None => Ok(()),
            Some(gone) => Err(Error::Parent {
                snapshot: manifest.name.to_string(),
                parent: gone.to_string(),
                problem: "it was removed while this one was made, which is removed again; take the snapshot once more".into(),
            }),
        }
    }

    fn manifest_json(&self, manifest: &Manifest) -> Result<Vec<u8>> {
        manifest.check().map_err(Error::request)?;
        let json = manifest.to_json();
        let max = self.limits.manifest_bytes_max;
        if json.len() as u64 > max {
            return Err(Error::OverLimit {
                what: "bytes of the new manifest".into(),
                found: json.len() as u64,
                max,
                setting: "manifest_bytes_max",
            });
        }
        Ok(json)
    }

    /// The name of the next snapshot: the clock's, but always after those there are. Also the newest there is, where the clock
    /// has gone back behind it.
    fn next_name(&self) -> Result<(Option<SnapshotName>, SnapshotName)> {
        let now = self.clock.now();
        let mut name = SnapshotName::at(now)?;
        let Some(newest) = self.destination.list()?.last().copied() else {
            return Ok((None, name));
        };
        let mut behind = None;
        if newest.name >= name {
            name = newest.name.next()?;
            // Two within one second are no jump of the clock.
            let time = self.load(newest.name).map(|loaded| loaded.manifest.time);
            behind = time.is_ok_and(|time| time > now).then_some(newest.name);
        }
        Ok((behind, name))
    }
}

/// A source that was found to be one.
struct Plan {
    store: StoreId,
    instance: Option<StoreId>,
    generation: u64,
    sequence: u64,
    form: Form,
    /// By path, ascending.
    files: Vec<(String, SourceFile)>,
    documents: Vec<(String, Document)>,
    counts: BTreeMap<String, VaultCount>,
    taken_behind: Option<SnapshotName>,
}

impl Plan {
    fn check(source: Source, options: &CreateOptions) -> Result<Self> {
        let logical = source.form == Form::Logical;
        if logical && !source.files.is_empty() || !logical && !source.documents.is_empty() {
            return Err(Error::request(
                "a physical snapshot is made of files alone, a logical one of documents alone",
            ));
        }
        if logical && options.parent != Parent::None {
            return Err(Error::request(
                "a logical snapshot is always full: leave the parent out, or make a physical one",
            ));
        }
        let mut files = Vec::with_capacity(source.files.len());
        let mut total = 0u64;
        for file in source.files {
            total = total.checked_add(file.bytes).ok_or_else(|| {
                Error::request("the lengths of the files add up to more than there can be")
            })?;
            files.push((file_path(&file.name)?, file));
        }
        let mut documents = Vec::with_capacity(source.documents.len());
        for document in source.documents {
            documents.push((document_path(&document.name)?, document));
        }
        files.sort_by(|(a, _), (b, _)| a.cmp(b));
        documents.sort_by(|(a, _), (b, _)| a.cmp(b));
        let twice = |paths: &mut dyn Iterator<Item = &String>| {
            let paths: Vec<_> = paths.collect();
            let twice = paths.windows(2).find(|pair| pair[0] == pair[1]);
            twice.map(|pair| Error::request(format!("{:?} is given twice", pair[0])))
        };
        let twice = twice(&mut files.iter().map(|(path, _)| path))
            .or_else(|| twice(&mut documents.iter().map(|(path, _)| path)));
        match twice {
            Some(error) => Err(error),
            None => Ok(Self {
                store: Hex(source.store),
                instance: source.instance.map(Hex),
                generation: source.generation,
                sequence: source.sequence,
                form: source.form,
                files,
                documents,
                counts: source.counts,
                taken_behind: source.taken_behind,
            }),
        }
    }

    /// Writes what the parent's chain does not have, and fills the manifest.
    fn write(
        self,
        manifest: &mut Manifest,
        parent: Option<&Manifest>,
        archive: &mut ArchiveWriter,
        watcher: &dyn Watcher,
    ) -> Result<()> {
        let held = |path: &str, file: &SourceFile| {
            let salt = file.salt.filter(|_| file.immutable).map(Hex);
            let entry = parent?.entry(path)?;
            (salt.is_some() && entry.identity == salt && entry.bytes == file.bytes)
                .then(|| entry.clone())
        };
        let name = manifest.name;
        let new_entry = |path: String, bytes| Entry {
            path,
            bytes,
            sha256: Hex([0; 32]),
            identity: None,
            document: None,
            holder: name,
        };
        let to_store = self
            .files
            .iter()
            .filter(|(path, f)| held(path, f).is_none());
        let total = to_store.map(|(_, file)| file.bytes).sum();
        let mut progress = Progress::begin(watcher, total)?;
        let mut written = Vec::new();
        for (path, file) in self.files {
            if let Some(entry) = held(&path, &file) {
                manifest.entries.push(entry);
                continue;
            }
            archive.add_file(&path, file.bytes, &*file.content, &mut progress)?;
            written.push(manifest.entries.len());
            manifest.entries.push(Entry {
                identity: file.salt.filter(|_| file.immutable).map(Hex),
                ..new_entry(path, file.bytes)
            });
        }
        for (path, document) in self.documents {
            let Document { name, write } = document;
            let (bytes, count) = archive.add_document(&path, &name, write, &mut progress)?;
            written.push(manifest.entries.len());
            manifest.entries.push(Entry {
                document: Some(name.clone()),
                ..new_entry(path, bytes)
            });
            manifest.counts.insert(name, count);
        }
        for (at, hash) in written.iter().zip(archive.hashes(written.len())?) {
            manifest.entries[*at].sha256 = hash;
        }
        Ok(())
    }
}
