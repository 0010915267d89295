//! Passes arguments on to `vault-sim`: simulations and soaks. Always in release mode: a thousand seeds take
//! minutes there, and what is to show up within minutes must be fast.

use std::path::Path;
use std::process::{Command, ExitCode};

/// Runs simulations (`run`) or a soak (`soak`).
pub(crate) fn run(root: &Path, verb: &str, arguments: &[String]) -> ExitCode {
    match command(root, verb).args(arguments).status() {
        // The codes are the same: 1 the engine did wrong, 2 the command line is wrong, 3 an operation of a
        // soak did not end.
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

/// A verb of the program, without its arguments.
pub(crate) fn command(root: &Path, verb: &str) -> Command {
    let mut command = Command::new("cargo");
    command
        .current_dir(root)
        .args(["run", "--quiet", "--release"])
        .args(["--package", "vault-sim", "--", verb]);
    command
}
