//! What happened when: operations and the longest of them by interval, and memory over time.
//!
//! # Operations
//! Each thread keeps a [`Timeline`] of its own and fills it with the clock readings that its latencies
//! need anyway, so that an operation costs a comparison and two additions more, and no cache line is
//! shared. Intervals begin at [`INTERVAL_MIN`]; whenever [`CELLS_MAX`] of them are full, neighbours are
//! added up and the interval doubles. A workload of any length so ends with 100 to 200 intervals, if it
//! takes a second or more. `vault-bench sampling-cost` measures what an operation pays.
//!
//! # Memory
//! [`watch_memory`] looks at the process from a thread of its own, at intervals that double likewise:
//! resident and private memory as the operating system counts them, and what the engine says it holds.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vault_core::clock::{Clock, SystemClock};

use crate::measure;
use crate::target::Target;

/// Most intervals of a timeline, and most looks at the memory.
pub const CELLS_MAX: usize = 200;
/// The interval that a timeline begins with.
pub const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// How often the memory is looked at to begin with.
const MEMORY_INTERVAL_MIN: Duration = Duration::from_millis(25);

/// Operations, and the longest of them, by interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    interval_ns: u64,
    /// For each interval: operations that ended in it, and the longest of them in nanoseconds.
    cells: Vec<(u64, u64)>,
    /// The interval that is being filled, kept apart so that the common case touches nothing else.
    now: (u64, u64),
    now_ends_ns: u64,
}

impl Default for Timeline {
    fn default() -> Self {
        let interval_ns = INTERVAL_MIN.as_nanos() as u64;
        Self {
            interval_ns,
            cells: Vec::with_capacity(CELLS_MAX),
            now: (0, 0),
            now_ends_ns: interval_ns,
        }
    }
}

impl Timeline {
    /// Counts operations that ended at this time since the beginning, the longest of which took so long.
    #[inline]
    pub fn record(&mut self, at_ns: u64, operations: u64, longest_ns: u64) {
        if at_ns >= self.now_ends_ns {
            self.advance(at_ns);
        }
        self.now.0 += operations;
        self.now.1 = self.now.1.max(longest_ns);
    }

    /// Goes on to the interval that holds this time. Those in between, in which nothing ended, stay empty.
    #[cold]
    fn advance(&mut self, at_ns: u64) {
        self.cells.push(self.now);
        self.now = (0, 0);
        // The time lies behind all intervals, and so it does after each doubling: they fill half the room then,
        // and the time is in the other half or farther.
        while at_ns / self.interval_ns >= CELLS_MAX as u64 {
            self.double();
        }
        let index = (at_ns / self.interval_ns) as usize;
        self.cells.resize(index, (0, 0));
        self.now_ends_ns = (index as u64 + 1) * self.interval_ns;
    }

    fn double(&mut self) {
        let pairs = self.cells.chunks(2).map(|pair| {
            pair.iter().fold((0, 0), |sum, cell| {
                (sum.0 + cell.0, u64::max(sum.1, cell.1))
            })
        });
        self.cells = pairs.collect();
        self.interval_ns *= 2;
    }

    /// Adds what another thread has counted.
    pub fn merge(&mut self, mut other: Self) {
        self.close();
        other.close();
        while self.interval_ns < other.interval_ns {
            self.double();
        }
        while other.interval_ns < self.interval_ns {
            other.double();
        }
        let longer = self.cells.len().max(other.cells.len());
        self.cells.resize(longer, (0, 0));
        for (mine, theirs) in self.cells.iter_mut().zip(other.cells) {
            mine.0 += theirs.0;
            mine.1 = mine.1.max(theirs.1);
        }
    }

    /// Ends the interval that is being filled. Nothing is recorded afterwards.
    fn close(&mut self) {
        if self.now != (0, 0) {
            self.cells.push(self.now);
            self.now = (0, 0);
        }
    }

