//! Fuzzes index blocks and their fences. See `checks/src/index.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::index;

libfuzzer_sys::fuzz_target!(|input: index::Input<'_>| index::check(&input));
