//! Removing snapshots that need not be kept.

use std::collections::BTreeSet;

use super::{Loaded, Repository};
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
        let lock = match dry_run {
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
            let known: BTreeSet<_> = survey.snapshots.iter().map(|m| m.name).collect();
            for &name in plan.remove.iter().rev() {
                self.take_away(name, &known, lock.is_none())?;
            }
        }
        Ok(plan)
    }

    /// Withdraws a snapshot, then removes its bytes.
    fn take_away(
        &self,
        name: SnapshotName,
        known: &BTreeSet<SnapshotName>,
        unlocked: bool,
    ) -> Result<()> {
        if !unlocked {
            self.destination.withdraw(name)?;
            return self.destination.discard(name);
        }
        let json = match self.load(name) {
            Ok(Loaded { json, .. }) => Some(json),
            // What cannot be used nobody builds on.
            Err(
                Error::NoSuchSnapshot { .. }
                | Error::Damaged { .. }
                | Error::NewerFormat { .. }
                | Error::OverLimit { .. },
            ) => None,
            Err(error) => return Err(error),
        };
        let withdrawn = self.destination.withdraw(name);
        if let Some(json) = json {
            let unneeded = withdrawn.and_then(|()| self.check_unneeded(name, known));
            if let Err(error) = unneeded {
                // Also where it could not be told, or an answer was lost: nothing of it was removed.
                self.destination.publish(name, &json)?;
                return Err(error);
            }
        } else {
            withdrawn?;
        }
        self.destination.discard(name)
    }

    /// Where there are no locks, somebody may have made a snapshot on what was just withdrawn. Either that one does not find its parent
    /// when it looks for it after it was published, or it is found here.
    fn check_unneeded(&self, name: SnapshotName, known: &BTreeSet<SnapshotName>) -> Result<()> {
        for new in self.names()?.into_iter().filter(|new| !known.contains(new)) {
            let manifest = match self.load(new) {
                Ok(loaded) => Some(loaded.manifest),
                Err(Error::NoSuchSnapshot { .. }) => continue,
                // It may need anything.
                Err(_) => None,
            };
            let needs_it = manifest.is_none_or(|manifest| {
                manifest.parent == Some(name)
                    || manifest.entries.iter().any(|entry| entry.holder == name)
            });
            if needs_it {
                return Err(Error::Busy {
                    location: self.destination.location(Some(name)),
                    holder: format!("{new}, which was made on it meanwhile"),
                });
            }
        }
        Ok(())
    }

    /// Removes one snapshot.
    ///
    /// # Errors
    /// [`Error::NoSuchSnapshot`]; [`Error::InvalidRequest`] where others need it, which it names; [`Error::Busy`], and what the
    /// destination says.
    pub fn remove(&self, name: SnapshotName) -> Result<()> {
        let lock = self.destination.lock()?;
        let known: BTreeSet<_> = self.names()?.into_iter().collect();
        if !known.contains(&name) {
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
        self.take_away(name, &known, lock.is_none())
    }
}
