//! Looking at the blob files of a store: the part of a [survey](super::survey) that is about large values.

use std::path::Path;

use vault_core::Result;
use vault_core::transform::FileKind;

use super::report::{Finding, FindingKind, Severity};
use super::stock::file_name_of;
use super::survey::{Meter, Scope, Survey, SurveyedTable, UNREADABLE_ADVICE, still_named};
use crate::blob::inspect as blob;
use crate::options::LsmOptions;

/// A blob file of the manifest, looked at.
pub(crate) struct SurveyedBlob {
    pub(crate) number: u64,
    /// Whether there is nothing wrong with it.
    pub(crate) sound: bool,
}

impl Survey {
    /// Whether a repair writes this table anew: it has faults, or points into a blob file that has.
    pub(crate) fn must_rewrite(&self, table: &SurveyedTable) -> bool {
        let uses = |number| table.meta.blobs.iter().any(|blob| blob.file == number);
        let mut unsound = self.blobs.iter().filter(|blob| !blob.sound);
        !table.inspection.problems.is_empty() || unsound.any(|blob| uses(blob.number))
    }

    /// Looks at the blob files. Before the tables, whose values are then looked for in them.
    pub(super) fn blobs(
        &mut self,
        directory: &Path,
        options: &LsmOptions,
        scope: &Scope,
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        let env = self.stock.table_env();
        let Some(state) = self.stock.state().cloned() else {
            return Ok(());
        };
        for (&keyspace, places) in &state.keyspaces {
            for place in places.blobs.values() {
                let number = place.meta.number;
                let path = self.stock.env.path(FileKind::Blob, number);
                let request = blob::Request {
                    path: &path,
                    number,
                    expected: Some((keyspace, &place.meta)),
                };
                let file = file_name_of(&path);
                let mut inspection = self.values.open(&env, &request)?;
                let mut done = 0;
                // A sample of blocks is for those who have no time for all of them: the values that they point to are read.
                if scope.sample_percent >= 100.0 {
                    let values = &self.values;
                    values.walk(&request, &mut inspection, &mut |bytes| {
                        done += bytes;
                        meter.add(&file, bytes)
                    })?;
                }
                meter.add(&file, place.meta.bytes.saturating_sub(done))?;
                let missing = |p: &blob::Problem| p.fault == blob::Fault::Missing;
                if inspection.problems.iter().any(missing)
                    && !still_named(directory, options, number)?
                {
                    continue;
                }
                self.checked.files += u64::from(inspection.bytes > 0);
                self.checked.values += inspection.values;
                self.checked.bytes += inspection.bytes;
                self.blobs.push(SurveyedBlob {
                    number,
                    sound: inspection.problems.is_empty(),
                });
                let findings = inspection.problems.iter();
                self.findings
                    .extend(findings.map(|problem| blob_finding(&file, problem)));
            }
        }
        Ok(())
    }
}

fn blob_finding(file: &str, problem: &blob::Problem) -> Finding {
    let (severity, kind) = match problem.fault {
        blob::Fault::Unreadable => (Severity::Unchecked, FindingKind::Unreadable),
        blob::Fault::Missing => (Severity::Damage, FindingKind::Missing),
        blob::Fault::Length => (Severity::Damage, FindingKind::Length),
        blob::Fault::Header => (Severity::Damage, FindingKind::Header),
        blob::Fault::Record => (Severity::Damage, FindingKind::Value),
    };
    Finding {
        severity,
        file: file.to_owned(),
        offset: (kind != FindingKind::Missing).then_some(problem.offset),
        kind,
        expected: problem.expected.clone(),
        found: problem.found.clone(),
        advice: match kind {
            FindingKind::Unreadable => UNREADABLE_ADVICE,
            _ => "restore the file from a copy, or run repair, which says first what would be lost",
        },
    }
}
