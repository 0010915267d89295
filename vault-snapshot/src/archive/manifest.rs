//! The manifest of a snapshot: what it holds, out of what, and where its bytes lie.
//!
//! It is JSON, in two copies: the last entry of the archive, and a file beside it that is put there last. Fields are
//! described in `docs/format/snapshot.md`. A reader refuses versions that it does not know and passes over fields that
//! it does not know. [`Manifest::parse`] is the one door for bytes from outside: what comes through is consistent in itself
//! ([`check`](Manifest::check)), so that the rest of the code need not ask again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vault_core::Timestamp;

use super::hex::{Salt, Sha256Hash, StoreId};
use super::name::{SnapshotName, moment};
use super::path::{STORE_PREFIX, VAULTS_PREFIX, check_path, document_path};

/// The version of the format that this build writes, and the newest that it reads.
pub const FORMAT_VERSION: u64 = 1;
/// Longest tag, name of an event or name of a vault in a manifest, in bytes.
pub const LABEL_BYTES_MAX: usize = 1024;
/// Longest note, in bytes.
pub const NOTE_BYTES_MAX: usize = 64 * 1024;
/// Most tags.
pub const TAGS_MAX: usize = 64;

/// What a snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format.
    pub format_version: u64,
    /// The store that it was made of.
    pub store: StoreId,
    /// Which of the store's copies wrote it, where the store says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<StoreId>,
    /// The store's generation at that moment.
    pub generation: u64,
    /// Whether all bytes lie in its own archive.
    pub kind: Kind,
    /// Files of the store, or documents.
    pub form: Form,
    /// The snapshot that an incremental one builds on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SnapshotName>,
    /// The full snapshot at the beginning of the chain: itself, where it is full.
    pub chain_root: SnapshotName,
    /// Its own name.
    pub name: SnapshotName,
    /// What the clock said when it was made.
    #[serde(with = "moment")]
    pub time: Timestamp,
    /// The newest snapshot at that time, where the clock had gone back behind it; then the name does not say the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_behind: Option<SnapshotName>,
    /// The snapshot of which this one is a full copy, where it was consolidated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_of: Option<SnapshotName>,
    /// The last write that it holds.
    pub sequence: u64,
    /// What it holds, in ascending order of the paths.
    pub entries: Vec<Entry>,
    /// Entries and bytes of each vault, where they are not confidential.
    #[serde(default)]
    pub counts: BTreeMap<String, VaultCount>,
    /// Why it was made.
    pub trigger: Trigger,
    /// Words that retention goes by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// What somebody wanted to say about it.
    #[serde(default)]
    pub note: String,
    /// Version of the program that wrote it.
    pub created_by: String,
}

/// One file or document of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it lies in the archive: see [`path`](super::path).
    pub path: String,
    /// Its length in bytes, not compressed.
    pub bytes: u64,
    /// SHA-256 of its bytes, not compressed.
    pub sha256: Sha256Hash,
    /// The salt of the file, where it is one that never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Salt>,
    /// The name of the document, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    /// The snapshot whose archive has the bytes.
    pub holder: SnapshotName,
}

/// Whether a snapshot stands alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// All bytes lie in its own archive.
    Full,
    /// Files that a snapshot before it has already lie there.
    Incremental,
}

/// What a snapshot is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// The files of the store as they are on disk, encrypted where the store is.
    Physical,
    /// The content of vaults as JSON, in the clear.
    Logical,
}

/// How much a vault holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VaultCount {
    /// Entries.
    pub entries: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

/// Why a snapshot was made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// Somebody asked for it.
    #[default]
    Manual,
    /// It was time.
    Interval,
    /// Enough had changed.
    Change,
    /// Something happened in the host.
    Event(String),
}

/// What is wrong with the bytes of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestProblem {
    /// A newer Vault wrote it: the version found.
    Newer(u64),
    /// It is none, or contradicts itself.
    Malformed(String),
}

