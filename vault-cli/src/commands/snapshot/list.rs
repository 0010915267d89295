//! `vaultdb snapshot list`

use std::fmt;

use serde::Serialize;
use vault_db::Result;
use vault_db::snapshot::SnapshotName;

use super::row::Row;
use super::stored;
use crate::arguments::Repository;
use crate::output::{Outcome, Output};

pub(super) fn run(arguments: &Repository, output: &mut Output) -> Result<Outcome> {
    let snapshots = stored(&arguments.repository)?;
    let survey = snapshots.repository().survey()?;
    let unreadable = survey.unreadable.iter().map(|(name, error)| Unreadable {
        name: *name,
        problem: error.to_string(),
    });
    let listed = Listed {
        snapshots: survey.snapshots.iter().map(Row::from).collect(),
        unreadable: unreadable.collect(),
        interrupted: survey.interrupted,
    };
    output.result(&listed, &listed);
    Ok(match listed.unreadable.is_empty() {
        true => Outcome::Well,
        false => Outcome::Damaged,
    })
}

#[derive(Serialize)]
struct Listed<'a> {
    snapshots: Vec<Row<'a>>,
    unreadable: Vec<Unreadable>,
    interrupted: Vec<SnapshotName>,
}

#[derive(Serialize)]
struct Unreadable {
    name: SnapshotName,
    problem: String,
}

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.snapshots {
            writeln!(f, "{row}")?;
        }
        for Unreadable { name, problem } in &self.unreadable {
            writeln!(f, "{name}  cannot be used: {problem}")?;
        }
        for name in &self.interrupted {
            writeln!(
                f,
                "{name}  is no snapshot: it is being made, or was interrupted; clean removes it, unless a snapshot builds on it"
            )?;
        }
        if self.snapshots.is_empty() {
            writeln!(f, "there is no snapshot that can be used")?;
        }
        Ok(())
    }
}
