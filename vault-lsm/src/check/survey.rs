//! Looking at a whole store: what both verification and repair begin with.
//!
//! Pointer, manifest and log are looked at until two looks agree: beside a live writer a file may be replaced or
//! removed between two reads, and that is no damage. Tables never change, so each is read once; one that is
//! missing counts only if a fresh look at the manifest still names it.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vault_core::random::SeededRandom;
use vault_core::transform::{FileKind, KEYRING_COPY_NAME, KEYRING_NAME};
use vault_core::vfs::EntryKind;
use vault_core::{Error, KeyspaceId, Result};

use super::VerifyProgress;
use super::blobs::SurveyedBlob;
use super::contradictions::state_findings;
use super::log::{self, Contents};
use super::report::{Checked, Finding, FindingKind, Severity};
use super::scrub::keyring_findings;
use super::stock::{Entry, Stock, file_name_of, take};
use crate::blob::Pointer;
use crate::blob::inspect::BlobSources;
use crate::layout::{NameMeaning, file_name};
use crate::log::Replay;
use crate::manifest::State;
use crate::options::LsmOptions;
use crate::table::inspect::{Fault, Inspection, Problem, Request, Visitor, inspect};
use crate::table::{TableEnv, TableMeta};

pub(super) const UNREADABLE_ADVICE: &str =
    "look at the system's log: where the disk is at fault, copy the store elsewhere first";
/// How often pointer, manifest and log are looked at before what was found last is believed.
const LOOKS_MAX: u32 = 16;

/// Hears of progress; breaking ends the work with [`Error::Cancelled`].
pub type Progress<'a> = &'a mut dyn FnMut(&VerifyProgress) -> ControlFlow<()>;

/// What to look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope {
    pub(crate) sample_percent: f64,
    pub(crate) seed: u64,
    pub(crate) tables: bool,
    pub(crate) log: bool,
}

impl Scope {
    pub(crate) const ALL: Self = Self {
        sample_percent: 100.0,
        seed: 0,
        tables: true,
        log: true,
    };
}

/// A table of the manifest, looked at.
pub(crate) struct SurveyedTable {
    pub(crate) keyspace: u32,
    pub(crate) level: u32,
    pub(crate) run: u64,
    pub(crate) meta: Arc<TableMeta>,
    pub(crate) inspection: Inspection,
}

/// A store, looked at.
pub(crate) struct Survey {
    pub(crate) stock: Stock,
    pub(crate) tables: Vec<SurveyedTable>,
    pub(crate) blobs: Vec<SurveyedBlob>,
    /// Where the values are that tables point to.
    pub(crate) values: BlobSources,
    /// Why the log is refused, if it is.
    pub(crate) log_problem: Option<Error>,
    pub(crate) checked: Checked,
    pub(crate) findings: Vec<Finding>,
}

/// Looks at the store in `directory`. Writes nothing.
pub(crate) fn survey(
    directory: &Path,
    options: &LsmOptions,
    scope: &Scope,
    progress: Progress<'_>,
) -> Result<Survey> {
    let look = settled_look(directory, options, scope)?;
    let mut survey = Survey {
        checked: Checked::default(),
        tables: Vec::new(),
        blobs: Vec::new(),
        values: BlobSources::default(),
        log_problem: look.log_problem,
        findings: look.findings,
        stock: look.stock,
    };
    survey.count(look.contents);
    let mut meter = Meter::new(&survey, progress);
    meter.add("", survey.checked.bytes)?;
    if scope.tables {
        survey.blobs(directory, options, scope, &mut meter)?;
        survey.tables(directory, options, scope, &mut meter)?;
    }
    survey.directory();
    survey.keyring()?;
    meter.finish()?;
    survey.findings.sort();
    survey.findings.dedup();
    Ok(survey)
}

/// Pointer, manifest and log at one moment.
struct Look {
    stock: Stock,
    contents: Contents,
    log_problem: Option<Error>,
    findings: Vec<Finding>,
}

