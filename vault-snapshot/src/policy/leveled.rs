//! Leveled: one sorted run a level, each level `fanout` times as large as the one above.
//!
//! Level 0 holds the runs as they were flushed, newest first, overlapping. Each deeper level is one
//! run. Level sizes are dynamic: the largest level decides the targets of those above it, and level 0
//! goes straight to the *base*, the first level that has a target, past the empty levels between. So
//! whatever the store's size, all but about 1 / `fanout` of it lies in the last level: deletes and
//! overwrites have little room to wait in. (O'Neil et al., "The log-structured merge-tree", 1996;
//! dynamic sizes: Dong et al., "Optimizing space amplification in RocksDB", 2017.)
//!
//! The base gets a target between `base_bytes` / √`fanout` and `base_bytes` · √`fanout`: `base_bytes` is
//! the geometric middle. A base below that range would be rewritten by each merge from level 0 and
//! passed on whole at once, a pass that saves nothing.
//!
//! In order of urgency:
//! 1. tables that have expired whole, or that range deletes hide whole, go ([`retire`]);
//! 2. level 0, when it has `level0_runs` runs or the bytes of the base, and levels over their target,
//!    the furthest over first. Level 0 goes as a whole; of a level goes the table that has to be merged
//!    with the fewest bytes for each of its own;
//! 3. level 0, when its deletes are half as many as the entries below them;
//! 4. tables that are mostly dead go down, or are rewritten where nothing older overlaps them;
//! 5. while nobody writes, level 0 goes down before it is full, unless that rewrites more than [`REST_RATIO`] times its
//!    own bytes; then its runs become one. Reads have fewer places to look in.
//!
//! A table that overlaps nothing on its way moves without being rewritten.
//!
//! # Running merges
//! A choice is made only if the stretch of keys that it may write overlaps no busy table in any level
//! from its first input to its output. A running merge's own stretch is spanned by its inputs, all busy,
//! and lies in those levels, so two merges never write over each other. A step by hand may take neighbours of one run that nothing
//! spans: whoever asks for those sees to it that nothing else is chosen meanwhile.

use vault_core::KeyRange;

use super::{
    Choice, Compaction, Debt, InputRun, Placement, Planner, merge_runs, pressure_between, retire,
    whole_run,
};
use crate::shape::{RunShape, Shape, Span, TableShape, span_of};

/// Levels of a leveled keyspace whose shape names none below level 0.
pub const LEVELS: usize = 7;
/// Level 0 runs at which writers stop, whatever the trigger.
const STOP_RUNS_MIN: f64 = 20.0;
/// Bytes to rewrite at which writers slow down, whatever the size of the base.
const SLOW_BYTES_MIN: u64 = 1 << 30;
/// A level 0 run with smaller tables than this fraction of a table is merged rather than moved, or
/// many small flushes would become as many small tables for good.
const MOVE_FRACTION: u64 = 4;
/// Tables that one step of a manual compaction takes from a level: it can be cancelled between steps.
const MANUAL_TABLES_MAX: usize = 8;

/// While nobody writes, level 0 is merged with as many times its own bytes: what a byte costs on its way through one level of
/// the usual fanout.
pub const REST_RATIO: u64 = 10;

pub(super) struct Leveled {
    level0_runs: usize,
    base_bytes: u64,
    fanout: u64,
}

/// What each level should hold.
struct Targets {
    /// By level; 0 above the base.
    bytes: Vec<u64>,
    /// Where level 0 goes: the base, or a level above it that still holds data.
    level0_output: usize,
}

impl Leveled {
    pub(super) fn new(level0_runs: u8, base_bytes: u64, fanout: u8) -> Self {
        Self {
            level0_runs: usize::from(level0_runs).max(1),
            base_bytes: base_bytes.max(1),
            fanout: u64::from(fanout).max(2),
        }
    }

