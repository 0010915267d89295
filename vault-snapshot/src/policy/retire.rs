//! Tables that are worth touching for what is dead in them.
//!
//! # Why a wholly expired table may be dropped, and when not
//! An expired entry reads as a delete at its place, for every reader: snapshots go by the same clock.
//! Dropping it is thus like dropping a delete, and shows whatever older version of the key lies below.
//! So a table goes only if no older data overlaps it: no older run of its level, no deeper level; an
//! older table that is dropped in the same step does not count. Newer data needs no look: what it
//! hides stays hidden, and its merge operands find nothing below, as they did before. Running merges
//! need none either: their inputs are in the shape until the outcome takes their place, and what they
//! bring down from above is newer.

use vault_core::Timestamp;

use super::{Choice, Compaction, InputRun, Placement};
use crate::shape::{Shape, TableShape};

/// Whether every entry of a table has expired.
fn is_expired(table: &TableShape<'_>, now: Timestamp) -> bool {
    table.expiry_max.is_some_and(|expiry| expiry <= now)
}

/// Drops every table that has expired whole, where nothing older overlaps it.
pub(super) fn drop_expired(shape: &Shape<'_>) -> Option<Choice> {
    let mut tables: Vec<(usize, u64)> = Vec::new();
    // From the oldest run to the newest, so that what goes no longer holds newer ones.
    for (level, runs) in shape.levels.iter().enumerate().rev() {
        for (index, run) in runs.runs.iter().enumerate().rev() {
            for table in &run.tables {
                if table.busy || !is_expired(table, shape.now) {
                    continue;
                }
                let span = table.span();
                let held = shape
                    .older_runs(level, index)
                    .flat_map(|older| older.overlapping(&span))
                    .any(|older| !tables.iter().any(|&(_, number)| number == older.number));
                if !held {
                    tables.push((level, table.number));
                }
            }
        }
    }
    (!tables.is_empty()).then_some(Choice::Drop {
        tables,
        reason: "expired",
    })
}

/// Whether more than half of a table is dead weight that a merge to the bottom would remove: deletes
/// that every reader sees, or entries that have expired.
pub(super) fn is_mostly_dead(table: &TableShape<'_>, shape: &Shape<'_>) -> bool {
    let tombstones = table.tombstones + table.range_tombstones;
    let deleted = tombstones * 2 > table.entries + table.range_tombstones
        // A reader that is older than the deletes keeps them and what they hide: wait for its end.
        && table.sequence_max <= shape.oldest_snapshot;
    deleted || is_mostly_expired(table, shape.now)
}

/// Whether a rewrite at the bottom is sure to remove enough: as [`is_mostly_dead`], or at least a
/// quarter of the entries has expired.
pub(super) fn is_worth_rewriting(table: &TableShape<'_>, shape: &Shape<'_>) -> bool {
    let half_of_expiring_is_dead = table
        .expiry_median_hint
        .is_some_and(|hint| hint <= shape.now);
    is_mostly_dead(table, shape) || (half_of_expiring_is_dead && table.expiring * 2 > table.entries)
}

fn is_mostly_expired(table: &TableShape<'_>, now: Timestamp) -> bool {
    is_expired(table, now)
}

/// Whether rewriting a table at the bottom may free anything.
///
/// Entries that were shadowed while a snapshot held them can't be counted from outside. The engine
/// writes sequence 0 for what everyone sees at the bottom, so a table of zeroes is clean; any other is
/// worth one rewrite when someone asks for it.
pub(super) fn may_hold_garbage(table: &TableShape<'_>) -> bool {
    table.tombstones > 0
        || table.range_tombstones > 0
        || table.expiring > 0
        || table.sequence_max > 0
}

/// Rewrites neighbouring tables of a level's single run where they are. Nothing older may overlap.
pub(super) fn rewrite(level: usize, tables: &[TableShape<'_>], reason: &'static str) -> Choice {
    Choice::Merge(Compaction {
        inputs: vec![InputRun {
            level,
            tables: tables.iter().map(|table| table.number).collect(),
        }],
        output_level: level,
        placement: Placement::ReplaceRun,
        bottommost: true,
        reason,
    })
}
