//! Simulations of encrypted stores: secrets, keys, and what must never be readable.
//!
//! - [`recorder`]: no key sees a nonce twice;
//! - [`canary`]: nothing of what a plan writes can be read in any file, error or event;
//! - [`erased`]: what was dropped cannot be opened any more;
//! - [`keys`]: rotations, other secrets, locking;
//! - [`rollback`]: copies of the directory that are put back, in plain stores too.

pub(super) mod canary;
mod erased;
mod keys;
mod recorder;
mod rollback;

use std::sync::{Arc, Mutex, PoisonError};

use vault_core::random::{Random, SeededRandom};
use vault_core::{Error, Result as CoreResult};
use vault_crypto::cipher::Provider;
use vault_crypto::source::{Passphrase, RawKey};
use vault_crypto::{
    Algorithm, EncryptedProtection, Kdf, KdfBounds, KeySource, Keyring, SecretBytes, SecretKey,
};
use vault_lsm::{Lsm, LsmOptions};

use self::erased::Lost;
use self::recorder::Recorder;
use self::rollback::BackUp;
use super::{DIRECTORY, Simulation, Step};

/// A secret, by a number from which it follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Secret {
    number: u32,
    passphrase: bool,
}

/// The secret that a store begins with.
const SECRET_FIRST: Secret = Secret {
    number: 0,
    passphrase: false,
};

impl Secret {
    fn source(self) -> Arc<dyn KeySource> {
        if self.passphrase {
            let text = format!("passphrase {}", self.number);
            let text = SecretBytes::from_string(text).and_then(Passphrase::new);
            return Arc::new(text.expect("this is a passphrase"));
        }
        let key = SecretKey::random(&SeededRandom::new(u64::from(self.number)) as &dyn Random);
        Arc::new(RawKey::new(key.expect("a seeded source does not fail")))
    }

    /// A derivation that takes no time.
    fn kdf(self) -> Option<Kdf> {
        self.passphrase.then(Kdf::danger_weak)
    }
}

/// What concerns keys and secrets.
pub(super) struct Secrecy {
    pub(super) algorithm: Option<Algorithm>,
    recorder: Option<Arc<Recorder>>,
    /// The secret that opens the store.
    pub(super) secret: Secret,
    /// One that may open it instead: a change of it ended with the outcome unknown.
    other: Option<Secret>,
    secrets: u32,
    /// What the open store was opened with.
    protection: Option<Arc<EncryptedProtection>>,
    /// The generation that the host noted last.
    noted: u64,
    /// While the store is locked: the operation at which it is unlocked.
    locked_until: Option<usize>,
    /// What is in the keyring is in doubt: only opening anew can tell.
    pub(super) keys_in_doubt: bool,
    /// A drop ended before what was dropped was erased.
    pub(super) unerased: bool,
    lost: Lost,
    back_up: Option<BackUp>,
    /// What could be read where nothing may be.
    leak: Mutex<Option<String>>,
}

impl Secrecy {
    pub(super) fn new(algorithm: Option<Algorithm>) -> Self {
        Self {
            algorithm,
            recorder: algorithm.map(|algorithm| Arc::new(Recorder::new(algorithm))),
            secret: SECRET_FIRST,
            other: None,
            secrets: 1,
            protection: None,
            noted: 0,
            locked_until: None,
            keys_in_doubt: false,
            unerased: false,
            lost: Lost::default(),
            back_up: None,
            leak: Mutex::default(),
        }
    }

    pub(super) const fn is_encrypted(&self) -> bool {
        self.algorithm.is_some()
    }

    pub(super) const fn is_locked(&self) -> bool {
        self.locked_until.is_some()
    }

    /// What opens a store with this secret. `None` where stores are plain.
    pub(super) fn protection(&self, secret: Secret) -> Option<Arc<EncryptedProtection>> {
        let recorder = Arc::clone(self.recorder.as_ref()?);
        Some(Arc::new(self.protection_with(secret, recorder)))
    }

    /// The same with another cipher.
    fn protection_with(&self, secret: Secret, cipher: Arc<dyn Provider>) -> EncryptedProtection {
        EncryptedProtection::with_source(secret.source())
            .kdf_bounds(KdfBounds::danger_weak())
            .algorithm(self.algorithm)
            .provider(cipher)
    }

    /// The keyring of the open store.
    pub(super) fn keyring(&self) -> Option<Arc<Keyring>> {
        self.protection.as_ref()?.keyring()
    }

    /// The store's end, as far as keys are concerned.
    pub(super) fn ended(&mut self) {
        self.protection = None;
        self.locked_until = None;
        self.keys_in_doubt = false;
        self.unerased = false;
    }

