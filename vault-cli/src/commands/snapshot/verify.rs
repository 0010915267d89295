//! `vaultdb snapshot verify`: one snapshot, or all of them, each told by itself.

use std::fmt;

use serde::Serialize;
use vault_db::engine::check::{Finding, Severity, VerifyReport};
use vault_db::snapshot::{ArchiveError, Form, SnapshotName, StoredSnapshots};
use vault_db::{Error, ErrorKind, Result};

use super::{is_damage, resolve, stored, with_key};
use crate::arguments::VerifySnapshot;
use crate::interruption::Watched;
use crate::output::{Outcome, Output, size};

pub(super) fn run(arguments: &VerifySnapshot, output: &mut Output) -> Result<Outcome> {
    let key = arguments.keys.key();
    let snapshots = with_key(&stored(&arguments.repository)?, key.as_ref());
    let mut told = Told {
        snapshots: Vec::new(),
        quiet: output.is_quiet(),
    };
    if arguments.all {
        for name in snapshots.repository().names()? {
            let checked = match verify(&snapshots, name, output) {
                // Somebody pruned meanwhile.
                Err(error) if is_gone(&error) => continue,
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                // The others may be good, and may open with this key; and what was found is told.
                Err(error) => Checked::failed(name, &error),
                Ok(checked) => checked,
            };
            told.snapshots.push(checked);
        }
    } else {
        let name = resolve(&snapshots, arguments.name)?;
        let checked =
            verify(&snapshots, name, output).or_else(|error| match is_damage(&error) {
                true => Ok(Checked::failed(name, &error)),
                false => Err(error),
            })?;
        told.snapshots.push(checked);
    }
    output.result(&told, &told);
    Ok(told.outcome())
}

fn verify(snapshots: &StoredSnapshots, name: SnapshotName, output: &mut Output) -> Result<Checked> {
    let verified = snapshots.verify(name, &Watched::looking_on(output, "verified"))?;
    let form = snapshots.repository().manifest(name)?.form;
    Ok(Checked {
        snapshot: name,
        verdict: match verified.content.as_ref().is_none_or(VerifyReport::is_clean) {
            true => Verdict::Whole,
            false => Verdict::Damaged,
        },
        form: Some(form),
        files: verified.hashes.entries,
        bytes: verified.hashes.bytes,
        bytes_read: verified.hashes.bytes_read,
        chain: verified.hashes.chain,
        content: verified.content,
        problem: None,
    })
}

fn is_gone(error: &Error) -> bool {
    matches!(
        error,
        Error::Snapshot(error) if matches!(**error, ArchiveError::NoSuchSnapshot { .. })
    )
}

/// What was found of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Whole,
    Damaged,
    /// Its hashes are right, and this is not its key.
    Unopened,
    /// It could not be looked at.
    Unchecked,
}

#[derive(Serialize)]
struct Checked {
    snapshot: SnapshotName,
    verdict: Verdict,
    form: Option<Form>,
    files: u64,
    bytes: u64,
    bytes_read: u64,
    chain: Vec<SnapshotName>,
    /// What the engine found; `None` of documents, and where there was no key.
    content: Option<VerifyReport>,
    problem: Option<String>,
}

impl Checked {
    fn failed(name: SnapshotName, error: &Error) -> Self {
        Self {
            snapshot: name,
            verdict: match is_damage(error) {
                true => Verdict::Damaged,
                false if error.kind() == ErrorKind::Unlock => Verdict::Unopened,
                false => Verdict::Unchecked,
            },
            form: None,
            files: 0,
            bytes: 0,
            bytes_read: 0,
            chain: Vec::new(),
            content: None,
            problem: Some(error.to_string()),
        }
    }

    fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.content.iter().flat_map(|content| &content.findings)
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Told {
    snapshots: Vec<Checked>,
    #[serde(skip)]
    quiet: bool,
}

impl Told {
    fn outcome(&self) -> Outcome {
        let any = |verdict| {
            self.snapshots
                .iter()
                .any(|checked| checked.verdict == verdict)
        };
        if any(Verdict::Damaged) {
            Outcome::Damaged
        } else if any(Verdict::Unopened) || any(Verdict::Unchecked) {
            Outcome::Refused
        } else {
            Outcome::Well
        }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for checked in &self.snapshots {
            let name = checked.snapshot;
            let told = |finding: &&Finding| !self.quiet || finding.severity != Severity::Note;
            let mut findings = checked.findings().filter(told);
            findings.try_for_each(|finding| writeln!(f, "{name}  {finding}"))?;
            if let Some(problem) = &checked.problem {
                writeln!(f, "{name}  {problem}")?;
            }
            match (checked.verdict, &checked.content) {
                (Verdict::Damaged, _) => writeln!(f, "{name}  is damaged")?,
                (Verdict::Unopened, _) => writeln!(f, "{name}  could not be opened")?,
                (Verdict::Unchecked, _) => writeln!(f, "{name}  could not be checked")?,
                (Verdict::Whole, content) => {
                    let (files, bytes) = (checked.files, size(checked.bytes));
                    let archives = match checked.chain.len() {
                        1 => "1 archive".to_owned(),
                        links => format!("{links} archives"),
                    };
                    write!(
                        f,
                        "{name}  is whole: {bytes} in {files} files, of {archives}; "
                    )?;
                    match (content, checked.form) {
                        (Some(content), _) => {
                            writeln!(f, "hashes and {} blocks are right", content.checked.blocks)?;
                        }
                        (None, Some(Form::Logical)) => {
                            writeln!(f, "hashes are right, and every document can be read")?;
                        }
                        (None, _) => writeln!(
                            f,
                            "hashes are right; with its key, its blocks can be checked, too"
                        )?,
                    }
                }
            }
        }
        if self.snapshots.is_empty() {
            writeln!(f, "there is no snapshot")?;
        }
        Ok(())
    }
}
