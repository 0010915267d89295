//! Why a key is not derived.
//!
//! The same parameters come from a caller and from a file: what is wrong with them is said once, and whoever asked
//! makes an error of it that names where they came from.

use std::path::Path;

use vault_core::Error;

/// Why a key is not derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KdfProblem {
    /// This build does not know the algorithm.
    #[error(
        "key derivation {id} is not known to this build, which knows 1 (Argon2id), 2 (PBKDF2-HMAC-SHA256) and 3 (none); \
         open it with a newer Vault"
    )]
    Unknown {
        /// Its number.
        id: u16,
    },
    /// A parameter that the algorithm does not have is set.
    #[error("key derivation {id} comes with parameters that it does not have")]
    Malformed {
        /// The algorithm's number.
        id: u16,
    },
    /// A parameter is outside of what is accepted.
    #[error("{found} {parameter}: {least} to {most} are accepted")]
    OutOfBounds {
        /// What it is, with its unit.
        parameter: &'static str,
        /// What was asked for.
        found: u64,
        /// The least that is accepted.
        least: u64,
        /// The most that is accepted.
        most: u64,
    },
    /// A passphrase was given, and without derivation only a key will do.
    #[error("it is a passphrase, and a key of 32 bytes is needed")]
    NeedsKey,
    /// A key was given, and what there is derives from a passphrase.
    #[error("it is a key of 32 bytes, and a passphrase is needed")]
    NeedsPassphrase,
    /// There is no memory for it.
    #[error("there are no {bytes} bytes of memory for key derivation")]
    NoMemory {
        /// Bytes that it needs.
        bytes: u64,
    },
}

impl KdfProblem {
    /// The error for parameters that stand in a keyring: [`Error::UnacceptableKeyring`], or where they are not at fault,
    /// [`Error::InvalidKey`] for a secret of the other kind and [`Error::MemoryFull`].
    #[must_use]
    pub fn in_keyring(self, path: &Path) -> Error {
        self.independent()
            .unwrap_or_else(|| Error::UnacceptableKeyring {
                path: path.to_owned(),
                problem: self.to_string(),
            })
    }

    /// The error for parameters that a caller asks for: as [`KdfProblem::in_keyring`], but with [`Error::InvalidSetting`].
    #[must_use]
    pub fn in_setting(self, setting: &'static str) -> Error {
        self.independent().unwrap_or_else(|| Error::InvalidSetting {
            setting,
            problem: self.to_string(),
        })
    }

    /// The error where it is the same wherever the parameters came from.
    fn independent(self) -> Option<Error> {
        match self {
            Self::NeedsKey | Self::NeedsPassphrase => Some(Error::InvalidKey {
                problem: self.to_string(),
            }),
            Self::NoMemory { bytes } => Some(Error::MemoryFull {
                what: "key derivation",
                needed: bytes,
                available: 0,
            }),
            Self::Unknown { .. } | Self::Malformed { .. } | Self::OutOfBounds { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vault_core::ErrorKind;

    #[test]
    fn each_problem_becomes_the_error_of_whoever_asked() {
        let path = Path::new("store/KEYRING");
        let bounds = KdfProblem::OutOfBounds {
            parameter: "iterations of PBKDF2",
            found: 1,
            least: 100_000,
            most: 100_000_000,
        };
        for problem in [
            bounds,
            KdfProblem::Unknown { id: 9 },
            KdfProblem::Malformed { id: 2 },
        ] {
            let Error::UnacceptableKeyring {
                path: p,
                problem: text,
            } = problem.in_keyring(path)
            else {
                panic!("{problem}");
            };
            assert_eq!((p.as_path(), text), (path, problem.to_string()));
            let Error::InvalidSetting {
                setting,
                problem: text,
            } = problem.in_setting("kdf")
            else {
                panic!("{problem}");
            };
            assert_eq!((setting, text), ("kdf", problem.to_string()));
        }
        for problem in [KdfProblem::NeedsKey, KdfProblem::NeedsPassphrase] {
            for error in [problem.in_keyring(path), problem.in_setting("kdf")] {
                assert!(matches!(error, Error::InvalidKey { .. }), "{error}");
            }
        }
        let error = KdfProblem::NoMemory { bytes: 1 << 32 }.in_keyring(path);
        assert_eq!(error.kind(), ErrorKind::Full);
    }
}
