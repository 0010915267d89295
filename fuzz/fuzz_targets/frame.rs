//! Fuzzes frames around records, and the search for them behind damage. See `checks/src/frame.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::frame;

libfuzzer_sys::fuzz_target!(|input: frame::Input<'_>| frame::check(&input));
