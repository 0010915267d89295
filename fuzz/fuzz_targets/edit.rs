//! Fuzzes edits of the manifest, and what they add up to. See `checks/src/edit.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::edit;

libfuzzer_sys::fuzz_target!(|input: edit::Input<'_>| edit::check(&input));
