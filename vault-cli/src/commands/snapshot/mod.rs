//! `vaultdb snapshot`, a file for each verb, or for two that belong together.
//!
//! What needs no store asks for none: whoever has lost it lists, verifies, compares and restores with the repository alone. A
//! damaged snapshot is told like a damaged store, and ends with the same exit code.

mod clean;
mod consolidate;
mod create;
mod diff;
mod drill;
mod list;
mod prune;
mod restore;
mod restore_point;
mod row;
mod verify;

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vault_db::encryption::EncryptedProtection;
use vault_db::engine::vfs::{DiskFileSystem, FileSystem};
use vault_db::engine::{Error as EngineError, OpenMode};
use vault_db::snapshot::{ArchiveError, SnapshotName, StoredSnapshots};
use vault_db::{Database, Error, ErrorKind, Result};

use crate::arguments::{Keys, Name, Snapshot};
use crate::keys::{self, Key};
use crate::output::{Outcome, Output};

/// Carries out a verb.
pub(super) fn run(verb: &Snapshot, output: &mut Output) -> Result<Outcome> {
    let outcome = match verb {
        Snapshot::Create(arguments) => create::run(arguments, output),
        Snapshot::List(arguments) => list::run(arguments, output),
        Snapshot::Verify(arguments) => verify::run(arguments, output),
        Snapshot::Diff(arguments) => diff::run(arguments, output),
        Snapshot::Restore(arguments) => restore::run(arguments, output),
        Snapshot::Prune(arguments) => prune::run(arguments, output),
        Snapshot::Consolidate(arguments) => consolidate::run(arguments, output),
        Snapshot::Clean(arguments) => clean::run(arguments, output),
        Snapshot::Drill(arguments) => drill::run(arguments, output),
        Snapshot::RestorePoint(arguments) => restore_point::run(arguments, output),
    };
    outcome.or_else(|error| {
        if !is_damage(&error) {
            return Err(error);
        }
        output.failure(&error);
        Ok(Outcome::Damaged)
    })
}

/// The snapshots of a directory that is there: a wrong path is told, and is no repository without snapshots.
fn stored(repository: &Path) -> Result<StoredSnapshots> {
    let found = DiskFileSystem.read_dir(repository);
    found.map_err(|error| EngineError::io("find the repository", repository, error))?;
    StoredSnapshots::at(repository)
}

/// The same with a key, where there is one.
fn with_key(snapshots: &StoredSnapshots, key: Option<&Key>) -> StoredSnapshots {
    match key {
        Some(key) => snapshots.clone().with_key(key.clone()),
        None => snapshots.clone(),
    }
}

/// Works on snapshots with their key, which is asked for where it is missing and a person is there.
fn with_options<T>(
    keys: &Keys,
    repository: &Path,
    output: &mut Output,
    mut work: impl FnMut(&StoredSnapshots, &mut Output) -> Result<T>,
) -> Result<T> {
    let snapshots = stored(repository)?;
    let wants_key = |error: &Error| keys::wants_key(error).map(|_| repository.to_owned());
    keys::with_key(keys, output, wants_key, |key, output| {
        work(&with_key(&snapshots, key), output)
    })
}

/// The snapshot that is meant. The latest is refused where one that cannot be read may be later.
fn resolve(snapshots: &StoredSnapshots, name: Name) -> Result<SnapshotName> {
    match name {
        Name::Of(name) => Ok(name),
        Name::Latest => {
            let latest = snapshots.repository().latest()?;
            latest.map(|latest| latest.name).ok_or(Error::NoSnapshots)
        }
    }
}

/// Opens a store that is there, with the key if it is encrypted. With a key, a store in the clear is refused: whoever gives one
/// does not expect that what is written there, or made of it, is readable by all.
fn open_store(store: &Path, key: Option<&Key>, access: Access) -> Result<Database> {
    let builder = || Database::builder().mode(OpenMode::MustExist);
    let opened = match access {
        Access::Write => builder().open(store),
        Access::Read => builder().open_read_only(store),
    };
    let Some(key) = key else {
        return opened;
    };
    if let Ok(plain) = opened {
        plain.close()?;
        let path = store.to_owned();
        return Err(EngineError::NotEncrypted { path }.into());
    }
    if !matches!(opened, Err(Error::Engine(EngineError::Encrypted { .. }))) {
        return opened;
    }
    let protection = EncryptedProtection::with_source(Arc::new(key.clone()));
    let opened = match access {
        Access::Write => builder().open_encrypted_with(store, protection),
        Access::Read => builder().open_encrypted_read_only(store, protection),
    };
    Ok(Database::clone(&*opened?))
}

/// What a store is opened for.
#[derive(Clone, Copy)]
enum Access {
    Read,
    Write,
}

/// Whether an error says, wherever in its story, that something is damaged.
fn is_damage(error: &Error) -> bool {
    let mut story: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = story {
        let kind = error
            .downcast_ref::<Error>()
            .map(Error::kind)
            .or_else(|| error.downcast_ref::<EngineError>().map(EngineError::kind))
            .or_else(|| error.downcast_ref::<ArchiveError>().map(ArchiveError::kind));
        if kind == Some(ErrorKind::Restore) {
            return true;
        }
        // What an input or output error was made of is no source of it.
        let shared = error.downcast_ref::<Arc<io::Error>>().map(Arc::as_ref);
        let failed = error.downcast_ref::<io::Error>().or(shared);
        let within = failed.and_then(io::Error::get_ref);
        story = match within {
            Some(within) => Some(within),
            None => error.source(),
        };
    }
    false
}

/// The full path of what the command line names, for whoever reads the result elsewhere.
fn absolute(path: &Path) -> PathBuf {
    let absolute = DiskFileSystem.absolute(path);
    absolute.unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_found_wherever_it_is_told() {
        let damaged = || ArchiveError::Damaged {
            location: "here".to_owned(),
            problem: "a bit".to_owned(),
        };
        let prepare = |source: Box<dyn StdError + Send + Sync>| {
            Error::from(ArchiveError::Prepare {
                path: "there".into(),
                source,
            })
        };
        assert!(is_damage(&damaged().into()));
        assert!(is_damage(&prepare(Error::from(damaged()).into())));
        let corruption = Error::Malformed {
            what: "a shipment".to_owned(),
            problem: "a bit".to_owned(),
        };
        let wrapped = EngineError::io("read", Path::new("x"), io::Error::other(corruption));
        assert!(is_damage(&prepare(wrapped.into())));
        assert!(!is_damage(&Error::NoSnapshots));
        assert!(!is_damage(&Error::Snapshot(Arc::new(
            ArchiveError::Cancelled
        ))));
    }
}