/// Looks until nothing is wrong, or the same thing is wrong twice.
fn settled_look(directory: &Path, options: &LsmOptions, scope: &Scope) -> Result<Look> {
    let mut before: Option<Vec<Finding>> = None;
    let mut looks = 0;
    loop {
        looks += 1;
        match look(directory, options, scope) {
            Ok(look) => {
                let wrong = |finding: &&Finding| finding.severity != Severity::Note;
                let wrong: Vec<Finding> = look.findings.iter().filter(wrong).cloned().collect();
                if wrong.is_empty() || looks >= LOOKS_MAX || before.as_ref() == Some(&wrong) {
                    return Ok(look);
                }
                before = Some(wrong);
            }
            Err(Error::Io { .. }) if looks < LOOKS_MAX => before = None,
            Err(error) => return Err(error),
        }
        let wait = Duration::from_millis(1 << looks.min(6));
        options.clock.sleep(wait);
    }
}

fn look(directory: &Path, options: &LsmOptions, scope: &Scope) -> Result<Look> {
    let mut stock = take(directory, options)?;
    let mut findings = std::mem::take(&mut stock.findings);
    let manifest_at_fault = findings.iter().any(|finding| {
        finding.kind == FindingKind::Manifest && finding.severity == Severity::Damage
    });
    let (mut contents, mut log_problem) = (Contents::default(), None);
    if let (true, Some(state)) = (scope.log, stock.state()) {
        let pointer = stock.pointer.as_ref();
        match log::judge(&stock.env, state, pointer, &mut |_, _| Ok(())) {
            Ok((read, replay)) => {
                contents = read;
                findings.extend(torn_tail(&stock, &replay));
            }
            Err(error @ (Error::Corruption { .. } | Error::Io { .. })) => {
                // Held against what is left of a manifest, nothing is right.
                if !manifest_at_fault {
                    findings.push(log_finding(&error));
                }
                log_problem = Some(error);
            }
            Err(error) => return Err(error),
        }
        findings.extend(unknown_logs(&stock, state)?);
        findings.extend(state_findings(&stock, state));
    }
    Ok(Look {
        stock,
        contents,
        log_problem,
        findings,
    })
}

fn torn_tail(stock: &Stock, replay: &Replay) -> Option<Finding> {
    let bytes = replay.torn_bytes;
    let path = stock.env.path(FileKind::Log, replay.last_segment);
    (bytes > 0).then(|| Finding {
        severity: Severity::Note,
        file: file_name_of(&path),
        offset: Some(replay.last_end),
        kind: FindingKind::TornTail,
        expected: "the end of the log".to_owned(),
        found: "records that were never whole, and that nothing relied on".to_owned(),
        advice: "nothing: opening the store cuts them",
    })
}

fn log_finding(error: &Error) -> Finding {
    let (severity, kind, path, offset, found) = match error {
        Error::Corruption {
            path,
            offset,
            problem,
        } => (
            Severity::Damage,
            FindingKind::Log,
            path,
            *offset,
            problem.clone(),
        ),
        Error::Io { path, .. } => {
            let kind = FindingKind::Unreadable;
            (Severity::Unchecked, kind, path, 0, error.to_string())
        }
        other => unreachable!("not an error of reading a log: {other}"),
    };
    Finding {
        severity,
        file: file_name_of(path),
        offset: Some(offset),
        kind,
        expected: "a log whose records follow one another as far as it was durable".to_owned(),
        found,
        advice: "run repair, which keeps what stands before it and says first what it would do",
    }
}

