//! `vaultdb snapshot clean`

use std::fmt;

use serde::Serialize;
use vault_db::Result;
use vault_db::snapshot::SnapshotName;

use super::stored;
use crate::arguments::Repository;
use crate::output::{Outcome, Output};

pub(super) fn run(arguments: &Repository, output: &mut Output) -> Result<Outcome> {
    let removed = stored(&arguments.repository)?.repository().clean()?;
    let cleaned = Cleaned { removed };
    output.result(&cleaned, &cleaned);
    Ok(Outcome::Well)
}

#[derive(Serialize)]
struct Cleaned {
    removed: Vec<SnapshotName>,
}

impl fmt::Display for Cleaned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.removed {
            writeln!(f, "{name}  is removed: it was never finished")?;
        }
        match self.removed.is_empty() {
            true => writeln!(f, "nothing was left behind"),
            false => Ok(()),
        }
    }
}
