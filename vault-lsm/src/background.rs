//! Background work: who does it, when, and how it is waited for.
//!
//! Work is a sequence of *steps*: flush one memtable, run one compaction, seal one table anew, prepare a log segment,
//! remove files.
//! Threads run steps until there is nothing to do and then sleep until something changes. With
//! [`BackgroundWork::Manual`] there are no threads: the caller runs the steps, one by one and in a fixed
//! order, which is what a simulation needs.

use std::sync::atomic::{Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use vault_core::{Error, Event, KeyspaceId, Result};

use crate::compact;
use crate::flush;
use crate::locking;
use crate::options::BackgroundWork;
use crate::rest::Watch;
use crate::rotation;
use crate::store::{Store, lock};
use crate::sync::atomic::AtomicUsize;
use crate::sync::{
    Condvar, Mutex,
    thread::{self, JoinHandle, ThreadId},
};

/// How long idle threads sleep before they look around anyway (for what has expired meanwhile).
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(5);
/// How long a thread whose job failed waits before it tries again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// The state that threads and waiters share.
#[derive(Default)]
pub(crate) struct Background {
    state: Mutex<State>,
    /// Something may be there to do.
    work: Condvar,
    /// Something was done, or failed.
    progress: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Steps that are running right now.
    active: AtomicUsize,
}

#[derive(Default)]
struct State {
    stopping: bool,
    /// While the store is locked: no step begins.
    paused: bool,
    /// The threads that are in the midst of a step or a flush, once for each.
    at_work: Vec<ThreadId>,
    /// Counts changes that may have made work.
    work_epoch: u64,
    /// Counts steps that ended, well or badly.
    progress_epoch: u64,
    /// How the last flush failed, until one succeeds.
    flush_failure: Option<Error>,
    /// How the last compaction failed, until one succeeds.
    compact_failure: Option<Error>,
    most_behind: Option<KeyspaceId>,
}

/// A moment to wait on from: see [`Background::wait_for_progress`].
#[derive(Clone, Copy)]
pub(crate) struct Ticket(u64);

impl Background {
    /// Starts the threads that the settings ask for.
    pub(crate) fn start(store: &Arc<Store>) -> Result<()> {
        let BackgroundWork::Threads { compaction } = store.settings.background else {
            return Ok(());
        };
        let mut threads = lock(&store.background.threads);
        let mut spawn = |name: String, job: Job| {
            let store_of_thread = Arc::clone(store);
            let thread = thread::Builder::new()
                .name(name)
                .spawn(move || run(&store_of_thread, job))
                .map_err(|e| Error::io("start a thread for", &store.env.directory, e))?;
            threads.push(thread);
            Ok(())
        };
        spawn("vault-flush".to_owned(), Job::Flush)?;
        (0..compaction).try_for_each(|i| spawn(format!("vault-compact-{i}"), Job::Compact))
    }

    /// Ends the threads and waits for them.
    pub(crate) fn stop(&self) {
        lock(&self.state).stopping = true;
        self.work.notify_all();
        self.progress.notify_all();
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            // The last handle may be dropped on one of the threads themselves (by a listener).
            if thread.thread().id() != thread::current().id() {
                // A panic there was reported by the panic hook; closing goes on.
                let _ = thread.join();
            }
        }
    }

    /// Wakes the threads: there may be something to do.
    pub(crate) fn wake(&self) {
        lock(&self.state).work_epoch += 1;
        self.work.notify_all();
    }

    /// Wakes those who wait for progress.
    pub(crate) fn notify_progress(&self) {
        lock(&self.state).progress_epoch += 1;
        self.progress.notify_all();
    }

    /// Something changed what may be dropped: every keyspace is worth a look.
    pub(crate) fn shapes_changed(&self, store: &Store) {
        let view = store.views.pin();
        view.keyspaces
            .iter()
            .for_each(|k| k.keyspace.shape_changed.store(true, Release));
        self.wake();
    }

    /// Lets no step begin any more. Those that run go on until they notice.
    pub(crate) fn pause(&self) {
        lock(&self.state).paused = true;
    }

    /// Ends [`Background::pause`].
    pub(crate) fn unpause(&self) {
        lock(&self.state).paused = false;
    }

    /// Whether this thread is in the midst of a step or a flush.
    pub(crate) fn is_at_work_here(&self) -> bool {
        lock(&self.state).at_work.contains(&thread::current().id())
    }

    /// Whether another thread is in the midst of a step or a flush.
    pub(crate) fn is_at_work_elsewhere(&self) -> bool {
        let own = thread::current().id();
        lock(&self.state).at_work.iter().any(|&at| at != own)
    }

    /// Whether no step is running. A step counts from before it takes note of what there is to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.active.load(Acquire) == 0
    }

    /// Marks now. Take it before looking at what is waited for.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket(lock(&self.state).progress_epoch)
    }

    /// Waits until something was done since the ticket was taken, or the time is over.
    pub(crate) fn wait_for_progress(&self, ticket: Ticket, at_most: Duration) {
        let state = lock(&self.state);
        if state.progress_epoch == ticket.0 && !state.stopping {
            // Whoever waits looks again anyway.
            drop(
                self.progress
                    .wait_timeout(state, at_most)
                    .unwrap_or_else(PoisonError::into_inner),
            );
        }
    }

    /// How the last flush failed, if none has succeeded since.
    pub(crate) fn flush_failure(&self) -> Option<Error> {
        lock(&self.state).flush_failure.clone()
    }

    /// Forgets earlier failures: what counts is whether the work succeeds from now on.
    pub(crate) fn forget_failures(&self) {
        let mut state = lock(&self.state);
        (state.flush_failure, state.compact_failure) = (None, None);
    }

    /// How the last compaction failed, if none has succeeded since.
    pub(crate) fn compact_failure(&self) -> Option<Error> {
        lock(&self.state).compact_failure.clone()
    }

    /// The keyspace under the greatest pressure.
    pub(crate) fn most_behind(&self) -> KeyspaceId {
        lock(&self.state).most_behind.unwrap_or(KeyspaceId(0))
    }

    pub(crate) fn set_most_behind(&self, keyspace: Option<KeyspaceId>) {
        lock(&self.state).most_behind = keyspace;
    }
}

