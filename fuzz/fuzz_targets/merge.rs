//! Fuzzes operands of the merge operators that every store knows. See `checks/src/merge.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::merge;

libfuzzer_sys::fuzz_target!(|input: merge::Input<'_>| merge::check(&input));
