//! What an engine is given to create or open an encrypted store.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use vault_core::Result;
use vault_core::transform::{Protection, StorePlace, Transform};

use super::KeyringTransform;
use super::providers::Providers;
use crate::cipher::{self, Algorithm, Provider};
use crate::kdf::{Kdf, KdfBounds};
use crate::keyring::{Access, Keyring, Means, NewAccess};
use crate::source::{KeyService, KeySource};

/// Encrypts a store under a passphrase, a key, or a host's key service.
///
/// It holds the source of the secret for as long as it lives, and with it the secret, where that is at hand: drop it once
/// the store is open. It does not keep the keys of the store alive.
pub struct EncryptedProtection {
    holder: Holder,
    kdf: Option<Kdf>,
    algorithm: Option<Algorithm>,
    bounds: KdfBounds,
    providers: Providers,
    keyring: Mutex<Weak<Keyring>>,
}

/// Who has the secret.
enum Holder {
    Source(Arc<dyn KeySource>),
    Service(Arc<dyn KeyService>),
}

impl EncryptedProtection {
    /// Under a passphrase or key, from this source.
    #[must_use]
    pub fn with_source(source: Arc<dyn KeySource>) -> Self {
        Self::new(Holder::Source(source))
    }

    /// Under a key that a service of the host wraps.
    #[must_use]
    pub fn with_service(service: Arc<dyn KeyService>) -> Self {
        Self::new(Holder::Service(service))
    }

    fn new(holder: Holder) -> Self {
        Self {
            holder,
            kdf: None,
            algorithm: None,
            bounds: KdfBounds::STANDARD,
            providers: Providers::default(),
            keyring: Mutex::default(),
        }
    }

    /// How the secret of a store that is created becomes a key. Without it: Argon2id with 64 MiB for a passphrase, HKDF for
    /// a key. A store that exists has its own.
    #[must_use]
    pub const fn kdf(mut self, kdf: Kdf) -> Self {
        self.kdf = Some(kdf);
        self
    }

    /// The cipher of a store that is created. Without it: the fastest in this build, on this CPU. A store that exists has its
    /// own.
    #[must_use]
    pub fn algorithm(mut self, algorithm: impl Into<Option<Algorithm>>) -> Self {
        self.algorithm = algorithm.into();
        self
    }

    /// Uses this implementation of its cipher instead of the best one in this build.
    #[must_use]
    pub fn provider(mut self, provider: Arc<dyn Provider>) -> Self {
        self.providers.choose(provider);
        self
    }

    /// Which parameters of key derivation are accepted, from the caller and from a keyring. Without it:
    /// [`KdfBounds::STANDARD`].
    #[must_use]
    pub const fn kdf_bounds(mut self, bounds: KdfBounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// The keyring of the store that was created or opened last, for as long as that is open.
    #[must_use]
    pub fn keyring(&self) -> Option<Arc<Keyring>> {
        let keyring = self.keyring.lock().unwrap_or_else(PoisonError::into_inner);
        keyring.upgrade()
    }

    fn means(&self) -> Means {
        Means {
            bounds: self.bounds,
            providers: self.providers.clone(),
        }
    }

    fn transform_of(&self, keyring: Keyring) -> Arc<dyn Transform> {
        let keyring = Arc::new(keyring);
        *self.keyring.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&keyring);
        Arc::new(KeyringTransform::new(keyring))
    }
}

impl Protection for EncryptedProtection {
    fn create(&self, place: &StorePlace<'_>) -> Result<Arc<dyn Transform>> {
        let access = match &self.holder {
            Holder::Source(source) => NewAccess::Secret(&**source, self.kdf),
            Holder::Service(service) => NewAccess::Service(&**service),
        };
        let algorithm = self.algorithm.unwrap_or_else(cipher::preferred);
        let keyring = Keyring::create(place, access, algorithm, self.means())?;
        Ok(self.transform_of(keyring))
    }

    fn open(&self, place: &StorePlace<'_>) -> Result<Arc<dyn Transform>> {
        let access = match &self.holder {
            Holder::Source(source) => Access::Secret(&**source),
            Holder::Service(service) => Access::Service(&**service),
        };
        let keyring = Keyring::open(place, access, self.means())?;
        Ok(self.transform_of(keyring))
    }
}

impl fmt::Debug for EncryptedProtection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.holder {
            Holder::Source(source) => source.name(),
            Holder::Service(service) => service.name(),
        };
        f.debug_struct("EncryptedProtection")
            .field("secret", &name)
            .field("kdf", &self.kdf)
            .field("algorithm", &self.algorithm)
            .field("providers", &self.providers)
            .finish_non_exhaustive()
    }
}
