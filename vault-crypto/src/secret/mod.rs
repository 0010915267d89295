//! Secrets in memory, and HKDF, which makes keys of keys.
//!
//! What a secret here promises:
//! - it is wiped when it is dropped, and does not move meanwhile;
//! - it has neither `Debug` nor `Clone`, and is compared in constant time;
//! - it lies in pages of its own (`pages`) that are kept out of swap and of core dumps where the system lets us.
//!
//! What no code can promise in this language: that no copy stays in a register, or on the stack of somebody who was
//! handed the bytes. What is computed with secrets here runs inside [`with_clean_stack`], which overwrites the stack that it
//! used. Keys that ciphers have expanded lie on the ordinary heap, and are wiped, but may be swapped.
//! So may what was decrypted, and a core dump holds both: who fears that switches core dumps off for the process
//! (`ulimit -c 0`) and encrypts swap.

mod pages;

use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use vault_core::random::Random;
use vault_core::{Error, Result};
use zeroize::Zeroize;

use pages::{PAGE_BYTES, PageOfSecrets, Slot};

/// Length of a key in bytes.
pub const KEY_BYTES: usize = 32;

/// Longest passphrase in bytes.
pub const PASSPHRASE_BYTES_MAX: usize = 1024;

/// How much of the stack [`with_clean_stack`] overwrites, in bytes. Key schedules and the blocks of Argon2 take a few
/// KiB of it.
const STACK_BYTES: usize = 32 << 10;

const _: () = assert!(PASSPHRASE_BYTES_MAX <= PAGE_BYTES);

/// A key of 32 bytes.
///
/// ```
/// use vault_crypto::SecretKey;
/// let mut bytes = [7; 32];
/// let key = SecretKey::from_bytes(&mut bytes);
/// assert_eq!(bytes, [0; 32]); // there is one copy of a key
/// assert!(key.equals(&[7; 32]));
/// ```
///
/// A key cannot be printed:
/// ```compile_fail,E0277
/// let key = vault_crypto::SecretKey::from_bytes(&mut [7; 32]);
/// println!("{key:?}");
/// ```
/// nor copied by accident:
/// ```compile_fail,E0599
/// let key = vault_crypto::SecretKey::from_bytes(&mut [7; 32]);
/// let copy = key.clone();
/// ```
pub struct SecretKey {
    slot: Slot,
}

impl SecretKey {
    /// Takes a key, and wipes where it came from.
    #[must_use]
    pub fn from_bytes(bytes: &mut [u8; KEY_BYTES]) -> Self {
        let mut key = Self::zeroed();
        key.slot.bytes_mut().copy_from_slice(bytes);
        bytes.zeroize();
        key
    }

    /// Makes a key in its place: `fill` is lent 32 zeros and writes all of them.
    ///
    /// # Errors
    /// What `fill` says.
    pub fn build<E>(fill: impl FnOnce(&mut [u8; KEY_BYTES]) -> Result<(), E>) -> Result<Self, E> {
        let mut key = Self::zeroed();
        fill(key.slot.bytes_mut())?;
        Ok(key)
    }

    /// A fresh random key.
    ///
    /// # Errors
    /// What the source says.
    pub fn random(random: &dyn Random) -> Result<Self> {
        Self::build(|bytes| random.fill(bytes))
    }

    /// A second copy of the key, for another owner.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let mut key = Self::zeroed();
        key.slot.bytes_mut().copy_from_slice(self.expose());
        key
    }

    /// The bytes of the key. Never copy them to where nothing wipes them.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        self.slot.bytes()
    }

    /// Whether the two are the same, in a time that says nothing of where they differ.
    #[must_use]
    pub fn equals(&self, other: &[u8; KEY_BYTES]) -> bool {
        self.expose().as_slice().ct_eq(other).into()
    }

    fn zeroed() -> Self {
        Self { slot: Slot::take() }
    }
}

/// Secret bytes of up to [`PASSPHRASE_BYTES_MAX`]: a passphrase.
///
/// ```compile_fail,E0277
/// let passphrase = vault_crypto::SecretBytes::new(b"a passphrase").unwrap();
/// println!("{passphrase:?}");
/// ```
pub struct SecretBytes {
    page: PageOfSecrets,
    len: usize,
}

impl SecretBytes {
    /// Copies the bytes. Whoever lends them wipes them.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] where there are more than [`PASSPHRASE_BYTES_MAX`].
    pub fn new(bytes: &[u8]) -> Result<Self> {
        let mut secret = Self::empty();
        let room = secret.page.bytes_mut().get_mut(..bytes.len());
        let (Some(room), true) = (room, bytes.len() <= PASSPHRASE_BYTES_MAX) else {
            return Err(too_long());
        };
        room.copy_from_slice(bytes);
        secret.len = bytes.len();
        Ok(secret)
    }

    /// Takes what somebody typed, and wipes it where it was.
    ///
    /// # Errors
    /// As [`SecretBytes::new`]; it is wiped all the same.
    pub fn from_string(mut text: String) -> Result<Self> {
        let secret = Self::new(text.as_bytes());
        text.zeroize();
        secret
    }

