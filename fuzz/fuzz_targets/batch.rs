//! Fuzzes operations of a batch, and the numbers and strings of every format. See `checks/src/batch.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::batch;

libfuzzer_sys::fuzz_target!(|input: batch::Input<'_>| batch::check(&input));
