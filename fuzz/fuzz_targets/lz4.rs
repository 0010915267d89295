//! Fuzzes compressed data blocks, with the length that an index claims. See `checks/src/lz4.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::lz4;

libfuzzer_sys::fuzz_target!(|input: lz4::Input<'_>| lz4::check(&input));
