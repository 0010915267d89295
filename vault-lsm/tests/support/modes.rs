//! Whether the stores of a test are plain or encrypted.
//!
//! `tests/encrypted.rs` and `tests/encrypted_with_aes.rs` take in the other test files once more, as modules. Where this
//! module finds itself in one of them, what [`protected`] makes is encrypted; everywhere else but in `tests/tampering.rs` and
//! `tests/rollback.rs` it is plain. So each of those tests holds in both modes without knowing of them.
#![allow(dead_code, reason = "each test binary uses a part of this")]

use std::sync::Arc;

use vault_core::transform::Protection;
use vault_crypto::source::RawKey;
use vault_crypto::{Algorithm, EncryptedProtection, SecretKey};
use vault_lsm::LsmOptions;

/// The key of every encrypted store in these tests: no time is spent on deriving it.
const KEY: [u8; 32] = *b"a key of the tests, not a secret";

/// How deep this module lies in a test file.
const DEPTH_BELOW_FILE: usize = 2;

/// What seals the stores of this test; nothing where they are plain.
pub(crate) fn algorithm() -> Option<Algorithm> {
    match module_path!().split("::").next() {
        Some("encrypted" | "tampering" | "rollback") => Some(Algorithm::ChaCha20Poly1305),
        Some("encrypted_with_aes") => Some(Algorithm::Aes256Gcm),
        _ => None,
    }
}

/// Whether the stores of this test are encrypted.
pub(crate) fn encrypted() -> bool {
    algorithm().is_some()
}

/// How the stores of this test are protected, and no other way.
pub(crate) fn protected(options: LsmOptions) -> LsmOptions {
    match algorithm() {
        Some(algorithm) => options.protection(protection(algorithm)),
        None => options,
    }
}

/// Encryption under the key of the tests.
pub(crate) fn protection(algorithm: Algorithm) -> Arc<dyn Protection> {
    let key = RawKey::new(SecretKey::from_bytes(&mut KEY.clone()));
    Arc::new(EncryptedProtection::with_source(Arc::new(key)).algorithm(algorithm))
}

/// The full name of a test of the same file, as the harness wants it: with the module that the file is, where it was
/// taken in.
pub(crate) fn full_name(test: &str) -> String {
    let modules: Vec<&str> = module_path!().split("::").skip(1).collect();
    let of_file = &modules[..modules.len() - DEPTH_BELOW_FILE];
    let names = of_file.iter().copied().chain([test]);
    names.collect::<Vec<_>>().join("::")
}