/// Segments that hold records and that the manifest has never heard of.
fn unknown_logs(stock: &Stock, state: &State) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for number in stock.numbers(FileKind::Log) {
        if number < state.next_file || state.logs.contains_key(&number) {
            continue;
        }
        match log::holds_records(&stock.env, number) {
            Ok(true) => findings.push(Finding {
                severity: Severity::Damage,
                file: manifest_name(stock),
                offset: None,
                kind: FindingKind::Manifest,
                expected: format!("to know {}", file_name(FileKind::Log, number)),
                found: "nothing of it, though it holds records: the manifest has lost its end"
                    .to_owned(),
                advice: "run salvage into a new directory, or restore a copy",
            }),
            Ok(false) => {}
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(findings)
}

/// The name of the manifest that counts.
pub(super) fn manifest_name(stock: &Stock) -> String {
    let number = stock
        .manifest
        .as_ref()
        .map_or(0, |manifest| manifest.number);
    file_name(FileKind::Manifest, number)
}

/// Passes progress on.
pub(super) struct Meter<'a> {
    progress: Progress<'a>,
    now: VerifyProgress,
}

impl<'a> Meter<'a> {
    fn new(survey: &Survey, progress: Progress<'a>) -> Self {
        let tables = survey.stock.state().into_iter().flat_map(|state| {
            let keyspaces = state.keyspaces.values();
            keyspaces.flat_map(|keyspace| keyspace.tables.values())
        });
        let bytes: u64 = tables.map(|place| place.meta.bytes).sum();
        let blobs = survey.stock.state().into_iter().flat_map(|state| {
            let keyspaces = state.keyspaces.values();
            keyspaces.flat_map(|keyspace| keyspace.blobs.values())
        });
        let bytes = bytes + blobs.map(|place| place.meta.bytes).sum::<u64>();
        let now = VerifyProgress {
            file: String::new(),
            bytes_done: 0,
            bytes_total: survey.checked.bytes + bytes,
        };
        Self { progress, now }
    }

    pub(super) fn add(&mut self, file: &str, bytes: u64) -> Result<()> {
        if self.now.file != file {
            file.clone_into(&mut self.now.file);
        }
        let done = self.now.bytes_done.saturating_add(bytes);
        self.now.bytes_done = done.min(self.now.bytes_total);
        self.tell()
    }

    fn finish(&mut self) -> Result<()> {
        self.now.bytes_done = self.now.bytes_total;
        self.tell()
    }

    fn tell(&mut self) -> Result<()> {
        match (self.progress)(&self.now) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }
}

/// Chooses the blocks that are looked at, and passes progress on.
struct Reading<'m, 'p> {
    meter: &'m mut Meter<'p>,
    values: &'m BlobSources,
    name: String,
    random: SeededRandom,
    sample_percent: f64,
    done: u64,
}

impl Visitor for Reading<'_, '_> {
    fn wants_block(&mut self) -> bool {
        if self.sample_percent >= 100.0 {
            return true;
        }
        const PARTS: u64 = 1 << 32;
        (self.random.below(PARTS) as f64) < self.sample_percent / 100.0 * PARTS as f64
    }

    fn check_value(&mut self, key: &[u8], pointer: &Pointer) -> Result<Option<String>> {
        Ok(self.values.value(key, pointer)?.err())
    }

    fn wants_trailer(&mut self) -> bool {
        // Of all the file, or of none: a sample of blocks is for those who have no time for all of them.
        self.sample_percent >= 100.0
    }

    fn progress(&mut self, bytes: u64) -> Result<()> {
        self.done += bytes;
        self.meter.add(&self.name, bytes)
    }
}

impl Survey {
    fn count(&mut self, contents: Contents) {
        self.checked.log_batches = contents.batches;
        self.checked.log_operations = contents.operations;
        if let Some(manifest) = &self.stock.manifest {
            self.checked.manifest_records = manifest.records;
            self.checked.bytes += manifest.bytes;
            self.checked.files += 1;
        }
        self.checked.files += u64::from(self.stock.pointer.is_some());
        for &number in self
            .stock
            .state()
            .into_iter()
            .flat_map(|state| state.logs.keys())
        {
            let path = self.stock.env.path(FileKind::Log, number);
            let len = self.stock.env.fs.open(&path).and_then(|file| file.len());
            self.checked.files += u64::from(len.is_ok());
            self.checked.bytes += len.unwrap_or(0);
        }
    }

