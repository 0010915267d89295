//! From a passphrase or a key to the key that wraps the others.
//!
//! How that is done stands in the keyring, where whoever can write to the disk can change it. So what is read from there is
//! held against [`KdfBounds`] before it is used: what is too cheap would be guessed, what is too dear would keep an
//! opening busy for hours or take all memory.
//!
//! # The encoded form, 14 bytes
//! ```text
//!   0  algorithm   u16 1: Argon2id, 2: PBKDF2-HMAC-SHA256, 3: none, the secret is a key
//!   2  first       u32 memory in KiB; iterations; 0
//!   6  second      u32 passes; 0; 0
//!  10  third       u32 lanes; 0; 0
//! ```
//! Integers are little-endian.

mod derive;
mod problem;
#[cfg(test)]
mod vectors;

pub use derive::SALT_BYTES;
pub use problem::KdfProblem;

use crate::source::Secret;

/// Least memory of Argon2id in KiB: 19 MiB, the least that is recommended for passwords of a web site (OWASP).
const MEMORY_KIB_MIN: u32 = 19 << 10;
/// Most memory of Argon2id in KiB: 4 GiB, twice the first recommendation of RFC 9106.
const MEMORY_KIB_MAX: u32 = 4 << 20;
/// Least of passes times memory, in KiB: 19 MiB twice, or 38 MiB once.
const WORK_KIB_MIN: u64 = 38 << 10;
/// Most of passes times memory, in KiB: 16 GiB, about half a minute.
const WORK_KIB_MAX: u64 = 16 << 20;
const PASSES_MAX: u32 = 64;
const LANES_MAX: u32 = 16;
/// Argon2 takes no less memory than this for each lane, in KiB.
const KIB_PER_LANE_MIN: u32 = 8;
const ITERATIONS_MIN: u32 = 100_000;
const ITERATIONS_MAX: u32 = 100_000_000;

/// How the key-encryption key is made of the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kdf {
    /// Argon2id (RFC 9106, version 0x13), for passphrases.
    Argon2id {
        /// Memory in KiB.
        memory_kib: u32,
        /// Passes over it.
        passes: u32,
        /// Lanes. They are worked off one after the other: more of them cost no less time here, and let somebody who
        /// guesses use more processors at once.
        lanes: u32,
    },
    /// PBKDF2 with HMAC-SHA-256 (RFC 8018), for passphrases where rules ask for it. Needs no memory, so guessing is
    /// cheap on graphics cards: prefer Argon2id.
    Pbkdf2HmacSha256 {
        /// Iterations.
        iterations: u32,
    },
    /// For a secret that is a key of 32 bytes already, which nobody can guess: HKDF-Extract (RFC 5869) with the salt.
    None,
}

/// What parameters are accepted.
///
/// | | least | most |
/// | --- | --- | --- |
/// | memory of Argon2id | 19 MiB | 4 GiB, or [what the host allows](Self::memory_kib_max) |
/// | its passes | 1 | 64 |
/// | memory times passes | 38 MiB | 16 GiB |
/// | its lanes | 1 | 16 |
/// | iterations of PBKDF2 | 100,000 | 100,000,000 |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfBounds {
    memory_kib_max: u32,
    weak: bool,
}

impl KdfBounds {
    /// What every store is held to.
    pub const STANDARD: Self = Self {
        memory_kib_max: MEMORY_KIB_MAX,
        weak: false,
    };

    /// Accepts parameters that protect no passphrase, for tests that open many stores. The upper bounds hold.
    #[must_use]
    pub const fn danger_weak() -> Self {
        Self {
            weak: true,
            ..Self::STANDARD
        }
    }

    /// Accepts no more memory than this, in KiB: for a host that has less than 4 GiB to spare.
    #[must_use]
    pub const fn memory_kib_max(mut self, memory_kib: u32) -> Self {
        if memory_kib < self.memory_kib_max {
            self.memory_kib_max = memory_kib;
        }
        self
    }
}

impl Default for KdfBounds {
    fn default() -> Self {
        Self::STANDARD
    }
}

impl Kdf {
    /// Length of the encoded form in bytes.
    pub const ENCODED_BYTES: usize = 14;

