//! Opening snapshots: where they lie, in place of what is there, or in a new directory.

use std::io::{BufRead, BufReader, PipeReader};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use vault_core::MemoryEngine;
use vault_core::vfs::FileSystem;
use vault_crypto::EncryptedProtection;
use vault_lsm::{LsmOptions, check};

use super::{
    ArchiveError, Extracted, Form, Manifest, SnapshotName, Snapshots, StoredSnapshots, Verified,
    Watcher, is_encrypted, parse_full_name,
};
use crate::database::{Database, DatabaseBuilder, NO_TENANT, Shared};
use crate::error::{Error, Result};
use crate::portable::{ImportMode, ImportOptions};
use crate::restore::{Difference, Extent, RestoreOutcome, RestoreProgress, Scope, VaultDifference};
use crate::tenant::Quota;

/// Where the files of a snapshot seem to lie while it is read.
const SNAPSHOT_DIRECTORY: &str = "/snapshot";
/// What an opened snapshot may take.
const SNAPSHOT_MEMORY_BYTES: u64 = 64 << 20;
/// The document of a vault that has nothing.
const EMPTY_DOCUMENT: &[u8] = br#"{"format": "vault-json-v1", "entries": []}"#;

/// What a verification of a snapshot has found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SnapshotVerified {
    /// What was held against the hashes of the manifest.
    pub hashes: Verified,
    /// What the engine found in the files. `None` for documents, which were read, and where an encrypted snapshot has no key.
    pub content: Option<check::VerifyReport>,
}

impl StoredSnapshots {
    /// Opens a snapshot for reading, without unpacking it: a physical one is read where it lies, in its archives, a
    /// logical one from a temporary database, which is in memory where the database is encrypted, or may have been.
    ///
    /// The archives are held against their manifests, and blocks against their checksums when they are read;
    /// [verify](super::Repository::verify) reads all of it.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let place = tempfile::tempdir().unwrap();
    /// db.vault("v")?.put("a", &1)?;
    /// let snapshots = db.snapshots(place.path())?;
    /// let made = snapshots.create()?;
    /// db.vault("v")?.put("a", &2)?;
    /// let then = snapshots.open(made.name)?;
    /// assert_eq!(then.vault("v")?.get::<i64>("a")?, Some(1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Snapshot`](Error::Snapshot) with what the repository says; [`Engine`](Error::Engine) with what opening the store says:
    /// `WrongKey` where the key does not fit, `Encrypted` where there is none; [`TooOld`](Error::TooOld) where it is older
    /// than [what is accepted](Snapshots::with_least_generation).
    pub fn open(&self, name: SnapshotName) -> Result<Database> {
        self.open_as(&self.repository.manifest(name)?)
    }

    /// Opens a snapshot whose manifest has been read.
    fn open_as(&self, manifest: &Manifest) -> Result<Database> {
        self.check_acceptable(manifest)?;
        if manifest.form == Form::Logical {
            return self.open_documents(manifest);
        }
        let directory = Path::new(SNAPSHOT_DIRECTORY);
        let files = self.repository.files(manifest.name, directory)?;
        self.open_read_only(manifest, Arc::new(files), directory)
    }

    /// Verifies a snapshot: its hashes, which takes no key, and then, without unpacking it, every block of every file as
    /// `vaultdb verify` does, which of an encrypted one takes the [key](Snapshots::with_key). Documents are read as a restore reads
    /// them. What is whole by this, [`StoredSnapshots::restore_to`] accepts.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let place = tempfile::tempdir().unwrap();
    /// db.vault("v")?.put("a", &1)?;
    /// let snapshots = db.snapshots(place.path())?;
    /// let made = snapshots.create()?;
    /// let verified = snapshots.verify(made.name, &())?;
    /// assert_eq!(verified.hashes.bytes, made.bytes());
    /// assert!(verified.content.is_some_and(|content| content.is_clean()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Snapshot`](Error::Snapshot) where it is damaged, a parent is missing and the like, and where a key was given and it is
    /// not encrypted; [`TooOld`](Error::TooOld) as [`StoredSnapshots::restore_to`]; [`Engine`](Error::Engine) where its files are no
    /// store, or the key does not fit.
    pub fn verify(&self, name: SnapshotName, watcher: &dyn Watcher) -> Result<SnapshotVerified> {
        let manifest = self.repository.manifest(name)?;
        self.check_acceptable(&manifest)?;
        let hashes = self.repository.verify(name, watcher)?;
        let directory = Path::new(SNAPSHOT_DIRECTORY);
        let content = match manifest.form {
            Form::Logical => {
                self.check_documents(&manifest)?;
                None
            }
            Form::Physical => {
                let files = Arc::new(self.repository.files(name, directory)?);
                let options = self.engine_options(&manifest, files.clone());
                let goes_on = &mut |_: &check::VerifyProgress| ControlFlow::Continue(());
                let verify = |options: LsmOptions| {
                    check::verify(
                        directory,
                        &options,
                        &check::VerifyOptions::default(),
                        goes_on,
                    )
                };
                let content = options.map(verify).transpose()?;
                if content.as_ref().is_some_and(check::VerifyReport::is_clean) {
                    // Blocks may be right, and the files no database, or of an older generation than the manifest says.
                    drop(self.open_read_only(&manifest, files, directory)?);
                }
                content
            }
        };
        Ok(SnapshotVerified { hashes, content })
    }
}

