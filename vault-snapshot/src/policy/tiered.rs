//! Tiered: runs of similar size are merged into one.
//!
//! All runs lie in level 0, newest first, and merges join neighbours in age, so that age order holds by
//! construction. Each merge multiplies a run's size by about the number of runs that it joins, so an
//! entry is rewritten about log(store / flush) / log(`runs_min`) times. In order of urgency:
//!
//! 1. tables that have expired whole, or that range deletes hide whole, go;
//! 2. if everything but the oldest run is more than twice as large as the oldest, all is merged: the
//!    oldest run is about what a store without garbage would hold, so this bounds space. Likewise if
//!    deletes that every reader sees are half as many as the entries of the oldest run: they would else
//!    wait on top of what they delete, as neither is garbage by its size;
//! 3. `runs_min` or more neighbours of similar size are merged, newest first, as those are cheapest;
//! 4. over `runs_max` runs, the neighbours that cost least for what they gain are merged, similar or
//!    not;
//! 5. an oldest run that is mostly dead is rewritten.
//!
//! (Size-tiered compaction: Jagadish et al., "Incremental organization for data recording and
//! warehousing", 1997; the space bound as in the universal compaction of `RocksDB`.)

use vault_core::KeyRange;

use super::{Choice, Debt, Planner, merge_range_of_runs, merge_runs, pressure_between, retire};
use crate::shape::{RunShape, Shape};

/// Everything but the oldest run may be so many percent of the oldest.
const SPACE_PERCENT_MAX: u64 = 200;

pub(super) struct Tiered {
    runs_min: usize,
    runs_max: usize,
    size_ratio_percent: u64,
}

impl Tiered {
    pub(super) fn new(runs_min: u8, runs_max: u8, size_ratio_percent: u16) -> Self {
        Self {
            runs_min: usize::from(runs_min).max(2),
            runs_max: usize::from(runs_max).max(2),
            size_ratio_percent: u64::from(size_ratio_percent),
        }
    }

    fn merge_all(shape: &Shape<'_>) -> Option<Choice> {
        let runs = shape.runs(0);
        let (oldest, newer) = runs.split_last()?;
        if newer.is_empty() || runs.iter().any(RunShape::is_busy) {
            return None;
        }
        let newer_bytes: u64 = newer.iter().map(RunShape::bytes).sum();
        if newer_bytes.saturating_mul(100) > oldest.bytes().saturating_mul(SPACE_PERCENT_MAX) {
            return Some(merge_runs(shape, 0..runs.len(), "space"));
        }
        let deletes: u64 = newer
            .iter()
            .flat_map(|run| &run.tables)
            .filter(|table| table.sequence_max <= shape.oldest_snapshot)
            .map(|table| table.tombstones)
            .sum();
        let entries: u64 = oldest.tables.iter().map(|table| table.entries).sum();
        (deletes * 2 > entries).then(|| merge_runs(shape, 0..runs.len(), "deletes"))
    }

    /// The newest neighbours of similar size: each at most so much larger than the newer ones are on
    /// average. (Against their sum, a run would draw in one far larger than any of them.)
    fn merge_similar(&self, shape: &Shape<'_>) -> Option<Choice> {
        let runs = shape.runs(0);
        for begin in 0..runs.len() {
            let mut bytes = 0;
            let mut end = begin;
            while let Some(run) = runs.get(end)
                && !run.is_busy()
                && (end == begin || self.is_similar(run.bytes(), bytes / (end - begin) as u64))
            {
                bytes += run.bytes();
                end += 1;
            }
            if end - begin >= self.runs_min {
                return Some(merge_runs(shape, begin..end, "similar runs"));
            }
        }
        None
    }

    fn is_similar(&self, older: u64, average: u64) -> bool {
        let limit = average.saturating_mul(100 + self.size_ratio_percent) / 100;
        older <= limit
    }

    /// As many neighbours as there are runs too many, chosen so that the fewest bytes are rewritten for
    /// each byte that joins the largest of them.
    fn merge_surplus(&self, shape: &Shape<'_>) -> Option<Choice> {
        let runs = shape.runs(0);
        let width = (runs.len().checked_sub(self.runs_max)? + 1).max(2);
        if runs.len() <= self.runs_max {
            return None;
        }
        let cost = |begin: &usize| {
            let window = &runs[*begin..begin + width];
            let bytes: u64 = window.iter().map(RunShape::bytes).sum();
            let largest = window.iter().map(RunShape::bytes).max().unwrap_or(0);
            bytes as f64 / (bytes - largest).max(1) as f64
        };
        (0..=runs.len() - width)
            .filter(|&begin| !runs[begin..begin + width].iter().any(RunShape::is_busy))
            .min_by(|a, b| cost(a).total_cmp(&cost(b)))
            .map(|begin| merge_runs(shape, begin..begin + width, "too many runs"))
    }

    fn rewrite_dead(shape: &Shape<'_>) -> Option<Choice> {
        let runs = shape.runs(0);
        let oldest = runs.last()?;
        let dead = |table: &&crate::shape::TableShape<'_>| retire::is_worth_rewriting(table, shape);
        let dead_bytes: u64 = oldest
            .tables
            .iter()
            .filter(dead)
            .map(|table| table.bytes)
            .sum();
        (!oldest.is_busy() && dead_bytes > 0 && dead_bytes * 2 >= oldest.bytes())
            .then(|| merge_runs(shape, runs.len() - 1..runs.len(), "mostly dead"))
    }
}

impl Planner for Tiered {
    fn choose(&self, shape: &Shape<'_>) -> Choice {
        retire::drop_dead(shape)
            .or_else(|| Self::merge_all(shape))
            .or_else(|| self.merge_similar(shape))
            .or_else(|| self.merge_surplus(shape))
            .or_else(|| Self::rewrite_dead(shape))
            .unwrap_or(Choice::Nothing)
    }

    fn choose_range(&self, shape: &Shape<'_>, range: &KeyRange, manual_floor: u64) -> Choice {
        merge_range_of_runs(shape, range, manual_floor)
    }

    /// Slows writers at one and a half times `runs_max`, stops them at three times.
    fn debt(&self, shape: &Shape<'_>) -> Debt {
        let runs = shape.runs(0);
        let running = runs
            .iter()
            .filter(|run| run.is_busy())
            .map(RunShape::bytes)
            .sum::<u64>();
        let next = match self.choose(shape) {
            Choice::Merge(merge) => runs
                .iter()
                .flat_map(|run| &run.tables)
                .filter(|table| {
                    merge
                        .inputs
                        .iter()
                        .any(|input| input.tables.contains(&table.number))
                })
                .map(|table| table.bytes)
                .sum(),
            Choice::Nothing | Choice::Move { .. } | Choice::Drop { .. } => 0,
        };
        let most = self.runs_max as f64;
        Debt {
            bytes: running + next,
            pressure: pressure_between(
                runs.len() as f64,
                most,
                (most * 1.5).max(most + 2.0),
                most * 3.0,
            ),
            reason: if runs.len() > self.runs_max {
                "runs"
            } else {
                "at rest"
            },
        }
    }
}
