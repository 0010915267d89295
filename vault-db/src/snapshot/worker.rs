//! Threads that work beside a database until they are stopped or dropped, and what they and their owners tell each other.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::database::lock;
use crate::error::{Error, Result};

/// A thread, stopped when this is dropped.
pub(super) struct Worker<S> {
    board: Arc<Board<S>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread and its owner tell each other.
#[derive(Default)]
pub(super) struct Board<S> {
    state: Mutex<State<S>>,
    changed: Condvar,
}

#[derive(Default)]
struct State<S> {
    stopping: bool,
    told: S,
}

impl<S> Board<S> {
    /// Looks at what was told, and changes it. To be short: the other side waits.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut S) -> R) -> R {
        act(&mut lock(&self.state).told)
    }

    pub(super) fn is_stopping(&self) -> bool {
        lock(&self.state).stopping
    }

    /// Waits for so long, or until something is told that `ends_waiting`, or the thread is to stop.
    pub(super) fn wait(&self, time: Duration, mut ends_waiting: impl FnMut(&S) -> bool) {
        let state = lock(&self.state);
        let goes_on = |state: &mut State<S>| !state.stopping && !ends_waiting(&state.told);
        let waited = self.changed.wait_timeout_while(state, time, goes_on);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl<S: Send + 'static> Worker<S> {
    /// Starts a thread that does `work`, which looks at [`Board::is_stopping`] from time to time.
    pub(super) fn start(
        name: &str,
        board: Arc<Board<S>>,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<Self> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
        let thread = thread.map_err(|error| Error::Stream {
            doing: "starting a thread",
            source: Arc::new(error),
        })?;
        Ok(Self {
            board,
            thread: Some(thread),
        })
    }
}

impl<S> Worker<S> {
    /// Tells the thread something, and wakes it.
    pub(super) fn tell(&self, act: impl FnOnce(&mut S)) {
        self.board.with(act);
        self.board.changed.notify_all();
    }

    /// Looks at what the thread has told.
    pub(super) fn look<R>(&self, look: impl FnOnce(&mut S) -> R) -> R {
        self.board.with(look)
    }

    /// Has the thread stop, and waits for it.
    pub(super) fn stop(&mut self) {
        lock(&self.board.state).stopping = true;
        self.board.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was told where it happened.
            let _ = thread.join();
        }
    }
}

impl<S> Drop for Worker<S> {
    fn drop(&mut self) {
        self.stop();
    }
}
