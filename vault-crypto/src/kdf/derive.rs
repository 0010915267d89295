//! Deriving.

use argon2::{Argon2, Block, Params, Version};
use zeroize::Zeroize;

use super::{Kdf, KdfProblem};
use crate::secret::{self, SecretKey, with_clean_stack};
use crate::source::Secret;

/// Length of the salt in bytes.
pub const SALT_BYTES: usize = 32;

impl Kdf {
    /// Derives the key-encryption key. Takes its time and memory; the parameters were checked before.
    ///
    /// # Errors
    /// [`KdfProblem`]: a secret of the other kind, or no memory.
    pub fn derive(
        &self,
        secret: &Secret,
        salt: &[u8; SALT_BYTES],
    ) -> Result<SecretKey, KdfProblem> {
        with_clean_stack(|| match (*self, secret) {
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
            ) => argon2id(memory_kib, passes, lanes, passphrase.expose(), salt),
            (Self::Pbkdf2HmacSha256 { iterations }, Secret::Passphrase(passphrase)) => {
                SecretKey::build(|key| {
                    pbkdf2::pbkdf2::<hmac::Hmac<sha2::Sha256>>(
                        passphrase.expose(),
                        salt,
                        iterations,
                        key,
                    )
                    .expect("HMAC takes keys of any length");
                    Ok(())
                })
            }
        })
    }
}

fn argon2id(
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    passphrase: &[u8],
    salt: &[u8],
) -> Result<SecretKey, KdfProblem> {
    let params = Params::new(memory_kib, passes, lanes, None)
        .expect("parameters are checked before they are used");
    let mut memory = Vec::new();
    let blocks = params.block_count();
    memory
        .try_reserve_exact(blocks)
        .map_err(|_| KdfProblem::NoMemory {
            bytes: (blocks * Block::SIZE) as u64,
        })?;
    memory.resize(blocks, Block::new());
    let argon = Argon2::new(argon2::Algorithm::Argon2id, Version::V0x13, params);
    let key = SecretKey::build(|key| {
        argon
            .hash_password_into_with_memory(passphrase, salt, key, memory.as_mut_slice())
            .expect("parameters are checked before they are used");
        Ok(())
    });
    for block in &mut memory {
        block.zeroize();
    }
    key
}
