//! The verbs that change a keyring. Each seals a new image of it, makes that durable, and only then lets the keys in memory
//! follow.

use std::sync::{Arc, MutexGuard};

use vault_core::limits::KEYSPACES_MAX;
use vault_core::transform::Keys;
use vault_core::{Error, Result};

use super::envelope::{Contents, NewAccess, new_wrapping};
use super::files::{Directory, Which, WriteError};
use super::format::{Image, unacceptable};
use super::keys::{KEYS_MAX, KeyTable, STORE_DOMAIN};
use super::{Disk, Keyring, OpenKeys};
use crate::kdf::Kdf;
use crate::secret::SecretKey;
use crate::source::{KeyService, KeySource};

/// Whether a change has succeeded while an older copy is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OlderCopy {
    /// It has: the older copy holds nothing that must not be there.
    MayStay,
    /// It has not: the older copy holds what was to be destroyed.
    MustGo,
}

impl Keyring {
    /// Replaces the passphrase or key that opens the store, at once: files stay as they are. The old one opens nothing any
    /// more, except for older backups of the keyring. Without `kdf`, a passphrase goes through Argon2id.
    ///
    /// The root key is replaced too, so that somebody who has an older keyring and the old secret cannot open this one by it.
    /// He has the data keys of that time: begin a new epoch where that matters.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::InvalidSetting`] for parameters out of bounds; what the source of the secret, the random source
    /// and the file system say. After [`Error::Poisoned`] either secret may be the one; after any other, the old one is.
    pub fn change_secret(&self, new: &dyn KeySource, kdf: Option<Kdf>) -> Result<()> {
        self.rewrap(NewAccess::Secret(new, kdf))
    }

    /// As [`Keyring::change_secret`], to keys that a service of the host wraps.
    ///
    /// # Errors
    /// As [`Keyring::change_secret`].
    pub fn change_to_service(&self, new: &dyn KeyService) -> Result<()> {
        self.rewrap(NewAccess::Service(new))
    }

    fn rewrap(&self, access: NewAccess<'_>) -> Result<()> {
        // Before the derivation, which takes its time and must not stand in the way of anybody who locks.
        drop(self.begin_change()?);
        let random = &*self.random;
        let (kek, mut wrapping) = new_wrapping(&self.store, access, &self.bounds, random)?;
        let mut disk = self.begin_change()?;
        let algorithm = disk.image.algorithm;
        let root = SecretKey::random(random)?;
        wrapping.seal_root(&self.store, algorithm, &self.providers, &kek, &root);
        let image = {
            let keys = self.keys();
            let open = keys.as_ref().ok_or(Error::Locked)?;
            let contents = Contents {
                version: disk.next_version()?,
                store: &self.store,
                algorithm,
                wrapping: &wrapping,
                root: &root,
                table: &open.table,
            };
            Image::seal(&contents, &self.providers, random)?
        };
        drop(kek);
        self.install(&mut disk, image, OlderCopy::MustGo, |open| open.root = root)
    }

    /// Writes anew whichever of the two files was found missing, damaged or behind.
    ///
    /// # Errors
    /// What the file system says; the keyring is usable nevertheless, except after [`Error::Poisoned`].
    pub fn mend(&self) -> Result<()> {
        let mut disk = self.disk();
        for which in [Which::Main, Which::Copy] {
            if disk.flaws.of(which).is_none() {
                continue;
            }
            self.check_changeable(&disk)?;
            let written = self.directory.replace(which, &disk.image.bytes);
            written.map_err(|error| disk.failed(error))?;
            *disk.flaws.of(which) = None;
        }
        Ok(())
    }

    /// Writes both files anew as they are.
    ///
    /// # Errors
    /// What the file system says.
    pub fn secure(&self) -> Result<()> {
        let mut disk = self.disk();
        self.check_changeable(&disk)?;
        for which in [Which::Main, Which::Copy] {
            let written = self.directory.replace(which, &disk.image.bytes);
            written.map_err(|error| disk.failed(error))?;
            *disk.flaws.of(which) = None;
        }
        Ok(())
    }

