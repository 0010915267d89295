//! Fuzzes blocks of range tombstones, and what readers make of them. See `checks/src/tombstones.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::tombstones;

libfuzzer_sys::fuzz_target!(|input: tombstones::Input<'_>| tombstones::check(&input));
