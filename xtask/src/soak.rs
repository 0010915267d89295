//! Passes arguments on to the soak. In release mode: what is to show up in minutes must be fast.

use std::path::Path;
use std::process::{Command, ExitCode};

/// Runs a soak.
pub(crate) fn run(root: &Path, arguments: &[String]) -> ExitCode {
    let mut command = Command::new("cargo");
    command.current_dir(root);
    command.args([
        "run",
        "--quiet",
        "--release",
        "--package",
        "vault-sim",
        "--",
    ]);
    match command.arg("soak").args(arguments).status() {
        // The codes are the same, and 3 is an operation that did not end.
        Ok(status) => status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .map_or(ExitCode::FAILURE, ExitCode::from),
        Err(error) => {
            eprintln!("cannot start cargo: {error}");
            ExitCode::FAILURE
        }
    }
}
