//! The subcommands, a file each.

mod repair;
mod salvage;
mod verify;

use vault_db::engine::Result;

use crate::arguments::Command;
use crate::output::{Outcome, Output};

/// Carries out a subcommand.
pub(crate) fn run(command: &Command, output: &mut Output) -> Result<Outcome> {
    match command {
        Command::Verify(arguments) => verify::run(arguments, output),
        Command::Repair(arguments) => repair::run(arguments, output),
        Command::Salvage(arguments) => salvage::run(arguments, output),
    }
}
