//! A full snapshot out of a chain, without the store.

use super::Repository;
use super::check::check_hash;
use crate::archive::{
    ArchiveWriter, Error, Kind, Manifest, Progress, Result, SnapshotName, Watcher,
};
use crate::destination::ARCHIVE_FILE;

impl Repository {
    /// Makes a full snapshot that shows what an incremental one shows, out of the archives of its chain. The chain stays, until
    /// it is pruned. The new one says whose content it is, and counts as of that moment.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] where it is full already; else as [`verify`](Self::verify) and
    /// [`create`](Self::create): there is no new snapshot then.
    pub fn consolidate(&self, name: SnapshotName, watcher: &dyn Watcher) -> Result<Manifest> {
        let old = self.load(name)?.manifest;
        if old.kind == Kind::Full {
            return Err(Error::request(format!("snapshot {name} is full already")));
        }
        let _lock = self.destination.lock()?;
        let chain = self.chain(&old)?;
        let mut progress = Progress::begin(watcher, old.bytes())?;
        self.write_snapshot(|clock_behind, name, archive| {
            let mut manifest = Manifest {
                kind: Kind::Full,
                parent: None,
                chain_root: name,
                name,
                clock_behind,
                content_of: Some(old.moment()),
                created_by: env!("CARGO_PKG_VERSION").to_owned(),
                ..old.clone()
            };
            for entry in &mut manifest.entries {
                entry.holder = name;
            }
            for &link in &chain {
                self.copy_held(&old, link, archive, &mut progress)?;
            }
            Ok(manifest)
        })
    }

    /// Copies what `manifest` shows and `link` holds.
    fn copy_held(
        &self,
        manifest: &Manifest,
        link: SnapshotName,
        archive: &mut ArchiveWriter,
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        let held: Vec<_> = manifest
            .entries
            .iter()
            .filter(|e| e.holder == link)
            .collect();
        if held.is_empty() {
            return Ok(());
        }
        let holder = self.load(link)?;
        self.check_references(manifest, &holder.manifest)?;
        let mut from = self.open_archive(&holder)?;
        for entry in &held {
            let mut reader = from.entry(entry)?;
            archive.add_stream(
                &entry.path,
                entry.bytes,
                &mut |chunk| reader.read(chunk),
                progress,
            )?;
        }
        let location = self.file_location(link, ARCHIVE_FILE);
        for (entry, hash) in held.iter().zip(archive.hashes(held.len())?) {
            check_hash(&location, Some(entry), hash)?;
        }
        Ok(())
    }
}
