//! What the caller tells a salvage, and what it tells the caller.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use super::content::KeyspaceName;

/// What the caller knows of a keyspace that the store does not tell any more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KnownKeyspace {
    /// Its name; `None`: what the store says, or `recovered-N`.
    pub name: Option<String>,
    /// Its merge operator; `None`: what the store says, or none.
    pub merge_operator: Option<String>,
}

/// How a store is salvaged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SalvageOptions {
    /// What is known of keyspaces, by id.
    pub keyspaces: BTreeMap<u32, KnownKeyspace>,
}

/// A file of the old store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SalvagedFile {
    /// Its name.
    pub file: String,
    /// Entries of a table, or operations of a log segment, that were read.
    pub entries: u64,
    /// Bytes that could not be read.
    pub bytes_lost: u64,
    /// What is wrong with it; empty where nothing is.
    pub problems: Vec<String>,
}

/// A keyspace of the new store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SalvagedKeyspace {
    /// Its id in both stores.
    pub id: u32,
    /// Its name in the new one.
    pub name: KeyspaceName,
    /// Whether the name is the one it had.
    pub name_known: bool,
    /// Entries written: versions, deletes and merge operands each count.
    pub entries: u64,
    /// Range deletes written.
    pub range_deletes: u64,
    /// Keys of which two versions were found that cannot be told apart in age. The one of the newer file
    /// was taken.
    pub undecided: u64,
    /// Merge operands of the log of which it cannot be told whether tables hold them already. They were
    /// applied.
    pub uncertain_merges: u64,
}

/// What was salvaged, and what was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SalvageReport {
    /// The new store.
    #[serde(serialize_with = "path_as_shown")]
    pub into: PathBuf,
    /// Whether the new store is the old one, nothing lost and nothing guessed.
    pub complete: bool,
    /// What was read.
    pub files: Vec<SalvagedFile>,
    /// What was written.
    pub keyspaces: Vec<SalvagedKeyspace>,
    /// What cannot be known.
    pub unknown: Vec<String>,
}

impl SalvageReport {
    /// Has the names of keyspaces told in the report's text, of an encrypted store too.
    pub fn reveal_names(&mut self) {
        let keyspaces = self.keyspaces.iter_mut();
        keyspaces.for_each(|keyspace| keyspace.name.reveal());
    }

    /// Says what nobody can know where no manifest tells it: of `unplaced` of the tables it is not known whether they count.
    pub(super) fn say_what_is_unknown(&mut self, unplaced: usize, tables: usize) {
        let mut unknown = Vec::new();
        if unplaced > 0 {
            unknown.push(format!(
                "whether {unplaced} of {tables} tables had been replaced by others: what had been deleted since may be \
                 there again"
            ));
            unknown.push(
                "when entries without a sequence number were written (the oldest of a keyspace, and what was \
                 ingested in bulk): they count as the oldest"
                    .to_owned(),
            );
        }
        for keyspace in &self.keyspaces {
            let SalvagedKeyspace { id, name, .. } = keyspace;
            let whose = if name.is_withheld() {
                format!("keyspace {id}")
            } else {
                format!("{name:?}")
            };
            if !keyspace.name_known {
                unknown.push(format!(
                    "the name and the options of keyspace {id}, here {name:?}, and whether it had been dropped"
                ));
            }
            if keyspace.undecided > 0 {
                unknown.push(format!(
                    "which of two values is the newer one, for {} keys of {whose}",
                    keyspace.undecided
                ));
            }
            if keyspace.uncertain_merges > 0 {
                unknown.push(format!(
                    "whether {} merge operands of {whose} were in tables already: they may count twice",
                    keyspace.uncertain_merges
                ));
            }
        }
        self.unknown = unknown;
    }
}

/// A path in a report. Most forms of those have no place for bytes that are no text: these are replaced, as where it is shown.
pub(super) fn path_as_shown<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// As [`path_as_shown`].
#[expect(clippy::ref_option, reason = "it is called so")]
pub(super) fn path_if_any<S: Serializer>(
    path: &Option<PathBuf>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => path_as_shown(path, serializer),
        None => serializer.serialize_none(),
    }
}
