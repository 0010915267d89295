//! Fuzzes options of keyspaces. See `checks/src/options.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::options;

libfuzzer_sys::fuzz_target!(|input: options::Input<'_>| options::check(&input));