impl Snapshots {
    /// Has what a snapshot holds take the place of what is there, under open handles, at one moment and whole, or after an error
    /// not at all. Everything of the snapshot is verified first. See [`Database::restore_from`] for who sees what.
    ///
    /// Of a logical snapshot the vaults that it has come, and everything else stays, quotas of tenants included: it does not say what
    /// there was beside it.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use vault_db::{Database, Scope, VaultChoice};
    /// # let db = Database::temp()?;
    /// # let place = tempfile::tempdir().unwrap();
    /// let memory = db.vault("memory")?;
    /// memory.put("mood", "good")?;
    /// let snapshots = db.snapshots(place.path())?;
    /// let made = snapshots.create()?;
    /// memory.put("mood", "bad")?;
    ///
    /// // Beside what is there, to look at first ...
    /// let beside = Scope::Vaults(vec![VaultChoice::named("memory").under("memory then")]);
    /// snapshots.restore(made.name, &beside)?;
    /// assert_eq!(db.vault("memory then")?.get::<String>("mood")?.as_deref(), Some("good"));
    /// // ... and in its place.
    /// snapshots.restore(made.name, &Scope::Vaults(vec![VaultChoice::named("memory")]))?;
    /// assert_eq!(memory.get::<String>("mood")?.as_deref(), Some("good"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`StoredSnapshots::open`] and [`Database::restore_from`].
    pub fn restore(&self, name: SnapshotName, scope: &Scope) -> Result<RestoreOutcome> {
        self.restore_with(name, scope, &(), |_| ControlFlow::Continue(()))
    }

