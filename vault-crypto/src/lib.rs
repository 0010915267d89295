//! Encryption at rest for Vault: ciphers, key derivation, and where secrets come from.
//!
//! - [`cipher`]: authenticated ciphers behind one trait, by the number that a store records;
//! - [`kdf`]: from a passphrase or a key to the key that wraps the others;
//! - [`source`]: files, variables, commands and key services that hold the secret;
//! - [`secret`]: keys and passphrases in memory.
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

pub use cipher::Algorithm;
pub use kdf::{Kdf, KdfBounds, KdfProblem};
pub use keyring::{Keyring, KeyringInfo};
pub use secret::{SecretBytes, SecretKey};
pub use source::{KeyService, KeySource, Secret};
pub use transform::{EncryptedProtection, KeyringTransform};
