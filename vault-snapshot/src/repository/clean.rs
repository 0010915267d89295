//! What interrupted work left behind.
//!
//! What has no manifest was interrupted, or has lost it: in a copy that is not complete, or by hand. Nothing that a snapshot builds
//! on, or may build on, is taken for interrupted, and where a manifest cannot be read, nothing is.

use super::{Repository, Survey};
use crate::archive::{Error, Manifest, Result, SnapshotName};

/// What has become of what has no manifest, oldest first.
///
/// ```
/// use vault_snapshot::repository::Cleaned;
/// assert!(Cleaned::default().removed.is_empty());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Cleaned {
    /// What was removed.
    pub removed: Vec<SnapshotName>,
    /// What was left, since snapshots build on it, or may: those. None of these can be restored before its manifest is put back, which
    /// is the last entry of its own archive.
    pub kept_for: Vec<(SnapshotName, Vec<SnapshotName>)>,
}

impl Repository {
    /// Removes what has no manifest: snapshots that were interrupted while they were made or removed. What another snapshot builds
    /// on is left, and told: its manifest was lost.
    ///
    /// Where the destination has locks, nothing that is still being written is touched. Where it has none, only what is
    /// [old enough](crate::destination::Destination::interrupted_after) is.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::NewerFormat`] or [`Error::OverLimit`] where a manifest cannot be used: it cannot be told what
    /// that snapshot needs, and nothing is removed. [`Error::Busy`], and what the destination says.
    pub fn clean(&self) -> Result<Cleaned> {
        let _lock = self.destination.lock()?;
        let grace = self.destination.interrupted_after().as_millis();
        let now = u128::from(self.clock.now().0);
        let Survey {
            snapshots,
            unreadable,
            interrupted,
        } = self.survey()?;
        let old_enough =
            |name: &&SnapshotName| now.saturating_sub(u128::from(name.timestamp().0)) >= grace;
        let mut cleaned = Cleaned::default();
        let mut goes = Vec::new();
        for &name in interrupted.iter().filter(old_enough) {
            let needs_it = |manifest: &&Manifest| may_need(manifest, name, &interrupted);
            let needed_by: Vec<_> = snapshots.iter().filter(needs_it).map(|m| m.name).collect();
            match needed_by.is_empty() {
                true => goes.push(name),
                false => cleaned.kept_for.push((name, needed_by)),
            }
        }
        if let (false, Some((_, error))) = (goes.is_empty(), unreadable.into_iter().next()) {
            return Err(nothing_removed(error));
        }
        for name in goes {
            self.destination.discard(name)?;
            cleaned.removed.push(name);
        }
        Ok(cleaned)
    }
}

/// Whether a snapshot builds on what has no manifest: it names it, or what it names has none either and does not say on what
/// that one builds in turn.
fn may_need(manifest: &Manifest, name: SnapshotName, interrupted: &[SnapshotName]) -> bool {
    let names = |name: SnapshotName| {
        manifest.parent == Some(name)
            || manifest.chain_root == name
            || manifest.entries.iter().any(|entry| entry.holder == name)
    };
    let between = manifest.chain_root < name && name < manifest.name;
    names(name) || between && interrupted.iter().any(|&lost| lost > name && names(lost))
}

fn nothing_removed(error: Error) -> Error {
    match error {
        Error::Damaged { location, problem } => Error::Damaged {
            location,
            problem: format!(
                "{problem}; it cannot be told what this snapshot needs, so that nothing was removed; put the manifest back from the \
                 end of its own zip"
            ),
        },
        error => error,
    }
}