    /// Argon2id with 64 MiB, 3 passes, 1 lane: the default for passphrases.
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
            memory_kib: KIB_PER_LANE_MIN,
            passes: 1,
            lanes: 1,
        }
    }

    /// The default for a secret of this kind: [`Kdf::ARGON2ID`] for a passphrase, [`Kdf::None`] for a key.
    #[must_use]
    pub const fn for_secret(secret: &Secret) -> Self {
        match secret {
            Secret::Passphrase(_) => Self::ARGON2ID,
            Secret::Key(_) => Self::None,
        }
    }

    /// The [encoded form](self).
    #[must_use]
    pub fn encode(&self) -> [u8; Self::ENCODED_BYTES] {
        let (id, parameters) = match *self {
            Self::Argon2id {
                memory_kib,
                passes,
                lanes,
            } => (1_u16, [memory_kib, passes, lanes]),
            Self::Pbkdf2HmacSha256 { iterations } => (2, [iterations, 0, 0]),
            Self::None => (3, [0; 3]),
        };
        let mut bytes = [0; Self::ENCODED_BYTES];
        bytes[..2].copy_from_slice(&id.to_le_bytes());
        for (place, parameter) in bytes[2..].chunks_exact_mut(4).zip(parameters) {
            place.copy_from_slice(&parameter.to_le_bytes());
        }
        bytes
    }

    /// Reads the encoded form, and checks what it asks for.
    ///
    /// ```
    /// use vault_crypto::{Kdf, KdfBounds, KdfProblem};
    /// let bytes = Kdf::ARGON2ID.encode();
    /// assert_eq!(Kdf::decode(&bytes, &KdfBounds::STANDARD), Ok(Kdf::ARGON2ID));
    ///
    /// let greedy = Kdf::Argon2id { memory_kib: 1 << 30, passes: 3, lanes: 1 }; // 1 TiB
    /// let refused = Kdf::decode(&greedy.encode(), &KdfBounds::STANDARD);
    /// assert!(matches!(refused, Err(KdfProblem::OutOfBounds { .. })));
    /// ```
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
            (1, [memory_kib, passes, lanes]) => Self::Argon2id {
                memory_kib,
                passes,
                lanes,
            },
            (2, [iterations, 0, 0]) => Self::Pbkdf2HmacSha256 { iterations },
            (3, [0, 0, 0]) => Self::None,
            (2 | 3, _) => return Err(KdfProblem::Malformed { id }),
            _ => return Err(KdfProblem::Unknown { id }),
        };
        kdf.check(bounds)?;
        Ok(kdf)
    }

    /// Checks the parameters. Whoever takes them from outside does that before anything else with them.
    ///
    /// # Errors
    /// [`KdfProblem::OutOfBounds`].
    pub fn check(&self, bounds: &KdfBounds) -> Result<(), KdfProblem> {
        let floor = |standard: u64, weak: u64| if bounds.weak { weak } else { standard };
        match *self {
            Self::Argon2id {
                memory_kib,
                passes,
                lanes,
            } => {
                let (memory, passes) = (u64::from(memory_kib), u64::from(passes));
                within("lanes of Argon2id", lanes.into(), 1, LANES_MAX.into())?;
                within("passes of Argon2id", passes, 1, PASSES_MAX.into())?;
                let least = floor(
                    MEMORY_KIB_MIN.into(),
                    u64::from(lanes) * u64::from(KIB_PER_LANE_MIN),
                );
                let most = bounds.memory_kib_max.into();
                within("KiB of memory for Argon2id", memory, least, most)?;
                within(
                    "KiB of memory times passes for Argon2id",
                    memory * passes,
                    floor(WORK_KIB_MIN, 1),
                    WORK_KIB_MAX,
                )
            }
            Self::Pbkdf2HmacSha256 { iterations } => within(
                "iterations of PBKDF2",
                iterations.into(),
                floor(ITERATIONS_MIN.into(), 1),
                ITERATIONS_MAX.into(),
            ),
            Self::None => Ok(()),
        }
    }
}

