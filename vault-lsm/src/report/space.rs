//! Where the bytes of a store go, and who keeps those that could be freed.
//!
//! Tables don't know which of their entries are hidden by others: that shows only where all versions of a
//! key stand side by side. So this walks over them, newest first, as a compaction would, and sorts
//! each by what a compaction would do with it. What it finds is scaled to the bytes the tables take on disk.
//! In keyspaces with more than [`ENTRIES_MAX`] entries it walks over evenly spread stretches.

use std::sync::Arc;
use std::time::Duration;

use vault_core::batch::OperationKind;
use vault_core::stats::{KeyspaceSpace, LogSpace, PinnedSpace, SpaceReport};
use vault_core::{Error, Result, SequenceNumber, Timestamp};

use crate::blob::pointer_of;
use crate::cursor::InternalCursor;
use crate::internal_key::{kind_of, sequence_of, split_expiry};
use crate::keyspace::KeyspaceView;
use crate::memory::Lease;
use crate::read::level::{Purpose, RunCursor};
use crate::read::merge::{MergeCursor, Source};
use crate::snapshot::OpenSnapshot;
use crate::store::{Store, lock};
use crate::tombstones::Fragments;

/// Entries of a keyspace that are looked at.
const ENTRIES_MAX: u64 = 1_000_000;
/// Stretches into which the sample of a larger keyspace is divided.
const STRETCHES: usize = 32;

/// Makes the report.
pub(crate) fn explain(store: &Arc<Store>) -> Result<SpaceReport> {
    let snapshots = store.snapshots.open();
    let pinned = store.views.pin();
    store.check_open()?;
    let mut report = SpaceReport::default();
    let mut held: Vec<Pinned> = vec![Pinned::default(); snapshots.len()];
    for view in &pinned.keyspaces {
        let sorted = sort_keyspace(store, view, &snapshots)?;
        let (tables, blobs) = sorted;
        let version = &view.version;
        let table_bytes = version.file_bytes() - version.blob_bytes();
        let blob_bytes = version.blob_bytes();
        let used: u64 = version.blobs().map(|(_, live)| live).sum();
        // What no table points to any more, and what the files themselves take.
        let unused = blob_bytes.saturating_sub(used);
        let both = |of: fn(&Sorted) -> u64| {
            tables.scaled(of(&tables), table_bytes) + blobs.scaled(of(&blobs), used)
        };
        let space = KeyspaceSpace {
            name: view.keyspace.name.clone(),
            table_bytes,
            blob_bytes,
            live_bytes: both(|sorted| sorted.live),
            obsolete_bytes: both(|sorted| sorted.obsolete) + unused,
            expired_bytes: both(|sorted| sorted.expired),
        };
        for (at, total) in held.iter_mut().enumerate() {
            let (inline, apart) = (tables.pinned[at], blobs.pinned[at]);
            total.bytes +=
                tables.scaled(inline.bytes, table_bytes) + blobs.scaled(apart.bytes, used);
            total.alone +=
                tables.scaled(inline.alone, table_bytes) + blobs.scaled(apart.alone, used);
        }
        report.live_bytes += space.live_bytes;
        report.obsolete_bytes += space.obsolete_bytes;
        report.expired_bytes += space.expired_bytes;
        report.keyspaces.push(space);
    }
    report.pinned = name_holders(store, &snapshots, &held);
    report.log = log_space(store);
    report.metadata_bytes = metadata_bytes(store)?;
    let keyspaces = report.keyspaces.iter();
    let files: u64 = keyspaces
        .map(|space| space.table_bytes + space.blob_bytes)
        .sum();
    let retired = store.reclaim.held_bytes();
    report.total_bytes = files + retired + report.log.bytes + report.metadata_bytes;
    Ok(report)
}

/// Bytes of keys and values by what a compaction would do with them.
#[derive(Default)]
struct Sorted {
    live: u64,
    obsolete: u64,
    expired: u64,
    /// By snapshot, in the order given.
    pinned: Vec<Pinned>,
}

