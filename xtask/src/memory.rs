//! The long run of the memory budget's tests, in full. A slice of it runs with all other tests.

use std::path::Path;
use std::process::{Command, ExitCode};

/// The test and its arguments. One thread: each case is measured alone.
const ARGUMENTS: [&str; 9] = [
    "test",
    "--release",
    "--package",
    "vault-lsm",
    "--test",
    "memory",
    "--",
    "--nocapture",
    "--test-threads=1",
];

/// Runs it, and prints what it prints: a table of peaks at the end.
pub(crate) fn run(root: &Path) -> ExitCode {
    let mut command = Command::new("cargo");
    command.current_dir(root).args(ARGUMENTS);
    match command.env("VAULT_MEMORY", "full").status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            eprintln!("the memory tests failed: {status}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("cannot start cargo: {error}");
            ExitCode::FAILURE
        }
    }
}
