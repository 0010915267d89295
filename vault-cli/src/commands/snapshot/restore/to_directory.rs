//! A new store out of a snapshot.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use vault_db::engine::Error as EngineError;
use vault_db::engine::vfs::{DiskFileSystem, FileSystem};
use vault_db::snapshot::{
    ArchiveError, Form, Manifest, SnapshotName, StoredSnapshots, is_encrypted,
};
use vault_db::{Error, Result};

use super::super::{absolute, resolve, stored, with_key};
use crate::arguments::Restore;
use crate::interruption::Watched;
use crate::output::{Outcome, Output, path_as_shown, size};

pub(super) fn run(arguments: &Restore, target: &Path, output: &mut Output) -> Result<Outcome> {
    let key = arguments.keys.key();
    let has_key = key.is_some();
    let snapshots = with_key(&stored(&arguments.repository)?, key.as_ref());
    let name = resolve(&snapshots, arguments.name)?;
    let watched = Watched::begin(output, "restored")?;
    let (outcome, told) = match arguments.dry_run {
        true => preview(&snapshots, name, arguments, target, has_key, &watched)?,
        false => restore(&snapshots, name, arguments, target, has_key, &watched)?,
    };
    output.result(&told, &told);
    Ok(outcome)
}

fn restore(
    snapshots: &StoredSnapshots,
    name: SnapshotName,
    arguments: &Restore,
    target: &Path,
    has_key: bool,
    watched: &Watched<'_>,
) -> Result<(Outcome, Told)> {
    let done = snapshots.restore_to(name, target, arguments.least_generation, watched)?;
    let manifest = snapshots.repository().manifest(name)?;
    let told = Told {
        snapshot: name,
        generation: manifest.generation,
        target: done.target,
        form: manifest.form,
        files: manifest.entries.len() as u64,
        bytes: manifest.bytes(),
        vaults: vaults(&manifest),
        dry_run: false,
        clean: true,
        opened: has_key || !is_encrypted(&manifest),
    };
    Ok((Outcome::Well, told))
}

/// Verifies the snapshot, and refuses what a restore would refuse.
fn preview(
    snapshots: &StoredSnapshots,
    name: SnapshotName,
    arguments: &Restore,
    target: &Path,
    has_key: bool,
    watched: &Watched<'_>,
) -> Result<(Outcome, Told)> {
    check_target(target)?;
    let manifest = snapshots.repository().manifest(name)?;
    // Of the files, too, as the restore asks.
    let least = arguments.least_generation.unwrap_or(0);
    let snapshots = snapshots.clone().with_least_generation(least);
    let verified = snapshots.verify(name, watched)?;
    let clean = verified.content.is_none_or(|content| content.is_clean());
    let told = Told {
        snapshot: name,
        generation: manifest.generation,
        target: absolute(target),
        form: manifest.form,
        files: manifest.entries.len() as u64,
        bytes: manifest.bytes(),
        vaults: vaults(&manifest),
        dry_run: true,
        clean,
        opened: has_key || !is_encrypted(&manifest),
    };
    let outcome = match clean {
        true => Outcome::Well,
        false => Outcome::Damaged,
    };
    Ok((outcome, told))
}

/// Whether something could be restored there, as the restore will ask itself.
fn check_target(target: &Path) -> Result<()> {
    let occupied = match DiskFileSystem.read_dir(target) {
        Ok(entries) if entries.is_empty() => return Ok(()),
        Ok(_) => "it is not empty",
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => "it is no directory",
        Err(error) => return Err(EngineError::io("list", target, error).into()),
    };
    Err(Error::from(ArchiveError::TargetOccupied {
        path: absolute(target),
        problem: format!("{occupied}; give a directory that does not exist"),
    }))
}

/// What a logical snapshot was made of, which may be less than the store had.
fn vaults(manifest: &Manifest) -> Option<Vec<String>> {
    let documents = manifest.entries.iter();
    let documents = documents.filter_map(|entry| entry.document.clone());
    (manifest.form == Form::Logical).then(|| documents.collect())
}

#[derive(Serialize)]
struct Told {
    snapshot: SnapshotName,
    generation: u64,
    #[serde(serialize_with = "path_as_shown")]
    target: PathBuf,
    form: Form,
    /// Files or documents of the snapshot.
    files: u64,
    bytes: u64,
    /// The vaults that a logical one has; everything of a physical one comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    vaults: Option<Vec<String>>,
    dry_run: bool,
    /// Whether what could be looked into is as it was.
    clean: bool,
    /// Whether it was looked into, which of an encrypted one takes the key.
    opened: bool,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (snapshot, target) = (self.snapshot, self.target.display());
        let (files, bytes) = (self.files, size(self.bytes));
        let what = match self.form {
            Form::Physical => "files",
            Form::Logical => "documents, read into a new store,",
        };
        if let Some(vaults) = &self.vaults {
            // Told so that no terminal takes it for its own.
            let vaults: Vec<_> = vaults.iter().map(|vault| format!("{vault:?}")).collect();
            let vaults = vaults.join(", ");
            writeln!(
                f,
                "it is logical, and has these vaults and no others: {vaults}"
            )?;
        }
        if !self.opened {
            writeln!(
                f,
                "its hashes are right; without its key, nobody has looked into it"
            )?;
        }
        if !self.dry_run {
            return writeln!(
                f,
                "restored {snapshot} into {target}: {files} {what} of {bytes}"
            );
        }
        match self.clean {
            true => writeln!(
                f,
                "{snapshot} is whole; {files} {what} of {bytes} would go into {target}"
            )?,
            false => writeln!(f, "{snapshot} is damaged inside: verify says where")?,
        }
        writeln!(f, "a dry run: nothing was changed")
    }
}