/// What a snapshot holds.
#[derive(Default, Clone, Copy)]
struct Pinned {
    /// Of what no older snapshot holds.
    bytes: u64,
    /// Of what no other snapshot holds.
    alone: u64,
}

impl Sorted {
    fn total(&self) -> u64 {
        self.live
            + self.obsolete
            + self.expired
            + self.pinned.iter().map(|pinned| pinned.bytes).sum::<u64>()
    }

    fn of(snapshots: usize) -> Self {
        Self {
            pinned: vec![Pinned::default(); snapshots],
            ..Self::default()
        }
    }

    /// A part of this, where the whole takes `bytes` on disk.
    fn scaled(&self, part: u64, bytes: u64) -> u64 {
        let total = self.total().max(1);
        (u128::from(part) * u128::from(bytes) / u128::from(total)) as u64
    }
}

/// What stands in tables, and what is kept apart from them.
type SortedBoth = (Sorted, Sorted);

fn sort_keyspace(
    store: &Store,
    view: &Arc<KeyspaceView>,
    snapshots: &[OpenSnapshot],
) -> Result<SortedBoth> {
    let mut sorted = (Sorted::of(snapshots.len()), Sorted::of(snapshots.len()));
    let version = &view.version;
    let entries: u64 = version
        .tables()
        .map(|(_, _, file)| file.meta().entries)
        .sum();
    let lease = Arc::new(Lease::compaction(&store.memory, version.runs().count()));
    let sources = version
        .runs()
        .map(|run| RunCursor::over_all(Arc::clone(run), Purpose::Compaction))
        .map(|cursor| Source::Run(cursor.leased(&lease)))
        .collect();
    let tombstones = version
        .tables()
        .flat_map(|(_, _, file)| file.table.range_tombstones().iter().cloned())
        .chain(
            view.buffers()
                .flat_map(|buffer| buffer.memtable.range_tombstone_list()),
        );
    let mut walk = Walk {
        cursor: MergeCursor::new(sources).leased(lease),
        tombstones: Fragments::build(tombstones),
        snapshots,
        now: store.env.clock.now(),
        key: Vec::new(),
    };
    if entries <= ENTRIES_MAX {
        walk.cursor.first()?;
        walk.sort(u64::MAX, &mut sorted)?;
        return Ok(sorted);
    }
    // Where the stretches begin: at the first keys of evenly spread tables.
    let mut starts: Vec<&[u8]> = version
        .tables()
        .map(|(_, _, file)| file.meta().smallest.as_slice())
        .collect();
    starts.sort_unstable();
    let step = starts.len().div_ceil(STRETCHES).max(1);
    let chosen: Vec<&[u8]> = starts.into_iter().step_by(step).collect();
    let each = ENTRIES_MAX / chosen.len().max(1) as u64;
    for start in chosen {
        store.check_open()?;
        walk.cursor.seek(start, u64::MAX)?;
        walk.sort(each, &mut sorted)?;
    }
    Ok(sorted)
}

struct Walk<'a> {
    cursor: MergeCursor,
    tombstones: Fragments,
    snapshots: &'a [OpenSnapshot],
    now: Timestamp,
    key: Vec<u8>,
}

