//! Fuzzes properties of tables. See `checks/src/properties.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::properties;

libfuzzer_sys::fuzz_target!(|input: properties::Input<'_>| properties::check(&input));
