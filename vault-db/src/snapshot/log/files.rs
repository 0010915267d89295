//! The files of an archive: which there are, reading them, and writing one so that what has its name is whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vault_core::Error as CoreError;
use vault_core::vfs::{EntryKind, create_directories, parent_of, read_beginning};
use vault_lsm::shipping::Shipment;

use super::LogArchive;
use super::shipment::{decode, encode};
use crate::error::{Error, Result};
use crate::hex::hex;

const ENDING: &str = "shipment";
const UNFINISHED: &str = "shipment.new";
/// Longest file of a shipment that is read into memory, in bytes: one record of the longest batch that there can be, and what is
/// around it.
const SHIPMENT_FILE_BYTES_MAX: u64 = (2 << 30) + (64 << 20);

impl LogArchive {
    /// The files of every chain, by their numbers.
    pub(super) fn stored(&self) -> Result<BTreeMap<String, BTreeMap<u64, PathBuf>>> {
        let fs = &self.snapshots.file_system;
        let list = |path: &Path| match fs.read_dir(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other.map_err(|error| CoreError::io("list", path, error)),
        };
        let mut chains = BTreeMap::new();
        for entry in list(&self.directory)? {
            let Some(chain) = entry
                .name
                .to_str()
                .filter(|_| entry.kind == EntryKind::Directory)
            else {
                continue;
            };
            let directory = self.directory.join(chain);
            let shipments = list(&directory)?.into_iter().filter_map(|file| {
                let (number, ending) = file.name.to_str()?.split_once('.')?;
                let number = (ending == ENDING).then(|| number.parse().ok())??;
                Some((number, directory.join(&file.name)))
            });
            chains.insert(chain.to_owned(), shipments.collect());
        }
        Ok(chains)
    }

    pub(super) fn read(&self, path: &Path) -> Result<Shipment> {
        let fs = &self.snapshots.file_system;
        let file = fs
            .open(path)
            .map_err(|error| CoreError::io("open", path, error))?;
        let malformed = |problem| Error::Malformed {
            what: path.display().to_string(),
            problem,
        };
        let read_error = |error| CoreError::io("read", path, error);
        let found = file.len().map_err(read_error)?;
        if found > SHIPMENT_FILE_BYTES_MAX {
            return Err(malformed(format!(
                "it has {found} bytes, and no shipment has more than {SHIPMENT_FILE_BYTES_MAX}"
            )));
        }
        let bytes = read_beginning(&*file, SHIPMENT_FILE_BYTES_MAX).map_err(read_error)?;
        decode(&bytes).map_err(malformed)
    }

    pub(super) fn write(&self, shipment: &Shipment) -> Result<()> {
        let fs = &self.snapshots.file_system;
        let directory = self.directory.join(hex(&shipment.position.chain));
        let number = shipment.position.shipment;
        let known = fs.kind(&directory);
        let known = known.map_err(|error| CoreError::io("look at", &directory, error))?;
        if known.is_none() || number == 0 {
            create_directories(&**fs, &directory)?;
        }
        let unfinished = directory.join(format!("{number:020}.{UNFINISHED}"));
        let path = directory.join(format!("{number:020}.{ENDING}"));
        // What a crash left.
        let _ = fs.remove(&unfinished);
        let io = |doing| move |error| CoreError::io(doing, &directory, error);
        let file = fs.create(&unfinished).map_err(io.clone()("create in"))?;
        let bytes = encode(shipment).map_err(|error| Error::NotEncodable {
            type_name: "a shipment",
            problem: error.to_string(),
        })?;
        file.write_at(&bytes, 0).map_err(io.clone()("write in"))?;
        file.sync().map_err(io.clone()("sync in"))?;
        fs.rename(&unfinished, &path)
            .map_err(io.clone()("rename in"))?;
        fs.sync_dir(&parent_of(&path)).map_err(io("sync"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vault_core::vfs::{CrashPolicy, MemoryFileSystem};
    use vault_lsm::shipping::ShipOptions;

    use super::*;
    use crate::database::Database;
    use crate::snapshot::StoredSnapshots;

    /// A file with a hole takes no room on disk, and none in memory: it is refused by its length.
    #[test]
    fn what_is_too_long_for_a_shipment_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let db = Database::temp().unwrap();
        let snapshots = db.snapshots(directory.path().join("snapshots")).unwrap();
        let archive = snapshots.log_archive(directory.path().join("log"));
        let chain = directory.path().join("log").join("00");
        let fs = &archive.snapshots.file_system;
        fs.create_dir_all(&chain).unwrap();
        let file = fs
            .create(&chain.join("00000000000000000000.shipment"))
            .unwrap();
        file.set_len(1 << 40).unwrap();
        let refused = archive.chains().unwrap_err();
        assert!(matches!(refused, Error::Malformed { .. }), "{refused:?}");
        assert!(refused.to_string().contains("1099511627776"), "{refused}");
        assert_eq!(archive.prune().unwrap(), 0);
    }

    /// Power is lost at every operation of writing shipments: those that are listed are whole, in a row from the first, and all that
    /// were acknowledged are there.
    #[test]
    fn what_is_listed_is_whole_and_without_a_gap() {
        let db = Database::temp().unwrap();
        let mut shipper = db.lsm().unwrap().ship_log(&ShipOptions::default()).unwrap();
        let shipments: Vec<Shipment> = (0..4)
            .map(|n| {
                db.vault("v").unwrap().put(n, &n).unwrap();
                shipper.ship().unwrap()
            })
            .collect();
        let archive_in = |fs: &MemoryFileSystem| LogArchive {
            snapshots: StoredSnapshots::at("/nowhere")
                .unwrap()
                .on_file_system(Arc::new(fs.clone())),
            database: None,
            directory: PathBuf::from("/backups/of/log"),
        };
        let write_all = |fs: &MemoryFileSystem| {
            let archive = archive_in(fs);
            let mut written = shipments.iter().map(|shipment| archive.write(shipment));
            written.by_ref().take_while(Result::is_ok).count()
        };
        let whole = MemoryFileSystem::new();
        assert_eq!(write_all(&whole), shipments.len());
        let operations = whole.operations();
        assert!(operations > 20);
        let policies = [
            CrashPolicy::DropUnsynced,
            CrashPolicy::KeepUnsynced,
            CrashPolicy::Random { percent: 50 },
        ];
        for n in 0..=operations {
            let fs = MemoryFileSystem::new();
            fs.set_crash_point(Some(n));
            let acknowledged = write_all(&fs);
            for policy in policies {
                let after = fs.crash(n, policy);
                let archive = archive_in(&after);
                let stored = archive.stored().unwrap();
                let found = stored.values().flat_map(BTreeMap::values);
                let found: Vec<Shipment> = found.map(|path| archive.read(path).unwrap()).collect();
                assert!(found.len() >= acknowledged, "{policy:?} at {n}");
                assert_eq!(found, shipments[..found.len()], "{policy:?} at {n}");
                // It goes on, past what the crash left.
                for shipment in &shipments[found.len()..] {
                    archive.write(shipment).unwrap();
                }
                assert_eq!(archive.chains().unwrap()[0].shipments, 4);
            }
        }
    }
}
