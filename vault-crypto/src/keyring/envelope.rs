//! What of a keyring needs a key: deriving the key-encryption key, wrapping the root key, sealing the body.
//!
//! - Nothing is decrypted before the commitment to its key was compared: neither cipher commits to its key, and a text that
//!   opens under two keys would tell a guesser about many passphrases at once.
//! - Each key made here seals one text, so its nonce is zero.

use std::path::Path;

use vault_core::random::Random;
use vault_core::transform::SALT_BYTES as HEADER_SALT_BYTES;
use vault_core::{Error, Result};
use zeroize::Zeroizing;

use super::format::{Front, Image, Method, SERVICE_BYTES_MAX, WRAPPED_BYTES, Wrapping};
use super::keys::KeyTable;
use crate::cipher::{Algorithm, NONCE_BYTES, TAG_BYTES};
use crate::kdf::{Kdf, KdfBounds, SALT_BYTES};
use crate::secret::{KEY_BYTES, SecretKey, expand, extract, with_clean_stack};
use crate::source::{KeyService, KeySource};
use crate::transform::parameters::Parameters;
use crate::transform::providers::Providers;

const COMMITMENT_LABEL: &[u8] = b"vault keyring commitment 1";
const WRAP_LABEL: &[u8] = b"vault keyring root 1";
const BODY_LABEL: &[u8] = b"vault keyring body 1";
const SERVICE_CONTEXT: &[u8] = b"vault keyring 1 ";
/// Every key of a keyring seals once.
const ONLY_NONCE: [u8; NONCE_BYTES] = [0; NONCE_BYTES];