    /// The timeline as it is kept.
    #[must_use]
    pub fn finish(mut self) -> Course {
        self.close();
        Course {
            interval_ms: self.interval_ns / 1_000_000,
            operations: self.cells.iter().map(|cell| cell.0).collect(),
            longest_us: self.cells.iter().map(|cell| cell.1 / 1000).collect(),
        }
    }
}

/// The course of a workload, interval by interval.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// How long an interval is.
    pub interval_ms: u64,
    /// Operations that ended in each.
    pub operations: Vec<u64>,
    /// The longest of them, in microseconds.
    pub longest_us: Vec<u64>,
}

/// What an engine says of its own memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accounted {
    /// What it holds.
    pub used_bytes: u64,
    /// What it may hold; 0 where it has no such bound.
    pub budget_bytes: u64,
}

/// Memory over time. All lists are of one length.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryCourse {
    /// Milliseconds since the step began.
    pub at_ms: Vec<u64>,
    /// Resident memory, in KiB: file mappings included.
    pub resident_kib: Vec<u64>,
    /// Of this, what no file stands behind.
    pub private_kib: Vec<u64>,
    /// What the engine says it holds; empty where it does not tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accounted_kib: Vec<u64>,
    /// The most it said in any look, those that were left out since included.
    #[serde(default)]
    pub accounted_peak_kib: u64,
    /// The engine's own bound on that; 0 where it has none.
    #[serde(default)]
    pub budget_kib: u64,
}

impl MemoryCourse {
    fn look(&mut self, at: Duration, target: Option<&dyn Target>) {
        let (resident, private) = measure::memory_now_bytes();
        self.at_ms.push(at.as_millis() as u64);
        self.resident_kib.push(resident >> 10);
        self.private_kib.push(private >> 10);
        if let Some(accounted) = target.and_then(Target::memory) {
            let used_kib = accounted.used_bytes >> 10;
            self.accounted_kib.push(used_kib);
            self.accounted_peak_kib = self.accounted_peak_kib.max(used_kib);
            self.budget_kib = accounted.budget_bytes >> 10;
        }
    }

