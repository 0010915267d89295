//! Verification without keys: that no accident happened to the files of a store.
//!
//! Every file carries checksums that need no key: its header, each record of framed files, each 64 KiB of a table,
//! the keyring as a whole. So whoever keeps a store or a backup of it without being trusted with its content can still
//! tell when a medium fails, in time to put the file back from a copy.
//!
//! # What it proves, and what it does not
//! - It finds bytes that changed, files that end early, that are another's, or that carry another's name.
//! - It does not find what somebody did on purpose: checksums can be made anew by anybody. That is for [`verify`] with keys,
//!   and the report says which of the two it was.
//! - Which files make up the store is sealed. So nobody can tell without keys whether a table or a segment of the log is missing,
//!   whether a log or manifest was cut at the end of a record, whether an older copy of a file was put back, or
//!   whether an unfinished table counts. Where a file leaves such a doubt, the finding is *not checked*, never damage.
//!
//! A plain store needs no keys, so it is verified as ever.
//!
//! Beside a live writer, files change while they are read. What is wrong with one is believed only if it is still so, and
//! still the same, at another look.

mod blobs;
mod files;
mod frames;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use vault_core::transform::{
    Assurance, ChecksumTransform, FileKind, KEYRING_COPY_NAME, KEYRING_NAME, Plain,
};
use vault_core::vfs::{EntryKind, FileSystem};
use vault_core::{Clock, Error, Result};

use self::files::{Look, look};
pub(super) use self::files::{TRANSFORM_OFFSET, keyring_findings, survey_headers};
use super::report::{Finding, FindingKind, Severity};
use super::stock::{Entry, list};
use super::survey::{Progress, not_of_the_store};
use super::{VerifyOptions, VerifyProgress, verify};
use crate::layout::{NameMeaning, POINTER_NAME};
use crate::options::LsmOptions;

/// How often a file in which something is wrong is looked at before that is believed.
const LOOKS_MAX: u32 = 9;

/// How much a scrub has looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Scrubbed {
    /// Files of the store.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records of logs and manifests that are what was written.
    pub records: u64,
    /// Pieces of tables that are what was written: of 64 KiB in an encrypted store, blocks in a plain one.
    pub pieces: u64,
}

/// What a scrub found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScrubReport {
    /// What it proves that nothing was found: that no accident happened to the bytes. Never more, without keys.
    pub assurance: Assurance,
    /// Whether the store is encrypted. A plain one was verified with all that there is to know of it.
    pub encrypted: bool,
    /// What was looked at.
    pub checked: Scrubbed,
    /// What was found: damage first, then by file and offset.
    pub findings: Vec<Finding>,
}

impl ScrubReport {
    /// Whether nothing is wrong, and nothing is in doubt.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let mut findings = self.findings.iter();
        findings.all(|finding| finding.severity == Severity::Note)
    }

    /// The files in which something is wrong or in doubt.
    #[must_use]
    pub fn damaged_files(&self) -> Vec<&str> {
        let damaged = self.findings.iter();
        let damaged = damaged.filter(|finding| finding.severity != Severity::Note);
        let mut files: Vec<&str> = damaged.map(|finding| &*finding.file).collect();
        files.sort_unstable();
        files.dedup();
        files
    }
}

