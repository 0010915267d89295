//! A snapshot as it is told: one line for people, one object for programs.

use std::fmt;

use serde::Serialize;
use vault_db::Timestamp;
use vault_db::snapshot::{Form, Kind, Manifest, SnapshotName, Trigger, is_encrypted};

use crate::output::size;

/// What is told of a snapshot.
#[derive(Debug, Serialize)]
pub(super) struct Row<'a> {
    name: SnapshotName,
    /// Identity of the store that it was made of.
    store: String,
    time: String,
    kind: Kind,
    form: Form,
    encrypted: bool,
    /// Bytes in its own archive, not compressed.
    own_bytes: u64,
    /// Bytes of all that it shows, wherever they lie.
    bytes: u64,
    /// Files or documents.
    files: usize,
    /// Entries of all vaults; `None` where that is confidential.
    entries: Option<u64>,
    parent: Option<SnapshotName>,
    chain_root: SnapshotName,
    content_of: Option<SnapshotName>,
    generation: u64,
    sequence: u64,
    trigger: &'a Trigger,
    tags: &'a [String],
    note: &'a str,
}

impl<'a> From<&'a Manifest> for Row<'a> {
    fn from(manifest: &'a Manifest) -> Self {
        let counts = &manifest.counts;
        let entries = counts.values().map(|count| count.entries);
        Self {
            name: manifest.name,
            store: manifest.store.to_string(),
            time: time(manifest.time),
            kind: manifest.kind,
            form: manifest.form,
            encrypted: is_encrypted(manifest),
            own_bytes: manifest.own_bytes(),
            bytes: manifest.bytes(),
            files: manifest.entries.len(),
            entries: (!counts.is_empty()).then(|| entries.fold(0, u64::saturating_add)),
            parent: manifest.parent,
            chain_root: manifest.chain_root,
            content_of: manifest.content_of,
            generation: manifest.generation,
            sequence: manifest.sequence,
            trigger: &manifest.trigger,
            tags: &manifest.tags,
            note: &manifest.note,
        }
    }
}

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Full => "full",
            Kind::Incremental => "incremental",
        };
        let form = match (self.form, self.encrypted) {
            (Form::Physical, false) => "physical",
            (Form::Physical, true) => "encrypted",
            (Form::Logical, _) => "logical",
        };
        let (own, all) = (size(self.own_bytes), size(self.bytes));
        let Self {
            name, time, files, ..
        } = self;
        write!(
            f,
            "{name}  {time}  {kind:11}  {form:9}  {own} of {all} in {files} files"
        )?;
        if let Some(entries) = self.entries {
            write!(f, ", {entries} entries")?;
        }
        if let Some(parent) = self.parent {
            write!(f, ", on {parent}")?;
        }
        if let Some(of) = self.content_of {
            write!(f, ", a copy of {of}")?;
        }
        match self.trigger {
            Trigger::Manual => {}
            Trigger::Interval => write!(f, ", made by the clock")?,
            Trigger::Change => write!(f, ", made by how much had changed")?,
            // What others wrote is told so that no terminal takes it for its own.
            Trigger::Event(event) => write!(f, ", made on {event:?}")?,
        }
        for tag in self.tags {
            write!(f, ", tag {tag:?}")?;
        }
        if !self.note.is_empty() {
            write!(f, ", note {:?}", self.note)?;
        }
        Ok(())
    }
}

/// A time as people and programs read it; beyond the year 9999, in milliseconds.
pub(super) fn time(time: Timestamp) -> String {
    let milliseconds = i64::try_from(time.0).ok();
    let time_of_day = milliseconds.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time_of_day.map_or_else(|| format!("{} ms", time.0), |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_to_the_millisecond() {
        assert_eq!(
            time(Timestamp(1_795_361_400_009)),
            "2026-11-22T15:30:00.009Z"
        );
        assert_eq!(time(Timestamp(u64::MAX)), format!("{} ms", u64::MAX));
    }
}
