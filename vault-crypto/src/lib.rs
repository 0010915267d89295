//! Encryption at rest for Vault: ciphers, key derivation, keys and their rotation. **Nothing of it is
//! there yet**, and a store is not encrypted: `SECURITY.md` says what protects it today.
//!
//! The place is kept so that what depends on what is settled. This crate will implement
//! [`Transform`](vault_core::transform::Transform), through which the engine seals and opens every
//! block, and will depend on nothing else of Vault: it never learns what a block holds or how files are
//! laid out, and the engine never names a cipher.

#![forbid(unsafe_code)]
