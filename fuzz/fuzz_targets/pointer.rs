//! Fuzzes CURRENT. See `checks/src/pointer.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::pointer;

libfuzzer_sys::fuzz_target!(|input: pointer::Input<'_>| pointer::check(&input));
