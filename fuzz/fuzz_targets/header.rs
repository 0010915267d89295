//! Fuzzes the header of every file. See `checks/src/header.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::header;

libfuzzer_sys::fuzz_target!(|input: header::Input<'_>| header::check(&input));