#[derive(Debug, Clone, Copy)]
enum Job {
    Flush,
    Compact,
}

fn run(store: &Arc<Store>, job: Job) {
    let mut looked_around = store.env.clock.monotonic();
    let mut watch = Watch::default();
    loop {
        let epoch = {
            let state = lock(&store.background.state);
            if state.stopping {
                return;
            }
            state.work_epoch
        };
        if let Job::Flush = job {
            locking::attend(store);
        }
        let now = store.env.clock.monotonic();
        if now.saturating_sub(looked_around) >= IDLE_MAX {
            // Time has passed: something may have expired.
            looked_around = now;
            let view = store.views.pin();
            view.keyspaces
                .iter()
                .for_each(|k| k.keyspace.shape_changed.store(true, Release));
        }
        let mut look_after = IDLE_MAX;
        let outcome = match job {
            Job::Flush => flush_step(store).and_then(|flushed| {
                look_after = look_step(store, &mut watch)?;
                Ok(flushed)
            }),
            Job::Compact => compact_step(store),
        };
        let (wait, for_work) = match outcome {
            Ok(true) => continue,
            Ok(false) => (IDLE_MAX.min(look_after), true),
            // Nothing opens it again. Trying on would only contend with whoever comes to stop this thread.
            Err(Error::Closed) => return,
            Err(Error::UnknownKeyspace { .. }) => (Duration::ZERO, true),
            // Who resumes wakes it.
            Err(Error::Locked) => (IDLE_MAX, true),
            Err(Error::Poisoned { .. }) => (IDLE_MAX, false),
            Err(_) => (RETRY_AFTER, false),
        };
        let wait = match job {
            Job::Flush => wait.min(locking::look_after(store)),
            Job::Compact => wait,
        };
        let state = lock(&store.background.state);
        if state.stopping || (for_work && state.work_epoch != epoch) {
            continue;
        }
        let woken = store.background.work.wait_timeout(state, wait);
        drop(woken.unwrap_or_else(PoisonError::into_inner));
    }
}

/// Counts a running step.
struct Active<'a> {
    background: &'a Background,
    _at_work: AtWork<'a>,
}

