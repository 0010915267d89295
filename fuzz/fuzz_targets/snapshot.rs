//! Fuzzes manifests of snapshots, and archives that were changed. See `checks/src/snapshot.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::snapshot;

libfuzzer_sys::fuzz_target!(|input: snapshot::Input<'_>| snapshot::check(&input));
