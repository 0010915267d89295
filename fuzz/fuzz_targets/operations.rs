//! Feeds any bytes to the decoder of batches. See `checks/operations.rs` for what must hold.

#![no_main]

#[path = "../checks/operations.rs"]
mod operations;

libfuzzer_sys::fuzz_target!(|data: &[u8]| operations::check(data));