impl<'a> Active<'a> {
    /// Refuses while the store is locked.
    fn new(background: &'a Background) -> Result<Self> {
        let at_work = AtWork::new(background)?;
        background.active.fetch_add(1, AcqRel);
        Ok(Self {
            background,
            _at_work: at_work,
        })
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.background.active.fetch_sub(1, AcqRel);
    }
}

/// Marks the thread as one that is in the midst of work that a lock waits for.
pub(crate) struct AtWork<'a>(&'a Background);

impl<'a> AtWork<'a> {
    /// Refuses while the store is locked.
    pub(crate) fn new(background: &'a Background) -> Result<Self> {
        let mut state = lock(&background.state);
        if state.paused {
            return Err(Error::Locked);
        }
        state.at_work.push(thread::current().id());
        Ok(Self(background))
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        let own = thread::current().id();
        let mut state = lock(&self.0.state);
        if let Some(at) = state.at_work.iter().position(|&at| at == own) {
            state.at_work.swap_remove(at);
        }
        let awaited = state.paused;
        drop(state);
        if awaited {
            self.0.notify_progress();
        }
    }
}

/// Runs one step of whatever is most urgent. Gives whether there was something to do.
///
/// # Errors
/// How the step failed; it will be tried again.
pub(crate) fn step(store: &Arc<Store>) -> Result<bool> {
    store.check_job()?;
    let stepped = match flush_step(store) {
        Ok(false) => compact_step(store),
        outcome => outcome,
    };
    stepped.map_err(|error| store.told(error))
}

fn flush_step(store: &Arc<Store>) -> Result<bool> {
    let _active = Active::new(&store.background)?;
    // Space first: on a full disk it may be what the rest waits for. Then the log segment that writers
    // would otherwise have to make themselves.
    let reclaimed = store.reclaim.has_work() && store.reclaim_files() > 0;
    let prepared = reported(store, "prepare a log segment", store.prepare_segment());
    let flushed = flush::flush_next(store);
    let failure = flushed.as_ref().err();
    lock(&store.background.state).flush_failure = failure.filter(|e| !is_locked(e)).cloned();
    let flushed = reported(store, "flush", flushed)?;
    Ok(flushed | prepared? | reclaimed)
}

/// Gives how long until the next look.
fn look_step(store: &Arc<Store>, watch: &mut Watch) -> Result<Duration> {
    let _active = Active::new(&store.background)?;
    let looked = watch.look(store);
    if let Err(error) = &looked {
        let _ = reported(store, "prepare for reads", Err(error.clone()));
    }
    looked
}

fn compact_step(store: &Arc<Store>) -> Result<bool> {
    let _active = Active::new(&store.background)?;
    if store.is_locked() {
        // Not to claim anything: tables that are given back wake this thread again, which would go on and on until the
        // lock is complete.
        return Err(Error::Locked);
    }
    let compacted = compact::compact_next(store);
    match &compacted {
        Ok(true) => lock(&store.background.state).compact_failure = None,
        Ok(false) | Err(Error::UnknownKeyspace { .. } | Error::Closed | Error::Locked) => {}
        Err(error) => lock(&store.background.state).compact_failure = Some(error.clone()),
    }
    let mut compacted = reported(store, "compact", compacted);
    if let Ok(false) = compacted {
        compacted = reported(store, "rotate keys", rotation::step(store));
    }
    if store.reclaim.has_work() {
        store.reclaim_files();
    }
    compacted
}

const fn is_locked(error: &Error) -> bool {
    matches!(error, Error::Locked)
}

/// Tells of a step's end: to those who wait for it, and of a failure to the listener.
fn reported(store: &Store, job: &'static str, outcome: Result<bool>) -> Result<bool> {
    match &outcome {
        // A keyspace that was dropped meanwhile is no failure, nor is it one that the store was closed or locked.
        Ok(false)
        | Err(Error::UnknownKeyspace { .. } | Error::Closed | Error::Locked | Error::ReadOnly) => {}
        Ok(true) => store.background.notify_progress(),
        Err(error) => {
            store
                .counters
                .failures
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            store.env.emit(&Event::BackgroundFailed {
                job,
                error: error.clone(),
            });
            store.background.notify_progress();
        }
    }
    outcome
}
