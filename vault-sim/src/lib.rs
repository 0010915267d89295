//! Deterministic simulation of the engine, and soaks of it on a real disk.

#![forbid(unsafe_code)]

pub mod soak;
