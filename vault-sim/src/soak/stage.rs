//! What the threads of a soak share: the store, a record of who is doing what, and a place for what went
//! wrong. The first problem ends the run.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use vault_core::clock::SystemClock;
use vault_core::merge::COUNTER;
use vault_core::random::SeededRandom;
use vault_core::{
    Clock, CompactionPolicy, Engine, Error, Event, EventListener, KeyspaceId, KeyspaceOptions,
};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions, Settings as StoreSettings};

use super::secrecy::Secrecy;
use super::{Outcome, Settings};

/// Bytes of log that the store is asked to keep to.
pub(super) const LOG_BYTES_MAX: u64 = 8 << 20;
/// Bytes of a log segment.
pub(super) const LOG_SEGMENT_BYTES: u64 = 1 << 20;
/// Bytes of the FIFO keyspace.
const FEED_BYTES_MAX: u64 = 4 << 20;
/// Accounts of the bank.
pub(super) const ACCOUNTS: u64 = 64;
/// What each account begins with.
pub(super) const OPENING_BALANCE: i64 = 1_000;

/// The keyspaces that are always there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ids {
    /// Leveled.
    pub(super) data: KeyspaceId,
    /// Tiered.
    pub(super) wide: KeyspaceId,
    /// Counters, merged.
    pub(super) counts: KeyspaceId,
    /// FIFO.
    pub(super) feed: KeyspaceId,
    /// The accounts.
    pub(super) bank: KeyspaceId,
    /// What is ingested, load after load.
    pub(super) bulk: KeyspaceId,
}

/// The store while it is open.
pub(super) struct Opened {
    pub(super) lsm: Lsm,
    pub(super) ids: Ids,
    /// How often it has been opened.
    pub(super) epoch: u64,
}

/// What a thread is doing, since when.
type Activity = Mutex<Option<(&'static str, Duration)>>;

pub(super) struct Stage {
    pub(super) clock: SystemClock,
    pub(super) settings: Settings,
    pub(super) directory: PathBuf,
    pub(super) secrecy: Secrecy,
    /// `None` after the end. Operations share it; who closes the store has it alone.
    pub(super) store: RwLock<Option<Opened>>,
    /// Held while money is moved, so that what is read is what is replaced.
    pub(super) till: Mutex<()>,
    /// The load that was ingested last.
    pub(super) load: AtomicI64,
    stop: AtomicBool,
    operations: AtomicU64,
    /// How often the store was opened, once it is not open any more.
    epochs: AtomicU64,
    problems: Arc<Mutex<Vec<String>>>,
    activities: Vec<Activity>,
}

impl Stage {
    pub(super) fn open(settings: &Settings) -> Result<Self, String> {
        let problems = Arc::default();
        let directory = settings.directory.join("store");
        let secrecy = Secrecy::new(settings.encrypted);
        let lsm = open_store(&directory, 1, &secrecy, &problems).map_err(told("open the store"))?;
        let ids = create_keyspaces(&lsm).map_err(told("create the keyspaces"))?;
        let opened = Opened { lsm, ids, epoch: 1 };
        super::banker::fill(&opened).map_err(told("fill the bank"))?;
        Ok(Self {
            clock: SystemClock::new(),
            settings: settings.clone(),
            directory,
            secrecy,
            store: RwLock::new(Some(opened)),
            till: Mutex::default(),
            load: AtomicI64::new(0),
            stop: AtomicBool::new(false),
            operations: AtomicU64::new(0),
            epochs: AtomicU64::new(1),
            problems,
            // One more for the thread that measures, and that takes leave.
            activities: (0..=settings.threads)
                .map(|_| Activity::default())
                .collect(),
        })
    }

    /// Closes nothing, opens the store anew: with settings of its own for each time.
    pub(super) fn open_again(&self, epoch: u64) -> Result<Opened, String> {
        let lsm = open_store(&self.directory, epoch, &self.secrecy, &self.problems)
            .map_err(told("open again"))?;
        let ids = create_keyspaces(&lsm).map_err(told("look up the keyspaces"))?;
        Ok(Opened { lsm, ids, epoch })
    }

    /// The random source of a thread.
    pub(super) fn dice(&self, thread: usize) -> SeededRandom {
        SeededRandom::new(self.settings.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ thread as u64)
    }

    pub(super) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Notes what is wrong, and ends the run.
    pub(super) fn problem(&self, problem: String) {
        lock(&self.problems).push(problem);
        self.stop.store(true, Ordering::Release);
    }

    /// Ends the run when dropped.
    pub(super) fn ending(&self) -> Ending<'_> {
        Ending(self)
    }

    pub(super) fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }

    /// Runs a thread's part; what it finds wrong, a panic too, ends the run for all.
    pub(super) fn perform(&self, thread: usize, part: impl FnOnce() -> Result<(), String>) {
        let part = std::panic::AssertUnwindSafe(part);
        match std::panic::catch_unwind(part) {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => self.problem(format!("thread {thread}: {problem}")),
            Err(_) => self.problem(format!("thread {thread} panicked")),
        }
        *lock(&self.activities[thread]) = None;
    }

    /// Performs one operation on the store as it is now. `None`: it is over.
    pub(super) fn with_store<T>(
        &self,
        thread: usize,
        what: &'static str,
        operation: impl FnOnce(&Opened) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        let _doing = self.doing(thread, what);
        let opened = self.store.read().unwrap_or_else(PoisonError::into_inner);
        match &*opened {
            Some(opened) if !self.is_over() => {
                self.operations.fetch_add(1, Ordering::Relaxed);
                operation(opened).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Notes what a thread is doing, for the watchdog.
    pub(super) fn doing(&self, thread: usize, what: &'static str) -> Doing<'_> {
        let activity = &self.activities[thread];
        *lock(activity) = Some((what, self.clock.monotonic()));
        Doing(activity)
    }

    /// Watches for operations that never end. A thread that is stuck cannot be ended, so the process is.
    pub(super) fn watch(&self) {
        const LOOK_EVERY: Duration = Duration::from_millis(100);
        while !self.is_over() || self.somebody_works() {
            self.clock.sleep(LOOK_EVERY);
            let now = self.clock.monotonic();
            let hung = self.activities.iter().any(|activity| {
                lock(activity)
                    .is_some_and(|(_, since)| now.saturating_sub(since) > self.settings.hung_after)
            });
            if hung {
                self.give_up(now);
            }
        }
    }

    fn somebody_works(&self) -> bool {
        self.activities
            .iter()
            .any(|activity| lock(activity).is_some())
    }

    #[expect(
        clippy::print_stderr,
        reason = "the last words of a process that is stuck"
    )]
    fn give_up(&self, now: Duration) -> ! {
        eprintln!("soak: FAILED: an operation does not end");
        for (thread, activity) in self.activities.iter().enumerate() {
            match *lock(activity) {
                Some((what, since)) => {
                    eprintln!(
                        "  thread {thread}: {what}, for {:?}",
                        now.saturating_sub(since)
                    );
                }
                None => eprintln!("  thread {thread}: between two operations"),
            }
        }
        std::process::exit(3)
    }

    /// Notes how often the store was opened.
    pub(super) fn note_epoch(&self, epoch: u64) {
        self.epochs.store(epoch, Ordering::Release);
    }

    pub(super) fn outcome(&self) -> Outcome {
        Outcome {
            operations: self.operations(),
            reopenings: self.epochs.load(Ordering::Acquire) - 1,
            problems: lock(&self.problems).clone(),
        }
    }
}

pub(super) struct Ending<'a>(&'a Stage);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Release);
    }
}

