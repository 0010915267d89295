//! A snapshot in place of what a store holds.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use vault_db::snapshot::{SnapshotName, Snapshots};
use vault_db::{Error, Result};

use super::super::diff::VaultChange;
use super::super::{Access, absolute, open_store, resolve, stored};
use crate::arguments::Restore;
use crate::interruption::Watched;
use crate::keys::{self, Key};
use crate::output::{Outcome, Output, path_as_shown};

pub(super) fn run(arguments: &Restore, store: &Path, output: &mut Output) -> Result<Outcome> {
    let snapshots = stored(&arguments.repository)?;
    let name = resolve(&snapshots, arguments.name)?;
    // What is not there is no reason to open the store.
    snapshots.repository().manifest(name)?;
    let wants_key = |error: &Error| keys::wants_key(error).map(|_| store.to_owned());
    let keys = &arguments.keys;
    if arguments.dry_run {
        let changes = keys::with_key(keys, output, wants_key, |key, output| {
            preview(arguments, store, name, key, output)
        })?;
        output.result(&changes, &changes);
    } else {
        let done = keys::with_key(keys, output, wants_key, |key, output| {
            restore(arguments, store, name, key, output)
        })?;
        output.result(&done, &done);
    }
    Ok(Outcome::Well)
}

/// Works on a store and the snapshots together, and closes it whatever comes of that. Gives what came of closing it, too.
fn with_store<T>(
    arguments: &Restore,
    store: &Path,
    key: Option<&Key>,
    access: Access,
    work: impl FnOnce(&Snapshots) -> Result<T>,
) -> Result<(T, Result<()>)> {
    let database = open_store(store, key, access)?;
    let snapshots = database.snapshots(&arguments.repository);
    let done = snapshots.and_then(|snapshots| match key {
        Some(key) => work(&snapshots.with_key(key.clone())),
        None => work(&snapshots),
    });
    let closed = database.close();
    Ok((done?, closed))
}

fn restore(
    arguments: &Restore,
    store: &Path,
    name: SnapshotName,
    key: Option<&Key>,
    output: &mut Output,
) -> Result<Restored> {
    let watched = Watched::begin(output, "verified")?;
    let (outcome, closed) = with_store(arguments, store, key, Access::Write, |snapshots| {
        snapshots.restore_with(name, &arguments.scope(), &watched, |progress| {
            watched.parts(progress.vaults_done, progress.vaults_total, &progress.vault)
        })
    })?;
    Ok(Restored {
        snapshot: name,
        store: absolute(store),
        vaults: outcome.vaults,
        vaults_before: outcome.vaults_before,
        entries: outcome.entries,
        // What was restored is on stable storage before the store is closed.
        close_problem: closed.err().map(|error| error.to_string()),
    })
}

/// What a restore would change. The store is opened for reading, and stays as it is byte for byte.
fn preview(
    arguments: &Restore,
    store: &Path,
    name: SnapshotName,
    key: Option<&Key>,
    output: &mut Output,
) -> Result<Changes> {
    let watched = Watched::looking_on(output, "verified");
    let (vaults, closed) = with_store(arguments, store, key, Access::Read, |snapshots| {
        snapshots.repository().verify(name, &watched)?;
        snapshots.preview(name, &arguments.scope())
    })?;
    closed?;
    Ok(Changes {
        snapshot: name,
        store: absolute(store),
        dry_run: true,
        vaults: vaults.iter().map(VaultChange::from).collect(),
    })
}

#[derive(Serialize)]
struct Restored {
    snapshot: SnapshotName,
    #[serde(serialize_with = "path_as_shown")]
    store: PathBuf,
    vaults: u64,
    vaults_before: u64,
    entries: u64,
    /// Why the store could not be closed after it was restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    close_problem: Option<String>,
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            snapshot,
            vaults,
            vaults_before,
            entries,
            ..
        } = self;
        let store = self.store.display();
        writeln!(
            f,
            "restored {snapshot} into {store}: {vaults} vaults with {entries} entries, in place of {vaults_before} vaults"
        )?;
        match &self.close_problem {
            None => Ok(()),
            Some(problem) => writeln!(
                f,
                "the restore is in place, do not run it again; closing the store behind it failed: {problem}; run `vaultdb verify` on it"
            ),
        }
    }
}

#[derive(Serialize)]
struct Changes {
    snapshot: SnapshotName,
    #[serde(serialize_with = "path_as_shown")]
    store: PathBuf,
    dry_run: bool,
    vaults: Vec<VaultChange>,
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for vault in self.vaults.iter().filter(|vault| !vault.is_empty()) {
            writeln!(f, "{vault}")?;
        }
        if self.vaults.iter().all(VaultChange::is_empty) {
            writeln!(f, "{} holds what is there already", self.snapshot)?;
        }
        writeln!(f, "a dry run: nothing was changed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_that_is_in_place_is_told_so_though_closing_fails() {
        let mut done = Restored {
            snapshot: "2026-11-22T153000Z".parse().unwrap(),
            store: "store".into(),
            vaults: 1,
            vaults_before: 2,
            entries: 3,
            close_problem: None,
        };
        assert!(!done.to_string().contains("closing"));
        done.close_problem = Some("no space left".to_owned());
        let said = done.to_string();
        assert!(said.contains("the restore is in place"), "{said}");
        assert!(said.contains("no space left"), "{said}");
    }
}
