//! `vaultdb snapshot drill`

use std::fmt;

use serde::Serialize;
use vault_db::Result;
use vault_db::snapshot::{DrillReport, SnapshotName};

use super::with_options;
use crate::arguments::Drill;
use crate::interruption::Watched;
use crate::output::{Outcome, Output, size};

pub(super) fn run(arguments: &Drill, output: &mut Output) -> Result<Outcome> {
    let report = with_options(
        &arguments.keys,
        &arguments.repository,
        output,
        |snapshots, output| snapshots.drill_with(&Watched::begin(output, "restored")?),
    )?;
    let told = Told::from(&report);
    output.result(&told, &told);
    Ok(match report.is_good() {
        true => Outcome::Well,
        false => Outcome::Damaged,
    })
}

#[derive(Serialize)]
struct Told<'a> {
    snapshot: SnapshotName,
    good: bool,
    bytes: u64,
    vaults: u64,
    entries: u64,
    took_ms: u128,
    problems: &'a [String],
}

impl<'a> From<&'a DrillReport> for Told<'a> {
    fn from(report: &'a DrillReport) -> Self {
        Self {
            snapshot: report.snapshot,
            good: report.is_good(),
            bytes: report.bytes,
            vaults: report.vaults,
            entries: report.entries,
            took_ms: report.took.as_millis(),
            problems: &report.problems,
        }
    }
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut problems = self.problems.iter();
        problems.try_for_each(|problem| writeln!(f, "{problem}"))?;
        let Self {
            snapshot,
            vaults,
            entries,
            took_ms,
            ..
        } = self;
        let bytes = size(self.bytes);
        let verdict = match self.good {
            true => "is good",
            false => "is not as it says",
        };
        writeln!(
            f,
            "{snapshot}  {verdict}: {bytes} restored, {entries} entries of {vaults} vaults read, in {took_ms} ms"
        )
    }
}
