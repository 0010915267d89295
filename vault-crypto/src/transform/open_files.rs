//! The files that are open, so that locking finds their keys.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::file_seal::FileSeal;

/// Fewer than this are never looked through for those that are gone.
const SWEEP_MIN: usize = 64;

/// A list of open files that keeps none of them open.
#[derive(Default)]
pub(crate) struct OpenFiles {
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    files: Vec<Weak<FileSeal>>,
    /// At which length those that are gone are taken out: twice what was left the last time.
    sweep_at: usize,
}

impl OpenFiles {
    /// Adds a file.
    pub(crate) fn add(&self, file: &Arc<FileSeal>) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if list.files.len() >= list.sweep_at.max(SWEEP_MIN) {
            list.files.retain(|file| file.strong_count() > 0);
            list.sweep_at = 2 * list.files.len();
        }
        list.files.push(Arc::downgrade(file));
    }

    /// All files that are open. The list is not held while they are looked at.
    pub(crate) fn all(&self) -> Vec<Arc<FileSeal>> {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.files.iter().filter_map(Weak::upgrade).collect()
    }

    #[cfg(test)]
    pub(crate) fn listed(&self) -> usize {
        self.list.lock().unwrap().files.len()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use vault_core::random::{Random, SeededRandom};
    use vault_core::transform::{FileHeader, FileIdentity, FileKind, Protection, StorePlace};
    use vault_core::vfs::{FileSystem, MemoryFileSystem};

    use super::*;
    use crate::secret::SecretKey;
    use crate::source::RawKey;
    use crate::transform::EncryptedProtection;

    #[test]
    fn files_that_are_gone_leave_the_list() {
        let fs: Arc<dyn FileSystem> = Arc::new(MemoryFileSystem::new());
        let random: Arc<dyn Random> = Arc::new(SeededRandom::new(1));
        let place = StorePlace {
            fs: &fs,
            random: &random,
            directory: Path::new("/"),
            store: [1; 16],
            writable: true,
        };
        let key = RawKey::new(SecretKey::from_bytes(&mut [9; 32]));
        let protection = EncryptedProtection::with_source(Arc::new(key));
        let transform = protection.create(&place).unwrap();
        let keyring = protection.keyring().unwrap();
        let mut held = Vec::new();
        for number in 0..10_000 {
            let identity = FileIdentity {
                store: place.store,
                kind: FileKind::Log,
                number,
                domain: 0,
            };
            let (_, blocks) = FileHeader::create(identity, 1, &*transform, &*random).unwrap();
            if number % 100 == 0 {
                held.push(blocks);
            }
            let listed = keyring.open_files().listed();
            assert!(
                listed <= 2 * held.len() + SWEEP_MIN + 1,
                "{listed} listed, {} open",
                held.len()
            );
        }
        assert_eq!(keyring.open_files().all().len(), held.len());
        drop(held);
        assert!(keyring.open_files().all().is_empty());
    }
}
