//! The shapes of work that are no plain stream of operations: deletes, queues, expiry, snapshots, a fixed rate.
//!
//! Each is a function from a [`Shape`] (an open store and what the run was asked for) to a [`Shaped`]: figures like those of
//! any workload, and further ones by name. As everywhere, all that is read is checked.
//!
//! - [`gap`]: half of the keys deleted, then reads across the gap;
//! - [`mixed`]: deletes, writes and reads of random keys;
//! - [`queue`]: push and pop;
//! - [`drain`]: everything deleted, and what becomes of the directory;
//! - [`expiry`]: entries that expire, written all the time;
//! - [`held`]: a snapshot that is held while others overwrite;
//! - [`tails`]: writes at a fixed rate.

pub mod drain;
pub mod expiry;
pub mod gap;
pub mod held;
pub mod mixed;
pub mod queue;
mod states;
pub mod tails;

use std::path::Path;
use std::time::Duration;

use vault_core::clock::{Clock, SystemClock};

use crate::data::{self, Entry, mix};
use crate::drive::{Drive, Outcome, drive};
use crate::error::Result;
use crate::measure;
use crate::permutation::Permutation;
use crate::settings::{BATCH_OPERATIONS, Settings};
use crate::target::{Direction, Target};
use crate::workload::Workload;

/// How often the size of a directory is looked at while it is waited for.
const LOOK: Duration = Duration::from_millis(100);

/// What a shape works on.
#[derive(Clone, Copy)]
pub struct Shape<'a> {
    /// The workload.
    pub workload: Workload,
    /// An open store: empty, loaded or with a gap, as [`Workload::needs`] says.
    pub target: &'a dyn Target,
    /// Its directory.
    pub dir: &'a Path,
    /// The settings of the run.
    pub settings: &'a Settings,
    /// The order in which fills go through the key space.
    pub order: &'a Permutation,
    /// Tells the values that are written now from those before them; later ones may be used too.
    pub generation: u64,
    /// Whether to tell about progress.
    pub verbose: bool,
}

/// What came of a shape.
#[derive(Debug, Default)]
pub struct Shaped {
    /// As of any workload.
    pub outcome: Outcome,
    /// Further figures, by name.
    pub details: Vec<(&'static str, f64)>,
}

impl<'a> Shape<'a> {
    /// Runs the workload. `None` where it is not one of the shapes.
    #[must_use]
    pub fn run(&self) -> Option<Result<Shaped>> {
        Some(match self.workload {
            Workload::DeleteHalf | Workload::DeleteHalfRange => gap::delete(self),
            Workload::GapScan | Workload::GapScanSettled => gap::scan(self),
            Workload::GapSeek | Workload::GapSeekSettled => gap::seek(self),
            Workload::DeleteMix => mixed::run(self),
            Workload::Queue => queue::run(self),
            Workload::Drain | Workload::DrainRange | Workload::DrainExpiry => drain::run(self),
            Workload::Expiry => expiry::run(self),
            Workload::HeldSnapshot => held::run(self),
            Workload::Tails => tails::run(self),
            _ => return None,
        })
    }

    fn how(&self, title: &'a str, operations: u64) -> Drive<'a> {
        Drive {
            title,
            threads: self.workload.threads(self.settings),
            operations,
            value_bytes: self.settings.value_bytes,
            duration_max: Duration::from_secs(self.settings.duration_max_s),
            verbose: self.verbose,
        }
    }

    /// Sets the keys from loaded entry `begin` up to `end`, in ascending order, unmeasured.
    fn load(&self, begin: u64, end: u64) -> Result<()> {
        let mut how = self.how("load", (end - begin).div_ceil(BATCH_OPERATIONS as u64));
        how.duration_max = Duration::ZERO;
        drive(&how, |hands, i| {
            let start = begin + i * BATCH_OPERATIONS as u64;
            let count = (end - start).min(BATCH_OPERATIONS as u64);
            let bytes = self.settings.value_bytes;
            hands
                .batch
                .resize_with(count as usize, || Entry::with_value_bytes(bytes));
            for (entry, index) in hands.batch.iter_mut().zip(start..) {
                entry.fill(data::loaded(index), self.generation);
            }
            self.target.put_batch(&hands.batch)?;
            Ok(count)
        })?;
        Ok(())
    }

    /// An order of the loaded entries of its own for each `turn`.
    fn shuffled(&self, entries: u64, turn: u64) -> Permutation {
        let seed = mix(self.settings.seed ^ mix(self.workload as u64)) ^ mix(turn);
        Permutation::new(entries, seed)
    }

    /// Bytes that the store takes up on the disk.
    fn disk_bytes(&self) -> Result<u64> {
        measure::disk_usage(self.dir).map(|(_, allocated)| allocated)
    }

    /// Waits until the store takes up no more than `goal` bytes, as long as the settings allow. Gives how long that took,
    /// and what it takes up then. Nobody asks the store for anything meanwhile.
    fn wait_for_space(&self, goal: u64) -> Result<(Duration, u64)> {
        let clock = SystemClock::new();
        let at_most = Duration::from_millis(self.settings.shrink_wait_ms);
        loop {
            let bytes = self.disk_bytes()?;
            let waited = clock.monotonic();
            if bytes <= goal || waited >= at_most {
                return Ok((waited, bytes));
            }
            clock.sleep(LOOK.min(at_most));
        }
    }

    /// Counts the entries of the whole store, none of which should be there.
    fn count_entries(&self) -> Result<u64> {
        let mut count = 0;
        self.target
            .scan(None, Direction::Forward, u64::MAX, &mut |_, _| count += 1)?;
        Ok(count)
    }
}

/// What came of something that is done once.
fn once(elapsed: Duration) -> Outcome {
    let mut outcome = Outcome {
        operations: 1,
        elapsed,
        ..Outcome::default()
    };
    outcome.latencies.record(elapsed.as_nanos() as u64);
    outcome
}
