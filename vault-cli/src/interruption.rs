//! Ctrl-C: what is under way ends where it can be left, and what was begun is removed.
//!
//! Only work that can be told to end is watched. What merely reads is left to be ended by the signal itself, and so is
//! whoever asks twice: the library leaves nothing half done then either, but what it had begun lies there until the next time.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use vault_db::Result;
use vault_db::engine::Error;
use vault_db::snapshot::Watcher;

use crate::output::Output;

/// The exit code of a process that a second signal ended: what it was at is not told.
const KILLED: i32 = 130;

/// Shows how far the work has come, and ends it where somebody asks for that.
pub(crate) struct Watched<'a> {
    output: RefCell<&'a mut Output>,
    interrupted: Arc<AtomicBool>,
    doing: &'static str,
}

impl<'a> Watched<'a> {
    /// Watches work that can be ended in the middle, or that is not to be.
    ///
    /// # Errors
    /// [`Error::Io`] where the system lets nobody listen to signals.
    pub(crate) fn begin(output: &'a mut Output, doing: &'static str) -> Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first one finds nothing set yet.
            flag::register_conditional_shutdown(signal, KILLED, Arc::clone(&interrupted))
                .and_then(|_| flag::register(signal, Arc::clone(&interrupted)))
                .map_err(|error| {
                    Error::io("listen to signals for", "this process".as_ref(), error)
                })?;
        }
        Ok(Self {
            output: RefCell::new(output),
            interrupted,
            doing,
        })
    }

    /// Only shows how far the work has come.
    pub(crate) fn looking_on(output: &'a mut Output, doing: &'static str) -> Self {
        Self {
            output: RefCell::new(output),
            interrupted: Arc::default(),
            doing,
        }
    }

    /// As [`Watcher::progress`], for work that is told in something else than bytes.
    pub(crate) fn parts(&self, done: u64, total: u64, of: &str) -> ControlFlow<()> {
        self.output.borrow_mut().progress_parts(done, total, of);
        self.goes_on()
    }

    fn goes_on(&self) -> ControlFlow<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

impl Watcher for Watched<'_> {
    fn progress(&self, bytes_done: u64, bytes_total: u64) -> ControlFlow<()> {
        let mut output = self.output.borrow_mut();
        output.progress_bytes(bytes_done, bytes_total, self.doing);
        self.goes_on()
    }
}
