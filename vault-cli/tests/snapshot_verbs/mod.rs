//! The tests by what they are about, and what they have in common.

mod encrypted;
mod plain;
mod refused;
mod support;
mod told;