    fn targets(&self, shape: &Shape<'_>) -> Targets {
        let levels = if shape.levels.len() < 2 {
            LEVELS
        } else {
            shape.levels.len()
        };
        let mut bytes = vec![0; levels];
        let largest = (1..levels)
            .map(|level| shape.level_bytes(level))
            .max()
            .unwrap_or(0);
        let base_most = (self.base_bytes as f64 * (self.fanout as f64).sqrt()) as u64;
        let mut target = largest.max(self.base_bytes);
        let mut base = levels - 1;
        bytes[base] = target;
        while base > 1 && target > base_most {
            base -= 1;
            target /= self.fanout;
            bytes[base] = target;
        }
        let first_filled = (1..levels).find(|&level| shape.level_bytes(level) > 0);
        Targets {
            bytes,
            level0_output: first_filled.map_or(base, |level| level.min(base)),
        }
    }

    /// Level 0 and the levels over their target with how far they are over, furthest first.
    fn overfull(&self, shape: &Shape<'_>, targets: &Targets) -> Vec<(f64, usize)> {
        let runs = shape.runs(0).len() as f64 / self.level0_runs as f64;
        let full = targets.bytes[targets.level0_output].max(self.base_bytes);
        let bytes = shape.level_bytes(0) as f64 / full as f64;
        let last = targets.bytes.len() - 1;
        let deeper = (1..last).map(|level| {
            // What is left above the base must go, but isn't in the way of anything.
            let target = targets.bytes[level].max(1);
            (shape.level_bytes(level) as f64 / target as f64, level)
        });
        let mut scores: Vec<(f64, usize)> = std::iter::once((runs.max(bytes), 0))
            .chain(deeper)
            .filter(|&(score, level)| {
                score > 1.0 || (level == 0 && score >= 1.0 && !shape.runs(0).is_empty())
            })
            .collect();
        scores.sort_by(|a, b| b.0.total_cmp(&a.0));
        scores
    }

    /// Takes level 0 down: a table that can move as it is, else all of it.
    fn from_level0(shape: &Shape<'_>, output: usize, reason: &'static str) -> Option<Choice> {
        let runs = shape.runs(0);
        if runs.iter().any(RunShape::is_busy) {
            return None;
        }
        Self::move_from_level0(shape, output, reason).or_else(|| {
            let span = span_of(runs.iter().flat_map(|run| &run.tables))?;
            let inputs = runs.iter().map(|run| whole_run(0, run)).collect();
            merge_into(shape, inputs, 0, &span, output, reason)
        })
    }

    /// While nobody writes: level 0 goes down, or becomes one run where that would rewrite too much.
    fn prepare_for_reads(shape: &Shape<'_>, output: usize) -> Option<Choice> {
        const REASON: &str = "nobody writes";
        let runs = shape.runs(0);
        if !shape.at_rest || runs.is_empty() || runs.iter().any(RunShape::is_busy) {
            return None;
        }
        let span = span_of(runs.iter().flat_map(|run| &run.tables))?;
        let below = shape
            .runs(output)
            .first()
            .map_or(&[][..], |run| run.overlapping(&span));
        let below: u64 = below.iter().map(|table| table.bytes).sum();
        if below <= shape.level_bytes(0).saturating_mul(REST_RATIO) {
            return Self::from_level0(shape, output, REASON);
        }
        (runs.len() > 1).then(|| merge_runs(shape, 0..runs.len(), REASON))
    }

    /// A table of level 0 that neither an older run nor a level on its way overlaps.
    fn move_from_level0(shape: &Shape<'_>, output: usize, reason: &'static str) -> Option<Choice> {
        let runs = shape.runs(0);
        for (index, run) in runs.iter().enumerate().rev() {
            for table in &run.tables {
                let span = table.span();
                let on_the_way = runs[index + 1..]
                    .iter()
                    .chain((1..=output).flat_map(|level| shape.runs(level)))
                    .any(|older| !older.overlapping(&span).is_empty());
                if table.bytes >= shape.table_bytes / MOVE_FRACTION && !on_the_way {
                    return Some(Choice::Move {
                        level: 0,
                        table: table.number,
                        to_level: output,
                        reason,
                    });
                }
            }
        }
        None
    }