    /// Looks whether anything can be read in what an encrypted store says.
    pub(super) fn overhear(&self, what: &str, said: &dyn std::fmt::Debug) {
        if self.is_encrypted()
            && let Some(text) = canary::find_in_text(said)
        {
            let mut leak = self.leak.lock().unwrap_or_else(PoisonError::into_inner);
            leak.get_or_insert(format!(
                "{what} tells what an encrypted store holds: {text}"
            ));
        }
    }

    /// Looks at an error, in both forms.
    pub(super) fn overhear_error(&self, what: &str, error: &Error) {
        if self.is_encrypted() {
            self.overhear(what, error);
            self.overhear(what, &error.to_string());
        }
    }
}

/// Whether this is what somebody is told who has another secret, or one of another kind.
const fn is_of_another_secret(error: &Error) -> bool {
    matches!(error, Error::WrongKey { .. } | Error::InvalidKey { .. })
}

impl Simulation {
    /// Options for this secret.
    pub(super) fn options_with(&self, secret: Secret) -> LsmOptions {
        let options = self.plain_options();
        match self.secrecy.protection(secret) {
            Some(protection) => options.protection(protection),
            None => options,
        }
    }

    /// Options with this protection.
    fn options_of(&self, protection: Arc<EncryptedProtection>) -> LsmOptions {
        self.plain_options().protection(protection)
    }

    /// Opens the store, as a host does that keeps its generation elsewhere. Where a change of the secret is in doubt, with
    /// whichever it is.
    pub(super) fn open_store(&mut self) -> CoreResult<Lsm> {
        let opened = self.open_with_secret();
        match (opened, self.secrecy.other) {
            (Err(error), Some(other)) if is_of_another_secret(&error) => {
                self.secrecy.other = Some(self.secrecy.secret);
                self.secrecy.secret = other;
                self.open_with_secret()
            }
            (opened, _) => opened,
        }
    }

    fn open_with_secret(&mut self) -> CoreResult<Lsm> {
        let protection = self.secrecy.protection(self.secrecy.secret);
        let mut options = match &protection {
            Some(protection) => self.options_of(Arc::clone(protection)),
            None => self.plain_options(),
        };
        options.settings.least_generation = self.secrecy.noted;
        let store = Lsm::open(DIRECTORY, options)?;
        // Whichever secret it was: from now on no other one is.
        self.secrecy.other = None;
        self.secrecy.noted = store.generation();
        self.secrecy.protection = protection;
        Ok(store)
    }

    /// Takes note of commits before an opening tells which of them are lost.
    pub(super) fn note_lost(&mut self, latest: u64) {
        if self.secrecy.is_encrypted() && latest < self.oracle.written() {
            self.secrecy.lost.note(&self.oracle);
        }
    }

    /// Notes the generation of a store that was closed.
    pub(super) fn note_generation(&mut self, store: &Lsm) -> Step {
        let generation = store.generation();
        if generation < self.secrecy.noted {
            let noted = self.secrecy.noted;
            return Err(format!(
                "the generation went back from {noted} to {generation}"
            ));
        }
        self.secrecy.noted = generation;
        Ok(())
    }

    /// What holds after every operation: no nonce was used twice, nothing leaked.
    pub(super) fn check_secrecy(&self) -> Step {
        if let Some(recorder) = &self.secrecy.recorder {
            recorder.check()?;
        }
        let leak = self.secrecy.leak.lock();
        let leak = leak.unwrap_or_else(PoisonError::into_inner).clone();
        leak.or_else(|| self.listener.leak()).map_or(Ok(()), Err)
    }

    /// Looks through every file there is. In a plain store there is something to be found, which shows that the search works.
    pub(super) fn search_files(&mut self) -> Step {
        let (files, first) = canary::find_in_files(&self.fs);
        self.report.searches += 1;
        match (self.secrecy.is_encrypted(), first) {
            (true, Some(found)) => Err(format!(
                "{files} files of an encrypted store can be read: {found}"
            )),
            (false, None) if self.oracle.present().next().is_some() => {
                Err("a plain store was searched, and nothing found".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Adds up what was sealed.
    pub(super) fn take_stock_of_seals(&mut self) {
        if let Some(recorder) = &self.secrecy.recorder {
            let counts = recorder.counts();
            self.report.encrypted = 1;
            self.report.seals = counts.seals;
            self.report.keys = counts.keys;
            self.report.seals_repeated = counts.repeated;
            self.report.seals_unnoted = counts.unnoted;
        }
    }
}