    fn tables(
        &mut self,
        directory: &Path,
        options: &LsmOptions,
        scope: &Scope,
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        let env = self.stock.table_env();
        let Some(state) = self.stock.state().cloned() else {
            return Ok(());
        };
        for (&keyspace, tables) in &state.keyspaces {
            for place in tables.tables.values() {
                let inspection = self.table(&env, keyspace, &place.meta, scope, meter)?;
                // A table goes with its blob files, or before them.
                let missing = inspection
                    .problems
                    .iter()
                    .any(|p| matches!(p.fault, Fault::Missing | Fault::Value));
                if missing && !still_named(directory, options, place.meta.number)? {
                    continue;
                }
                self.note_table(place.meta.number, &inspection);
                self.tables.push(SurveyedTable {
                    keyspace,
                    level: place.level,
                    run: place.run,
                    meta: Arc::clone(&place.meta),
                    inspection,
                });
            }
        }
        Ok(())
    }

    fn table(
        &mut self,
        env: &TableEnv,
        keyspace: u32,
        meta: &TableMeta,
        scope: &Scope,
        meter: &mut Meter<'_>,
    ) -> Result<Inspection> {
        let path = self.stock.env.path(FileKind::Table, meta.number);
        let mut reading = Reading {
            name: file_name_of(&path),
            // Each table its own, so that the sample does not depend on the tables before it.
            random: SeededRandom::new(scope.seed ^ meta.number.rotate_left(32)),
            sample_percent: scope.sample_percent,
            values: &self.values,
            meter,
            done: 0,
        };
        let request = Request {
            path: &path,
            number: meta.number,
            expected: Some((KeyspaceId(keyspace), meta)),
        };
        let inspection = inspect(env, &request, &mut reading)?;
        let rest = meta.bytes.saturating_sub(reading.done);
        reading.progress(rest)?;
        let checked = &mut self.checked;
        checked.files += u64::from(inspection.bytes > 0);
        checked.blocks += inspection.blocks;
        checked.entries += inspection.entries;
        checked.filter_probes += inspection.filter_probes;
        checked.bytes += inspection.bytes;
        Ok(inspection)
    }

    fn note_table(&mut self, number: u64, inspection: &Inspection) {
        let file = file_name_of(&self.stock.env.path(FileKind::Table, number));
        for problem in &inspection.problems {
            let mut finding = table_finding(&file, problem);
            if let Some(pointer) = problem.value {
                // The table is as it was written.
                let path = self.stock.env.path(FileKind::Blob, pointer.file);
                (finding.file, finding.offset) = (file_name_of(&path), Some(pointer.offset));
            }
            self.findings.push(finding);
        }
    }

    /// Notes what lies in the directory that the store does not need.
    fn directory(&mut self) {
        let state = self.stock.state();
        let manifest = self.stock.manifest.as_ref().map(|manifest| manifest.number);
        let mut findings = Vec::new();
        for entry in &self.stock.entries {
            let known = |kind, number| match (kind, state) {
                (FileKind::Manifest, _) => Some(number) == manifest,
                (FileKind::Log, Some(state)) => state.logs.contains_key(&number),
                (FileKind::Blob, Some(state)) => {
                    let mut keyspaces = state.keyspaces.values();
                    keyspaces.any(|keyspace| keyspace.blobs.contains_key(&number))
                }
                (FileKind::Table, Some(state)) => {
                    let mut keyspaces = state.keyspaces.values();
                    keyspaces.any(|keyspace| keyspace.tables.contains_key(&number))
                }
                _ => true,
            };
            if let NameMeaning::Numbered(kind, number) = entry.meaning
                && entry.kind == EntryKind::File
                && known(kind, number)
            {
                continue;
            }
            findings.extend(not_of_the_store(entry));
        }
        self.findings.extend(findings);
    }

