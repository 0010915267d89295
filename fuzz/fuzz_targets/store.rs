//! Fuzzes whole stores: opened, read, written, flushed, compacted, opened again. See `checks/src/store.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::store;

libfuzzer_sys::fuzz_target!(|input: store::Input<'_>| store::check(&input));