    /// Makes a change of the data keys. `edit` gives the keys as they are to be, or nothing where they are so already.
    fn change(
        &self,
        older_copy: OlderCopy,
        edit: impl FnOnce(&KeyTable) -> Result<Option<KeyTable>>,
    ) -> Result<()> {
        let mut disk = self.begin_change()?;
        let (image, table) = {
            let keys = self.keys();
            let open = keys.as_ref().ok_or(Error::Locked)?;
            let Some(table) = edit(&open.table)? else {
                return Ok(());
            };
            (self.seal(&disk, open, &table)?, table)
        };
        self.install(&mut disk, image, older_copy, |open| open.table = table)
    }

    /// Seals the next version under the same secret.
    fn seal(&self, disk: &Disk, open: &OpenKeys, table: &KeyTable) -> Result<Image> {
        let contents = Contents {
            version: disk.next_version()?,
            store: &self.store,
            algorithm: disk.image.algorithm,
            wrapping: &disk.image.wrapping,
            root: &open.root,
            table,
        };
        Image::seal(&contents, &self.providers, &*self.random)
    }

    /// Makes an image durable, lets the keys in memory follow, and writes the copy.
    fn install(
        &self,
        disk: &mut Disk,
        image: Image,
        older_copy: OlderCopy,
        follow: impl FnOnce(&mut OpenKeys),
    ) -> Result<()> {
        let written = self.directory.replace(Which::Main, &image.bytes);
        written.map_err(|error| disk.failed(error))?;
        disk.image = image;
        disk.flaws.main = None;
        if let Some(open) = &mut *self.keys_mut() {
            follow(open);
        }
        match replace_copy(&self.directory, &disk.image, older_copy) {
            Ok(flaw) => {
                disk.flaws.copy = flaw;
                Ok(())
            }
            Err(error) => Err(disk.failed(error)),
        }
    }

    /// Takes the turn to change the keyring.
    fn begin_change(&self) -> Result<MutexGuard<'_, Disk>> {
        let disk = self.disk();
        self.check_changeable(&disk)?;
        if self.keys().is_none() {
            return Err(Error::Locked);
        }
        Ok(disk)
    }

    fn check_changeable(&self, disk: &Disk) -> Result<()> {
        match &disk.poisoned {
            _ if !self.writable => Err(Error::ReadOnly),
            Some(cause) => Err(Error::Poisoned {
                cause: Arc::clone(cause),
            }),
            None => Ok(()),
        }
    }

    fn check_room(&self, keys: usize) -> Result<()> {
        if keys > KEYS_MAX {
            let problem = format!(
                "it would hold {keys} keys, and {KEYS_MAX} are the most; finish the rotation of keys that was begun"
            );
            return Err(unacceptable(&self.directory.path_of(Which::Main), problem));
        }
        Ok(())
    }
}

impl Disk {
    fn next_version(&self) -> Result<u64> {
        let next = self.image.version.checked_add(1);
        next.ok_or(Error::InvalidSetting {
            setting: "keyring version",
            problem: "it cannot count any further".to_owned(),
        })
    }

    /// Notes that a file could not be written, and gives the error for the caller.
    fn failed(&mut self, error: WriteError) -> Error {
        let error = error.into_error();
        if let Error::Poisoned { cause } = &error {
            self.poisoned = Some(Arc::clone(cause));
        }
        error
    }
}

/// Writes the copy. Gives what is wrong with it where that could not be done and the change has succeeded all the same.
fn replace_copy(
    directory: &Directory,
    image: &Image,
    older_copy: OlderCopy,
) -> Result<Option<Error>, WriteError> {
    match (directory.replace(Which::Copy, &image.bytes), older_copy) {
        (Ok(()), _) => Ok(None),
        (Err(WriteError::Unchanged(error)), OlderCopy::MayStay) => Ok(Some(error)),
        (Err(WriteError::Unchanged(error)), OlderCopy::MustGo) => {
            directory.remove(Which::Copy)?;
            Ok(Some(error))
        }
        (Err(unknown), _) => Err(unknown),
    }
}

