//! Where the secret comes from that opens a store.
//!
//! | source | gives |
//! | --- | --- |
//! | [`Passphrase`], [`RawKey`] | what the host has at hand |
//! | [`KeyFile`] | a key out of a file that nobody else may read |
//! | [`EnvironmentVariable`] | a passphrase or a key |
//! | [`Command`] | a passphrase or a key that another program prints: a password manager, a hardware token's tool |
//! | [`ServiceKey`] | a key that the host's own [`KeyService`] unwraps |
//!
//! A source is asked each time a store is opened or unlocked, and what it gives is wiped as soon as it was used. Neither an
//! error nor a name says anything of a secret.
//!
//! Sources are the one place where this crate touches files, the environment and processes: a secret is not the
//! store's, so it does not come through the store's file system.

mod at_hand;
mod command;
mod environment;
mod file;
mod service;

pub use at_hand::{Passphrase, RawKey};
pub use command::Command;
pub use environment::EnvironmentVariable;
pub use file::KeyFile;
pub use service::{KeyService, ServiceKey};

use vault_core::{Error, Result};

use crate::secret::{KEY_BYTES, PASSPHRASE_BYTES_MAX, SecretBytes, SecretKey};

/// What opens a store.
pub enum Secret {
    /// A passphrase, which a person can remember and others can guess.
    Passphrase(SecretBytes),
    /// A key of 32 random bytes.
    Key(SecretKey),
}

/// Where a secret comes from.
pub trait KeySource: Send + Sync {
    /// Where it comes from, for messages. Says nothing of the secret.
    fn name(&self) -> String;

    /// Gets the secret.
    ///
    /// # Errors
    /// [`Error::KeyUnavailable`] where it cannot be had, [`Error::InvalidKey`] where what is there cannot be a secret.
    fn secret(&self) -> Result<Secret>;
}

/// How a secret is written where text is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As it is.
    Passphrase,
    /// As 64 hexadecimal digits.
    HexKey,
}

impl Form {
    /// Reads the secret out of a text. `source` names where it stands, for errors.
    fn read(self, text: SecretBytes, source: &str) -> Result<Secret> {
        match self {
            Self::Passphrase => passphrase(text, source).map(Secret::Passphrase),
            Self::HexKey => hex_key(text.expose(), source).map(Secret::Key),
        }
    }
}

/// A passphrase that can be one: text, not empty, not too long.
fn passphrase(text: SecretBytes, source: &str) -> Result<SecretBytes> {
    let bytes = text.expose();
    if bytes.is_empty() {
        return Err(invalid(format!(
            "{source} holds an empty passphrase; give one of at least one character"
        )));
    }
    if bytes.len() > PASSPHRASE_BYTES_MAX {
        return Err(invalid(format!(
            "{source} holds over {PASSPHRASE_BYTES_MAX} bytes; give a shorter passphrase"
        )));
    }
    // The same passphrase must open the store wherever it is typed: what is no text cannot be typed.
    if std::str::from_utf8(bytes).is_err() {
        return Err(invalid(format!(
            "{source} holds bytes that are not UTF-8; give a passphrase as text, or a key in hexadecimal digits"
        )));
    }
    Ok(text)
}

/// A key of 64 hexadecimal digits.
fn hex_key(text: &[u8], source: &str) -> Result<SecretKey> {
    let refused = || {
        invalid(format!(
            "{source} does not hold {} hexadecimal digits, a key of {KEY_BYTES} bytes",
            2 * KEY_BYTES
        ))
    };
    if text.len() != 2 * KEY_BYTES {
        return Err(refused());
    }
    SecretKey::build(|key| {
        for (byte, pair) in key.iter_mut().zip(text.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16).ok_or_else(refused);
            *byte = ((digit(0)? << 4) | digit(1)?) as u8;
        }
        Ok(())
    })
}

fn invalid(problem: String) -> Error {
    Error::InvalidKey { problem }
}

fn unavailable(source: &dyn KeySource, problem: impl Into<String>) -> Error {
    Error::KeyUnavailable {
        source_name: source.name(),
        problem: problem.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> SecretBytes {
        SecretBytes::new(bytes).unwrap()
    }

    #[test]
    fn keys_are_read_from_digits_of_either_case() {
        let digits = b"000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";
        let key = hex_key(digits, "it").unwrap();
        assert!(key.equals(&std::array::from_fn(|at| at as u8)));
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let digits = [b'a'; 64];
        let mut cases: Vec<Vec<u8>> = vec![vec![], digits[1..].to_vec(), vec![b'a'; 65]];
        for at in [0, 1, 31, 63] {
            let mut wrong = digits.to_vec();
            wrong[at] = b'g';
            cases.push(wrong.clone());
            wrong[at] = 0xff;
            cases.push(wrong);
        }
        for case in cases {
            let refused = Form::HexKey.read(text(&case), "the place").err().unwrap();
            let said = refused.to_string();
            assert!(matches!(refused, Error::InvalidKey { .. }), "{said}");
            assert!(said.contains("the place does not hold 64"), "{said}");
            assert!(!said.contains("aaaa"), "{said}");
        }
    }

    #[test]
    fn what_is_no_passphrase_is_refused() {
        for (bytes, part) in [(&b""[..], "empty"), (b"caf\xe9", "UTF-8")] {
            let refused = Form::Passphrase.read(text(bytes), "the place");
            let Err(Error::InvalidKey { problem }) = refused else {
                panic!("{bytes:?}");
            };
            assert!(problem.contains(part) && problem.contains("the place"));
        }
        let Ok(Secret::Passphrase(taken)) = Form::Passphrase.read(text("é".as_bytes()), "it")
        else {
            panic!("a passphrase");
        };
        assert_eq!(taken.expose(), "é".as_bytes());
    }
}