/// Checks the files of the store in `directory` without its keys, and writes nothing: it works on a read-only medium, and
/// beside a process that has the store open. Of the options it uses the file system and the clock.
///
/// Damage is no error: it is in the report.
///
/// # Errors
/// [`Error::NoSuchStore`], [`Error::NotAStore`], [`Error::NewerFormat`], [`Error::Cancelled`] where `progress` breaks,
/// [`Error::Io`] where the directory cannot be read.
pub fn scrub(
    directory: impl AsRef<Path>,
    options: &LsmOptions,
    progress: Progress<'_>,
) -> Result<ScrubReport> {
    let directory = directory.as_ref();
    let fs = &*options.fs;
    let entries = list(fs, directory)?;
    // Where no header can be read, nothing but that can be said.
    let store = survey_headers(fs, directory, &entries)?.unwrap_or(Expected {
        store: [0; 16],
        transform: u16::MAX,
    });
    if store.transform == ChecksumTransform::ID {
        return scrub_plain(directory, options, progress);
    }
    let mut scrub = Scrub {
        fs,
        clock: &*options.clock,
        directory,
        store,
        report: ScrubReport {
            assurance: Assurance::Structure,
            encrypted: true,
            checked: Scrubbed::default(),
            findings: Vec::new(),
        },
        now: VerifyProgress::default(),
        progress,
    };
    scrub.run(&entries)?;
    let mut report = scrub.report;
    report.findings.sort();
    report.findings.dedup();
    Ok(report)
}

/// A store without keys is verified with all that it says of itself.
fn scrub_plain(
    directory: &Path,
    options: &LsmOptions,
    progress: Progress<'_>,
) -> Result<ScrubReport> {
    let options = options.clone().protection(Arc::new(Plain));
    let mut report = ScrubReport {
        assurance: Assurance::Structure,
        encrypted: false,
        checked: Scrubbed::default(),
        findings: Vec::new(),
    };
    match verify(directory, &options, &VerifyOptions::default(), progress) {
        Ok(verified) => {
            report.findings = verified.findings;
            report.checked = Scrubbed {
                files: verified.checked.files,
                bytes: verified.checked.bytes,
                records: verified.checked.manifest_records + verified.checked.log_batches,
                pieces: verified.checked.blocks,
            };
        }
        Err(Error::Encrypted { path }) => report.findings.push(Finding {
            severity: Severity::Damage,
            file: super::stock::file_name_of(&path),
            offset: Some(TRANSFORM_OFFSET),
            kind: FindingKind::Header,
            expected: "a file that is not encrypted, as the others".to_owned(),
            found: "an encrypted one".to_owned(),
            advice: "restore the file from a copy: it was put there from elsewhere",
        }),
        Err(error) => return Err(error),
    }
    Ok(report)
}

/// What most files say of the store that they belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expected {
    store: [u8; 16],
    pub(super) transform: u16,
}

struct Scrub<'a> {
    fs: &'a dyn FileSystem,
    clock: &'a dyn Clock,
    directory: &'a Path,
    store: Expected,
    report: ScrubReport,
    now: VerifyProgress,
    progress: Progress<'a>,
}