impl Keys for Keyring {
    fn version(&self) -> u64 {
        self.disk().image.version
    }

    fn epoch(&self) -> u32 {
        self.disk().image.epoch
    }

    fn has_domain(&self, domain: u32) -> Result<bool> {
        self.with_keys(|keys| Ok(keys.has_domain(domain)))
    }

    fn add_domain(&self, domain: u32) -> Result<()> {
        self.change(OlderCopy::MayStay, |table| {
            if table.has_domain(domain) {
                return Ok(None);
            }
            self.check_room(table.len() + 1)?;
            let domains = table.domains().count();
            if domains > KEYSPACES_MAX {
                let problem =
                    format!("it has keys for {domains} keyspaces, as many as there can be");
                return Err(unacceptable(&self.directory.path_of(Which::Main), problem));
            }
            table.with_domain(domain, &*self.random).map(Some)
        })
    }

    fn keep_domains(&self, kept: &[u32]) -> Result<()> {
        let mut sorted = kept.to_vec();
        sorted.sort_unstable();
        let keeps = |domain: u32| domain == STORE_DOMAIN || sorted.binary_search(&domain).is_ok();
        // Who reads such a file goes on until it is locked: if a lock has wiped its key before, this is the last moment at
        // which it can be derived again.
        for file in self.open_files.all() {
            if !keeps(file.domain()) {
                file.revive()?;
            }
        }
        self.change(OlderCopy::MustGo, |table| {
            let all = table.domains().all(keeps);
            Ok((!all).then(|| table.keeping(|domain, _| keeps(domain))))
        })
    }

    fn begin_epoch(&self) -> Result<u32> {
        let mut begun = 0;
        self.change(OlderCopy::MayStay, |table| {
            begun = self.next_epoch(table)?;
            table.with_epoch(begun, &*self.random).map(Some)
        })?;
        Ok(begun)
    }

    fn retire_epochs(&self, oldest: u32) -> Result<u32> {
        let mut retired = 0;
        self.change(OlderCopy::MustGo, |table| {
            if oldest > table.epoch() {
                return Err(Error::InvalidSetting {
                    setting: "oldest epoch",
                    problem: format!(
                        "{oldest} has not begun; the current one is {}",
                        table.epoch()
                    ),
                });
            }
            retired = table.epochs().range(..oldest).count() as u32;
            Ok((retired > 0).then(|| table.keeping(|_, epoch| epoch >= oldest)))
        })?;
        Ok(retired)
    }

    fn copied(&self) -> Result<Vec<u8>> {
        let disk = self.disk();
        let keys = self.keys();
        let open = keys.as_ref().ok_or(Error::Locked)?;
        let epoch = self.next_epoch(&open.table)?;
        let table = open.table.with_epoch(epoch, &*self.random)?;
        Ok(self.seal(&disk, open, &table)?.bytes)
    }

    fn mend(&self) -> Result<()> {
        Self::mend(self)
    }

    fn secure(&self) -> Result<()> {
        Self::secure(self)
    }

    fn lock(&self) {
        Self::lock(self);
    }

    fn is_locked(&self) -> bool {
        Self::is_locked(self)
    }
}