    /// As [`Snapshots::restore`]. `watcher` is told how far the verification is, then `progress` how far the reading; either can
    /// end the work.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::{Database, Scope};
    /// # let db = Database::temp()?;
    /// # let place = tempfile::tempdir().unwrap();
    /// use std::ops::ControlFlow;
    /// let snapshots = db.snapshots(place.path())?;
    /// let made = snapshots.create()?;
    /// snapshots.restore_with(made.name, &Scope::Everything, &(), |progress| {
    ///     println!("{} of {} vaults", progress.vaults_done, progress.vaults_total);
    ///     ControlFlow::Continue(())
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Snapshots::restore`]; [`Cancelled`](Error::Cancelled).
    pub fn restore_with(
        &self,
        name: SnapshotName,
        scope: &Scope,
        watcher: &dyn Watcher,
        progress: impl FnMut(&RestoreProgress) -> ControlFlow<()>,
    ) -> Result<RestoreOutcome> {
        self.repository.verify(name, watcher)?;
        let manifest = self.repository.manifest(name)?;
        let then = self.open_as(&manifest)?;
        let extent = extent_of(&manifest);
        self.database.restore_extent(&then, scope, extent, progress)
    }

    /// What [`Snapshots::restore`] would change, vault by vault, without changing anything. What it would refuse is refused.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::{Database, Scope};
    /// # let db = Database::temp()?;
    /// # let place = tempfile::tempdir().unwrap();
    /// let snapshots = db.snapshots(place.path())?;
    /// let made = snapshots.create()?;
    /// db.vault("v")?.put("a", &1)?;
    /// let changes = snapshots.preview(made.name, &Scope::Everything)?;
    /// assert_eq!((changes[0].is_gone, changes[0].removed), (true, 1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`StoredSnapshots::open`] and [`Database::compare_with`].
    pub fn preview(&self, name: SnapshotName, scope: &Scope) -> Result<Vec<VaultDifference>> {
        let manifest = self.repository.manifest(name)?;
        let then = self.open_as(&manifest)?;
        let extent = extent_of(&manifest);
        let mut changes = self.database.compare_extent(&then, scope, extent)?;
        if manifest.form == Form::Logical {
            // What it does not have stays.
            changes.retain(|vault| !vault.is_gone);
        }
        Ok(changes)
    }
}

impl StoredSnapshots {
    /// What differs between two snapshots, read where they lie: what came, changed and went from `older` to `newer`, vault by
    /// vault, with each entry that differs handed to `visit`, which can end the work.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::{Database, Scope};
    /// # let db = Database::temp()?;
    /// # let place = tempfile::tempdir().unwrap();
    /// use std::ops::ControlFlow;
    /// let snapshots = db.snapshots(place.path())?;
    /// let older = snapshots.create()?;
    /// db.vault("v")?.put("a", &1)?;
    /// let newer = snapshots.create()?;
    /// let differences = snapshots.diff(older.name, newer.name, &Scope::Everything, |difference| {
    ///     println!("{:?} {}", difference.kind, difference.key);
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert_eq!(differences[0].added, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`StoredSnapshots::open`] and [`Database::differences`].
    pub fn diff(
        &self,
        older: SnapshotName,
        newer: SnapshotName,
        scope: &Scope,
        visit: impl FnMut(&Difference<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<VaultDifference>> {
        let (older, newer) = (self.open(older)?, self.open(newer)?);
        older.differences(&newer, scope, visit)
    }

    /// Makes a new store of a snapshot, in a directory that does not exist or is empty. Everything is verified before
    /// anything is written, the store is opened before it gets its name, and a crash leaves the directory as it was or
    /// the whole store.
    ///
    /// The new store is an instance of its own: encrypted, it begins another key epoch before its first write. What a
    /// logical snapshot becomes is encrypted if there is a [key](Snapshots::with_key), and plain otherwise. Without a key
    /// an encrypted snapshot is restored, too: then nobody has looked into it.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::Database;
    /// # let db = Database::temp()?;
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let (place, target) = (directory.path().join("snapshots"), directory.path().join("restored"));
    /// db.vault("v")?.put("a", &1)?;
    /// let snapshots = db.snapshots(&place)?;
    /// let made = snapshots.create()?;
    /// snapshots.restore_to(made.name, &target, None, &())?;
    /// assert_eq!(Database::open(&target)?.vault("v")?.get::<i64>("a")?, Some(1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`TooOld`](Error::TooOld) where the snapshot is of a generation before `least_generation`, or before that of
    /// [`Snapshots::with_least_generation`], by its manifest or by the files that were unpacked;
    /// [`Snapshot`](Error::Snapshot) with what the repository says, a target that is not empty and what opening the store said
    /// included. The target is as it was.
    pub fn restore_to(
        &self,
        name: SnapshotName,
        target: impl AsRef<Path>,
        least_generation: Option<u64>,
        watcher: &dyn Watcher,
    ) -> Result<Extracted> {
        if let Some(least) = least_generation.filter(|&least| least > self.least_generation) {
            let stricter = self.clone().with_least_generation(least);
            return stricter.restore_to(name, target, None, watcher);
        }
        let manifest = self.repository.manifest(name)?;
        self.check_acceptable(&manifest)?;
        let physical = manifest.form == Form::Physical;
        let prepare = |path: &Path| {
            if physical && (self.key.is_some() || !is_encrypted(&manifest)) {
                self.open_read_only(&manifest, Arc::clone(&self.file_system), path)?;
            }
            if !physical {
                self.make_of_documents(&manifest, path)?;
            }
            Ok(())
        };
        let extracted = self.repository.extract(
            name,
            &*self.file_system,
            target.as_ref(),
            &|_| physical,
            prepare,
            watcher,
        );
        extracted.map_err(prepared)
    }

    /// Refuses a snapshot by what its manifest says.
    pub(super) fn check_acceptable(&self, manifest: &Manifest) -> Result<()> {
        let physical = manifest.form == Form::Physical;
        if physical && self.key.is_some() && !is_encrypted(manifest) {
            let archive = ArchiveError::Damaged {
                location: format!("snapshot {}", manifest.name),
                problem: "a key was given, and its files are not encrypted: anybody may have put them there; if they are meant to be, \
                          restore it without a key"
                    .to_owned(),
            };
            return Err(archive.into());
        }
        self.check_generation(manifest, manifest.generation)
    }

    /// Holds a generation that a snapshot tells against the least that is accepted.
    pub(super) fn check_generation(&self, manifest: &Manifest, generation: u64) -> Result<()> {
        if generation >= self.least_generation {
            return Ok(());
        }
        Err(Error::TooOld {
            snapshot: manifest.name.to_string(),
            generation,
            least: self.least_generation,
        })
    }

    /// With what the engine opens the files of a snapshot; `None` where that takes a key, and there is none.
    pub(super) fn engine_options(
        &self,
        manifest: &Manifest,
        file_system: Arc<dyn FileSystem>,
    ) -> Option<LsmOptions> {
        let options = LsmOptions::default()
            .clock(Arc::clone(&self.clock))
            .file_system(file_system);
        match (&self.key, is_encrypted(manifest)) {
            (_, false) => Some(options),
            (None, true) => None,
            (Some(key), true) => {
                let protection = EncryptedProtection::with_source(Arc::clone(key));
                Some(options.protection(Arc::new(protection)))
            }
        }
    }

    fn builder(&self, file_system: Arc<dyn FileSystem>) -> DatabaseBuilder {
        Database::builder()
            .clock(Arc::clone(&self.clock))
            .bounds(self.bounds)
            .memory_bytes(SNAPSHOT_MEMORY_BYTES)
            .engine_options(|engine| engine.file_system(file_system))
    }

    /// Opens what a snapshot was unpacked into, or where it lies.
    pub(super) fn open_read_only(
        &self,
        manifest: &Manifest,
        file_system: Arc<dyn FileSystem>,
        directory: &Path,
    ) -> Result<Database> {
        let builder = self.builder(file_system);
        let opened = match &self.key {
            Some(key) if is_encrypted(manifest) => {
                let protection = EncryptedProtection::with_source(Arc::clone(key));
                let opened = builder.open_encrypted_read_only(directory, protection)?;
                Database::clone(&opened)
            }
            _ => builder.open_read_only(directory)?,
        };
        // What the manifest says nobody has authenticated; what the files say, the store has, as far as it has keys.
        if let Some(lsm) = &opened.shared().lsm {
            self.check_generation(manifest, lsm.generation())?;
        }
        Ok(opened)
    }

    /// Makes a database of a logical snapshot in an empty directory.
    fn make_of_documents(&self, manifest: &Manifest, directory: &Path) -> Result<()> {
        let builder = self.builder(Arc::clone(&self.file_system));
        let database = match &self.key {
            Some(key) => {
                let protection = EncryptedProtection::with_source(Arc::clone(key));
                Database::clone(&*builder.open_encrypted_with(directory, protection)?)
            }
            None => builder.open(directory)?,
        };
        self.read_documents(manifest, &database)?;
        database.sync()?;
        database.close()
    }

    /// Reads every document as a restore would, one entry at a time, and keeps nothing.
    fn check_documents(&self, manifest: &Manifest) -> Result<()> {
        let builder = Database::builder()
            .clock(Arc::clone(&self.clock))
            .bounds(self.bounds);
        let engine = MemoryEngine::new().with_clock(Arc::clone(&self.clock));
        let names = builder.on(Arc::new(engine))?;
        let mut ascending = true;
        let read = self.each_document(manifest, &names, |tenant, vault, input| {
            let shared = names.shared();
            ascending &= shared.check_document(BufReader::new(input))?;
            import(shared, tenant, vault, EMPTY_DOCUMENT)
        });
        // Only what is sorted shows by itself whether a key comes twice.
        let read = read.and_then(|()| match ascending {
            true => Ok(()),
            false => self.open_documents(manifest).map(drop),
        });
        read.map_err(|error| match error {
            Error::Import { .. } | Error::DuplicateKey { .. } => {
                Error::from(ArchiveError::Damaged {
                    location: format!("snapshot {}", manifest.name),
                    problem: format!("its documents cannot be read: {error}"),
                })
            }
            error => error,
        })
    }

    /// A database of what a logical snapshot holds, which goes with its last handle.
    fn open_documents(&self, manifest: &Manifest) -> Result<Database> {
        let builder = Database::builder()
            .clock(Arc::clone(&self.clock))
            .bounds(self.bounds)
            .durability(vault_core::Durability::Os);
        let (found, max) = (manifest.bytes(), self.documents_bytes_max);
        if self.documents_in_memory && found > max {
            let archive = ArchiveError::OverLimit {
                what: format!(
                    "bytes of the documents of {}, which are opened in memory (restore it into a directory instead)",
                    manifest.name
                ),
                found,
                max,
                setting: "with_documents_bytes_max",
            };
            return Err(archive.into());
        }
        let database = if self.documents_in_memory {
            let engine = MemoryEngine::new().with_clock(Arc::clone(&self.clock));
            builder.on(Arc::new(engine))?
        } else {
            builder.temp()?
        };
        self.read_documents(manifest, &database)?;
        Ok(database)
    }

    fn read_documents(&self, manifest: &Manifest, database: &Database) -> Result<()> {
        self.each_document(manifest, database, |tenant, vault, input| {
            import(database.shared(), tenant, vault, BufReader::new(input))
        })
    }

    /// Has `take` read each document, with the tenant, which `database` has from then on, and the vault that it is of.
    fn each_document(
        &self,
        manifest: &Manifest,
        database: &Database,
        mut take: impl FnMut(u32, &str, PipeReader) -> Result<()>,
    ) -> Result<()> {
        for entry in &manifest.entries {
            let Some(name) = &entry.document else {
                continue;
            };
            let (tenant, vault) = parse_full_name(name);
            let tenant = match tenant {
                None => NO_TENANT,
                Some(tenant) => {
                    match database.create_tenant(tenant, Quota::NONE) {
                        Err(Error::TenantExists { .. }) => {}
                        other => drop(other?),
                    }
                    let registry = database.shared().registry();
                    registry
                        .find_tenant(tenant)
                        .map_or(NO_TENANT, |tenant| tenant.id)
                }
            };
            self.read_document(manifest.name, &entry.path, entry.bytes, |input| {
                take(tenant, vault, input)
            })?;
        }
        Ok(())
    }

    /// Has `read` read a document while it is unpacked, so that its length does not matter.
    fn read_document<R>(
        &self,
        name: SnapshotName,
        path: &str,
        bytes: u64,
        read: impl FnOnce(PipeReader) -> Result<R>,
    ) -> Result<R> {
        let (reader, mut writer) = std::io::pipe().map_err(|error| Error::Stream {
            doing: "unpacking a document",
            source: Arc::new(error),
        })?;
        thread::scope(|scope| {
            let repository = &self.repository;
            let unpacking = scope.spawn(move || {
                let copied = repository.copy_entry(name, path, bytes, &mut writer, &());
                drop(writer);
                copied
            });
            let outcome = read(reader);
            match (unpacking.join(), outcome) {
                // What the reader says of text that ends too early is not the reason.
                (Ok(Err(error)), Err(_)) if !is_broken_pipe(&error) => Err(error.into()),
                (Ok(Err(error)), Ok(_)) => Err(error.into()),
                (Err(_), Ok(_)) => Err(Error::Malformed {
                    what: format!("{path} of snapshot {name}"),
                    problem: "unpacking it failed".to_owned(),
                }),
                (_, outcome) => outcome,
            }
        })
    }
}

/// Has a document take the place of a vault.
fn import(shared: &Shared, tenant: u32, vault: &str, input: impl BufRead) -> Result<()> {
    let options = ImportOptions {
        mode: ImportMode::Replace,
    };
    let goes_on = |_| ControlFlow::Continue(());
    let imported = shared.import(tenant, vault, input, &options, goes_on);
    imported.map(drop)
}

/// Documents do not say what there was beside them, nor what tenants might have.
const fn extent_of(manifest: &Manifest) -> Extent {
    match manifest.form {
        Form::Physical => Extent::Whole,
        Form::Logical => Extent::Parts,
    }
}

/// An error of unpacking; where it is one of preparing what was unpacked that has a variant for callers, that one.
pub(super) fn prepared(error: ArchiveError) -> Error {
    if let ArchiveError::Prepare { source, .. } = &error
        && let Some(told @ (Error::TooOld { .. } | Error::Cancelled)) = source.downcast_ref()
    {
        return told.clone();
    }
    error.into()
}

/// Whether somebody who read has gone before the end.
fn is_broken_pipe(error: &ArchiveError) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::BrokenPipe;
        }
        source = error.source();
    }
    false
}
