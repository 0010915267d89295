//! The providers in Rust alone, which build anywhere.

use aes_gcm::Aes256Gcm;
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::{AeadInOut, KeyInit};

use super::{Aead, Algorithm, NONCE_BYTES, Provider, TAG_BYTES, TooLong, Unauthentic};
use crate::secret::{SecretKey, with_clean_stack, with_clean_stack_of};

/// ChaCha20-Poly1305 of the crate `chacha20poly1305`.
pub(super) const CHACHA: &dyn Provider = &ChaCha;
/// AES-256-GCM of the crate `aes-gcm`.
pub(super) const AES: &dyn Provider = &Aes;

#[derive(Debug)]
struct ChaCha;

#[derive(Debug)]
struct Aes;

impl Provider for ChaCha {
    fn name(&self) -> &'static str {
        "rust"
    }

    fn algorithm(&self) -> Algorithm {
        Algorithm::ChaCha20Poly1305
    }

    fn key(&self, key: &SecretKey) -> Box<dyn Aead> {
        with_clean_stack(|| Box::new(Keyed(ChaCha20Poly1305::new(key.expose().into()))))
    }
}

impl Provider for Aes {
    fn name(&self) -> &'static str {
        "rust"
    }

    fn algorithm(&self) -> Algorithm {
        Algorithm::Aes256Gcm
    }

    fn key(&self, key: &SecretKey) -> Box<dyn Aead> {
        with_clean_stack(|| Box::new(Keyed(Aes256Gcm::new(key.expose().into()))))
    }
}

/// How much stack a call uses, in bytes, and some more. Both ciphers leave parts of the key on it, for short texts as for long
/// ones: the state of ChaCha20, and round keys of AES as the widest registers of the processor hold them. To overwrite it
/// costs some 40 and 85 ns. How much it takes was found by `tests/memory.rs`: 2 to 2.5 and 7.5 KiB.
const CHACHA_STACK_BYTES: usize = 4 << 10;
const AES_STACK_BYTES: usize = 9 << 10;

struct Keyed<C>(C);

macro_rules! aead {
    ($cipher:ty, $stack_bytes:ident) => {
        impl Aead for Keyed<$cipher> {
            fn seal(
                &self,
                nonce: &[u8; NONCE_BYTES],
                aad: &[u8],
                buffer: &mut [u8],
            ) -> Result<[u8; TAG_BYTES], TooLong> {
                with_clean_stack_of::<$stack_bytes, _>(|| {
                    self.0
                        .encrypt_inout_detached(nonce.into(), aad, buffer.into())
                        .map(Into::into)
                        .map_err(|_| TooLong)
                })
            }

            fn open(
                &self,
                nonce: &[u8; NONCE_BYTES],
                aad: &[u8],
                buffer: &mut [u8],
                tag: &[u8; TAG_BYTES],
            ) -> Result<(), Unauthentic> {
                with_clean_stack_of::<$stack_bytes, _>(|| {
                    self.0
                        .decrypt_inout_detached(nonce.into(), aad, buffer.into(), tag.into())
                        .map_err(|_| Unauthentic)
                })
            }
        }
    };
}

aead!(ChaCha20Poly1305, CHACHA_STACK_BYTES);
aead!(Aes256Gcm, AES_STACK_BYTES);
