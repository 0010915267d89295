//! Fuzzes filter blocks. See `checks/src/filter.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::filter;

libfuzzer_sys::fuzz_target!(|input: filter::Input<'_>| filter::check(&input));
