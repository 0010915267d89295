//! Fuzzes whole log segments, several at once, as recovery reads them. See `checks/src/log.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::log;

libfuzzer_sys::fuzz_target!(|input: log::Input<'_>| log::check(&input));
