//! `vaultdb snapshot restore`: into a new directory, or in place.

mod in_place;
mod to_directory;

use vault_db::Result;

use crate::arguments::Restore;
use crate::output::{Outcome, Output};

pub(super) fn run(arguments: &Restore, output: &mut Output) -> Result<Outcome> {
    // The command line lets through exactly one.
    match (&arguments.to, &arguments.into) {
        (_, Some(store)) => in_place::run(arguments, store, output),
        (Some(target), None) => to_directory::run(arguments, target, output),
        (None, None) => Ok(Outcome::Refused),
    }
}
