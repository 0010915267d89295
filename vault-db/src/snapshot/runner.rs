//! Snapshots that are made by themselves: by the clock, by how much has changed, and on events of the host.
//!
//! When one is due is decided by [`vault_snapshot::schedule`], purely; this is the thread that asks, and does it.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vault_core::Timestamp;
use vault_snapshot::schedule::{Changes, Decision, Scheduler};

use super::{Retention, Schedule, SnapshotName, SnapshotOptions, Snapshots};
use crate::database::lock;
use crate::error::{Error, Result};

/// How often it is asked what has changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How a runner is doing.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SnapshotRunnerStatus {
    /// Snapshots that it has made.
    pub made: u64,
    /// Snapshots that it could not make. Each is tried again.
    pub failed: u64,
    /// The last one that it made.
    pub last: Option<SnapshotName>,
    /// Why the last attempt failed, if it did; also where what retention does not keep could not be removed.
    pub error: Option<Error>,
}

/// Makes snapshots by itself until it is stopped or dropped. Keeps the database open meanwhile.
///
/// ```
/// use std::time::Duration;
/// use vault_db::snapshot::{Retention, Schedule, SnapshotOptions};
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// # let place = tempfile::tempdir().unwrap();
/// let nightly = Schedule {
///     interval: Some(Duration::from_secs(24 * 3600)),
///     changed_entries: Some(1_000_000),
///     ..Schedule::default()
/// };
/// let keep = Retention { daily: 7, weekly: 4, monthly: 12, ..Retention::default() };
/// let runner = db.snapshots(place.path())?.run(nightly, SnapshotOptions::default(), Some(keep))?;
/// // ... and at the end:
/// let status = runner.stop();
/// assert!(status.error.is_none());
/// # Ok(())
/// # }
/// ```
pub struct SnapshotRunner {
    shared: Arc<Board>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread and its owner tell each other.
#[derive(Default)]
struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stopping: bool,
    events: Vec<String>,
    status: SnapshotRunnerStatus,
}

impl Snapshots {
    /// Begins to make snapshots by itself, in a thread of its own: never two at a time, timers that were missed caught up with
    /// once, failures tried again after a minute and then less and less often. With `retention`, what it does not keep is
    /// removed after each.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let place = tempfile::tempdir().unwrap();
    /// use vault_db::snapshot::{Schedule, SnapshotOptions};
    /// let on_patches = Schedule { events: ["patch merged".to_owned()].into(), ..Schedule::default() };
    /// let runner = db.snapshots(place.path())?.run(on_patches, SnapshotOptions::default(), None)?;
    /// runner.happened("patch merged");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Engine`](Error::Engine) with `InvalidSetting` for a schedule that makes no sense, or where there can be no thread;
    /// [`Snapshot`](Error::Snapshot) where the repository cannot be listed.
    pub fn run(
        self,
        schedule: Schedule,
        options: SnapshotOptions,
        retention: Option<Retention>,
    ) -> Result<SnapshotRunner> {
        let last = self.repository.newest()?.map(|newest| newest.time);
        let now = self.database.shared().clock.now();
        let mut scheduler = Scheduler::new(schedule, last, now)?;
        let mut before = self.changes();
        // What has changed since the last one counts, whoever had the database open.
        let lsm = self.database.shared().lsm.as_ref();
        let instance = lsm.and_then(vault_lsm::Lsm::instance);
        if let Some(newest) = self.repository.newest()?
            && newest.instance.is_some_and(|of| Some(of.0) == instance)
        {
            before.entries = before.entries.min(newest.sequence);
        }
        scheduler.begin_at(before);
        let shared = Arc::new(Board::default());
        let mut work = Work {
            snapshots: self,
            scheduler,
            options,
            retention,
            board: Arc::clone(&shared),
        };
        let thread = thread::Builder::new()
            .name("vault-snapshots".to_owned())
            .spawn(move || work.run())
            .map_err(|error| Error::Stream {
                doing: "starting the thread that makes snapshots",
                source: Arc::new(error),
            })?;
        Ok(SnapshotRunner {
            shared,
            thread: Some(thread),
        })
    }

