//! What is wrong with parameters of key derivation.

use std::path::Path;

use vault_core::Error;

/// Why a key is not derived.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KdfProblem {
    /// This build does not know the algorithm.
    Unknown {
        /// Its number.
        id: u16,
    },
    /// A parameter that the algorithm does not have is set.
    Malformed {
        /// The algorithm's number.
        id: u16,
    },
    /// A parameter is outside what is accepted.
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
    /// A key is needed, and a passphrase was given.
    NeedsKey,
    /// A passphrase is needed, and a key was given.
    NeedsPassphrase,
    /// There is no memory for it.
    NoMemory {
        /// Bytes that it needs.
        bytes: u64,
    },
}

impl KdfProblem {
    /// The error for parameters that stand in a keyring.
    #[must_use]
    pub fn in_keyring(self, path: &Path) -> Error {
        match self {
            Self::NeedsKey | Self::NeedsPassphrase => Error::InvalidKey {
                problem: format!("{self:?}"),
            },
            Self::NoMemory { bytes } => Error::MemoryFull {
                what: "deriving the key",
                needed: bytes,
                available: 0,
            },
            other => Error::UnacceptableKeyring {
                path: path.to_owned(),
                problem: format!("{other:?}"),
            },
        }
    }

    /// The error for parameters that a caller asks for.
    #[must_use]
    pub fn in_setting(self, setting: &'static str) -> Error {
        match self {
            Self::NeedsKey | Self::NeedsPassphrase | Self::NoMemory { .. } => {
                self.in_keyring(Path::new(""))
            }
            other => Error::InvalidSetting {
                setting,
                problem: format!("{other:?}"),
            },
        }
    }
}
