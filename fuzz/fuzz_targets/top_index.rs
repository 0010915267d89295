//! Fuzzes top-level index blocks. See `checks/src/top_index.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::top_index;

libfuzzer_sys::fuzz_target!(|input: top_index::Input<'_>| top_index::check(&input));
