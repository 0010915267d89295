//! Fuzzes files of shipments, and replays of shipments that were changed. See `checks/src/shipment.rs` for what must hold.

#![no_main]

use vault_fuzz_checks::shipment;

libfuzzer_sys::fuzz_target!(|input: shipment::Input<'_>| shipment::check(&input));
