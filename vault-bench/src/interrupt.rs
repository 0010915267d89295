//! Being interrupted: by the end of whoever started the run.
//!
//! A run goes on in a process of its own, in a group of its own, so that an interrupt from the terminal does not reach
//! it. It holds the reading end of a pipe whose other end only the process that the user has started holds. However that
//! one ends (`SIGINT`, `SIGTERM`, `SIGKILL`, or with its terminal), the pipe ends with it: then the worker or build that is
//! under way is ended, and the report is drawn of what there is. No signal is handled, and so none can come at a moment
//! at which nothing may be done.

use std::io::Read;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Error, Result};

/// Whether the run was interrupted, and which process is to be ended then.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    happened: AtomicBool,
    child: Mutex<Option<Pid>>,
}

impl Interrupt {
    /// Is interrupted as soon as this input ends.
    #[must_use]
    pub fn at_end_of(mut input: impl Read + Send + 'static) -> Self {
        let interrupt = Self::default();
        let heard = interrupt.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 64];
            while matches!(input.read(&mut bytes), Ok(1..)) {}
            heard.interrupt();
        });
        interrupt
    }

    /// Whether it has happened.
    #[must_use]
    pub fn happened(&self) -> bool {
        self.shared.happened.load(Ordering::SeqCst)
    }

    /// Ends this child if the run is interrupted, or was already.
    pub fn watch(&self, child: &Child) {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        *self.child() = pid;
        if self.happened() {
            self.end_child();
        }
    }

    /// Lets go of the child. To be called before it is waited for: afterwards its number can be another's.
    pub fn unwatch(&self) {
        *self.child() = None;
    }

    fn interrupt(&self) {
        self.shared.happened.store(true, Ordering::SeqCst);
        self.end_child();
    }

    fn end_child(&self) {
        if let Some(pid) = *self.child() {
            // Where it has ended already, there is nothing to do.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Option<Pid>> {
        self.shared
            .child
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs this program again with these arguments behind its own, so that it outlives this process long enough to clean
/// up, and gives its exit code.
///
/// # Errors
/// [`Error::Io`].
pub fn outlived(more: &[&str]) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt as _;
    let program = std::env::current_exe().map_err(|e| Error::io("find", "this binary", e))?;
    let mut child = Command::new(&program)
        .args(std::env::args_os().skip(1))
        .args(more)
        .stdin(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|e| Error::io("start", &program, e))?;
    // Held until the child has ended: `wait` alone would close it first.
    let pipe = child.stdin.take();
    let status = child
        .wait()
        .map_err(|e| Error::io("wait for", &program, e))?;
    drop(pipe);
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_input_ends_the_child() {
        let (reader, writer) = std::io::pipe().unwrap();
        let interrupt = Interrupt::at_end_of(reader);
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        interrupt.watch(&child);
        assert!(!interrupt.happened());
        drop(writer);
        // Would go on for ten minutes otherwise.
        assert!(!child.wait().unwrap().success());
        assert!(interrupt.happened());
    }

    #[test]
    fn a_child_that_comes_too_late_is_ended_at_once() {
        let interrupt = Interrupt::default();
        interrupt.interrupt();
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        interrupt.watch(&child);
        assert!(!child.wait().unwrap().success());
    }
}
