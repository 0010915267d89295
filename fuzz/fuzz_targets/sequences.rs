//! Fuzzes sequences of operations with crashes and faults, against a model. See
//! `checks/src/sequences.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::sequences;

libfuzzer_sys::fuzz_target!(|input: sequences::Input<'_>| sequences::check(&input));
