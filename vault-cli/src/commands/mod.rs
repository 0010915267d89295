//! The subcommands, a file each; those of `snapshot` in a folder.

mod repair;
mod salvage;
mod snapshot;
mod verify;

use vault_db::Result;

use crate::arguments::Command;
use crate::output::{Outcome, Output};

/// Carries out a subcommand.
pub(crate) fn run(command: &Command, output: &mut Output) -> Result<Outcome> {
    Ok(match command {
        Command::Verify(arguments) => verify::run(arguments, output)?,
        Command::Repair(arguments) => repair::run(arguments, output)?,
        Command::Salvage(arguments) => salvage::run(arguments, output)?,
        Command::Snapshot(arguments) => snapshot::run(arguments, output)?,
    })
}
