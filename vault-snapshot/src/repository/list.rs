//! What a repository holds.

use super::Repository;
use crate::archive::{Error, Manifest, Result, SnapshotName, StoreId};

/// Everything that lies in a repository.
#[derive(Debug, Default)]
pub struct Survey {
    /// Snapshots, oldest first.
    pub snapshots: Vec<Manifest>,
    /// Snapshots whose manifest cannot be used, and why.
    pub unreadable: Vec<(SnapshotName, Error)>,
    /// What has no manifest: being written right now, or left behind by what was interrupted.
    pub interrupted: Vec<SnapshotName>,
}

impl Repository {
    /// The snapshots, oldest first. One whose manifest cannot be used is left out: [`survey`](Self::survey) names it.
    ///
    /// # Errors
    /// What the destination says.
    pub fn list(&self) -> Result<Vec<Manifest>> {
        Ok(self.survey()?.snapshots)
    }

    /// The names of the snapshots, oldest first, without reading them.
    ///
    /// # Errors
    /// What the destination says.
    pub fn names(&self) -> Result<Vec<SnapshotName>> {
        let found = self.destination.list()?.into_iter();
        Ok(found.filter(|f| f.manifest).map(|f| f.name).collect())
    }

    /// The snapshot that shows the latest moment, if there is any; a consolidated one counts as what it is a copy of. Refuses where
    /// one that cannot be read may show a later moment: whoever asks for the latest must not get an older one unawares.
    ///
    /// # Errors
    /// [`Error::Damaged`] where what is the latest cannot be told, and what the destination says.
    pub fn latest(&self) -> Result<Option<Manifest>> {
        let Survey {
            snapshots,
            unreadable,
            ..
        } = self.survey()?;
        let newest = snapshots
            .into_iter()
            .max_by_key(|manifest| (manifest.moment(), manifest.name));
        // No snapshot shows what is later than its own name; one that was consolidated shows what is earlier.
        let certain = newest.as_ref().map(Manifest::moment);
        let later = unreadable
            .into_iter()
            .rfind(|(name, _)| certain.is_none_or(|moment| *name > moment));
        match later {
            None => Ok(newest),
            Some((name, error)) => Err(Error::damaged(
                self.destination.location(Some(name)),
                format_args!(
                    "{error}; what is the latest cannot be told, so name the snapshot that you mean, or put this manifest back from the \
                     end of its own zip"
                ),
            )),
        }
    }

    /// Refuses where a snapshot is of another store than this one: two stores that share a repository would remove each other's
    /// snapshots, and take them for their own newest.
    ///
    /// # Errors
    /// [`Error::OtherStore`], and what the destination says.
    pub fn check_store(&self, store: StoreId) -> Result<()> {
        self.check_one_store(&self.list()?, store)
    }

    /// The same, of snapshots that were listed, oldest first.
    pub(super) fn check_one_store(&self, snapshots: &[Manifest], store: StoreId) -> Result<()> {
        let other = snapshots.iter().rev().find(|other| other.store != store);
        other.map_or(Ok(()), |other| {
            Err(Error::OtherStore {
                location: self.destination.location(None),
                snapshot: other.name.to_string(),
                found: other.store,
                expected: store,
            })
        })
    }

    /// Everything that is there, usable or not.
    ///
    /// # Errors
    /// What the destination says.
    pub fn survey(&self) -> Result<Survey> {
        let mut survey = Survey::default();
        for found in self.destination.list()? {
            if !found.manifest {
                survey.interrupted.push(found.name);
                continue;
            }
            match self.load(found.name) {
                Ok(loaded) => survey.snapshots.push(loaded.manifest),
                // Removed since the names were read.
                Err(Error::NoSuchSnapshot { .. }) => {}
                Err(
                    error @ (Error::Damaged { .. }
                    | Error::NewerFormat { .. }
                    | Error::OverLimit { .. }),
                ) => survey.unreadable.push((found.name, error)),
                Err(error) => return Err(error),
            }
        }
        Ok(survey)
    }
}
