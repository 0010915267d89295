//! Secrets that the host has at hand: typed by a person, or kept by a system of its own.

use vault_core::Result;

use super::{KeySource, Secret, invalid, passphrase};
use crate::secret::{KEY_BYTES, SecretBytes, SecretKey};

/// A passphrase that is at hand.
///
/// ```
/// use vault_crypto::SecretBytes;
/// use vault_crypto::source::Passphrase;
/// let typed = String::from("correct horse battery staple");
/// let passphrase = Passphrase::new(SecretBytes::from_string(typed)?)?;
/// assert!(Passphrase::new(SecretBytes::new(b"")?).is_err());
/// # Ok::<(), vault_core::Error>(())
/// ```
pub struct Passphrase {
    passphrase: SecretBytes,
}

impl Passphrase {
    /// Takes a passphrase.
    ///
    /// # Errors
    /// [`Error::InvalidKey`](vault_core::Error::InvalidKey) where it is empty or no text.
    pub fn new(secret: SecretBytes) -> Result<Self> {
        Ok(Self {
            passphrase: passphrase(secret, "what was given")?,
        })
    }
}

impl KeySource for Passphrase {
    fn name(&self) -> String {
        "the passphrase that was given".to_owned()
    }

    fn secret(&self) -> Result<Secret> {
        Ok(Secret::Passphrase(self.passphrase.duplicate()))
    }
}

/// A key that is at hand.
///
/// ```
/// use vault_crypto::source::RawKey;
/// let mut bytes = vec![7; 32];
/// let key = RawKey::from_slice(&mut bytes)?;
/// assert_eq!(bytes, [0; 32]); // it was taken, not copied
/// assert!(RawKey::from_slice(&mut [7; 31]).is_err());
/// # Ok::<(), vault_core::Error>(())
/// ```
pub struct RawKey {
    key: SecretKey,
}

impl RawKey {
    /// Takes a key.
    #[must_use]
    pub fn new(key: SecretKey) -> Self {
        Self { key }
    }

    /// Takes a key out of a slice of 32 bytes, and wipes the slice whatever its length.
    ///
    /// # Errors
    /// [`Error::InvalidKey`](vault_core::Error::InvalidKey) where it has another length.
    pub fn from_slice(bytes: &mut [u8]) -> Result<Self> {
        let len = bytes.len();
        if let Ok(bytes) = bytes.as_mut().try_into() {
            return Ok(Self::new(SecretKey::from_bytes(bytes)));
        }
        zeroize::Zeroize::zeroize(bytes);
        Err(invalid(format!(
            "it has {len} bytes; give a key of {KEY_BYTES}"
        )))
    }
}

impl KeySource for RawKey {
    fn name(&self) -> String {
        "the key that was given".to_owned()
    }

    fn secret(&self) -> Result<Secret> {
        Ok(Secret::Key(self.key.duplicate()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vault_core::Error;

    #[test]
    fn a_passphrase_is_given_as_often_as_it_is_asked_for() {
        let source = Passphrase::new(SecretBytes::new(b"open sesame").unwrap()).unwrap();
        for _ in 0..2 {
            let Ok(Secret::Passphrase(given)) = source.secret() else {
                panic!("a passphrase");
            };
            assert_eq!(given.expose(), b"open sesame");
        }
        assert!(!source.name().contains("sesame"));
    }

    #[test]
    fn an_empty_passphrase_is_refused() {
        let refused = Passphrase::new(SecretBytes::new(b"").unwrap()).err();
        let Some(Error::InvalidKey { problem }) = refused else {
            panic!("refused");
        };
        assert!(problem.contains("empty"), "{problem}");
    }

    #[test]
    fn a_key_of_another_length_is_refused_and_wiped() {
        for length in [0, 1, 16, 31, 33, 64] {
            let mut bytes = vec![7; length];
            let Some(Error::InvalidKey { problem }) = RawKey::from_slice(&mut bytes).err() else {
                panic!("{length}");
            };
            assert!(
                problem.contains(&format!("{length} bytes")) && problem.contains("32"),
                "{problem}"
            );
            assert_eq!(bytes, vec![0; length]);
        }
        let source = RawKey::from_slice(&mut [7; 32]).unwrap();
        let Ok(Secret::Key(given)) = source.secret() else {
            panic!("a key");
        };
        assert!(given.equals(&[7; 32]));
    }
}
