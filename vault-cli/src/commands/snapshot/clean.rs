//! `vaultdb snapshot clean`

use std::fmt;

use serde::Serialize;
use vault_db::Result;
use vault_db::snapshot::{Cleaned, SnapshotName};

use super::stored;
use crate::arguments::Repository;
use crate::output::{Outcome, Output};

pub(super) fn run(arguments: &Repository, output: &mut Output) -> Result<Outcome> {
    let snapshots = stored(&arguments.repository)?;
    let Cleaned { removed, kept_for } = snapshots.repository().clean()?;
    let kept = kept_for.into_iter();
    let told = Told {
        removed,
        kept: kept
            .map(|(name, needed_by)| Kept { name, needed_by })
            .collect(),
    };
    output.result(&told, &told);
    // Whoever needs what was kept cannot be restored.
    Ok(match told.kept.is_empty() {
        true => Outcome::Well,
        false => Outcome::Damaged,
    })
}

#[derive(Serialize)]
struct Told {
    removed: Vec<SnapshotName>,
    /// What has lost its manifest, and is needed.
    kept: Vec<Kept>,
}

#[derive(Serialize)]
struct Kept {
    name: SnapshotName,
    needed_by: Vec<SnapshotName>,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.removed {
            writeln!(f, "{name}  is removed: it was never finished")?;
        }
        for Kept { name, needed_by } in &self.kept {
            let by: Vec<_> = needed_by.iter().map(ToString::to_string).collect();
            writeln!(
                f,
                "{name}  stays: it has lost its manifest, and is needed, or may be, by {}; put its manifest.json back, from a copy or \
                 from the end of its own snapshot.zip",
                by.join(", ")
            )?;
        }
        match self.removed.is_empty() && self.kept.is_empty() {
            true => writeln!(f, "nothing was left behind"),
            false => Ok(()),
        }
    }
}