impl Manifest {
    /// Reads a manifest and checks that it is consistent in itself.
    ///
    /// # Errors
    /// [`ManifestProblem`], which says what was found.
    ///
    /// ```
    /// use vault_snapshot::archive::{Manifest, ManifestProblem};
    /// let newer = Manifest::parse(br#"{"format_version": 7}"#);
    /// assert_eq!(newer, Err(ManifestProblem::Newer(7)));
    /// assert!(matches!(Manifest::parse(b"no JSON"), Err(ManifestProblem::Malformed(_))));
    /// ```
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestProblem> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u64,
        }
        let malformed = |error: serde_json::Error| ManifestProblem::Malformed(error.to_string());
        // First of all, because a newer version may have changed anything else.
        let version: Version = serde_json::from_slice(bytes).map_err(malformed)?;
        match version.format_version {
            FORMAT_VERSION => {}
            0 => return Err(ManifestProblem::Malformed("there is no version 0".into())),
            newer => return Err(ManifestProblem::Newer(newer)),
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        manifest.check().map_err(ManifestProblem::Malformed)?;
        Ok(manifest)
    }

    /// The manifest as it is written: JSON, in lines, ending in one.
    ///
    /// # Panics
    /// Never: its keys are text, and it is written into memory.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("keys are text");
        json.push(b'\n');
        json
    }

    /// Checks what a manifest alone can tell: paths, order, sums, and that kind, parent and holders agree.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        self.check_chain()?;
        self.check_texts()?;
        let mut total = 0u64;
        for (at, entry) in self.entries.iter().enumerate() {
            let path = &entry.path;
            check_path(path).map_err(|error| error.to_string())?;
            let prefix = match self.form {
                Form::Physical => STORE_PREFIX,
                Form::Logical => VAULTS_PREFIX,
            };
            if !path.starts_with(prefix) {
                return Err(format!("a {:?} snapshot has an entry {path:?}", self.form));
            }
            if at > 0 && self.entries[at - 1].path >= *path {
                return Err(format!("entry {path:?} is there twice or out of order"));
            }
            check_document(entry, self.form)?;
            self.check_holder(entry)?;
            total = total
                .checked_add(entry.bytes)
                .ok_or("the lengths of the entries add up to more than there can be")?;
        }
        Ok(())
    }

    fn check_chain(&self) -> Result<(), String> {
        let name = self.name;
        match (self.kind, self.parent) {
            (Kind::Full, None) if self.chain_root == name => {}
            (Kind::Full, None) => {
                return Err(format!(
                    "it is full, and its chain begins at {}",
                    self.chain_root
                ));
            }
            (Kind::Full, Some(parent)) => {
                return Err(format!("it is full, and has parent {parent}"));
            }
            (Kind::Incremental, None) => return Err("it is incremental, without a parent".into()),
            (Kind::Incremental, Some(parent)) if parent >= name || self.chain_root > parent => {
                return Err(format!(
                    "{name} builds on {parent} in the chain of {}: each must be older than the one before",
                    self.chain_root
                ));
            }
            (Kind::Incremental, Some(_)) if self.form == Form::Logical => {
                return Err("it is of documents, and incremental".into());
            }
            (Kind::Incremental, Some(_)) => {}
        }
        if let Some(older) = self.content_of.or(self.clock_behind).filter(|n| *n >= name) {
            return Err(format!("{name} comes after {older}, which is not older"));
        }
        Ok(())
    }

    fn check_texts(&self) -> Result<(), String> {
        let event = match &self.trigger {
            Trigger::Event(name) => name.as_str(),
            _ => "",
        };
        let labels = self.tags.iter().chain(self.counts.keys());
        let mut labels = labels.map(String::as_str).chain([event, &self.created_by]);
        if labels.any(|label| label.len() > LABEL_BYTES_MAX) {
            return Err(format!(
                "a tag, event or name is over {LABEL_BYTES_MAX} bytes long"
            ));
        }
        if self.tags.len() > TAGS_MAX {
            return Err(format!(
                "{} tags, at most {TAGS_MAX} are taken",
                self.tags.len()
            ));
        }
        if self.note.len() > NOTE_BYTES_MAX {
            return Err(format!("the note is over {NOTE_BYTES_MAX} bytes long"));
        }
        Ok(())
    }

    fn check_holder(&self, entry: &Entry) -> Result<(), String> {
        let Entry { path, holder, .. } = entry;
        if *holder == self.name {
            return Ok(());
        }
        let older = self.parent.is_some_and(|parent| *holder <= parent);
        if self.kind == Kind::Full || !older || *holder < self.chain_root {
            return Err(format!(
                "entry {path:?} lies in {holder}, which is not of its chain"
            ));
        }
        if entry.identity.is_none() {
            return Err(format!(
                "entry {path:?} lies in {holder}, and has no identity"
            ));
        }
        Ok(())
    }

    /// The entry at `path`.
    #[must_use]
    pub fn entry(&self, path: &str) -> Option<&Entry> {
        let found = self
            .entries
            .binary_search_by(|entry| entry.path.as_str().cmp(path));
        found.ok().map(|at| &self.entries[at])
    }

    /// The entries whose bytes lie in its own archive.
    pub fn own_entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(|entry| entry.holder == self.name)
    }

    /// Bytes of everything that it shows, wherever they lie.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        sum(self.entries.iter())
    }

    /// Bytes of what lies in its own archive, not compressed.
    #[must_use]
    pub fn own_bytes(&self) -> u64 {
        sum(self.own_entries())
    }

    /// The snapshot that shows the same, and was made at that moment: itself, unless it was consolidated.
    #[must_use]
    pub fn moment(&self) -> SnapshotName {
        self.content_of.unwrap_or(self.name)
    }
}

/// What [`Manifest::check`] has found to be a number; one that was not checked has no more than there can be.
fn sum<'a>(entries: impl Iterator<Item = &'a Entry>) -> u64 {
    entries.fold(0, |sum, entry| sum.saturating_add(entry.bytes))
}

fn check_document(entry: &Entry, form: Form) -> Result<(), String> {
    let path = &entry.path;
    match (form, &entry.document) {
        (Form::Physical, None) => Ok(()),
        (Form::Physical, Some(_)) => Err(format!("the file {path:?} has the name of a document")),
        (Form::Logical, Some(name)) if document_path(name).is_ok_and(|right| right == *path) => {
            Ok(())
        }
        (Form::Logical, name) => Err(format!(
            "the document {:?} does not belong at {path:?}",
            name.as_deref().unwrap_or_default()
        )),
    }
}
