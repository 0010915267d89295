//! Fuzzes footers of tables. See `checks/src/footer.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::footer;

libfuzzer_sys::fuzz_target!(|input: footer::Input<'_>| footer::check(&input));
