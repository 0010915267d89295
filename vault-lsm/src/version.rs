//! The tables of a keyspace: levels of runs of tables.
//!
//! # Invariants
//! - The tables of a run don't overlap and ascend by key.
//! - For any key, a run higher up holds newer data than those below: within a level the run with the
//!   higher number is newer, and each level is newer than the next.
//! - Every blob file that a table points into is there.

use std::collections::BTreeSet;
use std::ops::{Bound, Range};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vault_core::stats::{BlobStats, LevelStats};
use vault_core::vfs::File;
use vault_core::{KeyRange, Timestamp};
use vault_snapshot::collection::{BlobShape, Blobs, PointingTable};
use vault_snapshot::shape::{LevelShape, RunShape, Shape, TableShape};

use crate::blob::{BlobFile, BlobUse};
use crate::reclaim::{Held, ReclaimQueue};
use crate::sync::atomic::{AtomicBool, AtomicU64};
use crate::table::{Table, TableMeta};
use crate::tombstones::Fragments;

/// A table that is part of a version, and its file.
pub(crate) struct TableFile {
    pub(crate) table: Arc<Table>,
    /// Its range tombstones, ready for lookup.
    pub(crate) tombstones: Option<Arc<Fragments>>,
    /// Entries of it that were kept for snapshots alone. Known of tables written since the store was opened: snapshots don't
    /// outlive that either.
    pub(crate) shadowed: AtomicU64,
    file: Arc<OwnedFile>,
}

/// A table's file, which goes with the last reader once no version holds it any more.
struct OwnedFile {
    path: PathBuf,
    number: u64,
    obsolete: AtomicBool,
    /// It could not be rewritten for the sake of garbage in blob files: it is left as it is, and what it points to with it.
    damaged: AtomicBool,
    reclaim: Arc<ReclaimQueue>,
}

impl TableFile {
    pub(crate) fn new(table: Arc<Table>, path: PathBuf, reclaim: Arc<ReclaimQueue>) -> Self {
        let tombstones = table.range_tombstones();
        let tombstones = (!tombstones.is_empty())
            .then(|| Arc::new(Fragments::build(tombstones.iter().cloned())));
        let file = OwnedFile {
            path,
            number: table.meta().number,
            obsolete: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
            reclaim,
        };
        Self {
            table,
            tombstones,
            shadowed: AtomicU64::new(0),
            file: Arc::new(file),
        }
    }

    /// The same table, as it is when it has just been opened: without the filters and indexes that it has read since.
    /// They go with the last reader of this one.
    pub(crate) fn as_opened(&self) -> Self {
        Self {
            table: Arc::new(self.table.as_opened()),
            tombstones: self.tombstones.clone(),
            shadowed: AtomicU64::new(self.shadowed.load(Ordering::Relaxed)),
            file: Arc::clone(&self.file),
        }
    }

    pub(crate) fn meta(&self) -> &TableMeta {
        self.table.meta()
    }

    /// The bytes of the file as they are, and what keeps the file in its place meanwhile. Neither keeps what the table has in
    /// memory.
    pub(crate) fn pin(&self) -> (Arc<dyn File>, Arc<dyn Send + Sync>) {
        let keeps: Arc<OwnedFile> = Arc::clone(&self.file);
        (self.table.file(), keeps)
    }

    /// Whether it was found damaged when it was to be rewritten for the sake of garbage in blob files.
    pub(crate) fn is_damaged(&self) -> bool {
        self.file.damaged.load(Ordering::Relaxed)
    }

    /// Remembers that it is damaged: whoever collects garbage would meet it again and again.
    pub(crate) fn note_damaged(&self) {
        self.file.damaged.store(true, Ordering::Relaxed);
    }

    /// Lets go of the file once nobody reads it. Only after the manifest has let go of it.
    pub(crate) fn make_obsolete(&self) {
        if !self.file.obsolete.swap(true, Ordering::AcqRel) {
            let held = Held {
                bytes: self.meta().bytes,
                epoch: self.table.epoch(),
            };
            self.file.reclaim.retired(self.file.number, held);
        }
    }
}

/// Whether `key` lies behind everything the table holds.
fn is_beyond(meta: &TableMeta, key: &[u8]) -> bool {
    let largest = meta.largest.as_slice();
    if meta.largest_exclusive {
        key >= largest
    } else {
        key > largest
    }
}

impl Drop for OwnedFile {
    fn drop(&mut self) {
        if *self.obsolete.get_mut() {
            let path = std::mem::take(&mut self.path);
            self.reclaim.push(path, self.number);
        }
    }
}

/// Tables that don't overlap, ascending.
pub(crate) struct Run {
    pub(crate) number: u64,
    pub(crate) tables: Vec<Arc<TableFile>>,
    /// Where the tables stand that have range tombstones.
    tombstoned: Vec<usize>,
}

