//! Snapshots that are made by themselves: by the clock, by how much has changed, and on events of the host.
//!
//! When one is due is decided by [`vault_snapshot::schedule`], purely; this is the thread that asks, and does it.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use vault_core::Timestamp;
use vault_snapshot::archive::Hex;
use vault_snapshot::schedule::{Changes, Decision, Scheduler};

use super::create::store_of;
use super::worker::{Board, Worker};
use super::{Retention, Schedule, SnapshotName, SnapshotOptions, Snapshots};
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
pub struct SnapshotRunner(Worker<Told>);

/// What the thread and its owner tell each other.
#[derive(Default)]
struct Told {
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
    /// [`Snapshot`](Error::Snapshot) where the repository cannot be listed, or is another database's (`OtherStore`).
    pub fn run(
        self,
        schedule: Schedule,
        options: SnapshotOptions,
        retention: Option<Retention>,
    ) -> Result<SnapshotRunner> {
        self.repository.check_store(Hex(store_of(&self.database)))?;
        // Documents do not stand in for files, nor files for documents.
        let of_form = self.repository.list()?.into_iter();
        let of_form = of_form.filter(|manifest| manifest.form == options.form);
        let newest = of_form.max_by_key(|manifest| (manifest.moment(), manifest.name));
        let last = newest.as_ref().map(|newest| newest.time);
        let now = self.database.shared().clock.now();
        let counts_bytes = schedule.changed_bytes.is_some();
        let mut scheduler = Scheduler::new(schedule, last, now)?;
        let mut before = self.changes(counts_bytes);
        // What has changed since the last one counts, whoever had the database open; bytes are counted from this opening on.
        let lsm = self.database.shared().lsm.as_ref();
        let instance = lsm.and_then(vault_lsm::Lsm::instance);
        if let Some(newest) = newest
            && newest.instance.is_some_and(|of| Some(of.0) == instance)
        {
            before.entries = before.entries.min(newest.sequence);
        }
        scheduler.begin_at(before);
        let board = Arc::new(Board::default());
        let mut work = Work {
            snapshots: self,
            scheduler,
            counts_bytes,
            options,
            retention,
            board: Arc::clone(&board),
        };
        let worker = Worker::start("vault-snapshots", board, move || work.run())?;
        Ok(SnapshotRunner(worker))
    }

    /// How much has ever changed; bytes only where they are asked for, as they are gathered from every keyspace.
    fn changes(&self, counts_bytes: bool) -> Changes {
        let engine = &self.database.shared().engine;
        let stats = counts_bytes.then(|| engine.stats().ok()).flatten();
        Changes {
            entries: engine.latest_sequence(),
            bytes: stats.map_or(0, |stats| stats.written.user_bytes),
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
        let event = event.into();
        self.0.tell(|told| told.events.push(event));
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
        self.0.look(|told| told.status.clone())
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
        self.0.stop();
        self.status()
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
    /// Whether the schedule asks for bytes that have changed.
    counts_bytes: bool,
    options: SnapshotOptions,
    retention: Option<Retention>,
    board: Arc<Board<Told>>,
}

impl Work {
    fn run(&mut self) {
        while !self.board.is_stopping() {
            // Also where one snapshot is due behind the other, and nothing is waited for.
            self.take_events();
            let changes = self.snapshots.changes(self.counts_bytes);
            match self.scheduler.decide(self.now(), changes) {
                Decision::Due(trigger) => {
                    let options = SnapshotOptions {
                        trigger,
                        ..self.options.clone()
                    };
                    let made = self.make(&options);
                    self.scheduler.ended(self.now(), made);
                }
                Decision::NotDue { .. } => self.wait(),
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.snapshots.database.shared().clock.now()
    }

    /// Waits a little, or until something is told.
    fn wait(&self) {
        self.board
            .wait(LOOK_EVERY, |told: &Told| !told.events.is_empty());
    }

    fn take_events(&mut self) {
        let events = self.board.with(|told| std::mem::take(&mut told.events));
        for event in events {
            self.scheduler.happened(&event);
        }
    }

    /// Makes a snapshot, and removes what is not kept. Gives whether there is one more.
    fn make(&self, options: &SnapshotOptions) -> bool {
        let goes_on = |_, _| match self.board.is_stopping() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let made = self.snapshots.create_with(options, &goes_on);
        let pruned = match (&made, &self.retention) {
            (Ok(_), Some(retention)) => {
                let pruned = self.snapshots.repository.prune(retention, false);
                pruned.map(drop).map_err(Error::from)
            }
            _ => Ok(()),
        };
        self.board.with(|told| {
            let status = &mut told.status;
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
        })
    }
}
