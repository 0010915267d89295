//! Fuzzes whole manifests. See `checks/src/manifest.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::manifest;

libfuzzer_sys::fuzz_target!(|input: manifest::Input<'_>| manifest::check(&input));
