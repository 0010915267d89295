//! `vaultdb verify`: runs it, and prints findings and counts.

use std::fmt;
use std::ops::ControlFlow;

use vault_db::check::{self, Severity, VerifyOptions, VerifyReport};
use vault_db::{LsmOptions, Result};

use crate::arguments::{Part, Verify};
use crate::output::{Outcome, Output, size};

pub(crate) fn run(arguments: &Verify, output: &mut Output) -> Result<Outcome> {
    let options = VerifyOptions {
        sample_percent: arguments.sample,
        seed: arguments.seed,
        tables: arguments.only != Some(Part::Log),
        log: arguments.only != Some(Part::Tables),
    };
    let report = check::verify(
        &arguments.store,
        &LsmOptions::default(),
        &options,
        &mut |progress| {
            output.progress(progress);
            ControlFlow::Continue(())
        },
    )?;
    let text = Text {
        report: &report,
        quiet: output.is_quiet(),
    };
    output.result(&report, text);
    Ok(if report.is_clean() {
        Outcome::Well
    } else {
        Outcome::Damaged
    })
}

struct Text<'a> {
    report: &'a VerifyReport,
    quiet: bool,
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.report.findings {
            if !self.quiet || finding.severity != Severity::Note {
                writeln!(f, "{finding}")?;
            }
        }
        let checked = &self.report.checked;
        if !self.quiet {
            writeln!(
                f,
                "checked {} in {} files: {} blocks, {} entries, {} keys against filters, {} manifest records, \
                 {} batches of {} operations in the log",
                size(checked.bytes),
                checked.files,
                checked.blocks,
                checked.entries,
                checked.filter_probes,
                checked.manifest_records,
                checked.log_batches,
                checked.log_operations
            )?;
        }
        match (self.report.is_clean(), self.report.sample_percent) {
            (true, 100.0) => writeln!(f, "nothing is wrong"),
            (true, percent) => writeln!(
                f,
                "nothing is wrong in {percent}% of the data blocks and all else"
            ),
            (false, _) => {
                let files = self.report.damaged_files().join(", ");
                writeln!(f, "something is wrong with: {files}")
            }
        }
    }
}
