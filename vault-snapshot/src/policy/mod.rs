//! The compaction policies: what to merge, move or drop next.
//!
//! A [`Planner`] is a pure function from the [`Shape`] of a keyspace to a [`Choice`]. The engine asks
//! after each change, acts, and asks again; several choices may run at once, as tables that a running
//! one reads are marked `busy` in the shape.
//!
//! Invariants of every choice:
//! - no busy table is chosen, and nothing that a running merge may write over;
//! - age order holds: data never passes older data of the same key on its way down. The inputs of a
//!   merge leave out nothing that overlaps them and lies between them in age;
//! - only whole runs, or tables that share no key with what stays, leave a run;
//! - once writes stop, [`Choice::Nothing`] is reached.

mod fifo;
mod leveled;
mod retire;
mod tiered;

use vault_core::{CompactionPolicy, KeyRange};

use crate::shape::{RunShape, Shape};

pub use leveled::{LEVELS, REST_RATIO};

/// A merge: reads the inputs, writes one sorted run in their place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compaction {
    /// What it reads, newest first.
    pub inputs: Vec<InputRun>,
    /// The level that the outcome joins.
    pub output_level: usize,
    /// Where in that level.
    pub placement: Placement,
    /// Whether nothing older than the inputs overlaps them anywhere else: deletes may vanish.
    pub bottommost: bool,
    /// Why, for statistics and events.
    pub reason: &'static str,
}

/// Tables of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputRun {
    /// The level of the run.
    pub level: usize,
    /// Numbers of the tables, ascending by key.
    pub tables: Vec<u64>,
}

/// Where the outcome of a merge goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Into the single run of the output level, between the tables that stay (leveled).
    ReplaceRun,
    /// The outcome is a run of its own, in the place of the inputs among the runs of the level.
    NewRun {},
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// All is well, or what should be done waits for a running merge.
    Nothing,
    /// Merge tables.
    Merge(Compaction),
    /// Take a table out of its run and put it as it is into the single run of another level.
    Move {
        /// The level it is in.
        level: usize,
        /// Its number.
        table: u64,
        /// The level it goes to.
        to_level: usize,
        /// Why.
        reason: &'static str,
    },
    /// Remove tables whole, all of them at once.
    Drop {
        /// Level and number of each.
        tables: Vec<(usize, u64)>,
        /// Why.
        reason: &'static str,
    },
}

/// How far a keyspace is from rest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Debt {
    /// Bytes to rewrite until it is at rest, estimated.
    pub bytes: u64,
    /// 0 at rest; from 1 on writers should slow down, at 2 they should stop. At most 2.
    pub pressure: f64,
    /// What the pressure comes from.
    pub reason: &'static str,
}

impl Debt {
    /// No debt.
    pub const NONE: Self = Self {
        bytes: 0,
        pressure: 0.0,
        reason: "at rest",
    };
}

/// A compaction policy.
pub trait Planner: Send + Sync {
    /// What to do next of its own accord.
    fn choose(&self, shape: &Shape<'_>) -> Choice;

    /// The next step of a compaction of `range` that someone asked for; to be repeated until
    /// [`Choice::Nothing`] while no table is busy. Tables with a number of at least `manual_floor`
    /// were written since that compaction began: they are not rewritten for its sake again.
    ///
    /// It ends if nothing but its own steps adds to the levels below the first meanwhile: the engine
    /// holds other merges of the keyspace back, flushes go on.
    fn choose_range(&self, shape: &Shape<'_>, range: &KeyRange, manual_floor: u64) -> Choice;

    /// How far the keyspace is from rest.
    fn debt(&self, shape: &Shape<'_>) -> Debt;
}

/// The planner of a policy.
///
/// ```
/// use vault_core::CompactionPolicy;
/// use vault_snapshot::{Choice, Shape, planner};
/// let planner = planner(&CompactionPolicy::LEVELED);
/// assert_eq!(planner.choose(&Shape::default()), Choice::Nothing);
/// ```
#[must_use]
pub fn planner(policy: &CompactionPolicy) -> Box<dyn Planner> {
    match *policy {
        CompactionPolicy::Leveled {
            level0_runs,
            base_bytes,
            fanout,
        } => Box::new(leveled::Leveled::new(level0_runs, base_bytes, fanout)),
        CompactionPolicy::Tiered {
            runs_min,
            runs_max,
            size_ratio_percent,
        } => Box::new(tiered::Tiered::new(runs_min, runs_max, size_ratio_percent)),
        CompactionPolicy::Fifo { bytes_max } => Box::new(fifo::Fifo { bytes_max }),
    }
}

/// Names all tables of a run as an input.
fn whole_run(level: usize, run: &RunShape<'_>) -> InputRun {
    InputRun {
        level,
        tables: run.tables.iter().map(|table| table.number).collect(),
    }
}

/// Merges whole neighbouring runs of level 0 into one run in their place.
fn merge_runs(shape: &Shape<'_>, runs: std::ops::Range<usize>, reason: &'static str) -> Choice {
    let inputs = &shape.runs(0)[runs.clone()];
    let Some(span) = inputs
        .iter()
        .filter_map(RunShape::span)
        .reduce(|a, b| a.union(&b))
    else {
        return Choice::Nothing;
    };
    Choice::Merge(Compaction {
        bottommost: !shape.older_overlaps(0, runs.end - 1, &span),
        inputs: inputs.iter().map(|run| whole_run(0, run)).collect(),
        output_level: 0,
        placement: Placement::NewRun {},
        reason,
    })
}

/// The manual step of the policies that keep everything in level 0: the runs that hold keys of the
/// range become one, and a single one that may hold garbage is rewritten once.
fn merge_range_of_runs(shape: &Shape<'_>, range: &KeyRange, manual_floor: u64) -> Choice {
    let runs = shape.runs(0);
    let overlapping = |run: &&RunShape<'_>| !run.within(range).is_empty();
    let is_old = |run: &&RunShape<'_>| run.tables.iter().any(|table| table.number < manual_floor);
    // Runs that were flushed after the compaction began are newer than all others: they stay out, so
    // that it ends however fast new ones come.
    let newest = runs
        .iter()
        .position(|run| overlapping(&run) && is_old(&run));
    let oldest = runs.iter().rposition(|run| overlapping(&run));
    let (Some(newest), Some(oldest)) = (newest, oldest) else {
        return Choice::Nothing;
    };
    if runs[newest..=oldest].iter().any(RunShape::is_busy) {
        return Choice::Nothing;
    }
    let single_and_clean = newest == oldest
        && !runs[newest]
            .within(range)
            .iter()
            .any(|table| retire::may_hold_garbage(table));
    if single_and_clean {
        return Choice::Nothing;
    }
    merge_runs(shape, newest..oldest + 1, "asked for")
}

/// 0 at `rest`, 1 at `slow`, 2 at `stop`, linear between.
fn pressure_between(value: f64, rest: f64, slow: f64, stop: f64) -> f64 {
    if value <= rest {
        0.0
    } else if value <= slow {
        (value - rest) / (slow - rest)
    } else if value < stop {
        1.0 + (value - slow) / (stop - slow)
    } else {
        2.0
    }
}
