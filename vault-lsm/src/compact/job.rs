//! One compaction, from the policy's choice to the manifest.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use vault_core::transform::FileKind;
use vault_core::{CompactionOutcome, CompactionProgress, Error, Event, KeyspaceId, Result};
use vault_snapshot::collection;
use vault_snapshot::policy::{Choice, Compaction, Placement};
use vault_snapshot::shape::Shape;
use vault_snapshot::visibility::Rules;

use super::output::Output;
use super::written::OutputTables;
use super::{is_nothing, shape_of};
use crate::counters::Operation;
use crate::internal_key::RangeTombstone;
use crate::keyspace::KeyspaceView;
use crate::manifest::Edit;
use crate::memory::Lease;
use crate::read::level::{Purpose, RunCursor};
use crate::read::merge::{MergeCursor, Source};
use crate::store::{Store, unknown_keyspace};
use crate::tombstones::Fragments;
use crate::version::{BlobChange, Placed, Run, TableFile, Version};

/// Called from time to time while a compaction runs; `Break` ends it with nothing changed.
pub(crate) type Progress<'a> = &'a mut dyn FnMut(CompactionProgress) -> ControlFlow<()>;

/// A choice whose tables nobody else may touch until this is dropped.
pub(crate) struct Claim {
    pub(super) view: Arc<KeyspaceView>,
    choice: Choice,
    tables: Vec<u64>,
    /// Blob files out of which the values are copied that are met on the way.
    pub(super) leaving: BTreeSet<u64>,
}

/// Claims the tables of what the policy of a keyspace wants of its own accord; nothing while a caller compacts it.
pub(crate) fn claim_in_background(store: &Store, id: KeyspaceId) -> Option<Claim> {
    claim(store, id, |view, shape| {
        // The busy tables are locked: a caller either began before, and is seen here, or finds what is claimed now.
        if view.keyspace.is_compacted_by_hand() {
            return Choice::Nothing;
        }
        view.planner.choose(shape)
    })
}

/// Has `choose` look at the keyspace, and claims the tables of what it wants.
pub(crate) fn claim(
    store: &Store,
    id: KeyspaceId,
    choose: impl FnOnce(&KeyspaceView, &Shape<'_>) -> Choice,
) -> Option<Claim> {
    let keyspace = Arc::clone(&store.views.pin().keyspace(id)?.keyspace);
    // The set of busy tables is locked before the view is pinned: whoever gave tables back has also
    // published what became of them.
    let mut busy = keyspace.busy();
    let pinned = store.views.pin();
    let view = Arc::new(pinned.keyspace(id)?.without_memtables(&store.memory));
    let choice = choose(&view, &shape_of(store, &view, &busy));
    if is_nothing(&choice) {
        return None;
    }
    let tables: Vec<u64> = match &choice {
        Choice::Merge(compaction) => compaction
            .inputs
            .iter()
            .flat_map(|input| input.tables.iter().copied())
            .collect(),
        Choice::Move { table, .. } => vec![*table],
        Choice::Drop { tables, .. } => tables.iter().map(|&(_, number)| number).collect(),
        Choice::Nothing => Vec::new(),
    };
    let leaving = leaving(store, &view, &busy);
    busy.extend(&tables);
    drop(busy);
    Some(Claim {
        view,
        choice,
        tables,
        leaving,
    })
}

/// The blob files out of which a merge copies the values that it meets: those that are collected or joined, and those that are sealed
/// under older keys than the current ones.
fn leaving(store: &Store, view: &KeyspaceView, busy: &BTreeSet<u64>) -> BTreeSet<u64> {
    let version = &view.version;
    let shape = version.blob_shape(busy, view.options.table_bytes);
    let collection = collection::choose(&shape);
    let mut files = collection.map_or_else(BTreeSet::new, |collection| collection.files);
    if let Some(keys) = store.env.transform.keys() {
        files.extend(version.blobs_before(keys.epoch()));
    }
    // What cannot be copied stays where it is, or nothing of the keyspace would be merged any more.
    for (file, _) in version.blobs().filter(|(file, _)| file.is_damaged()) {
        files.remove(&file.meta().number);
    }
    files
}

/// Claims the table of a keyspace that is to be rewritten next because it points into blob files that hold too much
/// garbage, or into many short ones; none while a caller compacts it.
pub(crate) fn claim_for_collection(store: &Store, id: KeyspaceId) -> Option<Claim> {
    let keyspace = Arc::clone(&store.views.pin().keyspace(id)?.keyspace);
    // In this order, as above.
    let mut busy = keyspace.busy();
    let pinned = store.views.pin();
    let view = pinned.keyspace(id)?;
    if keyspace.is_compacted_by_hand() {
        return None;
    }
    let shape = view.version.blob_shape(&busy, view.options.table_bytes);
    let collection = collection::choose(&shape)?;
    let table = collection.table?;
    busy.insert(table);
    drop(busy);
    Some(Claim {
        view: Arc::new(view.without_memtables(&store.memory)),
        choice: Choice::Nothing,
        tables: vec![table],
        leaving: collection.files,
    })
}

/// Claims the first table of a keyspace that is `wanted`, and that nobody works on; none while a caller compacts it.
pub(crate) fn claim_table(
    store: &Store,
    id: KeyspaceId,
    wanted: impl Fn(&Version, &TableFile) -> bool,
) -> Option<Claim> {
    let keyspace = Arc::clone(&store.views.pin().keyspace(id)?.keyspace);
    // In this order, as above.
    let mut busy = keyspace.busy();
    let pinned = store.views.pin();
    let view = pinned.keyspace(id)?;
    if keyspace.is_compacted_by_hand() {
        return None;
    }
    let mut free = view
        .version
        .tables()
        .filter(|(_, _, file)| !busy.contains(&file.meta().number));
    let number = free
        .find(|(_, _, file)| wanted(&view.version, file))?
        .2
        .meta()
        .number;
    busy.insert(number);
    drop(busy);
    Some(Claim {
        view: Arc::new(view.without_memtables(&store.memory)),
        choice: Choice::Nothing,
        tables: vec![number],
        leaving: BTreeSet::new(),
    })
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut busy = self.view.keyspace.busy();
        self.tables.iter().for_each(|number| {
            busy.remove(number);
        });
    }
}

