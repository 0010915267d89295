//! Fuzzes keys, values and records of the data layer. See `checks/src/stored.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::stored;

libfuzzer_sys::fuzz_target!(|input: stored::Input<'_>| stored::check(&input));