pub(super) struct Doing<'a>(&'a Activity);

impl Drop for Doing<'_> {
    fn drop(&mut self) {
        *lock(self.0) = None;
    }
}

/// Puts what was being done in front of an error.
pub(super) fn told(what: &'static str) -> impl Fn(Error) -> String {
    move |error| format!("{what}: {error}")
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Background work must not fail on a healthy disk.
struct Listener(Arc<Mutex<Vec<String>>>);

impl EventListener for Listener {
    fn on_event(&self, event: &Event) {
        if matches!(
            event,
            Event::BackgroundFailed { .. } | Event::Poisoned { .. } | Event::ForeignFile { .. }
        ) {
            lock(&self.0).push(format!("the store tells of {event:?}"));
        }
    }
}

fn open_store(
    directory: &std::path::Path,
    epoch: u64,
    secrecy: &Secrecy,
    problems: &Arc<Mutex<Vec<String>>>,
) -> vault_core::Result<Lsm> {
    let settings = StoreSettings {
        // A little of everything over the time.
        background: BackgroundWork::Threads {
            compaction: 1 + (epoch % 3) as u8,
        },
        cache_bytes: Some([8 << 20, 256 << 10, 0][epoch as usize % 3]),
        table_metadata_bytes: Some([1 << 20, 64 << 10][epoch as usize % 2]),
        log_segment_bytes: Some(LOG_SEGMENT_BYTES),
        log_bytes_max: Some(LOG_BYTES_MAX),
        ..StoreSettings::default()
    };
    let listener = Arc::new(Listener(Arc::clone(problems)));
    let options = LsmOptions::new(settings).listener(listener);
    Lsm::open(directory, secrecy.protect_store(options))
}

fn create_keyspaces(lsm: &Lsm) -> vault_core::Result<Ids> {
    let small = KeyspaceOptions {
        write_buffer_bytes: 512 << 10,
        table_bytes: 256 << 10,
        large_value_bytes: Some(200),
        ..KeyspaceOptions::default()
    };
    let of = |policy| small.clone().policy(policy);
    let fifo = CompactionPolicy::Fifo {
        bytes_max: FEED_BYTES_MAX,
    };
    Ok(Ids {
        data: lsm.create_keyspace("data", &of(CompactionPolicy::LEVELED))?,
        wide: lsm.create_keyspace("wide", &of(CompactionPolicy::TIERED))?,
        counts: lsm.create_keyspace("counts", &small.clone().merge(COUNTER))?,
        feed: lsm.create_keyspace("feed", &of(fifo))?,
        bank: lsm.create_keyspace("bank", &of(CompactionPolicy::LEVELED))?,
        bulk: lsm.create_keyspace("bulk", &of(CompactionPolicy::LEVELED))?,
    })
}

/// The names of the keyspaces that are always there.
pub(super) fn steady_names() -> BTreeSet<&'static str> {
    BTreeSet::from(["data", "wide", "counts", "feed", "bank", "bulk"])
}
