//! FIFO: the oldest runs go when the keyspace is over its size.
//!
//! Dropping data is what this policy is for: what is old vanishes, expired or not, deleted or not. As
//! it is always the oldest run that goes, nothing older can come to light. Invariants:
//! - after the last step the runs are within `bytes_max`, or only the newest is left (a store that is
//!   smaller than one flush would else never hold anything);
//! - runs are merged only to bound their number: neighbours far smaller than a table. The outcome is
//!   at most a table, and at most an eighth of the keyspace, so that little goes at once.

use vault_core::KeyRange;

use super::{Choice, Debt, Planner, merge_range_of_runs, merge_runs, retire};
use crate::shape::{RunShape, Shape};

/// So many small neighbours are left alone.
const SMALL_RUNS_MAX: usize = 16;
/// A run is small if it is below this fraction of what merging aims at.
const SMALL_FRACTION: u64 = 8;

pub(super) struct Fifo {
    pub(super) bytes_max: u64,
}

impl Planner for Fifo {
    fn choose(&self, shape: &Shape<'_>) -> Choice {
        retire::drop_dead(shape)
            .or_else(|| self.drop_oldest(shape))
            .unwrap_or_else(|| self.merge_small(shape))
    }

    fn choose_range(&self, shape: &Shape<'_>, range: &KeyRange, manual_floor: u64) -> Choice {
        merge_range_of_runs(shape, range, manual_floor)
    }

    /// Dropping is instant, so there is never a reason to slow writers down.
    fn debt(&self, _shape: &Shape<'_>) -> Debt {
        Debt::NONE
    }
}

impl Fifo {
    fn drop_oldest(&self, shape: &Shape<'_>) -> Option<Choice> {
        let runs = shape.runs(0);
        let mut bytes: u64 = runs.iter().map(RunShape::bytes_with_values).sum();
        let mut tables = Vec::new();
        for run in runs.iter().skip(1).rev() {
            // A busy run is about to be replaced by one of the same age: wait, rather than drop newer.
            if bytes <= self.bytes_max || run.is_busy() {
                break;
            }
            bytes -= run.bytes_with_values();
            tables.extend(run.tables.iter().map(|table| (0, table.number)));
        }
        (!tables.is_empty()).then_some(Choice::Drop {
            tables,
            reason: "over its size",
        })
    }

    fn merge_small(&self, shape: &Shape<'_>) -> Choice {
        let runs = shape.runs(0);
        let goal = shape.table_bytes.min(self.bytes_max / 8);
        let is_small = |run: &RunShape<'_>| !run.is_busy() && run.bytes() < goal / SMALL_FRACTION;
        let mut end = runs.len();
        while end > 0 {
            let begin = runs[..end]
                .iter()
                .rposition(|run| !is_small(run))
                .map_or(0, |big| big + 1);
            if end - begin > SMALL_RUNS_MAX {
                let mut bytes = 0;
                let fitting = runs[begin..end].iter().rev().take_while(|run| {
                    bytes += run.bytes();
                    bytes <= goal
                });
                return merge_runs(shape, end - fitting.count()..end, "many small runs");
            }
            end = begin.saturating_sub(1);
        }
        Choice::Nothing
    }
}
