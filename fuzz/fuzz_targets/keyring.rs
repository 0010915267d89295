//! Fuzzes KEYRING. See `checks/src/keyring.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::keyring;

libfuzzer_sys::fuzz_target!(|input: keyring::Input<'_>| keyring::check(&input));
