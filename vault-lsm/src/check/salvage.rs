//! Making a new store of what is left of one that cannot be repaired.
//!
//! The old directory is only read. Pointer and manifests serve as hints as far as they can be read: names and
//! options of keyspaces, which tables count, up to where a keyspace was flushed.
//!
//! # Two ways
//! - Where a manifest is whole and all it names can be read, its tables are copied into their places, and the
//!   log behind them: the result is the store as it was.
//! - Else all that can be read of a keyspace, out of tables and log, is merged into one run by sequence number.
//!   Deletes, range deletes and expiries stay what they are.
//!
//! # What cannot be known without a manifest
//! - which tables had been replaced by others: both are read, which does no harm unless a delete is in the
//!   one that is gone already;
//! - which sequence number stands for the entries of a table that was ingested, or that was the oldest of its
//!   keyspace: they count as the oldest;
//! - whether merge operands of the log are in tables already: see [`super::merge`];
//! - which keyspaces had been dropped.
//!
//! Each of these is said in the report where it may have mattered.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use vault_core::limits::check_keyspace_name;
use vault_core::transform::{FileKind, StorePlace};
use vault_core::vfs::{EntryKind, create_directories};
use vault_core::{Error, KeyspaceId, KeyspaceOptions, Operation, Result, SequenceNumber};

use super::VerifyProgress;
use super::content::{Content, KeySpan};
use super::hints::Hints;
use super::log::Ends;
use super::looking::{Looking, open_blobs};
use super::loss::{SalvageOptions, SalvageReport, SalvagedFile, SalvagedKeyspace};
use super::merge::{Doubts, Merging, Source};
use super::repair::{Rescue, TakenIn, place};
use super::rewrite::{Rewriter, Target};
use super::stock::{Stock, file_name_of, table_env, take};
use super::survey::Progress;
use crate::blob::inspect::BlobSources;
use crate::cursor::InternalCursor;
use crate::layout::Env;
use crate::manifest::{KeyspaceState, Manifest, State};
use crate::memory::MemtableAccount;
use crate::memtable::Memtable;
use crate::options::LsmOptions;
use crate::table::inspect::{Inspection, Request, inspect};
use crate::table::{Table, TableEnv, TableMeta, TableOptions};
use crate::write::commit::apply;

/// Makes a new store in `into` of what can be read in `from`. Nothing in `from` is changed.
///
/// # Errors
/// [`Error::TargetExists`] where `into` is not empty, [`Error::NoSuchStore`], [`Error::NotAStore`] where `from`
/// holds nothing of a store, [`Error::NewerFormat`], [`Error::InvalidKeyspaceName`], [`Error::Cancelled`],
/// [`Error::Io`], [`Error::DiskFull`]. After an error `into` is no store; remove it.
pub fn salvage(
    from: impl AsRef<Path>,
    into: impl AsRef<Path>,
    options: &LsmOptions,
    salvage: &SalvageOptions,
    progress: Progress<'_>,
) -> Result<SalvageReport> {
    let (from, into) = (from.as_ref(), into.as_ref());
    for known in salvage.keyspaces.values() {
        known.name.as_deref().map_or(Ok(()), check_keyspace_name)?;
    }
    let stock = take(from, options)?;
    let hints = Hints::gather(&stock)?;
    let env = new_store(into, options)?;
    let mut work = Salvage {
        old_tables: stock.table_env(),
        new_tables: table_env(&env),
        stock: &stock,
        env: &env,
        hints,
        given: salvage,
        values: BlobSources::default(),
        next_file: 1,
        last_sequence: 0,
        rescued: BTreeMap::new(),
        taken: BTreeSet::new(),
        report: SalvageReport {
            into: into.to_path_buf(),
            complete: true,
            files: Vec::new(),
            keyspaces: Vec::new(),
            unknown: Vec::new(),
        },
        progress,
        now: VerifyProgress::default(),
    };
    work.run()?;
    Ok(work.report)
}