    /// Looks at the keyring, if the store has one: it opened, but perhaps only its copy did.
    fn keyring(&mut self) -> Result<()> {
        let env = &self.stock.env;
        if env.transform.keys().is_none() {
            return Ok(());
        }
        let keyring = [KEYRING_NAME, KEYRING_COPY_NAME];
        let entries = self.stock.entries.iter();
        let there = entries.filter(|entry| keyring.contains(&&*entry.name));
        self.checked.files += there.count() as u64;
        let (fs, transform) = (&*env.fs, env.transform.id());
        let findings = keyring_findings(fs, &env.directory, env.store, transform)?;
        self.findings.extend(findings);
        Ok(())
    }
}

/// What is to be said of an entry that no store needs. `None` for those with a fixed name.
pub(super) fn not_of_the_store(entry: &Entry) -> Option<Finding> {
    let (kind, found, advice) = match entry.meaning {
        NameMeaning::Fixed => return None,
        NameMeaning::Numbered(..) | NameMeaning::Unfinished if entry.kind == EntryKind::File => (
            FindingKind::Orphan,
            "a file that nothing refers to",
            "nothing: a writer at work is making it, or the next one removes it",
        ),
        _ => (
            FindingKind::Foreign,
            "something that is not Vault's",
            "nothing: it is left alone; move it elsewhere if it is not wanted here",
        ),
    };
    Some(Finding {
        severity: Severity::Note,
        file: entry.name.clone(),
        offset: None,
        kind,
        expected: "files of the store".to_owned(),
        found: found.to_owned(),
        advice,
    })
}

/// Whether a table or blob file that is not there should be: looks at the manifest anew.
pub(super) fn still_named(directory: &Path, options: &LsmOptions, number: u64) -> Result<bool> {
    let scope = Scope {
        log: false,
        ..Scope::ALL
    };
    let look = settled_look(directory, options, &scope)?;
    Ok(look.stock.state().is_none_or(|state| {
        let mut keyspaces = state.keyspaces.values();
        keyspaces.any(|keyspace| {
            keyspace.tables.contains_key(&number) || keyspace.blobs.contains_key(&number)
        })
    }))
}

fn table_finding(file: &str, problem: &Problem) -> Finding {
    let (severity, kind) = match problem.fault {
        Fault::Unreadable => (Severity::Unchecked, FindingKind::Unreadable),
        Fault::Missing => (Severity::Damage, FindingKind::Missing),
        Fault::Length => (Severity::Damage, FindingKind::Length),
        Fault::Header => (Severity::Damage, FindingKind::Header),
        Fault::Block => (Severity::Damage, FindingKind::Block),
        Fault::Order => (Severity::Damage, FindingKind::Order),
        Fault::Fence => (Severity::Damage, FindingKind::Fence),
        Fault::Filter => (Severity::Damage, FindingKind::Filter),
        Fault::Properties => (Severity::Damage, FindingKind::Properties),
        Fault::Value => (Severity::Damage, FindingKind::Value),
        Fault::Trailer => (Severity::Damage, FindingKind::Trailer),
    };
    Finding {
        severity,
        file: file.to_owned(),
        offset: (kind != FindingKind::Missing).then_some(problem.offset),
        kind,
        expected: problem.expected.clone(),
        found: problem.found.clone(),
        advice: match kind {
            FindingKind::Unreadable => UNREADABLE_ADVICE,
            FindingKind::Filter | FindingKind::Properties | FindingKind::Trailer => {
                "run repair: the table is written anew, nothing of it is lost"
            }
            FindingKind::Missing => "restore the file from a copy, or run repair",
            _ => "restore the file from a copy, or run repair, which says first what would be lost",
        },
    }
}
