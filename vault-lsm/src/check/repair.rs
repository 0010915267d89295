//! Carrying out a repair.
//!
//! # The steps, and what a crash after each leaves
//! 1. Copies (hard links, where there can be any) of all that will be dropped go into `lost/NNNN/`, with the
//!    plan beside them. The store is as damaged as before.
//! 2. Where pointer or manifest are at fault, a new manifest states what the old one did, and the pointer names it:
//!    from here on it is known what makes up the store, damaged as it is.
//! 3. New tables are written under numbers that were never used, and synced. Nothing refers to them.
//! 4. A new manifest states the repaired store, and the pointer is replaced. That is the moment of the repair:
//!    before it the old store is there, behind it the new one.
//! 5. What was dropped is removed from the store's directory. What a crash leaves of it, the next opening
//!    removes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use vault_core::batch::OperationKind;
use vault_core::transform::FileKind;
use vault_core::vfs::FileSystem;
use vault_core::{Error, KeyspaceId, Result, SequenceNumber, Slice};

use super::log::{self, Segment};
use super::loss::path_if_any;
use super::plan::{LogDamage, LostOperations, RepairAction, RepairPlan, RepairVerdict, plan};
use super::report::{FindingKind, Severity};
use super::rewrite::{Rewriter, Target};
use super::stock::file_name_of;
use super::survey::{Progress, Scope, Survey, SurveyedTable, survey};
use crate::blob::inspect::BlobSources;
use crate::blob::{Pointer, pointer_of};
use crate::cursor::InternalCursor;
use crate::directory::take_lock;
use crate::internal_key::{EXPIRY_BYTES, KIND_APART, compare, has_expiry};
use crate::layout::{Env, LOST_NAME, NameMeaning, POINTER_NAME};
use crate::manifest::{KeyspaceState, Manifest, State};
use crate::memory::MemtableAccount;
use crate::memtable::Memtable;
use crate::options::LsmOptions;
use crate::table::inspect::{Request, Visitor, inspect};
use crate::table::{TableEnv, TableMeta, TableOptions};
use crate::write::commit::apply;

/// What became of a repair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepairReport {
    /// What was to be done.
    pub plan: RepairPlan,
    /// Whether it was done: not where it was not permitted, nor where there was nothing to do or it cannot be done.
    pub done: bool,
    /// The directory that holds what was dropped, with the plan in `plan.txt`.
    #[serde(serialize_with = "path_if_any")]
    pub lost: Option<PathBuf>,
}

/// What a repair may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepairPermission {
    /// Nothing: it says what it would do. Not even the lock is taken.
    Plan,
    /// What loses no entry. Where the plan, made under the lock, would lose some, nothing is done.
    LoseNothing,
    /// All of the plan, with its losses.
    AcceptLoss,
}

/// Plans a repair of the store in `directory`, and carries out as much as `permission` says.
///
/// To do anything, it needs the lock: the store must not be open for writing.
///
/// # Errors
/// [`Error::AlreadyOpen`], [`Error::NoSuchStore`], [`Error::NotAStore`], [`Error::NewerFormat`],
/// [`Error::Cancelled`], [`Error::Io`], [`Error::DiskFull`]. After an error the store is as damaged as it was
/// before, or repaired: never in between.
pub fn repair(
    directory: impl AsRef<Path>,
    options: &LsmOptions,
    permission: RepairPermission,
    progress: Progress<'_>,
) -> Result<RepairReport> {
    let directory = directory.as_ref();
    let surveyed = if permission == RepairPermission::Plan {
        None
    } else {
        // Refuses what is no store before a lock file is made in it.
        super::stock::take(directory, options)?;
        Some(take_lock(&*options.fs, directory)?)
    };
    let survey = survey(directory, options, &Scope::ALL, progress)?;
    let damage = log_damage(&survey)?;
    let plan = plan(&survey, damage.as_ref());
    let mut report = RepairReport {
        plan,
        done: false,
        lost: None,
    };
    let permitted = match permission {
        RepairPermission::Plan => false,
        RepairPermission::LoseNothing => report.plan.losses.is_empty(),
        RepairPermission::AcceptLoss => true,
    };
    if !permitted || report.plan.verdict != RepairVerdict::Repairable {
        return Ok(report);
    }
    report.lost = Some(carry_out(&survey, &report.plan)?);
    report.done = true;
    drop(surveyed);
    Ok(report)
}