impl Walk<'_> {
    /// Sorts the versions of the keys from where the cursor stands, up to about `entries` of them.
    fn sort(&mut self, entries: u64, sorted: &mut SortedBoth) -> Result<()> {
        let mut seen = 0;
        while self.cursor.valid() && seen < entries {
            self.key.clear();
            self.key.extend_from_slice(self.cursor.key());
            seen += self.sort_key(sorted)?;
        }
        Ok(())
    }

    fn sort_key(&mut self, sorted: &mut SortedBoth) -> Result<u64> {
        // The sequence number of what hides the next older version; none yet.
        let mut hidden_by = SequenceNumber::MAX;
        let mut gone = false;
        let mut versions = 0;
        while self.cursor.valid() && self.cursor.key() == self.key.as_slice() {
            versions += 1;
            let (trailer, stored) = (self.cursor.trailer(), self.cursor.value());
            let sequence = sequence_of(trailer);
            let bytes = (self.key.len() + stored.len()) as u64;
            let apart = pointer_of(trailer, stored).flatten();
            let apart = apart.map_or(0, |pointer| u64::from(pointer.stored));
            let expired = split_expiry(trailer, stored)
                .and_then(|(expiry, _)| expiry)
                .is_some_and(|expiry| expiry <= self.now);
            // The oldest above it: from then on nobody sees it.
            let mut covering = self.tombstones.covering_all(&self.key).iter().rev();
            if let Some(&covering) = covering.find(|&&covering| covering > sequence) {
                hidden_by = hidden_by.min(covering);
                gone = true;
            }
            let kind = kind_of(trailer);
            let hidden = gone || kind == Some(OperationKind::Delete);
            // The oldest snapshot between this version and what hides it is the one to blame.
            let holds = |held: &OpenSnapshot| {
                gone && held.sequence >= sequence && held.sequence < hidden_by
            };
            let holder = self.snapshots.iter().position(holds);
            let others = holder.is_some_and(|at| self.snapshots[at + 1..].iter().any(holds));
            for (sorted, bytes) in [(&mut sorted.0, bytes), (&mut sorted.1, apart)] {
                match holder {
                    _ if expired => sorted.expired += bytes,
                    _ if !hidden => sorted.live += bytes,
                    Some(at) => {
                        sorted.pinned[at].bytes += bytes;
                        sorted.pinned[at].alone += if others { 0 } else { bytes };
                    }
                    None => sorted.obsolete += bytes,
                }
            }
            if expired || kind != Some(OperationKind::Merge) {
                gone = true;
                hidden_by = sequence;
            }
            self.cursor.next()?;
        }
        Ok(versions)
    }
}

fn name_holders(store: &Store, snapshots: &[OpenSnapshot], held: &[Pinned]) -> Vec<PinnedSpace> {
    let now = store.env.clock.monotonic();
    let open_for = |opened: Duration| now.saturating_sub(opened);
    let mut pinned: Vec<PinnedSpace> = snapshots
        .iter()
        .zip(held)
        .map(|(snapshot, held)| PinnedSpace {
            holder: format!(
                "snapshot at sequence {}, open for {:.1?}",
                snapshot.sequence,
                open_for(snapshot.opened)
            ),
            sequence: snapshot.sequence,
            bytes: held.bytes,
            alone_bytes: held.alone,
            open_ms: u64::try_from(open_for(snapshot.opened).as_millis()).unwrap_or(u64::MAX),
        })
        .collect();
    let retired = store.reclaim.held_bytes();
    if retired > 0 {
        pinned.push(PinnedSpace {
            holder: "tables and blob files already replaced or dropped that open cursors or snapshots still read"
                .to_owned(),
            sequence: 0,
            bytes: retired,
            alone_bytes: retired,
            open_ms: 0,
        });
    }
    pinned
}

fn log_space(store: &Store) -> LogSpace {
    let (bytes, segments) = {
        let log = lock(&store.log_segments);
        (log.values().sum(), log.len() as u64)
    };
    let pinned = store.views.pin();
    let first = |view: &&Arc<KeyspaceView>| {
        let firsts = view
            .buffers()
            .map(|b| b.first_log.load(std::sync::atomic::Ordering::Acquire));
        firsts.filter(|&first| first != 0).min().unwrap_or(u64::MAX)
    };
    let holder = pinned
        .keyspaces
        .iter()
        .min_by_key(first)
        .filter(|view| first(view) != u64::MAX);
    LogSpace {
        bytes,
        segments,
        oldest_segment: crate::flush::log_floor(store, None),
        pinned_by: holder.map(|view| view.keyspace.name.clone()),
    }
}

fn metadata_bytes(store: &Store) -> Result<u64> {
    let Some(manifest) = store.manifest_unchecked() else {
        return Ok(0);
    };
    let pointer = store.env.directory.join(crate::layout::POINTER_NAME);
    let file = store
        .env
        .fs
        .open(&pointer)
        .map_err(|e| Error::io("open", &pointer, e))?;
    let len = file.len().map_err(|e| Error::io("measure", &pointer, e))?;
    Ok(manifest.len() + len)
}