fn new_store(into: &Path, options: &LsmOptions) -> Result<Env> {
    let fs = &*options.fs;
    let path = into.to_path_buf();
    match fs.kind(into).map_err(|e| Error::io("look at", into, e))? {
        None => create_directories(fs, into)?,
        Some(EntryKind::Directory) => {
            let entries = fs.read_dir(into).map_err(|e| Error::io("list", into, e))?;
            if !entries.is_empty() {
                return Err(Error::TargetExists { path });
            }
        }
        Some(_) => return Err(Error::TargetExists { path }),
    }
    let mut store = [0; 16];
    options.random.fill(&mut store)?;
    let transform = options.protection.create(&StorePlace {
        fs: &options.fs,
        random: &options.random,
        directory: into,
        store,
        writable: true,
    })?;
    Ok(Env {
        directory: path,
        store,
        fs: Arc::clone(&options.fs),
        clock: Arc::clone(&options.clock),
        random: Arc::clone(&options.random),
        transform,
        listener: None,
        listener_panics: Arc::default(),
    })
}

/// What was rescued of a keyspace.
#[derive(Default)]
struct Rescued {
    /// Copies of its tables in the new store, with what each was in the old one.
    tables: Vec<RescuedTable>,
    /// What of the log counts.
    memtable: Option<Arc<Memtable>>,
    /// Where entries of its tables could not be read.
    lost: Vec<KeySpan>,
}

struct RescuedTable {
    meta: TableMeta,
    old_number: u64,
}

struct Salvage<'a> {
    stock: &'a Stock,
    env: &'a Env,
    old_tables: TableEnv,
    new_tables: TableEnv,
    hints: Hints,
    given: &'a SalvageOptions,
    /// The blob files of the old store.
    values: BlobSources,
    next_file: u64,
    last_sequence: SequenceNumber,
    rescued: BTreeMap<u32, Rescued>,
    /// Sequence numbers of operations that were taken.
    taken: BTreeSet<u64>,
    report: SalvageReport,
    progress: Progress<'a>,
    now: VerifyProgress,
}

