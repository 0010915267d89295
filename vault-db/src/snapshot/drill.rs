//! Drills: whether the newest snapshot would help.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use vault_core::KeyRange;
use vault_core::vfs::DiskFileSystem;

use super::{Form, SnapshotName, StoredSnapshots, VaultCount, Watcher, full_name};
use crate::database::{Database, TemporaryDirectory};
use crate::error::{Error, Result};
use crate::vault::{Entries, Vault};

/// What a drill has found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrillReport {
    /// The snapshot that was restored.
    pub snapshot: SnapshotName,
    /// Bytes of files and documents that were restored.
    pub bytes: u64,
    /// Vaults that were read whole.
    pub vaults: u64,
    /// Entries that were read.
    pub entries: u64,
    /// How long it took, from the first byte read to the last entry.
    pub took: Duration,
    /// What is not as the manifest or the vault itself says. Empty: the snapshot is good.
    pub problems: Vec<String>,
}

impl DrillReport {
    /// Whether the snapshot is good.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let place = tempfile::tempdir().unwrap();
    /// let snapshots = db.snapshots(place.path())?;
    /// snapshots.create()?;
    /// assert!(snapshots.drill()?.is_good());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.problems.is_empty()
    }
}

impl StoredSnapshots {
    /// Restores the newest snapshot into a temporary directory, reads every entry of every vault, compares what it finds with
    /// what the manifest and the vaults themselves say, and removes it again.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let place = tempfile::tempdir().unwrap();
    /// db.vault("v")?.put("a", &1)?;
    /// let snapshots = db.snapshots(place.path())?;
    /// snapshots.create()?;
    /// let report = snapshots.drill()?;
    /// assert!(report.is_good(), "{:?}", report.problems);
    /// assert_eq!((report.vaults, report.entries), (1, 1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NoSnapshots`](Error::NoSnapshots); [`Snapshot`](Error::Snapshot) with `Damaged` where one that may be newer cannot be
    /// read; as [`StoredSnapshots::restore_to`], which is what a drill is there to find.
    pub fn drill(&self) -> Result<DrillReport> {
        self.drill_with(&())
    }

    /// As [`StoredSnapshots::drill`]. `watcher` is told how far the restore is, and can end the work.
    ///
    /// # Errors
    /// As [`StoredSnapshots::drill`]; [`Snapshot`](Error::Snapshot) with `Cancelled`.
    pub fn drill_with(&self, watcher: &dyn Watcher) -> Result<DrillReport> {
        // A later one that cannot be read is no reason to be content with this.
        let latest = self.repository.latest()?;
        let manifest = latest.ok_or(Error::NoSnapshots)?;
        let clock = &self.clock;
        let began = clock.monotonic();
        let place = TemporaryDirectory::create()?;
        let target = place.path().join("restored");
        let on_disk = Self {
            file_system: Arc::new(DiskFileSystem),
            ..self.clone()
        };
        // What is in the clear stays in the archive: documents of an encrypted database are not unpacked.
        let (restored, bytes) = if manifest.form == Form::Logical {
            let verified = self.repository.verify(manifest.name, watcher)?;
            (self.open(manifest.name)?, verified.bytes)
        } else {
            let extracted = on_disk.restore_to(manifest.name, &target, None, watcher)?;
            let disk = Arc::clone(&on_disk.file_system);
            (
                on_disk.open_read_only(&manifest, disk, &target)?,
                extracted.bytes,
            )
        };
        let mut report = DrillReport {
            snapshot: manifest.name,
            bytes,
            vaults: 0,
            entries: 0,
            took: Duration::ZERO,
            problems: Vec::new(),
        };
        report.read(&restored)?;
        if !manifest.counts.is_empty() {
            report.compare(&restored, &manifest.counts, manifest.form);
        }
        report.took = clock.monotonic().saturating_sub(began);
        restored.close()?;
        Ok(report)
    }
}

impl DrillReport {
    /// Reads every entry, and holds their number against what the vault says.
    fn read(&mut self, restored: &Database) -> Result<()> {
        let shared = restored.shared();
        let vaults: Vec<_> = shared.registry().all().cloned().collect();
        for state in vaults {
            let tenant = state.owner.as_ref().map(|owner| owner.name.clone());
            let vault = Vault::new(Arc::clone(shared), state);
            let name = full_name(tenant.as_deref(), &vault.name());
            let mut entries = 0;
            for item in Entries::of(&*shared.engine, u64::MAX, vault.state(), KeyRange::all())? {
                match item {
                    Ok(_) => entries += 1,
                    Err(error) => {
                        self.problems.push(format!("vault {name}: {error}"));
                        break;
                    }
                }
            }
            let said = vault.len()?;
            if said != entries {
                let problem = format!("vault {name} says it has {said} entries, and has {entries}");
                self.problems.push(problem);
            }
            self.vaults += 1;
            self.entries += entries;
        }
        Ok(())
    }

    /// Holds what there is against the manifest.
    fn compare(&mut self, restored: &Database, counts: &BTreeMap<String, VaultCount>, form: Form) {
        // What has expired since is not read from a document.
        let differs = |found: u64, said: u64| match form {
            Form::Physical => found != said,
            Form::Logical => found > said,
        };
        let registry = restored.shared().registry();
        let found = registry.all().map(|vault| {
            let tenant = vault.owner.as_ref().map(|owner| owner.name.as_str());
            (full_name(tenant, &vault.name()), vault.counts.entries())
        });
        let found: BTreeMap<String, u64> = found.collect();
        for (name, count) in counts {
            match found.get(name) {
                None => self.problems.push(format!("vault {name} is missing")),
                Some(&entries) if differs(entries, count.entries) => self.problems.push(format!(
                    "vault {name} has {entries} entries, the manifest says {}",
                    count.entries
                )),
                Some(_) => {}
            }
        }
        for name in found.keys().filter(|name| !counts.contains_key(*name)) {
            self.problems
                .push(format!("vault {name} is not in the manifest"));
        }
    }
}