/// Reads what of a damaged log is kept, and what stands behind the damage.
fn log_damage(survey: &Survey) -> Result<Option<LogDamage>> {
    let (Some(error), Some(state)) = (&survey.log_problem, survey.stock.state()) else {
        return Ok(None);
    };
    let env = &survey.stock.env;
    let path = match error {
        Error::Corruption { path, .. } | Error::Io { path, .. } => path.clone(),
        _ => PathBuf::new(),
    };
    let kept = log::prefix(env, state, &mut |_, _| Ok(()))?;
    let mut damage = LogDamage {
        kept,
        last_sequence: state.last_sequence,
        problem: error.to_string(),
        file: file_name_of(&path),
        ..LogDamage::default()
    };
    let mut ends = log::Ends::new(survey.stock.pointer.as_ref());
    for &number in state.logs.keys().rev() {
        let mut lost = |operation: &vault_core::Operation<'_>, sequence: SequenceNumber| {
            damage.last_sequence = damage.last_sequence.max(sequence);
            let keyspace = state.keyspaces.get(&operation.keyspace.0);
            let Some(keyspace) = keyspace else {
                return Ok(());
            };
            if sequence > kept.last_sequence && sequence > keyspace.flushed_through {
                let entry = damage.lost.entry(operation.keyspace.0);
                note_lost(
                    entry.or_insert_with(|| LostOperations::new(operation.key, sequence)),
                    operation,
                    sequence,
                );
            }
            Ok(())
        };
        match ends.read(env, number, &mut lost) {
            Ok(segment) => damage.more |= segment.bytes_lost > 0 || segment.broken_at.is_some(),
            Err(Error::Corruption { .. } | Error::Io { .. }) => damage.more = true,
            Err(error) => return Err(error),
        }
    }
    // The log ends where it should not, and nothing says what stood there.
    damage.more |= damage.lost.is_empty();
    Ok(Some(damage))
}

impl LostOperations {
    fn new(key: &[u8], sequence: SequenceNumber) -> Self {
        Self {
            entries: 0,
            range_deletes: 0,
            first: key.to_vec(),
            last: key.to_vec(),
            sequences: (sequence, sequence),
        }
    }
}

fn note_lost(lost: &mut LostOperations, operation: &vault_core::Operation<'_>, sequence: u64) {
    let last = if operation.kind == OperationKind::RangeDelete {
        lost.range_deletes += 1;
        operation.value
    } else {
        lost.entries += 1;
        operation.key
    };
    if *operation.key < *lost.first {
        lost.first = operation.key.to_vec();
    }
    if *last > *lost.last {
        lost.last = last.to_vec();
    }
    lost.sequences = (
        lost.sequences.0.min(sequence),
        lost.sequences.1.max(sequence),
    );
}

