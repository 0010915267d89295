//! As `encrypted.rs`, with AES-256-GCM: which cipher it is makes no difference to the engine, so the contract shows
//! enough; to somebody who tampers with files it might.

#![expect(
    clippy::duplicate_mod,
    reason = "each test file has its own copy of what it shares with others"
)]

#[path = "conformance.rs"]
mod conformance;
#[path = "rollback.rs"]
mod rollback;
#[path = "tampering.rs"]
mod tampering;
