//! Verification: every byte of a snapshot and of what it builds on, without keys.

use super::Repository;
use super::check::read_entries;
use crate::archive::{Hasher, Manifest, Progress, Result, SnapshotName, Watcher};
use crate::destination::ARCHIVE_FILE;

/// What verification has seen, all of it in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Entries of the snapshot.
    pub entries: u64,
    /// Bytes of these, not compressed.
    pub bytes: u64,
    /// Bytes that were read and hashed: those of every archive of the chain.
    pub bytes_read: u64,
    /// The snapshots that it needs, itself first and the full one last.
    pub chain: Vec<SnapshotName>,
}

impl Repository {
    /// Reads all of a snapshot and of the snapshots it builds on, and holds it against their manifests: the set of entries, their
    /// lengths, their SHA-256, that parents are there and of the same store, and that they hold what is said of them.
    ///
    /// That a snapshot is whole does not prove who made it: whoever can write both copies of a manifest can make one. Opening
    /// what was restored from an encrypted store proves that, with its keys.
    ///
    /// # Errors
    /// [`Error::Damaged`](crate::archive::Error::Damaged) and [`Error::Parent`](crate::archive::Error::Parent) say what is
    /// wrong where; [`Error::NoSuchSnapshot`](crate::archive::Error::NoSuchSnapshot),
    /// [`Error::Cancelled`](crate::archive::Error::Cancelled), and what the destination says.
    pub fn verify(&self, name: SnapshotName, watcher: &dyn Watcher) -> Result<Verified> {
        let loaded = self.load(name)?;
        let manifest = &loaded.manifest;
        let chain = self.chain(manifest)?;
        let mut progress = Progress::begin(watcher, manifest.bytes())?;
        let mut hasher = Hasher::start()?;
        let mut bytes_read = 0;
        for &link in &chain {
            let holder = self.load(link)?;
            self.check_references(manifest, &holder.manifest)?;
            let mut archive = self.open_archive(&holder)?;
            read_entries(
                &mut archive,
                &self.file_location(link, ARCHIVE_FILE),
                holder.manifest.own_entries(),
                &mut hasher,
                &mut (),
                &mut progress,
            )?;
            bytes_read += holder.manifest.own_bytes();
        }
        Ok(Verified {
            entries: manifest.entries.len() as u64,
            bytes: manifest.bytes(),
            bytes_read,
            chain,
        })
    }

    /// Reads what `manifest` shows, wherever it lies, one archive after the other, as far as `wanted` wants it.
    pub(super) fn read_content(
        &self,
        manifest: &Manifest,
        chain: &[SnapshotName],
        wanted: &dyn Fn(&crate::archive::Entry) -> bool,
        receiver: &mut dyn super::check::Receiver,
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        let mut hasher = Hasher::start()?;
        for &link in chain {
            let held = || {
                let entries = manifest.entries.iter();
                entries.filter(|entry| entry.holder == link && wanted(entry))
            };
            // Its own archive is looked at even where it has nothing: it was to be whole.
            if held().next().is_none() && link != manifest.name {
                continue;
            }
            let holder = self.load(link)?;
            self.check_references(manifest, &holder.manifest)?;
            let mut archive = self.open_archive(&holder)?;
            let location = self.file_location(link, ARCHIVE_FILE);
            read_entries(
                &mut archive,
                &location,
                held(),
                &mut hasher,
                receiver,
                progress,
            )?;
        }
        Ok(())
    }
}