/// Does what the plan says. Gives the directory that holds what was dropped.
fn carry_out(survey: &Survey, plan: &RepairPlan) -> Result<PathBuf> {
    let stock = &survey.stock;
    let env = &stock.env;
    let Some(mut state) = stock.state().cloned() else {
        unreachable!("a store without a manifest is not repairable");
    };
    for entry in &stock.entries {
        if let NameMeaning::Numbered(_, number) = entry.meaning {
            state.next_file = state.next_file.max(number.saturating_add(1));
        }
    }
    let lost = set_aside(env, plan)?;
    // Each pointer takes a file number: there cannot have been more of them.
    let mut generation = stock
        .pointer
        .map_or(state.next_file, |pointer| pointer.generation);
    if faulty_manifest(survey) {
        let mut manifest = Manifest::begin(env, state, generation, u64::MAX)?;
        if let Some(pointer) = stock.pointer.filter(|pointer| pointer.log_end.0 != 0) {
            manifest.close(env, pointer.log_end)?;
        }
        // Each of the two takes one.
        generation += 2;
        state = manifest.state().clone();
    }
    let table_env = stock.table_env();
    for table in &survey.tables {
        if survey.must_rewrite(table) {
            replace_table(env, &table_env, &mut state, survey, table)?;
        }
    }
    for keyspace in state.keyspaces.values_mut() {
        // Those with faults have lost the tables that pointed into them, and so may others have.
        Arc::make_mut(keyspace)
            .blobs
            .retain(|_, blob| blob.tables > 0);
    }
    let flushes_log = |action: &RepairAction| matches!(action, RepairAction::FlushLog { .. });
    if plan.actions.iter().any(flushes_log) {
        flush_log(env, &table_env, &mut state)?;
    }
    env.sync_directory()?;
    let manifest = Manifest::begin(env, state, generation, u64::MAX)?;
    remove_dropped(env, plan, manifest.number());
    Ok(lost)
}

/// Whether pointer or manifest are at fault: then they are mended first, before there are tables that the
/// next attempt, after a crash, could not tell from ones that count.
fn faulty_manifest(survey: &Survey) -> bool {
    survey.findings.iter().any(|finding| {
        finding.severity == Severity::Damage
            && matches!(
                finding.kind,
                FindingKind::Pointer | FindingKind::Manifest | FindingKind::Missing
            )
    })
}

/// Keeps a copy of everything that will be dropped, durably.
fn set_aside(env: &Env, plan: &RepairPlan) -> Result<PathBuf> {
    let all = env.directory.join(LOST_NAME);
    let fs = &*env.fs;
    let taken = match fs.read_dir(&all) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(Error::io("list", &all, e)),
    };
    let numbers = taken
        .iter()
        .filter_map(|entry| entry.name.to_str()?.parse::<u64>().ok());
    let number = numbers.max().map_or(1, |number| number + 1);
    let own = all.join(format!("{number:04}"));
    vault_core::vfs::create_directories(fs, &own)?;
    for name in &plan.set_aside {
        keep_copy(fs, &env.directory.join(name), &own.join(name))?;
    }
    let path = own.join("plan.txt");
    let file = fs
        .create(&path)
        .map_err(|e| Error::io("create", &path, e))?;
    file.write_at(plan.to_string().as_bytes(), 0)
        .map_err(|e| Error::io("write", &path, e))?;
    file.sync().map_err(|e| Error::io("sync", &path, e))?;
    for directory in [&own, &all, &env.directory] {
        fs.sync_dir(directory)
            .map_err(|e| Error::io("sync directory", directory, e))?;
    }
    Ok(own)
}

/// Gives a file a second name, or copies it where that cannot be.
fn keep_copy(fs: &dyn FileSystem, from: &Path, to: &Path) -> Result<()> {
    match fs.hard_link(from, to) {
        Ok(()) => {
            // It may never have been synced under its first name.
            let file = fs.open(to).map_err(|e| Error::io("open", to, e))?;
            file.sync().map_err(|e| Error::io("sync", to, e))
        }
        Err(e) if crate::checkpoint::cannot_link(&e) => crate::checkpoint::copy(fs, from, to),
        // A writer that had no time to clean up: it is gone already.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("link", to, e)),
    }
}

/// Puts what can be read of a table into a new one, in the same place.
fn replace_table(
    env: &Env,
    table_env: &TableEnv,
    state: &mut State,
    survey: &Survey,
    table: &SurveyedTable,
) -> Result<()> {
    let next_file = &mut state.next_file;
    let Some(keyspace) = state.keyspaces.get_mut(&table.keyspace).map(Arc::make_mut) else {
        return Ok(());
    };
    let made = rewrite_table(env, table_env, keyspace, next_file, survey, table)?;
    keyspace.remove_table(table.meta.number);
    for meta in made {
        place(env, keyspace, table.level, table.run, meta)?;
    }
    Ok(())
}

