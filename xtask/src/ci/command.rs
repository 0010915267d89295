//! Running the commands that steps are made of, and telling how they ended.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Context;
use super::Outcome::{self, Failed, Passed};

pub(super) fn cargo_command(root: &Path) -> Command {
    // Not $CARGO: that one is the toolchain's own and doesn't understand `+nightly`.
    let mut command = Command::new("cargo");
    command.current_dir(root).stdin(Stdio::null());
    command
}

pub(super) fn cargo(context: &Context<'_>, arguments: &[&str]) -> Outcome {
    run_command(cargo_command(context.root).args(arguments))
}

/// Whether a cargo command is there at all.
pub(super) fn answers(root: &Path, arguments: &[&str]) -> bool {
    cargo_command(root)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

pub(super) fn run_command(command: &mut Command) -> Outcome {
    match command.status() {
        Ok(status) if status.success() => Passed,
        Ok(status) => Failed(status.to_string()),
        Err(error) => Failed(error.to_string()),
    }
}

/// Removes what only one step builds, in a directory of its own, where nobody builds again: gigabytes that the next steps need.
pub(super) fn built_for_once(directory: &Path) {
    if std::env::var_os("CI").is_some() {
        // Where it is not there, the step did not come as far as building.
        let _ = std::fs::remove_dir_all(directory);
    }
}

/// Runs a command that must end within `limit`.
pub(super) fn run_for(command: &mut Command, limit: Duration) -> Outcome {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Failed(error.to_string()),
    };
    let begin = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Passed,
            Ok(Some(status)) => return Failed(status.to_string()),
            Ok(None) if begin.elapsed() < limit => std::thread::sleep(Duration::from_millis(20)),
            Ok(None) => {
                let killed = child.kill().and_then(|()| child.wait());
                let left = killed.map_or_else(|error| format!(", and {error}"), |_| String::new());
                return Failed(format!("did not end within {limit:?}{left}"));
            }
            Err(error) => return Failed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_does_not_end_is_ended() {
        let limit = Duration::from_millis(50);
        let outcome = run_for(Command::new("sleep").arg("60"), limit);
        assert!(matches!(outcome, Failed(reason) if reason.contains("did not end")));
        assert_eq!(
            run_for(&mut Command::new("true"), Duration::from_secs(60)),
            Passed
        );
        assert!(matches!(
            run_for(&mut Command::new("false"), Duration::from_secs(60)),
            Failed(_)
        ));
    }
}