impl Keyring {
    /// The epoch after the current one, if there is room for its keys.
    fn next_epoch(&self, table: &KeyTable) -> Result<u32> {
        self.check_room(table.len() + table.domains().count())?;
        let next = table.epoch().checked_add(1);
        next.ok_or(Error::InvalidSetting {
            setting: "epoch",
            problem: "epochs cannot count any further".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use vault_core::random::{Random, SeededRandom};
    use vault_core::transform::StorePlace;
    use vault_core::vfs::{FileSystem, MemoryFileSystem};

    use super::*;
    use crate::cipher::Algorithm;
    use crate::kdf::KdfBounds;
    use crate::keyring::Means;
    use crate::source::RawKey;
    use crate::transform::providers::Providers;

    fn keyring() -> Keyring {
        let fs: Arc<dyn FileSystem> = Arc::new(MemoryFileSystem::new());
        let random: Arc<dyn Random> = Arc::new(SeededRandom::new(1));
        let place = StorePlace {
            fs: &fs,
            random: &random,
            directory: Path::new("/"),
            store: [1; 16],
            writable: true,
        };
        let means = Means {
            bounds: KdfBounds::STANDARD,
            providers: Providers::default(),
        };
        let key = RawKey::new(SecretKey::from_bytes(&mut [9; 32]));
        let access = NewAccess::Secret(&key, None);
        Keyring::create(&place, access, Algorithm::ChaCha20Poly1305, means).unwrap()
    }

    /// A table of this many domains with keys of each epoch up to the current one.
    fn table(domains: u32, epochs: u32) -> KeyTable {
        let mut bytes = Vec::new();
        for (domain, epoch) in (0..domains).flat_map(|d| (1..=epochs).map(move |e| (d, e))) {
            bytes.extend_from_slice(&domain.to_le_bytes());
            bytes.extend_from_slice(&epoch.to_le_bytes());
            bytes.extend_from_slice(&[7; 32]);
        }
        KeyTable::decode(epochs, &bytes).unwrap()
    }

    #[test]
    fn a_keyring_holds_as_many_keys_as_it_may_and_no_more() {
        let keyring = keyring();
        let replace = |table| keyring.keys_mut().as_mut().unwrap().table = table;
        let all = KEYSPACES_MAX as u32 + 1;
        replace(table(all - 1, 3));
        keyring.add_domain(all - 1).unwrap();
        let error = keyring.add_domain(all).unwrap_err();
        assert!(
            error.to_string().contains("as many as there can be"),
            "{error}"
        );
        // Each has keys of three epochs, but for the last one, which came in the third.
        assert_eq!(keyring.begin_epoch().unwrap(), 4);
        assert_eq!(keyring.info().keys, KEYS_MAX - 2);
        let error = keyring.begin_epoch().unwrap_err();
        assert!(
            matches!(error, Error::UnacceptableKeyring { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains("finish the rotation"), "{error}");
        let error = keyring.copied().unwrap_err();
        assert!(
            matches!(error, Error::UnacceptableKeyring { .. }),
            "{error:?}"
        );
        let longest = keyring.export().len();
        assert!(longest <= super::super::format::FILE_BYTES_MAX, "{longest}");
        // It opens as it is, and finishing the rotation makes room.
        let image = Image::decode(Path::new("K"), keyring.export(), &keyring.bounds).unwrap();
        assert_eq!(image.keys(), KEYS_MAX - 2);
        assert_eq!(keyring.retire_epochs(4).unwrap(), 3);
        assert_eq!(keyring.begin_epoch().unwrap(), 5);
    }

    #[test]
    fn counters_end_with_an_error() {
        let keyring = keyring();
        let mut body = u32::MAX.to_le_bytes().to_vec();
        body.splice(0..0, [0; 4]);
        body.extend_from_slice(&[7; 32]);
        let last = KeyTable::decode(u32::MAX, &body).unwrap();
        keyring.keys_mut().as_mut().unwrap().table = last;
        let error = keyring.begin_epoch().unwrap_err();
        assert!(
            matches!(
                error,
                Error::InvalidSetting {
                    setting: "epoch",
                    ..
                }
            ),
            "{error:?}"
        );
        keyring.disk().image.version = u64::MAX;
        let error = keyring.add_domain(7).unwrap_err();
        let says = matches!(
            error,
            Error::InvalidSetting {
                setting: "keyring version",
                ..
            }
        );
        assert!(says, "{error:?}");
    }
}