impl Scrub<'_> {
    fn run(&mut self, entries: &[Entry]) -> Result<()> {
        let mut names = Vec::new();
        for entry in entries {
            match (kind_of(entry), not_of_the_store(entry)) {
                (Some(kind), _) => names.push((&*entry.name, kind)),
                (None, Some(finding)) => self.report.findings.push(finding),
                (None, None) => {}
            }
        }
        for (name, _) in &names {
            let len = self.fs.open(&self.directory.join(name));
            self.now.bytes_total += len.and_then(|file| file.len()).unwrap_or(0);
        }
        let mut doubtful = Vec::new();
        for &(name, kind) in &names {
            let Some(look) = self.look(name, kind)? else {
                continue;
            };
            if look.is_clean() {
                self.take(&look);
            } else {
                doubtful.push((name, kind, look));
            }
        }
        self.look_again(doubtful)?;
        self.missing(&names);
        self.keyrings()?;
        self.now.bytes_done = self.now.bytes_total;
        self.tell(0)
    }

    /// Looks at a file. `None` where it is gone.
    fn look(&mut self, name: &str, kind: FileKind) -> Result<Option<Look>> {
        name.clone_into(&mut self.now.file);
        let (fs, directory, store) = (self.fs, self.directory, self.store);
        look(fs, directory, name, kind, &store, &mut |bytes| {
            self.tell(bytes)
        })
    }

    fn tell(&mut self, bytes: u64) -> Result<()> {
        let done = self.now.bytes_done.saturating_add(bytes);
        self.now.bytes_done = done.min(self.now.bytes_total);
        match (self.progress)(&self.now) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }

    fn take(&mut self, look: &Look) {
        let checked = &mut self.report.checked;
        checked.files += 1;
        checked.bytes += look.bytes;
        checked.records += look.records;
        checked.pieces += look.pieces;
        self.report.findings.extend(look.findings.iter().cloned());
    }

    /// Looks again at files in which something is wrong or in doubt. Damage is believed when it is seen twice; what a
    /// writer at work would explain only when it has stayed the same for a while.
    fn look_again(&mut self, mut doubtful: Vec<(&str, FileKind, Look)>) -> Result<()> {
        for round in 1..=LOOKS_MAX {
            if doubtful.is_empty() {
                return Ok(());
            }
            self.clock.sleep(Duration::from_millis(1 << round));
            let mut left = Vec::new();
            for (name, kind, before) in doubtful {
                let Some(now) = self.look(name, kind)? else {
                    continue;
                };
                let last = round == LOOKS_MAX;
                if now.is_clean() || (now.is_as_before(&before) && (last || !now.is_in_doubt())) {
                    self.take(&now);
                } else if last {
                    self.take(&now.beside_a_writer(&before));
                } else {
                    left.push((name, kind, now));
                }
            }
            doubtful = left;
        }
        Ok(())
    }

    /// Notes files without which no store is one.
    fn missing(&mut self, names: &[(&str, FileKind)]) {
        let there = |name: &str| names.iter().any(|(found, _)| *found == name);
        if !there(POINTER_NAME) {
            self.note(
                FindingKind::Pointer,
                POINTER_NAME,
                ["the pointer to the manifest", "no file"],
                "run repair with the store's keys, which says first what it would do",
            );
        }
        if !names.iter().any(|(_, kind)| *kind == FileKind::Manifest) {
            self.note(
                FindingKind::Missing,
                "*.man",
                ["a manifest", "none"],
                "restore a copy, or run salvage with the store's keys into a new directory",
            );
        }
        for (name, other) in [
            (KEYRING_NAME, KEYRING_COPY_NAME),
            (KEYRING_COPY_NAME, KEYRING_NAME),
        ] {
            if !there(name) {
                let advice = files::keyring_advice(there(other));
                let findings = &mut self.report.findings;
                findings.push(files::no_keyring(name, advice));
            }
        }
    }

    fn note(
        &mut self,
        kind: FindingKind,
        file: &str,
        [expected, found]: [&str; 2],
        advice: &'static str,
    ) {
        self.report.findings.push(Finding {
            severity: Severity::Damage,
            file: file.to_owned(),
            offset: None,
            kind,
            expected: expected.to_owned(),
            found: found.to_owned(),
            advice,
        });
    }

    /// Holds the two files of the keyring against each other, where both are whole.
    fn keyrings(&mut self) -> Result<()> {
        let damaged = self.report.damaged_files();
        if damaged.contains(&KEYRING_NAME) || damaged.contains(&KEYRING_COPY_NAME) {
            return Ok(());
        }
        let finding = files::compare_keyrings(self.fs, self.directory)?;
        self.report.findings.extend(finding);
        Ok(())
    }
}

/// What kind of file an entry is, if it is one that is looked into.
fn kind_of(entry: &Entry) -> Option<FileKind> {
    if entry.kind != EntryKind::File {
        return None;
    }
    match (entry.meaning, &*entry.name) {
        (NameMeaning::Numbered(kind, _), _) => Some(kind),
        (NameMeaning::Fixed, POINTER_NAME) => Some(FileKind::Pointer),
        (NameMeaning::Fixed, KEYRING_NAME | KEYRING_COPY_NAME) => Some(FileKind::Keyring),
        _ => None,
    }
}
