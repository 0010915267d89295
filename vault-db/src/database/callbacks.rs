//! Calling the caller amid work that would have to be taken back.
//!
//! What a copy or a restore fills is seen by nobody until it is whole. Should the caller's code panic meanwhile, the work is stopped as if
//! the caller had wished so, what was filled is taken away on the way that every error takes, and only then the panic goes on. Unwinding
//! through the engine instead would leave a keyspace behind that takes up room until the next opening.

use std::any::Any;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// The caller's code, and whether it has panicked.
#[derive(Default)]
pub(crate) struct Callbacks {
    panicked: Option<Box<dyn Any + Send>>,
}

impl Callbacks {
    /// Asks the caller whether to go on. A panic is a no.
    pub(crate) fn ask(&mut self, caller: impl FnOnce() -> ControlFlow<()>) -> ControlFlow<()> {
        // Nobody but the caller sees again what a panic may have left half changed: it is his.
        match catch_unwind(AssertUnwindSafe(caller)) {
            Ok(answer) => answer,
            Err(panicked) => {
                self.panicked = Some(panicked);
                ControlFlow::Break(())
            }
        }
    }

    /// Ends the work, which has taken back what it had begun if it was to stop: a panic goes on from here.
    pub(crate) fn end(self) {
        if let Some(panicked) = self.panicked {
            resume_unwind(panicked);
        }
    }
}