    /// Leaves out every other look.
    fn thin(&mut self) {
        for list in [
            &mut self.at_ms,
            &mut self.resident_kib,
            &mut self.private_kib,
            &mut self.accounted_kib,
        ] {
            let mut index = 0;
            list.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
    }
}

/// Does some work, and looks at the memory meanwhile.
pub fn watch_memory<T>(target: Option<&dyn Target>, work: impl FnOnce() -> T) -> (T, MemoryCourse) {
    let clock = SystemClock::new();
    std::thread::scope(|scope| {
        // Dropping the sender is what ends the watching, at once and also if the work panics.
        let (working, ended) = mpsc::channel::<()>();
        let watcher = scope.spawn(move || {
            let begun = clock.monotonic();
            let (mut course, mut interval) = (MemoryCourse::default(), MEMORY_INTERVAL_MIN);
            loop {
                course.look(clock.monotonic() - begun, target);
                if course.at_ms.len() >= CELLS_MAX {
                    course.thin();
                    interval *= 2;
                }
                if ended.recv_timeout(interval) != Err(RecvTimeoutError::Timeout) {
                    course.look(clock.monotonic() - begun, target);
                    return course;
                }
            }
        });
        let outcome = work();
        drop(working);
        (outcome, watcher.join().unwrap_or_default())
    })
}

/// Nanoseconds that an operation pays for its place in a timeline, as this machine measures it now.
#[must_use]
pub fn cost_of_recording_ns(operations: u64) -> f64 {
    let clock = SystemClock::new();
    let mut timeline = Timeline::default();
    // An operation of 500 ns, which none of the engines' is shorter than by much.
    const OPERATION_NS: u64 = 500;
    let mut pass = |record: bool| {
        let begun = clock.monotonic();
        let mut at = 0;
        for i in 0..operations {
            at += std::hint::black_box(OPERATION_NS + (i & 63));
            if record {
                timeline.record(at, 1, OPERATION_NS);
            }
        }
        std::hint::black_box(&mut timeline);
        timeline = Timeline::default();
        (clock.monotonic() - begun).as_nanos() as f64 / operations as f64
    };
    let (without, with) = (pass(false), pass(true));
    (with - without).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn each_operation_is_counted_in_the_interval_it_ended_in() {
        let mut timeline = Timeline::default();
        for (at_ms, longest) in [(1, 5000), (9, 9000), (10, 1000), (35, 25_000_000)] {
            timeline.record(at_ms * MS, 1, longest);
        }
        let course = timeline.finish();
        assert_eq!(course.interval_ms, 10);
        // Nothing ended in the third interval: the last operation was a stall across it.
        assert_eq!(course.operations, [2, 1, 0, 1]);
        assert_eq!(course.longest_us, [9, 1, 0, 25_000]);
    }

    #[test]
    fn long_runs_keep_every_operation_in_at_most_two_hundred_intervals() {
        for seconds in [1_u64, 2, 3, 17, 600, 86_400] {
            let (mut timeline, operations) = (Timeline::default(), 10_000);
            for i in 0..operations {
                timeline.record(i * seconds * 1000 * MS / operations, 1, i);
            }
            let course = timeline.finish();
            let cells = course.operations.len();
            assert!((100..=CELLS_MAX).contains(&cells), "{seconds} s: {cells}");
            assert_eq!(course.operations.iter().sum::<u64>(), operations);
            assert_eq!(course.longest_us.iter().max(), Some(&9));
            // All alike: none of the intervals was filled twice or missed.
            let (first, last) = (course.operations[0], course.operations[cells / 2]);
            assert!(first.abs_diff(last) <= 1, "{seconds} s: {first} and {last}");
        }
    }

    #[test]
    fn a_jump_far_ahead_doubles_as_often_as_it_takes() {
        let mut timeline = Timeline::default();
        timeline.record(0, 1, 1);
        timeline.record(3_600_000 * MS, 1, 2000);
        timeline.record(3_600_001 * MS, 1, 3000);
        let course = timeline.finish();
        assert_eq!(course.operations.iter().sum::<u64>(), 3);
        assert_eq!(
            (course.operations[0], course.longest_us.last()),
            (1, Some(&3))
        );
        assert!(course.operations.len() <= CELLS_MAX);
    }

    #[test]
    fn threads_of_different_lengths_are_added_up() {
        let (mut short, mut long) = (Timeline::default(), Timeline::default());
        for i in 0..100 {
            short.record(i * MS, 1, 7000);
            long.record(i * 100 * MS, 1, 5000);
        }
        long.merge(short);
        let course = long.finish();
        assert_eq!(course.operations.iter().sum::<u64>(), 200);
        assert_eq!(course.longest_us[0], 7);
    }

    #[test]
    fn memory_is_watched_while_the_work_goes_on() {
        let (kept, course) = watch_memory(None, || std::hint::black_box(vec![1_u8; 1 << 20]));
        assert_eq!(kept.len(), 1 << 20);
        assert!(course.at_ms.len() >= 2 && course.resident_kib.iter().all(|&kib| kib > 100));
        assert_eq!(course.at_ms.len(), course.private_kib.len());
        assert!(course.accounted_kib.is_empty());
    }

    #[test]
    fn thinning_keeps_the_lists_together() {
        let list: Vec<u64> = (0..9).collect();
        let mut course = MemoryCourse {
            at_ms: list.clone(),
            resident_kib: list.clone(),
            private_kib: list,
            ..MemoryCourse::default()
        };
        course.thin();
        assert_eq!(course.at_ms, [0, 2, 4, 6, 8]);
        assert_eq!(
            (&course.resident_kib, course.accounted_kib.len()),
            (&course.at_ms, 0)
        );
    }
}
