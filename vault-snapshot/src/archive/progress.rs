//! Telling how far the work is, and asking whether to go on.

use std::ops::ControlFlow;

use super::error::{Error, Result};

/// Told how far a long piece of work is, about once a mebibyte; may end it.
///
/// `()` watches nothing, and so may a closure:
///
/// ```
/// use std::ops::ControlFlow;
/// use vault_snapshot::archive::Watcher;
///
/// let bar = |done: u64, total: u64| {
///     println!("{done} of {total} bytes");
///     ControlFlow::Continue(())
/// };
/// assert!(bar.progress(1, 2).is_continue());
/// ```
pub trait Watcher {
    /// `bytes_done` of `bytes_total` are done. The total grows where it is not known beforehand.
    /// [`ControlFlow::Break`] ends the work with [`Error::Cancelled`]; what was begun is removed.
    fn progress(&self, bytes_done: u64, bytes_total: u64) -> ControlFlow<()>;
}

impl Watcher for () {
    fn progress(&self, _bytes_done: u64, _bytes_total: u64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

impl<F: Fn(u64, u64) -> ControlFlow<()>> Watcher for F {
    fn progress(&self, bytes_done: u64, bytes_total: u64) -> ControlFlow<()> {
        self(bytes_done, bytes_total)
    }
}

/// The count that a [`Watcher`] is told.
pub(crate) struct Progress<'a> {
    watcher: &'a dyn Watcher,
    done: u64,
    total: u64,
}

impl<'a> Progress<'a> {
    /// Begins, and asks at once.
    pub(crate) fn begin(watcher: &'a dyn Watcher, total: u64) -> Result<Self> {
        let mut progress = Self {
            watcher,
            done: 0,
            total,
        };
        progress.add(0)?;
        Ok(progress)
    }

    pub(crate) fn add(&mut self, bytes: u64) -> Result<()> {
        self.done += bytes;
        self.total = self.total.max(self.done);
        match self.watcher.progress(self.done, self.total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }
}
