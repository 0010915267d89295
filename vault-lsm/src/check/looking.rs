//! Reading the old store of a [salvage](super::salvage): tables, and the values that they keep apart.

use std::ops::ControlFlow;

use vault_core::transform::FileKind;
use vault_core::{Error, Result};

use super::VerifyProgress;
use super::loss::SalvagedFile;
use super::stock::{Stock, file_name_of};
use crate::blob::Pointer;
use crate::blob::inspect::{self as blob, BlobSources};
use crate::table::TableEnv;
use crate::table::inspect::Visitor;

/// Reads a table for what is in it, and passes progress on.
pub(super) struct Looking<'r> {
    pub(super) values: &'r BlobSources,
    pub(super) progress: &'r mut dyn FnMut(&VerifyProgress) -> ControlFlow<()>,
    pub(super) now: &'r mut VerifyProgress,
}

impl Visitor for Looking<'_> {
    fn check_value(&mut self, key: &[u8], pointer: &Pointer) -> Result<Option<String>> {
        Ok(self.values.value(key, pointer)?.err())
    }

    fn progress(&mut self, bytes: u64) -> Result<()> {
        let done = self.now.bytes_done + bytes;
        self.now.bytes_done = done.min(self.now.bytes_total);
        match (self.progress)(self.now) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }
}

/// Opens the blob files of a store, so that tables find their values. Gives also those in which something is wrong: whether they
/// count, the tables tell that look for values in them.
pub(super) fn open_blobs(
    stock: &Stock,
    env: &TableEnv,
) -> Result<(BlobSources, Vec<SalvagedFile>)> {
    let mut values = BlobSources::default();
    let mut wrong = Vec::new();
    for number in stock.numbers(FileKind::Blob) {
        let path = stock.env.path(FileKind::Blob, number);
        let request = blob::Request {
            path: &path,
            number,
            expected: None,
        };
        let inspection = values.open(env, &request)?;
        let problems = inspection.problems.iter();
        let problems: Vec<String> = problems
            .map(|problem| {
                let (offset, expected) = (problem.offset, &problem.expected);
                let found = &problem.found;
                format!("at byte {offset}: expected {expected}, found {found}")
            })
            .collect();
        if !problems.is_empty() {
            wrong.push(SalvagedFile {
                file: file_name_of(&path),
                entries: 0,
                bytes_lost: inspection.bytes,
                problems,
            });
        }
    }
    Ok((values, wrong))
}