impl Run {
    /// A run of tables that don't overlap, ascending.
    pub(crate) fn new(number: u64, tables: Vec<Arc<TableFile>>) -> Self {
        let places = tables.iter().enumerate();
        let tombstoned = places
            .filter(|(_, file)| file.tombstones.is_some())
            .map(|(at, _)| at);
        Self {
            number,
            tombstoned: tombstoned.collect(),
            tables,
        }
    }

    /// The range tombstones of the tables that stand in `span`.
    pub(crate) fn tombstones(&self, span: &Range<usize>) -> impl Iterator<Item = &Arc<Fragments>> {
        let within = self.tombstoned.iter().filter(|at| span.contains(at));
        within.filter_map(|&at| self.tables[at].tombstones.as_ref())
    }

    /// The table that may hold `key`.
    #[inline]
    pub(crate) fn find(&self, key: &[u8]) -> Option<&Arc<TableFile>> {
        let behind = self
            .tables
            .partition_point(|t| t.meta().smallest.as_slice() <= key);
        self.tables
            .get(behind.checked_sub(1)?)
            .filter(|table| !is_beyond(table.meta(), key))
    }

    /// A run that is not part of a version: the inputs of a compaction.
    pub(crate) fn of(tables: Vec<Arc<TableFile>>) -> Arc<Self> {
        Arc::new(Self::new(0, tables))
    }

    /// The tables that may hold something within the range.
    pub(crate) fn overlapping(&self, range: &KeyRange) -> &[Arc<TableFile>] {
        &self.tables[self.overlapping_span(range)]
    }

    /// Where the tables stand that may hold something within the range.
    pub(crate) fn overlapping_span(&self, range: &KeyRange) -> Range<usize> {
        let from = self.tables.partition_point(|table| match &range.start {
            Bound::Included(start) | Bound::Excluded(start) => is_beyond(table.meta(), start),
            Bound::Unbounded => false,
        });
        let to = self
            .tables
            .partition_point(|table| range.is_before_end(&table.meta().smallest));
        from..to.max(from)
    }
}

/// Runs, newest first.
#[derive(Default, Clone)]
pub(crate) struct Level {
    pub(crate) runs: Vec<Arc<Run>>,
}

/// The tables of a keyspace at one moment. Immutable.
#[derive(Default, Clone)]
pub(crate) struct Version {
    pub(crate) levels: Vec<Level>,
    /// The blob files that tables point into, by number.
    blobs: Vec<UsedBlob>,
}

/// A blob file, and what the tables of a version have in it.
#[derive(Clone)]
struct UsedBlob {
    file: Arc<BlobFile>,
    live: u64,
}

/// How the blob files of a version differ from those of the one before.
#[derive(Default)]
pub(crate) struct BlobChange {
    pub(crate) added: Vec<Arc<BlobFile>>,
    /// Numbers of those into which no table points any more.
    pub(crate) removed: Vec<u64>,
}

/// A table with its place.
pub(crate) struct Placed {
    pub(crate) level: usize,
    pub(crate) run: u64,
    pub(crate) file: Arc<TableFile>,
}

impl Version {
    /// Puts tables in their places.
    pub(crate) fn build(tables: Vec<Placed>, blobs: Vec<Arc<BlobFile>>) -> Self {
        let blobs = blobs.into_iter();
        let mut version = Self {
            levels: Vec::new(),
            blobs: blobs.map(|file| UsedBlob { file, live: 0 }).collect(),
        };
        version.blobs.sort_by_key(|blob| blob.file.meta().number);
        let mut tables = tables;
        tables.sort_by(|a, b| {
            let place = |t: &Placed| (t.level, std::cmp::Reverse(t.run));
            place(a)
                .cmp(&place(b))
                .then_with(|| a.file.meta().smallest.cmp(&b.file.meta().smallest))
        });
        for group in tables.chunk_by(|a, b| (a.level, a.run) == (b.level, b.run)) {
            let (level, number) = (group[0].level, group[0].run);
            if version.levels.len() <= level {
                version.levels.resize_with(level + 1, Level::default);
            }
            let files = group
                .iter()
                .map(|placed| Arc::clone(&placed.file))
                .collect();
            version.levels[level]
                .runs
                .push(Arc::new(Run::new(number, files)));
        }
        version.count_uses();
        version
    }

    /// Adds up what tables have in blob files.
    fn count_uses(&mut self) {
        let mut blobs = std::mem::take(&mut self.blobs);
        for (_, _, file) in self.tables() {
            for &BlobUse { file, bytes, .. } in &file.meta().blobs {
                if let Ok(at) = place_of(&blobs, file) {
                    // Tables cannot use more of it than there is, whatever a manifest says.
                    let most = blobs[at].file.meta().value_bytes;
                    blobs[at].live = blobs[at].live.saturating_add(bytes).min(most);
                }
            }
        }
        self.blobs = blobs;
    }

