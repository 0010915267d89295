//! Making snapshots: one moment of the database, as the files that the engine has captured or as a document for each vault.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use vault_core::vfs::FileSet;
use vault_core::{Snapshot, Timestamp};
use vault_lsm::Capture;
use vault_snapshot::repository::{CreateOptions, Document, Source, SourceFile};

use super::{
    Form, Manifest, Parent, SnapshotName, Snapshots, Trigger, VaultCount, Watcher, full_name,
};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::portable::ExportFormat;
use crate::restore::{Chosen, Scope};

/// Where the files of a capture seem to lie while their counts are read.
const CAPTURE_DIRECTORY: &str = "/capture";
/// What reading the counts of a capture may take.
const CAPTURE_MEMORY_BYTES: u64 = 16 << 20;

/// How a snapshot is made.
///
/// ```
/// use vault_db::Scope;
/// use vault_db::snapshot::{Form, Parent, SnapshotOptions};
/// let full = SnapshotOptions { parent: Parent::None, ..SnapshotOptions::default() };
/// let readable = SnapshotOptions {
///     form: Form::Logical,
///     scope: Scope::Tenant("acme".to_owned()),
///     note: "before the move".to_owned(),
///     ..SnapshotOptions::default()
/// };
/// ```
#[derive(Debug, Clone)]
pub struct SnapshotOptions {
    /// Files or documents.
    pub form: Form,
    /// What is in it. A physical one has everything.
    pub scope: Scope,
    /// What a physical one builds on: files that are there already are not stored again. By default the newest one of this database;
    /// where there is none, or too many build on each other already, it is full.
    pub parent: Parent,
    /// Why it is made.
    pub trigger: Trigger,
    /// Words for retention, at most 64.
    pub tags: Vec<String>,
    /// Anything worth saying, up to 64 KiB.
    pub note: String,
    /// Whether a logical one of an encrypted database may be made, which has every entry in the clear.
    pub danger_in_the_clear: bool,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        Self {
            form: Form::Physical,
            scope: Scope::Everything,
            parent: Parent::Newest,
            trigger: Trigger::default(),
            tags: Vec::new(),
            note: String::new(),
            danger_in_the_clear: false,
        }
    }
}

impl Snapshots {
    /// Makes a physical snapshot of everything, on top of the newest one there is. Gives what is recorded of it once it is
    /// durable.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let place = tempfile::tempdir().unwrap();
    /// let snapshots = db.snapshots(place.path())?;
    /// db.vault("v")?.put("a", &1)?;
    /// let first = snapshots.create()?;
    /// let second = snapshots.create()?;
    /// assert_eq!(second.parent, Some(first.name));
    /// assert_eq!(second.counts["v"].entries, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Snapshots::create_with`].
    pub fn create(&self) -> Result<Manifest> {
        self.create_with(&SnapshotOptions::default(), &())
    }

    /// Makes a snapshot of one moment, while everybody reads and writes on. `watcher` is told how far it is, and can end it.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let place = tempfile::tempdir().unwrap();
    /// use std::ops::ControlFlow;
    /// use vault_db::snapshot::{Form, SnapshotOptions};
    /// let snapshots = db.snapshots(place.path())?;
    /// db.vault("notes")?.put("backup", "weekly")?;
    /// let options = SnapshotOptions { form: Form::Logical, ..SnapshotOptions::default() };
    /// let made = snapshots.create_with(&options, &|done, total| {
    ///     println!("{done} of {total} bytes");
    ///     ControlFlow::Continue(())
    /// })?;
    /// let text = snapshots.repository().read_entry(made.name, "vaults/notes.json", 1 << 20)?;
    /// assert!(String::from_utf8_lossy(&text).contains(r#""value":"weekly""#));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Snapshot`](Error::Snapshot) with `OtherStore` where the repository has snapshots of another database: each needs a place of
    /// its own. [`UnsupportedSnapshot`](Error::UnsupportedSnapshot) where the options do not go together or the engine cannot,
    /// [`NoSuchVault`](Error::NoSuchVault) and [`NoSuchTenant`](Error::NoSuchTenant); [`Snapshot`](Error::Snapshot) with what
    /// the repository says, cancelling included; [`Engine`](Error::Engine). Nothing is left of a snapshot that failed.
    pub fn create_with(
        &self,
        options: &SnapshotOptions,
        watcher: &dyn Watcher,
    ) -> Result<Manifest> {
        let seen = self.repository.names()?.pop();
        let mut source = match options.form {
            Form::Physical => self.physical(options)?,
            Form::Logical => self.logical(options)?,
        };
        source.taken_behind = Some(seen.map_or_else(|| SnapshotName::at(Timestamp(0)), Ok)?);
        let options = CreateOptions {
            parent: match options.form {
                Form::Physical => options.parent,
                // Documents are whole.
                Form::Logical => Parent::None,
            },
            trigger: options.trigger.clone(),
            tags: options.tags.clone(),
            note: options.note.clone(),
        };
        Ok(self.repository.create(source, &options, watcher)?)
    }

