//! As `encrypted.rs`, with AES-256-GCM: which cipher it is makes no difference to the engine, so the contract and one sweep
//! show enough.

#[path = "conformance.rs"]
mod conformance;
#[path = "crash.rs"]
mod crash;
#[path = "rollback.rs"]
mod rollback;
#[path = "tampering.rs"]
mod tampering;
