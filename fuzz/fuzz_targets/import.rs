//! Fuzzes texts that a vault is imported from. See `checks/src/import.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::import;

libfuzzer_sys::fuzz_target!(|input: import::Input<'_>| import::check(&input));
