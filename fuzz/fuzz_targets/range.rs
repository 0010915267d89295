//! Fuzzes key ranges, prefixes and their successors. See `checks/src/range.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::range;

libfuzzer_sys::fuzz_target!(|input: range::Input<'_>| range::check(&input));