impl Salvage<'_> {
    fn run(&mut self) -> Result<()> {
        self.last_sequence = self.hints.state.last_sequence;
        let tables = self.tables_to_read();
        let logs = self.logs_to_read();
        for (kind, numbers) in [(FileKind::Table, &tables), (FileKind::Log, &logs)] {
            for &number in numbers {
                let path = self.stock.env.path(kind, number);
                let len = self.stock.env.fs.open(&path).and_then(|file| file.len());
                self.now.bytes_total += len.unwrap_or(0);
            }
        }
        let (values, wrong) = open_blobs(self.stock, &self.old_tables)?;
        self.values = values;
        self.report.files.extend(wrong);
        for &number in &tables {
            self.table(number)?;
        }
        let mut ends = Ends::new(self.stock.pointer.as_ref());
        for &number in logs.iter().rev() {
            self.log(&mut ends, number)?;
        }
        self.report.complete &= self.hints.exact;
        for id in self.hints.state.keyspaces.keys() {
            self.rescued.entry(*id).or_default();
        }
        let state = self.write()?;
        if !self.hints.exact {
            let unplaced = tables
                .iter()
                .filter(|&&number| self.hints.place(number).is_none());
            self.report
                .say_what_is_unknown(unplaced.count(), tables.len());
        }
        self.report.files.sort_by(|a, b| a.file.cmp(&b.file));
        self.env.sync_directory()?;
        Manifest::begin(self.env, state, 0, u64::MAX)?;
        self.now.bytes_done = self.now.bytes_total;
        let _ = (self.progress)(&self.now);
        Ok(())
    }

    /// The tables that count: all that are there, unless a manifest says which.
    fn tables_to_read(&self) -> Vec<u64> {
        let mut numbers = self.stock.numbers(FileKind::Table);
        if self.hints.exact {
            numbers.retain(|&number| self.hints.place(number).is_some());
        }
        numbers
    }

    fn logs_to_read(&self) -> Vec<u64> {
        let mut numbers = self.stock.numbers(FileKind::Log);
        if self.hints.exact {
            numbers.retain(|number| self.hints.state.logs.contains_key(number));
        }
        numbers
    }

    /// Whether a keyspace is known to have been dropped.
    fn is_dropped(&self, id: u32) -> bool {
        let state = &self.hints.state;
        id < state.next_keyspace && !state.keyspaces.contains_key(&id)
    }

    /// Looks at a table, and copies what can be read of it.
    fn table(&mut self, number: u64) -> Result<()> {
        let path = self.stock.env.path(FileKind::Table, number);
        let file = file_name_of(&path);
        self.now.file.clone_from(&file);
        let place = self.hints.place(number);
        let place = place.map(|(id, place)| (KeyspaceId(id), Arc::clone(&place.meta)));
        let request = Request {
            path: &path,
            number,
            expected: place.as_ref().map(|(id, meta)| (*id, &**meta)),
        };
        let mut looking = Looking {
            values: &self.values,
            progress: &mut *self.progress,
            now: &mut self.now,
        };
        let found = inspect(&self.old_tables, &request, &mut looking)?;
        let problems: Vec<String> = found
            .problems
            .iter()
            .map(|problem| {
                let (offset, expected) = (problem.offset, &problem.expected);
                format!(
                    "at byte {offset}: expected {expected}, found {}",
                    problem.found
                )
            })
            .collect();
        let lost: u64 = found.lost.iter().map(|lost| lost.bytes).sum();
        self.report.complete &= found.is_whole();
        self.report.files.push(SalvagedFile {
            file,
            entries: found.entries,
            bytes_lost: if found.lost_whole.is_some() {
                found.bytes
            } else {
                lost
            },
            problems,
        });
        let id = found.keyspace.or(place.as_ref().map(|(id, _)| id.0));
        let Some(id) = id.filter(|&id| !self.is_dropped(id)) else {
            return Ok(());
        };
        let rescued = self.rescued.entry(id).or_default();
        note_lost_spans(rescued, &found, request.expected.map(|(_, meta)| meta));
        if found.entries > 0 || !found.tombstones.is_empty() {
            self.copy(id, &request, &found)?;
        }
        Ok(())
    }

    /// Gives a keyspace of the new store keys of its own, where the store has keys.
    fn give_keys(&self, id: u32) -> Result<()> {
        let keys = self.env.transform.keys();
        keys.map_or(Ok(()), |keys| keys.add_domain(id))
    }

    /// Copies a table into the new store.
    fn copy(&mut self, id: u32, request: &Request<'_>, found: &Inspection) -> Result<()> {
        self.give_keys(id)?;
        let options = self.hints.options(id, self.given);
        let created = request.expected.map(|(_, meta)| meta.created);
        let created = created.or(found.properties.as_ref().map(|meta| meta.created));
        let target = Target {
            env: self.env,
            table_env: &self.new_tables,
            keyspace: KeyspaceId(id),
            options: TableOptions::from(&options),
            table_bytes: u64::MAX,
            created: created.unwrap_or_else(|| self.env.clock.now()),
        };
        let tombstones = found.tombstones.clone();
        let rewriter = Rewriter::new(target, tombstones, &mut self.next_file);
        // In the new store nothing has the number or the keys that it has here.
        let mut rescue = Rescue::new(rewriter, found.disorder, &self.values, TakenIn::All);
        inspect(&self.old_tables, request, &mut rescue)?;
        let made = rescue.finish()?;
        let rescued = self.rescued.entry(id).or_default();
        for meta in made {
            self.last_sequence = self.last_sequence.max(meta.sequence_max);
            let old_number = request.number;
            rescued.tables.push(RescuedTable { meta, old_number });
        }
        Ok(())
    }

    /// Takes what counts of a log segment.
    fn log(&mut self, ends: &mut Ends, number: u64) -> Result<()> {
        let file = file_name_of(&self.stock.env.path(FileKind::Log, number));
        self.now.file.clone_from(&file);
        let (exact, state) = (self.hints.exact, &self.hints.state);
        let (rescued, taken) = (&mut self.rescued, &mut self.taken);
        let last_sequence = &mut self.last_sequence;
        let mut take = |operation: &Operation<'_>, sequence: SequenceNumber| {
            let id = operation.keyspace.0;
            *last_sequence = (*last_sequence).max(sequence);
            let known = state.keyspaces.get(&id);
            // What was dropped stays so. No number stands for two operations, in whatever segment.
            if (known.is_none() && id < state.next_keyspace) || !taken.insert(sequence) {
                return Ok(());
            }
            let rescued = rescued.entry(id).or_default();
            let flushed = known.map_or(0, |keyspace| keyspace.flushed_through);
            // What is in tables counts from the log only where tables lost it.
            if sequence <= flushed
                && !rescued
                    .lost
                    .iter()
                    .any(|span| span.is_touched_by(operation))
            {
                return Ok(());
            }
            let memtable = rescued
                .memtable
                .get_or_insert_with(|| Arc::new(Memtable::new(MemtableAccount::uncounted())));
            apply(memtable, operation, sequence);
            Ok(())
        };
        let read = ends.read(&self.stock.env, number, &mut take);
        let mut salvaged = SalvagedFile {
            file,
            entries: 0,
            bytes_lost: 0,
            problems: Vec::new(),
        };
        match read {
            Ok(segment) => {
                salvaged.entries = segment.operations;
                salvaged.bytes_lost = segment.bytes_lost;
                if let Some(at) = segment.broken_at {
                    salvaged
                        .problems
                        .push(format!("a record at byte {at} does not open"));
                }
            }
            Err(error @ (Error::Corruption { .. } | Error::Io { .. })) => {
                let path = self.stock.env.path(FileKind::Log, number);
                let len = self.stock.env.fs.open(&path).and_then(|file| file.len());
                salvaged.bytes_lost = len.unwrap_or(0);
                salvaged.problems.push(error.to_string());
            }
            Err(error) => return Err(error),
        }
        self.report.complete &= exact && salvaged.problems.is_empty();
        self.report.files.push(salvaged);
        Ok(())
    }

    /// The name of a keyspace in the new store, and whether it is the one it had.
    fn name_of(&self, id: u32) -> (String, bool) {
        let given = self
            .given
            .keyspaces
            .get(&id)
            .and_then(|known| known.name.clone());
        let stored = self.hints.state.keyspaces.get(&id).map(|k| k.name.clone());
        let (name, known) = match given.or(stored) {
            Some(name) => (name, true),
            None => (format!("recovered-{id}"), false),
        };
        let taken = self
            .report
            .keyspaces
            .iter()
            .any(|other| other.name == *name);
        if taken {
            return (
                format!("recovered-{id}-{}", self.report.keyspaces.len()),
                false,
            );
        }
        (name, known)
    }

    /// Writes the keyspaces. Gives what makes up the new store.
    fn write(&mut self) -> Result<State> {
        let mut state = State::default();
        for (id, rescued) in std::mem::take(&mut self.rescued) {
            self.give_keys(id)?;
            let (name, name_known) = self.name_of(id);
            let content = if name_known {
                Content::of(&*self.env.transform)
            } else {
                // A name that was made up just now tells nobody anything.
                Content::Told
            };
            let mut written = SalvagedKeyspace {
                id,
                name: content.name(&name),
                name_known,
                entries: 0,
                range_deletes: 0,
                undecided: 0,
                uncertain_merges: 0,
            };
            let mut keyspace = KeyspaceState {
                name,
                options: self.hints.options(id, self.given),
                flushed_through: self.last_sequence,
                tables: BTreeMap::new(),
                blobs: BTreeMap::new(),
            };
            if self.report.complete {
                self.keep_places(id, rescued, &mut keyspace)?;
            } else {
                self.merge(id, rescued, &mut keyspace, &mut written)?;
            }
            for place in keyspace.tables.values() {
                written.entries += place.meta.entries;
                written.range_deletes += place.meta.range_tombstones;
            }
            self.report.keyspaces.push(written);
            state.keyspaces.insert(id, Arc::new(keyspace));
            state.next_keyspace = state.next_keyspace.max(id.saturating_add(1));
        }
        state.next_keyspace = state.next_keyspace.max(self.hints.state.next_keyspace);
        state.last_sequence = self.last_sequence;
        state.next_file = self.next_file;
        Ok(state)
    }

    /// Puts the copies where their originals were, and the log above them.
    fn keep_places(
        &mut self,
        id: u32,
        rescued: Rescued,
        keyspace: &mut KeyspaceState,
    ) -> Result<()> {
        let mut newest = 0;
        for table in rescued.tables {
            let Some((_, old)) = self.hints.place(table.old_number) else {
                continue;
            };
            newest = newest.max(old.run);
            place(self.env, keyspace, old.level, old.run, table.meta)?;
        }
        let Some(memtable) = rescued.memtable else {
            return Ok(());
        };
        let target = self.target(id, &keyspace.options, u64::MAX);
        let mut next_file = self.next_file;
        let tombstones = memtable.range_tombstone_list();
        let mut rewriter = Rewriter::new(target, tombstones, &mut next_file);
        let mut cursor = memtable.cursor();
        cursor.first()?;
        while cursor.valid() {
            rewriter.add(cursor.key(), cursor.trailer(), cursor.value())?;
            cursor.next()?;
        }
        for meta in rewriter.finish()? {
            place(self.env, keyspace, 0, newest + 1, meta)?;
        }
        self.next_file = next_file;
        Ok(())
    }

    fn target(&self, id: u32, options: &KeyspaceOptions, table_bytes: u64) -> Target<'_> {
        Target {
            env: self.env,
            table_env: &self.new_tables,
            keyspace: KeyspaceId(id),
            options: TableOptions::from(options),
            table_bytes,
            created: self.env.clock.now(),
        }
    }

    /// Merges the copies and the log into one run, and removes the copies.
    fn merge(
        &mut self,
        id: u32,
        rescued: Rescued,
        keyspace: &mut KeyspaceState,
        written: &mut SalvagedKeyspace,
    ) -> Result<()> {
        let memtable = rescued
            .memtable
            .unwrap_or_else(|| Arc::new(Memtable::new(MemtableAccount::uncounted())));
        let mut tombstones = memtable.range_tombstone_list();
        let mut sources = vec![Source {
            cursor: Box::new(memtable.cursor()),
            from_log: true,
        }];
        // The newest file first: of two entries that are the same, the one that comes first is taken.
        let mut tables = rescued.tables;
        tables.sort_by_key(|table| Reverse(table.old_number));
        let mut copies = Vec::new();
        for table in &tables {
            let path = self.env.path(FileKind::Table, table.meta.number);
            let meta = table.meta.clone();
            let opened = Table::open(&self.new_tables, &path, KeyspaceId(id), meta)?;
            tombstones.extend(opened.range_tombstones().iter().cloned());
            sources.push(Source {
                cursor: Box::new(opened.scan_cursor()),
                from_log: false,
            });
            copies.push(path);
        }
        let target = self.target(id, &keyspace.options, keyspace.options.table_bytes);
        let mut next_file = self.next_file;
        let rewriter = Rewriter::new(target, tombstones, &mut next_file);
        let known = self.hints.state.keyspaces.get(&id);
        let flushed = known.map_or(0, |keyspace| keyspace.flushed_through);
        let merging = Merging {
            flushed_through: self.hints.exact.then_some(flushed),
            sources,
            rewriter,
            log: &memtable,
            doubts: Doubts::default(),
        };
        let (made, doubts) = merging.run()?;
        written.undecided = doubts.undecided;
        written.uncertain_merges = doubts.uncertain_merges;
        self.next_file = next_file;
        for meta in made {
            place(self.env, keyspace, 0, 1, meta)?;
        }
        for path in copies {
            self.env
                .fs
                .remove(&path)
                .map_err(|e| Error::io("remove", &path, e))?;
        }
        Ok(())
    }
}

/// Notes where entries of a keyspace could not be read.
fn note_lost_spans(rescued: &mut Rescued, found: &Inspection, meta: Option<&TableMeta>) {
    // None of these is told: they decide what of the log counts.
    let content = Content::Withheld;
    let key = |bytes| content.key(bytes);
    let meta = meta.or(found.properties.as_ref());
    let whole = meta.map_or(KeySpan::ALL, |meta| KeySpan {
        start: Some(content.key(meta.smallest.clone())),
        end: Some(content.key(meta.largest.clone())),
        end_included: !meta.largest_exclusive,
    });
    for lost in &found.lost {
        rescued.lost.push(KeySpan {
            start: lost.start.clone().map(key),
            end: lost.end.clone().map(key),
            end_included: lost.end_included,
        });
    }
    if found.lost_whole.is_some() || found.tombstones_lost {
        rescued.lost.push(whole);
    }
}