    fn physical(&self, options: &SnapshotOptions) -> Result<Source> {
        let unsupported = |problem| Err(Error::UnsupportedSnapshot { problem });
        if options.scope != Scope::Everything {
            return unsupported(
                "a physical snapshot has whole files, and so everything; make a logical one of what you choose",
            );
        }
        let shared = self.database.shared();
        let Some(lsm) = &shared.lsm else {
            return unsupported(
                "the engine of this database keeps no files of its own; make a logical one",
            );
        };
        shared.save_accesses();
        let capture = lsm.capture()?;
        let mut source = Source::new(capture.store, Form::Physical);
        source.instance = lsm.instance();
        source.generation = capture.generation;
        source.sequence = capture.sequence;
        if !lsm.is_encrypted() {
            source.counts = self.counts_of(&capture)?;
        }
        source.files = source_files(capture);
        Ok(source)
    }

    /// What each vault of a capture holds: exactly that, and proof that the capture opens.
    fn counts_of(&self, capture: &Capture) -> Result<BTreeMap<String, VaultCount>> {
        let files = capture.files.iter();
        let files = files.map(|file| (file.name.clone(), Arc::clone(&file.content)));
        let files = FileSet::new(Path::new(CAPTURE_DIRECTORY), files);
        let captured = Database::builder()
            .clock(Arc::clone(&self.database.shared().clock))
            .memory_bytes(CAPTURE_MEMORY_BYTES)
            .engine_options(|engine| engine.file_system(Arc::new(files)))
            .open_read_only(CAPTURE_DIRECTORY)?;
        let registry = captured.shared().registry();
        let counts = registry.all().map(|vault| {
            let tenant = vault.owner.as_ref().map(|owner| owner.name.as_str());
            let tally = vault.counts.tally();
            let count = VaultCount {
                entries: tally.entries,
                bytes: tally.bytes(),
            };
            (full_name(tenant, &vault.name()), count)
        });
        Ok(counts.collect())
    }

    fn logical(&self, options: &SnapshotOptions) -> Result<Source> {
        let shared = self.database.shared();
        let lsm = shared.lsm.as_ref();
        let encrypted = lsm.is_some_and(vault_lsm::Lsm::is_encrypted);
        if encrypted && !options.danger_in_the_clear {
            return Err(Error::UnsupportedSnapshot {
                problem: "a logical snapshot has every entry of this encrypted database in the clear; make a physical one, or set \
                          `danger_in_the_clear`",
            });
        }
        let (snapshot, chosen) = shared.choose(&options.scope)?;
        let mut source = Source::new(store_of(&self.database), Form::Logical);
        source.instance = lsm.and_then(vault_lsm::Lsm::instance);
        source.generation = lsm.map_or(0, vault_lsm::Lsm::generation);
        source.sequence = snapshot.sequence();
        let documents = chosen
            .into_iter()
            .map(|chosen| self.document(&snapshot, chosen));
        source.documents = documents.collect();
        Ok(source)
    }

    fn document(&self, snapshot: &Arc<dyn Snapshot>, chosen: Chosen) -> Document {
        let shared = Arc::clone(self.database.shared());
        let snapshot = Arc::clone(snapshot);
        Document {
            name: full_name(chosen.tenant.as_deref(), &chosen.name),
            write: Box::new(move |out| {
                let tally = shared.tally_at(&*snapshot, chosen.vault.id)?;
                let goes_on = |_| ControlFlow::Continue(());
                let entries = shared.export_at(
                    &*snapshot,
                    &chosen,
                    &tally,
                    ExportFormat::Json,
                    out,
                    goes_on,
                )?;
                Ok(VaultCount {
                    entries,
                    bytes: tally.bytes(),
                })
            }),
        }
    }
}

/// The files of a capture, as a repository takes them.
pub(super) fn source_files(capture: Capture) -> Vec<SourceFile> {
    let files = capture.files.into_iter().map(|file| SourceFile {
        name: file.name,
        bytes: file.bytes,
        salt: file.salt,
        immutable: file.immutable,
        content: file.content,
    });
    files.collect()
}

/// What snapshots of a database say they are of, whatever their form: the engine's store, or, where the engine has no name
/// for it, what the database calls itself.
pub(super) fn store_of(database: &Database) -> [u8; 16] {
    let shared = database.shared();
    if let Some(lsm) = &shared.lsm {
        return lsm.store_id();
    }
    let mut store = [0; 16];
    let named = shared.structure().database.clone();
    for (byte, digits) in store.iter_mut().zip(named.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).ok();
        *byte = digits
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .unwrap_or(0);
    }
    store
}