    /// The blob file with this number.
    #[inline]
    pub(crate) fn blob(&self, number: u64) -> Option<&Arc<BlobFile>> {
        let at = place_of(&self.blobs, number).ok()?;
        Some(&self.blobs[at].file)
    }

    /// Its blob files, by number, with the bytes that tables have in each.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = (&Arc<BlobFile>, u64)> {
        self.blobs.iter().map(|blob| (&blob.file, blob.live))
    }

    /// Bytes of all its blob files.
    pub(crate) fn blob_bytes(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.file.meta().bytes).sum()
    }

    /// Bytes of the files of all its tables and blob files.
    pub(crate) fn file_bytes(&self) -> u64 {
        let tables = self.tables().map(|(_, _, file)| file.meta().bytes);
        tables.sum::<u64>() + self.blob_bytes()
    }

    /// The oldest epoch of the keys that seal a table and what it points to; 0 where there are none.
    pub(crate) fn epoch_of(&self, table: &TableFile) -> u32 {
        let blobs = table.meta().blobs.iter();
        let blobs = blobs.filter_map(|blob| Some(self.blob(blob.file)?.epoch()));
        blobs.fold(table.table.epoch(), u32::min)
    }

    /// The numbers of the blob files that are sealed in an epoch before this.
    pub(crate) fn blobs_before(&self, epoch: u32) -> impl Iterator<Item = u64> {
        let old = self.blobs.iter().map(|blob| &blob.file);
        let old = old.filter(move |file| file.epoch() < epoch);
        old.map(|file| file.meta().number)
    }

    /// What decides whether blob files are collected. One that holds a damaged value, or that a damaged table points into, counts as free of
    /// garbage: what cannot be copied keeps it, and trying again would keep all others from being collected.
    pub(crate) fn blob_shape(&self, busy: &BTreeSet<u64>, table_bytes: u64) -> Blobs {
        if self.blobs.is_empty() {
            return Blobs::default();
        }
        let damaged = self.tables().filter(|(_, _, file)| file.is_damaged());
        let kept: BTreeSet<u64> = damaged
            .flat_map(|(_, _, file)| file.meta().blobs.iter().map(|blob| blob.file))
            .collect();
        let files = self.blobs.iter().map(|blob| {
            let meta = blob.file.meta();
            let kept = blob.file.is_damaged() || kept.contains(&meta.number);
            BlobShape {
                number: meta.number,
                bytes: meta.value_bytes,
                live: if kept { meta.value_bytes } else { blob.live },
                kept,
            }
        });
        let pointing = self.tables().map(|(_, _, file)| file.meta());
        let pointing = pointing.filter(|meta| !meta.blobs.is_empty());
        Blobs {
            files: files.collect(),
            tables: pointing
                .map(|meta| PointingTable {
                    number: meta.number,
                    bytes: meta.bytes,
                    uses: meta.blobs.iter().map(|b| (b.file, b.bytes)).collect(),
                    busy: busy.contains(&meta.number),
                })
                .collect(),
            table_bytes,
        }
    }

    /// Every table with its place, top first.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (usize, u64, &Arc<TableFile>)> {
        self.levels.iter().enumerate().flat_map(|(level, runs)| {
            runs.runs
                .iter()
                .flat_map(move |run| run.tables.iter().map(move |file| (level, run.number, file)))
        })
    }

    /// The first table in `added` that overlaps one of its run that stays once those in `removed` are gone, and the other
    /// one. Only the neighbours are looked at.
    pub(crate) fn find_overlap(&self, removed: &[u64], added: &[Placed]) -> Option<(u64, u64)> {
        added.iter().find_map(|placed| {
            let level = self.levels.get(placed.level)?;
            let run = level.runs.iter().find(|run| run.number == placed.run)?;
            let meta = placed.file.meta();
            let from = run
                .tables
                .partition_point(|table| is_beyond(table.meta(), &meta.smallest));
            let other = run.tables[from..]
                .iter()
                .map(|table| table.meta())
                .take_while(|other| !is_beyond(meta, &other.smallest))
                .find(|other| !removed.contains(&other.number))?;
            Some((meta.number, other.number))
        })
    }

    /// This version without the tables in `removed` and with those in `added`.
    pub(crate) fn changed(&self, removed: &[u64], added: Vec<Placed>, blobs: BlobChange) -> Self {
        let kept = self
            .tables()
            .filter(|(_, _, file)| !removed.contains(&file.meta().number))
            .map(|(level, run, file)| Placed {
                level,
                run,
                file: Arc::clone(file),
            });
        let left = self.blobs.iter().map(|blob| Arc::clone(&blob.file));
        let left = left.filter(|file| !blobs.removed.contains(&file.meta().number));
        Self::build(
            kept.chain(added).collect(),
            left.chain(blobs.added).collect(),
        )
    }

    /// This version with every table as it is when it has just been opened.
    pub(crate) fn as_opened(&self) -> Self {
        let run = |run: &Arc<Run>| {
            let tables = run.tables.iter().map(|file| Arc::new(file.as_opened()));
            Arc::new(Run::new(run.number, tables.collect()))
        };
        let level = |level: &Level| Level {
            runs: level.runs.iter().map(run).collect(),
        };
        Self {
            levels: self.levels.iter().map(level).collect(),
            blobs: self.blobs.clone(),
        }
    }

    /// The runs in the order in which a reader asks them: newest first.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.levels.iter().flat_map(|level| &level.runs)
    }

    /// Counts for statistics.
    pub(crate) fn level_stats(&self) -> Vec<LevelStats> {
        let stats = |level: &Level| {
            let mut stats = LevelStats {
                runs: level.runs.len(),
                ..LevelStats::default()
            };
            for file in level.runs.iter().flat_map(|run| &run.tables) {
                let meta = file.meta();
                stats.tables += 1;
                stats.bytes += meta.bytes;
                stats.entries += meta.entries;
                stats.tombstones += meta.tombstones + meta.range_tombstones;
            }
            stats
        };
        self.levels.iter().map(stats).collect()
    }

    /// Sizes of its blob files, for statistics.
    pub(crate) fn blob_stats(&self) -> BlobStats {
        let mut stats = BlobStats::default();
        for (file, live) in self.blobs() {
            stats.files += 1;
            stats.bytes += file.meta().bytes;
            stats.garbage_bytes += file.meta().value_bytes.saturating_sub(live);
        }
        for (_, _, file) in self.tables() {
            stats.values += file.meta().blobs.iter().map(|b| b.values).sum::<u64>();
        }
        stats
    }

    /// What a policy looks at.
    pub(crate) fn shape(
        &self,
        busy: &BTreeSet<u64>,
        now: Timestamp,
        oldest_snapshot: u64,
        table_bytes: u64,
        at_rest: bool,
    ) -> Shape<'_> {
        let tombstones: Vec<&Arc<Fragments>> = self
            .tables()
            .filter_map(|(_, _, file)| file.tombstones.as_ref())
            .collect();
        let shape_of = |file| TableShape {
            hidden: is_hidden(file, &tombstones, oldest_snapshot),
            ..shape_of(file, busy)
        };
        let levels = self
            .levels
            .iter()
            .map(|level| LevelShape {
                runs: level
                    .runs
                    .iter()
                    .map(|run| RunShape {
                        tables: run.tables.iter().map(|file| shape_of(file)).collect(),
                    })
                    .collect(),
            })
            .collect();
        Shape {
            levels,
            now,
            oldest_snapshot,
            table_bytes,
            at_rest,
        }
    }
}