impl Claim {
    /// Carries the choice out.
    pub(crate) fn run(
        &self,
        store: &Arc<Store>,
        progress: Progress<'_>,
    ) -> Result<CompactionOutcome> {
        match &self.choice {
            Choice::Nothing => Ok(CompactionOutcome::default()),
            Choice::Merge(compaction) => self
                .merge(store, compaction, progress)
                .map_err(|error| self.view.keyspace.unless_dropped(error)),
            Choice::Move {
                level,
                table,
                to_level,
                ..
            } => self.relocate(store, *level, *table, *to_level),
            Choice::Drop { tables, reason } => self.drop_tables(store, tables, reason),
        }
    }

    /// The number of the first table that is claimed.
    pub(crate) fn first_table(&self) -> Option<u64> {
        self.tables.first().copied()
    }

    pub(super) fn file(&self, number: u64) -> Option<(usize, u64, &Arc<TableFile>)> {
        self.view
            .version
            .tables()
            .find(|(_, _, file)| file.meta().number == number)
    }

    fn merge(
        &self,
        store: &Arc<Store>,
        compaction: &Compaction,
        progress: Progress<'_>,
    ) -> Result<CompactionOutcome> {
        let timing = store.counters.begin(Operation::Compact, &*store.env.clock);
        let began = store.env.clock.monotonic();
        let inputs: Vec<(usize, u64, &Arc<TableFile>)> = self
            .tables
            .iter()
            .filter_map(|&number| self.file(number))
            .collect();
        let bytes_read: u64 = inputs.iter().map(|(_, _, file)| file.meta().bytes).sum();
        let raw_bytes: u64 = inputs
            .iter()
            .map(|(_, _, file)| file.meta().raw_bytes)
            .sum();

        let written = self.write_merged(store, compaction, &inputs, raw_bytes, progress)?;
        let bytes_written = written.bytes();
        let run = match compaction.placement {
            Placement::ReplaceRun => 0,
            Placement::NewRun {} => inputs.iter().map(|&(_, run, _)| run).max().unwrap_or(0),
        };
        let mut edits: Vec<Edit> =
            self.removals(inputs.iter().map(|&(level, _, file)| (level, file)));
        let id = self.view.keyspace.id;
        edits.extend(written.additions(id, compaction.output_level, run));
        let opened = written.open(store, id)?;
        let blobs = opened.blobs_added();
        let added = opened
            .tables
            .into_iter()
            .map(|file| Placed {
                level: compaction.output_level,
                run,
                file,
            })
            .collect();
        self.install(store, edits, added, blobs)
            .inspect_err(|error| written.discard_after(store, error))?;

        written.counts.add_to(&store.counters);
        store.counters.compactions.fetch_add(1, Relaxed);
        store
            .counters
            .compaction_bytes
            .fetch_add(bytes_written, Relaxed);
        store
            .counters
            .end(Operation::Compact, &timing, &*store.env.clock);
        store.env.emit(&Event::Compacted {
            keyspace: self.view.keyspace.id,
            output_level: compaction.output_level,
            tables_read: inputs.len(),
            tables_written: written.tables.len(),
            bytes_read,
            bytes_written,
            elapsed: store.env.clock.monotonic().saturating_sub(began),
            reason: compaction.reason,
        });
        let entries_dropped = written.counts.total();
        Ok(CompactionOutcome {
            bytes_read,
            bytes_written,
            entries_dropped,
        })
    }