/// Puts a table in its place. A table that was forged may point into blob files that are not its keyspace's: such a store is not
/// one that can be mended by what it says.
pub(super) fn place(
    env: &Env,
    keyspace: &mut KeyspaceState,
    level: u32,
    run: u64,
    meta: TableMeta,
) -> Result<()> {
    let path = env.path(FileKind::Table, meta.number);
    let meta = Arc::new(meta);
    let place = crate::manifest::TablePlace { level, run, meta };
    let added = keyspace.add_table(place);
    added.map_err(|problem| Error::corruption(&path, 0, problem))
}

fn rewrite_table(
    env: &Env,
    table_env: &TableEnv,
    keyspace: &KeyspaceState,
    next_file: &mut u64,
    survey: &Survey,
    table: &SurveyedTable,
) -> Result<Vec<TableMeta>> {
    let target = Target {
        env,
        table_env,
        keyspace: KeyspaceId(table.keyspace),
        options: TableOptions::from(&keyspace.options),
        table_bytes: u64::MAX,
        created: table.meta.created,
    };
    let rewriter = Rewriter::new(target, table.inspection.tombstones.clone(), next_file);
    let path = env.path(FileKind::Table, table.meta.number);
    let request = Request {
        path: &path,
        number: table.meta.number,
        expected: Some((KeyspaceId(table.keyspace), &table.meta)),
    };
    let unsound = survey.blobs.iter().filter(|blob| !blob.sound);
    let taken_in = TakenIn::Of(unsound.map(|blob| blob.number).collect());
    let mut rescue = Rescue::new(
        rewriter,
        table.inspection.disorder,
        &survey.values,
        taken_in,
    );
    inspect(table_env, &request, &mut rescue)?;
    rescue.finish()
}

/// Which values that are kept apart are put into the new tables instead.
pub(super) enum TakenIn {
    All,
    /// Those of these blob files.
    Of(BTreeSet<u64>),
}

/// Hands the entries of a table on to a new one.
pub(super) struct Rescue<'a> {
    rewriter: Rewriter<'a>,
    /// Whether they come out of order and have to be gathered first.
    sort: bool,
    gathered: Vec<(Vec<u8>, u64, Vec<u8>)>,
    values: &'a BlobSources,
    taken_in: TakenIn,
    /// The value that was looked at last: the entry that points to it follows.
    value: Slice,
}

impl Visitor for Rescue<'_> {
    fn check_value(&mut self, key: &[u8], pointer: &Pointer) -> Result<Option<String>> {
        match self.values.value(key, pointer)? {
            Ok(value) => self.value = value,
            Err(problem) => return Ok(Some(problem)),
        }
        Ok(None)
    }

    fn entry(&mut self, key: &[u8], trailer: u64, stored_value: &[u8]) -> Result<()> {
        let apart = pointer_of(trailer, stored_value).flatten();
        let taken_in = apart.filter(|pointer| match &self.taken_in {
            TakenIn::All => true,
            TakenIn::Of(files) => files.contains(&pointer.file),
        });
        if taken_in.is_some() {
            let expiry = if has_expiry(trailer) { EXPIRY_BYTES } else { 0 };
            let value = std::mem::replace(&mut self.value, Slice::empty());
            let stored = [&stored_value[..expiry], &value].concat();
            return self.take(key, trailer & !u64::from(KIND_APART), &stored);
        }
        self.take(key, trailer, stored_value)
    }
}

impl Rescue<'_> {
    fn take(&mut self, key: &[u8], trailer: u64, stored_value: &[u8]) -> Result<()> {
        if self.sort {
            self.gathered
                .push((key.to_vec(), trailer, stored_value.to_vec()));
            return Ok(());
        }
        self.rewriter.add(key, trailer, stored_value)
    }
}

