//! Blocks of range tombstones, and the fragments that readers cut them into.
//!
//! Tombstones come in their order and comes back the same; fragments say of each key what a list of the
//! tombstones says.

use std::fmt;

use arbitrary::Arbitrary;
use vault_lsm::fuzzing::TombstoneBlock;

use crate::memory;

/// A block of range tombstones.
#[derive(Arbitrary)]
pub struct Input<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decoded = TombstoneBlock::decode(self.bytes);
        crate::debug_bytes(
            f,
            self.bytes,
            decoded.as_ref().map(|d| d as &dyn fmt::Debug),
        )
    }
}

/// Decodes them, and asks what covers the keys around their ends.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    let decoded = memory::bounded(input.bytes.len(), || TombstoneBlock::decode(input.bytes));
    let Some(block) = decoded else {
        return;
    };
    assert_eq!(
        TombstoneBlock::decode(&block.encode()).as_ref(),
        Some(&block)
    );
    assert!(block.iter().all(|(start, end, _)| start < end));
    let mut keys: Vec<Vec<u8>> = vec![Vec::new()];
    for (start, end, _) in block.iter().take(PROBED_MAX) {
        keys.extend([start.to_vec(), end.to_vec(), [start, &[0]].concat()]);
    }
    let asked: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    for (key, covering) in asked.iter().zip(block.covering(&asked)) {
        let covers = |&(start, end, _): &(&[u8], &[u8], u64)| start <= *key && *key < end;
        let mut listed: Vec<u64> = block.iter().filter(covers).map(|(_, _, s)| s).collect();
        listed.sort_unstable_by(|a, b| b.cmp(a));
        listed.dedup();
        assert_eq!(covering, listed, "{key:?}");
    }
}

/// Tombstones around whose ends keys are looked for.
const PROBED_MAX: usize = 64;