    fn write_merged(
        &self,
        store: &Arc<Store>,
        compaction: &Compaction,
        inputs: &[(usize, u64, &Arc<TableFile>)],
        raw_bytes: u64,
        progress: Progress<'_>,
    ) -> Result<OutputTables> {
        let lease = Arc::new(Lease::compaction(&store.memory, compaction.inputs.len()));
        let sources = compaction
            .inputs
            .iter()
            .map(|input| {
                let files = input.tables.iter().filter_map(|&number| self.file(number));
                let files = files.map(|(_, _, file)| Arc::clone(file)).collect();
                let cursor = RunCursor::over_all(Run::of(files), Purpose::Compaction);
                Source::Run(cursor.leased(&lease))
            })
            .collect();
        let tombstones: Vec<RangeTombstone> = inputs
            .iter()
            .flat_map(|(_, _, file)| file.table.range_tombstones().iter().cloned())
            .collect();
        let rules = Rules {
            snapshots: store.snapshots.readers(&store.visible),
            bottommost: compaction.bottommost,
            now: store.env.clock.now(),
        };
        let mut pace = Pace::new(store, raw_bytes);
        let mut tick = |bytes: u64| {
            pace.tick(bytes, &self.view)?;
            match progress(pace.progress()) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(Error::Cancelled),
            }
        };
        tick(0)?;
        let table_bytes = self.view.options.table_bytes;
        let output = Output::new(store, &self.view, table_bytes, self.leaving.clone());
        let merge = MergeCursor::new(sources).leased(lease);
        let tombstones = Fragments::build_without(tombstones, |older, newer| {
            rules.range_tombstone_adds_nothing(older, newer)
        });
        output.write(merge, &tombstones, &rules, &mut tick)
    }

    /// Moves a table to another level without rewriting it.
    fn relocate(
        &self,
        store: &Arc<Store>,
        level: usize,
        number: u64,
        to_level: usize,
    ) -> Result<CompactionOutcome> {
        let Some((_, _, file)) = self.file(number) else {
            return Ok(CompactionOutcome::default());
        };
        let keyspace = self.view.keyspace.id.0;
        let meta = Arc::new(file.meta().clone());
        let edits = vec![
            Edit::RemoveTable {
                keyspace,
                level: level as u32,
                number,
            },
            Edit::AddTable {
                keyspace,
                level: to_level as u32,
                run: 0,
                meta,
            },
        ];
        let moved = Placed {
            level: to_level,
            run: 0,
            file: Arc::clone(file),
        };
        self.install(store, edits, vec![moved], BlobChange::default())?;
        store.counters.tables_moved.fetch_add(1, Relaxed);
        Ok(CompactionOutcome::default())
    }

    /// Drops tables whole.
    fn drop_tables(
        &self,
        store: &Arc<Store>,
        tables: &[(usize, u64)],
        reason: &'static str,
    ) -> Result<CompactionOutcome> {
        let files: Vec<(usize, &Arc<TableFile>)> = tables
            .iter()
            .filter_map(|&(_, number)| self.file(number))
            .map(|(level, _, file)| (level, file))
            .collect();
        let edits = self.removals(files.iter().copied());
        self.install(store, edits, Vec::new(), BlobChange::default())?;
        let metas = files.iter().map(|(_, file)| file.meta());
        let bytes = metas.map(|meta| meta.bytes + meta.apart_bytes()).sum();
        let entries: u64 = files.iter().map(|(_, file)| file.meta().entries).sum();
        let expired: u64 = files.iter().map(|(_, file)| file.meta().expiring).sum();
        store
            .counters
            .tables_dropped
            .fetch_add(files.len() as u64, Relaxed);
        store.counters.expired_removed.fetch_add(expired, Relaxed);
        let keyspace = self.view.keyspace.id;
        store.env.emit(&Event::TablesDropped {
            keyspace,
            tables: files.len(),
            bytes,
            reason,
        });
        Ok(CompactionOutcome {
            entries_dropped: entries,
            ..CompactionOutcome::default()
        })
    }

    fn removals<'a>(&self, files: impl Iterator<Item = (usize, &'a Arc<TableFile>)>) -> Vec<Edit> {
        let keyspace = self.view.keyspace.id.0;
        files
            .map(|(level, file)| Edit::RemoveTable {
                keyspace,
                level: level as u32,
                number: file.meta().number,
            })
            .collect()
    }

    /// Refuses tables that would overlap others of their run: reads would not find what lies in one of them. The caller
    /// holds the manifest, so that nothing else changes the version.
    fn check_place(&self, store: &Store, added: &[Placed]) -> Result<()> {
        let id = self.view.keyspace.id;
        let pinned = store.views.pin();
        let view = pinned.keyspace(id).ok_or_else(|| unknown_keyspace(id))?;
        let Some((new, old)) = view.version.find_overlap(&self.tables, added) else {
            return Ok(());
        };
        let path = store.env.path(FileKind::Table, new);
        let problem = format!(
            "a table that overlaps no other of its run expected, found one that overlaps table {old}; \
             it is not taken into the store"
        );
        Err(Error::corruption(&path, 0, problem))
    }

    /// Makes the change durable, then visible. Tables that are only moved stay. Blob files go into which no table points
    /// any more.
    pub(super) fn install(
        &self,
        store: &Arc<Store>,
        mut edits: Vec<Edit>,
        added: Vec<Placed>,
        mut blobs: BlobChange,
    ) -> Result<()> {
        let id = self.view.keyspace.id;
        let mut manifest = store.manifest()?;
        if self.view.keyspace.is_dropped() {
            return Err(unknown_keyspace(id));
        }
        self.check_place(store, &added)?;
        let left = manifest.state().blobs_left_by(id.0, &edits);
        edits.extend(left.iter().map(|&number| Edit::RemoveBlob {
            keyspace: id.0,
            number,
        }));
        blobs.removed.clone_from(&left);
        manifest
            .commit(&store.env, &edits)
            .map_err(|error| store.poison_if_unknown(error))?;
        let stays: Vec<u64> = added
            .iter()
            .map(|placed| placed.file.meta().number)
            .collect();
        let mut change = Some((added, blobs));
        store.update_keyspace(id, |current| {
            let mut next = KeyspaceView::clone(current);
            let (added, blobs) = change.take().unwrap_or_default();
            next.version = Arc::new(current.version.changed(&self.tables, added, blobs));
            next
        });
        // Still under the lock: a table is at every moment part of the store or known to be held by readers, or else the
        // keys that it is sealed under could be destroyed under their hands.
        for &number in self.tables.iter().filter(|number| !stays.contains(number)) {
            if let Some((_, _, file)) = self.file(number) {
                file.make_obsolete();
            }
        }
        for blob in left
            .iter()
            .filter_map(|&number| self.view.version.blob(number))
        {
            blob.make_obsolete();
        }
        store
            .counters
            .blobs_removed
            .fetch_add(left.len() as u64, Relaxed);
        drop(manifest);
        Ok(())
    }
}