/// Who opens a keyring.
#[derive(Clone, Copy)]
pub(crate) enum Access<'a> {
    /// Somebody who has the passphrase or key.
    Secret(&'a dyn KeySource),
    /// A key service of the host.
    Service(&'a dyn KeyService),
}

/// What is to wrap the root key from now on.
#[derive(Clone, Copy)]
pub(crate) enum NewAccess<'a> {
    /// A passphrase or key, by this derivation, or by the usual one for its kind.
    Secret(&'a dyn KeySource, Option<Kdf>),
    /// A key service of the host.
    Service(&'a dyn KeyService),
}

/// Why sealed parts of a keyring do not open, once the secret was found right.
pub(crate) struct Altered {
    /// Which part.
    pub(crate) what: &'static str,
}

impl Altered {
    /// The error for it.
    pub(crate) fn in_file(&self, path: &Path) -> Error {
        let problem = format!(
            "the passphrase or key is right, but {}: it was altered",
            self.what
        );
        Error::corruption(path, 0, problem)
    }
}

/// Derives the key-encryption key of a keyring, and checks that it is the one. Takes as long as the derivation does.
///
/// # Errors
/// [`Error::WrongKey`]; what the source of the secret says.
pub(crate) fn key_encryption_key(
    path: &Path,
    store: &[u8; 16],
    wrapping: &Wrapping,
    access: Access<'_>,
) -> Result<SecretKey> {
    let key = match (&wrapping.method, access) {
        (Method::Secret(kdf), Access::Secret(source)) => kdf
            .derive(&source.secret()?, &wrapping.salt)
            .map_err(|problem| problem.in_keyring(path))?,
        (Method::Service(wrapped), Access::Service(service)) => {
            let key = service.unwrap(wrapped, &service_context(store))?;
            extract(&wrapping.salt, key.expose())
        }
        (Method::Secret(_), Access::Service(_)) => {
            return Err(invalid(
                "a key service was given, and the store is opened with a passphrase or key",
            ));
        }
        (Method::Service(_), Access::Secret(_)) => {
            return Err(invalid(
                "a passphrase or key was given, and the store's keys are wrapped by a key service; give that",
            ));
        }
    };
    let right = expand(&key, &[COMMITMENT_LABEL]).equals(&wrapping.commitment);
    if !right {
        return Err(Error::WrongKey {
            path: path.to_path_buf(),
        });
    }
    Ok(key)
}

/// Makes the key-encryption key of a new wrapping, with all of that but the root key.
///
/// # Errors
/// [`Error::InvalidSetting`] for parameters out of bounds; what the random source and the source of the secret say.
pub(crate) fn new_wrapping(
    store: &[u8; 16],
    access: NewAccess<'_>,
    bounds: &KdfBounds,
    random: &dyn Random,
) -> Result<(SecretKey, Wrapping)> {
    let salt = random_bytes::<SALT_BYTES>(random)?;
    let (key, method) = match access {
        NewAccess::Secret(source, kdf) => {
            let secret = source.secret()?;
            let kdf = kdf.unwrap_or(Kdf::for_secret(&secret));
            let key = kdf
                .check(bounds)
                .and_then(|()| kdf.derive(&secret, &salt))
                .map_err(|problem| problem.in_setting("kdf"))?;
            (key, Method::Secret(kdf))
        }
        NewAccess::Service(service) => {
            let key = SecretKey::random(random)?;
            let wrapped = service.wrap(&key, &service_context(store))?;
            if !(1..=SERVICE_BYTES_MAX).contains(&wrapped.len()) {
                let problem = format!(
                    "it made {} bytes of a key; a keyring holds 1 to {SERVICE_BYTES_MAX}",
                    wrapped.len()
                );
                return Err(Error::KeyUnavailable {
                    source_name: service.name(),
                    problem,
                });
            }
            (extract(&salt, key.expose()), Method::Service(wrapped))
        }
    };
    let wrapping = Wrapping {
        method,
        salt,
        commitment: *expand(&key, &[COMMITMENT_LABEL]).expose(),
        wrap_salt: random_bytes(random)?,
        root: [0; WRAPPED_BYTES],
    };
    Ok((key, wrapping))
}

impl Wrapping {
    /// Seals the root key. A wrapping seals one only.
    pub(crate) fn seal_root(
        &mut self,
        store: &[u8; 16],
        algorithm: Algorithm,
        providers: &Providers,
        kek: &SecretKey,
        root: &SecretKey,
    ) {
        let aead = providers.of(algorithm).key(&self.key(kek));
        let aad = self.authenticated(store, algorithm);
        let (text, tag) = self.root.split_at_mut(KEY_BYTES);
        text.copy_from_slice(root.expose());
        let sealed = with_clean_stack(|| aead.seal(&ONLY_NONCE, &aad, text));
        tag.copy_from_slice(&sealed.expect("32 bytes are not too long for a cipher"));
    }

    fn key(&self, kek: &SecretKey) -> SecretKey {
        expand(kek, &[WRAP_LABEL, &self.wrap_salt])
    }
}

impl Image {
    /// Opens the root key.
    pub(crate) fn open_root(
        &self,
        providers: &Providers,
        kek: &SecretKey,
    ) -> Result<SecretKey, Altered> {
        let aead = providers.of(self.algorithm).key(&self.wrapping.key(kek));
        let aad = self.wrapping.authenticated(&self.store, self.algorithm);
        let (text, tag) = self
            .wrapping
            .root
            .split_first_chunk::<KEY_BYTES>()
            .expect("a wrapped key is longer than a key");
        let tag: &[u8; TAG_BYTES] = tag
            .try_into()
            .expect("the rest of a wrapped key is its tag");
        let root = with_clean_stack(|| {
            SecretKey::build(|place| {
                place.copy_from_slice(text);
                aead.open(&ONLY_NONCE, &aad, place, tag)
            })
        });
        root.map_err(|_| Altered {
            what: "the root key does not open",
        })
    }

    /// Opens the data keys.
    pub(crate) fn open_body(
        &self,
        providers: &Providers,
        root: &SecretKey,
    ) -> Result<KeyTable, Altered> {
        let key = expand(root, &[BODY_LABEL, &self.body_salt]);
        let aead = providers.of(self.algorithm).key(&key);
        let mut body = Zeroizing::new(self.sealed_body().to_vec());
        let (text, tag) = body
            .split_last_chunk_mut::<TAG_BYTES>()
            .expect("a keyring's structure is checked before it is opened");
        with_clean_stack(|| {
            aead.open(&ONLY_NONCE, self.front(), text, tag)
                .map_err(|_| "the data keys do not open")?;
            KeyTable::decode(self.epoch, text)
        })
        .map_err(|what| Altered { what })
    }

    /// Makes the keyring of these keys.
    ///
    /// # Errors
    /// What the random source says.
    pub(crate) fn seal(
        contents: &Contents<'_>,
        providers: &Providers,
        random: &dyn Random,
    ) -> Result<Self> {
        let Contents {
            version,
            store,
            algorithm,
            wrapping,
            root,
            table,
        } = *contents;
        let front = Front {
            version,
            store: *store,
            header_salt: random_bytes::<HEADER_SALT_BYTES>(random)?,
            parameters: Parameters {
                algorithm,
                epoch: table.epoch(),
            },
            wrapping,
            keys: table.len(),
            body_salt: random_bytes(random)?,
        };
        let bytes = front.encode();
        let key = expand(root, &[BODY_LABEL, &front.body_salt]);
        let aead = providers.of(algorithm).key(&key);
        let mut body = table.encode(TAG_BYTES);
        let tag = with_clean_stack(|| aead.seal(&ONLY_NONCE, &bytes, &mut body))
            .expect("a keyring is not too long for a cipher");
        body.extend_from_slice(&tag);
        Ok(Self::assemble(&front, bytes, &body))
    }
}

/// What a keyring is made of.
#[derive(Clone, Copy)]
pub(crate) struct Contents<'a> {
    pub(crate) version: u64,
    pub(crate) store: &'a [u8; 16],
    pub(crate) algorithm: Algorithm,
    pub(crate) wrapping: &'a Wrapping,
    pub(crate) root: &'a SecretKey,
    pub(crate) table: &'a KeyTable,
}

fn service_context(store: &[u8; 16]) -> Vec<u8> {
    [SERVICE_CONTEXT, store].concat()
}

fn random_bytes<const N: usize>(random: &dyn Random) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    random.fill(&mut bytes)?;
    Ok(bytes)
}

fn invalid(problem: &str) -> Error {
    Error::InvalidKey {
        problem: problem.to_owned(),
    }
}
