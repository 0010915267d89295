//! Keys that the host's own key service wraps: one in a cloud, in a hardware module, in the session of the desktop.

use std::sync::Arc;

use vault_core::Result;
use vault_core::random::Random;

use super::{KeySource, Secret};
use crate::secret::SecretKey;

/// A host's own key service, which wraps and unwraps keys and never gives away its own.
pub trait KeyService: Send + Sync {
    /// Which service and which of its keys, for messages.
    fn name(&self) -> String;

    /// Wraps a key, bound to the context: it unwraps with the same one only. A service that has no such binding adds
    /// it, by a key of its own for each context for instance.
    ///
    /// # Errors
    /// [`Error::KeyUnavailable`](vault_core::Error::KeyUnavailable) where the service cannot be asked or refuses.
    fn wrap(&self, key: &SecretKey, context: &[u8]) -> Result<Vec<u8>>;

    /// Unwraps a key.
    ///
    /// # Errors
    /// [`Error::KeyUnavailable`](vault_core::Error::KeyUnavailable) where the service cannot be asked or refuses,
    /// [`Error::InvalidKey`](vault_core::Error::InvalidKey) where these bytes are nothing that it wrapped with this context.
    fn unwrap(&self, wrapped: &[u8], context: &[u8]) -> Result<SecretKey>;
}

/// A key that a [`KeyService`] has wrapped. The wrapped form is no secret: keep it with the host's settings, or beside the
/// store.
pub struct ServiceKey {
    service: Arc<dyn KeyService>,
    wrapped: Vec<u8>,
    context: Vec<u8>,
}

impl ServiceKey {
    /// Makes a new key and has it wrapped. The context says what the key is for: the store's name, for instance.
    ///
    /// # Errors
    /// What the random source and the service say.
    pub fn create(
        service: Arc<dyn KeyService>,
        context: &[u8],
        random: &dyn Random,
    ) -> Result<Self> {
        let key = SecretKey::random(random)?;
        let wrapped = service.wrap(&key, context)?;
        Ok(Self::new(service, wrapped, context))
    }

    /// Takes up a key that was wrapped before.
    #[must_use]
    pub fn new(service: Arc<dyn KeyService>, wrapped: Vec<u8>, context: &[u8]) -> Self {
        Self {
            service,
            wrapped,
            context: context.to_vec(),
        }
    }

    /// The wrapped form, to be kept.
    #[must_use]
    pub fn wrapped(&self) -> &[u8] {
        &self.wrapped
    }
}

impl KeySource for ServiceKey {
    fn name(&self) -> String {
        format!("the key service {}", self.service.name())
    }

    fn secret(&self) -> Result<Secret> {
        self.service
            .unwrap(&self.wrapped, &self.context)
            .map(Secret::Key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cipher::{Algorithm, provider};
    use vault_core::Error;
    use vault_core::random::SystemRandom;

    /// A service as one could be: its key never leaves it.
    struct Desktop {
        key: SecretKey,
        reachable: bool,
    }

    impl KeyService for Desktop {
        fn name(&self) -> String {
            "of the desktop".to_owned()
        }

        fn wrap(&self, key: &SecretKey, context: &[u8]) -> Result<Vec<u8>> {
            let mut wrapped = key.expose().to_vec();
            let cipher = provider(Algorithm::ChaCha20Poly1305).key(&self.key);
            let tag = cipher.seal(&[0; 12], context, &mut wrapped).unwrap();
            wrapped.extend_from_slice(&tag);
            Ok(wrapped)
        }

        fn unwrap(&self, wrapped: &[u8], context: &[u8]) -> Result<SecretKey> {
            if !self.reachable {
                return Err(Error::KeyUnavailable {
                    source_name: self.name(),
                    problem: "nobody is logged in".to_owned(),
                });
            }
            let refused = || super::super::invalid("it was not wrapped here".to_owned());
            let (text, tag) = wrapped.split_last_chunk().ok_or_else(refused)?;
            let mut text: [u8; 32] = text.try_into().map_err(|_| refused())?;
            let cipher = provider(Algorithm::ChaCha20Poly1305).key(&self.key);
            cipher
                .open(&[0; 12], context, &mut text, tag)
                .map_err(|_| refused())?;
            Ok(SecretKey::from_bytes(&mut text))
        }
    }

    fn service(reachable: bool) -> Arc<Desktop> {
        let key = SecretKey::from_bytes(&mut [9; 32]);
        Arc::new(Desktop { key, reachable })
    }

    fn key_of(source: &ServiceKey) -> Result<SecretKey> {
        source.secret().map(|secret| match secret {
            Secret::Key(key) => key,
            Secret::Passphrase(_) => panic!("a key service gives keys"),
        })
    }

    #[test]
    fn a_wrapped_key_is_the_same_each_time_it_is_unwrapped() {
        let made = ServiceKey::create(service(true), b"store", &SystemRandom).unwrap();
        let first = key_of(&made).unwrap();
        let again = ServiceKey::new(service(true), made.wrapped().to_vec(), b"store");
        assert!(key_of(&again).unwrap().equals(first.expose()));
        let other = ServiceKey::create(service(true), b"store", &SystemRandom).unwrap();
        assert!(!key_of(&other).unwrap().equals(first.expose()));
    }

    #[test]
    fn another_context_or_damage_is_refused() {
        let made = ServiceKey::create(service(true), b"store", &SystemRandom).unwrap();
        let mut damaged = made.wrapped().to_vec();
        damaged[3] ^= 1;
        for (wrapped, context) in [
            (made.wrapped().to_vec(), &b"another"[..]),
            (damaged, b"store"),
            (vec![1; 3], b"store"),
        ] {
            let source = ServiceKey::new(service(true), wrapped, context);
            assert!(matches!(source.secret(), Err(Error::InvalidKey { .. })));
        }
    }

    #[test]
    fn a_service_that_cannot_be_asked_is_named() {
        let made = ServiceKey::create(service(true), b"store", &SystemRandom).unwrap();
        let source = ServiceKey::new(service(false), made.wrapped().to_vec(), b"store");
        let error = source.secret().err().unwrap();
        assert!(matches!(error, Error::KeyUnavailable { .. }), "{error}");
        assert!(error.to_string().contains("of the desktop"), "{error}");
        assert!(source.name().contains("of the desktop"));
    }
}
