//! Passes arguments on to the simulations. Always in release mode: a thousand seeds take minutes there.

use std::path::Path;
use std::process::{Command, ExitCode};

/// Runs simulations.
pub(crate) fn run(root: &Path, arguments: &[String]) -> ExitCode {
    match command(root).args(arguments).status() {
        // The codes are the same: 1 the engine did wrong, 2 the command line is wrong.
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

/// The simulations, without their arguments.
pub(crate) fn command(root: &Path) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root);
    command.args([
        "run",
        "--quiet",
        "--release",
        "--package",
        "vault-sim",
        "--",
        "run",
    ]);
    command
}
