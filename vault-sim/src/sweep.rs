//! Many seeds, on several threads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use vault_core::clock::{Clock, SystemClock};

use crate::guard::run_guarded;
use crate::plan::{Plan, Wanted};
use crate::report::{Failure, Report};

/// A seed takes a fraction of a second. One that takes this long does not end.
const SEED_MAX: Duration = Duration::from_secs(120);
/// How often whoever waits looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sweep {
    /// The first seed.
    pub from: u64,
    /// How many seeds; `None`: until the time is over.
    pub seeds: Option<u64>,
    /// How long at most.
    pub time: Option<Duration>,
    /// Threads.
    pub jobs: usize,
    /// Whether the others go on when one fails.
    pub keep_going: bool,
    /// Whether stores are encrypted.
    pub wanted: Wanted,
}

/// What a sweep came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The seeds that passed, together.
    pub report: Report,
    /// Those that failed.
    pub failed: Vec<FailedSeed>,
}

/// A seed that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedSeed {
    /// The seed.
    pub seed: u64,
    /// What went wrong.
    pub failure: Failure,
}

/// How far a sweep is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Seeds that passed.
    pub passed: u64,
    /// Time that went by.
    pub elapsed: Duration,
}

struct Shared {
    sweep: Sweep,
    clock: SystemClock,
    next: AtomicU64,
    stop: AtomicBool,
    report: Mutex<Report>,
    failed: Mutex<Vec<FailedSeed>>,
    /// The seeds at work, with when they began.
    running: Mutex<BTreeMap<u64, Duration>>,
}

/// Runs seeds until there are no more, one fails, or the time is over. A seed that does not end is a
/// failure that ends the sweep; its thread is left behind.
pub fn run(sweep: Sweep, progress: &mut dyn FnMut(Progress)) -> Outcome {
    let shared: &'static Shared = Box::leak(Box::new(Shared {
        sweep,
        clock: SystemClock::new(),
        next: AtomicU64::new(sweep.from),
        stop: AtomicBool::new(false),
        report: Mutex::default(),
        failed: Mutex::default(),
        running: Mutex::default(),
    }));
    let threads: Vec<_> = (0..sweep.jobs.max(1))
        .map(|_| std::thread::spawn(|| work(shared)))
        .collect();
    while !threads.iter().all(std::thread::JoinHandle::is_finished) {
        shared.clock.sleep(LOOK_EVERY);
        let elapsed = shared.clock.monotonic();
        let passed = lock(&shared.report).seeds;
        progress(Progress { passed, elapsed });
        if let Some(stuck) = shared.stuck(elapsed) {
            lock(&shared.failed).push(stuck);
            break;
        }
    }
    Outcome {
        report: lock(&shared.report).clone(),
        failed: std::mem::take(&mut *lock(&shared.failed)),
    }
}

impl Shared {
    fn take_seed(&self) -> Option<u64> {
        let over = self
            .sweep
            .time
            .is_some_and(|time| self.clock.monotonic() >= time);
        if over || self.stop.load(Ordering::Relaxed) {
            return None;
        }
        let seed = self.next.fetch_add(1, Ordering::Relaxed);
        let wanted = self
            .sweep
            .seeds
            .is_none_or(|seeds| seed - self.sweep.from < seeds);
        wanted.then_some(seed)
    }

    fn stuck(&self, now: Duration) -> Option<FailedSeed> {
        let running = lock(&self.running);
        let (&seed, _) = running
            .iter()
            .find(|(_, began)| now.saturating_sub(**began) > SEED_MAX)?;
        let message = format!("it has not ended after {SEED_MAX:?}");
        Some(FailedSeed {
            seed,
            failure: Failure {
                operation: 0,
                message,
            },
        })
    }
}

fn work(shared: &Shared) {
    while let Some(seed) = shared.take_seed() {
        lock(&shared.running).insert(seed, shared.clock.monotonic());
        let outcome = run_guarded(
            &Plan::from_seed_wanting(seed, shared.sweep.wanted),
            &mut |_| {},
        );
        lock(&shared.running).remove(&seed);
        match outcome {
            Ok(report) => lock(&shared.report).merge(&report),
            Err(failure) => {
                lock(&shared.failed).push(FailedSeed { seed, failure });
                if !shared.sweep.keep_going {
                    shared.stop.store(true, Ordering::Relaxed);
                }
            }
        }
    }
}

/// A thread that panicked leaves nothing half-done behind.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
