//! The derivation itself, which takes its time and memory, and wipes what it used.

use std::convert::Infallible;

use argon2::{Argon2, Block, Params, Version};
use hmac::Hmac;
use sha2::Sha256;
use zeroize::Zeroize;

use super::{Kdf, KdfBounds, KdfProblem};
use crate::secret::{self, SecretKey, with_clean_stack};
use crate::source::Secret;

/// Length of the salt in bytes.
pub const SALT_BYTES: usize = 32;

impl Kdf {
    /// Derives the key-encryption key. The same secret, salt and parameters give the same key.
    ///
    /// With [`Kdf::ARGON2ID`] that takes some tenths of a second and 64 MiB.
    ///
    /// # Errors
    /// [`KdfProblem::NeedsKey`] or [`KdfProblem::NeedsPassphrase`] for a secret of the other kind; [`KdfProblem::NoMemory`];
    /// [`KdfProblem::OutOfBounds`] where the parameters are not even within the bounds for tests: whoever took them from
    /// outside [checked](Kdf::check) them against narrower ones.
    pub fn derive(
        &self,
        secret: &Secret,
        salt: &[u8; SALT_BYTES],
    ) -> Result<SecretKey, KdfProblem> {
        self.check(&KdfBounds::danger_weak())?;
        match (*self, secret) {
            (Self::None, Secret::Key(key)) => Ok(secret::extract(salt, key.expose())),
            (Self::None, Secret::Passphrase(_)) => Err(KdfProblem::NeedsKey),
            (_, Secret::Key(_)) => Err(KdfProblem::NeedsPassphrase),
            (
                Self::Argon2id {
                    memory_kib,
                    passes,
                    lanes,
                },
                Secret::Passphrase(passphrase),
            ) => argon2(
                &argon2id(memory_kib, passes, lanes),
                passphrase.expose(),
                salt,
            ),
            (Self::Pbkdf2HmacSha256 { iterations }, Secret::Passphrase(passphrase)) => {
                Ok(pbkdf2_hmac_sha256(passphrase.expose(), salt, iterations))
            }
        }
    }
}

fn argon2id(memory_kib: u32, passes: u32, lanes: u32) -> Argon2<'static> {
    let params = Params::new(memory_kib, passes, lanes, None)
        .expect("parameters within the bounds are within those of Argon2");
    Argon2::new(argon2::Algorithm::Argon2id, Version::V0x13, params)
}

/// The memory of one derivation. Wiped when dropped: it is a function of the passphrase that is cheap to check.
struct Memory(Vec<Block>);

impl Memory {
    fn new(blocks: usize) -> Result<Self, KdfProblem> {
        let mut memory = Vec::new();
        memory
            .try_reserve_exact(blocks)
            .map_err(|_| KdfProblem::NoMemory {
                bytes: (blocks as u64).saturating_mul(Block::SIZE as u64),
            })?;
        memory.resize(blocks, Block::new());
        Ok(Self(memory))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for block in &mut self.0 {
            block.zeroize();
        }
    }
}

pub(super) fn argon2(
    argon: &Argon2<'_>,
    passphrase: &[u8],
    salt: &[u8],
) -> Result<SecretKey, KdfProblem> {
    let mut memory = Memory::new(argon.params().block_count())?;
    SecretKey::build(|key| {
        with_clean_stack(|| {
            argon
                .hash_password_into_with_memory(passphrase, salt, key, memory.0.as_mut_slice())
                .expect("lengths of salt and key are within those of Argon2");
        });
        Ok(())
    })
}

pub(super) fn pbkdf2_hmac_sha256(passphrase: &[u8], salt: &[u8], iterations: u32) -> SecretKey {
    let Ok(key) = SecretKey::build(|key| {
        with_clean_stack(|| pbkdf2_into(passphrase, salt, iterations, key));
        Ok::<_, Infallible>(())
    });
    key
}

pub(super) fn pbkdf2_into(passphrase: &[u8], salt: &[u8], iterations: u32, key: &mut [u8]) {
    pbkdf2::pbkdf2::<Hmac<Sha256>>(passphrase, salt, iterations, key)
        .expect("HMAC takes keys of any length");
}
