//! Fuzzes records of the log. See `checks/src/record.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::record;

libfuzzer_sys::fuzz_target!(|input: record::Input<'_>| record::check(&input));
