//! Removing snapshots that need not be kept.

use super::Repository;
use crate::archive::{Error, Result, SnapshotName};
use crate::retention::{PrunePlan, Retention, dependents, plan};

impl Repository {
    /// Removes the snapshots that `retention` does not keep and no kept one needs, the newest first; tells which, and why
    /// the others stay. With `dry_run` nothing is removed.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::NewerFormat`] where a manifest cannot be used: it cannot be told what that snapshot
    /// needs, and nothing is removed. [`Error::OtherStore`] where there are snapshots of several stores: whose are to be
    /// kept, nobody has said. [`Error::Busy`], and what the destination says.
    pub fn prune(&self, retention: &Retention, dry_run: bool) -> Result<PrunePlan> {
        let _lock = match dry_run {
            true => None,
            false => self.destination.lock()?,
        };
        let mut survey = self.survey()?;
        if !survey.unreadable.is_empty() {
            return Err(survey.unreadable.swap_remove(0).1);
        }
        if let Some(newest) = survey.snapshots.last() {
            self.check_one_store(&survey.snapshots, newest.store)?;
        }
        let plan = plan(&survey.snapshots, retention, self.clock.now());
        if !dry_run {
            // A snapshot goes before those that it needs, so that none is ever left without them.
            for &name in plan.remove.iter().rev() {
                self.destination.withdraw(name)?;
                self.destination.discard(name)?;
            }
        }
        Ok(plan)
    }

    /// Removes one snapshot.
    ///
    /// # Errors
    /// [`Error::NoSuchSnapshot`]; [`Error::InvalidRequest`] where others need it, which it names; [`Error::Busy`], and what the
    /// destination says.
    pub fn remove(&self, name: SnapshotName) -> Result<()> {
        let _lock = self.destination.lock()?;
        if !self.names()?.contains(&name) {
            return Err(Error::NoSuchSnapshot {
                name: name.to_string(),
                location: self.destination.location(None),
            });
        }
        // A snapshot that cannot be read may be removed, unless another one could need it.
        let survey = self.survey()?;
        let needed_by = dependents(&survey.snapshots, name);
        let unknown = survey.unreadable.iter().map(|(unknown, _)| *unknown);
        let needed_by: Vec<_> = needed_by
            .into_iter()
            .chain(unknown.filter(|unknown| *unknown > name))
            .map(|name| name.to_string())
            .collect();
        if !needed_by.is_empty() {
            return Err(Error::request(format!(
                "snapshot {name} is needed, or may be, by {}; remove or consolidate these first",
                needed_by.join(", ")
            )));
        }
        self.destination.withdraw(name)?;
        self.destination.discard(name)
    }
}
