//! Locking and unlocking: the keys leave memory and come back.

use vault_core::{Error, Result};

use super::envelope::Access;
use super::files::Which;
use super::format::unacceptable;
use super::load::{Loaded, choose, load};
use super::{Disk, Keyring};
use crate::source::{KeyService, KeySource};

impl Keyring {
    /// Wipes all keys from memory, those of open files too. Waits for a change that is being made. Whatever needs a key from
    /// now on gets [`Error::Locked`].
    pub fn lock(&self) {
        let disk = self.disk();
        let keys = self.keys_mut().take();
        drop(keys);
        // From here on nobody derives the key of a file: only those that are there remain.
        for file in self.open_files.all() {
            file.wipe();
        }
        drop(disk);
    }

    /// Whether the keys have been wiped.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.keys().is_none()
    }

    /// Takes the keys up again, from the file. Keys of open files are derived when they are needed. Where it is not locked, the
    /// secret is checked all the same.
    ///
    /// # Errors
    /// [`Error::WrongKey`], after which it is as locked as before; [`Error::RolledBack`] or [`Error::UnacceptableKeyring`]
    /// where the keyring is another one than when it was locked; what the file system and the source of the secret say.
    pub fn unlock(&self, source: &dyn KeySource) -> Result<()> {
        self.unlock_with(Access::Secret(source))
    }

    /// As [`Keyring::unlock`], where a service of the host wraps the keys.
    ///
    /// # Errors
    /// As [`Keyring::unlock`].
    pub fn unlock_by(&self, service: &dyn KeyService) -> Result<()> {
        self.unlock_with(Access::Service(service))
    }

    /// Checks that this is the secret that opens the store, as before a change of it. Costs one key derivation.
    ///
    /// # Errors
    /// [`Error::WrongKey`]; as [`Keyring::unlock`].
    pub fn check_secret(&self, source: &dyn KeySource) -> Result<()> {
        self.load(Access::Secret(source)).map(drop)
    }

    fn load(&self, access: Access<'_>) -> Result<Loaded> {
        load(
            &self.directory,
            &self.store,
            &self.bounds,
            &self.providers,
            access,
        )
    }

    fn unlock_with(&self, access: Access<'_>) -> Result<()> {
        loop {
            let before = self.disk().image.version;
            // The derivation takes its time; nobody is to wait for it who locks or looks.
            let loaded = self.load(access)?;
            let mut disk = self.disk();
            if disk.image.version != before {
                // Somebody else has unlocked it and made a change meanwhile.
                continue;
            }
            self.check_same(&disk, &loaded)?;
            if self.is_locked() {
                self.take_up(&mut disk, loaded);
            }
            return Ok(());
        }
    }

    /// While this handle has the store's lock, nobody else changes its keyring.
    fn check_same(&self, disk: &Disk, loaded: &Loaded) -> Result<()> {
        let path = || self.directory.path_of(Which::Main);
        if loaded.image.version < disk.image.version {
            return Err(Error::RolledBack {
                path: path(),
                found: loaded.image.version,
                least: disk.image.version,
            });
        }
        if self.writable && loaded.image.bytes != disk.image.bytes {
            let problem =
                "it was replaced while the store was open; close the store and open it again";
            return Err(unacceptable(&path(), problem.to_owned()));
        }
        Ok(())
    }

    fn take_up(&self, disk: &mut Disk, loaded: Loaded) {
        *self.keys_mut() = Some(loaded.keys);
        disk.image = loaded.image;
        disk.flaws = loaded.flaws;
    }

    /// Looks, where the store is open for reading only, whether its writer has made new keys since. Gives whether there are
    /// any. The root key opens them as long as the secret is the same.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::UnacceptableKeyring`] where the secret was changed; what the file system says.
    pub(crate) fn refresh(&self) -> Result<bool> {
        if self.writable {
            return Ok(false);
        }
        let mut disk = self.disk();
        let chosen = choose(&self.directory, Some(&self.store), &self.bounds)?;
        if chosen.image.version <= disk.image.version {
            return Ok(false);
        }
        let mut keys = self.keys_mut();
        let open = keys.as_mut().ok_or(Error::Locked)?;
        let table = chosen.image.open_body(&self.providers, &open.root);
        open.table = table.map_err(|_| {
            let problem = "its secret was changed since the store was opened for reading; close it and open it again";
            unacceptable(&self.directory.path_of(chosen.which), problem.to_owned())
        })?;
        disk.image = chosen.image;
        disk.flaws = chosen.flaws;
        Ok(true)
    }
}
