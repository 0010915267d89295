//! `vaultdb snapshot prune`

use std::fmt;

use serde::Serialize;
use vault_db::Result;
use vault_db::snapshot::{PrunePlan, Reason, SnapshotName};

use super::stored;
use crate::arguments::Prune;
use crate::interruption::Watched;
use crate::output::{Outcome, Output};

pub(super) fn run(arguments: &Prune, output: &mut Output) -> Result<Outcome> {
    let snapshots = stored(&arguments.repository)?;
    // Not to be torn: each snapshot that goes is withdrawn, and then its bytes are removed.
    let watched = Watched::begin(output, "pruned")?;
    let retention = arguments.retention();
    let plan = snapshots
        .repository()
        .prune(&retention, arguments.dry_run)?;
    drop(watched);
    let keep = plan.keep.iter().map(|(name, reasons)| Kept {
        name: *name,
        reasons: reasons.clone(),
        needed_by: Vec::new(),
    });
    let needed = plan.kept_for.iter().map(|(name, by)| Kept {
        name: *name,
        reasons: Vec::new(),
        needed_by: by.clone(),
    });
    let mut kept: Vec<Kept> = keep.chain(needed).collect();
    kept.sort_by_key(|kept| kept.name);
    let PrunePlan {
        remove: removed, ..
    } = plan;
    let told = Told {
        dry_run: arguments.dry_run,
        removed,
        kept,
    };
    output.result(&told, &told);
    Ok(Outcome::Well)
}

#[derive(Serialize)]
struct Told {
    dry_run: bool,
    /// What has gone, or would go.
    removed: Vec<SnapshotName>,
    kept: Vec<Kept>,
}

#[derive(Serialize)]
struct Kept {
    name: SnapshotName,
    reasons: Vec<Reason>,
    /// The kept ones that build on it.
    needed_by: Vec<SnapshotName>,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let goes = match self.dry_run {
            true => "would go",
            false => "is removed",
        };
        for name in &self.removed {
            writeln!(f, "{name}  {goes}")?;
        }
        for kept in &self.kept {
            writeln!(f, "{kept}")?;
        }
        if self.dry_run {
            writeln!(f, "a dry run: nothing was changed")?;
        }
        Ok(())
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  stays: ", self.name)?;
        if !self.needed_by.is_empty() {
            let by: Vec<_> = self.needed_by.iter().map(ToString::to_string).collect();
            return write!(f, "needed by {}", by.join(", "));
        }
        for (at, reason) in self.reasons.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            f.write_str(comma)?;
            match reason {
                Reason::Newest => f.write_str("the newest of its form")?,
                Reason::AheadOfClock => f.write_str("from after now")?,
                Reason::Last => f.write_str("--keep-last")?,
                Reason::Hourly => f.write_str("--keep-hourly")?,
                Reason::Daily => f.write_str("--keep-daily")?,
                Reason::Weekly => f.write_str("--keep-weekly")?,
                Reason::Monthly => f.write_str("--keep-monthly")?,
                Reason::Tag(tag) => write!(f, "--keep-tag {tag:?}")?,
            }
        }
        Ok(())
    }
}
