//! `vaultdb verify`: runs it, and prints findings and counts, and what it proves that there are no more of them.

use std::fmt;
use std::ops::ControlFlow;

use vault_db::engine::Result;
use vault_db::engine::check::{
    self, Assurance, Finding, ScrubReport, Severity, VerifyOptions, VerifyReport,
};

use crate::arguments::{Part, Verify};
use crate::keys::with_options;
use crate::output::{Outcome, Output, size};

pub(crate) fn run(arguments: &Verify, output: &mut Output) -> Result<Outcome> {
    if arguments.without_keys {
        return without_keys(arguments, output);
    }
    let what = VerifyOptions {
        sample_percent: arguments.sample,
        seed: arguments.seed,
        tables: arguments.only != Some(Part::Log),
        log: arguments.only != Some(Part::Tables),
    };
    let report = with_options(&arguments.keys, output, |options, output| {
        check::verify(&arguments.store, options, &what, &mut |progress| {
            output.progress(progress);
            ControlFlow::Continue(())
        })
    })?;
    let text = Text {
        report: &report,
        quiet: output.is_quiet(),
    };
    output.result(&report, text);
    Ok(outcome(report.is_clean()))
}

fn without_keys(arguments: &Verify, output: &mut Output) -> Result<Outcome> {
    let options = vault_db::engine::LsmOptions::default();
    let report = check::scrub(&arguments.store, &options, &mut |progress| {
        output.progress(progress);
        ControlFlow::Continue(())
    })?;
    let text = ScrubText {
        report: &report,
        quiet: output.is_quiet(),
    };
    output.result(&report, text);
    Ok(outcome(report.is_clean()))
}

const fn outcome(clean: bool) -> Outcome {
    if clean {
        Outcome::Well
    } else {
        Outcome::Damaged
    }
}

fn findings(f: &mut fmt::Formatter<'_>, findings: &[Finding], quiet: bool) -> fmt::Result {
    let told = |finding: &&Finding| !quiet || finding.severity != Severity::Note;
    let mut told = findings.iter().filter(told);
    told.try_for_each(|finding| writeln!(f, "{finding}"))
}

/// What it proves that a store was found sound.
const fn meaning(assurance: Assurance, encrypted: bool, with_keys: bool) -> &'static str {
    match (assurance, encrypted, with_keys) {
        (Assurance::Authenticity, ..) => {
            "verified with the store's keys: what was read is what their holder wrote"
        }
        (_, true, false) => {
            "verified without keys: checksums find accidents; that nobody changed the files on purpose, and that none \
             is missing, is for the store's keys to tell"
        }
        _ => {
            "verified by checksums: they find accidents, and not what somebody who knows the format changed on \
             purpose"
        }
    }
}

struct Text<'a> {
    report: &'a VerifyReport,
    quiet: bool,
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        findings(f, &self.report.findings, self.quiet)?;
        let checked = &self.report.checked;
        if !self.quiet {
            writeln!(
                f,
                "checked {} in {} files: {} blocks, {} entries, {} keys against filters, {} values kept apart, {} manifest records, \
                 {} batches of {} operations in the log",
                size(checked.bytes),
                checked.files,
                checked.blocks,
                checked.entries,
                checked.filter_probes,
                checked.values,
                checked.manifest_records,
                checked.log_batches,
                checked.log_operations
            )?;
            writeln!(f, "{}", meaning(self.report.assurance, false, true))?;
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

struct ScrubText<'a> {
    report: &'a ScrubReport,
    quiet: bool,
}

impl fmt::Display for ScrubText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report;
        findings(f, &report.findings, self.quiet)?;
        if !self.quiet {
            let checked = &report.checked;
            writeln!(
                f,
                "checked {} in {} files: {} records, {} pieces of tables",
                size(checked.bytes),
                checked.files,
                checked.records,
                checked.pieces
            )?;
            writeln!(f, "{}", meaning(report.assurance, report.encrypted, false))?;
        }
        if report.is_clean() {
            writeln!(f, "nothing is wrong")
        } else {
            let files = report.damaged_files().join(", ");
            writeln!(f, "something is wrong with, or in doubt about: {files}")
        }
    }
}