    /// The bytes. Never copy them to where nothing wipes them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.page.bytes()[..self.len]
    }

    /// A second copy, for another owner.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let mut copy = Self::empty();
        copy.page.bytes_mut().copy_from_slice(self.page.bytes());
        copy.len = self.len;
        copy
    }

    /// Nothing yet, and room for as much as a page holds.
    pub(crate) fn empty() -> Self {
        Self {
            page: PageOfSecrets::new(),
            len: 0,
        }
    }

    /// Takes what `read` puts into the rest of the room, in one go. Gives what `read` gave: how much that was.
    pub(crate) fn try_extend<E>(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> Result<Option<usize>, E>,
    ) -> Result<Option<usize>, E> {
        let taken = read(&mut self.page.bytes_mut()[self.len..])?;
        self.len += taken.unwrap_or(0);
        Ok(taken)
    }

    /// Leaves the first bytes only. What is cut off stays in the page, which is wiped as a whole.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

fn too_long() -> Error {
    Error::InvalidKey {
        problem: format!("it has over {PASSPHRASE_BYTES_MAX} bytes; give a shorter one"),
    }
}

/// HKDF-Extract with SHA-256 (RFC 5869): one key of a secret that need not be uniform.
#[must_use]
pub fn extract(salt: &[u8], secret: &[u8]) -> SecretKey {
    let mut key = SecretKey::zeroed();
    with_clean_stack(|| {
        let (mut prk, _) = Hkdf::<Sha256>::extract(Some(salt), secret);
        key.slot.bytes_mut().copy_from_slice(&prk);
        prk.as_mut_slice().zeroize();
    });
    key
}

/// HKDF-Expand with SHA-256 (RFC 5869) to 32 bytes: a key of a key, for one purpose. The parts of `info` are taken as if
/// they were one: whoever calls sees to it that they cannot be divided in two ways.
#[must_use]
pub fn expand(prk: &SecretKey, info: &[&[u8]]) -> SecretKey {
    let mut key = SecretKey::zeroed();
    with_clean_stack(|| expand_into(prk, info, key.slot.bytes_mut()));
    key
}

fn expand_into(prk: &SecretKey, info: &[&[u8]], key: &mut [u8; KEY_BYTES]) {
    Hkdf::<Sha256>::from_prk(prk.expose())
        .expect("32 bytes are as long as SHA-256 asks for")
        .expand_multi_info(info, key)
        .expect("32 bytes are below 255 blocks of SHA-256");
}

/// Runs `work`, and then overwrites the stack that it used, as far as that is within 32 KiB. What it gives back should be
/// a reference or a box: a value is copied to the caller's own stack.
pub fn with_clean_stack<T>(work: impl FnOnce() -> T) -> T {
    with_clean_stack_of::<STACK_BYTES, T>(work)
}

/// As [`with_clean_stack`], for work of which it is known how much stack it uses.
#[inline(always)]
pub(crate) fn with_clean_stack_of<const BYTES: usize, T>(work: impl FnOnce() -> T) -> T {
    // In a frame of its own: what the compiler keeps in this one is not overwritten.
    #[inline(never)]
    fn framed<T>(work: impl FnOnce() -> T) -> T {
        work()
    }
    #[inline(never)]
    fn wipe<const BYTES: usize>() {
        let mut stack = [0_u8; BYTES];
        // As far as the compiler knows, somebody reads the zeros: so it writes them.
        std::hint::black_box(&mut stack);
    }
    let result = framed(work);
    wipe::<BYTES>();
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use vault_core::random::SystemRandom;

    #[test]
    fn keys_are_equal_only_where_all_bytes_are() {
        let key = SecretKey::from_bytes(&mut [7; KEY_BYTES]);
        assert!(key.equals(&[7; KEY_BYTES]));
        for at in 0..KEY_BYTES {
            let mut other = [7; KEY_BYTES];
            other[at] ^= 1;
            assert!(!key.equals(&other), "byte {at}");
        }
        assert!(key.duplicate().equals(&[7; KEY_BYTES]));
    }

    #[test]
    fn random_keys_differ() {
        let a = SecretKey::random(&SystemRandom).unwrap();
        let b = SecretKey::random(&SystemRandom).unwrap();
        assert!(!a.equals(b.expose()));
        assert!(!a.equals(&[0; KEY_BYTES]));
    }

    #[test]
    fn a_key_that_cannot_be_built_is_an_error() {
        assert_eq!(SecretKey::build(|_| Err(5)).err(), Some(5));
    }

    #[test]
    fn secret_bytes_keep_what_they_are_given_and_refuse_what_is_too_long() {
        let secret = SecretBytes::new(b"correct horse").unwrap();
        assert_eq!(secret.expose(), b"correct horse");
        assert_eq!(secret.duplicate().expose(), b"correct horse");
        let longest = vec![b'x'; PASSPHRASE_BYTES_MAX];
        assert_eq!(SecretBytes::new(&longest).unwrap().expose(), longest);
        for length in [PASSPHRASE_BYTES_MAX + 1, PAGE_BYTES + 1] {
            let refused = SecretBytes::from_string("x".repeat(length));
            assert!(matches!(refused, Err(Error::InvalidKey { .. })));
        }
        assert_eq!(
            SecretBytes::from_string("typed".to_owned())
                .unwrap()
                .expose(),
            b"typed"
        );
    }

    #[test]
    fn bytes_are_read_in_place_and_cut() {
        let mut secret = SecretBytes::empty();
        for part in [b"ab", b"cd"] {
            let read = secret.try_extend(|room| {
                room[..2].copy_from_slice(part);
                Ok::<_, ()>(Some(2))
            });
            assert_eq!(read, Ok(Some(2)));
        }
        assert_eq!(secret.expose(), b"abcd");
        secret.truncate(3);
        secret.truncate(9);
        assert_eq!(secret.expose(), b"abc");
    }
}
