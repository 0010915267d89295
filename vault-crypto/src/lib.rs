//! Encryption at rest for Vault: ciphers, key derivation, where secrets come from, and the keys of a store.
//!
//! - [`cipher`]: authenticated ciphers behind one trait, by the number that a store records;
//! - [`kdf`]: from a passphrase or a key to the key that wraps the others;
//! - [`source`]: files, variables, commands and key services that hold the secret;
//! - [`secret`]: keys and passphrases in memory;
//! - [`keyring`]: the keys of a store, wrapped in a file, and their epochs;
//! - [`transform`]: the seal on each block, under a key for each file.
//!
//! This crate depends on nothing of Vault but the contracts: it never learns what a block holds or how files are
//! laid out, and the engine never names a cipher.

#![deny(unsafe_code)]

pub mod cipher;
pub mod kdf;
pub mod keyring;
pub mod secret;
pub mod source;
pub mod transform;
mod verifier;

pub use cipher::Algorithm;
pub use kdf::{Kdf, KdfBounds, KdfProblem};
pub use keyring::{Keyring, KeyringInfo};
pub use secret::{SecretBytes, SecretKey};
pub use source::{KeyService, KeySource, Secret};
pub use transform::{EncryptedProtection, KeyringTransform};
pub use verifier::{SecretHash, sha256};