    /// How much has ever changed.
    fn changes(&self) -> Changes {
        let engine = &self.database.shared().engine;
        Changes {
            entries: engine.latest_sequence(),
            bytes: engine.stats().map_or(0, |stats| stats.written.user_bytes),
        }
    }
}

impl SnapshotRunner {
    /// Tells of an event of the host. It makes a snapshot due if the schedule names it.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let place = tempfile::tempdir().unwrap();
    /// # use vault_db::snapshot::{Schedule, SnapshotOptions};
    /// # let runner = db.snapshots(place.path())?.run(Schedule::default(), SnapshotOptions::default(), None)?;
    /// runner.happened("patch merged");
    /// # Ok(())
    /// # }
    /// ```
    pub fn happened(&self, event: impl Into<String>) {
        lock(&self.shared.state).events.push(event.into());
        self.shared.changed.notify_all();
    }

    /// How it is doing.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let place = tempfile::tempdir().unwrap();
    /// # use vault_db::snapshot::{Schedule, SnapshotOptions};
    /// # let runner = db.snapshots(place.path())?.run(Schedule::default(), SnapshotOptions::default(), None)?;
    /// assert_eq!(runner.status().made, 0);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn status(&self) -> SnapshotRunnerStatus {
        lock(&self.shared.state).status.clone()
    }

    /// Stops it, after the snapshot that is being made, which is ended early and leaves nothing. Gives how it has done.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let place = tempfile::tempdir().unwrap();
    /// # use vault_db::snapshot::{Schedule, SnapshotOptions};
    /// # let runner = db.snapshots(place.path())?.run(Schedule::default(), SnapshotOptions::default(), None)?;
    /// assert_eq!(runner.stop().failed, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn stop(mut self) -> SnapshotRunnerStatus {
        self.end();
        self.status()
    }

    fn end(&mut self) {
        lock(&self.shared.state).stopping = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was told where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for SnapshotRunner {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for SnapshotRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotRunner")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

/// What the thread works with.
struct Work {
    snapshots: Snapshots,
    scheduler: Scheduler,
    options: SnapshotOptions,
    retention: Option<Retention>,
    board: Arc<Board>,
}

impl Work {
    fn run(&mut self) {
        loop {
            let decision = self.scheduler.decide(self.now(), self.snapshots.changes());
            match decision {
                Decision::Due(trigger) => {
                    let options = SnapshotOptions {
                        trigger,
                        ..self.options.clone()
                    };
                    let made = self.make(&options);
                    self.scheduler.ended(self.now(), made);
                }
                Decision::NotDue { .. } => {
                    if !self.wait() {
                        return;
                    }
                }
            }
            if lock(&self.board.state).stopping {
                return;
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.snapshots.database.shared().clock.now()
    }

    /// Waits a little, or until something is told. Gives whether to go on.
    fn wait(&mut self) -> bool {
        let mut state = lock(&self.board.state);
        if !state.stopping && state.events.is_empty() {
            let waited = self.board.changed.wait_timeout(state, LOOK_EVERY);
            state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        for event in state.events.drain(..) {
            self.scheduler.happened(&event);
        }
        !state.stopping
    }

    /// Makes a snapshot, and removes what is not kept. Gives whether there is one more.
    fn make(&self, options: &SnapshotOptions) -> bool {
        let board = &self.board;
        let goes_on = |_, _| match lock(&board.state).stopping {
            true => std::ops::ControlFlow::Break(()),
            false => std::ops::ControlFlow::Continue(()),
        };
        let made = self.snapshots.create_with(options, &goes_on);
        let pruned = match (&made, &self.retention) {
            (Ok(_), Some(retention)) => {
                let pruned = self.snapshots.repository.prune(retention, false);
                pruned.map(drop).map_err(Error::from)
            }
            _ => Ok(()),
        };
        let mut state = lock(&board.state);
        let status = &mut state.status;
        status.error = pruned.err();
        match made {
            Ok(manifest) => {
                status.made += 1;
                status.last = Some(manifest.name);
                true
            }
            Err(error) => {
                status.failed += 1;
                status.error = Some(error);
                false
            }
        }
    }
}
