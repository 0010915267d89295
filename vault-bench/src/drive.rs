//! Hands operations out to threads, times each, and checks what comes back.
//!
//! Operation `i` of a workload touches a key that follows from `i` and the seed alone, whichever thread
//! runs it. Threads take chunks of consecutive numbers, so that none is left with more than the others.
//! A latency runs from the end of the thread's operation before to the end of this one: one reading of
//! the clock each, and the making of keys and values (some tens of nanoseconds) is part of it, the same
//! for all engines.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use vault_core::clock::{Clock, SystemClock};

use crate::data::{self, Entry, KEY_BYTES, Key};
use crate::error::{Error, Result};
use crate::latency::Latencies;
use crate::measure;
use crate::target::{Direction, Target};
use crate::timeline::Timeline;

/// Most operations that a thread takes at once.
const CHUNK_MAX: u64 = 64;

/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(2);

/// Entries of a scan over everything that count as one step of its timeline.
const SCAN_STEP: u64 = 8192;

/// How a workload is to be driven.
#[derive(Debug, Clone)]
pub struct Drive<'a> {
    /// What to call it in messages about progress.
    pub title: &'a str,
    /// Client threads.
    pub threads: usize,
    /// Operations in all.
    pub operations: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Time after which no more operations are begun; zero: none.
    pub duration_max: Duration,
    /// Whether to tell about progress.
    pub verbose: bool,
}

/// What came of a workload.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Operations done. A batch counts as its entries, a whole scan as what it saw.
    pub operations: u64,
    /// How long they took together.
    pub elapsed: Duration,
    /// How long each took.
    pub latencies: Latencies,
    /// What happened when.
    pub timeline: Timeline,
    /// Reads that gave what was never written, or in the wrong order.
    pub wrong: u64,
    /// Reads that didn't give what had been written.
    pub missing: u64,
    /// Whether the time was up before the operations were done.
    pub cut_short: bool,
    /// Every operation with a number below this was done: all of them, unless it was cut short.
    pub done_below: u64,
}

/// What a thread holds in its hands.
#[derive(Debug)]
pub struct Hands {
    /// Which of the threads it is.
    pub thread: usize,
    /// An entry to write or look up.
    pub entry: Entry,
    /// Entries to write together.
    pub batch: Vec<Entry>,
    /// Reads that were wrong so far.
    pub wrong: u64,
    /// Reads that missed something so far.
    pub missing: u64,
    /// What happened when, as far as this thread did it.
    timeline: Timeline,
    /// Entries of the operation under way that stand in the timeline already.
    counted: u64,
    /// Runs beside the clock of the whole drive, which began this much earlier.
    clock: SystemClock,
    behind: Duration,
}

impl Hands {
    fn new(thread: usize, value_bytes: usize, behind: Duration) -> Self {
        Self {
            thread,
            entry: Entry::with_value_bytes(value_bytes),
            batch: Vec::new(),
            wrong: 0,
            missing: 0,
            timeline: Timeline::default(),
            counted: 0,
            clock: SystemClock::new(),
            behind,
        }
    }

    /// Looks up the key with this number, which must be there.
    ///
    /// # Errors
    /// The engine's own.
    #[inline]
    pub fn get_present(&mut self, target: &dyn Target, number: u64) -> Result<()> {
        let key = data::key(number);
        let bytes = self.entry.value.len();
        let mut right = false;
        let found = target.get(&key, &mut |value| {
            right = value.len() == bytes && data::is_value_of(&key, value);
        })?;
        self.missing += u64::from(!found);
        self.wrong += u64::from(found && !right);
        Ok(())
    }

    /// Looks up the key with this number, which must not be there.
    ///
    /// # Errors
    /// The engine's own.
    #[inline]
    pub fn get_absent(&mut self, target: &dyn Target, number: u64) -> Result<()> {
        let found = target.get(&data::key(number), &mut |_| ())?;
        self.wrong += u64::from(found);
        Ok(())
    }

    /// Scans up to `limit` entries from the key with the number `from` (which must be there), or from
    /// an end of the store. At least `present` must be found. Gives how many were.
    ///
    /// # Errors
    /// The engine's own.
    pub fn scan(
        &mut self,
        target: &dyn Target,
        from: Option<u64>,
        direction: Direction,
        limit: u64,
        present: u64,
    ) -> Result<u64> {
        let from = from.map(data::key);
        let mut check = ScanCheck::new(from, direction, self.entry.value.len());
        target.scan(
            from.as_ref().map(<[u8; KEY_BYTES]>::as_slice),
            direction,
            limit,
            &mut |key, value| {
                check.visit(key, value);
                // A scan over everything is one operation: its course is told by the entries it has passed.
                if check.count.is_multiple_of(SCAN_STEP) {
                    let at = self.behind + self.clock.monotonic();
                    self.timeline.record(at.as_nanos() as u64, SCAN_STEP, 0);
                    self.counted += SCAN_STEP;
                }
            },
        )?;
        self.wrong += check.wrong + check.count.saturating_sub(limit);
        self.missing += present.saturating_sub(check.count);
        Ok(check.count)
    }
}

