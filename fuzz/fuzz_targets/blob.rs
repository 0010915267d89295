//! Fuzzes whole blob files and pointers into them. See `checks/src/blob.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::blob;

libfuzzer_sys::fuzz_target!(|input: blob::Input<'_>| blob::check(&input));
