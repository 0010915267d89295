//! Fuzzes whole tables: opening, lookups, scans both ways, range tombstones. See `checks/src/table.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::table;

libfuzzer_sys::fuzz_target!(|input: table::Input<'_>| table::check(&input));
