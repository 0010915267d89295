//! Panics of the engine as failures of the simulation.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::plan::Plan;
use crate::report::{Failure, Report};
use crate::run::run_plan_traced;

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Has panics of this process remembered instead of printed, for [`run_guarded`] to report. For programs
/// that do nothing else.
pub fn remember_panics() {
    std::panic::set_hook(Box::new(|info| {
        LAST_PANIC.with(|last| last.replace(Some(info.to_string())));
    }));
}

/// As [`run_plan_traced`], but a panic is a failure too.
///
/// # Errors
/// As [`run_plan_traced`].
pub fn run_guarded(plan: &Plan, trace: &mut dyn FnMut(&str)) -> Result<Report, Failure> {
    let mut carried_out = 0;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        run_plan_traced(plan, &mut |line| {
            carried_out += 1;
            trace(line);
        })
    }));
    outcome.unwrap_or_else(|payload| {
        let remembered = LAST_PANIC.with(RefCell::take);
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        let message = remembered.unwrap_or_else(|| text.unwrap_or("no message").to_owned());
        Err(Failure {
            operation: carried_out,
            message: format!("panic: {message}"),
        })
    })
}