/// Checks the entries of a scan: where it starts, in which order they come, whether each value is its
/// key's.
struct ScanCheck {
    direction: Direction,
    value_bytes: usize,
    /// The key the scan must begin with.
    first: Option<Key>,
    last: u128,
    count: u64,
    wrong: u64,
}

impl ScanCheck {
    fn new(first: Option<Key>, direction: Direction, value_bytes: usize) -> Self {
        Self {
            direction,
            value_bytes,
            first,
            last: 0,
            count: 0,
            wrong: 0,
        }
    }

    #[inline]
    fn visit(&mut self, key: &[u8], value: &[u8]) {
        // Big-endian numbers stand in the order of their bytes, and compare in one instruction.
        let at = <&Key>::try_from(key).map_or(0, |key| u128::from_be_bytes(*key));
        let in_order = if self.count == 0 {
            self.first.is_none_or(|first| first == key)
        } else {
            match self.direction {
                Direction::Forward => at > self.last,
                Direction::Backward => at < self.last,
            }
        };
        let right = in_order && value.len() == self.value_bytes && data::is_value_of(key, value);
        self.wrong += u64::from(!right);
        self.last = at;
        self.count += 1;
    }
}

/// Runs `operation` for each number below [`Drive::operations`]. It gives what the operation counts as.
///
/// # Errors
/// The first error of any operation, after all threads have stopped.
pub fn drive<F>(how: &Drive<'_>, operation: F) -> Result<Outcome>
where
    F: Fn(&mut Hands, u64) -> Result<u64> + Sync,
{
    let clock = SystemClock::new();
    let shared = Shared {
        how,
        clock: &clock,
        next: AtomicU64::new(0),
        stopped: AtomicBool::new(false),
        // Each thread should come back for more about 64 times, so that they end together.
        chunk: (how.operations / (how.threads as u64 * 64)).clamp(1, CHUNK_MAX),
    };
    let parts: Vec<Result<Outcome>> = std::thread::scope(|scope| {
        let run = |thread| {
            let (shared, operation) = (&shared, &operation);
            scope.spawn(move || shared.run(thread, operation))
        };
        let threads: Vec<_> = (0..how.threads).map(run).collect();
        let join = |handle: std::thread::ScopedJoinHandle<'_, Result<Outcome>>| {
            handle.join().unwrap_or_else(|_| {
                let message = "a client thread panicked inside the engine";
                Err(Error::engine(how.title, &message))
            })
        };
        threads.into_iter().map(join).collect()
    });
    let mut all = Outcome {
        elapsed: clock.monotonic(),
        done_below: how.operations,
        ..Outcome::default()
    };
    for part in parts {
        let part = part?;
        all.operations += part.operations;
        all.latencies.merge(&part.latencies);
        all.timeline.merge(part.timeline);
        all.wrong += part.wrong;
        all.missing += part.missing;
        all.cut_short |= part.cut_short;
        all.done_below = all.done_below.min(part.done_below);
    }
    Ok(all)
}

struct Shared<'a> {
    how: &'a Drive<'a>,
    clock: &'a SystemClock,
    next: AtomicU64,
    /// Set by a thread that failed, so that the others don't go on for minutes.
    stopped: AtomicBool,
    chunk: u64,
}

