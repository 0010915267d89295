//! `vaultdb snapshot consolidate`

use vault_db::Result;

use super::row::Row;
use super::{resolve, stored};
use crate::arguments::Named;
use crate::interruption::Watched;
use crate::output::{Outcome, Output};

pub(super) fn run(arguments: &Named, output: &mut Output) -> Result<Outcome> {
    let snapshots = stored(&arguments.repository)?;
    let name = resolve(&snapshots, arguments.name)?;
    let watched = Watched::begin(output, "copied")?;
    let made = snapshots.repository().consolidate(name, &watched)?;
    let row = Row::from(&made);
    output.result(&row, format_args!("made {row}\n"));
    Ok(Outcome::Well)
}
