//! What opens the store of a soak, and what is done to its keys while others are at work.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vault_core::random::{Random, SeededRandom};
use vault_core::{Error, Reader};
use vault_crypto::source::RawKey;
use vault_crypto::{EncryptedProtection, Keyring, SecretKey};
use vault_lsm::{Lsm, LsmOptions};

use super::banker;
use super::stage::{Opened, Stage, lock as take, told};

/// How long the store stays locked.
const LOCKED: Duration = Duration::from_millis(50);

/// The secret of an encrypted store, as it changes.
#[derive(Debug, Default)]
pub(super) struct Secrecy {
    encrypted: bool,
    /// The number that the secret follows from.
    secret: AtomicU64,
    /// What the open store was opened with.
    protection: Mutex<Option<Arc<EncryptedProtection>>>,
}

impl Secrecy {
    pub(super) fn new(encrypted: bool) -> Self {
        Self {
            encrypted,
            ..Self::default()
        }
    }

    pub(super) const fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// Options with what opens the store now.
    pub(super) fn protect(&self, options: LsmOptions) -> LsmOptions {
        match self.protection() {
            Some(protection) => options.protection(protection),
            None => options,
        }
    }

    /// The same, for the store itself: its keys are at hand as long as it is open.
    pub(super) fn protect_store(&self, options: LsmOptions) -> LsmOptions {
        let Some(protection) = self.protection() else {
            return options;
        };
        *take(&self.protection) = Some(Arc::clone(&protection));
        options.protection(protection)
    }

    fn protection(&self) -> Option<Arc<EncryptedProtection>> {
        let source = Arc::new(self.source());
        let protection = || Arc::new(EncryptedProtection::with_source(source));
        self.encrypted.then(protection)
    }

    fn source(&self) -> RawKey {
        let random = SeededRandom::new(self.secret.load(Ordering::Acquire));
        let key = SecretKey::random(&random as &dyn Random);
        RawKey::new(key.expect("a seeded source does not fail"))
    }

    fn keyring(&self) -> Result<Arc<Keyring>, String> {
        let keyring = take(&self.protection).as_ref().and_then(|of| of.keyring());
        keyring.ok_or_else(|| "an open store has no keyring".to_owned())
    }
}

/// Begins a rotation, if none is under way.
pub(super) fn rotate(opened: &Opened) -> Result<(), String> {
    let status = opened.lsm.key_rotation().map_err(told("key rotation"))?;
    if status.oldest_epoch_in_use < status.epoch {
        return Ok(());
    }
    opened.lsm.rotate_keys().map(drop).map_err(told("rotate"))
}

/// Carries a rotation to its end. Snapshots that others hold may keep old keys.
pub(super) fn finish_rotation(lsm: &Lsm) -> Result<(), String> {
    let finished = lsm.finish_rotation(|_| ControlFlow::Continue(()));
    let status = finished.map_err(told("finish a rotation"))?;
    if status.tables_left == 0 {
        return Ok(());
    }
    Err(format!("a rotation was finished: {status:?}"))
}

/// Replaces the secret while everybody works.
pub(super) fn change_secret(stage: &Stage, opened: &Opened) -> Result<(), String> {
    let secrecy = &stage.secrecy;
    let keyring = secrecy.keyring()?;
    let old = secrecy.source();
    // Nobody opens anything meanwhile: whoever does is the one who is here.
    secrecy.secret.fetch_add(1, Ordering::AcqRel);
    let changed = keyring.change_secret(&secrecy.source(), None);
    changed.map_err(told("change the secret"))?;
    opened.lsm.keys_changed().map_err(told("note the change"))?;
    match keyring.check_secret(&old) {
        Err(Error::WrongKey { .. }) => Ok(()),
        other => Err(format!("the old secret is answered with {other:?}")),
    }
}

/// Stops everybody but the store's own threads, locks the store, and unlocks it again.
pub(super) fn lock_and_unlock(stage: &Stage, thread: usize) -> Result<(), String> {
    let waiting = stage.doing(thread, "wait until nobody is at work");
    let cell = stage.store.write().unwrap_or_else(PoisonError::into_inner);
    drop(waiting);
    let Some(opened) = &*cell else {
        return Ok(());
    };
    let _doing = stage.doing(thread, "lock and unlock");
    let (lsm, keyring) = (&opened.lsm, stage.secrecy.keyring()?);
    lsm.lock().map_err(told("lock"))?;
    if !keyring.is_locked() {
        return Err("the store is locked, and its keys are not".to_owned());
    }
    match lsm.get(opened.ids.bank, b"k") {
        Err(Error::Locked) => {}
        other => return Err(format!("a locked store answers {other:?}")),
    }
    super::pause(stage, LOCKED);
    let unlocked = keyring.unlock(&stage.secrecy.source());
    unlocked.map_err(told("unlock"))?;
    lsm.resume().map_err(told("resume"))?;
    banker::check(lsm, opened)
}
