//! Verification: every byte of a store that means something is read and held against what it should be.

use std::path::Path;

use serde::Serialize;
use vault_core::{Error, Result};

use super::report::VerifyReport;
use super::survey::{Progress, Scope, survey};
use crate::options::LsmOptions;

/// What a verification looks at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VerifyOptions {
    /// Of the data blocks of tables, how many percent are read, above 0 and up to 100. Everything else
    /// (headers, indexes, filters, range deletes, properties, manifest, log) is read in any case.
    pub sample_percent: f64,
    /// Chooses which blocks are read where not all are.
    pub seed: u64,
    /// Whether tables are looked at.
    pub tables: bool,
    /// Whether the log is looked at.
    pub log: bool,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self {
            sample_percent: 100.0,
            seed: 0,
            tables: true,
            log: true,
        }
    }
}

/// How far a check has come.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct VerifyProgress {
    /// The file that is being read; empty before the first.
    pub file: String,
    /// Bytes dealt with.
    pub bytes_done: u64,
    /// Bytes in all.
    pub bytes_total: u64,
}

/// Checks the store in `directory`, and writes nothing: it works on a read-only medium, and beside a process
/// that has the store open.
///
/// Damage is no error: it is in the report.
///
/// # Errors
/// [`Error::NoSuchStore`], [`Error::NotAStore`], [`Error::NewerFormat`], [`Error::InvalidSetting`],
/// [`Error::Cancelled`] where `progress` breaks, [`Error::Io`] where the directory cannot be read.
pub fn verify(
    directory: impl AsRef<Path>,
    options: &LsmOptions,
    verify: &VerifyOptions,
    progress: Progress<'_>,
) -> Result<VerifyReport> {
    let percent = verify.sample_percent;
    if !(percent > 0.0 && percent <= 100.0) {
        return Err(Error::InvalidSetting {
            setting: "sample_percent",
            problem: format!("{percent} is not above 0 and at most 100"),
        });
    }
    let scope = Scope {
        sample_percent: percent,
        seed: verify.seed,
        tables: verify.tables,
        log: verify.log,
    };
    let survey = survey(directory.as_ref(), options, &scope, progress)?;
    Ok(VerifyReport {
        assurance: survey.stock.env.transform.assurance(),
        sample_percent: percent,
        checked: survey.checked,
        findings: survey.findings,
    })
}
