//! What the handle does with the keys of an encrypted store: rotate them, let go of them, take them up again.

use std::ops::ControlFlow;

use vault_core::stats::KeyRotation;
use vault_core::{CompactionProgress, Result};

use super::Lsm;
use crate::{locking, rotation};

impl Lsm {
    /// Notes in the pointer that the keyring has changed, so that an older one put back is refused. To be called after
    /// each change that was made past the engine: another passphrase, for one.
    ///
    /// # Errors
    /// [`Io`](vault_core::Error::Io), [`DiskFull`](vault_core::Error::DiskFull),
    /// [`Locked`](vault_core::Error::Locked), [`Closed`](vault_core::Error::Closed),
    /// [`ReadOnly`](vault_core::Error::ReadOnly).
    pub fn keys_changed(&self) -> Result<()> {
        let store = self.store();
        let mut manifest = store.manifest()?;
        manifest
            .renew_pointer(&store.env)
            .map_err(|error| store.poison_if_unknown(error))
    }

    /// Begins to seal everything anew, under fresh keys. What is written from now on is sealed under them. The manifest
    /// and the log follow at once, which flushes what is in memory (but a log that a checkpoint holds, or a flush of more
    /// than a second, follows when they are done). The tables follow in the background, where nothing is more urgent, also
    /// after the store was closed and opened again. When nothing is left that older keys seal, these are destroyed. Gives
    /// the number of the new epoch.
    ///
    /// Where it fails with the epoch begun, [`Lsm::key_rotation`] says so, and the background goes on with it.
    ///
    /// # Errors
    /// [`Locked`](vault_core::Error::Locked), [`Unsupported`](vault_core::Error::Unsupported) for a store without keys,
    /// and the errors of [`Engine::flush`](vault_core::Engine::flush).
    pub fn rotate_keys(&self) -> Result<u32> {
        rotation::rotate(self.store())
    }

    /// Does what is left of a rotation now, on this thread, rather than when nothing is more urgent. `progress` hears of
    /// the bytes of keys and values that were sealed anew, of all that are to be; `Break` ends it, and what was done by
    /// then stays done. Not to be called by the `progress` of another call.
    ///
    /// What it gives names as held what readers keep of the tables as they were: the keys of those are destroyed when
    /// they let go, in the background.
    ///
    /// # Errors
    /// As [`Lsm::rotate_keys`]; [`Cancelled`](vault_core::Error::Cancelled).
    pub fn finish_rotation(
        &self,
        mut progress: impl FnMut(CompactionProgress) -> ControlFlow<()>,
    ) -> Result<KeyRotation> {
        rotation::finish(self.store(), &mut progress)
    }

    /// Under which keys the store's files are sealed.
    ///
    /// # Errors
    /// [`Unsupported`](vault_core::Error::Unsupported) for a store without keys,
    /// [`Locked`](vault_core::Error::Locked), [`Closed`](vault_core::Error::Closed).
    pub fn key_rotation(&self) -> Result<KeyRotation> {
        let keys = locking::keys_of(self.store())?;
        self.store().check_open()?;
        Ok(rotation::status(self.store(), keys))
    }

    /// Wipes the keys of an encrypted store from memory, without closing it. From now on every operation of the handle
    /// and of what came from it (snapshots, cursors, ingests that are under way) is refused with
    /// [`Locked`](vault_core::Error::Locked), until somebody unlocks the keys and calls [`Lsm::resume`]. Only
    /// [`Engine::stats`](vault_core::Engine::stats) goes on, without names, and [`Engine::close`](vault_core::Engine::close). Does nothing where it is locked.
    ///
    /// Nothing that was acknowledged is lost. What is in memtables is flushed first; where that fails, on a full disk
    /// for instance, the store is locked all the same, and what could not be flushed stays in memory. What else
    /// stays, and for how long, is listed in `docs/internals/keys.md`.
    ///
    /// Called in the midst of the engine's own work (by an [`EventListener`](vault_core::EventListener) or a
    /// [`MergeOperator`](vault_core::MergeOperator)), it refuses operations at once and leaves the rest to the
    /// background; with [`BackgroundWork::Manual`](crate::BackgroundWork::Manual) to the next step.
    ///
    /// # Errors
    /// [`Unsupported`](vault_core::Error::Unsupported) for a store without keys.
    pub fn lock(&self) -> Result<()> {
        locking::lock(self.store(), false)
    }

    /// Goes on after [`Lsm::lock`], without opening anything again. Whoever keeps the keys has unlocked them before. Does
    /// nothing where the store is not locked.
    ///
    /// # Errors
    /// [`Locked`](vault_core::Error::Locked) while the keys are not there, [`Closed`](vault_core::Error::Closed),
    /// [`Unsupported`](vault_core::Error::Unsupported) for a store without keys, and on the thread of an event
    /// listener.
    pub fn resume(&self) -> Result<()> {
        locking::resume(self.store())
    }

    /// Whether operations are refused because of [`Lsm::lock`], or because nothing was asked for as long as
    /// [`Settings::lock_after_idle`](crate::Settings::lock_after_idle) says.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        locking::is_locked(self.store())
    }
}
