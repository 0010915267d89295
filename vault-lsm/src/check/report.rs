//! What a check tells: plain data, fit for printing and for JSON.

use std::fmt;

use serde::Serialize;
use vault_core::transform::Assurance;

use super::content::{KeySpan, KeyspaceName};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Bytes or facts are wrong: reads may fail, or the store may not open.
    Damage,
    /// It could not be told: the operating system failed to read.
    Unchecked,
    /// Nothing is wrong; somebody may want to know.
    Note,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FindingKind {
    /// The pointer to the manifest is missing, does not open, or names what is not there.
    Pointer,
    /// The manifest does not open, or contradicts itself.
    Manifest,
    /// A file that the store needs is not there.
    Missing,
    /// A file is longer or shorter than recorded.
    Length,
    /// The header of a file is not the one that belongs there.
    Header,
    /// A block does not open, or its content makes no sense.
    Block,
    /// Entries are out of order.
    Order,
    /// A key lies outside what the index says of its block.
    Fence,
    /// A filter does not open, or denies a key that is there.
    Filter,
    /// Counts, bounds, sequence numbers or expiries are not what the entries add up to.
    Properties,
    /// A large value, kept apart from its key, does not open, is another's, or is missing.
    Value,
    /// The clear checksums at the end of a table of an encrypted store are not those of its bytes.
    Trailer,
    /// Tables of a run overlap.
    Overlap,
    /// A sequence number or a file number is beyond what was given out.
    Numbers,
    /// The log does not open where it was durable, or its segments don't follow one another.
    Log,
    /// The keyring, or its copy, is missing or is not what was written.
    Keyring,
    /// The end of the log, or of the manifest, that was never whole and that nothing relies on.
    TornTail,
    /// A file with a name of Vault's that nothing refers to.
    Orphan,
    /// A file that is not Vault's.
    Foreign,
    /// The operating system could not read a file.
    Unreadable,
}

/// Something that a check found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The file, by its name in the store's directory.
    pub file: String,
    /// Where in the file, in bytes from its start; `None`: the file as a whole.
    pub offset: Option<u64>,
    /// What it is.
    pub kind: FindingKind,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
    /// What to do next.
    pub advice: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Damage => "damage",
            Severity::Unchecked => "not checked",
            Severity::Note => "note",
        };
        write!(f, "{severity}: {}", self.file)?;
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        write!(f, ": expected {}, found {}", self.expected, self.found)?;
        write!(f, "; {}", self.advice)
    }
}

/// How much a check has looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Checked {
    /// Files of the store, pointer and manifest included.
    pub files: u64,
    /// Sealed blocks of tables that were opened.
    pub blocks: u64,
    /// Entries of tables, each compared with its neighbours.
    pub entries: u64,
    /// Keys that filters were asked for.
    pub filter_probes: u64,
    /// Records of the manifest.
    pub manifest_records: u64,
    /// Batches in the log.
    pub log_batches: u64,
    /// Operations in them.
    pub log_operations: u64,
    /// Values in blob files, those that nothing points to any more included.
    pub values: u64,
    /// Bytes of all files together.
    pub bytes: u64,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VerifyReport {
    /// What it proves that a block opened: with a cipher that it is authentic, else that no accident
    /// happened to it.
    pub assurance: Assurance,
    /// Of the data blocks, how many percent were looked at. All else was looked at in any case.
    pub sample_percent: f64,
    /// What was looked at.
    pub checked: Checked,
    /// What was found: damage first, then by file and offset.
    pub findings: Vec<Finding>,
}

impl VerifyReport {
    /// Whether nothing is wrong, and everything that was to be checked could be.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.severity == Severity::Note)
    }

    /// The files in which something is wrong.
    #[must_use]
    pub fn damaged_files(&self) -> Vec<&str> {
        let damaged = self.findings.iter();
        let damaged = damaged.filter(|finding| finding.severity != Severity::Note);
        let mut files: Vec<&str> = damaged.map(|finding| &*finding.file).collect();
        files.dedup();
        files
    }
}

/// How many there are, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Count {
    /// So many.
    Exactly(u64),
    /// Not more than so many.
    AtMost(u64),
    /// At least so many: those that can still be read.
    AtLeast(u64),
    /// Nobody can tell.
    Unknown,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(count) => write!(f, "{count}"),
            Self::AtMost(count) => write!(f, "at most {count}"),
            Self::AtLeast(count) => write!(f, "at least {count}"),
            Self::Unknown => f.write_str("an unknown number of"),
        }
    }
}

/// Entries that are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// The file that held them.
    pub file: String,
    /// Their keyspace.
    pub keyspace: u32,
    /// Its name.
    pub name: KeyspaceName,
    /// Where their keys lie.
    pub keys: KeySpan,
    /// How many entries: versions, deletes and merge operands each count.
    pub entries: Count,
    /// How many range deletes.
    pub range_deletes: Count,
    /// Sequence numbers between which they were written, where known.
    pub sequences: Option<(u64, u64)>,
    /// Whether older versions of these keys, which the lost entries replaced or deleted, become visible
    /// again.
    pub resurrects: bool,
    /// Why they are gone.
    pub reason: String,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, keys, entries) = (&self.file, &self.keys, self.entries);
        write!(f, "lost with {file}: {entries} entries of keyspace ")?;
        if self.name.is_withheld() {
            write!(f, "{}", self.keyspace)?;
        } else {
            write!(f, "{:?}", self.name.as_str())?;
        }
        write!(f, ", keys {keys}")?;
        if self.range_deletes != Count::Exactly(0) {
            write!(f, ", and {} range deletes", self.range_deletes)?;
        }
        if let Some((first, last)) = self.sequences {
            write!(f, ", written at sequence numbers {first} to {last}")?;
        }
        write!(f, " ({})", self.reason)?;
        if self.resurrects {
            f.write_str(
                "; OLDER VERSIONS of these keys, deleted ones too, may become visible again",
            )?;
        }
        Ok(())
    }
}