impl Shared<'_> {
    fn run<F>(&self, thread: usize, operation: &F) -> Result<Outcome>
    where
        F: Fn(&mut Hands, u64) -> Result<u64>,
    {
        let mut hands = Hands::new(thread, self.how.value_bytes, self.clock.monotonic());
        let mut outcome = Outcome {
            done_below: self.how.operations,
            ..Outcome::default()
        };
        let result = self.run_chunks(&mut hands, &mut outcome, operation);
        if let Err(error) = result {
            self.stopped.store(true, Ordering::Relaxed);
            return Err(error);
        }
        outcome.wrong = hands.wrong;
        outcome.missing = hands.missing;
        outcome.timeline = hands.timeline;
        Ok(outcome)
    }

    fn run_chunks<F>(&self, hands: &mut Hands, outcome: &mut Outcome, operation: &F) -> Result<()>
    where
        F: Fn(&mut Hands, u64) -> Result<u64>,
    {
        let total = self.how.operations;
        let mut before = self.clock.monotonic();
        let mut told = before;
        while !self.stopped.load(Ordering::Relaxed) {
            let start = self.next.fetch_add(self.chunk, Ordering::Relaxed);
            if start >= total {
                break;
            }
            for i in start..(start + self.chunk).min(total) {
                let done = operation(hands, i)?;
                let now = self.clock.monotonic();
                let took_ns = (now - before).as_nanos() as u64;
                outcome.operations += done;
                outcome.latencies.record(took_ns);
                let told = std::mem::take(&mut hands.counted);
                // The time of a whole scan is no stall, wherever it ends.
                let longest_ns = if told > 0 { 0 } else { took_ns };
                hands
                    .timeline
                    .record(now.as_nanos() as u64, done.saturating_sub(told), longest_ns);
                before = now;
                // After each operation: one of some engines and workloads may take seconds.
                if !self.how.duration_max.is_zero() && before >= self.how.duration_max {
                    outcome.cut_short = i + 1 < total;
                    outcome.done_below = i + 1;
                    return Ok(());
                }
            }
            if hands.thread == 0 && self.how.verbose && before - told >= PROGRESS {
                told = before;
                let percent = 100.0 * start as f64 / total as f64;
                let rate = start as f64 / before.as_secs_f64();
                measure::say(&format!(
                    "    {:<12} {percent:3.0} %  {rate:>10.0} operations/s",
                    self.how.title
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn how(operations: u64) -> Drive<'static> {
        Drive {
            title: "test",
            threads: 3,
            operations,
            value_bytes: 100,
            duration_max: Duration::ZERO,
            verbose: false,
        }
    }

    #[test]
    fn each_operation_runs_once() {
        for operations in [1, 2, 63, 64, 1000, 100_000] {
            let sum = AtomicU64::new(0);
            let outcome = drive(&how(operations), |_, i| {
                sum.fetch_add(i, Ordering::Relaxed);
                Ok(2)
            })
            .unwrap();
            assert_eq!(outcome.operations, 2 * operations);
            assert_eq!(outcome.latencies.count(), operations);
            assert_eq!(sum.into_inner(), operations * (operations - 1) / 2);
            let course = outcome.timeline.finish();
            assert_eq!(course.operations.iter().sum::<u64>(), outcome.operations);
            let longest_us = outcome.latencies.max_ns() / 1000;
            assert_eq!(course.longest_us.iter().max(), Some(&longest_us));
        }
    }

    #[test]
    fn an_error_stops_all_threads() {
        let done = AtomicU64::new(0);
        let error = drive(&how(10_000_000), |_, i| {
            done.fetch_add(1, Ordering::Relaxed);
            if i == 1000 {
                return Err(Error::engine("x", &"broken"));
            }
            Ok(1)
        });
        assert_eq!(error.unwrap_err().to_string(), "x: broken");
        assert!(done.into_inner() < 10_000_000);
    }

    #[test]
    fn time_that_is_up_cuts_short() {
        let mut short = how(u64::MAX / 2);
        short.duration_max = Duration::from_millis(20);
        let outcome = drive(&short, |_, _| Ok(1)).unwrap();
        assert!(outcome.cut_short && outcome.elapsed < Duration::from_secs(5));
        assert!(outcome.done_below > 0 && outcome.done_below <= outcome.operations);
    }

    #[test]
    fn a_scan_check_notices_order_start_and_values() {
        let mut entry = Entry::with_value_bytes(100);
        let mut visits = |numbers: &[u64], first: Option<u64>, direction, spoil: bool| {
            let mut check = ScanCheck::new(first.map(data::key), direction, 100);
            for &number in numbers {
                entry.fill(number, 0);
                entry.value[0] ^= u8::from(spoil);
                check.visit(&entry.key, &entry.value);
            }
            check.wrong
        };
        assert_eq!(visits(&[4, 8, 12], Some(4), Direction::Forward, false), 0);
        assert_eq!(visits(&[12, 8, 4], None, Direction::Backward, false), 0);
        assert_eq!(visits(&[4, 12, 8], None, Direction::Forward, false), 1);
        assert_eq!(visits(&[4, 8, 8], None, Direction::Backward, false), 2);
        assert_eq!(visits(&[8, 12], Some(4), Direction::Forward, false), 1);
        assert_eq!(visits(&[4, 8], None, Direction::Forward, true), 2);
    }
}
