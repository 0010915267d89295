//! What interrupted work left behind.

use super::Repository;
use crate::archive::{Result, SnapshotName};

impl Repository {
    /// Removes what has no manifest: snapshots that were interrupted while they were made or removed. Tells their names.
    ///
    /// Where the destination has locks, nothing that is still being written is touched. Where it has none, only what is
    /// [old enough](crate::destination::Destination::interrupted_after) is.
    ///
    /// # Errors
    /// [`Error::Busy`](crate::archive::Error::Busy), and what the destination says.
    pub fn clean(&self) -> Result<Vec<SnapshotName>> {
        let _lock = self.destination.lock()?;
        let grace = self.destination.interrupted_after().as_millis();
        let now = u128::from(self.clock.now().0);
        let mut removed = Vec::new();
        for found in self.destination.list()? {
            let age = now.saturating_sub(u128::from(found.name.timestamp().0));
            if !found.manifest && age >= grace {
                self.destination.discard(found.name)?;
                removed.push(found.name);
            }
        }
        Ok(removed)
    }
}