impl<'a> Rescue<'a> {
    pub(super) const fn new(
        rewriter: Rewriter<'a>,
        sort: bool,
        values: &'a BlobSources,
        taken_in: TakenIn,
    ) -> Self {
        Self {
            rewriter,
            sort,
            gathered: Vec::new(),
            values,
            taken_in,
            value: Slice::empty(),
        }
    }

    pub(super) fn finish(mut self) -> Result<Vec<TableMeta>> {
        self.gathered
            .sort_by(|a, b| compare((&a.0, a.1), (&b.0, b.1)));
        self.gathered
            .dedup_by(|later, first| (&later.0, later.1) == (&first.0, first.1));
        for (key, trailer, value) in &self.gathered {
            self.rewriter.add(key, *trailer, value)?;
        }
        self.rewriter.finish()
    }
}

/// Puts what stands before the damage of the log into tables, above all others.
fn flush_log(env: &Env, table_env: &TableEnv, state: &mut State) -> Result<()> {
    let mut memtables: Vec<(u32, Arc<Memtable>)> = state
        .keyspaces
        .keys()
        .map(|&id| (id, Arc::new(Memtable::new(MemtableAccount::uncounted()))))
        .collect();
    let kept = log::prefix(env, state, &mut |operation, sequence| {
        let id = operation.keyspace.0;
        let wanted = state
            .keyspaces
            .get(&id)
            .is_some_and(|keyspace| sequence > keyspace.flushed_through);
        if wanted && let Ok(at) = memtables.binary_search_by_key(&id, |(id, _)| *id) {
            apply(&memtables[at].1, operation, sequence);
        }
        Ok(())
    })?;
    let places = state.keyspaces.values().flat_map(|k| k.tables.values());
    let run = places
        .filter(|place| place.level == 0)
        .map(|place| place.run);
    let run = run.max().unwrap_or(0) + 1;
    for (id, memtable) in &mut memtables {
        let created = env.clock.now();
        let Some(keyspace) = state.keyspaces.get_mut(id).map(Arc::make_mut) else {
            continue;
        };
        let target = Target {
            env,
            table_env,
            keyspace: KeyspaceId(*id),
            options: TableOptions::from(&keyspace.options),
            table_bytes: u64::MAX,
            created,
        };
        let tombstones = memtable.range_tombstone_list();
        let mut rewriter = Rewriter::new(target, tombstones, &mut state.next_file);
        let mut cursor = memtable.cursor();
        cursor.first()?;
        while cursor.valid() {
            rewriter.add(cursor.key(), cursor.trailer(), cursor.value())?;
            cursor.next()?;
        }
        for meta in rewriter.finish()? {
            place(env, keyspace, 0, run, meta)?;
        }
        keyspace.flushed_through = keyspace.flushed_through.max(kept.last_sequence);
    }
    // Numbers that were given out once are never given out again, whatever became of what had them.
    let mut last = state.last_sequence.max(kept.last_sequence);
    for &number in state.logs.keys() {
        let read = Segment::read(env, number, None, &mut |_, sequence| {
            last = last.max(sequence);
            Ok(())
        });
        match read {
            Ok(_) | Err(Error::Corruption { .. } | Error::Io { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    state.last_sequence = last;
    state.logs.clear();
    state.log_floor = 0;
    state.log_synced = (0, 0);
    Ok(())
}

/// Removes what the repaired store does not need. What cannot be removed now, the next opening removes.
fn remove_dropped(env: &Env, plan: &RepairPlan, manifest: u64) {
    let current = env.path(FileKind::Manifest, manifest);
    for name in plan.set_aside.iter().filter(|name| *name != POINTER_NAME) {
        let path = env.directory.join(name);
        if path != current {
            let _ = env.fs.remove(&path);
        }
    }
    let _ = env.sync_directory();
}
