//! Fuzzes data blocks: their structure, searches and walks. See `checks/src/block.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::block;

libfuzzer_sys::fuzz_target!(|input: block::Input<'_>| block::check(&input));
