//! What a model came to: how many executions, how long, and whether it ended as it must.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use vault_core::Clock;
use vault_core::clock::SystemClock;

/// What running a model came to.
pub(super) struct Tally {
    pub(super) executions: Arc<AtomicUsize>,
    clock: SystemClock,
    began: Duration,
}

impl Tally {
    pub(super) fn begin() -> Self {
        let clock = SystemClock::new();
        let began = clock.monotonic();
        let executions = Arc::default();
        Self {
            executions,
            clock,
            began,
        }
    }

    /// Prints the line that `cargo xtask models` shows.
    #[expect(clippy::print_stdout, reason = "what a run came to is asked for")]
    pub(super) fn print(&self, name: &str, outcome: &str) {
        let executions = self.executions.load(Ordering::Relaxed);
        let elapsed = self.clock.monotonic().saturating_sub(self.began);
        let seconds = elapsed.as_secs_f64();
        println!("model: {name}: {executions} executions, {seconds:.1} s, {outcome}");
    }
}

/// Something panicked `with` these words.
pub(super) fn expect_failure(outcome: std::thread::Result<()>, with: &str) {
    let panic = outcome.expect_err("the broken code went unnoticed");
    let words = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or_default();
    assert!(words.contains(with), "it failed otherwise: {words}");
}
