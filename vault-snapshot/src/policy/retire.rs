//! Tables that are worth touching for what is dead in them.
//!
//! # Why a table that a range delete hides whole may be dropped
//! The range delete is newer than all of it, and every reader sees it. Dropping the table is what a merge with the range delete
//! would come to. What makes it safe after a loss of power is that the range delete stands in a table, too: it is durable.
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
use crate::shape::{Shape, TableShape, span_of};

/// One in so many of a table's entries: as many that no snapshot holds any more are worth a rewrite.
const SHADOWED_SHARE: u64 = 8;

/// Whether every entry of a table has expired.
fn is_expired(table: &TableShape<'_>, now: Timestamp) -> bool {
    table.expiry_max.is_some_and(|expiry| expiry <= now)
}

/// Drops every table of which no reader sees anything any more: those that range deletes hide whole, and those that have
/// expired whole, where nothing older overlaps them.
pub(super) fn drop_dead(shape: &Shape<'_>) -> Option<Choice> {
    drop_hidden(shape).or_else(|| drop_expired(shape))
}

/// Drops every table that a range delete hides whole. What older tables hold of its keys is hidden by the same range delete,
/// which stays where it is; so nothing comes to light, whatever overlaps it.
fn drop_hidden(shape: &Shape<'_>) -> Option<Choice> {
    let levels = shape.levels.iter().enumerate();
    let tables: Vec<(usize, u64)> = levels
        .flat_map(|(level, runs)| runs.runs.iter().map(move |run| (level, run)))
        .flat_map(|(level, run)| run.tables.iter().map(move |table| (level, table)))
        .filter(|(_, table)| table.hidden && !table.busy)
        .map(|(level, table)| (level, table.number))
        .collect();
    (!tables.is_empty()).then_some(Choice::Drop {
        tables,
        reason: "deleted",
    })
}

/// Drops every table that has expired whole, where nothing older overlaps it.
fn drop_expired(shape: &Shape<'_>) -> Option<Choice> {
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
    deleted || is_expired(table, shape.now)
}

/// Whether the deletes of level 0 are worth merging down at once, however few runs it has: those that every reader sees are half
/// as many as what lies below them, or they are range deletes with hardly anything beside them. They would else wait for other
/// writes to come, on top of what they delete.
pub(super) fn level0_deletes_much(shape: &Shape<'_>) -> bool {
    let tables = shape.runs(0).iter().flat_map(|run| &run.tables);
    let seen = tables.filter(|table| table.sequence_max <= shape.oldest_snapshot);
    let deleting: Vec<&TableShape<'_>> = seen
        .filter(|table| table.tombstones + table.range_tombstones > 0)
        .collect();
    let Some(span) = span_of(deleting.iter().copied()) else {
        return false;
    };
    let below = (1..shape.levels.len()).flat_map(|level| shape.runs(level));
    let below: u64 = below
        .flat_map(|run| run.overlapping(&span))
        .map(|table| table.entries + table.range_tombstones)
        .sum();
    let deletes: u64 = deleting.iter().map(|table| table.tombstones).sum();
    let ranges =
        |table: &&&TableShape<'_>| table.range_tombstones > 0 && is_mostly_dead(table, shape);
    let has_older = |table: &&TableShape<'_>| {
        let mut levels = 1..shape.levels.len();
        levels.any(|level| {
            let mut runs = shape.runs(level).iter();
            runs.any(|run| !run.overlapping(&table.span()).is_empty())
        })
    };
    below > 0
        && (deletes * 2 > below
            || deleting
                .iter()
                .filter(ranges)
                .copied()
                .any(|table| has_older(&table)))
}

/// Whether a rewrite at the bottom is sure to remove enough: as [`is_mostly_dead`], or at least a
/// quarter of the entries has expired, or an eighth was kept for snapshots that have been released. The rewrite removes them, so that it is not chosen again.
pub(super) fn is_worth_rewriting(table: &TableShape<'_>, shape: &Shape<'_>) -> bool {
    let half_of_expiring_is_dead = table
        .expiry_median_hint
        .is_some_and(|hint| hint <= shape.now);
    // What snapshots held, once the last of them has gone.
    let released = table.shadowed * SHADOWED_SHARE > table.entries
        && table.sequence_max <= shape.oldest_snapshot;
    released
        || is_mostly_dead(table, shape)
        || (half_of_expiring_is_dead && table.expiring * 2 > table.entries)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::planner;
    use crate::shape::{LevelShape, RunShape};

    fn table(
        number: u64,
        entries: u64,
        tombstones: u64,
        range_tombstones: u64,
    ) -> TableShape<'static> {
        TableShape {
            number,
            bytes: 100 * entries,
            apart_bytes: 0,
            entries,
            tombstones,
            range_tombstones,
            smallest: b"a",
            largest: b"z",
            largest_exclusive: false,
            sequence_min: 1,
            sequence_max: 10 - number,
            expiry_max: None,
            expiring: 0,
            expiry_median_hint: None,
            busy: false,
            hidden: false,
            shadowed: 0,
        }
    }

    fn chosen(
        level0: TableShape<'static>,
        below: TableShape<'static>,
        oldest_snapshot: u64,
    ) -> Choice {
        let level = |table| LevelShape {
            runs: vec![RunShape {
                tables: vec![table],
            }],
        };
        let mut levels = vec![LevelShape::default(); 7];
        (levels[0], levels[6]) = (level(level0), level(below));
        planner(&vault_core::CompactionPolicy::LEVELED).choose(&Shape {
            levels,
            now: Timestamp(0),
            oldest_snapshot,
            table_bytes: 1 << 20,
            at_rest: false,
        })
    }

    /// Half of a store was deleted, and nothing else was written: the one run of level 0 waited for others.
    #[test]
    fn deletes_go_down_when_they_are_many_beside_what_is_below() {
        let merges = |choice| matches!(choice, Choice::Merge(merge) if merge.reason == "deletes");
        let below = table(2, 1000, 0, 0);
        assert!(merges(chosen(table(1, 600, 600, 0), below, 9)));
        assert!(
            !merges(chosen(table(1, 600, 400, 0), below, 9)),
            "not so many"
        );
        assert!(
            !merges(chosen(table(1, 600, 600, 0), below, 8)),
            "a snapshot is older"
        );
        assert!(
            merges(chosen(table(1, 0, 0, 1), below, 9)),
            "a range delete by itself"
        );
        assert!(
            !merges(chosen(table(1, 500, 0, 1), below, 9)),
            "beside many entries"
        );
    }

    #[test]
    fn what_a_range_delete_hides_is_dropped_and_what_snapshots_held_is_rewritten() {
        let mut below = table(2, 1000, 0, 0);
        below.hidden = true;
        let drop = Choice::Drop {
            tables: vec![(6, 2)],
            reason: "deleted",
        };
        assert_eq!(chosen(table(1, 0, 0, 1), below, 9), drop);
        below.busy = true;
        assert_ne!(chosen(table(1, 0, 0, 1), below, 9), drop);
        let mut below = table(2, 1000, 0, 0);
        let rewrites = |below, oldest| {
            let choice = chosen(table(1, 100, 0, 0), below, oldest);
            matches!(choice, Choice::Merge(merge) if merge.output_level == 6 && merge.inputs.len() == 1)
        };
        assert!(!rewrites(below, 9));
        below.shadowed = 200;
        assert!(rewrites(below, 9));
        assert!(!rewrites(below, 7), "one that sees them is still open");
    }
}