fn place_of(blobs: &[UsedBlob], number: u64) -> Result<usize, usize> {
    blobs.binary_search_by_key(&number, |blob| blob.file.meta().number)
}

fn shape_of<'a>(file: &'a TableFile, busy: &BTreeSet<u64>) -> TableShape<'a> {
    let meta = file.meta();
    TableShape {
        number: meta.number,
        bytes: meta.bytes,
        apart_bytes: meta.apart_bytes(),
        entries: meta.entries,
        tombstones: meta.tombstones,
        range_tombstones: meta.range_tombstones,
        smallest: &meta.smallest,
        largest: &meta.largest,
        largest_exclusive: meta.largest_exclusive,
        sequence_min: meta.sequence_min,
        sequence_max: meta.sequence_max,
        expiry_max: meta.expiry_max,
        expiring: meta.expiring,
        expiry_median_hint: None,
        busy: busy.contains(&meta.number),
        hidden: false,
        shadowed: file.shadowed.load(Ordering::Relaxed),
    }
}

/// Whether a range delete that every reader sees hides all of a table. Its own never do, as nothing in a table is older than all
/// of it.
fn is_hidden(file: &TableFile, tombstones: &[&Arc<Fragments>], oldest_snapshot: u64) -> bool {
    let meta = file.meta();
    tombstones.iter().any(|fragments| {
        let mut from = meta.smallest.as_slice();
        // Neighbours with different numbers may hide it together.
        while let Some((sequence, _, end)) = fragments.covering_stretch(from, oldest_snapshot)
            && sequence > meta.sequence_max
        {
            if meta.largest.as_slice() < end || (meta.largest_exclusive && meta.largest == end) {
                return true;
            }
            from = end;
        }
        false
    })
}