/// How long a compaction that is ahead of its rate sleeps before it looks whether it should end.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// Holds a compaction to its rate, and notices when it should end.
pub(super) struct Pace<'a> {
    store: &'a Store,
    began: Duration,
    done: CompactionProgress,
}

impl<'a> Pace<'a> {
    pub(super) fn new(store: &'a Store, bytes_total: u64) -> Self {
        let done = CompactionProgress {
            bytes_total,
            ..CompactionProgress::default()
        };
        Self {
            store,
            began: store.env.clock.monotonic(),
            done,
        }
    }

    pub(super) const fn progress(&self) -> CompactionProgress {
        self.done
    }

    pub(super) fn tick(&mut self, bytes: u64, view: &KeyspaceView) -> Result<()> {
        self.done.bytes_done += bytes;
        let written = self.done.bytes_done / view.options.table_bytes.max(1);
        self.done.tables_written = written;
        loop {
            self.store.check_job()?;
            if view.keyspace.is_dropped() {
                return Err(unknown_keyspace(view.keyspace.id));
            }
            let ahead = self.ahead();
            if ahead <= Duration::from_millis(1) {
                return Ok(());
            }
            self.store.env.clock.sleep(ahead.min(LONGEST_SLEEP));
        }
    }

    /// How long until what is done is due.
    fn ahead(&self) -> Duration {
        let rate = self.store.settings.compaction_bytes_per_second;
        if rate == 0 {
            return Duration::ZERO;
        }
        let due = Duration::from_secs_f64(self.done.bytes_done as f64 / rate as f64);
        due.saturating_sub(self.store.env.clock.monotonic().saturating_sub(self.began))
    }
}
