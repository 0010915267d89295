//! The log-structured merge engine of Vault.

#![deny(unsafe_code)]

pub(crate) mod cursor;
pub(crate) mod internal_key;
pub(crate) mod memtable;
pub(crate) mod tombstones;