    /// Takes the cheapest table of a level down.
    fn from_level(shape: &Shape<'_>, level: usize, reason: &'static str) -> Option<Choice> {
        let run = shape.runs(level).first()?;
        let next = shape.runs(level + 1).first();
        let overlap = |table: &TableShape<'_>| -> u64 {
            let below = next.map_or(&[][..], |next| next.overlapping(&table.span()));
            below.iter().map(|table| table.bytes).sum()
        };
        let mut candidates: Vec<(f64, usize)> = run
            .tables
            .iter()
            .enumerate()
            .filter(|(_, table)| !table.busy)
            .map(|(index, table)| (overlap(table) as f64 / table.bytes.max(1) as f64, index))
            .collect();
        // Ties go to the smallest key.
        candidates.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        candidates
            .iter()
            .find_map(|&(_, index)| push_down(shape, level, &run.tables[index..=index], reason))
    }

    /// A table that is mostly dead: pushed down, or rewritten where it is.
    fn retire(shape: &Shape<'_>) -> Option<Choice> {
        for level in 1..shape.levels.len() {
            let tables = shape.runs(level).first().map_or(&[][..], |run| &run.tables);
            for table in tables
                .iter()
                .filter(|table| !table.busy && retire::is_worth_rewriting(table, shape))
            {
                let older = shape.older_overlaps(level, 0, &table.span());
                let choice = if older && retire::is_mostly_dead(table, shape) {
                    push_down(shape, level, std::slice::from_ref(table), "mostly dead")
                } else if !older {
                    Some(retire::rewrite(
                        level,
                        std::slice::from_ref(table),
                        "mostly dead",
                    ))
                } else {
                    None
                };
                if choice.is_some() {
                    return choice;
                }
            }
        }
        None
    }

    /// Bytes to rewrite until every level is within its target, each level passing its surplus on; and
    /// the surplus that lies in the levels now.
    fn pending_bytes(&self, shape: &Shape<'_>, targets: &Targets) -> (u64, u64) {
        let (mut pending, mut carried, mut surplus_now) = (0, 0, 0);
        let base = targets.level0_output;
        let level0 = shape.level_bytes(0);
        if shape.runs(0).len() >= self.level0_runs || level0 >= self.base_bytes {
            pending = level0 + shape.level_bytes(base);
            carried = level0;
        }
        for level in base..targets.bytes.len() - 1 {
            let bytes = shape.level_bytes(level);
            surplus_now += bytes.saturating_sub(targets.bytes[level]);
            carried = (bytes + carried).saturating_sub(targets.bytes[level]);
            // A table overlaps about as many times its bytes as the next level is larger.
            let ratio = shape.level_bytes(level + 1) as f64 / bytes.max(self.base_bytes) as f64;
            pending += (carried as f64 * (1.0 + ratio)) as u64;
        }
        (pending, surplus_now)
    }
}

impl Planner for Leveled {
    fn choose(&self, shape: &Shape<'_>) -> Choice {
        if let Some(choice) = retire::drop_dead(shape) {
            return choice;
        }
        let targets = self.targets(shape);
        self.overfull(shape, &targets)
            .iter()
            .find_map(|&(_, level)| match level {
                0 => Self::from_level0(shape, targets.level0_output, "level 0"),
                _ => Self::from_level(shape, level, "level over its size"),
            })
            .or_else(|| {
                retire::level0_deletes_much(shape)
                    .then(|| Self::from_level0(shape, targets.level0_output, "deletes"))
                    .flatten()
            })
            .or_else(|| Self::retire(shape))
            .or_else(|| Self::prepare_for_reads(shape, targets.level0_output))
            .unwrap_or(Choice::Nothing)
    }

