//! What the benchmarks of this repository reach of this crate. Not part of its interface.

use crate::access::AccessVerb;
use crate::vault::Vault;

/// Notes so many reads of a key, as [`Vault::get`] notes each of its own, and reads nothing.
pub fn note_reads(vault: &Vault, key: &[u8], times: u64) {
    for _ in 0..times {
        let access = &vault.state().access;
        access.begin(vault.shared(), AccessVerb::Read, key).end();
    }
}