fn within(parameter: &'static str, found: u64, least: u64, most: u64) -> Result<(), KdfProblem> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(KdfProblem::OutOfBounds {
        parameter,
        found,
        least,
        most,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn argon2id(memory_kib: u32, passes: u32, lanes: u32) -> Kdf {
        Kdf::Argon2id {
            memory_kib,
            passes,
            lanes,
        }
    }

    const fn pbkdf2(iterations: u32) -> Kdf {
        Kdf::Pbkdf2HmacSha256 { iterations }
    }

    #[test]
    fn bytes_are_as_documented() {
        assert_eq!(
            Kdf::ARGON2ID.encode(),
            [1, 0, 0, 0, 1, 0, 3, 0, 0, 0, 1, 0, 0, 0]
        );
        assert_eq!(
            Kdf::PBKDF2.encode(),
            [2, 0, 0xc0, 0x27, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(
            Kdf::None.encode(),
            [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn what_is_within_bounds_is_accepted() {
        for kdf in [
            Kdf::ARGON2ID,
            Kdf::PBKDF2,
            Kdf::None,
            argon2id(19 << 10, 2, 1),
            argon2id(38 << 10, 1, 1),
            argon2id(2 << 20, 1, 4),
            argon2id(4 << 20, 4, 16),
            argon2id(256 << 10, 64, 1),
            pbkdf2(100_000),
            pbkdf2(100_000_000),
        ] {
            assert_eq!(Kdf::decode(&kdf.encode(), &KdfBounds::STANDARD), Ok(kdf));
        }
    }

    #[test]
    fn what_is_too_low_or_too_high_is_refused_with_what_is_accepted() {
        for (kdf, part) in [
            (argon2id((19 << 10) - 1, 3, 1), "KiB of memory for"),
            (argon2id((4 << 20) + 1, 1, 1), "KiB of memory for"),
            (argon2id(1 << 30, 3, 1), "KiB of memory for"), // 1 TiB
            (argon2id(u32::MAX, 64, 16), "KiB of memory for"),
            (argon2id(0, 3, 1), "KiB of memory for"),
            (argon2id(64 << 10, 0, 1), "passes"),
            (argon2id(64 << 10, 65, 1), "passes"),
            (argon2id(64 << 10, u32::MAX, 1), "passes"),
            (argon2id(64 << 10, 3, 0), "lanes"),
            (argon2id(64 << 10, 3, 17), "lanes"),
            (argon2id(19 << 10, 1, 1), "times passes"),
            (argon2id(4 << 20, 5, 1), "times passes"),
            (pbkdf2(99_999), "iterations"),
            (pbkdf2(0), "iterations"),
            (pbkdf2(100_000_001), "iterations"),
        ] {
            let problem = Kdf::decode(&kdf.encode(), &KdfBounds::STANDARD).unwrap_err();
            let KdfProblem::OutOfBounds {
                parameter,
                found,
                least,
                most,
            } = problem
            else {
                panic!("{kdf:?}: {problem:?}");
            };
            assert!(parameter.contains(part), "{kdf:?}: {problem}");
            assert!(!(least..=most).contains(&found), "{kdf:?}: {problem}");
            let text = problem.to_string();
            for number in [found, least, most] {
                assert!(text.contains(&number.to_string()), "{text}");
            }
        }
    }

    #[test]
    fn what_is_unknown_or_malformed_is_refused() {
        for id in [0_u16, 4, 0xffff] {
            let mut bytes = Kdf::ARGON2ID.encode();
            bytes[..2].copy_from_slice(&id.to_le_bytes());
            assert_eq!(
                Kdf::decode(&bytes, &KdfBounds::STANDARD),
                Err(KdfProblem::Unknown { id })
            );
        }
        for (kdf, unused) in [(Kdf::PBKDF2, 6..14), (Kdf::None, 2..14)] {
            for at in unused {
                let mut bytes = kdf.encode();
                bytes[at] = 1;
                assert!(
                    matches!(
                        Kdf::decode(&bytes, &KdfBounds::STANDARD),
                        Err(KdfProblem::Malformed { .. })
                    ),
                    "byte {at} of {kdf:?}"
                );
            }
        }
    }

    #[test]
    fn weak_parameters_need_bounds_that_say_so() {
        let weak = Kdf::danger_weak();
        let bytes = weak.encode();
        assert!(Kdf::decode(&bytes, &KdfBounds::STANDARD).is_err());
        assert_eq!(Kdf::decode(&bytes, &KdfBounds::danger_weak()), Ok(weak));
        for kdf in [
            argon2id(7, 1, 1),
            argon2id(31, 1, 4),
            argon2id(1 << 30, 1, 1),
            pbkdf2(0),
        ] {
            assert!(kdf.check(&KdfBounds::danger_weak()).is_err(), "{kdf:?}");
        }
    }

    #[test]
    fn a_host_can_allow_less_memory_and_not_more() {
        let small = KdfBounds::STANDARD.memory_kib_max(32 << 10);
        assert!(Kdf::ARGON2ID.check(&small).is_err());
        assert!(argon2id(32 << 10, 3, 1).check(&small).is_ok());
        assert_eq!(
            KdfBounds::STANDARD.memory_kib_max(u32::MAX),
            KdfBounds::STANDARD
        );
    }

    proptest! {
        /// Whatever the bytes are, what is decoded is within bounds and is encoded by the same bytes.
        #[test]
        fn decoding_is_the_inverse_of_encoding(
            id in 0_u16..6,
            parameters in prop::array::uniform3(prop_oneof![0_u32..70, 100_000..70_000_000_u32, any::<u32>()]),
        ) {
            let mut bytes = [0; Kdf::ENCODED_BYTES];
            bytes[..2].copy_from_slice(&id.to_le_bytes());
            for (place, parameter) in bytes[2..].chunks_exact_mut(4).zip(parameters) {
                place.copy_from_slice(&parameter.to_le_bytes());
            }
            if let Ok(kdf) = Kdf::decode(&bytes, &KdfBounds::STANDARD) {
                prop_assert_eq!(kdf.encode(), bytes);
                prop_assert!(kdf.check(&KdfBounds::danger_weak()).is_ok());
            }
        }
    }
}