    fn choose_range(&self, shape: &Shape<'_>, range: &KeyRange, manual_floor: u64) -> Choice {
        const REASON: &str = "asked for";
        let targets = self.targets(shape);
        let is_old = |table: &TableShape<'_>| table.number < manual_floor;
        if shape
            .runs(0)
            .iter()
            .any(|run| run.within(range).iter().any(is_old))
        {
            return Self::from_level0(shape, targets.level0_output, REASON)
                .unwrap_or(Choice::Nothing);
        }
        let filled = |level: &usize| shape.level_bytes(*level) > 0;
        let Some(last) = (1..shape.levels.len()).rev().find(filled) else {
            return Choice::Nothing;
        };
        for level in 1..last {
            let tables = shape
                .runs(level)
                .first()
                .map_or(&[][..], |run| run.within(range));
            if !tables.is_empty() {
                // Table by table where a neighbour is busy or can move by itself.
                let most = &tables[..tables.len().min(MANUAL_TABLES_MAX)];
                return push_down(shape, level, most, REASON)
                    .or_else(|| {
                        let single =
                            |table| push_down(shape, level, std::slice::from_ref(table), REASON);
                        tables.iter().find_map(single)
                    })
                    .unwrap_or(Choice::Nothing);
            }
        }
        let tables = shape
            .runs(last)
            .first()
            .map_or(&[][..], |run| run.within(range));
        let due = |table: &TableShape<'_>| {
            !table.busy && is_old(table) && retire::may_hold_garbage(table)
        };
        let Some(first) = tables.iter().position(due) else {
            return Choice::Nothing;
        };
        let count = tables[first..]
            .iter()
            .take_while(|table| due(table))
            .count();
        retire::rewrite(
            last,
            &tables[first..first + count.min(MANUAL_TABLES_MAX)],
            REASON,
        )
    }

    /// Slows writers at twice `level0_runs` or when four bases (at least 1 GiB) lie in levels above
    /// their targets; stops them at five times `level0_runs` (at least 20), or at four times those bytes.
    ///
    /// The surplus is what counts, not the cost of working it off: in a deep store a single merge from
    /// level 0 entails rewriting of many gigabytes, and that is the steady state.
    fn debt(&self, shape: &Shape<'_>) -> Debt {
        let targets = self.targets(shape);
        let (bytes, surplus) = self.pending_bytes(shape, &targets);
        let trigger = self.level0_runs as f64;
        let stop = (trigger * 5.0).max(STOP_RUNS_MIN);
        let by_runs = pressure_between(shape.runs(0).len() as f64, trigger, trigger * 2.0, stop);
        let slow_bytes = self.base_bytes.saturating_mul(4).max(SLOW_BYTES_MIN) as f64;
        let by_bytes = pressure_between(surplus as f64, 0.0, slow_bytes, slow_bytes * 4.0);
        let (pressure, reason) = if bytes == 0 && by_runs == 0.0 {
            (0.0, "at rest")
        } else if by_runs >= by_bytes {
            (by_runs, "level 0 runs")
        } else {
            (by_bytes, "bytes to compact")
        };
        Debt {
            bytes,
            pressure,
            reason,
        }
    }
}

/// Takes neighbouring tables of a level to the next: moves a single one that overlaps nothing there,
/// else merges.
fn push_down(
    shape: &Shape<'_>,
    level: usize,
    tables: &[TableShape<'_>],
    reason: &'static str,
) -> Option<Choice> {
    let span = span_of(tables)?;
    let below = shape.runs(level + 1).first();
    let overlaps_nothing = below.is_none_or(|run| run.overlapping(&span).is_empty());
    if let ([table], true) = (tables, overlaps_nothing) {
        return (!table.busy).then_some(Choice::Move {
            level,
            table: table.number,
            to_level: level + 1,
            reason,
        });
    }
    let inputs = vec![InputRun {
        level,
        tables: tables.iter().map(|table| table.number).collect(),
    }];
    merge_into(shape, inputs, level, &span, level + 1, reason)
}

/// Merges `inputs`, which lie in `level` and span `span`, with what they overlap in `output`. `None` if
/// a running merge is in the way.
fn merge_into(
    shape: &Shape<'_>,
    mut inputs: Vec<InputRun>,
    level: usize,
    span: &Span<'_>,
    output: usize,
    reason: &'static str,
) -> Option<Choice> {
    let below = shape
        .runs(output)
        .first()
        .map_or(&[][..], |run| run.overlapping(span));
    // What is written spans the inputs and what they overlap below.
    let written = span_of(below).map_or(*span, |below| below.union(span));
    let in_the_way = (level..=output)
        .flat_map(|level| shape.runs(level))
        .flat_map(|run| run.overlapping(&written))
        // Level 0 is never looked at for a merge from deeper, and busy as a whole for one from there.
        .any(|table| table.busy);
    if in_the_way {
        return None;
    }
    if !below.is_empty() {
        inputs.push(InputRun {
            level: output,
            tables: below.iter().map(|table| table.number).collect(),
        });
    }
    Some(Choice::Merge(Compaction {
        inputs,
        output_level: output,
        placement: Placement::ReplaceRun,
        bottommost: !shape.older_overlaps(output, 0, &written),
        reason,
    }))
}
